"""What one forward pass calls: its modules and functions, what they give, and who reads that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nadkit.errors import LayerError
from nadkit.networks.axes import AxisRecord
from nadkit.networks.identities import Identities
from nadkit.networks.layouts import Axes, tensors
from nadkit.networks.norms import NormReaders, is_norm
from nadkit.networks.passing import Passing
from nadkit.networks.tokens import Tokens
from nadkit.taps import HEADS, Layer, Watch, is_scores


@dataclass
class Call:
    """One run of one module, or of a function within it, in a forward pass."""

    path: str  # `layer1.0`, or `layer1.0:add`
    number: int  # counted from 1
    module: nn.Module | None  # None for a function
    output: object
    feeds_norm: bool = False
    address: str = ""
    axes: Axes = field(default_factory=Axes)
    in_place: str = ""  # who writes into the output
    same: bool = False  # a function's output that its module gives as its own, as it is
    by: str = ""  # of a module: that function
    name: int = 0  # what it gave, as it was then
    behind: frozenset[int] = frozenset()  # names of what its output was made from, its units one for one
    answers: bool = False  # its units are the classes: it is the model's output, or becomes it one for one

    def layer(self, axis: int | None = None) -> Layer | str:
        """Return the place's `Layer`, or why it cannot be gated; an axis given is taken as the units'."""
        out = self.output
        named = self.path if self.module is not None else self.path.rpartition(":")[0]
        if set(named) & set(":#"):
            return "has ':' or '#' in a module's name, signs of functions and calls in addresses; rename it"
        if not isinstance(out, Tensor):
            return f"gives {kind(out)}, not one tensor"
        if not out.is_floating_point():
            return f"gives {out.dtype}, not floats"
        if out.ndim < 2:
            return "has no axis of units"
        samples, units, folds = self.axes[:3]
        if samples != 0:
            where = "no axis that is known" if samples is None else f"axis {samples}"
            return f"has its samples on {where}, not on axis 0"
        fits = isinstance(axis, int) and not isinstance(axis, bool) and 0 < abs(axis) < out.ndim
        if axis is not None and not fits:
            return (
                f"has {out.ndim} axes, with the samples on 0; its units cannot lie on {axis!r}, give a whole "
                f"number from 1 to {out.ndim - 1}, or from the end -1 to {1 - out.ndim}"
            )
        if axis is None and len(units) > 1:
            return f"has its units split over axes {' and '.join(map(str, units))}"
        if axis is None and (not units or units[0] == 0):
            what = "gives scores, as of an attention, with" if is_scores(out) else "has its"
            return f"{what} units on no axis that is known; say which: layers={{address: axis}}"
        at = units[0] if axis is None else axis % out.ndim
        places = self.axes._replace(units=(at,)).has_places(out.shape)
        return Layer(out.shape[at], at + (folds > 1), self.feeds_norm, folds, places)


class Recording(NamedTuple):
    """The calls in the order of completion, the model's output, and the modules that never ran, with why."""

    calls: list[Call]
    out: object
    dead: dict[str, str]


class _Calls:
    """The calls so far, and how often each path was called."""

    def __init__(self) -> None:
        self.all: list[Call] = []
        self.times: Counter[str] = Counter()

    def add(self, path: str, module: nn.Module | None, output: object) -> None:
        self.times[path] += 1
        self.all.append(Call(path, self.times[path], module, output))

    def add_function(self, path: str, output: Tensor) -> None:
        self.add(path, None, output)


