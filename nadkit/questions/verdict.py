"""The first sentence of `whether`: do the kept units solve the tasks, and do more than learned controls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from nadkit.questions.controls import LEARNED, OTHERWISE

if TYPE_CHECKING:
    import pandas as pd

SOLVED = 0.95
"""The share of the whole network's value from which on a task counts as solved, not in part."""

JUDGED = {
    "balanced_accuracy_calibrated": "a calibrated balanced accuracy",
    "auroc": "an AUROC",
    "balanced_accuracy": "a balanced accuracy",
}
"""What the evidence is held by: the first that a table has."""


class Fact(NamedTuple):
    """A value with its interval, of one row."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return it to two decimals, with its interval if it has one."""
        ends = "" if math.isnan(self.low) else f" [{self.low:.2f}, {self.high:.2f}]"
        return f"{self.value:.2f}{ends}"


def fact(table: pd.DataFrame, condition: str, metric: str, task: str = "mean") -> Fact | None:
    """Return the row of a condition, metric and task, None where there is no value.

    Examples
    --------
    >>> import pandas as pd
    >>> columns = ["task", "condition", "metric", "value", "low", "high"]
    >>> str(fact(pd.DataFrame([("mean", "kept", "auroc", 0.9, 0.8, 1.0)], columns=columns), "kept", "auroc"))
    '0.90 [0.80, 1.00]'
    """
    rows = table[
        (table["task"] == task) & (table["condition"] == condition) & (table["metric"] == metric)
    ].dropna(subset="value")
    return None if rows.empty else Fact(*(float(rows[name].iloc[0]) for name in Fact._fields))


def judged(table: pd.DataFrame) -> str:
    """Return the metric that the evidence of a table is of; empty, if it has none of the kept units."""
    there = set(table[(table["condition"] == "kept") & (table["task"] == "mean")]["metric"])
    return next((metric for metric in JUDGED if metric in there), "")


def verdict(table: pd.DataFrame, name: str) -> str:
    """Return the sentence of rows of whole masks; empty, if they have nothing of the kept units' answers.

    "contains" is said only where the lower end of the excess is above 0, and all three learned controls have
    a value for every task that the kept units have one for and were learned as the masks were, as far as is
    known.
    """
    metric = judged(table)
    if not metric:
        return ""
    kept = fact(table, "kept", metric)
    if kept is None:
        return f"{name}: no task has pictures of both kinds, its own and others', so there is no answer."
    # Calibration can cost the whole network a little; parts are held against the better of its two values.
    metrics = ("auroc",) if metric == "auroc" else ("balanced_accuracy", metric)
    whole = max((each.value for one in metrics if (each := fact(table, "whole", one))), default=-1.0)
    share = fact(table, "kept", "kept_share")
    tasks = sorted(set(table[table["condition"] == "kept"]["task"]) - {"mean", "all"})
    # Of one task alone there is no "each", and it has a name.
    whose, solved, parts = (
        (tasks[0], "the task", f"a sub-architecture of {tasks[0]}")
        if len(tasks) == 1
        else ("each task", "the tasks", "sub-architectures of its tasks")
    )
    size = "" if share is None else f"keeping {100 * share.value:.3g} % of the units of {whose} "
    beside = [f"whole network {whole:.2f}"] if whole >= 0 else []
    raw = fact(table, "kept", "balanced_accuracy") if metric == "auroc" else None
    beside += [f"not calibrated: balanced accuracy {raw.value:.2f}"] if raw else []
    beside += _by_chance(table)
    level = f"at {JUDGED[metric]} of {kept}" + (f" ({'; '.join(beside)})" if beside else "")
    if kept.low <= 0.5:
        return f"{name}: {size}does not solve {solved}, {level}; a constant answer has 0.50."
    solves = f"solves {solved}" + (" in part" if kept.value < SOLVED * whole else "")
    together = _together(table)
    excess, (best, missing) = fact(table, "kept", "excess"), _controls(table, metric)
    control = fact(table, best, metric)
    if excess is None or control is None:
        return f"{name}: {size}{solves}, {level}, and no learned control stands beside it{together}."
    has = f"({best}) has {control}, an excess of {excess}"
    gaps = f"; {_listed(missing)}" if missing else ""
    unlike = _otherwise(table)
    gaps += f"; {OTHERWISE}{unlike}" if unlike else ""
    if excess.low > 0 and not missing and not unlike:
        start = f"{name} contains {parts}: {size}{solves}, {level}"
        return f"{start}; the best learned control {has}{together}."
    start = f"{name}: {size}{solves}, {level}"
    if excess.low > 0:
        there = [one for one in LEARNED if fact(table, one, metric) is not None]
        few = f"more than the learned controls {'there are ' * bool(missing)}({', '.join(there)})"
        return f"{start}, {few}: the best {has}{gaps}{together}."
    doubt = "so does a control" if control.low > 0.5 else f"a control cannot be ruled out (excess {excess})"
    return f"{start}, but {doubt}: the best learned control {has}{gaps}{together}."


