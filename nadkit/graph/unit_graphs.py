"""`UnitGraph`: what a sub-architecture and a difference of two have in common."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import networkx as nx

from nadkit.errors import LayerError, closest
from nadkit.graph import tables
from nadkit.graph.cutting import LOGIT
from nadkit.masks import Unit

if TYPE_CHECKING:
    import pandas as pd


def table_html(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an HTML table of texts.

    Examples
    --------
    >>> table_html("units", ["layer"], [["<a>"]])
    '<table><caption>units</caption><tr><th>layer</th></tr><tr><td>&lt;a&gt;</td></tr></table>'
    """
    lines = [("th", heads), *(("td", row) for row in rows)]
    body = "".join(
        "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
        for tag, cells in lines
    )
    return f"<table><caption>{html.escape(caption)}</caption>{body}</table>"


@dataclass(frozen=True, eq=False, repr=False)
class UnitGraph:
    """A graph of units with its tables.

    Attributes
    ----------
    graph : nodes are units, edges links
    """

    graph: nx.DiGraph

    @property
    def network(self) -> str:
        """The name of the network."""
        return str(self.graph.graph["network"])

    @property
    def layers(self) -> tuple[str, ...]:
        """The addresses of the network's layers, in forward order."""
        return tuple(self.graph.graph["layers"])

    @property
    def units(self) -> pd.DataFrame:
        """One row a unit, ends included: `unit`, and the node's attributes as columns."""
        return tables.units(self.graph)

    @property
    def links(self) -> pd.DataFrame:
        """One row a link: `source`, `target`, their layers, and the edge's attributes as columns."""
        return tables.links(self.graph)

    def links_of(self, unit: str | Unit) -> pd.DataFrame:
        """Return the links into and out of a unit, as rows of `links`.

        Parameters
        ----------
        unit
            `layer/index`, or an end: `input`, `logit:<task>`.

        Raises
        ------
        LayerError
            There is no such unit in the graph; the message says whether the network has it.
        """
        name = str(unit)
        if name not in self.graph:
            raise LayerError(f"no unit {name!r} in this graph: {self._why_not(name)}")
        around = {name, *self.graph.predecessors(name), *self.graph.successors(name)}
        table = tables.links(self.graph.subgraph(around))
        return table[(table["source"] == name) | (table["target"] == name)].reset_index(drop=True)

    def _why_not(self, name: str) -> str:
        counts = self.graph.graph["units"]
        layer, _, index = name.rpartition("/")
        if name.startswith(f"{LOGIT}:") or not layer:
            ends = [node for node, facts in self.graph.nodes(data=True) if facts["index"] < 0]
            return f"units are written layer/index, and the ends are {', '.join(ends)}"
        if layer not in counts:
            return f"{self.network} has no layer {layer!r}; {closest(layer, counts)}"
        there = [node for node, facts in self.graph.nodes(data=True) if facts["layer"] == layer]
        if not index.isdecimal() or int(index) >= counts[layer]:
            return f"{layer} has units 0 to {counts[layer] - 1}; of those kept {closest('', there)}"
        return f"it is not kept; of {layer} {closest('', there)}"
