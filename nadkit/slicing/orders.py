"""In which order a tensor's channels lie, so that what is read of it lies side by side."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, fx

from nadkit.slicing.flow import Flow
from nadkit.slicing.rules import Cat, CatElsewhere, Channelwise, Joined
from nadkit.slicing.weighted import Dense, Grouped

_TRIED = 6  # kinds of channels of which every order is tried: 720
_MOST = 20  # kinds of channels that are ordered at all


class _Request(NamedTuple):
    """Of the channels that are there, those that are read together, (channels,) bool."""

    there: Tensor
    read: Tensor


class _Classes:
    """Tensors that share an order, and what is known of it."""

    def __init__(self, flow: Flow):
        self.flow = flow
        self.group = {node: node for node in flow.computed}
        self.fixed: set[fx.Node] = set()  # leaders of classes in their natural order
        self.cats: dict[fx.Node, Cat] = {}
        for node in flow.trace.graph.nodes:  # in their order: a file relies on the same result
            if node in flow.live:
                self._see(node)
        repeat = True
        while repeat:  # one class fixed may fix another
            before = len(self.fixed)
            made_by: dict[fx.Node, fx.Node] = {}
            for node, cat in self.cats.items():
                top = self.leader(node)
                if made_by.setdefault(top, node) is not node:
                    self.fixed.add(top)
                if top in self.fixed:
                    self.fixed |= {self.leader(part) for part in cat.parts if part in self.group}
            repeat = len(self.fixed) > before

    def leader(self, node: fx.Node) -> fx.Node:
        """Return the tensor that stands for all of its class."""
        while self.group[node] is not node:
            node = self.group[node]
        return node

    def _see(self, node: fx.Node) -> None:
        rule, flow = self.flow.rules[node], self.flow
        same = _same_channels(flow, node)
        if isinstance(rule, Cat) and node in self.group:
            self.cats[node] = rule
        elif node in self.group and not same and not isinstance(rule, Dense):
            self._fix(node)
        for source, axis, _ in rule.sources(flow, flow.computed.get(node)):
            if source not in self.group:
                continue
            if axis == flow.states[source].axis and same:
                one, two = self.leader(source), self.leader(node)
                self.group[one] = two
                if one in self.fixed:
                    self.fixed.add(two)
            elif axis != flow.states[source].axis or not isinstance(rule, Cat | Dense):
                self._fix(source)

    def _fix(self, node: fx.Node) -> None:
        self.fixed.add(self.leader(node))


def ranks(flow: Flow) -> dict[fx.Node, Tensor]:
    """Return a rank for each channel of the tensors whose channels may lie in any order, (channels,).

    Tensors that are added, or made of each other channel by channel, share one order; weights follow it at
    no cost. What is laid end to end follows its parts. Tensors that are flattened or read by an operation
    that is not known stay in their natural order. Where a sum's two sides have different channels, or a part
    of a tensor is read, the order is sought in which what is read lies side by side: then it is a view, not a
    copy.

    Parameters
    ----------
    flow : what is computed
    """
    classes = _Classes(flow)
    while True:
        wishes: dict[fx.Node, list[_Request]] = {}
        for node in flow.computed:
            for source, request in _requests(flow, node):
                if classes.leader(source) not in classes.fixed:
                    wishes.setdefault(classes.leader(source), []).append(request)
        made_by = {classes.leader(node): cat for node, cat in classes.cats.items()}
        found: dict[fx.Node, Tensor | None] = {}
        circular = next(
            (
                t
                for t in made_by
                if t not in classes.fixed and not _ranked(t, classes, made_by, wishes, found)
            ),
            None,
        )
        if circular is None:
            break
        classes.fixed.add(circular)
    for top in wishes:
        _ranked(top, classes, made_by, wishes, found)
    return {node: rank for node in flow.computed if (rank := found.get(classes.leader(node))) is not None}


def _ranked(
    top: fx.Node, classes: _Classes, made_by: Mapping[fx.Node, Cat],
    wishes: Mapping[fx.Node, Sequence[_Request]], found: dict[fx.Node, Tensor | None],
) -> bool:  # fmt: skip
    """Find the ranks of a class, after those that it is made of; return whether it is not made of itself."""
    if top in found:
        return found[top] is not None
    if top in classes.fixed or top not in made_by:
        channels = len(classes.flow.computed[top])
        found[top] = (
            _best(wishes[top]) if top in wishes and top not in classes.fixed else torch.arange(channels)
        )
        return True
    found[top] = None  # on the way
    parts, start = [], 0
    for part in made_by[top].parts:
        size = len(classes.flow.values(part, made_by[top].axis))
        rank = torch.arange(size)
        if part in classes.group:
            if not _ranked(classes.leader(part), classes, made_by, wishes, found):
                return False
            rank = cast("Tensor", found[classes.leader(part)])
        # Ranks of a class may have gaps.
        parts.append(rank.argsort().argsort() + start)
        start += size
    found[top] = torch.cat(parts)
    return True


def _same_channels(flow: Flow, node: fx.Node) -> bool:
    """Tell whether channel k of the output is made of channel k of what is read."""
    rule = flow.rules[node]
    if isinstance(rule, Channelwise):
        given = flow.values(rule.data, rule.axes[0])
        return torch.equal(rule.origin, torch.arange(len(given)))
    if isinstance(rule, Grouped):
        return rule.module.groups == rule.module.in_channels == rule.module.out_channels
    return isinstance(rule, Joined | CatElsewhere)


def _requests(flow: Flow, node: fx.Node) -> list[tuple[fx.Node, _Request]]:
    """Return of which tensors a node reads a part, or writes to one, and which."""
    rule, mask = flow.rules[node], flow.computed[node]
    reads: list[tuple[fx.Node, Tensor]] = []
    written = []
    if isinstance(rule, Joined) and (found := rule.uneven(flow, mask)) is not None:
        _, part, there = found
        reads, written = [(part, there)], [(node, _Request(mask, there))]
    elif isinstance(rule, Channelwise | Cat):
        reads = [(n, m) for n, a, m in rule.sources(flow, mask) if m is not None and a == flow.states[n].axis]
    return written + [
        (n, _Request(flow.computed[n], m & flow.computed[n])) for n, m in reads if n in flow.computed
    ]


def _best(requests: Sequence[_Request]) -> Tensor:
    """Return the ranks with which the most requests lie side by side; the natural order among equals."""
    while True:
        kinds = torch.stack([mask for request in requests for mask in request], 1)
        patterns, kind = kinds.unique(dim=0, return_inverse=True)
        if len(patterns) <= _MOST:
            break
        requests = requests[:-1]  # each may double the kinds, and the search takes their fourth power
    rows, natural = patterns.tolist(), torch.arange(len(kind))

    def apart(order: Iterable[int]) -> int:
        return _apart([rows[place] for place in order])

    start = list(range(len(rows)))
    few = len(start) <= _TRIED
    best = list(min(itertools.permutations(start), key=apart)) if few else _climbed(start, apart)
    if _apart(kinds.tolist()) <= apart(best):
        return natural
    place = torch.empty(len(best), dtype=torch.long)
    place[best] = torch.arange(len(best))
    return place[kind] * len(kind) + natural


def _apart(rows: Sequence[Sequence[bool]]) -> int:
    """Return how many requests do not lie side by side; a row says of each whether it is there and read."""
    count = 0
    for k in range(0, len(rows[0]), 2):
        read = [row[k + 1] for row in rows if row[k]]
        count += sum(one and not before for before, one in itertools.pairwise([False, *read])) > 1
    return count


def _climbed(order: list[int], apart: Callable[[Iterable[int]], int]) -> list[int]:
    """Move one kind at a time, as long as that helps."""
    score = apart(order)
    while score:
        moves = [
            [*rest[:to], order[at], *rest[to:]]
            for at in range(len(order))
            for rest in [order[:at] + order[at + 1 :]]
            for to in range(len(order))
        ]
        order_next = min(moves, key=apart)
        if apart(order_next) >= score:
            break
        order, score = order_next, apart(order_next)
    return order
