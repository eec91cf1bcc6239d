"""What the objects of rendered scenes look like: a few drawings each, and their usual colours."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

GUESTS = ("boat", "house", "tree", "lamp")
HOSTS = ("water", "hill", "table", "road")
EXTRAS = ("sun", "moon", "window", "car")
NAMES = GUESTS + HOSTS + EXTRAS
NONE = len(NAMES)

# The usual body and second colour of each object.
COLOURS = {
    "boat": ((0.80, 0.15, 0.15), (0.95, 0.95, 0.90)),
    "house": ((0.90, 0.75, 0.50), (0.55, 0.15, 0.25)),
    "tree": ((0.10, 0.55, 0.15), (0.50, 0.35, 0.10)),
    "lamp": ((0.95, 0.85, 0.15), (0.50, 0.40, 0.60)),
    "water": ((0.15, 0.35, 0.90), (0.60, 0.85, 0.95)),
    "hill": ((0.55, 0.60, 0.20), (0.90, 0.50, 0.75)),
    "table": ((0.60, 0.33, 0.12), (0.55, 0.35, 0.25)),
    "road": ((0.42, 0.42, 0.46), (0.95, 0.95, 0.95)),
    "sun": ((0.98, 0.70, 0.10), (0.98, 0.45, 0.10)),
    "moon": ((0.85, 0.85, 0.98), (0.85, 0.85, 0.98)),
    "window": ((0.45, 0.40, 0.38), (0.70, 0.90, 0.98)),
    "car": ((0.15, 0.65, 0.60), (0.30, 0.30, 0.38)),
}

# `#` is the body, `o` the second colour. Several drawings of one object are separated by a blank line.
DRAWINGS = {
    "boat": """
....oo....
....ooo...
....oooo..
....ooooo.
....oo....
##########
.########.
..######..

....oo....
..oooo.o..
.ooooo.oo.
oooooo.ooo
....##....
##########
##########
.########.
""",
    "house": """
...oo...
..oooo..
.oooooo.
oooooooo
.######.
.#oo###.
.#oo#o#.
.####o#.

.....oo.
.oooooo.
oooooooo
########
#oo##oo#
#oo##oo#
########
###oo###
""",
    "tree": """
..####..
.##oo##.
###oo###
#o####o#
#oo##oo#
.######.
...oo...
...oo...

...##...
..####..
...##...
.######.
..####..
########
...oo...
...oo...
""",
    "lamp": """
..#oo#..
..#oo#..
.##oo##.
##o##o##
...oo...
...oo...
...oo...
...oo...

.###....
#####...
#ooo#...
.####...
...##...
...##...
...##...
...##...
""",
    "water": """
.##...##..
###.######
##########
oo##oo##oo
##########
##oo##oo##
##########
""",
    "hill": """
...####...
.########.
.########.
##oo##oo##
##########
#oo####oo#
##########
""",
    "table": """
##########
##########
.oo....oo.
.oo....oo.
.oo....oo.
.oo....oo.
.oo....oo.
""",
    "road": """
...#oo#...
...#oo#...
..######..
..##oo##..
.###oo###.
.########.
####oo####
""",
    "sun": """
#..#..#
.#####.
.#ooo#.
##ooo##
.#ooo#.
.#####.
#..#..#
""",
    "moon": """
..###..
.##....
##.....
##.....
##.....
.##....
..###..
""",
    "window": """
#######
#oo#oo#
#oo#oo#
#######
#oo#oo#
#oo#oo#
#######
""",
    "car": """
..####..
.#oooo#.
########
########
.oo..oo.
.oo..oo.
""",
}


@dataclass(frozen=True)
class Sprites:
    """Every drawing, side by side: part codes 0 (clear), 1 (body), 2 (second colour), and its size."""

    parts: Array
    heights: Array
    widths: Array
    variants: Array


@functools.cache
def sprites() -> Sprites:
    """Return the drawings as arrays `(n_objects + 1, 2, 8, 10)`; the last object is empty."""
    parts = np.zeros((NONE + 1, 2, 8, 10), dtype=np.uint8)
    heights = np.ones((NONE + 1, 2), dtype=np.int64)
    widths = np.ones((NONE + 1, 2), dtype=np.int64)
    variants = np.ones(NONE + 1, dtype=np.int64)
    for kind, name in enumerate(NAMES):
        drawings = [drawing.split("\n") for drawing in DRAWINGS[name].strip("\n").split("\n\n")]
        variants[kind] = len(drawings)
        for variant, lines in enumerate(drawings):
            heights[kind, variant], widths[kind, variant] = len(lines), len(lines[0])
            for y, line in enumerate(lines):
                parts[kind, variant, y, : len(line)] = [".#o".index(mark) for mark in line]
    return Sprites(parts, heights, widths, variants)
