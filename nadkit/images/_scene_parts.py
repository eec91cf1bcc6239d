"""How a scene is drawn: numbers from a key, shapes, a layout, and paint.

Everything about a picture follows from one 64-bit key, so a picture can be drawn again, whole or with
one object left out, from eight bytes. Layout and shapes use whole numbers only, so a key means the same
picture everywhere.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from nadkit.images._scene_drawings import COLOURS, NAMES, NONE, Array, sprites

SIDE = 32
#: the guest and the host of every class, in class order: a ring, so each object is in two classes
PAIRS = (("boat", "water"), ("house", "water"), ("house", "hill"), ("tree", "hill"),
         ("tree", "table"), ("lamp", "table"), ("lamp", "road"), ("boat", "road"))  # fmt: skip

COLUMNS, ROWS = 3, 4
SLOTS = COLUMNS * ROWS
# Only guests and hosts outside the rule are ever left out; at 0.12 no object's presence says more
# than 0.56 in balanced accuracy about a class.
LEFT_OUT, EXTRA_SHOWN = 0.12, 0.25
ODD_COLOURS = 0.06
LEAST_VISIBLE = 0.65
# How far each row is from the wish of guests, hosts and extras (lowest draw times distance wins). The rule's
# guest is never in the bottom row and its host never in the top row, and otherwise in any row; these numbers
# give the other guests and hosts the same rows, or an object's row alone would speak for a class.
_FAR = 1e9
_ROW_WISHES = np.array([[1.65, 1.0, 1.03, _FAR], [_FAR, 1.03, 1.0, 1.65], [1.0, 1.0, 1.0, 1.0]])
_PAD, _PATCH_HEIGHT, _PATCH_WIDTH = 8, 9, 11
_CHUNK = 512


def _mixed(numbers: Array) -> Array:
    """Return the numbers scrambled, one by one (the finaliser of SplitMix64)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(numbers ^ (numbers >> np.uint64(31)))


def scrambled(keys: Array, stream: int, count: int) -> Array:
    """Return `count` random 64-bit numbers per key; streams of one key have nothing in common."""
    counters = np.arange(count, dtype=np.uint64) + np.array([stream], dtype=np.uint64) * np.uint64(1 << 20)
    return _mixed(_mixed(keys)[:, None] + (counters + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))


def uniform(keys: Array, stream: int, *shape: int) -> Array:
    """Return random numbers in [0, 1), `(n_keys, *shape)` float64."""
    numbers = scrambled(keys, stream, int(np.prod(shape, dtype=np.int64)))
    return np.asarray((numbers >> np.uint64(11)) * 2.0**-53).reshape(len(keys), *shape)


def whole(keys: Array, stream: int, low: int, high: int, *shape: int) -> Array:
    """Return random whole numbers from low to high, both included."""
    return np.asarray(low + np.floor(uniform(keys, stream, *shape) * (high - low + 1)), dtype=np.int64)


def picture_keys(seed: int, split: int, label: int, count: int) -> Array:
    """Return the keys of pictures 0 … count - 1 of one class, which depend on nothing else."""
    root = np.array([seed % 2**64], dtype=np.uint64)
    root = _mixed(_mixed(root) + np.array([split * 1000 + label + 1], dtype=np.uint64))
    return np.asarray(scrambled(root, 1, count)[0])


@functools.cache
def class_edges() -> Array:
    """Return a table `(13, 13)`: True where the first object, on the second, makes a class."""
    edges = np.zeros((NONE + 1, NONE + 1), dtype=bool)
    for guest, host in PAIRS:
        edges[NAMES.index(guest), NAMES.index(host)] = True
    return edges


