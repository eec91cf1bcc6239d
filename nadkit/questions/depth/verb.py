"""`where`: the question as one call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from nadkit.errors import NadkitError, closest
from nadkit.images import Images
from nadkit.masks import MaskSet
from nadkit.networks import Network
from nadkit.questions.asked import check_images, check_number
from nadkit.questions.depth.conditions import passes, shares_of
from nadkit.questions.depth.material import Material, evidence_material, look, mosaic_material
from nadkit.questions.depth.profiles import (
    Profile,
    Shares,
    correlation_with_depth,
    difference,
    profile,
    rows_of,
    steps,
    undefined_rows,
)
from nadkit.questions.depth.reading import where_answer
from nadkit.questions.sets import in_order
from nadkit.questions.tables import Row

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("network", "task", "condition", "layer", "metric", "value", "low", "high", "n", "seed", "interval")
PROTOCOLS = ("energy", "official")
Masks = MaskSet | Sequence[MaskSet]


def where(
    network: Network | Sequence[tuple[Network, Masks]],
    masks: Masks | None = None,
    images: Images | Mapping[str, Images] | None = None,
    *,
    protocol: str = "energy",
    mosaics: int = 100,
    draws: int = 20,
    per_class: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """Return, layer by layer, how much of what a task's kept units do lies on the task's own pixels.

    Mosaics show pictures of four classes; the network, gated to the units that one of these tasks keeps,
    should look at its quadrant. On scenes, whose evidence is known, it should look at the evidence.

    Examples
    --------
    >>> import torch
    >>> pixels = torch.eye(4)[:, :, None, None].expand(-1, -1, 2, 2)
    >>> names = ["red", "green", "blue", "white"]
    >>> model = torch.nn.Sequential(
    ...     torch.nn.Identity(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 4)
    ... )
    >>> _ = model[3].weight.data.copy_(9 * torch.eye(4)), model[3].bias.data.zero_()
    >>> network = Network.wrap(model, names, example=pixels, layers=["0"])
    >>> masks = MaskSet.from_scores({"0": torch.eye(4)}, names)
    >>> table = where(network, masks, Images(pixels, torch.arange(4), tuple(names)), mosaics=8)
    >>> rows = table.query("task == 'mean' and metric == 'hit_rate'").set_index("condition")
    >>> rows["value"][["kept", "whole"]].to_dict()
    {'kept': 1.0, 'whole': 0.25}

    Parameters
    ----------
    network
        The trained network, or a list of pairs (network, masks) of differently named networks.
    masks
        Of this network; a list of several seeds of the same tasks gives intervals of two levels. None with
        pairs.
    images
        Test pictures, or a dictionary of them by the networks' names. Classes are matched to tasks by name;
        they may be fewer than the tasks, or more, or in another order.
    protocol
        "energy": shares of activation energy on mosaics that show pictures in their own size, all of which
        the whole network classifies correctly. "official": the released measure on mosaics of any pictures,
        resized to the network's input.
    mosaics
        How many, at least 1. Their classes are the tasks that have pictures; if those are fewer than four,
        all classes that have.
    draws
        Random masks of the same size, at least 0. Each draw sees a quarter of what the other conditions see.
    per_class
        Use so many pictures of each class; None for all.
    seed
        Of the pictures taken, the mosaics, the other tasks, the random masks and the bootstrap.
    progress
        Show a bar.

    Returns
    -------
    pandas.DataFrame
        One row one fact: network, task, condition, layer, metric, value, low, high (95 %), n (mosaics or
        pictures with a value), seed (of the masks; of the draws for random; empty where several or none
        apply) and interval, which says what varies. There is no column other_task. Task "mean" is the mean
        over tasks that have a value, layer "all" stands for what is over all layers. Metrics:

        hit_rate
            The share of a layer's energy in the task's quadrant. Energy is the sum of squares over units,
            each divided by its spread, the standard deviation over all pictures and positions in the whole
            network; units without spread are left out. Cells that the border between quadrants cuts count
            in each by their area, so chance is 0.25 on every grid.
        hit_rate_official
            In place of it for `protocol="official"`: the share of the brightest tenth of the map, which is
            the plain sum over units, scaled, cut to uint8 and resized; see `measures.hits.released_hits`.
        evidence_share
            Of pictures with `objects` (protocol "energy"): the share of energy on the pixels of the evidence
            of pictures that the network gets right, each cell's energy spread evenly over its pixels.
        ..._excess
            Of kept: its value minus that of other, on the same mosaics or pictures.
        evidence_share_drop
            Of kept: its value minus that of counterfactual.
        ..._spearman
            Rank correlation of a metric with the order of the layers: 1 rises at every step, -1 falls. It is
            of at least three layers with a value.
        ..._step
            Of kept, task mean: the value in a layer minus that in the layer before.
        ..._undefined
            Task "all": the share of what was read that has no value; n is how often it was read.

        Conditions:

        kept
            The network gated to the units that the task keeps.
        other
            Gated to another task's mask at random: of no class in the mosaic if there is one, else of another
            quadrant's; for pictures of any other task. By itself such a mask prefers none of the quadrants,
            and its mean over tasks is near 0.25 (below it, if the mask is of another quadrant's task: what
            goes there is missing here); for one task it says how much that class draws whatever the mask.
        random
            As many random units in every layer; value (the mean) and interval are of the draws.
        whole
            Ungated. One map has four quadrants, so the mean over tasks is 0.25 by construction.
        ceiling
            What receptive fields allow: kept, with the three other quadrants blank (the mean pixel). Units
            also answer to blank pixels, so for "energy" their activation on a wholly blank mosaic is taken
            off first: what is left is what the quadrant's picture does. "official" reads the map as it is.
        counterfactual
            Kept, on the same picture without one object of its rule; the place is the same.
        area
            The share of the picture that is evidence (layer "all"): what energy spread evenly would have.

        A value does not exist where a task has no picture, a mask keeps no unit of the layer, nothing is
        active, the layer has no rows and columns (fewer than two of each), or, for "official", the map is
        constant or no pixel lies strictly above the tenth's edge. Such cases are left out of means and
        counted; where nothing is left, the value is empty (NaN) and n is 0. Intervals are percentiles of a
        bootstrap over mosaics (each with its four quadrants) or over pictures (class by class, if each has
        two), as much wider as Student's t is for n - 1 degrees of freedom (of n = 1 all that can be), and,
        with several seeds of the masks, wider by their spread (Student's t). `attrs["answer"]` is the table
        in one sentence, and `attrs["mosaics"]` tells for each network whether its mosaics were at object
        scale or, where it takes pictures of one size only, resized to it.

    Raises
    ------
    MaskFileError
        The masks are for another network.
    ImageError
        Pictures that the network cannot take, of a class it does not have, too few for `per_class`, or (for
        "energy": correctly classified) of fewer than four classes.
    NadkitError
        Networks, masks and images do not go together, two networks have one name, masks of several seeds
        have different tasks, an unknown protocol, a number that is none, NaN logits.

    Notes
    -----
    It says where a mask looks, not whether its units do the task: masks that answer their task for every
    picture have hit rates above chance, too. Squares count negative activation as well as positive, so a
    layer without a ReLU (the cells of a searched network) is at a disadvantage to one with. Rank correlations
    treat layers as fixed; they speak of this network, not of networks.

    **Source** Hu et al., ICCV 2021, as released (cam_2x2.py), for `protocol="official"`; the rest is ours.
    """
    import pandas as pd
    from tqdm.auto import tqdm

    studies = _studies(network, masks, images)
    if protocol not in PROTOCOLS:
        raise NadkitError(f"no protocol {protocol!r}; {closest(str(protocol), PROTOCOLS)}")
    numbers = [("mosaics", mosaics, 1), ("draws", draws, 0), ("seed", seed, 0)]
    for name, value, least in numbers + [("per_class", per_class, 1)] * (per_class is not None):
        check_number(name, value, least)
    rows: list[Row] = []
    shown = {}
    chosen = [pictures if per_class is None else pictures.take(per_class, seed) for _, _, pictures in studies]
    with tqdm(total=sum(map(len, chosen)), disable=not progress, unit="picture", unit_scale=True) as bar:
        for (one, sets, _), pictures in zip(studies, chosen, strict=True):
            known = look(one, pictures, bar.update)
            tasks = sets[0].tasks
            material, shown[one.name] = mosaic_material(one, pictures, known, tasks, mosaics, seed, protocol)
            scenes = None if protocol == "official" else evidence_material(one, pictures, known, tasks)
            materials = [(material, None), *([] if scenes is None else [scenes])]
            bar.total = (bar.total or 0) + sum(passes(each, sets, draws) for each, _ in materials)
            for each, area in materials:
                rows.extend(_rows(each, sets, draws, seed, bar.update, area))
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"seed": "Int64", "n": "int64"})
    table.attrs = {"mosaics": shown, "answer": where_answer(table)}
    return table


def _studies(
    network: Network | Sequence[tuple[Network, Masks]],
    masks: Masks | None,
    images: Images | Mapping[str, Images] | None,
) -> list[tuple[Network, list[MaskSet], Images]]:
    if isinstance(network, Network):
        if masks is None:
            raise NadkitError(f"where needs masks of {network.name}: where(network, masks, images)")
        pairs: list[tuple[Network, Masks]] = [(network, masks)]
    else:
        if masks is not None:
            raise NadkitError(
                "with several networks the masks stand beside them and images are given by name: "
                "where([(network, masks), ...], images=images)"
            )
        pairs = _pairs(network)
    return [(one, in_order(one, given, "where"), _images_of(one, images)) for one, given in pairs]


def _pairs(pairs: object) -> list[tuple[Network, Masks]]:
    found = list(pairs) if isinstance(pairs, Sequence) and not isinstance(pairs, str) else []
    sound = all(isinstance(p, tuple | list) and len(p) == 2 and isinstance(p[0], Network) for p in found)
    if not found or not sound:
        raise NadkitError(
            f"where needs a network, or a list of pairs (network, masks), and got {type(pairs).__name__}"
            f"{' of something else' if found else ''}"
        )
    names = [one.name for one, _ in found]
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise NadkitError(
            f"two networks are named {double!r}, and rows of a table are told apart by name; "
            "call where once for each of them"
        )
    return [(one, given) for one, given in found]


def _images_of(network: Network, images: Images | Mapping[str, Images] | None) -> Images:
    if isinstance(images, Mapping):
        if network.name not in images:
            raise NadkitError(f"no images for {network.name!r}; {closest(network.name, images)}")
        images = images[network.name]
    return check_images("where", images)


def _rows(
    material: Material,
    sets: Sequence[MaskSet],
    draws: int,
    seed: int,
    advance: Callable[[int], object],
    area: Tensor | None,
) -> Iterator[Row]:
    """Every row of one material: conditions, their differences, and what depth does to them."""
    name, layers, tasks = material.network.name, list(material.network.layers), sets[0].tasks

    def summed(shares: Shares) -> Profile:
        return profile(
            shares, material.metric, material.unit, material.tasks, len(tasks), material.strata, seed
        )

    profiles = {}
    for shares in shares_of(material, sets, draws, seed, advance):
        one = profiles[shares.condition] = summed(shares)
        yield from rows_of(name, one, tasks, layers)
        yield from undefined_rows(name, shares, material.metric, layers)
        # The whole network's mean over four quadrants is 0.25 in every layer: there is nothing to rank.
        if shares.condition != "whole" or material.unit != "mosaics":
            yield from rows_of(name, correlation_with_depth(one), tasks, ["all"])
    if area is not None:
        yield from rows_of(name, summed(Shares("area", area[None, ..., None], len(area))), tasks, ["all"])
    kept = profiles["kept"]
    excess = difference(kept, profiles["other"], f"{material.metric}_excess")
    yield from rows_of(name, excess, tasks, layers)
    yield from rows_of(name, correlation_with_depth(excess), tasks, ["all"])
    if "counterfactual" in profiles:
        drop = difference(kept, profiles["counterfactual"], f"{material.metric}_drop")
        yield from rows_of(name, drop, tasks, layers)
    change, later = steps(kept, layers)
    yield from rows_of(name, change, (), later)
