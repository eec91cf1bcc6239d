"""Whether a sub-architecture does what the whole network does, or solves its task in another way."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from nadkit.images import Images
from nadkit.measures.agreement import FEWEST, binary_divergence, r_squared, rank_correlation
from nadkit.networks import Network
from nadkit.networks.outputs import at_once
from nadkit.questions.conditions import Condition
from nadkit.questions.forwards import BATCH
from nadkit.questions.metric import Metric, combined
from nadkit.questions.outcomes import Outcome, together
from nadkit.questions.tables import Origin, Row
from nadkit.taps import Taps, frozen


def agreement_rows(
    network: Network,
    outcomes: Sequence[Outcome],
    whole: Tensor,
    decisive: Tensor,
    images: Images,
) -> Iterator[Row]:
    """Yield every metric of agreement with the whole network, of all conditions but whole and removed.

    Parameters
    ----------
    network : the trained network
    outcomes : of all conditions
    whole : (n_images, n_classes) its log-odds
    decisive : the same, calibrated if there is a calibration
    images : those of the outcomes
    """
    deepest = Deepest(network, images)
    for outcome in outcomes:
        if outcome.condition.name in ("whole", "removed"):
            continue
        origin = Origin.of(network.name, outcome)
        for metric in _of_answers(outcome, whole, decisive):
            yield from origin.rows(metric)
        if tapped(network, outcome.condition):
            yield from origin.rows(deepest.metric(outcome))


def tapped(network: Network, condition: Condition) -> bool:
    """Tell whether a condition's activations can be held against the whole network's, unit by unit."""
    return (
        condition.gates is not None
        and condition.rows is None
        and all(one is network for one in condition.networks)
    )


def _of_answers(outcome: Outcome, whole: Tensor, decisive: Tensor) -> Iterator[Metric]:
    """What the log-odds alone say; a relabelled task is held against the class that it has to accept."""
    positive, targets, labels = outcome.positive, outcome.condition.targets, outcome.sample.labels
    mine, theirs = outcome.decisive, decisive.T[targets]
    same = ((mine > 0) == (theirs > 0)).double() + 0 * (mine + theirs)  # NaN where there is no fit
    own, others = (outcome.average("", same, kind) for kind in (positive, ~positive))
    yield combined("agreement", own, others, (0.5, 0.5, 0.0), outcome.with_both)
    chosen = outcome.sample.chosen
    concerned = (chosen != labels) & (positive | (targets[..., None] == chosen))
    yield outcome.average("agreement_on_errors", same, concerned)
    if bool((targets == outcome.condition.logits).all()):
        # The logits of relabelled masks mean other classes: over all of them a divergence means nothing.
        yield outcome.average("kl", outcome.readings.divergence, positive, (0.0, math.inf))
    odds, truth = outcome.readings.log_odds, whole.T[targets]
    apart = binary_divergence(truth, odds)
    own, others = (outcome.average("", apart, kind, (0.0, math.inf)) for kind in (positive, ~positive))
    yield combined("kl_task", own, others, (0.5, 0.5, 0.0), outcome.with_both)
    order = rank_correlation(odds, truth, labels)
    draws = outcome.draws(lambda weights: rank_correlation(odds, truth, labels, weights))
    many = int((labels[:, None] == labels).sum(1).ge(FEWEST).sum())
    counts = torch.full((len(outcome.sample.tasks),), many)
    yield Metric("rank_correlation", order, counts, many, draws, limits=(-1.0, 1.0))


class Deepest:
    """The activations of the deepest layer where a task keeps units, whole and gated, on its own pictures."""

    def __init__(self, network: Network, images: Images) -> None:
        self.network, self.images = network, images
        self.inputs: dict[int, Tensor] = {}
        self.whole: dict[tuple[int, str], Tensor] = {}

    def metric(self, outcome: Outcome) -> Metric:
        """Return how much of the kept units' activation the whole network's explains, R²."""
        condition, labels = outcome.condition, outcome.sample.labels
        assert condition.gates is not None  # by `tapped`
        repetitions, tasks = condition.targets.shape
        values = torch.full((repetitions, tasks), torch.nan, dtype=torch.float64)
        draws = torch.zeros(repetitions, tasks, len(outcome.sample.weights)).double()
        for place, gates in enumerate(condition.gates):
            for task, label in enumerate(condition.targets[place].tolist()):
                own = labels == label
                kept = [address for address, rows in gates.items() if bool((rows[task] > 0).any())]
                if not kept or not bool(own.any()):
                    continue
                mine = {address: rows[task] for address, rows in gates.items()}
                units = mine[kept[-1]] > 0
                whole, gated = (each[:, units] for each in self._pair(label, own, kept[-1], mine))
                values[place, task] = r_squared(whole, gated)
                if not condition.drawn:
                    draws[place, task] = r_squared(whole, gated, outcome.sample.weights[:, own])
        counts = outcome.positive.sum(2).min(0).values
        drawn = outcome.draws(lambda _: draws)
        return Metric("r_squared", values, counts, together(outcome.positive), drawn)

    def _pair(self, label: int, own: Tensor, address: str, gates: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(n_images, n_units, n_places) of the whole and of the gated network."""
        if label not in self.inputs:
            self.inputs[label] = self.network.prepare(self.images[own].pixels)
        if (label, address) not in self.whole:
            self.whole[label, address] = self._read(self.inputs[label], address, None)
        return self.whole[label, address], self._read(self.inputs[label], address, gates)

    def _read(self, inputs: Tensor, address: str, gates: dict[str, Tensor] | None) -> Tensor:
        axis, found = self.network.layers[address].axis, []
        with frozen(self.network.model), torch.no_grad():
            for part in inputs.split(at_once(inputs.shape[1:], BATCH)):
                with Taps(self.network, [address], gates=gates) as taps:
                    self.network.logits(part)
                activation = taps.activations[address].movedim(axis, 1)
                found.append(activation.reshape(*activation.shape[:2], -1).cpu())
        return torch.cat(found)
