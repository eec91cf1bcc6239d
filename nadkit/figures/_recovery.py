"""The table of `recovery` as a figure: a row a method, a mark a grade."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING

from nadkit.errors import NadkitError
from nadkit.figures._marks import FURTHER, INK, MARKS, OTHER, broken, legend_below, room_for, title_of

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_PANELS = (
    ("average_precision", "average precision of the scores (share)"),
    ("f1", "F1 of the kept units (share)"),
)
_PALETTE = (
    MARKS["kept"], MARKS["shared"], MARKS["removed"], MARKS["relabelled"], MARKS["untrained"],
    FURTHER["last_layer"], FURTHER["other"], MARKS["random"], OTHER, MARKS["whole"],
)  # fmt: skip
_LEVELS = ("easy", "middle", "hard", "merged")


def recovery(table: pd.DataFrame) -> go.Figure:
    """Return the table of `nk.recovery` as a figure: how well each method finds planted units, by grade.

    Two panels, average precision and F1, a row a method, from best to worst average precision, and in each
    row a mark a grade with its interval: the mean over what the table's column `interval` says.

    Examples
    --------
    >>> import pandas as pd
    >>> columns = ["network", "task", "condition", "metric", "value", "low", "high", "n", "seed", "interval"]
    >>> rows = [("plain-easy", "mean", name, metric, value, value - 0.1, value, 12, None, "tasks")
    ...         for metric in ("average_precision", "f1") for name, value in (("a", 1.0), ("b", 0.5))]
    >>> recovery(pd.DataFrame(rows, columns=columns)).layout.meta["alt"].split(". ")[1]
    'Average precision on plain-easy: a 1.00 [0.90, 1.00], b 0.50 [0.40, 0.50]'

    Parameters
    ----------
    table
        As `nk.recovery` returns it; it may have been saved and read again.

    Returns
    -------
    plotly.graph_objects.Figure
        Whole from 640 pixels of width on.

    Raises
    ------
    NadkitError
        No table of `recovery`.
    """
    from plotly.subplots import make_subplots

    rows = _means(table)
    grades = rows["network"].drop_duplicates().tolist()
    methods = _ordered(rows)
    figure = make_subplots(cols=2, shared_yaxes=True, horizontal_spacing=0.04)
    for place, grade in enumerate(grades):
        mark = _PALETTE[place % len(_PALETTE)]
        # One below the other within the row of the method.
        offset = ((place + 1) / (len(grades) + 1) - 0.5) * 0.86
        for column, (metric, _) in enumerate(_PANELS, start=1):
            mine = rows[(rows["network"] == grade) & (rows["metric"] == metric)].dropna(subset="value")
            figure.add_scatter(
                row=1, col=column, name=html.escape(grade), legendgroup=grade, showlegend=column == 1,
                mode="markers", x=mine["value"].tolist(),
                y=[methods.index(name) + offset for name in mine["condition"]],
                customdata=mine[["condition", "low", "high", "n"]].values.tolist(),
                hovertemplate=f"%{{customdata[0]}}, {html.escape(grade)}: %{{x:.3f}} "
                "[%{customdata[1]:.3f}, %{customdata[2]:.3f}], n = %{customdata[3]}<extra></extra>",
                error_x={
                    "type": "data", "symmetric": False, "color": mark.colour, "thickness": 1.2, "width": 0,
                    "array": (mine["high"] - mine["value"]).tolist(),
                    "arrayminus": (mine["value"] - mine["low"]).tolist(),
                },
                marker={
                    "color": mark.colour, "symbol": mark.symbol, "size": 8,
                    "line": {"color": mark.colour, "width": 2 if mark.symbol.endswith("open") else 0},
                },
            )  # fmt: skip
    for edge in range(1, len(methods)):
        figure.add_hline(y=edge - 0.5, line={"color": "#e3e3e3", "width": 1})
    over = " or ".join(rows["interval"].dropna().drop_duplicates())
    title = title_of(_title(rows, methods), f"mean over {over}; bars are 95 % intervals")
    top = room_for(title) + 10
    legend, below = legend_below([html.escape(grade) for grade in grades], "grade")
    figure.update_layout(
        template="plotly_white", font=INK, title=title,
        height=top + 90 + below + max(34, 9 * len(grades) + 4) * len(methods),
        margin={"l": 10, "r": 16, "t": top, "b": 10},
        legend={**legend, "itemsizing": "constant"},
        meta={"alt": _alt(rows, grades, methods)},
    )  # fmt: skip
    for column, (_, axis) in enumerate(_PANELS, start=1):
        ticks = [0, 0.2, 0.4, 0.6, 0.8, 1]
        figure.update_xaxes(title=broken(axis, 24), range=[-0.03, 1.03], tickvals=ticks, col=column)
    figure.update_yaxes(
        tickvals=list(range(len(methods))), ticktext=[html.escape(name) for name in methods],
        range=[len(methods) - 0.5, -0.5], showgrid=False, zeroline=False, automargin=True,
    )  # fmt: skip
    figure.update_yaxes(title="method", col=1)
    return figure


def _means(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows over all tasks and seeds of both metrics."""
    columns = ("network", "task", "condition", "metric", "value", "low", "high", "n", "seed", "interval")
    missing = [name for name in columns if name not in getattr(table, "columns", ())]
    if missing:
        raise NadkitError(
            f"figures.recovery draws a table of nk.recovery; this has no column {', '.join(missing)}"
        )
    metrics = [metric for metric, _ in _PANELS]
    rows = table[(table["task"] == "mean") & table["seed"].isna() & table["metric"].isin(metrics)]
    for metric in metrics:
        if not (rows["metric"] == metric).any():
            raise NadkitError(
                f"figures.recovery draws a table of nk.recovery; this has no {metric} of task 'mean' "
                "over all seeds"
            )
    return rows


