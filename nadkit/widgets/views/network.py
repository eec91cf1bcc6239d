"""The map: layers as columns, units as marks, links of the chosen unit."""

from __future__ import annotations

from typing import Any

import numpy as np

from nadkit.figures._columns import runs_of
from nadkit.masks import Unit
from nadkit.widgets.answers import Answers
from nadkit.widgets.choice import Choice
from nadkit.widgets.subject import Subject, unit_in
from nadkit.widgets.views.needs import State, found, missing
from nadkit.widgets.views.words import many, summary

MOST_UNITS = 1500
"""Marks that are drawn: of a larger network, those of the chosen layer."""

MOST_OF_LAYER = 600
"""Marks of one layer of a large network: those that score highest."""

MOST_COLUMNS = 40
"""Columns of layers: of a deeper network, blocks of layers are drawn, and the chosen one's layers."""

INPUT, LOGIT = "input", "logit"


def map_state(subject: Subject, choice: Choice, answers: Answers) -> State:
    """Return columns with their marks, and the links of the chosen unit as far as they are known."""
    state: State = {
        "title": "Map: what each class keeps, layer by layer",
        "task": choice.task,
        "other_task": choice.other_task,
        "layer": choice.layer,
        "unit": choice.unit,
        "condition": choice.condition,
        "n_tasks": len(subject.masks.tasks),
        "stamp": choice.stamp,
        "summary": summary(subject, choice),
        "links": [],
    }
    arch = None
    if why := missing(answers):
        state["note"] = why
    else:
        arch = found(answers, [("graph", choice.task, choice.threshold)], state)[0]
        # Marks are of the masks, and up to date; it is links and what units carry that wait.
        state["stale"] = False
        if state.get("note"):
            state["note"] = "links are not read yet"
    state["columns"] = columns(subject, choice, arch)
    state["legend"] = legend(subject, choice)
    unit = unit_in(choice.unit, subject.layers)
    if arch is not None and unit is not None:
        state["links"], hidden = _links(state["columns"], arch, unit)
        if hidden:
            state["note"] = f"{many(hidden, 'link')} to units that are not drawn are left out"
        if str(unit) not in arch.graph:
            state["note"] = f"{choice.task} does not keep {unit}, so it has no links here"
    return state


def marks(subject: Subject, choice: Choice) -> dict[str, Any]:
    """Return for every layer what its units are to the classes: (n_units,) codes.

    0 not kept, 1 kept, 2 kept by no other class, 3 kept by the other class only, 4 kept by both.
    """
    kept = subject.kept(choice.threshold)
    tasks = subject.masks.tasks
    row = tasks.index(choice.task)
    made = {}
    for address, rows in kept.items():
        code = rows[row].astype(np.int8)
        if choice.other_task:
            other = rows[tasks.index(choice.other_task)]
            code = np.where(other, np.where(rows[row], 4, 3), code)
        elif len(tasks) > 1:
            code = np.where(rows[row] & (rows.sum(0) == 1), 2, code)
        made[address] = code
    return made


def columns(subject: Subject, choice: Choice, arch: Any = None) -> list[dict[str, Any]]:
    """Return the columns of the map from the input to the logit."""
    layers = subject.layers
    codes = marks(subject, choice)
    row = subject.masks.tasks.index(choice.task)
    gates = subject.gates(choice.task, choice.threshold, choice.condition)
    everything = sum(layers.values()) <= MOST_UNITS and len(layers) <= MOST_COLUMNS
    runs = _runs(list(layers), choice.layer)
    chosen = unit_in(choice.unit, layers)
    made = [_end(INPUT)]
    for name, run in runs:
        units = sum(layers[layer] for layer in run)
        kept = sum(int(np.isin(codes[layer], (1, 2, 4)).sum()) for layer in run)
        single = len(run) == 1
        column: dict[str, Any] = {
            "name": choice.layer if choice.layer in run else run[0], "label": name, "units": units,
            "kept": kept,
            "open": single and (everything or run[0] == choice.layer), "ids": None,
            "hint": "" if single else f"{len(run)} layers", "layers": list(run),
        }  # fmt: skip
        if column["open"]:
            layer = run[0]
            scores = subject.masks.scores[layer][row].numpy()
            ids = None
            if units > MOST_OF_LAYER and not everything:
                highest = np.argsort(-scores, kind="stable")[:MOST_OF_LAYER]
                # The chosen unit is on the map whatever it scores.
                also = [chosen.index] if chosen and chosen.layer == layer else []
                ids = np.unique(np.concatenate([highest, np.array(also, dtype=highest.dtype)]))
                column["hint"] = f"the {len(ids)} that score highest are drawn"
            column |= _drawn(subject, choice, layer, ids, codes[layer], scores, gates, arch)
        made.append(column)
    return [*made, _end(f"{LOGIT}:{choice.task}")]


