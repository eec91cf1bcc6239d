"""Every condition shown the same pictures, once: what all parts of `whether` but removal are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from nadkit.images import Images
from nadkit.measures import calibrate, platt
from nadkit.networks import Network
from nadkit.questions.conditions import Condition
from nadkit.questions.forwards import ask
from nadkit.questions.outcomes import Outcome, Sample


class Shown(NamedTuple):
    """The outcomes of all conditions, and the whole network's log-odds of every class, plain and decisive.

    Both are (n_images, n_classes); the decisive ones are calibrated if there is a calibration.
    """

    outcomes: list[Outcome]
    whole: Tensor
    decisive: Tensor


def show(
    network: Network,
    conditions: Sequence[Condition],
    tasks: tuple[str, ...],
    images: Images,
    calibrate_on: Images | None,
    seed: int,
    progress: bool,
    title: str = "sufficiency",
) -> Shown:
    """Return what all conditions say to the pictures, each task calibrated under each for itself."""
    from tqdm.auto import tqdm

    pictures = len(images) + (0 if calibrate_on is None else len(calibrate_on))
    total = pictures * sum(condition.runs for condition in conditions) * len(tasks)
    with tqdm(total=total, disable=not progress, desc=title, unit="answer", unit_scale=True) as bar:
        asked = ask(network, conditions, images, bar.update)
        fitted = None if calibrate_on is None else ask(network, conditions, calibrate_on, bar.update)
    sample = Sample.of(tasks, asked.labels, asked.chosen, seed)
    outcomes, decisive = [], asked.whole
    for place, (condition, readings) in enumerate(zip(conditions, asked.readings, strict=True)):
        calibrated = None
        if fitted is not None:
            positive = condition.targets[..., None] == fitted.labels
            calibrated = calibrate(readings.log_odds, *platt(fitted.readings[place].log_odds, positive))
        outcomes.append(Outcome(condition, sample, readings, calibrated))
    if fitted is not None:
        classes = range(len(network.class_names))
        positive = fitted.labels == asked.labels.new_tensor(list(classes))[:, None]
        decisive = calibrate(asked.whole.T, *platt(fitted.whole.T, positive)).T
    return Shown(outcomes, asked.whole, decisive)
