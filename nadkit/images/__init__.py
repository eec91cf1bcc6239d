"""Pictures: the bundled sets, rendered scenes and folders as `Images`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nadkit.errors import ImageError, closest
from nadkit.images.collection import Batch, Images, Mosaics
from nadkit.images.lazy import LazyPixels

if TYPE_CHECKING:
    from nadkit.networks import Network

__all__ = ["Batch", "Images", "LazyPixels", "Mosaics", "load_images"]

_BUNDLED = ("fashion", "scenes")


def load_images(
    source: str | Path,
    *,
    split: Literal["train", "test"] = "train",
    per_class: int | None = None,
    seed: int = 0,
    full: bool | str | Path = False,
    like: Network | None = None,
) -> Images:
    """Return the pictures of a bundled set or of a folder.

    Examples
    --------
    >>> load_images("fashion", split="test", per_class=2).counts()["sneaker"]
    2
    """
    if split not in ("train", "test"):
        raise ImageError(f"no split {split!r}; {closest(str(split), ('train', 'test'))}")
    if source == "fashion":
        return _fashion(split, per_class, seed, full)
    raise ImageError(f"no images {source!r}; {closest(str(source), _BUNDLED)}")


def _fashion(
    split: Literal["train", "test"], per_class: int | None, seed: int, full: bool | str | Path
) -> Images:
    from nadkit.images import fashion

    if full is False:
        pixels, labels = fashion.read_shipped(split)
    else:
        pixels, labels = fashion.read_folder(None if full is True else full, split)
    images = Images(pixels, labels, fashion.CLASS_NAMES)
    return images if per_class is None else images.take(per_class, seed)