def _drawn(
    subject: Subject, choice: Choice, layer: str, ids: Any, codes: Any, scores: Any, gates: Any, arch: Any
) -> dict[str, Any]:
    """What is known of each unit that is drawn one by one."""
    keepers = subject.kept(choice.threshold)[layer].sum(0)
    opened = np.ones(len(codes), dtype=bool) if gates is None else gates[layer].numpy() > 0
    pick = slice(None) if ids is None else ids
    found: dict[str, Any] = {
        "ids": None if ids is None else ids.tolist(),
        "marks": "".join(map(str, codes[pick].tolist())),
        "on": "".join("1" if one else "0" for one in opened[pick].tolist()),
        "scores": (100 * scores[pick]).round().astype(int).tolist(),
        "tasks": keepers[pick].tolist() if len(subject.masks.tasks) > 1 else None,
        "carried": None,
    }
    if arch is not None:
        indices = range(len(codes)) if ids is None else ids.tolist()
        nodes = arch.graph.nodes
        carried = [nodes.get(f"{layer}/{index}", {}).get("carried") for index in indices]
        found["carried"] = [-1 if value is None else round(1000 * value) for value in carried]
    return found


def _end(name: str) -> dict[str, Any]:
    return {
        "name": name, "label": name.split(":")[0], "units": 1, "kept": 1, "open": True, "end": True,
        "ids": None, "marks": "1", "on": "1", "hint": "",
    }  # fmt: skip


def _runs(layers: list[str], chosen: str) -> list[tuple[str, tuple[str, ...]]]:
    """Layers, or blocks of them; the block of the chosen layer is taken apart."""
    blocks = runs_of(layers, (), MOST_COLUMNS)
    own = next((run for _, run in blocks if chosen in run), ())
    return [
        (layer, (layer,)) if run == own else (name, run)
        for name, run in blocks
        for layer in (run if run == own else run[:1])
    ]


def _links(made: list[dict[str, Any]], arch: Any, unit: Unit) -> tuple[list[list[Any]], int]:
    """Links into and from a unit, column and place of both ends, share and sign; and how many have no end."""
    graph, name = arch.graph, str(unit)
    if name not in graph:
        return [], 0
    edges = [*graph.in_edges(name, data=True), *graph.out_edges(name, data=True)]
    at = {
        layer: place for place, column in enumerate(made) for layer in column.get("layers", [column["name"]])
    }
    at |= {INPUT: 0, LOGIT: len(made) - 1}
    found = []
    for source, target, facts in edges:
        ends = []
        for end in (source, target):
            layer, index = graph.nodes[end]["layer"], graph.nodes[end]["index"]
            place = at.get(layer)
            if place is None:
                break
            ids = made[place]["ids"]
            if ids is not None and index not in ids:
                break
            ends += [place, max(index, 0) if ids is None else ids.index(index)]
        if len(ends) == 4:
            found.append([*ends, round(float(facts["share"]), 3), int(facts["sign"])])
    return found, len(edges) - len(found)


def legend(subject: Subject, choice: Choice) -> list[list[Any]]:
    """Return what the marks mean: code, words, and whether it is drawn hollow."""
    task, other = choice.task, choice.other_task
    if other:
        found: list[list[Any]] = [[4, "kept by both", False], [1, f"kept by {task} only", False],
                                  [3, f"kept by {other} only", False]]  # fmt: skip
    elif len(subject.masks.tasks) > 1:
        found = [[1, f"kept by {task} and others", False], [2, f"kept by {task} alone", False]]
    else:
        found = [[1, f"kept by {task}", False]]
    found.append([0, "not kept", False])
    if choice.condition != "whole":
        found.append([1, f"hollow: closed ({choice.condition})", True])
    return found
