"""What a task, and the others, lose when its most important units are removed from the whole network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nadkit.images import Images
from nadkit.masks import MaskSet
from nadkit.measures import Estimate, stratified_weights
from nadkit.networks import Network
from nadkit.networks.outputs import at_once, log_odds, whole_logits
from nadkit.questions.asked import check_finite
from nadkit.questions.chance import in_spreads
from nadkit.questions.forwards import BATCH, labels_of, logits_of
from nadkit.questions.metric import ANY, Metric
from nadkit.questions.outcomes import DRAWS, IMAGES, RANDOM, SEEDS
from nadkit.questions.tables import Origin, Row

DOSES = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Shares of all units, the most important first."""

MOST_DRAWS = 20
"""More draws than these tell a mean and a spread no better than anyone reads them."""


class Removal(NamedTuple):
    """One dose: what each seed removes, and as many random units (bool, (n_tasks, n_units) each)."""

    dose: str
    own: list[Tensor]
    random: list[Tensor]


def removals(sets: Sequence[MaskSet], draws: int, seed: int) -> list[Removal]:
    """Return every dose, weakest first; then all kept units, and those that no other task keeps.

    Random draw i removes as many units of each layer and task as masks i (counted around) do; the draws of
    one number are nested from dose to dose. Units of equal score come in a random order; a task whose units
    all score alike has none that score highest, and nothing is removed.
    """
    plans = [_plan(masks, seed) for masks in sets]
    found = []
    for dose in plans[0]:
        own = [plan[dose] for plan in plans]
        random = [
            _random(sets[0], own[draw % len(own)], seed + draw) for draw in range(min(draws, MOST_DRAWS))
        ]
        found.append(Removal(dose, own, random))
    return found


def _plan(masks: MaskSet, seed: int) -> dict[str, Tensor]:
    scores = torch.cat(list(masks.scores.values()), dim=1)
    kept = scores > 0.5
    shuffled = torch.rand(scores.shape, generator=torch.Generator().manual_seed(seed)).argsort(1)
    order = shuffled.gather(1, scores.gather(1, shuffled).argsort(dim=1, descending=True, stable=True))
    rank = order.argsort(1)
    units = scores.shape[1]
    told_apart = scores.amax(1, keepdim=True) > scores.amin(1, keepdim=True)
    doses = {f"{100 * dose:g} %": (rank < max(1, round(dose * units))) & told_apart for dose in DOSES}
    return {**doses, "kept": kept, "exclusive": kept & (kept.sum(0) == 1)}


def _random(masks: MaskSet, removed: Tensor, seed: int) -> Tensor:
    parts = removed.float().split(list(masks.unit_counts.values()), dim=1)
    indicator = MaskSet.from_scores(dict(zip(masks.scores, parts, strict=True)), masks.tasks)
    return torch.cat(list(indicator.random(seed).gates().values()), dim=1) > 0.5


class Losses(NamedTuple):
    """Drops of the log-odds of each picture's own task, (n_repetitions, n_tasks, n_images) each."""

    own: Tensor
    random: Tensor


def necessity_rows(
    network: Network, sets: Sequence[MaskSet], images: Images, draws: int, seed: int, progress: bool
) -> Iterator[Row]:
    """Yield drop_own, drop_others, their selectivity and the removed share of every dose.

    Parameters
    ----------
    network : the trained network
    sets : its masks, one or several seeds
    images : pictures whose class is no task's are left out
    draws : random removals of each dose, at most 20 are made
    seed : of the draws and the bootstrap
    progress : show a bar
    """
    tasks = sets[0].tasks
    at = torch.tensor([network.class_index(task) for task in tasks])
    labels = labels_of(network, images)
    asked = torch.isin(labels, at)
    plan, nothing = removals(sets, draws, seed), torch.zeros(len(tasks), 0).double()
    losses = [
        Losses(nothing.expand(len(one.own), -1, -1), nothing.expand(len(one.random), -1, -1)) for one in plan
    ]
    if bool(asked.any()):
        images, labels = images[asked], labels[asked]
        losses = _losses(network, sets[0], plan, images, labels, progress)
    else:
        labels = labels[:0]
    weights = stratified_weights(labels, DRAWS, seed)
    there = at[:, None] == labels
    interval = IMAGES if len(sets) == 1 else SEEDS
    first = sets[0].meta.get("seed")
    mask_seed = first if len(sets) == 1 and isinstance(first, int) else None
    units = network.units
    for removal, (own, random) in zip(plan, losses, strict=True):
        removed = Origin(network.name, tasks, "removed", interval, mask_seed).at(dose=removal.dose)
        by_chance = Origin(network.name, tasks, "removed_random", RANDOM, seed).at(dose=removal.dose)
        which = torch.stack(removal.own)
        if removal.dose.endswith("%"):
            # Nothing scores highest where all score alike: there is no such dose, rather than one of 0.
            none = ~which.any(2).all(0)
            own, random = (each.masked_fill(none[:, None], torch.nan) for each in (own, random))
        else:
            none = torch.zeros(len(tasks), dtype=torch.bool)
        shares = which.double().mean(2).mean(0).masked_fill(none, torch.nan)
        yield from removed.counted("removed_share", shares.tolist(), units)
        for name, own_pictures in (("own", True), ("others", False)):
            kept = _drop(f"drop_{name}", own, there, own_pictures, weights)
            yield from removed.rows(kept)
            if not len(random):
                continue
            null = _drop(f"drop_{name}", random, there, own_pictures, None)
            yield from by_chance.rows(null)
            yield from _selectivity(removed, "selectivity" + "_others" * (not own_pictures), kept, null)


