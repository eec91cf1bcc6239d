"""Overlap of every pair of tasks, layer by layer and over layers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from nadkit.masks.overlaps import overlap
from nadkit.measures import Estimate
from nadkit.questions.connections.facts import Facts, mean_of, over_sets, over_tasks, trend

Kept = Mapping[str, Tensor]
"""Address → (n_tasks, n_units) bool."""


class Overlaps(NamedTuple):
    """Overlap of the tasks of one set of masks with those of another, or of the same.

    Attributes
    ----------
    phi : (n_layers + 1, n_tasks, n_tasks) float64; the last entry is the mean over layers that have a value
    jaccard : likewise
    """

    phi: Tensor
    jaccard: Tensor


def overlaps(first: Kept, second: Kept) -> Overlaps:
    """Return the overlap of every task of one set with every task of the other.

    Examples
    --------
    >>> kept = {"a": torch.tensor([[True, False], [False, True]]), "b": torch.ones(2, 3, dtype=torch.bool)}
    >>> found = overlaps(kept, kept)
    >>> found.phi[:, 0, 1], found.jaccard[:, 0, 1]
    (tensor([-1., nan, -1.], dtype=torch.float64), tensor([0.0000, 1.0000, 0.5000], dtype=torch.float64))
    """
    layers = [overlap(rows, second[address]) for address, rows in first.items()]
    phi = torch.stack([layer.phi for layer in layers])
    # A layer whose units are all dead has nothing to compare.
    empty = torch.tensor([rows.shape[1] == 0 for rows in first.values()])[:, None, None]
    jaccard = torch.stack([layer.jaccard for layer in layers]).masked_fill(empty, torch.nan)
    return Overlaps(*(torch.cat([one, one.nanmean(0, keepdim=True)]) for one in (phi, jaccard)))


def add_stability(facts: Facts, tasks: Sequence[str], sets: Sequence[Kept]) -> None:
    """Add how far the masks of each task agree over seeds, if there are several."""
    pairs = list(itertools.combinations(sets, 2))
    if not pairs:
        return
    same = torch.stack([overlaps(first, second).phi[-1].diagonal() for first, second in pairs])
    varies = "none: counted" if len(pairs) == 1 else f"lowest to highest of {len(pairs)} pairs of mask seeds"
    for row, task in enumerate(tasks):
        there = int((~same[:, row].isnan()).sum())
        facts.add(task, "all", "phi_over_seeds", over_sets(same[:, row]), there, varies, task)
    mean, n = mean_of(same.nanmean(0))
    facts.add("mean", "all", "phi_over_seeds", mean, n, facts.tasks, "mean")


def pair_mean(matrix: Tensor, tasks: Tensor) -> float:
    """Return the mean over the pairs of these tasks that have a value, NaN if none has.

    Examples
    --------
    >>> pair_mean(torch.tensor([[9.0, 1, 3], [1, 9, torch.nan], [3, torch.nan, 9]]), torch.arange(3))
    2.0
    """
    rows, columns = torch.triu_indices(len(tasks), len(tasks), 1)
    return float(matrix[tasks[rows], tasks[columns]].nanmean())


def mean_overlap(matrix: Tensor) -> tuple[Estimate, int]:
    """Return the mean over all pairs of tasks with its interval, and how many pairs have a value."""
    pairs = ~matrix.isnan()
    pairs = pairs & ~torch.eye(len(matrix), dtype=torch.bool)
    there = pairs.any(1).nonzero().flatten()
    return over_tasks(lambda rows: pair_mean(matrix, rows), there), int(pairs.sum()) // 2


def _trend_of_pairs(layers: Tensor, tasks: Tensor) -> float:
    return trend(torch.tensor([pair_mean(layer, tasks) for layer in layers]))


def add_pairs(
    facts: Facts, tasks: Sequence[str], layers: Sequence[str], sizes: Sequence[int], found: Sequence[Overlaps]
) -> None:
    """Add the overlap of every pair, its mean, and how many pairs have no φ.

    Parameters
    ----------
    facts : get the rows
    tasks : their names
    layers : their addresses
    sizes : the live units of each layer
    found : the overlap within each set of masks
    """
    first, second = torch.triu_indices(len(tasks), len(tasks), 1).tolist()
    for metric in Overlaps._fields:
        stack = torch.stack([getattr(one, metric) for one in found])
        valued = (~stack[:, :-1].isnan()).any(0).sum(0)
        for place, layer in enumerate((*layers, "all")):
            for one, other in zip(first, second, strict=True):
                n = sizes[place] if place < len(layers) else int(valued[one, other])
                value = over_sets(stack[:, place, one, other])
                facts.add(tasks[one], layer, metric, value, n, facts.counted, tasks[other])
            facts.add("mean", layer, metric, *mean_overlap(stack[:, place].nanmean(0)), facts.tasks, "mean")
        by_layer = stack[:, :-1].nanmean(0)
        rho = over_tasks(partial(_trend_of_pairs, by_layer), torch.arange(len(tasks)))
        facts.add("mean", "all", f"{metric}_by_depth", rho, len(layers), facts.tasks, "mean")
    if not first:
        return
    missing = torch.stack([one.phi for one in found])[:, :-1, first, second].isnan().double().sum(-1)
    for place, layer in enumerate((*layers, "all")):
        count = missing[:, place] if place < len(layers) else missing.sum(1)
        pairs = len(first) * (1 if place < len(layers) else len(layers))
        facts.add("all", layer, "phi_undefined", over_sets(count), pairs, facts.counted)
