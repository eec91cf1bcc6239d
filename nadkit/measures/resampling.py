"""The bootstrap as weights: how often each picture, or each seed of the masks, counts in each draw."""

from __future__ import annotations

import torch
from torch import Tensor


def stratified_weights(labels: Tensor, draws: int, seed: int = 0) -> Tensor:
    """Return how often each picture counts in each draw, every class drawn for itself.

    Weights stand for resampled copies: the same draw serves every task and condition, so differences between
    conditions are paired. Of a class's m pictures m − 1 are drawn and counted m / (m − 1) times, which makes
    the variance over draws unbiased; a single picture has no variance and counts once.

    Examples
    --------
    >>> weights = stratified_weights(torch.tensor([0, 0, 0, 1]), draws=5)
    >>> weights[:, :3].sum(1).tolist(), weights[:, 3].tolist(), weights.unique().tolist()
    ([3.0, 3.0, 3.0, 3.0, 3.0], [1.0, 1.0, 1.0, 1.0, 1.0], [0.0, 1.0, 1.5, 3.0])

    Parameters
    ----------
    labels
        (n_images,) int64: the class of each picture.
    draws
        At least 1.
    seed
        Of a generator of its own.

    Returns
    -------
    Tensor
        (draws, n_images) float64; those of a class add up to its pictures in every draw.

    Notes
    -----
    **Source** Rao and Wu, "Resampling inference with complex survey data", 1988.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = torch.ones(draws, len(labels), dtype=torch.float64)
    for label in labels.unique():
        rows = (labels == label).nonzero().flatten()
        if len(rows) == 1:
            continue
        picks = torch.randint(len(rows), (draws, len(rows) - 1), generator=generator)
        counts = torch.zeros(draws, len(rows)).scatter_add_(1, picks, torch.ones(picks.shape)).double()
        weights[:, rows] = counts * len(rows) / (len(rows) - 1)
    return weights


def resample_seeds(count: int, draws: int, seed: int = 0) -> Tensor:
    """Return the share that each seed of the masks has in each draw, (draws, count); rows add up to 1.

    Examples
    --------
    >>> resample_seeds(2, draws=3).sum(1)
    tensor([1., 1., 1.], dtype=torch.float64)
    """
    return stratified_weights(torch.zeros(count, dtype=torch.int64), draws, seed) / count


def percentiles(values: Tensor) -> tuple[float, float]:
    """Return the 2.5 % and 97.5 % points of values (n,), NaN left out; NaN, both, if all are.

    Examples
    --------
    >>> percentiles(torch.arange(41.0))
    (1.0, 39.0)
    """
    low, high = torch.nanquantile(values.double(), torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def correlation(first: Tensor, second: Tensor) -> float:
    """Return the correlation of two estimates over the draws of a bootstrap; 0 where one does not vary.

    Examples
    --------
    >>> round(correlation(torch.tensor([0.0, 1, 2]), torch.tensor([0.0, 2, 4])), 6)
    1.0
    """
    a, b = first - first.mean(), second - second.mean()
    size = float((a.square().sum() * b.square().sum()).sqrt())
    return float((a * b).sum()) / size if size > 1e-15 else 0.0
