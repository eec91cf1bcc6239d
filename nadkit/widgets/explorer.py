"""`Explorer`: one widget in which class, layer, unit and picture are chosen, and everything follows."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import ipywidgets

from nadkit.errors import NadkitError, closest
from nadkit.widgets import frames, views
from nadkit.widgets.answers import Answers, Key
from nadkit.widgets.chosen import Chosen
from nadkit.widgets.panel import Panel
from nadkit.widgets.still import Still
from nadkit.widgets.stills.map import map_svg
from nadkit.widgets.subject import Subject
from nadkit.widgets.views.words import summary

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


PANELS = ("controls", "map", "evidence", "matrix", "unit", "pictures")


class Explorer(Chosen):
    """The widget that `explore` returns.

    Attributes
    ----------
    task : the name of a class
    other_task : that of the class it is compared with; empty while nothing is compared
    layer : an address
    unit : written layer/index, or empty
    image : the index of a picture in the `images` given, or None
    threshold : in [0, 1]; units with a score above it are kept
    condition : one of whole, kept, removed, random
    matrix : one of phi, phi_all, jaccard, accepted
    """

    def __init__(
        self,
        subject: Subject,
        *,
        task: str | None = None,
        layer: str | None = None,
        evidence: pd.DataFrame | None = None,
        per_class: int = 20,
        seed: int = 0,
    ) -> None:
        for name, number, least in (("per_class", per_class, 1), ("seed", seed, 0)):
            if not isinstance(number, int) or isinstance(number, bool) or number < least:
                raise NadkitError(f"{name} = {number!r}; give a whole number of at least {least}")
        names: list[tuple[str, str | None, Iterable[str]]] = [
            ("task", task, subject.masks.tasks), ("layer", layer, subject.layers),
        ]  # fmt: skip
        for name, value, there in names:
            if value is not None and value not in there:
                raise NadkitError(f"no {name} {value!r} to explore; {closest(str(value), there)}")
        # All that can be refused is refused before there are panels, which ipywidgets would keep for ever.
        self._subject = subject
        self._answers = Answers(subject, self._refresh, self._advanced, per_class, seed)
        if evidence is not None:
            self._known(evidence)
        self._lock = threading.RLock()
        self._held = True
        self._seen: dict[str, None] = {}
        self._stamp = ""
        self._panels = {
            kind: Panel(kind, act=self._act, work=self._work_for(kind)) for kind in PANELS
        }  # fmt: skip
        # Two columns where there is room, each as long as it is; one column in a narrow window.
        columns = [
            ipywidgets.VBox([self._panels[kind] for kind in kinds])
            for kinds in (("evidence", "unit"), ("matrix", "pictures"))
        ]
        lower = ipywidgets.GridBox(
            columns,
            layout=ipywidgets.Layout(
                grid_template_columns="repeat(auto-fit, minmax(min(100%, 430px), 1fr))", width="100%"
            ),
        )
        self._parts = [*columns, lower]
        top = [self._panels["controls"], self._panels["map"]]
        super().__init__([*top, lower], layout=ipywidgets.Layout(width="100%", overflow="visible"))
        self.task = subject.masks.tasks[0] if task is None else task
        self.layer = list(subject.layers)[-1] if layer is None else layer
        # A cell that is run again takes its output away: answers of an explorer that nobody sees are let go.
        self._panels["map"]._view_count = 0
        self._panels["map"].observe(self._unseen, names="_view_count")
        # Marks are of the masks, so the picture of the map is whole from the start. Controls, which every
        # explorer shows, hide the picture of it all.
        map_, controls = self._panels["map"], self._panels["controls"]
        map_.picture = Still(map_.still, self._still, lambda: True)
        self._picture = Still(controls.still, self._still, lambda: True)
        self._held = False
        self.observe(self._changed, names=list(self.CHOSEN))
        self._refresh()

    # What is there to see and to read

    def panel(self, kind: str) -> Panel:
        """Return one of the panels, to be shown by itself: controls, map, evidence, matrix, unit, pictures.

        Raises
        ------
        NadkitError
            There is no such panel.
        """
        if kind not in self._panels:
            raise NadkitError(f"no panel {kind!r}; {closest(str(kind), PANELS)}")
        return self._panels[kind]

    def to_frame(self, panel: str = "map") -> pd.DataFrame:
        """Return what a panel shows as a table; what has not been worked out yet is, first.

        Parameters
        ----------
        panel
            map
                One row a unit: network, task, other_task, condition, layer, index, score, kept, tasks (how
                many keep it), exclusive, open (under the condition); with a second class other_score and
                other_kept; carried, once the links are known.
            evidence
                The rows of `whether` of this class.
            matrix
                task, other_task, layer, metric, value of every cell.
            unit
                Links into and from the chosen unit: source, target, share, sign.
            pictures
                One row a picture of the class: image, task, answered.

        Raises
        ------
        NadkitError
            No such panel, or it needs a network or pictures that are not there; what went wrong, if the
            answer could not be worked out.
        """
        return frames.frame(panel, self._subject, self.choice, self._answers)

    def wait(self, timeout: float | None = None) -> None:
        """Work out everything that is on screen, and wait until it is there, in static pictures as well.

        That is what all panels show, or those panels that were displayed by themselves and no others.

        Raises
        ------
        NadkitError
            It took longer than `timeout` seconds.
        """
        alone = [kind for kind in PANELS if self._panels[kind].picture.displayed]
        kinds = PANELS if self._picture.displayed or not alone else alone
        # What a picture asks is known only once the network has answered, so the keys are looked up anew.
        self._answers.work_all(lambda: [key for kind in kinds for key in self._keys(kind)], timeout)

    def close(self) -> None:
        """Close the widget and its panels, and let go of all answers.

        ipywidgets keeps every widget that was not closed, so that an explorer made anew in a long session
        does not free the one before by itself.
        """
        if "_parts" not in vars(self):  # it was refused before it was made, and is deleted
            return
        self._answers.forget(given=True)
        self._panels["map"]._view_count = None  # or the page would report a count to a model that is gone
        for panel in self._panels.values():
            panel.close()
        for part in self._parts:
            part.close()
        super().close()

    def snapshot(self) -> go.Figure:
        """Return the map as a static figure, for a paper or a page."""
        from nadkit.figures import units

        return units(self.to_frame(), unit=self.unit or None)

    def _still(self) -> tuple[str, str]:
        """Return the map as an SVG document, and its words."""
        return map_svg(self._subject, self.choice), summary(self._subject, self.choice)

    def _ipython_display_(self) -> None:
        self._picture.display(self._repr_mimebundle_())

    # How a change reaches the panels

    @contextlib.contextmanager
    def _together(self) -> Iterator[None]:
        """Let several traits change before anything is drawn."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
            self._refresh()

    def _changed(self, change: Any) -> None:
        if self._held:
            return
        with self._together():
            self._follow(change.name, change.new)

    def _unseen(self, change: Any) -> None:
        if change.new == 0 and change.old:
            self._answers.forget()

    def _act(self, name: str, value: Any) -> None:
        """Do what a reader chose on the page; what cannot be is said there, and changes nothing."""
        if name == "pair":
            tasks = self._subject.masks.tasks
            pair = isinstance(value, list | tuple) and len(value) == 2 and all(one in tasks for one in value)
            if not pair:
                raise NadkitError(f"the page asked for the pair {value!r}; give two classes of these masks")
            with self._together():
                self.task = value[0]
                self._follow("task", value[0])
                self.other_task = value[1] if value[1] != value[0] else ""
        elif name in self.CHOSEN:
            setattr(self, name, value)
        else:
            raise NadkitError(f"the page asked to set {name!r}, which cannot be chosen")

    def _keys(self, kind: str) -> list[Key]:
        """Return the heavy answers that a panel shows."""
        if views.needs.missing(self._answers):
            return []
        choice = self.choice
        graph = ("graph", choice.task, choice.threshold)
        if kind == "map":
            return [graph]
        if kind == "unit":
            return [graph, ("peaks",)] if choice.unit else []
        if kind == "evidence":
            return [("evidence", choice.task, choice.threshold)]
        if kind == "matrix":
            return [("accepted", choice.threshold)] if choice.matrix == "accepted" else []
        return views.pictures.picture_keys(self._subject, choice, self._answers) if kind == "pictures" else []

    def _work_for(self, kind: str) -> Callable[[], None]:
        """Return what a panel calls when it is seen and lacks something."""

        def work() -> None:
            self._seen[kind] = None
            # Of all panels that asked since the last change, in the order in which they did.
            self._answers.ask([key for one in list(self._seen) for key in self._keys(one)])
            self._refresh()

        return work

    def _known(self, evidence: pd.DataFrame) -> None:
        """Take the evidence of every class from a table."""
        needed = {"task", "condition", "metric", "value", "low", "high", "n"}
        if not needed <= set(getattr(evidence, "columns", ())):
            raise NadkitError("evidence is no table of nk.whether; give what nk.whether(...) returned")
        others = set(evidence["network"]) - {self._subject.name} if "network" in evidence else set()
        if others:
            raise NadkitError(
                f"evidence is of {', '.join(sorted(map(str, others)))}, and these masks are of "
                f"{self._subject.name}; give the table of nk.whether of this network"
            )
        for task in self._subject.masks.tasks:
            if (evidence["task"] == task).any():
                self._answers.give(("evidence", task, 0.5), evidence)
        # The same matrix as in figures of this table, not one of other pictures.
        accepted = evidence[evidence["metric"] == "accepted"]
        if set(accepted["task"]) >= set(self._subject.masks.tasks):
            self._answers.give(("accepted", 0.5), evidence)

    def _states(self) -> dict[str, dict[str, Any]]:
        subject, choice, answers = self._subject, self.choice, self._answers
        makers: dict[str, Callable[[], dict[str, Any]]] = {
            "controls": lambda: views.controls_state(subject, choice),
            "map": lambda: views.map_state(subject, choice, answers),
            "evidence": lambda: views.evidence_state(choice, answers),
            "matrix": lambda: views.matrix_state(subject, choice, answers),
            "unit": lambda: views.unit_state(subject, choice, answers),
            "pictures": lambda: views.pictures_state(subject, choice, answers),
        }
        states = {}
        for kind, make in makers.items():
            try:
                states[kind] = make()
            except Exception as error:
                states[kind] = {**self._panels[kind].state, "error": f"{type(error).__name__}: {error}"}
        return states

    def _advanced(self, done: float) -> None:
        """Tell the panels that wait how far the work is; their states stay as they are."""
        for panel in self._panels.values():
            if panel.state.get("working"):
                panel.send({"do": "progress", "done": done})

    def _refresh(self) -> None:
        """Draw every panel anew whose state is another."""
        if self._held:
            return
        with self._lock:
            if self.choice.stamp != self._stamp:
                self._stamp = self.choice.stamp
                # What was wanted for the class before is not wanted any more; what is, panels ask for anew.
                self._seen.clear()
                self._answers.ask([])
            for kind, state in self._states().items():
                self._panels[kind].show(state)
            for picture in (self._picture, *(panel.picture for panel in self._panels.values())):
                picture.follow()
