"""A chart of units and links as traces of plotly: few of them, whatever the number of lines."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from nadkit.figures._arcs import BAR, clipped, curve, ends_of, lengths, marked, places, tops
from nadkit.figures._columns import END, REST, Chart, Column, Item, Line
from nadkit.figures._marks import INK, Mark, fits, legend_below, room_for, title_of

if TYPE_CHECKING:
    import plotly.graph_objects as go


class Width(NamedTuple):
    """Lines with a share of at least `least` of the receiving unit's input."""

    least: float
    pixels: float
    opacity: float
    words: str


WIDTHS = (
    Width(0.0, 0.7, 0.35, "under 3 %"),
    Width(0.03, 1.2, 0.45, "3 to 10 %"),
    Width(0.10, 2.2, 0.55, "10 to 20 %"),
    Width(0.20, 3.6, 0.65, "20 to 40 %"),
    Width(0.40, 6.0, 0.75, "40 % and more"),
)
"""Five widths, so that any number of lines is few traces."""

_END = Mark("#000000", "square")
_REST = Mark("#595959", "hexagon2")


@dataclass(frozen=True)
class Look:
    """How the kinds of a chart are drawn and called.

    `units`: kind -> (words, mark); `links`: kind -> (words, colour, dash); `patterns`: of bars of units.
    """

    units: Mapping[str, tuple[str, Mark]]
    links: Mapping[str, tuple[str, str, str]]
    patterns: Mapping[str, str]
    ends: str = "input and logit"


def width_of(share: float) -> int:
    """Return the place of a share's width in `WIDTHS`.

    Examples
    --------
    >>> [width_of(share) for share in (0.0, 0.03, 0.5)]
    [0, 1, 4]
    """
    return max(at for at, width in enumerate(WIDTHS) if share >= width.least or at == 0)


def drawn(
    chart: Chart,
    look: Look,
    said: str,
    below: str,
    alt: str,
    *,
    unit_words: Callable[[str, Item], str],
    line_words: Callable[[Line], str],
    chain: Sequence[str] = (),
    grouped: bool = False,
    widths: bool = True,
    inner: int = 470,
) -> go.Figure:
    """Return the figure of a chart: lines by kind and width, then marks by kind, then the words.

    `unit_words` and `line_words` give hover text, escaped already. `chain` is a list of marks whose lines are
    drawn once more in black. `inner` is the height of the columns in pixels.
    """
    import plotly.graph_objects as go

    where = places(chart, list(look.units) if grouped else None)
    reach = tops(chart, where)
    figure = go.Figure()
    long = lengths(chart)

    def points(line: Line) -> tuple[list[float], list[float]]:
        return curve(*ends_of(line, where, long, list(look.links)), reach)

    heights = _lines(figure, chart, look, points, widths)
    _chain(figure, chart, chain, where, reach)
    _hovers(figure, chart, points, line_words)
    _bars(figure, chart, look, where, unit_words)
    low, high = min([*heights, *(-top for top in reach)]), max([*heights, *reach])
    edge = 0.05 * (high - low or 1)
    _dots(figure, chart, look, where, unit_words, inner / (high - low + 2 * edge))
    _name_ends(figure, chart, where)
    _layout(figure, chart, (low - edge, high + edge), title_of(said, below), alt, inner)
    return figure


def _lines(
    figure: go.Figure,
    chart: Chart,
    look: Look,
    points: Callable[[Line], tuple[list[float], list[float]]],
    widths: bool,
) -> list[float]:
    """Draw all lines, thin ones first; the heights that they reach."""
    heights: list[float] = []
    groups: dict[tuple[int, str], list[Line]] = {}
    for line in chart.lines:
        groups.setdefault((width_of(line.share) if widths else 2, line.kind), []).append(line)
    for kind, (words, colour, dash) in look.links.items():
        if any(line.kind == kind for line in chart.lines):
            style = {"color": colour, "dash": dash, "width": 2.4}
            figure.add_scatter(x=[None], y=[None], mode="lines", name=words, legendgroup=kind, line=style)
    for (place, kind), lines in sorted(groups.items(), key=lambda pair: (pair[0][0], _at(look, pair[0][1]))):
        xs: list[float | None] = []
        ys: list[float | None] = []
        for line in lines:
            x, y = points(line)
            xs += [*x, None]
            ys += [*y, None]
            heights += (min(y), max(y))
        _, colour, dash = look.links[kind]
        width = WIDTHS[place]
        figure.add_scatter(
            x=xs, y=ys, mode="lines", hoverinfo="skip", showlegend=False, legendgroup=kind,
            name=f"{kind}, {width.words}", opacity=width.opacity,
            line={"color": colour, "dash": dash, "width": width.pixels},
        )  # fmt: skip
    for place in sorted({place for place, _ in groups} if widths else ()):
        figure.add_scatter(
            x=[None], y=[None], mode="lines", name=WIDTHS[place].words, legend="legend2", hoverinfo="skip",
            line={"color": "#595959", "width": WIDTHS[place].pixels}, opacity=WIDTHS[place].opacity,
        )  # fmt: skip
    return heights or [0.0]


