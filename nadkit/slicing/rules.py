"""How operations without weights treat channels: alone, joined, moved, or all at once."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from nadkit.slicing.build import Builder, side_by_side
from nadkit.slicing.flow import Flow, Rule, Source, State
from nadkit.slicing.tracing import Shape, Static

ADDITIONS: tuple[object, ...] = (operator.add, torch.add, "add")


@dataclass(frozen=True)
class Size(Rule):
    """A tensor's sizes: those before slicing, so that it takes no channel to know them."""

    data: fx.Node
    axis: int | None

    def sources(self, flow: Flow, mask: Tensor | None) -> list[Source]:  # noqa: ARG002
        """Return what is read to compute the channels of a mask."""
        return []

    def build(self, build: Builder, mask: Tensor | None) -> Any:  # noqa: ARG002
        """Return the new node."""
        shape = build.flow.shape(self.data)
        assert shape is not None  # a size is that of a tensor
        sizes = build.sizes(shape)
        return tuple(sizes) if self.axis is None else sizes[self.axis]


@dataclass(frozen=True)
class Item(Rule):
    """An element of a tuple."""

    data: fx.Node
    index: int

    def build(self, build: Builder, mask: Tensor | None) -> Any:  # noqa: ARG002
        """Return the new node."""
        given = build.arg(self.data)
        if isinstance(given, tuple):
            return given[self.index]
        return build.graph.call_function(operator.getitem, (given, self.index))


@dataclass(frozen=True)
class Channelwise(Rule):
    """An operation on one tensor of which every channel of the output is made from one of the input.

    Parameters
    ----------
    node, data : the operation and the tensor that it reads
    axes : of the channels, in the input and in the output
    origin : (channels out,) the input's channel that each is made from
    constant : what it makes of constants (channels in,); NaN where the result varies
    make : builds the new node from the new input and the channels in their order; None hands the input on
    """

    data: fx.Node
    axes: tuple[int, int]
    origin: Tensor
    constant: Callable[[Tensor], Tensor]
    make: Callable[[Builder, Any, Tensor], Any] | None
    alike = True

    def state(self, flow: Flow) -> State:
        """Return what is known of the output."""
        values = self.constant(flow.values(self.data, self.axes[0]))[self.origin]
        return State(self.axes[1], torch.where(values.isfinite(), values, torch.nan))

    def _read(self, mask: Tensor, count: int) -> Tensor:
        read = torch.zeros(count, dtype=torch.bool)
        read[self.origin[mask]] = True
        return read

    def present(self, flow: Flow, needed: Tensor) -> Tensor:
        """Return the channels that are computed when some are needed."""
        # A channel that becomes several is read once, and all of them are there.
        read = self._read(needed, int(self.origin.max()) + 1)
        values = flow.states[self.node].values
        assert values is not None  # as `state` says
        repeated = self.make is not None and len(self.origin.unique()) < len(self.origin)
        return read[self.origin] & values.isnan() if repeated else needed

    def sources(self, flow: Flow, mask: Tensor | None) -> list[Source]:
        """Return what is read to compute the channels of a mask."""
        shape = flow.shape(self.data)
        assert shape is not None  # the rule is for tensors
        mask = torch.ones_like(self.origin, dtype=torch.bool) if mask is None else mask
        return [(self.data, self.axes[0], self._read(mask, shape.sizes[self.axes[0]]))]

    def build(self, build: Builder, mask: Tensor | None) -> Any:
        """Return the new node."""
        assert mask is not None  # as `state` gives an axis
        want = build.order(self.node, mask)
        new = build.take(self.data, self.axes[0], self.origin[want].unique_consecutive())
        return new if self.make is None else self.make(build, new, want)


class Rescaled(Channelwise):
    """A normalisation by numbers that are known, of which no gradient needs the output."""

    writable = True


@dataclass(frozen=True)
class Joined(Rule):
    """An elementwise operation on two operands, of which the channels lie side by side.

    Parameters
    ----------
    node : the operation
    operands : two: a tensor's node with the axis of its channels, a tensor that is the same for all channels
        (axis None), or a number
    axis : of the channels of the output
    function : the same operation on numbers
    """

    operands: tuple[tuple[Any, int | None], tuple[Any, int | None]]
    axis: int
    channels: int
    function: Callable[[Any, Any], Any]
    alike = True

    def _values(self, flow: Flow) -> list[Tensor]:
        found = []
        for value, axis in self.operands:
            if axis is not None:
                found.append(flow.values(value, axis))
            else:
                number = torch.nan if isinstance(value, fx.Node) else float(value)
                found.append(torch.full((self.channels,), number, dtype=torch.float64))
        return found

    def state(self, flow: Flow) -> State:
        """Return what is known of the output."""
        one, two = self._values(flow)
        out = self.function(one, two)
        if self.function is operator.mul:
            out = torch.where((one == 0) | (two == 0), 0.0, out)
        return State(self.axis, torch.where(out.isfinite(), out, torch.nan))

    def sources(self, flow: Flow, mask: Tensor | None) -> list[Source]:
        """Return what is read to compute the channels of a mask."""
        mask = torch.ones(self.channels, dtype=torch.bool) if mask is None else mask
        some = bool(mask.any())
        return [
            (value, axis, mask if axis is not None else None)
            for value, axis in self.operands
            if isinstance(value, fx.Node) and some and not isinstance(flow.trace.shapes.get(value), Static)
        ]

    def build(self, build: Builder, mask: Tensor | None) -> Any:
        """Return the new node."""
        assert mask is not None  # as `state` gives an axis
        want = build.order(self.node, mask)
        if (found := self.uneven(build.flow, mask)) is not None:
            return self._scattered(build, want, *found)
        new = [
            build.take(value, axis, want) if axis is not None else build.arg(value)
            for value, axis in self.operands
        ]
        return build.graph.create_node(self.node.op, self.node.target, tuple(new), {})

    def uneven(self, flow: Flow, mask: Tensor) -> tuple[fx.Node, fx.Node, Tensor] | None:
        """Return the side of a sum that has all channels of a mask, the other, and the channels that has.

        None if it is no sum of tensors of one shape, or both sides have all or neither has.
        """
        shapes = {flow.shape(value) for value, _ in self.operands}
        if self.node.target not in ADDITIONS or len(shapes) != 1:
            return None
        values = self._values(flow)
        for base, other in ((0, 1), (1, 0)):
            there = mask & values[other].isnan()
            if not bool((mask & ~values[base].isnan()).any()) and not torch.equal(there, mask):
                return self.operands[base][0], self.operands[other][0], there
        return None

    def _scattered(self, build: Builder, want: Tensor, base: fx.Node, part: fx.Node, there: Tensor) -> Any:
        """Add a tensor that lacks channels, because they are constant, to one that has all."""
        out = build.take(base, self.axis, want)
        has = there[want]
        if bool(has.any()):
            added = build.take(part, self.axis, want[has])
            out = build.scatter(base, out, self.axis, has.nonzero().flatten(), added)
        values = build.flow.values(part, self.axis)[want]
        return build.shift(build.flow.shape(self.node), out, self.axis, torch.where(has, 0.0, values))


