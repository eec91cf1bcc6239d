"""Test pictures of the class; of the chosen one, what the network says, where it looks, and why it errs."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import adaptive_avg_pool2d

from nadkit.widgets.answers import Answers, Key
from nadkit.widgets.choice import Choice
from nadkit.widgets.subject import Subject
from nadkit.widgets.thumbs import thumb
from nadkit.widgets.views.needs import State, found, missing

MOST = 24
"""Pictures in a strip."""

SIDES = (56, 40, 28)
"""Pixels a side of a picture in a strip; fewer where colours would make the strips too long to send."""

LETTERS = 120_000
"""What the pictures of all strips take at most."""

CLASSES = 5
CELLS = 28
"""Rows and columns of a layer's map that are sent; finer ones are averaged."""


def pictures_state(subject: Subject, choice: Choice, answers: Answers) -> State:
    """Return strips of pictures that are answered right and wrong, and the chosen picture."""
    state: State = {
        "title": f"Pictures: {choice.task}", "stamp": choice.stamp, "strips": [], "chosen": None,
        "image": None if choice.place is None else subject.rows[choice.place],
    }  # fmt: skip
    if why := missing(answers):
        return state | {"note": why}
    keys = picture_keys(subject, choice, answers)
    peaks, *values = found(answers, keys, state)
    answered = None if peaks is None else subject.answered(peaks.logits)
    strips: dict[str, list[tuple[int, str]]] = {"answered right": [], "answered wrong": []}
    for place in subject.of_class(choice.task):
        said = choice.task if answered is None else answered[place]
        strip = strips["answered right" if said == choice.task else "answered wrong"]
        if len(strip) < MOST:
            strip.append((place, said if answered else ""))
    if answered is None:
        strips = {"not yet asked": strips["answered right"]}
    side = _side(subject, [place for strip in strips.values() for place, _ in strip])
    state["strips"] = [
        [words, [_one(subject, place, said, choice.task, side) for place, said in strip]]
        for words, strip in strips.items()
    ]
    if not any(strips.values()):
        state["note"] = f"there is no picture of {choice.task} among those given"
    if choice.place is not None:
        by_key = dict(zip(keys[1:], values, strict=True))
        state["chosen"] = _chosen(subject, choice, by_key, answered)
    return state


def picture_keys(subject: Subject, choice: Choice, answers: Answers) -> list[Key]:
    """Return what the panel needs to know, the pass over all pictures first."""
    keys: list[Key] = [("peaks",)]
    place = choice.place
    if place is None:
        return keys
    about = (choice.task, choice.threshold)
    keys.append(("scores", place, *about, "whole"))
    if choice.condition != "whole":
        keys.append(("scores", place, *about, choice.condition))
    keys.append(("maps", place, *about, choice.condition))
    peaks = answers.get(("peaks",))
    tasks = subject.masks.tasks
    if hasattr(peaks, "logits") and len(tasks) > 1:
        said, right = subject.answered(peaks.logits)[place], subject.class_of(place)
        if said != right and said in tasks and right in tasks:
            keys.append(("why", place, choice.threshold))
    return keys


def _side(subject: Subject, places: list[int]) -> int:
    """Return how large pictures can be so that all of them are not too much for a page."""
    for side in SIDES[:-1]:
        if sum(len(thumb(subject.shown, place, side)) for place in places) <= LETTERS:
            return side
    return SIDES[-1]


def _one(subject: Subject, place: int, said: str, task: str, side: int) -> dict[str, Any]:
    wrong = f", answered {said}" if said and said != task else ""
    return {
        "index": subject.rows[place],
        "src": thumb(subject.shown, place, side),
        "caption": said if wrong else "",
        "alt": f"picture {subject.rows[place]} of {task}{wrong}",
    }


def _chosen(
    subject: Subject, choice: Choice, values: dict[Key, Any], answered: list[str] | None
) -> dict[str, Any]:
    assert choice.place is not None
    place, condition = choice.place, choice.condition
    name, index = subject.class_of(place), subject.rows[place]
    said = answered[place] if answered else ""
    about = (place, choice.task, choice.threshold)
    found: dict[str, Any] = {
        "title": f"Picture {index}: {name}" + (f", answered {said}" if said else ""),
        "picture": {
            "src": thumb(subject.shown, place, 140),
            "alt": f"picture {index} of {name}",
            "caption": name,
        },
        "task": name,
    }
    whole = values.get(("scores", *about, "whole"))
    gated = values.get(("scores", *about, condition))
    if whole is not None:
        found["scores"] = _scores(subject, choice, whole, gated if condition != "whole" else None)
    maps = values.get(("maps", *about, condition))
    if maps is not None:
        units = {
            "whole": "all units", "kept": f"the units that {choice.task} keeps",
            "removed": f"the units that {choice.task} does not keep", "random": "as many random units",
        }  # fmt: skip
        found["maps_title"] = f"Where {units[condition]} respond, layer by layer"
        found["maps"] = [_map(layer, rows[0]) for layer, rows in maps.items()]
    why = values.get(("why", place, choice.threshold))
    if why is not None:
        found |= _why(why, name, said)
    return found


def _scores(subject: Subject, choice: Choice, whole: Any, gated: Any) -> dict[str, Any]:
    assert subject.network is not None
    names = subject.network.class_names
    best = whole.argsort(descending=True).tolist()[:CLASSES]
    if choice.task in names and names.index(choice.task) not in best:
        best.append(names.index(choice.task))
    columns = [whole] if gated is None else [whole, gated]
    heads = ["whole"] if gated is None else ["whole", choice.condition]
    return {"heads": heads, "rows": [[names[k], *(round(float(one[k]), 4) for one in columns)] for k in best]}


def _map(layer: str, rows: Any) -> dict[str, Any]:
    """The map of a layer, 1 where it responds most; a layer that does not respond is 0 everywhere."""
    if max(rows.shape) > CELLS:
        rows = adaptive_avg_pool2d(rows[None], (min(rows.shape[0], CELLS), min(rows.shape[1], CELLS)))[0]
    most = float(rows.max())
    scaled = rows / most if most > 0 else torch.zeros_like(rows)
    at = divmod(int(rows.argmax()), rows.shape[1])
    where = f"most in row {at[0] + 1} of {rows.shape[0]}, column {at[1] + 1} of {rows.shape[1]}"
    return {
        "name": layer,
        "rows": [[round(value, 2) for value in row] for row in scaled.tolist()],
        "alt": f"{layer}: {where if most > 0 else 'no response'}",
    }


def _why(table: Any, name: str, said: str) -> dict[str, Any]:
    removed = table[(table["condition"] == "removed") & (table["metric"] == "margin")]
    units = [
        [
            f"{row.layer}/{row.unit}",
            f"without it and those before it, the logit of {name} is {abs(row.value):.2f} "
            f"{'above' if row.value > 0 else 'below'} the best other class",
        ]
        for row in removed.itertuples()
    ]
    return {
        "why_title": f"Why {said} and not {name}",
        "why": str(table.attrs["answer"]),
        "units": units,
        "other": said,
    }
