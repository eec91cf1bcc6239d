"""`why`: the question as one call."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from nadkit.errors import NadkitError
from nadkit.images import Images
from nadkit.masks import MaskSet
from nadkit.measures import NO_VALUE, Estimate, proportion, stratified_weights
from nadkit.networks import Network
from nadkit.questions.asked import check_images, check_network, check_number
from nadkit.questions.mistakes.picture import why_one
from nadkit.questions.mistakes.ranks import Ranking, rankings, strata
from nadkit.questions.mistakes.reading import answer
from nadkit.questions.mistakes.similarities import Reading, read, similarities
from nadkit.questions.sets import in_order, seed_of

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("network", "task", "condition", "metric", "value", "low", "high", "n", "seed", "interval")
METRICS = ("top_share", "auc", "top_share_centred", "auc_centred")
BOOTSTRAP = 1000
ERRORS = "errors, given this mask"
SEEDS = "mask seeds × errors"
NO_MASK = "errors"
COUNTED = "none: counted"

Row = dict[str, object]


def why(
    network: Network,
    masks: MaskSet | Sequence[MaskSet],
    images: Images,
    *,
    image: int | Images | None = None,
    draws: int = 999,
    top: int = 3,
    flips: int = 20,
    per_class: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """Return whether errors fall on the classes with similar sub-architectures; of one image, why it failed.

    Examples
    --------
    >>> import nadkit as nk
    >>> network, masks = nk.load_network("vgg-fashion"), nk.load_masks("vgg-fashion")
    >>> images = nk.load_images("fashion", split="test", per_class=20)
    >>> table = why(network, masks, images, draws=19)
    >>> print(table.attrs["answer"].split(";")[0])
    vgg-fashion: of 13 errors 46 % [23, 71] land on one of the 3 nearest sub-architectures (chance 33 %)

    Parameters
    ----------
    network
        The trained network.
    masks
        Of this network, of at least two classes; a list of several seeds of the same tasks gives intervals of
        two levels.
    images
        Test pictures; the more the better, as only errors count. Classes are matched to tasks by name; they
        may be fewer than the tasks, or more, or in another order.
    image
        One misclassified picture, by its index in `images` or as `Images` of one. Then the table is about
        that picture, as below, and `images` are what it is compared with.
    draws
        Permutations of the classes; for one picture, random sets of units. Fewer than 19 give no p-value.
    top
        How many of the nearest classes count as near, at least 1.
    flips
        The most units to remove from one picture's network, at least 1.
    per_class
        Use so many pictures of each class; None for all.
    seed
        Of permutations, the bootstrap, random units, and the pictures taken.
    progress
        Show a bar.

    Returns
    -------
    pandas.DataFrame
        One row one fact: network, task, condition, metric, value, low, high (95 %), n, seed (of the masks;
        empty where several or none apply) and interval, which says what varies. `task` is the true class, or
        "all" for all errors together. Errors are pictures that the whole network answers with another class;
        ranked are those whose true and answered class are both tasks. The condition is what says how alike
        two classes are:

        overlap
            Mean φ of the two masks over layers; layers where φ does not exist are left out, and so are units
            that are dead on all these pictures.
        jaccard
            Mean Jaccard index over layers, which is not corrected for chance.
        classifier_weights
            Cosine of the two rows of the last Linear layer with one output a class.
        mean_features
            Cosine of the two classes' mean activation in the last layer, over positions.
        mean_confusions
            The mean softmax of the one class on the other's pictures. Like mean_features, it is of correctly
            answered pictures only, so that no error predicts itself.

        Metrics:

        error_rate
            Of condition whole: misclassified pictures, of n.
        top_share
            Errors answered with one of the `top` classes nearest to the true one. Ties share places.
        auc
            The chance that the answered class is nearer than another wrong class; by chance 0.5.
        top_share_centred, auc_centred
            The same once the similarities are double-centred: a class that is near to every other, a hub,
            is no longer near for that.
        top_share_chance
            `top` of the classes that can be answered wrongly.
        p_value
            Of all errors' auc_centred, against joint permutations of the classes, one-sided. The primary test
            is that of overlap.
        effect
            auc_centred above its mean over those permutations, in their spreads.
        detectable
            The auc_centred that this test would find at 0.05 with a power of 0.8; empty if not even 1 would.
        excess
            auc_centred of overlap minus that of this similarity, on the errors that both rank.

        Several seeds of the masks rank each for itself, and their values are averaged. A task without a
        picture or an error has n = 0 and an empty (NaN) value. Intervals of shares are
        Wilson's; others, and those of several seeds, take their variance from a bootstrap stratified by true
        class (classes of a single error are drawn together), for Student's t with as many degrees of freedom
        as there are errors less those strata; the spread of seeds adds to it likewise. They hold for these
        classes; the permutations say whether as much is to be expected of other classes.
        `attrs["answer"]` is the table in one sentence and `attrs["notes"]` says what was left out.

        With `image`, `nadkit.questions.mistakes.picture.why_one` describes the columns and metrics.

    Raises
    ------
    MaskFileError
        The masks are for another network.
    ImageError
        Pictures that the network cannot take, of a class it does not have, or too few for `per_class`; an
        image that is not one, or is answered right.
    NadkitError
        Masks of several seeds have different tasks, or of fewer than two; a number that is none, or too
        small; NaN logits.

    Notes
    -----
    **Source** That wrong answers fall on sub-architectures similar to that of the right class is a finding of
    Hu et al., "Architecture disentanglement for deep neural networks", ICCV 2021; their similarity is
    Jaccard's.
    """
    check_network("why", network)
    check_images("why", images)
    numbers = [("draws", draws, 0), ("top", top, 1), ("flips", flips, 1), ("seed", seed, 0)]
    for name, value, least in numbers + [("per_class", per_class, 1)] * (per_class is not None):
        check_number(name, value, least)
    sets = _checked(network, masks)
    if image is not None:
        picture = image if isinstance(image, Images) else images[image]
        compared = images if per_class is None else images.take(per_class, seed)
        return why_one(
            network, sets, compared, picture, draws=draws, flips=flips, seed=seed, progress=progress
        )
    return _table(network, sets, images if per_class is None else images.take(per_class, seed),
                  draws, top, seed, progress)  # fmt: skip


def _table(
    network: Network,
    sets: Sequence[MaskSet],
    images: Images,
    draws: int,
    top: int,
    seed: int,
    progress: bool,
) -> pd.DataFrame:
    import pandas as pd
    from tqdm.auto import tqdm

    with tqdm(total=len(images), disable=not progress, unit="picture", unit_scale=True) as bar:
        reading = read(network, images, bar.update)
    wrong = (reading.labels != reading.chosen).nonzero().flatten()
    true, answered = reading.labels[wrong], reading.chosen[wrong]
    found, notes = similarities(network, sets, reading)
    ranked = rankings(found, true, answered, top, draws, seed)
    left_out = len(wrong) - len(ranked[0].rows)
    if left_out:
        notes.append(f"{left_out} of {len(wrong)} errors have a true or answered class without a mask")
    rows = list(_error_rows(network, sets[0].tasks, reading))
    weights = tuple(stratified_weights(each, BOOTSTRAP, seed) for each in (true, strata(true)))
    for ranking in ranked:
        rows += _rows(network, sets, ranking, ranked[0], weights, top)
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"seed": "Int64", "n": "int64"})
    table.attrs = {"notes": notes, "top": top}
    table.attrs["answer"] = answer(table)
    return table


def _error_rows(network: Network, tasks: Sequence[str], reading: Reading) -> Iterator[Row]:
    """How many pictures of each task are misclassified, and of all classes together."""
    wrong = reading.labels != reading.chosen
    for task in (*tasks, "all"):
        mine = wrong if task == "all" else wrong[reading.labels == network.class_index(task)]
        rate = proportion(int(mine.sum()), len(mine))
        yield _row(network, task, "whole", "error_rate", rate, len(mine), None, "images")


def _rows(
    network: Network,
    sets: Sequence[MaskSet],
    ranking: Ranking,
    overlap: Ranking,
    weights: tuple[Tensor, ...],
    top: int,
) -> Iterator[Row]:
    """All rows of one similarity; the weights are those of single classes, and those of all errors."""
    masked = ranking.name in ("overlap", "jaccard")
    ours = seed_of(sets)
    own = ours if masked else None
    varies = (
        SEEDS if len(sets) > 1 else ERRORS,
        SEEDS if masked and len(sets) > 1 else ERRORS if masked else NO_MASK,
    )
    permuted = f"none: {len(ranking.null)} permutations of the classes"
    places: list[tuple[str, int | None]] = [(task, network.class_index(task)) for task in sets[0].tasks]
    for task, place in [*places, ("all", None)]:
        for metric in METRICS:
            estimate, n = ranking.estimate(metric, weights[place is None], place)
            yield _row(network, task, ranking.name, metric, estimate, n, own, varies[1])
        count = len(ranking.true) if place is None else int((ranking.true == place).sum())
        yield _row(
            network, task, ranking.name, "effect", _counted(ranking.effect(place)), count, own, permuted
        )
    wrong = ranking.classes - 1
    chance = min(1.0, top / wrong) if wrong > 0 else math.nan
    yield _row(network, "all", ranking.name, "top_share_chance", _counted(chance), wrong, own, COUNTED)
    for metric, value in (("p_value", ranking.p_value()), ("detectable", ranking.detectable())):
        yield _row(network, "all", ranking.name, metric, _counted(value), len(ranking.true), own, permuted)
    if ranking is not overlap:
        lead, n = overlap.lead(ranking, weights[1])
        yield _row(network, "all", ranking.name, "excess", lead, n, ours, varies[0])


def _row(
    network: Network,
    task: str,
    condition: str,
    metric: str,
    estimate: Estimate,
    n: int,
    seed: int | None,
    interval: str,
) -> Row:
    cells = (network.name, task, condition, metric, *estimate, 0 if math.isnan(estimate.value) else n)
    return dict(zip(COLUMNS, (*cells, seed, interval), strict=True))


def _counted(value: float) -> Estimate:
    return NO_VALUE if math.isnan(value) else Estimate(value, value, value)


def _checked(network: Network, masks: MaskSet | Sequence[MaskSet]) -> list[MaskSet]:
    sets = in_order(network, masks, "why")
    if len(sets[0].tasks) < 2:
        raise NadkitError(
            f"why compares the sub-architectures of classes, and there are masks of {sets[0].tasks[0]!r} "
            "alone; give masks of all classes"
        )
    for task in sets[0].tasks:
        network.class_index(task)
    return sets
