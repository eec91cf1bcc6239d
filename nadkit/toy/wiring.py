"""Weights set by hand: parts → pairs → wholes → logits."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nadkit.masks import Unit
from nadkit.toy.pictures import (
    CELLS,
    CHANNELS,
    COMMON,
    CONTRAST,
    ORNAMENTS,
    PARTS,
    ROOM,
    SIDE,
    TASKS,
    WHOLES,
    Whole,
)

LAYERS = ("parts", "pairs", "wholes")
GAIN = 2.5  # of a part's filter: its answer is 1 to the part, and 0 below 0.6 of a likeness
BOTH = 1.2  # what two answers of 1 must exceed together
WHOLE_LOGIT, NOTHING_LOGIT = 12.0, 5.0
COMMON_LOGIT = 7.2
_ECHOES, _DEAD = 3, 2  # per layer


class Role(NamedTuple):
    """What a unit is there for: its kind, and the part, pair or whole that it finds (None: nothing)."""

    kind: str
    finds: object


@dataclass(frozen=True)
class Wired:
    """A model, the role of each unit of each layer, and for every layer the unit that finds a thing."""

    model: nn.Module
    roles: Mapping[str, tuple[Role, ...]]
    found_by: Mapping[str, Mapping[object, int]]

    def units(self, wholes: Sequence[Whole]) -> frozenset[Unit]:
        """Return the units that it takes to find these wholes."""
        pairs = [pair for whole in wholes for pair in whole]
        parts = [part for pair in pairs for part in pair]
        things: tuple[Sequence[object], ...] = (parts, pairs, wholes)
        return frozenset(
            Unit(address, self.found_by[address][thing])
            for address, found in zip(LAYERS, things, strict=True)
            for thing in found
        )


def wire(parts: Tensor, crosstalk: float, generator: torch.Generator) -> Wired:
    """Return the network that finds the wholes of each task in pictures of these parts."""
    rosters = _draw_roles(generator)
    found_by = {
        address: {role.finds: i for i, role in enumerate(roster) if role.kind not in ("echo", "dead")}
        for address, roster in zip(LAYERS, rosters, strict=True)
    }
    counts = [len(roster) for roster in rosters]

    first = nn.Conv2d(CHANNELS, counts[0], SIDE)
    size = CHANNELS * SIDE**2
    # Divided by what is shown: a filter answers GAIN to its own part, and cross-talk times GAIN to any other.
    weight = torch.randn(first.weight.shape, generator=generator) * crosstalk * GAIN / (CONTRAST * size**0.5)
    for i, role in enumerate(rosters[0]):
        if isinstance(role.finds, int):
            weight[i] += parts[role.finds] * GAIN / (CONTRAST * size)
    # Pictures are 0.5 where they show nothing; that must not count.
    _set(first, weight, 1 - GAIN - 0.5 * weight.sum((1, 2, 3)))

    second = nn.Conv2d(counts[0], counts[1], (1, SIDE + 1))
    third = nn.Conv2d(counts[1], counts[2], (SIDE + 1, 1))
    for conv, below, roster in ((second, "parts", rosters[1]), (third, "pairs", rosters[2])):
        weight = torch.randn(conv.weight.shape, generator=generator) * crosstalk
        for i, role in enumerate(roster):
            if isinstance(role.finds, tuple):
                for place, thing in zip((0, SIDE), role.finds, strict=True):
                    weight[i, found_by[below][thing]].view(-1)[place] += 1
        _set(conv, weight / (2 - BOTH), torch.full((len(roster),), -BOTH / (2 - BOTH)))

    last = nn.Linear(counts[2], TASKS + 1)
    weight = torch.randn(last.weight.shape, generator=generator) * crosstalk
    for task, wholes in enumerate(WHOLES):
        for whole in wholes:
            weight[task, found_by["wholes"][whole]] += 1
    weight[:, found_by["wholes"][COMMON]] = COMMON_LOGIT / WHOLE_LOGIT  # exactly the same for every logit
    area = (CELLS * SIDE + ROOM - 2 * SIDE + 1) ** 2
    # The average over a map, times its area, is its sum, in which one whole counts 1.
    _set(last, weight * WHOLE_LOGIT * area, torch.tensor([0.0] * TASKS + [NOTHING_LOGIT]))

    _rescale(first, second, rosters[0], generator)
    _rescale(second, third, rosters[1], generator)
    _rescale(third, last, rosters[2], generator)
    model = nn.Sequential(
        OrderedDict[str, nn.Module](
            conv1=first, parts=nn.ReLU(), conv2=second, pairs=nn.ReLU(), conv3=third, wholes=nn.ReLU(),
            pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), logits=last,
        )
    ).eval().requires_grad_(False)  # fmt: skip
    return Wired(model, dict(zip(LAYERS, map(tuple, rosters), strict=True)), found_by)


def _draw_roles(generator: torch.Generator) -> list[list[Role]]:
    """Return the roles of all units, layer by layer, in random order."""
    wholes = [whole for task in WHOLES for whole in task]
    pairs = list(dict.fromkeys(pair for whole in wholes for pair in whole))

    def echoes(things: Sequence[object]) -> list[Role]:
        order = torch.randperm(len(things), generator=generator)[:_ECHOES].tolist()
        return [Role("echo", things[i]) for i in order]

    def kind(part: int) -> str:
        return "ornament" if part in ORNAMENTS else "common" if part in COMMON[0] else "needed"

    rosters = [
        [Role(kind(part), part) for part in range(PARTS)],
        [*(Role("needed", p) for p in pairs), Role("common", COMMON[0]), *echoes(pairs)],
        [*(Role("needed", w) for w in wholes), Role("common", COMMON), *echoes(wholes)],
    ]
    shuffled = []
    for roster in rosters:
        roster = roster + [Role("dead", None)] * _DEAD
        shuffled.append([roster[i] for i in torch.randperm(len(roster), generator=generator).tolist()])
    return shuffled


def _set(module: nn.Conv2d | nn.Linear, weight: Tensor, bias: Tensor) -> None:
    with torch.no_grad():
        module.weight.copy_(weight)
        module.bias.copy_(bias)  # type: ignore[union-attr]


def _rescale(
    conv: nn.Conv2d, after: nn.Conv2d | nn.Linear, roster: Sequence[Role], generator: torch.Generator
) -> None:
    """Scale each unit at random, the useless up, and let the next layer divide it out; silence the dead."""
    scale = torch.exp(torch.rand(len(roster), generator=generator) * 1.4 - 0.7)
    scale = scale * torch.tensor([1.0 if role.kind == "needed" else 2.0 for role in roster])
    dead = torch.tensor([role.kind == "dead" for role in roster])
    with torch.no_grad():
        conv.weight.mul_(scale.view(-1, 1, 1, 1))
        conv.bias.mul_(scale).masked_fill_(dead, -100.0)  # type: ignore[union-attr]
        after.weight.div_(scale.view(1, -1, *[1] * (after.weight.ndim - 2)))
