"""What every task keeps of every layer, as one number each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from nadkit.errors import NadkitError, closest
from nadkit.masks import MaskSet
from nadkit.questions.connections.pairs import overlaps

if TYPE_CHECKING:
    import pandas as pd

METRICS = ("kept_share", "exclusive_share", "phi")


def layer_shares(masks: MaskSet, *, metric: str = "kept_share", threshold: float = 0.5) -> pd.DataFrame:
    """Return one row for every task and layer: how much of the layer it keeps, or how like others it is.

    Examples
    --------
    >>> scores = {"conv": torch.tensor([[1.0, 1, 1, 0], [0, 0, 1, 0]]), "fc": torch.ones(2, 3)}
    >>> masks = MaskSet.from_scores(scores, ["shirt", "coat"])
    >>> layer_shares(masks, metric="exclusive_share")
        task layer           metric  value  n
    0  shirt  conv  exclusive_share    0.5  4
    1  shirt    fc  exclusive_share    0.0  3
    2   coat  conv  exclusive_share    0.0  4
    3   coat    fc  exclusive_share    0.0  3

    Parameters
    ----------
    masks
        One set of masks.
    metric
        kept_share
            Kept units divided by the units of the layer, 0 to 1.
        exclusive_share
            Units that no other task keeps, divided by the units of the layer, 0 to 1.
        phi
            The mean overlap with each of the other tasks beyond chance, -1 to 1; NaN where no pair has one:
            a task keeps none or all of the layer, or there is no other task.
    threshold
        In [0, 1]; strictly above it is kept.

    Returns
    -------
    pandas.DataFrame
        Columns task, layer, metric, value, and n: the units of the layer; of phi, the other tasks with which
        there is an overlap.

    Raises
    ------
    NadkitError
        No such metric, no masks, or a threshold outside [0, 1].
    """
    import pandas as pd

    if not isinstance(masks, MaskSet):
        raise NadkitError(f"layer_shares needs a MaskSet, and got {type(masks).__name__}")
    if metric not in METRICS:
        raise NadkitError(f"no metric {metric!r}; {closest(str(metric), METRICS)}")
    columns = {}
    for address, gates in masks.gates(None, threshold).items():
        kept = gates > 0
        counts = torch.full((len(kept),), kept.shape[1])
        if metric == "phi":
            phi = overlaps({address: kept}, {address: kept}).phi[0].clone()
            phi.fill_diagonal_(torch.nan)
            counts = (~phi.isnan()).sum(1)
            values = phi.nanmean(1)
        else:
            own = kept if metric == "kept_share" else kept & (kept.sum(0) == 1)
            values = own.double().mean(1)
        columns[address] = (values.tolist(), counts.tolist())
    rows = [
        (task, address, metric, values[row], counts[row])
        for row, task in enumerate(masks.tasks)
        for address, (values, counts) in columns.items()
    ]
    return pd.DataFrame(rows, columns=["task", "layer", "metric", "value", "n"])
