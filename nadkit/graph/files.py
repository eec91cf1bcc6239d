"""Graph files: GraphML and node-link JSON, written at once and checked when read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import networkx as nx

from nadkit.errors import NadkitError
from nadkit.graph import graphml
from nadkit.graph.checks import checked
from nadkit.masks.files import write as write_at_once

MOST_BYTES = 300_000_000
"""A larger file is refused before it is read; one with all the links that a graph may have has a third."""


def save(graph: nx.DiGraph, path: str | os.PathLike[str]) -> Path:
    """Write a graph in the format of the path's suffix: a reader sees all of it, or the file of before.

    Raises
    ------
    NadkitError
        No such format, a graph that `extract` could not have made; `MaskFileError`, as of every file
        that nadkit writes, for a place that cannot be written to.
    """
    write, _ = _format(path)
    data = write(checked(graph, "this graph"))
    return write_at_once(path, data, "the graph")


def load(path: str | os.PathLike[str]) -> nx.DiGraph:
    """Return the graph of a file.

    Raises
    ------
    NadkitError
        The file is missing, too large, damaged, or no graph of `extract`.
    """
    _, read = _format(path)
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MOST_BYTES:
                _refuse(path, f"it has {size:,} bytes, and at most {MOST_BYTES:,} are read")
            data = file.read()
    except (OSError, ValueError) as error:
        _refuse(path, f"it cannot be read ({error})", "check the path")
    try:
        graph = read(data)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, nx.NetworkXException) as error:
        _refuse(path, f"it is no graph, or damaged ({str(error)[:200]})")
    return checked(graph, f"graph file {str(path)!r}")


def _format(
    path: str | os.PathLike[str],
) -> tuple[Callable[[nx.DiGraph], bytes], Callable[[bytes], nx.DiGraph]]:
    try:
        suffix = Path(path).suffix.lower()
    except TypeError:
        raise NadkitError(f"{path!r} is no path; give the path of a .graphml or .json file") from None
    if suffix == ".graphml":
        return graphml.write, graphml.read
    if suffix == ".json":
        return _write_json, _read_json
    raise NadkitError(
        f"graphs are saved as .graphml or .json, not {suffix or 'without a suffix'} ({str(path)!r}); "
        "arch.links is a table, arch.to_dot() text for Graphviz"
    )


def _write_json(graph: nx.DiGraph) -> bytes:
    # node_link_data keeps the attributes' own dictionaries, so that nothing is copied but the list of links.
    data = nx.node_link_data(graph, edges="links")
    return json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")


def _read_json(data: bytes) -> nx.DiGraph:
    given: Any = json.loads(data)
    if (
        not isinstance(given, dict)
        or given.get("directed") is not True
        or given.get("multigraph") is not False
    ):
        raise ValueError("no directed graph in node-link form")
    if not isinstance(given.get("graph"), dict):
        raise ValueError("its attributes are no dictionary")
    for key in ("nodes", "links"):
        if not isinstance(given.get(key), list) or not all(isinstance(one, dict) for one in given[key]):
            raise ValueError(f"its {key} are no list")
    graph: nx.DiGraph = nx.node_link_graph(given, edges="links")
    if graph.number_of_nodes() != len(given["nodes"]) or graph.number_of_edges() != len(given["links"]):
        raise ValueError("a unit or a link comes twice, or a link has no unit at its end")
    return graph


def _refuse(
    path: object, reason: str, advice: str = "take an undamaged copy, or extract it again"
) -> NoReturn:
    raise NadkitError(f"graph file {str(path)!r} is refused: {reason}; {advice}")
