"""The overlap of all tasks along depth as a river: tasks run together where they share units."""

from __future__ import annotations

import html
import itertools
import math
from typing import TYPE_CHECKING, Any

from nadkit.figures._arcs import clipped
from nadkit.figures._course import Layer, heights_of, mean_of, order_of, read, smooth, spread
from nadkit.figures._marks import FURTHER, INK, MARKS, OTHER, fits, room_for, title_of
from nadkit.figures._told import many

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_COLOURS = (
    MARKS["kept"].colour, MARKS["removed"].colour, MARKS["shared"].colour, MARKS["relabelled"].colour,
    MARKS["whole"].colour, MARKS["untrained"].colour, FURTHER["other"].colour, FURTHER["last_layer"].colour,
    OTHER.colour,
)  # fmt: skip
_DASHES = ("solid", "9px,3px", "3px,2px", "9px,3px,3px,3px")
_MOST = 30
"""Tasks that are named at the right end; of more the names are on hover."""

_LINE = 17
"""Pixels between the names of two tasks."""

_LONGEST = 18
"""Letters of a task's name at the right end."""


def river(table: pd.DataFrame) -> go.Figure:
    """Return the overlap of masks as a river: a line a task, close to its neighbours where they share units.

    At every layer two neighbouring lines are 1 − φ apart (1 where φ is negative): they almost touch where
    both tasks keep the same units (0.08, so that both are seen), and are 1 apart where they share no more
    than by chance. The order of tasks is one for all layers, by average-linkage clustering on the mean φ, so
    that only distances of neighbours are read; those of others add up.

    Examples
    --------
    >>> import pandas as pd
    >>> columns = ["task", "other_task", "layer", "units", "kept", "other_kept", "phi", "defined"]
    >>> rows = [("bag", "coat", "first", 8, 4, 4, 0.5, True), ("bag", "coat", "last", 8, 4, 4, -0.5, True)]
    >>> print(river(pd.DataFrame(rows, columns=columns)).layout.meta["alt"])
    River of 2 tasks over 2 layers from first to last, neighbours 1 − φ apart. Mean φ of all pairs: first
    0.50, last -0.50. Order, top to bottom: bag, coat. Closest over all layers bag and coat, mean φ 0.00;
    in last, lowest φ bag and coat, -0.50.

    Parameters
    ----------
    table
        As `MaskSet.overlap` returns it for the tasks of one set.

    Returns
    -------
    plotly.graph_objects.Figure
        A trace a task, of more than 30 tasks at most 36, and 2 others. Up to 30 tasks are named at the right
        end. A line is broken where a task keeps none or all of a
        layer's units, and so has no φ.

    Raises
    ------
    NadkitError
        No such table, fewer than two tasks, or pairs that are missing or there twice, as with `other=`.
    """
    import plotly.graph_objects as go

    tasks, layers = read(table)
    order = order_of(layers)
    heights = heights_of(layers, order)
    figure = go.Figure()
    width = 3.5 if len(tasks) <= _MOST else 1.5
    styles: dict[tuple[str, str], tuple[list[float | None], list[float | None]]] = {}
    for place, task in enumerate(order):
        style = (_COLOURS[place % len(_COLOURS)], _DASHES[place % len(_DASHES)])
        xs, ys = styles.setdefault(style, ([], [])) if len(tasks) > _MOST else ([], [])
        xy = smooth([row[task] for row in heights])
        xs += [*xy[0], None]
        ys += [*xy[1], None]
        if len(tasks) <= _MOST:
            figure.add_scatter(
                x=xs, y=ys, mode="lines", name=html.escape(tasks[task], quote=False), hoverinfo="skip",
                line={"color": style[0], "dash": style[1], "width": width}, connectgaps=False,
            )  # fmt: skip
    for (colour, dash), (xs, ys) in styles.items():
        line = {"color": colour, "dash": dash, "width": width}
        figure.add_scatter(x=xs, y=ys, mode="lines", hoverinfo="skip", line=line, opacity=0.7)
    _points(figure, tasks, layers, order, heights, width)
    drawn = [height for row in heights for height in row if not math.isnan(height)] or [0.0]
    edge = 0.06 * max(max(drawn) - min(drawn), 1.0)
    bounds = (min(drawn) - edge, max(drawn) + edge)
    inner = max(400, 1.15 * _LINE * len(tasks) + 40) if len(tasks) <= _MOST else 640
    if len(tasks) <= _MOST:
        bounds = _names(figure, tasks, order, heights, inner, bounds)
    _layout(figure, tasks, layers, order, bounds, inner)
    return figure


