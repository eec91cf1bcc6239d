"""Checks of the numbers that toys are made from."""

from __future__ import annotations

import math

from nadkit.errors import NadkitError

SEEDS = 2**32
"""A seed is below this."""
STREAMS = 1_000_003
"""Streams of pictures that a seed has for itself; a stream's number is below this."""


def check_whole(name: str, value: object, least: int, most: int | None = None) -> None:
    """Raise unless this is a whole number of at least so many, and at most so many.

    Examples
    --------
    >>> check_whole("per_class", 2.5, 1)
    Traceback (most recent call last):
    nadkit.errors.NadkitError: per_class = 2.5; give a whole number of 1 or more
    """
    end = math.inf if most is None else most
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= end:
        words = f"{least} or more" if most is None else f"{least} to {most}"
        raise NadkitError(f"{name} = {value!r}; give a whole number of {words}")


def check_size(name: str, value: object) -> None:
    """Raise unless this is a finite number of at least 0.

    Examples
    --------
    >>> check_size("noise", -1)
    Traceback (most recent call last):
    nadkit.errors.NadkitError: noise = -1; give a number of 0 or more
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise NadkitError(f"{name} = {value!r}; give a number of 0 or more")
