"""Pictures of planted tasks: what they show is what the planted networks look for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nadkit.images import Images
from nadkit.toy.scheme import NONE, Half, Scheme, Whole

CHANNELS, SIDE, CELLS = 3, 4, 4  # a part is 4 x 4 pixels, a picture shows 4 x 4 parts
CONTRAST = 0.3
_MOST_ALIKE = 10  # of 48 pixels of ± 1, how far two parts' product may be from 0


def draw_parts(scheme: Scheme, generator: torch.Generator) -> Tensor:
    """Draw the parts, (n_parts, channels, side, side) of ± 1, no two of them much alike."""
    parts = torch.zeros(0, CHANNELS * SIDE**2)
    while len(parts) < scheme.parts:
        new = torch.randint(0, 2, (1, parts.shape[1]), generator=generator) * 2.0 - 1
        if bool(((parts @ new.T).abs() <= _MOST_ALIKE).all()):
            parts = torch.cat([parts, new])
    return parts.view(-1, CHANNELS, SIDE, SIDE)


def render(
    scheme: Scheme, parts: Tensor, noise: float, tasks: Sequence[str], per_class: int, seed: int
) -> Images:
    """Return pictures, `per_class` of each task, in float32 around 0.5."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(tasks)).repeat_interleave(per_class)
    # A task with two wholes shows them in turn.
    layout = torch.stack(
        [lay_out(scheme, task, i, generator) for task in range(len(tasks)) for i in range(per_class)]
    )
    # The last entry, which NONE picks, is the empty part.
    shown = torch.cat([parts, torch.zeros_like(parts[:1])])[layout] * CONTRAST
    side = CELLS * SIDE
    shown = shown.permute(0, 3, 1, 4, 2, 5).reshape(len(labels), CHANNELS, side, side)
    pixels = 0.5 + shown + torch.randn(shown.shape, generator=generator) * noise
    return Images(pixels, labels, tuple(tasks))


def lay_out(scheme: Scheme, task: int, number: int, generator: torch.Generator) -> Tensor:
    """Return which part (or NONE) stands where in a task's picture of this number, (4, 4).

    Four blocks of 2 x 2 in any order: a whole of the task, half a whole of another task, the common whole,
    and ornaments. Where another task has a veto, half of the pictures show that task's whole and the veto in
    place of the halves and the ornaments.
    """
    tasks, ornaments = scheme.tasks, scheme.ornaments

    def draw(count: int) -> int:
        return int(torch.randint(0, count, (1,), generator=generator))

    def chance(share: float) -> bool:
        return float(torch.rand(1, generator=generator)) < share

    def ornament() -> int:
        return ornaments[draw(len(tasks))] if chance(0.5) else NONE

    def row(half: Half) -> Half:
        return (*half, *(ornament() for _ in range(2 - len(half))))

    def block(whole: Whole) -> Whole:
        return row(whole[0]), row(whole[1])

    own = block(tasks[task].wholes[number % len(tasks[task].wholes)])
    # Of wholes that take two halves: one half shows nothing yet.
    others = [w for k, other in enumerate(tasks) if k != task for w in other.wholes if w[0] and w[1]]
    half = draw(2)
    decoy: list[Half] = [(ornament(), ornament()), (ornament(), ornament())]
    # An upper half stays above and a lower one below, next to ornaments at most: no second whole arises.
    decoy[half] = row(others[draw(len(others))][half])
    useless = [(ornaments[task] if chance(0.9) else NONE, ornament()), (ornament(), ornament())]
    common = scheme.common if chance(0.9) else ((NONE, NONE), (NONE, NONE))
    blocks = [own, decoy, common, useless]
    for rival, (wholes, _, veto) in enumerate(tasks):
        if veto and rival != task and chance(0.5):
            blocks = [own, block(wholes[draw(len(wholes))]), common, block(veto)]
    layout = torch.tensor(blocks)[torch.randperm(4, generator=generator)]
    return layout.view(2, 2, 2, 2).permute(0, 2, 1, 3).reshape(CELLS, CELLS)
