"""Two sub-architectures overlaid: what is in both, and what in one only."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nadkit.errors import NadkitError
from nadkit.figures._arcs import clipped
from nadkit.figures._columns import Reading, chart, checked
from nadkit.figures._drawn import Look, drawn
from nadkit.figures._marks import MARKS
from nadkit.figures._told import breaks_of, drawn_as, further, line_words, many, show_breaks, unit_words

if TYPE_CHECKING:
    import plotly.graph_objects as go

_WHERE = ("first", "both", "second")
_READING = Reading(
    "difference", _WHERE, _WHERE, lambda facts: str(facts["where"]), lambda facts: str(facts["where"]),
    ("_first", "_second"),
)  # fmt: skip


def difference(graph: Any, *, open: str | Sequence[str] | None = None) -> go.Figure:
    """Return two sub-architectures overlaid: units and links of the first only, of both, of the second only.

    In every column the first one's own units stand above, the second one's below, those of both between. A
    curve is as wide as the link's share of its receiving unit's input, of both the larger one.

    Examples
    --------
    >>> import networkx as nx
    >>> graph = nx.DiGraph(kind="difference", network="net", first="bag", second="coat", layers=["a"],
    ...                    units={"a": 4})
    >>> for index, where in enumerate(("both", "first", "first")):
    ...     graph.add_node(f"a/{index}", layer="a", index=index, where=where)
    >>> print(difference(graph).layout.meta["alt"])
    bag and coat in net overlaid, layers as columns from the input to the logits. Units: 1 in both, 2 in bag
    only, 0 in coat only. Links: 0 in both, 0 in bag only, 0 in coat only. Units by layer (both, bag only,
    coat only): a 1, 2, 0. No chain of links leads from the input to the logit.

    Parameters
    ----------
    graph
        As `nk.graph.diff` returns it: of two tasks, two seeds, or a picture's true and predicted class.
    open
        Layers whose units are drawn one by one, as in `flow`.

    Returns
    -------
    plotly.graph_objects.Figure
        At most 32 traces. Colour and shape say where a unit is, colour and dash where a link is; the
        counts are in the legend.

    Raises
    ------
    NadkitError
        No graph of `nk.graph.diff`; `LayerError` for a layer to open that is not there or is empty.
    """
    graph = checked(graph, "difference", difference=True)
    for what, facts in (*graph.nodes(data=True), *((f"{a} → {b}", f) for a, b, f in graph.edges(data=True))):
        if facts.get("where") not in _WHERE:
            raise NadkitError(
                f"{what} is in {facts.get('where')!r}; in a graph of nk.graph.diff it is in one of "
                f"{', '.join(_WHERE)}"
            )
    made = chart(graph, _READING, open)
    first, second, network = (str(graph.graph[name]) for name in ("first", "second", "network"))
    words = {"first": f"{first} only", "both": "both", "second": f"{second} only"}
    units = Counter(facts["where"] for _, facts in graph.nodes(data=True) if _is_unit(facts))
    links = Counter(facts["where"] for _, _, facts in graph.edges(data=True))
    breaks = breaks_of(graph)
    said = f"{network}: {first} and {second} share {units['both']:,} of {many(units.total(), 'kept unit')} "
    said += f"and {links['both']:,} of {many(links.total(), 'link')}"
    order = ("both", "first", "second")
    alt = f"{first} and {second} in {network} overlaid, layers as columns from the input to the logits."
    for what, counts in (("Units", units), ("Links", links)):
        told = (f"{counts[kind]:,} in {words[kind]}" for kind in order)
        alt += f" {what}: {', '.join(told)}."
    alt += f" Units by layer (both, {first} only, {second} only): {_by_layer(graph, order)}."
    alt += f" {breaks.long}" if breaks.long else ""
    names = {"_first": f"{first}: ", "_second": f"{second}: "}
    figure = drawn(
        made, _look(words, units, links), said, "; ".join(drawn_as(made)), alt + further(made), grouped=True,
        unit_words=lambda name, item: unit_words(name, item, made, words, names),
        line_words=lambda line: line_words(line, made, names),
    )  # fmt: skip
    show_breaks(figure, made, breaks)
    return figure


def _is_unit(facts: dict[str, Any]) -> bool:
    return facts["layer"] not in ("input", "logit")


def _look(words: dict[str, str], units: Counter[str], links: Counter[str]) -> Look:
    """Marks and lines, with their numbers in the legend."""
    named = {
        kind: html.escape(clipped(text.removesuffix(" only"), 16), quote=False) + " only" * (kind != "both")
        for kind, text in words.items()
    }
    marks = {
        "first": MARKS["kept"]._replace(symbol="circle"),
        "both": MARKS["shared"]._replace(symbol="square"),
        "second": MARKS["removed"]._replace(symbol="diamond"),
    }
    dashes = {"first": "6px,2px", "both": "solid", "second": "2px,2px"}
    return Look(
        {kind: (f"units, {named[kind]}: {units[kind]:,}", marks[kind]) for kind in _WHERE},
        {
            kind: (f"links, {named[kind]}: {links[kind]:,}", marks[kind].colour, dashes[kind])
            for kind in _WHERE
        },
        {"first": "/", "both": "", "second": "x"},
    )


def _by_layer(graph: Any, order: Sequence[str]) -> str:
    layers = list(graph.graph["layers"])
    counts = {name: Counter[str]() for name in layers}
    for _, facts in graph.nodes(data=True):
        if _is_unit(facts):
            counts[facts["layer"]][facts["where"]] += 1
    told = [f"{name} {', '.join(str(counts[name][kind]) for kind in order)}" for name in layers]
    return "; ".join(told if len(told) <= 20 else [*told[:10], "…", *told[-10:]])
