"""How far a gated network does what the whole network does, beyond giving the same answer."""

from __future__ import annotations

import torch
from torch import Tensor

FEWEST = 3
"""Pictures of a class without which the order within it says nothing."""


def ranks(values: Tensor) -> Tensor:
    """Return the rank of every value along the last axis, from 1; ties share the mean of theirs.

    Examples
    --------
    >>> ranks(torch.tensor([0.5, 2.0, 0.5, 9.0]))
    tensor([1.5000, 3.0000, 1.5000, 4.0000], dtype=torch.float64)

    Parameters
    ----------
    values
        (..., n), finite.
    """
    below = (values[..., :, None] > values[..., None, :]).sum(-1)
    same = (values[..., :, None] == values[..., None, :]).sum(-1)
    return below.double() + (same.double() + 1) / 2


def weighted_correlation(first: Tensor, second: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return Pearson's correlation along the last axis; 0 where one of the two does not vary.

    Examples
    --------
    >>> weighted_correlation(torch.tensor([1.0, 2, 3]), torch.tensor([1.0, 2, 3]))
    tensor(1., dtype=torch.float64)

    Parameters
    ----------
    first, second
        (..., n).
    weights
        (n_draws, n), at least 0: how often each entry counts in each draw of a bootstrap.

    Returns
    -------
    Tensor
        (...) float64; with weights (..., n_draws).
    """
    first, second = torch.broadcast_tensors(first.double(), second.double())
    given = (torch.ones(1, first.shape[-1]) if weights is None else weights).double().T
    total = given.sum(0)
    # Means are taken off first, so that squares of large numbers lose nothing.
    first, second = (each - each.mean(-1, keepdim=True) for each in (first, second))
    sums = [each @ given / total for each in (first, second, first**2, second**2, first * second)]
    spread = (sums[2] - sums[0] ** 2) * (sums[3] - sums[1] ** 2)
    both = sums[4] - sums[0] * sums[1]
    found = torch.where(spread > 1e-18, both / spread.clamp(min=1e-18).sqrt(), 0.0).clamp(-1, 1)
    return found[..., 0] if weights is None else found


def rank_correlation(first: Tensor, second: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return Spearman's correlation of two readings within a class, as the mean over classes.

    Between classes every network that solves its task has the same order; within a class the order tells
    whether the same pictures are easy and hard.

    Examples
    --------
    >>> labels = torch.tensor([0, 0, 0, 1, 1, 1])
    >>> rank_correlation(torch.tensor([1.0, 2, 3, 7, 8, 9]), torch.tensor([1.0, 2, 3, 9, 8, 7]), labels)
    tensor(0., dtype=torch.float64)

    Parameters
    ----------
    first, second
        (..., n_images), such as gated and whole log-odds.
    labels
        (n_images,) classes; those with fewer than 3 pictures are left out.
    weights
        (n_draws, n_images) of `stratified_weights`; ranks are those of the pictures as they are.

    Returns
    -------
    Tensor
        (...) float64; with weights (..., n_draws). NaN where no class has 3 pictures; 0 for a class whose
        readings do not vary.

    Notes
    -----
    **Source** Spearman, 1904: the correlation of ranks, ties sharing theirs.
    """
    found = []
    for label in labels.unique():
        there = labels == label
        if int(there.sum()) < FEWEST:
            continue
        given = None if weights is None else weights[:, there]
        found.append(weighted_correlation(ranks(first[..., there]), ranks(second[..., there]), given))
    if not found:
        shape = first.shape[:-1] if weights is None else (*first.shape[:-1], len(weights))
        return torch.full(shape, torch.nan, dtype=torch.float64)
    return torch.stack(found).mean(0)


def binary_divergence(log_odds: Tensor, gated: Tensor) -> Tensor:
    """Return how far one yes-or-no probability is from another, Σ p log(p / q), in nats.

    Examples
    --------
    >>> binary_divergence(torch.tensor(0.0), torch.tensor(0.0))
    tensor(0., dtype=torch.float64)

    Parameters
    ----------
    log_odds
        Of p, the whole network's.
    gated
        Of q, of a shape that broadcasts.

    Notes
    -----
    **Source** Kullback and Leibler, 1951, of two Bernoulli distributions.
    """
    before, after = log_odds.double(), gated.double()
    log = torch.nn.functional.logsigmoid
    yes = before.sigmoid() * (log(before) - log(after))
    no = (-before).sigmoid() * (log(-before) - log(-after))
    return (yes + no).clamp(min=0.0)


def r_squared(whole: Tensor, gated: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the share of the units' variance that a straight line from the other's activation explains.

    Examples
    --------
    >>> whole = torch.tensor([[[0.0, 1.0]], [[2.0, 3.0]]])
    >>> r_squared(whole, 5 * whole + 1)
    tensor(1., dtype=torch.float64)

    Parameters
    ----------
    whole, gated
        (n_images, n_units, n_places) activations of the same units.
    weights
        (n_draws, n_images); all places of a picture come together.

    Returns
    -------
    Tensor
        Squared correlation over pictures and places, as the mean over the units that vary in the whole
        network: a scalar, or (n_draws,). A unit that does not vary in the gated one counts 0. NaN without
        any unit.
    """
    whole, gated = whole.double(), gated.double()
    alive = (whole - whole.mean((0, 2), keepdim=True)).abs().amax((0, 2)) > 1e-6
    whole, gated = whole[:, alive], gated[:, alive]
    if not whole.shape[1]:
        shape = () if weights is None else (len(weights),)
        return torch.full(shape, torch.nan, dtype=torch.float64)
    whole, gated = (each - each.mean((0, 2), keepdim=True) for each in (whole, gated))
    given = (torch.ones(1, len(whole)) if weights is None else weights).double()
    places = given.sum(1, keepdim=True) * whole.shape[2]
    products = (whole, gated, whole**2, gated**2, whole * gated)
    one, two, square_one, square_two, both = (given @ each.sum(2) / places for each in products)
    spread_one, spread_two = square_one - one**2, square_two - two**2
    # Rounding leaves a little spread in a unit whose inputs are closed.
    varies = (spread_one > 1e-12) & (spread_two > 1e-10 * spread_one)
    explained = (both - one * two) ** 2 / (spread_one * spread_two).clamp(min=1e-24)
    found = torch.where(varies, explained, 0.0).clamp(0, 1).mean(1)
    return found[0] if weights is None else found
