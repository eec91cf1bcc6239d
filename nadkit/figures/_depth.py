"""The table of `nk.where` as lines over the layers, in the order in which pictures pass them."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING, Any

from nadkit.errors import NadkitError, closest
from nadkit.figures._marks import INK, mark_of, room_for, title_of

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_HITS = ("hit_rate", "hit_rate_official")
_AXIS = {
    "hit_rate": "hit rate<br>(share of energy in<br>the task's quadrant)",
    "hit_rate_official": "official hit rate<br>(share of the brightest<br>tenth in the quadrant)",
    "evidence_share": "evidence share<br>(share of energy on<br>the evidence's pixels)",
}
_NAME = {"hit_rate": "hit rate", "hit_rate_official": "official hit rate", "evidence_share": "evidence share"}
_ORDER = ("ceiling", "kept", "counterfactual", "other", "random", "whole", "area")
_LINES = {"ceiling": "dot", "counterfactual": "dash", "random": "dash", "whole": "dot", "area": "dashdot"}
_CHANCE = 0.25


def where(table: pd.DataFrame, task: str = "mean") -> go.Figure:
    """Return the table of `nk.where` as lines: a line a condition over the layers, a band an interval.

    Examples
    --------
    >>> import pandas as pd
    >>> columns = ["network", "task", "condition", "layer", "metric", "value", "low", "high", "n"]
    >>> rows = [("net", "mean", "kept", layer, "hit_rate", value, value - 0.1, value + 0.1, 40)
    ...         for layer, value in (("first", 0.25), ("last", 0.6))]
    >>> where(pd.DataFrame(rows, columns=columns)).layout.meta["alt"]
    'Lines of the hit rate over 2 layers of net, mean over tasks, from first to last: kept 0.25 to 0.60.
    Chance is 0.25.'

    Parameters
    ----------
    table
        As `nk.where` returns it, of one network.
    task
        A task of the table, or "mean".

    Returns
    -------
    plotly.graph_objects.Figure
        One panel for the hit rate and, where evidence is known, one below for the share of energy on it.
        Layers without a value leave a gap.

    Raises
    ------
    NadkitError
        No table of `where`, no such task (the closest are named), or several networks in one table.
    """
    from plotly.subplots import make_subplots

    metrics = _checked(table, task)
    rows = table[(table["task"] == task) & table["metric"].isin(metrics)]
    layers = [layer for layer in rows["layer"].unique().tolist() if layer != "all"]
    shown = [html.escape(layer) for layer in layers]
    figure = make_subplots(rows=len(metrics), cols=1, shared_xaxes=True, vertical_spacing=0.06)
    named: set[str] = set()
    for place, metric in enumerate(metrics, 1):
        for condition in _conditions(rows[rows["metric"] == metric]):
            mine = _by_layer(rows[(rows["metric"] == metric) & (rows["condition"] == condition)], layers)
            for trace in _traces(condition, metric, mine, shown, first=condition not in named):
                figure.add_trace(trace, row=place, col=1)
            named.add(condition)
        figure.update_yaxes(title=_AXIS[metric], rangemode="tozero", row=place, col=1)
        if metric in _HITS:
            figure.add_hline(
                y=_CHANCE, line={"color": "#595959", "width": 1.5, "dash": "dash"}, row=place, col=1
            )
    longest = max(map(len, layers), default=0)
    title = _title(table, rows, metrics[0], task, layers)
    figure.update_layout(
        template="plotly_white",
        height=66 + room_for(title) + 300 * len(metrics) + 4 * longest,
        margin={"l": 10, "r": 10, "t": room_for(title), "b": 20},
        title=title,
        legend={"title": {"text": "condition"}, "tracegroupgap": 4},
        meta={"alt": _alt(rows, metrics, task, layers)},
        font=INK,
    )
    figure.update_xaxes(categoryorder="array", categoryarray=shown, type="category", automargin=True)
    figure.update_yaxes(automargin=True)
    figure.update_xaxes(title="layer, from input to output", row=len(metrics), col=1)
    return figure


def _checked(table: pd.DataFrame, task: str) -> list[str]:
    """The metrics that the table has panels for."""
    needed = ("network", "task", "condition", "layer", "metric", "value", "low", "high", "n")
    missing = [name for name in needed if name not in getattr(table, "columns", ())]
    metrics = [] if missing else [name for name in _AXIS if (table["metric"] == name).any()]
    if missing or not metrics:
        what = f"no column {', '.join(missing)}" if missing else "no row with a hit rate"
        raise NadkitError(f"figures.where draws a table of nk.where; this has {what}")
    networks = table["network"].unique().tolist()
    if len(networks) > 1:
        raise NadkitError(
            f"the table is of {len(networks)} networks; draw one: table[table['network'] == {networks[0]!r}]"
        )
    tasks = table.loc[table["metric"].isin(metrics), "task"].unique().tolist()
    if task not in tasks:
        raise NadkitError(f"no task {task!r} in this table; {closest(str(task), tasks)}")
    return metrics


def _conditions(rows: pd.DataFrame) -> list[str]:
    there = rows["condition"].unique().tolist()
    return [name for name in dict.fromkeys([*_ORDER, *there]) if name in there]


def _by_layer(rows: pd.DataFrame, layers: list[str]) -> pd.DataFrame:
    """Value, low, high and n of each layer; what is said of all layers stands at each."""
    if rows["layer"].tolist() == ["all"]:
        return rows.set_index("layer").loc[["all"] * len(layers), ["value", "low", "high", "n"]]
    return rows.set_index("layer").reindex(layers)[["value", "low", "high", "n"]]


def _traces(condition: str, metric: str, cells: pd.DataFrame, layers: list[str], *, first: bool) -> list[Any]:
    import plotly.graph_objects as go

    mark = mark_of(condition)
    main = condition == "kept"
    common = {"x": layers, "legendgroup": condition, "name": condition}
    edge = {**common, "mode": "lines", "line": {"width": 0}, "showlegend": False, "hoverinfo": "skip"}
    channels = ", ".join(str(int(mark.colour[at : at + 2], 16)) for at in (1, 3, 5))
    lower = go.Scatter(y=cells["low"].tolist(), **edge)
    upper = go.Scatter(y=cells["high"].tolist(), fill="tonexty", fillcolor=f"rgba({channels}, 0.15)", **edge)
    line = go.Scatter(
        y=cells["value"].tolist(),
        mode="lines" if condition == "area" else "lines+markers",
        line={"color": mark.colour, "width": 2.5 if main else 1.5, "dash": _LINES.get(condition, "solid")},
        marker={
            "color": mark.colour,
            "symbol": mark.symbol,
            "size": 9 if main else 8,
            "line": {"color": mark.colour, "width": 2 if mark.symbol.endswith("open") else 0},
        },
        customdata=cells[["low", "high", "n"]].values.tolist(),
        hovertemplate=f"%{{x}}, {condition}: {_NAME[metric]} %{{y:.3f}} "
        "[%{customdata[0]:.3f}, %{customdata[1]:.3f}], n = %{customdata[2]}<extra></extra>",
        showlegend=first,
        **common,
    )
    return [lower, upper, line]


def _values(rows: pd.DataFrame, condition: str, metric: str) -> dict[str, float]:
    mine = rows[(rows["condition"] == condition) & (rows["metric"] == metric)].dropna(subset="value")
    return {str(layer): float(value) for layer, value in zip(mine["layer"], mine["value"], strict=True)}


def _title(
    table: pd.DataFrame, rows: pd.DataFrame, metric: str, task: str, layers: list[str]
) -> dict[str, object]:
    """What was found, with numbers; the second line says what the lines and bands are."""
    network = str(rows["network"].iloc[0])
    kept, other = _values(rows, "kept", metric), _values(rows, "other", metric)
    ends = [layer for layer in layers if layer in kept]
    said = f"{network}: {_NAME[metric]}"
    if ends:
        said += f" of kept units {kept[ends[0]]:.2f} in {ends[0]}"
    if len(ends) > 1:
        said += f", {kept[ends[-1]]:.2f} in {ends[-1]}"
    if ends and ends[-1] in other:
        said += f"; another task's mask {other[ends[-1]]:.2f}"
    over = "mean over tasks" if task == "mean" else task
    found = table[(table["task"] == task) & (table["condition"] == "kept")]
    found = found[found["metric"] == f"{metric}_spearman"].dropna(subset="value")
    rho = ""
    if len(found):
        value, low, high = (float(found[name].iloc[0]) for name in ("value", "low", "high"))
        rho = f"; Spearman with depth {value:.2f} [{low:.2f}, {high:.2f}]"
    return title_of(said, f"{over}{rho}; bands are 95 % intervals, of random draws their 2.5-97.5 %")


def _alt(rows: pd.DataFrame, metrics: list[str], task: str, layers: list[str]) -> str:
    over = "mean over tasks" if task == "mean" else task
    parts = []
    for metric in metrics:
        facts = []
        for condition in _conditions(rows[rows["metric"] == metric]):
            values = list(_values(rows, condition, metric).values())
            if not values or math.isnan(values[0]):
                continue
            course = f"{values[0]:.2f}" + (f" to {values[-1]:.2f}" if len(values) > 1 else "")
            facts.append(f"{condition} {course}")
        parts.append(
            f"Lines of the {_NAME[metric]} over {len(layers)} layers of {rows['network'].iloc[0]}, {over}, "
            f"from {layers[0]} to {layers[-1]}: {', '.join(facts) or 'no value'}."
            + (f" Chance is {_CHANCE:g}." if metric in _HITS else "")
        )
    return " ".join(parts)
