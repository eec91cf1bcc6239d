"""`Taps`: hooks that read and gate layers, and are gone when the block ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import get_ident

import torch
from torch import Tensor, nn

from nadkit.errors import LayerError, closest
from nadkit.taps.checks import (
    acts_on_saved,
    check_gate,
    check_gradients,
    check_model,
    check_rows,
    wrong_size,
)
from nadkit.taps.functions import FUNCTIONS, HEADS, Watch, carry_mark, drop_marks, split_function, unwatched
from nadkit.taps.handles import Hook, Removable, remove_all
from nadkit.taps.layer import Layer, Tappable, kind_of, model_and_layers, parse_address

Edit = Callable[[Tensor], Tensor]


class Taps:
    """Read and gate layers of a model while the block is open; the model itself is never changed.

    Examples
    --------
    >>> import torch
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(inplace=True))
    >>> with Taps(model, ["0"], gates={"0": torch.tensor([1.0, 0.0, 1.0])}) as taps:
    ...     answer = model(torch.ones(5, 2))
    >>> taps.activations["0"].shape, answer[:, 1].abs().max().item()
    (torch.Size([5, 3]), 0.0)

    Parameters
    ----------
    target
        A network, or any module. Samples lie on axis 0 of what a layer gives, units on `Layer.axis` for
        a network's layers, else on axis 1.
    layers
        Addresses to record: `layer1.0`, `layer1.0.relu#2` for the second call of that module in one forward
        of the model, `layer1.0:add` for a function that the module's forward calls, `attn:heads` for the
        heads of an attention. None records all layers of a network, of a module the gated ones; `()` records
        nothing.
    gates
        `{address: (U,)}` or `{address: (T, U)}`, finite; 1 keeps, 0 removes. A gate follows the device
        and dtype of the layer, and gradients flow back to it.
    rows
        (N,) int64, 0 to T - 1: sample n is gated by row `rows[n]` of every (T, U) gate. Every forward in
        the block must then have N samples.
    edits
        `{address: function}`: what the function makes of the layer's output (after its gate) is passed on in
        its place. It must be a tensor of the same shape; the record is what is passed on.

    Raises
    ------
    LayerError
        An unknown address (with the closest names), a gate of wrong shape or with NaN, rows that do not
        fit, a model, or a part around a layer, that is compiled, scripted or replicated; in a forward,
        another thread than the block's, a bare address of a module that runs more than once, an output that
        is not one tensor, sizes other than those of rows and gate, an edit that gives another shape, a place
        in a checkpointed part while gradients are on, a gate that wants one where they are off; at the end
        of a block that raised nothing itself, a layer that never ran; opening the same object twice.

    Notes
    -----
    A record is the output after the gate, a copy that no in-place operation of the model can change; where
    gradients are on it lies on the way from input to answer, so that `torch.autograd.grad` reaches it.
    Nested blocks on one model multiply their gates, and each records what its own gate and those around it
    leave. A gate acts on what a module returns: where the model drops that (`self.relu(x)` for its side
    effect), nothing is gated. The model of a block runs in the thread that opened it, and is refused in
    others. Attention has a faster way through torch that no hook can see; where functions or heads are
    tapped, and in `Network.logits`, the usual one is taken, which may differ from it in the last bits.
    """

    def __init__(
        self,
        target: nn.Module | Tappable,
        layers: str | Sequence[str] | None = None,
        *,
        gates: Mapping[str, Tensor] | None = None,
        rows: Tensor | None = None,
        edits: Mapping[str, Edit] | None = None,
    ) -> None:
        model, known = model_and_layers(target)
        gates = {} if gates is None else gates
        edits = {} if edits is None else edits
        span = check_rows(rows, gates)
        if layers is None:
            layers = list(known) or [*gates, *edits]
            if not layers:
                raise LayerError(f"{type(model).__name__} has no list of layers; give layers= or gates=")
        check_model(model)
        self._taps: dict[nn.Module | str, _Tap] = {}
        for address in [layers] if isinstance(layers, str) else layers:
            self._place(model, known, address).records.append(address)
        for address, gate in gates.items():
            place = self._place(model, known, address)
            path, call = parse_address(address)
            layer = _known(known, path, call)
            check_gate(address, gate, layer, span)
            if place.gate is not None:
                raise LayerError(f"{address!r} gates a call that has a gate; multiply the two into one")
            place.gate, place.axis = gate, layer.axis if layer else place.axis
        for address, edit in edits.items():
            place = self._place(model, known, address)
            if not callable(edit):
                raise LayerError(f"the edit of {address!r} is {kind_of(edit)}; give a function of a tensor")
            if place.edit is not None:
                raise LayerError(f"{address!r} edits a call that has an edit; make one function of the two")
            place.edit = edit
        self._model: nn.Module | None = model
        self._rows = rows
        self._record = _Record()
        self._open: list[Removable] | None = None

    def _place(self, model: nn.Module, known: Mapping[str, Layer], address: str) -> _Place:
        path, call = parse_address(address)
        owner, function = split_function(path)
        try:
            module = model.get_submodule(owner)
        except AttributeError:
            paths = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
            near = closest(address, dict.fromkeys([*known, *paths]))
            raise LayerError(f"no layer {address!r} in {type(model).__name__}; {near}") from None
        part, above = model, ""
        for name in owner.split(".") if owner else ():
            part, above = getattr(part, name), f"{above}.{name}" if above else name
            check_model(part, above)
        if function is not None and function not in FUNCTIONS:
            near = closest(function, FUNCTIONS)
            raise LayerError(f"{address!r} names no function whose output can be tapped; {near}")
        if function is not None:  # functions are told by the first name of a module that has several
            first = next(name for name, part in model.named_modules() if part is module)
            tap = self._taps.setdefault(f"{first}:{function}", _Tap(path))
        else:
            tap = self._taps.setdefault(module, _Tap(path))
        if call is None:
            tap.bare = path
        if (call or 1) not in tap.places:
            layer = _known(known, path, call)
            axis = -2 if function == HEADS else 1
            tap.places[call or 1] = _Place(axis=axis, folds=layer.folds if layer else 1)
        return tap.places[call or 1]

    @property
    def activations(self) -> dict[str, Tensor]:
        """Recorded tensors by address, of the last forward; every forward starts a new dictionary."""
        return self._record.activations

    def __enter__(self) -> Taps:
        if self._model is None or self._open is not None:
            raise LayerError("these taps were opened before; build a new Taps(...) for every block")
        record, rows, thread, taps = self._record, self._rows, get_ident(), list(self._taps.values())
        functions = {path: tap for path, tap in self._taps.items() if isinstance(path, str)}

        def restart(module: nn.Module, args: object) -> None:  # noqa: ARG001 (torch calls it so)
            _refuse_others(module, thread)
            record.activations = {}
            record.gradients, record.hooks = torch.is_grad_enabled(), acts_on_saved()
            for tap in taps:
                tap.calls = 0

        def see(path: str, output: Tensor) -> Tensor | None:
            tap = functions.get(path)
            return None if tap is None else _pass(tap, record, rows, output)

        opened: list[Removable] = []
        try:
            opened.append(self._model.register_forward_pre_hook(Hook(restart)))
            for module, tap in self._taps.items():
                if isinstance(module, nn.Module):
                    hook = Hook(_make_hook(tap, record, rows, thread))
                    opened.append(module.register_forward_hook(hook))
            if functions:  # behind the hooks, so that a module runs until its own have run
                watch = Watch(self._model, see)
                opened.append(watch)
                watch.__enter__()
            self._open = opened
        except BaseException:
            remove_all(opened)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._open is None:
            return
        name, taps = type(self._model).__name__, list(self._taps.values())
        try:
            remove_all(self._open)
        finally:
            self._model, self._rows, self._open, self._taps = None, None, None, {}
        if kind is None:
            _check_ran(name, taps)


@dataclass(eq=False)
class _Place:
    """One call of one module: what happens to its output."""

    records: list[str] = field(default_factory=list)
    gate: Tensor | None = None
    axis: int = 1
    folds: int = 1
    edit: Edit | None = None


@dataclass(eq=False)
class _Tap:
    """The tapped calls of one module; it knows the module's path only, and so keeps nothing alive."""

    path: str
    places: dict[int, _Place] = field(default_factory=dict)
    bare: str | None = None
    calls: int = 0
    most: int = 0


