"""From direct effects to a graph: nodes, and the strongest links of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import networkx as nx
import torch
from torch import Tensor

from nadkit.errors import NadkitError
from nadkit.graph.cutting import INPUT, LOGIT
from nadkit.graph.effects import Effects
from nadkit.masks import MaskSet

FORMAT = 1
MOST_UNITS = 10_000
"""Kept units of one graph, the size up to which graphs are measured (tests/benchmarks/graphs.py)."""
MOST_LINKS = 200_000
"""Links of one graph."""


def build(
    found: Effects,
    units: Mapping[str, Sequence[int]],
    masks: MaskSet,
    facts: Mapping[str, object],
) -> nx.DiGraph:
    """Return the graph of one task.

    Parameters
    ----------
    found : of two sides, the task's own pictures and others
    units : `input`, addresses in forward order and `logit` → the units that take part
    masks : of all tasks, for scores and for who else keeps a unit
    facts : the graph's attributes; `task`, `threshold`, `links_per_unit` and `least_share` are read

    Raises
    ------
    NadkitError
        An effect is NaN or infinite.
    """
    graph = nx.DiGraph(**facts)
    task, threshold = str(facts["task"]), float(str(facts["threshold"]))
    at = masks.tasks.index(task)
    names = {layer: [_name(layer, index, task) for index in there] for layer, there in units.items()}
    links: list[tuple[str, str, dict[str, float | int]]] = []
    passing = carried(found)
    for layer, there in units.items():
        incoming, residual, chosen = _links(
            found, layer, [source for source in units if source in found.weights.get(layer, {})],
            int(str(facts["links_per_unit"])), float(str(facts["least_share"])),
        )  # fmt: skip
        total, activation = found.responses[layer]
        if layer in (INPUT, LOGIT):
            scores, tasks = [1.0], [len(masks.tasks) if layer == INPUT else 1]
        else:
            every = masks.scores[layer][:, list(there)]
            scores, tasks = every[at].tolist(), (every > threshold).sum(0).tolist()
        for place, name in enumerate(names[layer]):
            graph.add_node(
                name,
                layer=layer,
                index=-1 if layer in (INPUT, LOGIT) else there[place],
                score=scores[place],
                **_both("activation", activation, place),
                **_both("response", total, place),
                **_both("incoming", incoming, place),
                **_both("residual", residual, place),
                carried=min(1.0, float(passing[layer][place])),
                exclusive=tasks[place] == 1 and layer not in (INPUT, LOGIT),
                tasks=tasks[place],
            )
            links += [(names[source][unit], name, values) for source, unit, values in chosen[place]]
    graph.add_edges_from(links)
    return graph


def carried(found: Effects) -> dict[str, Tensor]:
    """Return which part of the logit's input passes through each unit, on the task's own pictures.

    The logit has 1. What a unit has it hands to all units that feed it, to each by its share, whether a graph
    lists the link or not; a unit that takes in nothing keeps it.

    Examples
    --------
    >>> from nadkit.graph.effects import Response
    >>> one, two = torch.zeros(1, 1), torch.zeros(1, 2)
    >>> responses = {name: Response(total, total) for name, total in
    ...              (("input", one), ("conv", two), ("logit", one))}
    >>> weights = {"conv": {"input": torch.tensor([[[2.0], [0.0]]])},
    ...            "logit": {"conv": torch.tensor([[[3.0, -1.0]]])}}
    >>> {layer: parts.tolist() for layer, parts in carried(Effects(weights, responses)).items()}
    {'input': [0.75], 'conv': [0.75, 0.25], 'logit': [1.0]}

    Parameters
    ----------
    found : the first side is the own pictures

    Returns
    -------
    dict
        layer → (n_units,) float64.
    """
    parts = {layer: torch.zeros(one.total.shape[1]).double() for layer, one in found.responses.items()}
    parts[LOGIT][:] = 1
    for target in reversed(parts):
        sources = found.weights.get(target, {})
        if not sources:
            continue
        _, share = shares(torch.cat([weights[0] for weights in sources.values()], dim=1))
        handed = parts[target] @ share.double()
        for source, part in zip(sources, handed.split([len(parts[one]) for one in sources]), strict=True):
            parts[source] += part
    return parts


def _name(layer: str, index: int, task: str) -> str:
    if layer == INPUT:
        return INPUT
    return f"{LOGIT}:{task}" if layer == LOGIT else f"{layer}/{index}"


def _both(name: str, values: Tensor, place: int) -> dict[str, float]:
    return {name: float(values[0, place]), f"{name}_other": float(values[1, place])}


_Chosen = list[tuple[str, int, dict[str, float | int]]]


def _links(
    found: Effects, layer: str, sources: Sequence[str], most: int, least: float
) -> tuple[Tensor, Tensor, list[_Chosen]]:
    """Return (2, n_units) incoming and residual, and each unit's links: (source, place there, values)."""
    total = found.responses[layer].total
    if not sources or not total.shape[1]:
        residual = torch.zeros_like(total) if layer == INPUT else total
        return torch.zeros_like(total), residual, [[] for _ in range(total.shape[1])]
    weights = torch.cat([found.weights[layer][source] for source in sources], dim=2)
    if not bool(torch.isfinite(weights).all()):
        raise NadkitError(
            f"direct effects on layer {layer!r} are NaN or infinite: something before it, such as a square "
            "root at 0, has no slope at the values of these pictures; tap another layer, or change that place"
        )
    ends = [(source, unit) for source in sources for unit in range(found.weights[layer][source].shape[2])]
    incoming, share = shares(weights)
    own = share[0] >= share[1]
    best = torch.where(own, share[0], share[1])
    # Stable, so that of equal links the earlier layer's comes first, whatever the machine.
    order = best.sort(dim=1, descending=True, stable=True).indices[:, :most]
    picked = {
        "best": best, "own": own, "weight": weights[0], "weight_other": weights[1], "share": share[0],
        "share_other": share[1],
    }  # fmt: skip
    columns = {name: values.gather(1, order).tolist() for name, values in picked.items()}
    chosen: list[_Chosen] = []
    for place, links in enumerate(order.tolist()):
        mine: _Chosen = []
        for rank, link in enumerate(links):
            values = {name: rows[place][rank] for name, rows in columns.items()}
            strongest, is_own = values.pop("best"), values.pop("own")
            if strongest <= 0 or strongest < least:
                break
            values["sign"] = 1 if values["weight" if is_own else "weight_other"] > 0 else -1
            mine.append((*ends[link], values))
        chosen.append(mine)
    return incoming, total - weights.sum(2), chosen


def shares(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return what units take in, and which share of it each link brings; 0 where they take in nothing.

    Examples
    --------
    >>> shares(torch.tensor([[3.0, -1.0], [0.0, 0.0]]))
    (tensor([4., 0.]), tensor([[0.7500, 0.2500],
            [0.0000, 0.0000]]))
    """
    incoming = weights.abs().sum(-1)
    whole = torch.where(incoming > 0, incoming, 1.0).unsqueeze(-1)
    return incoming, weights.abs() / whole
