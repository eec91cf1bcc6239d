"""Masks of the size of others, of the units that a method ranks first."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nadkit.errors import NadkitError, closest
from nadkit.heatmaps.attributions import unit_attributions
from nadkit.heatmaps.methods import ATTRIBUTIONS, METHODS, check_method
from nadkit.images import Images
from nadkit.masks import MaskSet
from nadkit.networks import Network


def ranked_masks(
    network: Network,
    images: Images,
    *,
    method: str,
    like: MaskSet,
    tasks: Sequence[str] | None = None,
    per_class: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> MaskSet:
    """Return masks that keep as many units of each layer as others do, those that a method ranks first.

    Examples
    --------
    >>> import nadkit as nk
    >>> network, images = nk.load_network("vgg-fashion"), nk.load_images("fashion", per_class=2)
    >>> like = nk.load_masks("vgg-fashion")
    >>> masks = ranked_masks(network, images, method="activation", like=like, tasks=["bag"])
    >>> masks.kept_share(layer="stem") == like["bag"].kept_share(layer="stem")
    True

    Parameters
    ----------
    network
        The trained network; it is left as it was.
    images
        Pictures of every task, best those that `like` was learned from; "random" and "other-task" look at
        none.
    method
        One of `METHODS`; `DESCRIPTIONS` has a line on each, `unit_attributions` the definitions.
    like
        Masks of this network. Each task here keeps as many units of each layer as it does there.
    tasks
        Some of the tasks of `like`; all by default.
    per_class, seed, progress
        As in `unit_attributions`; the seed also decides the random units, and which task is another's other.

    Returns
    -------
    MaskSet
        Scores follow the ranking within each task and layer: those kept lie above 0.5, evenly from 1 down,
        the others evenly from 0.5 down to 0. They say nothing about units of different layers. Equal
        attributions rank by place. `meta["objective"]` is the method, `meta["settings"]` says the rest.

    Raises
    ------
    MaskFileError
        `like` is for another network.
    ImageError
        There is no picture of a task, or fewer than `per_class`.
    LayerError
        As in `unit_attributions`.
    NadkitError
        An unknown method or task; "other-task" of masks of one task.

    Notes
    -----
    "other-task" deals the tasks of `like` so that none gets itself, and keeps the units of largest score
    there, as many as the task itself has in the layer.
    """
    check_method(method, METHODS)
    like.check(network)
    if isinstance(tasks, str):
        raise NadkitError(f"tasks must be a list of task names; give [{tasks!r}]")
    chosen = like.tasks if tasks is None else tuple(tasks)
    for task in chosen:
        if task not in like:
            raise NadkitError(
                f"no task {task!r} in the masks given as like; {closest(str(task), like.tasks)}"
            )
    settings: dict[str, object] = {"like": {k: like.meta.get(k) for k in ("objective", "control", "seed")}}
    if method in ATTRIBUTIONS:
        values = unit_attributions(
            network, images, method=method, tasks=chosen, per_class=per_class, seed=seed, progress=progress
        )
        settings["per_class"] = per_class
    else:
        values, partners = _without_pictures(method, like, seed)
        rows = [like.tasks.index(task) for task in chosen]
        values = {address: value[rows] for address, value in values.items()}
        if partners:
            settings["other"] = {task: partners[task] for task in chosen}
    kept = like[list(chosen)].gates()
    scores = {address: _scores(values[address], gate.sum(1).long()) for address, gate in kept.items()}
    meta = {
        "network": network.name, "weights_id": network.weights_id, "class_names": list(network.class_names),
        "objective": method, "control": None, "threshold": 0.5, "seed": seed, "settings": settings,
    }  # fmt: skip
    return MaskSet(chosen, scores, None, meta)


def _without_pictures(method: str, like: MaskSet, seed: int) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Values (n_tasks, n_units) for all tasks of `like`, and for "other-task" whose each task got."""
    generator = torch.Generator().manual_seed(seed)
    if method == "random":
        return {
            address: torch.rand(scores.shape, generator=generator, dtype=torch.float64)
            for address, scores in like.scores.items()
        }, {}
    if len(like) < 2:
        raise NadkitError(
            f"'other-task' needs the masks of two tasks or more, and like has {', '.join(like.tasks)} alone; "
            "give all tasks in like, and choose with tasks="
        )
    # One random round through all tasks: each gets the next one's mask, and none its own.
    order = torch.randperm(len(like), generator=generator)
    other = torch.empty_like(order).scatter(0, order, order.roll(-1))
    partners = {task: like.tasks[k] for task, k in zip(like.tasks, other.tolist(), strict=True)}
    return {address: scores[other].double() for address, scores in like.scores.items()}, partners


def _scores(values: Tensor, kept: Tensor) -> Tensor:
    """Scores (n_tasks, n_units) in the order of the values, exactly `kept` a task above 0.5."""
    units = values.shape[1]
    order = values.argsort(dim=1, descending=True, stable=True)
    place = torch.empty_like(order).scatter(1, order, torch.arange(units).expand_as(order))
    kept = kept[:, None]
    above = 1 - place / (2 * kept.clamp(min=1))
    below = (units - 1 - place) / (2 * (units - kept).clamp(min=1))
    return torch.where(place < kept, above, below)
