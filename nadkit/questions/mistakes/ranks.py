"""Where the class that was answered ranks among the classes nearest to the true one, against chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nadkit.measures import NO_VALUE, Estimate, effective, proportion
from nadkit.measures.intervals import Z95
from nadkit.measures.permutation import double_centred, p_value, permutations
from nadkit.measures.resampling import student, two_level_variance
from nadkit.questions.mistakes.similarities import Similarity

EQUAL = 1e-12
"""Similarities are read to this step: what differs by less is a tie."""

FEWEST = 19
"""Permutations from which on p can be 0.05, and is given."""

POWERED = 1.6448536269514722 + 0.8416212335729143
"""Spreads above chance at which a one-sided test at 0.05 has a power of 0.8."""


def nearness(matrix: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """Return, for every true and answered class, whether the answer is near to the true class.

    Examples
    --------
    >>> alike = torch.tensor([[1.0, 0.9, 0.5, 0.5], [0.0] * 4, [0.0] * 4, [0.0] * 4])
    >>> share, auc = nearness(alike, top=2)
    >>> share[0].tolist(), auc[0].tolist()
    ([nan, 1.0, 0.5, 0.5], [nan, 1.0, 0.25, 0.25])

    Parameters
    ----------
    matrix : (K, K), row: true class, column: answered class; the diagonal has no part in it
    top : so many of the nearest classes count as near

    Returns
    -------
    tuple
        (K, K) float64 each, NaN on the diagonal: the share of `top` places that falls to the answer (0 or 1,
        between only where a tie is shared), and the share of the other wrong classes that are farther (ties
        count half; NaN if there is no other wrong class).
    """
    count = len(matrix)
    same = torch.eye(count, dtype=torch.bool)
    read = (matrix.double() / EQUAL).round().masked_fill(same, -torch.inf)
    ordered = read.sort(1).values
    up_to = torch.searchsorted(ordered, read, right=True)
    nearer = (count - up_to).double()
    equal = (up_to - torch.searchsorted(ordered, read) - 1).double()
    share = ((top - nearer) / (equal + 1)).clamp(0, 1).masked_fill(same, torch.nan)
    others = count - 2
    auc = 1 - (nearer + equal / 2) / others if others > 0 else torch.full_like(share, torch.nan)
    return share, auc.masked_fill(same, torch.nan)


@dataclass(frozen=True, eq=False)
class Ranking:
    """Every error's rank under one similarity.

    Attributes
    ----------
    name : the similarity's
    true, answered : (n_errors,) classes of the errors that it can rank
    rows : (n_errors,) which of all errors these are
    values : metric → (n_seeds, n_errors), without NaN
    classes : how many it chooses among, the true class included
    null : (n_permutations, n_classes) sums over a true class's errors of the centred AUC, classes permuted
    """

    name: str
    true: Tensor
    answered: Tensor
    rows: Tensor
    values: dict[str, Tensor]
    classes: int
    null: Tensor

    @classmethod
    def of(
        cls, similarity: Similarity, true: Tensor, answered: Tensor, top: int, draws: int, seed: int
    ) -> Ranking:
        """Return the ranks of the errors whose two classes the similarity knows."""
        known = similarity.known.nonzero().flatten()
        rows = (similarity.known[true] & similarity.known[answered]).nonzero().flatten()
        true, answered = true[rows], answered[rows]
        place = torch.cumsum(similarity.known, 0) - 1
        at = (place[true], place[answered])
        values: dict[str, list[Tensor]] = {}
        centred_auc = torch.zeros(len(known), len(known), dtype=torch.float64)
        for matrix in similarity.matrices:
            plain = matrix[known][:, known]
            for suffix, table in (("", plain), ("_centred", double_centred(plain))):
                share, auc = nearness(table, top)
                values.setdefault(f"top_share{suffix}", []).append(share[at])
                values.setdefault(f"auc{suffix}", []).append(auc[at])
            centred_auc += auc.nan_to_num(0.0) / len(similarity.matrices)
        # With one class to answer nothing is ranked; of so few classes centring leaves nothing.
        kept = {
            name: torch.stack(parts)
            for name, parts in values.items()
            if len(known) > (3 if name.endswith("centred") else 2)
        }
        null = torch.zeros(0, len(similarity.known), dtype=torch.float64)
        if "auc_centred" in kept and len(rows):
            counts = torch.zeros_like(centred_auc).index_put_(at, torch.ones(()).double(), accumulate=True)
            orders = permutations(len(known), draws, seed)
            sums = [(counts * centred_auc[order][:, order]).sum(1) for order in orders]
            null = torch.zeros(draws, len(similarity.known), dtype=torch.float64)
            if sums:
                null[:, known] = torch.stack(sums)
        return cls(similarity.name, true, answered, rows, kept, len(known), null)

    def estimate(self, metric: str, weights: Tensor, task: int | None = None) -> tuple[Estimate, int]:
        """Return a metric over the errors of one class, or over all, and how many they are.

        Parameters
        ----------
        metric : top_share, auc, or either with _centred
        weights : (n_draws, n_errors) of a bootstrap over all errors, of `strata` or, of one class, its own
        task : a true class; None for all
        """
        mine = self._errors(task)
        if metric not in self.values or not len(mine):
            return NO_VALUE, 0
        values = self.values[metric][:, mine]
        if metric.startswith("top_share") and len(values) == 1:
            return proportion(float(values.sum()), len(mine)), len(mine)
        drawn_in = 1 if task is not None else len(strata(self.true).unique())
        variance = _variance(values, weights[:, self.rows[mine]], drawn_in)
        return effective(float(values.mean()), variance, len(mine)), len(mine)

    def lead(self, other: Ranking, weights: Tensor) -> tuple[Estimate, int]:
        """Return by how much this centred AUC is above another's, on the errors that both rank."""
        if "auc_centred" not in self.values or "auc_centred" not in other.values:
            return NO_VALUE, 0
        both = self.rows[torch.isin(self.rows, other.rows)]
        if not len(both):
            return NO_VALUE, 0
        # Of a similarity without masks there is one, which stands against each seed's.
        one, two = (
            ranking.values["auc_centred"][:, torch.isin(ranking.rows, both)] for ranking in (self, other)
        )
        gap = one - two
        value = float(gap.mean())
        # From -1 to 1, as a share from 0 to 1: without a spread over draws it has that of so many trials.
        drawn_in = len(strata(self.true[torch.isin(self.rows, both)]).unique())
        found = effective((1 + value) / 2, _variance(gap, weights[:, both], drawn_in) / 4, len(both))
        return Estimate(value, 2 * found.low - 1, 2 * found.high - 1), len(both)

    def p_value(self) -> float:
        """Return how often the classes, permuted jointly, have at least this centred AUC; NaN if unknown."""
        observed = self._centred(None)
        if math.isnan(observed) or len(self.null) < FEWEST:
            return math.nan
        return p_value(observed, self.null.sum(1) / len(self.rows))

    def effect(self, task: int | None = None) -> float:
        """Return the centred AUC above its mean over permutations, in their spreads; NaN if unknown."""
        observed = self._centred(task)
        if math.isnan(observed) or len(self.null) < FEWEST:
            return math.nan
        mine = self._errors(task)
        null = (self.null.sum(1) if task is None else self.null[:, task]) / len(mine)
        spread = float(null.std())
        return (observed - float(null.mean())) / spread if spread > EQUAL else math.nan

    def detectable(self) -> float:
        """Return the centred AUC that the permutation test at 0.05 finds with power 0.8; NaN without any."""
        if math.isnan(self._centred(None)) or len(self.null) < FEWEST:
            return math.nan
        spread = float((self.null.sum(1) / len(self.rows)).std())
        needed = 0.5 + POWERED * spread
        return needed if spread > EQUAL and needed <= 1 else math.nan

    def _centred(self, task: int | None) -> float:
        mine = self._errors(task)
        if "auc_centred" not in self.values or not len(mine):
            return math.nan
        return float(self.values["auc_centred"][:, mine].mean())

    def _errors(self, task: int | None) -> Tensor:
        mine = torch.ones_like(self.true, dtype=torch.bool) if task is None else self.true == task
        return mine.nonzero().flatten()


