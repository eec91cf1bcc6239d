"""Direct effects: what each kept unit takes in from each kept unit that feeds it, on some pictures."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from nadkit.graph.cutting import INPUT, LOGIT, Cut, cut, totals
from nadkit.networks import Network

ROOM = 64
"""Pictures in one backward pass. More at once, of several units or tasks, were slower on a CPU, whose cache
they no longer fit."""
_VALUES = 400_000
"""Numbers in the pictures of one pass, so that large pictures do not fill the memory."""


class Response(NamedTuple):
    """What units give, mean over pictures: summed over positions, and averaged over them.

    Both are (n_sides, n_units) float64.
    """

    total: Tensor
    activation: Tensor


class Effects(NamedTuple):
    """The direct effects in one gated network.

    Attributes
    ----------
    weights : target layer → source layer → (n_sides, kept units of the target, kept units of the source)
        float64; sources that do not feed the target are not in it
    responses : layer → its kept units' responses
    """

    weights: dict[str, dict[str, Tensor]]
    responses: dict[str, Response]


def total(parts: Iterable[Effects]) -> Effects:
    """Return the effects on all pictures, of those on some each."""

    def both(one: Effects, other: Effects) -> Effects:
        weights = {
            target: {source: rows + other.weights[target][source] for source, rows in sources.items()}
            for target, sources in one.weights.items()
        }
        responses = {
            layer: Response(mine.total + theirs.total, mine.activation + theirs.activation)
            for (layer, mine), theirs in zip(one.responses.items(), other.responses.values(), strict=True)
        }
        return Effects(weights, responses)

    return functools.reduce(both, parts)


def portions(inputs: Tensor, least: int = 1) -> list[slice]:
    """Return which pictures go through together: as many as there is room for, in at least so many parts.

    Examples
    --------
    >>> portions(torch.zeros(100, 1, 28, 28)), portions(torch.zeros(8, 1, 28, 28), 2)
    ([slice(0, 64, None), slice(64, 128, None)], [slice(0, 4, None), slice(4, 8, None)])
    """
    room = min(ROOM, _VALUES // inputs[0].numel(), math.ceil(len(inputs) / least))
    return [slice(start, start + max(1, room)) for start in range(0, len(inputs), max(1, room))]


def units_of(gates: Mapping[str, Tensor], logit: int) -> dict[str, list[int]]:
    """Return the kept units of every layer, and of the ends the picture as one and the task's logit.

    Examples
    --------
    >>> units_of({"conv": torch.tensor([0.0, 1.0, 1.0])}, 7)
    {'input': [0], 'conv': [1, 2], 'logit': [7]}
    """
    kept = {address: gate.nonzero().flatten().tolist() for address, gate in gates.items()}
    return {INPUT: [0], **kept, LOGIT: [logit]}


def effects(
    network: Network,
    inputs: Tensor,
    sides: Tensor,
    gates: Mapping[str, Tensor],
    units: Mapping[str, Sequence[int]],
    *,
    targets: Sequence[str] | None = None,
    alone: AbstractContextManager[object] | None = None,
    advance: Callable[[int], object] = lambda _: None,
) -> Effects:
    """Return the direct effects in the gated network, all pictures at once; call it within `frozen`.

    Examples
    --------
    >>> from nadkit.taps import frozen
    >>> import nadkit as nk
    >>> network = nk.load_network("vgg-fashion")
    >>> gates = {address: torch.ones(layer.units) for address, layer in network.layers.items()}
    >>> inputs = network.prepare(nk.load_images("fashion", per_class=1).pixels)
    >>> with frozen(network.model):
    ...     found = effects(network, inputs, torch.ones(1, 10) / 10, gates, units_of(gates, 7))
    >>> {source: tuple(weights.shape) for source, weights in found.weights["stage1.1"].items()}
    {'stage1.0': (1, 20, 16)}

    Parameters
    ----------
    network : its layers are the graph's
    inputs : (N, C, H, W), prepared
    sides : (n_sides, N), how much every picture counts on each side
    gates : address → (n_units,)
    units : `input`, addresses and `logit` → the units that take part
    targets : the layers whose weights are wanted; None for all
    alone : is entered for the forward pass, which two threads must not run at once on one model
    advance : called with the number of units and pictures done, as a product

    Notes
    -----
    **Source** weight(c → d) = mean over pictures of Σ_positions a_c · ∂(Σ_positions z_d) / ∂a_c, with what
    all layers give made leaves. One backward pass for each unit d, all
    pictures together; it runs through what lies between d's layer and those that feed it, and no farther.
    """
    with alone or nullcontext():
        made = cut(network, inputs, gates)
    sides = sides.double()
    weights: dict[str, dict[str, Tensor]] = {}
    responses: dict[str, Response] = {}
    for name in units:
        responses[name] = _response(made, name, units[name], sides)
        if name != INPUT and (targets is None or name in targets):
            weights[name] = _of_layer(made, name, units, sides)
            advance(len(units[name]) * len(inputs))
    return Effects(weights, responses)


def _of_layer(
    made: Cut, target: str, units: Mapping[str, Sequence[int]], counts: Tensor
) -> dict[str, Tensor]:
    """Return source → (n_sides, units of the target, units of the source)."""
    output = made.outputs[target]
    axis = made.axes.get(target, 1)
    direction = torch.zeros_like(output)
    rows: dict[str, list[Tensor]] = {}
    for unit in units[target]:
        asked = direction.select(axis, unit).fill_(1)
        for source, gradient in made.gradients(target, direction).items():
            each = totals(made.leaves[source].detach() * gradient, made.axes.get(source))
            rows.setdefault(source, []).append(counts @ each[:, units[source]].cpu().double())
        asked.zero_()
    return {source: torch.stack(parts, dim=1) for source, parts in rows.items()}


def _response(made: Cut, name: str, units: Sequence[int], counts: Tensor) -> Response:
    values = (made.leaves if name == INPUT else made.outputs)[name].detach()
    each = totals(values, None if name == INPUT else made.axes.get(name, 1))
    total = counts @ each[:, units].cpu().double()
    return Response(total, total * each.numel() / values.numel())
