"""`mosaic_player`: where the energy of a mosaic lies, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import traitlets

from nadkit import questions
from nadkit.figures._png import png_uri, visible
from nadkit.masks import MaskSet
from nadkit.widgets.answers import Failed, Key
from nadkit.widgets.frames import worked_out
from nadkit.widgets.lessons.lesson import Lesson, one_of
from nadkit.widgets.lessons.material import Material, a_task, check, material, whole
from nadkit.widgets.stills.charts import courses
from nadkit.widgets.stills.panels import told
from nadkit.widgets.stills.photos import few, over
from nadkit.widgets.stills.svg import document, lines_of_text
from nadkit.widgets.views.needs import State, found

if TYPE_CHECKING:
    import pandas as pd

    from nadkit.images import Images
    from nadkit.networks import Network

USAGE = "mosaic_player(network, masks, images, task=...)"
CONDITIONS = ("kept", "other", "random", "whole")
PLACES = ("top left", "top right", "bottom left", "bottom right")
CHANCE = 0.25


def mosaic_player(
    network: Network, masks: MaskSet, images: Images, *, task: str, mosaics: int = 20, seed: int = 0
) -> MosaicPlayer:
    """Return a widget that follows a 2×2 mosaic through the layers, with the hit rate of each.

    Examples
    --------
    >>> import nadkit as nk
    >>> network, masks = nk.load_network("resnet-fashion"), nk.load_masks("resnet-fashion")
    >>> images = nk.load_images("fashion", split="test", per_class=10)
    >>> player = mosaic_player(network, masks, images, task="sneaker")
    >>> player.layer, player.mosaic = "stage3.2", 1
    >>> player.to_frame().query("layer == 'stage3.2'")[["condition", "value"]].round(2)
       condition  value
    8       kept   0.54
    17     other   0.40
    26    random   0.30
    35     whole   0.23

    Parameters
    ----------
    network
        The trained network; the widget works on a copy of it.
    masks
        Of this network.
    images
        Test pictures; mosaics are made of those that the network classifies correctly.
    task
        One of the masks' tasks.
    mosaics
        How many are drawn, as in `where`. Every one shows four classes, so that 8 of 20 show each of ten.
    seed
        Of the mosaics, the other tasks and the random masks.

    Returns
    -------
    MosaicPlayer
        Its traits `layer`, `mosaic` and `condition` can be read, set and observed.

    Raises
    ------
    MaskFileError
        The masks are for another network.
    NadkitError
        No such task, a number that is none, or something is of another type. What only shows once the
        mosaics are drawn, such as too few of them, is said in the widget and by `to_frame`.
    """
    check("mosaic_player", USAGE, network=network, masks=masks, images=images)
    made = material("mosaic_player", USAGE, network, images, masks)
    a_task(task, masks)
    whole("mosaics", mosaics, 1)
    whole("seed", seed, 0)
    return MosaicPlayer(made, masks, task, mosaics, seed)


class MosaicPlayer(Lesson):
    """The widget that `mosaic_player` returns.

    Attributes
    ----------
    layer : an address
    mosaic : which of those that show the task, from 0 on
    condition : one of kept, other, random, whole
    """

    CHOSEN = ("layer", "mosaic", "condition")
    SAID: ClassVar[Mapping[str, str]] = {
        "courses": "drawing mosaics",
        "course": "following mosaic {0} through the layers",
    }

    layer = traitlets.Unicode()
    mosaic = traitlets.Int(0, min=0)
    condition = traitlets.Enum(CONDITIONS, "kept")

    def __init__(self, made: Material, masks: MaskSet, task: str, mosaics: int, seed: int) -> None:
        self._material, self._masks, self._task = made, masks, task
        self._mosaics, self._seed = mosaics, seed
        super().__init__("player")
        self.layer = next(iter(made.layers))
        self._start()

    @traitlets.validate("layer")
    def _a_layer(self, proposal: Any) -> str:
        return one_of(proposal.value, self._material.layers, "layer", "this network")

    @traitlets.validate("mosaic")
    def _a_mosaic(self, proposal: Any) -> int:
        courses = self._answers.get(("courses",))
        there = self._mosaics if courses is None or isinstance(courses, Failed) else len(courses)
        if proposal.value >= there:
            raise traitlets.TraitError(
                f"no mosaic {proposal.value}; at most {there} show {self._task}, the last is {there - 1}"
            )
        return int(proposal.value)

    def to_frame(self) -> pd.DataFrame:
        """Return the hit rates of the chosen mosaic: network, task, condition, layer, metric, value; mosaic.

        Raises
        ------
        NadkitError
            It could not be worked out.
        """
        worked_out(self._answers, ("courses",))
        table: pd.DataFrame = worked_out(self._answers, ("course", self.mosaic)).to_frame()
        return table.assign(mosaic=self.mosaic)

    def _keys(self) -> list[Key]:
        return [("courses",), ("course", self.mosaic)]

    def _answer(self, key: Key, advance: Callable[[int], Callable[[int], None]]) -> Any:
        if key[0] == "course":
            return worked_out_here(self._answers.get(("courses",)))[key[1]]
        images = self._material.images
        return questions.mosaic_courses(
            self._material.network, self._masks, images, task=self._task, mosaics=self._mosaics,
            seed=self._seed, advance=advance(len(images)),
        )  # fmt: skip

    def _state(self) -> State:
        layers = list(self._material.layers)
        state: State = {
            "title": f"Mosaic {self.mosaic}: where the energy lies, layer by layer",
            "stamp": f"{self.layer}|{self.mosaic}|{self.condition}",
            "layers": layers,
            "layer": self.layer,
            "mosaic": self.mosaic,
            "count": self._mosaics,
            "condition": self.condition,
            "conditions": list(CONDITIONS),
            "chance": CHANCE,
        }
        courses, course = found(self._answers, self._keys(), state)
        if courses is not None:
            state["count"] = len(courses)
        if course is not None:
            state |= self._drawn(course)
        return state

    def _drawn(self, course: Any) -> State:
        at = list(course.layers).index(self.layer)
        meant = {
            "kept": f"the units that {course.task} keeps",
            "other": f"the units that {course.other_task} keeps", "random": "as many random units",
            "whole": "all units",
        }  # fmt: skip
        rates = {name: _value(shares[at]) for name, shares in course.shares.items()}
        energy = course.maps.get(self.condition, {}).get(self.layer)
        place = PLACES[course.place]
        said = "; ".join(
            f"{name} {'has none' if rate is None else format(rate, '.2f')}" for name, rate in rates.items()
        )
        if self.condition not in rates:
            where = f"There is no condition {self.condition!r} on this mosaic."
        elif energy is None:
            where = f"{self.layer} has no rows and columns, so its energy lies nowhere in the picture."
        else:
            row, column = divmod(int(energy.argmax()), energy.shape[1])
            where = (
                f"The energy of {meant[self.condition]} is highest in row {row + 1} of {energy.shape[0]}, "
                f"column {column + 1} of {energy.shape[1]}."
            )
        names = [f"{name} {PLACES[spot]}" for spot, name in enumerate(course.classes)]
        most = 0.0 if energy is None else float(energy.max())
        return {
            "picture": {
                "src": png_uri(visible(course.pixels[None])[0]),
                "alt": f"mosaic of {', '.join(names)}; {course.task} is {place}",
                "box": [0.5 * (course.place % 2), 0.5 * (course.place // 2), 0.5, 0.5],
            },
            "classes": list(course.classes),
            "conditions": list(course.shares),
            "lines": {
                name: [_value(value) for value in shares] for name, shares in course.shares.items()
            },
            "map": None if energy is None else [
                [round(value / most, 3) if most > 0 else 0.0 for value in row] for row in energy.tolist()
            ],
            "map_alt": where,
            "sentence": f"{self.layer}, share of the energy in the quadrant of {course.task} ({place}): "
            f"{said}; chance {CHANCE}. {where}",
            "note": f"{course.shown}; other: units kept by {course.other_task}; random: means over draws"
            if course.other_task else course.shown,
        }  # fmt: skip

    def _still(self) -> tuple[str, str]:
        state = self.state
        title = f"{self._material.network.name}, {self._task}: {state['title']}"
        if "lines" not in state:
            return document(title, lines_of_text(told(state))), " ".join([f"{title}.", *told(state)])
        picture, energy = state["picture"], state["map"]
        shown = f"energy of {self.condition} in {self.layer}" if energy else "no map"
        (small,) = few([picture])
        pair = over(small["src"], picture["box"], (f"{self._task} is framed", shown), energy)
        course = courses(state["layers"], state["lines"], CHANCE, self.layer)
        svg = document(title, pair, lines_of_text(["hit rate, layer by layer"], heading=True), course)
        return svg, f"{title}. {picture['alt'].capitalize()}. {state['sentence']}"


def worked_out_here(courses: Any) -> Any:
    """Return the courses on which others rest.

    Raises
    ------
    RuntimeError
        They could not be drawn; the reader sees why where it was tried.
    """
    if courses is None or isinstance(courses, Failed):
        raise RuntimeError("there are no mosaics to follow")
    return courses


def _value(share: Any) -> float | None:
    """A number for JSON, which has no NaN."""
    return None if math.isnan(share) else round(float(share), 4)
