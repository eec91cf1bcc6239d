"""Which operations are known, and the rule of each; all others read everything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from nadkit.slicing.build import Builder
from nadkit.slicing.flow import Flow, Rule
from nadkit.slicing.moves import (
    JOINS,
    REDUCTIONS,
    RESHAPES,
    alone,
    indexed,
    is_static,
    joined,
    laid_end_to_end,
    moved,
    padded,
    piece,
    reduced,
    reshaped,
    static,
)  # fmt: skip
from nadkit.slicing.rules import Channelwise, Item, Rescaled, Size, unchanged, zero_alone
from nadkit.slicing.tracing import Shape, argument
from nadkit.slicing.weighted import Dense, Grouped, normalise, sliced_norm

# One number in, one out: these say themselves what they make of a constant.
_POINTWISE_MODULES = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish,
    nn.Hardsigmoid, nn.Hardtanh, nn.Softplus, nn.Softsign, nn.Tanh, nn.Tanhshrink, nn.Sigmoid, nn.LogSigmoid,
    nn.Hardshrink, nn.Softshrink, nn.Threshold,
)  # fmt: skip
# These do nothing in evaluation mode.
_DROPOUTS = (
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout,
)  # fmt: skip
_POINTWISE = {
    "relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "hardswish", "hardsigmoid",
    "hardtanh", "softplus", "softsign", "tanh", "tanhshrink", "sigmoid", "logsigmoid", "hardshrink",
    "softshrink", "threshold", "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "abs",
    "neg", "exp", "square", "sqrt", "clamp", "clip", "contiguous", "clone", "detach", "float", "double",
}  # fmt: skip
_CONVOLUTIONS = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
# Over the positions of each channel, with the number of their axes; a constant stays what it is.
_POOLS: dict[type[nn.Module], int] = {
    nn.MaxPool1d: 1, nn.MaxPool2d: 2, nn.MaxPool3d: 3, nn.AdaptiveAvgPool1d: 1, nn.AdaptiveAvgPool2d: 2,
    nn.AdaptiveAvgPool3d: 3, nn.AdaptiveMaxPool1d: 1, nn.AdaptiveMaxPool2d: 2, nn.AdaptiveMaxPool3d: 3,
    nn.UpsamplingNearest2d: 2, nn.UpsamplingBilinear2d: 2, nn.ReflectionPad1d: 1, nn.ReflectionPad2d: 2,
    nn.ReplicationPad1d: 1, nn.ReplicationPad2d: 2, nn.ReplicationPad3d: 3,
}  # fmt: skip
# These mix in zeros from outside the picture, unless told otherwise.
_MEANS: dict[type[nn.Module], int] = {nn.AvgPool1d: 1, nn.AvgPool2d: 2, nn.AvgPool3d: 3}
_ZERO_PADS: dict[type[nn.Module], int] = {nn.ZeroPad1d: 1, nn.ZeroPad2d: 2, nn.ZeroPad3d: 3}
_POOL_FUNCTIONS = {
    "max_pool1d": 1, "max_pool2d": 2, "max_pool3d": 3, "adaptive_avg_pool1d": 1, "adaptive_avg_pool2d": 2,
    "adaptive_avg_pool3d": 3, "adaptive_max_pool1d": 1, "adaptive_max_pool2d": 2, "adaptive_max_pool3d": 3,
    "avg_pool1d": 1, "avg_pool2d": 2, "avg_pool3d": 3,
}  # fmt: skip


def rule_of(node: fx.Node, flow: Flow) -> Rule:
    """Return how a node treats channels; what is not known for sure reads everything."""
    if node in flow.trace.gates:
        return _gate(node, flow)
    return _known(node, flow) or Rule(node)


def gates_alone(node: fx.Node, flow: Flow) -> Rule:
    """Return the rule of a graph of which nothing is cut out: gates, and operations that read everything."""
    return _gate(node, flow) if node in flow.trace.gates else Rule(node)


def _gate(node: fx.Node, flow: Flow) -> Rule:
    _, axis, gate = flow.trace.gates[node]
    kept = gate.double().cpu()

    def constant(values: Tensor) -> Tensor:
        return torch.where(kept == 0, 0.0, values)

    # What is not removed is multiplied by 1, so the new node is the input's.
    data = cast("fx.Node", node.args[0])
    return Channelwise(node, data, (axis, axis), torch.arange(len(kept)), constant, None)


def _name(node: fx.Node) -> str:
    """Return the name of one of torch's functions or methods, of anything else nothing."""
    if node.op == "call_method":
        return str(node.target)
    home = str(getattr(node.target, "__module__", None) or "torch").split(".")[0]
    known = node.op == "call_function" and home in ("torch", "_operator", "builtins")
    return str(getattr(node.target, "__name__", "")) if known else ""


def _known(node: fx.Node, flow: Flow) -> Rule | None:
    name, data = _name(node), node.args[0] if node.args else None
    if isinstance(data, fx.Node) and (found := _size_or_item(node, name, data, flow)) is not None:
        return found
    shape, given = flow.shape(node), flow.shape(data)
    if shape is None or not shape.floating or node.op in ("placeholder", "get_attr", "output"):
        return None
    if name in ("cat", "concat", "concatenate"):
        return laid_end_to_end(node, flow, shape)
    if name in JOINS:
        return joined(node, name, flow, shape)
    if given is None or not given.floating or not isinstance(data, fx.Node):
        return None
    if name == "getitem":
        return indexed(node, data, flow, given)
    if name in RESHAPES:
        return reshaped(node, data, flow, given, shape)
    # Everything else must have that one tensor, and plain values beside it.
    if not all(is_static(other, flow) for other in node.all_input_nodes if other is not data):
        return None
    if node.op == "call_module":
        return _module(node, data, flow, given)
    return _function(node, name, data, flow, given, shape)


