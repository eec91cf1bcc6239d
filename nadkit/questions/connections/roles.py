"""What units say: which are dead, which accept for a task, and which reject for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nadkit.images import Images
from nadkit.masks import MaskSet
from nadkit.measures.intervals import Z95
from nadkit.networks import Network
from nadkit.networks.outputs import at_once, log_odds
from nadkit.questions.connections.facts import Facts, mean_of, over_sets
from nadkit.questions.connections.pairs import Kept
from nadkit.questions.forwards import BATCH, EQUAL, labels_of
from nadkit.taps import Taps, frozen

PER_CLASS = 50
"""Pictures of each class, at most, that tell what a unit does for a task."""


class Roles(NamedTuple):
    """What the units that a task keeps do for it, by address (n_tasks, n_units) bool.

    Attributes
    ----------
    accepts : raises the task's log-odds on its own pictures
    rejects : lowers them on the others' pictures
    known : (n_tasks,) there are two pictures of the task or more, and two of another class
    """

    accepts: dict[str, Tensor]
    rejects: dict[str, Tensor]
    known: Tensor


def roles(
    network: Network, masks: MaskSet, images: Images, seed: int, advance: Callable[[int], object]
) -> Roles:
    """Return which kept units accept and which reject, to first order, in the network gated to each task.

    Parameters
    ----------
    network : the network
    masks : the tasks' own
    images : at most `PER_CLASS` pictures of each class are used
    seed : of the pictures taken
    advance : called with the number of pictures done for one task

    Notes
    -----
    With every gate of the gated network at 1, the gradient of the log-odds with respect to a unit's gate is,
    to first order, what the unit's presence adds to them. It is taken for each picture. A unit accepts if its
    mean over the task's own pictures is above 0 by more than 1.96 standard errors, and rejects if its mean
    over the other classes' pictures (every class counting alike) is below 0 by as much; what moves the
    log-odds by less than 0.0001 does neither.
    """
    images = few(images, seed)
    labels = labels_of(network, images)
    gates = masks.gates()
    accepts = {address: torch.zeros(rows.shape, dtype=torch.bool) for address, rows in gates.items()}
    rejects = {address: rows.clone() for address, rows in accepts.items()}
    known = torch.zeros(len(masks.tasks), dtype=torch.bool)
    pictures = torch.bincount(labels, minlength=len(network.class_names))
    for row, task in enumerate(masks.tasks):
        own = network.class_index(task)
        others = [k for k in (pictures > 1).nonzero().flatten().tolist() if k != own]
        known[row] = bool(pictures[own] > 1) and bool(others)
        if not known[row]:
            advance(len(images))
            continue
        opened = {address: rows[row] for address, rows in gates.items()}
        moments = _moments(network, opened, images, labels, own, advance)
        for address, (sums, squares) in moments.items():
            kept = opened[address].bool()
            mean, error = _stratified(sums, squares, pictures, [own])
            accepts[address][row] = kept & (mean > (Z95 * error).clamp(min=EQUAL))
            mean, error = _stratified(sums, squares, pictures, others)
            rejects[address][row] = kept & (mean < -(Z95 * error).clamp(min=EQUAL))
    return Roles(accepts, rejects, known)


def few(images: Images, seed: int) -> Images:
    """Return at most `PER_CLASS` pictures of each class, picked by seed; a class that has fewer gives all."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator)
    picked = [order[images.labels[order] == label][:PER_CLASS] for label in images.labels.unique().tolist()]
    return images[torch.cat(picked).sort().values]


def _moments(
    network: Network,
    gates: Mapping[str, Tensor],
    images: Images,
    labels: Tensor,
    own: int,
    advance: Callable[[int], object],
) -> dict[str, tuple[Tensor, Tensor]]:
    """By address the sum over each class's pictures of the gates' gradients, and of their squares."""
    classes, device = len(network.class_names), network.device
    found = {
        address: (torch.zeros(classes, len(gate)).double(), torch.zeros(classes, len(gate)).double())
        for address, gate in gates.items()
    }
    start = 0
    for pixels, _ in images.batches(at_once(network.input_shape, BATCH)):
        inputs = network.prepare(pixels)
        # A row of gates for every picture gives every picture's gradient in one pass.
        leaves = {
            address: gate.to(device).repeat(len(inputs), 1).requires_grad_()
            for address, gate in gates.items()
        }
        with frozen(network.model), Taps(network, (), gates=leaves, rows=torch.arange(len(inputs))):
            answers = log_odds(network.logits(inputs).double())[:, own]
        gradients = torch.autograd.grad(answers.sum(), list(leaves.values()), allow_unused=True)
        here = torch.nn.functional.one_hot(labels[start : start + len(inputs)], classes).double().T
        for (sums, squares), gradient in zip(found.values(), gradients, strict=True):
            if gradient is not None:
                values = gradient.double().cpu()
                sums += here @ values
                squares += here @ values.square()
        start += len(inputs)
        advance(len(inputs))
    return found


def _stratified(
    sums: Tensor, squares: Tensor, pictures: Tensor, classes: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """The mean over classes of their pictures' means, (n_units,), and its standard error."""
    n = pictures[classes][:, None].double()
    means = sums[classes] / n
    variances = (squares[classes] / n - means.square()).clamp(min=0) * n / (n - 1)
    return means.mean(0), (variances / n).sum(0).sqrt() / len(classes)


def add_roles(
    facts: Facts,
    tasks: Sequence[str],
    kept: Sequence[Kept],
    live: Mapping[str, Tensor],
    found: Sequence[Roles],
) -> None:
    """Add how the shared units of every task split into those that accept and those that reject.

    Parameters
    ----------
    facts : get the rows
    tasks : their names
    kept : for each set of masks, its live units
    live : which units of each layer they are
    found : for each set of masks
    """
    splits, sizes = zip(
        *(_split(one, live, roles) for one, roles in zip(kept, found, strict=True)), strict=True
    )
    stack, shared = torch.stack(splits), torch.stack(sizes).mean(0)
    for row, role in enumerate(("accepts", "rejects", "accepts_and_rejects", "neither")):
        for place, layer in enumerate((*live, "all")):
            values = stack[:, row, :, place]
            for at, task in enumerate(tasks):
                n = float(shared[at, place])
                facts.add(task, layer, f"shared_{role}", over_sets(values[:, at]), n, facts.counted)
            facts.add("mean", layer, f"shared_{role}", *mean_of(values.nanmean(0)), facts.tasks)


def _split(kept: Kept, live: Mapping[str, Tensor], found: Roles) -> tuple[Tensor, Tensor]:
    """(4, n_tasks, n_layers + 1) share of each task's shared units in each role, and how many those are."""
    counts, sizes = [], []
    for address, rows in kept.items():
        accepts, rejects = (one[address][:, live[address]] for one in (found.accepts, found.rejects))
        shared = rows & (rows.sum(0) > 1)
        parts = [accepts & ~rejects, rejects & ~accepts, accepts & rejects, ~(accepts | rejects)]
        counts.append(torch.stack([(shared & part).sum(1) for part in parts]).double())
        sizes.append(shared.sum(1).double())
    units, total = (torch.stack(one, dim=-1) for one in (counts, sizes))
    units, total = (torch.cat([one, one.sum(-1, keepdim=True)], dim=-1) for one in (units, total))
    split = (units / total).masked_fill(~found.known[:, None], torch.nan)
    return split, total