@dataclass(frozen=True)
class Cat(Rule):
    """Tensors laid end to end along their channels."""

    parts: Sequence[fx.Node]
    axis: int
    alike = True

    def _sizes(self, flow: Flow) -> list[int]:
        return [shape.sizes[self.axis] for part in self.parts if (shape := flow.shape(part)) is not None]

    def state(self, flow: Flow) -> State:
        """Return what is known of the output."""
        return State(self.axis, torch.cat([flow.values(part, self.axis) for part in self.parts]))

    def sources(self, flow: Flow, mask: Tensor | None) -> list[Source]:
        """Return what is read to compute the channels of a mask."""
        sizes = self._sizes(flow)
        mask = torch.ones(sum(sizes), dtype=torch.bool) if mask is None else mask
        return [(p, self.axis, m) for p, m in zip(self.parts, mask.split(sizes), strict=True)]

    def build(self, build: Builder, mask: Tensor | None) -> Any:
        """Return the new node."""
        assert mask is not None  # as `state` gives an axis
        sizes = self._sizes(build.flow)
        read, taken, copied, start = [], [], 0, 0
        for part, wanted in zip(self.parts, mask.split(sizes), strict=True):
            if bool(wanted.any()):
                have = build.order(part, build.there(part, self.axis, wanted))
                copied += side_by_side(wanted[have].nonzero().flatten()) is None
                read.append((part, have, build.order(part, wanted), start))
            start += len(wanted)
        # Where several parts are there with more than is wanted, one choice behind the join is faster.
        new = []
        for part, have, wanted, start in read:
            chosen = have if copied > 1 else wanted
            new.append(build.take(part, self.axis, chosen))
            taken.append(chosen + start)
        out = new[0] if len(new) == 1 else build.graph.call_function(torch.cat, (new, self.axis))
        want = build.order(self.node, mask)
        return build.part(build.flow.shape(self.node), out, self.axis, torch.cat(taken), want)


@dataclass(frozen=True)
class CatElsewhere(Rule):
    """Tensors laid end to end along another axis than that of their channels."""

    parts: Sequence[fx.Node]
    axis: int
    along: int
    alike = True

    def state(self, flow: Flow) -> State:
        """Return what is known of the output."""
        every = torch.stack([flow.values(part, self.axis) for part in self.parts])
        return State(self.axis, torch.where((every == every[0]).all(0), every[0], torch.nan))

    def sources(self, flow: Flow, mask: Tensor | None) -> list[Source]:  # noqa: ARG002
        """Return what is read to compute the channels of a mask."""
        return [(part, self.axis, mask) for part in self.parts]

    def build(self, build: Builder, mask: Tensor | None) -> Any:
        """Return the new node."""
        assert mask is not None  # as `state` gives an axis
        want = build.order(self.node, mask)
        new = [build.take(part, self.axis, want) for part in self.parts]
        return build.graph.call_function(torch.cat, (new, self.along))


def unchanged(values: Tensor) -> Tensor:
    """Return constants that an operation leaves as they are.

    Examples
    --------
    >>> unchanged(torch.tensor([0.0, 2.0]))
    tensor([0., 2.])
    """
    return values


def zero_alone(values: Tensor) -> Tensor:
    """Return constants of which an operation leaves 0 alone at 0, and makes any other vary.

    Examples
    --------
    >>> zero_alone(torch.tensor([0.0, 2.0]))
    tensor([0., nan])
    """
    return torch.where(values == 0, values, torch.nan)


def repeated(shape: Shape, axis: int) -> Tensor:
    """Return for each feature of a flattened tensor the channel it comes from.

    Examples
    --------
    >>> repeated(Shape((2, 2, 3), (True, False, False), True), 1)
    tensor([0, 0, 0, 1, 1, 1])
    """
    each = 1
    for size in shape.sizes[axis + 1 :]:
        each *= size
    return torch.arange(shape.sizes[axis]).repeat_interleave(each)
