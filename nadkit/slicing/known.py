"""Which operations are known, and the rule of each; all others read everything."""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from nadkit.slicing.build import Builder
from nadkit.slicing.flow import Flow, Rule
from nadkit.slicing.rules import (
    Cat, CatElsewhere, Channelwise, Item, Joined, Opaque, Size, repeated, unchanged, zero_alone,
)  # fmt: skip
from nadkit.slicing.tracing import Shape, Static
from nadkit.slicing.weighted import Dense, Grouped, normalise, sliced_norm

F = nn.functional
# One number in, one out: these say themselves what they make of a constant.
_POINTWISE_MODULES = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish,
    nn.Hardsigmoid, nn.Hardtanh, nn.Softplus, nn.Softsign, nn.Tanh, nn.Tanhshrink, nn.Sigmoid, nn.LogSigmoid,
    nn.Hardshrink, nn.Softshrink, nn.Threshold, nn.Dropout, nn.Dropout1d, nn.Dropout2d,
    nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout,
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
# Over the positions of each channel. Of these, the means of a constant are that constant.
_KEEP_MODULES = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d, nn.Upsample,
    nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d, nn.ReflectionPad1d, nn.ReflectionPad2d,
    nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d,
)  # fmt: skip
# These mix in zeros from outside the picture.
_ZERO_MODULES = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d)
_KEEP = {
    "max_pool1d", "max_pool2d", "max_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
    "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "interpolate",
    "upsample",
}  # fmt: skip
_ZERO = {"avg_pool1d", "avg_pool2d", "avg_pool3d"}
_REDUCED = {"mean": unchanged, "amax": unchanged, "amin": unchanged, "sum": zero_alone}
_RESHAPED = {"flatten", "reshape", "view", "squeeze", "unsqueeze", "unflatten"}
_JOINED: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "truediv": operator.truediv,
    "div": operator.truediv, "multiply": operator.mul, "subtract": operator.sub,
    "maximum": torch.maximum, "minimum": torch.minimum,
}  # fmt: skip


def rule_of(node: fx.Node, flow: Flow) -> Rule:
    """Return how a node treats channels; what is not known for sure reads everything."""
    shapes = flow.trace.shapes
    if node in flow.trace.gates:
        return _gate(node, flow)
    name = _name(node)
    if (found := _size_or_item(node, name, flow)) is not None:
        return found
    shape = flow.shape(node)
    if shape is None or not shape.floating or node.op in ("placeholder", "get_attr", "output"):
        return Opaque(node)
    data = node.args[0] if node.args else None
    if name in ("cat", "concat", "concatenate") and not isinstance(data, fx.Node):
        return _cat(node, flow, shape) or Opaque(node)
    if not isinstance(data, fx.Node) and name in _JOINED or name in _JOINED and len(node.all_input_nodes) > 1:
        return _joined(node, name, flow, shape) or Opaque(node)
    given = flow.shape(data)
    if given is None or not given.floating or not isinstance(data, fx.Node):
        return Opaque(node)
    if node.op == "call_module":
        module = flow.trace.root.get_submodule(str(node.target))
        return _module(node, data, module, flow, given) or Opaque(node)
    if name == "getitem":
        return _indexed(node, data, flow, given, shape) or Opaque(node)
    if name in _RESHAPED:
        return _reshaped(node, data, flow, given, shape) or Opaque(node)
    # Everything else must have that one tensor, and plain values beside it.
    if any(not isinstance(shapes.get(n), Static) for n in node.all_input_nodes if n is not data):
        return Opaque(node)
    axis = flow.states[data].axis
    if name in _JOINED and axis is not None:
        return _joined(node, name, flow, shape) or Opaque(node)
    if name in _POINTWISE and axis is not None and given.sizes == shape.sizes:
        if "dropout" in name and _argument(node, "training", True):
            return Opaque(node)
        return _alone(node, data, given, axis, _of_itself(node, flow))
    if name in _KEEP | _ZERO and len(given.sizes) == int(name[-2]) + 2 if name[-1:] == "d" else name in _KEEP:
        if name in _ZERO:
            return _alone(node, data, given, 1, zero_alone)
        return _alone(node, data, given, 1, unchanged) if _plain_pool(name, node) else Opaque(node)
    if name == "pad":
        return _padded(node, data, given, axis) or Opaque(node)
    if name in _REDUCED:
        return _reduced(node, data, name, given, shape, axis) or Opaque(node)
    if name in ("transpose", "permute", "swapaxes"):
        return _moved(node, data, name, given, axis) or Opaque(node)
    return Opaque(node)


