"""What a table of `whether` says: a sentence for each part, and a table for the eye."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from nadkit.errors import NadkitError
from nadkit.questions.controls import LEARNED

if TYPE_CHECKING:
    import pandas as pd

SOLVED = 0.95
"""The share of the whole network's balanced accuracy from which on a task counts as solved, not in part."""

DOSES = {"exclusive": "that only one task keeps", "5 %": "that score highest for a task"}
"""The doses of removal that the sentence is about: the first that removes anything."""

SHOWN = ("recall", "false_alarm", "balanced_accuracy", "kept_share")


class _Fact(NamedTuple):
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def answer(table: pd.DataFrame) -> str:
    """Return the table of `whether` in words, computed from its rows: one sentence for each part it has.

    The first says "contains" only where the lower end of the mean excess over the best learned control is
    above 0, and "in part" below 0.95 of the whole network's balanced accuracy, the better of raw and
    calibrated. Then come the curve, agreement, necessity and minimality.

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
        The table has no part that can be put in a sentence, such as balanced accuracy of the condition kept.
    """
    found = sentences(table)
    if not found:
        raise NadkitError("no balanced accuracy of 'kept' in this table; give a table of whether(...)")
    return " ".join(found)


def sentences(table: pd.DataFrame) -> list[str]:
    """Return a sentence for each part of the table that has one."""
    plain, name = plain_rows(table), str(table["network"].iloc[0]) if len(table) else ""
    parts = (_sufficiency, _curve, _agreement, _necessity, _minimality)
    return [found for part in parts if (found := part(table if part is _necessity else plain, name))]


