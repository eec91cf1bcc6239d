"""The map as a picture: layers as columns, units as marks."""

from __future__ import annotations

import math
from typing import Any

from nadkit.widgets.choice import Choice
from nadkit.widgets.stills.svg import BLUE, EDGE, Block, cut, document, room, words
from nadkit.widgets.subject import Subject
from nadkit.widgets.views.network import columns, legend

_PITCH, _ROWS, _TOP, _GAP, _LEAST = 9, 18, 32, 14, 56
# Colour and outline, drawn from where the pen is, by the codes of the map.
_SHAPES = {
    0: ("#9a9a9a", "m-1 0a1 1 0 1 0 2 0a1 1 0 1 0 -2 0"),
    1: (BLUE, "m-3 0a3 3 0 1 0 6 0a3 3 0 1 0 -6 0"),
    2: (BLUE, "m0 -4l4 4l-4 4l-4 -4z"),
    3: ("#A6507F", "m0 -3.6l3.4 6.4h-6.8z"),
    4: ("#00805D", "m-2.8 -2.8h5.6v5.6h-5.6z"),
}


def map_svg(subject: Subject, choice: Choice) -> str:
    """Return the map as an SVG document."""
    made: list[str] = []
    x = 0.0
    for column in columns(subject, choice):
        if column.get("end"):
            continue
        units = len(column["ids"]) if column["ids"] else column["units"]
        wide = max(_LEAST, math.ceil(units / _ROWS) * _PITCH) if column["open"] else _LEAST
        label = str(column["label"])
        label = f"…{label[-9:]}" if len(label) > 10 else label
        for y, text in ((6, label), (21, f"{column['kept']}/{column['units']}")):
            made.append(words(x + wide / 2, y, text, "middle"))
        made += _marks(column, x, wide) if column["open"] else _bar(column, x, wide)
        x += wide + _GAP
    height = _TOP + _ROWS * _PITCH + 30
    at = 8.0
    for code, said, hollow in legend(subject, choice):
        if not hollow:
            colour, shape = _SHAPES[code]
            said = cut(said, 200)
            made.append(f'<path d="M{at:g} {height - 12}{shape}" fill="{colour}"/>')
            made.append(words(at + 9, height - 8, said))
            at += 26 + room(said)
    return document(f"{subject.name}: {choice.task}", Block("".join(made), max(x, at), height))


def _marks(column: dict[str, Any], x: float, wide: float) -> list[str]:
    left = x + (wide - math.ceil(len(column["marks"]) / _ROWS) * _PITCH) / 2 + _PITCH / 2
    # One path a kind: a mark each would make the picture ten times as large.
    found = []
    for code, (colour, shape) in _SHAPES.items():
        spots = [at for at, mark in enumerate(column["marks"]) if int(mark) == code]
        moved = "".join(
            f"M{left + at // _ROWS * _PITCH:g} {_TOP + 4 + at % _ROWS * _PITCH}{shape}" for at in spots
        )
        if moved:
            found.append(f'<path fill="{colour}" d="{moved}"/>')
    return found


def _bar(column: dict[str, Any], x: float, wide: float) -> list[str]:
    whole = _ROWS * _PITCH
    high = whole * column["kept"] / max(column["units"], 1)
    left = x + wide / 2 - 8
    return [
        f'<rect x="{left}" y="{_TOP}" width="16" height="{whole}" fill="#eef0f2" stroke="{EDGE}"/>',
        f'<rect x="{left}" y="{_TOP + whole - high:.1f}" width="16" height="{high:.1f}" fill="{BLUE}"/>',
    ]
