"""The flow of one task through a network, and the network's layers, as columns from left to right."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nadkit.errors import NadkitError
from nadkit.figures._columns import END, Chart, Column, Item, Line, Reading, chart, checked
from nadkit.figures._drawn import Look, drawn
from nadkit.figures._marks import MARKS
from nadkit.figures._told import (
    breaks_of,
    chain_of,
    drawn_as,
    further,
    line_words,
    many,
    percent,
    show_breaks,
    told_chain,
    told_layers,
    unit_words,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go

_READING = Reading(
    "flow",
    ("shared", "exclusive"),
    ("positive", "negative"),
    lambda facts: "exclusive" if facts.get("exclusive") else "shared",
    lambda facts: "positive" if facts.get("sign", 1) > 0 else "negative",
)
_LOOK = Look(
    {
        "shared": ("kept by other tasks too", MARKS["shared"]._replace(symbol="circle")),
        "exclusive": ("kept by this task alone", MARKS["kept"]._replace(symbol="diamond")),
    },
    {
        "positive": ("adds to the receiving unit", "#595959", "solid"),
        "negative": ("takes from the receiving unit", MARKS["removed"].colour, "6px,3px"),
    },
    {"shared": "", "exclusive": "/"},
)
_LAYERS = Look(
    {"layer": ("layer", MARKS["kept"])},
    {
        "next": ("feeds the next layer", "#595959", "solid"),
        "skip": ("feeds a later layer", MARKS["removed"].colour, "6px,3px"),
    },
    {},
    ends="input and output",
)
_TOLD = 20
"""Skips that are named in the alternative text."""


def flow(arch: Any, *, open: str | Sequence[str] | None = None) -> go.Figure:
    """Return one task's sub-architecture as a figure: layers as columns, units as dots, links as curves.

    A curve is as wide as the link's share of what its receiving unit takes in; curves that skip layers pass
    above or below them. A graph of more than 700 units, 3,000 links or 60 layers is drawn by layer: a bar as
    long as the layer has kept units, a curve for all links of one sign; with more than 60 layers by block,
    the address without its last parts.

    Examples
    --------
    >>> import networkx as nx
    >>> graph = nx.DiGraph(network="net", task="bag", layers=["conv"], units={"conv": 4})
    >>> graph.add_node("input", layer="input", index=-1, response=1, incoming=0)
    >>> graph.add_node("conv/2", layer="conv", index=2, response=3, incoming=3, exclusive=True)
    >>> graph.add_node("logit:bag", layer="logit", index=-1, response=5, incoming=5)
    >>> graph.add_edge("input", "conv/2", weight=3, share=1, sign=1)
    >>> graph.add_edge("conv/2", "logit:bag", weight=4, share=0.8, sign=1)
    >>> print(flow(graph).layout.meta["alt"])
    Flow of bag through net, layers as columns from the input to the logit: 1 kept unit (conv 1 of 4), 1 of
    them kept by no other task; 2 links, 2 that add and 0 that take away. Strongest chain, from the logit
    back, with each link's share of the input: logit:bag, 80 % from conv/2, 100 % from input.

    Parameters
    ----------
    arch
        As `nk.extract` returns it, or its graph.
    open
        Layers whose units are drawn one by one, at most 100 of each (the largest responses; the others are
        one mark) and about 700 in all; the other layers are bars. None opens all layers of a small graph and
        none of a large one; `[]` opens none.

    Returns
    -------
    plotly.graph_objects.Figure
        At most 25 traces, whatever the number of links. The title says what was put together or left out.

    Raises
    ------
    NadkitError
        No graph of one task; `LayerError` for a layer that is not there (the closest are named) or is empty.

    Notes
    -----
    The strongest chain follows from the logit back always the link with the largest share. It is not the
    `widest_path` of `nk.graph.flow`, whose weakest link carries as much of the logit's input as can be.
    """
    graph = checked(arch, "flow", difference=False)
    made = chart(graph, _READING, open)
    task, network = str(graph.graph["task"]), str(graph.graph["network"])
    steps = chain_of(graph)
    breaks = breaks_of(graph)
    links = graph.number_of_edges()
    added = sum(facts.get("sign", 1) > 0 for _, _, facts in graph.edges(data=True))
    own = sum(bool(facts.get("exclusive")) for _, facts in graph.nodes(data=True) if facts["index"] >= 0)
    kept = sum(column.kept for column in made.columns[1:-1])
    said = f"{network}, {task}: {many(kept, 'kept unit')} ({own:,} by this task alone), {many(links, 'link')}"
    if breaks.short:
        said += f"; {breaks.short}"
    elif len(steps) > 1:
        said += f"; the logit's strongest link, {percent(steps[1][1])} of its input, is from {steps[1][0]}"
    size = "dot: mean response, as a share of its layer's largest"
    below = "; ".join([*drawn_as(made), *([size] if any(c.opened for c in made.columns[1:-1]) else ())])
    alt = (
        f"Flow of {task} through {network}, layers as columns from the input to the logit: "
        f"{many(kept, 'kept unit')} ({told_layers(graph)}), {own:,} of them kept by no other "
        f"task; {many(links, 'link')}, {added:,} that add and {links - added:,} that take away. "
    )
    if len(steps) > 1:
        alt += "Strongest chain, from the logit back, with each link's share of the input: "
        alt += f"{told_chain(steps)}."
    alt += f" {breaks.long}" if breaks.long else ""
    words = {kind: name for kind, (name, _) in _LOOK.units.items()}
    figure = drawn(
        made, _LOOK, said, below, alt.strip() + further(made),
        unit_words=lambda name, item: unit_words(name, item, made, words, {"": ""}),
        line_words=lambda line: line_words(line, made),
        chain=[made.home[name] for name, _ in reversed(steps)],
    )  # fmt: skip
    show_breaks(figure, made, breaks)
    return figure


def layers(graph: Any) -> go.Figure:
    """Return the layers of a network and which feeds which: columns with a dot each, skips as arcs.

    Examples
    --------
    >>> import networkx as nx
    >>> graph = nx.DiGraph([("input", "a"), ("a", "b"), ("input", "b"), ("b", "output")], layers=["a", "b"])
    >>> print(layers(graph).layout.meta["alt"])
    2 layers in forward order, input to output, and which feeds which: 4 links, 1 of them past at least one
    layer. Skips: input to b.

    Parameters
    ----------
    graph
        As `nk.layer_graph` returns it.

    Returns
    -------
    plotly.graph_objects.Figure

    Raises
    ------
    NadkitError
        No such graph.
    """
    import networkx as nx

    if (
        not isinstance(graph, nx.DiGraph)
        or "layers" not in graph.graph
        or {"task", "kind"} & set(graph.graph)
    ):
        raise NadkitError(
            f"figures.layers draws the graph of nk.layer_graph; this is {_kind(graph)}; "
            "figures.flow draws a sub-architecture"
        )
    names = ["input", *map(str, graph.graph["layers"]), "output"]
    strange = [name for name in graph if name not in names]
    if strange:
        raise NadkitError(f"layer {strange[0]!r} is in the graph, but not in its list of layers")
    place = {name: at for at, name in enumerate(names)}
    units = graph.graph.get("units", {})
    items = {
        name: Item(at, END if name in ("input", "output") else "layer", facts={"units": units.get(name)})
        for name, at in place.items()
    }
    lines = tuple(
        Line(one, other, "next" if abs(place[one] - place[other]) == 1 else "skip", 1.0, 1)
        for one, other in graph.edges()
    )
    columns = tuple(Column(name, (name,), 1, 0, True) for name in names)
    skips = [line for line in lines if line.kind == "skip"]
    alone = [name for name in names[1:-1] if not graph.has_node(name) or not graph.degree(name)]
    made = Chart(columns, items, lines, {name: name for name in names}, 0, 0, 0, False)
    first = ", ".join(f"{line.source} to {line.target}" for line in skips[:_TOLD])
    alt = (
        f"{many(len(names) - 2, 'layer')} in forward order, input to output, and which feeds which: "
        f"{many(len(lines), 'link')}, {len(skips)} of them past at least one layer."
    )
    alt += f" Skips: {first}{', …' if len(skips) > _TOLD else ''}." if skips else ""
    alt += f" Without links: {', '.join(alone)}." if alone else ""
    network = graph.graph.get("network")
    said = f"{f'{network}: ' if network else ''}{many(len(names) - 2, 'layer')}, {many(len(lines), 'link')}, "
    said += f"{len(skips)} of them past at least one layer"
    return drawn(
        made, _LAYERS, said, "a curve leads from a layer to one that takes in its output", alt,
        widths=False, inner=280,
        unit_words=lambda name, item: html.escape(name, quote=False)
        + (f"<br>{item.facts['units']} units" if item.facts["units"] else ""),
        line_words=lambda line: html.escape(f"{line.source} → {line.target}", quote=False),
    )  # fmt: skip


def _kind(value: Any) -> str:
    facts = getattr(value, "graph", {})
    units = isinstance(facts, dict) and {"task", "kind"} & set(facts)
    return "one of units" if units else type(value).__name__
