"""What layers give in one forward pass, and the spread of every unit, which many passes add up to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from nadkit.measures.hits import unit_weights
from nadkit.networks import Network
from nadkit.taps import Taps, frozen


class Recording(NamedTuple):
    """One forward pass.

    Attributes
    ----------
    logits : (n, n_classes)
    activations : address → what the layer gave, after its gate
    """

    logits: Tensor
    activations: dict[str, Tensor]


def record(
    network: Network, pixels: Tensor, gates: Mapping[str, Tensor] | None = None, rows: Tensor | None = None
) -> Recording:
    """Run a network once, gated or not, and return what all its layers give; without gradients.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 2))
    >>> network = Network.wrap(model, ["a", "b"], example=torch.zeros(1, 2, 1, 1), layers=["1"])
    >>> seen = record(network, torch.ones(3, 2, 1, 1), {"1": torch.tensor([1.0, 0.0])})
    >>> seen.activations["1"][:, 1].abs().tolist()
    [0.0, 0.0, 0.0]

    Parameters
    ----------
    network : its modes and gradient flags come back
    pixels : (n, C, H, W)
    gates, rows : as `Taps` takes them; None for the whole network

    Raises
    ------
    ImageError
        Pictures that the network cannot take.
    LayerError
        A gate of no layer, or one that does not fit.
    """
    with frozen(network.model), torch.no_grad(), Taps(network, gates=gates, rows=rows) as taps:
        logits = network.logits(network.prepare(pixels))
    return Recording(logits, taps.activations)


class Moments(NamedTuple):
    """Of so many values: mean and summed squared deviations of a layer's units, (n_units,) float64."""

    number: int
    mean: Tensor
    squares: Tensor


def add_moments(so_far: dict[str, Moments], network: Network, activations: Mapping[str, Tensor]) -> None:
    """Add what layers gave to the moments so far, in place; over pictures and positions (Chan's update)."""
    for address, layer in network.layers.items():
        units = activations[address].movedim(layer.axis, 0).flatten(1)
        so_far[address] = _merged(so_far.get(address), units)


def weights_of(moments: Mapping[str, Moments]) -> dict[str, Tensor]:
    """Return by address one over the variance of each unit, as `unit_weights` does."""
    return {address: unit_weights(mean, squares / n) for address, (n, mean, squares) in moments.items()}


def _merged(so_far: Moments | None, units: Tensor) -> Moments:
    variance, mean = torch.var_mean(units.double(), dim=1, correction=0)
    count, squares = units.shape[1], variance * units.shape[1]
    if so_far is None:
        return Moments(count, mean, squares)
    before, old, summed = so_far
    both, apart = before + count, mean - old
    mean = old + apart * count / both
    return Moments(both, mean, summed + squares + apart.square() * before * count / both)
