"""Static pictures of lessons: plain SVG, for places where no widget lives."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

BLUE = "#0072B2"
INK = "#1b1f24"
BOLD = 'font-weight="bold"'
# One shape a condition, so that a grey print tells them apart as well.
SHAPES = {
    "kept": (BLUE, "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0"), "other": ("#A6507F", "m0 -4.5l4 7.5h-8z"),
    "random": ("#6b6b6b", "m0 -5l5 5l-5 5l-5 -5z"), "whole": (INK, "m-3.5 -3.5h7v7h-7z"),
}  # fmt: skip


def words(x: float, y: float, text: str, anchor: str = "start", more: str = "") -> str:
    """Return a piece of text."""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" {more}>{html.escape(text)}</text>'


def document(width: float, height: float, title: str, parts: Iterable[str]) -> str:
    """Return an SVG document with a title on a white ground."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="sans-serif" font-size="11" fill="{INK}">'
        f'<rect width="100%" height="100%" fill="#fff"/>{words(8, 15, title, more=BOLD)}'
        f"{''.join(parts)}</svg>"
    )


def lines_of_text(title: str, lines: Sequence[str]) -> str:
    """Return a title and lines below it, where there is nothing to draw yet."""
    width = max([420.0, *(16 + 6.2 * len(line) for line in lines)])
    return document(
        width, 30 + 16 * len(lines), title, [words(8, 34 + 16 * at, line) for at, line in enumerate(lines)]
    )


def matrix(
    title: str, rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float | None]]
) -> str:
    """Return a grid of numbers, darker where they are larger in size."""
    left, size = 16 + 6.2 * max(map(len, rows)), 40
    parts = [
        words(left + size * (c + 0.5), 34, name[-9:], "middle", 'font-size="8"')
        for c, name in enumerate(columns)
    ]
    for r, name in enumerate(rows):
        y = 40 + 18 * r
        parts.append(words(left - 6, y + 13, name, "end"))
        for c, value in enumerate(values[r]):
            fill = "#b34a00" if value is not None and value < 0 else BLUE
            depth = 0.0 if value is None else 0.55 * min(1.0, abs(value))
            parts.append(
                f'<rect x="{left + size * c:g}" y="{y}" width="{size - 1}" height="17" stroke="#b8bec5" '
                f'stroke-width=".5" fill="{fill}" fill-opacity="{depth:.2f}"/>'
            )
            if value is not None:
                parts.append(words(left + size * (c + 0.5), y + 13, f"{value:.2f}", "middle"))
    return document(max(420, left + size * len(columns) + 8), 48 + 18 * len(rows), title, parts)


def pictures(title: str, shown: Sequence[Mapping[str, Any]], size: int = 72) -> str:
    """Return pictures in rows, each with its caption and the place outlined."""
    parts = []
    for at, one in enumerate(shown):
        x, y = 8 + (size + 24) * (at % 6), 26 + (size + 22) * (at // 6)
        parts.append(
            f'<image href="{one["src"]}" x="{x}" y="{y}" width="{size}" height="{size}" '
            'style="image-rendering:pixelated"/>'
        )
        if one.get("box"):
            left, top, wide, high = (size * share for share in one["box"])
            frame = f'<rect x="{x + left:.1f}" y="{y + top:.1f}" width="{wide:.1f}" height="{high:.1f}"'
            parts += [
                f'{frame} fill="none" stroke="{colour}" stroke-width="{width}"/>'
                for colour, width in (("#000", 3), ("#ffe945", 1.5))
            ]
        parts.append(words(x, y + size + 12, str(one["caption"])))
    rows = (len(shown) + 5) // 6
    return document(max(420, 8 + (size + 24) * min(6, len(shown))), 34 + (size + 22) * rows, title, parts)


def courses(
    title: str, names: Sequence[str], lines: Mapping[str, Sequence[float | None]], chance: float | None = None
) -> str:
    """Return values in [0, 1] along a row of names, one line with its own marks for each condition."""
    step, high, left, top = 60, 140, 40, 26
    parts = [
        f'<path d="M{left} {top + high * (1 - tick):g}h{step * len(names)}" stroke="#b8bec5"/>'
        + words(left - 5, top + high * (1 - tick) + 4, f"{tick:g}", "end")
        for tick in (0, 0.5, 1)
    ]
    if chance is not None:
        y = top + high * (1 - chance)
        parts.append(f'<path d="M{left} {y:g}h{step * len(names)}" stroke="{INK}" stroke-dasharray="4 3"/>')
        parts.append(words(left + step * len(names) + 4, y + 4, f"chance {chance:g}"))
    parts += [
        words(left + step * (at + 0.5), top + high + 16, name[-10:], "middle", 'font-size="9"')
        for at, name in enumerate(names)
    ]
    x = left
    for condition, values in lines.items():
        colour, shape = SHAPES.get(condition, SHAPES["kept"])
        spots, line, pen = [], "", "M"
        for at, value in enumerate(values):
            if value is None:
                pen = "M"  # no line across a layer that has no value
                continue
            spots.append((left + step * (at + 0.5), top + high * (1 - min(1.0, max(0.0, value)))))
            line += f"{pen}{spots[-1][0]:g} {spots[-1][1]:.1f}"
            pen = "L"
        parts.append(f'<path d="{line}" fill="none" stroke="{colour}"/>' if spots else "")
        parts.append(
            f'<path fill="{colour}" d="{"".join(f"M{a:g} {b:.1f}{shape}" for a, b in spots)}"/>'
            if spots
            else ""
        )
        parts.append(
            f'<path fill="{colour}" d="M{x + 6} {top + high + 34}{shape}"/>'
            + words(x + 14, top + high + 38, condition)
        )
        x += 30 + 7 * len(condition)
    return document(max(420, left + step * len(names) + 90), top + high + 48, title, parts)
