"""A network small enough to compute by hand, its pictures and masks, and the slow way to its log-odds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor, nn

from nadkit.images import Images
from nadkit.masks import MaskSet
from nadkit.networks import Network
from nadkit.questions.reading import plain_rows

NAMES = ("bag", "coat", "shirt", "boot")
TASKS = ("coat", "boot", "bag")  # fewer than the classes, in another order
UNITS = {"1": 5, "3": 7}


def make_network(seed: int = 0, name: str = "hand") -> Network:
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 7), nn.Linear(7, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return Network.wrap(
        model,
        NAMES,
        example=torch.zeros(1, 1, 2, 3),
        layers=list(UNITS),
        preprocess=lambda pixels: pixels * (1 + seed),  # a network prepares pictures its own way
        name=name,
    )


def make_images(per_class: Sequence[int], seed: int, names: Sequence[str] = NAMES) -> Images:
    """Noisy pictures around one prototype a class; the prototypes are the same for every seed."""
    prototypes = torch.randn(4, 1, 2, 3, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(4).repeat_interleave(torch.tensor(per_class))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    labels = labels[order]
    noise = torch.randn(len(labels), 1, 2, 3, generator=torch.Generator().manual_seed(seed + 1))
    return Images(prototypes[labels] + 0.7 * noise, labels, tuple(names))


def make_masks(
    seed: int, tasks: Sequence[str] = TASKS, meta: Mapping[str, object] | None = None, share: float = 0.6
) -> MaskSet:
    generator = torch.Generator().manual_seed(seed)
    scores = {a: (torch.rand(len(tasks), n, generator=generator) < share).float() for a, n in UNITS.items()}
    return MaskSet.from_scores(scores, tasks, meta)


def cell(table: pd.DataFrame, task: str, condition: str, metric: str, **place: object) -> pd.Series:
    """The one row of a fact; `place` names its share, dose, layer or other task, where it has one."""
    rows = table if place else plain_rows(table)
    for column, there in {"task": task, "condition": condition, "metric": metric, **place}.items():
        rows = rows[rows[column] == there]
    assert len(rows) == 1, (task, condition, metric, place, len(rows))
    return rows.iloc[0]


def value(table: pd.DataFrame, task: str, condition: str, metric: str, **place: object) -> float:
    return float(cell(table, task, condition, metric, **place)["value"])


# The slow way: each picture alone, matrices by hand, sums in loops.


def slow_hidden(network: Network, pixels: Tensor, gates: Mapping[str, Tensor] | None) -> Tensor:
    """The last layer's units of one picture, gated."""
    _, first, _, second, _ = network.model
    x = network.preprocess(pixels).flatten()
    x = first.weight @ x + first.bias
    x = x * gates["1"] if gates else x
    x = second.weight @ x.clamp(min=0) + second.bias
    return x * gates["3"] if gates else x


def slow_logits(network: Network, pixels: Tensor, gates: Mapping[str, Tensor] | None) -> list[float]:
    last = network.model[4]
    with torch.no_grad():
        return [float(z) for z in last.weight @ slow_hidden(network, pixels, gates) + last.bias]


def slow_parts(logits: list[float], logit: int) -> dict[str, float]:
    """The log-odds of one class, and their two parts."""
    rest = math.log(sum(math.exp(z) for k, z in enumerate(logits) if k != logit))
    mean = sum(logits) / len(logits)
    return {"log_odds": logits[logit] - rest, "own": logits[logit] - mean, "rest": mean - rest}


def slow_readings(
    network: Network, masks: MaskSet | None, images: Images, keep: bool = True
) -> dict[str, list[dict[str, float]]]:
    """The parts of every task's log-odds for every picture."""
    found = {}
    for task in TASKS:
        gates = masks.gates(task, keep=keep) if masks is not None else None
        every = [slow_logits(network, pixels, gates) for pixels in images.pixels]
        found[task] = [slow_parts(logits, NAMES.index(task)) for logits in every]
    return found
