"""Whether a network divides into sub-architectures for its tasks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import TYPE_CHECKING

from nadkit.errors import NadkitError, closest
from nadkit.images import Images
from nadkit.masks import MaskSet
from nadkit.networks import Network
from nadkit.questions.agreement import agreement_rows
from nadkit.questions.asked import check_images, check_network, check_number
from nadkit.questions.chance import chance_rows
from nadkit.questions.conditions import (
    Condition,
    compared_conditions,
    learned_conditions,
    own_conditions,
    soft_condition,
)
from nadkit.questions.controls import Controls, find_controls
from nadkit.questions.curves import Shares, bundled_curve, curve_rows, find_points
from nadkit.questions.minimality import minimality_rows
from nadkit.questions.necessity import necessity_rows
from nadkit.questions.reading import sentences
from nadkit.questions.sets import in_order
from nadkit.questions.showing import Shown, show
from nadkit.questions.tables import (
    Row,
    condition_rows,
    excess_rows,
    gap_rows,
    layer_rows,
    matrix_rows,
    to_table,
)

if TYPE_CHECKING:
    import pandas as pd

PARTS = ("sufficiency", "layers", "matrix", "comparison", "agreement", "necessity", "minimality")
"""What `whether` can look at; the last four are done only if asked for."""


def whether(
    network: Network,
    masks: MaskSet | Sequence[MaskSet],
    images: Images,
    *,
    calibrate_on: Images | None = None,
    controls: Controls = "bundled",
    learn_on: Images | None = None,
    draws: int = 20,
    parts: str | Sequence[str] = ("sufficiency", "layers", "matrix"),
    shares: Shares = None,
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
        Training pictures that the masks were not learned from. Without them there are no calibrated rows,
        recomposed accuracy is of the whole network alone, and the evidence is of AUROC, which has no
        threshold: learning sets that of a task's own masks and of some controls only, so that without a
        calibration log-odds above 0 would tell thresholds apart, and not units.
    controls
        Learned controls: masks by name (relabelled, shared, untrained; a list for several seeds, each with
        its own exchange of tasks or its own fresh weights), None, or "bundled", which takes those that come
        with a bundled network at the kept share of the masks and, if there are none, none. "learned" takes
        the bundled ones of bundled masks; of other masks it learns them from `learn_on`, as the masks' meta
        says that they were learned, which takes three times as long and shows a bar; the same call again in
        this process learns nothing. `nadkit.learn.controls.learn_controls` keeps them in files.
        `table.attrs["controls"]` says which were used, and where both files tell how they were learned, what
        differs: "bundled, learned otherwise: objective". Whether relabelled masks were learned from the same
        pictures cannot be told from their file.
    learn_on
        With controls "learned": the training pictures that the masks were learned from.
    draws
        Random masks of the same size, at least 0. The primary test takes 199 or more: with fewer there is no
        p-value, with 199 it can be 0.005.
    parts
        What to look at, one or several, or "all":

        sufficiency, layers, matrix
            What the kept units do alone; the kept share of every layer; which class's pictures each task's
            sub-architecture accepts. These are the default.
        comparison
            Two conditions more: other (the other tasks' masks) and last_layer (all units before the last
            layer open). Hardly any time.
        agreement
            Whether the kept units do what the whole network does. Hardly any time.
        necessity
            What is lost when units are removed. At 20 draws about three times as long as the default.
        minimality
            How many kept units the task can do without. About as long as the default.
    shares
        Kept shares of a curve: numbers, for which bundled masks and controls are taken, or masks by share,
        {0.3: {"kept": masks, "shared": masks, …}, …}; each share takes about as long as the default.
        "bundled" reads the curve of a bundled network, measured once, on 100 test pictures a class and one
        seed, over six shares: rows over tasks only, in no time.
    per_class
        Use so many pictures of each class, of `images` and of `calibrate_on`; None for all. Time grows with
        it: with the default parts, 20 draws and the bundled controls, 20 a class of "resnet-fashion" (ten
        tasks, 400 pictures with those to calibrate on) take about 13 s of one core, 0.03 s a picture; each
        of the ten tasks passes every picture through the network once for every mask. Half of the draws
        saves a third, fewer tasks as much as they are fewer.
    seed
        Of the random masks, the pictures taken and the bootstrap.
    progress
        Show a bar for every part.

    Returns
    -------
    pandas.DataFrame
        One row one fact: network, task, condition, metric, value, low, high (95 %), n, seed (of the masks;
        of the draws for random; empty where several or none apply) and interval, which says what varies.
        Columns that no row uses are left out: other_task (of the matrix), share (the kept share asked for, of
        a curve), dose (of necessity) and layer (an address; "all" over layers). Conditions: whole, kept,
        removed (the complement kept), random, the learned controls, other, last_layer; with a dose, removed
        and removed_random are the whole network less so many units. Metrics:

        recall, false_alarm, balanced_accuracy
            Of the decision "log-odds of the task above 0".
        balanced_accuracy_calibrated
            After a class-balanced Platt fit on `calibrate_on`, one for every task and condition.
        auroc, auroc_own, auroc_rest
            Of the log-odds, and of their two parts: the task's logit (less the mean of all logits), and how
            low the other logits are (minus their log-sum-exp).
        recomposed_accuracy
            For task "all": the task of the largest calibrated log-odds is right; for the whole network, its
            own answer is. Of pictures whose class is a task's.
        kept_share
            Open gates over all units, of the network or of a layer; counted, so low and high are the value; n
            is the number of units.
        excess
            For kept: its calibrated balanced accuracy, or without a calibration its AUROC, minus that of the
            best learned control, which is the one that leaves the smallest mean over the tasks that both
            have. The sentence says which metric and which control; `interval` says which controls were
            learned otherwise than the masks, and how.
        effect_in_spreads, p_value
            How far the same metric is from the mean of random, in standard deviations of its draws (n of
            them); and the one primary test, for the mean over tasks: (1 + draws as good) / (1 + draws),
            empty below 199 draws.
        discretisation_gap
            The same metric with the scores themselves as gates, minus that of kept. Masks learned with hard
            gates, as one-vs-rest, have scores that rank units and are no gates.
        accepted, accepted_calibrated
            Share of the pictures of class other_task whose log-odds of the task are above 0.
        area, smallest_share, short_again
            Of a curve, of the same metric: its mean height between the first share and the last; the first
            share that reaches 0.95 of the whole network's, where low and high are the first ones whose upper
            and lower ends do; and the largest share above that one that falls short of it, if one does.
        agreement, agreement_on_errors
            Share of equal decisions (calibrated, if there is a calibration) of a condition and the whole
            network: half over own pictures and half over others'; and over pictures that the whole network
            gets wrong and that are of the task or answered with it.
        kl, kl_task
            Divergence Σ p log(p / q) in nats from the whole network's answer p: over all classes, on own
            pictures (not of relabelled); and of the task against the rest, half own pictures, half others'.
        rank_correlation
            Of log-odds, gated and whole, within a class; the mean over classes of at least 3 pictures.
        r_squared
            How much of the kept units' activation in the deepest layer with kept units the same units of the
            whole network explain, on own pictures.
        drop_own, drop_others, removed_share
            Of a dose: by how much removing units of the task lowers its log-odds on its own pictures, and the
            other tasks' on theirs; units removed over all. Doses are the highest scores (1 %, 2 %, 5 %, 10 %
            and 20 % of all units), "kept", and "exclusive": the kept ones that no other task keeps.
        selectivity, selectivity_others
            How far the two drops are from those of as many random units of the same layers, in standard
            deviations of the draws (of which at most 20 are made). A task whose units all score alike has
            none that score highest, and no value at such a dose.
        minimality
            Share of kept units whose removal, one at a time, lowers the task's log-odds on its own pictures
            less those on others' by more than 95 % of (100 random) removed units, added back, raise them; of
            at most 400 kept units. No value where no unit is removed.
        needed_share
            Share of the kept units left when that difference has first lost 1 %, removed one after the other
            from the least to the most worth alone; of more than 400 kept units, from the lowest score on.

        Task "mean" is the mean over tasks that have a value; its n counts a picture once. For relabelled, a
        task's positives are the pictures of the class that its logit had to learn to accept; of several
        seeds, each with its own exchange, n is the fewest. A task without a picture has n = 0 and an empty
        (NaN) value. Rows of random are the mean over draws, from their 2.5 % to their 97.5 % point. Intervals
        are Wilson's, combined of two for balanced accuracy and excess (MOVER); Newcombe's for AUROC. Means
        over tasks take their variance from a bootstrap stratified by class. Several seeds of the masks add
        theirs with Student's t, since two or three seeds tell little about how far seeds vary: of two the
        interval is wide, and covers more than 95 %. Controls of one seed are taken as they are: "given the
        control's masks". Drops, divergences and correlations have the bootstrap's 2.5 % and 97.5 % points
        (of one picture a class an empty interval). `attrs["answer"]` is the table in words, a sentence for
        each part (`nadkit.questions.answer`).

    Raises
    ------
    MaskFileError
        The masks, or a control's, are for another network.
    ImageError
        Pictures that the network cannot take, of a class it does not have, or too few for `per_class`.
    NadkitError
        Masks of several seeds have different tasks, a control is unknown or lacks its meta, "learned" has no
        pictures, a number is none, no such part, or shares without masks (those that are bundled are named).

    Notes
    -----
    A mask that answers its task for every picture has recall 1 and balanced accuracy 0.5; a mask learned on
    a network that never held the task can still solve it. So the network "contains" a sub-architecture only
    where the lower end of `excess` is above 0 and all three learned controls, which were learned as the masks
    were, stand beside them.
    """
    network, images = check_network("whether", network), check_images("whether", images)
    for name, given in (("calibrate_on", calibrate_on), ("learn_on", learn_on)):
        if given is not None:
            check_images("whether", given, name)
    draws, seed = check_number("draws", draws, 0), check_number("seed", seed, 0)
    sets = in_order(network, masks, "whether")
    if len(network.class_names) < 2:
        raise NadkitError(f"{network.name} has one class; log-odds need two or more")
    asked, points = _parts(parts), find_points(shares, network, sets)
    ready = bundled_curve(network, sets[0].tasks) if isinstance(shares, str) else []
    if not asked and not points and not ready:
        raise NadkitError(f"nothing was asked: give parts ({', '.join(PARTS)}) or shares")
    if per_class is not None:
        per_class = check_number("per_class", per_class, 1)
        images = images.take(per_class, seed)
        calibrate_on = None if calibrate_on is None else calibrate_on.take(per_class, seed)
    learned, sources = find_controls(controls, network, sets, learn_on)
    rows: list[Row] = []
    if asked - {"necessity", "minimality"} or points:
        conditions = _conditions(network, sets, learned, asked, draws, seed)
        shown = show(network, conditions, sets[0].tasks, images, calibrate_on, seed, progress)
        rows += _shown_rows(network, shown, images, asked, sources)
        rows += curve_rows(network, points, shown.outcomes[0], images, calibrate_on, draws, seed, progress)
    rows += ready
    if "necessity" in asked:
        rows += necessity_rows(network, sets, images, draws, seed, progress)
    if "minimality" in asked:
        rows += minimality_rows(network, sets, images, seed, progress)
    table = to_table(rows)
    table.attrs = {"controls": sources, "answer": " ".join(sentences(table))}
    return table


