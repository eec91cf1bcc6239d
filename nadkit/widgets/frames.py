"""What the panels of an explorer show, as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nadkit.errors import NadkitError, closest
from nadkit.widgets.answers import Answers, Failed, Key, Worker
from nadkit.widgets.choice import Choice
from nadkit.widgets.subject import Subject, unit_in
from nadkit.widgets.views.evidence import plain
from nadkit.widgets.views.matrix import matrix_state
from nadkit.widgets.views.needs import missing

if TYPE_CHECKING:
    import pandas as pd

PANELS = ("map", "evidence", "matrix", "unit", "pictures")


def frame(panel: str, subject: Subject, choice: Choice, answers: Answers) -> pd.DataFrame:
    """Return the table of a panel; `Explorer.to_frame` describes the columns.

    Raises
    ------
    NadkitError
        No such panel; it lacks a network or pictures; an answer could not be worked out.
    """
    import pandas as pd

    if panel not in PANELS:
        raise NadkitError(f"no panel {panel!r} has a table; {closest(str(panel), PANELS)}")
    if panel == "map":
        return _units(subject, choice, answers)
    if panel == "matrix":
        if choice.matrix == "accepted":
            known(answers, ("accepted", choice.threshold))
        state = matrix_state(subject, choice, answers, digits=None)
        cells = [
            (
                task,
                other,
                choice.layer if choice.matrix in ("phi", "jaccard") else "all",
                choice.matrix,
                value,
            )
            for task, values in zip(state["rows"], state["values"], strict=True)
            for other, value in zip(state["columns"], values, strict=True)
        ]
        return pd.DataFrame(cells, columns=["task", "other_task", "layer", "metric", "value"])
    if panel == "evidence":
        table = known(answers, ("evidence", choice.task, choice.threshold))
        rows: pd.DataFrame = plain(table, choice.task)
        return rows.reset_index(drop=True)
    if panel == "pictures":
        peaks = known(answers, ("peaks",))
        answered = subject.answered(peaks.logits)
        shown = [(subject.rows[at], choice.task, answered[at]) for at in subject.of_class(choice.task)]
        return pd.DataFrame(shown, columns=["image", "task", "answered"])
    unit = unit_in(choice.unit, subject.layers)
    if unit is None:
        raise NadkitError("no unit is chosen; set explorer.unit, such as explorer.unit = 'layer3.1/17'")
    graph = known(answers, ("graph", choice.task, choice.threshold)).graph
    name = str(unit)
    edges = [*graph.in_edges(name, data=True), *graph.out_edges(name, data=True)] if name in graph else []
    links = [(source, target, float(facts["share"]), int(facts["sign"])) for source, target, facts in edges]
    return pd.DataFrame(links, columns=["source", "target", "share", "sign"])


def known(answers: Answers, key: Key) -> Any:
    """Return an answer, worked out now if need be.

    Raises
    ------
    NadkitError
        There is no network, or there are no pictures; it could not be worked out.
    """
    if why := missing(answers):
        raise NadkitError(why)
    return worked_out(answers, key)


def worked_out(answers: Worker, key: Key) -> Any:
    """Return an answer, worked out now if need be.

    Raises
    ------
    NadkitError
        It could not be worked out.
    """
    while (value := answers.get(key)) is None:
        answers.ask_first(key)  # what the panels asked for is worked out after it
        answers.wait()
    if isinstance(value, Failed):
        raise NadkitError(value.text)
    return value


def _units(subject: Subject, choice: Choice, answers: Answers) -> pd.DataFrame:
    import pandas as pd

    kept = subject.kept(choice.threshold)
    tasks = subject.masks.tasks
    row = tasks.index(choice.task)
    gates = subject.gates(choice.task, choice.threshold, choice.condition)
    arch = answers.get(("graph", choice.task, choice.threshold))
    nodes = {} if arch is None or isinstance(arch, Failed) else dict(arch.graph.nodes)
    parts = []
    for layer, rows in kept.items():
        count = rows.shape[1]
        keepers = rows.sum(0)
        part = {
            "network": subject.name, "task": choice.task, "other_task": choice.other_task,
            "condition": choice.condition, "layer": layer, "index": np.arange(count),
            "score": subject.masks.scores[layer][row].numpy(), "kept": rows[row], "tasks": keepers,
            "exclusive": rows[row] & (keepers == 1),
            "open": np.ones(count, dtype=bool) if gates is None else gates[layer].numpy() > 0,
        }  # fmt: skip
        if choice.other_task:
            other = tasks.index(choice.other_task)
            part |= {"other_score": subject.masks.scores[layer][other].numpy(), "other_kept": rows[other]}
        if nodes:
            part["carried"] = [nodes.get(f"{layer}/{at}", {}).get("carried") for at in range(count)]
        parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)
