"""`gate_bench`: switch units by hand, and watch what the classes score."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import traitlets

from nadkit import questions
from nadkit.errors import NadkitError
from nadkit.masks import MaskSet, Unit
from nadkit.widgets.answers import Key
from nadkit.widgets.frames import worked_out
from nadkit.widgets.lessons.lesson import Lesson, a_unit, one_of
from nadkit.widgets.lessons.material import Material, a_task, check, highest, material
from nadkit.widgets.stills.charts import bars
from nadkit.widgets.stills.svg import chips, document, lines_of_text
from nadkit.widgets.views.needs import State, found
from nadkit.widgets.views.words import many

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from nadkit.images import Images
    from nadkit.networks import Network

USAGE = "gate_bench(network, masks, images, task=...)"
PRESETS = {
    "whole": "whole: all open",
    "kept": "kept: only the class's own",
    "removed": "removed: all but its own",
}
SWITCHES = 24
MOST = 40
"""Switches at most: more cannot be taken in at a look."""

CLASSES = 12
"""Classes in the table: those with the highest mean probability now or in the whole network."""


def gate_bench(
    network: Network,
    masks: MaskSet,
    images: Images,
    *,
    task: str,
    units: Sequence[Unit | str] | None = None,
) -> GateBench:
    """Return a widget in which units are switched by hand, beside what the classes then score.

    Examples
    --------
    >>> import nadkit as nk
    >>> network, masks = nk.load_network("resnet-fashion"), nk.load_masks("resnet-fashion")
    >>> images = nk.load_images("fashion", split="test", per_class=10)
    >>> bench = gate_bench(network, masks, images, task="sneaker")
    >>> bench.preset("removed")
    >>> len(bench.closed), bench.pictures_of
    (151, 'sneaker')
    >>> bench.to_frame().query("class_name == 'sneaker' and metric == 'answered'")["value"].tolist()
    [0.0]

    Parameters
    ----------
    network
        The trained network; the widget works on a copy of it.
    masks
        Of this network.
    images
        Test pictures; of one class at a time, up to 100 of each.
    task
        One of the masks' tasks.
    units
        Those with a switch, at most 40, written layer/index; by default the 24 of the task that score
        highest.

    Returns
    -------
    GateBench
        Its traits `closed` and `pictures_of` can be read, set and observed.

    Raises
    ------
    MaskFileError
        The masks are for another network.
    NadkitError
        No such task or unit, too many of them, or something is of another type.
    """
    check("gate_bench", USAGE, network=network, masks=masks, images=images)
    made = material("gate_bench", USAGE, network, images, masks)
    a_task(task, masks)
    if isinstance(units, str | Unit):
        units = [str(units)]
    try:
        named = highest(masks, task, SWITCHES) if units is None else [
            a_unit(str(unit), made.layers) for unit in units
        ]  # fmt: skip
    except traitlets.TraitError as error:
        raise NadkitError(str(error)) from None
    if not 1 <= len(named) <= MOST:
        raise NadkitError(f"{len(named)} units to switch; give 1 to {MOST}")
    return GateBench(made, masks, task, list(dict.fromkeys(named)))


class GateBench(Lesson):
    """The widget that `gate_bench` returns.

    Attributes
    ----------
    closed : every unit that is closed, written layer/index, in forward order
    pictures_of : the class whose pictures are asked
    """

    CHOSEN = ("closed", "pictures_of")
    SAID: ClassVar[Mapping[str, str]] = {"table": "asking the network about the pictures"}

    closed = traitlets.Tuple()
    pictures_of = traitlets.Unicode()

    def __init__(self, made: Material, masks: MaskSet, task: str, units: list[str]) -> None:
        self._material, self._masks, self._task, self._units = made, masks, task, units
        super().__init__("bench")
        self.pictures_of = task if task in made.classes else made.classes[0]
        self._start()

    @traitlets.validate("closed")
    def _some_units(self, proposal: Any) -> tuple[str, ...]:
        closed = {a_unit(str(unit), self._material.layers) for unit in proposal.value}
        return self._in_order(closed)

    @traitlets.validate("pictures_of")
    def _a_class(self, proposal: Any) -> str:
        return one_of(proposal.value, self._material.classes, "class", "the pictures")

    def preset(self, name: str) -> None:
        """Open and close all units at once: whole (all open), kept (only the task's own), removed (the rest).

        Raises
        ------
        NadkitError
            There is no such preset.
        """
        try:
            self.closed = self._presets[one_of(name, PRESETS, "preset", "the bench")]
        except traitlets.TraitError as error:
            raise NadkitError(str(error)) from None

    def to_frame(self) -> pd.DataFrame:
        """Return what the classes score as the units are now, as `questions.class_table` has it.

        Columns network, pictures_of, closed (how many units), class_name, metric (probability, answered),
        value, low, high, n, interval.

        Raises
        ------
        NadkitError
            It could not be worked out.
        """
        table: pd.DataFrame = worked_out(self._answers, self._keys()[0]).copy()
        table.insert(1, "pictures_of", self.pictures_of)
        table.insert(2, "closed", len(self.closed))
        return table

    @cached_property
    def _names(self) -> list[str]:
        return [
            f"{layer}/{index}" for layer, units in self._material.layers.items() for index in range(units)
        ]

    @cached_property
    def _presets(self) -> dict[str, tuple[str, ...]]:
        kept = {str(unit) for unit in self._masks.kept(self._task)}
        return {
            "whole": (), "kept": tuple(name for name in self._names if name not in kept),
            "removed": self._in_order(kept),
        }  # fmt: skip

    def _in_order(self, units: Iterable[str]) -> tuple[str, ...]:
        wanted = set(units)
        return tuple(name for name in self._names if name in wanted) if wanted else ()

    def _act(self, name: str, value: Any) -> None:
        if name == "preset":
            self.preset(value)
        elif name == "switches":
            # All switches at once, so that a wish that was overtaken loses nothing.
            self.closed = tuple(
                {*self.closed} - {*self._units} | {one for one in value if one in self._units}
            )
        else:
            super()._act(name, value)

    def _keys(self) -> list[Key]:
        keys: list[Key] = [("table", self.pictures_of, self.closed)]
        return keys if not self.closed else [*keys, ("table", self.pictures_of, ())]

    def _answer(self, key: Key, advance: Callable[[int], Callable[[int], None]]) -> Any:  # noqa: ARG002
        _, name, closed = key
        pictures = self._material.of_class(name)
        return questions.class_table(self._material.network, pictures, self._gates(closed))

    def _gates(self, closed: tuple[str, ...]) -> dict[str, Tensor] | None:
        if not closed:
            return None
        gates = {layer: torch.ones(units) for layer, units in self._material.layers.items()}
        for unit in map(Unit.parse, closed):
            gates[unit.layer][unit.index] = 0.0
        return gates

    def _state(self) -> State:
        closed = set(self.closed)
        row = self._masks.tasks.index(self._task)
        others = len(closed - set(self._units))
        listed = len(self._units)
        total = len(self._names)
        switches: list[list[Any]] = []
        for name in self._units:
            unit = Unit.parse(name)
            score = float(self._masks.scores[unit.layer][row, unit.index])
            switches.append([name, f"score {score:.2f} for {self._task}", name not in closed])
        same = [name for name, units in self._presets.items() if units == self.closed]
        state: State = {
            "title": f"Gate bench: units of {self._task} in {self._material.network.name}",
            "stamp": f"{self.pictures_of}|{len(closed)}|{hash(self.closed)}",
            "classes": self._material.classes,
            "pictures_of": self.pictures_of,
            "presets": [[name, words] for name, words in PRESETS.items()],
            "preset": same[0] if same else "",
            "switches": switches,
            "closed_words": f"{len(closed):,} of {many(total, 'unit')} closed: {len(closed) - others} of "
            f"these {listed}, {others:,} of the other {total - listed:,}.",
            "rows": [],
        }  # fmt: skip
        tables = found(self._answers, self._keys(), state)
        if all(table is not None for table in tables):
            state |= self._scored(tables[0], tables[-1])
        return state

    def _scored(self, now: pd.DataFrame, before: pd.DataFrame) -> State:
        wide = [table.set_index(["class_name", "metric"]) for table in (now, before)]
        names = list(dict.fromkeys(now["class_name"]))
        mean = [{name: float(one.loc[(name, "probability"), "value"]) for name in names} for one in wide]
        asked = [name for name in (self.pictures_of, self._task) if name in names]
        order = sorted(names, key=lambda name: (name not in asked, -max(one[name] for one in mean)))
        shown = [name for name in names if name in order[:CLASSES]]
        rows = []
        for name in shown:
            answered = wide[0].loc[(name, "answered")]
            rows.append(
                [
                    name,
                    round(mean[0][name], 4),
                    round(mean[1][name], 4),
                    *(round(float(answered[end]), 4) for end in ("value", "low", "high")),
                    round(float(wide[1].loc[(name, "answered"), "value"]), 4),
                ]
            )
        said = next((row for row in rows if row[0] == self.pictures_of), None)
        n = int(now["n"].iloc[0])
        pictures = many(n, "picture")
        found: State = {
            "rows": rows,
            "note": f"{pictures} of {self.pictures_of}; intervals of 95 % over pictures",
        }
        if len(names) > len(shown):
            found["note"] += f"; the {len(shown)} classes that score highest of {len(names):,}"
        if said:
            found["sentence"] = (
                f"{pictures} of {self.pictures_of}: mean probability {said[1]:.2f} (whole network "
                f"{said[2]:.2f}), answered right {said[3]:.2f} [{said[4]:.2f}, {said[5]:.2f}] "
                f"(whole network {said[6]:.2f})."
            )
        return found

    def _still(self) -> tuple[str, str]:
        state = self.state
        title, rows = str(state["title"]), state["rows"]
        lines = [str(state[name]) for name in ("closed_words", "sentence", "error") if state.get(name)]
        table = bars(
            ["mean probability", "answered [95 %]"],
            [
                (name, [(mean, f"{mean:.2f}"), (share, f"{share:.2f} [{low:.2f}, {high:.2f}]")])
                for name, mean, _, share, low, high, _ in rows
            ],
            [(mean, share) for _, _, mean, _, _, _, share in rows],
        )
        mark = "A thin mark is the whole network." if rows else ""
        switches = chips([name for name, *_ in state["switches"]], set(self.closed))
        svg = document(title, switches, lines_of_text([*lines, mark]), table)
        return svg, f"{title}. {' '.join(lines)}"
