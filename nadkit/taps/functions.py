"""Places that no module stands for: what a function gives inside a module's forward, and attention heads.

A function is named after the innermost module whose forward calls it: `layer1.0:add` is the sum in a residual
block, `:relu` a `F.relu` in the model's own forward, `attn:heads` what the heads of an attention give, one
after the other, before the projection that mixes them.
"""

from __future__ import annotations

import threading
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack, _pop_mode, _push_mode

from nadkit.taps.handles import Hook, Removable, remove_all

HEADS = "heads"
JOINS = ("add", "cat")
ACTIVATIONS = (
    "relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "hardswish", "hardtanh",
    "softplus", "tanh", "prelu",
)  # fmt: skip
FUNCTIONS = (*JOINS, *ACTIVATIONS, HEADS)
"""What may stand behind the colon of an address."""

_OTHER_NAMES = {"concat": "cat", "concatenate": "cat", "__iadd__": "add", "__add__": "add", "__radd__": "add"}
# A softmax makes weights, and a product with them is what heads give. Moved, both stay what they are.
_SOFTMAX = ("softmax", "special_softmax", "gumbel_softmax", "softmin")
_FUSED = "scaled_dot_product_attention"
_PRODUCTS = (_FUSED, "matmul", "__matmul__", "bmm", "baddbmm", "einsum")
_MOVES = (
    "transpose", "permute", "swapaxes", "swapdims", "movedim", "moveaxis", "contiguous", "clone", "to",
    "dropout", "unflatten", "squeeze", "unsqueeze", "expand", "__getitem__", "__get__", "adjoint", "t",
)  # fmt: skip
_MERGES = ("view", "view_as", "reshape", "reshape_as", "flatten")
# What leaves weights weights where it leaves them their shape: masks, and sums to one anew.
_WEIGHED = (
    "mul", "mul_", "__mul__", "__imul__", "div", "div_", "__truediv__", "__itruediv__", "masked_fill",
    "masked_fill_", "nan_to_num", "type", "type_as", "float", "half", "bfloat16",
)  # fmt: skip
_MARK = "_nadkit_attention"  # an attribute of a tensor, which ends with it
_SCORES, _WEIGHTS, _MIXED = "scores", "weights", "mixed"

_this_thread = threading.local()

See = Callable[[str, Tensor], Tensor | None]
"""What is told of a place's path (`layer1.0:add`) and output; it gives what is passed on, or None."""


@contextmanager
def unwatched() -> Iterator[None]:
    """Let every `Watch` of this thread look away: what runs in the block is not the model's own."""
    before = getattr(_this_thread, "away", False)
    _this_thread.away = True
    try:
        yield
    finally:
        _this_thread.away = before