def _at(look: Look, kind: str) -> int:
    return list(look.links).index(kind)


def _chain(
    figure: go.Figure,
    chart: Chart,
    chain: Sequence[str],
    where: Mapping[str, tuple[float, float]],
    reach: Sequence[float],
) -> None:
    """Draw the lines between units of a chain, and the units' numbers; none where units are put together."""
    pairs = [
        pair for pair in itertools.pairwise(chain) if all(chart.items[name].counts is None for name in pair)
    ]
    if not pairs:
        return
    xs: list[float | None] = []
    ys: list[float | None] = []
    for one, other in pairs:
        x, y = curve(where[one], where[other], reach)
        xs += [*x, None]
        ys += [*y, None]
    figure.add_scatter(
        x=xs, y=ys, mode="lines", name="strongest chain", hoverinfo="skip",
        line={"color": "#000000", "width": 1.8},
    )  # fmt: skip
    for name in dict.fromkeys(name for pair in pairs for name in pair):
        item = chart.items[name]
        if item.facts.get("index", -1) >= 0:
            figure.add_annotation(
                x=where[name][0], y=where[name][1], text=f"<b>{item.facts['index']}</b>", showarrow=False,
                xanchor="left", xshift=8, bgcolor="rgba(255,255,255,0.8)", borderpad=0,
                font={"size": 11, "color": "#000000"},
            )  # fmt: skip


