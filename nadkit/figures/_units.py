"""The units of a network as marks in columns of layers: what a class keeps."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING

from nadkit.errors import NadkitError
from nadkit.figures._marks import INK, MARKS, Mark, legend_below, room_for, title_of

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_ROWS = 18
_MOST = 3000
"""Units that are drawn one by one; of more, a bar is drawn for each layer."""

_KINDS = {
    "both": ("kept by both", Mark("#00805D", "square")),
    "shared": ("kept by {task} and others", MARKS["kept"]),
    "exclusive": ("kept by {task} alone", MARKS["kept"]._replace(symbol="diamond")),
    "only": ("kept by {task} only", MARKS["kept"]),
    "other": ("kept by {other} only", MARKS["relabelled"]),
    "removed": ("not kept", MARKS["random"]._replace(symbol="circle")),
}


def units(table: pd.DataFrame, unit: str | None = None) -> go.Figure:
    """Return which units of every layer a class keeps, as marks in columns.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"network": "net", "task": "bag", "other_task": "", "layer": "conv",
    ...                       "index": [0, 1], "score": [0.9, 0.2], "kept": [True, False],
    ...                       "tasks": [1, 1], "exclusive": [True, False]})
    >>> units(table).layout.meta["alt"]
    'Units of net by layer. bag keeps 1 of 2 units, 1 of them alone: conv 1 of 2.'

    Parameters
    ----------
    table
        As `Explorer.to_frame` returns it: one row a unit, of one network and one class.
    unit
        A unit to be ringed, written layer/index.

    Returns
    -------
    plotly.graph_objects.Figure
        A trace for each kind of unit, told apart by colour and shape; of more than 3,000 units, a bar for
        each layer, as long as its kept share.

    Raises
    ------
    NadkitError
        No such table.
    """
    import plotly.graph_objects as go

    needed = ("network", "task", "other_task", "layer", "index", "score", "kept", "tasks", "exclusive")
    missing = [name for name in needed if name not in getattr(table, "columns", ())]
    if missing or not len(table):
        what = f"no column {', '.join(missing)}" if missing else "no row"
        raise NadkitError(
            f"figures.units draws the table of an explorer, explorer.to_frame(); this has {what}"
        )
    network, task, other = (str(table[name].iloc[0]) for name in ("network", "task", "other_task"))
    layers = list(dict.fromkeys(table["layer"]))
    counts = {
        layer: (int(rows["kept"].sum()), len(rows)) for layer, rows in table.groupby("layer", sort=False)
    }
    figure = go.Figure()
    if len(table) > _MOST:
        shares = [counts[layer][0] / counts[layer][1] for layer in layers]
        words = [f"{layer}: {counts[layer][0]} of {counts[layer][1]} kept" for layer in layers]
        bars = go.Bar(x=list(range(len(layers))), y=shares, hovertext=words, hoverinfo="text",
                      marker_color=MARKS["kept"].colour)  # fmt: skip
        figure.add_trace(bars)
        figure.update_yaxes(title="kept share", range=[0, 1])
        figure.update_xaxes(title="layer", tickvals=list(range(len(layers))), ticktext=_short(layers))
        height = 420
    else:
        height = _draw(figure, table, layers, task, other, unit)
    kept, alone = int(table["kept"].sum()), int(table["exclusive"].sum())
    said = f"{task} keeps {kept:,} of {len(table):,} units"
    if other:
        both = int((table["kept"] & table["other_kept"]).sum())
        theirs = int(table["other_kept"].sum())
        said += f", {other} {theirs:,}, and {both:,} are kept by both"
    elif table["tasks"].max() > 0:
        said += f", {alone:,} of them alone"
    title = title_of(f"{network}: {said}", "a column a layer, a mark a unit, from the input to the output")
    each = ", ".join(f"{layer} {counts[layer][0]} of {counts[layer][1]}" for layer in layers[:20])
    more = f" and {len(layers) - 20} more layers" if len(layers) > 20 else ""
    legend, below = legend_below([trace.name or "" for trace in figure.data])
    figure.update_layout(
        template="plotly_white", title=title, font=INK, height=height + room_for(title) + below,
        margin={"l": 10, "r": 10, "t": room_for(title), "b": 10},
        meta={"alt": f"Units of {network} by layer. {said}: {each}{more}."},
        legend={**legend, "itemsizing": "constant"},
    )  # fmt: skip
    return figure


def _draw(
    figure: go.Figure, table: pd.DataFrame, layers: list[str], task: str, other: str, unit: str | None
) -> int:
    """Marks of units one by one; return the height of the figure."""
    import plotly.graph_objects as go

    left, ticks, spots = 0.0, [], {}
    for layer in layers:
        indices = table[table["layer"] == layer]["index"].tolist()
        across = math.ceil(len(indices) / _ROWS)
        for place, index in enumerate(indices):
            spots[layer, index] = (left + place // _ROWS, place % _ROWS)
        ticks.append(left + (across - 1) / 2)
        left += max(across, 3) + 1.5
    kinds = _kinds(table, other)
    for kind, (words, mark) in _KINDS.items():
        rows = table[kinds == kind]
        if rows.empty:
            continue
        at = [spots[layer, index] for layer, index in zip(rows["layer"], rows["index"], strict=True)]
        hover = [
            html.escape(f"{row.layer}/{row.index_}, score {row.score:.2f}, kept by {row.tasks} classes")
            for row in rows.rename(columns={"index": "index_"}).itertuples()
        ]
        figure.add_trace(
            go.Scatter(
                x=[x for x, _ in at], y=[y for _, y in at], mode="markers", hovertext=hover, hoverinfo="text",
                name=html.escape(words.format(task=task, other=other)),
                marker={"color": mark.colour, "symbol": mark.symbol, "size": 3 if kind == "removed" else 8},
            )
        )  # fmt: skip
    if unit is not None:
        layer, _, index = unit.rpartition("/")
        spot = spots.get((layer, int(index) if index.isdigit() else -1))
        if spot is None:
            raise NadkitError(f"no unit {unit!r} in this table; write layer/index, such as {layers[0]}/0")
        figure.add_trace(
            go.Scatter(
                x=[spot[0]], y=[spot[1]], mode="markers", name=html.escape(unit), hoverinfo="skip",
                marker={"symbol": "circle-open", "size": 16, "color": "#000000", "line": {"width": 2}},
            )
        )  # fmt: skip
    figure.update_yaxes(visible=False, autorange="reversed")
    figure.update_xaxes(
        title="layer", tickvals=ticks, ticktext=_short(layers), showgrid=False, zeroline=False
    )
    return 430


def _kinds(table: pd.DataFrame, other: str) -> pd.Series:
    """What each unit is, one of `_KINDS`."""
    kinds = table["kept"].map({True: "only" if other else "shared", False: "removed"})
    if other:
        kinds = kinds.mask(table["other_kept"] & ~table["kept"], "other")
        return kinds.mask(table["other_kept"] & table["kept"], "both")
    return kinds.mask(table["exclusive"], "exclusive")


def _short(names: list[str]) -> list[str]:
    return [html.escape(name if len(name) <= 14 else f"…{name[-13:]}") for name in names]
