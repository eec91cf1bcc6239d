"""How near masks come to a known truth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from nadkit.errors import NadkitError, closest
from nadkit.masks import MaskSet, Unit

if TYPE_CHECKING:
    import pandas as pd

Truth = Mapping[str, Set[Unit] | Sequence[Set[Unit]]]


class _Case(NamedTuple):
    """One task and one set of units that would do for it.

    Units that only another such set holds are neither right nor wrong: `counted` is false for them.
    """

    scores: Tensor
    needed: Tensor
    counted: Tensor


def average_precision(masks: MaskSet, truth: Truth) -> dict[str, float]:
    """Return how well each task's scores rank the units it needs above all others; 1 is perfect.

    Examples
    --------
    >>> masks = MaskSet.from_scores({"conv": torch.tensor([[0.9, 0.8, 0.1]])}, ["shirt"])
    >>> average_precision(masks, {"shirt": {Unit("conv", 1)}})
    {'shirt': 0.5}

    Any one of several sets will do:

    >>> average_precision(masks, {"shirt": [{Unit("conv", 1)}, {Unit("conv", 0)}]})
    {'shirt': 1.0}

    Parameters
    ----------
    masks
        Scores of any tasks that the truth has.
    truth
        For every task the units that it needs, at least one; or several such sets, any of which will do.

    Returns
    -------
    dict
        For every task a number in (0, 1]. Masks at random score about the share of needed units. Of several
        sets the best counts, and units that only the others hold are left out: to rank both of two twins high
        is as right as either.

    Raises
    ------
    NadkitError
        The truth lacks a task of the masks, or names no unit or one that they do not have.

    Notes
    -----
    AP = Σ_n (R_n − R_{n−1}) P_n over the distinct scores in falling order: units of equal score come in one
    step, so their order does not matter.
    """
    return {task: max(map(_average_precision, cases)) for task, cases in _tasks(masks, truth)}


def compare(masks: MaskSet, truth: Truth, *, threshold: float = 0.5) -> pd.DataFrame:
    """Return one row per task: how well its scores, and the units it keeps, fit the truth.

    Examples
    --------
    >>> masks = MaskSet.from_scores({"conv": torch.tensor([[0.9, 0.8, 0.1]])}, ["shirt"])
    >>> compare(masks, {"shirt": {Unit("conv", 1)}}).round(2)
        task  average_precision  precision  recall    f1  kept  needed
    0  shirt                0.5        0.5     1.0  0.67     2       1

    Parameters
    ----------
    masks, truth
        As in `average_precision`.
    threshold
        In [0, 1]; a unit is kept if its score is strictly above.

    Returns
    -------
    pandas.DataFrame
        Columns task, average_precision, precision, recall, f1 (all 0-1), kept, needed (numbers of units). A
        task that keeps nothing has precision 0. Of several sets that would do, the one of the largest F1 is
        meant, the first of equals; kept units that only another one holds count neither as right nor as
        wrong, nor in `kept`.

    Raises
    ------
    NadkitError
        As in `average_precision`; a threshold outside [0, 1].
    """
    import pandas as pd

    masks.kept(masks.tasks[0], threshold)  # refuses a threshold outside [0, 1]
    rows = []
    for task, cases in _tasks(masks, truth):
        sizes = []
        for scores, needed, counted in cases:
            kept = (scores > threshold) & counted
            sizes.append((int((kept & needed).sum()), int(kept.sum()), int(needed.sum())))
        hits, kept_units, needed_units = max(sizes, key=lambda size: 2 * size[0] / (size[1] + size[2]))
        rows.append({
            "task": task, "average_precision": max(map(_average_precision, cases)),
            "precision": hits / max(1, kept_units), "recall": hits / needed_units,
            "f1": 2 * hits / (kept_units + needed_units), "kept": kept_units, "needed": needed_units,
        })  # fmt: skip
    return pd.DataFrame(rows)


def _average_precision(case: _Case) -> float:
    scores, theirs = case.scores[case.counted], case.scores[case.needed]
    # At each needed unit's score, the share of needed units among all that score as high.
    precision = [float((theirs >= score).sum() / (scores >= score).sum()) for score in theirs]
    return sum(precision) / len(precision)


def _tasks(masks: MaskSet, truth: Truth) -> Iterator[tuple[str, list[_Case]]]:
    """Yield every task of the masks with one case for each set of units that would do."""
    units = [Unit(address, index) for address, count in masks.unit_counts.items() for index in range(count)]
    known = set(units)
    for row, task in enumerate(masks.tasks):
        if task not in truth:
            raise NadkitError(f"the truth says nothing of task {task!r}; {closest(task, truth)}")
        given = truth[task]
        sets: list[Set[Unit]] = [given] if isinstance(given, Set) else list(given)
        for wanted in sets or [frozenset()]:
            strange = sorted(wanted - known)
            if strange or not wanted:
                names = ", ".join(str(unit) for unit in strange[:3]) or "no unit"
                raise NadkitError(
                    f"the truth of task {task!r} names {names}; the masks have {masks.unit_counts}: "
                    "compare masks of the very network that the truth is about"
                )
        scores = torch.cat([rows[row] for rows in masks.scores.values()]).double()
        needed = [torch.tensor([unit in wanted for unit in units]) for wanted in sets]
        any_needed = torch.stack(needed).any(0)
        yield task, [_Case(scores, mine, mine | ~any_needed) for mine in needed]
