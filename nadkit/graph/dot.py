"""Graphs as text in the DOT language, for Graphviz and others that read it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import networkx as nx

from nadkit.graph.cutting import INPUT, LOGIT


def text(graph: nx.DiGraph) -> str:
    """Return a digraph, one rank a layer; links are as wide as their share, and dashed if they inhibit.

    Examples
    --------
    >>> graph = nx.DiGraph(task="bag", network="net", layers=["a"])
    >>> graph.add_node("a/1", layer="a", exclusive=True, response=2.0)
    >>> print(text(graph))
    digraph "bag in net" {
      rankdir=LR;
      node [fontname="sans-serif"];
      { rank=same; "a/1" [shape=diamond]; }
    }
    """
    return "\n".join(_lines(graph))


def _lines(graph: nx.DiGraph) -> Iterator[str]:
    facts = graph.graph
    title = quoted(f"{facts['task']} in {facts['network']}")
    yield f"digraph {title} {{"
    yield "  rankdir=LR;"
    yield '  node [fontname="sans-serif"];'
    ranks: dict[str, list[str]] = {layer: [] for layer in (INPUT, *facts["layers"], LOGIT)}
    for name, unit in graph.nodes(data=True):
        shape = "box" if unit["layer"] in (INPUT, LOGIT) else "diamond" if unit["exclusive"] else "ellipse"
        ranks[unit["layer"]].append(f"{quoted(name)} [shape={shape}];")
    for marks in ranks.values():
        if marks:
            yield f"  {{ rank=same; {' '.join(marks)} }}"
    for source, target, link in graph.edges(data=True):
        style = "solid" if link["sign"] > 0 else "dashed"
        label = quoted(f"{link['weight']:.3g}")
        yield (
            f"  {quoted(source)} -> {quoted(target)} "
            f"[penwidth={0.3 + 5 * link['share']:.2f}, style={style}, label={label}];"
        )
    yield "}"


def quoted(name: str) -> str:
    r"""Return a name as a quoted DOT identifier.

    Examples
    --------
    >>> print(quoted('a "b"\\'))
    "a \"b\"\\"
    """
    return '"' + re.sub(r'(["\\])', r"\\\1", name).replace("\n", "\\n") + '"'
