"""How near masks come to a known truth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nadkit.errors import NadkitError, closest
from nadkit.masks import MaskSet, Unit

if TYPE_CHECKING:
    import pandas as pd


def average_precision(masks: MaskSet, truth: Mapping[str, Set[Unit]]) -> dict[str, float]:
    """Return how well each task's scores rank the units it needs above all others; 1 is perfect.

    Examples
    --------
    >>> masks = MaskSet.from_scores({"conv": torch.tensor([[0.9, 0.8, 0.1]])}, ["shirt"])
    >>> average_precision(masks, {"shirt": {Unit("conv", 1)}})
    {'shirt': 0.5}

    Parameters
    ----------
    masks
        Scores of any tasks that the truth has.
    truth
        For every task the units that it needs, at least one.

    Returns
    -------
    dict
        For every task a number in (0, 1]. Masks at random score about the share of needed units.

    Raises
    ------
    NadkitError
        The truth lacks a task of the masks, or names no unit or one that they do not have.

    Notes
    -----
    AP = Σ_n (R_n − R_{n−1}) P_n over the distinct scores in falling order: units of equal score come in one
    step, so their order does not matter.
    """
    found = {}
    for task, scores, needed in _rows(masks, truth):
        theirs = scores[needed]
        # At each needed unit's score, the share of needed units among all that score as high.
        precision = [float((theirs >= score).sum() / (scores >= score).sum()) for score in theirs.double()]
        found[task] = sum(precision) / len(precision)
    return found


def compare(masks: MaskSet, truth: Mapping[str, Set[Unit]], *, threshold: float = 0.5) -> pd.DataFrame:
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
        task that keeps nothing has precision 0.

    Raises
    ------
    NadkitError
        As in `average_precision`; a threshold outside [0, 1].
    """
    import pandas as pd

    ranked = average_precision(masks, truth)
    rows = []
    for task in masks.tasks:
        kept, needed = set(masks.kept(task, threshold)), truth[task]
        hits = len(kept & needed)
        rows.append({
            "task": task, "average_precision": ranked[task], "precision": hits / max(1, len(kept)),
            "recall": hits / len(needed), "f1": 2 * hits / (len(kept) + len(needed)),
            "kept": len(kept), "needed": len(needed),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _rows(masks: MaskSet, truth: Mapping[str, Set[Unit]]) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield (task, scores over all units, which of these are needed) for every task of the masks."""
    units = [Unit(address, index) for address, count in masks.unit_counts.items() for index in range(count)]
    for row, task in enumerate(masks.tasks):
        if task not in truth:
            raise NadkitError(f"the truth says nothing of task {task!r}; {closest(task, truth)}")
        strange = sorted(truth[task] - set(units))
        if strange or not truth[task]:
            names = ", ".join(str(unit) for unit in strange[:3]) or "no unit"
            raise NadkitError(
                f"the truth of task {task!r} names {names}; the masks have {masks.unit_counts}: "
                "compare masks of the very network that the truth is about"
            )
        scores = torch.cat([rows[row] for rows in masks.scores.values()])
        yield task, scores, torch.tensor([unit in truth[task] for unit in units])
