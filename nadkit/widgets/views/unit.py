"""One unit: its classes, its links, and the pictures that excite it most."""

from __future__ import annotations

from typing import Any

from nadkit.masks import Unit
from nadkit.widgets.answers import Answers
from nadkit.widgets.choice import Choice
from nadkit.widgets.subject import Pictured, Subject, unit_in
from nadkit.widgets.thumbs import thumb
from nadkit.widgets.views.needs import State, found, missing
from nadkit.widgets.views.words import many

MOST_TASKS = 12
MOST_LINKS = 6
PICTURES = 8


def unit_state(subject: Subject, choice: Choice, answers: Answers) -> State:
    """Return what is known of the chosen unit."""
    state: State = {"stamp": choice.stamp, "facts": "", "tasks": [], "pictures": []}
    unit = unit_in(choice.unit, subject.layers)
    if unit is None:
        return state | {
            "title": "Unit: none is chosen",
            "facts": "Choose a mark on the map: its links, the classes that keep it, what excites it.",
        }
    keepers = subject.keepers(unit, choice.threshold)
    score = float(subject.masks.scores[unit.layer][subject.masks.tasks.index(choice.task), unit.index])
    total = len(subject.masks.tasks)
    state |= {
        "title": f"Unit {unit}",
        "facts": f"Score {score:.2f} for {choice.task}; kept by {len(keepers)} of "
        f"{many(total, 'class', 'classes')} above {choice.threshold:.2f}.",
        "tasks": [[task, round(value, 2)] for task, value in keepers[:MOST_TASKS]],
        "task": choice.task,
        "more": max(0, len(keepers) - MOST_TASKS),
    }
    if why := missing(answers):
        return state | {"note": why}
    arch, peaks = found(answers, [("graph", choice.task, choice.threshold), ("peaks",)], state)
    if arch is not None:
        state |= links(arch, unit)
        if str(unit) not in arch.graph:
            state["facts"] += f" {choice.task} does not keep it, so it has no links in this sub-architecture."
        else:
            carried = float(arch.graph.nodes[str(unit)]["carried"])
            state["facts"] += f" It carries {100 * carried:.1f} % of the logit's input of {choice.task}."
    if peaks is not None:
        state["pictures"] = exciting(subject, peaks, unit)
        if not state["pictures"]:
            state["facts"] += " It is 0 on all pictures."
    return state


def links(arch: Any, unit: Unit) -> dict[str, list[list[Any]]]:
    """Return the strongest links into a unit and from it: name, share of the target's input, sign."""
    graph, name = arch.graph, str(unit)
    if name not in graph:
        return {"into": [], "from": []}
    ends = {
        "into": [(source, facts) for source, _, facts in graph.in_edges(name, data=True)],
        "from": [(target, facts) for _, target, facts in graph.out_edges(name, data=True)],
    }
    return {
        side: [
            [end, round(float(facts["share"]), 3), int(facts["sign"]), graph.nodes[end]["index"] >= 0]
            for end, facts in sorted(found, key=lambda pair: -pair[1]["share"])[:MOST_LINKS]
        ]
        for side, found in ends.items()
    }


def exciting(subject: Pictured, peaks: Any, unit: Unit, count: int = PICTURES) -> list[dict[str, Any]]:
    """Return the pictures that excite a unit most, with the place of the peak."""
    assert subject.shown is not None
    shown = []
    for row in peaks.top(unit, count).itertuples():
        name, box = subject.class_of(row.image), [row.left, row.top, row.width, row.height]
        place = "" if (row.width, row.height) == (1, 1) else ", most at the outlined place"
        shown.append(
            {
                "src": thumb(subject.shown, row.image, 72),
                "box": None if not place else [round(float(share), 4) for share in box],
                "alt": f"picture {subject.rows[row.image]} of {name}, response {row.value:.2f}{place}",
                "caption": f"{name} {row.value:.2f}",
            }
        )
    return shown