def gates_alone(node: fx.Node, flow: Flow) -> Rule:
    """Return the rule of a graph of which nothing is cut out: gates, and operations that read everything."""
    return _gate(node, flow) if node in flow.trace.gates else Opaque(node)


def _name(node: fx.Node) -> str:
    if node.op == "call_method":
        return str(node.target)
    return str(getattr(node.target, "__name__", "")) if node.op == "call_function" else ""


def _argument(node: fx.Node, name: str, default: Any) -> Any:
    """Return a plain argument of one of torch's functions, wherever it stands."""
    if name in node.kwargs:
        return node.kwargs[name]
    try:
        places = list(inspect.signature(cast("Callable[..., Any]", node.target)).parameters)
    except (TypeError, ValueError):
        return default
    at = places.index(name) if name in places else len(node.args)
    return node.args[at] if at < len(node.args) else default


def _gate(node: fx.Node, flow: Flow) -> Rule:
    _, axis, gate = flow.trace.gates[node]
    data = cast("fx.Node", node.args[0])
    kept = gate.double().cpu()

    def constant(values: Tensor) -> Tensor:
        return torch.where(kept == 0, 0.0, values)

    # What is not removed is multiplied by 1, so the new node is the input's.
    return Channelwise(node, data, (axis, axis), torch.arange(len(kept)), constant, None)


def _copied(node: fx.Node) -> Callable[[Builder, Any, Tensor], Any]:
    def make(build: Builder, new: Any, index: Tensor) -> Any:  # noqa: ARG001
        rest = build.arg(node.args[1:])
        return build.copy(node, (new, *rest), build.arg(node.kwargs))

    return make


def _alone(
    node: fx.Node, data: fx.Node, given: Shape, axis: int, constant: Callable[[Tensor], Tensor],
    make: Callable[[Builder, Any, Tensor], Any] | None = None, out: int | None = None,
) -> Channelwise:  # fmt: skip
    origin = torch.arange(given.sizes[axis])
    return Channelwise(
        node, data, (axis, axis if out is None else out), origin, constant, make or _copied(node)
    )


def _of_itself(node: fx.Node, flow: Flow) -> Callable[[Tensor], Tensor]:
    """Return what a pointwise operation makes of constants, by running it on them."""

    def constant(values: Tensor) -> Tensor:
        plain = fx.node.map_arg((node.args[1:], node.kwargs), lambda n: _static(n, flow))
        args, kwargs = plain
        if node.op == "call_module":
            out = flow.trace.root.get_submodule(str(node.target))(values.clone())
        elif node.op == "call_method":
            out = getattr(values, str(node.target))(*args, **kwargs)
        else:
            out = cast("Callable[..., Tensor]", node.target)(values, *args, **kwargs)
        return torch.where(values.isnan(), torch.nan, out.double())

    return constant


def _static(node: fx.Node, flow: Flow) -> Any:
    return cast("Static", flow.trace.shapes[node]).value


