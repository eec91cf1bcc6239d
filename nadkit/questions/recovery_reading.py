"""What a table of `recovery` says, in one sentence."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from nadkit.errors import NadkitError

if TYPE_CHECKING:
    import pandas as pd

LOW = 0.8
"""A method with a smaller F1 falls short; where no attribution does, the ruler is too easy."""
ATTRIBUTIONS = ("gradient-x-activation", "integrated-gradients", "feature-ablation")
"""The baselines that attribute the answer to units."""
DEFAULT = "one-vs-rest"
"""What `learn_masks` does unless told otherwise."""
LEVELS = ("easy", "middle", "hard", "merged")
_COLUMNS = ("network", "task", "condition", "metric", "value", "low", "high", "seed")
_PLACES = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


def recovery_answer(table: pd.DataFrame) -> str:
    """Return the table of `recovery` as one sentence, computed from its rows.

    Levels are grades of every wiring, averaged; so are the ends of their intervals, because they have tasks
    in common. A ruler discriminates where a method that attributes the answer to units (gradients, ablation)
    has an F1 below 0.8; activation and magnitude, which know nothing of the answer, do not count.

    Examples
    --------
    >>> import pandas as pd
    >>> columns = ["network", "task", "condition", "metric", "value", "low", "high", "seed"]
    >>> rows = [("plain-hard", "mean", name, metric, value, value - 0.2, value, None)
    ...         for metric in ("average_precision", "f1")
    ...         for name, value in (("one-vs-rest-bounded", 1.0), ("one-vs-rest", 0.9), ("random", 0.1))]
    >>> print(recovery_answer(pd.DataFrame(rows, columns=columns)))
    On hard grades one-vs-rest-bounded has the highest mean average precision, 1.00 [0.80, 1.00], in whose
    interval lies one-vs-rest 0.90; one-vs-rest as it is by default 0.90, second; an F1 below 0.8 have,
    hard: random 0.10; no attribution of the answer was tried.

    Parameters
    ----------
    table
        As `recovery` returns it; it may have been saved and read again.

    Raises
    ------
    NadkitError
        It is no table of `recovery`.
    """
    if missing := [name for name in _COLUMNS if name not in getattr(table, "columns", ())]:
        raise NadkitError(f"this table has no column {', '.join(missing)}; give a table of recovery(...)")
    parts: list[str] = []
    short: list[str] = []
    caught: list[str] = []
    tried = False
    for level in LEVELS:
        precision, f1 = (of_level(table, level, metric) for metric in ("average_precision", "f1"))
        if not precision:
            continue
        where = "merged networks" if level == "merged" else f"{level} grades"
        low, high = (of_level(table, level, "average_precision", end) for end in ("low", "high"))
        parts += _ranking(where, precision, low, high)
        below = {name: value for name, value in f1.items() if value < LOW}
        if below:
            short.append(f"{level}: {_valued(below)}")
        tried = tried or not set(f1).isdisjoint(ATTRIBUTIONS)
        if not set(below).isdisjoint(ATTRIBUTIONS):
            caught.append(where)
    if not parts:
        raise NadkitError("no average precision in this table; give a table of recovery(...)")
    parts.append(
        f"an F1 below {LOW} have, {'; '.join(short)}" if short else f"every method has an F1 of {LOW} or more"
    )
    if caught:
        parts.append(f"so the ruler discriminates between attributions of the answer on {_listed(caught)}")
    else:
        parts.append(
            f"no attribution of the answer {'falls short: too easy a ruler' if tried else 'was tried'}"
        )
    sentence = "; ".join(parts) + "."
    return sentence[0].upper() + sentence[1:]


def of_level(table: pd.DataFrame, level: str, metric: str, column: str = "value") -> dict[str, float]:
    """Return each method's mean over the grades of a level and all seeds, in the order of the table.

    Examples
    --------
    >>> import pandas as pd
    >>> columns = ["network", "task", "condition", "metric", "value", "seed"]
    >>> rows = [(f"{wiring}-easy", "mean", "random", "f1", value, None)
    ...         for wiring, value in (("plain", 0.25), ("concat", 0.75))]
    >>> of_level(pd.DataFrame(rows, columns=columns), "easy", "f1")
    {'random': 0.5}
    """
    rows = table[(table["task"] == "mean") & (table["metric"] == metric) & table["seed"].isna()]
    rows = rows[rows["network"].str.split("-").str[-1] == level].dropna(subset="value")
    return {
        str(name): math.fsum(part[column]) / len(part) for name, part in rows.groupby("condition", sort=False)
    }


def _ranking(
    where: str, mean: dict[str, float], low: dict[str, float], high: dict[str, float]
) -> Iterator[str]:
    """Yield which methods are best, which lie within the best one's interval, and the default's place."""
    ranked = sorted(mean, key=lambda name: -mean[name])
    best = ranked[0]
    first = [name for name in ranked if mean[best] - mean[name] < 5e-3]
    rest = ranked[len(first) :]
    near = {name: mean[name] for name in rest if mean[name] >= low[best]}
    said = (
        f"on {where} {_listed(first)} {'has' if len(first) == 1 else 'have'} the highest mean average "
        f"precision, {mean[best]:.2f} [{low[best]:.2f}, {high[best]:.2f}]"
    )
    if near:
        said += f", in whose interval {'lies' if len(near) == 1 else 'lie'} {_valued(near)}"
    elif rest:
        said += f", next {rest[0]} {mean[rest[0]]:.2f}"
    yield said
    if DEFAULT in rest:
        place = ranked.index(DEFAULT)
        nth = _PLACES[place] if place < len(_PLACES) else f"number {place + 1}"
        yield f"{DEFAULT} as it is by default {mean[DEFAULT]:.2f}, {nth}"


def _valued(numbers: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in numbers.items())


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