def _hovers(
    figure: go.Figure,
    chart: Chart,
    points: Callable[[Line], tuple[list[float], list[float]]],
    words: Callable[[Line], str],
) -> None:
    """Give every line one place, in its middle, where its numbers are read."""
    xs, ys = [], []
    for line in chart.lines:
        x, y = points(line)
        xs.append(x[len(x) // 2])
        ys.append(y[len(y) // 2])
    figure.add_scatter(
        x=xs, y=ys, mode="markers", name="links", text=[words(line) for line in chart.lines],
        hovertemplate="%{text}<extra></extra>", marker={"size": 7, "opacity": 0, "color": "#595959"},
        showlegend=False,
    )  # fmt: skip


def _bars(
    figure: go.Figure,
    chart: Chart,
    look: Look,
    where: Mapping[str, tuple[float, float]],
    words: Callable[[str, Item], str],
) -> None:
    """Draw marks of many units: bars as long as they are many, a part for each kind."""
    long = lengths(chart)
    there = {name: item.counts for name, item in chart.items.items() if item.counts and item.kind != REST}
    upper = {name: where[name][1] + long[name] / 2 for name in there}
    for kind, (said, mark) in look.units.items():
        mine = [name for name, counts in there.items() if counts.get(kind)]
        parts = [long[name] * there[name][kind] / sum(there[name].values()) for name in mine]
        for name, part in zip(mine, parts, strict=True):
            upper[name] -= part
        if mine:
            figure.add_bar(
                x=[where[name][0] for name in mine], y=parts, base=[upper[name] for name in mine], width=BAR,
                name=said, legendgroup=said, text=[words(name, chart.items[name]) for name in mine],
                textposition="none", hovertemplate="%{text}<extra></extra>",
                marker={
                    "color": mark.colour, "line": {"color": "#ffffff", "width": 1},
                    "pattern": {"shape": look.patterns.get(kind, ""), "fgcolor": "#ffffff", "size": 6},
                },
            )  # fmt: skip


def _sizes(chart: Chart, where: Mapping[str, tuple[float, float]], scale: float) -> list[float]:
    """The largest dot of every column in pixels, as its dots are apart; `scale`: pixels of height 1."""
    heights: list[list[float]] = [[] for _ in chart.columns]
    for name, item in chart.items.items():
        heights[item.column].append(where[name][1])
    widest = max(4.0, 620 / len(chart.columns))
    return [
        min(15.0, widest, max(5.5, 1.1 * scale * (max(column) - min(column)) / (len(column) - 1)))
        if len(column) > 1
        else min(15.0, widest)
        for column in heights
    ]


def _dots(
    figure: go.Figure,
    chart: Chart,
    look: Look,
    where: Mapping[str, tuple[float, float]],
    words: Callable[[str, Item], str],
    scale: float,
) -> None:
    sizes = _sizes(chart, where, scale)
    styles = {**look.units, END: (look.ends, _END), REST: ("weaker units, as one", _REST)}
    for kind, (said, mark) in styles.items():
        mine = [
            name
            for name, item in chart.items.items()
            if item.kind == kind and (item.counts is None or kind == REST)
        ]
        if not mine:
            continue
        bars = any((item.counts or {}).get(kind) and item.kind != REST for item in chart.items.values())
        pixels = [
            round(max(3.2, sizes[item.column] * (0.45 + 0.55 * math.sqrt(item.strength))), 1)
            if kind != END
            else 11.0
            for item in (chart.items[name] for name in mine)
        ]
        figure.add_scatter(
            x=[where[name][0] for name in mine], y=[round(where[name][1], 4) for name in mine],
            mode="markers", name=said, legendgroup=said, showlegend=not bars,
            text=[words(name, chart.items[name]) for name in mine], hovertemplate="%{text}<extra></extra>",
            marker={
                "color": mark.colour, "symbol": mark.symbol, "opacity": 1,
                "size": pixels,
                "line": {"color": "#ffffff", "width": 0.8},
            },
        )  # fmt: skip


def _name_ends(figure: go.Figure, chart: Chart, where: Mapping[str, tuple[float, float]]) -> None:
    """Write which logit is which where there are several."""
    ends = [name for name, item in chart.items.items() if item.column == len(chart.columns) - 1]
    for name in sorted(ends, key=lambda name: where[name][1]) if len(ends) > 1 else ():
        x, y = where[name]
        text = html.escape(clipped(name.removeprefix("logit:"), 16), quote=False)
        figure.add_annotation(
            x=x, y=y, text=text, showarrow=False, yshift=15 if y > 0 else -15, font={"size": 12}
        )


def _layout(
    figure: go.Figure,
    chart: Chart,
    heights: tuple[float, float],
    title: dict[str, object],
    alt: str,
    inner: int,
) -> None:
    columns = chart.columns
    at = marked(columns, 64)
    names = [_tick(columns[place]) for place in at]
    longest = max(len(line) for name in names for line in name.split("<br>"))
    flat = fits(len(columns), longest, 28)
    if not flat:
        names = [name.replace("<br>", " · ") for name in names]
        longest = max(map(len, names))
    angle = 0 if flat else -40 if len(columns) <= 24 else -90
    letters = 6.3 if len(columns) <= 24 else 5.4
    bottom = 50 if flat else 28 + round(letters * longest * (0.66 if angle == -40 else 1))
    entries = [trace.name for trace in figure.data if trace.showlegend is not False and not trace.legend]
    kinds, low = legend_below(entries)
    shares = [trace.name for trace in figure.data if trace.legend == "legend2"]
    widths, high = legend_below(shares, "width of a curve: share of the receiving unit's input")
    legend = low + high * bool(shares)
    top = room_for(title)
    figure.update_layout(
        template="plotly_white", font=INK, title=title, meta={"alt": alt}, barmode="overlay",
        height=top + inner + bottom + legend, margin={"l": 12, "r": 16, "t": top, "b": bottom + legend},
        hovermode="closest",
        legend={**kinds, "itemsizing": "constant"},
        legend2={
            **widths, "y": low / (top + inner + bottom + legend),
            "itemclick": False, "itemdoubleclick": False,
        },
    )  # fmt: skip
    figure.update_xaxes(
        tickvals=at, ticktext=names, tickangle=angle, range=[-0.6, len(columns) - 0.4], showgrid=False,
        zeroline=False, tickfont={"size": 11 if flat else 12 if len(columns) <= 24 else 10}, automargin=False,
    )  # fmt: skip
    figure.update_yaxes(visible=False, range=list(heights))


def _tick(column: Column) -> str:
    name = html.escape(clipped(column.name, 24), quote=False)
    if not column.units or column.layers in (("input",), ("logit",)):
        return name
    return f"{name}<br>{column.kept:,}/{column.units:,}"
