"""The panels of an explorer as pictures, drawn from what they show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nadkit.widgets.stills.charts import bars, dots, matrix
from nadkit.widgets.stills.photos import few, heats, image, pictures
from nadkit.widgets.stills.svg import Block, beside, chips, document, fields, lines_of_text
from nadkit.widgets.views.needs import OLD
from nadkit.widgets.views.pictures import MOST
from nadkit.widgets.views.words import many

State = Mapping[str, Any]
WAITS = "This had not been worked out when the picture was drawn."


def panel_still(kind: str, state: State) -> tuple[str, str]:
    """Return a picture of a panel, and its words: what it shows, or what it waits for."""
    blocks, said = _DRAWN[kind](state) if kind in _DRAWN else ([], [])
    title = str(state.get("title", kind))
    missing = told(state)
    if not blocks:
        blocks = [lines_of_text(missing or ["There is nothing to show."])]
    sentences = [title, *(line for line in said if line), *missing]
    return document(title, *blocks), " ".join(one if one[-1] in ".?!" else f"{one}." for one in sentences)


def told(state: State) -> list[str]:
    """Return what went wrong in a panel, and its note; a picture that waits for an answer says so."""
    said = [str(state[name]) for name in ("error", "note") if state.get(name)]
    return [WAITS if one == OLD else one for one in said]


def _controls(state: State) -> tuple[list[Block], list[str]]:
    form = fields(
        [
            ("class", state["task"]), ("compare with", state["other_task"] or "none"),
            ("layer", state["layer"]),
            ("threshold", f"{state['threshold']:.2f}"), ("condition", state["condition"]),
        ]
    )  # fmt: skip
    return [form], [state["summary"], f"Layer {state['layer']}, condition {state['condition']}"]


def _evidence(state: State) -> tuple[list[Block], list[str]]:
    if not state["rows"]:
        return [], []
    metric = dict(state["metrics"])[state["metric"]]
    chance = "accuracy" in state["metric"] or state["metric"] == "auroc"  # a half of recall is no chance
    return [lines_of_text([metric]), dots(state["rows"], chance)], [state["summary"], state["sentence"]]


def _matrix(state: State) -> tuple[list[Block], list[str]]:
    if not state["rows"]:
        return [], []
    pair = (state["task"], state["other_task"] or state["task"])
    grid = matrix(state["rows"], state["columns"], state["values"], pair)
    names = [name for name, _ in state["units"]]
    link = "accepts" if state["kind"] == "accepted" else "and"
    cells = [
        (value, f"{row} {link} {column} ({value:.2f})")
        for row, values in zip(state["rows"], state["values"], strict=True)
        for column, value in zip(state["columns"], values, strict=True)
        if value is not None and row != column
    ]
    ends = f"Highest off the diagonal: {max(cells)[1]}; lowest: {min(cells)[1]}" if cells else ""
    return [grid, lines_of_text(state["pair"]), chips(names)], [ends, *state["pair"], ", ".join(names)]


def _unit(state: State) -> tuple[list[Block], list[str]]:
    if not state["tasks"] and not state.get("task"):
        return [lines_of_text([state["facts"]])], [state["facts"]]
    blocks, said = [], [state["facts"]]
    tables = []
    if state["tasks"]:
        rows = [(task, [(value, f"{value:.2f}")]) for task, value in state["tasks"]]
        tables.append(bars(["score"], rows))
    for side, head in (("into", "links into it"), ("from", "links from it")):
        if state.get(side):
            links = [
                (end, [(share, f"{'−' if sign < 0 else '+'} {share:.2f}")])
                for end, share, sign, _ in state[side]
            ]
            tables.append(bars([head], links))
            said.append(f"{head}: {', '.join(end for end, *_ in state[side])}")
    blocks.append(beside(*tables))
    if state["pictures"]:
        shown = few(state["pictures"])
        blocks += [lines_of_text(["excited most by"], heading=True), pictures(shown)]
        said.append(f"Excited most by {', '.join(str(one['caption']) for one in shown)}")
    return blocks, said


def _pictures(state: State) -> tuple[list[Block], list[str]]:
    blocks, said, room = [], [], 24_000
    for head, strip in state["strips"]:
        shown = few(strip, room // 2)
        # A strip that is full has left pictures out.
        count = f"{len(strip)} pictures or more" if len(strip) == MOST else many(len(strip), "picture")
        more = f", the first {len(shown)} are drawn" if len(shown) < len(strip) else ""
        blocks += [
            lines_of_text([f"{head}: {count}{more}"], heading=True),
            pictures(shown, 48, state["image"]),
        ]
        said.append(f"{head}: {count}")
    one = state["chosen"]
    if one:
        blocks.append(lines_of_text([one["title"]], heading=True))
        (small,) = few([one["picture"]], room)
        parts = [Block(image(small["src"], 0, 0, 112), 112, 116)]
        if one.get("scores"):
            rows = [
                (name, [(value, f"{value:.2f}") for value in values])
                for name, *values in one["scores"]["rows"]
            ]
            parts.append(bars([f"probability, {head}" for head in one["scores"]["heads"]], rows))
        blocks.append(beside(*parts))
        said.append(one["title"])
        if one.get("maps"):
            blocks += [lines_of_text([one["maps_title"]], heading=True), heats(one["maps"])]
            ends = dict.fromkeys(one["maps"][at]["alt"] for at in (0, -1))
            said.append(f"{one['maps_title']}, from {' to '.join(ends)}")
        if one.get("why"):
            blocks += [
                lines_of_text([one["why_title"]], heading=True),
                chips([name for name, _ in one["units"]]),
            ]
            said.append(one["why"])
    return blocks, said


_DRAWN: dict[str, Callable[[State], tuple[list[Block], list[str]]]] = {
    "controls": _controls, "evidence": _evidence, "matrix": _matrix, "unit": _unit, "pictures": _pictures,
}  # fmt: skip
