"""Units by how many tasks keep them, and how many of a task's units are its own alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nadkit.questions.connections.facts import Facts, mean_of, over_sets, trend
from nadkit.questions.connections.pairs import Kept

KINDS = ("unused", "exclusive", "some", "all")


class Counts(NamedTuple):
    """What the units of one set of masks are kept by; the last layer is all layers together.

    Attributes
    ----------
    kinds : (4, n_layers + 1) share of live units kept by no task, one, some, all
    kinds_by_chance : likewise, expected of random units, as many for every task and layer
    units : (n_layers + 1,) live units
    exclusive : (n_tasks, n_layers + 1) share of a task's kept units that no other task keeps
    exclusive_by_chance : likewise, expected
    kept : (n_tasks, n_layers + 1) kept units
    """

    kinds: Tensor
    kinds_by_chance: Tensor
    units: Tensor
    exclusive: Tensor
    exclusive_by_chance: Tensor
    kept: Tensor

    @property
    def excess(self) -> Tensor:
        """(n_tasks, n_layers + 1) exclusive share beyond chance."""
        return self.exclusive - self.exclusive_by_chance


def count(kept: Kept) -> Counts:
    """Count the units of one set of masks.

    Examples
    --------
    >>> found = count({"a": torch.tensor([[True, True, False, False], [True, False, False, False]])})
    >>> found.kinds[:, 0].tolist(), found.exclusive[:, 0].tolist()
    ([0.5, 0.25, 0.0, 0.25], [0.5, 0.0])

    Notes
    -----
    **By chance** each task's units of a layer are drawn apart from the other tasks', so a unit is kept by
    task k with the chance a_k / C; how many tasks keep it has a Poisson binomial distribution. These are
    expectations without error: nothing is drawn.
    """
    kinds, chance, alone, alone_chance = [], [], [], []
    for rows in kept.values():
        tasks, held = len(rows), rows.sum(0)
        shared = held > 1
        groups = [held == 0, held == 1, shared & (held < tasks), shared & (held == tasks)]
        kinds.append(torch.stack([group.sum() for group in groups]).double())
        shares = rows.double().mean(1) if rows.shape[1] else torch.zeros(tasks, dtype=torch.float64)
        chance.append(kinds_by_chance(shares) * rows.shape[1])
        alone.append((rows & (held == 1)).sum(1).double())
        others = (1 - shares).repeat(tasks, 1).fill_diagonal_(1).prod(1)
        alone_chance.append(others * rows.sum(1))
    units = _with_sum([torch.tensor(float(rows.shape[1])).double() for rows in kept.values()])
    sizes = _with_sum([rows.sum(1).double() for rows in kept.values()])
    return Counts(
        _with_sum(kinds) / units,
        _with_sum(chance) / units,
        units,
        _with_sum(alone) / sizes,
        _with_sum(alone_chance) / sizes,
        sizes,
    )


def kinds_by_chance(shares: Tensor) -> Tensor:
    """Return how likely a unit is unused, exclusive, kept by some and by all, for kept shares (n_tasks,).

    Examples
    --------
    >>> kinds_by_chance(torch.tensor([0.5, 0.5, 0.5]).double())
    tensor([0.1250, 0.3750, 0.3750, 0.1250], dtype=torch.float64)
    """
    held = torch.ones(1, dtype=torch.float64)
    for share in shares.tolist():
        held = torch.nn.functional.pad(held * (1 - share), (0, 1)) + torch.nn.functional.pad(
            held * share, (1, 0)
        )
    all_of_them = held[-1] if len(shares) > 1 else torch.tensor(0.0).double()
    return torch.stack([held[0], held[1], held[2:-1].sum(), all_of_them])


def _with_sum(layers: Sequence[Tensor]) -> Tensor:
    """(..., n_layers + 1)."""
    stack = torch.stack(list(layers), dim=-1)
    return torch.cat([stack, stack.sum(-1, keepdim=True)], dim=-1)


def add_units(facts: Facts, tasks: Sequence[str], layers: Sequence[str], found: Sequence[Counts]) -> None:
    """Add the kinds of units, the exclusive share of every task, and how it goes with depth."""
    places = (*layers, "all")
    for suffix, name in (("", "kinds"), ("_by_chance", "kinds_by_chance")):
        stack = torch.stack([getattr(one, name) for one in found])
        for row, kind in enumerate(KINDS):
            for place, layer in enumerate(places):
                n = float(found[0].units[place])
                facts.add("all", layer, kind + suffix, over_sets(stack[:, row, place]), n, facts.counted)
    sizes = torch.stack([one.kept for one in found]).mean(0)
    for metric, name in (
        ("exclusive_share", "exclusive"),
        ("exclusive_share_by_chance", "exclusive_by_chance"),
        ("exclusive_excess", "excess"),
    ):
        stack = torch.stack([getattr(one, name) for one in found])
        for place, layer in enumerate(places):
            for row, task in enumerate(tasks):
                value = over_sets(stack[:, row, place])
                facts.add(task, layer, metric, value, float(sizes[row, place]), facts.counted)
            facts.add("mean", layer, metric, *mean_of(stack[:, :, place].nanmean(0)), facts.tasks)
        if name != "exclusive_by_chance":
            rho = torch.tensor([[trend(row[:-1]) for row in one] for one in stack], dtype=torch.float64)
            valued = (~stack[:, :, :-1].isnan()).any(0).sum(1).tolist()
            for row, task in enumerate(tasks):
                value = over_sets(rho[:, row])
                facts.add(task, "all", f"{metric}_by_depth", value, valued[row], facts.counted)
            facts.add("mean", "all", f"{metric}_by_depth", *mean_of(rho.nanmean(0)), facts.tasks)
