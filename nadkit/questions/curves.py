"""The evidence over kept shares: how small a mask can be, and what controls of its size do."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from nadkit.errors import NadkitError, closest
from nadkit.images import Images
from nadkit.masks import MaskSet
from nadkit.measures import NO_VALUE, Estimate
from nadkit.measures.curves import area_weights, smallest_share
from nadkit.networks import BUNDLED, Network, load_masks, load_network, mask_path
from nadkit.networks.bundled import DATA
from nadkit.questions.conditions import compared_conditions, learned_conditions, own_conditions
from nadkit.questions.controls import LEARNED, find_controls
from nadkit.questions.metric import Metric
from nadkit.questions.outcomes import Outcome
from nadkit.questions.showing import show
from nadkit.questions.tables import Origin, Row, excess_rows, recomposed_rows, share_rows

ENOUGH = 0.95
"""Of the whole network's balanced accuracy, the better of raw and calibrated; uncalibrated of its AUROC."""

MOST_DRAWS = 20

Shares = Sequence[float] | Mapping[float, Mapping[str, MaskSet | Sequence[MaskSet]]] | str | None


class Point(NamedTuple):
    """One kept share, its masks (one or several seeds), its learned controls and where each came from."""

    share: float
    sets: list[MaskSet]
    controls: dict[str, list[MaskSet]]
    origins: dict[str, str]


def find_points(shares: Shares, network: Network, sets: Sequence[MaskSet]) -> list[Point]:
    """Return the masks of every kept share asked for, smallest first.

    Raises
    ------
    NadkitError
        Shares of a network without bundled masks, or of which none are bundled; a share outside (0, 1]; a
        point without `kept`, or with a name that is no learned control.
    """
    if shares is None or shares == "bundled":
        return []
    if isinstance(shares, str):
        raise NadkitError(f"shares are {shares!r}; give kept shares, masks by share, or 'bundled'")
    if not isinstance(shares, Iterable):
        raise NadkitError(f"shares are {shares!r}; give a list of kept shares, masks by share, or 'bundled'")
    asked = list(shares)
    wrong = [share for share in asked if not _is_share(share)]
    if wrong or len(set(asked)) < len(asked) or not asked:
        raise NadkitError(
            f"shares are {asked}; give kept shares above 0 and up to 1, each once, at least one"
        )
    if isinstance(shares, Mapping):
        return [_given(share, shares[share], network, sets[0].tasks) for share in sorted(asked)]
    return [_bundled(share, network, sets) for share in sorted(asked)]


def bundled_curve_path(name: str) -> Path:
    """Return where the result table of a bundled network's curve lies.

    Examples
    --------
    >>> bundled_curve_path("vgg-fashion").name
    'curve-vgg-fashion.csv'
    """
    return DATA / f"curve-{name}.csv"


def bundled_curve(network: Network, tasks: Sequence[str]) -> list[Row]:
    """Return the rows of the curve that was measured once, of a bundled network.

    Raises
    ------
    NadkitError
        None comes with this network, it is of other weights, or the masks are not of all its tasks.
    """
    import pandas as pd

    path = bundled_curve_path(network.name)
    there = [name for name in BUNDLED if bundled_curve_path(name).exists()]
    if network.name not in there or load_network(network.name).weights_id != network.weights_id:
        raise NadkitError(
            f"no curve comes with {network.name} ({network.weights_id}); there are curves of "
            f"{', '.join(there) or 'no network'}; learn_curve makes masks for shares={{share: …}}"
        )
    if set(tasks) != set(network.class_names):
        raise NadkitError(
            f"the curve that comes with {network.name} is of all {len(network.class_names)} tasks, and the "
            f"masks are of {len(tasks)}; give masks by share"
        )
    table = pd.read_csv(path)
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _is_share(share: object) -> bool:
    return isinstance(share, int | float) and not isinstance(share, bool) and 0 < share <= 1


def _given(
    share: float, masks: Mapping[str, MaskSet | Sequence[MaskSet]], network: Network, tasks: Sequence[str]
) -> Point:
    if not isinstance(masks, Mapping) or "kept" not in masks:
        raise NadkitError(
            f"the kept share {share:g} has no masks 'kept'; give shares={{{share:g}: {{'kept': masks, "
            f"{', '.join(f'{name!r}: …' for name in LEARNED)}}}}}, controls only as far as there are"
        )
    for name in masks:
        if name not in ("kept", *LEARNED):
            raise NadkitError(f"no masks {name!r} on a curve; {closest(str(name), ['kept', *LEARNED])}")
    kept = masks["kept"]
    sets = list(kept) if isinstance(kept, Sequence) else [kept]
    for one in sets:
        if not isinstance(one, MaskSet):
            raise NadkitError(f"'kept' of the kept share {share:g} is no MaskSet; give one, or several seeds")
        one.check(network)
    missing = [task for one in sets for task in tasks if task not in one.tasks]
    if missing or not sets:
        raise NadkitError(
            f"'kept' of the kept share {share:g} has no masks for {', '.join(missing) or 'any task'}"
        )
    sets = [one[list(tasks)] for one in sets]
    return Point(share, sets, *find_controls({k: v for k, v in masks.items() if k != "kept"}, network, sets))


