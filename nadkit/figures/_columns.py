"""A graph of units as marks in columns: which units are one mark, which links are one line."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nadkit.errors import LayerError, NadkitError, closest

if TYPE_CHECKING:
    import networkx as nx

MOST_UNITS = 700
"""Units that are drawn one by one; of a graph with more, layers are drawn."""

MOST_LINKS = 3000
"""Lines that are drawn: of a graph with more links layers are drawn, of more lines the widest."""

MOST_COLUMNS = 60
"""Columns of layers; of a network with more layers, blocks are drawn."""

MOST_OPEN = 100
"""Units that are drawn of one opened layer: those with the largest response."""

_FEWEST_BLOCKS = 4

END = "end"
REST = "rest"
GROUP = "group"


@dataclass(frozen=True)
class Reading:
    """How the attributes of a kind of graph are read.

    `units` and `links` are the kinds that there are, upper ones first; `suffixes` end the attributes' names:
    one for a graph of one task, two for a difference.
    """

    verb: str
    units: tuple[str, ...]
    links: tuple[str, ...]
    unit_kind: Callable[[dict[str, Any]], str]
    link_kind: Callable[[dict[str, Any]], str]
    suffixes: tuple[str, ...] = ("",)


@dataclass(frozen=True)
class Column:
    """One column: a layer, a block of layers, or an end of the graph."""

    name: str
    layers: tuple[str, ...]
    kept: int
    units: int
    opened: bool


@dataclass
class Item:
    """One mark: a unit (`counts` is None), or units of a column by their kinds.

    `strength` is in [0, 1], the response as a share of its column's largest.
    """

    column: int
    kind: str
    strength: float = 1.0
    counts: dict[str, int] | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class Line:
    """One line between two marks: a link, or all links of one kind between them.

    `share` is the part of all input of the receiving mark's units that the links bring.
    """

    source: str
    target: str
    kind: str
    share: float = 0.0
    count: int = 0
    weights: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Chart:
    """What is drawn: columns, marks by name, lines, and what is not drawn."""

    columns: tuple[Column, ...]
    items: dict[str, Item]
    lines: tuple[Line, ...]
    home: dict[str, str]
    lines_left_out: int
    inside: int
    merged: int
    blocks: bool


def checked(value: Any, verb: str, *, difference: bool) -> nx.DiGraph:
    """Return the graph of `value`, refusing what is not of nk.extract or, for a difference, nk.graph.diff."""
    import networkx as nx

    wanted = "the graph of nk.graph.diff" if difference else "what nk.extract returns, or its graph"
    graph = value if isinstance(value, nx.Graph) else getattr(value, "graph", None)
    if not isinstance(graph, nx.DiGraph) or graph.is_multigraph():
        raise NadkitError(f"figures.{verb} draws {wanted}; this is {type(value).__name__}")
    there = graph.graph
    if difference != (there.get("kind") == "difference"):
        other = "one task; figures.flow draws it" if difference else "two; figures.difference draws it"
        raise NadkitError(f"figures.{verb} draws {wanted}; this graph is of {other}")
    needed = ("network", "layers", "units", *(("first", "second") if difference else ("task",)))
    missing = [name for name in needed if name not in there]
    if missing:
        raise NadkitError(f"figures.{verb} draws {wanted}; this graph does not say its {', '.join(missing)}")
    known = {"input", "logit", *there["layers"]}
    for name, facts in graph.nodes(data=True):
        if facts.get("layer") not in known:
            raise NadkitError(
                f"unit {name!r} is of layer {facts.get('layer')!r}, which is none of the graph's; "
                f"{closest(str(facts.get('layer')), there['layers'])}"
            )
        if not isinstance(facts.get("index"), int):
            raise NadkitError(f"unit {name!r} has index {facts.get('index')!r}; it is a whole number")
    return graph


def chart(graph: nx.DiGraph, reading: Reading, asked: Sequence[str] | None) -> Chart:
    """Return the marks and lines of a graph: units one by one while there are few, else layers or blocks."""
    layers = [str(name) for name in graph.graph["layers"]]
    members: dict[str, list[str]] = {name: [] for name in ("input", *layers, "logit")}
    for name, facts in graph.nodes(data=True):
        members[facts["layer"]].append(name)
    opened, alone = _opened(graph, layers, members, asked)
    runs = runs_of(layers, alone, MOST_COLUMNS)
    items: dict[str, Item] = {}
    home: dict[str, str] = {}
    columns = []
    total = sum(len(members[name]) for name in opened)
    most = MOST_OPEN if total <= MOST_UNITS else max(1, min(MOST_OPEN, MOST_UNITS // len(opened)))
    merged = 0
    for at, (name, run) in enumerate([("input", ("input",)), *runs, ("logit", ("logit",))]):
        mine = [unit for layer in run for unit in members[layer]]
        end = at in (0, len(runs) + 1)
        units = len(mine) if end else sum(int(graph.graph["units"].get(layer, 0)) for layer in run)
        single = end or run[0] in opened
        columns.append(Column(name, run, len(mine), units, single))
        size = {unit: _response(graph.nodes[unit], reading) for unit in mine}
        strongest = sorted(mine, key=lambda unit: -size[unit])[: most if not end else None] if single else []
        largest = max((size[unit] for unit in strongest), default=0.0)
        shown = set(strongest)
        for unit in (name for name in mine if name in shown):
            kind = END if end else reading.unit_kind(graph.nodes[unit])
            strength = size[unit] / largest if largest > 0 else 1.0
            items[unit] = Item(at, kind, 1.0 if end else strength, facts=dict(graph.nodes[unit]))
            home[unit] = unit
        others = [unit for unit in mine if unit not in home]
        if others:
            key = f"{at}:{name}"  # no unit has such a name: those of units are layer/index
            counts = dict.fromkeys(reading.units, 0)
            for unit in others:
                counts[reading.unit_kind(graph.nodes[unit])] += 1
                home[unit] = key
            items[key] = Item(at, REST if strongest else GROUP, counts=counts)
            merged += len(others) if strongest else 0
    found = _lines(graph, reading, home)
    lines = [line for line in found if line.source != line.target]
    inside = sum(line.count for line in found if line.source == line.target)
    left_out = max(0, len(lines) - MOST_LINKS)
    if left_out:
        lines = sorted(lines, key=lambda line: -line.share)[:MOST_LINKS]
    return Chart(tuple(columns), items, tuple(lines), home, left_out, inside, merged, len(runs) < len(layers))


def _opened(
    graph: nx.DiGraph, layers: Sequence[str], members: dict[str, list[str]], asked: Sequence[str] | None
) -> tuple[set[str], set[str]]:
    """Layers whose units are drawn, and layers with columns of their own; a block's name opens its layers."""
    if asked is None:
        small = len(graph) <= MOST_UNITS and graph.number_of_edges() <= MOST_LINKS
        found = set(layers) if small and len(layers) <= MOST_COLUMNS else set()
        return found, found
    blocks = {name: run for name, run in runs_of(layers, (), MOST_COLUMNS) if len(run) > 1}
    opened: set[str] = set()
    alone: set[str] = set()
    for name in [asked] if isinstance(asked, str) else asked:
        if name in blocks:
            alone.update(blocks[name])
        elif name not in layers:
            raise LayerError(
                f"no layer {name!r} to open in this graph; {closest(str(name), [*blocks, *layers])}"
            )
        elif not members[name]:
            raise LayerError(f"layer {name!r} keeps no unit in this graph, so there is nothing to open")
        else:
            opened.add(name)
    if len(opened | alone) > MOST_COLUMNS:
        raise NadkitError(
            f"{len(opened | alone)} layers to open; at most {MOST_COLUMNS} are readable: open fewer"
        )
    return opened, opened | alone


