"""The panel with which class, layer, second class, threshold and condition are chosen."""

from __future__ import annotations

from nadkit.widgets.choice import Choice
from nadkit.widgets.subject import CONDITIONS, Subject
from nadkit.widgets.views.needs import State
from nadkit.widgets.views.words import summary


def controls_state(subject: Subject, choice: Choice) -> State:
    """Return names to choose from, and what is chosen."""
    return {
        "title": f"Sub-architectures of {subject.name}",
        "tasks": list(subject.masks.tasks),
        "layers": list(subject.layers),
        "conditions": list(CONDITIONS),
        "task": choice.task,
        "other_task": choice.other_task,
        "layer": choice.layer,
        "threshold": choice.threshold,
        "condition": choice.condition,
        "summary": summary(subject, choice),
        "stamp": choice.stamp,
    }