def _controls(table: pd.DataFrame, metric: str) -> tuple[str, list[str]]:
    """The control that leaves the smallest excess, and in words those that lack a value for some task."""
    rows = table[(table["metric"] == metric) & table["condition"].isin(["kept", *LEARNED])]
    single = rows[~rows["task"].isin(["mean", "all"])]
    rows = (rows[rows["task"] == "mean"] if single.empty else single).dropna(subset="value")
    values = {
        condition: dict(zip(some["task"], some["value"], strict=True))
        for condition, some in rows.groupby("condition")
    }
    kept, missing, left = values.get("kept", {}), [], {}
    for name in LEARNED:
        both = [task for task in kept if task in values.get(name, {})]
        if both:
            left[name] = math.fsum(kept[task] - values[name][task] for task in both) / len(both)
        if len(both) < len(kept):
            has = f"has a value for {len(both)} of {len(kept)} tasks" if both else "is missing"
            missing.append(f"{name} {has}")
    return min(left, key=lambda name: left[name], default=""), missing


def _by_chance(table: pd.DataFrame) -> list[str]:
    """The primary test, if there were draws enough for it."""
    p = fact(table, "kept", "p_value")
    if p is None:
        return []
    rows = table[(table["task"] == "mean") & (table["condition"] == "kept") & (table["metric"] == "p_value")]
    return [f"p = {p.value:.2g} against {int(rows['n'].iloc[0])} random draws"]


def _otherwise(table: pd.DataFrame) -> str:
    """Which controls were learned otherwise than the masks, and how, as the excess says; empty if none."""
    if "interval" not in table:
        return ""
    rows = table[(table["task"] == "mean") & (table["condition"] == "kept") & (table["metric"] == "excess")]
    return "" if rows.empty else str(rows["interval"].iloc[0]).partition(OTHERWISE)[2]


def _listed(words: Sequence[str]) -> str:
    """The words as a list, what several have in common said once."""
    gone = [each.removesuffix(" is missing") for each in words if each.endswith(" is missing")]
    rest = [each for each in words if not each.endswith(" is missing")]
    if gone:
        rest.append(f"{' and '.join(gone)} {'is' if len(gone) == 1 else 'are'} missing")
    return ", ".join(rest)


def _together(table: pd.DataFrame) -> str:
    """How often all sub-architectures together name the right class, beside the whole and a shared mask."""
    found = {
        name: fact(table, condition, "recomposed_accuracy", "all")
        for name, condition in (("", "kept"), ("whole network", "whole"), ("one shared mask", "shared"))
    }
    kept = found.pop("")
    tasks = set(table[table["condition"] == "kept"]["task"]) - {"mean", "all"}
    # The largest of one is no choice.
    if kept is None or len(tasks) == 1:
        return ""
    beside = ", ".join(f"{name} {each.value:.2f}" for name, each in found.items() if each)
    return f"; together they name the right class of {kept} of the pictures" + (
        f" ({beside})" if beside else ""
    )
