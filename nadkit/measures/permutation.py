"""Permutation tests: p-values, and tables of pairs of classes freed of what belongs to single classes."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

ALIKE = 1e-12
"""Two statistics that differ by less are the same one, added up in another order."""


class Mantel(NamedTuple):
    """The correlation of two tables of pairs, and how often a permutation of the classes has as much."""

    correlation: float
    p: float


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


def mantel(first: Tensor, second: Tensor, draws: int = 999, seed: int = 0) -> Mantel:
    """Return whether two tables of pairs of the same classes go together, beyond hubs, with a p-value.

    Both are double-centred; the statistic is the correlation of their entries off the diagonal, and chance is
    a permutation of the classes of one of them, rows and columns jointly.

    Examples
    --------
    >>> near = torch.rand(6, 6, generator=torch.Generator().manual_seed(0))
    >>> found = mantel(near, 2 * near + 1, draws=99)
    >>> round(found.correlation, 6), found.p
    (1.0, 0.01)

    Parameters
    ----------
    first, second
        (K, K), finite off the diagonal.
    draws
        Permutations, at least 0.
    seed
        Of a generator of its own.

    Returns
    -------
    Mantel
        The correlation, and its one-sided p-value (large correlations count). Both are NaN where centring
        leaves nothing of one of the tables.

    Raises
    ------
    ValueError
        The tables differ in size, are not square, or not finite off the diagonal.

    Notes
    -----
    **Source** Mantel, "The detection of disease clustering and a generalized regression approach", 1967. On
    tables that are not centred, hubs that the two share make the test reject far too often.
    """
    if first.shape != second.shape:
        raise ValueError(f"tables {tuple(first.shape)} and {tuple(second.shape)}; give two of one size")
    parts = []
    for matrix in (first, second):
        centred = double_centred(matrix)
        size = float(centred.square().sum().sqrt())
        # What the rounding of 32 bits leaves of an additive table is no table.
        if size <= 1e-6 * float(matrix.double().clone().fill_diagonal_(0.0).square().sum().sqrt()):
            return Mantel(math.nan, math.nan)
        parts.append(centred / size)
    one, other = parts
    observed = float((one * other).sum())
    orders = permutations(len(one), draws, seed)
    null = [float((one[order][:, order] * other).sum()) for order in orders]
    return Mantel(observed, p_value(observed, torch.tensor(null, dtype=torch.float64)))
