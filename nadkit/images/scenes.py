"""Rendered scenes: pictures whose class is a rule over two objects, with every object's pixels known.

A picture shows most of four things that can stand on something (boat, house, tree, lamp), four things
that something can stand on (water, hill, table, road) and a few extras (sun, moon, window, car), spread
over a backdrop. Its class is the one pair of `RULES` in which the first stands ON the second. The same
objects are there in nearly every picture of every class, and colours are drawn without regard to the
class, so neither an object nor a colour gives the class away: only what stands on what.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from nadkit.errors import ImageError, closest
from nadkit.images import _scene_parts as parts
from nadkit.images._scene_drawings import NAMES


@dataclass(frozen=True)
class Rule:
    """What makes a picture a scene of one class: object `a` stands `relation` object `b`.

    Examples
    --------
    >>> RULES["harbour"].sentence
    'a boat on water'
    """

    a: str
    b: str
    relation: str
    sentence: str


CLASS_NAMES: tuple[str, ...] = (
    "harbour", "lagoon", "village", "woodland", "conservatory", "study", "boulevard", "boatyard",
)  # fmt: skip
OBJECT_NAMES: tuple[str, ...] = NAMES
#: class name -> its rule. Each of the eight objects belongs to two classes: the rules form a ring.
RULES: Mapping[str, Rule] = MappingProxyType(
    {
        name: Rule(a, b, "on", f"a {a} on " + (b if b == "water" else f"a {b}"))
        for name, (a, b) in zip(CLASS_NAMES, parts.PAIRS, strict=True)
    }
)
_SPLITS = ("train", "test")


@dataclass(frozen=True)
class SceneObjects:
    """Where every named object of rendered scenes is, and the same scenes with their rule broken.

    Examples
    --------
    >>> pixels, labels, objects = render(1, seed=3)
    >>> len(objects), objects[0].masks.shape
    (8, torch.Size([1, 12, 32, 32]))
    >>> broken = objects.counterfactual([0, 1])
    >>> bool((broken != pixels[:2]).any())
    True

    Parameters
    ----------
    keys
        `(n,)` int64: what each picture is drawn from; eight bytes are enough to draw it again.
    scenes
        `(n,)` int64: the index in `CLASS_NAMES` of each picture's rule, whatever labels it is given later.
    owners
        `(n, 32, 32)` uint8: the index in `OBJECT_NAMES` of what is seen at each pixel; `len(OBJECT_NAMES)`
        is the backdrop or a blot in front.
    """

    keys: Tensor
    scenes: Tensor
    owners: Tensor

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the objects, in the order of `masks` and `present`."""
        return OBJECT_NAMES

    @property
    def masks(self) -> Tensor:
        """The visible pixels of each object, `(n, n_objects, 32, 32)` bool, made anew at each access."""
        return _masks(self.owners)

    @property
    def present(self) -> Tensor:
        """Which objects can be seen, `(n, n_objects)` bool."""
        return self.masks.flatten(2).any(2)

    @property
    def evidence(self) -> Tensor:
        """The visible pixels of the two objects of each picture's rule, `(n, 32, 32)` bool."""
        pair = torch.tensor([[OBJECT_NAMES.index(name) for name in names] for names in parts.PAIRS])
        chosen = pair[self.scenes]
        return (self.owners == chosen[:, 0, None, None]) | (self.owners == chosen[:, 1, None, None])

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int | slice | Sequence[int] | Sequence[bool] | Tensor) -> SceneObjects:
        """Return the chosen pictures; one number gives a single picture, still as a `SceneObjects`."""
        at = self._positions(index)
        return SceneObjects(self.keys[at], self.scenes[at], self.owners[at])

    def counterfactual(
        self,
        index: int | slice | Sequence[int] | Sequence[bool] | Tensor | None = None,
        *,
        without: Literal["a", "b"] = "a",
    ) -> Tensor:
        """Return the same pictures without one object of their rule, so that no class's rule holds.

        Layout, colours, light, blots and noise stay; only pixels that the object covered change, and what
        was behind it appears.

        Examples
        --------
        >>> pixels, labels, objects = render(1)
        >>> changed = (objects.counterfactual() != pixels).any(1)
        >>> bool((changed & ~objects.evidence).any())
        False

        Parameters
        ----------
        index
            Which pictures (as in `objects[index]`), or None for all.
        without
            "a" leaves out what stands on the other (the boat of "a boat on water"), "b" what it stands on.

        Returns
        -------
        Tensor
            `(m, 3, 32, 32)` uint8.

        Raises
        ------
        ImageError
            `without` is neither "a" nor "b", or an index is out of range.
        """
        return self._without(index, without)[0]

    def counterfactual_masks(
        self,
        index: int | slice | Sequence[int] | Sequence[bool] | Tensor | None = None,
        *,
        without: Literal["a", "b"] = "a",
    ) -> Tensor:
        """Return the masks of `counterfactual(index, without=without)`, `(m, n_objects, 32, 32)` bool.

        Examples
        --------
        >>> objects = render(1)[2]
        >>> scene_of(objects.counterfactual_masks([0])).tolist()
        [-1]
        """
        return _masks(self._without(index, without)[1])

    def _without(
        self, index: int | slice | Sequence[int] | Sequence[bool] | Tensor | None, without: str
    ) -> tuple[Tensor, Tensor]:
        if without not in ("a", "b"):
            raise ImageError(f"no object {without!r} in a rule; leave out 'a' or 'b'")
        chosen = self if index is None else self[index]
        labels = chosen.scenes.numpy()
        skip = np.array([OBJECT_NAMES.index(names["ab".index(without)]) for names in parts.PAIRS])[labels]
        pixels, owners = parts.paint(chosen.keys.numpy().view(np.uint64), labels, skip)
        return torch.from_numpy(pixels), torch.from_numpy(owners)

    def _positions(self, index: int | slice | Sequence[int] | Sequence[bool] | Tensor) -> Tensor:
        everything = torch.arange(len(self))
        if not isinstance(index, int | slice):
            index = torch.as_tensor(index)
            index = index.long() if len(index) == 0 else index
        try:
            return everything[index].reshape(-1)
        except IndexError as error:
            raise ImageError(f"pictures {index!r} asked for; there are {len(self)} ({error})") from None


