"""`explore`: one widget in which class, layer, unit and picture are chosen, and everything follows."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import ipywidgets
import traitlets

from nadkit.errors import NadkitError, closest
from nadkit.masks import MaskSet, Unit
from nadkit.widgets import frames, views
from nadkit.widgets.answers import Answers, Key
from nadkit.widgets.choice import Choice
from nadkit.widgets.panel import Panel
from nadkit.widgets.still import display_with, still_html
from nadkit.widgets.subject import CONDITIONS, Subject, unit_in

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from nadkit.images import Images
    from nadkit.networks import Network

PANELS = ("controls", "map", "evidence", "matrix", "unit", "pictures")


def explore(
    network: Network | None,
    masks: MaskSet,
    images: Images | None = None,
    *,
    calibrate_on: Images | None = None,
    task: str | None = None,
    layer: str | None = None,
    evidence: pd.DataFrame | None = None,
    per_class: int = 20,
    seed: int = 0,
) -> Explorer:
    """Return a widget to explore a network's sub-architectures by class and layer.

    Show it as the last line of a cell. It needs a notebook with a kernel: JupyterLab 4, Notebook 7, or
    anything that shows ipywidgets; elsewhere a static picture stands in for it.

    Examples
    --------
    >>> import nadkit as nk
    >>> network, masks = nk.load_network("resnet-fashion"), nk.load_masks("resnet-fashion")
    >>> images = nk.load_images("fashion", split="test", per_class=20)
    >>> explorer = explore(network, masks, images, task="sneaker")
    >>> explorer.layer, explorer.threshold
    ('stage3.2', 0.5)
    >>> explorer.task = "coat"
    >>> explorer.to_frame().query("kept").shape[0]
    151

    Parameters
    ----------
    network
        The trained network, or None if only masks are at hand; then panels that need it say so. The widget
        works on a copy of it, so that its work never meets that of your cells.
    masks
        Of this network, of one task or more.
    images
        Test pictures, or None. Up to 100 of each class, and 2,000 in all, can be chosen in the widget.
    calibrate_on
        Training pictures that the masks were not learned from, as in `whether`.
    task, layer
        What is shown first; by default the first task and the deepest layer.
    evidence
        A table of `whether` of these masks, if it is there already; otherwise it is measured, class by class.
    per_class
        Pictures of each class that the evidence is measured on, at most; the fewest there are of any class.
    seed
        Of random masks and of the pictures taken.

    Returns
    -------
    Explorer
        Its traits can be read, set and observed.

    Raises
    ------
    MaskFileError
        The masks are for another network.
    ImageError
        No picture is of a class that has a mask.
    NadkitError
        Something is of another type, or there is no such task or layer.
    """
    subject = Subject.of(network, masks, images, calibrate_on)
    return Explorer(subject, task=task, layer=layer, evidence=evidence, per_class=per_class, seed=seed)


class Explorer(ipywidgets.VBox):  # type: ignore[misc]
    """The widget that `explore` returns.

    Attributes
    ----------
    task, other_task : names of classes; `other_task` is empty while nothing is compared
    layer : an address
    unit : written layer/index, or empty
    image : the index of a picture in the `images` given, or None
    threshold : in [0, 1]; units with a score above it are kept
    condition : one of whole, kept, removed, random
    matrix : one of phi, phi_all, jaccard, accepted
    """

    task = traitlets.Unicode()
    other_task = traitlets.Unicode("")
    layer = traitlets.Unicode()
    unit = traitlets.Unicode("")
    image = traitlets.Int(None, allow_none=True)
    threshold = traitlets.Float(0.5, min=0.0, max=1.0)
    condition = traitlets.Enum(CONDITIONS, "kept")
    matrix = traitlets.Enum(tuple(views.MATRICES), "phi")
    metric = traitlets.Enum(("", *views.METRICS), "")

    _CHOSEN = ("task", "other_task", "layer", "unit", "image", "threshold", "condition", "matrix", "metric")

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
        self._subject = subject
        self._answers = Answers(subject, self._refresh, per_class, seed)
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
        names: list[tuple[str, str | None, Iterable[str]]] = [
            ("task", task, subject.masks.tasks), ("layer", layer, subject.layers),
        ]  # fmt: skip
        for name, value, there in names:
            if value is not None and value not in there:
                raise NadkitError(f"no {name} {value!r} to explore; {closest(str(value), there)}")
        self.task = subject.masks.tasks[0] if task is None else task
        self.layer = list(subject.layers)[-1] if layer is None else layer
        if evidence is not None:
            self._known(evidence)
        # A cell that is run again takes its output away: answers of an explorer that nobody sees are let go.
        self._panels["map"]._view_count = 0
        self._panels["map"].observe(self._unseen, names="_view_count")
        self._panels["controls"].still = self._panels["controls"].model_id or ""
        self._held = False
        self.observe(self._changed, names=list(self._CHOSEN))
        self._refresh()

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
        return str(proposal.value)

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

    # What is there to see and to read

    @property
    def choice(self) -> Choice:
        """Return what is chosen, all of it."""
        place = None if self.image is None else self._subject.rows.index(self.image)
        return Choice(
            self.task, self.other_task, self.layer, self.unit, place, self.threshold, self.condition,
            self.matrix, self.metric,
        )  # fmt: skip

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
        """Work out everything that is on screen, and wait until it is there.

        Raises
        ------
        NadkitError
            It took longer than `timeout` seconds.
        """
        self._answers.ask([key for kind in PANELS for key in self._keys(kind)])
        if not self._answers.wait(timeout):
            raise NadkitError(f"{self._answers.words()}: not done after {timeout} seconds; wait again")
        # A picture's own questions show only once it is known what the network answers.
        rest = [key for key in self._keys("pictures") if self._answers.get(key) is None]
        if rest:
            self.wait(timeout)

    def close(self) -> None:
        """Close the widget and its panels, and let go of all answers.

        ipywidgets keeps every widget that was not closed, so that an explorer made anew in a long session
        does not free the one before by itself.
        """
        if "_panels" not in vars(self):  # it was refused before it was made, and is deleted
            return
        self._answers.forget()
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

    def _ipython_display_(self) -> None:
        still = still_html(self._subject, self.choice, self._panels["controls"].still)
        display_with(still, self._repr_mimebundle_())

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
        elif name in self._CHOSEN:
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
        for task in self._subject.masks.tasks:
            if (evidence["task"] == task).any():
                self._answers.put(("evidence", task, 0.5), evidence)

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