class _Recorder(Watch):
    """Note every call of a module or of a function that can be tapped, and all that is said of them."""

    def __init__(self, model: nn.Module) -> None:
        # A method of its own would tie a knot that keeps the model and all activations until a collection.
        noted = _Calls()
        super().__init__(model, noted.add_function)
        self.note, self.calls, self.times = noted.add, noted.all, noted.times
        self.axes = AxisRecord()
        self.names, self.tokens = Identities(), Tokens()
        self.norms = NormReaders(self.axes.knows, self.names)
        self.passing = Passing(self.axes.knows, self.names)
        self.written: list[tuple[int, int, str]] = []  # a tensor, how many calls were done, by whom
        self.weights: dict[int, tuple[str, str]] = {}  # a parameter: in which module by what function
        self.leaves = {path for path, m in model.named_modules() if next(m.children(), None) is None}

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        name, values = getattr(func, "__name__", ""), [*args, *(kwargs or {}).values()]
        target = values[0] if values and isinstance(values[0], Tensor) else None
        before, done = _version(target), len(self.calls)
        out = super().__torch_function__(func, types, args, kwargs)
        path = self.running[-1] if self.running else ""
        if name == "__setitem__":
            self._assigned(args[0], args[-1])
        else:
            self._follow(name, values, out)
            self.axes.follow(name, func, args, kwargs or {}, out)
        self.tokens.follow(name, func, args, kwargs or {}, out)
        for call in self.calls[done:]:
            if isinstance(call.output, Tensor):
                call.name = self.names.of(call.output)
            if call.path.endswith(f":{HEADS}") and isinstance(call.output, Tensor):
                at = call.output.ndim - 2
                axes = self.axes.of(out) if isinstance(out, Tensor) else self._of_heads(args)
                # What one head gives may be merged too, its tokens, or rows, with its units.
                call.axes = axes._replace(units=() if at in self.tokens.of(args[0]) else (at,))
        if target is not None and _version(target) != before:
            who = path if path in self.leaves else f"{path}:{name.removesuffix('_')}"
            self.written += [(id(t), done, who) for t in (target, target._base) if t is not None]
        for value in values:
            if isinstance(value, nn.Parameter):
                self.weights.setdefault(id(value), (path, name))
        return out

    def _restart(self, module: nn.Module, args: object) -> None:
        if self.running:
            raise LayerError(
                f"{type(module).__name__} calls itself in its forward, and calls are counted anew each time a"
                " model is called; take the part of it that it runs on each, or let it call a method instead"
            )
        super()._restart(module, args)

    def _follow(self, name: str, values: list[Any], out: object) -> None:
        self.names.follow(values, out)
        self.norms.follow(name, values, out)
        self.passing.follow(name, values, out)

    def _assigned(self, whole: Tensor, part: object) -> None:
        """Note that a part of a tensor was written: then it is joined of what it was and of that."""
        self._follow("cat", [whole, part], whole)
        if isinstance(part, Tensor) and part.ndim == whole.ndim and not self.axes.knows(whole):
            self.axes.follow("cat", torch.cat, [[part]], {}, whole)

    def _of_heads(self, args: tuple[Any, ...]) -> Axes:
        """Return the axes of what torch's attention gives its projection, (batch, length, heads, width).

        Its query is (length, batch, units), whatever the module took.
        """
        query = self.axes.of(args[0])
        samples = None if query.samples is None else {1: 0, 0: 1}.get(query.samples)
        return Axes(samples, folds=query.folds)

    def ended(self, path: str, module: nn.Module, args: list[Any], output: object) -> None:
        """Note a module's call; what one of its functions gave as its output goes by the module's name."""
        by = ""
        for at, call in enumerate(self.calls):
            owner, _, function = call.path.rpartition(":")
            if call.module is None and call.output is output and owner == path:
                call.same = not any(t == id(output) and done > at for t, done, _ in self.written)
                by = function if call.same else by
        for tensor in tensors([output]):
            if not self.axes.knows(tensor):  # made where no function is seen
                self._follow("" if next(module.parameters(), None) is None else "linear", args, tensor)
                self.axes.follow("", nn.Identity(), args, {}, tensor)
        self.note(path, module, output)
        self.calls[-1].by = by
        if isinstance(output, Tensor):
            self.calls[-1].name = self.names.of(output)

    def close(self, out: object) -> None:
        """Say of every call what only the end of the pass tells."""
        self.norms.close()
        answer = next(tensors([out]), None)
        becoming = set[int]() if answer is None else self.passing.behind(self.names.of(answer))
        for at, call in enumerate(self.calls):
            call.feeds_norm = call.name in self.norms.read
            call.address = call.path if self.times[call.path] == 1 else f"{call.path}#{call.number}"
            if isinstance(call.output, Tensor) and not call.axes.units:
                call.axes = self.axes.of(call.output)
            if isinstance(call.output, Tensor):
                call.behind = frozenset(self.passing.behind(call.name))
            if answer is not None and call.name in becoming:
                layer = call.layer()
                classes = isinstance(layer, Layer) and answer.ndim > 1 and layer.units == answer.shape[1]
                call.answers = classes or call.output is answer
            call.in_place = next(
                (who for t, done, who in self.written if t == id(call.output) and done > at), ""
            )
        self.calls = [call for call in self.calls if not call.same]


def record_calls(model: nn.Module, inputs: Tensor) -> Recording:
    """Return every call of one forward pass in the order of completion, and the model's output.

    Recorded are modules, and functions that can be tapped but for those that give what their module gives.
    A module that has several names goes by the first. No hook is left, whatever ends the pass.

    Examples
    --------
    >>> import torch
    >>> calls = record_calls(nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)), torch.ones(1, 2)).calls
    >>> [(call.address, call.feeds_norm) for call in calls]
    [('0', True), ('1', False)]

    Parameters
    ----------
    model : the module, in the mode in which it shall run
    inputs : what it takes
    """
    watch = _Recorder(model)
    watch.axes.start(inputs)
    paths = {module: path for path, module in model.named_modules()}
    handles = []

    def after(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object) -> None:
        watch.ended(paths[module], module, [*args, *kwargs.values()], output)

    def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        watch.norms.reads([*args, *kwargs.values()])

    try:
        for module, path in paths.items():
            if path:
                handles.append(module.register_forward_hook(after, with_kwargs=True))
            if is_norm(module):
                handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        with watch:
            out = model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    watch.close(out)
    return Recording(watch.calls, out, dict(_dead(model, watch)))


def _dead(model: nn.Module, watch: _Recorder) -> Iterable[tuple[str, str]]:
    for path, module in model.named_modules():
        if not path or watch.times[path] or type(module).forward is nn.Module.forward:
            continue
        readers = {watch.weights[id(p)] for p in module.parameters(recurse=False) if id(p) in watch.weights}
        if readers:
            where, name = min(readers)
            yield path, f"dead: its weights are read by {where}:{name}, the module is never called"
        else:
            yield path, "did not run on the example"


def _version(tensor: Tensor | None) -> int:
    """Return how often a tensor was written to; tensors of inference mode do not say."""
    return 0 if tensor is None or tensor.is_inference() else tensor._version


def kind(output: object) -> str:
    """Return what an output is, in words."""
    if isinstance(output, Tensor):
        return f"{output.dtype} {tuple(output.shape)}"
    if isinstance(output, (tuple, list, dict)):
        return f"a {type(output).__name__} of {len(output)}"
    return f"a {type(output).__name__}"
