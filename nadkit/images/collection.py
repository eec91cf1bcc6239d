"""`Images`: labelled pictures in memory or on disk, checked when they are made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from nadkit.errors import ImageError, closest
from nadkit.images.checks import check_images
from nadkit.images.lazy import LazyPixels, rows_of

if TYPE_CHECKING:
    from nadkit.images.convert import Like
    from nadkit.images.datasets import Dataset
    from nadkit.images.mosaics import Mosaics
    from nadkit.images.scenes import SceneObjects

Index = int | slice | Sequence[int] | Tensor


class Batch(NamedTuple):
    """A few pictures decoded in memory: pixels (N, C, H, W) and labels (N,)."""

    pixels: Tensor
    labels: Tensor


@dataclass(frozen=True, eq=False, repr=False)
class Images:
    """Labelled pictures with the names of their classes.

    Everything that picks pictures (`images[...]`, `split`, `take`, `subset`, `of`) returns `Images` again and
    keeps the order of the pictures. `images.pixels[index]` is a tensor for pictures in memory and on disk
    alike.

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
        There is no picture, a shape or dtype is another, a pixel is NaN or infinite, a label lies outside the
        class names, or lengths differ.
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
        """Raise ImageError unless the pictures are sound; it is done when they are made, too."""
        check_images(self.pixels, self.labels, self.class_names, self.objects)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        names = ", ".join(self.class_names[:6]) + (", …" if len(self.class_names) > 6 else "")
        size = " × ".join(str(side) for side in tuple(self.pixels.shape)[1:])
        dtype = str(self.pixels.dtype).removeprefix("torch.")
        where = ", read on demand" if isinstance(self.pixels, LazyPixels) else ""
        return (
            f"Images({len(self)} pictures{where}, {size} {dtype}, {len(self.class_names)} classes: {names})"
        )

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
        return self[self.rows_of_class(self.class_index(class_name))]

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
            index = self.class_index(name)
            self.rows_of_class(index)
            renumber[index] = position
        labels = renumber[self.labels]
        part = self[labels >= 0]
        return Images(part.pixels, labels[labels >= 0], names, part.objects)

    def take(self, per_class: int, seed: int = 0) -> Images:
        """Return `per_class` pictures of every class, picked at random by `seed`.

        A class with no picture at all (as `of` and folders with fewer classes than the network leave them) is
        left out; `counts` shows which.

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
            Between 0 and 1, both excluded. Rounded for each class to whole pictures, so that both parts hold
            at least one picture of every class.
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
            The classes to pick from, at least four; None for all that have pictures. Each is in as many
            mosaics as every other, give or take one.

        Raises
        ------
        ImageError
            `count` is below 1, fewer than four classes can be used, or one has no picture.
        """
        from nadkit.images.mosaics import compose

        return compose(self, count, seed, tasks)

    @classmethod
    def from_dataset(
        cls, dataset: Dataset, class_names: Sequence[str] | None = None, like: Like | None = None
    ) -> Images:
        """Return the pictures of a torch or torchvision-style dataset, read again whenever they are indexed.

        Examples
        --------
        >>> pairs = [(torch.zeros(1, 4, 4), 0), (torch.ones(1, 4, 4), 1)]
        >>> Images.from_dataset(pairs, ["dark", "bright"]).counts()
        {'dark': 1, 'bright': 1}

        Parameters
        ----------
        dataset
            Items are (picture, label): a Pillow picture, or a tensor (C, H, W) or (H, W), uint8 or floating
            point; an integer. It has no random transforms.
        class_names
            None: the dataset's ``classes``, else those of `like`.
        like
            A network: Pillow pictures are converted to its input shape, tensors must have it, and classes are
            matched to its class names.

        Raises
        ------
        ImageError
            An item is no such pair, differs in shape or dtype, holds NaN or infinity, or has a label outside
            the class names (the item is numbered); or there are no class names.
        """
        from nadkit.images.datasets import read_dataset

        return read_dataset(dataset, class_names, like)

    def _repr_html_(self) -> str:
        from nadkit.images.strip import strip_html

        return strip_html(self)

    def class_index(self, name: str) -> int:
        """Return the index of a class, or raise ImageError naming the closest."""
        if name not in self.class_names:
            raise ImageError(
                f"no class {name!r} among these pictures; {closest(str(name), self.class_names)}"
            )
        return self.class_names.index(name)

    def rows_of_class(self, index: int) -> Tensor:
        """Return the rows (int64) of the pictures of a class, or raise ImageError if it has none."""
        rows = (self.labels == index).nonzero().flatten()
        if len(rows) == 0:
            there = ", ".join(name for name, count in self.counts().items() if count)
            raise ImageError(f"there is no picture of {self.class_names[index]!r}, only of {there}; add some")
        return rows

    def _shuffled(self, seed: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        classes = [(self.labels == index).nonzero().flatten() for index in range(len(self.class_names))]
        return [rows[torch.randperm(len(rows), generator=generator)] for rows in classes if len(rows)]
