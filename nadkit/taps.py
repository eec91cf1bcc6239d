"""Find, read and gate layers of any `torch.nn.Module`, then leave no trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

import torch
from torch import Tensor, nn

from nadkit.errors import LayerError, closest


@dataclass(frozen=True)
class Layer:
    """What a tapped place gives: how many units, on which axis, and whether a normalisation reads it.

    Examples
    --------
    >>> Layer(units=64, axis=1)
    Layer(units=64, axis=1, feeds_norm=False)

    Parameters
    ----------
    units
        Number of units (channels, heads, neurons), at least 1.
    axis
        Axis of the units in the layer's output: 1 for feature maps (N, U, H, W), -1 for tokens (N, T, U).
    feeds_norm
        True if the output goes into a normalisation, where a gate of 0 does not mean absence.
    """

    units: int
    axis: int
    feeds_norm: bool = False


class Tappable(Protocol):
    """Anything with a model and its named layers, such as a `Network`."""

    @property
    def model(self) -> nn.Module:
        """The module that is run."""

    @property
    def layers(self) -> Mapping[str, Layer]:
        """Layers by address, in forward order."""


def parse_address(address: str) -> tuple[str, int | None]:
    """Return the module path of an address and its call number, None if it names no call.

    Examples
    --------
    >>> parse_address("layer1.0.relu#2")
    ('layer1.0.relu', 2)
    >>> parse_address("layer3.1")
    ('layer3.1', None)

    Parameters
    ----------
    address
        `path` or `path#call`; calls of a module within one forward count from 1.

    Returns
    -------
    tuple
        The path and the call number or None.

    Raises
    ------
    LayerError
        The address is no text, has no path (the whole model is not a layer), or its call is no whole number from 1.
    """
    if not isinstance(address, str):
        raise LayerError(f"an address is text such as 'layer1.0' or 'layer1.0.relu#2', got {address!r}")
    path, mark, call = address.partition("#")
    if not path:
        raise LayerError(f"address {address!r} names the whole model; name a module inside it")
    if not mark:
        return path, None
    if not (call.isascii() and call.isdigit() and int(call) > 0):
        raise LayerError(f"address {address!r} has call {call!r}; calls are counted 1, 2, …: {path}#1")
    return path, int(call)


@contextmanager
def frozen(target: nn.Module | Tappable) -> Iterator[None]:
    """Put every module in evaluation mode and stop every parameter's gradient, for the block only.

    Examples
    --------
    >>> model = nn.Linear(2, 2)
    >>> with frozen(model):
    ...     model.training, model.weight.requires_grad
    (False, False)
    >>> model.training, model.weight.requires_grad
    (True, True)

    Parameters
    ----------
    target
        A network or a module. Each module's own mode and each parameter's own flag come back
        afterwards, whatever ends the block.

    Raises
    ------
    LayerError
        The target is neither a module nor has one.
    """
    model, _ = _model_and_layers(target)
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        # Flags are set one by one: `.eval()` and `.train()` may be overridden with side effects, and
        # `.train(mode)` flattens modes that differ between submodules.
        for module, _ in modes:
            module.training = False
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


class Taps:
    """Read and gate layers of a model while the block is open; the model is never changed.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(inplace=True))
    >>> with Taps(model, ["0"], gates={"0": torch.tensor([1.0, 0.0, 1.0])}) as taps:
    ...     answer = model(torch.ones(5, 2))
    >>> taps.activations["0"].shape, answer[:, 1].abs().max().item()
    (torch.Size([5, 3]), 0.0)

    Parameters
    ----------
    target
        A network, or any module. Samples lie on axis 0 of what its layers give, units on `Layer.axis`
        of a network's layers, else on axis 1.
    layers
        Addresses to record (`layer1.0`, or `layer1.0.relu#2` for the second call of that module in one
        forward of the model). None records all layers of a network, of a module the gated ones;
        `()` records nothing.
    gates
        `{address: (U,)}` or `{address: (T, U)}`, finite; 1 keeps, 0 removes. A gate follows the device
        and dtype of the layer, and gradients flow back to it.
    rows
        (N,) int64: sample n is gated by row `rows[n]` of every (T, U) gate. Every forward in the block
        must then have N samples.

    Notes
    -----
    A recorded tensor is the layer's output after the gate. It is a copy that no in-place operation of the
    model can change, and where gradients are on it lies on the way from the input to the answer, so that
    `torch.autograd.grad` finds it. Blocks can be nested on one model: gates multiply, and a block
    records what its own gate and those of the blocks around it leave. One forward at a time: threads that run
    the same model in one block mix their calls.

    Raises
    ------
    LayerError
        An address that is not there (closest names given); a gate of the wrong shape or with NaN; rows that do
        not fit; in a forward, a bare address of a module that runs more than once, an output that is no
        tensor, or a batch or layer of another size than rows or gate; at the end of a block that raised
        nothing itself, a layer that never ran; opening the same object twice.
    """

    def __init__(
        self,
        target: nn.Module | Tappable,
        layers: str | Sequence[str] | None = None,
        *,
        gates: Mapping[str, Tensor] | None = None,
        rows: Tensor | None = None,
    ) -> None:
        model, known = _model_and_layers(target)
        gates = dict(gates or {})
        if layers is None:
            layers = list(known or gates)
            if not layers:
                raise LayerError(f"{type(model).__name__} comes without named layers; say layers= or gates=")
        elif isinstance(layers, str):
            layers = [layers]
        _check_rows(rows, gates)
        self._taps: dict[nn.Module, _Tap] = {}
        for address in layers:
            self._place(model, known, address).records.append(address)
        for address, gate in gates.items():
            place = self._place(model, known, address)
            layer = _known(known, address)
            _check_gate(address, gate, layer, rows)
            if place.gate is not None:
                raise LayerError(f"two gates for one place, the second by {address!r}; multiply them into one")
            place.gate, place.axis, place.address = gate, layer.axis if layer else 1, address
        self._model: nn.Module | None = model
        self._rows = rows
        self._run = _Run()
        self._open: ExitStack | None = None

    def _place(self, model: nn.Module, known: Mapping[str, Layer], address: str) -> _Place:
        path, call = parse_address(address)
        try:
            module = model.get_submodule(path)
        except AttributeError:
            paths = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
            names = dict.fromkeys([*(parse_address(layer)[0] for layer in known), *paths])
            raise LayerError(f"no layer {address!r} in {type(model).__name__}; {closest(path, names)}") from None
        tap = self._taps.setdefault(module, _Tap(path))
        if call is None:
            tap.bare = address
        return tap.places.setdefault(call or 1, _Place())

    @property
    def activations(self) -> dict[str, Tensor]:
        """Recorded tensors by address, of the last forward; every forward starts a new dictionary."""
        return self._run.activations

    def __enter__(self) -> Taps:
        model = self._model
        if model is None or self._open is not None:
            raise LayerError("these taps were opened before; build a new Taps(...) for every block")
        # An interrupt halfway through opening or closing still undoes all the rest: ExitStack goes on.
        with ExitStack() as stack:
            stack.callback(model.register_forward_pre_hook(self._run.restart).remove)
            for module, tap in self._taps.items():
                hook = _make_hook(tap, self._run, self._rows)
                stack.callback(module.register_forward_hook(hook).remove)
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open is None or self._model is None:
            return
        name = type(self._model).__name__
        taps = list(self._taps.values())
        try:
            self._open.close()
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
    address: str = ""


@dataclass(eq=False)
class _Tap:
    """The tapped calls of one module. It knows the path, not the module, so that it keeps nothing alive."""

    path: str
    places: dict[int, _Place] = field(default_factory=dict)
    bare: str | None = None
    calls: int = 0
    most: int = 0


class _Run:
    """What hooks write to; the hooks hold this and never the `Taps`."""

    def __init__(self) -> None:
        self.forwards = 0
        self.calls: dict[_Tap, int] = {}
        self.activations: dict[str, Tensor] = {}

    def restart(self, module: nn.Module, args: object) -> None:  # noqa: ARG002 (the signature is torch's)
        self.forwards += 1
        self.calls = {}
        self.activations = {}


def _make_hook(tap: _Tap, run: _Run, rows: Tensor | None) -> Callable[[nn.Module, object, object], Tensor | None]:
    def hook(module: nn.Module, args: object, output: object) -> Tensor | None:  # noqa: ARG001 (torch's)
        call = run.calls[tap] = run.calls.get(tap, 0) + 1
        tap.most = max(tap.most, call)
        if call > 1 and tap.bare is not None:
            raise LayerError(
                f"{tap.bare!r} runs more than once in a forward; say which call: {tap.path}#1, {tap.path}#2, … "
                "(calls are counted anew when the model itself is called, not a part of it or `.forward`)"
            )
        place = tap.places.get(call)
        if place is None:
            return None
        if not isinstance(output, Tensor):
            raise LayerError(
                f"layer {tap.path!r} gives a {type(output).__name__}, not one tensor; "
                "tap a module inside it or after it that gives a tensor"
            )
        if place.gate is None:
            # A copy for the record and, where gradients are on, another for the model: the record then
            # lies on the way to the answer, and no in-place operation reaches it.
            record = output.clone()
            passed = record.clone() if record.requires_grad else None
        else:
            record = output * _shaped(place, output, rows)
            passed = record.clone() if place.records else record
        for address in place.records:
            run.activations[address] = record
        return passed

    return hook


def _shaped(place: _Place, output: Tensor, rows: Tensor | None) -> Tensor:
    """Return the gate as a factor for this output: rows on axis 0, units on the unit axis, 1 elsewhere."""
    gate = place.gate
    assert gate is not None  # noqa: S101 (the caller asked)
    axis = place.axis if place.axis >= 0 else output.ndim + place.axis
    units = gate.shape[-1]
    if not 0 < axis < output.ndim or output.shape[axis] != units:
        raise LayerError(
            f"the gate of {place.address!r} has {units} units, the layer gives {tuple(output.shape)} "
            f"with units on axis {place.axis}; give one value per unit"
        )
    if not output.is_floating_point():
        raise LayerError(f"layer {place.address!r} gives {output.dtype}, which a gate cannot scale")
    shape = [1] * output.ndim
    shape[axis] = units
    if gate.ndim == 2 and rows is not None:
        if len(rows) != output.shape[0]:
            raise LayerError(
                f"rows name a task for {len(rows)} samples, layer {place.address!r} gives {output.shape[0]}; "
                "give one row per sample of the batch"
            )
        shape[0] = len(rows)
        gate = gate[rows.to(gate.device)]
    return gate.to(output).reshape(shape)


def _model_and_layers(target: nn.Module | Tappable) -> tuple[nn.Module, Mapping[str, Layer]]:
    if isinstance(target, nn.Module):
        return target, {}
    model, layers = getattr(target, "model", None), getattr(target, "layers", None)
    if not isinstance(model, nn.Module) or not isinstance(layers, Mapping):
        raise LayerError(f"cannot tap {type(target).__name__}; give a network or a torch.nn.Module")
    return model, layers


def _known(known: Mapping[str, Layer], address: str) -> Layer | None:
    """Return what a network says of a layer; a module that runs once is `path` and `path#1`."""
    path, call = parse_address(address)
    other = path if call == 1 else f"{path}#1" if call is None else address
    return known.get(address) or known.get(other)


def _check_rows(rows: Tensor | None, gates: Mapping[str, Tensor]) -> None:
    if rows is None:
        return
    if not gates:
        raise LayerError("rows choose among the rows of gates, and there are no gates; give gates=")
    if not isinstance(rows, Tensor):
        raise LayerError(f"rows are an int64 tensor (N,), got {type(rows).__name__}; wrap them in torch.tensor")
    if rows.dtype != torch.int64 or rows.ndim != 1:
        raise LayerError(f"rows are an int64 tensor (N,), got {rows.dtype} {tuple(rows.shape)}")


def _check_gate(address: str, gate: Tensor, layer: Layer | None, rows: Tensor | None) -> None:
    if not isinstance(gate, Tensor) or gate.ndim not in (1, 2) or gate.is_complex():
        got = f"{gate.dtype} {tuple(gate.shape)}" if isinstance(gate, Tensor) else type(gate).__name__
        raise LayerError(f"the gate of {address!r} is {got}; give a real tensor (units,) or (tasks, units)")
    if layer is not None and gate.shape[-1] != layer.units:
        raise LayerError(
            f"the gate of {address!r} has {gate.shape[-1]} units, the layer has {layer.units}; give one value per unit"
        )
    if not bool(torch.isfinite(gate.detach()).all()):
        raise LayerError(f"the gate of {address!r} has NaN or infinite values; give finite ones, 1 keeps, 0 removes")
    if gate.ndim == 1:
        return
    if rows is None:
        raise LayerError(f"the gate of {address!r} has {len(gate)} rows; say with rows= which one each sample takes")
    if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(gate):
        raise LayerError(
            f"rows run from {int(rows.min())} to {int(rows.max())}, the gate of {address!r} has rows 0 to {len(gate) - 1}"
        )


def _check_ran(name: str, taps: Sequence[_Tap]) -> None:
    for tap in taps:
        for call in tap.places:
            if tap.most >= call:
                continue
            if tap.most:
                raise LayerError(
                    f"{tap.path}#{call} never ran: {tap.path!r} runs {tap.most} times in a forward of {name}; "
                    f"the last call is {tap.path}#{tap.most}"
                )
            raise LayerError(
                f"layer {tap.path!r} of {name} never ran inside the block: call the model inside it, or choose a "
                "layer that its forward calls (some modules only hold weights that their parent uses)"
            )
