"""Where activation lies: by hand, by slow second ways, and against Pillow and SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import spearmanr
from torch import Tensor

from nadkit.measures.hits import (
    cell_parts,
    depth_correlation,
    energy,
    quadrant_shares,
    region_shares,
    released_hits,
    unit_weights,
)

sizes = st.integers(1, 9)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(first: object, second: object, tolerance: float = 1e-12) -> bool:
    return np.allclose(np.asarray(first), np.asarray(second), rtol=0, atol=tolerance, equal_nan=True)


# Cells and parts


@given(sizes, sizes)
@settings(max_examples=40, deadline=None)
def test_cells_are_shared_out_as_a_fine_ruler_counts(cells: int, parts: int) -> None:
    marks = cells * parts  # so many equal marks fit into cells and parts alike
    counted = np.zeros((cells, parts))
    for mark in range(marks):
        counted[mark * cells // marks, mark * parts // marks] += cells / marks
    assert close(cell_parts(cells, parts), counted)


# Energy


def test_energy_by_hand() -> None:
    maps = torch.tensor([[[[1.0, -2.0]], [[3.0, 0.5]], [[9.0, 9.0]]]])
    assert close(energy(maps, torch.tensor([1.0, 2.0, 0.0])), [[[1 + 18, 4 + 0.5]]])


def test_a_unit_counts_by_its_spread_and_not_at_all_without_one() -> None:
    mean, variance = torch.tensor([0.0, 3.0, 5.0, 0.0, 2**-13]), torch.tensor([4.0, 0.25, 0.0, 0.0, 2**-30])
    assert close(unit_weights(mean, variance), [0.25, 4, 0, 0, 2**30])
    # Rounding gives a constant a tiny variance, which must not make it the loudest unit of the layer.
    assert unit_weights(torch.tensor([5.0]), torch.tensor([1e-14]))[0] == 0


# Quadrants


def test_quadrants_by_hand() -> None:
    even = torch.tensor([[1.0, 0, 2, 0], [0, 0, 0, 0], [0, 0, 0, 0], [3, 0, 0, 4]])
    assert close(quadrant_shares(even[None]), [[0.1, 0.2, 0.3, 0.4]])
    # The middle line of an odd grid counts half in each half, its centre a quarter in each quadrant:
    # top left 4 + 2/2 + 6/2 + 8/4 = 10, top right 2/2 + 12 + 8/4 = 15, bottom left 6/2 + 8/4 = 5,
    # bottom right 8/4 + 8 = 10.
    odd = torch.tensor([[4.0, 2, 12], [6, 8, 0], [0, 0, 8]])
    assert close(quadrant_shares(odd[None]), [[10 / 40, 15 / 40, 5 / 40, 10 / 40]])


def slow_quadrants(energies: Tensor) -> list[float]:
    """Every cell split into four, each quarter in one quadrant."""
    height, width = energies.shape
    found = [0.0] * 4
    for y in range(2 * height):
        for x in range(2 * width):
            found[2 * (y >= height) + (x >= width)] += float(energies[y // 2, x // 2]) / 4
    return [each / sum(found) for each in found]


@given(sizes, sizes, st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_quadrants_are_those_of_quartered_cells(height: int, width: int, seed: int) -> None:
    energies = numbers(height, width, seed=seed) + 1e-3
    found = quadrant_shares(energies[None])[0]
    assert close(found, slow_quadrants(energies))
    assert float(found.sum()) == pytest.approx(1)
    top_left, top_right, bottom_left, bottom_right = found.tolist()
    assert close(quadrant_shares(energies.flip(1)[None])[0], [top_right, top_left, bottom_right, bottom_left])
    assert close(quadrant_shares(energies.flip(0)[None])[0], [bottom_left, bottom_right, top_left, top_right])
    assert close(quadrant_shares(7 * energies[None])[0], found)


def test_even_energy_is_at_chance_on_every_grid() -> None:
    for size in (1, 2, 3, 7):
        assert close(quadrant_shares(torch.ones(1, size, size)), [[0.25] * 4])


def test_no_energy_has_no_share() -> None:
    energies = torch.stack([torch.zeros(3, 3), torch.ones(3, 3)])
    assert quadrant_shares(energies).isnan().all(1).tolist() == [True, False]
    assert region_shares(energies, torch.ones(2, 6, 6).bool()).isnan().tolist() == [True, False]


# Regions


def slow_region(energies: Tensor, region: Tensor) -> float:
    (height, width), (tall, wide) = energies.shape, region.shape
    inside = 0.0
    for y in range(height * tall):
        for x in range(width * wide):
            if region[y // height, x // width]:
                inside += float(energies[y // tall, x // wide]) / (tall * wide)
    return inside / float(energies.sum())


@given(sizes, sizes, st.integers(1, 6), st.integers(1, 6), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_regions_are_counted_mark_by_mark(height: int, width: int, tall: int, wide: int, seed: int) -> None:
    energies, region = numbers(height, width, seed=seed) + 1e-3, numbers(tall, wide, seed=seed + 1) < 0.4
    assert float(region_shares(energies[None], region[None])) == pytest.approx(slow_region(energies, region))


def test_a_region_that_is_a_quadrant_has_the_quadrants_share() -> None:
    energies = numbers(3, 7, 5)
    region = torch.zeros(3, 8, 8, dtype=torch.bool)
    region[:, :4, 4:] = True
    assert close(region_shares(energies, region), quadrant_shares(energies)[:, 1])
    assert close(region_shares(torch.ones(3, 7, 5), region), [0.25] * 3)


# The released measure


def test_the_released_rank_by_hand() -> None:
    # 100 different levels on 10 × 10 pixels; strictly above the 10th largest are nine: three in the top left,
    # six in the bottom right. The 10th itself stands in the top right.
    order = torch.arange(100)
    values = torch.zeros(10, 10)
    places = [(0, 0), (0, 1), (0, 2), (9, 9), (9, 8), (9, 7), (9, 6), (9, 5), (8, 9), (0, 9)]
    rest = [(y, x) for y in range(10) for x in range(10) if (y, x) not in places]
    for level, (y, x) in zip(order.flip(0).tolist(), places + rest, strict=True):
        values[y, x] = level
    assert close(released_hits(values[None, None], (10, 10)), [[3 / 9, 0, 0, 6 / 9]])
    # Units are added up with their signs, and neither scale nor offset of the sum matters.
    parts = torch.stack([3 * values + 5, -values])
    assert close(released_hits(parts[None], (10, 10)), [[3 / 9, 0, 0, 6 / 9]])


def test_where_the_released_measure_has_no_value() -> None:
    constant = torch.full((1, 2, 8, 8), 0.3)
    assert released_hits(constant, (8, 8)).isnan().all()
    tied = torch.zeros(1, 1, 8, 8)
    tied[0, 0, 0, :6] = 1.0  # six of the largest value, and the sixth largest is the edge
    assert released_hits(tied, (8, 8)).isnan().all()
    tied[0, 0, 0, 5] = 0.9
    assert close(released_hits(tied, (8, 8)), [[0.8, 0.2, 0, 0]])


def test_differences_below_a_level_are_cut_off() -> None:
    maps = torch.zeros(1, 1, 8, 8)
    maps[0, 0, 0, :6] = torch.tensor([1.0, 0.999, 0.998, 0.997, 0.9975, 0.5])
    # 0.999 · 255 = 254.7 and so on: four pixels of level 254, and the sixth largest, 127, is the edge.
    assert close(released_hits(maps, (8, 8)), [[0.8, 0.2, 0, 0]])
    maps[0, 0, 0, 5] = 0.9961  # 254.005: now the edge is level 254 as well
    assert close(released_hits(maps, (8, 8)), [[1.0, 0, 0, 0]])


def slow_released(maps: Tensor, size: int) -> list[float]:
    summed = maps.double().sum(0).numpy()
    scaled = (summed - summed.min()) / (summed.max() - summed.min())
    picture = Image.fromarray((255 * scaled).astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    seen = np.asarray(picture) / 255
    chosen = seen > sorted(seen.flatten(), reverse=True)[int(0.10 * size * size) - 1]
    half = size // 2
    quadrants = [chosen[:half, :half], chosen[:half, half:], chosen[half:, :half], chosen[half:, half:]]
    return [each.sum() / chosen.sum() for each in quadrants]


@pytest.mark.parametrize(("grid", "size"), [(7, 28), (14, 28), (28, 28), (7, 56)])
def test_the_released_measure_is_pillows(grid: int, size: int) -> None:
    maps = torch.randn(12, 3, grid, grid, generator=torch.Generator().manual_seed(grid))
    found = released_hits(maps, (size, size))
    slow = torch.tensor([slow_released(each, size) for each in maps])
    # A tenth of 28 × 28 is 78 pixels; here and there one comes out a level away.
    assert float((found - slow).abs().max()) < 0.03
    assert float((found - slow).abs().mean()) < 0.002


# Depth


@given(st.lists(st.one_of(st.integers(-3, 3), st.just(math.nan)), min_size=1, max_size=9))
@settings(max_examples=80, deadline=None)
def test_depth_correlation_is_spearmans(values: list[float]) -> None:
    there = [(depth, value) for depth, value in enumerate(values) if not math.isnan(value)]
    found = float(depth_correlation(torch.tensor([values], dtype=torch.float64))[0])
    if len(there) < 3 or len({value for _, value in there}) == 1:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(spearmanr(*zip(*there, strict=True)).statistic)


def test_depth_correlation_does_not_rank_rounding() -> None:
    even = torch.full((5,), 0.25, dtype=torch.float64) + 1e-13 * torch.arange(5)
    assert math.isnan(float(depth_correlation(even)))
    assert float(depth_correlation(even + 1e-6 * torch.arange(5))) == pytest.approx(1)


def test_depth_correlation_of_many_rows() -> None:
    rows = torch.tensor([[[1.0, 2, 3, 4], [4.0, 3, 2, 1]], [[1.0, 1, 1, 1], [1.0, 3, 2, 4]]])
    assert close(depth_correlation(rows), [[1, -1], [math.nan, 0.8]])
