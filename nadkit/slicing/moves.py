"""The rules of operations that move, join or reduce tensors; None where one is not known for sure."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, fx

from nadkit.slicing.build import Builder
from nadkit.slicing.flow import Flow, Rule
from nadkit.slicing.rules import (
    Cat,
    CatElsewhere,
    Channelwise,
    Joined,
    repeated,
    unchanged,
    zero_alone,
)  # fmt: skip
from nadkit.slicing.tracing import Shape, Static, argument

REDUCTIONS = {"mean": unchanged, "amax": unchanged, "amin": unchanged, "sum": zero_alone}
RESHAPES = {"flatten", "reshape", "view", "squeeze", "unsqueeze", "unflatten"}
JOINS: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "truediv": operator.truediv,
    "div": operator.truediv, "multiply": operator.mul, "subtract": operator.sub,
    "maximum": torch.maximum, "minimum": torch.minimum,
}  # fmt: skip


def static(node: fx.Node, flow: Flow) -> Any:
    """Return the plain value that a node gives."""
    return cast("Static", flow.trace.shapes[node]).value


def is_static(node: object, flow: Flow) -> bool:
    """Return whether a node gives a plain value, the same for any number of samples."""
    return isinstance(node, fx.Node) and isinstance(flow.trace.shapes.get(node), Static)


def alone(
    node: fx.Node, data: fx.Node, given: Shape, axis: int, constant: Callable[[Tensor], Tensor],
    make: Callable[[Builder, Any, Tensor], Any] | None = None, out: int | None = None,
    kind: type[Channelwise] = Channelwise,
) -> Channelwise:  # fmt: skip
    """Return the rule of an operation that makes each channel of the one of the same place.

    Parameters
    ----------
    node, data, constant, make : as in `Channelwise`; by default the new node is as the old one
    given : of the data
    axis, out : of the channels, in the input and in the output
    kind : of the rule
    """

    def copied(build: Builder, new: Any, index: Tensor) -> Any:  # noqa: ARG001
        return build.copy(node, (new, *build.arg(node.args[1:])), build.arg(node.kwargs))

    origin = torch.arange(given.sizes[axis])
    return kind(node, data, (axis, axis if out is None else out), origin, constant, make or copied)


def piece(node: fx.Node, data: fx.Node, index: int, flow: Flow) -> Rule | None:
    """Return the rule of one piece of a tensor that was chunked or split along its channels."""
    pieces, source = flow.trace.shapes[data], data.args[0] if data.args else None
    if not isinstance(source, fx.Node) or not isinstance(pieces, tuple) or isinstance(pieces, Shape):
        return None
    whole, axis = flow.shape(source), flow.states[source].axis
    along = data.kwargs.get("dim", data.args[2] if len(data.args) > 2 else 0)
    if whole is None or axis is None or not isinstance(along, int) or along % len(whole.sizes) != axis:
        return None
    sizes = [one.sizes[axis] for one in pieces]
    start = sum(sizes[: index % len(sizes)])
    origin = torch.arange(start, start + sizes[index])
    return Channelwise(node, source, (axis, axis), origin, unchanged, None)


def padded(node: fx.Node, data: fx.Node, given: Shape, axis: int | None) -> Rule | None:
    """Return the rule of `F.pad` beside the channels."""
    widths = argument(node, "pad", None)
    if axis is None or not isinstance(widths, (tuple, list)) or not all(isinstance(w, int) for w in widths):
        return None
    zeros = argument(node, "mode", "constant") == "constant"
    other = zeros and argument(node, "value", None) not in (None, 0, 0.0)
    if other or len(widths) // 2 >= len(given.sizes) - axis:
        return None
    return alone(node, data, given, axis, zero_alone if zeros else unchanged)


def reduced(
    node: fx.Node, data: fx.Node, name: str, given: Shape, shape: Shape, axis: int | None
) -> Rule | None:
    """Return the rule of a mean, sum, maximum or minimum over positions."""
    places = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    places = [places] if isinstance(places, int) else places
    if axis is None or not isinstance(places, (list, tuple)) or not all(isinstance(p, int) for p in places):
        return None
    if not places:  # which torch takes for all axes
        return None
    rank = len(given.sizes)
    gone = {cast("int", p) % rank for p in places}
    if axis in gone or 0 in gone or set(node.kwargs) - {"dim", "keepdim"}:
        return None
    out = axis if len(shape.sizes) == rank else axis - sum(p < axis for p in gone)
    return alone(node, data, given, axis, REDUCTIONS[name], out=out)


def moved(node: fx.Node, data: fx.Node, name: str, given: Shape, axis: int | None) -> Rule | None:
    """Return the rule of axes that change places, the samples' aside."""
    places = node.args[1:]
    if len(places) == 1 and isinstance(places[0], (tuple, list)):
        places = tuple(places[0])
    if axis is None or node.kwargs or not all(isinstance(p, int) for p in places):
        return None
    order = list(range(len(given.sizes)))
    numbers = [cast("int", p) % len(order) for p in places]
    if name == "permute":
        order = numbers
    else:
        one, two = numbers
        order[one], order[two] = two, one
    return None if order[0] != 0 else alone(node, data, given, axis, unchanged, out=order.index(axis))


