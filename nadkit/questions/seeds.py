"""Whether masks learned again keep the same units."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nadkit.errors import NadkitError
from nadkit.images import Images
from nadkit.masks import MaskSet
from nadkit.measures import NO_VALUE, Estimate
from nadkit.measures.permutation import p_value, permutations
from nadkit.networks import Network
from nadkit.questions.asked import check_images, check_network, check_number
from nadkit.questions.connections.facts import (
    ALPHA,
    Facts,
    over_sets,
    over_tasks,
    text_of,
    to_table,
    value_of,
)
from nadkit.questions.connections.pairs import Overlaps, overlaps
from nadkit.questions.forwards import live_units
from nadkit.questions.sets import in_order

if TYPE_CHECKING:
    import pandas as pd

STABLE = 0.8
"""The φ of the same task over seeds from which on its units count as the same."""


def stability(
    network: Network,
    sets: Sequence[MaskSet],
    images: Images | None = None,
    *,
    draws: int = 999,
    seed: int = 0,
) -> pd.DataFrame:
    """Return how far masks of the same task agree over seeds, against masks of different tasks and chance.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 4), torch.nn.Linear(4, 2))
    >>> example = torch.zeros(1, 1, 1, 2)
    >>> network = Network.wrap(model, ["left", "right"], example=example, layers=["1"], name="net")
    >>> masks = MaskSet.from_scores({"1": torch.tensor([[1.0, 1, 0, 0], [1, 0, 1, 0]])}, ["left", "right"])
    >>> table = stability(network, [masks.with_meta(seed=0), masks.with_meta(seed=1)], draws=9)
    >>> rows = table.query("task == 'mean' and layer == 'all'").set_index("metric")
    >>> float(rows.loc["phi_same", "value"]), float(rows.loc["phi_other", "value"])
    (1.0, 0.0)

    Parameters
    ----------
    network
        The trained network.
    sets
        Two sets of masks or more, of the same tasks in any order: several seeds of one learning.
    images
        Pictures that tell which units are dead: these are left out, as masks that agree on them would agree
        by more than chance for no reason. None leaves none out.
    draws
        Permutations, at least 1: the tasks of every set but the first change places.
    seed
        Of the permutations.

    Returns
    -------
    pandas.DataFrame
        One row one fact: network, task, other_task, layer, metric, value, low, high (95 %), n, seed (empty),
        interval. Layer "all" is the mean over layers that have a value. Metrics, each between masks of two
        different seeds, the mean over all pairs of seeds (n):

        phi_same, jaccard_same
            Of one task (other_task is the same); from the lowest to the highest pair of seeds. Task "mean"
            is over tasks (n), with the interval of a jackknife over tasks.
        phi_other, jaccard_other
            Of a task with every other (other_task "mean"); the same intervals.
        phi_same_minus_other, jaccard_same_minus_other
            Their difference.
        phi_p
            Task "all": how often tasks in permuted places agree as well as the same ones.

        Where a task keeps none or all of a layer's units φ does not exist: the value is empty and n is 0.
        `attrs["answer"]` is the table in one sentence, `attrs["dead"]` names the dead units.

    Raises
    ------
    MaskFileError
        Masks for another network.
    NadkitError
        Fewer than two sets, the same set twice, other tasks, draws below 1, a seed that is none, NaN logits.

    Notes
    -----
    φ is 0 on average between random units of the same number, and 1 between equal masks. It says whether a
    claim about single units would be the same with other masks; that the tasks are solved as well by masks
    of other units is no contradiction.
    """
    check_network("stability", network)
    check_number("draws", draws, 1)
    check_number("seed", seed, 0)
    if images is not None:
        check_images("stability", images)
    if isinstance(sets, MaskSet) or not isinstance(sets, Sequence) or len(sets) < 2:
        raise NadkitError(
            "stability compares two sets of masks or more; give those of several seeds as a list"
        )
    ordered = in_order(network, sets, "stability")
    for first, second in itertools.combinations(range(len(sets)), 2):
        if sets[first] == sets[second]:
            raise NadkitError(
                f"sets {first} and {second} are the same masks with the same meta; "
                "give masks of another seed: learn_masks(..., seed=1)"
            )
    live = live_units(network, images)
    kept = [
        {address: rows[:, live[address]].bool() for address, rows in masks.gates().items()}
        for masks in ordered
    ]
    found = [overlaps(first, second) for first, second in itertools.combinations(kept, 2)]
    tasks, layers = ordered[0].tasks, list(kept[0])
    facts = Facts(network.name, None, len(sets))
    for metric in Overlaps._fields:
        stack = torch.stack([getattr(one, metric) for one in found])
        for place, layer in enumerate((*layers, "all")):
            _add(facts, tasks, layer, metric, stack[:, place])
    matrices = torch.stack([one.phi[-1] for one in found])
    p = _p(matrices, len(sets), draws, seed)
    valued = int((~matrices.diagonal(dim1=1, dim2=2).isnan()).any(0).sum())
    estimate = NO_VALUE if math.isnan(p) else Estimate(p, p, p)
    facts.add("all", "all", "phi_p", estimate, valued, f"{draws} permutations of the tasks")
    dead = [f"{at}/{unit}" for at, units in live.items() for unit in (~units).nonzero().flatten().tolist()]
    table = to_table([facts], sets=len(sets), dead=dead)
    table.attrs["answer"] = stability_answer(table)
    return table


def stability_answer(table: pd.DataFrame) -> str:
    """Return the table of `stability` as one sentence, computed from its rows.

    It says that tasks keep units of their own only where the interval of the difference to other tasks is
    above 0 and the permutation agrees (p ≤ 0.05), and that single units can be named only where besides the
    same task's φ is 0.8 or more.

    Examples
    --------
    >>> import pandas as pd
    >>> columns = ["network", "task", "layer", "metric", "value", "low", "high"]
    >>> rows = [("net", "mean", "all", "phi_same", 0.4, 0.3, 0.5),
    ...         ("net", "mean", "all", "phi_other", 0.0, -0.1, 0.1),
    ...         ("net", "mean", "all", "phi_same_minus_other", 0.4, 0.2, 0.6),
    ...         ("net", "all", "all", "phi_p", 0.001, 0.001, 0.001)]
    >>> print(stability_answer(pd.DataFrame(rows, columns=columns)))
    net: masks of one task agree over seeds by φ = 0.40 [0.30, 0.50] (chance is 0), those of different tasks
    by 0.00 [-0.10, 0.10], a difference of 0.40 [0.20, 0.60] (p = 0.001): a task keeps units of its own, but
    no single unit is sure to be among them.

    Parameters
    ----------
    table
        As `stability` returns it; it may have been saved and read again.

    Raises
    ------
    NadkitError
        It is no table of `stability`.
    """
    rows = table[table["metric"] == "phi_same"]
    if rows.empty:
        raise NadkitError("no φ of the same task in this table; give a table of stability(...)")
    name = str(rows["network"].iloc[0])
    at = (table, name, "mean", "all")
    if math.isnan(value_of(*at, "phi_same")):
        return f"{name}: no task has an overlap φ over seeds, as it keeps none or all of every layer."
    said = f"{name}: masks of one task agree over seeds by φ = {text_of(*at, 'phi_same')} (chance is 0)"
    if math.isnan(value_of(*at, "phi_same_minus_other")):
        return f"{said}, and there is no other task to compare with."
    p = value_of(table, name, "all", "all", "phi_p")
    gap = text_of(*at, "phi_same_minus_other")
    said += f", those of different tasks by {text_of(*at, 'phi_other')}, a difference of {gap} (p = {p:.2g})"
    if not (value_of(*at, "phi_same_minus_other", "low") > 0 and p <= ALPHA):
        return f"{said}: it is not shown that a task keeps units of its own."
    if value_of(*at, "phi_same") < STABLE:
        return f"{said}: a task keeps units of its own, but no single unit is sure to be among them."
    return f"{said}: a task keeps nearly the same units, whatever the seed."


def _add(facts: Facts, tasks: Sequence[str], layer: str, metric: str, stack: Tensor) -> None:
    """Add one layer: every task, and the mean over tasks. `stack` is (n_pairs_of_seeds, n_tasks, n_tasks)."""
    pairs, mean = len(stack), stack.nanmean(0)
    varies = "none: counted" if pairs == 1 else f"lowest to highest of {pairs} pairs of mask seeds"
    same, other = of_same(stack), of_others(stack)
    for name, values in (("same", same), ("other", other), ("same_minus_other", same - other)):
        for row, task in enumerate(tasks):
            n = int((~values[:, row].isnan()).sum())
            beside = task if name == "same" else "mean"
            facts.add(task, layer, f"{metric}_{name}", over_sets(values[:, row]), n, varies, beside)
        there = (~values.isnan()).any(0).nonzero().flatten()
        bounds = (-2.0, 2.0) if name == "same_minus_other" else (-1.0, 1.0)
        found = over_tasks(partial(_mean, name, mean), there, bounds)
        facts.add("mean", layer, f"{metric}_{name}", found, len(there), facts.tasks, "mean")


def of_same(stack: Tensor) -> Tensor:
    """Return the overlap of each task with itself in another set, (..., n_tasks) of (..., n_tasks, n_tasks).

    Examples
    --------
    >>> of_same(torch.tensor([[0.5, 0.1], [0.2, 0.7]]))
    tensor([0.5000, 0.7000])
    """
    return stack.diagonal(dim1=-2, dim2=-1)


def of_others(stack: Tensor) -> Tensor:
    """Return the mean overlap of each task with the others, in either set; NaN are left out.

    Examples
    --------
    >>> of_others(torch.tensor([[0.5, 0.1], [0.2, 0.7]]))
    tensor([0.1500, 0.1500])
    """
    itself = torch.eye(stack.shape[-1], dtype=torch.bool)
    apart = stack.masked_fill(itself, torch.nan)
    return torch.cat([apart, apart.mT], dim=-1).nanmean(-1)


def _mean(name: str, matrix: Tensor, tasks: Tensor) -> float:
    part = matrix[tasks][:, tasks]
    same, other = float(of_same(part).nanmean()), float(of_others(part).nanmean())
    return {"same": same, "other": other}.get(name, same - other)


def _p(matrices: Tensor, sets: int, draws: int, seed: int) -> float:
    """How often tasks in permuted places agree as well; `matrices` (n_pairs_of_sets, n_tasks, n_tasks)."""
    tasks = matrices.shape[-1]
    orders = permutations(tasks, draws * (sets - 1), seed).view(draws, sets - 1, tasks)
    still = torch.arange(tasks).expand(draws, 1, tasks)
    orders = torch.cat([still, orders], dim=1)
    pairs = itertools.combinations(range(sets), 2)
    picked = [
        matrix[orders[:, first], orders[:, second]]
        for matrix, (first, second) in zip(matrices, pairs, strict=True)
    ]
    null = torch.cat(picked, dim=1).nanmean(1)
    # A draw without a value, which undefined pairs leave, must not speak for the tasks.
    return p_value(float(of_same(matrices).nanmean()), null.nan_to_num(nan=math.inf))
