"""AUROC: how well scores rank positives above the rest."""

from __future__ import annotations

import torch
from torch import Tensor


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
