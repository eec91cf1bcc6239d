"""Permutation tests: p-values, and tables of pairs of classes freed of what belongs to single classes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

ALIKE = 1e-12
"""Two statistics that differ by less are the same one, added up in another order."""


def p_value(observed: float, null: Tensor) -> float:
    """Return the one-sided p-value of a statistic: how often chance gives as much or more.

    Examples
    --------
    >>> p_value(3.0, torch.tensor([0.0, 1.0, 3.0]))
    0.5

    Parameters
    ----------
    observed
        The statistic; large values speak against chance.
    null
        (n_draws,) the same statistic of random draws.

    Returns
    -------
    float
        (1 + draws of at least `observed`) / (1 + n_draws): 1 without draws, never 0. NaN if `observed` is.

    Notes
    -----
    **Source** Phipson and Smyth, "Permutation p-values should never be zero", 2010. The observed one counts
    as a draw, so P(p ≤ α) ≤ α for every α and number of draws.
    """
    if math.isnan(observed):
        return math.nan
    return (1 + int((null.double() >= observed - ALIKE).sum())) / (1 + len(null))


def permutations(count: int, draws: int, seed: int = 0) -> Tensor:
    """Return random permutations of `count` things, (draws, count) int64.

    Examples
    --------
    >>> permutations(3, draws=2).sort(1).values
    tensor([[0, 1, 2],
            [0, 1, 2]])
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(draws, count, generator=generator, dtype=torch.float64).argsort(1)


def double_centred(matrix: Tensor) -> Tensor:
    """Return what a table of pairs says beyond its rows and its columns; the diagonal has no part in it.

    Entry (i, j), i ≠ j, loses the best additive guess m + a_i + b_j (least squares over the entries off the
    diagonal). A hub, a class that is near to every other, is all additive and leaves nothing.

    Examples
    --------
    >>> hubs = torch.tensor([0.0, 0.0, 1.0, 5.0])
    >>> bool(double_centred(hubs[:, None] + hubs).abs().max() < 1e-12)
    True

    Parameters
    ----------
    matrix
        (K, K), finite off the diagonal, symmetric or not.

    Returns
    -------
    Tensor
        (K, K) float64, symmetric if the matrix is. Every row and column adds up to 0, the diagonal is 0. All
        zero for K < 3, and for K = 3 if symmetric: so few pairs are additive whatever they are.

    Raises
    ------
    ValueError
        The matrix is not square, or not finite off its diagonal.

    Notes
    -----
    **Source** The two-way additive model with an empty diagonal, solved: with row sums r, column sums c,
    m = Σr / (K(K − 1)), r' = r − (K − 1)m and c' = c − (K − 1)m, a = ((K − 1)r' + c') / (K(K − 2)) and b
    likewise.
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"a table of pairs is square, this is {tuple(matrix.shape)}; give (K, K)")
    count = len(matrix)
    values = matrix.double().clone().fill_diagonal_(0.0)
    if not bool(torch.isfinite(values).all()):
        raise ValueError("a table of pairs with NaN or infinite entries cannot be centred; leave them out")
    if count < 3:
        return torch.zeros_like(values)
    mean = values.sum() / (count * (count - 1))
    rows, columns = (values.sum(axis) - (count - 1) * mean for axis in (1, 0))
    size = count * (count - 2)
    row, column = ((count - 1) * rows + columns) / size, ((count - 1) * columns + rows) / size
    return (values - mean - row[:, None] - column).fill_diagonal_(0.0)
