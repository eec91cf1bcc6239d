"""The sliced graph: nodes of the old one, made again with the channels that are computed."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from nadkit.slicing.flow import Flow
from nadkit.slicing.tracing import Shape, Static, without_in_place


class Builder:
    """Makes the new graph, node by node.

    Parameters
    ----------
    flow : what is to be computed
    ranks : of the channels of tensors that do not lie in their natural order
    """

    def __init__(self, flow: Flow, ranks: Mapping[fx.Node, Tensor] | None = None):
        self.flow = flow
        self._ranks = {} if ranks is None else ranks
        self.graph = fx.Graph()
        self.parts: dict[str, nn.Module | Tensor] = {}
        self.restored: list[tuple[fx.Node, fx.Node, Tensor]] = []  # reader, node, constants put back
        self._channels_last = is_channels_last(flow.trace.root)
        self.modules = dict(flow.trace.root.named_modules())
        self._new: dict[fx.Node, Any] = {}
        self._taken: dict[tuple[fx.Node, tuple[int, ...]], Any] = {}
        self._made: dict[tuple[Any, ...], str] = {}
        self._layout: list[str] = []
        self._reader: fx.Node | None = None
        self._batch: fx.Node | None = None

    def run(self) -> fx.GraphModule:
        """Return the module that computes the outputs."""
        for node in self.flow.trace.graph.nodes:
            if node not in self.flow.live and node.op != "placeholder":
                continue
            self._reader = node
            if node.op == "output":
                self.graph.output(self.arg(node.args[0]))
            else:
                self._new[node] = self.flow.rules[node].build(self, self.flow.computed.get(node))
        self.graph.eliminate_dead_code(
            lambda node: node.op in ("placeholder", "output") or node.target == "add_"
        )
        self.graph.lint()
        used = {str(node.target) for node in self.graph.nodes if node.op in ("call_module", "get_attr")}
        parts: dict[str, Any] = {name: part for name, part in self.parts.items() if name in used}
        return fx.GraphModule(parts, self.graph, class_name="Sliced")

    def layout(self) -> str:
        """Return 16 hex digits that name the operations and the order of all channels, not the weights."""
        lines = [*self._layout]
        for node in self.graph.nodes:
            name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
            lines.append(f"{node.op} {name} {node.args} {node.kwargs}")
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

    # What rules read.

    def batch(self) -> fx.Node:
        """Return the node of the number of samples."""
        if self._batch is None:
            first = next(node for node in self.flow.trace.graph.nodes if node.op == "placeholder")
            self._batch = self.graph.call_method("size", (self._new[first], 0))
        return self._batch

    def sizes(self, shape: Shape) -> list[Any]:
        """Return a tensor's sizes as they were before slicing, the samples' as a node."""
        return [
            self._samples(size // 2) if own else size
            for size, own in zip(shape.sizes, shape.samples, strict=True)
        ]

    def _samples(self, times: int) -> fx.Node:
        batch = self.batch()
        return batch if times == 1 else self.graph.call_function(operator.mul, (batch, times))

    def arg(self, value: Any) -> Any:
        """Return an argument of an old node for a new one: nodes as they were, plain values as they are."""
        return fx.node.map_arg(value, self._whole)

    def _whole(self, node: fx.Node) -> Any:
        given = self.flow.trace.shapes.get(node)
        if isinstance(given, Static):
            return given.value
        axis = self.flow.states[node].axis
        return self._new[node] if axis is None else self.take(node, axis, None)

    def order(self, node: fx.Node, mask: Tensor) -> Tensor:
        """Return the channels of a mask in the order in which they lie in a node's tensor."""
        index = mask.nonzero().flatten()
        return index[self._ranks[node][index].argsort()] if node in self._ranks else index

    def take(self, node: fx.Node, axis: int, want: Tensor | None) -> Any:
        """Return the new node with these channels of an old one, in this order; constants are put back."""
        state, shape = self.flow.states[node], self.flow.shape(node)
        assert shape is not None  # channels are those of a tensor
        natural = torch.arange(shape.sizes[axis])
        want = natural if want is None else want
        if state.values is not None and state.axis != axis:
            return self.part(shape, self.take(node, cast("int", state.axis), None), axis, natural, want)
        key = (node, (axis, *want.tolist()))
        if key not in self._taken:
            self._taken[key] = self._take(node, axis, want, shape)
        if state.values is not None:
            put = torch.zeros_like(state.values, dtype=torch.bool)
            put[want] = ~state.values[want].isnan()
            if bool(put.any()):
                self.restored.append((cast("fx.Node", self._reader), node, put))
        return self._taken[key]

    def _take(self, node: fx.Node, axis: int, want: Tensor, shape: Shape) -> Any:
        values, natural = self.flow.states[node].values, torch.arange(shape.sizes[axis])
        if values is None:
            if node.op == "get_attr" and not torch.equal(want, natural):
                return self.attribute(node, (axis, want))
            return self.part(shape, self._new[node], axis, natural, want)
        computed = self.flow.computed.get(node, torch.zeros_like(values, dtype=torch.bool))
        have = self.order(node, computed)
        put = ~computed[want]
        if not bool(put.any()):
            return self.part(shape, self._new[node], axis, have, want)
        # Nothing but constants is put back: what varies and is needed is computed.
        constants = torch.where(put, values[want], 0.0)
        assert bool(constants.isfinite().all())
        if node in self.flow.trace.gates and torch.equal(want, natural) and self._is_natural(node.args[0]):
            gate = self._constant(axis, self.flow.trace.gates[node][2], shape)
            return self.graph.call_function(torch.mul, (self._new[cast("fx.Node", node.args[0])], gate))
        if bool(put.all()):
            sizes = self.sizes(shape)
            sizes[axis] = len(want)
            return self.graph.call_method("expand", (self._constant(axis, constants, shape), tuple(sizes)))
        # One channel of zeros behind those that are there, and every absent one reads it.
        behind = len(shape.sizes) - 1 - axis
        padded = self.graph.call_function(nn.functional.pad, (self._new[node], (0, 0) * behind + (0, 1)))
        place = torch.full((len(natural),), len(have))
        place[have] = torch.arange(len(have))
        return self.shift(shape, self._select(shape, padded, axis, place[want]), axis, constants)

    def _is_natural(self, node: object) -> bool:
        """Tell whether all channels of a node are there, in their natural order."""
        if not isinstance(node, fx.Node) or node not in self.flow.live:
            return False
        if self.flow.states[node].values is None:
            return True
        computed = self.flow.computed[node]
        return bool(computed.all()) and torch.equal(self.order(node, computed), torch.arange(len(computed)))

    def there(self, node: fx.Node, axis: int, mask: Tensor) -> Tensor:
        """Return the channels that are computed, if they hold those of a mask, else the mask."""
        state = self.flow.states[node]
        if state.values is None:
            return torch.ones_like(mask)
        have = self.flow.computed.get(node, torch.zeros_like(state.values, dtype=torch.bool))
        return have if axis == state.axis and not bool((mask & ~have).any()) else mask

    def part(self, shape: Shape | None, new: Any, axis: int, have: Tensor, want: Tensor) -> Any:
        """Return the node of some of the channels that a new node has."""
        if torch.equal(have, want):
            return new
        place = torch.full((int(have.max()) + 1,), -1)
        place[have] = torch.arange(len(have))
        index = place[want]
        if (start := side_by_side(index)) is not None:
            return self.graph.call_method("narrow", (new, axis, start, len(want)))
        return self._select(shape, new, axis, index)

    def shift(self, shape: Shape | None, new: Any, axis: int, constants: Tensor) -> Any:
        """Return the node of a tensor to which a constant was added for each channel."""
        if shape is None or not bool((constants != 0).any()):
            return new
        return self.graph.call_function(torch.add, (new, self._constant(axis, constants, shape)))

    def _select(self, shape: Shape | None, new: Any, axis: int, index: Tensor) -> Any:
        at = self.tensor("index", index)
        if not self._channels_last or axis != 1 or shape is None or len(shape.sizes) != 4:
            return self.graph.call_function(torch.index_select, (new, axis, at))
        # Chosen on axis 1, the pictures would come out in the other memory format, and all behind be slow.
        moved = self.graph.call_method("permute", (new, 0, 2, 3, 1))
        chosen = self.graph.call_function(torch.index_select, (moved, 3, at))
        return self.graph.call_method("permute", (chosen, 0, 3, 1, 2))

    def _constant(self, axis: int, values: Tensor, shape: Shape) -> Any:
        sizes = [1] * len(shape.sizes)
        sizes[axis] = -1
        like = next((p for p in self.flow.trace.root.parameters() if p.is_floating_point()), None)
        made = values.to(torch.float32 if like is None else like.dtype).reshape(sizes)
        return self.tensor("constant", made)

    # What rules make.

    def scatter(self, value: fx.Node, base: Any, axis: int, index: Tensor, part: Any) -> Any:
        """Return the node of a tensor with another added to some of its channels.

        Parameters
        ----------
        value, base : the old node, and the new one of its channels
        axis, index : the channels added to, in the order of the part's
        part : what is added
        """
        # What a convolution or a norm gave to this sum alone can be written into.
        writable = self.flow.rules[value].writable and len(value.users) == 1
        alone = writable and base is self._new[value]
        start = side_by_side(index)
        if alone and start is not None:
            view = self.graph.call_method("narrow", (base, axis, start, len(index)))
            self.graph.call_method("add_", (view, part))
            return base
        return self.graph.call_function(torch.index_add, (base, axis, self.tensor("index", index), part))

    def tensor(self, name: str, value: Tensor) -> fx.Node:
        """Return the node of a new buffer."""
        device = next((p.device for p in self.flow.trace.root.parameters()), torch.device("cpu"))
        key = (name, str(value.dtype), tuple(value.shape), tuple(value.flatten().tolist()))
        if key not in self._made:
            self._made[key] = self._name(f"{name}_{sum(k.startswith(name) for k in self.parts)}")
            self.parts[self._made[key]] = value.clone().to(device)
        return self.graph.get_attr(self._made[key])

    def place(self, node: fx.Node, made: nn.Module, *channels: Tensor) -> str:
        """Return the name of a new module: that of the old one, with a number if it is cut in several ways.

        Parameters
        ----------
        node : that runs the old module
        made : the new one
        channels : which of the old one's it has, in their order, and what else tells its copies apart
        """
        key = (self.modules[str(node.target)], *[tuple(index.tolist()) for index in channels])
        if key not in self._made:
            # Not its path: in a module within modules every call would take a look-up for each.
            self._made[key] = self._name(str(node.target).removeprefix("model.").replace(".", "_"))
            self.parts[self._made[key]] = made
            order = [index.tolist() for index in channels if not index.is_floating_point()]
            self._layout.append(f"{self._made[key]} {order}")
        return self._made[key]

    def copy(self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return a new node that does as an old one does, on other arguments."""
        if node.op == "call_module":
            path = self.place(node, without_in_place(self.modules[str(node.target)]))
            return self.graph.call_module(path, args, kwargs)
        return self.graph.create_node(node.op, node.target, args, kwargs)

    def attribute(self, node: fx.Node, part: tuple[int, Tensor] | None = None) -> Any:
        """Return the node of a parameter or buffer, of some channels alone if asked."""
        value = _attribute(self.flow.trace.root, str(node.target))
        cut = () if part is None else (part[0], *part[1].tolist())
        key = (str(node.target), "attribute", cut)
        if key not in self._made:
            made = value.detach().clone() if isinstance(value, Tensor) else value
            if part is not None:
                made = made.index_select(part[0], part[1].to(made.device))
            if isinstance(value, nn.Parameter):
                made = nn.Parameter(made, requires_grad=value.requires_grad)
            self._made[key] = self._name(str(node.target).removeprefix("model.").replace(".", "_"))
            self.parts[self._made[key]] = made
            self._layout.append(f"{self._made[key]} {cut}")
        return self.graph.get_attr(self._made[key])

    def _name(self, wanted: str) -> str:
        name, number = wanted, 1
        while name in self.parts or name in ("meta", "training") or hasattr(fx.GraphModule, name):
            number += 1
            name = f"{wanted}_{number}"
        return name


def side_by_side(index: Tensor) -> int | None:
    """Return where places begin that follow each other, None if they do not.

    Examples
    --------
    >>> side_by_side(torch.tensor([3, 4, 5])), side_by_side(torch.tensor([3, 5, 4]))
    (3, None)
    """
    start = int(index[0])
    return start if torch.equal(index, torch.arange(start, start + len(index))) else None


def is_channels_last(model: nn.Module) -> bool:
    """Return whether a model's convolutions lie in memory channels last, as on most CPUs is fastest.

    Examples
    --------
    >>> model = nn.Conv2d(2, 2, 3)
    >>> is_channels_last(model), is_channels_last(model.to(memory_format=torch.channels_last))
    (False, True)
    """
    # By strides: of a 1×1 convolution torch calls both formats contiguous.
    return any(
        p.stride()
        == torch.empty(p.shape, device="meta", memory_format=torch.channels_last).stride()
        != torch.empty(p.shape, device="meta").stride()
        for p in model.parameters()
        if p.ndim == 4
    )


def _attribute(root: nn.Module, path: str) -> Any:
    home, _, name = path.rpartition(".")
    return getattr(root.get_submodule(home), name)
