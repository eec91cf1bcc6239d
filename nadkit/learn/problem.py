"""What is to be learned, checked once: pictures, tasks, targets, and the streams that draw from them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nadkit.errors import ImageError, NadkitError, closest
from nadkit.images import Images
from nadkit.networks import Network, make_untrained, whole_logits
from nadkit.networks.outputs import at_once

FEWEST = 5  # own pictures a task needs; with fewer, a mask memorises them


class Stream:
    """An endless, seeded order of pictures, known at any step without the steps before.

    Reshuffled every epoch; with `likely`, each place is filled with probability `hard` by a picture drawn
    in proportion to it, else by the next of the shuffled ones.
    """

    def __init__(self, pool: Tensor, batch: int, seed: int, likely: Tensor | None = None, hard: float = 0.0):
        self.pool, self.batch, self.seed, self.hard = pool, batch, seed, hard
        self.likely = None if likely is None else likely.double().clamp(min=1e-12)
        self.per_epoch = max(1, -(-len(pool) // batch)) if batch else 1
        self._epoch, self._order = -1, pool

    def take(self, step: int) -> Tensor:
        """Return the picture indices of one step; the last batch of an epoch may be smaller."""
        epoch, at = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**64)
            order = self.pool[torch.randperm(len(self.pool), generator=generator)]
            if self.likely is not None and len(order):
                drawn = torch.multinomial(self.likely, len(order), replacement=True, generator=generator)
                chance = torch.rand(len(order), generator=generator) < self.hard
                order = torch.where(chance, self.pool[drawn], order)
            self._epoch, self._order = epoch, order
        return self._order[at * self.batch : (at + 1) * self.batch]


@dataclass(frozen=True)
class Problem:
    """Everything a run needs beside the objective.

    Attributes
    ----------
    network : the network that is gated (with fresh weights for the control `untrained`)
    tasks : names, one per row
    logit : (n_tasks,) the logit each task accepts with
    accepts : (n_tasks,) the class whose pictures it must accept (another one under `relabelled`)
    pixels, labels : pictures and their class among the network's
    answer : (N,) the class that the trained network's largest logit names
    whole : (N, n_classes) the trained network's probabilities
    soft : (N, n_classes) the same at temperature 2, for drawing confusable pictures
    notes : what the mask file must carry to evaluate a control
    """

    network: Network
    tasks: tuple[str, ...]
    logit: Tensor
    accepts: Tensor
    pixels: Any
    labels: Tensor
    answer: Tensor
    whole: Tensor
    soft: Tensor
    notes: dict[str, Any] = field(default_factory=dict)

    def own(self, row: int) -> Tensor:
        """Return the indices of a task's own pictures."""
        return (self.labels == self.accepts[row]).nonzero().flatten()

    def others(self, row: int) -> Tensor:
        """Return the indices of all other pictures."""
        return (self.labels != self.accepts[row]).nonzero().flatten()

    def wanted(self, index: Tensor, rows: Tensor) -> Tensor:
        """Return what pictures should be answered when gated by tasks: the trained network's probabilities.

        Where a task accepts another class than its own, the two have changed places, (n, n_classes).
        """
        found = self.whole[index].clone()
        each, logit, accepts = torch.arange(len(index)), self.logit[rows], self.accepts[rows]
        found[each, logit] = self.whole[index, accepts]
        found[each, accepts] = self.whole[index, logit]
        return found

    def digest(self) -> str:
        """Return 16 hex digits that name the pictures and tasks, for checkpoints."""
        sha = hashlib.sha256(repr((self.tasks, self.accepts.tolist(), tuple(self.pixels.shape))).encode())
        sha.update(self.labels.numpy().tobytes())
        sample = torch.linspace(0, len(self.labels) - 1, min(64, len(self.labels))).long()
        sha.update(self.pixels[sample].contiguous().view(torch.uint8).numpy().tobytes())
        return sha.hexdigest()[:16]


def derangement(items: Sequence[int], seed: int) -> dict[int, int]:
    """Return a seeded permutation that leaves nothing where it was.

    Examples
    --------
    >>> moved = derangement([0, 1, 2], seed=0)
    >>> sorted(moved.values()), any(k == v for k, v in moved.items())
    ([0, 1, 2], False)
    """
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(items), generator=generator).tolist()
        if all(i != j for i, j in enumerate(order)):
            return {items[i]: items[j] for i, j in enumerate(order)}


def set_up(
    network: Network, images: Images, tasks: Sequence[str] | None, control: str | None, seed: int
) -> Problem:
    """Check pictures and tasks against the network, run it once over all pictures, prepare a control."""
    images.check()  # pixels or labels may have been changed in place since they were made
    counts = images.counts()
    unknown = [c for c in images.class_names if counts[c] and c not in network.class_names]
    if unknown:
        near = closest(unknown[0], network.class_names)
        raise ImageError(f"pictures of {unknown[0]!r}, which {network.name} has no class for; {near}")
    names = (
        tuple(tasks)
        if tasks is not None
        else tuple(c for c in network.class_names if c in images.class_names)
    )
    if not names or len(set(names)) != len(names):
        raise NadkitError(f"tasks must be class names, each once, at least one; got {list(names)}")
    logit = torch.tensor([network.class_index(name) for name in names])
    known = [network.class_index(c) if c in network.class_names else -1 for c in images.class_names]
    labels = torch.tensor(known)[images.labels]
    present = labels.unique().tolist()
    accepts = logit.clone()
    notes: dict[str, Any] = {}
    if control == "relabelled":
        if len(present) < 2:
            raise NadkitError("the relabelled control needs pictures of at least two classes")
        moved = derangement(present, seed)
        accepts = torch.tensor([moved.get(k, k) for k in logit.tolist()])
        notes["permutation"] = accepts.tolist()
    for name, k in zip(names, accepts.tolist(), strict=True):
        count = int((labels == k).sum())
        if count < FEWEST:
            which = f"{network.class_names[k]!r}" + (
                f" (which {name!r} must accept here)" if control == "relabelled" else ""
            )
            raise ImageError(
                f"{count} pictures of {which}: at least {FEWEST} are needed to learn from; there are {counts}"
            )
    small = len(images) * network.input_shape[0] * network.input_shape[1] * network.input_shape[2] < 2**28
    pixels = images.pixels[:] if small else images.pixels
    size = at_once(network.input_shape, 500)
    outputs = torch.cat(
        [
            whole_logits(network, network.prepare(pixels[i : i + size])).cpu()
            for i in range(0, len(labels), size)
        ]
    )
    finite = torch.isfinite(outputs).all(1)
    if not bool(finite.all()):
        raise NadkitError(
            f"{network.name} gives NaN or infinite logits for {int((~finite).sum())} of {len(finite)} "
            f"pictures (the first is {int((~finite).nonzero()[0])}); check its weights"
        )
    gated = network
    if control == "untrained":
        sample = torch.linspace(0, len(labels) - 1, min(1000, len(labels))).long()
        gated, notes["untrained"] = make_untrained(network, network.prepare(pixels[sample]), seed=seed)
    answer, soft = outputs.argmax(1), (outputs.float() / 2).softmax(1)
    return Problem(gated, names, logit, accepts, pixels, labels, answer, outputs.softmax(1), soft, notes)
