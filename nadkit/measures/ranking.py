"""AUROC: how well scores rank positives above the rest."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from nadkit.measures.intervals import NO_VALUE, Z95, Estimate


def auroc(scores: Tensor, positive: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the chance that a positive scores above a negative, ties counted half.

    Examples
    --------
    >>> auroc(torch.tensor([3.0, 1.0, 1.0, 0.0]), torch.tensor([True, True, False, False]))
    tensor(0.8750, dtype=torch.float64)

    Parameters
    ----------
    scores
        (..., n_images), finite.
    positive
        (..., n_images) bool, or any shape that broadcasts to the scores'.
    weights
        (n_draws, n_images), at least 0: how often each picture counts in each draw of a bootstrap.

    Returns
    -------
    Tensor
        (...) float64; with weights (..., n_draws). NaN where there is no positive or no negative: such a
        value does not exist, and tables write it as an empty value with n = 0.

    Notes
    -----
    **Source** Mann and Whitney, 1947: AUROC = U / (n_positives · n_negatives).
    """
    positive = positive.expand(scores.shape)
    given = torch.ones(1, scores.shape[-1]) if weights is None else weights
    flat = zip(scores.reshape(-1, scores.shape[-1]), positive.reshape(-1, scores.shape[-1]), strict=True)
    found = torch.stack([_of_one(row, mask, given) for row, mask in flat])
    found = found.reshape(*scores.shape[:-1], len(given))
    return found[..., 0] if weights is None else found


def _of_one(scores: Tensor, positive: Tensor, weights: Tensor) -> Tensor:
    """(n_draws,) for scores (N,) and weights (n_draws, N)."""
    ordered, order = scores.sort()
    picked = positive[order]
    weights = weights[:, order].double()
    _, group, size = ordered.unique_consecutive(return_inverse=True, return_counts=True)
    last = size.cumsum(0)
    negative = torch.nn.functional.pad((weights * ~picked).cumsum(1), (1, 0))
    # A positive beats the negatives before its group of ties, and half of those within it.
    at = group[picked]
    beaten = (negative[:, (last - size)[at]] + negative[:, last[at]]) / 2
    ours = weights[:, picked]
    return (ours * beaten).sum(1) / (ours.sum(1) * negative[:, -1])


def auroc_estimate(value: float, positives: int, negatives: int) -> Estimate:
    """Return an AUROC with an interval of 95 % that keeps its width at 0 and 1.

    Examples
    --------
    >>> [round(number, 3) for number in auroc_estimate(1.0, 20, 180)]
    [1.0, 0.945, 1.0]

    Parameters
    ----------
    value
        In [0, 1], or NaN.
    positives, negatives
        How many pictures of each kind.

    Returns
    -------
    Estimate
        All values θ whose distance from the one seen is at most 1.96 standard errors at θ; no value where
        one of the kinds has no picture.

    Notes
    -----
    **Source** Newcombe, "Confidence intervals for an effect size measure based on the Mann-Whitney
    statistic, part 2", 2006, method 5, with the standard error of Hanley and McNeil, 1982.
    """
    if math.isnan(value) or not positives or not negatives:
        return NO_VALUE

    def within(theta: float) -> bool:
        half = (positives + negatives) / 2 - 1
        inner = 1 + half * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return abs(theta - value) <= Z95 * math.sqrt(theta * (1 - theta) * inner / (positives * negatives))

    return Estimate(value, _edge(within, value, 0.0), _edge(within, value, 1.0))


def _edge(within: Callable[[float], bool], inside: float, outside: float) -> float:
    """The last point between the two that is within, by halving."""
    for _ in range(60):
        middle = (inside + outside) / 2
        if within(middle):
            inside = middle
        else:
            outside = middle
    return inside
