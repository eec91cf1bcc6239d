"""`learning_monitor`: kept share and loss while masks are learned, and a button that stops."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import traitlets

from nadkit.widgets.lessons.lesson import Lesson
from nadkit.widgets.stills.charts import courses
from nadkit.widgets.stills.svg import beside, document, lines_of_text
from nadkit.widgets.views.needs import State
from nadkit.widgets.views.words import many

if TYPE_CHECKING:
    import pandas as pd

LINES = 12
"""Tasks that are drawn one by one; of more, the mean, the lowest and the highest."""

PATIENCE = 3.0
"""Seconds without a sign from the page after which the monitor says how to stop without it."""

INTERRUPT = (
    "Messages from this page do not reach the kernel while a cell runs, so the button cannot stop it. "
    "Interrupt the kernel instead: learn_masks(checkpoint=...) then goes on from its last report when the "
    "cell is run again; without a checkpoint the masks of this run are lost."
)


def learning_monitor() -> LearningMonitor:
    """Return a widget to be given to `learn_masks(callback=...)`: it draws the run and can stop it.

    Show it first, then learn, in the same cell or in the next one. Its button ends the run at the next
    report, about a twentieth of the run later, and `learn_masks` returns the masks as far as they have come.
    Where the page's messages do not reach the kernel while a cell runs, it says so.

    Examples
    --------
    >>> import nadkit as nk
    >>> network, images = nk.load_network("vgg-fashion"), nk.load_images("fashion", per_class=20)
    >>> monitor = learning_monitor()
    >>> masks = nk.learn_masks(network, images, tasks=["bag"], steps=2, progress=False, callback=monitor)
    >>> monitor.history[["run", "step", "task"]]
       run  step task
    0    1     1  bag
    1    1     2  bag
    >>> monitor.stopped
    False

    Returns
    -------
    LearningMonitor
        Call it with a `Progress`. It never raises, and works without a page as well.
    """
    return LearningMonitor()


class LearningMonitor(Lesson):
    """The widget that `learning_monitor` returns.

    Attributes
    ----------
    stopped : whether the run is to end at its next report, or did; set it from Python to end one. The next
        run starts with False.
    """

    CHOSEN = ("stopped",)

    stopped = traitlets.Bool(False)

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._run = self._step = self._steps = 0
        self._tasks: tuple[str, ...] = ()
        self._ended = True  # by its last step, or because the stop was told
        self._learner = 0  # the thread that learns
        self._since = 0.0  # when the page was first shown this run
        self._updates = 0
        self._heard = False  # the page, while a cell ran
        self._fault = ""
        super().__init__("monitor")
        self._start()

    def __call__(self, progress: Any) -> bool:
        """Draw where a run stands, and return whether to stop it."""
        try:
            self._take(progress)
        except Exception as error:
            # A monitor is no reason for a run to fail; what went wrong is shown instead.
            self._fault = f"{type(error).__name__}: {error}"
            with contextlib.suppress(Exception):
                self._refresh()
        if self.stopped and not self._ended:
            self._ended = True
            self._refresh()
        return bool(self.stopped)

    @property
    def history(self) -> pd.DataFrame:
        """Return one row for every report and task: run, step, steps, task, loss, kept_share."""
        import pandas as pd

        columns = ["run", "step", "steps", "task", "loss", "kept_share"]
        return pd.DataFrame(self._rows, columns=columns)

    def to_frame(self) -> pd.DataFrame:
        """Return the history."""
        return self.history

    def _take(self, progress: Any) -> None:
        step, steps, tasks = int(progress.step), int(progress.steps), tuple(progress.tasks)
        told = self._ended and self.stopped and self._run > 0
        if self._run == 0 or step <= self._step or (steps, tasks) != (self._steps, self._tasks) or told:
            self._run += 1
            self._updates, self._since = 0, time.monotonic()
            if told:
                with self._together():
                    self.stopped = False
        self._step, self._steps, self._tasks = step, steps, tasks
        self._ended = step >= steps
        self._learner = threading.get_ident()
        for task, loss, share in zip(tasks, progress.loss, progress.kept_share, strict=True):
            self._rows.append(
                {"run": self._run, "step": step, "steps": steps, "task": task, "loss": float(loss),
                 "kept_share": float(share)}
            )  # fmt: skip
        self._updates += 1
        self._refresh()

    def show(self, state: Mapping[str, Any]) -> None:
        """Draw another state, if it is another."""
        super().show(state)
        self._listen()

    def _listen(self) -> None:
        """Let the page's messages arrive while the cell that learns is running."""
        # Front ends address a subshell, whose thread is free. ipykernel 7.4 overrules them and hands messages
        # to the shell that spoke last on a comm, which here is the busy one. Where its note of that has
        # another name, messages wait for the end of the cell, and the page is told to say so.
        with contextlib.suppress(Exception):
            delattr(self.comm, "_reply_subshell_id")

    def _received(self, widget: object, content: Any, buffers: object) -> None:
        content = content if isinstance(content, dict) else {}
        late = threading.get_ident() == self._learner
        if content.get("do") == "seen":
            # On the thread that learns, messages are read only once the cell is done.
            self._heard = self._heard or not late
            return
        if content.get("do") == "set" and content.get("name") == "stop":
            # A press that came too late must not stop the next run.
            if content.get("value") == self._run and not self._ended and not late:
                self.stopped = True
            self.send({"do": "done"})
            self._listen()
            return
        super()._received(widget, content, buffers)

    def _state(self) -> State:
        mine = [row for row in self._rows if row["run"] == self._run]
        by_task = {task: [row for row in mine if row["task"] == task] for task in self._tasks[:LINES]}
        steps = sorted({row["step"] for row in mine})
        by_step = [[row for row in mine if row["step"] == step] for step in steps]
        charts = []
        for metric, words in (("kept_share", "kept share"), ("loss", "loss")):
            means, lows, highs = [], [], []
            for rows in by_step:
                values = [row[metric] for row in rows if math.isfinite(row[metric])]
                means.append(_number(sum(values) / len(values)) if values else None)
                lows.append(_number(min(values)) if values else None)
                highs.append(_number(max(values)) if values else None)
            lines = {task: [_number(row[metric]) for row in rows] for task, rows in by_task.items()}
            charts.append(
                {"name": words, "mean": means, "low": lows, "high": highs,
                 "lines": lines if 1 < len(self._tasks) <= LINES else {}}
            )  # fmt: skip
        running = self._run > 0 and not self._ended
        lost = (
            running and not self._heard and self._updates >= 3 and time.monotonic() - self._since > PATIENCE
        )
        state: State = {
            "title": "Learning masks" + (f", run {self._run}" if self._run > 1 else ""),
            "stamp": f"{self._run}|{self._step}",
            "run": self._run,
            "seen": len(self._rows),
            "running": running,
            "stopped": self.stopped,
            "steps": steps,
            "total": self._steps,
            "charts": charts,
            "rows": [
                [task, rows[-1]["kept_share"], _number(rows[-1]["loss"])]
                for task, rows in by_task.items()
                if rows
            ],
            "sentence": self._words(charts),
            "hint": INTERRUPT if lost else "",
        }  # fmt: skip
        return state | ({"error": self._fault} if self._fault else {})

    def _words(self, charts: list[dict[str, Any]]) -> str:
        if not self._run:
            return "No run yet: give this monitor to learn_masks(callback=...)."
        kept, loss = (chart["mean"][-1] if chart["mean"] else None for chart in charts)
        where = f"Step {self._step:,} of {self._steps:,}, {many(len(self._tasks), 'task')}"
        numbers = "".join(
            f"; {name} {'has no value' if value is None else format(value, '.3g')}"
            for name, value in (("mean kept share", kept), ("mean loss", loss))
        )
        after = ""
        if self.stopped:
            after = (
                " Stopped: the masks are as far as they have come."
                if self._ended
                else " It stops at the next report."
            )
        return f"{where}{numbers}.{after}"

    def _still(self) -> tuple[str, str]:
        state = self.state
        title, sentence = str(state["title"]), str(state["sentence"])
        if not state["steps"]:
            return document(title, lines_of_text([sentence])), sentence
        names = [str(step) for step in state["steps"]]
        charts = []
        for chart in state["charts"]:
            mean = chart["mean"]
            most = 1.0 if chart["name"] == "kept share" else max([v for v in mean if v is not None] or [1.0])
            lines = {f"mean {chart['name']} by step": mean}
            charts.append(courses(names, lines, step=min(46, 300 / len(names)), most=max(most, 1e-12)))
        shares, losses = ([v for v in chart["mean"] if v is not None] for chart in state["charts"])
        told = "; ".join(
            f"mean {name} from {values[0]:.3g} to {values[-1]:.3g}"
            for name, values in (("kept share", shares), ("loss", losses))
            if values
        )
        words = f"{title}, {many(len(names), 'report')} of {self._steps:,} steps: {told}. {sentence}"
        return document(title, beside(*charts), lines_of_text([sentence])), words

    def _whole(self) -> bool:
        return False  # there may always be another run


def _number(value: float) -> float | None:
    """A short number for JSON, which has no NaN."""
    return float(f"{value:.4g}") if math.isfinite(value) else None
