"""What a network answers, gated or not: logits for many tasks in one pass, and log-odds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nadkit.errors import NadkitError
from nadkit.networks.network import Network
from nadkit.taps import Taps, frozen

MOST = 500
"""Pictures in one forward pass, at most."""

_NUMBERS = 3_072_000  # in them, such as those of 1,000 pictures of 32 × 32


def at_once(shape: Sequence[int], most: int) -> int:
    """Return how many pictures go through a network together: fewer than `most` if they are large.

    500 photographs at once would take many gigabytes within a network.

    Examples
    --------
    >>> at_once((1, 28, 28), 200), at_once((3, 224, 224), 200)
    (200, 20)

    Parameters
    ----------
    shape : of one picture, (C, H, W)
    most : the number for small pictures, at least 1
    """
    return max(1, min(most, _NUMBERS // max(1, math.prod(shape))))


def _parts(inputs: Tensor, batch_size: int) -> tuple[Tensor, ...]:
    parts: tuple[Tensor, ...] = inputs.split(at_once(inputs.shape[1:], batch_size))
    return parts


def log_odds(logits: Tensor) -> Tensor:
    """Return log p_k / (1 − p_k) of the softmax for every class k.

    Parameters
    ----------
    logits : (..., n_classes), at least two classes

    Returns
    -------
    Tensor
        (..., n_classes); logit k minus the log-sum-exp of the other logits.

    Examples
    --------
    >>> log_odds(torch.tensor([0.0, 0.0, 0.0])).exp()
    tensor([0.5000, 0.5000, 0.5000])
    """
    return logits - log_rest(logits)


def log_rest(logits: Tensor) -> Tensor:
    """Return, for every class, the log-sum-exp of the logits of all other classes, (..., n_classes).

    Examples
    --------
    >>> log_rest(torch.tensor([5.0, 0.0, 0.0]))
    tensor([0.6931, 5.0067, 5.0067])

    Parameters
    ----------
    logits : (..., n_classes), finite, at least two classes
    """
    top = logits.argmax(-1, keepdim=True)
    shifted = logits - logits.gather(-1, top)
    weights = shifted.exp()
    # Taking one exponential from the sum is exact enough unless it is the largest; that one gets its own sum.
    is_top = torch.zeros_like(weights, dtype=torch.bool).scatter(-1, top, True)
    rest = (weights.sum(-1, keepdim=True) - weights).masked_fill(is_top, 1.0).log()
    of_top = logits.masked_fill(is_top, -torch.inf).logsumexp(-1, keepdim=True)
    return torch.where(is_top, of_top, rest + logits.gather(-1, top))


def whole_logits(network: Network, inputs: Tensor, *, batch_size: int = MOST) -> Tensor:
    """Return the whole network's logits (N, n_classes) for prepared inputs, without gradients.

    Examples
    --------
    >>> import nadkit as nk
    >>> network = nk.load_network("vgg-fashion")
    >>> whole_logits(network, network.prepare(torch.zeros(3, 1, 28, 28))).shape
    torch.Size([3, 10])

    Parameters
    ----------
    network : the network; its modes and gradient flags come back
    inputs : (N, C, H, W), made by `network.prepare`
    batch_size : pictures per forward pass, at most; of large pictures, as many as hold 3 million numbers
    """
    with frozen(network.model), torch.no_grad():
        return torch.cat([network.logits(part) for part in _parts(inputs, batch_size)])


def gated_logits(
    network: Network, inputs: Tensor, gates: Mapping[str, Tensor], *, batch_size: int = MOST
) -> Tensor:
    """Return the logits of the network gated to each of several tasks in turn.

    Parameters
    ----------
    network : the network
    inputs : (N, C, H, W), made by `network.prepare`
    gates : address → (n_tasks, n_units), at least one layer; 1 keeps, 0 removes
    batch_size : pictures per forward pass, at most; of large pictures, as many as hold 3 million numbers

    Returns
    -------
    Tensor
        (n_tasks, N, n_classes), without gradients.

    Raises
    ------
    LayerError
        A layer is not there, or a gate does not fit it.
    NadkitError
        No gates, or gates that do not have one row a task, as many for every layer.

    Examples
    --------
    >>> import nadkit as nk
    >>> network = nk.load_network("vgg-fashion")
    >>> inputs = network.prepare(nk.load_images("fashion", split="test", per_class=1).pixels)
    >>> gates = {address: torch.ones(2, layer.units) for address, layer in network.layers.items()}
    >>> bool((gated_logits(network, inputs, gates)[0] == whole_logits(network, inputs)).all())
    True
    """
    shapes = {tuple(gate.shape[:-1]) for gate in gates.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        given = ", ".join(f"{a}: {tuple(g.shape)}" for a, g in gates.items())
        raise NadkitError(
            f"gates need one row a task, as many for every layer (n_tasks, n_units), got {given or 'none'}; "
            "masks.gates() gives those of all tasks"
        )
    ((n_tasks,),) = shapes
    out = []
    with frozen(network.model), torch.no_grad():
        for task in range(n_tasks):
            with Taps(network, (), gates={a: g[task] for a, g in gates.items()}):
                out.append(torch.cat([network.logits(part) for part in _parts(inputs, batch_size)]))
    return torch.stack(out)