def _points(
    figure: go.Figure,
    tasks: list[str],
    layers: list[Layer],
    order: list[int],
    heights: list[list[float]],
    width: float,
) -> None:
    """One mark for every task and layer, with its numbers."""
    xs, ys, words, colours = [], [], [], []
    for (at, layer), (place, task) in itertools.product(enumerate(layers), enumerate(order)):
        if math.isnan(heights[at][task]):
            continue
        said = [tasks[task], f"{layer.name}: keeps {layer.kept[task]} of {layer.units} units"]
        for beside in (place - 1, place + 1):
            if 0 <= beside < len(order) and not math.isnan(layer.phi[task, order[beside]]):
                said.append(f"φ with {tasks[order[beside]]} {layer.phi[task, order[beside]]:z.2f}")
        xs.append(at)
        ys.append(round(heights[at][task], 4))
        colours.append(_COLOURS[place % len(_COLOURS)])
        words.append("<br>".join(html.escape(part, quote=False) for part in said))
    figure.add_scatter(
        x=xs, y=ys, mode="markers", name="task and layer", text=words, showlegend=False,
        hovertemplate="%{text}<extra></extra>", marker={"size": 2 * width, "color": colours},
    )  # fmt: skip


def _names(
    figure: go.Figure,
    tasks: list[str],
    order: list[int],
    heights: list[list[float]],
    inner: float,
    bounds: tuple[float, float],
) -> tuple[float, float]:
    """Write the tasks at the right end, each joined to its line by a thin one; the bounds with the names."""
    last = len(heights) - 1
    ends = {task: [at for at in range(last + 1) if not math.isnan(heights[at][task])] for task in order}
    named = [task for task in order if ends[task]]
    wanted = [heights[ends[task][-1]][task] for task in named]
    low, high = bounds
    places = wanted
    for _ in range(8):  # names that need more height make every name take more of it
        apart = _LINE / inner * (high - low)
        places = spread(wanted, apart)
        low, high = min([bounds[0], places[-1] - apart]), max([bounds[1], places[0] + apart])
    xs: list[float | None] = []
    ys: list[float | None] = []
    for task, height, mine in zip(named, places, wanted, strict=True):
        xs += [ends[task][-1], last + 0.25, None]
        ys += [round(mine, 4), round(height, 4), None]
        colour = _COLOURS[order.index(task) % len(_COLOURS)]
        figure.add_annotation(
            x=last + 0.25, y=height, xanchor="left", showarrow=False, font={"size": 13}, borderpad=0,
            text=f'<span style="color:{colour}">●</span> '
            + html.escape(clipped(tasks[task], _LONGEST), quote=False),
        )  # fmt: skip
    figure.add_scatter(
        x=xs, y=ys, mode="lines", hoverinfo="skip", showlegend=False, name="to the names",
        line={"color": "#767676", "width": 0.8},
    )  # fmt: skip
    return low, high


