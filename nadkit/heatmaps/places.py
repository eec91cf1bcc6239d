"""Modules of our own on a network's tapped places, for captum to hook.

captum hooks modules. A module that runs twice in a forward would overwrite what it recorded, and an in-place
consumer would change it. So each tapped output passes, during a forward, through a module made for that
address alone, and hooks of captum never touch the network's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from nadkit.networks import Network, log_odds
from nadkit.taps import Taps


class Place(nn.Module):
    """What one tapped output passes through: a copy of it.

    Examples
    --------
    >>> Place()(torch.ones(2))
    tensor([1., 1.])
    """

    def forward(self, output: Tensor) -> Tensor:
        """Return a copy."""
        return output.clone()


def answers(network: Network, places: Mapping[str, Place]) -> Callable[[Tensor], Tensor]:
    """Return a function from inputs to log-odds (N, n_classes), whose tapped outputs pass through the places.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    >>> network = Network.wrap(model, ["a", "b"], example=torch.zeros(1, 1, 1, 2), layers=["1"])
    >>> place = Place()
    >>> handle = place.register_forward_hook(lambda module, args, output: output * 0)
    >>> answers(network, {"1": place})(torch.ones(1, 1, 1, 2)).abs().tolist()
    [[0.0, 0.0]]

    Parameters
    ----------
    network : hooks lie on its modules during the function's calls only
    places : by address of the network's layers; the others are left alone
    """

    def forward(inputs: Tensor) -> Tensor:
        with Taps(network, (), edits=places):
            return log_odds(network.logits(inputs))

    return forward


def connected(network: Network, inputs: Tensor) -> Sequence[str]:
    """Return the addresses of the layers from which a gradient reaches the logits, in forward order.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    >>> network = Network.wrap(model, ["a", "b"], example=torch.zeros(1, 1, 1, 2), layers=["1"])
    >>> connected(network, torch.ones(1, 1, 1, 2))
    ['1']

    Parameters
    ----------
    network : frozen
    inputs : one picture or more, prepared

    Raises
    ------
    LayerError
        A layer cannot be tapped as it is named; `Taps` says why.
    """
    gates = {
        address: torch.ones(layer.units, device=inputs.device, requires_grad=True)
        for address, layer in network.layers.items()
    }
    with torch.enable_grad(), Taps(network, (), gates=gates):
        out = network.logits(inputs).sum()
    if not out.requires_grad:
        return []
    found = torch.autograd.grad(out, list(gates.values()), allow_unused=True)
    return [address for address, gradient in zip(gates, found, strict=True) if gradient is not None]
