"""What makes pictures sound; every door of `nadkit.images` leads through here."""

from __future__ import annotations

from collections.abc import Sized

import torch
from torch import Tensor

from nadkit.errors import ImageError
from nadkit.images.lazy import LazyPixels


def check_images(
    pixels: Tensor | LazyPixels, labels: Tensor, names: tuple[str, ...], objects: Sized | None
) -> None:
    """Raise ImageError, saying what is there and what to do, unless these make sound `Images`."""
    _check_pixels(pixels)
    _check_names(names)
    _check_labels(labels, len(pixels), len(names))
    if objects is not None and len(objects) != len(pixels):
        raise ImageError(
            f"there are {len(pixels)} pictures and objects for {len(objects)}; give those of each picture"
        )


def _check_pixels(pixels: Tensor | LazyPixels) -> None:
    if not isinstance(pixels, Tensor | LazyPixels):
        raise ImageError(
            f"pixels are a {type(pixels).__name__}; a tensor (N, C, H, W) is needed: use torch.as_tensor"
        )
    if pixels.ndim != 4 or 0 in tuple(pixels.shape)[1:]:
        raise ImageError(
            f"pixels have the shape {tuple(pixels.shape)}; (N, C, H, W) is needed: "
            "a grey picture has C = 1, one picture N = 1"
        )
    if len(pixels) == 0:
        raise ImageError("there is no picture; at least one is needed: check how the pictures were picked")
    if pixels.dtype not in (torch.uint8, torch.float32):
        raise ImageError(
            f"pixels are {pixels.dtype}; uint8 (0-255) or float32 is needed: "
            "convert with pixels.float() or pixels.to(torch.uint8)"
        )
    if isinstance(pixels, Tensor) and pixels.dtype == torch.float32:
        check_finite(pixels)


def check_finite(pixels: Tensor, first: int = 0) -> None:
    """Raise ImageError naming the pictures that hold NaN or infinity; `first` is the number of the first."""
    bad = ~torch.isfinite(pixels).flatten(1).all(1)
    if bool(bad.any()):
        rows = (bad.nonzero().flatten() + first).tolist()
        shown = ", ".join(map(str, rows[:5])) + (", …" if len(rows) > 5 else "")
        raise ImageError(
            f"there are NaN or infinite pixels in {len(rows)} picture(s): {shown}; mend or leave them out"
        )


def _check_names(names: tuple[str, ...]) -> None:
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ImageError(f"class names are {names!r}; at least one, and each a text, is needed")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ImageError(f"class names occur twice: {', '.join(twice)}; give every class its own name")


def _check_labels(labels: Tensor, pictures: int, classes: int) -> None:
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.ndim != 1:
        there = (
            f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        )
        raise ImageError(
            f"labels are {there}; an int64 tensor (N,) is needed: torch.as_tensor(labels).long()"
        )
    if len(labels) != pictures:
        raise ImageError(f"there are {pictures} pictures and {len(labels)} labels; give one label a picture")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        wrong = high if high >= classes else low
        row = int((labels == wrong).nonzero()[0])
        raise ImageError(
            f"label {wrong} (of picture {row}) lies outside the {classes} class names; "
            f"labels are 0 to {classes - 1}: give more class names or mend the labels"
        )
