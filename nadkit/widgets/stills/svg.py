"""Blocks of SVG, and a document that stacks them."""

from __future__ import annotations

import html
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

BLUE, INK, EDGE, SOFT, QUIET = "#0072B2", "#1b1f24", "#b8bec5", "#f1f3f5", "#6b6b6b"
BOLD = 'font-weight="bold"'
LEAST, MOST = 420, 720
"""How wide a document is at least, and how far blocks that can be wrapped go."""

MARGIN, GAP = 8, 10


@dataclass(frozen=True)
class Block:
    """Some elements, drawn from (0, 0), and the room that they take."""

    parts: str
    width: float
    height: float


def room(text: str) -> float:
    """Return how wide a text is at most, roughly: nothing here knows the reader's fonts."""
    return sum(11.5 if ord(letter) > 0x2E7F else 6.3 for letter in text)


def cut(text: object, most: float) -> str:
    """Return a text that takes no more room than this, with an ellipsis where it was longer."""
    text = str(text)
    if room(text) <= most:
        return text
    while text and room(text) > most - 11.5:
        text = text[:-1]
    return f"{text}…"


def wrapped(text: str, most: float = MOST) -> list[str]:
    """Return a text in lines that take no more room than this."""
    lines = [""]
    for word in text.split():
        word = cut(word, most)
        if lines[-1] and room(f"{lines[-1]} {word}") > most:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def words(x: float, y: float, text: str, anchor: str = "start", more: str = "") -> str:
    """Return a piece of text."""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" {more}>{html.escape(text)}</text>'


def slanted(x: float, y: float, text: str, angle: float, anchor: str = "start") -> str:
    """Return a piece of text turned about where it stands, in degrees."""
    where = f'transform="translate({x:g} {y:g}) rotate({angle:g})"'
    return f'<text {where} text-anchor="{anchor}">{html.escape(text)}</text>'


def moved(block: Block, x: float, y: float) -> str:
    """Return the elements of a block somewhere else."""
    return f'<g transform="translate({x:g} {y:g})">{block.parts}</g>'


def document(title: str, *blocks: Block) -> str:
    """Return an SVG document on a white ground: a title, and blocks below one another."""
    shown = cut(title, MOST)
    y, parts = 24.0, []
    for block in blocks:
        parts.append(moved(block, MARGIN, y))
        y += block.height + GAP
    width = max([LEAST, room(shown) * 1.1 + 2 * MARGIN, *(block.width + 2 * MARGIN for block in blocks)])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {y:.0f}" width="{width:.0f}" '
        f'height="{y:.0f}" font-family="sans-serif" font-size="11" fill="{INK}" role="img">'
        f"<title>{html.escape(title)}</title>"
        f'<rect width="100%" height="100%" fill="#fff"/>{words(MARGIN, 15, shown, more=BOLD)}'
        f"{''.join(parts)}</svg>"
    )


def beside(*blocks: Block, gap: float = 20) -> Block:
    """Return blocks next to one another, as one."""
    x, parts = 0.0, []
    for block in blocks:
        parts.append(moved(block, x, 0))
        x += block.width + gap
    return Block("".join(parts), max(x - gap, 0), max((block.height for block in blocks), default=0))


def lines_of_text(lines: Iterable[str], heading: bool = False) -> Block:
    """Return lines below one another, wrapped where they are too long; a heading is bold."""
    shown = [part for line in lines if line for part in wrapped(line)]
    parts = [words(0, 11 + 16 * at, line, more=BOLD * heading) for at, line in enumerate(shown)]
    return Block("".join(parts), max(map(room, shown), default=0), 16 * len(shown))


def chips(names: Sequence[str], shut: Collection[str] = ()) -> Block:
    """Return names in frames, row after row; those that are shut are dashed and struck out."""
    x, y, far, parts = 0.0, 0.0, 0.0, []
    for name in names:
        label = cut(name, 160)
        wide = room(label) + 14
        if x and x + wide > MOST:
            x, y = 0.0, y + 24
        look = (
            f'fill="#fff" stroke="{QUIET}" stroke-dasharray="3 2"' if name in shut
            else f'fill="{BLUE}" stroke="{BLUE}"'
        )  # fmt: skip
        parts.append(f'<rect x="{x:g}" y="{y:g}" width="{wide:g}" height="20" rx="10" {look}/>')
        more = f'fill="{INK}" text-decoration="line-through"' if name in shut else 'fill="#fff"'
        parts.append(words(x + wide / 2, y + 14, label, "middle", more))
        far, x = max(far, x + wide), x + wide + 4
    return Block("".join(parts), far, y + 20 if parts else 0)


def fields(shown: Sequence[tuple[str, str]]) -> Block:
    """Return labels over framed values, as a form has them."""
    x, y, far, parts = 0.0, 0.0, 0.0, []
    for label, value in shown:
        value = cut(value, 180)
        wide = math.ceil(max(room(label), room(value) + 16, 70))
        if x and x + wide > MOST:
            x, y = 0.0, y + 44
        parts.append(words(x, y + 11, label))
        parts.append(
            f'<rect x="{x:g}" y="{y + 16:g}" width="{wide}" height="22" rx="4" fill="{SOFT}" '
            f'stroke="{QUIET}"/>'
        )
        parts.append(words(x + 8, y + 31, value))
        far, x = max(far, x + wide), x + wide + 14
    return Block("".join(parts), far, y + 40 if parts else 0)
