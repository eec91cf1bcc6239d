"""Whether a network divides into sub-architectures for its tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nadkit.errors import NadkitError
from nadkit.images import Images
from nadkit.masks import MaskSet
from nadkit.measures import calibrate, platt
from nadkit.networks import Network
from nadkit.questions.conditions import Condition, learned_conditions, own_conditions
from nadkit.questions.controls import Controls, find_controls
from nadkit.questions.forwards import ask
from nadkit.questions.outcomes import Outcome, Sample
from nadkit.questions.reading import answer
from nadkit.questions.tables import COLUMNS, Row, condition_rows, excess_rows

if TYPE_CHECKING:
    import pandas as pd


def whether(
    network: Network,
    masks: MaskSet | Sequence[MaskSet],
    images: Images,
    *,
    calibrate_on: Images | None = None,
    controls: Controls = "bundled",
    draws: int = 20,
    per_class: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """Return how well the units that each task keeps do that task alone, beside every control.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 2, bias=False))
    >>> _ = model[1].weight.data.copy_(torch.eye(2))
    >>> pixels = torch.tensor([[5.0, 0.0], [0.0, 5.0]])[:, None, None].repeat(9, 1, 1, 1)
    >>> network = Network.wrap(model, ["left", "right"], example=pixels[:1], layers=["1"])
    >>> masks = MaskSet.from_scores({"1": torch.eye(2)}, ["left", "right"])
    >>> images = Images(pixels, torch.tensor([0, 1] * 9), ("left", "right"))
    >>> table = whether(network, masks, images, draws=4)
    >>> row = table.query("task == 'left' and condition == 'kept' and metric == 'balanced_accuracy'").iloc[0]
    >>> float(row["value"]), round(float(row["low"]), 3), int(row["n"])
    (1.0, 0.788, 18)

    Parameters
    ----------
    network
        The trained network.
    masks
        Of this network; a list of several seeds of the same tasks gives intervals of two levels.
    images
        Test pictures. Classes are matched to tasks by name; they may be fewer than the tasks, or more, or in
        another order.
    calibrate_on
        Training pictures that the masks were not learned from. Without them there are no calibrated rows, and
        recomposed accuracy is of the whole network alone.
    controls
        Learned controls: masks by name (relabelled, shared, untrained; a list for several seeds, each with
        its own exchange of tasks or its own fresh weights), None, or
        "bundled", which takes those that come with a bundled network at the kept share of the masks and, if
        there are none, none. `table.attrs["controls"]` says which were used, and where both files tell
        how they were learned, what differs: "bundled, learned otherwise: objective". Whether relabelled
        masks were learned from the same pictures cannot be told from their file.
    draws
        Random masks of the same size, at least 0.
    per_class
        Use so many pictures of each class, of `images` and of `calibrate_on`; None for all.
    seed
        Of the random masks, the pictures taken and the bootstrap.
    progress
        Show a bar.

    Returns
    -------
    pandas.DataFrame
        One row one fact: network, task, condition, metric, value, low, high (95 %), n, seed (of the masks;
        of the draws for random; empty where several or none apply) and interval, which says what varies.
        Conditions: whole, kept, removed (the complement kept), random, and the learned controls. Metrics:

        recall, false_alarm, balanced_accuracy
            Of the decision "log-odds of the task above 0".
        balanced_accuracy_calibrated
            After a class-balanced Platt fit on `calibrate_on`, one for every task and condition.
        auroc
            Of the log-odds.
        recomposed_accuracy
            For task "all": the task of the largest calibrated log-odds is right; for the whole network, its
            own answer is. Of pictures whose class is a task's.
        kept_share
            Open gates over all units; counted, so low and high are the value; n is the number of units.
        excess
            For kept: its balanced accuracy (calibrated, if there is one) minus that of the best learned
            control, which is the one best on the mean over tasks.

        Task "mean" is the mean over tasks that have a value. For relabelled, a task's positives are the
        pictures of the class that its logit had to learn to accept; of several seeds, each with its own
        exchange, n is the fewest. A task without a picture has n = 0 and an empty (NaN) value. Rows of
        random are the mean over draws, from their 2.5 % to their 97.5 % point. Intervals are Wilson's,
        combined of two for balanced accuracy and excess (MOVER); Newcombe's for AUROC. Means over tasks,
        and several seeds of the masks, take their variance from a bootstrap stratified by class and, at its
        second level, over the seeds; two or three seeds tell little about how far seeds vary.
        `attrs["answer"]` is the table in one sentence.

    Raises
    ------
    MaskFileError
        The masks, or a control's, are for another network.
    ImageError
        Pictures that the network cannot take, of a class it does not have, or too few for `per_class`.
    NadkitError
        Masks of several seeds have different tasks, a control is unknown or lacks its meta, draws < 0.

    Notes
    -----
    A mask that answers its task for every picture has recall 1 and balanced accuracy 0.5; a mask learned on
    a network that never held the task can still solve it. So the network "contains" a sub-architecture only
    where the lower end of `excess` is above 0.
    """
    import pandas as pd

    sets = _checked(network, masks, draws)
    tasks = sets[0].tasks
    learned, sources = find_controls(controls, network, sets)
    conditions = own_conditions(network, sets, draws, seed) + learned_conditions(network, tasks, learned)
    if per_class is not None:
        images = images.take(per_class, seed)
        calibrate_on = None if calibrate_on is None else calibrate_on.take(per_class, seed)
    outcomes = _outcomes(network, conditions, tasks, images, calibrate_on, seed, progress)
    rows: list[Row] = []
    for outcome in outcomes:
        rows.extend(condition_rows(network.name, outcome))
    rows.extend(excess_rows(network.name, outcomes))
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"seed": "Int64", "n": "int64"})
    table.attrs = {"controls": sources, "answer": answer(table)}
    return table


def _checked(network: Network, masks: MaskSet | Sequence[MaskSet], draws: int) -> list[MaskSet]:
    sets = [masks] if isinstance(masks, MaskSet) else list(masks)
    if not sets or not all(isinstance(one, MaskSet) for one in sets):
        raise NadkitError("whether needs masks: one MaskSet, or a list of several seeds")
    for one in sets:
        one.check(network)
        if one.tasks != sets[0].tasks:
            raise NadkitError(
                f"masks of several seeds must have the same tasks in the same order; there are "
                f"{list(sets[0].tasks)} and {list(one.tasks)}: choose them by masks[[...]]"
            )
    if len(network.class_names) < 2:
        raise NadkitError(f"{network.name} has one class; log-odds need two or more")
    if draws < 0:
        raise NadkitError(f"{draws} random draws were asked for; give 0 or more")
    return sets


def _outcomes(
    network: Network,
    conditions: Sequence[Condition],
    tasks: tuple[str, ...],
    images: Images,
    calibrate_on: Images | None,
    seed: int,
    progress: bool,
) -> list[Outcome]:
    from tqdm.auto import tqdm

    pictures = len(images) + (0 if calibrate_on is None else len(calibrate_on))
    answers = sum(condition.repetitions for condition in conditions) * len(tasks)
    with tqdm(total=pictures * answers, disable=not progress, unit="answer", unit_scale=True) as bar:
        asked = ask(network, conditions, images, bar.update)
        fitted = None if calibrate_on is None else ask(network, conditions, calibrate_on, bar.update)
    sample = Sample.of(tasks, asked.labels, asked.chosen, seed)
    outcomes = []
    for place, (condition, log_odds) in enumerate(zip(conditions, asked.log_odds, strict=True)):
        calibrated = None
        if fitted is not None:
            positive = condition.targets[..., None] == fitted.labels
            calibrated = calibrate(log_odds, *platt(fitted.log_odds[place], positive))
        outcomes.append(Outcome(condition, sample, log_odds, calibrated))
    return outcomes
