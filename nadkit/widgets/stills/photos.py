"""Pictures in a still: with a caption, with the place outlined, and maps of numbers."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from nadkit.figures._png import png_uri
from nadkit.widgets.stills.svg import BLUE, MOST, Block, cut, room, words

# Cividis, as the widgets' page has it: yellow is high.
CIVIDIS = torch.tensor(
    [[0, 32, 77], [55, 67, 108], [104, 106, 112], [151, 147, 118], [205, 190, 92], [255, 234, 70]]
).float()
LETTERS = 30_000
"""What the pictures of one still take at most, so that a saved notebook stays small."""

SIDES = (112, 80, 56, 40, 28)
"""Pixels a side of pictures that would take more; those of a photograph hardly shrink by packing."""


def few(shown: Sequence[Mapping[str, Any]], letters: int = LETTERS) -> list[dict[str, Any]]:
    """Return pictures that are not too much for one still: smaller if need be, then the first of them."""
    found = [dict(one) for one in shown]
    for side in SIDES:
        if sum(len(one["src"]) for one in found) <= letters:
            return found
        found = [{**one, "src": shrunk(one["src"], side)} for one in found]
    while len(found) > 1 and sum(len(one["src"]) for one in found) > letters:
        found.pop()
    return found


def shrunk(src: str, most: int) -> str:
    """Return a picture at the address that `png_uri` gave it, with at most so many pixels a side."""
    file = base64.b64decode(src.partition(",")[2])
    width, height = struct.unpack(">II", file[16:24])
    if max(width, height) <= most:
        return src
    (length,) = struct.unpack(">I", file[33:37])
    # Each line begins with the number of its filter, which `png_uri` leaves at none.
    lines = torch.tensor(list(zlib.decompress(file[41 : 41 + length])), dtype=torch.float32)
    pixels = lines.reshape(height, 1 + 3 * width)[:, 1:].reshape(height, width, 3).permute(2, 0, 1)
    size = (max(1, height * most // max(width, height)), max(1, width * most // max(width, height)))
    small = torch.nn.functional.adaptive_avg_pool2d(pixels, size)
    return png_uri(small.round().byte().permute(1, 2, 0))


def image(src: str, x: float, y: float, size: float, more: str = "") -> str:
    """Return a picture at a place."""
    return (
        f'<image href="{src}" x="{x:g}" y="{y:g}" width="{size:g}" height="{size:g}" '
        f'style="image-rendering:pixelated" {more}/>'
    )


def outline(box: Sequence[float], x: float, y: float, size: float) -> str:
    """Return a frame that shows on light and dark; left, top, width, height in shares of the picture."""
    left, top, wide, high = (size * share for share in box)
    frame = f'<rect x="{x + left:.1f}" y="{y + top:.1f}" width="{wide:.1f}" height="{high:.1f}" fill="none"'
    return "".join(f'{frame} stroke="{c}" stroke-width="{w}"/>' for c, w in (("#000", 3), ("#ffe945", 1.5)))


def pictures(shown: Sequence[Mapping[str, Any]], size: int = 72, chosen: int | None = None) -> Block:
    """Return pictures in rows, each with its caption, and with the place outlined where it has one."""
    said = max((room(str(one.get("caption") or "")) for one in shown), default=0)
    wide, high = max(size + 6, min(size + 60, said + 8)), size + (20 if said else 6)
    rows = -(-len(shown) // int(MOST // wide))
    row = -(-len(shown) // max(rows, 1))  # rows as long as each other
    parts = []
    for at, one in enumerate(shown):
        x, y = wide * (at % row), high * (at // row)
        parts.append(image(one["src"], x, y, size))
        if one.get("box"):
            parts.append(outline(one["box"], x, y, size))
        if chosen is not None and one.get("index") == chosen:
            frame = f'x="{x - 1.5:g}" y="{y - 1.5:g}" width="{size + 3}" height="{size + 3}"'
            parts.append(f'<rect {frame} fill="none" stroke="{BLUE}" stroke-width="3"/>')
        if one.get("caption"):
            parts.append(words(x, y + size + 12, cut(one["caption"], wide - 4)))
    return Block("".join(parts), wide * row, high * rows)


def heat(rows: Sequence[Sequence[float]]) -> str:
    """Return numbers from 0 to 1 as the address of a small PNG."""
    at = torch.tensor(rows).float().clamp(0, 1) * (len(CIVIDIS) - 1)
    low = at.floor().clamp(max=len(CIVIDIS) - 2)
    part, colours = (at - low)[..., None], low.long()
    mixed = CIVIDIS[colours] * (1 - part) + CIVIDIS[colours + 1] * part
    return png_uri(mixed.round().byte())


def heats(maps: Sequence[Mapping[str, Any]], size: int = 72) -> Block:
    """Return maps of layers, each with its name."""
    return pictures([{"src": heat(one["rows"]), "caption": one["name"]} for one in maps], size)


def over(
    src: str,
    box: Sequence[float],
    captions: Sequence[str],
    rows: Sequence[Sequence[float]] | None,
    size: int = 168,
) -> Block:
    """Return a picture with a frame in it, and again under a map of numbers from 0 to 1; captions of both."""
    far = size + max([24.0, room(captions[0]) + 16 - size])
    again = f'<use href="#picture" x="{far:g}"/>'  # the picture is in the file once
    parts = [image(src, 0, 0, size, 'id="picture"'), again]
    if rows is not None:
        parts.append(image(heat(rows), far, 0, size, 'opacity="0.7"'))
    for x, caption in zip((0, far), captions, strict=True):
        parts += [outline(box, x, 0, size), words(x, size + 14, cut(caption, 2 * size))]
    return Block("".join(parts), far + max(size, room(cut(captions[1], 2 * size))), size + 20)
