"""How much each position of a layer matters to a task, picture by picture, in the network gated or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from nadkit.errors import LayerError, NadkitError, closest
from nadkit.heatmaps.attributions import BY_GRADIENT, STEPS, maps_by
from nadkit.heatmaps.methods import MAPPED, check_method
from nadkit.heatmaps.places import connected
from nadkit.images import Images
from nadkit.masks import MaskSet
from nadkit.networks import Network
from nadkit.networks.outputs import at_once
from nadkit.taps import Taps, frozen, maps_of

_BATCH = 256  # pictures in one forward pass


def heatmap(
    network: Network,
    images: Images,
    task: str,
    *,
    layer: str,
    masks: MaskSet | None = None,
    method: str = "gradient-x-activation",
    threshold: float = 0.5,
) -> Tensor:
    """Return how much each position of a layer matters to a task, picture by picture.

    Examples
    --------
    >>> last = torch.nn.Linear(4, 2, bias=False)
    >>> model = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Flatten(), last)
    >>> _ = last.weight.data.copy_(torch.tensor([[1.0, 2.0, 0.0, -1.0], [0.0, 0.0, 0.0, 0.0]]))
    >>> pixels = torch.ones(1, 1, 2, 2)
    >>> network = Network.wrap(model, ["a", "b"], example=pixels, layers=["0"])
    >>> images = Images(pixels, torch.tensor([1]), ("a", "b"))
    >>> heatmap(network, images, "a", layer="0").tolist()
    [[[1.0, 2.0], [0.0, -1.0]]]

    Parameters
    ----------
    network
        The trained network; it is frozen meanwhile and restored afterwards.
    images
        Pictures of any class, decoded batch by batch.
    task
        A class name of the network, and, with masks, one of their tasks.
    layer
        An address of the network's layers; the layer has rows and columns.
    masks
        Of this network. With them the network is gated to the units that the task keeps, and only these
        count; None for the whole network.
    method
        One of `nadkit.heatmaps.MAPPED`.
    threshold
        In [0, 1]; with masks, strictly above it is kept.

    Returns
    -------
    Tensor
        (n_images, h, w) float64 on the CPU, summed over units. On the scale of the task's log-odds, and
        signed, for gradient × activation and conductance; of squared activation for "activation", which does
        not hang on the task but through the masks. 0 where a layer keeps no unit.

    Raises
    ------
    ImageError
        Pictures that the network cannot take.
    LayerError
        There is no such layer, it has no rows and columns, or no gradient reaches the logits from it.
    MaskFileError
        The masks are for another network.
    NadkitError
        An unknown method or task, no pictures, a threshold that is none, attributions that are not finite.

    Notes
    -----
    The methods are those of `unit_attributions`, before it sums over positions: of the whole network, the sum
    over positions (for "activation" their mean) equals the sum of its numbers over the layer's units.
    "feature-ablation" and "magnitude" have no maps here: the first removes units as a whole, the second is
    near "activation". A position is a cell of the layer's grid, and what lies in it may come from pixels all
    over its receptive field. It may run in a thread of its own, while no other thread runs the same model.
    """
    check_method(method, MAPPED)
    if not isinstance(images, Images):
        raise NadkitError(
            f"heatmap needs images, and got {type(images).__name__}; images[:1] is one picture of them"
        )
    index = network.class_index(task)
    if layer not in network.layers:
        raise LayerError(f"no layer {layer!r} in {network.name}; {closest(str(layer), network.layers)}")
    # Open gates change no number, but keep in-place consumers of other layers from spoiling gradients.
    gates: Mapping[str, Tensor] = {address: torch.ones(one.units) for address, one in network.layers.items()}
    if masks is not None:
        masks.check(network)
        gates = masks.gates(task, threshold)
    found, stepwise = [], method == "integrated-gradients"
    with torch.inference_mode(False), torch.no_grad(), frozen(network.model):
        _check(network, network.prepare(images.pixels[:1]), layer, method)
        size = at_once(network.input_shape, _BATCH if stepwise else 64)
        for pixels, _ in images.batches(max(1, size // (STEPS + 1 if stepwise else 1))):
            found.append(_maps(network, network.prepare(pixels), index, layer, method, gates))
    values = torch.cat(found)
    if not bool(torch.isfinite(values).all()):
        bad = int((~values.isfinite()).flatten(1).any(1).nonzero()[0])
        raise NadkitError(
            f"{method} of {network.name} is NaN or infinite at {layer!r} for picture {bad}; "
            "check the network's weights"
        )
    return values


def _check(network: Network, inputs: Tensor, layer: str, method: str) -> None:
    """Refuse a layer without rows and columns, or without a gradient where one is needed."""
    with Taps(network) as taps:
        network.logits(inputs)
    seen = taps.activations[layer]
    if maps_of(seen, network.layers[layer]) is None:
        raise LayerError(
            f"{layer!r} gives {tuple(seen.shape[1:])} for a picture, which has no rows and columns (two "
            "of each or more) to draw; choose an earlier layer, or ask unit_attributions for numbers"
        )
    if method in BY_GRADIENT and layer not in connected(network, inputs):
        raise LayerError(
            f"no gradient reaches the logits of {network.name} from {layer!r}; use 'activation', which "
            "needs none"
        )


def _maps(
    network: Network, inputs: Tensor, index: int, layer: str, method: str, gates: Mapping[str, Tensor]
) -> Tensor:
    """(n, h, w) float64, summed over the units of the layer, which are 0 where they are removed."""
    # Gates are of all layers, attributions of this one alone.
    alone = replace(network, layers={layer: network.layers[layer]})
    with Taps(network, (), gates=gates):
        values = maps_by(alone, inputs, index, method, [layer])[layer]
    maps = values.detach().cpu().double().movedim(network.layers[layer].axis, 1)
    return (maps.square() if method == "activation" else maps).sum(1)
