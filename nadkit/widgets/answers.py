"""Answers that need the network: each is worked out once, in a thread, the latest wish first."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch

from nadkit import questions
from nadkit.errors import NadkitError
from nadkit.graph import extract
from nadkit.masks import MaskSet
from nadkit.widgets.subject import Subject

Key = tuple[Any, ...]
"""What is asked, and of what: ("graph", task, threshold), …"""

MOST = 64
"""Answers of one kind that are kept; a graph of a large network takes a few megabytes."""

DRAWS = 20


class Failed:
    """What there is instead of an answer."""

    def __init__(self, error: BaseException) -> None:
        self.text = f"{type(error).__name__}: {error}"


class Worker:
    """A cache of heavy answers, and the thread that fills it while there is something to do.

    The thread works on the widget's own copy of the network. Nothing starts by itself: `ask` does.

    Attributes
    ----------
    changed : called when there is something new to show
    advanced : called with how much of the work at hand is done, 0 to 1
    said : kind of answer → what is said while it is worked out
    """

    def __init__(
        self, changed: Callable[[], object], advanced: Callable[[float], object], said: Mapping[str, str]
    ) -> None:
        self.changed, self.advanced, self.said = changed, advanced, said
        self._given: dict[Key, Any] = {}
        self._found: OrderedDict[Key, Any] = OrderedDict()
        self._wanted: list[Key] = []
        self._busy = threading.Condition()
        self._thread: threading.Thread | None = None
        self.now: Key | None = None
        self.done = 0.0
        self._told = 0.0

    def get(self, key: Key) -> Any:
        """Return the answer, `Failed`, or None if it has not been worked out."""
        return self._found.get(key, self._given.get(key))

    def give(self, key: Key, value: Any) -> None:
        """Keep an answer that the caller gave: it is not let go of to make room."""
        self._given[key] = value

    def put(self, key: Key, value: Any) -> None:
        """Keep an answer; of one kind the oldest make room."""
        with self._busy:
            self._found[key] = value
            kind = [one for one in self._found if one[0] == key[0]]
            for one in kind[: max(0, len(kind) - MOST)]:
                del self._found[one]

    def ask(self, keys: list[Key]) -> None:
        """Work these out instead of what was asked before, unless they are known."""
        with self._busy:
            self._wanted = [key for key in keys if self.get(key) is None and key != self.now]
            if self._wanted and self._thread is None:
                self._thread = threading.Thread(target=self._run, name="nadkit-explorer", daemon=True)
                self._thread.start()

    def ask_first(self, key: Key) -> None:
        """Work this out next, and then what was asked before."""
        with self._busy:
            rest = [one for one in self._wanted if one != key]
        self.ask([key, *rest])

    def work_all(self, keys: Callable[[], list[Key]], timeout: float | None = None) -> None:
        """Wait until all of these are known; what they are may change with what becomes known.

        Raises
        ------
        NadkitError
            It took longer than `timeout` seconds.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while lacking := [key for key in keys() if self.get(key) is None]:
            self.ask(lacking)
            if not self.wait(None if end is None else max(0.0, end - time.monotonic())):
                raise NadkitError(f"{self.words()}: not done after {timeout} seconds; wait again")

    def forget(self, *, given: bool = False) -> None:
        """Let go of all answers that were worked out, and of what was wanted; of those given if asked."""
        with self._busy:
            self._wanted = []
            self._found.clear()
            if given:
                self._given.clear()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is left to do; return whether that came about in time."""
        with self._busy:
            return self._busy.wait_for(lambda: self._thread is None, timeout)

    def words(self) -> str:
        """Return what is being worked out, empty if nothing is."""
        now = self.now  # the thread may be done with it between two looks
        return "" if now is None else self.said[now[0]].format(*now[1:])

    def _tell(self, call: Callable[[], object]) -> None:
        """Say that something changed; a fault of who hears it is told, and the work goes on."""
        try:
            call()
        except Exception as error:
            told = (type(error), error, error.__traceback__, threading.current_thread())
            threading.excepthook(threading.ExceptHookArgs(told))

    def _run(self) -> None:
        while True:
            with self._busy:
                self.now, self.done = self._wanted.pop(0) if self._wanted else None, 0.0
            self._tell(self.changed)
            if self.now is None:
                with self._busy:
                    if not self._wanted:  # nothing was asked while the panels were drawn
                        self._thread = None
                        self._busy.notify_all()
                        return
                continue
            try:
                value = self.work_out(self.now)
            except Exception as error:
                value = Failed(error)
            self.put(self.now, value)

    def _advance(self, total: int) -> Callable[[int], None]:
        seen = 0

        def advance(count: int) -> None:
            nonlocal seen
            seen += count
            self.done = min(1.0, seen / max(total, 1))
            if time.monotonic() - self._told > 0.25:
                self._told = time.monotonic()
                self._tell(lambda: self.advanced(round(self.done, 2)))

        return advance

    def work_out(self, key: Key) -> Any:
        """Return the answer to a key; it takes as long as it takes."""
        raise NotImplementedError


class Answers(Worker):
    """What an explorer asks."""

    def __init__(
        self,
        subject: Subject,
        changed: Callable[[], object],
        advanced: Callable[[float], object],
        per_class: int,
        seed: int,
    ) -> None:
        super().__init__(changed, advanced, SAID)
        self.subject, self.per_class, self.seed = subject, per_class, seed

    def work_out(self, key: Key) -> Any:
        """Return the answer to a key; it takes as long as it takes."""
        kind, *about = key
        subject = self.subject
        network, masks, images = subject.network, subject.masks, subject.images
        assert network is not None
        assert images is not None
        assert subject.shown is not None
        if kind == "peaks":
            return questions.unit_peaks(network, subject.shown, advance=self._advance(len(subject.shown)))
        if kind == "graph":
            task, threshold = about
            return extract(network, masks, images, task, threshold=threshold, progress=False)
        if kind == "evidence":
            return self._evidence(*about)
        if kind == "accepted":
            (threshold,) = about
            hard = at_threshold(masks, threshold)
            return questions.whether(
                network, hard, images, calibrate_on=subject.calibrate_on, controls=None, draws=0,
                parts="matrix", per_class=self._fewest(images), seed=self.seed,
            )  # fmt: skip
        if kind == "scores":
            place, task, threshold, condition = about
            gates = subject.gates(task, threshold, condition)
            return questions.class_scores(network, subject.shown[[place]], gates)[0]
        if kind == "maps":
            place, task, threshold, condition = about
            peaks = self.get(("peaks",)) or self.work_out(("peaks",))
            if isinstance(peaks, Failed):
                raise NadkitError(peaks.text)
            gates = subject.gates(task, threshold, condition)
            return questions.layer_maps(network, subject.shown[[place]].pixels, peaks.weights, gates)
        assert kind == "why", kind
        place, threshold = about
        hard, picture = at_threshold(masks, threshold), subject.rows[place]
        return questions.why(network, hard, images, image=picture, draws=199, per_class=None, seed=self.seed)

    def _evidence(self, task: str, threshold: float) -> Any:
        subject = self.subject
        assert subject.network is not None
        assert subject.images is not None
        own = subject.masks[task]
        return questions.whether(
            subject.network,
            own if threshold == 0.5 else at_threshold(own, threshold),
            subject.images,
            calibrate_on=subject.calibrate_on,
            # Learned controls are as large as the masks are at 0.5, and of no other size.
            controls="bundled" if threshold == 0.5 else None,
            draws=DRAWS,
            parts="sufficiency",
            per_class=self._fewest(subject.images, subject.calibrate_on),
            seed=self.seed,
        )

    def _fewest(self, *sets: Any) -> int:
        """As many pictures of a class as wanted, or as there are of every class that has any."""
        counts = [each for images in sets if images is not None for each in images.counts().values() if each]
        return min([self.per_class, *map(int, counts)])


SAID = {
    "peaks": "reading what excites the units",
    "graph": "reading the links of {0}",
    "evidence": "measuring what the units of {0} do alone, beside controls",
    "accepted": "asking every sub-architecture about every class",
    "scores": "asking the network about the picture",
    "maps": "reading where the layers look",
    "why": "looking for the units that turn the answer",
}


def at_threshold(masks: MaskSet, threshold: float) -> MaskSet:
    """Return masks whose units above a threshold have the score 1, the others 0."""
    if threshold == 0.5:
        return masks
    scores = {address: rows.to(torch.float32) for address, rows in masks.gates(None, threshold).items()}
    return MaskSet(masks.tasks, scores, None, dict(masks.meta))
