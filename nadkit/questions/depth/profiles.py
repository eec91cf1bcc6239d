"""From shares to one number per task and layer, its draws of a bootstrap, and what depth does to it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nadkit.measures import NO_VALUE, Estimate, percentiles, stratified_weights
from nadkit.measures.hits import depth_correlation
from nadkit.measures.intervals import Z95
from nadkit.measures.resampling import student
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
    draws : (n_draws, n_tasks + 1, n_layers) of a bootstrap of mosaics or pictures, or random masks
    seeds : (n_seeds, n_tasks + 1, n_layers) of each set of masks; a single one of random masks
    counts : (n_tasks + 1, n_layers) mosaics or pictures that have a value
    """

    condition: str
    metric: str
    values: Tensor
    draws: Tensor
    seeds: Tensor
    counts: Tensor
    seed: int | None
    interval: str

    def estimate(self, task: int, layer: int) -> Estimate:
        """Return one number with its interval; few mosaics, and what seeds add, count for Student's t."""
        value = float(self.values[task, layer])
        if math.isnan(value):
            return NO_VALUE
        draws, seeds = self.draws[:, task, layer], self.seeds[:, task, layer]
        ends, least = percentiles(draws), 0.0 if self.metric in RATES else -1.0
        if self.interval != RANDOM:
            count, variance = int(self.counts[task, layer]), float(draws[~draws.isnan()].var())
            if count < 2:  # one mosaic tells nothing of others
                return Estimate(value, least, 1.0)
            factor = student(count - 1) / Z95
            ends = apart(value, ends, factor)
            if len(seeds) > 1:
                ends = widened(value, ends, factor**2 * variance, seeds[~seeds.isnan()])
        return Estimate(value, max(least, ends[0]), min(1.0, ends[1]))


RATES = ("hit_rate", "hit_rate_official", "evidence_share")
"""Metrics in [0, 1]; differences and rank correlations lie in [-1, 1]."""


def apart(value: float, ends: tuple[float, float], factor: float) -> tuple[float, float]:
    """Return the ends of an interval, so many times as far from the value; an end beyond it stays.

    Examples
    --------
    >>> apart(0.5, (0.25, 0.625), 2.0), apart(0.5, (0.625, 0.75), 2.0)
    ((0.0, 0.75), (0.625, 1.0))
    """
    low, high = ends
    return min(low, value - factor * (value - low)), max(high, value + factor * (high - value))


def widened(value: float, ends: tuple[float, float], variance: float, seeds: Tensor) -> tuple[float, float]:
    """Return the ends of an interval over pictures, moved apart by what seeds add.

    Examples
    --------
    >>> ends = widened(0.5, (0.4, 0.6), 0.0026, torch.tensor([0.4, 0.5, 0.6]))
    >>> [round(end, 3) for end in ends]
    [0.232, 0.768]

    Parameters
    ----------
    value, ends : of the mean over seeds; the ends vary with pictures only
    variance : over draws of the pictures
    seeds : (n_seeds,) the value of each

    Notes
    -----
    As `measures.resampling.two_level_variance`, but for what pictures say of single seeds, which counts twice
    here and makes the interval a little wider.
    """
    if len(seeds) < 2:
        return ends
    added = float(seeds.var()) / len(seeds) * (student(len(seeds) - 1) / Z95) ** 2
    if variance <= 1e-15:
        half = Z95 * math.sqrt(added)
        return ends[0] - half, ends[1] + half
    factor = math.sqrt(1 + added / variance)
    return value - factor * (value - ends[0]), value + factor * (ends[1] - value)


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
        seeds = draws[:1]
    else:
        weights = stratified_weights(strata, DRAWS, seed)
        drawn = torch.einsum("bn,rntl->brtl", weights, sums)
        drawn = drawn / torch.einsum("bn,rntl->brtl", weights, numbers)
        draws = _with_mean(drawn.nanmean(1))
        seeds = _with_mean(single)
        interval = _interval(shares.condition, len(single), unit)
    counts = torch.cat([(numbers > 0).any(0).sum(0), there.any(0).any(1).sum(0)[None]])
    values = _with_mean(single.nanmean(0, keepdim=True))[0]
    return Profile(shares.condition, metric, values, draws, seeds, counts, shares.seed, interval)


def difference(first: Profile, second: Profile, metric: str) -> Profile:
    """Return what the first condition has over the second, of the same mosaics or pictures, seed by seed."""
    return replace(
        first,
        metric=metric,
        values=_with_mean((first.values - second.values)[None, :-1])[0],
        draws=_with_mean((first.draws - second.draws)[:, :-1]),
        seeds=_with_mean((first.seeds - second.seeds)[:, :-1]),
        counts=torch.minimum(first.counts, second.counts),
    )


def correlation_with_depth(one: Profile) -> Profile:
    """Return the rank correlation of the numbers with the order of the layers, a single layer "all".

    Of random masks it is the mean over draws, as their numbers are.
    """
    draws = depth_correlation(one.draws)
    values = draws.nanmean(0) if one.interval == RANDOM else depth_correlation(one.values)
    return replace(
        one,
        metric=f"{one.metric}_spearman",
        values=values[:, None],
        draws=draws[..., None],
        seeds=depth_correlation(one.seeds)[..., None],
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
        seeds=one.seeds[..., after] - one.seeds[..., before],
        counts=torch.minimum(one.counts[:, after], one.counts[:, before]),
    )
    return found, [layers[place] for place in after.tolist()]


def rows_of(network: str, one: Profile, tasks: Sequence[str], layers: Sequence[str]) -> Iterator[Row]:
    """Yield a row for each layer of each task and of their mean; without tasks, of the mean alone."""
    names = [*tasks, "mean"]
    for place, task in enumerate(names, len(one.values) - len(names)):
        for at, layer in enumerate(layers):
            estimate = one.estimate(place, at)
            count = 0 if math.isnan(estimate.value) else int(one.counts[place, at])
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


def _interval(condition: str, repetitions: int, unit: str) -> str:
    """What varies, in words."""
    if condition in ("whole", "area"):
        return unit
    return f"{unit}, given this mask" if repetitions == 1 else f"mask seeds × {unit}"
