"""One metric of one condition for all tasks, with the interval of each task and of their mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nadkit.measures import NO_VALUE, Estimate, correlation, effective, mover, percentiles
from nadkit.measures.intervals import Z95
from nadkit.measures.resampling import two_level_variance

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
        values, draws = self.values[:, tasks].mean(1), self.draws[:, tasks].mean(1)
        value = float(values.mean())
        if not draws.shape[1]:
            return Estimate(value, *percentiles(values))
        variance, added = two_level_variance(values, draws), self._added(tasks)
        trials = min(int(self.counts[tasks].sum()), self.pictures)
        least, most = self.limits
        if self.parts is not None:
            low, high = self._of_parts(tasks)[1:]
        elif self.limits == SHARE:
            return effective(value, variance, trials)
        elif variance <= 1e-15 and value not in (0.0, least, most):
            # One picture a class does not vary in a bootstrap; that is not to know it exactly.
            return Estimate(value, math.nan, math.nan)
        else:
            low, high = percentiles(draws.mean(0))
        if added and self.limits == SHARE:
            # The parts know best how far pictures leave open a value near 0 or 1.
            outer = effective(value, variance, trials)
            low, high = min(low, outer.low), max(high, outer.high)
        elif added:
            half = Z95 * math.sqrt(added)
            low, high = value - math.hypot(value - low, half), value + math.hypot(high - value, half)
        return Estimate(value, max(least, low), min(most, high))

    def _of_parts(self, tasks: list[int]) -> Estimate:
        """The weighted sum of the parts, with the interval that pictures alone give it."""
        assert self.parts is not None
        first, second = (part.of_pictures() for part in self.parts)
        *weights, constant = self.weights
        together = correlation(first.draws[0, tasks].mean(0), second.draws[0, tasks].mean(0))
        return mover([first._of(tasks), second._of(tasks)], weights, constant, together)

    def of_pictures(self) -> Metric:
        """Return the mean over repetitions as if it were one: what pictures leave open."""
        if len(self.values) == 1:
            return self
        parts = None if self.parts is None else (self.parts[0].of_pictures(), self.parts[1].of_pictures())
        values, draws = (each.mean(0, keepdim=True) for each in (self.values, self.draws))
        return replace(self, values=values, draws=draws, parts=parts)

    def _added(self, tasks: list[int]) -> float:
        """What seeds add to the variance that pictures give, at least 0."""
        if self.parts is not None and not self.paired:
            pairs = zip(self.weights, self.parts, strict=False)
            return math.fsum(weight**2 * part._added(tasks) for weight, part in pairs)
        values, draws = self.values[:, tasks].mean(1), self.draws[:, tasks].mean(1)
        if len(values) == 1:
            return 0.0
        return max(0.0, two_level_variance(values, draws) - float(draws.mean(0).var()))


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
    one, two = (first, second) if paired else (first.of_pictures(), second.of_pictures())
    return Metric(
        name,
        one.values - two.values,
        torch.minimum(first.counts, second.counts),
        max(first.pictures, second.pictures),
        one.draws - two.draws,
        parts=(first, second),
        weights=(1.0, -1.0, 0.0),
        paired=paired,
        limits=(-1.0, 1.0),
    )
