"""Why one picture was misclassified: unusual units, and the few whose removal gives the right answer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nadkit.errors import ImageError, NadkitError, closest
from nadkit.images import Images
from nadkit.masks import MaskSet
from nadkit.measures import NO_VALUE, Estimate, percentiles, proportion
from nadkit.networks import Network
from nadkit.networks.outputs import at_once
from nadkit.questions.asked import check_finite
from nadkit.questions.connections.facts import over_sets
from nadkit.questions.connections.pairs import overlaps
from nadkit.questions.forwards import BATCH, labels_of
from nadkit.questions.mistakes.flips import SEARCHES, Switches, find_flip
from nadkit.questions.mistakes.reading import answer_one
from nadkit.questions.mistakes.similarities import over_positions
from nadkit.taps import Taps, frozen

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "network", "task", "other_task", "condition", "layer", "unit", "metric", "value", "low", "high", "n",
    "seed", "interval",
)  # fmt: skip
FAR = 2.0
"""Spreads from the task's own pictures from which on a unit is silent, or active."""

GIVEN = "none: this picture"

Row = dict[str, object]


@dataclass(frozen=True, eq=False)
class Responses:
    """What a task's own pictures do in the whole network.

    Attributes
    ----------
    units : (n_images, n_units) activations over positions, layer after layer
    right : (n_images,) whether the network answers the task
    pictures : the pictures, None if there are none
    """

    units: Tensor
    right: Tensor
    pictures: Images | None