def _layout(
    figure: go.Figure,
    tasks: list[str],
    layers: list[Layer],
    order: list[int],
    bounds: tuple[float, float],
    inner: float,
) -> None:
    title, alt = _words(tasks, layers, order)
    names = [html.escape(clipped(layer.name, 24), quote=False) for layer in layers]
    longest = max(map(len, names))
    right = 30 + 8 * max((len(clipped(task, _LONGEST)) for task in tasks), default=0)
    flat = fits(len(layers), longest, 58 + right)
    bottom = 50 if flat else 50 + round(4.3 * longest)
    top = room_for(title) + 6
    figure.update_layout(
        template="plotly_white", font=INK, title=title, meta={"alt": alt}, showlegend=False,
        hovermode="closest", height=top + round(inner) + bottom,
        margin={"l": 58, "r": right if len(tasks) <= _MOST else 16, "t": top, "b": bottom},
    )  # fmt: skip
    figure.update_xaxes(
        tickvals=list(range(len(layers))), ticktext=names, tickangle=0 if flat else -40, title="layer",
        range=[-0.25, len(layers) - 0.75], showgrid=True, zeroline=False,
        tickfont={"size": 11 if flat else 12},
    )  # fmt: skip
    figure.update_yaxes(visible=False, range=list(bounds))
    middle = (bounds[0] + bounds[1]) / 2
    figure.add_shape(
        type="line",
        xref="paper",
        x0=-0.012,
        x1=-0.012,
        y0=middle - 0.5,
        y1=middle + 0.5,
        line={"width": 3, "color": "#1b1f24"},
    )
    figure.add_annotation(
        xref="paper", x=-0.012, xanchor="right", xshift=-4, y=middle, textangle=-90, showarrow=False,
        text="distance 1: φ = 0", font={"size": 12},
    )  # fmt: skip


def _pairs(phi: Any, order: list[int]) -> list[tuple[float, int, int]]:
    """All pairs with a value, those of higher φ first; ties in the order of tasks."""
    found = [
        (float(phi[a, b]), a, b)
        for at, a in enumerate(order)
        for b in order[at + 1 :]
        if not math.isnan(phi[a, b])
    ]
    return sorted(found, key=lambda pair: -pair[0])


def _average(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _words(tasks: list[str], layers: list[Layer], order: list[int]) -> tuple[dict[str, object], str]:
    """The title and the alternative text."""
    by_layer = [(layer.name, _average([pair[0] for pair in _pairs(layer.phi, order)])) for layer in layers]
    known = [(name, value) for name, value in by_layer if not math.isnan(value)]
    closest = _pairs(mean_of([layer.phi for layer in layers]), order)
    near = f"{tasks[closest[0][1]]} and {tasks[closest[0][2]]}" if closest else ""
    said = f"{len(tasks)} tasks"
    if len(known) > 1:
        (first, start), (last, end) = known[0], known[-1]
        turn = (
            "part with depth" if end < start else "run together with depth" if end > start else "stay as far"
        )
        said += f" {turn}: mean φ {start:z.2f} in {first}, {end:z.2f} in {last}"
    elif known:
        said += f": mean φ {known[0][1]:z.2f} in {known[0][0]}"
    else:
        said += ": no φ in any layer"
    said += f"; closest {near}, {closest[0][0]:z.2f}" if closest else ""
    below = "neighbouring lines are 1 − φ apart (1 where φ is below 0); other distances only add up"
    below += "; task names on hover" if len(tasks) > _MOST else ""
    gaps = [
        f"{tasks[task]} in {layer.name} (keeps {'none' if layer.kept[task] == 0 else 'all'})"
        for layer in layers
        for task in order
        if not 0 < layer.kept[task] < layer.units
    ]
    below += (
        f"; broken where a task keeps none or all of a layer's units ({many(len(gaps), 'place')})"
        if gaps
        else ""
    )
    alt = (
        f"River of {len(tasks)} tasks over {len(layers)} layers from {layers[0].name} to {layers[-1].name}, "
        f"neighbours 1 − φ apart. Mean φ of all pairs: {_some([f'{n} {v:z.2f}' for n, v in by_layer])}. "
        f"Order, top to bottom: {_some([tasks[task] for task in order])}."
    )
    if closest:
        alt += f" Closest over all layers {near}, mean φ {closest[0][0]:z.2f}"
        deepest = _pairs(layers[-1].phi, order)
        if deepest:
            value, a, b = deepest[-1]
            alt += f"; in {layers[-1].name}, lowest φ {tasks[a]} and {tasks[b]}, {value:z.2f}"
        alt += "."
    alt += f" Broken, without φ: {_some(gaps)}." if gaps else ""
    return title_of(said, below), alt


def _some(parts: list[str]) -> str:
    """A list in words; of a long one both ends."""
    shown = parts if len(parts) <= 30 else [*parts[:15], f"… ({len(parts) - 30} more)", *parts[-15:]]
    return ", ".join(shown).replace("nan", "no value")
