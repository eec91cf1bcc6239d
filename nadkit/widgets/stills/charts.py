"""Numbers as pictures: a matrix, courses over layers or steps, dots with intervals, bars."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nadkit.widgets.stills.svg import BLUE, BOLD, EDGE, INK, QUIET, SOFT, Block, cut, room, slanted, words

# One shape a condition, so that a grey print tells them apart as well.
SHAPES = {
    "kept": (BLUE, "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0"), "other": ("#A6507F", "m0 -4.5l4 7.5h-8z"),
    "random": (QUIET, "m0 -5l5 5l-5 5l-5 -5z"), "whole": (INK, "m-3.5 -3.5h7v7h-7z"),
    "removed": ("#b34a00", "m-5 -3l2 -2l3 3l3 -3l2 2l-3 3l3 3l-2 2l-3 -3l-3 3l-2 -2l3 -3z"),
    "relabelled": (INK, "m0 -4.5l4.5 8h-9z"), "shared": (QUIET, "m-4 -2.5h8v5h-8z"),
    "untrained": ("#A6507F", "m0 4.5l4.5 -8h-9z"),
}  # fmt: skip
DASHES = {"other": "7 3", "random": "2 3", "whole": "9 3 2 3"}
NAME = 140
"""Room for a name beside a row."""


def matrix(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
    chosen: tuple[str, str] | None = None,
) -> Block:
    """Return a grid of numbers, darker where they are larger in size; the chosen cell is framed."""
    if not rows or not columns:
        return Block("", 0, 0)
    names = [cut(name, NAME) for name in rows]
    heads = [cut(name, 90) for name in columns]
    size = 36 if len(columns) <= 16 else 28
    left, top = max(map(room, names)) + 8, 10 + 0.66 * max(map(room, heads))
    parts = [slanted(left + size * (c + 0.5), top - 5, name, -40) for c, name in enumerate(heads)]
    last = ""
    for r, name in enumerate(names):
        y = top + 18 * r
        parts.append(words(left - 6, y + 13, name, "end"))
        for c, value in enumerate(values[r]):
            fill = "#b34a00" if value is not None and value < 0 else BLUE
            depth = 0.0 if value is None else 0.55 * min(1.0, abs(value))
            place = f'x="{left + size * c:g}" y="{y:g}" width="{size - 1}" height="17"'
            parts.append(
                f'<rect {place} stroke="{EDGE}" stroke-width=".5" fill="{fill}" fill-opacity="{depth:.2f}"/>'
            )
            if (rows[r], columns[c]) == chosen:
                last = f'<rect {place} fill="none" stroke="{INK}" stroke-width="2.5"/>'
            if value is not None:
                small = 'font-size="10"' if size < 30 else ""
                parts.append(words(left + size * (c + 0.5), y + 13, f"{value:.2f}", "middle", small))
    slant = 0.77 * room(heads[-1]) - size / 2
    wide = left + size * len(columns) + max(0.0, slant)
    return Block("".join([*parts, last]), wide, top + 18 * len(rows))


def courses(
    names: Sequence[str],
    lines: Mapping[str, Sequence[float | None]],
    chance: float | None = None,
    now: str | None = None,
    step: float = 46,
    most: float = 1,
) -> Block:
    """Return values from 0 to `most` along a row of names, one line with its own marks for each condition.

    `now` is the name that is chosen.
    """
    high, left, top = 140, 36, 8
    wide = step * len(names)
    parts = []
    if now in names:
        parts.append(
            f'<rect x="{left + step * list(names).index(str(now)):g}" y="{top - 6}" width="{step:g}" '
            f'height="{high + 12}" fill="{SOFT}" stroke="{INK}" stroke-width=".7"/>'
        )
    parts += [
        f'<path d="M{left} {top + high * (1 - tick):g}h{wide:g}" stroke="{EDGE}"/>'
        + words(left - 5, top + high * (1 - tick) + 4, f"{tick * most:.2g}", "end")
        for tick in (0, 0.5, 1)
    ]
    if chance is not None:
        y = top + high * (1 - chance)
        parts.append(f'<path d="M{left} {y:g}h{wide:g}" stroke="{INK}" stroke-dasharray="4 3"/>')
        parts.append(words(left + wide + 4, y + 4, f"chance {chance:g}"))
    heads = [name if len(name) <= 12 else f"…{name[-11:]}" for name in names]
    tall = 0.6 * max(map(room, heads), default=0) + 10
    # Labels beside one another; of many, some, so that none is drawn over another.
    some = max(1, math.ceil(21 / step))
    parts += [
        slanted(left + step * (at + 0.5) + 4, top + high + 14, name, -35, "end")
        for at, name in enumerate(heads)
        if at % some == 0
    ]
    foot, x = top + high + tall + 16, float(left)
    for condition, values in lines.items():
        colour, shape = SHAPES.get(condition, SHAPES["kept"])
        spots, line, pen = [], "", "M"
        for at, value in enumerate(values):
            if value is None:
                pen = "M"  # no line across a layer that has no value
                continue
            share = min(1.0, max(0.0, value / most))
            spots.append((left + step * (at + 0.5), top + high * (1 - share)))
            line += f"{pen}{spots[-1][0]:g} {spots[-1][1]:.1f}"
            pen = "L"
        if spots:
            dash = f' stroke-dasharray="{DASHES[condition]}"' if condition in DASHES else ""
            marks = "".join(f"M{a:g} {b:.1f}{shape}" for a, b in spots)
            parts.append(f'<path d="{line}" fill="none" stroke="{colour}"{dash}/>')
            parts.append(f'<path fill="{colour}" d="{marks}"/>')
        parts.append(
            f'<path fill="{colour}" d="M{x + 6:g} {foot - 4:g}{shape}"/>' + words(x + 14, foot, condition)
        )
        x += 26 + room(condition)
    return Block("".join(parts), max(x, left + wide + (70 if chance is not None else 8)), foot + 4)


def dots(rows: Sequence[Mapping[str, Any]], chance: bool) -> Block:
    """Return one line a condition: its name, a mark with its interval from 0 to 1, its numbers in words."""
    left, wide, line = 90, 290, 24
    high = line * len(rows)
    parts = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        x = left + wide * tick
        look = f'stroke="{INK}" stroke-dasharray="4 3"' if tick == 0.5 and chance else f'stroke="{EDGE}"'
        parts.append(f'<path d="M{x:g} 0v{high}" {look}/>' + words(x, high + 14, f"{tick:g}", "middle"))
    for at, row in enumerate(rows):
        name, y = str(row["name"]), line * (at + 0.5)
        parts.append(words(left - 10, y + 4, cut(name, left - 10), "end", BOLD * (name == "kept")))
        parts.append(words(left + wide + 12, y + 4, str(row["text"])))
        if row["value"] is None:
            continue
        colour, shape = SHAPES.get(name, SHAPES["kept"])
        ends = [row["value"] if row[end] is None else row[end] for end in ("low", "value", "high")]
        low, x, top = (left + wide * min(1.0, max(0.0, end)) for end in ends)
        parts.append(f'<path d="M{low:.1f} {y:g}H{top:.1f}" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<path d="M{x:.1f} {y:g}{shape}" fill="{colour}" stroke="#fff" stroke-width=".7"/>')
    return Block("".join(parts), left + wide + 12 + 110, high + 20)


def bars(
    heads: Sequence[str],
    rows: Sequence[tuple[str, Sequence[tuple[float, str]]]],
    before: Sequence[Sequence[float]] | None = None,
) -> Block:
    """Return a table of bars from 0 to 1: of each row its name and, for every head, a value and its words.

    `before` has a thin mark for every bar.
    """
    if not rows:
        return Block("", 0, 0)
    wide = 90
    left = max(room(cut(name, NAME)) for name, _ in rows) + 10
    step = wide + 16 + max([*map(room, heads), *(room(said) for _, values in rows for _, said in values)])
    top = 18 if any(heads) else 0
    parts = [words(left + step * c, 11, head, more=BOLD) for c, head in enumerate(heads) if head]
    for r, (name, values) in enumerate(rows):
        y = top + 18 * r
        parts.append(words(left - 8, y + 11, cut(name, NAME), "end"))
        for c, (value, said) in enumerate(values):
            x = left + step * c
            long = wide * min(1.0, max(0.0, value))
            parts.append(
                f'<rect x="{x:g}" y="{y + 2}" width="{wide}" height="10" fill="{SOFT}" stroke="{EDGE}"/>'
                f'<rect x="{x:g}" y="{y + 2}" width="{long:.1f}" height="10" fill="{BLUE}"/>'
            )
            if before is not None:
                at = x + wide * before[r][c]
                parts.append(f'<path d="M{at:.1f} {y - 1}v16" stroke="{INK}" stroke-width="2"/>')
            parts.append(words(x + wide + 6, y + 11, said))
    return Block("".join(parts), left + step * max(len(heads), 1), top + 18 * len(rows))
