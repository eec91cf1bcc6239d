"""Agreement of two masks in one layer, as plain and as chance-corrected numbers."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Overlap(NamedTuple):
    """The overlap of every mask of one group with every mask of another, in one layer.

    Each entry is a (n_tasks, n_other_tasks) float64 tensor, `defined` a boolean one.
    """

    kept: Tensor
    other_kept: Tensor
    shared: Tensor
    jaccard: Tensor
    phi: Tensor
    z: Tensor
    defined: Tensor


def overlap(kept: Tensor, other: Tensor) -> Overlap:
    """Return how far the kept units of two groups of masks agree in one layer of C units.

    Examples
    --------
    >>> mine = torch.tensor([[True, True, False, False]])
    >>> overlap(mine, mine).phi.item(), overlap(mine, ~mine).phi.item()
    (1.0, -1.0)

    Parameters
    ----------
    kept
        (n_tasks, C) boolean, true where a unit is kept.
    other
        (n_other_tasks, C) boolean.

    Returns
    -------
    Overlap
        `jaccard` is 1 for two empty masks, which are equal. `phi` and `z` do not exist where a mask
        keeps none or all of the C units; `defined` is false there and both are NaN.

    Notes
    -----
    **Source** For sizes a and b and n shared units of C, chance expects ab/C of them (hypergeometric), phi =
    (Cn − ab) / √(ab(C − a)(C − b)) and z = phi · √(C − 1). The released code divides by the union and gives
    NaN for two empty masks.
    """
    units = kept.shape[1]
    mine, theirs = kept.double(), other.double()
    shared = mine @ theirs.T
    a = mine.sum(1)[:, None].expand_as(shared)
    b = theirs.sum(1)[None, :].expand_as(shared)
    union = a + b - shared
    jaccard = torch.where(union > 0, shared / union.clamp(min=1), 1.0)
    spread = a * b * (units - a) * (units - b)
    defined = spread > 0
    phi = torch.where(defined, (units * shared - a * b) / spread.clamp(min=1).sqrt(), torch.nan)
    return Overlap(a, b, shared, jaccard, phi, phi * (units - 1) ** 0.5, defined)
