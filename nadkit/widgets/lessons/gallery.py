"""`unit_gallery`: the pictures that excite a unit most, with the place outlined."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import traitlets

from nadkit import questions
from nadkit.errors import NadkitError
from nadkit.masks import MaskSet, Unit
from nadkit.widgets.answers import Key
from nadkit.widgets.frames import worked_out
from nadkit.widgets.lessons.lesson import Lesson, a_unit, one_of
from nadkit.widgets.lessons.material import Material, a_task, highest, material, whole
from nadkit.widgets.stills.panels import told
from nadkit.widgets.stills.photos import few, pictures
from nadkit.widgets.stills.svg import document, lines_of_text
from nadkit.widgets.views.needs import State, found
from nadkit.widgets.views.unit import exciting

if TYPE_CHECKING:
    import pandas as pd

    from nadkit.images import Images
    from nadkit.networks import Network

USAGE = "unit_gallery(network, images, units)"
LISTED = 24
"""Units that are offered by name; any other is reached by layer and index."""


def unit_gallery(
    network: Network,
    images: Images,
    units: Sequence[Unit | str] | None = None,
    *,
    masks: MaskSet | None = None,
    task: str | None = None,
    count: int = 8,
) -> UnitGallery:
    """Return a widget that shows the pictures that excite a unit most, with the place outlined.

    Examples
    --------
    >>> import nadkit as nk
    >>> network = nk.load_network("resnet-fashion")
    >>> images = nk.load_images("fashion", split="test", per_class=2)
    >>> gallery = unit_gallery(network, images, ["stage3.2/17", "stage1.0/3"], count=2)
    >>> gallery.unit = "stage1.0/3"
    >>> gallery.to_frame()[["unit", "class_name", "width"]].round(3)
             unit class_name  width
    0  stage1.0/3       coat  0.071
    1  stage1.0/3        bag  0.071

    Parameters
    ----------
    network
        The trained network; the widget works on a copy of it.
    images
        Pictures to look through, all of them, in one pass that starts when the widget is seen.
    units
        Those offered by name, written layer/index; by default the units of `task` that score highest. Every
        other unit can be reached by its layer and index.
    masks
        Of this network; then the widget says which classes keep a unit.
    task
        One of the masks' tasks, by default the first.
    count
        Pictures, at least 1.

    Returns
    -------
    UnitGallery
        Its traits `unit` and, with masks, `task` can be read, set and observed.

    Raises
    ------
    MaskFileError
        The masks are for another network.
    NadkitError
        No such task or unit, or something is of another type.
    """
    made = material("unit_gallery", USAGE, network, images, masks)
    if task is not None and masks is None:
        raise NadkitError("a task says nothing without masks; give masks=, or units")
    if masks is not None:
        task = a_task(masks.tasks[0] if task is None else task, masks)
    whole("count", count, 1)
    if isinstance(units, str | Unit):
        units = [str(units)]
    named = None
    if units is not None:
        try:
            named = [a_unit(str(unit), made.layers) for unit in units]
        except traitlets.TraitError as error:
            raise NadkitError(str(error)) from None
        if not named:
            raise NadkitError("units names none; leave it out, or name at least one")
    return UnitGallery(made, named, masks, task or "", count)


class UnitGallery(Lesson):
    """The widget that `unit_gallery` returns.

    Attributes
    ----------
    unit : written layer/index
    task : whose scores are said; empty without masks
    """

    CHOSEN = ("unit", "task")
    SAID: ClassVar[Mapping[str, str]] = {"peaks": "reading what excites the units"}

    unit = traitlets.Unicode()
    task = traitlets.Unicode("")

    def __init__(
        self, made: Material, units: list[str] | None, masks: MaskSet | None, task: str, count: int
    ) -> None:
        self._material, self._given, self._masks, self._count = made, units, masks, count
        super().__init__("gallery")
        if masks is not None:
            self.task = task
        self.unit = self._offered()[0]
        self._start()

    @traitlets.validate("unit")
    def _a_unit(self, proposal: Any) -> str:
        return a_unit(proposal.value, self._material.layers)

    @traitlets.validate("task")
    def _a_task(self, proposal: Any) -> str:
        if self._masks is None:
            raise traitlets.TraitError("there are no masks, so there is no task to choose")
        return one_of(proposal.value, self._masks.tasks, "task", "these masks")

    def to_frame(self) -> pd.DataFrame:
        """Return one row a picture: unit, image (index), class_name, value, left, top, width, height.

        The place is the cell of the layer's grid where the unit responds most, in shares of the picture.

        Raises
        ------
        NadkitError
            It could not be worked out.
        """
        table: pd.DataFrame = worked_out(self._answers, ("peaks",)).top(self.unit, self._count)
        table.insert(0, "unit", self.unit)
        table.insert(2, "class_name", [self._material.class_of(place) for place in table["image"]])
        return table

    def _offered(self) -> list[str]:
        if self._given is not None:
            return self._given
        if self._masks is not None:
            return highest(self._masks, self.task, LISTED)
        layer, units = list(self._material.layers.items())[-1]
        return [f"{layer}/{index}" for index in range(min(units, LISTED))]

    def _follow(self, name: str, value: Any) -> None:  # noqa: ARG002 - the base class's signature
        if name == "task" and self._given is None:
            self.unit = self._offered()[0]

    def _keys(self) -> list[Key]:
        return [("peaks",)]

    def _answer(self, key: Key, advance: Callable[[int], Callable[[int], None]]) -> Any:
        assert key == ("peaks",), key
        images = self._material.images
        return questions.unit_peaks(self._material.network, images, advance=advance(len(images)))

    def _facts(self) -> str:
        unit = Unit.parse(self.unit)
        if self._masks is None:
            return ""
        rows = self._masks.scores[unit.layer][:, unit.index].tolist()
        keepers = [task for task, score in zip(self._masks.tasks, rows, strict=True) if score > 0.5]
        own = rows[self._masks.tasks.index(self.task)]
        kept = f"kept by {', '.join(keepers[:12])}" if keepers else "kept by no class"
        more = f" and {len(keepers) - 12} more" if len(keepers) > 12 else ""
        return f"Score {own:.2f} for {self.task}; {kept}{more}."

    def _state(self) -> State:
        unit = Unit.parse(self.unit)
        offered = self._offered()
        state: State = {
            "title": f"Unit {self.unit}: the pictures that excite it most",
            "stamp": f"{self.unit}|{self.task}",
            "tasks": [] if self._masks is None else list(self._masks.tasks),
            "task": self.task,
            "layers": [[layer, units] for layer, units in self._material.layers.items()],
            "layer": unit.layer,
            "index": unit.index,
            "unit": self.unit,
            "offered": offered,
            "offer": "Units given" if self._given is not None else f"Units that score highest for {self.task}"
            if self._masks is not None else f"Units of {offered[0].rpartition('/')[0]}",
            "facts": self._facts(),
            "pictures": [],
        }  # fmt: skip
        peaks = found(self._answers, self._keys(), state)[0]
        if peaks is not None:
            state["pictures"] = exciting(self._material, peaks, unit, self._count)
            count = len(self._material.images)
            if not state["pictures"]:
                state["facts"] += f" It is 0 on all {count:,} pictures."
            state["note"] = f"of {count:,} pictures; numbers are responses" + (
                "" if peaks.grids[unit.layer] == (1, 1) else ", and the frame is where it responds most"
            )
        return state

    def _still(self) -> tuple[str, str]:
        state = self.state
        title, facts = str(state["title"]), str(state["facts"])
        lines = lines_of_text([facts, *told(state)])
        if not state["pictures"]:
            return document(title, lines), " ".join([f"{title}.", facts, *told(state)])
        shown = few(state["pictures"])
        names = ", ".join(str(one["caption"]) for one in shown)
        return document(title, pictures(shown), lines), f"{title}: {names}. {facts}"