def render(per_class: int, *, seed: int = 0, split: str = "train") -> tuple[Tensor, Tensor, SceneObjects]:
    """Return rendered scenes, their classes, and where their objects are.

    Picture i of a class is the same however many are asked for, so the first n of more pictures are the n
    pictures; the two splits have no picture in common.

    Examples
    --------
    >>> pixels, labels, objects = render(2, seed=0, split="test")
    >>> pixels.shape, pixels.dtype, labels[:4].tolist()
    (torch.Size([16, 3, 32, 32]), torch.uint8, [0, 0, 1, 1])

    Parameters
    ----------
    per_class
        Pictures of each class, at least 1.
    seed
        Any whole number; another seed gives other pictures.
    split
        "train" or "test".

    Returns
    -------
    tuple of (Tensor, Tensor, SceneObjects)
        Pixels `(n, 3, 32, 32)` uint8, indices in `CLASS_NAMES` `(n,)` int64, class after class.

    Raises
    ------
    ImageError
        An unknown split, or `per_class` below 1.
    """
    if split not in _SPLITS:
        raise ImageError(f"no split {split!r} of the scenes; {closest(str(split), _SPLITS)}")
    if per_class < 1:
        raise ImageError(f"{per_class} pictures per class asked for; ask for at least 1")
    stream, classes = _SPLITS.index(split), range(len(CLASS_NAMES))
    keys = np.concatenate([parts.picture_keys(seed, stream, label, per_class) for label in classes])
    labels = np.repeat(np.arange(len(CLASS_NAMES)), per_class)
    pixels, owners = parts.paint(keys, labels)
    scenes = torch.from_numpy(labels)
    objects = SceneObjects(torch.from_numpy(keys.view(np.int64)), scenes.clone(), torch.from_numpy(owners))
    return torch.from_numpy(pixels), scenes, objects


def scene_of(masks: Tensor) -> Tensor:
    """Return the class whose rule holds in each picture, judged by the objects' masks alone.

    `a` stands on `b` when the lowest visible row of `a` is at most one row over, and at most four rows
    under, the highest visible row of `b`, the middle of that row is at most a column beside `b`, and the
    middle of the whole of `a` at most one and a half.

    Examples
    --------
    >>> _, labels, objects = render(1)
    >>> bool((scene_of(objects.masks) == labels).all())
    True

    Parameters
    ----------
    masks
        `(n, n_objects, 32, 32)` bool, as `SceneObjects.masks`.

    Returns
    -------
    Tensor
        `(n,)` int64: the index in `CLASS_NAMES`; -1 where no rule holds, -2 where several do.
    """
    rows, columns = masks.any(3), masks.any(2)
    top, bottom = _first(rows), masks.shape[2] - 1 - _first(rows.flip(2))
    left, right = _first(columns), masks.shape[3] - 1 - _first(columns.flip(2))
    foot = masks.gather(2, bottom[:, :, None, None].expand(-1, -1, 1, masks.shape[3]))[:, :, 0]
    foot_middle = (_first(foot) + masks.shape[3] - 1 - _first(foot.flip(2))) / 2
    middle = (left + right) / 2
    seen = rows.any(2)
    held = []
    for names in parts.PAIRS:
        a, b = (OBJECT_NAMES.index(name) for name in names)
        over = (foot_middle[:, a] >= left[:, b] - 1) & (foot_middle[:, a] <= right[:, b] + 1)
        over &= (middle[:, a] >= left[:, b] - 1.5) & (middle[:, a] <= right[:, b] + 1.5)
        gap = top[:, b] - bottom[:, a]
        held.append(seen[:, a] & seen[:, b] & over & (gap <= 2) & (gap >= -4))
    holds = torch.stack(held, 1)
    scene = holds.int().argmax(1)
    scene[holds.sum(1) == 0] = -1
    scene[holds.sum(1) > 1] = -2
    return scene


def _first(lines: Tensor) -> Tensor:
    return lines.int().argmax(2)


def _masks(owners: Tensor) -> Tensor:
    kinds = torch.arange(len(OBJECT_NAMES), dtype=torch.uint8)
    return owners[:, None] == kinds[None, :, None, None]
