"""Where the lines of a river of tasks run: φ of pairs, the order of tasks, heights; no plotly here."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, NamedTuple

from nadkit.errors import NadkitError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

_COLUMNS = ("task", "other_task", "layer", "units", "kept", "other_kept", "phi", "defined")

_MOST_ORDERED = 200
"""Tasks whose order within the clustering is made best; beyond, that takes long."""

BREATH = 0.08
"""Distance between neighbours that keep the same units, so that both lines are seen."""


class Layer(NamedTuple):
    """φ of every pair (NaN where there is none) and the number of kept units of every task, in one layer."""

    name: str
    units: int
    phi: np.ndarray
    kept: np.ndarray


def read(table: pd.DataFrame) -> tuple[list[str], list[Layer]]:
    """The tasks, and φ as a matrix for every layer."""
    import numpy as np

    missing = [name for name in _COLUMNS if name not in getattr(table, "columns", ())]
    if missing or not len(table):
        what = f"no column {', '.join(missing)}" if missing else "no row: it takes at least two tasks"
        raise NadkitError(f"figures.river draws a table of masks.overlap(); this has {what}")
    tasks = list(dict.fromkeys([*table["task"], *table["other_task"]]))
    place = {task: at for at, task in enumerate(tasks)}
    layers = []
    for name, rows in table.groupby("layer", sort=False):
        first = rows["task"].map(place).to_numpy()
        second = rows["other_task"].map(place).to_numpy()
        pairs = {(min(pair), max(pair)) for pair in zip(first, second, strict=True)}
        if len(pairs) != len(rows) or len(rows) != math.comb(len(tasks), 2) or (first == second).any():
            raise NadkitError(
                f"figures.river draws every pair of tasks once; in layer {name} {len(rows)} rows are of "
                f"{len(pairs)} of {math.comb(len(tasks), 2)} pairs; use masks.overlap() without other="
            )
        phi = np.full((len(tasks), len(tasks)), np.nan)
        phi[first, second] = phi[second, first] = rows["phi"].where(rows["defined"]).to_numpy(float)
        kept = np.zeros(len(tasks), int)
        kept[first], kept[second] = rows["kept"].to_numpy(), rows["other_kept"].to_numpy()
        layers.append(Layer(str(name), int(rows["units"].iloc[0]), phi, kept))
    return [str(task) for task in tasks], layers


def mean_of(matrices: list[np.ndarray]) -> np.ndarray:
    """The mean over layers where there is a value, NaN where there is none."""
    import numpy as np

    stacked = np.stack(matrices)
    there = ~np.isnan(stacked)
    total = np.where(there, stacked, 0).sum(0)
    return np.where(there.any(0), total / np.maximum(there.sum(0), 1), np.nan)


def order_of(layers: list[Layer]) -> list[int]:
    """The tasks from top to bottom: leaves of an average-linkage clustering on 1 − mean φ."""
    import numpy as np
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    apart = np.nan_to_num(1 - np.clip(mean_of([layer.phi for layer in layers]), 0, 1), nan=1.0)
    np.fill_diagonal(apart, 0)
    best = len(apart) <= _MOST_ORDERED
    found = leaves_list(linkage(squareform(apart, checks=False), "average", optimal_ordering=best))
    order = [int(at) for at in found]
    # A clustering may be read from either end; the first task is in the upper half.
    return order if order.index(0) < len(order) / 2 else order[::-1]


def heights_of(layers: list[Layer], order: list[int]) -> list[list[float]]:
    """Return for every layer the height of every task, around 0; NaN where the task has no φ."""
    rows = []
    for layer in layers:
        there = [task for task in order if 0 < layer.kept[task] < layer.units]
        row, height = [math.nan] * len(order), 0.0
        for above, task in zip([None, *there], there, strict=False):
            if above is not None:
                height -= max(1 - max(float(layer.phi[above, task]), 0.0), BREATH)
            row[task] = height
        rows.append([value - height / 2 for value in row])
    return rows


def smooth(heights: list[float]) -> tuple[list[float | None], list[float | None]]:
    """Points of a line through heights, level at every layer, with a gap where there is no height."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    for at, (here, after) in enumerate(itertools.pairwise([*heights, math.nan])):
        xs.append(at)
        ys.append(None if math.isnan(here) else round(here, 4))
        if math.isnan(here) or math.isnan(after):
            continue
        for step in range(1, 8):
            t = step / 8
            xs.append(at + t)
            ys.append(round(here + (after - here) * t * t * (3 - 2 * t), 4))
    return xs, ys


def spread(wanted: list[float], apart: float) -> list[float]:
    """Return heights at least `apart` from each other, in the given falling order, near the wanted ones.

    Examples
    --------
    >>> spread([3.0, 0.5, 0.5], 1.0)
    [3.0, 1.0, 0.0]
    """
    blocks: list[tuple[float, int]] = []
    for at, height in enumerate(wanted):
        # Less the distances that must lie between, heights need only fall: those that rise are pooled.
        mean, size = height + at * apart, 1
        while blocks and blocks[-1][0] < mean:
            other, count = blocks.pop()
            mean, size = (mean * size + other * count) / (size + count), size + count
        blocks.append((mean, size))
    flat = [mean for mean, size in blocks for _ in range(size)]
    return [height - at * apart for at, height in enumerate(flat)]
