"""What is known of every channel: forward, which are constant; backward, which anybody reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, fx

from nadkit.slicing.tracing import Shape, Static, Trace

if TYPE_CHECKING:
    from nadkit.slicing.build import Builder


class State(NamedTuple):
    """What is known of a tensor: the axis of its channels, and the value of those that are constant.

    A value is the same for all samples and positions; NaN stands for a channel that varies. Without an axis
    the tensor is taken as a whole: all of it varies, and all of it is computed if any is read.
    """

    axis: int | None
    values: Tensor | None  # (channels,) float64


WHOLE = State(None, None)

Source = tuple[fx.Node, int | None, Tensor | None]
"""A node, an axis of its tensor and the channels read there; no axis for all of it."""


@dataclass(frozen=True)
class Rule:
    """How one operation treats channels; made for one node, when its inputs' states are known.

    This one is that of an operation about which nothing is known: it reads all of its inputs, and all of its
    output is computed.

    Parameters
    ----------
    node : the operation

    Attributes
    ----------
    alike : a channel of the output is made from the same channels of the inputs alone
    writable : no gradient needs the output, so that what reads it alone may write into it
    """

    node: fx.Node
    alike: ClassVar[bool] = False
    writable: ClassVar[bool] = False

    def state(self, flow: Flow) -> State:  # noqa: ARG002
        """Return what is known of the output."""
        return WHOLE

    def present(self, flow: Flow, needed: Tensor) -> Tensor:  # noqa: ARG002
        """Return the channels that are computed when some are needed; they are all among the varying ones."""
        return needed

    def sources(self, flow: Flow, mask: Tensor | None) -> list[Source]:  # noqa: ARG002
        """Return what is read to compute the channels of a mask (None: all), constant channels included."""
        shapes = flow.trace.shapes
        return [(n, None, None) for n in self.node.all_input_nodes if not isinstance(shapes.get(n), Static)]

    def build(self, build: Builder, mask: Tensor | None) -> Any:  # noqa: ARG002
        """Return the new node that gives the channels of a mask, in `Builder.order`; None for all of it."""
        if self.node.op == "placeholder":
            return build.graph.placeholder(str(self.node.target))
        if self.node.op == "get_attr":
            return build.attribute(self.node)
        return build.copy(self.node, build.arg(self.node.args), build.arg(self.node.kwargs))


class Flow:
    """The states of all nodes of a trace, and the channels of each that an export computes.

    Parameters
    ----------
    trace : operations and gates
    rule_of : makes the rule of a node, asked in forward order
    """

    def __init__(self, trace: Trace, rule_of: Callable[[fx.Node, Flow], Rule]):
        self.trace = trace
        self.states: dict[fx.Node, State] = {}
        self.rules: dict[fx.Node, Rule] = {}
        for node in trace.graph.nodes:
            self.rules[node] = rule_of(node, self)
            self.states[node] = self.rules[node].state(self)
        self.live: set[fx.Node] = set()
        self.needed: dict[fx.Node, Tensor] = {}
        self.computed: dict[fx.Node, Tensor] = {}
        for node in reversed(list(trace.graph.nodes)):
            if node.op == "output":
                self.live.add(node)
            if node not in self.live:
                continue
            mask = None
            if self.states[node].values is not None:
                mask = self.computed[node] = self.rules[node].present(self, self.needed[node])
            for source in self.rules[node].sources(self, mask):
                self._want(*source)

    def _want(self, node: fx.Node, axis: int | None, mask: Tensor | None) -> None:
        state = self.states[node]
        if state.values is None:
            if mask is None or bool(mask.any()):
                self.live.add(node)
            return
        varying = state.values.isnan()
        wanted = varying if mask is None or axis != state.axis else varying & mask
        if bool(wanted.any()):
            self.live.add(node)
            self.needed[node] = self.needed.get(node, torch.zeros_like(varying)) | wanted

    def shape(self, node: object) -> Shape | None:
        """Return the shape of a node's tensor, None for anything else."""
        found = self.trace.shapes.get(node) if isinstance(node, fx.Node) else None
        return found if isinstance(found, Shape) else None

    def values(self, node: fx.Node, axis: int) -> Tensor:
        """Return the constants (channels,) on an axis of a node's tensor, NaN where it varies."""
        state = self.states[node]
        if state.values is not None and state.axis == axis:
            return state.values
        shape = self.shape(node)
        assert shape is not None  # a rule asks for channels of tensors alone
        return torch.full((shape.sizes[axis],), torch.nan, dtype=torch.float64)

    def origins(
        self, node: fx.Node, mask: Tensor, seen: set[tuple[object, ...]] | None = None
    ) -> Iterable[tuple[fx.Node, Tensor]]:
        """Yield the gates, with their units, that made constants of a node's channels.

        Parameters
        ----------
        node, mask : a tensor, and its channels
        seen : what was yielded for already; `x * sigmoid(x)` leads to x twice, and a row of them many times
        """
        state = self.states[node]
        if state.values is None:
            return
        mask = mask & ~state.values.isnan()
        seen = set() if seen is None else seen
        if not bool(mask.any()) or (key := (node, *mask.tolist())) in seen:
            return
        seen.add(key)
        if node in self.trace.gates:
            removed = self.trace.gates[node][2] == 0
            if bool((mask & removed).any()):
                yield node, mask & removed
            mask = mask & ~removed
        for source, axis, read in self.rules[node].sources(self, mask):
            if axis is not None and axis == self.states[source].axis and read is not None:
                yield from self.origins(source, read, seen)

    def spent(
        self, node: fx.Node, mask: Tensor | None, seen: set[tuple[object, ...]] | None = None
    ) -> Iterable[fx.Node]:
        """Yield the operations that compute channels of a mask (None: all) although nobody needs them.

        Parameters
        ----------
        node, mask : a tensor, and its channels
        seen : what was yielded for already, as in `origins`
        """
        state, rule = self.states[node], self.rules[node]
        if state.values is None:
            yield node
            return
        mask = torch.ones_like(state.values, dtype=torch.bool) if mask is None else mask
        if node in self.needed:
            mask = mask & ~self.needed[node]
        seen = set() if seen is None else seen
        if (key := (node, *mask.tolist())) in seen:
            return
        seen.add(key)
        if not rule.alike:
            if node in self.computed and bool((mask & self.computed[node]).any()):
                yield node
            return
        for source, axis, read in rule.sources(self, mask & state.values.isnan()):
            if read is None or bool(read.any()):
                yield from self.spent(source, read if axis == self.states[source].axis else None, seen)