def runs_of(layers: Sequence[str], alone: Iterable[str], most: int) -> list[tuple[str, tuple[str, ...]]]:
    """Return names and layers of the columns: each layer one, or, of more than `most`, blocks of layers.

    A block is of consecutive layers; its name is the address without its last parts. Where addresses have no
    such parts, runs of equal length are taken. Layers in `alone` are never part of a run.

    Examples
    --------
    >>> runs_of(["stem", "a.0", "a.1", "b.0", "c.0"], ["a.1"], 4)[:3]
    [('stem', ('stem',)), ('a.0', ('a.0',)), ('a.1', ('a.1',))]
    """
    single = set(alone)
    if len(layers) <= most:
        return [(name, (name,)) for name in layers]
    deepest = max(name.count(".") for name in layers)
    for parts in range(deepest, 0, -1):
        found = _runs([".".join(name.split(".")[:parts]) for name in layers], layers, single)
        if _FEWEST_BLOCKS <= len(found) <= most + 2 * len(single):
            return found
    length = math.ceil(len(layers) / most)
    keys = [str(at // length) for at in range(len(layers))]
    found = _runs(keys, layers, single)
    return [(run[0] if len(run) == 1 else f"{run[0]} … {run[-1]}", run) for _, run in found]


def _runs(keys: Sequence[str], layers: Sequence[str], alone: set[str]) -> list[tuple[str, tuple[str, ...]]]:
    found: list[tuple[str, list[str]]] = []
    for key, layer in zip(keys, layers, strict=True):
        if layer in alone:
            found.append((layer, [layer]))
        elif found and found[-1][0] == key and found[-1][1][-1] not in alone:
            found[-1][1].append(layer)
        else:
            found.append((key, [layer]))
    return [(name if len(run) > 1 else run[0], tuple(run)) for name, run in found]


def _number(facts: dict[str, Any], name: str, what: str) -> float:
    value = facts.get(name)
    if value is None or not math.isfinite(float(value)):
        raise NadkitError(f"{what} has {name} {value!r}; a figure needs a number there, as nk.extract gives")
    return float(value)


def _response(facts: dict[str, Any], reading: Reading) -> float:
    return max(abs(float(facts.get(f"response{end}") or 0.0)) for end in reading.suffixes)


def _lines(graph: nx.DiGraph, reading: Reading, home: dict[str, str]) -> list[Line]:
    """All links as lines; the share is of what all units of the receiving mark take in."""
    incoming: dict[tuple[str, str], float] = {}
    for name, facts in graph.nodes(data=True):
        for end in reading.suffixes:
            if f"incoming{end}" in facts:
                there = (home[name], end)
                amount = _number(facts, f"incoming{end}", f"unit {name!r}")
                incoming[there] = incoming.get(there, 0.0) + amount
    lines: dict[tuple[str, str, str], Line] = {}
    amounts: dict[tuple[str, str, str, str], float] = {}
    for source, target, facts in graph.edges(data=True):
        what = f"link {source!r} to {target!r}"
        kind = reading.link_kind(facts)
        here = (home[source], home[target], kind)
        line = lines.setdefault(here, Line(*here))
        line.count += 1
        for end in reading.suffixes:
            if len(reading.suffixes) > 1 and kind not in ("both", end[1:]):
                continue
            for name in (f"weight{end}", f"weight_other{end}"):
                if name in facts or name == f"weight{end}":
                    line.weights[name] = line.weights.get(name, 0.0) + _number(facts, name, what)
            share = _number(facts, f"share{end}", what)
            taken = 1.0
            if home[target] != target:
                taken = _number(graph.nodes[target], f"incoming{end}", f"unit {target!r}")
            amounts[*here, end] = amounts.get((*here, end), 0.0) + share * taken
    for (source, target, kind, end), amount in amounts.items():
        whole = incoming.get((target, end), 0.0) if target not in graph else 1.0
        line = lines[source, target, kind]
        line.share = max(line.share, amount / whole if whole > 0 else 0.0)
    return list(lines.values())
