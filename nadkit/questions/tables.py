"""From outcomes to tidy rows: every metric of every task and condition, with its interval and n."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch

from nadkit.measures import Estimate
from nadkit.questions.controls import LEARNED
from nadkit.questions.outcomes import Metric, Outcome

COLUMNS = ("network", "task", "condition", "metric", "value", "low", "high", "n", "seed", "interval")
COUNTED = "none: counted"

Row = dict[str, object]


def condition_rows(network: str, outcome: Outcome) -> Iterator[Row]:
    """Yield the rows of one condition: its tasks, their mean, all tasks together, and the kept share."""
    condition, tasks = outcome.condition, outcome.sample.tasks
    for metric in outcome.metrics():
        yield from _rows(network, outcome, metric)
    if condition.gates is None or outcome.calibrated is not None:
        yield _row(network, outcome, "all", "recomposed_accuracy", *outcome.recomposed(), outcome.interval)
    shares = condition.kept_share.mean(0).tolist()
    for task, share in zip((*tasks, "mean"), (*shares, math.fsum(shares) / len(shares)), strict=True):
        counted = Estimate(share, share, share)
        yield _row(network, outcome, task, "kept_share", counted, condition.networks[0].units, COUNTED)


def excess_rows(network: str, outcomes: Sequence[Outcome]) -> Iterator[Row]:
    """Yield what the tasks' own masks have over the best learned control, which is best on its mean.

    Both saw the same pictures, so a bootstrap tells how far the two go up and down together.
    """
    by_name = {outcome.condition.name: outcome for outcome in outcomes}
    controls = [by_name[name].balanced_accuracy() for name in LEARNED if name in by_name]
    if not controls:
        return
    own = by_name["kept"].balanced_accuracy()
    best = max(controls, key=_mean_or_least)
    excess = Metric(
        "excess",
        (own.values.mean(0) - best.values.mean(0))[None],
        torch.minimum(own.counts, best.counts),
        own.pictures,
        own.draws - best.draws,
        parts=(own, best),
        weights=(1.0, -1.0, 0.0),
    )
    yield from _rows(network, by_name["kept"], excess)


def _mean_or_least(metric: Metric) -> float:
    """The mean over tasks; a control without any value is never the best."""
    value = metric.mean().value
    return -math.inf if math.isnan(value) else value


def _rows(network: str, outcome: Outcome, metric: Metric) -> Iterator[Row]:
    estimates = [*metric.estimates(), metric.mean()]
    counts = [*metric.counts.tolist(), metric.pictures]
    for task, estimate, n in zip((*outcome.sample.tasks, "mean"), estimates, counts, strict=True):
        yield _row(network, outcome, task, metric.name, estimate, n, outcome.interval)


def _row(
    network: str, outcome: Outcome, task: str, metric: str, estimate: Estimate, n: int, interval: str
) -> Row:
    return {
        "network": network,
        "task": task,
        "condition": outcome.condition.name,
        "metric": metric,
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "n": 0 if math.isnan(estimate.value) else n,
        "seed": outcome.condition.seed,
        "interval": interval,
    }
