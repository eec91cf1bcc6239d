"""Platt's fit: scores to log-odds whose 0 is the fair threshold."""

from __future__ import annotations

import torch
from torch import Tensor

_STEPS = 100
_CLOSE = 1e-10


def platt(scores: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """Return slope and intercept of a class-balanced logistic fit, for many tasks and conditions at once.

    Positives and negatives weigh the same in all, whatever their numbers. The targets are 1 − ε and ε with
    ε = 1 / (m + 2), m the pictures of the smaller class: Platt's, made the same for both classes, so that
    separable scores have a finite slope and constant ones an intercept of exactly 0.

    Examples
    --------
    >>> slope, intercept = platt(torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.tensor([0, 0, 1, 1]).bool())
    >>> round(float(slope), 3), round(float(-intercept / slope), 3)
    (0.908, 1.5)

    Parameters
    ----------
    scores
        (..., n_images), such as log-odds; finite.
    positive
        (..., n_images) bool, or any shape that broadcasts to the scores'.

    Returns
    -------
    tuple
        Slope (...), never below 0, and intercept (...), float64. Constant scores, and scores that rank the
        wrong way round, have slope 0 and intercept 0: a mask that answers the opposite of its task must not
        be turned into one that solves it. NaN, both, where there is no positive or no negative.

    Notes
    -----
    **Source** Platt, "Probabilistic outputs for support vector machines", 1999; Newton's method with halved
    steps after Lin, Lin and Weng, 2007. We differ in balancing the classes and in the bound on the slope.
    """
    scores = scores.double()
    positive = positive.expand(scores.shape)
    ours, theirs = (kind.sum(-1, keepdim=True).double() for kind in (positive, ~positive))
    epsilon = 1 / (torch.minimum(ours, theirs) + 2.0)
    target = torch.where(positive, 1 - epsilon, epsilon)
    weight = torch.where(positive, 0.5 / ours, 0.5 / theirs)
    # Scores are standardised for the fit alone, so that one tolerance serves all.
    centre = scores.mean(-1, keepdim=True)
    spread = (scores - centre).square().mean(-1, keepdim=True).sqrt()
    flat = spread <= 1e-12 * (1 + centre.abs())
    scaled = torch.where(flat, 0.0, (scores - centre) / torch.where(flat, 1.0, spread))
    slope, intercept = _newton(scaled, target, weight)
    wrong = flat | (slope <= 0)
    slope = torch.where(wrong, 0.0, slope / torch.where(flat, 1.0, spread))
    intercept = torch.where(wrong, 0.0, intercept - slope * centre)
    nothing = (ours == 0) | (theirs == 0)
    return slope.masked_fill(nothing, torch.nan)[..., 0], intercept.masked_fill(nothing, torch.nan)[..., 0]


def calibrate(scores: Tensor, slope: Tensor, intercept: Tensor) -> Tensor:
    """Return calibrated log-odds, (..., n_images): slope · score + intercept.

    Examples
    --------
    >>> calibrate(torch.tensor([0.0, 2.0]), torch.tensor(2.0), torch.tensor(-1.0))
    tensor([-1., 3.], dtype=torch.float64)
    """
    return slope.double()[..., None] * scores.double() + intercept.double()[..., None]


def _loss(scores: Tensor, target: Tensor, weight: Tensor, slope: Tensor, intercept: Tensor) -> Tensor:
    odds = slope * scores + intercept
    # softplus(odds) − target · odds is the cross-entropy, without overflow.
    return (weight * (torch.nn.functional.softplus(odds) - target * odds)).sum(-1, keepdim=True)


def _newton(scores: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Minimise the convex loss over (slope, intercept), every fit at once; shapes (..., 1)."""
    slope = torch.zeros_like(scores[..., :1])
    intercept = torch.zeros_like(slope)
    loss = _loss(scores, target, weight, slope, intercept)
    for _ in range(_STEPS):
        chance = torch.sigmoid(slope * scores + intercept)
        off = weight * (chance - target)
        toward_slope, toward_intercept = (off * scores).sum(-1, keepdim=True), off.sum(-1, keepdim=True)
        if not bool((torch.maximum(toward_slope.abs(), toward_intercept.abs()) > _CLOSE).any()):
            break
        curve = weight * chance * (1 - chance)
        # The small constant keeps a flat row, whose scores are all 0, solvable.
        a = (curve * scores * scores).sum(-1, keepdim=True) + 1e-12
        b = (curve * scores).sum(-1, keepdim=True)
        c = curve.sum(-1, keepdim=True) + 1e-12
        det = a * c - b * b
        step_slope = (c * toward_slope - b * toward_intercept) / det
        step_intercept = (a * toward_intercept - b * toward_slope) / det
        length = torch.ones_like(slope)
        for _ in range(30):
            reached = _loss(
                scores, target, weight, slope - length * step_slope, intercept - length * step_intercept
            )
            worse = reached > loss
            if not bool(worse.any()):
                break
            length = torch.where(worse, length / 2, length)
        length = torch.where(reached > loss, 0.0, length)
        slope, intercept = slope - length * step_slope, intercept - length * step_intercept
        loss = torch.minimum(reached, loss)
    return slope, intercept
