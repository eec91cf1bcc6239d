"""Tables of `how` and `stability` as figures."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING

from nadkit.errors import NadkitError
from nadkit.figures._marks import INK, MARKS, OTHER, legend_below, room_for, title_of

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_KINDS = {
    "unused": ("no task", "#BFBFBF", ""),
    "exclusive": ("one task", "#0072B2", ""),
    "some": ("some tasks", "#009E73", "/"),
    "all": ("all tasks", "#A87400", "x"),
}
_DEPTH = "relative depth"
_STYLE = {"template": "plotly_white", "font": INK}
_MOST = 12
"""Tasks whose φ is written into the heat map; more would not be readable."""


def how(table: pd.DataFrame) -> go.Figure:
    """Return the table of `nk.how` as a figure: of one network who shares what, of several how they compare.

    Of one network a heat map of φ between tasks (mean over layers), above the share of each layer's units
    that no task keeps, one, some, all. Of several networks, over relative depth, φ between tasks and the
    share of exclusive units beyond chance, a line a network and a colour a family.

    Examples
    --------
    >>> import pandas as pd
    >>> columns = ["network", "task", "other_task", "layer", "metric", "value", "low", "high", "n"]
    >>> rows = [("net", "bag", "coat", "all", "phi", 0.2, 0.2, 0.2, 1),
    ...         ("net", "mean", "mean", "all", "phi", 0.2, 0.1, 0.3, 1)]
    >>> rows += [("net", "all", None, "conv", kind, share, share, share, 8)
    ...          for kind, share in (("unused", 0.5), ("exclusive", 0.25), ("some", 0), ("all", 0.25))]
    >>> how(pd.DataFrame(rows, columns=columns)).layout.meta["alt"].split(". ")[1]
    'Mean over pairs 0.20 [0.10, 0.30], highest bag and coat 0.20, lowest bag and coat 0.20'

    Parameters
    ----------
    table
        As `nk.how` returns it.

    Returns
    -------
    plotly.graph_objects.Figure
        Whole from 640 pixels of width on.

    Raises
    ------
    NadkitError
        No table of `how`.
    """
    _check(table, "how", "phi")
    networks = _phi(table, "all")["network"].tolist()
    return _one(table, networks[0]) if len(networks) == 1 else _several(table, networks)


def stability(table: pd.DataFrame) -> go.Figure:
    """Return the table of `nk.stability` as a figure: φ of the same task and of others over layers.

    Examples
    --------
    >>> import pandas as pd
    >>> columns = ["network", "task", "layer", "metric", "value", "low", "high", "n"]
    >>> rows = [("net", "mean", layer, f"phi_{kind}", value, value - 0.1, value + 0.1, 10)
    ...         for layer in ("conv", "all") for kind, value in (("same", 0.5), ("other", 0.0))]
    >>> print(stability(pd.DataFrame(rows, columns=columns)).layout.meta["alt"])
    Overlap φ of masks of two seeds in net, by layer. All layers: same task 0.50 [0.40, 0.60],
    other tasks 0.00 [-0.10, 0.10]. Chance is 0.

    Parameters
    ----------
    table
        As `nk.stability` returns it.

    Returns
    -------
    plotly.graph_objects.Figure
        Whole from 640 pixels of width on.

    Raises
    ------
    NadkitError
        No table of `stability`.
    """
    import plotly.graph_objects as go

    _check(table, "stability", "phi_same")
    layers = table[table["metric"] == "phi_same"]["layer"].drop_duplicates().tolist()
    network = str(table["network"].iloc[0])
    figure, said = go.Figure(), []
    figure.add_hline(y=0, line={"color": "#595959", "width": 1.5, "dash": "dash"})
    tasks = table[(table["metric"] == "phi_same") & (table["task"] != "mean")].dropna(subset="value")
    figure.add_scatter(
        name="same task, each task",
        mode="markers",
        x=[layers.index(layer) for layer in tasks["layer"]],
        y=tasks["value"].tolist(),
        customdata=tasks["task"].tolist(),
        hovertemplate="%{customdata}: φ = %{y:.2f}<extra></extra>",
        marker={"color": MARKS["kept"].colour, "size": 5, "opacity": 0.45},
    )
    for metric, name, mark, shift in (
        ("phi_same", "same task, mean", MARKS["kept"], -0.12),
        ("phi_other", "other tasks, mean", MARKS["removed"], 0.12),
    ):
        rows = table[(table["metric"] == metric) & (table["task"] == "mean")].dropna(subset="value")
        figure.add_scatter(
            name=name,
            mode="markers",
            x=[layers.index(layer) + shift for layer in rows["layer"]],
            y=rows["value"].tolist(),
            customdata=rows[["low", "high", "n"]].values.tolist(),
            hovertemplate=f"{name}: φ = %{{y:.2f}} [%{{customdata[0]:.2f}}, %{{customdata[1]:.2f}}]"
            "<extra></extra>",
            error_y=_bars(rows, mark.colour),
            marker={"color": mark.colour, "symbol": mark.symbol, "size": 10},
        )
        said.append(f"{name.split(',')[0]} {_fact(rows[rows['layer'] == 'all'])}")
    title = title_of(
        f"{network}: φ over seeds, {', '.join(said)}",
        "all layers in the title; bars are 95 % intervals over tasks; 0 is chance",
    )
    legend, below = legend_below([trace.name for trace in figure.data])
    figure.update_layout(
        **_STYLE,
        height=330 + room_for(title) + below,
        margin={"l": 10, "r": 10, "t": room_for(title), "b": 10},
        title=title,
        legend=legend,
        meta={
            "alt": f"Overlap φ of masks of two seeds in {network}, by layer. All layers: "
            f"{', '.join(said)}. Chance is 0."
        },
    )
    _layer_axis(figure, layers)
    figure.update_yaxes(title="overlap φ over seeds<br>(0 is chance)", zeroline=False)
    return figure


def _one(table: pd.DataFrame, network: str) -> go.Figure:
    from plotly.subplots import make_subplots

    pairs = table[(table["metric"] == "phi") & (table["layer"] == "all") & (table["task"] != "mean")]
    tasks = list(dict.fromkeys([*pairs["task"], *pairs["other_task"]]))
    matrix = [[math.nan] * len(tasks) for _ in tasks]
    for one, other, value in pairs[["task", "other_task", "value"]].itertuples(index=False):
        a, b = tasks.index(one), tasks.index(other)
        matrix[a][b] = matrix[b][a] = value
    mean = _fact(_phi(table, "all"))
    kinds = table[(table["task"] == "all") & table["metric"].isin(list(_KINDS)) & (table["layer"] != "all")]
    layers = kinds["layer"].drop_duplicates().tolist()
    names = [html.escape(task) for task in tasks]
    shown = [html.escape(layer) for layer in layers]
    # One below the other: side by side neither the cells nor the layers' names would have room.
    upper, lower = max(180, min(26 * len(tasks), 620)), 250
    between = 110 + round(4.5 * max(map(len, names), default=0))
    whole = upper + between + lower
    figure = make_subplots(
        rows=2, row_heights=[upper, lower], vertical_spacing=between / whole,
        subplot_titles=("overlap φ of two tasks, mean over layers", "units by the tasks that keep them"),
    )  # fmt: skip
    most = max([abs(value) for value in pairs["value"].dropna()], default=1.0) or 1.0
    text = [["" if math.isnan(value) else f"{value:z.2f}" for value in row] for row in matrix]
    places = list(range(len(tasks)))
    figure.add_heatmap(
        row=1, col=1, z=matrix, x=places, y=places, zmin=-most, zmax=most, colorscale="RdBu",
        reversescale=True, hoverongaps=False, showscale=len(tasks) > _MOST,
        text=text if len(tasks) <= _MOST else None, texttemplate="%{text}" if len(tasks) <= _MOST else None,
        textfont={"size": 10}, customdata=[[[a, b] for b in names] for a in names],
        hovertemplate="%{customdata[0]}, %{customdata[1]}: φ = %{z:.3f}<extra></extra>",
        colorbar={
            "title": "φ", "thickness": 12, "len": upper / whole, "y": 1, "yanchor": "top",
        },
    )  # fmt: skip
    for kind, (words, colour, shape) in _KINDS.items():
        rows = kinds[kinds["metric"] == kind]
        figure.add_bar(
            row=2, col=1, name=words, x=[layers.index(layer) for layer in rows["layer"]],
            y=rows["value"].tolist(), customdata=rows["n"].tolist(),
            hovertemplate=f"{words}: %{{y:.2f}} of %{{customdata}} units<extra></extra>",
            marker={"color": colour, "pattern": {"shape": shape, "fgcolor": "white", "size": 6}},
        )  # fmt: skip
    shares = {kind: kinds[kinds["metric"] == kind]["value"].tolist() for kind in _KINDS}
    title = title_of(
        f"{network}: masks of two tasks overlap by φ = {mean}",
        "0 is chance, 1 the same units; the interval varies the tasks",
    )
    legend, below = legend_below([words for words, _, _ in _KINDS.values()], "kept by")
    top = room_for(title) + 24  # and the upper panel's title
    bottom = 60 + round(4.5 * max(map(len, shown), default=0)) + below
    figure.update_layout(
        **_STYLE,
        barmode="stack",
        bargap=0.12,
        height=top + whole + bottom,
        margin={"l": 10, "r": 10, "t": top, "b": bottom},
        title=title,
        legend=legend,
        meta={"alt": _one_alt(network, pairs, mean, layers, shares)},
    )  # fmt: skip
    figure.update_annotations(font={"size": 14})
    figure.update_xaxes(tickvals=places, ticktext=names, tickangle=-40, title="task", row=1, col=1)
    figure.update_yaxes(
        tickvals=places, ticktext=names, title="task", range=[len(tasks) - 0.5, -0.5], automargin=True,
        row=1, col=1,
    )  # fmt: skip
    figure.update_xaxes(
        tickvals=list(range(len(layers))), ticktext=shown, tickangle=-40, title="layer", row=2, col=1
    )
    figure.update_yaxes(title="share of the<br>layer's units", range=[0, 1], row=2, col=1)
    figure.update_xaxes(showgrid=False, zeroline=False)
    figure.update_yaxes(showgrid=False, zeroline=False, row=1)
    return figure


def _one_alt(
    network: str, pairs: pd.DataFrame, mean: str, layers: list[str], shares: dict[str, list[float]]
) -> str:
    said = f"Heat map of the overlap φ of tasks in {network}, above the units of each layer by the tasks "
    said += f"that keep them. Mean over pairs {mean}"
    there = pairs.dropna(subset="value").sort_values("value", kind="stable")
    for words, at in (("highest", -1), ("lowest", 0)):
        if len(there):
            row = there.iloc[at]
            said += f", {words} {row['task']} and {row['other_task']} {row['value']:z.2f}"
    for at in dict.fromkeys((0, len(layers) - 1)) if layers else ():
        parts = [f"{100 * values[at]:.0f} % by {_KINDS[kind][0]}" for kind, values in shares.items()]
        said += f". {layers[at]}: kept {', '.join(parts)}"
    return said + "."


def _several(table: pd.DataFrame, networks: list[str]) -> go.Figure:
    from plotly.subplots import make_subplots

    panels = (
        ("phi", "overlap φ of two tasks", "φ, mean over pairs (0 is chance)"),
        ("exclusive_excess", "exclusive units beyond chance", "exclusive share minus chance"),
    )
    figure = make_subplots(cols=2, horizontal_spacing=0.13, subplot_titles=[title for _, title, _ in panels])
    marks = [*list(MARKS.values())[1:], OTHER]
    known = table.attrs.get("families", {})
    families = {name: str(known.get(name, name.partition("-")[0])) for name in networks}
    kinds = list(dict.fromkeys(families.values()))
    for name in networks:
        # Networks of one family share a mark, and one entry of the legend.
        family = families[name]
        alone = list(families.values()).count(family) == 1
        mark = marks[kinds.index(family) % len(marks)]
        first = networks[list(families.values()).index(family)] == name
        for column, (metric, _, _) in enumerate(panels, start=1):
            rows = table[(table["network"] == name) & (table["metric"] == metric) & (table["task"] == "mean")]
            rows = rows[~rows["layer"].isin(["all", _DEPTH])]
            last = max(1, len(rows) - 1)
            figure.add_scatter(
                row=1, col=column, name=html.escape(name if alone else family), legendgroup=family,
                showlegend=column == 1 and first,
                mode="lines+markers", x=[at / last for at in range(len(rows))], y=rows["value"].tolist(),
                customdata=rows["layer"].tolist(),
                hovertemplate=f"{html.escape(name)}, %{{customdata}}: %{{y:.3f}}<extra></extra>",
                line={"color": mark.colour, "dash": "solid" if kinds.index(family) < len(marks) else "dot"},
                marker={"symbol": mark.symbol, "size": 8}, opacity=1 if alone else 0.75,
            )  # fmt: skip
    figure.add_hline(y=0, line={"color": "#595959", "width": 1.5, "dash": "dash"})
    facts = [(name, _fact(_phi(table, "all", name))) for name in networks]
    status = _status(table)
    values = [value for value in _phi(table, "all")["value"].tolist() if not math.isnan(value)]
    span = f"mean φ of tasks from {min(values):z.2f} to {max(values):z.2f}" if values else "no φ of tasks"
    title = title_of(f"{len(networks)} networks: {span}", status)
    legend, below = legend_below([str(trace.name) for trace in figure.data if trace.showlegend])
    top = room_for(title) + 24  # and the panels' titles
    figure.update_layout(
        **_STYLE,
        height=top + 320 + below,
        margin={"l": 10, "r": 10, "t": top, "b": 10},
        title=title,
        legend=legend,
        meta={
            "alt": f"Lines over relative depth of {len(networks)} networks: overlap φ of two tasks, and "
            f"exclusive units beyond chance. Mean φ over layers: "
            f"{', '.join(f'{name} {fact}' for name, fact in facts)}. {status[:1].upper()}{status[1:]}."
        },
    )
    figure.update_annotations(font={"size": 14})
    figure.update_xaxes(title="relative depth<br>(0 first layer, 1 last)", range=[-0.04, 1.04])
    for column, (_, _, axis) in enumerate(panels, start=1):
        figure.update_yaxes(title=axis, row=1, col=column)
    return figure


def _status(table: pd.DataFrame) -> str:
    """What the comparison of families says, or why there is none."""
    rows = table[table["metric"] == "phi_families_p"]
    if rows.empty:
        return "families were not compared"
    p = float(rows["value"].iloc[0])
    words = str(rows["interval"].iloc[0])
    return words if math.isnan(p) else f"families differ in φ with p = {p:.2g}, {words}"


def _check(table: pd.DataFrame, verb: str, metric: str) -> None:
    needed = ("network", "task", "layer", "metric", "value", "low", "high", "n")
    missing = [name for name in needed if name not in getattr(table, "columns", ())]
    if missing:
        raise NadkitError(f"figures.{verb} draws a table of nk.{verb}; this has no column {missing[0]}")
    if not ((table["metric"] == metric) & (table["layer"] == "all") & (table["task"] == "mean")).any():
        raise NadkitError(f"figures.{verb} draws a table of nk.{verb}; this has no {metric} of all layers")


def _phi(table: pd.DataFrame, layer: str, network: str | None = None) -> pd.DataFrame:
    rows = table[(table["metric"] == "phi") & (table["task"] == "mean") & (table["layer"] == layer)]
    return rows if network is None else rows[rows["network"] == network]


def _fact(rows: pd.DataFrame) -> str:
    """The first row's value with its interval, as text."""
    found = rows.dropna(subset="value")
    if found.empty:
        return "no value"
    value, low, high = (float(found[name].iloc[0]) for name in ("value", "low", "high"))
    return f"{value:z.2f}" if math.isnan(low) else f"{value:z.2f} [{low:z.2f}, {high:z.2f}]"


def _bars(rows: pd.DataFrame, colour: str) -> dict[str, object]:
    return {
        "type": "data",
        "symmetric": False,
        "array": (rows["high"] - rows["value"]).fillna(0).tolist(),
        "arrayminus": (rows["value"] - rows["low"]).fillna(0).tolist(),
        "color": colour,
        "thickness": 2,
        "width": 0,
    }


def _layer_axis(figure: go.Figure, layers: list[str]) -> None:
    names = [f"<b>{html.escape(layer)}</b>" if layer == "all" else html.escape(layer) for layer in layers]
    figure.update_xaxes(
        title="layer", tickvals=list(range(len(layers))), ticktext=names, showgrid=False, zeroline=False
    )
