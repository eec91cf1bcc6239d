"""Masks of many kept shares from one run, whose share falls in stages."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from nadkit.errors import NadkitError
from nadkit.images import Images
from nadkit.learn.objectives import OneVsRest
from nadkit.learn.run import SAVES, Progress
from nadkit.learn.verb import learn_masks
from nadkit.masks import MaskSet
from nadkit.networks import Network

SHARES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7)


@dataclass
class Stages(OneVsRest):
    """One-vs-rest whose kept share falls from one stage's to the next's, and then stays for a while.

    Parameters
    ----------
    shares : of the stages, falling
    falling : part of each stage, 0-1, in which the share falls
    """

    shares: tuple[float, ...] = tuple(reversed(SHARES))
    falling: float = 0.6
    steps_per_task: int = 2400

    def kept_share(self, share: Tensor, progress: float) -> Tensor:
        """Return the share at a moment 0-1 of the run; the share asked for is the last stage's."""
        ends = stage_ends(len(self.shares))
        stage = next(i for i, end in enumerate(ends) if progress < end or i == len(ends) - 1)
        start = ends[stage - 1] if stage else 0.0
        above = self.shares[stage - 1] if stage else 1.0
        part = min(1.0, (progress - start) / ((ends[stage] - start) * self.falling))
        now = self.shares[stage] + (above - self.shares[stage]) * (1 - part) ** 3
        return torch.full_like(share, now)


def stage_ends(count: int) -> list[float]:
    """Return at which part of a run each stage ends: at a report, so that it can be kept.

    Examples
    --------
    >>> stage_ends(3)
    [0.35, 0.65, 1.0]
    """
    return [round(SAVES * (stage + 1) / count) / SAVES for stage in range(count)]


def learn_curve(
    network: Network,
    images: Images,
    shares: Sequence[float] = SHARES,
    *,
    steps: int = 2400,
    spread: float | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> dict[float, MaskSet]:
    """Return one-vs-rest masks at every kept share, all from one run.

    The share falls to the largest one asked for and stays, then to the next, and so on; what the mask is at
    the end of a stage is kept. It takes a fraction of the steps of separate runs.

    Examples
    --------
    >>> import nadkit as nk
    >>> network, images = nk.load_network("vgg-fashion"), nk.load_images("fashion", per_class=20)
    >>> found = learn_curve(network, images, (0.3, 0.5), steps=20, tasks=["bag"], progress=False)
    >>> [(share, round(masks.kept_share()["bag"], 2)) for share, masks in found.items()]
    [(0.3, 0.3), (0.5, 0.5)]

    Parameters
    ----------
    network, images
        As in `learn_masks`.
    shares
        In (0, 1], each once, at most 20.
    steps
        Of the whole run; a multiple of 20, since a stage ends at one of 20 reports.
    spread
        As in `OneVsRest`: a bound for networks that answer without a doubt; none by default.
    checkpoint
        As in `learn_masks`; the stages that are done are kept in files named after it.
    settings
        More arguments of `learn_masks`: tasks, shared, control, batch_size, seed, progress.

    Returns
    -------
    dict
        Kept share → masks, smallest share first; `whether(shares=...)` takes several such as
        `{share: {"kept": own[share], "relabelled": other[share]} for share in own}`.

    Raises
    ------
    NadkitError
        Shares outside (0, 1], twice, none or more than 20; steps that are no multiple of 20; and as
        `learn_masks`.
    """
    falling = tuple(sorted({float(share) for share in shares}, reverse=True))
    if not 0 < len(falling) == len(list(shares)) <= SAVES or not all(0 < share <= 1 for share in falling):
        raise NadkitError(f"shares are {list(shares)}; give 1 to {SAVES} of them, in (0, 1], each once")
    if steps < SAVES or steps % SAVES:
        raise NadkitError(f"{steps} steps; give a multiple of {SAVES}, so that each stage ends at a report")
    wrong = sorted(set(settings) & {"objective", "kept_share", "beta", "callback"})
    if wrong:
        raise NadkitError(f"learn_curve sets {', '.join(wrong)} itself; leave it out")
    ends = [round(end * steps) for end in stage_ends(len(falling))]
    path = Path(checkpoint) if checkpoint else None
    kept: dict[float, Tensor] = {}

    def keep(progress: Progress) -> None:
        if progress.step in ends:
            kept[falling[ends.index(progress.step)]] = progress.scores
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                _one(progress.scores).save(_stage_file(path, progress.step))

    objective = Stages(shares=falling, steps_per_task=steps, spread=spread)
    last = learn_masks(
        network, images, objective=objective, kept_share=falling[-1], checkpoint=path, callback=keep,
        **settings,
    )  # fmt: skip
    learned = cast(dict[str, Any], last.meta["settings"])
    sizes = [layer.units for layer in network.layers.values()]
    found = {}
    for share, end in zip(falling, ends, strict=True):
        if share not in kept and path is not None:  # of a run that was interrupted after this stage
            kept[share] = MaskSet.load(_stage_file(path, end)).scores["all"]
        parts = dict(zip(network.layers, kept[share].split(sizes, 1), strict=True))
        meta = {**last.meta, "settings": {**learned, "kept_share": [share] * len(last.tasks)}}
        found[share] = MaskSet.from_scores(parts, last.tasks, meta)
    return dict(sorted(found.items()))


def _stage_file(path: Path, step: int) -> Path:
    return path.with_name(f"{path.name}.stage{step}")


def _one(scores: Tensor) -> MaskSet:
    return MaskSet.from_scores({"all": scores}, [str(row) for row in range(len(scores))])
