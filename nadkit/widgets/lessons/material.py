"""What a lesson is about: a copy of a network, and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nadkit.errors import NadkitError, closest
from nadkit.masks import MaskSet
from nadkit.widgets.subject import copied

if TYPE_CHECKING:
    from nadkit.images import Images
    from nadkit.networks import Network

MOST_OF_CLASS = 100
"""Pictures of one class that are asked at a time, so that a switch answers at once."""


@dataclass(frozen=True, eq=False)
class Material:
    """A network's copy, and all pictures given; it has what the views of an explorer ask of a subject."""

    network: Network
    images: Images

    @property
    def layers(self) -> dict[str, int]:
        """Return address → units, in forward order."""
        return {address: layer.units for address, layer in self.network.layers.items()}

    @property
    def shown(self) -> Images:
        """Return the pictures."""
        return self.images

    @property
    def rows(self) -> tuple[int, ...]:
        """Return the index of each picture in those given."""
        return tuple(range(len(self.images)))

    def class_of(self, place: int) -> str:
        """Return the class of a picture."""
        return str(self.images.class_names[int(self.images.labels[place])])

    @property
    def classes(self) -> list[str]:
        """Return the classes of which there are pictures."""
        there = set(self.images.labels.tolist())
        return [name for index, name in enumerate(self.images.class_names) if index in there]

    def of_class(self, name: str) -> Images:
        """Return the first pictures of a class."""
        index = list(self.images.class_names).index(name)
        return self.images[(self.images.labels == index).nonzero().flatten()[:MOST_OF_CLASS].tolist()]


def check(verb: str, usage: str, **given: Any) -> None:
    """Raise unless everything is what its name says: network, masks, images.

    Raises
    ------
    NadkitError
        Something is of another type.
    """
    for name, value in given.items():
        # Networks and pictures are of modules that widgets do not import, so they are told by what they have.
        if not hasattr(value, {"network": "layers", "masks": "scores", "images": "class_names"}[name]):
            raise NadkitError(f"{verb} got {type(value).__name__} as {name}; call nk.widgets.{usage}")


def material(verb: str, usage: str, network: Any, images: Any, masks: Any = None) -> Material:
    """Return what a lesson is about, or raise what is wrong about it.

    Raises
    ------
    MaskFileError
        The masks are for another network.
    NadkitError
        Something is of another type.
    """
    check(verb, usage, network=network, images=images, **({} if masks is None else {"masks": masks}))
    if masks is not None:
        masks.check(network)
    return Material(copied(network), images)


def a_task(task: Any, masks: MaskSet) -> str:
    """Return a task of the masks.

    Raises
    ------
    NadkitError
        There is no such task.
    """
    if task not in masks.tasks:
        raise NadkitError(f"no task {task!r} in these masks; {closest(str(task), masks.tasks)}")
    return str(task)


def highest(masks: MaskSet, task: str, most: int) -> list[str]:
    """Return the units of a task that score highest, written layer/index; equal ones in forward order."""
    row = masks.tasks.index(task)
    units = [
        (-score, at, f"{address}/{index}")
        for at, (address, rows) in enumerate(masks.scores.items())
        for index, score in enumerate(rows[row].tolist())
    ]
    units.sort(key=lambda one: one[:2])
    return [name for _, _, name in units[:most]]


def whole(name: str, value: Any, least: int) -> int:
    """Return a whole number of at least so many.

    Raises
    ------
    NadkitError
        It is no whole number, or smaller.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise NadkitError(f"{name} = {value!r}; give a whole number of {least} or more")
    return value
