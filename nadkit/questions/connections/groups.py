"""Whether classes that people group overlap more than others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from nadkit.errors import NadkitError, closest
from nadkit.measures import NO_VALUE, Estimate
from nadkit.measures.permutation import p_value, permutations
from nadkit.questions.connections.facts import Facts, over_tasks

Groups = Mapping[str, Sequence[str]]

FASHION: Groups = {
    "tops": ("t-shirt", "pullover", "coat", "shirt"),
    "shoes": ("sandal", "sneaker", "ankle boot"),
}
"""Groups of Fashion-MNIST; a dress, a bag and trousers are like nothing else."""


def find_groups(groups: Groups | None, tasks: Sequence[str], class_names: Sequence[str]) -> Groups:
    """Return the groups asked for, with those classes that are tasks; groups of fewer than two are dropped.

    Examples
    --------
    >>> find_groups(None, ("shirt", "coat", "sandal"), (*FASHION["tops"], *FASHION["shoes"]))
    {'tops': ('coat', 'shirt')}

    Raises
    ------
    NadkitError
        A class that the network does not have, one in two groups, or no group of two tasks.
    """
    if groups is None:
        known = all(name in class_names for names in FASHION.values() for name in names)
        return _among(FASHION, tasks) if known else {}
    named = isinstance(groups, Mapping) and all(
        isinstance(names, Iterable) and not isinstance(names, str) for names in groups.values()
    )
    if not named:
        raise NadkitError(f"groups are {groups!r}; give class names by group: {{'tops': ['shirt', 'coat']}}")
    seen: dict[str, str] = {}
    for group, names in groups.items():
        for name in names:
            if name not in class_names:
                raise NadkitError(
                    f"the group {group!r} has {name!r}, which is no class; {closest(str(name), class_names)}"
                )
            if name in seen:
                raise NadkitError(
                    f"{name!r} is in the groups {seen[name]!r} and {group!r}; a class has one group"
                )
            seen[name] = group
    found = _among(groups, tasks)
    if not found:
        raise NadkitError(
            f"no group has two of the tasks {', '.join(tasks)}; give groups of classes that have masks"
        )
    return found


def _among(groups: Groups, tasks: Sequence[str]) -> dict[str, tuple[str, ...]]:
    here = {group: tuple(name for name in names if name in tasks) for group, names in groups.items()}
    return {group: names for group, names in here.items() if len(names) > 1}


def group_of(groups: Groups, tasks: Sequence[str]) -> Tensor:
    """Return the group of each task (n_tasks,) int64; a task in none is a group of its own."""
    names = {name: place for place, members in enumerate(groups.values()) for name in members}
    return torch.tensor([names.get(task, len(groups) + row) for row, task in enumerate(tasks)])


def difference(matrix: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean over pairs of one group, and over other pairs; NaN where there are none.

    Examples
    --------
    >>> table = torch.tensor([[0.0, 0.5, 0.1], [0.5, 0.0, 0.3], [0.1, 0.3, 0.0]])
    >>> [round(float(mean), 3) for mean in difference(table, torch.tensor([0, 0, 1]))]
    [0.5, 0.2]

    Parameters
    ----------
    matrix
        (n_tasks, n_tasks), symmetric; pairs that are NaN are left out.
    group
        (..., n_tasks) the group of each task.

    Returns
    -------
    tuple
        Two tensors (...).
    """
    rows, columns = torch.triu_indices(len(matrix), len(matrix), 1)
    there = ~matrix[rows, columns].isnan()
    rows, columns = rows[there], columns[there]
    values = matrix[rows, columns]
    same = (group[..., rows] == group[..., columns]).to(values)
    return (same @ values) / same.sum(-1), ((1 - same) @ values) / (1 - same).sum(-1)


def add_groups(
    facts: Facts, matrix: Tensor, tasks: Sequence[str], groups: Groups, draws: int, seed: int
) -> None:
    """Add φ within groups and across them, the difference, and how often chance gives as much.

    The interval of the difference is what is left of it after the 95 % and the 5 % point of the permutations'
    are taken off: its lower end is above 0 where the one-sided p-value is at most 0.05.

    Parameters
    ----------
    facts : get the rows
    matrix : (n_tasks, n_tasks) φ, the mean over layers; NaN where there is none
    tasks : their names
    groups : class names by group
    draws : permutations of the tasks
    seed : of the permutations
    """
    if not groups:
        return
    group = group_of(groups, tasks)
    everyone = torch.arange(len(tasks))

    def part(which: int) -> Estimate:
        return over_tasks(lambda rows: float(difference(matrix[rows][:, rows], group[rows])[which]), everyone)

    def gap(groups: Tensor) -> Tensor:
        within, across = difference(matrix, groups)
        return within - across

    rows, columns = torch.triu_indices(len(tasks), len(tasks), 1)
    valued = ~matrix[rows, columns].isnan()
    within = int((valued & (group[rows] == group[columns])).sum())
    facts.add("all", "all", "phi_within", part(0), within, facts.tasks)
    facts.add("all", "all", "phi_across", part(1), int(valued.sum()) - within, facts.tasks)
    seen, how = float(gap(group)), f"{draws} permutations of the tasks"
    # A few draws at a time: of a thousand tasks there are half a million pairs.
    null = torch.cat([gap(group[orders]) for orders in permutations(len(tasks), draws, seed).split(100)])
    both, found = NO_VALUE, NO_VALUE
    if not math.isnan(seen):
        low, high = torch.nanquantile(null.double(), torch.tensor([0.05, 0.95]).double()).tolist()
        both = Estimate(seen, seen - high, seen - low)
        # A draw without a value, which undefined pairs leave, must not speak for the groups.
        p = p_value(seen, null.nan_to_num(nan=math.inf))
        found = Estimate(p, p, p)
    facts.add("all", "all", "phi_within_minus_across", both, int(valued.sum()), f"{how}, their 5-95 %")
    facts.add("all", "all", "groups_p", found, len(tasks), how)
