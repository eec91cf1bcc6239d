"""The conditions that `where` compares: which gates, on which pixels, read on which mosaics or pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from nadkit.masks import MaskSet
from nadkit.questions.depth.material import Material, read
from nadkit.questions.depth.profiles import Shares
from nadkit.questions.sets import seed_of

SHARE = 4
"""Each random draw sees one in so many of the mosaics' places or pictures; together they see all."""


def passes(material: Material, sets: Sequence[MaskSet], draws: int) -> int:
    """Return how often `shares_of` shows a mosaic or picture, up to rounding; for a progress bar."""
    places = int((material.tasks >= 0).sum())
    return places * len(sets) * (2 + len(material.controls)) + len(material.tasks) + draws * places // SHARE


def shares_of(
    material: Material, sets: Sequence[MaskSet], draws: int, seed: int, advance: Callable[[int], object]
) -> Iterator[Shares]:
    """Run every condition: kept, other, the material's own controls, whole, and random draws."""
    which, places = (material.tasks >= 0).nonzero(as_tuple=True)
    own = material.tasks[which, places]
    generator = torch.Generator().manual_seed(seed)
    others = other_tasks(material.tasks, len(sets[0]), generator)[which, places]
    asked = (others >= 0).nonzero().flatten()
    mask_seed = seed_of(sets)

    def collect(
        condition: str, gates: Sequence[Mapping[str, Tensor]], picked: Sequence[Tensor], rows: Tensor
    ) -> Shares:
        values = torch.full(
            (len(gates), *material.tasks.shape, len(material.network.layers)), torch.nan, dtype=torch.float64
        )
        for place, (gate, part) in enumerate(zip(gates, picked, strict=True)):
            found = read(material, condition, which[part], places[part], gate, rows[part], advance)
            values[place, which[part], places[part]] = found[torch.arange(len(part)), places[part]]
        return Shares(condition, values, sum(len(part) for part in picked), mask_seed)

    gates = [masks.gates() for masks in sets]
    everything = [torch.arange(len(own))] * len(sets)
    yield collect("kept", gates, everything, own)
    yield collect("other", gates, [asked] * len(sets), others)
    for condition in material.controls:
        yield collect(condition, gates, everything, own)
    alone = torch.arange(len(material.tasks))
    values = read(material, "whole", alone, torch.zeros_like(alone), None, None, advance)
    yield Shares("whole", torch.where(material.tasks[..., None] >= 0, values, torch.nan)[None], len(own))
    if draws:
        turns = _turns(own, generator)
        random = [sets[draw % len(sets)].random(seed + draw).gates() for draw in range(draws)]
        picked = [(turns == draw % SHARE).nonzero().flatten() for draw in range(draws)]
        yield replace(collect("random", random, picked, own), seed=seed, drawn=True)


def other_tasks(tasks: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return for each place another task at random, of no place of its mosaic if possible; -1 if none is."""
    if count < 2:
        return torch.full_like(tasks, -1)
    own = one_hot(tasks.clamp(min=0), count).bool() & (tasks >= 0)[..., None]
    present = own.any(1, keepdim=True)
    # The smallest number wins; tasks of the mosaic come after all others, the place's own task last.
    return (torch.rand(own.shape, generator=generator) + present.float() + own.float()).argmin(2)


def _turns(own: Tensor, generator: torch.Generator) -> Tensor:
    """Deal the places of every task out in turn, so that each draw sees a quarter of each task."""
    turns = torch.zeros_like(own)
    for task in own.unique():
        mine = (own == task).nonzero().flatten()
        turns[mine[torch.randperm(len(mine), generator=generator)]] = torch.arange(len(mine)) % SHARE
    return turns
