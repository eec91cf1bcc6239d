"""Which axes of a tensor hold samples, units, rows and columns, carried from function to function."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


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


# Their output has its units on the last axis, or on axis 1, whatever they read.
_LAST = {"linear", "multi_head_attention_forward", "embedding", "bilinear"}
_RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu"}
_FIRST = {
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "batch_norm",
    "group_norm", "instance_norm", "local_response_norm", "pixel_shuffle", "pixel_unshuffle",
    "channel_shuffle",
}  # fmt: skip
_POOLINGS = ("max", "avg", "adaptive_max", "adaptive_avg", "lp")
_POOLS = {f"{kind}_pool{rank}d" for kind in _POOLINGS for rank in (1, 2, 3)}
_OF_SHAPE = {"layer_norm", "rms_norm"}  # of one axis, the last, they scale its units
VIEWS = {
    "permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "squeeze", "unsqueeze", "expand",
    "expand_as", "chunk", "split", "tensor_split", "unbind", "narrow", "select", "__getitem__", "t",
    "__get__", "adjoint",
}  # fmt: skip
_RESHAPES = {"reshape", "view", "flatten", "unflatten", "reshape_as", "view_as"}
_REDUCTIONS = {"mean", "sum", "amax", "amin", "max", "min", "std", "var", "logsumexp", "nanmean", "prod"}
_ATTENTION = "scaled_dot_product_attention"
_PRODUCTS = {"matmul", "mm", "bmm", "baddbmm", _ATTENTION}
_RESIZE_UNITS = {"cat", "concat", "concatenate", "pad"}
# What keeps every axis where it is, besides the functions that torch itself says go number by number.
_KEEPS = {
    "", "cat", "concat", "concatenate", "pad", "dropout", "dropout1d", "dropout2d", "dropout3d",
    "alpha_dropout", "feature_dropout", "feature_alpha_dropout", "clone", "contiguous", "detach", "to",
    "float", "double", "half", "bfloat16", "type", "type_as", "cpu", "cuda", "requires_grad", "relu6",
    "selu", "rrelu", "prelu", "softsign", "hardtanh", "tanhshrink", "logsigmoid", "threshold", "glu",
    "softmax", "log_softmax", "softmin", "gumbel_softmax", "normalize", "cumsum", "cumprod", "roll", "flip",
    "fliplr", "flipud", "interpolate", "upsample", "grid_sample", "repeat", "tile", "repeat_interleave",
    "index_select", "gather", "take_along_dim", "sort", "topk", "masked_fill", "where", "triu", "tril",
    "truediv", "rmul", "fake_quantize_per_tensor_affine", "fill", "zero", "copy",
    "max_unpool1d", "max_unpool2d", "max_unpool3d",
    "relu", "elu", "celu", "leaky_relu", "gelu", "silu", "mish", "hardswish", "hardsigmoid", "hardshrink",
    "softshrink", "softplus", "sigmoid", "tanh", "add", "sub", "mul", "div", "pow", "neg", "clamp",
}  # fmt: skip
_KEEPS_SAMPLES = {"unfold", "fold", "norm", "cdist", "one_hot", "var_mean", "std_mean"}
_IN_PLACE_VIEWS = {
    f"{name}_" for name in (*VIEWS, "as_strided", "resize", "resize_as", "set", "unsqueeze")
}  # fmt: skip


@cache
def plain_name(name: str) -> str:
    """Return a function's name without what says that it is an operator, or in place.

    Examples
    --------
    >>> plain_name("__iadd__"), plain_name("relu_"), plain_name("__getitem__"), plain_name("max_pool2d")
    ('add', 'relu', '__getitem__', 'max_pool2d')
    """
    operator = re.fullmatch(r"__[ir]?(add|sub|mul|truediv|div|matmul|pow|neg)__", name)
    return operator[1] if operator else name if name.startswith("__") else name.removesuffix("_")


@cache
def _keeps_axes(name: str) -> bool:
    """Return whether a function leaves each axis where it is, as those that go number by number do."""
    if name in _KEEPS or name in _REDUCTIONS or name in _PRODUCTS or name in _LAST | _FIRST | _OF_SHAPE:
        return True
    overloads = getattr(torch.ops.aten, name, None)
    if name.startswith("_") or overloads is None:
        return False
    return any(torch.Tag.pointwise in getattr(overloads, one).tags for one in overloads.overloads())


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
        """Return what is known of a tensor; of one that no function made, samples on axis 0 if they fit."""
        axes = self._known.get(id(tensor), Axes())
        if not self.knows(tensor) and tensor.ndim and len(tensor) == self._count:
            axes = Axes(0)
        if not axes.units and tensor.ndim == 2 and axes.samples == 0:
            axes = axes._replace(units=(1,))
        return axes

    def follow(self, name: str, func: Callable[..., Any], args: Args, kwargs: Kwargs, out: object) -> None:
        """Note where the axes of what a function gave lie, from those of what it took."""
        taken, made = list(tensors([*args, *kwargs.values()])), list(tensors([out]))
        read = [t for t in taken if self.knows(t)]
        if not read:
            return  # made of weights and constants alone
        if name in _IN_PLACE_VIEWS:
            found = [Axes()] * len(made)
        elif (name in VIEWS or name in _RESHAPES) and taken[0] is not read[0]:
            return  # a weight, say, in the shape of an activation
        elif name == "__getitem__" and len(taken) > 1:
            found = [self._picked(read[0], args[1], tensor) for tensor in made]
        elif name in VIEWS:
            found = _moved(func, args, kwargs, read[0], self.of(read[0]), len(made))
        else:
            found = [self._found(plain_name(name), read, args, kwargs, tensor) for tensor in made]
            found = [
                self._at_home(plain_name(name), read, args, kwargs, *both)
                for both in zip(made, found, strict=True)
            ]
        if name in _RECURRENT:  # the states at the end: layers, samples, units
            found[1:] = [Axes(1, (2,)) if tensor.ndim == 3 else Axes() for tensor in made[1:]]
        if name == "multi_head_attention_forward":  # who looks at whom
            found[1:] = [Axes(0, folds=self.of(read[0]).folds)] * len(made[1:])
        for tensor, axes in zip(made, found, strict=True):
            self._note(tensor, axes)

    def _at_home(
        self, name: str, read: Sequence[Tensor], args: Args, kwargs: Kwargs, made: Tensor, axes: Axes
    ) -> Axes:
        """Return what is known of an output whose units are where its function always has them."""
        last = (made.ndim - 1,)
        if name in _LAST | _RECURRENT or (name in _OF_SHAPE and _rank(args, kwargs) == 1):
            return axes._replace(units=last, before=self._before(read[0], last, made))
        if name in _FIRST and made.ndim > 1:
            axes = axes._replace(before=self._before(read[0], (1,), made))
            return _in_front(axes._replace(units=(1,)), read, self.of, made)
        if name in _POOLS:
            axes = self.of(read[0])
            return _in_front(axes, read, self.of, made) if axes.units == (1,) and made.ndim == 4 else axes
        if name in _PRODUCTS and len(args) > 1:
            return axes._replace(units=self._product(args[2 if name == _ATTENTION else 1], made))
        return axes

    def _before(self, source: Tensor, units: tuple[int, ...], made: Tensor) -> tuple[int, ...]:
        axes = self.of(source)
        before = axes.before if axes.units in ((), units) else axes.units
        return before if source.ndim == made.ndim and before != units else ()

    def _picked(self, source: Tensor, index: object, made: Tensor) -> Axes:
        """Return what is known of what a list of positions picked: axes stay where one of them was asked."""
        lists = list(tensors([index]))
        if source.ndim != made.ndim or len(lists) != 1 or lists[0].ndim != 1:
            return Axes()
        axes = self.of(source)
        kept = axes.samples is not None and source.shape[axes.samples] == made.shape[axes.samples]
        return axes if kept else axes._replace(samples=None)

    def _note(self, tensor: Tensor, axes: Axes) -> None:
        self._alive.append(tensor)
        self._known[id(tensor)] = axes

    def _found(self, name: str, read: Sequence[Tensor], args: Args, kwargs: Kwargs, made: Tensor) -> Axes:
        first = self.of(read[0])
        if name in _RESHAPES:
            return self._reshaped(read[0], made)
        if name == "einsum":
            return self._einsum(args, made)
        if name in _REDUCTIONS and made.ndim < read[0].ndim:
            return _reduced(first, read[0].ndim, args, kwargs)
        if name == "stack":
            return _stacked(first, made.ndim, args, kwargs)
        if not _keeps_axes(name):
            # The samples can be told if no other axis is as long.
            sure = name in _KEEPS_SAMPLES or list(made.shape).count(self._count) == 1
            same = first.samples == 0 and made.ndim > 0 and made.shape[0] == read[0].shape[0]
            return Axes(0, folds=first.folds) if sure and same else Axes()
        return self._joined(read, made, name in _RESIZE_UNITS)

    def _joined(self, read: Sequence[Tensor], made: Tensor, resizes: bool) -> Axes:
        """Return the axes of those inputs that have as many and, on the axis asked for, the same size."""
        found, units, before = Axes(), list[tuple[int, ...]](), list[tuple[int, ...]]()
        for tensor in (t for t in read if t.ndim == made.ndim):
            axes = self.of(tensor)
            same = [at for at in range(made.ndim) if tensor.shape[at] == made.shape[at]]
            if found.samples is None and axes.samples in same:
                found = found._replace(samples=axes.samples, folds=axes.folds)
            if axes.units and (resizes or all(at in same for at in axes.units)):
                units.append(axes.units)
                before.append(axes.before)
            if not found.rows and (resizes or all(at in same for at in (*axes.rows, *axes.columns))):
                found = found._replace(rows=axes.rows, columns=axes.columns, lost=axes.lost or found.lost)
        # Where inputs disagree, the units are those that all have or once had.
        shared = [u for u in units if all(u in pair for pair in zip(units, before, strict=True))]
        return found._replace(units=shared[0], before=before[units.index(shared[0])]) if shared else found

    def _einsum(self, args: Args, made: Tensor) -> Axes:
        """Return what the letters of the equation say; nothing where it has dots or none are given."""
        operands = list(tensors(args[1:]))
        if not isinstance(args[0], str) or "." in args[0]:
            return Axes()
        terms, arrow, result = args[0].replace(" ", "").partition("->")
        inputs = terms.split(",")
        if not arrow:
            result = "".join(letter for letter in sorted(set(terms) - {","}) if terms.count(letter) == 1)
        known = [(letters, self.of(t)) for letters, t in zip(inputs, operands, strict=True) if self.knows(t)]
        sample = {letters[axes.samples]: axes for letters, axes in known if axes.samples is not None}
        samples, folds = next(
            ((result.index(x), a.folds) for x, a in sample.items() if x in result), (None, 1)
        )
        asked = [{letters[at] for at in axes.units} for letters, axes in known if axes.units]
        whole = [one for one in asked if one <= set(result)]
        own = set(result) - {letter for letters, _ in known for letter in letters}
        if not whole and own:  # of a matrix of weights
            whole = [own]
        agree = len(sample) < 2 and bool(whole) and all(one == whole[0] for one in whole)
        units = tuple(sorted(result.index(letter) for letter in whole[0])) if agree else ()
        return Axes(samples if len(sample) < 2 else None, units, folds) if made.ndim else Axes()

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
        before = _placed(source.shape, made.shape, axes.before, lowest=int(samples == 0))
        if rows and columns:
            return Axes(samples, units, folds, rows, columns, before=before)
        return Axes(samples, units, folds, lost=_sizes(axes, source.shape) or axes.lost, before=before)

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
    lost = axes.lost or _sizes(axes, source.shape)
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


def _stacked(axes: Axes, rank: int, args: Args, kwargs: Kwargs) -> Axes:
    """Return the axes of tensors that were put side by side on a new axis."""
    new = int(kwargs.get("dim", args[1] if len(args) > 1 else 0)) % rank

    def moved(places: Sequence[int]) -> tuple[int, ...]:
        return tuple(at + (at >= new) for at in places)

    samples = None if axes.samples is None else axes.samples + (axes.samples >= new)
    rows, columns = moved(axes.rows), moved(axes.columns)
    return Axes(samples, moved(axes.units), axes.folds, rows, columns, axes.lost, moved(axes.before))


def _reduced(axes: Axes, rank: int, args: Args, kwargs: Kwargs) -> Axes:
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
