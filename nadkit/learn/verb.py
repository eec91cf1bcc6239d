"""`learn_masks`: the one verb of this package."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nadkit.errors import NadkitError, closest
from nadkit.images import Images
from nadkit.learn.learner import Learned, Learner
from nadkit.learn.objectives import Objective, Official, OneVsRest
from nadkit.learn.problem import set_up
from nadkit.learn.run import Progress
from nadkit.masks import MaskSet
from nadkit.networks import Network

if TYPE_CHECKING:
    import pandas as pd

OBJECTIVES: Mapping[str, type[Objective]] = {"official": Official, "one-vs-rest": OneVsRest}
CONTROLS = ("relabelled", "untrained")


def learn_masks(
    network: Network,
    images: Images,
    *,
    tasks: Sequence[str] | None = None,
    objective: str | Objective = "one-vs-rest",
    kept_share: float | str | Sequence[float] | Mapping[str, float] = 0.3,
    beta: float | None = None,
    shared: bool = False,
    control: str | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = True,
    checkpoint: str | os.PathLike[str] | None = None,
    callback: Callable[[Progress], object] | None = None,
) -> MaskSet:
    """Return masks that say, for every task, which units of every layer it needs.

    All tasks are learned in one pass: each picture of a batch is gated by the row of its own task.

    Parameters
    ----------
    network : the trained network; it is frozen while learning and restored afterwards
    images : training pictures with class names of the network; keep some back for `calibrate_on`
    tasks : class names; all classes of the pictures by default. Pictures of other classes serve as "rest"
    objective : `"one-vs-rest"`, `"official"` (the released recipe, own pictures alone) or an `Objective`
    kept_share : share of all units that a task keeps, in (0, 1]; one number, one per task, or `"auto"`:
        the smallest that keeps 0.95 of the whole network's balanced accuracy on the training pictures.
        With `"official"`, which has no such knob, β is bisected for each task and the result comes
        as near as the recipe allows
    beta : weight of the official recipe's sparsity term; given, it is used as it is and `kept_share` is not
    shared : learn one mask for all tasks together (the null of "whether")
    control : `"relabelled"` (each logit must accept another class) or `"untrained"` (fresh weights)
    steps, batch_size : number of steps; own pictures per task and step; by default the objective's
    seed : decides the start and the order of pictures; same seed, same masks
    progress : show a bar with the kept share and the loss
    checkpoint : a file to resume from and to write to about twenty times a run; a run that was interrupted
        and resumed gives the same masks as one that was not
    callback : called about twenty times a run with a `Progress`; stops the run by returning True

    Returns
    -------
    MaskSet
        Scores in [0, 1]; above 0.5 is kept. `history` has one row per task and report: step, task, loss,
        kept_share (and beta). `meta` holds every setting.

    Raises
    ------
    NadkitError
        Unknown task, objective or control; a share outside (0, 1]; a checkpoint of other settings.
    ImageError
        Pictures that do not fit the network, of classes it does not have, or fewer than 5 of a task's own.

    Notes
    -----
    **Source**: Hu et al., "Architecture Disentanglement for Deep Neural Networks", ICCV 2021, for
    `"official"`; the one-vs-rest objective and the learned controls are ours. For separable objectives
    (both are) a task's scores do not depend on the tasks learned beside it.

    Examples
    --------
    >>> import nadkit as nk
    >>> network, images = nk.load_network("vgg-fashion"), nk.load_images("fashion", per_class=20)
    >>> masks = learn_masks(network, images, tasks=["bag"], kept_share=0.5, steps=4, progress=False)
    >>> round(masks.kept_share()["bag"], 2)
    0.5
    """
    made = _objective(objective, batch_size)
    if control is not None and control not in CONTROLS:
        raise NadkitError(f"no control {control!r}; there are: {', '.join(CONTROLS)}, and shared=True")
    if beta is not None and not isinstance(made, Official):
        raise NadkitError(f"beta belongs to the official objective; {made.name!r} takes kept_share")
    if beta is not None and not beta > 0:
        raise NadkitError(f"beta must be above 0, got {beta}")
    if steps is not None and steps < 1:
        raise NadkitError(f"steps must be 1 or more, got {steps}")
    problem = set_up(network, images, tasks, control, seed)
    auto = isinstance(kept_share, str)
    if auto and kept_share != "auto":
        raise NadkitError(f"kept_share must be a number, numbers, or 'auto', got {kept_share!r}")
    share = torch.ones(len(problem.tasks)).double() if auto else _shares(kept_share, problem.tasks)
    if shared and len(share.unique()) > 1:
        raise NadkitError("one shared mask has one kept share; give one number")
    learner = Learner(
        problem, made, steps, seed, shared, progress, Path(checkpoint) if checkpoint else None, callback
    )
    learner.settings = {
        "objective": made.name,
        **_plain(made),
        "tasks": list(problem.tasks),
        "kept_share": "auto" if auto else share.tolist(),
        "beta": beta,
        "shared": shared,
        "control": control,
        "steps": steps,
        "seed": seed,
        "weights_id": network.weights_id,
        "layers": list(network.layers),
        "pictures": problem.digest(),
    }
    if isinstance(made, Official):
        if auto:
            raise NadkitError(
                "the official recipe has no kept share to find; give a number (β is bisected) or beta"
            )
        given = torch.full((len(problem.tasks),), beta or 1.0).double()
        learned = learner.with_beta(given) if beta is not None else learner.bisect_beta(share)
    else:
        learned = learner.smallest_share() if auto else learner.once(share)
    return _mask_set(network, learner, learned)


def _objective(objective: str | Objective, batch_size: int | None) -> Objective:
    if isinstance(objective, str):
        if objective not in OBJECTIVES:
            raise NadkitError(f"no objective {objective!r}; {closest(objective, OBJECTIVES)}")
        objective = OBJECTIVES[objective]()
    if batch_size is None:
        return objective
    if batch_size < 1:
        raise NadkitError(f"batch_size must be 1 or more, got {batch_size}")
    return dataclasses.replace(objective, own=batch_size, rest=batch_size if objective.rest else 0)  # type: ignore[type-var]


def _shares(kept_share: float | Sequence[float] | Mapping[str, float] | str, tasks: Sequence[str]) -> Tensor:
    if isinstance(kept_share, Mapping):
        missing = [t for t in tasks if t not in kept_share]
        if missing or len(kept_share) != len(tasks):
            raise NadkitError(
                f"kept_share must name each task once; tasks are {list(tasks)}, given {list(kept_share)}"
            )
        kept_share = [kept_share[t] for t in tasks]
    values = torch.as_tensor(kept_share, dtype=torch.float64)
    if values.ndim == 0:
        values = values.expand(len(tasks)).clone()
    if values.shape != (len(tasks),):
        raise NadkitError(
            f"{len(values)} kept shares for {len(tasks)} tasks; give one number, or one per task"
        )
    if not bool(((values > 0) & (values <= 1)).all()):
        raise NadkitError(f"kept_share must lie in (0, 1]: a share of all units; got {kept_share}")
    return values


def _plain(objective: Objective) -> dict[str, Any]:
    """Return an objective's settings as plain values, for the mask file and checkpoints."""
    settings = vars(objective).items()
    return {k: v.tolist() if isinstance(v, Tensor) else v for k, v in settings if k != "beta"}


def _mask_set(network: Network, learner: Learner, learned: Learned) -> MaskSet:
    import pandas as pd

    problem = learner.problem
    scores = learned.scores.float().cpu().expand(len(problem.tasks), -1)
    sizes = [layer.units for layer in network.layers.values()]
    parts = {a: p.contiguous() for a, p in zip(network.layers, scores.split(sizes, 1), strict=True)}
    history: pd.DataFrame = pd.DataFrame(learned.history)
    control = "shared" if learner.shared else learner.settings["control"]
    settings = {
        k: v
        for k, v in learner.settings.items()
        if k not in ("weights_id", "layers", "tasks", "objective", "control", "seed")
    }
    meta = {
        "network": network.name, "weights_id": network.weights_id, "class_names": list(network.class_names),
        "objective": learner.objective.name, "control": control, "threshold": 0.5,
        "seed": learner.seed, "settings": {**settings, **learned.extra}, **problem.notes,
    }  # fmt: skip
    return MaskSet(problem.tasks, parts, history, meta)
