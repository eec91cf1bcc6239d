"""How far the kept units are from random ones: effects in spreads of the draws, and one p-value."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from nadkit.measures import NO_VALUE, Estimate, wilson
from nadkit.measures.permutation import p_value
from nadkit.questions.outcomes import Outcome
from nadkit.questions.tables import Origin, Row

TESTED = 199
"""Draws that the one primary test takes, at least: its smallest p-value is 1 / (1 + draws)."""


def chance_rows(network: str, outcomes: Sequence[Outcome]) -> Iterator[Row]:
    """Yield effect_in_spreads of every task and the mean, and p_value of the mean; none without draws.

    Both are of balanced accuracy if it is calibrated, else of AUROC. Fewer than `TESTED` draws have no p.
    """
    by_name = {outcome.condition.name: outcome for outcome in outcomes}
    if "random" not in by_name:
        return
    own, null = by_name["kept"].judged, by_name["random"].judged.values
    there = ~(own.values.isnan().any(0) | null.isnan().any(0))
    columns = [null[:, task] for task in range(null.shape[1])]
    mean = null[:, there].mean(1) if bool(there.any()) else null[:, 0] * torch.nan
    origin = Origin.of(network, by_name["kept"])
    n = len(null)
    for task, found, draws in zip(
        (*origin.tasks, "mean"), (*own.estimates(), own.mean()), (*columns, mean), strict=True
    ):
        words = f"{origin.interval}; the spread is that of random draws"
        yield origin.row(task, "effect_in_spreads", in_spreads(found, draws), n, interval=words)
    observed = own.mean().value
    p = p_value(observed, mean) if n >= TESTED and not bool(mean.isnan().any()) else math.nan
    low, high = (math.nan, math.nan) if math.isnan(p) else wilson(p * (1 + n) - 1, n)
    yield origin.row(
        "mean", "p_value", Estimate(p, low, high), n, interval="random draws: how well p is known"
    )


def in_spreads(found: Estimate, null: Tensor) -> Estimate:
    """Return an estimate as its distance from the mean of draws (n_draws,), in their standard deviations.

    No value where fewer than two draws, or draws that do not vary, say nothing about a spread; 0 if the
    estimate is what all of them are.
    """
    if math.isnan(found.value) or len(null) < 2 or bool(null.isnan().any()):
        return NO_VALUE
    centre, spread = float(null.mean()), float(null.std())
    if spread <= 1e-9:
        same = abs(found.value - centre) <= 1e-9
        return Estimate(0.0, 0.0, 0.0) if same else NO_VALUE
    return Estimate(*((end - centre) / spread for end in found))
