"""What a table of `whether` says: a sentence for each part, and a table for the eye."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from nadkit.errors import NadkitError
from nadkit.questions.controls import LEARNED
from nadkit.questions.verdict import JUDGED, SOLVED, fact, verdict

if TYPE_CHECKING:
    import pandas as pd

DOSES = {
    "exclusive": "that only one task keeps",
    "5 %": "that score highest for a task",
    "kept": "that a task keeps",
}
"""The doses of removal that the sentence is about: the first that removes anything."""

SHOWN = ("recall", "false_alarm", "balanced_accuracy", "kept_share")


def answer(table: pd.DataFrame) -> str:
    """Return the table of `whether` in words, computed from its rows: one sentence for each part it has.

    The first is of calibrated balanced accuracy, or, if nothing is calibrated, of AUROC. It says "contains"
    only where the lower end of the mean excess over the best learned control is above 0 and all three learned
    controls, which were learned as the masks were, stand beside them, and "in part" below 0.95 of the whole
    network's value (the better of raw and calibrated); layers, the matrix and the comparison are put in words
    only without it. Then come the curve, agreement, necessity and minimality.

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
        The table has no part that can be put in a sentence.
    """
    found = sentences(table)
    if not found:
        raise NadkitError("no rows of 'kept' or 'removed' in this table; give a table of whether(...)")
    return " ".join(found)


def sentences(table: pd.DataFrame) -> list[str]:
    """Return a sentence for each part of the table that has one."""
    plain, name = plain_rows(table), str(table["network"].iloc[0]) if len(table) else ""
    first = [verdict(plain, name)]
    if not first[0]:
        first = [_layers(table, name), _matrix(table, name), _comparison(plain, name)]
    found = [
        *first,
        _curve(table, name),
        _agreement(plain, name),
        _necessity(table, name),
        _minimality(plain, name),
    ]
    return [sentence for sentence in found if sentence]


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


def _curve(table: pd.DataFrame, name: str) -> str:
    plain = plain_rows(table)
    rows = plain[(plain["task"] == "mean") & (plain["metric"] == "smallest_share")]
    if rows.empty:
        return ""
    points = table[table["share"].notna()] if "share" in table else table[:0]
    metrics = set(points["metric"])
    plainly = "auroc" in metrics and "balanced_accuracy_calibrated" not in metrics
    metric = "AUROC" if plainly else "balanced accuracy"
    by_words: dict[str, list[str]] = {}
    for condition, value in zip(rows["condition"], rows["value"].astype(float), strict=True):
        again = fact(plain, str(condition), "short_again")
        words = "at none" if math.isnan(value) else f"first at {value:g}"
        words += f" (short of it again at {again.value:g})" if again else ""
        by_words.setdefault(words, []).append("the kept units" if condition == "kept" else str(condition))
    said = "; ".join(f"{', '.join(conditions)} {words}" for words, conditions in by_words.items())
    return f"Over kept shares, {SOLVED:g} of the {metric} of {name} is reached by {said}."


def _layers(table: pd.DataFrame, name: str) -> str:
    """How far layers differ in what is kept."""
    if "layer" not in table:
        return ""
    rows = table[
        (table["task"] == "mean") & (table["condition"] == "kept") & (table["metric"] == "kept_share")
    ]
    rows = rows[rows["layer"].notna() & (rows["layer"] != "all")]
    if rows.empty:
        return ""
    rows = rows.sort_values("value", kind="stable")
    ends = [f"{100 * row['value']:.2g} % ({row['layer']})" for _, row in rows.iloc[[0, -1]].iterrows()]
    return f"Of a layer's units, a task of {name} keeps from {ends[0]} to {ends[1]}, on average over tasks."


def _matrix(table: pd.DataFrame, name: str) -> str:
    """How often pictures of the own and of other classes are accepted."""
    if "other_task" not in table:
        return ""
    there = table[table["other_task"].notna() & table["value"].notna()]
    metric = next((one for one in ("accepted_calibrated", "accepted") if one in set(there["metric"])), "")
    there = there[there["metric"] == metric]
    said = []
    for condition in ("kept", "whole"):
        rows = there[there["condition"] == condition]
        own = rows[rows["task"] == rows["other_task"]]["value"]
        others = rows[rows["task"] != rows["other_task"]]
        if own.empty or others.empty:
            continue
        most = others.sort_values("value", ascending=False, kind="stable").iloc[0]
        words = (
            f"{own.mean():.2f} of the pictures of its class and {others['value'].mean():.2f} of the others'"
        )
        if condition == "kept":
            words += f" (most {most['value']:.2f}, {most['task']} of {most['other_task']})"
        said.append(words)
    if not said:
        return ""
    beside = f"; the whole network {said[1]}" if len(said) > 1 else ""
    kind = ", calibrated," if metric == "accepted_calibrated" else ""
    return f"A sub-architecture of {name} accepts{kind} {said[0]}{beside}."


def _comparison(table: pd.DataFrame, name: str) -> str:
    """What another task's mask, and a mask of the last layer alone, do."""
    metrics = set(table[table["condition"] == "last_layer"]["metric"])
    metric = next((one for one in JUDGED if one in metrics), "")
    words = {"other": "under another task's mask", "last_layer": "with all units but the last layer's open"}
    facts = {condition: fact(table, condition, metric) for condition in words}
    said = [f"{found} {words[condition]}" for condition, found in facts.items() if found]
    if not said:
        return ""
    kept = fact(table, "kept", metric)
    beside = "" if kept is None else f" (its own mask {kept.value:.2f})"
    return f"A task of {name} has {JUDGED[metric]} of {' and '.join(said)}{beside}."


