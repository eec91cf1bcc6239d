"""What a reader of an explorer may choose: traits that are checked, and follow one another."""

from __future__ import annotations

import math
from typing import Any

import ipywidgets
import traitlets

from nadkit.errors import closest
from nadkit.masks import Unit
from nadkit.widgets import views
from nadkit.widgets.choice import Choice
from nadkit.widgets.subject import CONDITIONS, Subject, unit_in


class Chosen(ipywidgets.VBox):  # type: ignore[misc]
    """The traits of an explorer, and what must change with each."""

    _subject: Subject

    task = traitlets.Unicode()
    other_task = traitlets.Unicode("")
    layer = traitlets.Unicode()
    unit = traitlets.Unicode("")
    image = traitlets.Int(None, allow_none=True)
    threshold = traitlets.Float(0.5, min=0.0, max=1.0)
    condition = traitlets.Enum(CONDITIONS, "kept")
    matrix = traitlets.Enum(tuple(views.MATRICES), "phi")
    metric = traitlets.Enum(("", *views.METRICS), "")

    CHOSEN = ("task", "other_task", "layer", "unit", "image", "threshold", "condition", "matrix", "metric")

    # What may be chosen

    @traitlets.validate("task", "other_task")
    def _a_task(self, proposal: Any) -> str:
        tasks, name = self._subject.masks.tasks, proposal.trait.name
        if proposal.value not in tasks and (name == "task" or proposal.value):
            raise traitlets.TraitError(
                f"no {name} {proposal.value!r} in these masks; {closest(proposal.value, tasks)}"
            )
        return str(proposal.value)

    @traitlets.validate("layer")
    def _a_layer(self, proposal: Any) -> str:
        if proposal.value not in self._subject.layers:
            raise traitlets.TraitError(
                f"no layer {proposal.value!r} in these masks; {closest(proposal.value, self._subject.layers)}"
            )
        return str(proposal.value)

    @traitlets.validate("unit")
    def _a_unit(self, proposal: Any) -> str:
        if proposal.value and unit_in(proposal.value, self._subject.layers) is None:
            example = next(iter(self._subject.layers))
            raise traitlets.TraitError(
                f"no unit {proposal.value!r} in these masks; write layer/index, such as {example}/0"
            )
        return str(Unit.parse(proposal.value)) if proposal.value else ""

    @traitlets.validate("image")
    def _an_image(self, proposal: Any) -> int | None:
        rows = self._subject.rows
        if proposal.value is not None and proposal.value not in rows:
            there = f"of {len(rows)} pictures, {rows[0]} to {rows[-1]}" if rows else "there are no pictures"
            raise traitlets.TraitError(f"no picture {proposal.value} can be chosen ({there})")
        return None if proposal.value is None else int(proposal.value)

    @traitlets.validate("threshold")
    def _a_threshold(self, proposal: Any) -> float:
        if math.isnan(proposal.value):  # neither below the least nor above the most
            raise traitlets.TraitError("the threshold is NaN; give a number from 0 to 1")
        return float(proposal.value)

    @property
    def choice(self) -> Choice:
        """Return what is chosen, all of it."""
        image = self.image  # read once: a cell may change it while a thread draws
        place = None if image is None else self._subject.rows.index(image)
        return Choice(
            self.task, self.other_task, self.layer, self.unit, place, self.threshold, self.condition,
            self.matrix, self.metric,
        )  # fmt: skip

    def _follow(self, name: str, value: Any) -> None:
        """Change what must change with a trait."""
        if name == "unit" and value:
            unit = unit_in(value, self._subject.layers)
            assert unit is not None
            self.layer = unit.layer
        elif name == "layer" and self.unit and Unit.parse(self.unit).layer != value:
            self.unit = ""
        elif name == "task":
            if self.other_task == value:
                self.other_task = ""
            if (
                self.image is not None
                and self._subject.class_of(self._subject.rows.index(self.image)) != value
            ):
                self.image = None
        elif name == "other_task" and value == self.task:
            self.other_task = ""
