"""All forward passes of a question: pictures through every condition, one number per task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nadkit.errors import ImageError, NadkitError, closest
from nadkit.images import Images
from nadkit.networks import Network
from nadkit.networks.outputs import gated_logits, log_odds, whole_logits
from nadkit.questions.conditions import Condition

BATCH = 200
EQUAL = 1e-4
"""Log-odds are read to this step: what differs by less is a tie."""


class Answers(NamedTuple):
    """What every condition says to the same pictures.

    Attributes
    ----------
    log_odds : for each condition (n_repetitions, n_tasks, n_images) float64
    labels : (n_images,) class indices of the network
    chosen : (n_images,) the whole network's own answer, a class index
    """

    log_odds: list[Tensor]
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
    chosen = []
    for pixels, _ in images.batches(BATCH):
        inputs = network.prepare(pixels)
        whole = whole_logits(network, inputs).cpu()
        chosen.append(whole.argmax(1))
        for condition, found in zip(conditions, parts, strict=True):
            given = [inputs if one is network else one.prepare(pixels) for one in condition.networks]
            found.append(_ask(condition, given, whole, advance))
    return Answers([torch.cat(found, dim=2) for found in parts], labels, torch.cat(chosen))


def _ask(
    condition: Condition, inputs: Sequence[Tensor], whole: Tensor, advance: Callable[[int], object]
) -> Tensor:
    """(n_repetitions, n_tasks, n_images) log-odds of one batch, prepared for each repetition's network."""
    if condition.gates is None:
        advance(len(whole) * len(condition.logits))
        return _read(condition, whole.expand(len(condition.logits), -1, -1))[None]
    found = []
    for network, gates, given in zip(condition.networks, condition.gates, inputs, strict=True):
        rows, distinct = _distinct(gates)
        logits = gated_logits(network, given, distinct, batch_size=BATCH).cpu()
        found.append(_read(condition, logits[rows]))
        advance(len(whole) * len(condition.logits))
    return torch.stack(found)


def _read(condition: Condition, logits: Tensor) -> Tensor:
    """The log-odds of each task's own logit, (n_tasks, n_images) of logits (n_tasks, n_images, n_classes)."""
    if not bool(torch.isfinite(logits).all()):
        raise NadkitError(
            f"{condition.networks[0].name} gives NaN or infinite logits under the condition "
            f"{condition.name!r}; no rate can be read from them: check its weights"
        )
    at = condition.logits[:, None, None].expand(-1, logits.shape[1], 1)
    # A closed layer makes all pictures alike up to float32's rounding, which must not rank them.
    return (log_odds(logits.double()).gather(2, at)[..., 0] / EQUAL).round() * EQUAL


def _distinct(gates: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Each task's row among the distinct gates, and those; one shared mask is run once, not once a task."""
    together = torch.cat(list(gates.values()), dim=1)
    distinct, rows = together.unique(dim=0, return_inverse=True)
    sizes = [gate.shape[1] for gate in gates.values()]
    return rows, dict(zip(gates, distinct.split(sizes, dim=1), strict=True))
