"""Permutation tests: by hand, a second time with all permutations, and their error rates under chance."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from nadkit.measures.permutation import double_centred, p_value, permutations


def off(matrix: Tensor) -> Tensor:
    return matrix[~torch.eye(len(matrix), dtype=torch.bool)]


def random_table(count: int, generator: torch.Generator, hubs: Tensor | float = 0.0) -> Tensor:
    noise = torch.randn(count, count, generator=generator, dtype=torch.float64)
    table = (noise + noise.T) / math.sqrt(2)
    return table + hubs[:, None] + hubs if isinstance(hubs, Tensor) else table


# p-values.


def test_p_value_by_hand() -> None:
    null = torch.tensor([0.1, 0.2, 0.3, 0.3])
    assert p_value(0.3, null.double()) == 3 / 5
    assert p_value(0.31, null) == 1 / 5
    assert p_value(-1.0, null) == 1.0
    assert p_value(0.3, torch.tensor([])) == 1.0
    assert math.isnan(p_value(math.nan, null))


def test_p_value_counts_what_is_equal_up_to_rounding() -> None:
    observed = 0.1 + 0.2
    null = torch.tensor([0.3, 0.0], dtype=torch.float64)
    assert observed > null[0]
    assert p_value(observed, null) == 2 / 3
    assert p_value(observed + 1e-9, null) == 1 / 3


@pytest.mark.parametrize("draws", [19, 50])
def test_p_value_is_nominal(draws: int) -> None:
    generator = torch.Generator().manual_seed(1)
    values = torch.rand(20_000, draws + 1, generator=generator, dtype=torch.float64)
    found = torch.tensor([p_value(float(row[0]), row[1:]) for row in values])
    for alpha in (0.05, 0.1, 0.5):
        rate = float((found <= alpha).double().mean())
        # Of draws + 1 equal ranks, so many reach alpha.
        expected = math.floor(alpha * (draws + 1) + 1e-9) / (draws + 1)
        assert rate == pytest.approx(expected, abs=4 * math.sqrt(0.25 / 20_000))


def test_permutations_are_permutations_and_follow_the_seed() -> None:
    orders = permutations(5, 400, seed=3)
    assert orders.shape == (400, 5)
    assert (orders.sort(1).values == torch.arange(5)).all()
    assert torch.equal(orders, permutations(5, 400, seed=3))
    assert not torch.equal(orders, permutations(5, 400, seed=4))
    # Each thing is in each place equally often.
    places = torch.stack([torch.bincount(column, minlength=5) for column in orders.T])
    assert int((places - 80).abs().max()) < 40


# Centring.


def slow_centred(matrix: Tensor) -> Tensor:
    """Least squares with one column for each row, each column and the mean."""
    count = len(matrix)
    pairs = [(i, j) for i in range(count) for j in range(count) if i != j]
    design = np.zeros((len(pairs), 1 + 2 * count))
    for at, (i, j) in enumerate(pairs):
        design[at, [0, 1 + i, 1 + count + j]] = 1
    values = np.array([float(matrix[i, j]) for i, j in pairs])
    fitted = design @ np.linalg.lstsq(design, values, rcond=None)[0]
    centred = torch.zeros(count, count, dtype=torch.float64)
    for (i, j), rest in zip(pairs, values - fitted, strict=True):
        centred[i, j] = rest
    return centred


@pytest.mark.parametrize("count", [3, 4, 7])
def test_double_centred_is_what_least_squares_leaves(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    table = torch.randn(count, count, generator=generator, dtype=torch.float64)
    assert torch.allclose(double_centred(table), slow_centred(table), atol=1e-10)
    both = table + table.T
    assert torch.allclose(double_centred(both), slow_centred(both), atol=1e-10)
    assert torch.allclose(double_centred(both), double_centred(both).T, atol=1e-12)


def test_double_centred_by_hand() -> None:
    # One near pair among four: m = 1/6; row sums 1, 1, 0, 0, so a = (1 − ½)/2 = ¼ and −¼.
    table = torch.zeros(4, 4)
    table[0, 1] = table[1, 0] = 1.0
    third, sixth = 1 / 3, -1 / 6
    expected = torch.tensor(
        [
            [0, third, sixth, sixth],
            [third, 0, sixth, sixth],
            [sixth, sixth, 0, third],
            [sixth, sixth, third, 0],
        ],
        dtype=torch.float64,
    )
    assert torch.allclose(double_centred(table), expected, atol=1e-7)


def test_double_centred_takes_hubs_out_and_leaves_the_diagonal_out() -> None:
    generator = torch.Generator().manual_seed(0)
    table = random_table(6, generator)
    hubs = torch.randn(2, 6, generator=generator, dtype=torch.float64) * 5
    assert torch.allclose(double_centred(table + hubs[0][:, None] + hubs[1] + 3), double_centred(table))
    changed = table.clone().fill_diagonal_(torch.nan)
    assert torch.equal(double_centred(changed), double_centred(table))
    centred = double_centred(table)
    assert float(centred.sum(0).abs().max()) < 1e-12
    assert float(centred.sum(1).abs().max()) < 1e-12
    assert (centred.diagonal() == 0).all()
    assert torch.equal(table.isnan(), torch.zeros(6, 6, dtype=torch.bool))


def test_double_centred_moves_with_the_classes() -> None:
    generator = torch.Generator().manual_seed(5)
    table, order = torch.rand(6, 6, generator=generator), torch.tensor([3, 1, 5, 0, 2, 4])
    assert torch.allclose(double_centred(table[order][:, order]), double_centred(table)[order][:, order])


@pytest.mark.parametrize("count", [0, 1, 2])
def test_double_centred_of_few_classes_is_nothing(count: int) -> None:
    assert torch.equal(double_centred(torch.rand(count, count)), torch.zeros(count, count).double())


@pytest.mark.parametrize("shape", [(3,), (3, 4), (2, 3, 3)])
def test_double_centred_refuses_what_is_no_table_of_pairs(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="square"):
        double_centred(torch.zeros(shape))


def test_double_centred_refuses_missing_pairs() -> None:
    table = torch.zeros(3, 3)
    table[0, 1] = torch.nan
    with pytest.raises(ValueError, match="leave them out"):
        double_centred(table)
