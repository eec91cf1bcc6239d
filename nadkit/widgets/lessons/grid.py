"""`layer_class_grid`: layers × classes, and what is behind each cell."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import traitlets

from nadkit import questions
from nadkit.errors import NadkitError, closest
from nadkit.masks import MaskSet
from nadkit.widgets.lessons.lesson import Lesson, one_of
from nadkit.widgets.lessons.material import check
from nadkit.widgets.stills.charts import matrix
from nadkit.widgets.stills.svg import document, lines_of_text
from nadkit.widgets.views.needs import State
from nadkit.widgets.views.words import many

if TYPE_CHECKING:
    import pandas as pd

VALUES = {
    "kept_share": "kept share", "exclusive_share": "exclusive share", "phi": "mean φ to other classes",
}  # fmt: skip
MEANS = {
    "kept_share": "kept share: units that a class keeps, of all units of the layer",
    "exclusive_share": "exclusive share: units that no other class keeps, of all units of the layer",
    "phi": "mean φ: overlap with the other classes beyond chance",
}
MOST = 30
"""Classes that are drawn at a time."""

NAMED = 60
"""Kept units that are listed."""


def layer_class_grid(masks: MaskSet, *, threshold: float = 0.5, values: str = "kept_share") -> LayerClassGrid:
    """Return a widget of classes × layers; choosing a cell says what the class keeps there.

    Examples
    --------
    >>> import nadkit as nk
    >>> grid = layer_class_grid(nk.load_masks("resnet-fashion"))
    >>> grid.layer, grid.task = "stem", "bag"
    >>> grid.to_frame().query("task == 'bag' and layer == 'stem'")[["metric", "value", "n"]].round(2)
            metric  value   n
    72  kept_share   0.71  24

    Parameters
    ----------
    masks
        One set of masks.
    threshold
        In [0, 1]; units with a score above it are kept.
    values
        What is in the cells: kept_share, exclusive_share (units that no other class keeps), or phi (mean
        overlap with the other classes beyond chance).

    Returns
    -------
    LayerClassGrid
        Its traits `layer`, `task`, `values` and `threshold` can be read, set and observed.

    Raises
    ------
    NadkitError
        Something is no set of masks, there are no such values, or the threshold is outside [0, 1].
    """
    check("layer_class_grid", "layer_class_grid(masks)", masks=masks)
    if values not in VALUES:
        raise NadkitError(f"no values {values!r}; {closest(str(values), VALUES)}")
    masks.gates(None, threshold)  # refuses a threshold that is none
    return LayerClassGrid(masks, threshold, values)


class LayerClassGrid(Lesson):
    """The widget that `layer_class_grid` returns.

    Attributes
    ----------
    layer : the address of the chosen cell
    task : the class of the chosen cell
    values : one of kept_share, exclusive_share, phi
    threshold : in [0, 1]
    """

    CHOSEN = ("layer", "task", "values", "threshold")

    layer = traitlets.Unicode()
    task = traitlets.Unicode()
    values = traitlets.Enum(tuple(VALUES), "kept_share")
    threshold = traitlets.Float(0.5, min=0.0, max=1.0)

    def __init__(self, masks: MaskSet, threshold: float, values: str) -> None:
        self._masks = masks
        super().__init__("matrix")
        self._tables: dict[tuple[str, float], pd.DataFrame] = {}
        self._first = 0
        self.layer, self.task = next(iter(masks.unit_counts)), masks.tasks[0]
        self.values, self.threshold = values, threshold
        self._start()

    @traitlets.validate("layer")
    def _a_layer(self, proposal: Any) -> str:
        return one_of(proposal.value, self._masks.unit_counts, "layer", "these masks")

    @traitlets.validate("task")
    def _a_task(self, proposal: Any) -> str:
        return one_of(proposal.value, self._masks.tasks, "task", "these masks")

    def to_frame(self) -> pd.DataFrame:
        """Return one row for every cell: task, layer, metric, value, n, as `questions.layer_shares`."""
        key = (self.values, self.threshold)
        if key not in self._tables:
            self._tables[key] = questions.layer_shares(self._masks, metric=key[0], threshold=key[1])
        return self._tables[key].copy()

    def _act(self, name: str, value: Any) -> None:
        if name == "pair":
            with self._together():
                self.task, self.layer = value
        elif name == "matrix":
            self.values = value
        elif name == "turn":
            # A second press may come before the page has taken the button away.
            last = (len(self._masks.tasks) - 1) // MOST * MOST
            self._first = min(max(self._first + (MOST if value == "on" else -MOST), 0), last)
            self._refresh()
        else:
            super()._act(name, value)

    def _follow(self, name: str, value: Any) -> None:
        # A class set from Python comes into view.
        if name == "task" and not self._first <= self._masks.tasks.index(value) < self._first + MOST:
            self._first = self._masks.tasks.index(value) // MOST * MOST

    def _state(self) -> State:
        tasks, layers = self._masks.tasks, list(self._masks.unit_counts)
        shown = list(tasks[self._first : self._first + MOST])
        turns = [["back", f"previous {MOST} classes"]] * (self._first > 0)
        turns += [["on", f"next {MOST} classes"]] * (self._first + MOST < len(tasks))
        place = f"classes {self._first + 1} to {self._first + len(shown)} of {len(tasks):,}"
        return {
            "title": f"Grid{self._of()}: what each class keeps, layer by layer",
            "kinds": [[name, said] for name, said in VALUES.items()],
            "kind": self.values,
            "turns": turns,
            "rows": shown,
            "columns": layers,
            "values": self._cells(shown),
            "task": self.task,
            "other_task": self.layer,
            "pair": self._words(),
            "units": [],
            "summary": f"{MEANS[self.values]}; rows are classes, columns layers from the input to the logit",
            "note": f"{MEANS[self.values]}, above a threshold of {self.threshold:.2f}"
            + (f"; {place}" if turns else ""),
            "stamp": f"{self.task}|{self.layer}|{self.values}|{self.threshold:.2f}",
        }

    def _of(self) -> str:
        name = self._masks.meta.get("network")
        return f" of {name}" if name else ""

    def _cells(self, tasks: list[str]) -> list[list[float | None]]:
        table = self.to_frame().set_index(["task", "layer"])["value"]
        found = [[float(table[task, layer]) for layer in self._masks.unit_counts] for task in tasks]
        return [[None if math.isnan(value) else round(value, 4) for value in row] for row in found]

    def _words(self) -> list[str]:
        """Say the chosen cell's numbers, whatever the cells show, and the kept units."""
        units = [unit for unit in self._masks.kept(self.task, self.threshold) if unit.layer == self.layer]
        facts = {}
        for metric in VALUES:
            key = (metric, self.threshold)
            # φ of a thousand classes takes a while, so it is said where it is known.
            if key in self._tables or metric != "phi" or len(self._masks.tasks) <= MOST:
                if key not in self._tables:
                    self._tables[key] = questions.layer_shares(self._masks, metric=metric, threshold=key[1])
                table = self._tables[key]
                row = table[(table["task"] == self.task) & (table["layer"] == self.layer)].iloc[0]
                facts[metric] = row
        total, kept = self._masks.unit_counts[self.layer], facts["kept_share"]
        lines = [
            f"{self.task} keeps {len(units):,} of {many(total, 'unit')} of {self.layer} "
            f"(kept share {kept['value']:.2f}); exclusive share {facts['exclusive_share']['value']:.2f}."
        ]
        if (phi := facts.get("phi")) is not None:
            lines.append(
                f"Mean φ to {many(int(phi['n']), 'other class', 'other classes')}: {phi['value']:.2f}."
                if phi["n"]
                else "There is no φ here: a class keeps none or all of the layer, or there is one class."
            )
        if units:
            listed = ", ".join(str(unit.index) for unit in units[:NAMED])
            more = f" and {len(units) - NAMED} more" if len(units) > NAMED else ""
            lines.append(f"Kept units of {self.layer}: {listed}{more}.")
        return lines

    def _still(self) -> tuple[str, str]:
        state = self.state
        grid = matrix(state["rows"], state["columns"], state["values"], (self.task, self.layer))
        svg = document(str(state["title"]), grid, lines_of_text(state["pair"][:2]))
        return svg, f"{MEANS[self.values]}. {self._words()[0]}"
