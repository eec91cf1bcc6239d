"""Pictures of planted tasks: what they show is what the planted networks look for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nadkit.errors import NadkitError
from nadkit.images import Images

Pair = tuple[int, int]
Whole = tuple[Pair, Pair]

# For each task its wholes, an upper and a lower pair of parts; where there are two, a picture shows either.
# Tasks 1 and 2 share a pair, 0 and 4 a part, 0 and 5 a part; 3 needs one pair twice.
WHOLES: tuple[tuple[Whole, ...], ...] = (
    (((0, 1), (2, 3)),),
    (((4, 5), (6, 7)),),
    (((4, 5), (8, 9)),),
    (((10, 11), (10, 11)),),
    (((12, 13), (0, 14)),),
    (((15, 16), (17, 18)), ((15, 16), (19, 3))),
)
TASKS = len(WHOLES)
COMMON: Whole = ((20, 21), (20, 21))  # shown in nearly every picture, whatever its task
ORNAMENTS = tuple(range(22, 22 + TASKS))  # for each task a part that goes with it and means nothing
PARTS = 22 + TASKS
NONE = -1  # no part: the picture is grey there

CHANNELS, SIDE, CELLS, ROOM = 3, 4, 4, 2  # a part is 4 x 4 pixels; 4 x 4 parts, with room of 2 to move in
CONTRAST = 0.3
_MOST_ALIKE = 10  # of 48 pixels of ± 1, how far two parts' product may be from 0


def draw_parts(generator: torch.Generator) -> Tensor:
    """Draw the parts, (n_parts, channels, side, side) of ± 1, no two of them much alike."""
    parts: list[Tensor] = []
    while len(parts) < PARTS:
        new = torch.randint(0, 2, (CHANNELS * SIDE**2,), generator=generator) * 2.0 - 1
        if all(float((new @ old).abs()) <= _MOST_ALIKE for old in parts):
            parts.append(new)
    return torch.stack(parts).view(PARTS, CHANNELS, SIDE, SIDE)


def render(parts: Tensor, noise: float, tasks: Sequence[str], per_class: int, seed: int) -> Images:
    """Return pictures, `per_class` of each task, in float32 around 0.5."""
    if per_class < 1:
        raise NadkitError(f"{per_class} pictures of each task were asked for; give at least 1")
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(TASKS).repeat_interleave(per_class)
    # A task with two wholes shows them in turn.
    layout = torch.stack([lay_out(task, i, generator) for task in range(TASKS) for i in range(per_class)])
    # The last entry, which NONE picks, is the empty part.
    shown = torch.cat([parts, torch.zeros_like(parts[:1])])[layout] * CONTRAST
    side = CELLS * SIDE
    shown = shown.permute(0, 3, 1, 4, 2, 5).reshape(len(labels), CHANNELS, side, side)
    pixels = torch.full((len(labels), CHANNELS, side + ROOM, side + ROOM), 0.5)
    for picture, content in zip(pixels, shown, strict=True):
        top, left = torch.randint(0, ROOM + 1, (2,), generator=generator).tolist()
        picture[:, top : top + side, left : left + side] += content
    pixels += torch.randn(pixels.shape, generator=generator) * noise
    return Images(pixels, labels, tuple(tasks))


def lay_out(task: int, number: int, generator: torch.Generator) -> Tensor:
    """Return which part (or NONE) stands where in a task's picture of this number, (4, 4).

    Four blocks of 2 x 2 in any order: a whole of the task, half a whole of another task, the common whole,
    and ornaments.
    """

    def draw(count: int) -> int:
        return int(torch.randint(0, count, (1,), generator=generator))

    def chance(share: float) -> bool:
        return float(torch.rand(1, generator=generator)) < share

    def ornament() -> int:
        return ORNAMENTS[draw(TASKS)] if chance(0.5) else NONE

    own = WHOLES[task][number % len(WHOLES[task])]
    other = WHOLES[(task + 1 + draw(TASKS - 1)) % TASKS]
    half = draw(2)
    decoy = [(ornament(), ornament()), (ornament(), ornament())]
    # An upper pair stays above and a lower one below, next to ornaments at most: no second whole arises.
    decoy[half] = other[draw(len(other))][half]
    useless = [(ORNAMENTS[task] if chance(0.9) else NONE, ornament()), (ornament(), ornament())]
    common = COMMON if chance(0.9) else ((NONE, NONE), (NONE, NONE))
    blocks = torch.tensor([own, decoy, common, useless])[torch.randperm(4, generator=generator)]
    return blocks.view(2, 2, 2, 2).permute(0, 2, 1, 3).reshape(CELLS, CELLS)
