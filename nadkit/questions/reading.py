"""What a table of `whether` says: one sentence, and a table for the eye."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from nadkit.errors import NadkitError
from nadkit.questions.controls import LEARNED

if TYPE_CHECKING:
    import pandas as pd

SOLVED = 0.95
"""The share of the whole network's balanced accuracy from which on a task counts as solved, not in part."""

SHOWN = ("recall", "false_alarm", "balanced_accuracy", "kept_share")


class _Fact(NamedTuple):
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def answer(table: pd.DataFrame) -> str:
    """Return the table of `whether` as one sentence, computed from its rows.

    It says "contains" only where the lower end of the mean excess over the best learned control is above 0,
    and "in part" below 0.95 of the whole network's balanced accuracy, the better of raw and calibrated.

    Examples
    --------
    >>> import pandas as pd
    >>> columns = ["network", "task", "condition", "metric", "value", "low", "high"]
    >>> rows = [("net", "mean", "kept", "balanced_accuracy", 0.93, 0.91, 0.95),
    ...         ("net", "mean", "kept", "kept_share", 0.3, 0.3, 0.3)]
    >>> print(answer(pd.DataFrame(rows, columns=columns)))
    net: keeping 30 % of the units ... at a balanced accuracy of 0.93 [0.91, 0.95], and no learned control ...

    Parameters
    ----------
    table
        As `whether` returns it, of one network; it may have been saved and read again.

    Raises
    ------
    NadkitError
        The table has no balanced accuracy of the condition kept.
    """
    metric = _decisive(table)
    # Calibration can cost the whole network a little; parts are held against the better of its two values.
    either = [_value(table, "whole", name) for name in ("balanced_accuracy", metric)]
    whole = max(either)
    kept = _fact(table, "kept", metric)
    if kept is None:
        if not ((table["condition"] == "kept") & (table["metric"] == "balanced_accuracy")).any():
            raise NadkitError("no balanced accuracy of 'kept' in this table; give a table of whether(...)")
        return "No task has pictures of both kinds, its own and others', so there is no answer."
    share = _fact(table, "kept", "kept_share")
    size = "" if share is None else f"keeping {100 * share.value:.3g} % of the units of each task "
    name = str(table["network"].iloc[0])
    kind = "calibrated balanced accuracy" if metric.endswith("calibrated") else "balanced accuracy"
    level = f"at a {kind} of {kept}" + ("" if whole < 0 else f" (whole network {whole:.2f})")
    solves = "solves the tasks" + (" in part" if kept.value < SOLVED * whole else "")
    if kept.low <= 0.5:
        return f"{name}: {size}does not solve the tasks, {level}; a constant answer has 0.50."
    excess = _fact(table, "kept", "excess")
    if excess is None:
        return f"{name}: {size}{solves}, {level}, and no learned control stands beside it."
    best = max(
        (control for control in LEARNED if _fact(table, control, metric) is not None),
        key=lambda control: _value(table, control, metric),
    )
    beside = f"the best learned control ({best}) has {_fact(table, best, metric)}, an excess of {excess}"
    if excess.low > 0:
        return f"{name} contains sub-architectures of its tasks: {size}{solves}, {level}; {beside}."
    return f"{name}: {size}{solves}, {level}, but so does a control: {beside}."


def evidence_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table of `whether` for the eye: one row a task and condition, cells "value [low, high]".

    Examples
    --------
    >>> import pandas as pd
    >>> columns = ["task", "condition", "metric", "value", "low", "high"]
    >>> table = pd.DataFrame([("bag", "kept", "recall", 0.9, 0.7, 0.97)], columns=columns)
    >>> evidence_table(table).loc[("bag", "kept"), "recall"]
    '0.90 [0.70, 0.97]'

    Parameters
    ----------
    table
        As `whether` returns it.

    Returns
    -------
    pandas.DataFrame
        Index (task, condition) in the table's order; columns recall, false_alarm, balanced_accuracy and
        kept_share, as text. "–" where there is no value; a counted value stands without an interval.
    """
    import pandas as pd

    shown = table[table["metric"].isin(SHOWN)].copy()
    shown["text"] = [_text(*cells) for cells in shown[["value", "low", "high"]].itertuples(index=False)]
    found = set(zip(shown["task"], shown["condition"], strict=True))
    tasks, conditions = shown["task"].unique(), shown["condition"].unique()
    keys = [(task, condition) for task in tasks for condition in conditions if (task, condition) in found]
    wide = shown.pivot_table(index=["task", "condition"], columns="metric", values="text", aggfunc="first")
    index = pd.MultiIndex.from_tuples(keys, names=["task", "condition"])
    return wide.reindex(index=index, columns=list(SHOWN)).astype(object).fillna("–").rename_axis(columns=None)


def _text(value: float, low: float, high: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.2f}" if low == value == high else f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _decisive(table: pd.DataFrame) -> str:
    """The metric that excess is of: calibrated balanced accuracy if the table has it."""
    has = _fact(table, "kept", "balanced_accuracy_calibrated") is not None
    return "balanced_accuracy_calibrated" if has else "balanced_accuracy"


def _fact(table: pd.DataFrame, condition: str, metric: str) -> _Fact | None:
    rows = table[
        (table["task"] == "mean") & (table["condition"] == condition) & (table["metric"] == metric)
    ].dropna(subset="value")
    return None if rows.empty else _Fact(*(float(rows[name].iloc[0]) for name in _Fact._fields))


def _value(table: pd.DataFrame, condition: str, metric: str) -> float:
    fact = _fact(table, condition, metric)
    return -math.inf if fact is None else fact.value
