"""What a table of `recovery` says, in one sentence."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from nadkit.errors import NadkitError

if TYPE_CHECKING:
    import pandas as pd

LOW = 0.8
"""A method with a smaller F1 falls short; where no baseline does, the ruler is too easy."""
ATTRIBUTED = ("activation", "gradient-x-activation", "integrated-gradients", "feature-ablation", "magnitude")
_LEVELS = ("easy", "middle", "hard", "merged")


def recovery_answer(table: pd.DataFrame) -> str:
    """Return the table of `recovery` as one sentence, computed from its rows.

    Levels are grades of every wiring, averaged. A ruler discriminates if a method that attributes the answer
    to units falls below an F1 of 0.8 at some level.

    Examples
    --------
    >>> import pandas as pd
    >>> columns = ["network", "task", "condition", "metric", "value", "seed"]
    >>> rows = [("plain-easy", "mean", name, metric, value, None)
    ...         for metric in ("average_precision", "f1")
    ...         for name, value in (("one-vs-rest", 1.0), ("activation", 0.5))]
    >>> print(recovery_answer(pd.DataFrame(rows, columns=columns)))
    On easy grades one-vs-rest ranks the planted units first (average precision 1.00, next activation 0.50);
    an F1 below 0.8 have, easy: activation 0.50; so the ruler discriminates.

    Parameters
    ----------
    table
        As `recovery` returns it; it may have been saved and read again.

    Raises
    ------
    NadkitError
        It is no table of `recovery`.
    """
    parts, short = [], []
    caught = False
    for level in _LEVELS:
        precision, f1 = (of_level(table, level, metric) for metric in ("average_precision", "f1"))
        if not precision:
            continue
        ranked = sorted(precision, key=lambda name: -precision[name])
        best = precision[ranked[0]]
        first = [name for name in ranked if best - precision[name] < 5e-3]
        where = "merged networks" if level == "merged" else f"{level} grades"
        verb = "ranks" if len(first) == 1 else "rank"
        said = f"on {where} {_listed(first)} {verb} the planted units first (average precision {best:.2f}"
        rest = ranked[len(first) :]
        parts.append(said + (f", next {rest[0]} {precision[rest[0]]:.2f})" if rest else ")"))
        below = {name: value for name, value in f1.items() if value < LOW}
        caught = caught or bool(set(below) & set(ATTRIBUTED))
        if below:
            short.append(f"{level}: {', '.join(f'{name} {value:.2f}' for name, value in below.items())}")
    if not parts:
        raise NadkitError("no average precision in this table; give a table of recovery(...)")
    parts.append(
        f"an F1 below {LOW} have, {'; '.join(short)}" if short else f"every method has an F1 of {LOW} or more"
    )
    parts.append("so the ruler discriminates" if caught else "no attribution falls short, so it is too easy")
    sentence = "; ".join(parts) + "."
    return sentence[0].upper() + sentence[1:]


def of_level(table: pd.DataFrame, level: str, metric: str) -> dict[str, float]:
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
        str(name): math.fsum(part["value"]) / len(part)
        for name, part in rows.groupby("condition", sort=False)
    }


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
