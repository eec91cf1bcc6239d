"""Which axes of a tensor hold samples, units, rows and columns, carried from function to function."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Axes(NamedTuple):
    """Where samples, units, rows and columns lie; None and () if not known.

    They lie on several axes while they are split, units into heads, rows and columns into windows. Of the
    samples' axis, `folds` rows one after another are one sample's. Where rows and columns were merged with
    others, `lost` is how many of them there were.
    """

    samples: int | None = None
    units: tuple[int, ...] = ()
    folds: int = 1
    rows: tuple[int, ...] = ()
    columns: tuple[int, ...] = ()
    lost: tuple[int, int] | None = None

    def has_places(self, shape: Sequence[int]) -> bool:
        """Return whether nothing tells that the axes beside samples and units are no rows and columns."""
        if self.rows or self.columns:
            return len(self.rows) == len(self.columns) == 1
        others = [size for at, size in enumerate(shape) if at != self.samples and at not in self.units]
        return self.lost is None or tuple(others) == self.lost


Args = Sequence[Any]
Kwargs = Mapping[str, Any]


# Their output has its units on the last axis, or on axis 1, whatever they read.
_LAST = {"linear", "multi_head_attention_forward", "embedding", "bilinear"}
_FIRST = {
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "batch_norm",
    "group_norm", "instance_norm", "local_response_norm", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d",
    "adaptive_max_pool2d", "pixel_shuffle",
}  # fmt: skip
_OF_SHAPE = {"layer_norm", "rms_norm"}  # of one axis, the last, they scale its units
_VIEWS = {
    "permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "squeeze", "unsqueeze", "expand",
    "expand_as", "chunk", "split", "tensor_split", "unbind", "narrow", "select", "__getitem__", "t",
    "__get__", "adjoint",
}  # fmt: skip
_RESHAPES = {"reshape", "view", "flatten", "unflatten", "reshape_as", "view_as"}
_REDUCTIONS = {"mean", "sum", "amax", "amin", "max", "min", "std", "var", "logsumexp", "nanmean", "prod"}
_ATTENTION = "scaled_dot_product_attention"
_PRODUCTS = {"matmul", "__matmul__", "mm", "bmm", _ATTENTION}
_RESIZE_UNITS = {"cat", "concat", "concatenate", "pad"}


class AxisRecord:
    """What is known of the tensors of one forward pass.

    Examples
    --------
    >>> record, x = AxisRecord(), torch.zeros(2, 3, 4, 4)
    >>> record.start(x)
    >>> y = x.flatten(2)
    >>> record.follow("flatten", torch.flatten, (x, 2), {}, y)
    >>> z = y.transpose(1, 2)
    >>> record.follow("transpose", torch.transpose, (y, 1, 2), {}, z)
    >>> record.of(z).samples, record.of(z).units, record.of(z).lost
    (0, (2,), (4, 4))
    """

    def __init__(self) -> None:
        self._known: dict[int, Axes] = {}
        self._alive: list[Tensor] = []  # identities are compared, so none may be used anew
        self._count = 0

    def start(self, inputs: Tensor) -> None:
        """Note the model's input: samples on axis 0, and the channels of pictures on axis 1."""
        self._count = len(inputs)
        axes = Axes(0, (1,) if inputs.ndim in (2, 4) else ())
        self._note(inputs, axes._replace(rows=(2,), columns=(3,)) if inputs.ndim == 4 else axes)

    def knows(self, tensor: Tensor) -> bool:
        """Return whether anything was noted of a tensor."""
        return id(tensor) in self._known

    def of(self, tensor: Tensor) -> Axes:
        """Return what is known of a tensor; where its samples are not known, axis 0 has them if it fits."""
        axes = self._known.get(id(tensor), Axes())
        if axes.samples is None and tensor.ndim and len(tensor) == self._count:
            axes = axes._replace(samples=0, folds=1)
        if not axes.units and tensor.ndim == 2 and axes.samples == 0:
            axes = axes._replace(units=(1,))
        return axes

    def follow(self, name: str, func: Callable[..., Any], args: Args, kwargs: Kwargs, out: object) -> None:
        """Note where the axes of what a function gave lie, from those of what it took."""
        read = [t for t in tensors([*args, *kwargs.values()]) if self.knows(t)]
        made = list(tensors([out]))
        if name in _VIEWS and read:
            found = _moved(func, args, kwargs, read[0], self.of(read[0]), len(made))
        else:
            found = [self._found(name, read, args, kwargs, tensor) for tensor in made]
        for tensor, axes in zip(made, found, strict=True):
            last = (tensor.ndim - 1,)
            if name in _LAST or (name in _OF_SHAPE and _rank(args, kwargs) == 1):
                axes = axes._replace(units=last)
            elif name in _FIRST and tensor.ndim > 1:
                axes = _in_front(axes._replace(units=(1,)), read, self.of, tensor)
            elif name in _PRODUCTS and len(args) > 1:
                axes = axes._replace(units=self._product(args[2 if name == _ATTENTION else 1], tensor))
            self._note(tensor, axes)

    def _note(self, tensor: Tensor, axes: Axes) -> None:
        self._alive.append(tensor)
        self._known[id(tensor)] = axes

    def _found(self, name: str, read: Sequence[Tensor], args: Args, kwargs: Kwargs, made: Tensor) -> Axes:
        if not read:
            return Axes()
        if name in _RESHAPES:
            return self._reshaped(read[0], made)
        if name in _REDUCTIONS and made.ndim < read[0].ndim:
            return _reduced(self.of(read[0]), read[0].ndim, args, kwargs)
        # As in those inputs that have as many axes and, on the axis asked for, the same size.
        found, resizes = Axes(), name in _RESIZE_UNITS
        for tensor in (t for t in read if t.ndim == made.ndim):
            axes = self.of(tensor)
            same = [at for at in range(made.ndim) if tensor.shape[at] == made.shape[at]]
            if found.samples is None and axes.samples in same:
                found = found._replace(samples=axes.samples, folds=axes.folds)
            if not found.units and (resizes or all(at in same for at in axes.units)):
                found = found._replace(units=axes.units)
            if not found.rows and (resizes or all(at in same for at in (*axes.rows, *axes.columns))):
                found = found._replace(rows=axes.rows, columns=axes.columns, lost=axes.lost or found.lost)
        return found

    def _reshaped(self, source: Tensor, made: Tensor) -> Axes:
        axes, samples, folds = self.of(source), None, 1
        if axes.samples == 0 and made.ndim and self._count and made.shape[0] % self._count == 0:
            # The first axis is the slowest: what a sample has stays together, whatever is merged or split.
            samples, folds = 0, max(1, made.shape[0] // self._count)
        elif axes.samples:
            samples = next(iter(_placed(source.shape, made.shape, (axes.samples,))), None)
        # With one sample, sizes alone cannot tell its axis from others: nothing else moves to it.
        units, rows, columns = (
            _placed(source.shape, made.shape, places, lowest=int(samples == 0))
            for places in (axes.units, axes.rows, axes.columns)
        )
        if rows and columns:
            return Axes(samples, units, folds, rows, columns)
        return Axes(samples, units, folds, lost=_sizes(axes, source.shape) or axes.lost)

    def _product(self, last: object, made: Tensor) -> tuple[int, ...]:
        """Return the units of a product of matrices: those of its last factor, if they are at its end."""
        if isinstance(last, nn.Parameter):
            return (made.ndim - 1,)
        units = self.of(last).units if isinstance(last, Tensor) and self.knows(last) else ()
        return units if isinstance(last, Tensor) and last.ndim - 1 in units and last.ndim == made.ndim else ()


def tensors(values: Iterable[object]) -> Iterator[Tensor]:
    """Give the tensors among values, those in lists, tuples and dictionaries too."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from tensors(value)
        elif isinstance(value, Mapping):
            yield from tensors(value.values())


def _moved(
    func: Callable[..., Any], args: Args, kwargs: Kwargs, source: Tensor, axes: Axes, count: int
) -> list[Axes]:
    """Ask the function itself where axes go: of a stand-in without values, one axis alone has a stride."""

    def asked(axis: int) -> list[int | None]:
        strides = [int(at == axis) for at in range(source.ndim)]
        stand_in = torch.empty_strided(source.shape, strides, device="meta")
        try:
            made = list(tensors([func(*[stand_in if a is source else a for a in args], **kwargs)]))
        except Exception:  # whatever a function raises on a tensor without values: nothing is known then
            return [None] * count
        return [_along(m) for m in made]

    def placed(axes: tuple[int, ...]) -> list[tuple[int, ...]]:
        found = [asked(axis) for axis in axes]
        return [
            tuple(sorted(at for one in found if (at := one[which]) is not None)) for which in range(count)
        ]

    samples = [None] * count if axes.samples is None else asked(axes.samples)
    parts = zip(samples, placed(axes.units), placed(axes.rows), placed(axes.columns), strict=True)
    lost = axes.lost or _sizes(axes, source.shape)
    return [
        Axes(sample, units, axes.folds, rows, columns)
        if rows and columns
        else Axes(sample, units, axes.folds, lost=lost)
        for sample, units, rows, columns in parts
    ]


def _along(made: Tensor) -> int | None:
    """Return the axis of a stand-in that has a stride; an axis of one that was put in may have one too."""
    strides = made.stride()
    if 1 in strides:
        return strides.index(1)
    return next((at for at, stride in enumerate(strides) if stride and made.shape[at] > 1), None)


def _sizes(axes: Axes, shape: Sequence[int]) -> tuple[int, int] | None:
    """Return how many rows and columns there are, None if they are not known."""
    if not axes.rows or not axes.columns:
        return None
    return math.prod(shape[at] for at in axes.rows), math.prod(shape[at] for at in axes.columns)


def _in_front(axes: Axes, read: Sequence[Tensor], of: Callable[[Tensor], Axes], made: Tensor) -> Axes:
    """Return what is known of what a convolution, a pool or their like gave: its rows are on axis 2."""
    if made.ndim != 4:
        return axes._replace(rows=(), columns=(), lost=None)
    lost = next((of(t).lost for t in read if t.ndim == 4 and not of(t).has_places(t.shape)), None)
    if lost is not None:  # of windows, say, which a convolution of size 1 reads as if they were rows
        return axes._replace(rows=(), columns=(), lost=lost)
    return axes._replace(rows=(2,), columns=(3,), lost=None)


def _placed(
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


def _rank(args: Args, kwargs: Kwargs) -> int:
    return len(args[1] if len(args) > 1 else kwargs["normalized_shape"])


def _reduced(axes: Axes, rank: int, args: Args, kwargs: Kwargs) -> Axes:
    asked = kwargs.get("dim", args[1] if len(args) > 1 else None)
    dims = [asked] if isinstance(asked, int) else asked
    if not isinstance(dims, (tuple, list)):
        return Axes()
    gone = {int(d) % rank for d in dims}

    def kept(places: Sequence[int | None]) -> tuple[int, ...]:
        return tuple(at - sum(d < at for d in gone) for at in places if at is not None and at not in gone)

    samples = next(iter(kept([axes.samples])), None)
    return Axes(samples, kept(axes.units), axes.folds, kept(axes.rows), kept(axes.columns), axes.lost)
