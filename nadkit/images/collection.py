"""`Images`: labelled pictures in memory or on disk, checked when they are made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor

from nadkit.errors import ImageError, closest
from nadkit.images.lazy import LazyPixels, rows_of

if TYPE_CHECKING:
    from nadkit.images.scenes import SceneObjects

Index = int | slice | Sequence[int] | Tensor


class Batch(NamedTuple):
    """A few pictures decoded in memory: pixels (N, C, H, W) and labels (N,)."""

    pixels: Tensor
    labels: Tensor


@dataclass(frozen=True, eq=False)
class Mosaics:
    """2 × 2 mosaics of pictures of four distinct classes.

    Parameters
    ----------
    pixels
        (M, C, 2H, 2W), of the dtype of the pictures.
    classes
        (M, 4) int64: the class index of each quadrant, in the order top left, top right, bottom left, bottom right.
    sources
        (M, 4) int64: which picture of the images fills each quadrant.
    class_names
        The names that `classes` points to.
    """

    pixels: Tensor
    classes: Tensor
    sources: Tensor
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pixels)


class _Objects(Protocol):
    def __len__(self) -> int: ...


@dataclass(frozen=True, eq=False, repr=False)
class Images:
    """Labelled pictures with the names of their classes.

    Everything that picks pictures (`images[...]`, `split`, `take`, `subset`, `of`) returns `Images` again and
    keeps the order of the pictures. `images.pixels[index]` is a tensor for pictures in memory and on disk alike.

    Examples
    --------
    >>> images = Images(torch.zeros(4, 1, 2, 2), torch.tensor([0, 0, 1, 1]), ("cat", "dog"))
    >>> images
    Images(4 pictures, 1 × 2 × 2 float32, 2 classes: cat, dog)
    >>> images.take(1).counts()
    {'cat': 1, 'dog': 1}

    Parameters
    ----------
    pixels
        (N, C, H, W) uint8 (0-255) or float32 (finite), or `LazyPixels`.
    labels
        (N,) int64: class indices.
    class_names
        One name for each class; a class may have no picture here.
    objects
        What each picture is composed of, for the rendered scenes.

    Raises
    ------
    ImageError
        There is no picture, a shape or dtype is another, a pixel is NaN or infinite, a label lies outside the class
        names, or lengths differ.
    """

    pixels: Tensor | LazyPixels
    labels: Tensor
    class_names: tuple[str, ...]
    objects: SceneObjects | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.class_names, tuple):
            object.__setattr__(self, "class_names", tuple(self.class_names))
        self.check()

    def check(self) -> None:
        """Raise ImageError, saying what is wrong, unless the pictures are sound; done when they are made, too."""
        pixels, labels, names = self.pixels, self.labels, self.class_names
        if not isinstance(pixels, Tensor | LazyPixels):
            raise ImageError(
                f"pixels are {_kind(pixels)}; a tensor (N, C, H, W) is needed: convert with torch.as_tensor"
            )
        if pixels.ndim != 4 or 0 in tuple(pixels.shape)[1:]:
            raise ImageError(
                f"pixels have the shape {tuple(pixels.shape)}; (N, C, H, W) is needed: a grey picture has C = 1, "
                "one picture N = 1"
            )
        if len(pixels) == 0:
            raise ImageError("there is no picture; at least one is needed: check how the pictures were picked")
        if pixels.dtype not in (torch.uint8, torch.float32):
            raise ImageError(
                f"pixels are {pixels.dtype}; uint8 (0-255) or float32 is needed: "
                "convert with pixels.float() or pixels.to(torch.uint8)"
            )
        if not names or not all(isinstance(name, str) and name for name in names):
            raise ImageError(f"class names are {names!r}; at least one, and each a text, is needed")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ImageError(f"class names occur twice: {', '.join(twice)}; give every class its own name")
        if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.ndim != 1:
            there = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else _kind(labels)
            raise ImageError(f"labels are {there}; an int64 tensor (N,) is needed: torch.as_tensor(labels).long()")
        if len(labels) != len(pixels):
            raise ImageError(f"there are {len(pixels)} pictures and {len(labels)} labels; give one label a picture")
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= len(names):
            wrong = high if high >= len(names) else low
            raise ImageError(
                f"label {wrong} (picture {int((labels == wrong).nonzero()[0])}) lies outside the {len(names)} class "
                f"names; labels are 0 to {len(names) - 1}: give more class names or mend the labels"
            )
        if isinstance(pixels, Tensor) and pixels.dtype == torch.float32:
            check_finite(pixels)
        if self.objects is not None and len(self.objects) != len(pixels):
            raise ImageError(
                f"there are {len(pixels)} pictures and objects for {len(self.objects)}; give the objects of each"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        names = ", ".join(self.class_names[:6]) + (", …" if len(self.class_names) > 6 else "")
        size = " × ".join(str(side) for side in tuple(self.pixels.shape)[1:])
        dtype = str(self.pixels.dtype).removeprefix("torch.")
        where = " on disk" if isinstance(self.pixels, LazyPixels) else ""
        return f"Images({len(self)} pictures{where}, {size} {dtype}, {len(self.class_names)} classes: {names})"

    def __getitem__(self, index: Index) -> Images:
        rows = rows_of(index, len(self))
        if len(rows) == 0:
            raise ImageError(f"no picture of {len(self)} was picked; at least one is needed: check the index")
        pixels = self.pixels.select(rows) if isinstance(self.pixels, LazyPixels) else self.pixels[rows]
        objects = None if self.objects is None else self.objects[rows]
        return Images(pixels, self.labels[rows], self.class_names, objects)

    def __iter__(self) -> Iterator[Images]:
        return (self[position] for position in range(len(self)))

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield the pictures in order, decoded, `size` at a time; the last batch may be smaller.

        Examples
        --------
        >>> images = Images(torch.zeros(5, 1, 2, 2), torch.tensor([0, 0, 0, 1, 1]), ("cat", "dog"))
        >>> [len(labels) for pixels, labels in images.batches(2)]
        [2, 2, 1]

        Parameters
        ----------
        size
            Pictures a batch, at least 1.

        Raises
        ------
        ImageError
            `size` is below 1.
        """
        if size < 1:
            raise ImageError(f"batches of {size} pictures were asked for; give a size of at least 1")
        return (
            Batch(self.pixels[start : start + size], self.labels[start : start + size])
            for start in range(0, len(self), size)
        )

    def in_memory(self) -> Images:
        """Return the same pictures, all decoded, so that `pixels` is a tensor."""
        if isinstance(self.pixels, Tensor):
            return self
        return Images(self.pixels[:], self.labels, self.class_names, self.objects)

    def counts(self) -> dict[str, int]:
        """Return the number of pictures of each class, in the order of the class names."""
        numbers = torch.bincount(self.labels, minlength=len(self.class_names)).tolist()
        return dict(zip(self.class_names, numbers, strict=True))

    def of(self, class_name: str) -> Images:
        """Return the pictures of one class; class names and labels stay as they are.

        Raises
        ------
        ImageError
            There is no such class (the closest are named), or it has no picture.
        """
        return self[self._rows_of_class(self._class_index(class_name))]

    def subset(self, class_names: Sequence[str]) -> Images:
        """Return the pictures of these classes only, relabelled in the order given.

        Examples
        --------
        >>> images = Images(torch.zeros(3, 1, 2, 2), torch.tensor([0, 1, 2]), ("cat", "dog", "cow"))
        >>> images.subset(["cow", "cat"]).labels
        tensor([1, 0])

        Parameters
        ----------
        class_names
            Distinct names among `images.class_names`.

        Raises
        ------
        ImageError
            A class is not there (the closest are named), occurs twice or has no picture.
        """
        names = (class_names,) if isinstance(class_names, str) else tuple(class_names)
        if not names:
            raise ImageError("a subset of no class was asked for; give at least one class name")
        if len(set(names)) < len(names):
            raise ImageError(f"a subset of {', '.join(names)} was asked for; give every class once")
        renumber = torch.full((len(self.class_names),), -1, dtype=torch.int64)
        for position, name in enumerate(names):
            index = self._class_index(name)
            self._rows_of_class(index)
            renumber[index] = position
        labels = renumber[self.labels]
        part = self[labels >= 0]
        return Images(part.pixels, labels[labels >= 0], names, part.objects)

    def take(self, per_class: int, seed: int = 0) -> Images:
        """Return `per_class` pictures of every class, picked at random by `seed`.

        A class with no picture at all (as `of` and folders with fewer classes than the network leave them) is left
        out; `counts` shows which.

        Parameters
        ----------
        per_class
            At least 1, and at most the pictures of the smallest class.
        seed
            Of the random pick. A larger `per_class` with the same seed keeps the pictures of a smaller one.

        Raises
        ------
        ImageError
            `per_class` is below 1, or a class has fewer pictures.
        """
        if per_class < 1:
            raise ImageError(f"{per_class} pictures a class were asked for; give at least 1")
        few = {name: count for name, count in self.counts().items() if 0 < count < per_class}
        if few:
            there = ", ".join(f"{count} of {name!r}" for name, count in few.items())
            raise ImageError(
                f"{per_class} pictures a class were asked for and there are only {there}; "
                f"ask for {min(few.values())} or fewer, or add pictures"
            )
        return self[torch.cat([rows[:per_class] for rows in self._shuffled(seed)]).sort().values]

    def split(self, share: float, seed: int = 0) -> tuple[Images, Images]:
        """Return two parts without a common picture: `share` of every class, and the rest.

        Examples
        --------
        >>> images = Images(torch.zeros(10, 1, 2, 2), torch.tensor([0] * 5 + [1] * 5), ("cat", "dog"))
        >>> learn, hold = images.split(0.8)
        >>> learn.counts(), hold.counts()
        ({'cat': 4, 'dog': 4}, {'cat': 1, 'dog': 1})

        Parameters
        ----------
        share
            Between 0 and 1, both excluded. Rounded for each class to whole pictures, so that both parts hold at
            least one picture of every class.
        seed
            Of the random pick.

        Raises
        ------
        ImageError
            `share` is not between 0 and 1, or a class has a single picture.
        """
        if not 0 < share < 1:
            raise ImageError(f"a split at the share {share} was asked for; give a share between 0 and 1")
        single = [name for name, count in self.counts().items() if count == 1]
        if single:
            raise ImageError(
                f"a split needs two pictures of a class and there is one of {', '.join(map(repr, single))}; "
                "add pictures or leave the class out with subset"
            )
        first, second = [], []
        for rows in self._shuffled(seed):
            count = min(max(round(share * len(rows)), 1), len(rows) - 1)
            first.append(rows[:count])
            second.append(rows[count:])
        return self[torch.cat(first).sort().values], self[torch.cat(second).sort().values]

    def mosaics(self, count: int, seed: int = 0, tasks: Sequence[str] | None = None) -> Mosaics:
        """Return 2 × 2 mosaics, each of pictures of four distinct classes.

        Examples
        --------
        >>> images = Images(torch.zeros(4, 1, 2, 2), torch.arange(4), ("a", "b", "c", "d"))
        >>> mosaics = images.mosaics(3)
        >>> mosaics.pixels.shape, mosaics.classes.sort().values[0].tolist()
        (torch.Size([3, 1, 4, 4]), [0, 1, 2, 3])

        Parameters
        ----------
        count
            Mosaics, at least 1.
        seed
            Of classes, places and pictures.
        tasks
            The classes to pick from, at least four; None for all that have pictures. Each is in as many mosaics as
            every other, give or take one.

        Raises
        ------
        ImageError
            `count` is below 1, fewer than four classes can be used, or one has no picture.
        """
        if count < 1:
            raise ImageError(f"{count} mosaics were asked for; give at least 1")
        names = tuple(name for name, number in self.counts().items() if number) if tasks is None else tuple(tasks)
        if len(set(names)) < max(4, len(names)):
            raise ImageError(
                f"mosaics of {len(set(names))} classes ({', '.join(names)}) were asked for; "
                "four distinct classes with pictures are needed"
            )
        generator = torch.Generator().manual_seed(seed)
        members = [self._rows_of_class(self._class_index(name)) for name in names]
        used = torch.zeros(len(names))
        picks, sources = [], []
        for _ in range(count):
            # The four classes used least so far, ties broken at random: every class is used equally often.
            four = (used + 0.5 * torch.rand(len(names), generator=generator)).argsort()[:4]
            four = four[torch.randperm(4, generator=generator)]
            used[four] += 1
            picks.append([self._class_index(names[position]) for position in four.tolist()])
            sources.append([_pick(members[position], generator) for position in four.tolist()])
        source_rows = torch.tensor(sources)
        tiles = self.pixels[source_rows.flatten()].unflatten(0, (count, 2, 2))
        pixels = tiles.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
        return Mosaics(pixels, torch.tensor(picks), source_rows, self.class_names)

    @classmethod
    def from_dataset(cls, dataset: Any, class_names: Sequence[str] | None = None, like: Any = None) -> Images:  # noqa: ANN401
        """See `nadkit.images.folders.read_dataset`."""
        raise NotImplementedError

    def _class_index(self, name: str) -> int:
        if name not in self.class_names:
            raise ImageError(f"no class {name!r} among these pictures; {closest(str(name), self.class_names)}")
        return self.class_names.index(name)

    def _rows_of_class(self, index: int) -> Tensor:
        rows = (self.labels == index).nonzero().flatten()
        if len(rows) == 0:
            there = ", ".join(name for name, count in self.counts().items() if count)
            raise ImageError(f"there is no picture of {self.class_names[index]!r}, only of {there}; add some")
        return rows

    def _shuffled(self, seed: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        classes = [(self.labels == index).nonzero().flatten() for index in range(len(self.class_names))]
        return [rows[torch.randperm(len(rows), generator=generator)] for rows in classes if len(rows)]


def check_finite(pixels: Tensor, first: int = 0) -> None:
    """Raise ImageError naming the pictures that hold NaN or infinity; `first` is the number of the first one."""
    bad = ~torch.isfinite(pixels).flatten(1).all(1)
    if bool(bad.any()):
        rows = (bad.nonzero().flatten() + first).tolist()
        shown = ", ".join(map(str, rows[:5])) + (", …" if len(rows) > 5 else "")
        raise ImageError(
            f"NaN or infinite pixels in {len(rows)} picture(s): {shown}; mend them or leave them out"
        )


def _pick(rows: Tensor, generator: torch.Generator) -> int:
    return int(rows[torch.randint(len(rows), (1,), generator=generator)])


def _kind(thing: object) -> str:
    return f"a {type(thing).__name__}"
