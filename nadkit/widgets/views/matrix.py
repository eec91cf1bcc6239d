"""The matrix: how alike the sub-architectures of two classes are, or which pictures each accepts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from nadkit import questions
from nadkit.widgets.answers import Answers
from nadkit.widgets.choice import Choice
from nadkit.widgets.subject import Subject
from nadkit.widgets.views.needs import State, found, missing
from nadkit.widgets.views.words import many

MATRICES = {
    "phi": "φ in this layer",
    "phi_all": "φ over all layers",
    "jaccard": "Jaccard in this layer",
    "accepted": "pictures accepted",
}
MOST = 30
"""Classes that are drawn: of more, the chosen ones and those nearest to them."""

APART = 8
"""Units named that tell two classes apart."""


def matrix_state(subject: Subject, choice: Choice, answers: Answers, digits: int | None = 3) -> State:
    """Return the matrix that is chosen, to some digits or to all, and what tells the chosen pair apart."""
    kind = choice.matrix
    state: State = {
        "kinds": [[name, words] for name, words in MATRICES.items()], "kind": kind, "task": choice.task,
        "other_task": choice.other_task, "stamp": choice.stamp, "units": [],
    }  # fmt: skip
    if kind == "accepted":
        return state | _accepted(choice, answers, state, digits)
    names, values = _overlap(subject, choice)
    where = "over all layers" if kind == "phi_all" else f"in {choice.layer}"
    what = "Jaccard index" if kind == "jaccard" else "φ (overlap beyond chance)"
    less = len(subject.masks.tasks) - len(names)
    state |= {
        "title": f"Matrix: {what} of what two classes keep {where}",
        "rows": names,
        "columns": names,
        "values": [[_number(value, digits) for value in row] for row in values.tolist()],
        "summary": f"{what} {where} of {len(names)} classes; choose a cell to compare two of them",
        "note": f"{many(less, 'class', 'classes')} further from {choice.task} are left out" if less else "",
    }
    state["pair"], state["units"] = _pair(subject, choice)
    return state


def _overlap(subject: Subject, choice: Choice) -> tuple[list[str], Any]:
    """Names and values of the matrix; of many classes, of those near to the chosen ones."""
    tasks = list(subject.masks.tasks)
    kept = {address: torch.from_numpy(rows) for address, rows in subject.kept(choice.threshold).items()}
    if choice.matrix != "phi_all":
        kept = {choice.layer: kept[choice.layer]}
    rows = list(range(len(tasks)))
    which = "jaccard" if choice.matrix == "jaccard" else "phi"
    if len(tasks) > MOST:
        own = tasks.index(choice.task)
        near = questions.overlaps({address: one[[own]] for address, one in kept.items()}, kept)
        nearness = np.nan_to_num(getattr(near, which)[-1][0].numpy(), nan=-2.0)
        nearness[own] = np.inf
        if choice.other_task:
            nearness[tasks.index(choice.other_task)] = 1e9
        rows = np.argsort(-nearness, kind="stable")[:MOST].tolist()
    some = {address: one[rows] for address, one in kept.items()}
    return [tasks[row] for row in rows], getattr(questions.overlaps(some, some), which)[-1]


def _pair(subject: Subject, choice: Choice) -> tuple[list[str], list[list[str]]]:
    """What two classes share, in words, and the units that tell them apart."""
    task, other = choice.task, choice.other_task
    if not other:
        return ["Choose a cell, or a class to compare with, to see what two classes share."], []
    tasks = subject.masks.tasks
    one, two = tasks.index(task), tasks.index(other)
    layers = list(subject.layers) if choice.matrix == "phi_all" else [choice.layer]
    kept = subject.kept(choice.threshold)
    both = sum(int((kept[layer][one] & kept[layer][two]).sum()) for layer in layers)
    only = [
        sum(int((kept[layer][a] & ~kept[layer][b]).sum()) for layer in layers)
        for a, b in ((one, two), (two, one))
    ]
    where = "over all layers" if len(layers) > 1 or choice.matrix == "phi_all" else f"in {choice.layer}"
    lines = [
        f"{task} and {other} share {many(both, 'unit')} {where}; {only[0]:,} are kept by {task} only and "
        f"{only[1]:,} by {other} only."
    ]
    apart = []
    for layer in layers:
        scores = subject.masks.scores[layer][[one, two]].numpy()
        differ = np.flatnonzero(kept[layer][one] != kept[layer][two])
        apart += [(abs(float(scores[0, u] - scores[1, u])), layer, int(u), scores[:, u]) for u in differ]
    apart.sort(key=lambda found: (-found[0], found[1], found[2]))
    if apart:
        lines.append("Units whose scores tell them apart most:")
    units = [
        [f"{layer}/{unit}", f"score {scores[0]:.2f} for {task}, {scores[1]:.2f} for {other}"]
        for _, layer, unit, scores in apart[:APART]
    ]
    return lines, units


def _accepted(choice: Choice, answers: Answers, state: State, digits: int | None) -> State:
    state = {
        **state, "title": "Matrix: pictures of each class that a sub-architecture accepts", "rows": [],
        "columns": [], "values": [], "pair": [], "summary": "",
    }  # fmt: skip
    if why := missing(answers):
        return state | {"note": why}
    table = found(answers, [("accepted", choice.threshold)], state)[0]
    if table is None:
        return state
    metrics = set(table["metric"])
    metric = "accepted_calibrated" if "accepted_calibrated" in metrics else "accepted"
    rows = table[(table["metric"] == metric) & (table["condition"] == "kept")]
    wide = rows.pivot_table(index="task", columns="other_task", values="value", aggfunc="first", dropna=False)
    tasks = [task for task in answers.subject.masks.tasks if task in wide.index]
    if len(tasks) > MOST:
        first = [choice.task, *([choice.other_task] if choice.other_task else [])]
        tasks = [*first, *(task for task in tasks if task not in first)][:MOST]
    classes = [name for name in tasks if name in wide.columns]
    state |= {
        "rows": tasks,
        "columns": classes,
        "values": [
            [_number(value, digits) for value in row] for row in wide.loc[tasks, classes].to_numpy().tolist()
        ],
        "summary": f"share of the pictures of a class (columns) that a sub-architecture (rows) accepts, "
        f"{len(tasks)} classes",
        "note": f"accepted: {'calibrated ' * (metric != 'accepted')}log-odds of the class above 0",
    }
    pair = rows[(rows["task"] == choice.task) & (rows["other_task"] == (choice.other_task or choice.task))]
    if len(pair):
        cell = pair.iloc[0]
        state["pair"] = [
            f"The sub-architecture of {cell['task']} accepts {100 * cell['value']:.0f} % "
            f"[{100 * cell['low']:.0f}, {100 * cell['high']:.0f}] of the pictures of {cell['other_task']} "
            f"(n = {cell['n']})."
        ]
    return state


def _number(value: float, digits: int | None) -> float | None:
    """A number for JSON, which has no NaN."""
    return None if math.isnan(value) else value if digits is None else round(value, digits)
