"""One mosaic after the other: how much of a layer's energy lies on the task's quadrant, and where."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nadkit.errors import ImageError, NadkitError, closest
from nadkit.images import Images
from nadkit.masks import MaskSet
from nadkit.measures.hits import energy, quadrant_shares
from nadkit.networks import Network
from nadkit.networks.outputs import at_once
from nadkit.questions.asked import check_finite, check_images, check_network, check_number
from nadkit.questions.depth.conditions import other_tasks
from nadkit.questions.depth.material import at_scale, draw_mosaics, look, tasks_of
from nadkit.questions.forwards import BATCH, labels_of
from nadkit.questions.peaks import UnitPeaks
from nadkit.questions.recording import record
from nadkit.questions.sets import in_order
from nadkit.taps import maps_of

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("network", "task", "condition", "layer", "metric", "value")


@dataclass(frozen=True, eq=False)
class MosaicCourse:
    """One mosaic on its way through the layers.

    Attributes
    ----------
    network : name
    task : that the kept units are of
    place : its quadrant: 0 top left, 1 top right, 2 bottom left, 3 bottom right
    classes : the names of the four classes, in the order of the quadrants
    other_task : the task of the condition "other", None if there is no other
    pixels : (C, H, W) as shown to the network, on the CPU
    shown : "at object scale", or "resized to the network's input"
    layers : addresses in forward order
    shares : condition → (n_layers,) float64: the share of energy in the task's quadrant; NaN for a layer
        without rows and columns, or where nothing is active
    maps : condition → address → (h, w) float64: the energy; layers without rows and columns are left out

    Conditions are kept, other, random and whole as in `where`; other is left out if there is no other task,
    random without draws. Those of random are means over the draws.
    """

    network: str
    task: str
    place: int
    classes: tuple[str, ...]
    other_task: str | None
    pixels: Tensor
    shown: str
    layers: tuple[str, ...]
    shares: Mapping[str, Tensor]
    maps: Mapping[str, Mapping[str, Tensor]]

    def __repr__(self) -> str:
        return f"MosaicCourse({self.task} of {self.network} among {', '.join(self.classes)})"

    def to_frame(self) -> pd.DataFrame:
        """Return one row for every condition and layer.

        Returns
        -------
        pandas.DataFrame
            Columns network, task, condition, layer, metric ("hit_rate") and value, the share.
        """
        import pandas as pd

        rows = [
            (self.network, self.task, condition, layer, "hit_rate", value)
            for condition, shares in self.shares.items()
            for layer, value in zip(self.layers, shares.tolist(), strict=True)
        ]
        return pd.DataFrame(rows, columns=list(COLUMNS))


@dataclass(frozen=True, eq=False)
class MosaicCourses:
    """The mosaics that show a task, as a sequence of `MosaicCourse`; each is computed when it is asked for.

    Attributes
    ----------
    network : takes mosaics of this size
    masks : over its layers
    task, threshold : whose kept units
    pixels : (n, C, H, W) of the mosaics that show the task
    places : (n,) the task's quadrant in each
    classes : (n, 4) class indices of the pictures' names
    class_names : of the pictures
    others : (n,) index of the other task, -1 for none
    random : for every draw address → (n_units,)
    weights : address → (n_units,) one over the variance of each unit
    shown : at which scale
    """

    network: Network
    masks: MaskSet
    task: str
    threshold: float
    pixels: Tensor
    places: Tensor
    classes: Tensor
    class_names: tuple[str, ...]
    others: Tensor
    random: tuple[Mapping[str, Tensor], ...]
    weights: Mapping[str, Tensor]
    shown: str

    def __len__(self) -> int:
        return len(self.pixels)

    def __iter__(self) -> Iterator[MosaicCourse]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"MosaicCourses({len(self)} mosaics of {self.network.name} that show {self.task})"

    def __getitem__(self, index: int) -> MosaicCourse:
        """Return one mosaic on its way, 0 to len - 1, from one pass of the gated network.

        Raises
        ------
        NadkitError
            There is no such mosaic, or the network gives NaN or infinite logits.
        """
        if check_number("index", index, 0) >= len(self):
            raise NadkitError(
                f"mosaic {index} was asked for and {len(self)} show {self.task!r}, the last is "
                f"{len(self) - 1}; ask for more with mosaics="
            )
        place, other = int(self.places[index]), int(self.others[index])
        found = self._run(self.pixels[index], other)
        layers = tuple(self.network.layers)
        shares, maps = {}, {}
        for condition, seen in found.items():
            values = torch.full((len(layers),), torch.nan, dtype=torch.float64)
            for at, address in enumerate(layers):
                if address in seen:
                    values[at] = quadrant_shares(seen[address])[:, place].nanmean()
            shares[condition] = values
            maps[condition] = {address: energies.mean(0) for address, energies in seen.items()}
        return MosaicCourse(
            self.network.name,
            self.task,
            place,
            tuple(self.class_names[row] for row in self.classes[index].tolist()),
            None if other < 0 else self.masks.tasks[other],
            self.pixels[index].cpu(),
            self.shown,
            layers,
            shares,
            maps,
        )

    def _run(self, pixels: Tensor, other: int) -> dict[str, dict[str, Tensor]]:
        """Condition → address → (repetitions, h, w), all in one go: every sample has gates of its own."""
        ones = {address: torch.ones(layer.units) for address, layer in self.network.layers.items()}
        gates = {"kept": [self.masks.gates(self.task, self.threshold)]}
        if other >= 0:
            gates["other"] = [self.masks.gates(self.masks.tasks[other], self.threshold)]
        if self.random:
            gates["random"] = [dict(gate) for gate in self.random]
        gates["whole"] = [ones]
        every = [gate for several in gates.values() for gate in several]
        stacked = {address: torch.stack([gate[address] for gate in every]) for address in ones}
        parts: dict[str, list[Tensor]] = {}
        for rows in torch.arange(len(every)).split(at_once(pixels.shape[1:], BATCH // 4)):
            shown = pixels.expand(len(rows), *pixels.shape)
            logits, activations = record(self.network, shown, stacked, rows)
            check_finite(self.network, logits)
            for address, layer in self.network.layers.items():
                maps = maps_of(activations[address], layer)
                if maps is not None:
                    parts.setdefault(address, []).append(energy(maps, self.weights[address]).cpu())
        sizes = [len(several) for several in gates.values()]
        energies = {address: torch.cat(found).split(sizes) for address, found in parts.items()}
        return {
            condition: {address: split[place] for address, split in energies.items()}
            for place, condition in enumerate(gates)
        }


def mosaic_courses(
    network: Network,
    masks: MaskSet,
    images: Images,
    *,
    task: str,
    threshold: float = 0.5,
    draws: int = 5,
    mosaics: int = 100,
    seed: int = 0,
    peaks: UnitPeaks | None = None,
    advance: Callable[[int], object] | None = None,
) -> MosaicCourses:
    """Return the mosaics that show a task, each with what `where` averages over, layer by layer.

    Examples
    --------
    >>> pixels = torch.eye(4)[:, :, None, None].expand(-1, -1, 2, 2)
    >>> names = ["red", "green", "blue", "white"]
    >>> model = torch.nn.Sequential(
    ...     torch.nn.Identity(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 4)
    ... )
    >>> _ = model[3].weight.data.copy_(9 * torch.eye(4)), model[3].bias.data.zero_()
    >>> network = Network.wrap(model, names, example=pixels, layers=["0"])
    >>> masks = MaskSet.from_scores({"0": torch.eye(4)}, names)
    >>> images = Images(pixels, torch.arange(4), tuple(names))
    >>> courses = mosaic_courses(network, masks, images, task="blue", mosaics=6)
    >>> len(courses), courses[0].shares["kept"].tolist(), courses[0].shares["whole"].tolist()
    (6, [1.0], [0.25])

    Parameters
    ----------
    network
        The trained network; its modes and gradient flags come back.
    masks
        Of this network; one set.
    images
        Test pictures; classes are matched to tasks by name.
    task
        One of the masks' tasks.
    threshold
        In [0, 1]; strictly above it is kept.
    draws
        Random masks of the same size, at least 0.
    mosaics
        How many are drawn; with the same number and seed they are those of `where`, and so are the other
        tasks. A larger number keeps the mosaics of a smaller one.
    seed
        Of the mosaics, the other tasks and the random masks.
    peaks
        `unit_peaks(network, images)`, if it is known; a pass over all pictures is then spared.
    advance
        Called with the number of pictures done in that pass.

    Returns
    -------
    MosaicCourses
        A sequence in the order of drawing. Every mosaic shows four tasks, so that 40 of 100 mosaics show
        each of ten tasks.

    Raises
    ------
    ImageError
        As in `where`: pictures that the network cannot take, of a class it does not have, or correctly
        classified of fewer than four classes; and where no mosaic shows the task.
    MaskFileError
        The masks are for another network.
    NadkitError
        No such task, several sets of masks, a number that is none, peaks of other pictures, NaN logits.

    Notes
    -----
    The mean of a condition's shares over all mosaics, NaN left out, is the value of `where` for that task
    and layer; for random it is near that, as there a draw sees a quarter of the mosaics, and here all. It
    may run in a thread of its own, while no other thread runs the same model.
    """
    check_network("mosaic_courses", network)
    check_images("mosaic_courses", images)
    if not isinstance(masks, MaskSet):
        raise NadkitError(f"mosaic_courses needs one MaskSet, and got {type(masks).__name__}")
    in_order(network, masks, "mosaic_courses")
    if task not in masks:
        raise NadkitError(f"no task {task!r} in the masks; {closest(str(task), masks.tasks)}")
    for name, value, least in [("mosaics", mosaics, 1), ("draws", draws, 0), ("seed", seed, 0)]:
        check_number(name, value, least)
    masks.gates(task, threshold)  # refuses a threshold that is none before anything runs
    drawn = [masks.random(seed + draw, threshold).gates(task) for draw in range(draws)]
    if peaks is None:
        known = look(network, images, advance or (lambda _: None))
        right, weights = known.right, known.weights
    else:
        right, weights = _right(network, images, peaks), dict(peaks.weights)
    found = draw_mosaics(network, images, right, masks.tasks, mosaics, seed)
    tasks = tasks_of(found.class_names, masks.tasks)[found.classes]
    others = other_tasks(tasks, len(masks), torch.Generator().manual_seed(seed))
    rows, places = (tasks == masks.tasks.index(task)).nonzero(as_tuple=True)
    if not len(rows):
        raise ImageError(
            f"none of {mosaics} mosaics shows {task!r}: {network.name} classifies no picture of it "
            "correctly, or there are too few mosaics; give more pictures or mosaics"
        )
    large, pixels, shown = at_scale(network, found.pixels)
    return MosaicCourses(
        large, masks, task, threshold, pixels[rows], places, found.classes[rows], found.class_names,
        others[rows, places], tuple(drawn), weights, shown,
    )  # fmt: skip


def mosaic_course(
    network: Network,
    masks: MaskSet,
    images: Images,
    *,
    task: str,
    index: int = 0,
    threshold: float = 0.5,
    draws: int = 5,
    mosaics: int = 100,
    seed: int = 0,
    peaks: UnitPeaks | None = None,
) -> MosaicCourse:
    """Return one mosaic that shows a task; `mosaic_courses` gives several for the price of one.

    Examples
    --------
    >>> import nadkit as nk
    >>> network, images = nk.load_network("vgg-fashion"), nk.load_images("fashion", split="test", per_class=5)
    >>> course = mosaic_course(network, nk.load_masks("vgg-fashion"), images, task="bag", index=2)
    >>> list(course.shares), course.classes[course.place]
    (['kept', 'other', 'random', 'whole'], 'bag')

    Parameters
    ----------
    network, masks, images, task, threshold, draws, mosaics, seed, peaks
        As in `mosaic_courses`.
    index
        Which of those that show the task, from 0 on.

    Raises
    ------
    ImageError, MaskFileError, NadkitError
        As in `mosaic_courses`; and if so many mosaics do not show the task.
    """
    check_number("index", index, 0)
    courses = mosaic_courses(
        network, masks, images, task=task, threshold=threshold, draws=draws, mosaics=mosaics, seed=seed,
        peaks=peaks,
    )  # fmt: skip
    return courses[index]


def _right(network: Network, images: Images, peaks: UnitPeaks) -> Tensor:
    labels = labels_of(network, images)
    same = len(peaks.logits) == len(images)
    if not same or {a: len(w) for a, w in peaks.weights.items()} != {
        address: layer.units for address, layer in network.layers.items()
    }:
        raise NadkitError(
            f"peaks are of {len(peaks.logits)} pictures and {len(peaks.weights)} layers, and there are "
            f"{len(images)} pictures and {len(network.layers)} layers; "
            "give unit_peaks(network, images) of this network and these pictures"
        )
    return peaks.logits.argmax(1) == labels