def _size_or_item(node: fx.Node, name: str, flow: Flow) -> Rule | None:
    data = node.args[0] if node.args else None
    if not isinstance(data, fx.Node):
        return None
    if flow.shape(data) is not None:
        if (name == "getattr" and node.args[1:] == ("shape",)) or (name == "size" and len(node.args) == 1):
            return Size(node, data, None)
        if name == "size" and isinstance(node.args[1], int):
            return Size(node, data, node.args[1])
    if name == "getitem" and isinstance(node.args[1], int):
        if isinstance(flow.rules.get(data), Size):
            return Item(node, data, node.args[1])
        if isinstance(flow.trace.shapes.get(data), tuple):
            return _piece(node, data, node.args[1], flow)
    return None


def _piece(node: fx.Node, data: fx.Node, index: int, flow: Flow) -> Rule | None:
    """Return the rule of one piece of a tensor that was chunked or split along its channels."""
    pieces = flow.trace.shapes[data]
    source = data.args[0] if data.args else None
    if _name(data) not in ("chunk", "split") or not isinstance(source, fx.Node) or isinstance(pieces, Shape):
        return None
    whole, axis = flow.shape(source), flow.states[source].axis
    along = data.kwargs.get("dim", data.args[2] if len(data.args) > 2 else 0)
    if whole is None or axis is None or not isinstance(along, int) or along % len(whole.sizes) != axis:
        return None
    sizes = [piece.sizes[axis] for piece in cast("tuple[Shape, ...]", pieces)]
    start = sum(sizes[: index % len(sizes)])
    origin = torch.arange(start, start + sizes[index])
    return Channelwise(node, source, (axis, axis), origin, unchanged, None)


def _module(node: fx.Node, data: fx.Node, module: nn.Module, flow: Flow, given: Shape) -> Rule | None:
    if module._forward_hooks or module._forward_pre_hooks or len(node.all_input_nodes) > 1 or node.kwargs:
        return None
    kind, rank = type(module), len(given.sizes)
    axis = flow.states[data].axis
    if kind is nn.Linear:
        return Dense(node, data, cast("nn.Linear", module), rank - 1)
    if kind in _CONVOLUTIONS:
        conv = cast("nn.modules.conv._ConvNd", module)
        if rank != len(conv.kernel_size) + 2:
            return None
        if conv.groups == 1:
            return Dense(node, data, conv, 1)
        return None if conv.transposed else Grouped(node, data, conv)
    if kind in _NORMS and getattr(module, "running_mean", None) is not None:
        norm = cast("nn.modules.batchnorm._BatchNorm", module)

        def make(build: Builder, new: Any, index: Tensor) -> Any:
            path = build.place(node, sliced_norm(module, index), *index.tolist())
            return build.graph.call_module(path, (new,))

        rule = _alone(node, data, given, 1, lambda values: normalise(norm, values), make)
        return replace(rule, writable=True)
    if kind is nn.Identity and axis is not None:
        return Channelwise(node, data, (axis, axis), torch.arange(given.sizes[axis]), unchanged, None)
    if kind in _POINTWISE_MODULES and axis is not None:
        return _alone(node, data, given, axis, _of_itself(node, flow))
    if kind is nn.PReLU and axis == 1:
        return _prelu(node, data, cast("nn.PReLU", module), given)
    if kind is nn.Flatten:
        shape = flow.shape(node)
        return None if shape is None else _reshaped(node, data, flow, given, shape)
    if (kind in _KEEP_MODULES or kind in _ZERO_MODULES) and rank == _spatial(kind) + 2:
        if getattr(module, "return_indices", False):
            return None
        if kind in _ZERO_MODULES and not _means_alone(module):
            return _alone(node, data, given, 1, zero_alone)
        return _alone(node, data, given, 1, unchanged)
    return None


def _spatial(kind: type[nn.Module]) -> int:
    return int(kind.__name__[-2]) if kind.__name__[-1] == "d" else 2


def _means_alone(module: nn.Module) -> bool:
    """Tell whether a mean over a window is one over what lies in the picture."""
    if not isinstance(module, (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)):
        return False
    padding = cast("int | tuple[int, ...]", module.padding)
    inside = padding == 0 or (isinstance(padding, tuple) and not any(padding)) or not module.count_include_pad
    return inside and getattr(module, "divisor_override", None) is None