def reshaped(node: fx.Node, data: fx.Node, flow: Flow, given: Shape, shape: Shape) -> Rule | None:
    """Return the rule of a tensor laid out anew: beside the channels, or flattened with them."""
    axis, old, new = flow.states[data].axis, given.sizes, shape.sizes
    if axis is None or len(new) < 2 or not shape.samples[0] or any(shape.samples[1:]):
        return None
    out, origin = axis, torch.arange(old[axis])
    if new[: axis + 1] != old[: axis + 1]:  # else only what lies behind the channels
        if new == (*old[:axis], math.prod(old[axis:])):
            origin = repeated(given, axis)
        elif axis == len(old) - 1 and new[-1] == old[-1]:  # what lies before them
            out = len(new) - 1
        else:
            return None

    def make(build: Builder, tensor: Any, index: Tensor) -> Any:
        if out == 1 and len(new) == 2 and new[0] == old[0]:
            return build.graph.call_function(torch.flatten, (tensor, 1))
        sizes = [-1, *new[1:]]
        sizes[out] = len(index)
        return build.graph.call_function(torch.reshape, (tensor, tuple(sizes)))

    return Channelwise(node, data, (axis, out), origin, unchanged, make)


def indexed(node: fx.Node, data: fx.Node, flow: Flow, given: Shape) -> Rule | None:
    """Return the rule of `x[:, :, 1:]` and `x[:, 4:8]`; whole numbers take axes away."""
    axis, rank = flow.states[data].axis, len(given.sizes)
    if axis is None or not all(is_static(n, flow) for n in node.all_input_nodes if n is not data):
        return None
    index = fx.node.map_arg(node.args[1], lambda n: static(n, flow))
    index = index if isinstance(index, tuple) else (index,)
    if not all(entry is Ellipsis or isinstance(entry, (int, slice)) for entry in index):
        return None
    if Ellipsis in index:
        at = index.index(Ellipsis)
        index = (*index[:at], *[slice(None)] * (rank - len(index) + 1), *index[at + 1 :])
    index = (*index, *[slice(None)] * (rank - len(index)))
    cut = index[axis]
    if index[0] != slice(None) or not isinstance(cut, slice):
        return None
    origin = torch.arange(given.sizes[axis])[cut]
    out = axis - sum(isinstance(entry, int) for entry in index[:axis])
    rest = tuple(slice(None) if place == axis else entry for place, entry in enumerate(index))

    def make(build: Builder, tensor: Any, index: Tensor) -> Any:  # noqa: ARG001
        if all(entry == slice(None) for entry in rest):
            return tensor
        return build.graph.call_function(operator.getitem, (tensor, rest))

    return Channelwise(node, data, (axis, out), origin, unchanged, make)


def laid_end_to_end(node: fx.Node, flow: Flow, shape: Shape) -> Rule | None:
    """Return the rule of `torch.cat`, along the channels or beside them."""
    parts = node.args[0] if node.args else node.kwargs.get("tensors")
    along = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
    if not isinstance(parts, (list, tuple)) or not isinstance(along, int):
        return None
    nodes = [part for part in parts if isinstance(part, fx.Node)]
    given = [flow.shape(part) for part in nodes]
    if len(nodes) != len(parts) or any(g is None or not g.floating for g in given):
        return None
    along %= len(shape.sizes)
    axes = {axis for part in nodes if (axis := flow.states[part].axis) is not None}
    if along == 0 or not axes:
        return None
    if along in axes:
        return Cat(node, nodes, along)
    return CatElsewhere(node, nodes, axes.pop(), along) if len(axes) == 1 else None


def joined(node: fx.Node, name: str, flow: Flow, shape: Shape) -> Rule | None:
    """Return the rule of an elementwise operation on two tensors, or a tensor and a number."""
    if len(node.args) != 2 or node.kwargs:
        return None
    values = [static(cast("fx.Node", v), flow) if is_static(v, flow) else v for v in node.args]
    rank, back = len(shape.sizes), 0
    for value in values:  # where the channels are, counted from the last axis, as sizes are matched
        given = flow.shape(value)
        axis = flow.states[value].axis if isinstance(value, fx.Node) else None
        if given is not None and axis is not None and not back:
            place = len(given.sizes) - axis
            back = place if given.sizes[axis] == shape.sizes[rank - place] else 0
    if not 0 < back < rank:
        return None
    channels = shape.sizes[rank - back]
    operands: list[tuple[Any, int | None]] = []
    for value in values:
        given = flow.shape(value)
        if isinstance(value, fx.Node) and given is not None:
            at = len(given.sizes) - back
            wide = at >= 0 and given.sizes[at] == channels
            if wide and given.samples[at]:
                return None
            operands.append((value, at if wide else None))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            operands.append((value, None))
        else:
            return None
    return Joined(node, (operands[0], operands[1]), rank - back, channels, JOINS[name])
