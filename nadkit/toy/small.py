"""Small networks of one logit each, trained side by side and pruned until each unit is needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

KERNELS = (7, 2, 2)  # and strides: each layer sees pieces of what is below that do not overlap
WIDTH = 4  # units of each layer before pruning
WORTH = 0.05  # of balanced accuracy, which a unit's removal must cost
_STEPS, _AFTER, _BATCH, _RATE = 200, 30, 128, 0.01


@dataclass
class SmallNetworks:
    """Networks of three layers and one logit, none of which sees any other.

    Attributes
    ----------
    weights : of each layer (networks, units, inputs), an input being a place and then a unit below
    biases, gates : of each layer (networks, units); a gate is 0 where a unit was pruned
    last : (networks, units), of the logits
    absent : a logit without any unit; rejecting needs none
    """

    weights: Sequence[Tensor]
    biases: Sequence[Tensor]
    gates: Sequence[Tensor]
    last: Tensor
    absent: ClassVar[float] = -3.0

    def logits(self, pieces: Tensor, gates: Sequence[Tensor] | None = None) -> Tensor:
        """Return (N, networks) of pictures cut into pieces, (N, 16, 49); see `cut`."""
        x = pieces.expand(len(self.last), *pieces.shape)
        for weight, bias, gate in zip(self.weights, self.biases, gates or self.gates, strict=True):
            x = x.reshape(len(x), -1, weight.shape[2]) @ weight.mT
            x = (x + bias[:, None]).relu() * gate[:, None]
        return (x * self.last[:, None]).sum(2).T + self.absent


def cut(pixels: Tensor) -> Tensor:
    """Return pictures (N, 1, 28, 28) as (N, 16, 49): the pieces that each layer joins lie side by side."""
    quarters = pixels.view(-1, 2, 2, 7, 2, 2, 7).permute(0, 1, 4, 2, 5, 3, 6)
    return quarters.reshape(-1, 16, 49)


def train(pixels: Tensor, labels: Tensor, count: int, generator: torch.Generator) -> SmallNetworks:
    """Return a network for each class, (N, 1, 28, 28) pixels in [0, 1], that tells it from the others."""
    inputs = (49, 4 * WIDTH, 4 * WIDTH)
    small = SmallNetworks(
        [torch.randn(count, WIDTH, n, generator=generator) * math.sqrt(2 / n) for n in inputs],
        [torch.full((count, WIDTH), 0.1) for _ in inputs],
        [torch.ones(count, WIDTH) for _ in inputs],
        torch.rand(count, WIDTH, generator=generator),
    )
    pieces, own = cut(pixels), nn.functional.one_hot(labels, count).float()
    _fit(small, pieces, own, _STEPS, generator)
    while _prune(small, pieces, own):
        _fit(small, pieces, own, _AFTER, generator)
    return small


def _fit(small: SmallNetworks, pieces: Tensor, own: Tensor, steps: int, generator: torch.Generator) -> None:
    parameters = [*small.weights, *small.biases, small.last]
    optimiser = torch.optim.Adam(parameters, lr=_RATE)
    with torch.enable_grad():
        for parameter in parameters:
            parameter.requires_grad_(True)
        for step in range(steps):
            optimiser.param_groups[0]["lr"] = _RATE * (1 - step / steps)
            picked = torch.randint(len(pieces), (_BATCH,), generator=generator)
            # Own pictures are fewer, and count as much as all others together.
            loss = nn.functional.binary_cross_entropy_with_logits(
                small.logits(pieces[picked]), own[picked], pos_weight=torch.tensor(own.shape[1] - 1.0)
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        for parameter in parameters:
            parameter.requires_grad_(False)


def _prune(small: SmallNetworks, pieces: Tensor, own: Tensor) -> bool:
    """Take from each network the unit that is worth least, if that is too little; say whether any did."""
    whole = _balanced_accuracy(small.logits(pieces), own)
    worth = torch.full((len(whole), len(small.gates), WIDTH), torch.inf)
    for layer, gate in enumerate(small.gates):
        for unit in range(WIDTH):
            without = [g.clone() for g in small.gates]
            without[layer][:, unit] = 0
            drop = whole - _balanced_accuracy(small.logits(pieces, without), own)
            worth[:, layer, unit] = torch.where(gate[:, unit] > 0, drop, torch.inf)
    least = worth.flatten(1).min(1)
    for network, (value, place) in enumerate(zip(least.values.tolist(), least.indices.tolist(), strict=True)):
        if value < WORTH:
            small.gates[place // WIDTH][network, place % WIDTH] = 0
    return bool((least.values < WORTH).any())


def _balanced_accuracy(logits: Tensor, own: Tensor) -> Tensor:
    """Return that of each network, where all others stay silent."""
    level = math.log(1 + (own.shape[1] - 1) * math.exp(SmallNetworks.absent))
    accepted = (logits > level).float()
    return ((accepted * own).sum(0) / own.sum(0) + ((1 - accepted) * (1 - own)).sum(0) / (1 - own).sum(0)) / 2
