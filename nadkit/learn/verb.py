"""`learn_masks`: the one verb of this package."""

from __future__ import annotations

import copy
import json
import math
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nadkit.errors import ImageError, NadkitError, closest
from nadkit.images import Images
from nadkit.learn.learner import Learned, Learner
from nadkit.learn.objectives import Objective, Official, OneVsRest
from nadkit.learn.problem import FEWEST, set_up
from nadkit.learn.routing import Routing
from nadkit.learn.run import Progress
from nadkit.masks import MaskSet
from nadkit.networks import Network

if TYPE_CHECKING:
    import pandas as pd

OBJECTIVES: Mapping[str, type[Objective]] = {
    "official": Official, "one-vs-rest": OneVsRest, "routing": Routing,
}  # fmt: skip
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
    objective : `"one-vs-rest"`, `"official"` (the released recipe, own pictures alone), `"routing"` (critical
        routing paths, own pictures alone) or an `Objective`
    kept_share : share of all units that a task keeps, in (0, 1]; one number, one per task, or `"auto"`:
        the smallest that keeps 0.95 of the whole network's balanced accuracy on the training pictures,
        found by six runs (not for a control, which is learned at the kept shares of the tasks' own masks).
        With `"official"`, which has no such knob, β is bisected for each task and the result comes
        as near as the recipe allows
    beta : weight of the official recipe's sparsity term; given, it is used as it is and `kept_share` is not
    shared : learn one mask for all tasks together (the null of "whether")
    control : `"relabelled"` (each logit must accept another class) or `"untrained"` (fresh weights); not
        together with `shared`
    steps, batch_size : number of steps; own pictures per task and step; by default the objective's
    seed : decides the start and the order of pictures; same seed, same masks
    progress : show a bar with the kept share and the loss
    checkpoint : a file to resume from and to write to about twenty times a run; a run that was interrupted
        and resumed gives the same masks as one that was not. A search (`"auto"`, β) writes one file a run,
        named after this one: `….auto1of6`, `….beta1of6`
    callback : called about twenty times a run with a `Progress`; stops the run, and a search with it, by
        returning True; the masks are then as far as they have come

    Returns
    -------
    MaskSet
        Scores in [0, 1]; above 0.5 is kept. `history` has one row per task and report: step, task, loss,
        kept_share (of a search also run, and of the official recipe beta). `meta` holds every setting.

    Raises
    ------
    NadkitError
        Unknown task, objective or control; a share outside (0, 1]; a checkpoint of other settings.
    ImageError
        Pictures that do not fit the network, of classes it does not have, or fewer than 5 of a task's own
        or, for an objective that looks at them, of others.

    Notes
    -----
    **Source**: Hu et al., "Architecture Disentanglement for Deep Neural Networks", ICCV 2021, for
    `"official"`; Wang et al., CVPR 2018, for `"routing"`; the one-vs-rest objective and the learned controls
    are ours. For separable objectives (all three are) a task's scores do not depend on the tasks learned
    beside it.

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
    weight = made.beta if beta is None and isinstance(made, Official) else beta
    if weight is not None and not all(0 < b < math.inf for b in torch.as_tensor(weight).reshape(-1).tolist()):
        raise NadkitError(f"beta must be above 0 and finite, got {weight}")
    steps = None if steps is None else _whole("steps", steps)
    seed = _whole("seed", seed, least=None)
    if isinstance(tasks, str):
        raise NadkitError(f"tasks must be a list of class names; give [{tasks!r}]")
    if shared and control is not None:
        raise NadkitError("shared=True is a control of its own; learn it and the others one by one")
    if control is not None and isinstance(kept_share, str) and kept_share == "auto":
        raise NadkitError(
            "a control has no whole network to be faithful to, so kept_share='auto' means nothing for it; "
            "give it the size of the tasks' own masks: kept_share=masks.kept_share()"
        )
    with torch.inference_mode(False):
        return _learn(
            network, images, tasks, made, kept_share, weight, shared, control, steps, seed, progress,
            Path(checkpoint) if checkpoint else None, callback,
        )  # fmt: skip


def _learn(
    network: Network, images: Images, tasks: Sequence[str] | None, made: Objective,
    kept_share: float | str | Sequence[float] | Mapping[str, float], beta: float | Tensor | None,
    shared: bool, control: str | None, steps: int | None, seed: int, progress: bool,
    checkpoint: Path | None, callback: Callable[[Progress], object] | None,
) -> MaskSet:  # fmt: skip
    problem = set_up(network, images, tasks, control, seed)
    for row, task in enumerate(problem.tasks):
        if made.rest and len(problem.others(row)) < FEWEST:
            raise ImageError(
                f"{len(problem.others(row))} pictures of other classes beside {task!r}'s own: {made.name!r} "
                f"learns to reject them and needs at least {FEWEST}; without them a mask answers its task "
                "for every picture"
            )
    auto = isinstance(kept_share, str)
    if auto and kept_share != "auto":
        raise NadkitError(f"kept_share must be a number, numbers, or 'auto', got {kept_share!r}")
    share = torch.ones(len(problem.tasks)).double() if auto else _shares(kept_share, problem.tasks)
    if shared and len(share.unique()) > 1:
        raise NadkitError("one shared mask has one kept share; give one number")
    learner = Learner(problem, made, steps, seed, shared, progress, checkpoint, callback)
    learner.settings = {
        "objective": made.name,
        **_plain(made),
        "tasks": list(problem.tasks),
        "kept_share": "auto" if auto else share.tolist(),
        "beta": beta.tolist() if isinstance(beta, Tensor) else beta,
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
        if beta is None:
            learned = learner.bisect_beta(share)
        else:
            given = torch.as_tensor(beta, dtype=torch.float32).double()
            if given.ndim and given.shape != (len(problem.tasks),):
                raise NadkitError(
                    f"beta of shape {tuple(given.shape)} for {len(problem.tasks)} tasks; give one number, or "
                    "one per task"
                )
            learned = learner.with_beta(given.expand(len(problem.tasks)).clone())
    else:
        learned = learner.smallest_share() if auto else learner.once(share)
    return _mask_set(network, learner, learned)


def _objective(objective: str | Objective, batch_size: int | None) -> Objective:
    if isinstance(objective, str):
        if objective not in OBJECTIVES:
            raise NadkitError(f"no objective {objective!r}; {closest(objective, OBJECTIVES)}")
        objective = OBJECTIVES[objective]()
    if not isinstance(objective, Objective):
        raise NadkitError(
            f"objective must be {', '.join(map(repr, OBJECTIVES))} or an instance of nadkit.learn.Objective, "
            f"got {objective!r}"
        )
    if batch_size is None:
        return objective
    batch_size = _whole("batch_size", batch_size)
    objective = copy.copy(objective)
    objective.own, objective.rest = batch_size, batch_size if objective.rest else 0
    return objective


def _whole(name: str, value: int, least: int | None = 1) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise NadkitError(f"{name} must be a whole number, got {value!r}") from None
    if least is not None and number < least:
        raise NadkitError(f"{name} must be {least} or more, got {number}")
    return number


def _shares(kept_share: float | Sequence[float] | Mapping[str, float] | str, tasks: Sequence[str]) -> Tensor:
    if isinstance(kept_share, Mapping):
        missing = [t for t in tasks if t not in kept_share]
        if missing or len(kept_share) != len(tasks):
            raise NadkitError(
                f"kept_share must name each task once; tasks are {list(tasks)}, given {list(kept_share)}"
            )
        kept_share = [kept_share[t] for t in tasks]
    try:
        values = torch.as_tensor(kept_share, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise NadkitError(f"kept_share must be a number, numbers, or 'auto', got {kept_share!r}") from None
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
    plain = {k: v.tolist() if isinstance(v, Tensor) else v for k, v in settings if k != "beta"}
    return {k: v if _is_json(v) else repr(v) for k, v in plain.items()}


def _is_json(value: object) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


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
