"""The toys of the ruler, by name."""

from __future__ import annotations

from nadkit.errors import NadkitError, closest
from nadkit.toy.merging import merged
from nadkit.toy.planting import LEVELS, Planted, planted
from nadkit.toy.wiring import WIRINGS

GRADES: tuple[str, ...] = (*(f"{wiring}-{level}" for level in LEVELS for wiring in WIRINGS), "merged")
"""All grades, the planted ones by wiring and level, the easy ones first."""


def graded(grade: str, seed: int = 0, *, per_class: int = 60) -> Planted:
    """Return the toy of a grade.

    Examples
    --------
    >>> graded("residual-easy", per_class=5).network.name
    'planted-residual-easy-0'

    Parameters
    ----------
    grade : one of `GRADES`: wiring and level of `planted`, or "merged"
    seed, per_class : as in `planted` and `merged`

    Raises
    ------
    NadkitError
        No such grade; no such number as a seed or `per_class`.
    """
    if grade not in GRADES:
        raise NadkitError(f"no grade {grade!r}; {closest(str(grade), GRADES)}")
    if grade == "merged":
        return merged(seed, per_class=per_class)
    wiring, level = grade.split("-")
    return planted(seed, wiring=wiring, level=level, per_class=per_class)
