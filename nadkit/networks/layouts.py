"""Axes of tensors, and where functions that move them put them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Axes(NamedTuple):
    """Where samples, units, rows and columns lie; None and () if not known.

    They lie on several axes while they are split, units into heads, rows and columns into windows. Of the
    samples' axis, `folds` rows one after another are one sample's. Where rows and columns were merged with
    others, `lost` is how many of them there were. `before` are the axes of the units that a layer over
    another axis, as one that mixes tokens, has read.
    """

    samples: int | None = None
    units: tuple[int, ...] = ()
    folds: int = 1
    rows: tuple[int, ...] = ()
    columns: tuple[int, ...] = ()
    lost: tuple[int, int] | None = None
    before: tuple[int, ...] = ()

    def has_places(self, shape: Sequence[int]) -> bool:
        """Return whether nothing tells that the axes beside samples and units are no rows and columns."""
        if self.rows or self.columns:
            return len(self.rows) == len(self.columns) == 1
        others = [size for at, size in enumerate(shape) if at != self.samples and at not in self.units]
        return self.lost is None or tuple(others) == self.lost


Args = Sequence[Any]
Kwargs = Mapping[str, Any]


def tensors(values: Iterable[object]) -> Iterator[Tensor]:
    """Give the tensors among values, those in lists, tuples and dictionaries too."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from tensors(value)
        elif isinstance(value, Mapping):
            yield from tensors(value.values())


def follow_move(
    func: Callable[..., Any], args: Args, kwargs: Kwargs, source: Tensor, axes: Axes, count: int
) -> list[Axes]:
    """Ask the function itself where axes go: of a stand-in without values, one axis alone has a stride."""

    def asked(axis: int) -> list[int | None]:
        strides = [int(at == axis) for at in range(source.ndim)]
        stand_in = torch.empty_strided(source.shape, strides, device="meta")
        try:
            given = [stand_in if a is source else a for a in args]
            named = {name: stand_in if a is source else a for name, a in kwargs.items()}
            made = list(tensors([func(*given, **named)]))
        except Exception:  # whatever a function raises on a tensor without values: nothing is known then
            return [None] * count
        return [_along(m) for m in made]

    def placed(axes: tuple[int, ...]) -> list[tuple[int, ...]]:
        found = [asked(axis) for axis in axes]
        return [
            tuple(sorted(at for one in found if (at := one[which]) is not None)) for which in range(count)
        ]

    samples = [None] * count if axes.samples is None else asked(axes.samples)
    parts = zip(
        samples, *(placed(at) for at in (axes.units, axes.rows, axes.columns, axes.before)), strict=True
    )
    lost = axes.lost or sizes_of(axes, source.shape)
    return [
        Axes(sample, units, axes.folds, rows, columns, before=before)
        if rows and columns
        else Axes(sample, units, axes.folds, lost=lost, before=before)
        for sample, units, rows, columns, before in parts
    ]


def _along(made: Tensor) -> int | None:
    """Return the axis of a stand-in that has a stride; an axis of one that was put in may have one too."""
    strides = made.stride()
    if 1 in strides:
        return strides.index(1)
    return next((at for at, stride in enumerate(strides) if stride and made.shape[at] > 1), None)


def sizes_of(axes: Axes, shape: Sequence[int]) -> tuple[int, int] | None:
    """Return how many rows and columns there are, None if they are not known."""
    if not axes.rows or not axes.columns:
        return None
    return math.prod(shape[at] for at in axes.rows), math.prod(shape[at] for at in axes.columns)


def rows_in_front(axes: Axes, read: Sequence[Tensor], of: Callable[[Tensor], Axes], made: Tensor) -> Axes:
    """Return what is known of what a convolution, a pool or their like gave: its rows are on axis 2."""
    if made.ndim != 4:
        return axes._replace(rows=(), columns=(), lost=None)
    lost = next((of(t).lost for t in read if t.ndim == 4 and not of(t).has_places(t.shape)), None)
    if lost is not None:  # of windows, say, which a convolution of size 1 reads as if they were rows
        return axes._replace(rows=(), columns=(), lost=lost)
    return axes._replace(rows=(2,), columns=(3,), lost=None)


def find_merged(
    before: Sequence[int], after: Sequence[int], axes: tuple[int, ...], lowest: int = 0
) -> tuple[int, ...]:
    """Return the axes of a new shape that hold what these axes held, () if other things came among it."""
    if not axes:
        return ()
    first, last = axes[0], axes[-1]
    if last - first + 1 != len(axes):
        return tuple(axes) if tuple(before) == tuple(after) else ()
    ahead, size = math.prod(before[:first]), math.prod(before[first : last + 1])
    for start in range(lowest, len(after)):
        if math.prod(after[:start]) != ahead or (after[start] == 1 and size > 1):
            continue
        for stop in range(start + 1, len(after) + 1):
            if math.prod(after[start:stop]) == size:
                return tuple(range(start, stop))
    return ()


def follow_stack(axes: Axes, rank: int, args: Args, kwargs: Kwargs) -> Axes:
    """Return the axes of tensors that were put side by side on a new axis."""
    new = int(kwargs.get("dim", args[1] if len(args) > 1 else 0)) % rank

    def moved(places: Sequence[int]) -> tuple[int, ...]:
        return tuple(at + (at >= new) for at in places)

    samples = None if axes.samples is None else axes.samples + (axes.samples >= new)
    rows, columns = moved(axes.rows), moved(axes.columns)
    return Axes(samples, moved(axes.units), axes.folds, rows, columns, axes.lost, moved(axes.before))


def follow_reduction(axes: Axes, rank: int, args: Args, kwargs: Kwargs) -> Axes:
    """Return the axes of what was summed, averaged or the like over some of them."""
    asked = kwargs.get("dim", args[1] if len(args) > 1 else None)
    dims = [asked] if isinstance(asked, int) else asked
    if not isinstance(dims, (tuple, list)):
        return Axes()
    gone = {int(d) % rank for d in dims}

    def kept(places: Sequence[int | None]) -> tuple[int, ...]:
        return tuple(at - sum(d < at for d in gone) for at in places if at is not None and at not in gone)

    samples = next(iter(kept([axes.samples])), None)
    units = kept(axes.units) if len(kept(axes.units)) == len(axes.units) else ()
    places = kept(axes.rows), kept(axes.columns)
    return Axes(samples, units, axes.folds, *places, axes.lost, kept(axes.before))
