"""Which axes of a tensor hold samples, units, rows and columns, carried from function to function."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from nadkit.networks.layouts import (
    Args,
    Axes,
    Kwargs,
    find_merged,
    follow_move,
    follow_reduction,
    follow_stack,
    rows_in_front,
    sizes_of,
    tensors,
)

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
RESHAPES = {"reshape", "view", "flatten", "unflatten", "reshape_as", "view_as"}
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
        elif (name in VIEWS or name in RESHAPES) and taken[0] is not read[0]:
            return  # a weight, say, in the shape of an activation
        elif name == "__getitem__" and len(taken) > 1:
            found = [self._picked(read[0], args[1], tensor) for tensor in made]
        elif name in VIEWS:
            found = follow_move(func, args, kwargs, read[0], self.of(read[0]), len(made))
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
            return rows_in_front(axes._replace(units=(1,)), read, self.of, made)
        if name in _POOLS:
            axes = self.of(read[0])
            return rows_in_front(axes, read, self.of, made) if axes.units == (1,) and made.ndim == 4 else axes
        if name in _PRODUCTS and len(args) > 1:
            first, last = (args[1], args[2]) if name == _ATTENTION else args[-2:]
            return axes._replace(units=self._product(first, last, made))
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
        if name in RESHAPES:
            return self._reshaped(read[0], made)
        if name == "einsum":
            return self._einsum(args, made)
        if name in _REDUCTIONS and made.ndim < read[0].ndim:
            return follow_reduction(first, read[0].ndim, args, kwargs)
        if name == "stack":
            return follow_stack(first, made.ndim, args, kwargs)
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
            samples = next(iter(find_merged(source.shape, made.shape, (axes.samples,))), None)
        # With one sample, sizes alone cannot tell its axis from others: nothing else moves to it.
        units, rows, columns = (
            find_merged(source.shape, made.shape, places, lowest=int(samples == 0))
            for places in (axes.units, axes.rows, axes.columns)
        )
        before = find_merged(source.shape, made.shape, axes.before, lowest=int(samples == 0))
        if rows and columns:
            return Axes(samples, units, folds, rows, columns, before=before)
        return Axes(samples, units, folds, lost=sizes_of(axes, source.shape) or axes.lost, before=before)

    def _product(self, first: object, last: object, made: Tensor) -> tuple[int, ...]:
        """Return the units of a product of matrices: those of its last factor, if they are at its end."""
        if isinstance(last, nn.Parameter):
            return (made.ndim - 1,)
        if isinstance(last, Tensor) and last.ndim == 2 and not self.knows(last):
            # Weights, turned or scaled first, or a constant: that may be over columns, and leave units alone.
            units = self.of(first).units if isinstance(first, Tensor) else ()
            return units if units and made.ndim - 1 not in units else (made.ndim - 1,)
        units = self.of(last).units if isinstance(last, Tensor) and self.knows(last) else ()
        return units if isinstance(last, Tensor) and last.ndim - 1 in units and last.ndim == made.ndim else ()


def _rank(args: Args, kwargs: Kwargs) -> int:
    return len(args[1] if len(args) > 1 else kwargs["normalized_shape"])
