"""Where the marks of a chart stand, and the curves between them; no plotly here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from nadkit.figures._columns import REST, Chart, Column, Item, Line

BAR = 0.34
"""Width of a mark of many units, in columns."""

_SWEEPS = 6

_APART = 0.05
"""Height between lines of two kinds at a mark of many units."""

_NEAR = tuple((1 - math.cos(math.pi * step / 8)) / 2 for step in range(9))
_FAR = (0.0, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 1.0)

_RISE = 0.8
"""Columns in which a line that skips some has risen above them."""


def places(chart: Chart, kinds: Sequence[str] | None = None) -> dict[str, tuple[float, float]]:
    """Return (column, height) of every mark; heights are around 0, of the longest column from −0.5 to 0.5.

    Units of a column are ordered so that a unit stands at the height of those that it is linked with,
    and, with `kinds`, first by their kind, the first one above.
    """
    columns: list[list[str]] = [[] for _ in chart.columns]
    for name, item in chart.items.items():
        columns[item.column].append(name)
    near: dict[str, dict[bool, list[tuple[str, float]]]] = {
        name: {True: [], False: []} for name in chart.items
    }
    for line in chart.lines:
        near[line.target][True].append((line.source, line.share))
        near[line.source][False].append((line.target, line.share))
    rank = {kind: -at for at, kind in enumerate(kinds or ())}
    spans = _spans(columns)
    height: dict[str, float] = {}
    for names, span in zip(columns, spans, strict=True):
        _spread(_grouped(names, chart.items, rank, {}), span, height)
    for sweep in range(_SWEEPS):
        forward = sweep % 2 == 0
        for names, span in zip(*((columns, spans) if forward else (columns[::-1], spans[::-1])), strict=True):
            wanted = {name: _mean(near[name][forward], height, height[name]) for name in names}
            _spread(_grouped(names, chart.items, rank, wanted), span, height)
    return {name: (float(item.column), height[name]) for name, item in chart.items.items()}


def _spans(columns: Sequence[Sequence[str]]) -> list[float]:
    """Heights that columns take: with the root of the number, so that short ones are not a heap."""
    most = max((len(names) for names in columns), default=1)
    return [math.sqrt(len(names) / max(most, 1)) if len(names) > 1 else 0.0 for names in columns]


def _grouped(
    names: Sequence[str], items: Mapping[str, Item], rank: Mapping[str, int], wanted: Mapping[str, float]
) -> list[str]:
    """The names from the lowest to the highest; marks of weaker units are the lowest."""
    return sorted(
        names,
        key=lambda name: (items[name].counts is None, rank.get(items[name].kind, 0), wanted.get(name, 0.0)),
    )


def _spread(names: Sequence[str], span: float, height: dict[str, float]) -> None:
    for at, name in enumerate(names):
        height[name] = span * (at / (len(names) - 1) - 0.5) if len(names) > 1 else 0.0


def _mean(linked: Sequence[tuple[str, float]], height: Mapping[str, float], otherwise: float) -> float:
    whole = math.fsum(share for _, share in linked)
    return math.fsum(height[name] * share for name, share in linked) / whole if whole > 0 else otherwise


def lengths(chart: Chart) -> dict[str, float]:
    """Return the height of each mark of many units, proportional to their number; the largest has 0.7."""
    totals = {
        name: sum(item.counts.values())
        for name, item in chart.items.items()
        if item.counts and item.kind != REST
    }
    most = max(totals.values(), default=1)
    return {name: max(0.7 * total / most, 0.02) for name, total in totals.items()}


def tops(chart: Chart, where: Mapping[str, tuple[float, float]]) -> list[float]:
    """Return how far each column reaches above and below 0."""
    long = lengths(chart)
    found = [0.0] * len(chart.columns)
    for name, (_, y) in where.items():
        column = chart.items[name].column
        found[column] = max(found[column], abs(y) + long.get(name, 0.0) / 2)
    return found


def ends_of(
    line: Line,
    where: Mapping[str, tuple[float, float]],
    long: Mapping[str, float],
    kinds: Sequence[str],
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return where a line begins and ends: in a dot's middle, or at a bar's side, the first kind above."""
    found = []
    for name, way in ((line.source, 1), (line.target, -1)):
        x, y = where[name]
        if name in long:
            apart = min(_APART, long[name] / max(len(kinds), 1))
            y += apart * ((len(kinds) - 1) / 2 - kinds.index(line.kind))
            x += way * BAR / 2
        found.append((x, y))
    return found[0], found[1]


def curve(
    start: tuple[float, float], end: tuple[float, float], reach: Sequence[float]
) -> tuple[list[float], list[float]]:
    """Return the points of a line; one that skips columns passes above, or below, all marks between.

    Parameters
    ----------
    start, end
        (column, height).
    reach
        As `tops` returns it.
    """
    (x0, y0), (x1, y1) = start, end
    between = reach[round(min(x0, x1)) + 1 : round(max(x0, x1))]
    if not between:
        steps = [(t, t * t * (3 - 2 * t)) for t in _NEAR]
        return [round(x0 + (x1 - x0) * t, 3) for t, _ in steps], [
            round(y0 + (y1 - y0) * s, 4) for _, s in steps
        ]
    middle = (y0 + y1) / 2
    side = -1.0 if middle < 0 else 1.0
    # Lines that begin in neighbouring columns are a little apart, to be told apart where they run along.
    apart = 0.01 * (round(x0) % 3)
    around = max(between) + 0.05 + 0.035 * len(between) + 0.12 * abs(middle) + apart
    peak = side * max(around, side * y0 + 0.03, side * y1 + 0.03)
    way = math.copysign(_RISE, x1 - x0)
    up = [(x0 + way * t, y0 + (peak - y0) * t * t * (3 - 2 * t)) for t in _FAR]
    down = [(x1 - way * t, y1 + (peak - y1) * t * t * (3 - 2 * t)) for t in reversed(_FAR)]
    return [round(x, 3) for x, _ in [*up, *down]], [round(y, 4) for _, y in [*up, *down]]


def clipped(text: str, most: int) -> str:
    """Return a name of at most `most` letters, its middle left out.

    Examples
    --------
    >>> clipped("features.denseblock1.denselayer1", 15)
    'feature…elayer1'
    """
    if len(text) <= most:
        return text
    return f"{text[: (most - 1) // 2]}…{text[len(text) - most // 2 :]}"


def marked(columns: Sequence[Column], most: int) -> list[int]:
    """Return the columns whose names are written: all, or every second, third, … of them."""
    return list(range(0, len(columns), max(1, math.ceil(len(columns) / most))))
