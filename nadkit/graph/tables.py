"""Graphs as tables, one row a unit or a link, and back."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import networkx as nx

from nadkit.errors import NadkitError
from nadkit.graph.checks import EDGE, NODE, checked

if TYPE_CHECKING:
    import pandas as pd


def units(graph: nx.DiGraph) -> pd.DataFrame:
    """Return one row a unit: `unit` and its attributes.

    Examples
    --------
    >>> graph = nx.DiGraph()
    >>> graph.add_node("conv/1", layer="conv", index=1)
    >>> units(graph).values.tolist()
    [['conv/1', 'conv', 1]]
    """
    import pandas as pd

    return pd.DataFrame([{"unit": name, **facts} for name, facts in graph.nodes(data=True)])


def links(graph: nx.DiGraph) -> pd.DataFrame:
    """Return one row a link: `source`, `target`, their layers, its attributes; `attrs["graph"]` says whose.

    Examples
    --------
    >>> graph = nx.DiGraph()
    >>> graph.add_node("a/1", layer="a")
    >>> graph.add_node("b/0", layer="b")
    >>> graph.add_edge("a/1", "b/0", weight=2.0)
    >>> links(graph).values.tolist()
    [['a/1', 'b/0', 'a', 'b', 2.0]]
    """
    import pandas as pd

    layer = dict(graph.nodes(data="layer"))
    columns = ["source", "target", "source_layer", "target_layer"]
    rows = [
        {**dict(zip(columns, (source, target, layer[source], layer[target]), strict=True)), **facts}
        for source, target, facts in graph.edges(data=True)
    ]
    table = pd.DataFrame(rows, columns=None if rows else [*columns, *EDGE])
    table.attrs["graph"] = dict(graph.graph)
    return table


def from_frames(
    given_units: pd.DataFrame, given_links: pd.DataFrame, facts: Mapping[str, Any] | None
) -> nx.DiGraph:
    """Return the graph of two tables.

    Raises
    ------
    NadkitError
        A column is missing or holds something else, or the graph is none of `extract`.
    """
    facts = getattr(given_links, "attrs", {}).get("graph") if facts is None else facts
    if not isinstance(facts, Mapping):
        raise NadkitError(
            "these tables do not say which graph they are of, as attrs get lost in files; "
            "give facts=arch.graph.graph"
        )
    graph = nx.DiGraph()
    graph.graph.update(copy.deepcopy(dict(facts)))
    for name, *values in _rows(given_units, ["unit"], NODE, "units"):
        if name in graph:
            raise NadkitError(f"the table of units has {name!r} twice; give one row a unit")
        graph.add_node(name, **dict(zip(NODE, values, strict=True)))
    for source, target, *values in _rows(given_links, ["source", "target"], EDGE, "links"):
        for end in (source, target):
            if end not in graph:
                raise NadkitError(f"the table of links has {end!r}, which the table of units does not")
        if graph.has_edge(source, target):
            raise NadkitError(f"the table of links has {source!r} to {target!r} twice; give one row a link")
        graph.add_edge(source, target, **dict(zip(EDGE, values, strict=True)))
    return checked(graph, "the table's graph")


def _rows(
    table: pd.DataFrame, keys: Sequence[str], types: Mapping[str, type], what: str
) -> list[tuple[Any, ...]]:
    """Return the rows as plain Python values of these types."""
    columns = list(getattr(table, "columns", ()))
    if missing := [name for name in (*keys, *types) if name not in columns]:
        raise NadkitError(f"the table of {what} has no column {missing[0]}; give arch.{what}")
    if twice := [name for name in (*keys, *types) if columns.count(name) > 1]:
        raise NadkitError(f"the table of {what} has {twice[0]} more than once; give arch.{what}")
    wanted = {**dict.fromkeys(keys, str), **types}
    return list(zip(*(_plain(table[name], name, kind, what) for name, kind in wanted.items()), strict=True))


def _plain(column: pd.Series[Any], name: str, kind: type, what: str) -> list[Any]:
    values = column.tolist()
    wrong = NadkitError(f"the column {name} of the table of {what} holds what is no {kind.__name__}")
    try:
        made = [kind(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        raise wrong from None
    # bool("False") is true, and int(1.5) is 1.
    if kind is not float and any(one != value for one, value in zip(made, values, strict=True)):
        raise wrong
    return made
