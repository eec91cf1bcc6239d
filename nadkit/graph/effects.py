"""Direct effects: what each kept unit takes in from each kept unit that feeds it, on some pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from nadkit.graph.cutting import INPUT, LOGIT, Cut, cut, totals
from nadkit.networks import Network

ROOM = 64
"""Pictures in one backward pass. More at once, of several units or tasks, were slower on a CPU: their values
no longer fit its cache."""
_VALUES = 400_000
"""Numbers in the pictures of one pass, so that large pictures do not fill the memory."""


class Response(NamedTuple):
    """What units give, mean over pictures, each (n_sides, n_units) float64: summed and averaged over positions."""

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
    """Return the direct effects on units in the gated network; call it within `frozen(network.model)`.

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
    **Source** weight(c → d) = mean over pictures of Σ_positions a_c · ∂(Σ_positions z_d) / ∂a_c, with what all
    tapped layers give made leaves (DESIGN, "Links without kernels"). One backward pass for each unit d, all
    pictures together; each runs through what lies between d's layer and those that feed it, and no farther.
    """
    weights: dict[str, dict[str, Tensor]] = {}
    responses: dict[str, Response] = {}
    size = max(1, min(ROOM, _VALUES // inputs[0].numel()))
    sides = sides.to(inputs.device, torch.float64)
    for start in range(0, len(inputs), size):
        part, counts = inputs[start : start + size], sides[:, start : start + size]
        with alone or nullcontext():
            made = cut(network, part, gates)
        for name in units:
            there = _response(made, name, units[name], counts)
            before = responses.get(name)
            responses[name] = there if before is None else Response(*map(torch.add, before, there))
            if name == INPUT or (targets is not None and name not in targets):
                continue
            found = weights.setdefault(name, {})
            for source, rows in _of_layer(made, name, units, counts).items():
                found[source] = found[source] + rows if source in found else rows
            advance(len(units[name]) * len(part))
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
            rows.setdefault(source, []).append(counts @ each[:, units[source]].double())
        asked.zero_()
    return {source: torch.stack(parts, dim=1).cpu() for source, parts in rows.items()}


def _response(made: Cut, name: str, units: Sequence[int], counts: Tensor) -> Response:
    values = (made.leaves if name == INPUT else made.outputs)[name].detach()
    each = totals(values, None if name == INPUT else made.axes.get(name, 1))
    total = (counts @ each[:, units].double()).cpu()
    return Response(total, total * each.numel() / values.numel())