def why_one(
    network: Network,
    sets: Sequence[MaskSet],
    images: Images,
    picture: Images,
    *,
    draws: int = 999,
    flips: int = 20,
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """Return what is unusual about one misclassified picture, and which few units turn the answer.

    Parameters
    ----------
    network
        The trained network.
    sets
        Masks of both the true and the answered class; of several seeds, units count as kept that most keep.
    images
        Pictures of both classes, for comparison.
    picture
        One picture whose class the network does not answer.
    draws
        Random sets of units, at least 0.
    flips
        The most units to remove, at least 1.
    seed
        Of the random sets.
    progress
        Show a bar.

    Returns
    -------
    pandas.DataFrame
        One row one fact: network, task, other_task, condition, layer, unit (its index in the layer; empty
        where a row is of several), metric, value, low, high (95 %), n, seed (of the random sets) and
        interval. `task` is the class that a row is about, the true or the answered one, and `other_task` the
        other of the two. A unit's *response* is its mean over positions, minus that of the true class's
        correctly answered pictures, in units of the spread within the two classes (root of the mean
        variance). Metrics:

        probability
            Of condition whole: the softmax of both classes on the picture.
        silent
            Of condition kept, for the true class: the response of a unit that it keeps, where it is -2 or
            less. A row a unit, lowest first; n is the number of pictures compared with.
        active
            The same for the answered class: 2 or more, highest first.
        silent_share, active_share
            So many of the n units that the class keeps (kept), and of those it does not (removed); Wilson.
        usual_share
            The mean of that share over the true class's correctly answered pictures, and where 95 % of them
            lie; n of them. Of `task` true for silent units, of the answered one for active units.
        margin
            Logit of the true class minus the largest other one: of condition whole, and of condition removed
            a row a unit, in the order of removal, which together with those before it is removed; n counts
            them. Candidates are kept by the answered and not by the true class. At each step the 16 of the
            largest first-order effect on the true class's log-odds are tried in a forward pass and the best
            is removed, until the answer is the true class or none of them helps; then those that are not
            needed are put back.
        phi_over_seeds
            Of condition kept, for each of the two classes: φ of its masks of two seeds, the mean over layers
            and over pairs of seeds (n), from the lowest to the highest; empty for one set. What is said of
            units holds for these masks, and for others as far as this is near 1; `stability` tells more.
        flipped
            1 if the answer is the true class when n units are removed, 0 if not (condition removed); and the
            share of n random sets, of as many units of the same layers, that do the same
            (removed_random, Wilson).
        found
            The share of n searches that turn the answer with as few units, each among as many random
            units of every layer as there were candidates (removed_random): where it is high, the
            candidates are nothing special. Empty if the answer is not turned.
        accuracy
            The share of each class's own pictures answered right, whole and with those units removed: what
            the switch costs.

        Without a unit or a picture to speak of, a row has n = 0 and an empty (NaN) value.
        `attrs["answer"]` is the table in one sentence.

    Raises
    ------
    ImageError
        More than one picture, or one that is answered right, or that does not fit the network.
    NadkitError
        There are no masks of the true or of the answered class.
    """
    import pandas as pd

    true, answered, inputs = _wrong(network, sets[0], images, picture)
    names = network.class_names[true], network.class_names[answered]
    kept_true, kept_answered = (_kept(sets, name) for name in names)
    labels = labels_of(network, images)
    own, others = (_responses(network, images, labels == k, k) for k in (true, answered))
    rows = _Rows(network.name, names)
    for k, name in enumerate(names):
        phi, pairs = _over_seeds(sets, name)
        varies = f"lowest to highest of {pairs} pairs of mask seeds" if pairs else "none: one set of masks"
        rows.add(k, "kept", "phi_over_seeds", phi, pairs, interval=varies)
    with frozen(network.model), torch.no_grad(), Taps(network) as taps:
        logits = network.logits(inputs).cpu().double()
    seen = _flat(network, taps.activations)[0]
    for k, share in zip((0, 1), logits.softmax(1)[0, [true, answered]].tolist(), strict=True):
        rows.add(k, "whole", "probability", Estimate(share, share, share), 1)
    _unusual(rows, network, seen, own, others, (kept_true, kept_answered))
    candidates = {address: kept_answered[address] & ~kept_true[address] for address in network.layers}
    switches = find_flip(network, inputs, true, candidates, flips, draws, seed, progress)
    _removed(rows, network, switches, draws, seed, (own, others), (true, answered))
    table = pd.DataFrame(rows.rows, columns=list(COLUMNS))
    table = table.astype({"seed": "Int64", "unit": "Int64", "n": "int64"})
    table.attrs = {"answer": answer_one(table)}
    return table


class _Rows:
    """Rows of the table, each about one of the two classes: 0 the true one, 1 the answered one."""

    def __init__(self, network: str, names: tuple[str, str]):
        self.network, self.names, self.rows = network, names, list[Row]()

    def add(
        self,
        about: int,
        condition: str,
        metric: str,
        estimate: Estimate,
        n: int,
        unit: tuple[str, int] | None = None,
        seed: int | None = None,
        interval: str = GIVEN,
    ) -> None:
        layer, index = unit or ("all", None)
        cells = (self.network, self.names[about], self.names[1 - about], condition, layer, index, metric)
        count = n if estimate.value == estimate.value else 0
        self.rows.append(dict(zip(COLUMNS, (*cells, *estimate, count, seed, interval), strict=True)))


def _wrong(network: Network, masks: MaskSet, images: Images, picture: Images) -> tuple[int, int, Tensor]:
    """The true and the answered class, and the network's input."""
    if len(picture) != 1:
        raise ImageError(f"{len(picture)} pictures were given as image; give one: images[index]")
    inputs = network.prepare(picture.pixels)
    true = int(labels_of(network, picture))
    with frozen(network.model), torch.no_grad():
        logits = network.logits(inputs)
    check_finite(network, logits)
    answered = int(logits.argmax())
    names = network.class_names
    if true == answered:
        raise ImageError(
            f"{network.name} answers this picture of {names[true]!r} right, so there is no mistake to "
            f"explain; give one it gets wrong{_examples(network, images)}"
        )
    for k in (true, answered):
        if names[k] not in masks.tasks:
            raise NadkitError(
                f"the picture is a {names[true]!r} answered as {names[answered]!r}, and there is no mask of "
                f"{names[k]!r}; {closest(names[k], masks.tasks)}; give masks of both"
            )
    return true, answered, inputs


def _examples(network: Network, images: Images) -> str:
    """A few misclassified pictures among the first thousand, by index."""
    few = images[: min(len(images), 1000)]
    chosen = torch.cat(
        [
            network(pixels).detach().argmax(1).cpu()
            for pixels, _ in few.batches(at_once(network.input_shape, BATCH))
        ]
    )
    wrong = (chosen != labels_of(network, few)).nonzero().flatten().tolist()
    return f", such as {', '.join(map(str, wrong[:3]))}" if wrong else ""


def _kept(sets: Sequence[MaskSet], task: str) -> dict[str, Tensor]:
    """The units that more than half of the seeds keep."""
    gates = [masks.gates(task) for masks in sets]
    return {address: torch.stack([gate[address] for gate in gates]).mean(0) > 0.5 for address in gates[0]}


def _over_seeds(sets: Sequence[MaskSet], task: str) -> tuple[Estimate, int]:
    """φ of one task's masks over seeds, and how many pairs of seeds have one."""
    kept = [{address: rows[None] > 0 for address, rows in masks.gates(task).items()} for masks in sets]
    pairs = [float(overlaps(one, other).phi[-1]) for one, other in itertools.combinations(kept, 2)]
    there = [phi for phi in pairs if not math.isnan(phi)]
    return over_sets(torch.tensor(pairs, dtype=torch.float64)), len(there)


def _responses(network: Network, images: Images, chosen: Tensor, task: int) -> Responses:
    units, right = [torch.zeros(0, network.units, dtype=torch.float64)], [torch.zeros(0, dtype=torch.bool)]
    pictures = images[chosen] if bool(chosen.any()) else None
    size = at_once(network.input_shape, BATCH)
    for pixels, _ in pictures.batches(size) if pictures else ():
        with frozen(network.model), torch.no_grad(), Taps(network) as taps:
            logits = network.logits(network.prepare(pixels))
        units.append(_flat(network, taps.activations))
        right.append(logits.argmax(1).cpu() == task)
    return Responses(torch.cat(units), torch.cat(right), pictures)


def _flat(network: Network, activations: dict[str, Tensor]) -> Tensor:
    """(n_images, n_units), layer after layer."""
    return torch.cat(
        [over_positions(network, address, activations[address]) for address in network.layers], 1
    )


def _unusual(
    rows: _Rows,
    network: Network,
    seen: Tensor,
    own: Responses,
    others: Responses,
    kept: tuple[dict[str, Tensor], dict[str, Tensor]],
) -> None:
    """Units of the true class that are silent on the picture, and of the answered class that are active."""
    units = [(address, index) for address, layer in network.layers.items() for index in range(layer.units)]
    usual, compared = own.units[own.right], others.units[others.right]
    spread = ((usual.var(0) + compared.var(0)) / 2).sqrt() if min(len(usual), len(compared)) > 1 else None
    for about, (metric, sign) in enumerate((("silent", -1), ("active", 1))):
        names = (metric, f"{metric}_share", "usual_share")
        if spread is None:
            for name in names:
                rows.add(about, "kept", name, NO_VALUE, 0)
            rows.add(about, "removed", names[1], NO_VALUE, 0)
            continue
        # A unit that no picture moves has no spread: wherever it is, it is not unusual.
        moved = spread > 1e-12
        mine = torch.cat([kept[about][address] for address in network.layers]) & moved
        scale = spread.clamp(min=1e-12)
        response = sign * (seen - usual.mean(0)) / scale
        far = response >= FAR
        unusual = (far & mine).nonzero().flatten()
        for at in unusual[response[unusual].argsort(descending=True)].tolist():
            value = sign * float(response[at])
            rows.add(about, "kept", metric, Estimate(value, value, value), len(usual), units[at])
        for condition, these in (("kept", mine), ("removed", ~mine & moved)):
            count = int(these.sum())
            share = proportion(int((far & these).sum()), count)
            rows.add(about, condition, names[1], share, count, interval="units")
        each = (sign * (usual - usual.mean(0)) / scale >= FAR)[:, mine].double().mean(1)
        share = Estimate(float(each.mean()), *percentiles(each)) if bool(mine.any()) else NO_VALUE
        rows.add(about, "kept", names[2], share, len(each), interval="pictures, their 2.5-97.5 %")


def _removed(
    rows: _Rows,
    network: Network,
    switches: Switches,
    draws: int,
    seed: int,
    responses: tuple[Responses, Responses],
    tasks: tuple[int, int],
) -> None:
    """The counterfactual, its control, and what it costs."""
    whole = switches.margins[0]
    rows.add(0, "whole", "margin", Estimate(whole, whole, whole), 1)
    for step, (unit, value) in enumerate(zip(switches.units, switches.margins[1:], strict=True), 1):
        rows.add(0, "removed", "margin", Estimate(value, value, value), step, unit)
    count = len(switches.units)
    flipped = float(switches.flipped)
    done = Estimate(flipped, flipped, flipped) if count else NO_VALUE
    rows.add(0, "removed", "flipped", done, count)
    random = proportion(switches.random_flips, draws) if count else NO_VALUE
    rows.add(0, "removed_random", "flipped", random, draws, seed=seed, interval="random draws")
    found = proportion(switches.searched_flips, SEARCHES) if switches.flipped else NO_VALUE
    rows.add(0, "removed_random", "found", found, SEARCHES, seed=seed, interval="random candidates")
    for about, (response, task) in enumerate(zip(responses, tasks, strict=True)):
        total = len(response.right)
        rows.add(
            about, "whole", "accuracy", proportion(int(response.right.sum()), total), total, interval="images"
        )
        if response.pictures is None or not count:
            rows.add(about, "removed", "accuracy", NO_VALUE, 0)
            continue
        right = 0
        for pixels, _ in response.pictures.batches(at_once(network.input_shape, BATCH)):
            logits = switches.logits(network, network.prepare(pixels))
            right += int((logits.argmax(1).cpu() == task).sum())
        rows.add(about, "removed", "accuracy", proportion(right, total), total, interval="images")
