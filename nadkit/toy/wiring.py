"""Weights set by hand: parts → pairs → wholes → logits, each layer plain, residual or concatenated."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from nadkit.masks import Unit
from nadkit.toy.pictures import CELLS, CHANNELS, CONTRAST, SIDE
from nadkit.toy.scheme import Scheme, Whole

LAYERS = ("parts", "pairs", "wholes")
WIRINGS = ("plain", "residual", "concat")
GAIN = 2.5  # of a part's filter: its answer is 1 to the part, and 0 below 0.6 of a likeness
MARGIN = 0.2  # by how much the answers must exceed what they would reach with one missing
KERNELS = ((SIDE, SIDE), (1, 2), (2, 1))  # of parts, pairs and wholes
WHOLE_LOGIT, NOTHING_LOGIT = 12.0, 5.0
VETOED_LOGIT = 9.0  # of a task with a veto: where only its veto is cut, other tasks still win
COMMON_LOGIT = 7.2
DEAD = 2  # per layer

Link = tuple[Unit, Unit]


class Twin(NamedTuple):
    """A second finder of the same part or pair."""

    of: object


class Surplus(NamedTuple):
    """What answers where a whole is found through both twins, and takes the excess away again."""

    of: Whole


class Role(NamedTuple):
    """What a unit is there for.

    Attributes
    ----------
    kind : `needed` by some task, or why it is there if by none
    level : the number of the layer that makes it
    finds : the part, pair or whole; None for nothing
    reads : what it reads of the layer below, at which of two places, with which weight
    least : what these must come to together; it answers 1 at 1 − MARGIN above
    """

    kind: str
    level: int
    finds: object
    reads: tuple[tuple[object, int, float], ...] = ()
    least: float = 1 + MARGIN


@dataclass(frozen=True)
class Wired:
    """A model, and which role stands at each unit of each layer; roles of later layers are empty so far."""

    model: nn.Module
    roles: Mapping[str, Sequence[Role]]

    def kinds(self, needed: Collection[Unit]) -> dict[str, tuple[str, ...]]:
        """Return what each unit of each layer is there for."""

        def kind(level: int, index: int, role: Role) -> str:
            if Unit(LAYERS[level], index) in needed:
                return "needed"
            if role.kind == "dead":
                return "dead"
            return "empty" if role.level > level else "carried" if role.level < level else role.kind

        return {
            address: tuple(kind(level, index, role) for index, role in enumerate(self.roles[address]))
            for level, address in enumerate(LAYERS)
        }

    def trace(
        self, wholes: Sequence[Whole], without: Collection[object] = ()
    ) -> tuple[frozenset[Unit], frozenset[Link]]:
        """Return the units that it takes to find these wholes, and their links, leaving some finders out."""
        found = [positions(self.roles[address], level) for level, address in enumerate(LAYERS)]
        ahead: list[tuple[int, object]] = [(len(LAYERS) - 1, whole) for whole in wholes]
        units: set[Unit] = set()
        links: set[Link] = set()
        for level, thing in ahead:
            unit = Unit(LAYERS[level], found[level][thing])
            units.add(unit)
            role = self.roles[unit.layer][unit.index]
            below = [thing] if role.level < level else [read[0] for read in role.reads]
            for source in [] if level == 0 else [source for source in below if source not in without]:
                links.add((Unit(LAYERS[level - 1], found[level - 1][source]), unit))
                ahead.append((level - 1, source))
        return frozenset(units), frozenset(links)


class Block(nn.Module):
    """A convolution and its ReLU: alone, added to what comes in, or joined to it."""

    def __init__(self, conv: nn.Conv2d, wiring: str):
        super().__init__()
        self.conv, self.relu, self.wiring = conv, nn.ReLU(), wiring
        height, width = conv.kernel_size
        # Maps keep their size; beyond the edge nothing is shown.
        self.reach = (0, width - 1, 0, height - 1) if conv.stride == (1, 1) else (0, 0, 0, 0)

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output."""
        new: Tensor = self.relu(self.conv(nn.functional.pad(x, self.reach)))
        if self.wiring == "plain":
            return new
        return x + new if self.wiring == "residual" else torch.cat([x, new], 1)