def _prelu(node: fx.Node, data: fx.Node, module: nn.PReLU, given: Shape) -> Rule:
    slope = module.weight.detach().double().cpu()

    def make(build: Builder, new: Any, index: Tensor) -> Any:
        made = sliced_norm(module, index) if len(slope) > 1 else sliced_norm(module, torch.tensor([0]))
        path = build.place(node, made, *(index.tolist() if len(slope) > 1 else ["one"]))
        return build.graph.call_module(path, (new,))

    def constant(values: Tensor) -> Tensor:
        return torch.where(values >= 0, values, slope * values)

    return _alone(node, data, given, 1, constant, make)


def _plain_pool(name: str, node: fx.Node) -> bool:
    return "max" not in name or not _argument(node, "return_indices", False)


def _padded(node: fx.Node, data: fx.Node, given: Shape, axis: int | None) -> Rule | None:
    widths = _argument(node, "pad", None)
    if axis is None or axis == 0 or not isinstance(widths, (tuple, list)):
        return None
    if len(widths) // 2 >= len(given.sizes) - axis or not all(isinstance(w, int) for w in widths):
        return None
    zeros = _argument(node, "mode", "constant") == "constant"
    if zeros and _argument(node, "value", None) not in (None, 0, 0.0):
        return None
    return _alone(node, data, given, axis, zero_alone if zeros else unchanged)


def _reduced(
    node: fx.Node, data: fx.Node, name: str, given: Shape, shape: Shape, axis: int | None
) -> Rule | None:
    places = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    places = [places] if isinstance(places, int) else places
    if axis is None or not isinstance(places, (list, tuple)) or not all(isinstance(p, int) for p in places):
        return None
    rank = len(given.sizes)
    gone = {cast("int", p) % rank for p in places}
    if axis in gone or 0 in gone or set(node.kwargs) - {"dim", "keepdim"}:
        return None
    kept = len(shape.sizes) == rank
    out = axis if kept else axis - sum(p < axis for p in gone)
    return _alone(node, data, given, axis, _REDUCED[name], out=out)


def _moved(node: fx.Node, data: fx.Node, name: str, given: Shape, axis: int | None) -> Rule | None:
    rank = len(given.sizes)
    places = node.args[1:]
    if len(places) == 1 and isinstance(places[0], (tuple, list)):
        places = tuple(places[0])
    if axis is None or node.kwargs or not all(isinstance(p, int) for p in places):
        return None
    order = list(range(rank))
    numbers = [cast("int", p) % rank for p in places]
    if name == "permute":
        order = numbers
    else:
        one, two = numbers
        order[one], order[two] = two, one
    return _alone(node, data, given, axis, unchanged, out=order.index(axis))


def _reshaped(node: fx.Node, data: fx.Node, flow: Flow, given: Shape, shape: Shape) -> Rule | None:
    axis, old, new = flow.states[data].axis, given.sizes, shape.sizes
    if axis is None or axis == 0 or shape.samples[:1] != (True,) or any(shape.samples[1:]):
        return None
    if new[: axis + 1] == old[: axis + 1]:  # what lies behind the channels is laid out anew
        out, origin = axis, torch.arange(old[axis])
    elif axis == len(old) - 1 and math.prod(new[:-1]) == math.prod(old[:-1]):  # what lies before them
        out, origin = len(new) - 1, torch.arange(old[axis])
    elif new == (*old[:axis], math.prod(old[axis:])):
        out, origin = axis, repeated(given, axis)
    else:
        return None

    def make(build: Builder, tensor: Any, index: Tensor) -> Any:
        if out == 1 and len(new) == 2:
            return build.graph.call_function(torch.flatten, (tensor, 1))
        sizes = [-1, *new[1:]]
        sizes[out] = len(index)
        return build.graph.call_function(torch.reshape, (tensor, tuple(sizes)))

    return Channelwise(node, data, (axis, out), origin, unchanged, make)


