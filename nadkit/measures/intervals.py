"""Intervals of proportions, and of weighted sums of independent estimates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

Z95 = 1.959963984540054
"""The 97.5 % point of the normal distribution, for two-sided intervals of 95 %."""


class Estimate(NamedTuple):
    """A value with its interval of 95 %; NaN, all three, where there is no value.

    Examples
    --------
    >>> Estimate(0.9, 0.8, 0.95).low
    0.8
    """

    value: float
    low: float
    high: float


NO_VALUE = Estimate(math.nan, math.nan, math.nan)


def wilson(successes: float, n: float) -> tuple[float, float]:
    """Return the Wilson interval of 95 % of a proportion.

    It stays inside [0, 1] and keeps its width at proportions of 0 and 1, where a bootstrap has none.

    Examples
    --------
    >>> [round(end, 3) for end in wilson(20, 20)], wilson(0, 0)
    ([0.839, 1.0], (0.0, 1.0))

    Parameters
    ----------
    successes
        From 0 to n; a tie that is shared counts as a fraction.
    n
        Independent trials. With none nothing is known, so the interval is all of [0, 1].

    Returns
    -------
    tuple
        The lower and the upper end.

    Raises
    ------
    ValueError
        The successes lie outside [0, n].

    Notes
    -----
    **Source** E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials; give a number from 0 to n")
    if n == 0:
        return 0.0, 1.0
    share, z2 = successes / n, Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # At the ends the formula gives 0 and 1 up to rounding; they are given exactly.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def proportion(successes: float, n: float) -> Estimate:
    """Return a proportion with its Wilson interval; no value where n is 0.

    Examples
    --------
    >>> proportion(5, 10).value, proportion(0, 0).value
    (0.5, nan)
    """
    return Estimate(successes / n, *wilson(successes, n)) if n else NO_VALUE


def mover(parts: Sequence[Estimate], weights: Sequence[float], constant: float = 0.0) -> Estimate:
    """Return a weighted sum of independent estimates, with the interval that theirs give it.

    Balanced accuracy is `mover([recall, false_alarm], [0.5, -0.5], 0.5)`.

    Examples
    --------
    >>> both = mover([proportion(20, 20), proportion(0, 20)], [0.5, -0.5], 0.5)
    >>> [round(number, 3) for number in both]
    [1.0, 0.886, 1.0]

    Parameters
    ----------
    parts
        Independent estimates, each with an interval of the same level.
    weights
        One for each part; a negative one turns its interval around.
    constant
        Added to the sum.

    Returns
    -------
    Estimate
        Without a value where one of the parts has none.

    Notes
    -----
    **Source** Zou and Donner, "Construction of confidence limits about effect measures", 2008 (method of
    variance estimates recovery).
    """
    value, below, above = constant, 0.0, 0.0
    for part, weight in zip(parts, weights, strict=True):
        ends = sorted((weight * part.low, weight * part.high))
        value += weight * part.value
        below += (weight * part.value - ends[0]) ** 2
        above += (ends[1] - weight * part.value) ** 2
    return Estimate(value, value - math.sqrt(below), value + math.sqrt(above))
