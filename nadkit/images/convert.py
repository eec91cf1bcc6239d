"""One decoded picture of any mode to the uint8 tensor that a network takes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from nadkit.errors import ImageError, closest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

_GREY_MODES = {"1", "L", "LA", "I", "I;16", "I;16L", "I;16B", "I;16N", "F"}
_WIDE_MODES = {"I", "I;16", "I;16L", "I;16B", "I;16N"}
_ALPHA_MODES = {"LA", "PA", "RGBA", "RGBa"}


class Like(Protocol):
    """What pictures are made to fit: a `Network`, or anything with its input shape and class names."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) with C 1 or 3."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of the logits."""


def to_tensor(image: Image.Image, shape: tuple[int, int, int] | None = None) -> Tensor:
    """Return a picture of any mode as uint8 (C, H, W), upright and on white.

    Examples
    --------
    >>> from PIL import Image
    >>> to_tensor(Image.new("CMYK", (40, 20)), (3, 8, 8)).shape
    torch.Size([3, 8, 8])

    Parameters
    ----------
    image
        A Pillow picture. Its EXIF orientation is applied. Transparency is laid on white. 16 bit grey (and
        mode I, which holds 16 bit files) is divided by 257; mode F is read as 0-1 if it lies within, else as
        0-255.
    shape
        (C, H, W) wanted: the picture is scaled, keeping its proportions, until it just covers (H, W), by
        bilinear interpolation with antialiasing, and cropped about its centre. One that has the size is not
        resampled. None keeps the size, and grey pictures grey (C = 1, else 3).

    Returns
    -------
    Tensor
        uint8 (C, H, W).

    Raises
    ------
    ImageError
        Mode I or F with values outside those ranges, NaN or infinity; `shape` with channels other than 1 or
        3.
    """
    import numpy as np
    from PIL import Image, ImageOps

    if shape is not None and shape[0] not in (1, 3):
        raise ImageError(f"pictures of {shape[0]} channels were asked for; files give 1 (grey) or 3 (RGB)")
    image = ImageOps.exif_transpose(image)
    grey = image.mode in _GREY_MODES
    if image.mode in _WIDE_MODES:
        image = Image.fromarray(_from_wide(np.asarray(image).astype(np.int64)))
    elif image.mode == "F":
        image = Image.fromarray(_from_float(np.asarray(image)))
    elif image.mode in _ALPHA_MODES or "transparency" in image.info:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    channels = shape[0] if shape is not None else (1 if grey else 3)
    # Palettes and CMYK have no direct way to a luma in every Pillow; RGB is exact for grey pictures.
    image = image if image.mode in ("1", "L") else image.convert("RGB")
    image = image.convert("L" if channels == 1 else "RGB")
    if shape is not None:
        image = _cover(image, shape[1], shape[2])
    pixels = torch.from_numpy(np.array(image))
    return pixels.unsqueeze(0) if channels == 1 else pixels.permute(2, 0, 1).contiguous()


def _from_wide(values: NDArray[np.int64]) -> NDArray[np.uint8]:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ImageError(f"its values go from {low} to {high}; 0 to 65535 can be read: rescale it")
    scaled: NDArray[np.uint8] = ((values + 128) // 257).astype("uint8")
    return scaled


def _from_float(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    # The negation is also true for NaN.
    if not (values.min() >= 0 and values.max() <= 255):
        raise ImageError(
            f"its values go from {values.min():g} to {values.max():g}; "
            "0 to 1 or 0 to 255 can be read: rescale it"
        )
    scaled: NDArray[np.uint8] = (values * (255 if values.max() <= 1 else 1)).round().astype("uint8")
    return scaled


def _cover(image: Image.Image, height: int, width: int) -> Image.Image:
    from PIL import Image

    if image.size == (width, height):
        return image
    scale = max(height / image.height, width / image.width)
    size = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return image.resize(size, Image.Resampling.BILINEAR).crop((left, top, left + width, top + height))


def match_classes(names: Sequence[str], like: Like | None) -> tuple[tuple[str, ...], list[int]]:
    """Return the class names to use, and for every name given its index among them.

    Examples
    --------
    >>> match_classes(["dog", "cat"], None)
    (('dog', 'cat'), [0, 1])

    Parameters
    ----------
    names
        As the folder or dataset has them.
    like
        Its class names are used if any name given is among them; then every name must be. Case, spaces,
        hyphens and underscores make no difference (``Ankle_boot`` is ``ankle boot``). None, or no name in
        common and none misspelt: the names given are used, of pictures that are none of the network's.

    Raises
    ------
    ImageError
        Some names are among those of `like` and others are not (the closest are named), or no name is but one
        of five letters or more differs so little that it looks misspelt, or two names mean the same class.
    """
    if like is None:
        return tuple(names), list(range(len(names)))
    known = {_plain(name): index for index, name in enumerate(like.class_names)}
    found = [known.get(_plain(name)) for name in names]
    unknown = [name for name, index in zip(names, found, strict=True) if index is None]
    if len(unknown) == len(names):
        slips = [name for name in names if _looks_misspelt(name, list(known))]
        if slips:
            raise ImageError(
                "no class is one of the network's: misspelt may be "
                f"{_with_closest(slips, like.class_names)}; rename what is; for another class, take a name "
                "less like it"
            )
        return tuple(names), list(range(len(names)))
    if unknown:
        raise ImageError(
            f"{len(unknown)} of {len(names)} classes are none of the network's: "
            f"{_with_closest(unknown, like.class_names)}; rename or remove them, or leave like= out"
        )
    indices = [index for index in found if index is not None]
    for position, index in enumerate(indices):
        if index in indices[:position]:
            other = names[indices.index(index)]
            raise ImageError(
                f"{other!r} and {names[position]!r} both mean the class {like.class_names[index]!r}; "
                "give both one name"
            )
    return tuple(like.class_names), indices


def _looks_misspelt(name: str, known: Sequence[str]) -> bool:
    """Whether a name is nearly one of those known; of short ones any letter makes another word."""
    return len(_plain(name)) >= 5 and bool(get_close_matches(_plain(name), known, n=1, cutoff=0.85))


def _with_closest(names: Sequence[str], known: Sequence[str]) -> str:
    """The first names, with what they are nearest to; what is known is listed once."""
    said, rest = [], ""
    for name in names[:5]:
        near = closest(name, known)
        if near.startswith("closest"):
            said.append(f"{name!r} ({near})")
        else:
            said.append(repr(name))
            rest = f"; {near}"
    return ", ".join(said) + (", …" if len(names) > 5 else "") + rest


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()