def _indexed(node: fx.Node, data: fx.Node, flow: Flow, given: Shape, shape: Shape) -> Rule | None:
    """Return the rule of `x[:, :, 1:]` and `x[:, 4:8]`; whole numbers take axes away."""
    axis, index = flow.states[data].axis, node.args[1]
    index = index if isinstance(index, tuple) else (index,)
    index = fx.node.map_arg(index, lambda n: _static_or_none(n, flow))
    if axis is None or axis == 0 or not all(i is Ellipsis or isinstance(i, (int, slice)) for i in index):
        return None
    if Ellipsis in index:
        at = index.index(Ellipsis)
        filled = len(given.sizes) - len(index) + 1
        index = (*index[:at], *[slice(None)] * filled, *index[at + 1 :])
    index = (*index, *[slice(None)] * (len(given.sizes) - len(index)))
    cut = index[axis]
    if index[0] != slice(None) or not isinstance(cut, slice):
        return None
    origin = torch.arange(given.sizes[axis])[cut]
    out = axis - sum(isinstance(i, int) for i in index[:axis])
    if len(shape.sizes) <= out or shape.sizes[out] != len(origin):
        return None
    rest = tuple(slice(None) if place == axis else entry for place, entry in enumerate(index))

    def make(build: Builder, tensor: Any, index: Tensor) -> Any:  # noqa: ARG001
        if all(entry == slice(None) for entry in rest):
            return tensor
        return build.graph.call_function(operator.getitem, (tensor, rest))

    return Channelwise(node, data, (axis, out), origin, unchanged, make)


def _static_or_none(node: fx.Node, flow: Flow) -> Any:
    given = flow.trace.shapes.get(node)
    return given.value if isinstance(given, Static) else None


def _cat(node: fx.Node, flow: Flow, shape: Shape) -> Rule | None:
    parts = node.args[0]
    along = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
    if not isinstance(parts, (list, tuple)) or not isinstance(along, int):
        return None
    nodes = [part for part in parts if isinstance(part, fx.Node)]
    given = [flow.shape(part) for part in nodes]
    if len(nodes) != len(parts) or any(g is None or not g.floating for g in given):
        return None
    along %= len(shape.sizes)
    axes = {axis for part in nodes if (axis := flow.states[part].axis) is not None}
    if along != 0 and (not axes or along in axes):
        return Cat(node, nodes, along)
    if len(axes) == 1:
        return CatElsewhere(node, nodes, axes.pop(), along)
    return None


def _joined(node: fx.Node, name: str, flow: Flow, shape: Shape) -> Rule | None:
    if len(node.args) != 2 or node.kwargs:
        return None
    operands: list[tuple[Any, int | None]] = []
    rank, back = len(shape.sizes), None
    for value in node.args:  # the channels' axis, counted from the last
        given = flow.shape(value)
        if given is not None and isinstance(value, fx.Node) and (axis := flow.states[value].axis) is not None:
            if given.sizes[axis] == shape.sizes[rank - len(given.sizes) + axis]:
                back = len(given.sizes) - axis
                break
    if back is None or back >= rank:
        return None
    channels = shape.sizes[rank - back]
    for value in node.args:
        given = flow.shape(value)
        if isinstance(value, fx.Node) and isinstance(flow.trace.shapes.get(value), Static):
            value = _static(value, flow)
        if isinstance(value, fx.Node):
            if given is None:
                return None
            wide = len(given.sizes) >= back and given.sizes[-back] == channels
            if wide and (len(given.sizes) - back > 0 or flow.states[value].axis is None):
                operands.append((value, len(given.sizes) - back))
            else:
                operands.append((value, None))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            operands.append((value, None))
        else:
            return None
    return Joined(node, (operands[0], operands[1]), rank - back, channels, _JOINED[name])
