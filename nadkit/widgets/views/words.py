"""Sentences about masks that several panels say."""

from __future__ import annotations

from nadkit.widgets.choice import Choice
from nadkit.widgets.subject import Subject


def percent(share: float) -> str:
    """Return a share as a whole percentage."""
    return f"{100 * share:.0f} %"


def many(count: int, what: str, plural: str | None = None) -> str:
    """Return a number and its noun.

    Examples
    --------
    >>> many(1, "unit"), many(2000, "unit")
    ('1 unit', '2,000 units')
    """
    return f"{count:,} {what if count == 1 else plural or what + 's'}"


def summary(subject: Subject, choice: Choice) -> str:
    """Return what the class keeps, and what it shares with the class beside it, in words."""
    kept = subject.kept(choice.threshold)
    tasks = subject.masks.tasks
    row = tasks.index(choice.task)
    mine = sum(int(rows[row].sum()) for rows in kept.values())
    total = sum(subject.layers.values())
    said = (
        f"{choice.task} keeps {mine:,} of {many(total, 'unit')} of {subject.name} "
        f"({percent(mine / total)}) above a threshold of {choice.threshold:.2f}"
    )
    if choice.other_task:
        other = tasks.index(choice.other_task)
        theirs = sum(int(rows[other].sum()) for rows in kept.values())
        both = sum(int((rows[row] & rows[other]).sum()) for rows in kept.values())
        return f"{said}; {choice.other_task} keeps {theirs:,}, and {both:,} are kept by both."
    if len(tasks) > 1:
        alone = sum(int((rows[row] & (rows.sum(0) == 1)).sum()) for rows in kept.values())
        return f"{said}; {alone:,} of them by no other class."
    return f"{said}."