def _bundled(share: float, network: Network, sets: Sequence[MaskSet]) -> Point:
    if network.name not in BUNDLED:
        raise NadkitError(
            f"shares={share:g} takes bundled masks, and {network.name!r} is no bundled network; give masks "
            f"by share: shares={{{share:g}: {{'kept': masks, 'relabelled': …}}}}"
        )
    found = [load_masks(network.name, kept_share=share, seed=0)]  # says what there is, if not this
    for seed in range(1, len(sets)):
        if mask_path(
            network.name, objective="one-vs-rest", kept_share=share, seed=seed, control=None
        ).exists():
            found.append(load_masks(network.name, kept_share=share, seed=seed))
    for one in found:
        one.check(network)
    controls, origins = find_controls("bundled", network, found)
    return Point(share, [one[list(sets[0].tasks)] for one in found], controls, origins)


def curve_rows(
    network: Network,
    points: Sequence[Point],
    whole: Outcome,
    images: Images,
    calibrate_on: Images | None,
    draws: int,
    seed: int,
    progress: bool,
) -> Iterator[Row]:
    """Yield the rows of every share, and over the shares the area and the smallest one that is enough.

    Parameters
    ----------
    network : the trained network
    points : of `find_points`
    whole : the whole network's outcome on the same pictures
    images, calibrate_on, seed : as in `whether`
    draws : random masks of each share, at most 20 are made
    progress : show a bar for each share
    """
    tasks = whole.sample.tasks
    metrics: dict[str, dict[float, Metric]] = {}
    origins: dict[str, Origin] = {}
    for point in points:
        own = own_conditions(network, point.sets, min(draws, MOST_DRAWS), seed)
        kept = next(condition for condition in own if condition.name == "kept")
        conditions = [one for one in own if one.name in ("kept", "random")]
        conditions += [one for one in compared_conditions(network, kept) if one.name == "last_layer"]
        conditions += learned_conditions(network, tasks, point.controls)
        title = f"kept share {point.share:g}"
        outcomes = show(network, conditions, tasks, images, calibrate_on, seed, progress, title).outcomes
        for outcome in outcomes:
            name, origin = outcome.condition.name, Origin.of(network.name, outcome)
            at = origin.at(share=point.share)
            for metric in outcome.decided():
                yield from at.rows(metric)
            yield from recomposed_rows(at, outcome)
            yield from share_rows(at, outcome)
            metrics.setdefault(name, {})[point.share] = outcome.judged
            origins[name] = origin
        yield from excess_rows(network.name, outcomes, point.origins, share=point.share)
    shares, goals = [point.share for point in points], _goals(whole)
    for name, curve in metrics.items():
        if len(shares) > 1 and list(curve) == shares:
            alike = len({len(metric.values) for metric in curve.values()}) == 1
            origin = origins[name] if alike else replace(origins[name], interval="images, given these masks")
            yield from origin.rows(_area(shares, list(curve.values())))
        yield from _enough(origins[name], list(curve), list(curve.values()), goals)


def _area(shares: Sequence[float], curve: Sequence[Metric]) -> Metric:
    """The mean height; every share was shown the same pictures, so bootstraps add up draw by draw."""
    weights = area_weights(shares)
    # Random draw i, or seed i, at one share goes with the same at the others.
    repetitions = {len(one.values) for one in curve}
    values, draws = (
        torch.stack([each if len(repetitions) == 1 else each.mean(0, keepdim=True) for each in of_all])
        for of_all in ([one.values for one in curve], [one.draws for one in curve])
    )
    heights, bootstrapped = (torch.einsum("s,s...->...", weights, each.double()) for each in (values, draws))
    counts = torch.stack([one.counts for one in curve]).min(0).values
    return Metric("area", heights, counts, curve[0].pictures, bootstrapped)


def _goals(whole: Outcome) -> list[float]:
    """What is enough for every task and for the mean: 0.95 of what the whole network has at best."""
    accuracies = [metric for metric in whole.decided() if metric.name.startswith("balanced_accuracy")]
    both = [whole.judged] if whole.calibrated is None else accuracies
    values = [[each.value for each in (*metric.estimates(), metric.mean())] for metric in both]
    return [
        math.nan if any(map(math.isnan, of_task)) else ENOUGH * max(of_task)
        for of_task in zip(*values, strict=True)
    ]


def _enough(
    origin: Origin, shares: Sequence[float], curve: Sequence[Metric], goals: Sequence[float]
) -> Iterator[Row]:
    """The smallest share that reaches the goal, and the largest that falls short of it again."""
    points = zip(*([*one.estimates(), one.mean()] for one in curve), strict=True)
    for task, goal, of_task in zip((*origin.tasks, "mean"), goals, points, strict=True):
        found = smallest_share(shares, of_task, goal)
        yield origin.row(task, "smallest_share", found, curve[0].pictures)
        pairs = zip(shares, of_task, strict=True)
        short = [share for share, each in pairs if share > found.value and each.value < goal]
        again = Estimate(short[-1], math.nan, math.nan) if short else NO_VALUE
        yield origin.row(task, "short_again", again, curve[0].pictures)
