"""In which order a tensor's channels lie, so that what is read of it lies side by side."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, fx

from nadkit.slicing.flow import Flow
from nadkit.slicing.rules import CatElsewhere, Channelwise, Joined
from nadkit.slicing.weighted import Dense, Grouped

_MOST = 6  # kinds of channels of which every order is tried: 720


class _Request(NamedTuple):
    """Of the channels that are there, those that are read together, (channels,) bool."""

    there: Tensor
    read: Tensor


def ranks(flow: Flow) -> dict[fx.Node, Tensor]:
    """Return a rank for each channel of the tensors whose channels may lie in any order, (channels,).

    Tensors that are added, or made of each other channel by channel, share one order; weights follow it at
    no cost. Tensors that are joined end to end, flattened or read by an operation that is not known stay in
    their natural order. Where a sum's two sides have different channels, the order is sought in which those
    that both have lie side by side: they are then a view, not a copy.

    Parameters
    ----------
    flow : what is computed
    """
    group = {node: node for node in flow.computed}
    fixed: set[fx.Node] = set()

    def leader(node: fx.Node) -> fx.Node:
        while group[node] is not node:
            node = group[node]
        return node

    for node in flow.live:
        rule = flow.rules[node]
        for source, axis, _ in rule.sources(flow, flow.computed.get(node)):
            if source not in group:
                continue
            if axis != flow.states[source].axis or not isinstance(rule, Channelwise | Joined | CatElsewhere | Dense | Grouped):
                fixed.add(leader(source))
            elif _same_channels(flow, node):
                one, two = leader(source), leader(node)
                group[one] = two
                if one in fixed:
                    fixed.add(two)
            elif not isinstance(rule, Dense):
                fixed |= {leader(source), leader(node)}
        if node in group and not _same_channels(flow, node) and not isinstance(rule, Dense):
            fixed.add(leader(node))
    wishes: dict[fx.Node, list[_Request]] = {}
    for node in flow.computed:
        if leader(node) not in fixed:
            wishes.setdefault(leader(node), []).extend(_requests(flow, node))
    found = {top: _best(requests) for top, requests in wishes.items() if requests}
    return {node: found[leader(node)] for node in flow.computed if leader(node) in found}


def _same_channels(flow: Flow, node: fx.Node) -> bool:
    """Tell whether channel k of the output is made of channel k of what is read."""
    rule = flow.rules[node]
    if isinstance(rule, Channelwise):
        given = flow.values(rule.data, rule.axes[0])
        return torch.equal(rule.origin, torch.arange(len(given)))
    if isinstance(rule, Grouped):
        return rule.module.groups == rule.module.in_channels == rule.module.out_channels
    return isinstance(rule, Joined | CatElsewhere)


def _requests(flow: Flow, node: fx.Node) -> list[_Request]:
    rule, mask = flow.rules[node], flow.computed[node]
    if isinstance(rule, Channelwise) and rule.data in flow.computed:
        return [_Request(flow.computed[rule.data], mask)]
    if isinstance(rule, Joined) and (found := rule.uneven(flow, mask)) is not None:
        _, part, there = found
        return [_Request(mask, there), *([_Request(flow.computed[part], there)] if part in flow.computed else [])]
    return []


def _best(requests: Sequence[_Request]) -> Tensor:
    """Return the ranks with which the most requests lie side by side; the natural order among equals."""
    kinds = torch.stack([mask for request in requests for mask in request], 1)
    patterns, kind = kinds.unique(dim=0, return_inverse=True)

    def apart(order: Sequence[int]) -> int:
        rows = patterns[list(order)]
        return sum(_broken(rows[:, 2 * k], rows[:, 2 * k + 1]) for k in range(len(requests)))

    start = list(range(len(patterns)))
    if len(start) <= _MOST:
        best = min(itertools.permutations(start), key=apart)
    else:
        best = tuple(_climbed(start, apart))
    if apart(best) == len(requests):
        return torch.arange(len(kind))
    place = torch.empty(len(best), dtype=torch.long)
    place[list(best)] = torch.arange(len(best))
    return place[kind] * len(kind) + torch.arange(len(kind))


def _broken(there: Tensor, read: Tensor) -> bool:
    places = read[there].nonzero().flatten()
    return len(places) > 0 and int(places[-1] - places[0]) + 1 > len(places)


def _climbed(order: list[int], apart: Callable[[Sequence[int]], int]) -> list[int]:
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
