"""Further networks, known by the tables that `how` once gave of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nadkit.errors import NadkitError
from nadkit.networks import BUNDLED
from nadkit.networks.bundled import DATA
from nadkit.questions.connections.facts import COLUMNS, value_of
from nadkit.questions.connections.families import AT, STATISTICS, Standing

if TYPE_CHECKING:
    import pandas as pd


def find_others(
    beside: pd.DataFrame | str | None, asked: Sequence[str], tasks: Sequence[str]
) -> tuple[pd.DataFrame | None, dict[str, Standing]]:
    """Return the rows of further networks, and what of each is compared.

    Parameters
    ----------
    beside : a table of `how` about one network or several; "bundled" for the one that comes with the package;
        None for none
    asked : the names of the networks that are asked about themselves
    tasks : of all of them

    Raises
    ------
    NadkitError
        No such table is bundled; it is no table of `how`, of other tasks, or of a network asked about.
    """
    if beside is None:
        return None, {}
    rows = _bundled(asked[0]) if isinstance(beside, str) and beside == "bundled" else beside
    missing = [column for column in COLUMNS if column not in getattr(rows, "columns", ())]
    if isinstance(rows, str) or missing:
        what = repr(rows) if isinstance(rows, str) else f"{type(rows).__name__} without {', '.join(missing)}"
        raise NadkitError(f"beside takes a table of how(...), or 'bundled'; got {what}")
    rows = _sound(rows)
    rows = rows[~rows["network"].str.startswith("family ") & (rows["network"] != "all")]
    names = list(dict.fromkeys(rows["network"]))
    again = [name for name in names if name in asked]
    if again or not names:
        raise NadkitError(
            f"beside has {', '.join(again) or 'no network'}; give networks that are not asked about otherwise"
        )
    found = {}
    for name in names:
        mine = rows[rows["network"] == name]
        theirs = set(mine[mine["metric"] == "exclusive_share"]["task"]) - {"mean"}
        if theirs != set(tasks):
            raise NadkitError(
                f"how compares networks of the same tasks; {name} has {sorted(theirs)}, others {list(tasks)}"
            )
        found[name] = _standing(rows, name)
    rows = rows[rows["task"].isin(["mean", "all"])]
    return rows, found


def _sound(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of a table of `how`, as numbers and texts."""
    import pandas as pd

    columns = rows.loc[:, ~rows.columns.duplicated()][list(COLUMNS)]
    try:
        numbers = {name: pd.to_numeric(columns[name]) for name in ("value", "low", "high", "n", "seed")}
        whole = {"n": numbers["n"].astype("int64"), "seed": numbers["seed"].astype("Int64")}
    except (TypeError, ValueError) as error:
        raise NadkitError(
            f"the table beside has numbers that are none ({error}); give it as how made it"
        ) from None
    if not columns["network"].map(lambda name: isinstance(name, str)).all():
        raise NadkitError("the table beside has rows without the name of a network; give it as how made it")
    return columns.assign(**{**numbers, **whole})


def _standing(rows: pd.DataFrame, name: str) -> Standing:
    share, layers = (value_of(rows, name, "mean", AT, metric) for metric in ("kept_share", "layers"))
    if not 0 <= share <= 1 or not 1 <= layers < math.inf:
        raise NadkitError(
            f"the table beside has no rows kept_share and layers of {name}; make it anew by how(...)"
        )
    values = {metric: value_of(rows, name, "mean", AT, metric) for metric in STATISTICS}
    return Standing(values, share, int(layers))


def others_path(name: str) -> Path:
    """Return where the bundled table of networks with the tasks of a bundled one lies.

    Examples
    --------
    >>> others_path("vgg-fashion").name
    'how-fashion.csv'
    """
    return DATA / f"how-{name.partition('-')[2]}.csv"


def _bundled(name: str) -> pd.DataFrame:
    import pandas as pd

    if name not in BUNDLED or not others_path(name).exists():
        raise NadkitError(
            f"no table of further networks comes with the package for {name!r}; give beside one of how(...)"
        )
    return pd.read_csv(others_path(name))