def layout(keys: Array, labels: Array) -> Array:
    """Return what stands in each of the 3 x 4 places, `(n, 12)`, so that one rule holds: the label's.

    Which objects are shown is drawn first and never revised, so it cannot depend on what fits.
    """
    pair = np.array([[NAMES.index(name) for name in names] for names in PAIRS])[labels]
    place = whole(keys, 10, 0, SLOTS - COLUMNS - 1, 1)[:, 0]
    others = np.tile(np.arange(NONE), (len(keys), 1))
    others = others[(others[:, :, None] != pair[:, None]).all(2)].reshape(len(keys), NONE - 2)
    shown = uniform(keys, 11, NONE - 2) < np.where(others < 8, 1 - LEFT_OUT, EXTRA_SHOWN)
    # Guests and hosts choose their places in any order, the extras after them: they can stand anywhere.
    turns = np.argsort(np.where(others < 8, 0.0, 1.0) + uniform(keys, 12, NONE - 2), axis=1, kind="stable")
    others = np.take_along_axis(np.where(shown, others, NONE), turns, 1)

    kinds = np.full((len(keys), SLOTS), NONE)
    todo, attempt = np.arange(len(keys)), 0
    while len(todo):
        rows = np.arange(len(todo))
        drawn = np.full((len(todo), SLOTS), NONE)
        drawn[rows, place[todo]], drawn[rows, place[todo] + COLUMNS] = pair[todo].T
        draws = uniform(keys[todo], 100 + attempt, NONE - 2, SLOTS)
        for turn in range(NONE - 2):
            kind = others[todo, turn]
            wish = _ROW_WISHES[np.minimum(kind // 4, 2)][:, np.arange(SLOTS) // COLUMNS]
            chosen = np.where(drawn == NONE, draws[:, turn] * wish, np.inf).argmin(1)
            drawn[rows, chosen] = kind
        kinds[todo] = drawn
        todo = todo[class_edges()[drawn[:, :-COLUMNS], drawn[:, COLUMNS:]].sum(1) != 1]
        attempt += 1
    return kinds


@dataclass(frozen=True)
class Boxes:
    """Where each place's object is painted: `(n, 12)` whole pixels, and which drawing of it."""

    kinds: Array
    variants: Array
    flipped: Array
    top: Array
    left: Array
    heights: Array
    widths: Array


def boxes(keys: Array, labels: Array) -> Boxes:
    """Return the layout in pixels: sizes vary by a pixel, columns sway, guests sink into their hosts."""
    kinds = layout(keys, labels)
    shapes = sprites()
    variants = whole(keys, 20, 0, 1, SLOTS) % shapes.variants[kinds]
    heights = shapes.heights[kinds, variants] + whole(keys, 21, -1, 1, SLOTS)
    widths = shapes.widths[kinds, variants] + whole(keys, 22, -1, 1, SLOTS)
    is_host = (kinds >= 4) & (kinds < 8)
    row, column = np.divmod(np.arange(SLOTS), COLUMNS)

    sway = whole(keys, 23, -1, 1, COLUMNS)[:, column] + np.where(is_host, 0, whole(keys, 24, -1, 1, SLOTS))
    left = np.array([5, 16, 27])[column] + sway - widths // 2
    left = np.clip(left, 0, SIDE - widths)

    bottom = (8 * (row + 1))[None] + np.where(is_host, -1, 0) + whole(keys, 25, 0, 1, SLOTS)
    on_host = np.zeros_like(is_host)
    on_host[:, :-COLUMNS] = (kinds[:, :-COLUMNS] < 4) & is_host[:, COLUMNS:]
    host_top = np.roll(bottom - heights, -COLUMNS, axis=1)
    sunk = np.where(heights > 7, whole(keys, 26, 1, 2, SLOTS), 1)
    # With nothing under it a guest hangs as low as on a host, or its height alone would tell them apart.
    nothing_under = np.zeros_like(is_host)
    nothing_under[:, :-COLUMNS] = (kinds[:, :-COLUMNS] < 4) & (kinds[:, COLUMNS:] == NONE)
    bottom = np.where(nothing_under, bottom + whole(keys, 28, 0, 3, SLOTS), bottom)
    bottom = np.where(on_host, host_top + sunk, bottom)
    return Boxes(kinds, variants, whole(keys, 27, 0, 1, SLOTS) == 1, bottom - heights, left, heights, widths)


def _tinted(light: Array, tint: Array, strength: float) -> Array:
    """Return colours `(..., 3)` in 0-1 of a given lightness, with the tint's hue."""
    luma = np.array([0.299, 0.587, 0.114])
    tint = tint - (tint @ luma)[..., None]
    return np.asarray(np.clip(light[..., None] + strength * tint, 0.0, 1.0))


def _palette(keys: Array, kinds: Array) -> Array:
    """Return each place's body and second colour, `(n, 24, 3)` in 0-1: its object's own, or any colour.

    Nearly every picture of every class shows the same objects, so their colours say nothing of the class.
    """
    usual = np.array([*COLOURS.values(), ((0, 0, 0), (0, 0, 0))])[kinds]
    usual = usual + (uniform(keys, 50, SLOTS, 2, 3) - 0.5) * 0.24
    other = uniform(keys, 51, SLOTS, 2, 3)
    colours = np.where((uniform(keys, 31, SLOTS) < ODD_COLOURS)[:, :, None, None], other, usual)
    return np.clip(colours, 0.0, 1.0).reshape(len(keys), 2 * SLOTS, 3)


def _backdrop(keys: Array) -> Array:
    """Return sky over ground, or a papered wall over a floor, by day or night, `(n, 32, 32, 3)` in 0-1."""
    day = uniform(keys, 30, 1) < 0.5
    light = np.where(day, 0.74, 0.13) + (uniform(keys, 32, 2) - 0.5) * 0.16
    colours = _tinted(light, uniform(keys, 33, 2, 3), 0.35)
    horizon = whole(keys, 34, 10, 24, 1)
    y, x = np.arange(SIDE)[None, :], np.arange(SIDE)[None, :]
    upper = (y < horizon)[:, :, None, None]
    picture = np.where(upper, colours[:, None, None, 0], colours[:, None, None, 1])
    open_air = (uniform(keys, 35, 1) < 0.5)[:, :, None]
    period = whole(keys, 36, 3, 6, 1)
    stripes = (((x // period) % 2) * 0.06 - 0.03)[:, None, :]
    haze = ((y - horizon) / SIDE * 0.16)[:, :, None]
    shade = np.where(open_air, haze, stripes * (y < horizon)[:, :, None])
    return np.asarray(picture + shade[..., None])


def _painted(keys: Array, box: Boxes, skip: Array | None) -> tuple[Array, Array]:
    """Return `(codes, full)`: per pixel 2 * place + part (255: backdrop), and the area of each object."""
    count, shapes = len(keys), sprites()
    wide = SIDE + 2 * _PAD
    canvas = np.full(count * wide * wide, 255, dtype=np.uint8)
    full = np.zeros((count, SLOTS), dtype=np.int64)
    dy, dx = (grid[None] for grid in np.mgrid[:_PATCH_HEIGHT, :_PATCH_WIDTH])
    start = (np.arange(count) * wide * wide)[:, None, None]
    for slot in range(SLOTS):
        kind, variant = box.kinds[:, slot], box.variants[:, slot]
        height, width, top, left = (
            values[:, slot, None, None] for values in (box.heights, box.widths, box.top, box.left)
        )
        natural_height = shapes.heights[kind, variant][:, None, None]
        natural_width = shapes.widths[kind, variant][:, None, None]
        y = (2 * dy + 1) * natural_height // (2 * np.maximum(height, 1))
        x = (2 * dx + 1) * natural_width // (2 * np.maximum(width, 1))
        x = np.where(box.flipped[:, slot, None, None], natural_width - 1 - x, x)
        inside = (dy < height) & (dx < width)
        part = shapes.parts[kind[:, None, None], variant[:, None, None], np.clip(y, 0, 7), np.clip(x, 0, 9)]
        drawn = inside & (part > 0)
        in_frame = (top + dy >= 0) & (top + dy < SIDE) & (left + dx >= 0) & (left + dx < SIDE)
        full[:, slot] = (drawn & in_frame).sum((1, 2))
        if skip is not None:
            drawn &= (kind != skip)[:, None, None]
        where = start + (top + dy + _PAD) * wide + left + dx + _PAD
        canvas[where[drawn]] = (2 * slot + part - 1)[drawn].astype(np.uint8)
    canvas = canvas.reshape(count, wide, wide)[:, _PAD : _PAD + SIDE, _PAD : _PAD + SIDE]
    return np.ascontiguousarray(canvas), full


def _blots(keys: Array) -> Array:
    """Return where up to two foreground blots (leaves, drops) hide what is behind, `(n, 32, 32)` bool."""
    hidden = np.zeros((len(keys), SIDE, SIDE), dtype=bool)
    y, x = np.arange(SIDE)[None, :, None], np.arange(SIDE)[None, None, :]
    for blot in range(2):
        size, top, left = (
            whole(keys, 40 + 4 * blot + at, low, high, 1)[:, :, None]
            for at, (low, high) in enumerate(((2, 4), (0, SIDE - 3), (0, SIDE - 3)))
        )
        there = uniform(keys, 43 + 4 * blot, 1)[:, :, None] < 0.6
        hidden |= there & (y >= top) & (y < top + size) & (x >= left) & (x < left + size)
    return hidden


def _rule_places(kinds: Array, labels: Array) -> tuple[Array, Array]:
    """Return the places of the rule's guest and host in each layout."""
    guests = np.array([NAMES.index(pair[0]) for pair in PAIRS])[labels]
    hosts = np.array([NAMES.index(pair[1]) for pair in PAIRS])[labels]
    return (kinds == guests[:, None]).argmax(1), (kinds == hosts[:, None]).argmax(1)


def paint(keys: Array, labels: Array, skip: Array | None = None) -> tuple[Array, Array]:
    """Return pixels `(n, 3, 32, 32)` uint8 and the object seen at each pixel `(n, 32, 32)` uint8.

    `skip` names one object per picture to leave out; everything else stays as it was.
    """
    pixels = np.empty((len(keys), 3, SIDE, SIDE), dtype=np.uint8)
    owners = np.empty((len(keys), SIDE, SIDE), dtype=np.uint8)
    for first in range(0, len(keys), _CHUNK):
        part = slice(first, first + _CHUNK)
        pixels[part], owners[part] = _paint_some(
            keys[part], labels[part], None if skip is None else skip[part]
        )
    return pixels, owners


def _paint_some(keys: Array, labels: Array, skip: Array | None) -> tuple[Array, Array]:
    box = boxes(keys, labels)
    codes, full = _painted(keys, box, None)
    hidden = _blots(keys)
    # A blot never hides where the rule's objects meet, nor much of either. Blots are judged on the whole
    # picture, so that leaving an object out never moves one.
    rows = np.arange(len(keys))
    guests, hosts = _rule_places(box.kinds, labels)
    y, x = np.arange(SIDE)[None, :, None], np.arange(SIDE)[None, None, :]
    meeting, left = box.top[rows, hosts], box.left[rows, hosts]
    touch = (y >= meeting[:, None, None] - 4) & (y <= meeting[:, None, None] + 2)
    touch = touch & (x >= left[:, None, None]) & (x < (left + box.widths[rows, hosts])[:, None, None])
    hidden &= ~np.asarray((hidden & touch).any((1, 2)))[:, None, None]
    for place in (guests, hosts):
        visible = ((codes // 2 == place[:, None, None]) & ~hidden).sum((1, 2))
        hidden &= (visible >= LEAST_VISIBLE * full[rows, place])[:, None, None]
    if skip is not None:
        codes, _ = _painted(keys, box, skip)
    seen = np.where(hidden, 255, codes)
    owners = np.concatenate([box.kinds, np.full((len(keys), 1), NONE)], axis=1)
    owners = np.take_along_axis(owners, np.minimum(seen // 2, SLOTS).reshape(len(keys), -1), 1)

    palette = _palette(keys, box.kinds)
    coloured = palette[rows[:, None, None], np.minimum(codes, 2 * SLOTS - 1)]
    picture = np.where((codes == 255)[..., None], _backdrop(keys), coloured)
    picture = np.where(hidden[..., None], uniform(keys, 52, 1, 1, 3), picture)

    slope = (uniform(keys, 53, 2) - 0.5) * 0.4
    across = (np.arange(SIDE) - (SIDE - 1) / 2) / SIDE
    lit = 1.0 + slope[:, :1, None] * across[None, :, None] + slope[:, 1:, None] * across[None, None, :]
    grain = scrambled(keys, 54, SIDE * SIDE).reshape(len(keys), SIDE, SIDE)
    ten = np.uint64(1023)
    noise = np.stack(
        [
            ((grain >> np.uint64(20 * channel)) & ten) + ((grain >> np.uint64(20 * channel + 10)) & ten)
            for channel in range(3)
        ],
        axis=1,
    ).astype(np.float32) / np.float32(1023) - np.float32(1)
    loudness = (uniform(keys, 55, 1) * 18 + 6)[:, :, None, None]
    values = np.moveaxis(picture * lit[..., None], -1, 1) * 255 + loudness * noise
    return (
        np.clip(np.rint(values), 0, 255).astype(np.uint8),
        owners.reshape(len(keys), SIDE, SIDE).astype(np.uint8),
    )
