"""The table of `whether` as a dot plot."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING

from nadkit.errors import NadkitError, closest
from nadkit.figures._marks import FURTHER, INK, MARKS, check_columns, mark_of, plain_rows, room_for, title_of

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_AXIS = {
    "recall": "recall (share of the task's own pictures)",
    "false_alarm": "false alarm (share of other tasks' pictures)",
    "balanced_accuracy": "balanced accuracy (share; 0.5 is a constant answer)",
    "balanced_accuracy_calibrated": "balanced accuracy, calibrated (share; 0.5 is a constant answer)",
    "auroc": "AUROC (share of pairs ranked right; 0.5 is chance)",
    "auroc_own": "AUROC of the task's logit (share of pairs ranked right; 0.5 is chance)",
    "auroc_rest": "AUROC of the other logits (share of pairs ranked right; 0.5 is chance)",
    "recomposed_accuracy": "recomposed accuracy (share of pictures)",
    "kept_share": "kept share (share of all units)",
    "excess": "excess over the best learned control (difference)",
}
JUDGED = ("balanced_accuracy_calibrated", "auroc", "balanced_accuracy")
"""What the evidence is of: the first that a table has."""

_HALF = ("balanced_accuracy", "balanced_accuracy_calibrated", "auroc", "auroc_own", "auroc_rest")
_CHANCE = {**dict.fromkeys(_HALF, 0.5), "excess": 0.0, "rank_correlation": 0.0}


def whether(table: pd.DataFrame, metric: str | None = None) -> go.Figure:
    """Return the table of `nk.whether` as a dot plot: a row a task, a mark a condition, a bar an interval.

    Examples
    --------
    >>> import pandas as pd
    >>> columns = ["network", "task", "condition", "metric", "value", "low", "high", "n", "interval"]
    >>> rows = [("net", "mean", "kept", "auroc", 0.9, 0.8, 0.95, 40, "images")]
    >>> whether(pd.DataFrame(rows, columns=columns), "auroc").layout.meta["alt"]
    'Dot plot of AUROC in net. Mean over tasks: kept 0.90 [0.80, 0.95]. Chance is 0.5.'

    Parameters
    ----------
    table
        As `nk.whether` returns it, of one network.
    metric
        A metric of the table; None takes what the evidence is of: calibrated balanced accuracy, or AUROC
        where nothing is calibrated.

    Returns
    -------
    plotly.graph_objects.Figure
        One trace a condition, whole from 640 pixels of width on. Tasks without a value keep their row, and
        say so.

    Raises
    ------
    NadkitError
        No table of `whether`, no such metric (the closest are named), or several networks in one table.
    """
    import plotly.graph_objects as go

    check_columns(table, "whether", (), "")
    table = plain_rows(table)
    metric = _metric(table, metric)
    rows = table[table["metric"] == metric]
    tasks = _ordered(rows["task"].unique().tolist())
    there = rows["condition"].unique().tolist()
    conditions = [name for name in [*MARKS, *FURTHER, *there] if name in there]
    conditions = list(dict.fromkeys(conditions))
    figure = go.Figure([_trace(rows, name, tasks, conditions) for name in conditions])
    empty = set(tasks) - set(rows.dropna(subset="value")["task"])
    names = [
        f"<b>{html.escape(task)}</b>" if task in ("mean", "all") else html.escape(task) for task in tasks
    ]
    names = [name + " (no value)" if task in empty else name for name, task in zip(names, tasks, strict=True)]
    for edge in range(1, len(tasks)):
        figure.add_hline(y=edge - 0.5, line={"color": "#e3e3e3", "width": 1})
    if metric in _CHANCE:
        figure.add_vline(x=_CHANCE[metric], line={"color": "#595959", "width": 1.5, "dash": "dash"})
    row = max(30, 8 * len(conditions) + 2)  # room for its marks, one below the other
    low, high = rows["low"].min(), rows["high"].max()
    ends = [_CHANCE.get(metric, 0.0), *([] if math.isnan(low) else [float(low), float(high)])]
    room = 0.03 * max(max(ends) - min(ends), 0.1)
    title = _title(rows, metric, tasks[0])
    figure.update_layout(
        template="plotly_white",
        height=62
        + room_for(title)
        + max(row * len(tasks), 22 * len(conditions) + 40),  # not below the legend
        margin={"l": 10, "r": 10, "t": room_for(title), "b": 55},
        title=title,
        legend={"title": {"text": "condition"}, "tracegroupgap": 4, "itemsizing": "constant"},
        meta={"alt": _alt(rows, metric, conditions, tasks[0])},
        font=INK,
    )
    figure.update_xaxes(title=_AXIS.get(metric, metric), range=[min(ends) - room, max(ends) + room])
    figure.update_yaxes(
        title="task", tickvals=list(range(len(tasks))), ticktext=names, range=[len(tasks) - 0.5, -0.5],
        showgrid=False, zeroline=False, automargin=True,
    )  # fmt: skip
    return figure


def _metric(table: pd.DataFrame, metric: str | None) -> str:
    metrics = table["metric"].unique().tolist()
    if metric is None:
        metric = next((name for name in JUDGED if name in metrics), JUDGED[-1])
    if metric not in metrics:
        raise NadkitError(f"no metric {metric!r} in this table; {closest(metric, metrics)}")
    return metric


def _ordered(tasks: list[str]) -> list[str]:
    """What is over all tasks comes first."""
    over_all = [name for name in ("mean", "all") if name in tasks]
    return [*over_all, *(name for name in tasks if name not in over_all)]


def _trace(rows: pd.DataFrame, condition: str, tasks: list[str], conditions: list[str]) -> go.Scatter:
    """The marks of one condition, each at its own height within the row of its task."""
    import plotly.graph_objects as go

    mark = mark_of(condition)
    mine = rows[rows["condition"] == condition].dropna(subset="value")
    offset = ((conditions.index(condition) + 1) / (len(conditions) + 1) - 0.5) * 0.9
    main = condition == "kept"
    return go.Scatter(
        name=condition,
        mode="markers",
        x=mine["value"].tolist(),
        y=[tasks.index(task) + offset for task in mine["task"]],
        customdata=mine[["task", "low", "high", "n"]].values.tolist(),
        hovertemplate=f"%{{customdata[0]}}, {condition}: %{{x:.3f}} "
        "[%{customdata[1]:.3f}, %{customdata[2]:.3f}], n = %{customdata[3]}<extra></extra>",
        error_x={
            "type": "data",
            "symmetric": False,
            "array": (mine["high"] - mine["value"]).tolist(),
            "arrayminus": (mine["value"] - mine["low"]).tolist(),
            "color": mark.colour,
            "thickness": 2 if main else 1.2,
            "width": 0,
        },
        marker={
            "color": mark.colour,
            "symbol": mark.symbol,
            "size": 10 if main else 8,
            "line": {"color": mark.colour, "width": 2 if mark.symbol.endswith("open") else 0},
        },
    )


def _fact(rows: pd.DataFrame, condition: str, task: str) -> tuple[float, float, float] | None:
    found = rows[(rows["condition"] == condition) & (rows["task"] == task)].dropna(subset="value")
    return None if found.empty else tuple(float(found[name].iloc[0]) for name in ("value", "low", "high"))  # type: ignore[return-value]


def _title(rows: pd.DataFrame, metric: str, task: str) -> dict[str, object]:
    """What was found, with numbers and without praise; the second line says what the bars are."""
    parts = []
    kept = "excess of the kept units" if metric == "excess" else "kept units"
    for condition, words in (("whole", "whole network"), ("kept", kept)):
        if fact := _fact(rows, condition, task):
            parts.append(f"{words} {fact[0]:.2f}")
    learned = [(name, _fact(rows, name, task)) for name in ("relabelled", "shared", "untrained")]
    found = [(fact[0], name) for name, fact in learned if fact]
    if found:
        value, name = (min if metric == "false_alarm" else max)(found)
        parts.append(f"best learned control ({name}) {value:.2f}")
    network = str(rows["network"].iloc[0])
    said = f"{network}: {', '.join(parts)}" if parts else f"{network}: {_name(metric)}"
    over = {"mean": "mean over tasks", "all": "all tasks together"}
    what = f"{_name(metric)}, {over.get(task, task)} in the title"
    return title_of(said, f"{what}; bars are 95 % intervals, of random draws their 2.5-97.5 %")


def _alt(rows: pd.DataFrame, metric: str, conditions: list[str], task: str) -> str:
    facts = [(name, fact) for name in conditions if (fact := _fact(rows, name, task))]
    said = ", ".join(f"{name} {value:.2f} [{low:.2f}, {high:.2f}]" for name, (value, low, high) in facts)
    over = {"mean": "Mean over tasks", "all": "All tasks together"}.get(task, task)
    chance = f" Chance is {_CHANCE[metric]:g}." if metric in _CHANCE and metric != "excess" else ""
    return f"Dot plot of {_name(metric)} in {rows['network'].iloc[0]}. {over}: {said or 'no value'}.{chance}"


def _name(metric: str) -> str:
    return _AXIS.get(metric, metric).split(" (")[0]
