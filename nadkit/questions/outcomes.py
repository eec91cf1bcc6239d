"""One condition's answers to a sample of pictures, and every metric of them with its interval."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from nadkit.measures import (
    NO_VALUE,
    Estimate,
    auroc,
    auroc_estimate,
    proportion,
    rates,
    recomposed,
    stratified_weights,
)
from nadkit.questions.conditions import Condition
from nadkit.questions.forwards import Readings
from nadkit.questions.metric import SHARE, Metric, combined

DRAWS = 1000
"""Draws of the bootstrap."""

WHOLE = "images"
IMAGES = "images, given this mask"
SEEDS = "mask seeds × images"
RANDOM = "random draws, their 2.5-97.5 %"
OTHERS = "other tasks' masks, their 2.5-97.5 %"


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
class Outcome:
    """One condition's answers to a sample.

    Attributes
    ----------
    condition, sample : what was asked, and of which pictures
    readings : what the condition says
    calibrated : the log-odds, calibrated, or None; NaN for a task without a fit
    """

    condition: Condition
    sample: Sample
    readings: Readings
    calibrated: Tensor | None

    @property
    def interval(self) -> str:
        """What varies, in words."""
        if self.condition.drawn:
            return RANDOM if self.condition.rows is None else OTHERS
        if self.condition.gates is None:
            return WHOLE
        return IMAGES if self.condition.repetitions == 1 else SEEDS

    @property
    def positive(self) -> Tensor:
        """(n_repetitions, n_tasks, n_images): the pictures that each task must accept."""
        return self.condition.targets[..., None] == self.sample.labels

    @property
    def single(self) -> bool:
        """One answer to each picture: pictures are all that varies."""
        return self.condition.repetitions == 1 and not self.condition.drawn

    def metrics(self) -> list[Metric]:
        """Return every metric that is of single tasks."""
        own, rest = self.readings.own, self.readings.rest
        return [
            *self._rates(self.readings.log_odds)[:2],
            *self.decided(),
            self.auroc("auroc_own", own),
            self.auroc("auroc_rest", rest),
        ]

    def decided(self) -> list[Metric]:
        """Return balanced accuracy, raw and calibrated, and AUROC."""
        names = ("balanced_accuracy", "balanced_accuracy_calibrated")
        kinds = zip(names, (self.readings.log_odds, self.calibrated), strict=True)
        found = [replace(self._rates(odds)[-1], name=name) for name, odds in kinds if odds is not None]
        return [*found, self._ranked]

    @cached_property
    def judged(self) -> Metric:
        """Balanced accuracy if it is calibrated, else AUROC.

        Learning sets the threshold of a task's own masks and of some controls only; where no calibration
        makes up for it, only a metric without a threshold tells units apart and not thresholds.
        """
        return self._ranked if self.calibrated is None else self._rates(self.calibrated)[-1]

    @cached_property
    def _ranked(self) -> Metric:
        return self.auroc("auroc", self.readings.log_odds)

    def auroc(self, name: str, scores: Tensor) -> Metric:
        """Return how well scores (n_repetitions, n_tasks, n_images) rank each task's pictures."""
        positive = self.positive
        values, exact = auroc(scores, positive), None
        if self.single:
            kinds = zip(values[0].tolist(), positive[0].sum(1).tolist(), strict=True)
            exact = [auroc_estimate(value, ours, positive.shape[2] - ours) for value, ours in kinds]
        draws = self.draws(lambda weights: auroc(scores, positive, weights))
        return Metric(name, values, self.with_both, positive.shape[2], draws, exact)

    @property
    def decisive(self) -> Tensor:
        """The log-odds that decide: calibrated, if there is a calibration."""
        return self.readings.log_odds if self.calibrated is None else self.calibrated

    def accepted(self, log_odds: Tensor, label: int) -> tuple[list[Estimate], int]:
        """Return how often each task accepts the pictures of one class, and how many those are."""
        there = self.sample.labels == label
        count = int(there.sum())
        yes = (log_odds > 0).double()[..., there]
        values = yes.mean(2).masked_fill(log_odds.isnan().any(2), torch.nan)
        counts = torch.full((values.shape[1],), count)
        draws = self.draws(lambda weights: yes @ weights[:, there].T / count)
        exact = _proportions(values, counts) if self.single else None
        return Metric("", values, counts, count, draws, exact).estimates(), count

    def recomposed(self) -> tuple[Estimate, int]:
        """Return recomposed accuracy and its n; of the whole network, the accuracy of its own answer.

        It is of the pictures whose class one of the tasks accepts; n is that of the seed with the fewest.
        """
        labels, targets = self.sample.labels, self.condition.targets
        asked = self.positive.any(1)
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
        if self.single:
            return proportion(float(right[0, asked[0]].sum()), count), count
        draws = self.draws(lambda weights: ((right * asked) @ weights.T / counts[:, None])[:, None])
        values = (right * asked).sum(1, keepdim=True) / counts[:, None]
        return Metric("", values, torch.tensor([count]), count, draws).mean(), count

    def _rates(self, log_odds: Tensor) -> list[Metric]:
        """Recall, false alarm and balanced accuracy."""
        positive = self.positive
        # A comparison with NaN is a plain no, so tasks without a fit are blanked by hand.
        blank = log_odds.isnan().any(2)
        values = [value.masked_fill(blank, torch.nan) for value in rates(log_odds, positive)]
        drawn = None if self.condition.drawn else rates(log_odds, positive, self.sample.weights)
        simple = []
        for place, (name, kind) in enumerate((("recall", positive), ("false_alarm", ~positive))):
            counts = kind.sum(2).min(0).values
            exact = _proportions(values[place], counts) if self.single else None
            draws = torch.empty(*values[place].shape, 0) if drawn is None else drawn[place]
            simple.append(Metric(name, values[place], counts, together(kind), draws, exact))
        recall, false_alarm = simple
        both = combined("balanced_accuracy", recall, false_alarm, (0.5, -0.5, 0.5), self.with_both)
        return [recall, false_alarm, both]

    @property
    def with_both(self) -> Tensor:
        """(n_tasks,) the number of pictures where there are own and others' in every seed, else 0."""
        ours, total = self.positive.sum(2), self.positive.shape[2]
        return torch.where(((ours > 0) & (ours < total)).all(0), total, 0)

    def average(self, name: str, values: Tensor, kind: Tensor, limits: tuple[float, float] = SHARE) -> Metric:
        """Return the mean of values over the pictures of a kind, both (n_repetitions, n_tasks, n_images).

        Of shares the values are 0 or 1 (or NaN for a task without any).
        """
        counts = kind.sum(2)
        mean = (values * kind).sum(2) / counts

        def drawn(weights: Tensor) -> Tensor:
            found = (values * kind) @ weights.T / (kind.double() @ weights.T)
            # A draw may miss the few pictures of a kind.
            return torch.where(found.isnan(), mean[..., None], found)

        fewest = counts.min(0).values
        exact = _proportions(mean, fewest) if self.single and limits == SHARE else None
        return Metric(name, mean, fewest, together(kind), self.draws(drawn), exact, limits=limits)

    def draws(self, measure: Callable[[Tensor], Tensor]) -> Tensor:
        """(n_repetitions, n_tasks, DRAWS) that a measure makes of weights; no draws of random masks."""
        if self.condition.drawn:
            return torch.empty(*self.condition.targets.shape, 0)
        return measure(self.sample.weights)


def together(kind: Tensor) -> int:
    """How many pictures are of some task's kind (n_repetitions, n_tasks, n_images); the fewest of a seed."""
    return int(kind.any(1).sum(1).min())


def _proportions(values: Tensor, counts: Tensor) -> list[Estimate]:
    """Wilson's intervals of rates (1, n_tasks); no value where there is none."""
    pairs = zip(values[0].tolist(), counts.tolist(), strict=True)
    return [NO_VALUE if math.isnan(value) else proportion(round(value * n), n) for value, n in pairs]
