"""What is lost when units are removed, over doses."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from nadkit.errors import NadkitError, closest
from nadkit.figures._marks import INK, check_columns, legend_below, mark_of, room_for, title_of

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_SETS = ("kept", "exclusive")
"""Doses that are sets of units of different sizes, and so stand apart from the curve."""

_NAMES = {"removed": "the task's units", "removed_random": "random units"}
_PICTURES = {"drop_own": "its own pictures", "drop_others": "other tasks'"}


def necessity(table: pd.DataFrame, task: str = "mean") -> go.Figure:
    """Return what removing units costs, over doses: the task itself and the others, beside random units.

    Examples
    --------
    >>> import pandas as pd
    >>> columns = ["network", "task", "condition", "dose", "metric", "value", "low", "high", "n"]
    >>> rows = [("net", "mean", "removed", dose, metric, value, value - 1, value + 1, 40)
    ...         for dose, value in (("1 %", 2.0), ("kept", 9.0)) for metric in ("drop_own", "drop_others")]
    >>> print(necessity(pd.DataFrame(rows, columns=columns)).layout.meta["alt"])
    Points of the drop of log-odds in net, mean over tasks, at the doses 1 %, kept. the task's units,
    its own pictures: 2.00, 9.00; the task's units, other tasks': 2.00, 9.00.

    Parameters
    ----------
    table
        As `nk.whether` returns it with the part "necessity", of one network.
    task
        A task of the table or "mean".

    Returns
    -------
    plotly.graph_objects.Figure
        Filled marks are the task's own pictures, open ones the other tasks'. The doses "kept" and
        "exclusive" (kept by no other task) are not joined to the others.

    Raises
    ------
    NadkitError
        No table of `whether` with necessity, no such task (the closest are named), or several networks in
        one table.
    """
    import plotly.graph_objects as go

    check_columns(table, "necessity", ("dose",), ' with parts="necessity"')
    rows = table[table["dose"].notna()]
    tasks = rows["task"].unique().tolist()
    if task not in tasks:
        raise NadkitError(f"no task {task!r} with doses in this table; {closest(str(task), tasks)}")
    rows = rows[rows["task"] == task]
    doses = rows["dose"].unique().tolist()
    figure = go.Figure()
    kinds = [(condition, metric) for condition in _NAMES for metric in _PICTURES]
    there = [kind for kind in kinds if len(_of(rows, *kind))]
    for place, (condition, metric) in enumerate(there):
        shift = (place - (len(there) - 1) / 2) * 0.1
        for trace in _traces(_of(rows, condition, metric), condition, metric, doses, shift):
            figure.add_trace(trace)
    title = _title(rows, task, doses)
    legend, below = legend_below(
        [trace.name for trace in figure.data if trace.showlegend], "removed; loss on"
    )
    figure.add_hline(y=0, line={"color": "#595959", "width": 1.5, "dash": "dash"})
    figure.update_layout(
        template="plotly_white",
        height=400 + room_for(title) + below,
        margin={"l": 10, "r": 10, "t": room_for(title), "b": 20},
        title=title,
        legend=legend,
        meta={"alt": _alt(rows, task, doses, there)},
        font=INK,
    )
    figure.update_xaxes(
        title="dose (share of all units that is removed)", tickvals=list(range(len(doses))),
        ticktext=[_tick(rows, dose) for dose in doses], range=[-0.5, len(doses) - 0.5], automargin=True,
    )  # fmt: skip
    figure.update_yaxes(title="drop of log-odds<br>(nats; 0 loses nothing)", automargin=True)
    return figure


def _of(rows: pd.DataFrame, condition: str, metric: str) -> pd.DataFrame:
    chosen = (rows["condition"] == condition) & (rows["metric"] == metric)
    return rows[chosen].dropna(subset="value").set_index("dose")


def _traces(
    cells: pd.DataFrame, condition: str, metric: str, doses: list[str], shift: float
) -> list[go.Scatter]:
    """The joined doses, and those that stand apart; one entry in the legend."""
    import plotly.graph_objects as go

    mark, own = mark_of(condition), metric == "drop_own"
    symbol = {"removed": "circle", "removed_random": "diamond"}[condition] + "-open" * (not own)
    name = f"{_NAMES[condition]}; {_PICTURES[metric]}"
    found: list[go.Scatter] = []
    for apart in (False, True):
        mine = [dose for dose in doses if (dose in _SETS) == apart and dose in cells.index]
        if not mine:
            continue
        part = cells.loc[mine]
        found.append(
            go.Scatter(
                name=name,
                legendgroup=name,
                showlegend=not found,
                mode="markers" if apart else "lines+markers",
                x=[doses.index(dose) + shift for dose in mine],
                y=part["value"].tolist(),
                customdata=[
                    [dose, *row]
                    for dose, row in zip(mine, part[["low", "high", "n"]].values.tolist(), strict=True)
                ],
                hovertemplate=f"{html.escape(name)}, %{{customdata[0]}}: %{{y:.2f}} [%{{customdata[1]:.2f}}, "
                "%{customdata[2]:.2f}], n = %{customdata[3]}<extra></extra>",
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": (part["high"] - part["value"]).tolist(),
                    "arrayminus": (part["value"] - part["low"]).tolist(),
                    "color": mark.colour,
                    "thickness": 1.5,
                    "width": 0,
                },
                line={"color": mark.colour, "width": 2 if own else 1.5, "dash": "solid" if own else "dot"},
                marker={"color": mark.colour, "symbol": symbol, "size": 9, "line": {"width": 1.5}},
            )
        )
    return found


def _tick(rows: pd.DataFrame, dose: str) -> str:
    share = rows[(rows["dose"] == dose) & (rows["metric"] == "removed_share")]["value"]
    return f"{dose}<br>({100 * float(share.iloc[0]):.2g} %)" if dose in _SETS and len(share) else dose


def _values(rows: pd.DataFrame, condition: str, metric: str) -> dict[str, float]:
    cells = _of(rows, condition, metric)["value"]
    return {str(dose): float(value) for dose, value in cells.items()}


def _title(rows: pd.DataFrame, task: str, doses: list[str]) -> dict[str, object]:
    """What the units that no other task keeps cost; where there are none, the weakest dose."""
    own = _values(rows, "removed", "drop_own")
    dose = "exclusive" if own.get("exclusive") else next((one for one in doses if one in own), doses[0])
    costs = {
        condition: [
            f"{found[dose]:.2f}"
            for metric in _PICTURES
            if dose in (found := _values(rows, condition, metric))
        ]
        for condition in _NAMES
    }
    units = {"exclusive": "units that only one task keeps", "kept": "its kept units"}
    what = units.get(dose, f"the top {dose} of units")
    said = (
        f"{rows['network'].iloc[0]}: without {what}, a task loses {' and the others '.join(costs['removed'])}"
    )
    if not costs["removed"]:
        said = f"{rows['network'].iloc[0]}: no units to remove, or no pictures to lose"
    elif costs["removed_random"]:
        said += f", without as many random ones {' and '.join(costs['removed_random'])}"
    below = f"drop of log-odds, {_over(task)}; bars are 95 % intervals, of random draws their 2.5-97.5 %"
    return title_of(said, below)


def _alt(rows: pd.DataFrame, task: str, doses: list[str], there: list[tuple[str, str]]) -> str:
    said = []
    for condition, metric in there:
        found = _values(rows, condition, metric)
        values = [f"{found[dose]:.2f}" if dose in found else "no value" for dose in doses]
        said.append(f"{_NAMES[condition]}, {_PICTURES[metric]}: {', '.join(values)}")
    return (
        f"Points of the drop of log-odds in {rows['network'].iloc[0]}, {_over(task)}, at the doses "
        f"{', '.join(doses)}. {'; '.join(said)}."
    )


def _over(task: str) -> str:
    return "mean over tasks" if task == "mean" else task
