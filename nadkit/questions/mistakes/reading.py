"""What a table of `why` says, in one sentence: of all errors, or of one picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nadkit.errors import NadkitError

if TYPE_CHECKING:
    import pandas as pd

FEW = 50
"""Errors below which the answer says what could have been found."""

SIMPLER = {
    "classifier_weights": "classifier weights",
    "mean_features": "mean features",
    "mean_confusions": "mean confusions",
}


def answer(table: pd.DataFrame) -> str:
    """Return the table of `why` about many pictures as one sentence, computed from its rows.

    Examples
    --------
    >>> import pandas as pd
    >>> columns = ["network", "task", "condition", "metric", "value", "low", "high", "n"]
    >>> rows = [("net", "all", "whole", "error_rate", 0.0, 0.0, 0.02, 200)]
    >>> print(answer(pd.DataFrame(rows, columns=columns)))
    net: none of 200 pictures is misclassified, so there is no error to explain.

    Parameters
    ----------
    table
        As `why` returns it without `image`, of one network; it may have been saved and read again.

    Raises
    ------
    NadkitError
        The table has no error rate of all pictures.
    """
    rate = _fact(table, "whole", "error_rate")
    if rate is None:
        raise NadkitError("no error rate of all pictures in this table; give a table of why(...)")
    name, pictures = str(table["network"].iloc[0]), int(rate["n"])
    if rate["value"] == 0:
        return f"{name}: none of {pictures:,} pictures is misclassified, so there is no error to explain."
    share, chance = _fact(table, "overlap", "top_share"), _fact(table, "overlap", "top_share_chance")
    errors = round(rate["value"] * pictures)
    if share is None or chance is None:
        return f"{name}: none of {errors:,} errors is between three or more classes with masks."
    few = int(share["n"]) < FEW
    top = min(round(chance["value"] * chance["n"]), int(chance["n"]))
    nearest = f"the {top} nearest sub-architectures" if top > 1 else "the nearest sub-architecture"
    land = f"land on {'one of ' * (top > 1)}{nearest}"
    by_chance = f"(chance {100 * chance['value']:.0f} %)"
    said = f"{name}: of {int(share['n']):,} errors {_percent(share)} {land} {by_chance}"
    return f"{said}; {_tested(table)}{_others(table)}{_found(table) if few else ''}."


def _tested(table: pd.DataFrame) -> str:
    auc, p = _fact(table, "overlap", "auc_centred"), _fact(table, "overlap", "p_value")
    if auc is None:
        return "so few classes cannot be told from hubs"
    said = f"without hubs the AUC is {auc['value']:.2f} [{auc['low']:.2f}, {auc['high']:.2f}]"
    if p is None:
        return f"{said}, and there are too few permutations for a p-value"
    verdict = "more than" if p["value"] <= 0.05 else "which is no more than"
    return f"{said}, {verdict} permuted classes have (p = {p['value']:.2g})"


def _others(table: pd.DataFrame) -> str:
    facts = [(words, _fact(table, name, "top_share")) for name, words in SIMPLER.items()]
    said = [f"{words} {100 * fact['value']:.0f} %" for words, fact in facts if fact is not None]
    if not said:
        return ""
    leads = {words: lead for name, words in SIMPLER.items() if (lead := _fact(table, name, "excess"))}
    more = [words for words, lead in leads.items() if lead["high"] < 0]
    less = [words for words, lead in leads.items() if lead["low"] > 0]
    told = [f"{_listed(found)} {verb}" for found, verb in ((more, "tell more"), (less, "tell less")) if found]
    return f"; of simpler similarities {', '.join(said)}" + (
        f" (without hubs {', '.join(told)})" if told else ""
    )


def _listed(words: list[str]) -> str:
    return " and ".join(", ".join(words).rsplit(", ", 1))


def _found(table: pd.DataFrame) -> str:
    effect = _fact(table, "overlap", "detectable")
    if effect is None and _fact(table, "overlap", "p_value") and not _fact(table, "overlap", "effect"):
        return "; every two of these sub-architectures are equally alike, so they could tell nothing"
    if effect is None:
        return "; with so few errors no effect, however large, would have been found with power 0.8"
    return f"; with so few errors an AUC of {effect['value']:.2f} would have been found with power 0.8"


def _percent(fact: dict[str, float]) -> str:
    return f"{100 * fact['value']:.0f} % [{100 * fact['low']:.0f}, {100 * fact['high']:.0f}]"


def _fact(table: pd.DataFrame, condition: str, metric: str) -> dict[str, float] | None:
    return _cell(table, "all", condition, metric)


def _cell(table: pd.DataFrame, task: str, condition: str, metric: str) -> dict[str, float] | None:
    """Value, low, high and n of the one row; None where there is no value."""
    rows = table[
        (table["task"] == task) & (table["condition"] == condition) & (table["metric"] == metric)
    ].dropna(subset="value")
    return None if rows.empty else {name: float(rows[name].iloc[0]) for name in ("value", "low", "high", "n")}


def answer_one(table: pd.DataFrame) -> str:
    """Return the table of `why` about one picture as one sentence, computed from its rows.

    Parameters
    ----------
    table
        As `why(..., image=...)` returns it; it may have been saved and read again.

    Raises
    ------
    NadkitError
        The table has no margin of a whole network.
    """
    first = table[(table["condition"] == "whole") & (table["metric"] == "margin")]
    if first.empty:
        raise NadkitError("no margin of the whole network in this table; give a table of why(..., image=...)")
    name, true, other = (str(first[column].iloc[0]) for column in ("network", "task", "other_task"))

    def one(condition: str, metric: str, task: str = true) -> dict[str, float] | None:
        return _cell(table, task, condition, metric)

    sure, own = one("whole", "probability", other), one("whole", "probability")
    said = f"{name} answers a picture of {true} with {other}"
    if sure and own:
        said += f" (probability {sure['value']:.2f}, {true} {own['value']:.2f})"
    parts = [said]
    unusual = []
    for task, kind, words in ((true, "silent", "silent"), (other, "active", "unusually active")):
        shares = [one(condition, f"{kind}_share", task) for condition in ("kept", "removed")]
        usual = one("kept", "usual_share", task)
        if shares[0] and usual:
            others = f" and {100 * shares[1]['value']:.0f} % of the others" if shares[1] else ""
            unusual.append(
                f"{words} are {100 * shares[0]['value']:.0f} % of the units that {task} keeps "
                f"(as a rule {100 * usual['value']:.0f} %){others}"
            )
    parts += [", ".join(unusual)] if unusual else []
    return "; ".join([*parts, _switch(table, true, other), _over_seeds(table, true, other)]) + "."


def _over_seeds(table: pd.DataFrame, true: str, other: str) -> str:
    """How far the units named would be those of other masks, as far as is known."""
    found = {task: _cell(table, task, "kept", "phi_over_seeds") for task in (true, other)}
    said = [f"{task} by φ = {fact['value']:.2f}" for task, fact in found.items() if fact]
    if not said:
        return "the units are those of one seed of the masks, and another seed may keep others"
    return f"masks of two seeds overlap, for {' and for '.join(said)} (chance is 0)"


def _switch(table: pd.DataFrame, true: str, other: str) -> str:
    flipped = _cell(table, true, "removed", "flipped")
    if flipped is None:
        return f"no unit that {other} keeps and {true} does not, removed, brings the answer nearer to {true}"
    rows = table[(table["condition"] == "removed") & (table["metric"] == "margin")]
    units = [f"{layer}/{unit}" for layer, unit in zip(rows["layer"], rows["unit"], strict=True)]
    listed = ", ".join(units[:5]) + (", …" if len(units) > 5 else "")
    count = f"{len(units)} unit{'s' * (len(units) != 1)} that {other} keeps and {true} does not ({listed})"
    if not flipped["value"]:
        return f"removing {count} does not turn the answer to {true}"
    said = f"removing {count} turns the answer to {true}"
    random, found = (_cell(table, true, "removed_random", metric) for metric in ("flipped", "found"))
    if random:
        said += f", as {100 * random['value']:.1f} % of as many random units of the same layers do"
    if found:
        said += f", and {100 * found['value']:.0f} % of searches among random units find as few"
    before, after = (_cell(table, other, condition, "accuracy") for condition in ("whole", "removed"))
    if before and after:
        said += (
            f"; {other}'s own pictures go from {before['value']:.2f} to {after['value']:.2f} answered right"
        )
    return said
