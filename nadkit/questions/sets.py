"""Masks of one network, one set or several seeds, checked and put in order for every question."""

from __future__ import annotations

from collections.abc import Sequence

from nadkit.errors import NadkitError
from nadkit.masks import MaskSet
from nadkit.networks import Network


def in_order(network: Network, masks: object, verb: str, tasks: Sequence[str] = ()) -> list[MaskSet]:
    """Return masks as sets with the same tasks in the same order, after checking that they fit the network.

    Parameters
    ----------
    network : that they must be of
    masks : one MaskSet, or a sequence of several seeds
    verb : that asks, for what an error says
    tasks : in the order wanted; by default that of the first set

    Raises
    ------
    MaskFileError
        Masks of another network.
    NadkitError
        No masks, or sets of different tasks.
    """
    sets = [masks] if isinstance(masks, MaskSet) else masks
    if not isinstance(sets, Sequence) or not sets or not all(isinstance(one, MaskSet) for one in sets):
        got = f"a list of {len(sets)}" if isinstance(sets, Sequence) else type(sets).__name__
        raise NadkitError(
            f"{verb} needs masks of {network.name}: one MaskSet, or a list of several seeds; got {got}"
        )
    tasks = tasks or sets[0].tasks
    ordered = []
    for one in sets:
        one.check(network)
        if set(one.tasks) != set(tasks):
            raise NadkitError(
                f"{verb} compares masks of the same tasks; there are {list(tasks)} and {list(one.tasks)}: "
                "choose them by masks[[...]]"
            )
        ordered.append(one if one.tasks == tuple(tasks) else one[list(tasks)])
    return ordered


def seed_of(sets: Sequence[MaskSet]) -> int | None:
    """Return the seed that masks were learned with, if they are one set that says so.

    Examples
    --------
    >>> import torch
    >>> masks = MaskSet.from_scores({"conv": torch.eye(2)}, ["a", "b"], {"seed": 3})
    >>> seed_of([masks]), seed_of([masks, masks])
    (3, None)
    """
    seed = sets[0].meta.get("seed") if len(sets) == 1 else None
    return seed if isinstance(seed, int) else None
