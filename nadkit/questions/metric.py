"""One metric of one condition for all tasks, with the interval of each task and of their mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nadkit.measures import NO_VALUE, Estimate, effective, mover, percentiles
from nadkit.measures.intervals import Z95
from nadkit.measures.resampling import two_level_covariance, two_level_variance

SHARE, ANY = (0.0, 1.0), (-math.inf, math.inf)
"""The limits of rates and of all else between 0 and 1, and of what has none."""


@dataclass(frozen=True, eq=False)
class Metric:
    """One metric of one condition, for all tasks.

    Attributes
    ----------
    name : as in the tables
    values : (n_repetitions, n_tasks), NaN where there is none
    counts : (n_tasks,) of how many pictures it is
    pictures : how many take part in all, each counted once
    draws : (n_repetitions, n_tasks, DRAWS) of a bootstrap of the pictures, the same for all; nothing in the
        last place for random masks, which are their own spread
    exact : single tasks' estimates, where a closed form serves
    parts : two metrics that this one is a weighted sum of
    weights : of the two, and a constant
    paired : repetition i of one part is of the same masks as repetition i of the other
    limits : what values cannot leave; other ones than 0 and 1 have the bootstrap's 2.5-97.5 % for interval
    """

    name: str
    values: Tensor
    counts: Tensor
    pictures: int
    draws: Tensor
    exact: Sequence[Estimate] | None = None
    parts: tuple[Metric, Metric] | None = None
    weights: tuple[float, float, float] = (0.5, -0.5, 0.5)
    paired: bool = True
    limits: tuple[float, float] = SHARE

    def estimates(self) -> list[Estimate]:
        """Return one estimate a task."""
        return [self._of([task]) for task in range(len(self.counts))]

    def mean(self) -> Estimate:
        """Return the mean over the tasks that have a value."""
        return self._of((~self.values.isnan().any(0)).nonzero().flatten().tolist())

    def _of(self, tasks: list[int]) -> Estimate:
        """The mean over these tasks and over repetitions."""
        if not tasks or bool(self.values[:, tasks].isnan().any()):
            return NO_VALUE
        if self.exact is not None and len(tasks) == 1:
            return self.exact[tasks[0]]
        values = self.values[:, tasks].mean(1)
        value = float(values.mean())
        if not self.draws.shape[-1]:
            return Estimate(value, *percentiles(values))
        if self.parts is not None:
            *weights, constant = self.weights
            estimates = [part._of(tasks) for part in self.parts]
            return mover(estimates, weights, constant, self._together(tasks))
        draws = self.draws[:, tasks].mean(1)
        variance = two_level_variance(values, draws)
        if self.limits == SHARE:
            return effective(value, variance, min(int(self.counts[tasks].sum()), self.pictures))
        ends = percentiles(draws.mean(0))
        if len(values) > 1:
            # As far from the value as pictures alone would put them, times what seeds add to the spread.
            alone = float(draws.mean(0).var())
            wider = math.sqrt(variance / alone) if alone > 1e-15 else 0.0
            half = 0.0 if wider else Z95 * math.sqrt(variance)
            ends = (value - half - wider * (value - ends[0]), value + half + wider * (ends[1] - value))
        least, most = self.limits
        return Estimate(value, max(least, ends[0]), min(most, ends[1]))

    def _together(self, tasks: list[int]) -> float:
        """How far the two parts go together, -1 to 1: over pictures, and over seeds if these are paired."""
        assert self.parts is not None
        means = [(part.values[:, tasks].mean(1), part.draws[:, tasks].mean(1)) for part in self.parts]
        size = math.prod(math.sqrt(two_level_variance(*mean)) for mean in means)
        if size <= 1e-15:
            return 0.0
        if not self.paired:
            means = [(values.mean(0, keepdim=True), draws.mean(0, keepdim=True)) for values, draws in means]
        return min(1.0, max(-1.0, two_level_covariance(*means[0], *means[1]) / size))


def combined(
    name: str, first: Metric, second: Metric, weights: tuple[float, float, float], counts: Tensor
) -> Metric:
    """Return a weighted sum of two metrics of one condition, of different pictures, and a constant."""
    one, two, constant = weights
    exact = None
    if first.exact is not None and second.exact is not None:
        # Within one task the two are of different pictures, and so independent.
        pairs = zip(first.exact, second.exact, strict=True)
        exact = [mover(pair, (one, two), constant) for pair in pairs]
    shares = first.limits == SHARE
    return Metric(
        name,
        one * first.values + two * second.values + constant,
        counts,
        int(counts.max()),
        one * first.draws + two * second.draws + constant,
        exact,
        (first, second) if shares else None,
        weights,
        limits=first.limits,
    )


def difference(name: str, first: Metric, second: Metric, *, paired: bool = False) -> Metric:
    """Return first minus second, of the same pictures: their bootstraps tell how far they go together.

    Paired says that both are of the same seeds, in the same order.
    """
    return Metric(
        name,
        (first.values.mean(0) - second.values.mean(0))[None],
        torch.minimum(first.counts, second.counts),
        max(first.pictures, second.pictures),
        (first.draws.mean(0) - second.draws.mean(0))[None],
        parts=(first, second),
        weights=(1.0, -1.0, 0.0),
        paired=paired,
    )
