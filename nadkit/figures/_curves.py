"""The curve of `whether` over kept shares."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from nadkit.errors import NadkitError, closest
from nadkit.figures._evidence import JUDGED
from nadkit.figures._marks import FURTHER, INK, MARKS, check_columns, mark_of, plain_rows, room_for, title_of

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_NAMES = {
    "balanced_accuracy": "balanced accuracy",
    "balanced_accuracy_calibrated": "balanced accuracy, calibrated",
    "auroc": "AUROC",
    "recomposed_accuracy": "recomposed accuracy",
    "excess": "excess over the best learned control",
}
_CHANCE = {"balanced_accuracy": 0.5, "balanced_accuracy_calibrated": 0.5, "auroc": 0.5, "excess": 0.0}
_DASHES = {"random": "dot", "last_layer": "dash"}
_LEARNED = ("relabelled", "shared", "untrained")


def curve(table: pd.DataFrame, metric: str | None = None, task: str = "mean") -> go.Figure:
    """Return the curve of `nk.whether(..., shares=...)` as lines: a line a condition over kept shares.

    Examples
    --------
    >>> import pandas as pd
    >>> columns = ["network", "task", "condition", "share", "metric", "value", "low", "high", "n"]
    >>> rows = [("net", "mean", "kept", share, "auroc", value, value - 0.1, value, 40)
    ...         for share, value in ((0.3, 0.8), (0.5, 0.9))]
    >>> print(curve(pd.DataFrame(rows, columns=columns), "auroc").layout.meta["alt"])
    Lines of AUROC in net, mean over tasks, over kept shares 0.3, 0.5. kept: 0.80, 0.90. Chance is 0.5.

    Parameters
    ----------
    table
        As `nk.whether` returns it with `shares`, of one network.
    metric
        A metric of the curve; None takes calibrated balanced accuracy, or AUROC where nothing is calibrated.
    task
        A task of the table or "mean"; recomposed accuracy is always of "all".

    Returns
    -------
    plotly.graph_objects.Figure
        Points are moved apart a little where bars would cover each other; a point without a value is left
        out. The whole network, if the table has it, is a line of its own.

    Raises
    ------
    NadkitError
        No table of `whether` with a curve, no such metric or task (the closest are named), or several
        networks in one table.
    """
    import plotly.graph_objects as go

    check_columns(table, "curve", ("share",), " with shares=")
    rows = table[table["share"].notna()]
    rows, metric, task = _chosen(rows, metric, task)
    shares = sorted(float(share) for share in rows["share"].unique())
    there = rows["condition"].unique().tolist()
    names = [name for name in dict.fromkeys([*MARKS, *FURTHER, *there]) if name in there]
    width = (shares[-1] - shares[0]) or 0.2
    figure = go.Figure()
    for place, name in enumerate(names):
        shift = (place - (len(names) - 1) / 2) * 0.008 * width
        figure.add_trace(_line(rows[rows["condition"] == name].sort_values("share"), name, shift))
    whole = _whole(table, metric, task)
    if not math.isnan(whole):
        figure.add_hline(
            y=whole, line={"color": MARKS["whole"].colour, "width": 1.5},
            annotation={"text": f"whole network {whole:.2f}", "yanchor": "bottom"},
            annotation_position="top left",
        )  # fmt: skip
    if metric in _CHANCE:
        figure.add_hline(y=_CHANCE[metric], line={"color": "#595959", "width": 1.5, "dash": "dash"})
    title = _title(table, rows, metric, task, shares)
    figure.update_layout(
        template="plotly_white",
        height=380 + room_for(title),
        margin={"l": 10, "r": 10, "t": room_for(title), "b": 55},
        title=title,
        legend={"title": {"text": "condition"}, "tracegroupgap": 4},
        meta={"alt": _alt(rows, metric, task, shares, names, whole)},
        font=INK,
    )
    room = 0.05 * width
    figure.update_xaxes(
        title="kept share asked for (share of all units)", tickvals=shares,
        range=[shares[0] - room, shares[-1] + room],
    )  # fmt: skip
    unit = "difference" if metric == "excess" else "share"
    figure.update_yaxes(title=f"{_NAMES.get(metric, metric)} ({unit})", automargin=True)
    return figure


def _chosen(rows: pd.DataFrame, metric: str | None, task: str) -> tuple[pd.DataFrame, str, str]:
    metrics = rows["metric"].unique().tolist()
    if metric is None:
        metric = next((name for name in JUDGED if name in metrics), "")
    if metric not in metrics:
        raise NadkitError(f"no metric {metric!r} on a curve of this table; {closest(metric, metrics)}")
    rows = rows[rows["metric"] == metric]
    tasks = rows["task"].unique().tolist()
    task = "all" if tasks == ["all"] else task
    if task not in tasks:
        raise NadkitError(f"no task {task!r} on the curve; {closest(str(task), tasks)}")
    return rows[rows["task"] == task], metric, task


def _line(rows: pd.DataFrame, name: str, shift: float) -> go.Scatter:
    import plotly.graph_objects as go

    mark, main = mark_of(name), name == "kept"
    rows = rows.dropna(subset="value")
    return go.Scatter(
        name=name,
        mode="lines+markers",
        x=(rows["share"].astype(float) + shift).tolist(),
        y=rows["value"].tolist(),
        customdata=rows[["share", "low", "high", "n"]].values.tolist(),
        hovertemplate=f"{name} at %{{customdata[0]}}: %{{y:.3f}} [%{{customdata[1]:.3f}}, "
        "%{customdata[2]:.3f}], n = %{customdata[3]}<extra></extra>",
        error_y={
            "type": "data",
            "symmetric": False,
            "array": (rows["high"] - rows["value"]).tolist(),
            "arrayminus": (rows["value"] - rows["low"]).tolist(),
            "color": mark.colour,
            "thickness": 2 if main else 1.2,
            "width": 0,
        },
        line={"color": mark.colour, "width": 3 if main else 1.5, "dash": _DASHES.get(name, "solid")},
        marker={"color": mark.colour, "symbol": mark.symbol, "size": 10 if main else 8},
    )


def _whole(table: pd.DataFrame, metric: str, task: str) -> float:
    rows = plain_rows(table)
    rows = rows[(rows["condition"] == "whole") & (rows["metric"] == metric) & (rows["task"] == task)]
    return float(rows["value"].iloc[0]) if len(rows) else math.nan


def _title(
    table: pd.DataFrame, rows: pd.DataFrame, metric: str, task: str, shares: list[float]
) -> dict[str, object]:
    """What is enough, and how the kept units stand beside the best learned control at both ends."""
    parts = []
    plain = plain_rows(table)
    plain = plain[(plain["task"] == task) & (plain["condition"] == "kept")]
    first, again = (plain[plain["metric"] == name]["value"] for name in ("smallest_share", "short_again"))
    calibrated = (table["metric"] == "balanced_accuracy_calibrated").any()
    if len(first) and metric.startswith("balanced_accuracy" if calibrated else "auroc"):
        value = float(first.iloc[0])
        reach = "no share reaches" if math.isnan(value) else f"first at {value:g}, kept units reach"
        parts.append(f"{reach} 0.95 of the whole network")
        if again.notna().any():
            parts[0] += f" (short of it again at {float(again.iloc[0]):g})"
    for share in dict.fromkeys((shares[0], shares[-1])):
        at = rows[rows["share"] == share].dropna(subset="value").set_index("condition")["value"]
        learned = at[at.index.isin(_LEARNED)]
        best = f", best learned control {learned.max():.2f}" if len(learned) else ""
        if "kept" in at:
            parts.append(f"at {share:g} kept {at['kept']:.2f}{best}")
    below = (
        f"{_NAMES.get(metric, metric)}, {_over(task)}; bars are 95 % intervals, of random draws 2.5-97.5 %"
    )
    return title_of(f"{rows['network'].iloc[0]}: {'; '.join(parts) or 'no value'}", below)


def _alt(
    rows: pd.DataFrame, metric: str, task: str, shares: list[float], names: list[str], whole: float
) -> str:
    said = []
    for name in names:
        mine = rows[rows["condition"] == name].set_index("share")["value"]
        values = [mine.get(share, math.nan) for share in shares]
        said.append(f"{name}: {', '.join('no value' if math.isnan(v) else f'{v:.2f}' for v in values)}")
    end = "" if math.isnan(whole) else f" Whole network: {whole:.2f}."
    end += f" Chance is {_CHANCE[metric]:g}." if metric in _CHANCE and metric != "excess" else ""
    asked = ", ".join(f"{share:g}" for share in shares)
    where = f"{_NAMES.get(metric, metric)} in {rows['network'].iloc[0]}, {_over(task)}"
    return f"Lines of {where}, over kept shares {asked}. {'; '.join(said)}.{end}"


def _over(task: str) -> str:
    return {"mean": "mean over tasks", "all": "all tasks together"}.get(task, task)
