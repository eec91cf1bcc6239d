"""What a table of `where` says, in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from nadkit.errors import NadkitError

if TYPE_CHECKING:
    import pandas as pd

HIT_METRICS = ("hit_rate", "hit_rate_official")
MEASURES = {
    "hit_rate": "hit rate",
    "hit_rate_official": "official hit rate",
    "evidence_share": "evidence share",
}
"""The measured shares, in words."""
STRONG = 0.5
"""The whole interval of a rank correlation lies beyond this where something rises or falls."""
RISES = "rises with depth"


class _Fact(NamedTuple):
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


class _Reading(NamedTuple):
    """What depth does to the mean over tasks of one measure of one network's kept units."""

    name: str
    layers: list[str]
    kept: dict[str, _Fact]
    excess: dict[str, _Fact]
    correlation: _Fact | None
    falls: list[str]

    @property
    def trend(self) -> str:
        """Whether it rises: by the interval of the rank correlation."""
        if self.correlation is None:
            return "cannot be ranked by depth"
        _, low, high = self.correlation
        if low > STRONG:
            return RISES
        if high < -STRONG:
            return "falls with depth"
        flat = low >= -STRONG and high <= STRONG
        return "neither rises nor falls with depth" if flat else "is not shown to rise or to fall with depth"


def where_answer(table: pd.DataFrame) -> str:
    """Return the table of `where` as one sentence, computed from its rows.

    "Rises with depth" stands only where the whole interval of the rank correlation lies above 0.5: layers are
    given, so the interval is narrow even where values go up and down. "Neither rises nor falls" stands only
    where all of it lies from -0.5 to 0.5; whatever else is not shown to do either. A fall from one layer to
    the next is named only where the interval of that step lies below 0.

    Examples
    --------
    >>> import pandas as pd
    >>> columns = ["network", "task", "condition", "layer", "metric", "value", "low", "high"]
    >>> rows = [("net", "mean", "kept", layer, "hit_rate", value, value - 0.1, value + 0.1)
    ...         for layer, value in (("first", 0.25), ("last", 0.6))]
    >>> where_answer(pd.DataFrame(rows, columns=columns))
    'net: the hit rate of the kept units cannot be ranked by depth, from 0.25 in first to 0.60 in last, where
    chance is 0.25.'

    Parameters
    ----------
    table
        As `where` returns it, of one network or several; it may have been saved and read again.

    Raises
    ------
    NadkitError
        The table has no hit rate of the condition kept.
    """
    metrics = set(table.loc[table["condition"] == "kept", "metric"])
    metric = next((name for name in HIT_METRICS if name in metrics), None)
    if metric is None:
        raise NadkitError("no hit rate of 'kept' in this table; give a table of where(...)")
    networks = table["network"].unique().tolist()
    readings = [_reading(table[table["network"] == name], name, metric) for name in networks]
    if len(readings) > 1:
        return _of_several(readings, MEASURES[metric])
    hits = readings[0]
    if not hits.kept:
        return f"{hits.name}: no task has a hit rate in any layer, so there is no answer."
    parts = [
        f"the {MEASURES[metric]} of the kept units {_course(hits)}, where chance is 0.25{_dips(hits)}",
        *_above(hits),
    ]
    if "evidence_share" in metrics:
        evidence = _reading(table, hits.name, "evidence_share")
        area = _facts(table, "area", "evidence_share")
        if evidence.kept:
            size = "".join(f", where area alone gives {fact.value:.2f}" for fact in area.values())
            course = f"{_course(evidence)}{size}{_dips(evidence)}"
            parts.append(f"their share of energy on the evidence {course}")
            parts.extend(_above(evidence))
    return f"{hits.name}: {'; '.join(parts)}."


def _course(one: _Reading) -> str:
    """How it goes with depth, from where to where."""
    first, last = one.layers[0], one.layers[-1]
    rho = "" if one.correlation is None else f" (Spearman {one.correlation})"
    ends = f"from {one.kept[first].value:.2f} in {first} to {one.kept[last].value:.2f} in {last}"
    return f"{one.trend}{rho}, {ends}"


def _dips(one: _Reading) -> str:
    """Where something that rises with depth falls all the same."""
    return f", though it falls into {_listed(one.falls)}" if one.falls and one.trend == RISES else ""


def _above(one: _Reading) -> list[str]:
    """How far it is above another task's mask, if there is another task."""
    there = [layer for layer in one.layers if layer in one.excess]
    if not there:
        return []
    above = sum(one.excess[layer].low > 0 for layer in there)
    return [
        f"it is above that of another task's mask in {above} of {len(there)} layers, "
        f"in {there[-1]} by {one.excess[there[-1]]}"
    ]


def _of_several(readings: Sequence[_Reading], measure: str) -> str:
    parts = []
    for trend in dict.fromkeys(one.trend for one in readings):
        names = [
            one.name + (f" (with a fall into {_listed(one.falls)})" if _dips(one) else "")
            for one in readings
            if one.trend == trend
        ]
        parts.append(f"{trend} in {len(names)} of {len(readings)} networks: {', '.join(names)}")
    compared = [one for one in readings if one.excess and one.layers[-1] in one.excess]
    above = sum(one.excess[one.layers[-1]].low > 0 for one in compared)
    if compared:
        parts.append(
            f"in the deepest layer it is above that of another task's mask in {above} of {len(compared)}"
        )
    return f"The {measure} of the kept units {'; '.join(parts)}."


def _reading(table: pd.DataFrame, name: str, metric: str) -> _Reading:
    kept = _facts(table, "kept", metric)
    correlation = _facts(table, "kept", f"{metric}_spearman").get("all")
    steps = _facts(table, "kept", f"{metric}_step")
    falls = [layer for layer, fact in steps.items() if fact.high < 0]
    return _Reading(name, list(kept), kept, _facts(table, "kept", f"{metric}_excess"), correlation, falls)


def _facts(table: pd.DataFrame, condition: str, metric: str) -> dict[str, _Fact]:
    """The means over tasks that have a value, by layer, in the table's order."""
    rows = table[
        (table["task"] == "mean") & (table["condition"] == condition) & (table["metric"] == metric)
    ].dropna(subset="value")
    cells = rows[["layer", "value", "low", "high"]].itertuples(index=False)
    return {str(layer): _Fact(float(value), float(low), float(high)) for layer, value, low, high in cells}


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
