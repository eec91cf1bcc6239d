"""A network cut at its layers: what each gives hangs on what those before it gave, and no farther."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nadkit.errors import LayerError, NadkitError
from nadkit.networks import Network
from nadkit.taps import Taps

INPUT, LOGIT, OUTPUT = "input", "logit", "output"
"""What the ends of graphs are called: pictures, one class's logit, all logits."""


@dataclass(frozen=True)
class Cut:
    """One forward pass of a network that was cut at its layers.

    Attributes
    ----------
    leaves : `input` and, in the order in which they ran, addresses → what was passed on, gated; each the
        start of a graph of its own
    outputs : addresses and `logit` → the same values, still hanging on the leaves before them
    axes : where the units lie, by address
    """

    leaves: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    axes: Mapping[str, int]

    def gradients(self, target: str, direction: Tensor) -> dict[str, Tensor]:
        """Return the gradient of `target`, summed in a direction of its shape, at each leaf it hangs on.

        A leaf that the target does not hang on directly is not in the result.
        """
        output = self.outputs[target]
        if output.grad_fn is None:
            return {}
        found = torch.autograd.grad(
            output, list(self.leaves.values()), direction, retain_graph=True, allow_unused=True
        )
        return {name: part for name, part in zip(self.leaves, found, strict=True) if part is not None}


def cut(network: Network, inputs: Tensor, gates: Mapping[str, Tensor] | None = None) -> Cut:
    """Run a network, gated, and cut it at its layers; call it within `frozen(network.model)`.

    Examples
    --------
    >>> import nadkit as nk
    >>> from nadkit.taps import frozen
    >>> network = nk.load_network("vgg-fashion")
    >>> with frozen(network.model):
    ...     made = cut(network, network.prepare(torch.zeros(2, 1, 28, 28)))
    >>> list(made.gradients("logit", torch.ones(2, 10)))
    ['stage3.2']

    Parameters
    ----------
    network : its layers are where it is cut
    inputs : (N, C, H, W), prepared
    gates : address → (n_units,); None gates nothing

    Raises
    ------
    NadkitError
        The logits are NaN or infinite.
    LayerError
        A layer never ran, or gives something that is no tensor of floating-point numbers.
    """
    leaves: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}

    def keep(address: str) -> Callable[[Tensor], Tensor]:
        def edit(output: Tensor) -> Tensor:
            if not torch.is_grad_enabled():
                raise LayerError(
                    f"the model runs {address!r} without gradients (in torch.no_grad, or in "
                    "torch.utils.checkpoint with use_reentrant=True), and a link needs them; switch that "
                    "off, or choose other layers"
                )
            if not output.is_floating_point():
                raise LayerError(f"layer {address!r} gives {output.dtype}; a link needs gradients, so floats")
            outputs[address] = output
            leaves[address] = output.detach().requires_grad_()
            return leaves[address].clone()  # in-place operations of the model act on a copy

        return edit

    edits = {address: keep(address) for address in network.layers}
    with torch.inference_mode(False), torch.enable_grad(), Taps(network, (), gates=gates, edits=edits):
        leaves[INPUT] = inputs.detach().clone().requires_grad_()
        outputs[LOGIT] = network.logits(leaves[INPUT].clone())
    if not bool(torch.isfinite(outputs[LOGIT]).all()):
        raise NadkitError(
            f"{network.name} gives NaN or infinite logits; no effect can be read from them: check its weights"
        )
    return Cut(leaves, outputs, {address: layer.axis for address, layer in network.layers.items()})


def totals(values: Tensor, axis: int | None) -> Tensor:
    """Return the sum of a layer's values over positions, (N, n_units); without an axis over all, (N, 1).

    Examples
    --------
    >>> totals(torch.ones(2, 5, 3), -1), totals(torch.ones(2, 5, 3), None)
    (tensor([[5., 5., 5.],
            [5., 5., 5.]]), tensor([[15.],
            [15.]]))
    """
    if axis is None:
        return values.flatten(1).sum(1, keepdim=True)
    positions = [at for at in range(1, values.ndim) if at != axis % values.ndim]
    return values.sum(positions) if positions else values


def check_ends(network: Network, *ends: str) -> None:
    """Raise if a layer has the name of an end of the graph.

    Raises
    ------
    LayerError
        A layer is called so.
    """
    for name in ends:
        if name in network.layers:
            raise LayerError(
                f"{network.name} has a layer {name!r}, which in graphs is the name of an end; wrap the model "
                f"in a module, nn.Sequential(OrderedDict(body=model)), so that the layer is body.{name}"
            )