@dataclass(eq=False)
class _Record:
    """What hooks write to. It is all that they share with `Taps` and all that outlives the block."""

    activations: dict[str, Tensor] = field(default_factory=dict)
    gradients: bool = False  # when the model's forward began
    hooks: bool = False


def _known(known: Mapping[str, Layer], path: str, call: int | None) -> Layer | None:
    """Return what is known of a call; the first one may be named with its number or without."""
    names = [path, f"{path}#1"] if call in (None, 1) else [f"{path}#{call}"]
    return next((known[name] for name in names if name in known), None)


def _refuse_others(module: nn.Module, thread: int) -> None:
    if get_ident() != thread:
        raise LayerError(
            f"{type(module).__name__} is tapped in another thread, whose calls would mix with these; "
            "give each thread a copy of the model, or run them one after another"
        )


def _make_hook(
    tap: _Tap, record: _Record, rows: Tensor | None, thread: int
) -> Callable[[nn.Module, object, object], Tensor | None]:
    def hook(module: nn.Module, args: object, output: object) -> Tensor | None:  # noqa: ARG001 (torch's)
        _refuse_others(module, thread)  # a part of the model may be called by itself
        return _pass(tap, record, rows, output)

    return hook


def _pass(tap: _Tap, record: _Record, rows: Tensor | None, output: object) -> Tensor | None:
    """Return what a call of a tapped place passes on, None for its output as it is."""
    tap.calls += 1
    tap.most = max(tap.most, tap.calls)
    if tap.calls > 1 and tap.bare is not None:
        raise LayerError(
            f"{tap.bare!r} runs more than once in a forward; say which call: {tap.bare}#1, {tap.bare}#2, "
            "… (only calling the model itself, not a part of it or `.forward`, counts anew)"
        )
    place = tap.places.get(tap.calls)
    if place is None:
        return None
    check_gradients(tap.path, place.gate, output, record.gradients, record.hooks)
    if not isinstance(output, Tensor):
        raise LayerError(
            f"layer {tap.path!r} gives a {type(output).__name__}, not one tensor; "
            "tap a module inside it or after it that gives a tensor"
        )
    value: Tensor = output.unflatten(0, (-1, place.folds)) if place.folds > 1 else output
    if place.gate is None and place.edit is None:
        # One copy for the record and, where gradients are on, another for the model: the record then
        # lies on the way to the answer, and no in-place operation reaches it.
        read = value.clone()
        passed = read.clone() if read.requires_grad else None
    else:
        read = value
        if place.gate is not None:
            read = value * _factor(tap.path, place.gate, place.axis, rows, value)
        if place.edit is not None:
            with unwatched():
                read = _edited(tap.path, place.edit, read)
        passed = read.clone() if place.records else read
    for address in place.records:
        record.activations[address] = read
        drop_marks(read)
    if passed is None:
        return None
    passed = passed.flatten(0, 1) if place.folds > 1 else passed
    carry_mark(output, passed)  # of a dropout between heads and their projection, say
    return passed


