"""Curves over kept shares: their area, and the smallest share that is enough."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nadkit.measures.intervals import Estimate


def area_weights(shares: Sequence[float]) -> Tensor:
    """Return what each point of a curve weighs in its mean height: the area by trapezoids over the width.

    Examples
    --------
    >>> area_weights([0.1, 0.3, 0.5])
    tensor([0.2500, 0.5000, 0.2500], dtype=torch.float64)

    Parameters
    ----------
    shares
        At least two, rising.

    Returns
    -------
    Tensor
        (n_shares,) float64, adding up to 1: the mean of a constant curve is its height.
    """
    points = torch.tensor(list(shares), dtype=torch.float64)
    steps = points.diff()
    weights = torch.zeros_like(points)
    weights[:-1] += steps / 2
    weights[1:] += steps / 2
    return weights / steps.sum()


def smallest_share(shares: Sequence[float], curve: Sequence[Estimate], goal: float) -> Estimate:
    """Return the smallest share whose value reaches a goal, with what the values' intervals leave open.

    Examples
    --------
    >>> curve = [Estimate(0.8, 0.7, 0.9), Estimate(0.9, 0.8, 0.95), Estimate(0.95, 0.9, 0.97)]
    >>> smallest_share([0.1, 0.3, 0.5], curve, 0.9)
    Estimate(value=0.3, low=0.1, high=0.5)

    Parameters
    ----------
    shares
        Rising.
    curve
        A value with its interval for each; NaN reaches nothing.
    goal
        Reached by values of at least this.

    Returns
    -------
    Estimate
        `low` is the smallest share where the upper end reaches the goal, `high` that where the lower end
        does; NaN, each, where no share is enough.
    """

    def first(ends: Sequence[float]) -> float:
        reached = (share for share, end in zip(shares, ends, strict=True) if end >= goal)
        return next(reached, math.nan)

    return Estimate(*(first([point[end] for point in curve]) for end in (0, 2, 1)))