def _conditions(
    network: Network,
    sets: Sequence[MaskSet],
    learned: Mapping[str, Sequence[MaskSet]],
    asked: Set[str],
    draws: int,
    seed: int,
) -> list[Condition]:
    """Return what has to be shown the pictures for the parts that were asked for; whole comes first."""
    whole, kept, removed, *random = own_conditions(network, sets, draws, seed)
    if not asked - {"necessity", "minimality"}:
        return [whole]
    found = [whole, kept]
    if "comparison" in asked:
        found += compared_conditions(network, kept)
    if "sufficiency" in asked:
        found += [removed, soft_condition(network, sets)]
    if asked & {"sufficiency", "agreement"}:
        found += random
    return found + learned_conditions(network, sets[0].tasks, learned)


def _shown_rows(
    network: Network, shown: Shown, images: Images, asked: Set[str], sources: Mapping[str, str]
) -> Iterator[Row]:
    """Yield the rows of every part that is about answers to pictures."""
    name = network.name
    outcomes = [outcome for outcome in shown.outcomes if outcome.condition.name != "soft"]
    for outcome in outcomes:
        compared = outcome.condition.name in ("other", "last_layer")
        if ("comparison" if compared else "sufficiency") in asked:
            yield from condition_rows(name, outcome)
    if "sufficiency" in asked:
        yield from excess_rows(name, outcomes, sources)
        yield from gap_rows(name, shown.outcomes)
        yield from chance_rows(name, outcomes)
    if "layers" in asked:
        yield from layer_rows(name, outcomes)
    if "matrix" in asked:
        yield from matrix_rows(name, outcomes, network.class_names)
    if "agreement" in asked:
        yield from agreement_rows(network, outcomes, shown.whole, shown.decisive, images)


def _parts(parts: str | Sequence[str]) -> set[str]:
    if not isinstance(parts, str | Iterable):
        raise NadkitError(f"parts are {parts!r}; give one or several of {', '.join(PARTS)}, or 'all'")
    named = [parts] if isinstance(parts, str) else list(parts)
    for part in named:
        if part not in (*PARTS, "all"):
            raise NadkitError(f"no part {part!r} of whether; {closest(str(part), (*PARTS, 'all'))}")
    return set(PARTS) if "all" in named else set(named)
