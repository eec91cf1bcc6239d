"""What a graph of units says in words: its strongest chain, where it breaks, what was put together."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from nadkit.figures._columns import END, REST, Chart, Item, Line

if TYPE_CHECKING:
    import networkx as nx
    import plotly.graph_objects as go

_FACTS = {"score": "score", "response": "response", "incoming": "effect of all inputs"}

_TOLD = 20
"""Layers whose units are all told in the alternative text."""


class Breaks(NamedTuple):
    """Layers without a kept unit; whether any chain of links leads from the input to the logit; and words."""

    empty: tuple[str, ...]
    passed: tuple[str, ...]
    connected: bool
    short: str
    long: str


def many(number: int, what: str) -> str:
    """Return a number with its noun.

    Examples
    --------
    >>> many(1, "unit"), many(1200, "unit")
    ('1 unit', '1,200 units')
    """
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def percent(share: float) -> str:
    """Return a share as words.

    Examples
    --------
    >>> percent(0.123)
    '12 %'
    """
    return f"{100 * share:.0f} %"


def chain_of(graph: nx.DiGraph) -> list[tuple[str, float]]:
    """Return the units from the logit back along the links with the largest share, each with that share.

    The first entry is the logit, with 1. The chain ends at the input, or at a unit without links.
    """
    here = next((name for name, facts in graph.nodes(data=True) if facts["layer"] == "logit"), None)
    found: list[tuple[str, float]] = []
    share = 1.0
    while here is not None and here not in {name for name, _ in found}:
        found.append((here, share))
        links = [(facts["share"], name) for name, _, facts in graph.in_edges(here, data=True)]
        share, here = max(links, key=lambda link: link[0]) if links else (0.0, None)
    return found


def breaks_of(graph: nx.DiGraph) -> Breaks:
    """Return where the flow is cut: at layers without a kept unit that no link passes by."""
    import networkx as nx

    order = ["input", *graph.graph["layers"], "logit"]
    place = {name: at for at, name in enumerate(order)}
    there = {facts["layer"] for _, facts in graph.nodes(data=True)}
    empty = tuple(name for name in graph.graph["layers"] if name not in there)
    spans = {(place[graph.nodes[a]["layer"]], place[graph.nodes[b]["layer"]]) for a, b in graph.edges()}
    passed = tuple(name for name in empty if any(a < place[name] < b for a, b in spans))
    cut = [name for name in empty if name not in passed]
    ends = [name for name, facts in graph.nodes(data=True) if facts["layer"] == "logit"]
    connected = "input" in graph and any(nx.has_path(graph, "input", end) for end in ends)
    parts, brief = [], []
    if cut:
        parts.append(f"The flow is cut at {_list(cut)}, where no unit is kept.")
        brief.append(f"the flow is cut at {_list(cut)}, where no unit is kept")
    if passed:
        parts.append(f"No unit is kept in {_list(passed)}; links pass by.")
        brief.append(f"no unit is kept in {_list(passed)}, links pass by")
    if not connected and not cut:
        parts.append("No chain of links leads from the input to the logit.")
        brief.append("no chain of links leads from the input to the logit")
    return Breaks(empty, passed, connected, "; ".join(brief), " ".join(parts))


def _list(names: list[str] | tuple[str, ...]) -> str:
    shown = ", ".join(names[:4])
    return f"{shown} and {len(names) - 4} more" if len(names) > 4 else shown


def told_chain(steps: Sequence[tuple[str, float]]) -> str:
    """Return a chain as words, each unit with the share that it brings; of a long one both ends.

    Examples
    --------
    >>> told_chain([("logit:bag", 1.0), ("conv/2", 0.8)])
    'logit:bag, 80 % from conv/2'
    """
    told = [steps[0][0], *(f"{percent(share)} from {name}" for name, share in steps[1:])]
    middle = f"… ({len(told) - _TOLD} more)"
    return ", ".join(told if len(told) <= _TOLD else [*told[: _TOLD // 2], middle, *told[-_TOLD // 2 :]])


def told_layers(graph: nx.DiGraph) -> str:
    """Return how many units each layer keeps; of many layers, the ones that keep fewest and most."""
    layers = graph.graph["layers"]
    counts = dict.fromkeys(layers, 0)
    for _, facts in graph.nodes(data=True):
        if facts["layer"] in counts:
            counts[facts["layer"]] += 1
    told = {name: f"{name} {counts[name]} of {graph.graph['units'].get(name, '?')}" for name in layers}
    if len(layers) <= _TOLD:
        return ", ".join(told.values())
    least, most = min(layers, key=lambda name: counts[name]), max(layers, key=lambda name: counts[name])
    return f"in {len(layers)} layers, fewest {told[least]}, most {told[most]}"


def drawn_as(made: Chart) -> list[str]:
    """Return in words what a chart puts together or leaves out; empty if it is nothing."""
    groups = [column for column in made.columns if not column.opened]
    said = []
    if groups:
        what = f"block ({len(made.columns) - 2} columns)" if made.blocks else "layer"
        opened = [column.name for column in made.columns[1:-1] if column.opened]
        said.append(f"drawn by {what}, bar: number of kept units, curve: all links of one kind")
        said.append(f"opened: {_list(opened)}" if opened else "open= shows the units of a layer")
    if made.merged:
        said.append(f"{many(made.merged, 'weaker unit')} of opened layers put together")
    if made.lines_left_out:
        said.append(f"{many(made.lines_left_out, 'curve')} with the smallest shares not drawn")
    if made.inside:
        said.append(f"{many(made.inside, 'link')} within a mark not drawn")
    return said


def further(made: Chart) -> str:
    """Return `drawn_as` as the end of an alternative text."""
    said = drawn_as(made)
    return f" {'; '.join(said)[:1].upper()}{'; '.join(said)[1:]}." if said else ""


def line_words(line: Line, made: Chart, names: Mapping[str, str] = MappingProxyType({"": ""})) -> str:
    """Return what is read at a line; `names` says whose numbers they are: end of the attribute -> words."""
    ends = []
    for name in (line.source, line.target):
        item = made.items[name]
        column = made.columns[item.column].name
        ends.append(name if item.counts is None else f"weaker of {column}" if item.kind == REST else column)
    said = [" → ".join(ends)]
    if line.count > 1:
        said.append(f"{line.count:,} links, {line.kind}")
    for end, whose in names.items():
        if f"weight{end}" in line.weights:
            other = line.weights.get(f"weight_other{end}")
            beside = "" if other is None else f" (on other pictures {other:+.3g})"
            said.append(f"{whose}effect {line.weights[f'weight{end}']:+.3g}{beside}")
    said.append(f"{percent(line.share)} of the input")
    return "<br>".join(html.escape(part, quote=False) for part in said)


def unit_words(name: str, item: Item, made: Chart, kinds: Mapping[str, str], names: Mapping[str, str]) -> str:
    """Return what is read at a mark: the unit's numbers, or how many units of each kind stand there."""
    column = made.columns[item.column]
    if item.counts is not None:
        layers = f" in {len(column.layers)} layers" if len(column.layers) > 1 else ""
        said = [f"{'weaker units of ' if item.kind == REST else ''}{column.name}"]
        said.append(f"{column.kept:,} of {column.units:,} units kept{layers}")
        said += [f"{number:,} {kinds[kind]}" for kind, number in item.counts.items()]
        return "<br>".join(html.escape(part, quote=False) for part in said)
    said = [name]
    for end, whose in names.items():
        for key, words in _FACTS.items():
            value, other = (item.facts.get(f"{key}{part}{end}") for part in ("", "_other"))
            if value is not None and (item.kind != END or key == "incoming"):
                beside = "" if other is None else f" (on other pictures {other:.3g})"
                said.append(f"{whose}{words} {value:.3g}{beside}")
        tasks = item.facts.get(f"tasks{end}")
        if item.kind != END and tasks is not None:
            said.append(f"{whose}kept by {many(int(tasks), 'task')}")
    return "<br>".join(html.escape(part, quote=False) for part in said)


def show_breaks(figure: go.Figure, made: Chart, breaks: Breaks) -> None:
    """Mark the layers without a kept unit, upright so that neighbouring ones do not meet."""
    for at, column in enumerate(made.columns):
        if column.kept or not set(column.layers) & set(breaks.empty):
            continue
        cut = not set(column.layers) <= set(breaks.passed)
        figure.add_vrect(x0=at - 0.3, x1=at + 0.3, fillcolor="#D55E00", opacity=0.12, line_width=0)
        figure.add_annotation(
            x=at, y=0, textangle=-90, showarrow=False, font={"size": 13, "color": "#A13F00"},
            bgcolor="rgba(255,255,255,0.8)",
            text="no kept unit: the flow is cut here" if cut else "no kept unit; links pass by",
        )  # fmt: skip
