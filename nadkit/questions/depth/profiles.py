"""From shares to one number per task and layer, its draws of a bootstrap, and what depth does to it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nadkit.measures import NO_VALUE, Estimate, percentiles, resample_seeds, stratified_weights
from nadkit.measures.hits import depth_correlation
from nadkit.questions.outcomes import DRAWS, RANDOM
from nadkit.questions.tables import COUNTED, Row


@dataclass(frozen=True, eq=False)
class Shares:
    """One condition's shares on every mosaic or picture.

    Attributes
    ----------
    condition : of the vocabulary
    values : (n_repetitions, n, n_places, n_layers), NaN where there is none
    asked : how many there would be for each layer if all had a value
    seed : of the masks or of the draws
    drawn : True if the repetitions are random draws, whose spread is the interval
    """

    condition: str
    values: Tensor
    asked: int
    seed: int | None = None
    drawn: bool = False


@dataclass(frozen=True, eq=False)
class Profile:
    """One number per task and layer; the last task is the mean over tasks.

    Attributes
    ----------
    condition, metric, seed, interval : as in the table
    values : (n_tasks + 1, n_layers), NaN where there is none
    draws : (n_draws, n_tasks + 1, n_layers)
    counts : (n_tasks + 1, n_layers) mosaics or pictures that have a value
    """

    condition: str
    metric: str
    values: Tensor
    draws: Tensor
    counts: Tensor
    seed: int | None
    interval: str


def profile(
    shares: Shares, metric: str, unit: str, tasks: Tensor, count: int, strata: Tensor, seed: int
) -> Profile:
    """Return the means of one condition, task by task and layer by layer.

    Parameters
    ----------
    shares : of mosaics or pictures
    metric, unit : what it is, and what a bootstrap draws
    tasks : (n, n_places), -1 for none
    count : how many tasks there are
    strata : (n,) each drawn for itself
    seed : of the bootstrap, the same for all conditions, so that they are paired

    Returns
    -------
    Profile
        Repetitions count alike. The mean over tasks is over those with a value in that layer.
    """
    there = ~shares.values.isnan()
    of_task = (tasks[..., None] == torch.arange(count)).double()
    # Sums over places, task by task: all that a mosaic adds to any mean.
    sums = torch.einsum("rnsl,nst->rntl", shares.values.nan_to_num(), of_task)
    numbers = torch.einsum("rnsl,nst->rntl", there.double(), of_task)
    single = sums.sum(1) / numbers.sum(1)
    if shares.drawn:
        draws, interval = _with_mean(single), RANDOM
    else:
        weights = stratified_weights(strata, DRAWS, seed)
        drawn = torch.einsum("bn,rntl->brtl", weights, sums)
        drawn = drawn / torch.einsum("bn,rntl->brtl", weights, numbers)
        picks = resample_seeds(len(single), DRAWS, seed + 1)
        draws = _with_mean(_over_repetitions(drawn, picks))
        interval = _interval(shares.condition, len(single), unit)
    counts = torch.cat([(numbers > 0).any(0).sum(0), there.any(0).any(1).sum(0)[None]])
    values = _with_mean(_over_repetitions(single[None], torch.ones(1, len(single))))[0]
    return Profile(shares.condition, metric, values, draws, counts, shares.seed, interval)


def difference(first: Profile, second: Profile, metric: str) -> Profile:
    """Return what the first condition has over the second, of the same mosaics or pictures."""
    return replace(
        first,
        metric=metric,
        values=_with_mean((first.values - second.values)[None, :-1])[0],
        draws=_with_mean((first.draws - second.draws)[:, :-1]),
        counts=torch.minimum(first.counts, second.counts),
    )


def correlation_with_depth(one: Profile) -> Profile:
    """Return the rank correlation of the numbers with the order of the layers, a single layer "all"."""
    return replace(
        one,
        metric=f"{one.metric}_spearman",
        values=depth_correlation(one.values)[:, None],
        draws=depth_correlation(one.draws)[..., None],
        counts=one.counts.max(1, keepdim=True).values,
    )


def steps(one: Profile, layers: Sequence[str]) -> tuple[Profile, list[str]]:
    """Return the changes from each layer with a value to the next, and the names of those next layers."""
    there = (~one.values[-1].isnan()).nonzero().flatten()
    before, after = there[:-1], there[1:]
    found = replace(
        one,
        metric=f"{one.metric}_step",
        values=one.values[:, after] - one.values[:, before],
        draws=one.draws[..., after] - one.draws[..., before],
        counts=torch.minimum(one.counts[:, after], one.counts[:, before]),
    )
    return found, [layers[place] for place in after.tolist()]


def rows_of(network: str, one: Profile, tasks: Sequence[str], layers: Sequence[str]) -> Iterator[Row]:
    """Yield a row for each layer of each task and of their mean; without tasks, of the mean alone."""
    names = [*tasks, "mean"]
    for place, task in enumerate(names, len(one.values) - len(names)):
        for at, layer in enumerate(layers):
            value = float(one.values[place, at])
            estimate, count = NO_VALUE, 0
            if not math.isnan(value):
                estimate = Estimate(value, *percentiles(one.draws[:, place, at]))
                count = int(one.counts[place, at])
            yield _row(
                network, one.condition, task, layer, one.metric, estimate, count, one.seed, one.interval
            )


def undefined_rows(network: str, shares: Shares, metric: str, layers: Sequence[str]) -> Iterator[Row]:
    """Yield for each layer the share of what was asked for that has no value."""
    there = (~shares.values.isnan()).sum((0, 1, 2)).tolist()
    for layer, count in zip(layers, there, strict=True):
        share = 1 - count / shares.asked if shares.asked else math.nan
        counted, name = Estimate(share, share, share), f"{metric}_undefined"
        yield _row(network, shares.condition, "all", layer, name, counted, shares.asked, shares.seed, COUNTED)


def _row(
    network: str,
    condition: str,
    task: str,
    layer: str,
    metric: str,
    estimate: Estimate,
    n: int,
    seed: int | None,
    interval: str,
) -> Row:
    return {
        "network": network,
        "task": task,
        "condition": condition,
        "layer": layer,
        "metric": metric,
        **estimate._asdict(),
        "n": n,
        "seed": seed,
        "interval": interval,
    }


def _with_mean(values: Tensor) -> Tensor:
    """Append the mean over tasks that have a value: (n, n_tasks, n_layers) to (n, n_tasks + 1, n_layers)."""
    return torch.cat([values, values.nanmean(1, keepdim=True)], dim=1)


def _over_repetitions(values: Tensor, weights: Tensor) -> Tensor:
    """The weighted mean over dimension 1 of (n, n_repetitions, n_tasks, n_layers), NaN left out."""
    there = ~values.isnan()
    weights = weights[..., None, None]
    return (weights * values.nan_to_num()).sum(1) / (weights * there).sum(1)


def _interval(condition: str, repetitions: int, unit: str) -> str:
    """What varies, in words."""
    if condition in ("whole", "area"):
        return unit
    return f"{unit}, given this mask" if repetitions == 1 else f"mask seeds × {unit}"