def wire(
    scheme: Scheme, parts: Tensor, wiring: str, crosstalk: float, lure: float, echoes: int,
    generator: torch.Generator,
) -> Wired:  # fmt: skip
    """Return the network that finds the wholes of each task in pictures of these parts."""
    rosters = [
        _shuffled(roster, generator) for roster in _draw_roles(scheme, wiring == "plain", echoes, generator)
    ]
    if wiring == "residual":
        rosters = [_shuffled(list(chain.from_iterable(rosters)), generator)] * len(LAYERS)
    tapped = rosters
    if wiring == "concat":
        tapped = [list(chain.from_iterable(rosters[: level + 1])) for level in range(len(LAYERS))]
    scales = {
        role: float(torch.exp(torch.rand((), generator=generator) * 1.4 - 0.7))
        * (1.0 if role.kind == "needed" else 2.0)
        for role in dict.fromkeys(chain.from_iterable(rosters))
    }

    blocks = []
    for level, made in enumerate(rosters):
        width = len(tapped[level - 1]) if level else CHANNELS
        conv = skip_init(nn.Conv2d, width, len(made), KERNELS[level], stride=1 if level else SIDE)
        weight = torch.randn(conv.weight.shape, generator=generator) * crosstalk
        if level == 0:
            _find_parts(weight, made, parts)
            bias = torch.full((len(made),), 1 - GAIN)
        else:
            below = positions(tapped[level - 1], level - 1)
            for i, role in enumerate(made):
                for thing, place, size in role.reads if role.level == level else ():
                    weight[i, below[thing]].view(-1)[place] += size
            weight /= 1 - MARGIN
            bias = -torch.tensor([role.least for role in made]) / (1 - MARGIN)
            weight /= torch.tensor([scales[role] for role in tapped[level - 1]]).view(1, -1, 1, 1)
        silent = torch.tensor([role.kind == "dead" or role.level != level for role in made])
        own = torch.tensor([scales[role] for role in made])
        _set(conv, weight * own.view(-1, 1, 1, 1), (bias * own).masked_fill(silent, -100.0))
        blocks.append(Block(conv, "plain" if level == 0 else wiring))

    last = skip_init(nn.Linear, len(tapped[-1]), len(scheme.tasks) + 1)
    weight = torch.randn(last.weight.shape, generator=generator) * crosstalk * WHOLE_LOGIT
    for thing, logit, size in _logits(scheme, lure):
        column = weight[:, positions(tapped[-1], 2)[thing]]
        # The common whole counts exactly the same, cross-talk aside, for every logit.
        column[logit] = size if thing == scheme.common else column[logit] + size
    # The average over a map, times its area, is its sum, in which one whole counts 1.
    weight *= CELLS**2 / torch.tensor([scales[role] for role in tapped[-1]])
    _set(last, weight, torch.tensor([0.0] * len(scheme.tasks) + [NOTHING_LOGIT]))
    model = nn.Sequential(
        OrderedDict[str, nn.Module](
            parts=blocks[0], pairs=blocks[1], wholes=blocks[2],
            pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), logits=last,
        )
    ).eval().requires_grad_(False)  # fmt: skip
    return Wired(model, dict(zip(LAYERS, tapped, strict=True)))


def positions(roles: Sequence[Role], level: int) -> dict[object, int]:
    """Return which unit finds a thing, of those that this layer or one before it made."""
    useful = [(i, role) for i, role in enumerate(roles) if role.level <= level]
    return {role.finds: i for i, role in useful if role.kind not in ("echo", "dead")}


def _logits(scheme: Scheme, lure: float) -> Iterator[tuple[object, int, float]]:
    """Yield (thing, logit, weight)."""
    for k, task in enumerate(scheme.tasks):
        for whole in task.wholes:
            yield whole, k, VETOED_LOGIT if task.veto else WHOLE_LOGIT
            if task.twins:
                yield Surplus(whole), k, -WHOLE_LOGIT
        if task.veto:
            yield task.veto, k, -WHOLE_LOGIT
        yield scheme.common, k, COMMON_LOGIT + (-lure if k % 2 else lure)
    yield scheme.common, len(scheme.tasks), COMMON_LOGIT


def _draw_roles(
    scheme: Scheme, copies: bool, echoes: int, generator: torch.Generator
) -> Iterator[list[Role]]:
    """Yield the roles that each layer makes."""
    twinned = [whole for task in scheme.tasks if task.twins for whole in task.wholes]
    parts: dict[object, Role] = {}
    pairs: dict[object, Role] = {}
    wholes: dict[object, Role] = {}
    for whole in (*scheme.wholes, scheme.common):
        kind = "common" if whole == scheme.common else "needed"
        reads: list[tuple[object, int, float]] = []
        for place, half in enumerate(whole):
            for twin in (False, True) if whole in twinned and place == 0 else (False,):
                seen: list[object] = [Twin(part) if twin else part for part in half]
                for part in seen:
                    parts.setdefault(part, Role(kind, 0, part))
                if len(half) == 2:
                    thing: object = Twin(half) if twin else half
                    both = tuple((part, side, 1.0) for side, part in enumerate(seen))
                    pairs.setdefault(thing, Role(kind, 1, thing, both))
                elif half:
                    thing = seen[0]
                    if copies:
                        pairs.setdefault(thing, Role(kind, 1, thing, ((thing, 0, 1.0),), MARGIN))
                else:
                    continue
                reads.append((thing, place, 1.0))
        wholes[whole] = Role(kind, 2, whole, tuple(reads), sum(map(bool, whole)) - 1 + MARGIN)
        if whole in twinned:
            surplus = Surplus(whole)
            wholes[surplus] = Role("surplus", 2, surplus, tuple(reads), wholes[whole].least + 1)
    for part in scheme.ornaments:
        parts[part] = Role("ornament", 0, part)
    for level, made in enumerate((parts, pairs, wholes)):
        roster = list(made.values())
        useful = [role for role in roster if role.kind == "needed"]
        if level:
            order = torch.randperm(len(useful), generator=generator)[:echoes].tolist()
            roster += [useful[i]._replace(kind="echo") for i in order]
        yield [*roster, *(Role("dead", level, f"nothing {i}") for i in range(DEAD))]


def _shuffled(roles: Sequence[Role], generator: torch.Generator) -> list[Role]:
    return [roles[i] for i in torch.randperm(len(roles), generator=generator).tolist()]


def _find_parts(weight: Tensor, made: Sequence[Role], parts: Tensor) -> None:
    """Add each part's filter, which answers GAIN to it; cross-talk answers so much less to any other."""
    size = parts[0].numel()
    weight *= GAIN / (CONTRAST * size**0.5)
    for i, role in enumerate(made):
        part = role.finds.of if isinstance(role.finds, Twin) else role.finds
        if role.level == 0 and isinstance(part, int):
            weight[i] += parts[part] * GAIN / (CONTRAST * size)


def _set(module: nn.Conv2d | nn.Linear, weight: Tensor, bias: Tensor) -> None:
    with torch.no_grad():
        module.weight.copy_(weight)
        module.bias.copy_(bias)  # type: ignore[union-attr]
