"""Where a gate may sit: find the calls of a model's modules, and pick block outputs among them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nadkit.errors import LayerError, closest
from nadkit.taps import Layer, parse_address

_NORMS = (
    nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm,
    nn.LocalResponseNorm, nn.RMSNorm,
)  # fmt: skip
# Normalisations of other libraries, such as `FrozenBatchNorm2d`; not `ConvNormAct`, which ends otherwise.
_NORM_NAMES = re.compile(r"(batch|layer|group|instance|rms|response)_?norm(\d?d)?$", re.IGNORECASE)
_ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Hardswish, nn.Hardtanh, nn.Softplus, nn.Tanh,
)  # fmt: skip
_WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)

_NORM_FUNCTIONS = {
    "batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "local_response_norm", "normalize",
}  # fmt: skip
# What leaves a unit that is 0 at 0, or only moves it: a normalisation behind these still reads the place.
_CARRIERS = {
    "cat", "concat", "concatenate", "stack", "hstack", "chunk", "split", "narrow", "__getitem__",
    "view", "reshape", "flatten", "unflatten", "permute", "transpose", "swapaxes", "movedim", "squeeze",
    "unsqueeze", "expand", "contiguous", "clone", "to", "float", "roll", "pad", "interpolate",
    "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "mean",
    "adaptive_max_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
    "dropout", "dropout2d", "relu", "relu_", "relu6", "leaky_relu", "elu", "gelu", "silu", "mish",
}  # fmt: skip


@dataclass
class Call:
    """One run of one module in a forward pass."""

    path: str
    number: int  # counted from 1
    module: nn.Module
    output: object
    feeds_norm: bool = False
    address: str = ""


class _NormReaders(TorchFunctionMode):
    """Note which tensors a normalisation reads, as they are or joined, moved, pooled or activated first."""

    def __init__(self) -> None:
        self.read: set[int] = set()
        self._made_from: dict[int, list[int]] = {}
        self._alive: list[Tensor] = []  # identities are compared, so none may be used anew

    def __torch_function__(
        self, func: Callable[..., object], types: object, args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:  # fmt: skip
        out = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name in _NORM_FUNCTIONS:
            self.reads([*args, *(kwargs or {}).values()][:1])
        elif name in _CARRIERS:
            sources = list(_tensors([*args, *(kwargs or {}).values()]))
            for made in _tensors([out]):
                self._alive += [made, *sources]
                self._made_from.setdefault(id(made), []).extend(id(s) for s in sources if s is not made)
        return out

    def reads(self, values: Iterable[object]) -> None:
        """Note that a normalisation takes these."""
        for tensor in _tensors(values):
            self._alive.append(tensor)
            self.read.add(id(tensor))

    def close(self) -> None:
        """Go back from what was read to all that it was made from."""
        ahead = list(self.read)
        while ahead:
            for source in self._made_from.get(ahead.pop(), ()):
                if source not in self.read:
                    self.read.add(source)
                    ahead.append(source)


def _tensors(values: Iterable[object]) -> Iterable[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors(value)


def record_calls(model: nn.Module, inputs: Tensor) -> tuple[list[Call], object]:
    """Return every module call of one forward pass in the order of completion, and the model's output.

    A module that has several names goes by the first. No hook is left, whatever ends the pass.

    Examples
    --------
    >>> import torch
    >>> calls, _ = record_calls(nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)), torch.ones(1, 2))
    >>> [(call.address, call.feeds_norm) for call in calls]
    [('0', True), ('1', False)]

    Parameters
    ----------
    model : the module, in the mode in which it shall run
    inputs : what it takes
    """
    calls: list[Call] = []
    times: Counter[str] = Counter()
    readers = _NormReaders()
    handles = []
    paths = {module: path for path, module in model.named_modules()}

    def after(module: nn.Module, _args: object, output: object) -> None:
        path = paths[module]
        times[path] += 1
        calls.append(Call(path, times[path], module, output))

    def before(_module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        readers.reads([*args, *kwargs.values()])

    try:
        for module, path in paths.items():
            if path:
                handles.append(module.register_forward_hook(after))
            if isinstance(module, _NORMS) or _NORM_NAMES.search(type(module).__name__):
                handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        with readers:
            out = model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    readers.close()
    for call in calls:
        call.feeds_norm = id(call.output) in readers.read
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


def pick_automatically(model: nn.Module, calls: Sequence[Call], out: object) -> list[Call]:
    """Return the outputs of blocks, and of activations that stand in no chosen block.

    The outermost block wins. A block whose output feeds a normalisation is opened: the activations inside
    it are taken instead. Outputs with places or tokens (three axes or more) come first; a model that has
    none gives its activations of two axes, and one without activation modules its normalisations,
    convolutions and linear layers. No place feeds a normalisation, and none is the model's output.

    Parameters
    ----------
    model : the module that ran
    calls : what `record_calls` returned for it
    out : its output
    """
    blocks = _blocks(model)
    usable = [c for c in calls if _layer(c) and not c.feeds_norm and c.output is not out]
    maps = [c for c in usable if isinstance(c.output, Tensor) and c.output.ndim >= 3]
    chosen: set[str] = set()
    for path in sorted({c.path for c in maps} & blocks, key=lambda p: p.count(".")):
        if not any(path.startswith(f"{outer}.") for outer in chosen):
            chosen.add(path)
    inside = tuple(f"{path}." for path in chosen)
    return (
        [
            c
            for c in maps
            if c.path in chosen or (isinstance(c.module, _ACTIVATIONS) and not c.path.startswith(inside))
        ]
        or [c for c in usable if isinstance(c.module, _ACTIVATIONS)]
        or [c for c in maps if isinstance(c.module, _WEIGHTED + _NORMS)]
        or [c for c in usable if isinstance(c.module, _WEIGHTED)]
    )


def choose_layers(
    model: nn.Module, inputs: Tensor, wanted: str | Sequence[str]
) -> tuple[dict[str, Layer], object]:
    """Return {address: Layer} in forward order, and the model's output on the inputs.

    Examples
    --------
    >>> import torch
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> choose_layers(model, torch.ones(1, 2), "auto")[0]
    {'1': Layer(units=3, axis=1, feeds_norm=False)}

    Parameters
    ----------
    model : the module, in the mode in which it shall run
    inputs : what it takes
    wanted : `"auto"`, a pattern, or a list of addresses and patterns. In a pattern `*` stands for any part
        of one name, `**` goes over dots, `?` is one sign and `[12]` one of these; without a call number it
        fits all calls

    Raises
    ------
    LayerError
        A pattern or address fits nothing, names a module that did not run or that ran more than once, or a
        call whose output is no tensor of units.
    """
    calls, out = record_calls(model, inputs)
    if isinstance(wanted, str) and wanted == "auto":
        picked = pick_automatically(model, calls, out)
        if not picked:
            raise LayerError(
                f"no block, activation or hidden layer with units was found in {type(model).__name__}; "
                "name the layers: layers=[addresses]"
            )
        return {c.address: layer for c in picked if (layer := _layer(c))}, out
    if not isinstance(wanted, Iterable):
        raise LayerError(f"layers are {wanted!r}; give 'auto', a pattern, or a list of addresses")
    by_address = {c.address: c for c in calls}
    names: set[str] = set()
    for asked in [wanted] if isinstance(wanted, str) else wanted:
        if isinstance(asked, str) and set(asked) & set("*?["):
            names.update(_fitting(model, by_address, asked))
        else:
            names.add(_named(model, by_address, asked))
    if not names:
        raise LayerError(f"no layers were named for {type(model).__name__}; give addresses, or layers='auto'")
    return {a: layer for a, c in by_address.items() if a in names and (layer := _layer(c))}, out


def _fitting(model: nn.Module, by_address: Mapping[str, Call], pattern: str) -> list[str]:
    try:
        fit = re.compile("".join(map(_regex, re.split(r"(\*\*|\*|\?|\[[^\]]+\])", pattern))))
    except re.error as error:
        raise LayerError(f"{pattern!r} is no pattern of layers: {error}") from None
    # A pattern passes over outputs that have no units; an address must have them.
    fitting = [a for a, c in by_address.items() if (fit.fullmatch(a) or fit.fullmatch(c.path)) and _layer(c)]
    if not fitting:
        raise LayerError(
            f"{pattern!r} fits no layer with units that ran in {type(model).__name__}; '*' stays within one "
            f"name, '**' goes over dots; {closest(pattern, by_address)}"
        )
    return fitting


def _regex(part: str) -> str:
    if part.startswith("[") and len(part) > 1:
        return f"[^{part[2:]}" if part[1] == "!" else part
    return {"**": ".*", "*": "[^.]*", "?": "[^.]"}.get(part, re.escape(part))


def _named(model: nn.Module, by_address: Mapping[str, Call], asked: str) -> str:
    path, number = parse_address(asked)
    known = {p: m for p, m in model.named_modules(remove_duplicate=False) if p}
    if path in known:  # a second name of a module stands for its first
        path = next(first for first, module in model.named_modules() if module is known[path])
    address = path if number is None or (number == 1 and path in by_address) else f"{path}#{number}"
    if address in by_address:
        if _layer(by_address[address]) is None:
            kind = _kind(by_address[address].output)
            raise LayerError(
                f"layer {asked!r} returns {kind}, not a tensor with units; pick a place inside or after it"
            )
        return address
    name = type(model).__name__
    repeated = [a for a in by_address if a.startswith(f"{path}#")]
    if repeated:
        raise LayerError(
            f"layer {asked!r} ran {len(repeated)} times in {name}; say which call: {', '.join(repeated)}"
        )
    if path in by_address:
        raise LayerError(f"no layer {asked!r} in {name}: {path!r} ran once; use {path!r}")
    if path in known:
        raise LayerError(
            f"layer {asked!r} did not run in {name} on the example; choose a layer that its forward calls, "
            "such as one inside it"
        )
    raise LayerError(f"no layer {asked!r} in {name}; {closest(asked, by_address)}")


def _kind(output: object) -> str:
    if not isinstance(output, Tensor):
        return f"a {type(output).__name__}"
    return f"{output.dtype} {tuple(output.shape)}"
