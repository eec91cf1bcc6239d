"""`Lesson`: a panel by itself, whose traits a reader sets on the page and Python reads, sets and observes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import traitlets

from nadkit.errors import NadkitError, closest
from nadkit.masks import Unit
from nadkit.widgets.answers import Key, Worker
from nadkit.widgets.panel import Panel
from nadkit.widgets.subject import unit_in
from nadkit.widgets.views.needs import State

if TYPE_CHECKING:
    import pandas as pd

WorkOut = Callable[[Key, Callable[[int], Callable[[int], None]]], Any]


class _Answers(Worker):
    """The heavy answers of one lesson, worked out by the lesson itself."""

    def __init__(
        self,
        changed: Callable[[], object],
        advanced: Callable[[float], object],
        said: Mapping[str, str],
        work_out: WorkOut,
    ) -> None:
        super().__init__(changed, advanced, said)
        self._work_out = work_out

    def work_out(self, key: Key) -> Any:
        return self._work_out(key, self._advance)


class Lesson(Panel):
    """One panel that stands alone; a subclass says what may be chosen and what is drawn.

    A subclass gives `CHOSEN` (traits that the page may set), `SAID` (what is said while an answer is worked
    out), `_keys` (the answers that are shown), `_answer` (works one out), `_state` (what is drawn) and
    `_still` (a static picture of it, and its words). It calls `_start` once its traits are set.
    """

    CHOSEN: ClassVar[tuple[str, ...]] = ()
    SAID: ClassVar[Mapping[str, str]] = {}

    def __init__(self, kind: str) -> None:
        self._held = True
        self._lock = threading.RLock()
        self._answers = _Answers(self._refresh, self._advanced, self.SAID, self._answer)
        super().__init__(kind, act=self._act, work=self._work)

    def _start(self) -> None:
        self._held = False
        self.observe(self._changed, names=list(self.CHOSEN))
        self._refresh()

    def wait(self, timeout: float | None = None) -> None:
        """Work out everything that is on screen, and wait until it is there, in the static picture as well.

        Raises
        ------
        NadkitError
            It took longer than `timeout` seconds.
        """
        self._answers.work_all(self._keys, timeout)

    def to_frame(self) -> pd.DataFrame:
        """Return what is on screen as a table; what has not been worked out yet is, first."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the widget, and let go of its answers."""
        self._answers.forget()
        super().close()

    # For subclasses

    def _keys(self) -> list[Key]:
        return []

    def _answer(self, key: Key, advance: Callable[[int], Callable[[int], None]]) -> Any:
        raise NotImplementedError

    def _state(self) -> State:
        raise NotImplementedError

    def _still(self) -> tuple[str, str]:
        raise NotImplementedError

    def _follow(self, name: str, value: Any) -> None:
        """Change what must change with a trait."""

    def _act(self, name: str, value: Any) -> None:
        """Do what a reader chose on the page."""
        if name not in self.CHOSEN:
            raise NadkitError(f"the page asked to set {name!r}, which cannot be chosen")
        setattr(self, name, value)

    # How a change reaches the page

    @contextlib.contextmanager
    def _together(self) -> Iterator[None]:
        """Let several traits change before anything is drawn."""
        held, self._held = self._held, True
        try:
            yield
        finally:
            self._held = held
            self._refresh()

    def _changed(self, change: Any) -> None:
        if not self._held:
            with self._together():
                self._follow(change.name, change.new)

    def _work(self) -> None:
        self._answers.ask(self._keys())
        self._refresh()

    def _advanced(self, done: float) -> None:
        if self.state.get("working"):
            self.send({"do": "progress", "done": done})

    def _refresh(self) -> None:
        if self._held:
            return
        with self._lock:
            try:
                state = self._state()
            except Exception as error:
                state = {**self.state, "error": f"{type(error).__name__}: {error}"}
            self.show(state)  # the page first, and then the picture that it hides
            self.picture.follow()


def one_of(value: Any, there: Iterable[str], what: str, where: str) -> str:
    """Return a name that is there.

    Raises
    ------
    TraitError
        It is not; the message names those closest to it.
    """
    there = list(there)
    if value not in there:
        raise traitlets.TraitError(f"no {what} {value!r} in {where}; {closest(str(value), there)}")
    return str(value)


def a_unit(value: Any, layers: Mapping[str, int]) -> str:
    """Return the written form of a unit that is there.

    Raises
    ------
    TraitError
        It is not; the message says which are closest.
    """
    if unit_in(str(value), layers) is not None:
        return str(Unit.parse(str(value)))
    layer, _, _ = str(value).rpartition("/")
    if layer in layers:
        raise traitlets.TraitError(f"no unit {value!r}; {layer} has units 0 to {layers[layer] - 1}")
    raise traitlets.TraitError(
        f"no unit {value!r}; write layer/index, such as {next(iter(layers))}/0; layers: "
        f"{closest(layer or str(value), layers)}"
    )
