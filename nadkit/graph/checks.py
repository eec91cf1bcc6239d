"""Whether a graph is one of `extract`: every attribute there, of its type, finite, and ids that fit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import networkx as nx

from nadkit.errors import NadkitError
from nadkit.graph.building import FORMAT, MOST_LINKS, MOST_UNITS
from nadkit.graph.cutting import INPUT, LOGIT

GRAPH: Mapping[str, type] = {
    "format": int, "network": str, "weights_id": str, "task": str, "threshold": float, "links_per_unit": int,
    "least_share": float, "layers": list, "units": dict, "empty": list, "own_pictures": int,
    "other_pictures": int, "seed": int, "mask_seed": int,
}  # fmt: skip
OPTIONAL = frozenset({"least_share", "mask_seed"})
NODE: Mapping[str, type] = {
    "layer": str, "index": int, "score": float, "activation": float, "activation_other": float,
    "response": float, "response_other": float, "incoming": float, "incoming_other": float,
    "residual": float, "residual_other": float, "carried": float, "exclusive": bool, "tasks": int,
}  # fmt: skip
EDGE: Mapping[str, type] = {
    "weight": float, "weight_other": float, "share": float, "share_other": float, "sign": int,
}  # fmt: skip


def checked(graph: nx.DiGraph, what: str) -> nx.DiGraph:
    """Return the graph, refusing one that `extract` could not have made.

    Parameters
    ----------
    graph : with plain Python values
    what : how the error names it

    Raises
    ------
    NadkitError
        With the first reason.
    """

    def refuse(reason: str) -> NoReturn:
        raise NadkitError(f"{what} is refused: {reason}; a graph of nk.extract is needed")

    facts = graph.graph
    if not isinstance(facts.get("format"), int) or isinstance(facts.get("format"), bool):
        refuse("it does not say its format, so nk.extract did not make it")
    if facts["format"] != FORMAT:
        refuse(f"its format is {facts['format']} and this nadkit reads {FORMAT}")
    if facts.get("kind") is not None:
        refuse(f"it is a {facts['kind']!r}, not one task's sub-architecture")
    if reason := _reason(facts, GRAPH, OPTIONAL):
        refuse(reason)
    layers, units = facts["layers"], facts["units"]
    if not all(isinstance(name, str) and name for name in layers) or len(set(layers)) < len(layers):
        refuse("its layers are no list of distinct names")
    if list(units) != layers or not all(type(count) is int and count > 0 for count in units.values()):
        refuse("its units are no whole number for each of its layers")
    if graph.number_of_nodes() > MOST_UNITS + 2 or graph.number_of_edges() > MOST_LINKS:
        refuse(
            f"it has {graph.number_of_nodes():,} units and {graph.number_of_edges():,} links, and at most "
            f"{MOST_UNITS:,} and {MOST_LINKS:,} are read"
        )
    place = {name: at for at, name in enumerate((INPUT, *layers, LOGIT))}
    for name, values in graph.nodes(data=True):
        if reason := _reason(values, NODE):
            refuse(f"unit {name!r}: {reason}")
        layer, index = values["layer"], values["index"]
        end = {INPUT: INPUT, LOGIT: f"{LOGIT}:{facts['task']}"}.get(layer)
        if layer not in place or (index != -1 if end else not 0 <= index < units[layer]):
            refuse(f"unit {name!r} is said to be unit {index} of layer {layer!r}")
        if not 0 <= values["carried"] <= 1:
            refuse(f"unit {name!r} carries {values['carried']}, which is no part of 1")
        if name != (end or f"{layer}/{index}"):
            refuse(f"unit {name!r} should be {end or f'{layer}/{index}'!r}")
    for end in (INPUT, f"{LOGIT}:{facts['task']}"):
        if end not in graph:
            refuse(f"it has no {end!r}")
    there = {layer for _, layer in graph.nodes(data="layer")}
    if facts["empty"] != [name for name in layers if name not in there]:
        refuse(f"it names {facts['empty']} as layers without a unit")
    for source, target, values in graph.edges(data=True):
        if reason := _reason(values, EDGE):
            refuse(f"link {source!r} to {target!r}: {reason}")
        if place[graph.nodes[source]["layer"]] >= place[graph.nodes[target]["layer"]]:
            refuse(f"link {source!r} to {target!r} leads backwards")
        if (
            values["sign"] not in (1, -1)
            or not 0 <= values["share"] <= 1
            or not 0 <= values["share_other"] <= 1
        ):
            refuse(f"link {source!r} to {target!r} has a sign other than 1 and -1, or a share outside [0, 1]")
    return graph


def _reason(values: Mapping[str, Any], types: Mapping[str, type], optional: Iterable[str] = ()) -> str:
    """Return why values are not of these types, empty if they are."""
    for name, kind in types.items():
        if name not in values:
            if name in optional:
                continue
            return f"it lacks {name!r}"
        value = values[name]
        # bool is an int, and an int would come back from a file as another type than it went in.
        if type(value) is not kind:
            return f"its {name} is {value!r}, not {'a whole number' if kind is int else f'a {kind.__name__}'}"
        if isinstance(value, float) and not math.isfinite(value):
            return f"its {name} is {value}"
    if extra := [name for name in values if name not in types]:
        return f"it has {extra[0]!r}, which nadkit does not write"
    return ""
