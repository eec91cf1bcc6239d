"""Rows of the tables of `how` and `stability`, and intervals over tasks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nadkit.measures import NO_VALUE, Estimate, correlation

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "network", "task", "other_task", "layer", "metric", "value", "low", "high", "n", "seed", "interval",
)  # fmt: skip
ALPHA = 0.05
"""A p-value up to which an answer says that there is a difference."""


@dataclass(frozen=True)
class Facts:
    """The rows of one network, as they come.

    Attributes
    ----------
    network : its name in the table
    seed : of the masks; None where several apply
    sets : how many sets of masks there are
    rows : one dictionary a fact
    """

    network: str
    seed: int | None
    sets: int
    rows: list[dict[str, object]] = field(default_factory=list)

    def add(
        self,
        task: str,
        layer: str,
        metric: str,
        found: Estimate,
        n: float,
        interval: str,
        other_task: str | None = None,
    ) -> None:
        """Add one fact; without a value its n is 0."""
        self.rows.append(
            {
                "network": self.network,
                "task": task,
                "other_task": other_task,
                "layer": layer,
                "metric": metric,
                "value": found.value,
                "low": found.low,
                "high": found.high,
                "n": 0 if math.isnan(found.value) else round(n),
                "seed": self.seed,
                "interval": interval,
            }
        )

    @property
    def counted(self) -> str:
        """What varies in a number that is counted in the masks themselves."""
        return "none: counted" if self.sets == 1 else f"lowest to highest of {self.sets} mask seeds"

    @property
    def tasks(self) -> str:
        """What varies in a mean over tasks."""
        return "tasks" if self.sets == 1 else f"tasks, mean of {self.sets} mask seeds"


def to_table(
    facts: Sequence[Facts],
    others: pd.DataFrame | None = None,
    compared: Sequence[Facts] = (),
    **attrs: object,
) -> pd.DataFrame:
    """Return the rows of several networks as one table: of those asked about, of others, and across them."""
    import pandas as pd

    parts = [
        pd.DataFrame([row for one in each for row in one.rows], columns=list(COLUMNS)).astype(
            {"seed": "Int64", "n": "int64"}
        )
        for each in (facts, compared)
        if each
    ]
    table = pd.concat(parts if others is None else [parts[0], others, *parts[1:]], ignore_index=True)
    table.attrs.update(attrs)
    return table


def over_sets(values: Tensor) -> Estimate:
    """Return the mean over sets of masks (n_sets,) that have a value, with the lowest and the highest.

    Examples
    --------
    >>> over_sets(torch.tensor([0.25, 0.75, torch.nan]))
    Estimate(value=0.5, low=0.25, high=0.75)
    """
    there = values[~values.isnan()].tolist()
    return Estimate(math.fsum(there) / len(there), min(there), max(there)) if there else NO_VALUE


def over_tasks(
    statistic: Callable[[Tensor], float], tasks: Tensor, bounds: tuple[float, float] = (-1.0, 1.0)
) -> Estimate:
    """Return a statistic of some tasks with its interval of 95 %, tasks being what varies.

    Examples
    --------
    >>> values = torch.tensor([0.1, 0.2, 0.3, 0.4])
    >>> found = over_tasks(lambda rows: float(values[rows].mean()), torch.arange(4))
    >>> [round(number, 3) for number in found]
    [0.25, 0.045, 0.455]

    Parameters
    ----------
    statistic
        Of the indices of tasks (n,); NaN where it does not exist.
    tasks
        (n_tasks,) the indices of the tasks that take part.
    bounds
        What the statistic cannot go beyond.

    Returns
    -------
    Estimate
        Ends are NaN with fewer than three tasks, or where the statistic needs every single one of them.

    Notes
    -----
    **Source** Tukey's jackknife, each task left out in turn, with Student's t for n − 1 degrees of freedom.
    Pairs that share a task depend on each other; leaving out tasks, not pairs, counts that in. Of a plain
    mean it is the usual interval.
    """
    from scipy.stats import t

    value, count = statistic(tasks), len(tasks)
    if math.isnan(value):
        return NO_VALUE
    if count < 3:
        return Estimate(value, math.nan, math.nan)
    left = [statistic(torch.cat([tasks[:place], tasks[place + 1 :]])) for place in range(count)]
    centre = math.fsum(left) / count
    error = math.sqrt((count - 1) / count * math.fsum((one - centre) ** 2 for one in left))
    half = float(t.ppf(0.975, count - 1)) * error
    if math.isnan(half):
        return Estimate(value, math.nan, math.nan)
    return Estimate(value, max(bounds[0], value - half), min(bounds[1], value + half))


def mean_of(values: Tensor, bounds: tuple[float, float] = (-1.0, 1.0)) -> tuple[Estimate, int]:
    """Return the mean over the tasks (n_tasks,) that have a value, with its interval, and how many they are.

    Examples
    --------
    >>> mean_of(torch.tensor([0.5, 0.5, 0.5, torch.nan]))
    (Estimate(value=0.5, low=0.5, high=0.5), 3)
    """
    there = (~values.isnan()).nonzero().flatten()
    return over_tasks(lambda rows: float(values[rows].mean()), there, bounds), len(there)


def trend(values: Tensor) -> float:
    """Return Spearman's correlation of values with depth; NaN with fewer than three, or without any change.

    Examples
    --------
    >>> trend(torch.tensor([0.1, 0.2, 0.2, 0.9])), trend(torch.tensor([1.0, 1.0, 1.0]))
    (0.9486832980505138, nan)
    """
    from scipy.stats import rankdata

    there = values[~values.isnan()]
    if len(there) < 3 or bool((there == there[0]).all()):
        return math.nan
    ranks = torch.from_numpy(rankdata(there.numpy()))
    return correlation(ranks, torch.arange(len(there), dtype=torch.float64))


def value_of(
    table: pd.DataFrame, network: str, task: str, layer: str, metric: str, column: str = "value"
) -> float:
    """Return a value of a table, or its low or high; NaN if it has no such row.

    Examples
    --------
    >>> import pandas as pd
    >>> cells = {"network": "net", "task": "mean", "layer": "all", "metric": "phi", "value": 0.5}
    >>> value_of(pd.DataFrame([cells]), "net", "mean", "all", "phi")
    0.5
    """
    return _numbers(table, (network, task, layer, metric), (column,))[0]


def text_of(table: pd.DataFrame, network: str, task: str, layer: str, metric: str) -> str:
    """Return a value of a table with its interval, as text; without one if it has none.

    Examples
    --------
    >>> import pandas as pd
    >>> cells = {"network": "net", "task": "mean", "layer": "all", "metric": "phi"}
    >>> table = pd.DataFrame([{**cells, "value": 0.5, "low": 0.25, "high": 0.75}])
    >>> text_of(table, "net", "mean", "all", "phi")
    '0.50 [0.25, 0.75]'
    """
    value, low, high = _numbers(table, (network, task, layer, metric), ("value", "low", "high"))
    return f"{value:z.2f}" if math.isnan(low) else f"{value:z.2f} [{low:z.2f}, {high:z.2f}]"


def _numbers(table: pd.DataFrame, key: tuple[str, ...], columns: tuple[str, ...]) -> list[float]:
    rows = table["metric"] == key[3]
    for name, wanted in zip(("network", "task", "layer"), key, strict=False):
        rows &= table[name] == wanted
    here = table.loc[rows, list(columns)]
    return [math.nan if here.empty else float(here[name].iloc[0]) for name in columns]
