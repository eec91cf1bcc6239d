"""Which pictures each task's sub-architecture accepts, as a heat map."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING

from nadkit.errors import NadkitError, closest
from nadkit.figures._marks import INK, check_columns, room_for, title_of

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_MOST = 12
"""Classes whose shares are written into the cells; more would not be readable."""

_METRICS = {False: "accepted", True: "accepted_calibrated"}


def matrix(table: pd.DataFrame, condition: str = "kept", *, calibrated: bool = False) -> go.Figure:
    """Return how often each task is accepted on pictures of each class, as a heat map.

    Examples
    --------
    >>> import pandas as pd
    >>> columns = ["network", "task", "other_task", "condition", "metric", "value", "low", "high", "n"]
    >>> rows = [("net", task, other, "kept", "accepted", 0.9 if task == other else 0.1, 0.0, 1.0, 20)
    ...         for task in ("bag", "coat") for other in ("bag", "coat")]
    >>> print(matrix(pd.DataFrame(rows, columns=columns)).layout.meta["alt"])
    Heat map of how often 2 tasks accept pictures of 2 classes, net kept. Own class: mean 0.90,
    from 0.90 (bag) to 0.90 (coat). Other classes: mean 0.10, highest 0.10, bag on pictures of coat.

    Parameters
    ----------
    table
        As `nk.whether` returns it with the part "matrix", of one network.
    condition
        "kept" or "whole".
    calibrated
        Whether the decisions are calibrated ones.

    Returns
    -------
    plotly.graph_objects.Figure
        A row a task, a column a class of pictures; where there is no value the cell is empty.

    Raises
    ------
    NadkitError
        No table of `whether` with a matrix, no such condition, no calibrated decisions, or several networks
        in one table.
    """
    import plotly.graph_objects as go

    check_columns(table, "matrix", ("other_task",), ' with parts="matrix"')
    rows = _chosen(table, condition, calibrated)
    tasks, classes = (rows[name].unique().tolist() for name in ("task", "other_task"))
    classes = [*(name for name in tasks if name in classes), *(name for name in classes if name not in tasks)]
    wide = rows.pivot_table(index="task", columns="other_task", values="value", aggfunc="first", dropna=False)
    wide = wide.reindex(index=tasks, columns=classes).astype(float)
    known = rows.set_index(["task", "other_task"])[["low", "high", "n"]]
    details = [[known.loc[(task, other)].tolist() for other in classes] for task in tasks]
    numbers = [["" if math.isnan(value) else f"{value:.2f}" for value in row] for row in wide.to_numpy()]
    shown = [[html.escape(str(name)) for name in names] for names in (tasks, classes)]
    figure = go.Figure(
        go.Heatmap(
            z=[[None if math.isnan(value) else value for value in row] for row in wide.to_numpy()],
            x=shown[1],
            y=shown[0],
            zmin=0,
            zmax=1,
            colorscale="Blues",
            xgap=1,
            ygap=1,
            text=numbers if max(len(tasks), len(classes)) <= _MOST else None,
            texttemplate="%{text}",
            customdata=details,
            hovertemplate="%{y} on pictures of %{x}: %{z:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}], "
            "n = %{customdata[2]}<extra></extra>",
            colorbar={"title": {"text": "share<br>accepted"}, "thickness": 14},
        )
    )
    title, alt = _words(rows, wide, condition, calibrated)
    longest = max(map(len, shown[1]), default=0)
    figure.update_layout(
        template="plotly_white",
        height=90 + room_for(title) + max(34 * len(tasks), 160) + 5 * longest,
        margin={"l": 10, "r": 10, "t": room_for(title), "b": 20},
        title=title,
        meta={"alt": alt},
        font=INK,
    )
    figure.update_xaxes(title="class of the pictures", type="category", automargin=True, showgrid=False)
    figure.update_yaxes(title="task", type="category", autorange="reversed", automargin=True, showgrid=False)
    return figure


def _chosen(table: pd.DataFrame, condition: str, calibrated: bool) -> pd.DataFrame:
    rows = table[table["metric"] == _METRICS[calibrated]]
    if rows.empty:
        what = (
            "calibrated decisions; calibrate_on= makes them"
            if calibrated
            else 'matrix; ask with parts="matrix"'
        )
        raise NadkitError(f"this table of nk.whether has no {what}")
    there = rows["condition"].unique().tolist()
    if condition not in there:
        raise NadkitError(f"no condition {condition!r} in the matrix; {closest(str(condition), there)}")
    return rows[rows["condition"] == condition]


def _words(
    rows: pd.DataFrame, wide: pd.DataFrame, condition: str, calibrated: bool
) -> tuple[dict[str, object], str]:
    """The title and the alternative text."""
    network = str(rows["network"].iloc[0])
    there = rows.dropna(subset="value")
    same = there["task"] == there["other_task"]
    own, others = there[same], there[~same]
    high = ""
    said, long = [], []
    if len(own):
        first, last = (own.sort_values("value", kind="stable").iloc[at] for at in (0, -1))
        said.append(f"{own['value'].mean():.2f} of their own class's pictures")
        ends = f"from {first['value']:.2f} ({first['task']}) to {last['value']:.2f} ({last['task']})"
        long.append(f"Own class: mean {own['value'].mean():.2f}, {ends}.")
    if len(others):
        most = others.sort_values("value", ascending=False, kind="stable").iloc[0]
        said.append(f"{others['value'].mean():.2f} of others'")
        high = f"{most['value']:.2f}, {most['task']} on pictures of {most['other_task']}"
        long.append(f"Other classes: mean {others['value'].mean():.2f}, highest {high}.")
    below = f"{condition}; accepted: {'calibrated ' * calibrated}log-odds of the task above 0"
    below += f"; highest for others {high}" if high else ""
    title = title_of(f"{network}: tasks accept {', '.join(said) or 'nothing'}", below)
    alt = (
        f"Heat map of how often {len(wide)} tasks accept pictures of {len(wide.columns)} classes, {network} "
    )
    return title, f"{alt}{condition}. {' '.join(long) or 'No value.'}"
