"""From outcomes to tidy rows: every metric of every task and condition, with its interval and n."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from nadkit.measures import Estimate
from nadkit.questions.controls import LEARNED, OTHERWISE
from nadkit.questions.metric import Metric, difference
from nadkit.questions.outcomes import Outcome

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "network", "task", "other_task", "condition", "share", "dose", "layer",
    "metric", "value", "low", "high", "n", "seed", "interval",
)  # fmt: skip
OPTIONAL = ("other_task", "share", "dose", "layer")
COUNTED = "none: counted"

Row = dict[str, object]


@dataclass(frozen=True)
class Origin:
    """What the rows of one condition have in common; `place` fills columns that not all rows use."""

    network: str
    tasks: tuple[str, ...]
    condition: str
    interval: str
    seed: int | None = None
    place: tuple[tuple[str, object], ...] = ()

    @classmethod
    def of(cls, network: str, outcome: Outcome, **place: object) -> Origin:
        """Return that of an outcome."""
        condition = outcome.condition
        tasks, more = outcome.sample.tasks, tuple(place.items())
        return cls(network, tasks, condition.name, outcome.interval, condition.seed, more)

    def at(self, **place: object) -> Origin:
        """Return the same with more columns filled."""
        return replace(self, place=(*self.place, *place.items()))

    def row(self, task: str, metric: str, estimate: Estimate, n: int, *, interval: str | None = None) -> Row:
        """Return one row; without a value n is 0."""
        facts = {
            "network": self.network,
            "task": task,
            "condition": self.condition,
            "layer": "all",
            "metric": metric,
            "value": estimate.value,
            "low": estimate.low,
            "high": estimate.high,
            "n": 0 if math.isnan(estimate.value) else n,
            "seed": self.seed,
            "interval": interval or self.interval,
        }
        return facts | dict(self.place)

    def rows(self, metric: Metric) -> Iterator[Row]:
        """Yield a metric's rows: its tasks, and their mean."""
        estimates = [*metric.estimates(), metric.mean()]
        counts = [*metric.counts.tolist(), metric.pictures]
        for task, estimate, n in zip((*self.tasks, "mean"), estimates, counts, strict=True):
            yield self.row(task, metric.name, estimate, n)

    def counted(self, metric: str, values: Sequence[float], n: int) -> Iterator[Row]:
        """Yield the rows of numbers (one a task) that are counted and so have no interval, and their mean."""
        there = [value for value in values if not math.isnan(value)]
        mean = math.fsum(there) / len(there) if there else math.nan
        for task, value in zip((*self.tasks, "mean"), (*values, mean), strict=True):
            yield self.row(task, metric, Estimate(value, value, value), n, interval=COUNTED)


def to_table(rows: Sequence[Row]) -> pd.DataFrame:
    """Return rows as a table; a column that not all rows use is left out where none does."""
    import pandas as pd

    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"seed": "Int64", "n": "int64"})
    unused = [name for name in OPTIONAL if set(table[name].dropna()) <= {"all"}]
    return table.drop(columns=unused)


def condition_rows(network: str, outcome: Outcome, **place: object) -> Iterator[Row]:
    """Yield the rows of one condition: its tasks, their mean, all tasks together, and the kept share."""
    origin = Origin.of(network, outcome, **place)
    for metric in outcome.metrics():
        yield from origin.rows(metric)
    yield from recomposed_rows(origin, outcome)
    yield from share_rows(origin, outcome)


def recomposed_rows(origin: Origin, outcome: Outcome) -> Iterator[Row]:
    """Yield recomposed accuracy, if the outcome can have it."""
    if outcome.condition.gates is None or outcome.calibrated is not None:
        yield origin.row("all", "recomposed_accuracy", *outcome.recomposed())


def share_rows(origin: Origin, outcome: Outcome) -> Iterator[Row]:
    """Yield the kept share, which is counted."""
    condition = outcome.condition
    shares = condition.kept_share.mean(0).tolist()
    yield from origin.counted("kept_share", shares, condition.networks[0].units)


def layer_rows(network: str, outcomes: Sequence[Outcome]) -> Iterator[Row]:
    """Yield the kept share of every layer, of the masks and of the learned controls."""
    for outcome in outcomes:
        condition = outcome.condition
        if condition.gates is None or condition.name not in ("kept", *LEARNED):
            continue
        for address, layer in condition.networks[0].layers.items():
            gates = torch.stack([gates[address].double().mean(1) for gates in condition.gates])
            origin = Origin.of(network, outcome, layer=address)
            yield from origin.counted("kept_share", gates.mean(0).tolist(), layer.units)


def excess_rows(
    network: str, outcomes: Sequence[Outcome], origins: Mapping[str, str] | None = None, **place: object
) -> Iterator[Row]:
    """Yield what the tasks' own masks have over the best learned control, which leaves the smallest mean.

    Parameters
    ----------
    network, outcomes : of all conditions
    origins : of each control as `find_controls` tells them; what was learned otherwise goes into `interval`,
        so that it stays with the number
    place : columns that not all rows use
    """
    by_name = {outcome.condition.name: outcome for outcome in outcomes}
    kept, controls = by_name["kept"], [by_name[name] for name in LEARNED if name in by_name]
    if not controls:
        return
    # Means over the tasks that both have; a control without any value is never the best.
    found = [(difference("excess", kept.judged, control.judged), control) for control in controls]
    means = [metric.mean().value for metric, _ in found]
    excess, best = found[min(range(len(found)), key=lambda i: (math.isnan(means[i]), means[i]))]
    origin = Origin.of(network, kept, **place)
    if best.single and not kept.single:
        origin = replace(origin, interval=f"{origin.interval}, given the control's masks")
    unlike = [
        f"{name} ({origins[name].partition(OTHERWISE)[2]})"
        for name in LEARNED
        if origins and OTHERWISE in origins.get(name, "")
    ]
    if unlike:
        origin = replace(origin, interval=f"{origin.interval}; {OTHERWISE}{', '.join(unlike)}")
    yield from origin.rows(excess)


def gap_rows(network: str, outcomes: Sequence[Outcome]) -> Iterator[Row]:
    """Yield what scores as gates (soft) have over the gates that a threshold makes of them."""
    by_name = {outcome.condition.name: outcome for outcome in outcomes}
    kept = by_name["kept"]
    gap = difference("discretisation_gap", by_name["soft"].judged, kept.judged, paired=True)
    yield from Origin.of(network, kept).rows(gap)


def matrix_rows(network: str, outcomes: Sequence[Outcome], class_names: Sequence[str]) -> Iterator[Row]:
    """Yield how often each task is accepted on pictures of each class, whole and kept."""
    for outcome in outcomes:
        if outcome.condition.name not in ("whole", "kept"):
            continue
        kinds = [("accepted", outcome.readings.log_odds)]
        if outcome.calibrated is not None:
            kinds.append(("accepted_calibrated", outcome.calibrated))
        for metric, odds in kinds:
            for index in outcome.sample.labels.unique().tolist():
                origin = Origin.of(network, outcome, other_task=class_names[index])
                estimates, n = outcome.accepted(odds, index)
                for task, estimate in zip(origin.tasks, estimates, strict=True):
                    yield origin.row(task, metric, estimate, n)
