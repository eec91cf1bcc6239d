"""Intervals of proportions, of other values in [0, 1], and of sums of two estimates."""

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
    """What was measured."""
    low: float
    """The interval's lower end."""
    high: float
    """The interval's upper end."""


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


def effective(value: float, variance: float, n: float) -> Estimate:
    """Return a value in [0, 1] with the Wilson interval of a proportion that has its variance.

    Means over tasks and over seeds of the masks are no proportions of independent trials, but their variance
    is known from a bootstrap; the interval is that of the proportion of `value · (1 − value) / variance`
    trials. Close to 0 and 1 it covers where the bootstrap's own percentiles do not.

    Examples
    --------
    >>> share = proportion(90, 100)
    >>> effective(0.9, 0.9 * 0.1 / 100, 100) == share
    True

    Parameters
    ----------
    value
        In [0, 1].
    variance
        Of the value, at least 0.
    n
        Independent pictures: the trials where the variance says nothing, being 0 or the value 0 or 1.

    Notes
    -----
    **Source** Korn and Graubard, "Confidence intervals for proportions with small expected number of positive
    counts estimated from survey data", 1998, with Wilson's interval in place of theirs.
    """
    spread = value * (1 - value)
    trials = spread / variance if variance > 1e-15 and spread > 1e-15 else n
    return Estimate(value, *wilson(value * trials, trials))


def mover(
    parts: Sequence[Estimate], weights: Sequence[float], constant: float = 0.0, correlation: float = 0.0
) -> Estimate:
    """Return a weighted sum of two estimates, with the interval that theirs give it.

    Balanced accuracy is `mover([recall, false_alarm], [0.5, -0.5], 0.5)`.

    Examples
    --------
    >>> both = mover([proportion(20, 20), proportion(0, 20)], [0.5, -0.5], 0.5)
    >>> [round(number, 3) for number in both]
    [1.0, 0.886, 1.0]

    Parameters
    ----------
    parts
        Two estimates, each with an interval of the same level.
    weights
        One for each; a negative one turns its interval around.
    constant
        Added to the sum.
    correlation
        Of the two estimates, -1 to 1: 0 if they are of different pictures.

    Returns
    -------
    Estimate
        Without a value where one of the parts has none.

    Notes
    -----
    **Source** Zou and Donner, "Construction of confidence limits about effect measures", 2008 (method of
    variance estimates recovery); with a correlation, Newcombe, "Improved confidence intervals for the
    difference between binomial proportions based on paired data", 1998.
    """
    first, second = (weight * part.value for part, weight in zip(parts, weights, strict=True))
    ends = [
        sorted((weight * part.low, weight * part.high)) for part, weight in zip(parts, weights, strict=True)
    ]
    together = math.copysign(correlation, correlation * weights[0] * weights[1])
    value = first + second + constant
    below = _combined(first - ends[0][0], second - ends[1][0], together)
    above = _combined(ends[0][1] - first, ends[1][1] - second, together)
    return Estimate(value, value - below, value + above)


def _combined(one: float, other: float, correlation: float) -> float:
    """The length of two deviations together; rounding may leave a tiny negative square."""
    square = one * one + other * other + 2 * correlation * one * other
    return square if math.isnan(square) else math.sqrt(max(0.0, square))
