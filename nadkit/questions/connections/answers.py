"""What a table of `how` says, in one sentence."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from nadkit.errors import NadkitError
from nadkit.questions.connections.facts import ALPHA, text_of, value_of
from nadkit.questions.connections.families import AT
from nadkit.questions.connections.units import KINDS

if TYPE_CHECKING:
    import pandas as pd


MOST_NAMED = 4
"""Networks that a sentence names one by one."""


def how_answer(table: pd.DataFrame) -> str:
    """Return the table of `how` as one sentence, computed from its rows.

    Examples
    --------
    >>> import pandas as pd
    >>> columns = ["network", "task", "layer", "metric", "value", "low", "high", "n", "interval"]
    >>> rows = [("net", "mean", "all", "phi", 0.1, 0.05, 0.15, 45, "tasks"),
    ...         ("all", "mean", "relative depth", "phi_families_p", float("nan"), 0, 0, 0, "one network")]
    >>> how_answer(pd.DataFrame(rows, columns=columns))
    'net: masks of two tasks overlap by φ = 0.10 [0.05, 0.15] (chance is 0); masks of one seed alone, and
    another seed may keep other units; one network.'

    Parameters
    ----------
    table
        As `how` returns it; it may have been saved and read again.

    Raises
    ------
    NadkitError
        It is no table of `how`.
    """
    status = table[table["metric"] == "phi_families_p"]
    if status.empty:
        raise NadkitError("no comparison of families in this table; give a table of how(...)")
    phi = table[(table["metric"] == "phi") & (table["task"] == "mean")]
    networks = phi[phi["layer"] == "all"]["network"].tolist()
    parts = _of_one(table, networks[0]) if len(networks) == 1 else _of_several(table, networks)
    name = networks[0] if len(networks) == 1 else f"{len(networks)} networks"
    parts += _stability(table, networks)
    # Groups are read in the networks asked about, of which there are rows of "all" if they are several.
    grouped = table[table["metric"] == "groups_p"]["network"].tolist()
    parts += _groups(table, "all" if "all" in grouped or not grouped else grouped[0])
    return f"{name}: {'; '.join([*parts, _families(table)])}."


def _of_one(table: pd.DataFrame, network: str) -> list[str]:
    def value(task: str, metric: str) -> float:
        return value_of(table, network, task, "all", metric)

    def text(metric: str) -> str:
        return text_of(table, network, "mean", "all", metric)

    pairs = (table["metric"] == "phi") & (table["network"] == network) & (table["task"] != "mean")
    parts = ["no two tasks have an overlap φ, as one of them keeps none or all of every layer"]
    if not pairs.any():
        parts = ["there is one task, and nothing that it could share units with"]
    if not math.isnan(value("mean", "phi")):
        parts = [f"masks of two tasks overlap by φ = {text('phi')} (chance is 0){_ends(table, network)}"]
    shares = [value("all", kind) for kind in KINDS]
    if not any(math.isnan(share) for share in shares):
        words = ("are kept by no task", "by one", "by some", "by all")
        said = ", ".join(f"{_percent(share)} {by}" for share, by in zip(shares, words, strict=True))
        parts.append(f"of the units {said}")
    if not math.isnan(value("mean", "exclusive_share_by_depth")):
        beyond = "exclusive_excess_by_depth"
        more = (
            "" if math.isnan(value("mean", beyond)) else f", its excess over random units by {text(beyond)}"
        )
        parts.append(
            "the share of a task's units that no other task keeps correlates with depth by Spearman's ρ = "
            f"{text('exclusive_share_by_depth')}{more}"
        )
    roles = ("accepts", "rejects", "accepts_and_rejects")
    accepts = [value("mean", f"shared_{role}") for role in roles]
    if not any(math.isnan(share) for share in accepts):
        only, reject, both = map(_percent, accepts)
        parts.append(f"of its other units {only} only accept, {reject} only reject and {both} do both")
    return parts


def _ends(table: pd.DataFrame, network: str) -> str:
    """The mean φ of the first and the last layer, if there are several."""
    rows = table[(table["network"] == network) & (table["task"] == "mean") & (table["metric"] == "phi")]
    layers = rows[~rows["layer"].isin(["all", AT])].dropna(subset="value")
    if len(layers) < 2:
        return ""
    first, last = (f"{layers['value'].iloc[at]:z.2f} in {layers['layer'].iloc[at]}" for at in (0, -1))
    return f", from {first} to {last}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _of_several(table: pd.DataFrame, networks: list[str]) -> list[str]:
    if len(networks) > MOST_NAMED:
        values = [value_of(table, name, "mean", "all", "phi") for name in networks]
        there = [value for value in values if not math.isnan(value)]
        ends = f"{min(there):z.2f} to {max(there):z.2f}" if there else "no value"
        return [f"masks of two tasks overlap by φ = {ends} (chance is 0)"]
    texts = [f"{name} {text_of(table, name, 'mean', 'all', 'phi')}" for name in networks]
    return [f"masks of two tasks overlap by φ = {', '.join(texts)} (chance is 0)"]


def _stability(table: pd.DataFrame, networks: list[str]) -> list[str]:
    """How far these units would be those of other masks, as far as is known."""
    if "phi_over_seeds" not in set(table["metric"]):
        return ["masks of one seed alone, and another seed may keep other units"]
    same = [value_of(table, name, "mean", "all", "phi_over_seeds") for name in networks]
    there = [value for value in same if not math.isnan(value)]
    if not there:
        return []
    ends = f"{min(there):z.2f} to {max(there):z.2f}"
    if len(there) == 1:
        ends = text_of(table, networks[same.index(there[0])], "mean", "all", "phi_over_seeds")
    return [f"of one task the masks of two seeds overlap by φ = {ends}"]


def _groups(table: pd.DataFrame, network: str) -> list[str]:
    p = value_of(table, network, "all", "all", "groups_p")
    if math.isnan(p):
        return []
    more = "overlap more" if p <= ALPHA else "do not overlap more"
    gap = text_of(table, network, "all", "all", "phi_within_minus_across")
    return [f"classes that people group {more} than others (φ within minus across groups {gap}, p = {p:.2g})"]


def _families(table: pd.DataFrame) -> str:
    rows = table[table["metric"] == "phi_families_p"]
    value, words = float(rows["value"].iloc[0]), str(rows["interval"].iloc[0])
    if math.isnan(value):
        return words
    share = table[table["metric"] == "phi_between_families"]["value"].iloc[0]
    verdict = "differ in φ" if value <= ALPHA else "do not differ in φ as far as these networks show"
    between = f"{_percent(share)} of its variance lies between them, p = {value:.2g}"
    return f"connection types {verdict}{_family_means(table)} ({between})"


def _family_means(table: pd.DataFrame) -> str:
    """The mean φ of every family, as read at relative depth."""
    names = [name for name in dict.fromkeys(table["network"]) if str(name).startswith("family ")]
    texts = [f"{name.removeprefix('family ')} {text_of(table, name, 'mean', AT, 'phi')}" for name in names]
    return f": {', '.join(texts)}" if texts else ""
