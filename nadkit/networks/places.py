"""Where a gate may sit: find the calls of a model's modules, and pick block outputs among them."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from nadkit.errors import LayerError, closest
from nadkit.taps import Layer, parse_address

_NORMS = (
    nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm,
    nn.LocalResponseNorm, nn.RMSNorm,
)  # fmt: skip
_ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Hardswish, nn.Hardtanh, nn.Softplus, nn.Tanh,
)  # fmt: skip
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass
class Call:
    """One run of one module in a forward pass."""

    path: str
    number: int  # counted from 1
    module: nn.Module
    output: object
    feeds_norm: bool = False
    address: str = ""


def record_calls(model: nn.Module, inputs: Tensor) -> tuple[list[Call], object]:
    """Run the model once and return every module call in the order of completion, and the output."""
    calls: list[Call] = []
    times: Counter[str] = Counter()
    into_norms: list[Tensor] = []  # kept alive while identities are compared
    handles = []
    paths: dict[nn.Module, str] = {}
    for path, module in model.named_modules():
        paths.setdefault(module, path)

    def after(module: nn.Module, _args: object, output: object) -> None:
        path = paths[module]
        times[path] += 1
        calls.append(Call(path, times[path], module, output))

    def before(_module: nn.Module, args: tuple[object, ...]) -> None:
        into_norms.extend(a for a in args if isinstance(a, Tensor))

    try:
        for module, path in paths.items():
            if path:
                handles.append(module.register_forward_hook(after))
            if isinstance(module, _NORMS):
                handles.append(module.register_forward_pre_hook(before))
        out = model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    entering = {id(t) for t in into_norms}
    for call in calls:
        call.feeds_norm = id(call.output) in entering
        call.address = call.path if times[call.path] == 1 else f"{call.path}#{call.number}"
    return calls, out


def _layer(call: Call) -> Layer | None:
    out = call.output
    if not isinstance(out, Tensor) or not out.is_floating_point() or out.ndim < 2:
        return None
    # Pictures and vectors have their units on axis 1; (N, tokens, units) on the last.
    axis = 2 if out.ndim == 3 else 1
    return Layer(units=out.shape[axis], axis=axis, feeds_norm=call.feeds_norm)


def _blocks(model: nn.Module) -> set[str]:
    """Return the paths of blocks: modules with children that sit directly in a plain container.

    A plain `nn.Sequential` of blocks is a stage, not a block; a subclass of it is a block.
    """
    modules = dict(model.named_modules())
    return {
        path
        for path, module in modules.items()
        if path
        and type(module) not in _CONTAINERS
        and next(module.children(), None) is not None
        and type(modules[path.rpartition(".")[0]]) in _CONTAINERS
    }


def pick_automatically(model: nn.Module, calls: Sequence[Call]) -> list[Call]:
    """Return the outputs of blocks, and of activations that stand in no chosen block.

    The outermost block wins. A block whose output feeds a normalisation is opened: the activations inside
    it are taken instead. Only outputs with places or tokens (three axes or more) count.
    """
    blocks = _blocks(model)
    usable = [
        c
        for c in calls
        if _layer(c) and isinstance(c.output, Tensor) and c.output.ndim >= 3 and not c.feeds_norm
    ]
    chosen: set[str] = set()
    for path in sorted({c.path for c in usable} & blocks, key=lambda p: p.count(".")):
        if not any(path.startswith(f"{outer}.") for outer in chosen):
            chosen.add(path)
    inside = tuple(f"{path}." for path in chosen)
    picked = [
        c
        for c in usable
        if c.path in chosen or (isinstance(c.module, _ACTIVATIONS) and not c.path.startswith(inside))
    ]
    return picked or [c for c in usable if isinstance(c.module, (nn.modules.conv._ConvNd, nn.Linear))]


def choose_layers(
    model: nn.Module, inputs: Tensor, wanted: str | Sequence[str]
) -> tuple[dict[str, Layer], object]:
    """Return {address: Layer} in forward order for `"auto"`, patterns or addresses, and the model's output.

    Raises
    ------
    LayerError
        A pattern or address fits nothing, or names a call whose output is no tensor of units.
    """
    calls, out = record_calls(model, inputs)
    if wanted == "auto":
        picked = pick_automatically(model, calls)
        if not picked:
            raise LayerError(
                "no block or activation with units was found; name the layers: layers=[addresses]"
            )
        return {c.address: layer for c in picked if (layer := _layer(c))}, out
    addresses = {c.address: c for c in calls}
    names: set[str] = set()
    for pattern in [wanted] if isinstance(wanted, str) else wanted:
        path, number = parse_address(pattern)
        same = pattern if pattern in addresses else path if number == 1 and path in addresses else None
        fitting = [same] if same else fnmatch.filter(addresses, pattern)
        if not fitting:
            repeated = [a for a in addresses if a.startswith(f"{pattern}#")]
            hint = (
                f"it runs {len(repeated)} times: {', '.join(repeated)}"
                if repeated
                else closest(pattern, addresses)
            )
            raise LayerError(f"no layer {pattern!r} ran in {type(model).__name__}; {hint}")
        # A pattern passes over outputs that have no units; an address must have them.
        for address in fitting:
            if _layer(addresses[address]):
                names.add(address)
            elif same:
                kind = type(addresses[address].output).__name__
                raise LayerError(
                    f"layer {address!r} returns {kind}, not a tensor with units; pick a place inside or after it"
                )
    if not names:
        raise LayerError(f"{wanted!r} fits no layer with units in {type(model).__name__}")
    return {a: layer for a, c in addresses.items() if a in names and (layer := _layer(c))}, out
