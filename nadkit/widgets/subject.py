"""What an explorer is about: a network, if it is at hand, its masks, and pictures, if there are any."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from nadkit import questions
from nadkit.errors import ImageError, NadkitError
from nadkit.masks import MaskSet, Unit

if TYPE_CHECKING:
    from torch import Tensor

    from nadkit.images import Images
    from nadkit.networks import Network

CONDITIONS = ("whole", "kept", "removed", "random")
MOST_PICTURES = 2000
"""Pictures whose responses are read and that can be chosen, over all classes."""

MOST_OF_CLASS = 100


class Pictured(Protocol):
    """Whatever has pictures to show."""

    @property
    def shown(self) -> Images | None:
        """Return those that can be chosen."""

    @property
    def rows(self) -> tuple[int, ...]:
        """Return the index of each in the images that were given."""

    def class_of(self, place: int) -> str:
        """Return the class of one that is shown."""


@dataclass(frozen=True, eq=False)
class Subject:
    """Network, masks and pictures, checked against each other.

    Attributes
    ----------
    network : a copy of its own, so that work in a thread never hooks the model that cells run; None if the
        network is not at hand
    masks, images, calibrate_on : as given
    shown : the pictures that can be chosen, some of each class; None without pictures
    rows : the index in `images` of each of them
    seed : of the random units
    """

    network: Network | None
    masks: MaskSet
    images: Images | None
    calibrate_on: Images | None = None
    shown: Images | None = None
    rows: tuple[int, ...] = ()
    seed: int = 0
    _kept: Any = field(default=None, repr=False)

    @classmethod
    def of(
        cls,
        network: Network | None,
        masks: MaskSet,
        images: Images | None = None,
        calibrate_on: Images | None = None,
    ) -> Subject:
        """Return the subject, or raise what is wrong about it.

        Raises
        ------
        MaskFileError
            The masks are for another network.
        ImageError
            No picture is of a class that has a mask.
        NadkitError
            Something is of another type.
        """
        for name, value, wanted, none in (
            ("network", network, "weights_id", True), ("masks", masks, "scores", False),
            ("images", images, "class_names", True), ("calibrate_on", calibrate_on, "class_names", True),
        ):  # fmt: skip
            if not (none and value is None) and not hasattr(value, wanted):
                raise NadkitError(
                    f"explore got {type(value).__name__} as {name}; call nk.explore(network, masks, images)"
                    f"{', with None where there is none' * none}"
                    f"{'; wrap a model first: nk.Network.wrap(model, ...)' * (name == 'network')}"
                )
        if network is not None:
            masks.check(network)
            network = copied(network)
            # Weights are drawn from torch's one random state, which only this thread may touch.
            questions.draw_untrained(network, masks)
        rows: list[int] = []
        if images is not None:
            classes = [index for index, name in enumerate(images.class_names) if name in masks.tasks]
            labels = np.asarray(images.labels)
            most = max(1, min(MOST_OF_CLASS, MOST_PICTURES // max(len(classes), 1)))
            rows = sorted(row for index in classes for row in np.flatnonzero(labels == index)[:most].tolist())
            if not rows:
                raise ImageError(
                    f"no picture is of a class that has a mask: pictures of {list(images.class_names)[:8]}, "
                    f"masks of {list(masks.tasks)[:8]}"
                )
        shown = images[rows] if images is not None else None
        return cls(network, masks, images, calibrate_on, shown, tuple(rows))

    def __post_init__(self) -> None:
        """Keep the thresholds asked for last: one for the map, and those a slider just left."""
        object.__setattr__(self, "_kept", lru_cache(maxsize=8)(self._at))

    @property
    def name(self) -> str:
        """Return what the network is called, as far as it is known."""
        return self.network.name if self.network else str(self.masks.meta.get("network", "a network"))

    @property
    def layers(self) -> dict[str, int]:
        """Return address → units, in forward order."""
        return self.masks.unit_counts

    def kept(self, threshold: float) -> dict[str, Any]:
        """Return address → (n_tasks, n_units) bool array of what is kept."""
        found: dict[str, Any] = self._kept(threshold)
        return found

    def _at(self, threshold: float) -> dict[str, Any]:
        return {address: rows.numpy() > 0 for address, rows in self.masks.gates(None, threshold).items()}

    def gates(self, task: str, threshold: float, condition: str) -> dict[str, Tensor] | None:
        """Return what a condition multiplies each layer with, None for the whole network."""
        if condition == "whole":
            return None
        if condition == "random":
            return self.masks[task].random(self.seed, threshold).gates(task)
        return self.masks.gates(task, threshold, keep=condition == "kept")

    def keepers(self, unit: Unit, threshold: float) -> list[tuple[str, float]]:
        """Return the tasks that keep a unit with its scores, highest first."""
        scores = self.masks.scores[unit.layer][:, unit.index].tolist()
        kept = self.kept(threshold)[unit.layer][:, unit.index]
        found = [
            (task, score) for task, score, keep in zip(self.masks.tasks, scores, kept, strict=True) if keep
        ]
        return sorted(found, key=lambda pair: -pair[1])

    def of_class(self, task: str) -> Iterator[int]:
        """Yield the places in `shown` of a class's pictures."""
        if self.shown is None or task not in self.shown.class_names:
            return
        index = list(self.shown.class_names).index(task)
        yield from (at for at, label in enumerate(self.shown.labels.tolist()) if label == index)

    def answered(self, logits: Tensor) -> list[str]:
        """Return the class that the whole network answers for each picture shown."""
        assert self.network is not None
        return [self.network.class_names[index] for index in logits.argmax(1).tolist()]

    def class_of(self, place: int) -> str:
        """Return the class of a picture shown."""
        assert self.shown is not None
        return str(self.shown.class_names[int(self.shown.labels[place])])


def copied(network: Network) -> Network:
    """Return the network around a copy of its model.

    Raises
    ------
    NadkitError
        The model cannot be copied.
    """
    try:
        return dataclasses.replace(network, model=copy.deepcopy(network.model))
    except Exception as error:
        raise NadkitError(
            f"the model of {network.name} cannot be copied ({error}); a widget works on a copy, so that "
            "it never gates the model that your cells run"
        ) from error


def unit_in(text: str, layers: Mapping[str, int]) -> Unit | None:
    """Return the unit of its written form if these layers have it."""
    try:
        unit = Unit.parse(text)
    except NadkitError:
        return None
    return unit if unit.index < layers.get(unit.layer, 0) else None
