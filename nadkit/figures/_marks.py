"""What all figures share: how a condition is drawn, and how long a line of a title is."""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from nadkit.errors import NadkitError

if TYPE_CHECKING:
    import pandas as pd


class Mark(NamedTuple):
    """How a condition is drawn: a colour and a shape, either of which tells it apart."""

    colour: str
    symbol: str


# Okabe and Ito's palette, with its light colours darkened until they have a contrast of 3 on white.
MARKS = {
    "whole": Mark("#000000", "line-ns-open"),
    "kept": Mark("#0072B2", "circle"),
    "removed": Mark("#D55E00", "x"),
    "random": Mark("#767676", "diamond-open"),
    "relabelled": Mark("#A6507F", "triangle-up"),
    "shared": Mark("#009E73", "square"),
    "untrained": Mark("#A87400", "triangle-down"),
}
OTHER = Mark("#595959", "star")

FURTHER = {
    "other": Mark("#6A51A3", "cross"),
    "last_layer": Mark("#3F8494", "pentagon"),
    "removed_random": Mark("#767676", "diamond"),
    "ceiling": Mark("#009E73", "triangle-up-open"),
    "counterfactual": Mark("#A6507F", "square-open"),
    "area": Mark("#000000", "line-ew-open"),
}
"""Conditions that only some tables have."""

NARROW = 640
"""Pixels of width from which on figures are whole: nothing is cut, and no words lie on others."""

WIDE = 74
"""Letters of a title's line that fit `NARROW` pixels, in a wide font."""

INK = {"size": 14, "color": "#1b1f24"}


def mark_of(condition: str) -> Mark:
    """Return how a condition is drawn; one without a mark of its own is a grey star."""
    return MARKS.get(condition) or FURTHER.get(condition, OTHER)


def title_of(said: str, below: str) -> dict[str, object]:
    """Return a title of plain text, broken into lines that fit, with a smaller one below.

    Examples
    --------
    >>> title_of("one & two", "small")["text"]
    'one &amp; two<br><sup>small</sup>'
    """
    lines = [html.escape(line, quote=False) for line in textwrap.wrap(said, WIDE)]
    small = [html.escape(line, quote=False) for line in textwrap.wrap(below, round(1.4 * WIDE))]
    text = "<br>".join([*lines, *(f"<sup>{line}</sup>" for line in small)])
    return {
        "text": text, "x": 0.01, "xanchor": "left", "y": 1, "yanchor": "top", "pad": {"t": 24},
        "font": {"size": 16},
    }  # fmt: skip


def room_for(title: dict[str, object]) -> int:
    """Return the pixels of margin that a title of `title_of` needs above the figure."""
    return 34 + 22 * (1 + str(title["text"]).count("<br>"))


def broken(text: str, letters: int) -> str:
    """Return words that are escaped and broken into lines, as the title of a short axis needs it.

    Examples
    --------
    >>> broken("hit rate (share of energy)", 16)
    'hit rate (share<br>of energy)'
    """
    return "<br>".join(html.escape(line, quote=False) for line in textwrap.wrap(text, letters))


def fits(columns: int, letters: int, margins: float) -> bool:
    """Return whether upright names of 11 pixels stand beside each other at `NARROW`, one a column."""
    return columns * (6.2 * letters + 4) <= NARROW - margins


def legend_below(names: Sequence[str], title: str = "") -> tuple[dict[str, object], int]:
    """Return a legend in rows at the lower edge of a figure, and the pixels that it takes at `NARROW`.

    plotly makes room for it below the axes; a title stands in a line of its own, where it costs no width.
    """
    widths = [44 + 7.7 * len(html.unescape(name)) for name in names]
    beside = max(1, int(NARROW // max(widths, default=1)))  # plotly's columns have one width
    rows = 1 if sum(widths) <= NARROW else math.ceil(len(names) / beside)
    legend: dict[str, object] = {
        "orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0, "xanchor": "left",
        "font": {"size": 13}, "traceorder": "normal",
        "title": {"text": title, "side": "top", "font": {"size": 13}},
    }  # fmt: skip
    return legend, 12 + 20 * (rows + bool(title))


def plain_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of whole masks: of no single layer, other task, dose or share of a curve."""
    for column in ("other_task", "share", "dose"):
        if column in table:
            table = table[table[column].isna()]
    return table[table["layer"].isin(["all"]) | table["layer"].isna()] if "layer" in table else table


def check_columns(table: pd.DataFrame, figure: str, needed: tuple[str, ...], how: str) -> None:
    """Refuse what is no table of `whether` of one network, or lacks the part that a figure draws."""
    columns = ("network", "task", "condition", "metric", "value", "low", "high", "n")
    missing = [name for name in (*columns, *needed) if name not in getattr(table, "columns", ())]
    if missing or not len(table):
        what = f"no column {', '.join(missing)}" if missing else "no row"
        raise NadkitError(f"figures.{figure} draws a table of nk.whether{how}; this has {what}")
    networks = table["network"].unique().tolist()
    if len(networks) > 1:
        raise NadkitError(
            f"the table is of {len(networks)} networks; draw one: table[table['network'] == {networks[0]!r}]"
        )