def _agreement(table: pd.DataFrame, name: str) -> str:
    kept = fact(table, "kept", "rank_correlation")
    if kept is None:
        return ""
    facts = {control: fact(table, control, "rank_correlation") for control in LEARNED}
    beside = ", ".join(f"{control} {fact.value:.2f}" for control, fact in facts.items() if fact)
    return (
        f"Within a class, the kept units of {name} order pictures as the whole network does at a rank "
        f"correlation of {kept}" + (f" ({beside})." if beside else ".")
    )


def _necessity(table: pd.DataFrame, name: str) -> str:
    """The units that no other task keeps, if there are any; else those that score highest."""
    if "dose" not in table or table["dose"].isna().all():
        return ""
    shares = {dose: fact(table[table["dose"] == dose], "removed", "removed_share") for dose in DOSES}
    dose, share = next(((dose, each) for dose, each in shares.items() if each and each.value > 0), ("", None))
    if not dose:
        return f"No units of {name} are kept, and none score higher than others, so there are none to remove."
    rows = table[table["dose"] == dose]
    own, others = (fact(rows, "removed", metric) for metric in ("drop_own", "drop_others"))
    if own is None or share is None:
        return ""
    random, spreads = fact(rows, "removed_random", "drop_own"), fact(rows, "removed", "selectivity")
    beside = "" if random is None else f" (as many random units: {random.value:.2f}"
    beside += "" if spreads is None else f", {spreads.value:.1f} spreads away"
    beside += ")" if beside else ""
    rest = "" if others is None else f", and the other tasks {others}"
    return (
        f"Removing the units {DOSES[dose]} ({100 * share.value:.3g} % of all) from {name} costs that task "
        f"{own} of log-odds on its pictures{beside}{rest}."
    )


def _minimality(table: pd.DataFrame, name: str) -> str:
    if "minimality" not in set(table["metric"]):
        return ""
    kept, needed = (fact(table, "kept", metric) for metric in ("minimality", "needed_share"))
    pruned = "" if needed is None else f"{needed} of them are left when pruning first costs 1 %"
    if kept is not None:
        end = f"; {pruned}" if pruned else ""
        return f"Of the kept units of {name}, {kept} are worth more than 95 % of the removed ones{end}."
    if pruned:
        return f"No units of {name} are removed that the kept ones could be held against; {pruned}."
    return f"No task of {name} keeps units and has pictures of both kinds, so none can be pruned."


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
