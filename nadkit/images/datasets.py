"""Pictures from a torch or torchvision-style dataset, read when they are indexed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from nadkit.errors import ImageError
from nadkit.images.checks import check_finite
from nadkit.images.collection import Images
from nadkit.images.convert import Like, match_classes, to_tensor
from nadkit.images.lazy import LazyPixels


class Dataset(Protocol):
    """Items are ``(picture, label)``: torch and torchvision datasets, or a list of pairs."""

    def __len__(self) -> int:
        """How many items there are."""

    def __getitem__(self, index: int, /) -> object:
        """(picture, label, ...)."""


def read_dataset(
    dataset: Dataset, class_names: Sequence[str] | None = None, like: Like | None = None
) -> Images:
    """Return the pictures of a dataset, read once to check them and again when they are indexed.

    Examples
    --------
    >>> pairs = [(torch.zeros(1, 4, 4), 0), (torch.ones(1, 4, 4), 1)]
    >>> read_dataset(pairs, ["dark", "bright"])
    Images(2 pictures, read on demand, 1 × 4 × 4 float32, 2 classes: dark, bright)

    Parameters
    ----------
    dataset
        Items are (picture, label): a Pillow picture, or a tensor (C, H, W) or (H, W), uint8 or floating
        point; an integer. Random transforms do not belong here: every reading must give the same picture.
    class_names
        None: the dataset's own ``classes`` (also of the dataset a `torch.utils.data.Subset` is of), else
        those of `like`.
    like
        A network: Pillow pictures are converted to its input shape, tensors must have it, and classes are
        matched to its class names.

    Returns
    -------
    Images
        `LazyPixels`, uint8 or float32.

    Raises
    ------
    ImageError
        The dataset has no length, no item or no class names; an item is no such pair, or its picture has
        another shape or dtype than the first or holds NaN or infinity; a label lies outside the class names.
        The item is numbered.
    """
    shape = None if like is None else tuple(like.input_shape)
    try:
        count = len(dataset)
    except (TypeError, NotImplementedError):
        raise ImageError(
            f"a {type(dataset).__name__} has no length; give a dataset with len() and indexing"
        ) from None
    if count == 0:
        raise ImageError("the dataset has no item; at least one picture is needed")
    names = _class_names(dataset, class_names, like)
    used, indices = match_classes(names, like)

    def read(row: int) -> Tensor:
        return _read(dataset, row, like)[0]

    labels = []
    first = read(0)
    for row in range(count):
        pixels, label = _read(dataset, row, like)
        if pixels.shape != first.shape or pixels.dtype != first.dtype:
            raise ImageError(
                f"item {row} is {pixels.dtype} {tuple(pixels.shape)} and item 0 is {first.dtype} "
                f"{tuple(first.shape)}; all must agree: pass like=network for Pillow pictures, or give "
                "the dataset a resizing transform"
            )
        if shape is not None and tuple(pixels.shape) != shape:
            raise ImageError(
                f"item {row} is a tensor {tuple(pixels.shape)} and the network takes {shape}; "
                "give the dataset a transform to that"
            )
        if pixels.dtype == torch.float32:
            check_finite(pixels.unsqueeze(0), first=row)
        if not 0 <= label < len(names):
            raise ImageError(
                f"item {row} has the label {label} and there are {len(names)} class names; "
                f"labels are 0 to {len(names) - 1}"
            )
        labels.append(indices[label])
    channels, height, width = first.shape
    return Images(LazyPixels(read, count, (channels, height, width), first.dtype), torch.tensor(labels), used)


def _class_names(dataset: Dataset, given: Sequence[str] | None, like: Like | None) -> tuple[str, ...]:
    inner = dataset
    while not hasattr(inner, "classes") and hasattr(inner, "dataset"):
        inner = inner.dataset
    names = given if given is not None else getattr(inner, "classes", None)
    if names is None and like is not None:
        names = like.class_names
    if names is None:
        raise ImageError(
            f"a {type(dataset).__name__} without `classes` has no class names; pass class_names="
        )
    return tuple(str(name) for name in names)


def _read(dataset: Dataset, row: int, like: Like | None) -> tuple[Tensor, int]:
    item = dataset[row]
    if not isinstance(item, tuple | list) or len(item) < 2:
        raise ImageError(
            f"item {row} of the dataset is a {type(item).__name__}; a pair (picture, label) is needed"
        )
    picture, label = item[0], item[1]
    try:
        index = int(label)
    except (TypeError, ValueError):
        raise ImageError(f"item {row} has the label {label!r}; an integer is needed") from None
    if isinstance(picture, Tensor):
        return _as_pixels(picture, row), index
    from PIL import Image

    if isinstance(picture, Image.Image):
        try:
            return to_tensor(picture, None if like is None else like.input_shape), index
        except (ImageError, OSError, ValueError) as error:
            raise ImageError(f"item {row} cannot be converted: {error}") from None
    raise ImageError(
        f"item {row} is a {type(picture).__name__}; a tensor (C, H, W) or a Pillow picture is needed"
    )


def _as_pixels(picture: Tensor, row: int) -> Tensor:
    if picture.ndim == 2:
        picture = picture.unsqueeze(0)
    if picture.ndim != 3:
        raise ImageError(f"item {row} is a tensor {tuple(picture.shape)}; (C, H, W) or (H, W) is needed")
    if picture.dtype.is_floating_point:
        return picture.detach().to("cpu", torch.float32)
    if picture.dtype != torch.uint8:
        raise ImageError(f"item {row} is {picture.dtype}; uint8 (0-255) or floating point is needed")
    return picture.cpu()