def plain_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of whole masks: of no single layer, other task, dose or share of a curve.

    Examples
    --------
    >>> import pandas as pd
    >>> plain_rows(pd.DataFrame({"layer": ["all", "stem"], "value": [0.3, 0.5]}))["value"].tolist()
    [0.3]

    Parameters
    ----------
    table
        As `whether` returns it; columns that it left out are not missed.
    """
    for column in ("other_task", "share", "dose"):
        if column in table:
            table = table[table[column].isna()]
    return table[table["layer"].isin(["all"]) | table["layer"].isna()] if "layer" in table else table


def _sufficiency(table: pd.DataFrame, name: str) -> str:
    if not ((table["condition"] == "kept") & (table["metric"] == "balanced_accuracy")).any():
        return ""
    metric = _decisive(table)
    # Calibration can cost the whole network a little; parts are held against the better of its two values.
    either = [_value(table, "whole", each) for each in ("balanced_accuracy", metric)]
    whole = max(either)
    kept = _fact(table, "kept", metric)
    if kept is None:
        return "No task has pictures of both kinds, its own and others', so there is no answer."
    share = _fact(table, "kept", "kept_share")
    size = "" if share is None else f"keeping {100 * share.value:.3g} % of the units of each task "
    kind = "calibrated balanced accuracy" if metric.endswith("calibrated") else "balanced accuracy"
    level = f"at a {kind} of {kept}" + ("" if whole < 0 else f" (whole network {whole:.2f})")
    solves = "solves the tasks" + (" in part" if kept.value < SOLVED * whole else "")
    if kept.low <= 0.5:
        return f"{name}: {size}does not solve the tasks, {level}; a constant answer has 0.50."
    together = _recomposed(table)
    excess = _fact(table, "kept", "excess")
    if excess is None:
        return f"{name}: {size}{solves}, {level}, and no learned control stands beside it{together}."
    best = max(
        (control for control in LEARNED if _fact(table, control, metric) is not None),
        key=lambda control: _value(table, control, metric),
    )
    beside = f"the best learned control ({best}) has {_fact(table, best, metric)}, an excess of {excess}"
    if excess.low > 0:
        return f"{name} contains sub-architectures of its tasks: {size}{solves}, {level}; {beside}{together}."
    return f"{name}: {size}{solves}, {level}, but so does a control: {beside}{together}."


def _recomposed(table: pd.DataFrame) -> str:
    """How often all sub-architectures together name the right class, beside the whole and a shared mask."""
    found = {
        name: _fact(table, condition, "recomposed_accuracy", "all")
        for name, condition in (("", "kept"), ("whole network", "whole"), ("one shared mask", "shared"))
    }
    kept = found.pop("")
    if kept is None:
        return ""
    beside = ", ".join(f"{name} {fact.value:.2f}" for name, fact in found.items() if fact)
    return f"; together they name the right class of {kept} of the pictures" + (
        f" ({beside})" if beside else ""
    )


def _curve(table: pd.DataFrame, name: str) -> str:
    rows = table[(table["task"] == "mean") & (table["metric"] == "smallest_share")]
    if rows.empty:
        return ""
    by_words: dict[str, list[str]] = {}
    for condition, value in zip(rows["condition"], rows["value"].astype(float), strict=True):
        words = "at none" if math.isnan(value) else f"from {value:g} on"
        by_words.setdefault(words, []).append("the kept units" if condition == "kept" else str(condition))
    said = "; ".join(f"{', '.join(conditions)} {words}" for words, conditions in by_words.items())
    return f"Over kept shares, {SOLVED:g} of the balanced accuracy of {name} is reached by {said}."


def _agreement(table: pd.DataFrame, name: str) -> str:
    kept = _fact(table, "kept", "rank_correlation")
    if kept is None:
        return ""
    facts = {control: _fact(table, control, "rank_correlation") for control in LEARNED}
    beside = ", ".join(f"{control} {fact.value:.2f}" for control, fact in facts.items() if fact)
    return (
        f"Within a class, the kept units of {name} order pictures as the whole network does at a rank "
        f"correlation of {kept}" + (f" ({beside})." if beside else ".")
    )


def _necessity(table: pd.DataFrame, name: str) -> str:
    """The units that no other task keeps, if there are any; else those that score highest."""
    if "dose" not in table:
        return ""
    shares = {dose: _fact(table[table["dose"] == dose], "removed", "removed_share") for dose in DOSES}
    dose, share = next(((dose, fact) for dose, fact in shares.items() if fact and fact.value > 0), ("", None))
    rows = table[table["dose"] == dose]
    own, others = (_fact(rows, "removed", metric) for metric in ("drop_own", "drop_others"))
    if own is None or share is None:
        return ""
    random, spreads = _fact(rows, "removed_random", "drop_own"), _fact(rows, "removed", "selectivity")
    beside = "" if random is None else f" (as many random units: {random.value:.2f}"
    beside += "" if spreads is None else f", {spreads.value:.1f} spreads away"
    beside += ")" if beside else ""
    rest = "" if others is None else f", and the other tasks {others}"
    return (
        f"Removing the units {DOSES[dose]} ({100 * share.value:.2g} % of all) from {name} costs that task "
        f"{own} of log-odds on its pictures{beside}{rest}."
    )


def _minimality(table: pd.DataFrame, name: str) -> str:
    kept, needed = (_fact(table, "kept", metric) for metric in ("minimality", "needed_share"))
    if kept is None:
        return ""
    pruned = "" if needed is None else f"; {needed} of them are left when pruning first costs 1 %"
    return f"Of the kept units of {name}, {kept} are worth more than 95 % of the removed ones{pruned}."


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

    table = plain_rows(table)
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


def _fact(table: pd.DataFrame, condition: str, metric: str, task: str = "mean") -> _Fact | None:
    rows = table[
        (table["task"] == task) & (table["condition"] == condition) & (table["metric"] == metric)
    ].dropna(subset="value")
    return None if rows.empty else _Fact(*(float(rows[name].iloc[0]) for name in _Fact._fields))


def _value(table: pd.DataFrame, condition: str, metric: str) -> float:
    fact = _fact(table, condition, metric)
    return -math.inf if fact is None else fact.value