def _ordered(rows: pd.DataFrame) -> list[str]:
    """Return the methods from best to worst average precision over all grades."""
    names = rows["condition"].drop_duplicates().tolist()
    mean = {name: _mean(rows, name) for name in names}
    return sorted(names, key=lambda name: -mean[name] if not math.isnan(mean[name]) else math.inf)


def _mean(rows: pd.DataFrame, method: str, level: str | None = None) -> float:
    """Return a method's mean average precision over grades, of a level or all; NaN without any."""
    mine = rows[(rows["metric"] == "average_precision") & (rows["condition"] == method)]
    if level is not None:
        mine = mine[mine["network"].str.split("-").str[-1] == level]
    values = mine["value"].dropna().tolist()
    return math.fsum(values) / len(values) if values else math.nan


def _title(rows: pd.DataFrame, methods: list[str]) -> str:
    parts = []
    for level in _LEVELS:
        found = [(_mean(rows, name, level), name) for name in methods]
        ranked = sorted((pair for pair in found if not math.isnan(pair[0])), key=lambda pair: -pair[0])
        if ranked:
            second = f", then {ranked[1][1]} {ranked[1][0]:.2f}" if len(ranked) > 1 else ""
            parts.append(f"{level} {ranked[0][1]} {ranked[0][0]:.2f}{second}")
    return f"Planted units, best average precision: {'; '.join(parts)}"


def _alt(rows: pd.DataFrame, grades: list[str], methods: list[str]) -> str:
    said = "Dots of how well each method finds planted units, by grade"
    for metric, words in _PANELS:
        for grade in grades:
            mine = rows[(rows["network"] == grade) & (rows["metric"] == metric)].dropna(subset="value")
            numbers = mine[["condition", "value", "low", "high"]].itertuples(index=False)
            told = {name: f"{name} {value:.2f} [{low:.2f}, {high:.2f}]" for name, value, low, high in numbers}
            facts = [told[name] for name in methods if name in told]
            title = words.split(" of ")[0]
            said += f". {title[:1].upper()}{title[1:]} on {grade}: {', '.join(facts) or 'no value'}"
    return said + "."
