"""How many of the kept units a task can do without: one at a time, and one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nadkit.images import Images
from nadkit.masks import MaskSet
from nadkit.measures import stratified_weights
from nadkit.networks import Network
from nadkit.networks.outputs import log_odds
from nadkit.questions.asked import check_finite
from nadkit.questions.forwards import EQUAL, in_steps, labels_of, logits_of
from nadkit.questions.metric import Metric
from nadkit.questions.outcomes import DRAWS, IMAGES, SEEDS
from nadkit.questions.tables import Origin, Row

PICTURES = 20
"""Own pictures of a task, and about as many of the others: each is answered once for every unit tried."""

KEPT, ADDED = 400, 100
"""At most so many kept units of a task are tried alone, and so many removed ones are added back."""

STEPS = 20
"""Pruning looks at so many sizes first, then at so many between the two where it loses 1 %, and so on."""

LOSS = 0.01

TIE = 2 * EQUAL
"""Log-odds on own and on others' pictures that differ by less may differ by rounding alone."""


class Tried(NamedTuple):
    """What one task's mask loses: both for the units as they are and for every draw of the bootstrap."""

    minimality: tuple[float, Tensor]
    needed: tuple[float, Tensor]
    pictures: Tensor


def minimality_rows(
    network: Network, sets: Sequence[MaskSet], images: Images, seed: int, progress: bool
) -> Iterator[Row]:
    """Yield minimality and needed_share of every task and their mean.

    Parameters
    ----------
    network : the trained network
    sets : its masks, one or several seeds
    images : at most 20 pictures of each task and about as many of other classes are taken
    seed : of the pictures and units taken and of the bootstrap
    progress : show a bar
    """
    from tqdm.auto import tqdm

    tasks = sets[0].tasks
    labels = labels_of(network, images)
    tried = []
    with tqdm(total=len(sets) * len(tasks), disable=not progress, desc="minimality", unit="task") as bar:
        for masks in sets:
            for task in tasks:
                tried.append(_try(network, masks, task, images, labels, seed))
                bar.update(1)
    interval = IMAGES if len(sets) == 1 else SEEDS
    first = sets[0].meta.get("seed")
    mask_seed = first if len(sets) == 1 and isinstance(first, int) else None
    origin = Origin(network.name, tasks, "kept", interval, mask_seed)
    # The same for every seed.
    chosen = [one.pictures for one in tried[: len(tasks)]]
    counts = torch.tensor([len(rows) for rows in chosen])
    for name in ("minimality", "needed_share"):
        found = [one.minimality if name == "minimality" else one.needed for one in tried]
        values = torch.tensor([value for value, _ in found]).double().view(len(sets), -1)
        draws = torch.stack([each for _, each in found]).view(len(sets), len(tasks), -1)
        there = [rows for rows, value in zip(chosen, values.T, strict=True) if not bool(value.isnan().any())]
        pictures = len(torch.cat(there).unique()) if there else 0
        yield from origin.rows(Metric(name, values, counts, pictures, draws))


