"""`verify`: what links cost when they are ablated, the strongest beside random ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import networkx as nx
import torch
from torch import Tensor

from nadkit.errors import NadkitError
from nadkit.graph.architecture import Origin
from nadkit.graph.building import shares
from nadkit.graph.checks import checked
from nadkit.graph.cutting import INPUT, LOGIT
from nadkit.graph.effects import effects, portions, total, units_of
from nadkit.graph.pictures import check_count, check_types, own_rows
from nadkit.graph.runs import Clean, Link, Place, all_at_once, one_by_one
from nadkit.networks import log_odds
from nadkit.taps import frozen

if TYPE_CHECKING:
    import pandas as pd

_TOP = 5


class _Tested(NamedTuple):
    """A link that is ablated, with what the graph says of it."""

    kind: str
    link: Link
    weight: float
    share: float
    strength: float


def verify(graph: nx.DiGraph, origin: Origin, *, links: int, pictures: int | None, seed: int) -> pd.DataFrame:
    """Return the table of `SubArchitecture.verify`."""
    import pandas as pd

    check_types("verify", *origin)
    check_count("links", links)
    check_count("seed", seed, 0)
    if pictures is not None:
        check_count("pictures", pictures)
    facts = checked(graph, "this graph").graph
    network, masks, images = origin
    _check(graph, origin)
    task, logit = facts["task"], network.class_index(facts["task"])
    count = facts["own_pictures"] if pictures is None else pictures
    with torch.inference_mode(False), frozen(network.model):
        inputs = network.prepare(images.pixels[own_rows(images, task, count, facts["seed"])])
        gates = masks.gates(task, facts["threshold"])
        strongest = _strongest(graph, links, logit)
        drawn = _random(graph, origin, gates, inputs, [one.link for one in strongest], logit, seed)
        clean = Clean.of(network, gates, inputs)
        whole = _odds(clean.logits, logit)
        rows: list[dict[str, object]] = []
        for kind, tested in (("strongest", strongest), ("random", drawn)):
            if not tested:
                continue
            ablated = [one.link for one in tested]
            for one, found in zip(tested, one_by_one(clean, ablated), strict=True):
                rows.append(_row(task, one, whole - _odds(found, logit)))
            together = all_at_once(clean, ablated)
            rows.append(_row_of_all(task, kind, whole - _odds(together, logit)))
    table = pd.DataFrame(rows)
    table.attrs["answer"] = verified(table)
    return table


def _check(graph: nx.DiGraph, origin: Origin) -> None:
    """Refuse a network or masks that the graph was not read from."""
    network, masks, _ = origin
    masks.check(network)
    facts = graph.graph
    units = {name: layer.units for name, layer in network.layers.items()}
    if (network.name, network.weights_id, units) != (facts["network"], facts["weights_id"], facts["units"]):
        raise NadkitError(
            f"this graph is of {facts['network']} with weights {facts['weights_id']}, and the network given "
            f"is {network!r}; give the one that it was extracted from"
        )
    gates = masks.gates(facts["task"], facts["threshold"])
    kept = {f"{name}/{index}" for name, gate in gates.items() for index in gate.nonzero().flatten().tolist()}
    mine = {name for name, values in graph.nodes(data=True) if values["index"] >= 0}
    if kept != mine:
        raise NadkitError(
            f"this graph is not of these masks: {len(kept - mine)} units are kept in the masks only and "
            f"{len(mine - kept)} in the graph only; give the masks it was extracted with"
        )


def _place(graph: nx.DiGraph, name: str, logit: int) -> Place:
    facts = graph.nodes[name]
    return Place(facts["layer"], logit if facts["layer"] == LOGIT else facts["index"])


def _strongest(graph: nx.DiGraph, count: int, logit: int) -> list[_Tested]:
    found = [
        _Tested(
            "strongest",
            Link(_place(graph, source, logit), _place(graph, target, logit)),
            facts["weight"], facts["share"], graph.nodes[target]["carried"] * facts["share"],
        )
        for source, target, facts in graph.edges(data=True)
        if source != INPUT
    ]  # fmt: skip
    found = sorted((one for one in found if one.strength > 0), key=lambda one: -one.strength)
    if not found:
        raise NadkitError(
            f"the graph of {graph.graph['task']!r} has no link between units that carries anything to the "
            "logit, so there is nothing to verify; extract it with more pictures, or more kept units"
        )
    return found[:count]


def _random(
    graph: nx.DiGraph, origin: Origin, gates: Mapping[str, Tensor], inputs: Tensor,
    strongest: Sequence[Link], logit: int, seed: int,
) -> list[_Tested]:  # fmt: skip
    """Return as many other links as there are strongest into each layer, with weights on the inputs."""
    network = origin.network
    kept = units_of(gates, logit)
    ends = {_place(graph, name, logit): name for name in graph}
    wanted = {layer: sum(link.target.layer == layer for link in strongest) for layer in kept}
    generator = torch.Generator().manual_seed(seed)
    mean = torch.full((1, len(inputs)), 1 / len(inputs), dtype=torch.float64)
    # Weights of every pair that could be drawn: those into the layers of the strongest links.
    targets = [name for name in kept if wanted[name]]
    found = total(
        effects(network, inputs[part], mean[:, part], gates, kept, targets=targets)
        for part in portions(inputs)
    )
    drawn: list[_Tested] = []
    for layer, count in wanted.items():
        if not count:
            continue
        sources = found.weights[layer]
        pairs = [
            Place(source, -1 if source == INPUT else unit) for source in sources for unit in kept[source]
        ]
        weights = torch.cat([rows[0] for rows in sources.values()], dim=1)
        _, share = shares(weights)
        taken = set(strongest)
        free = [
            (row, column)
            for row, unit in enumerate(kept[layer])
            for column, source in enumerate(pairs)
            # Units of layers that are connected need not be: in a sum each reaches its namesake alone.
            if source.layer != INPUT
            and weights[row, column] != 0
            and Link(source, Place(layer, unit)) not in taken
        ]
        for pick in torch.randperm(len(free), generator=generator)[:count].tolist():
            row, column = free[pick]
            target = Place(layer, kept[layer][row])
            link = Link(pairs[column], target)
            values = graph.get_edge_data(ends[link.source], ends[target]) or {}
            weight = values.get("weight", float(weights[row, column]))
            part = values.get("share", float(share[row, column]))
            carried = graph.nodes[ends[target]]["carried"]
            drawn.append(_Tested("random", link, weight, part, carried * part))
    return drawn


def _odds(logits: Tensor, logit: int) -> Tensor:
    return log_odds(logits.double())[:, logit].cpu()


def _interval(loss: Tensor) -> dict[str, object]:
    mean, count = float(loss.mean()), len(loss)
    half = 1.96 * float(loss.std()) / math.sqrt(count) if count > 1 else math.nan
    return {"loss": mean, "low": mean - half, "high": mean + half, "n": count}


def _row(task: str, tested: _Tested, loss: Tensor) -> dict[str, object]:
    def name(place: Place) -> str:
        if place.layer == LOGIT:
            return f"{LOGIT}:{task}"
        return INPUT if place.layer == INPUT else f"{place.layer}/{place.unit}"

    source, target = tested.link
    return {
        "task": task, "kind": tested.kind, "source": name(source), "target": name(target),
        "layer": target.layer, "weight": tested.weight, "share": tested.share, "strength": tested.strength,
        **_interval(loss),
    }  # fmt: skip


def _row_of_all(task: str, kind: str, loss: Tensor) -> dict[str, object]:
    return {
        "task": task, "kind": kind, "source": "all", "target": "all", "layer": "all", "weight": math.nan,
        "share": math.nan, "strength": math.nan, **_interval(loss),
    }  # fmt: skip


def verified(table: pd.DataFrame) -> str:
    """Return what a table of `verify` says, in one sentence.

    Examples
    --------
    >>> import pandas as pd
    >>> columns = ["task", "kind", "source", "strength", "loss"]
    >>> rows = [("bag", "strongest", "a/0", 0.5, 2.0), ("bag", "random", "a/1", 0.0, 0.1),
    ...         ("bag", "strongest", "all", None, 3.0), ("bag", "random", "all", None, 0.2)]
    >>> print(verified(pd.DataFrame(rows, columns=columns)))
    bag: the 1 strongest links cost 2.00 of log-odds on average, 1 random ones into the same layers 0.10;
    all at once 3.00 and 0.20; too few links for a rank agreement.

    Parameters
    ----------
    table
        It may have been saved and read again.

    Notes
    -----
    **Source** The interval of Spearman's ρ is Bonett and Wright's, "Sample size requirements for estimating
    Pearson, Kendall and Spearman correlations", 2000: tanh(artanh ρ ± 1.96 √((1 + ρ² / 2) / (n − 3))).
    """
    single = table[table["source"] != "all"]
    kinds = ("strongest", "random")
    counts = [int((single["kind"] == kind).sum()) for kind in kinds]
    each = [_mean(single[single["kind"] == kind]) for kind in kinds]
    together = [_mean(table[(table["source"] == "all") & (table["kind"] == kind)]) for kind in kinds]
    said = (
        f"the {counts[0]} strongest links cost {each[0]} of log-odds on average, {counts[1]} random ones "
        f"into the same layers {each[1]}; all at once {together[0]} and {together[1]}"
    )
    return f"{table['task'].iloc[0]}: {said}; {_agreement(single)}."


def _mean(rows: pd.DataFrame) -> str:
    return f"{rows['loss'].mean():.2f}" if len(rows) else "(none)"


def _agreement(rows: pd.DataFrame) -> str:
    from scipy.stats import spearmanr

    strength, loss = rows["strength"].to_numpy(float), rows["loss"].abs().to_numpy(float)
    count = len(rows)
    if count < 4 or len(set(strength)) < 2 or len(set(loss)) < 2:
        return "too few links for a rank agreement"
    rho = float(spearmanr(strength, loss).statistic)
    # At ±1 the transform has no value; the interval ends just there.
    at = math.atanh(max(-1 + 1e-9, min(1 - 1e-9, rho)))
    half = 1.96 * math.sqrt((1 + rho**2 / 2) / (count - 3))
    low, high = math.tanh(at - half), math.tanh(at + half)
    top = min(_TOP, count)
    both = len(set(strength.argsort()[-top:]) & set(loss.argsort()[-top:]))
    return (
        f"ranks of strength and of loss agree by Spearman's ρ = {rho:.2f} [{low:.2f}, {high:.2f}], and "
        f"of the {top} links that cost most {both} are among the {top} strongest"
    )