def _losses(
    network: Network,
    masks: MaskSet,
    plan: Sequence[Removal],
    images: Images,
    labels: Tensor,
    progress: bool,
) -> list[Losses]:
    from tqdm.auto import tqdm

    sizes = list(masks.unit_counts.values())
    found: list[tuple[list[Tensor], list[Tensor]]] = [([], []) for _ in plan]
    runs = sum(len(removal.own) + len(removal.random) for removal in plan) * len(masks.tasks)
    start = 0
    with tqdm(total=len(images) * runs, disable=not progress, desc="necessity", unit_scale=True) as bar:
        for pixels, _ in images.batches(at_once(network.input_shape, BATCH)):
            inputs = network.prepare(pixels)
            own = labels[start : start + len(inputs)]
            start += len(inputs)
            before = _of_class(whole_logits(network, inputs).cpu().double(), own)
            for removal, parts in zip(plan, found, strict=True):
                for removed, part in zip((removal.own, removal.random), parts, strict=True):
                    drops = []
                    for which in removed:
                        gates = _gates(masks.scores, which, sizes)
                        logits = logits_of(network, gates, inputs)
                        check_finite(network, logits)
                        drops.append(before - _of_class(logits, own))
                        bar.update(len(inputs) * len(masks.tasks))
                    shape = (0, len(masks.tasks), len(inputs))
                    part.append(torch.stack(drops) if drops else torch.empty(shape).double())
    return [Losses(*(torch.cat(part, 2) for part in parts)) for parts in found]


def _gates(layers: Mapping[str, Tensor], removed: Tensor, sizes: list[int]) -> dict[str, Tensor]:
    return dict(zip(layers, (~removed).float().split(sizes, dim=1), strict=True))


def _of_class(logits: Tensor, labels: Tensor) -> Tensor:
    """The log-odds of each picture's own class, (..., n_images) of logits (..., n_images, n_classes)."""
    at = labels[:, None].expand(*logits.shape[:-1], 1)
    return log_odds(logits).gather(-1, at)[..., 0]


def _drop(name: str, losses: Tensor, there: Tensor, own: bool, weights: Tensor | None) -> Metric:
    """The mean loss of each task on its own pictures, or of the others on theirs, each task counting once."""
    tasks, pictures = there.shape
    counts = there.sum(1)
    same = torch.eye(tasks, dtype=torch.bool)
    pick = (same if own else ~same) & (counts > 0)

    def chosen(given: Tensor) -> Tensor:
        """(n_repetitions, n_tasks, n_draws) of weights (n_draws, n_images)."""
        total = torch.zeros(*losses.shape[:2], len(given), dtype=torch.float64)
        for place in pick.any(0).nonzero().flatten().tolist():
            mine = there[place]
            means = losses[:, :, mine] @ given[:, mine].T / counts[place]
            total += means * pick[:, place, None]
        return total / pick.sum(1)[:, None]

    values = chosen(torch.ones(1, pictures).double())[..., 0]
    drawn = torch.empty(*values.shape, 0) if weights is None else chosen(weights)
    return Metric(name, values, (pick.long() * counts).sum(1), pictures, drawn, limits=ANY)


def _selectivity(origin: Origin, name: str, kept: Metric, null: Metric) -> Iterator[Row]:
    """How far the drop is from that of random removals, in their standard deviations."""
    there = ~(kept.values.isnan().any(0) | null.values.isnan().any(0))
    columns = [*null.values.T, null.values[:, there].mean(1)]
    estimates: list[Estimate] = [*kept.estimates(), kept.mean()]
    counts = [*kept.counts.tolist(), kept.pictures]
    interval = f"{origin.interval}; the spread is that of random draws"
    for task, found, draws, n in zip((*origin.tasks, "mean"), estimates, columns, counts, strict=True):
        yield origin.row(task, name, in_spreads(found, draws), n, interval=interval)
