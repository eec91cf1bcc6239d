"""Which pictures a graph is read on: some of the task, and as many of others."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nadkit.errors import ImageError, NadkitError, closest
from nadkit.images import Images
from nadkit.masks import MaskSet
from nadkit.networks import Network


class Sides(NamedTuple):
    """Pictures of both sides, prepared.

    Attributes
    ----------
    inputs : (n_own + n_other, C, H, W), the task's own pictures first
    own, other : how many there are
    """

    inputs: Tensor
    own: int
    other: int

    @property
    def means(self) -> Tensor:
        """Return (2, n_own + n_other) float64: how much each picture counts in the mean of each side."""
        counts = torch.zeros(2, self.own + self.other, dtype=torch.float64)
        counts[0, : self.own], counts[1, self.own :] = 1 / self.own, 1 / self.other
        return counts


def draw(network: Network, images: Images, task: str, count: int, seed: int) -> Sides:
    """Return `count` pictures of a task and as many of other classes, in turn, drawn by seed.

    Examples
    --------
    >>> import nadkit as nk
    >>> network, images = nk.load_network("vgg-fashion"), nk.load_images("fashion", per_class=2)
    >>> sides = draw(network, images, "bag", 32, 0)
    >>> sides.own, sides.other
    (2, 18)

    Parameters
    ----------
    count : of each side; all, where there are fewer

    Raises
    ------
    ImageError
        No picture of the task, or of any other class; pictures that the network cannot take.
    """
    rows = own_rows(images, task, count, seed)
    own = images.class_index(task)
    generator = torch.Generator().manual_seed(seed)
    places, turns = [], []
    for label in range(len(images.class_names)):
        there = (images.labels == label).nonzero().flatten()
        if label != own and len(there):
            there = there[torch.randperm(len(there), generator=generator)]
            places.append(there)
            turns.append(torch.arange(len(there)))
    if not places:
        raise ImageError(
            f"all pictures are of {task!r}; links are read on other classes' pictures too, as a unit that is "
            "silent on its own may inhibit: give pictures of other classes as well"
        )
    # The first of every class, then the second of every class, …
    others = torch.cat(places)[torch.cat(turns).argsort(stable=True)][:count]
    inputs = network.prepare(images.pixels[torch.cat([rows, others])])
    return Sides(inputs, len(rows), len(others))


def own_rows(images: Images, task: str, count: int, seed: int) -> Tensor:
    """Return the rows of at most `count` pictures of a task, drawn by seed.

    Raises
    ------
    ImageError
        There is no picture of the task.
    """
    if task not in images.class_names:
        raise ImageError(
            f"there are no pictures of {task!r}, only of {', '.join(images.class_names[:8])}; "
            f"{closest(task, images.class_names)}"
        )
    rows = images.rows_of_class(images.class_index(task))
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))][:count]


def check_count(name: str, value: object, least: int = 1) -> None:
    """Raise unless this is a whole number of at least so many.

    Examples
    --------
    >>> check_count("pictures", 2.5)
    Traceback (most recent call last):
    nadkit.errors.NadkitError: pictures = 2.5; give a whole number of 1 or more
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise NadkitError(f"{name} = {value!r}; give a whole number of {least} or more")


def check_types(verb: str, network: object, masks: object, images: object) -> None:
    """Raise unless these are what a verb takes.

    Examples
    --------
    >>> check_types("extract", None, None, None)
    Traceback (most recent call last):
    nadkit.errors.NadkitError: extract needs network of type Network, got NoneType
    """
    for what, value, kind in (
        ("network", network, Network),
        ("masks", masks, MaskSet),
        ("images", images, Images),
    ):
        if not isinstance(value, kind):
            raise NadkitError(f"{verb} needs {what} of type {kind.__name__}, got {type(value).__name__}")
