"""What planted tasks are made of: parts, pairs of parts, and wholes of two halves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

Half = tuple[int, ...]  # the parts side by side: a pair, one alone on the left, or none
Whole = tuple[Half, Half]  # an upper and a lower half
NONE = -1  # no part: the picture is grey there


class Task(NamedTuple):
    """What the pictures of a task show, and how it is decided.

    Attributes
    ----------
    wholes : of which each picture shows one, in turn
    twins : whether the upper half is found twice, so that either finder can be spared
    veto : a whole that speaks against the task; half of the other tasks' pictures show it together with the
        task's own whole
    """

    wholes: tuple[Whole, ...]
    twins: bool = False
    veto: Whole | None = None


@dataclass(frozen=True)
class Scheme:
    """The tasks of a network and, numbered after their parts, the parts that no task needs."""

    tasks: tuple[Task, ...]

    @property
    def wholes(self) -> tuple[Whole, ...]:
        """All wholes of all tasks, vetoes included."""
        shown = [whole for task in self.tasks for whole in task.wholes]
        return (*shown, *(task.veto for task in self.tasks if task.veto))

    @property
    def common(self) -> Whole:
        """Shown in nearly every picture, whatever its task."""
        first = 1 + max(part for whole in self.wholes for half in whole for part in half)
        return ((first, first + 1), (first, first + 1))

    @property
    def ornaments(self) -> tuple[int, ...]:
        """For each task a part that goes with it and means nothing."""
        first = 1 + max(self.common[0])
        return tuple(range(first, first + len(self.tasks)))

    @property
    def parts(self) -> int:
        """How many parts there are."""
        return 1 + max(self.ornaments)


# Tasks 1 and 2 share a pair, 0 and 4 a part, 0 and 5 a part; 3 needs one pair twice, and shares nothing.
FEW = Scheme((
    Task((((0, 1), (2, 3)),)),
    Task((((4, 5), (6, 7)),)),
    Task((((4, 5), (8, 9)),)),
    Task((((10, 11), (10, 11)),)),
    Task((((12, 13), (0, 14)),)),
    Task((((15, 16), (17, 18)), ((15, 16), (19, 3)))),
))  # fmt: skip
# Besides, 6 needs units that reject, 7 either of two sets, and 8 a part that a layer must pass on.
ALL = Scheme((
    *FEW.tasks,
    Task((((20, 21), (22, 2)),), veto=((23, 24), (6, 25))),
    Task((((26, 27), ()),), twins=True),
    Task((((28, 29), (30,)),)),
))  # fmt: skip
