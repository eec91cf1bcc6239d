"""What all figures share: how a condition is drawn."""

from __future__ import annotations

from typing import NamedTuple


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
