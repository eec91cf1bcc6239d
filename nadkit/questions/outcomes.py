"""One condition's answers to a sample of pictures, and every metric of them with its bootstrap."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nadkit.measures import (
    NO_VALUE,
    Estimate,
    auroc,
    mover,
    percentiles,
    proportion,
    rates,
    recomposed,
    resample_seeds,
    stratified_weights,
)
from nadkit.questions.conditions import Condition

DRAWS = 1000
"""Draws of the bootstrap."""

WHOLE = "images"
IMAGES = "images, given this mask"
SEEDS = "mask seeds × images"
RANDOM = "random draws, their 2.5-97.5 %"


@dataclass(frozen=True, eq=False)
class Sample:
    """The pictures that every condition was shown, and how a bootstrap weighs them.

    Attributes
    ----------
    tasks : their names
    labels : (n_images,) class indices
    chosen : (n_images,) the whole network's own answers
    weights : (DRAWS, n_images), stratified by class; the same for all conditions, so that they are paired
    seed : of the bootstrap
    """

    tasks: tuple[str, ...]
    labels: Tensor
    chosen: Tensor
    weights: Tensor
    seed: int

    @classmethod
    def of(cls, tasks: tuple[str, ...], labels: Tensor, chosen: Tensor, seed: int) -> Sample:
        """Return the sample with its weights drawn."""
        return cls(tasks, labels, chosen, stratified_weights(labels, DRAWS, seed), seed)


@dataclass(frozen=True, eq=False)
class Metric:
    """One metric of one condition, for all tasks.

    Attributes
    ----------
    name : as in the tables
    values : (n_repetitions, n_tasks), NaN where there is none
    counts : (n_tasks,) of how many pictures it is
    draws : (n_tasks, DRAWS) of the bootstrap; (n_tasks, 0) for random masks, which are their own spread
    exact : the tasks' estimates, where a closed form gives better intervals than the bootstrap
    """

    name: str
    values: Tensor
    counts: Tensor
    draws: Tensor
    exact: Sequence[Estimate] | None = None

    def estimates(self) -> list[Estimate]:
        """Return one estimate a task."""
        if self.exact is not None:
            return list(self.exact)
        return [_estimate(values, draws) for values, draws in zip(self.values.T, self.draws, strict=True)]

    def mean(self) -> Estimate:
        """Return the mean over the tasks that have a value."""
        return _estimate(self.values.nanmean(1), self.draws.nanmean(0))


def _estimate(values: Tensor, draws: Tensor) -> Estimate:
    """The mean of repetitions (n_repetitions,), with the percentiles of bootstrap draws or of their own."""
    if bool(values.isnan().any()):
        return NO_VALUE
    return Estimate(float(values.mean()), *percentiles(draws if len(draws) else values))


@dataclass(frozen=True, eq=False)
class Outcome:
    """One condition's answers to a sample.

    Attributes
    ----------
    condition, sample : what was asked, and of which pictures
    log_odds : (n_repetitions, n_tasks, n_images)
    calibrated : the same, calibrated, or None; NaN for a task without a fit
    """

    condition: Condition
    sample: Sample
    log_odds: Tensor
    calibrated: Tensor | None

    @property
    def interval(self) -> str:
        """What varies, in words."""
        if self.condition.drawn:
            return RANDOM
        if self.condition.gates is None:
            return WHOLE
        return IMAGES if self.condition.repetitions == 1 else SEEDS

    def metrics(self) -> dict[str, Metric]:
        """Return every metric that is of single tasks, by name."""
        positive = self._positive()
        found = [*self._rates(self.log_odds, positive)]
        if self.calibrated is not None:
            balanced = self._rates(self.calibrated, positive)[-1]
            found.append(replace(balanced, name="balanced_accuracy_calibrated"))
        draws = self._draws(lambda weights: auroc(self.log_odds, positive, weights))
        found.append(Metric("auroc", auroc(self.log_odds, positive), _both(positive), draws))
        return {metric.name: metric for metric in found}

    def balanced_accuracy(self) -> Metric:
        """Return balanced accuracy, calibrated if there is a calibration."""
        decided = self.log_odds if self.calibrated is None else self.calibrated
        return self._rates(decided, self._positive())[-1]

    def recomposed(self) -> tuple[Estimate, int]:
        """Return recomposed accuracy and its n; of the whole network, the accuracy of its own answer.

        It is of the pictures whose class one of the tasks accepts.
        """
        labels, targets = self.sample.labels, self.condition.targets
        asked = torch.isin(labels, targets)
        count = int(asked.sum())
        if self.condition.gates is None:
            right = (self.sample.chosen == labels).double()[None]
        elif self.calibrated is None or bool(self.calibrated.isnan().any()):
            return NO_VALUE, 0
        else:
            right = recomposed(self.calibrated, targets, labels)
        if not count:
            return NO_VALUE, 0
        if self.condition.repetitions == 1 and not self.condition.drawn:
            return proportion(float(right[0, asked].sum()), count), count
        draws = self._draws(lambda weights: (right * asked)[:, None] @ weights.double().T / count)
        return _estimate(right[:, asked].mean(1), draws[0]), count

    def _positive(self) -> Tensor:
        """(n_tasks, n_images): the pictures that each task must accept."""
        return self.condition.targets[:, None] == self.sample.labels

    def _rates(self, log_odds: Tensor, positive: Tensor) -> list[Metric]:
        """Recall, false alarm and balanced accuracy."""
        # A comparison with NaN is a plain no, so tasks without a fit are blanked by hand.
        blank = log_odds.isnan().any(2)
        ours = positive.sum(1)
        counts = {"recall": ours, "false_alarm": (~positive).sum(1), "balanced_accuracy": _both(positive)}
        values = rates(log_odds, positive)
        draws = None if self.condition.drawn else rates(log_odds, positive, self.sample.weights)
        closed = None
        if self.condition.repetitions == 1 and not self.condition.drawn:
            closed = _closed_forms(log_odds[0] > 0, positive, blank[0])
        found = []
        for place, (name, count) in enumerate(counts.items()):
            spread = torch.empty(len(ours), 0)
            if draws is not None:
                spread = self._over_seeds(draws[place].masked_fill(blank[..., None], torch.nan))
            point = values[place].masked_fill(blank, torch.nan)
            found.append(Metric(name, point, count, spread, closed[place] if closed else None))
        return found

    def _draws(self, measure: Callable[[Tensor], Tensor]) -> Tensor:
        """(n_tasks, DRAWS) of a measure that turns weights into (n_repetitions, n_tasks, DRAWS)."""
        if self.condition.drawn:
            return torch.empty(len(self.condition.targets), 0)
        return self._over_seeds(measure(self.sample.weights))

    def _over_seeds(self, draws: Tensor) -> Tensor:
        """Average the repetitions as each draw's second level picked them: (n_tasks, DRAWS)."""
        picks = resample_seeds(self.condition.repetitions, DRAWS, self.sample.seed + 1).double()
        return torch.einsum("rtb,br->tb", draws, picks)


def _both(positive: Tensor) -> Tensor:
    """(n_tasks,) the number of pictures where there are positives and negatives, else 0."""
    ours, total = positive.sum(1), positive.shape[1]
    return torch.where((ours > 0) & (ours < total), total, 0)


def _closed_forms(yes: Tensor, positive: Tensor, blank: Tensor) -> list[list[Estimate]]:
    """Wilson intervals of recall and false alarm and, of both, balanced accuracy; (n_tasks, n_images)."""
    found: list[list[Estimate]] = [[], [], []]
    for said, ours, empty in zip(yes, positive, blank.tolist(), strict=True):
        recall = proportion(int((said & ours).sum()), int(ours.sum()))
        false_alarm = proportion(int((said & ~ours).sum()), int((~ours).sum()))
        both = mover([recall, false_alarm], [0.5, -0.5], 0.5)
        for place, estimate in enumerate((recall, false_alarm, both)):
            found[place].append(NO_VALUE if empty or math.isnan(estimate.value) else estimate)
    return found
