"""The few units whose removal turns one picture's answer into the right one, found greedily."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from nadkit.networks import Network
from nadkit.networks.outputs import at_once, log_odds
from nadkit.questions.forwards import BATCH, EQUAL
from nadkit.taps import Taps, frozen

TRIED = 16
"""Candidates of the largest first-order effect that a forward pass tries at each step."""

SEARCHES = 20
"""Searches among random candidates."""

Units = list[tuple[str, int]]


@dataclass(frozen=True, eq=False)
class Switches:
    """Units to remove, and what that does to one picture's answer.

    Attributes
    ----------
    units : (address, index), in the order of removal
    margins : of the true class over the best other one: with none removed, one, two, … of them
    flipped : whether the answer is the true class when all of them are removed
    random_flips : of so many random sets, of as many units of the same layers, that do the same
    searched_flips : of `SEARCHES` searches among random candidates, that flip it with as few units
    """

    units: Units
    margins: list[float]
    flipped: bool
    random_flips: int
    searched_flips: int

    def logits(self, network: Network, inputs: Tensor) -> Tensor:
        """Return (N, n_classes) with the units removed."""
        return _logits(network, inputs, _gates(network, [self.units]))


class Try(NamedTuple):
    """What the network answers to the picture without some units; the better of two is the larger."""

    flipped: bool
    log_odds: float
    margin: float


def find_flip(
    network: Network,
    inputs: Tensor,
    true: int,
    candidates: Mapping[str, Tensor],
    flips: int,
    draws: int,
    seed: int,
    progress: bool = False,
) -> Switches:
    """Return the smallest set of candidates that greedy removal finds, beside random sets.

    Parameters
    ----------
    network : whole but for what is removed
    inputs : (1, C, H, W), made by `network.prepare`
    true : the class that should be answered
    candidates : address → (n_units,) bool
    flips : the most units to remove
    draws : random sets
    seed : of the random sets and candidates
    progress : show a bar over the searches
    """
    from tqdm.auto import tqdm

    own = {(a, i) for a, mine in candidates.items() for i in mine.nonzero().flatten().tolist()}
    generator = torch.Generator().manual_seed(seed)
    with tqdm(total=SEARCHES + 1, disable=not progress, unit="search") as bar:
        units = _search(network, inputs, true, own, flips)
        bar.update()
        # One by one, as the answer is read: a batch may round another way.
        steps = [_try(network, inputs, true, [units[:count]])[0] for count in range(len(units) + 1)]
        flipped = steps[-1].flipped
        random, searched = 0, 0
        if units:
            sets = [_random(network, set(units), generator) for _ in range(draws)]
            random = sum(one.flipped for one in _try(network, inputs, true, sets))
        for _ in range(SEARCHES if flipped else 0):
            among = set(_random(network, own, generator))
            found = _search(network, inputs, true, among, len(units))
            searched += _try(network, inputs, true, [found])[0].flipped
            bar.update()
    return Switches(units, [step.margin for step in steps], flipped, random, searched)


def _search(
    network: Network, inputs: Tensor, true: int, candidates: set[tuple[str, int]], flips: int
) -> Units:
    """The units that greedy removal takes until the answer is the true class, or nothing helps."""
    units: Units = []
    now = _try(network, inputs, true, [units])[0]
    while not now.flipped and len(units) < flips:
        effects = _first_order(network, inputs, true, units)
        # The name breaks ties, so that the order of a set does not.
        best = sorted(candidates - set(units), key=lambda unit: (-effects[unit], unit))[:TRIED]
        found = _try(network, inputs, true, [[*units, unit] for unit in best])
        at = max(range(len(best)), key=lambda k: found[k], default=None)
        if at is None or not (found[at].flipped or found[at].log_odds > now.log_odds + EQUAL):
            break
        units, now = [*units, best[at]], found[at]
    return _needed(network, inputs, true, units) if now.flipped else units


def _needed(network: Network, inputs: Tensor, true: int, units: Units) -> Units:
    """The units without those that can be put back, one after the other, until every one is needed."""
    for unit in units:
        without = [other for other in units if other != unit]
        if without and _try(network, inputs, true, [without])[0].flipped:
            return _needed(network, inputs, true, without)
    return units


def _first_order(network: Network, inputs: Tensor, true: int, units: Units) -> dict[tuple[str, int], float]:
    """By how much the log-odds of the true class would grow without a unit if the network were linear."""
    gates = {address: gate[0].requires_grad_() for address, gate in _gates(network, [units]).items()}
    with torch.enable_grad(), frozen(network.model), Taps(network, (), gates=gates):
        slopes = torch.autograd.grad(
            log_odds(network.logits(inputs))[0, true],
            list(gates.values()),
            allow_unused=True,
            materialize_grads=True,
        )
    return {
        (address, index): -slope
        for address, slopes_of in zip(gates, slopes, strict=True)
        for index, slope in enumerate(slopes_of.tolist())
    }


def _try(network: Network, inputs: Tensor, true: int, removals: Sequence[Units]) -> list[Try]:
    """What the network answers without each of the sets."""
    found = []
    size = at_once(inputs.shape[1:], BATCH)
    for start in range(0, len(removals), size):
        part = removals[start : start + size]
        copies = inputs.expand(len(part), *inputs.shape[1:])
        logits = _logits(network, copies, _gates(network, part)).cpu().double()
        rest = logits.clone()
        rest[:, true] = -torch.inf
        margins, odds = logits[:, true] - rest.max(1).values, log_odds(logits)[:, true]
        cells = (logits.argmax(1) == true).tolist(), odds.tolist(), margins.tolist()
        found += [Try(*one) for one in zip(*cells, strict=True)]
    return found


def _random(network: Network, units: set[tuple[str, int]], generator: torch.Generator) -> Units:
    """As many random units of each layer as there are here."""
    chosen: Units = []
    for address, layer in network.layers.items():
        size = sum(a == address for a, _ in units)
        order = torch.randperm(layer.units, generator=generator)
        chosen += [(address, index) for index in order[:size].tolist()]
    return chosen


def _gates(network: Network, removals: Sequence[Units]) -> dict[str, Tensor]:
    """A row for every set: 1, and 0 at what it removes."""
    gates = {address: torch.ones(len(removals), layer.units) for address, layer in network.layers.items()}
    for row, units in enumerate(removals):
        for address, index in units:
            gates[address][row, index] = 0.0
    return gates


def _logits(network: Network, inputs: Tensor, gates: dict[str, Tensor]) -> Tensor:
    """Logits of inputs each gated by its own row, or all by the one row there is."""
    count = len(next(iter(gates.values())))
    rows = torch.arange(count) if count == len(inputs) else torch.zeros(len(inputs), dtype=torch.int64)
    with frozen(network.model), torch.no_grad(), Taps(network, (), gates=gates, rows=rows):
        return network.logits(inputs)
