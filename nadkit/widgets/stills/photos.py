"""Pictures in a still: with a caption, with the place outlined, and maps of numbers."""

from __future__ import annotations

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


def few(shown: Sequence[Mapping[str, Any]], letters: int = LETTERS) -> list[Mapping[str, Any]]:
    """Return the first pictures, as many as are not too much for one still."""
    found: list[Mapping[str, Any]] = []
    for one in shown:
        letters -= len(one["src"])
        if letters < 0 and found:
            break
        found.append(one)
    return found


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
    caption: str,
    rows: Sequence[Sequence[float]] | None = None,
    size: int = 168,
) -> Block:
    """Return a picture with a frame in it and, over it, a map of numbers from 0 to 1."""
    parts = [image(src, 0, 0, size)]
    if rows is not None:
        parts.append(image(heat(rows), 0, 0, size, 'opacity="0.7"'))
    parts += [outline(box, 0, 0, size), words(0, size + 14, cut(caption, size + 40))]
    return Block("".join(parts), max(size, room(cut(caption, size + 40))), size + 20)
