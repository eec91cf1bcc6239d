"""One condition's answers to a sample of pictures, and every metric of them with its interval."""

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
    auroc_estimate,
    correlation,
    effective,
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
    pictures : how many there are in all
    draws : (n_tasks, DRAWS) of the bootstrap; (n_tasks, 0) for random masks, which are their own spread
    exact : single tasks' estimates, where a closed form serves
    parts : two metrics that this one is a weighted sum of
    weights : of the two, and a constant
    """

    name: str
    values: Tensor
    counts: Tensor
    pictures: int
    draws: Tensor
    exact: Sequence[Estimate] | None = None
    parts: tuple[Metric, Metric] | None = None
    weights: tuple[float, float, float] = (0.5, -0.5, 0.5)

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
        if not self.draws.shape[1]:
            return Estimate(float(values.mean()), *percentiles(values))
        if self.parts is not None:
            first, second = self.parts
            *weights, constant = self.weights
            together = correlation(first.draws[tasks].mean(0), second.draws[tasks].mean(0))
            return mover([first._of(tasks), second._of(tasks)], weights, constant, together)
        variance = float(self.draws[tasks].mean(0).var())
        return effective(float(values.mean()), variance, min(int(self.counts[tasks].sum()), self.pictures))


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

    def metrics(self) -> list[Metric]:
        """Return every metric that is of single tasks."""
        positive = self._positive()
        found = self._rates(self.log_odds, positive)
        if self.calibrated is not None:
            balanced = self._rates(self.calibrated, positive)[-1]
            found.append(replace(balanced, name="balanced_accuracy_calibrated"))
        values, exact = auroc(self.log_odds, positive), None
        if self._single():
            kinds = zip(values[0].tolist(), positive[0].sum(1).tolist(), strict=True)
            exact = [auroc_estimate(value, ours, positive.shape[2] - ours) for value, ours in kinds]
        draws = self._draws(lambda weights: auroc(self.log_odds, positive, weights))
        found.append(Metric("auroc", values, _both(positive), positive.shape[2], draws, exact))
        return found

    def balanced_accuracy(self) -> Metric:
        """Return balanced accuracy, calibrated if there is a calibration."""
        return self._rates(self.log_odds if self.calibrated is None else self.calibrated, self._positive())[
            -1
        ]

    def recomposed(self) -> tuple[Estimate, int]:
        """Return recomposed accuracy and its n; of the whole network, the accuracy of its own answer.

        It is of the pictures whose class one of the tasks accepts; n is that of the seed with the fewest.
        """
        labels, targets = self.sample.labels, self.condition.targets
        asked = self._positive().any(1)
        counts = asked.sum(1)
        count = int(counts.min())
        if self.condition.gates is None:
            right = (self.sample.chosen == labels).double()[None]
        elif self.calibrated is None or bool(self.calibrated.isnan().any()):
            return NO_VALUE, 0
        else:
            right = recomposed(self.calibrated, targets, labels)
        if not count:
            return NO_VALUE, 0
        if self._single():
            return proportion(float(right[0, asked[0]].sum()), count), count
        draws = self._draws(lambda weights: ((right * asked) @ weights.T / counts[:, None])[:, None])[:1]
        values = (right * asked).sum(1, keepdim=True) / counts[:, None]
        return Metric("", values, torch.tensor([count]), count, draws).mean(), count

    def _positive(self) -> Tensor:
        """(n_repetitions, n_tasks, n_images): the pictures that each task must accept."""
        return self.condition.targets[..., None] == self.sample.labels

    def _single(self) -> bool:
        """One answer to each picture: pictures are all that varies."""
        return self.condition.repetitions == 1 and not self.condition.drawn

    def _rates(self, log_odds: Tensor, positive: Tensor) -> list[Metric]:
        """Recall, false alarm and balanced accuracy."""
        # A comparison with NaN is a plain no, so tasks without a fit are blanked by hand.
        blank = log_odds.isnan().any(2)
        values = [value.masked_fill(blank, torch.nan) for value in rates(log_odds, positive)]
        drawn = None if self.condition.drawn else rates(log_odds, positive, self.sample.weights)
        simple = []
        for place, (name, kind) in enumerate((("recall", positive), ("false_alarm", ~positive))):
            counts = kind.sum(2).min(0).values
            exact = _proportions(values[place], counts) if self._single() else None
            draws = self._over_seeds(None if drawn is None else drawn[place])
            simple.append(Metric(name, values[place], counts, positive.shape[2], draws, exact))
        recall, false_alarm = simple
        draws = (recall.draws + 1 - false_alarm.draws) / 2
        exact = None
        if self._single():
            # Within one task the two are of different pictures, and so independent.
            pairs = zip(recall.estimates(), false_alarm.estimates(), strict=True)
            exact = [mover(pair, (0.5, -0.5), 0.5) for pair in pairs]
        counts = _both(positive)
        both = Metric(
            "balanced_accuracy", values[2], counts, positive.shape[2], draws, exact, (recall, false_alarm)
        )
        return [recall, false_alarm, both]

    def _draws(self, measure: Callable[[Tensor], Tensor]) -> Tensor:
        """(n_tasks, DRAWS) of a measure that turns weights into (n_repetitions, n_tasks, DRAWS)."""
        return self._over_seeds(None if self.condition.drawn else measure(self.sample.weights))

    def _over_seeds(self, draws: Tensor | None) -> Tensor:
        """Average the repetitions as each draw's second level picked them; (n_tasks, 0) without draws."""
        if draws is None:
            return torch.empty(self.condition.targets.shape[1], 0)
        picks = resample_seeds(self.condition.repetitions, DRAWS, self.sample.seed + 1)
        return torch.einsum("rtb,br->tb", draws, picks)


def _both(positive: Tensor) -> Tensor:
    """(n_tasks,) the number of pictures where there are positives and negatives in every seed, else 0."""
    ours, total = positive.sum(2), positive.shape[2]
    return torch.where(((ours > 0) & (ours < total)).all(0), total, 0)


def _proportions(values: Tensor, counts: Tensor) -> list[Estimate]:
    """Wilson's intervals of rates (1, n_tasks); no value where there is none."""
    pairs = zip(values[0].tolist(), counts.tolist(), strict=True)
    return [NO_VALUE if math.isnan(value) else proportion(round(value * n), n) for value, n in pairs]