def _edited(path: str, edit: Edit, output: Tensor) -> Tensor:
    made = edit(output)
    if not isinstance(made, Tensor) or made.shape != output.shape:
        raise LayerError(
            f"the edit of {path!r} gives {kind_of(made)}; it must give a tensor {tuple(output.shape)}, "
            "the shape of the layer's output"
        )
    return made


def _factor(path: str, gate: Tensor, axis: int, rows: Tensor | None, output: Tensor) -> Tensor:
    """Return the gate as a factor of the output: samples on axis 0, units on theirs, 1 elsewhere."""
    size, units = output.shape, gate.shape[-1]
    at = axis if axis >= 0 else len(size) + axis
    if not 0 < at < len(size) or size[at] != units:
        there = size[at] if 0 < at < len(size) else "none"
        raise wrong_size(path, units, f"{there} on axis {axis} of its output {tuple(size)}")
    if not output.is_floating_point():
        raise LayerError(f"layer {path!r} gives {output.dtype}; only floating-point layers can be gated")
    if gate.is_inference() and not torch.is_inference_mode_enabled():
        gate = gate.clone()  # one made in inference mode can take no part in a gradient
    shape = [1] * len(size)
    shape[at] = units
    if gate.ndim == 2 and rows is not None:
        if len(rows) != size[0]:
            raise LayerError(f"rows are for {len(rows)} samples, {path!r} gives {size[0]}; give one a sample")
        shape[0] = len(rows)
        gate = gate[rows.to(gate.device)]
    return gate.to(output).reshape(shape)


def _check_ran(name: str, taps: Sequence[_Tap]) -> None:
    for tap in taps:
        last = max(tap.places)
        if tap.most == 0:
            raise LayerError(
                f"layer {tap.path!r} of {name} never ran in the block; run the model inside it, or choose a "
                "layer that its forward calls (some modules only hold weights that their parent reads): "
                "nk.layers(model, example) lists them"
            )
        if tap.most < last:
            raise LayerError(f"{tap.path}#{last} of {name} never ran; it ended with {tap.path}#{tap.most}")
