"""Recall, false alarm, balanced accuracy and recomposed accuracy, of many tasks and conditions at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Decisions(NamedTuple):
    """Recall, false alarm and balanced accuracy, tensors of one shape; NaN where a class has no picture.

    Examples
    --------
    >>> Decisions(torch.tensor(1.0), torch.tensor(0.5), torch.tensor(0.75)).balanced_accuracy
    tensor(0.7500)
    """

    recall: Tensor
    """Share of the task's own pictures that are accepted, in [0, 1]."""
    false_alarm: Tensor
    """Share of the other pictures that are accepted, in [0, 1]."""
    balanced_accuracy: Tensor
    """Mean of recall and 1 − false alarm; 0.5 for a constant answer."""


def rates(log_odds: Tensor, positive: Tensor, weights: Tensor | None = None) -> Decisions:
    """Return the rates of the decision "log-odds above 0".

    Examples
    --------
    >>> found = rates(torch.tensor([2.0, -1.0, 1.0, -3.0]), torch.tensor([True, True, False, False]))
    >>> [float(number) for number in found]
    [0.5, 0.5, 0.5]

    Parameters
    ----------
    log_odds
        (..., n_tasks, n_images); 0 itself is a no.
    positive
        (..., n_tasks, n_images) bool, of the same shape or one that broadcasts to it.
    weights
        (n_draws, n_images) of `stratified_weights`.

    Returns
    -------
    Decisions
        float64 (..., n_tasks); with weights (..., n_tasks, n_draws).
    """
    given = (torch.ones(1, positive.shape[-1]) if weights is None else weights).double().T
    yes = (log_odds > 0).double()
    ours, theirs = positive.double(), (~positive).double()
    recall = (yes * ours) @ given / (ours @ given)
    false_alarm = (yes * theirs) @ given / (theirs @ given)
    found = Decisions(recall, false_alarm, (recall + 1 - false_alarm) / 2)
    return found if weights is not None else Decisions(*(each[..., 0] for each in found))


def recomposed(log_odds: Tensor, targets: Tensor, labels: Tensor) -> Tensor:
    """Return for every picture whether the task with the largest log-odds is the right one.

    Examples
    --------
    >>> recomposed(torch.tensor([[2.0, 0.0], [1.0, 0.0]]), torch.tensor([5, 7]), torch.tensor([5, 7]))
    tensor([1.0000, 0.5000], dtype=torch.float64)

    Parameters
    ----------
    log_odds
        (..., n_tasks, n_images), calibrated.
    targets
        (..., n_tasks) the class that each task accepts.
    labels
        (n_images,) the class of each picture.

    Returns
    -------
    Tensor
        (..., n_images) float64: 1 right, 0 wrong, 1/k where k tasks tie and a right one is among them.
    """
    best = log_odds == log_odds.max(-2, keepdim=True).values
    right = best & (targets[..., None] == labels)
    return right.any(-2).double() / best.sum(-2)
