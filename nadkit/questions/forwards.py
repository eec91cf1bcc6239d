"""Forward passes of a question: pictures through every condition, a few numbers per task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nadkit.errors import ImageError, NadkitError, closest
from nadkit.images import Images
from nadkit.networks import Network
from nadkit.networks.outputs import at_once, gated_logits, log_odds, log_rest, whole_logits
from nadkit.questions.asked import check_finite
from nadkit.questions.conditions import Condition
from nadkit.taps import Taps, frozen

BATCH = 200
EQUAL = 1e-4
"""Log-odds are read to this step: what differs by less is a tie."""


class Readings(NamedTuple):
    """What one condition says to pictures; each (n_repetitions, n_tasks, n_images) float64.

    Attributes
    ----------
    log_odds : of each task; own + rest
    own : the task's logit, less the mean of all logits
    rest : minus the log-sum-exp of the other logits, less the same mean
    divergence : of all classes' probabilities from the whole network's, Σ p log(p / q), in nats
    """

    log_odds: Tensor
    own: Tensor
    rest: Tensor
    divergence: Tensor


class Answers(NamedTuple):
    """What every condition says to the same pictures.

    Attributes
    ----------
    readings : of each condition
    whole : (n_images, n_classes) the whole network's log-odds of every class
    labels : (n_images,) class indices of the network
    chosen : (n_images,) the whole network's own answer, a class index
    """

    readings: list[Readings]
    whole: Tensor
    labels: Tensor
    chosen: Tensor


def labels_of(network: Network, images: Images) -> Tensor:
    """Return each picture's class as an index into the network's class names, matched by name.

    Raises
    ------
    ImageError
        There are pictures of a class that the network does not have.
    """
    for name, count in images.counts().items():
        if count and name not in network.class_names:
            raise ImageError(
                f"{count} pictures of {name!r}, which is no class of {network.name}; "
                f"{closest(name, network.class_names)}; rename it or leave it out with images.subset"
            )
    known = [network.class_names.index(n) if n in network.class_names else -1 for n in images.class_names]
    return torch.tensor(known)[images.labels]


def ask(
    network: Network,
    conditions: Sequence[Condition],
    images: Images,
    advance: Callable[[int], object] = lambda _: None,
) -> Answers:
    """Return the log-odds of every task under every condition, for all pictures.

    Parameters
    ----------
    network : gives the pictures' preparation and the whole network's answer
    conditions : each repetition with its own network, which may be another
    images : decoded a batch at a time, once for all conditions
    advance : called with the number of pictures done for one task and repetition

    Raises
    ------
    ImageError
        The pictures do not fit the network.
    NadkitError
        A gated network gives NaN or infinite logits.
    """
    labels = labels_of(network, images)
    parts: list[list[Tensor]] = [[] for _ in conditions]
    every = []
    for pixels, _ in images.batches(at_once(network.input_shape, BATCH)):
        inputs = network.prepare(pixels)
        whole = whole_logits(network, inputs).cpu().double()
        every.append(whole)
        # Some conditions read other rows of the same gates.
        known: dict[int, Tensor] = {}
        for condition, found in zip(conditions, parts, strict=True):
            given = [inputs if one is network else one.prepare(pixels) for one in condition.networks]
            found.append(_ask(condition, given, whole, known, advance))
    answered = torch.cat(every)
    readings = [Readings(*torch.cat(found, dim=3)) for found in parts]
    return Answers(readings, in_steps(log_odds(answered)), labels, answered.argmax(1))


def _ask(
    condition: Condition,
    inputs: Sequence[Tensor],
    whole: Tensor,
    known: dict[int, Tensor],
    advance: Callable[[int], object],
) -> Tensor:
    """(4, n_repetitions, n_tasks, n_images) readings of one batch, prepared for each repetition's network."""
    count = len(condition.logits)
    if condition.gates is None:
        advance(len(whole) * count)
        return _read(condition, whole.expand(count, -1, -1), whole)[:, None]
    found = []
    for place, (network, gates) in enumerate(zip(condition.networks, condition.gates, strict=True)):
        logits = known.get(id(gates))
        if logits is None:
            logits = logits_of(network, gates, inputs[place])
            advance(len(whole) * count)
        if condition.name == "kept":
            known[id(gates)] = logits
        read = logits if condition.rows is None else logits[condition.rows[place]]
        found.append(_read(condition, read, whole))
    return torch.stack(found, dim=1)


def _read(condition: Condition, logits: Tensor, whole: Tensor) -> Tensor:
    """(4, n_tasks, n_images) readings of each task's own logit, of logits (n_tasks, n_images, n_classes)."""
    if not bool(torch.isfinite(logits).all()):
        raise NadkitError(
            f"{condition.networks[0].name} gives NaN or infinite logits under the condition "
            f"{condition.name!r}; no rate can be read from them: check its weights"
        )
    at = condition.logits[:, None, None].expand(-1, logits.shape[1], 1)
    # A softmax does not change with the mean of the logits, so that alone must not look like evidence.
    centred = logits - logits.mean(2, keepdim=True)
    parts = torch.stack([log_odds(logits), centred, -log_rest(centred)]).gather(3, at.expand(3, -1, -1, -1))
    before, after = whole.log_softmax(1), logits.log_softmax(2)
    divergence = (before.exp() * (before - after)).sum(2)
    # A closed layer makes all pictures alike up to float32's rounding, which must not rank them.
    return torch.cat([in_steps(parts[..., 0]), divergence[None]])


def in_steps(values: Tensor) -> Tensor:
    """Return values to the nearest step of EQUAL."""
    return (values / EQUAL).round() * EQUAL


def logits_of(network: Network, gates: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """Return the logits of prepared inputs under each row of gates, (n_rows, n_images, n_classes) float64.

    Equal rows, such as those of one shared mask, are run once.
    """
    together = torch.cat(list(gates.values()), dim=1)
    distinct, rows = together.unique(dim=0, return_inverse=True)
    parts = dict(zip(gates, distinct.split([gate.shape[1] for gate in gates.values()], dim=1), strict=True))
    return gated_logits(network, inputs, parts, batch_size=BATCH).cpu()[rows].double()


def live_units(network: Network, images: Images | None) -> dict[str, Tensor]:
    """Return by address which units are not 0 on all pictures, (n_units,) bool; all, without pictures.

    Raises
    ------
    NadkitError
        The network gives NaN or infinite logits.
    """
    live = {
        address: torch.full((layer.units,), images is None, dtype=torch.bool)
        for address, layer in network.layers.items()
    }
    if images is None:
        return live
    for pixels, _ in images.batches(at_once(network.input_shape, BATCH)):
        inputs = network.prepare(pixels)
        with frozen(network.model), torch.no_grad(), Taps(network) as taps:
            check_finite(network, network.logits(inputs))
        for address, values in taps.activations.items():
            live[address] |= active(network, address, values)
    return live


def active(network: Network, address: str, values: Tensor) -> Tensor:
    """Return which units of a layer are not 0 everywhere in what it gave, (n_units,) bool."""
    return (values.movedim(network.layers[address].axis, -1).flatten(0, -2) != 0).any(0).cpu()