class Watch(TorchFunctionMode):
    """While open, tell `see` of what the functions in `FUNCTIONS` give, and in which module they run.

    Nothing is told of what runs within `unwatched`, or outside of the model's forward. It may be closed in
    any order and by any thread.
    """

    def __init__(self, model: nn.Module, see: See) -> None:
        super().__init__()
        self.see = see
        self.running: list[str] = []  # paths of the modules that run, the innermost last
        self._model, self._closed = model, False
        self._open: list[Removable] = []

    def __enter__(self) -> Watch:
        """Begin to follow which module runs."""
        try:
            for path, module in self._model.named_modules():
                begin, end = (self._entering(path), self._leave) if path else (self._restart, self._end)
                self._open.append(module.register_forward_pre_hook(Hook(begin), prepend=True))
                # Always: a model may catch what a part of it raises, and go on.
                self._open.append(module.register_forward_hook(Hook(end), always_call=True))
            for other in _get_current_function_mode_stack():
                if isinstance(other, Watch) and other._closed:  # by another thread
                    _take_off(other)
            super().__enter__()  # type: ignore[no-untyped-call]
        except BaseException:
            remove_all([self])
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        """Take the hooks away."""
        remove_all([self])

    def remove(self) -> None:
        """Take the hooks away, in whatever thread or order."""
        self._closed = True
        self.running.clear()
        remove_all(self._open)
        _take_off(self)  # another thread has a stack of its own: there this one lies on until the next

    def _restart(self, module: nn.Module, args: object) -> None:  # noqa: ARG002 (torch calls it so)
        self.running[:] = [""]

    def _end(self, module: nn.Module, args: object, output: object) -> None:  # noqa: ARG002 (torch's)
        self.running.clear()
        others = _get_current_function_mode_stack()
        if not any(isinstance(other, Watch) and other.running for other in others):
            drop_marks(output)

    def _entering(self, path: str) -> Callable[[nn.Module, object], None]:
        running = self.running

        def enter(module: nn.Module, args: object) -> None:  # noqa: ARG001 (torch calls it so)
            running.append(path)

        return enter

    def _leave(self, module: nn.Module, args: object, output: object) -> None:  # noqa: ARG002 (torch's)
        del self.running[-1:]

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        """Run the function, and tell of what it gives."""
        kwargs = kwargs or {}
        if not self.running or getattr(_this_thread, "away", False):
            return func(*args, **kwargs)
        name, path = getattr(func, "__name__", ""), self.running[-1]
        if name == "multi_head_attention_forward" and args[0].ndim == 3:
            with _with_heads(func, lambda heads: self.see(f"{path}:{HEADS}", heads), args, kwargs) as copied:
                out = copied(*args, **kwargs)
        else:
            out = func(*args, **kwargs)
        if isinstance(out, Tensor):
            out = self._told(name, path, out, args, kwargs)
        return out

    def _told(
        self, name: str, path: str, out: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Tensor:
        first = args[0] if args else None
        if name in _SOFTMAX:
            setattr(out, _MARK, _WEIGHTS)
        elif name in _PRODUCTS:
            both = [*args, *kwargs.values()]
            if name == _FUSED or _count(both) > 1:
                setattr(out, _MARK, _MIXED if name == _FUSED or _any_weights(both) else _SCORES)
        elif name in _MOVES + _MERGES and isinstance(first, Tensor) and _mark_of(first):
            size = first.shape
            merged = len(size) > 2 and out.shape == (*size[:-2], size[-2] * size[-1])
            if merged and name in _MERGES and _mark_of(first) == _MIXED:
                kept = self.see(f"{path}:{HEADS}", out.unflatten(-1, size[-2:]))
                return out if kept is None else kept.flatten(-2)
            carry_mark(first, out)
        elif name in _WEIGHED and isinstance(first, Tensor) and out.shape == first.shape:
            carry_mark(first, out)
        else:
            name = _OTHER_NAMES.get(name, name.removesuffix("_"))
            if name == "add" and is_scores(first):  # a bias by position, or a mask
                carry_mark(first, out)
            if name in ACTIVATIONS or (name in JOINS and _count(args) + _count(kwargs.values()) > 1):
                kept = self.see(f"{path}:{name}", out)
                return out if kept is None else kept
        return out


def _take_off(mode: TorchFunctionMode) -> None:
    """Take a mode off this thread's stack, wherever it lies: a generator may be closed in another's block."""
    above: list[TorchFunctionMode] = []
    try:
        while any(other is mode for other in _get_current_function_mode_stack()):
            if (top := _pop_mode()) is not mode:
                above.append(top)
    finally:
        for other in reversed(above):
            _push_mode(other)


def _mark_of(output: object) -> str:
    return getattr(output, _MARK, "")


def is_scores(output: object) -> bool:
    """Return whether a tensor is a product of activations without weights, as who looks at whom."""
    return _mark_of(output) == _SCORES


def is_weights(output: object) -> bool:
    """Return whether a tensor is weights of an attention: scores after a softmax."""
    return _mark_of(output) == _WEIGHTS


def is_mixed(output: object) -> bool:
    """Return whether a tensor is a product with weights of an attention, before heads are joined."""
    return _mark_of(output) == _MIXED


def _any_weights(values: Sequence[Any] | Any) -> bool:
    """Return whether any tensor among values is weights of an attention, or a product with them."""
    return any(
        _any_weights(value) if isinstance(value, (tuple, list)) else _mark_of(value) in (_WEIGHTS, _MIXED)
        for value in values
    )


def carry_mark(output: object, passed: Tensor) -> None:
    """Say of what is passed on in an output's place that it is part of an attention, if the output is."""
    if _mark_of(output):
        setattr(passed, _MARK, _mark_of(output))


def drop_marks(output: object) -> None:
    """Leave no mark on the tensors of what a user is given."""
    if isinstance(output, Tensor):
        vars(output).pop(_MARK, None)
    elif isinstance(output, (tuple, list, Mapping)):
        for part in output.values() if isinstance(output, Mapping) else output:
            drop_marks(part)


def split_function(path: str) -> tuple[str, str | None]:
    """Return the module's path and the function's name of `layer1.0:add`; None for a module's own output.

    Examples
    --------
    >>> split_function("layer1.0:add"), split_function("layer1.0"), split_function(":relu")
    (('layer1.0', 'add'), ('layer1.0', None), ('', 'relu'))
    """
    module, mark, function = path.partition(":")
    return module, function if mark else None


def _count(values: Sequence[Any] | Any) -> int:
    """Return how many of the values are activations: tensors of numbers that are no parameters."""
    found = 0
    for value in values:
        if isinstance(value, Tensor):
            found += not isinstance(value, nn.Parameter) and value.is_floating_point() and value.ndim > 1
        elif isinstance(value, (tuple, list)):
            found += _count(value)
    return found


@contextmanager
def _with_heads(
    func: Any, see: Callable[[Tensor], Tensor | None], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Iterator[Callable[..., Any]]:
    """Give torch's attention with its heads passing through `see`; it is the same code, bit for bit.

    Its last step, `linear`, is the projection behind the heads. A copy of the function is made whose global
    name `linear` is another; the name of the function itself is the copy, so that a mode around this one
    is handed the copy and adds its own.
    """
    length, batch = args[0].shape[:2]
    count = args[4] if len(args) > 4 else kwargs["num_heads"]
    project = func.__globals__["linear"]

    def linear(heads: Tensor, *weights: Any) -> Any:
        kept = see(heads.reshape(length, batch, count, -1).transpose(0, 1))
        if kept is not None:
            heads = kept.transpose(0, 1).reshape(length * batch, -1)
        return project(heads, *weights)

    named = {**func.__globals__, "linear": linear}
    copied = types.FunctionType(func.__code__, named, func.__name__, func.__defaults__, func.__closure__)
    copied.__kwdefaults__ = func.__kwdefaults__
    named[func.__name__] = copied
    try:
        yield copied
    finally:  # a function and its global names hold each other, and through `see` the model
        named.clear()