def strata(true: Tensor) -> Tensor:
    """Return what a bootstrap over all errors draws for itself: the true class, if it has errors enough.

    One error tells nothing of how errors of its class vary, and would count as if they did not. Classes of
    one error are therefore drawn together, a single such class with the one that has the fewest.

    Examples
    --------
    >>> strata(torch.tensor([4, 4, 7, 9])), strata(torch.tensor([4, 4, 7])), strata(torch.tensor([2]))
    (tensor([4, 4, 7, 7]), tensor([4, 4, 4]), tensor([2]))
    """
    names, counts = true.unique(return_counts=True)
    alone = names[counts == 1]
    if not len(alone):
        return true
    others = counts[counts > 1]
    joined = alone
    if len(alone) == 1 and len(others):
        joined = torch.cat([names[counts == others.min()][:1], alone])
    return torch.where(torch.isin(true, joined), joined[0], true)


def _variance(values: Tensor, weights: Tensor, drawn_in: int) -> float:
    """Of the mean over errors of values (n_seeds, n_errors), for a normal interval.

    Few errors tell their own spread badly, so it counts for Student's t with as many degrees of freedom as
    there are errors less the strata that they are drawn in.
    """
    # Of errors that not every similarity ranks, some draws hold more than others.
    drawn = (values @ weights.T) / weights.sum(1).clamp(min=1)
    freedom = values.shape[1] - drawn_in
    few = (student(freedom) / Z95) ** 2 if freedom > 0 else 1.0
    return few * two_level_variance(values.mean(1), drawn)


def rankings(
    found: Sequence[Similarity], true: Tensor, answered: Tensor, top: int, draws: int, seed: int
) -> list[Ranking]:
    """Return the errors ranked by every similarity, all against the same permutations."""
    return [Ranking.of(similarity, true, answered, top, draws, seed) for similarity in found]