def _try(network: Network, masks: MaskSet, task: str, images: Images, labels: Tensor, seed: int) -> Tried:
    """One task's kept units removed one by one, removed ones added back, and the kept ones pruned."""
    nothing = torch.full((DRAWS,), torch.nan, dtype=torch.float64)
    label = network.class_index(task)
    chosen = _pictures(labels, label, seed)
    kept = torch.cat(list(masks.gates(task).values())) > 0.5
    own = labels[chosen] == label
    if not bool(kept.any()) or not bool(own.any()) or bool(own.all()):
        return Tried((torch.nan, nothing), (torch.nan, nothing), chosen)
    inputs = network.prepare(images[chosen].pixels)
    weights = stratified_weights(labels[chosen], DRAWS, seed)
    # The pair: the task's log-odds on its own pictures less those on the others', so that no shift of all
    # log-odds, which a calibration takes away, counts.
    sign = torch.where(own, 1 / own.sum(), -1 / (~own).sum()).double()
    pairs = torch.cat([torch.ones(1, len(own)).double(), weights]) * sign

    def paired(rows: Tensor) -> Tensor:
        """(n_rows, 1 + DRAWS) of gates (n_rows, n_units): of the pictures as they are, and of every draw."""
        gates = rows.float().split(list(masks.unit_counts.values()), dim=1)
        logits = logits_of(network, dict(zip(masks.scores, gates, strict=True)), inputs)
        check_finite(network, logits)
        return in_steps(log_odds(logits)[..., label]) @ pairs.T

    ours, theirs = _some(kept, KEPT, seed), _some(~kept, ADDED, seed)
    flipped = kept.repeat(1 + len(ours) + len(theirs), 1)
    which = torch.cat([ours, theirs])
    flipped[torch.arange(1, len(flipped)), which] = ~kept[which]
    found = paired(flipped)
    worth = found[0] - found[1 : 1 + len(ours)]
    others = found[1 + len(ours) :] - found[0]
    shares = torch.full(
        (1 + DRAWS,), torch.nan, dtype=torch.float64
    )  # without removed units to be held against
    if len(theirs):
        shares = (worth > others.quantile(0.95, dim=0) + TIE).double().mean(0)
    order = ours[worth[:, 0].argsort()]
    if len(ours) < int(kept.sum()):
        scores = torch.cat(list(masks.scores.values()), dim=1)[masks.tasks.index(task)]
        every = _some(kept, int(kept.sum()), seed, in_order=False)
        order = every[scores[every].argsort(stable=True)]
    needed = _pruned(paired, kept, order)
    return Tried((float(shares[0]), shares[1:]), (float(needed[0]), needed[1:]), chosen)


def _pruned(paired: Callable[[Tensor], Tensor], kept: Tensor, order: Tensor) -> Tensor:
    """(1 + DRAWS) shares of the kept units that are left at the last size before the first loss of 1 %."""

    def measured(sizes: list[int]) -> Tensor:
        rows = kept.repeat(len(sizes), 1)
        for row, size in zip(rows, sizes, strict=True):
            row[order[:size]] = False
        return paired(rows)

    sizes = _between(-1, len(order) + 1)
    found = measured(sizes)
    while bool((lost := found[:, 0] < (1 - LOSS) * found[0, 0]).any()):
        at = int(lost.nonzero()[0])
        between = _between(sizes[max(at - 1, 0)], sizes[at])
        if not between:
            break
        found = torch.cat([found[:at], measured(between), found[at:]])
        sizes = sizes[:at] + between + sizes[at:]
    start = found[0]
    passed = (found < (1 - LOSS) * start).double().cummax(0).values
    last = (1 - passed).sum(0).long().clamp(min=1) - 1
    left = 1 - torch.tensor(sizes)[last].double() / int(kept.sum())
    # What tells no pictures apart can lose nothing.
    return torch.where(start > TIE, left, left[0]) if float(start[0]) > TIE else left * torch.nan


def _between(low: int, high: int) -> list[int]:
    """All whole numbers between the two, or about STEPS of them from the first to the last."""
    first, last = low + 1, high - 1
    steps = min(STEPS, last - first)
    return sorted({first + round((last - first) * step / max(steps, 1)) for step in range(steps + 1)})


def _pictures(labels: Tensor, label: int, seed: int) -> Tensor:
    """Rows of at most PICTURES of the class, and about as many of the others, alike for every class."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    own = order[labels[order] == label][:PICTURES]
    present = [other for other in labels.unique().tolist() if other != label]
    each = max(1, round(len(own) / max(1, len(present))))
    others = torch.cat([own[:0], *(order[labels[order] == other][:each] for other in present)])
    if len(others) > PICTURES:  # of more classes than pictures, so many at random
        others = others[torch.randperm(len(others), generator=generator)[:PICTURES]]
    return torch.cat([own, others]).sort().values


def _some(which: Tensor, most: int, seed: int, *, in_order: bool = True) -> Tensor:
    """Indices of the true entries, at random so many at most."""
    there = which.nonzero().flatten()
    generator = torch.Generator().manual_seed(seed)
    chosen = there[torch.randperm(len(there), generator=generator)[:most]]
    return chosen.sort().values if in_order else chosen