def _size_or_item(node: fx.Node, name: str, data: fx.Node, flow: Flow) -> Rule | None:
    if flow.shape(data) is not None:
        if (name == "getattr" and node.args[1:] == ("shape",)) or (name == "size" and len(node.args) == 1):
            return Size(node, data, None)
        if name == "size" and isinstance(node.args[1], int):
            return Size(node, data, node.args[1])
    if name != "getitem" or not isinstance(node.args[1], int):
        return None
    if isinstance(flow.rules.get(data), Size):
        return Item(node, data, node.args[1])
    if _name(data) in ("chunk", "split") and isinstance(flow.trace.shapes.get(data), tuple):
        return piece(node, data, node.args[1], flow)
    return None


def _function(node: fx.Node, name: str, data: fx.Node, flow: Flow, given: Shape, shape: Shape) -> Rule | None:
    axis, rank = flow.states[data].axis, len(given.sizes)
    if name in _POINTWISE and axis is not None and given.sizes == shape.sizes:
        if "dropout" in name:  # not asked: some take no single numbers
            random = argument(node, "training", True)
            return None if random else alone(node, data, given, axis, unchanged)
        return alone(node, data, given, axis, _of_itself(node, flow))
    if name in _POOL_FUNCTIONS and rank == _POOL_FUNCTIONS[name] + 2:
        return alone(node, data, given, 1, zero_alone if name.startswith("avg") else unchanged)
    if name == "interpolate":
        return alone(node, data, given, 1, unchanged)
    if name == "pad":
        return padded(node, data, given, axis)
    if name in REDUCTIONS:
        return reduced(node, data, name, given, shape, axis)
    if name in ("transpose", "permute", "swapaxes"):
        return moved(node, data, name, given, axis)
    return None


def _of_itself(node: fx.Node, flow: Flow) -> Callable[[Tensor], Tensor]:
    """Return what a pointwise operation makes of constants, by running it on them."""

    def constant(values: Tensor) -> Tensor:
        args, kwargs = fx.node.map_arg((node.args[1:], node.kwargs), lambda n: static(n, flow))
        if node.op == "call_module":
            out = flow.trace.root.get_submodule(str(node.target))(values.clone())
        elif node.op == "call_method":
            out = getattr(values, str(node.target))(*args, **kwargs)
        else:
            out = cast("Callable[..., Tensor]", node.target)(values, *args, **kwargs)
        return torch.where(values.isnan(), torch.nan, out.double())

    return constant


def _module(node: fx.Node, data: fx.Node, flow: Flow, given: Shape) -> Rule | None:
    module = flow.trace.root.get_submodule(str(node.target))
    # Hooks may do anything; and the classes are compared, as a subclass may.
    if module._forward_hooks or module._forward_pre_hooks or len(node.args) > 1 or node.kwargs:
        return None
    kind, rank, axis = type(module), len(given.sizes), flow.states[data].axis
    if kind is nn.Linear:
        return Dense(node, data, cast("nn.Linear", module), rank - 1)
    if kind in _CONVOLUTIONS:
        conv = cast("nn.modules.conv._ConvNd", module)
        if rank != len(conv.kernel_size) + 2 or (conv.transposed and conv.groups > 1):
            return None
        return Dense(node, data, conv, 1) if conv.groups == 1 else Grouped(node, data, conv)
    if kind in _NORMS and getattr(module, "running_mean", None) is not None:
        norm = cast("nn.modules.batchnorm._BatchNorm", module)
        return _one_weight_each(node, data, norm, given, lambda values: normalise(norm, values), Rescaled)
    if kind is nn.PReLU and axis == 1:
        slope = cast("nn.PReLU", module).weight.detach().double().cpu()

        def bent(values: Tensor) -> Tensor:
            return torch.where(values >= 0, values, slope * values)

        one = len(slope) == 1
        return alone(node, data, given, 1, bent) if one else _one_weight_each(node, data, module, given, bent)
    if kind is nn.Identity and axis is not None:
        return Channelwise(node, data, (axis, axis), torch.arange(given.sizes[axis]), unchanged, None)
    if kind in _DROPOUTS and axis is not None:
        return alone(node, data, given, axis, unchanged)
    if kind in _POINTWISE_MODULES and axis is not None:
        return alone(node, data, given, axis, _of_itself(node, flow))
    if kind is nn.Flatten and (shape := flow.shape(node)) is not None:
        return reshaped(node, data, flow, given, shape)
    if _POOLS.get(kind) == rank - 2 or (kind is nn.Upsample and rank > 2):
        return alone(node, data, given, 1, unchanged)
    if _MEANS.get(kind, _ZERO_PADS.get(kind)) == rank - 2:
        return alone(node, data, given, 1, unchanged if _stays_inside(module) else zero_alone)
    return None


def _one_weight_each(
    node: fx.Node, data: fx.Node, module: nn.Module, given: Shape, constant: Callable[[Tensor], Tensor],
    kind: type[Channelwise] = Channelwise,
) -> Rule:  # fmt: skip
    def make(build: Builder, new: Any, index: Tensor) -> Any:
        path = build.place(node, sliced_norm(module, index), index)
        return build.graph.call_module(path, (new,))

    return alone(node, data, given, 1, constant, make, kind=kind)


def _stays_inside(module: nn.Module) -> bool:
    """Tell whether an average is one over what lies in the picture alone."""
    if type(module) not in _MEANS or getattr(module, "divisor_override", None) is not None:
        return False
    padding = cast("int | tuple[int, ...]", module.padding)
    return not any(padding if isinstance(padding, tuple) else (padding,)) or not module.count_include_pad
