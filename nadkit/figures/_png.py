"""Pictures as PNG: Pillow belongs to `images`, and an encoder without it is this short."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def visible(pixels: Tensor) -> Tensor:
    """Return pictures (N, C, H, W) as what a screen shows, uint8 (N, H, W, 3).

    Floats are shown from 0 to 1, or from the lowest to the highest if they go beyond; other than 3 channels
    as their mean.
    """
    values = pixels / 255 if not pixels.is_floating_point() else pixels
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        values = (values - low) / max(high - low, 1e-12)
    if values.shape[1] != 3:
        values = values.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    return (values * 255).round().byte().permute(0, 2, 3, 1).cpu()


def png_uri(canvas: Tensor) -> str:
    """Return a picture, uint8 (H, W, 3), as a data URI."""
    height, width, _ = canvas.shape
    # Every line of a PNG begins with the number of its filter; 0 is none.
    lines = b"".join(b"\0" + line.tobytes() for line in canvas.contiguous().numpy())

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    file = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(lines, 9))
        + chunk(b"IEND", b"")
    )
    return "data:image/png;base64," + base64.b64encode(file).decode()
