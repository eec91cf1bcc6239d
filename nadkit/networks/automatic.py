"""The rule of `layers="auto"`: outputs of blocks, and what stands in for them where they cannot be gated."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn

from nadkit.networks.layouts import tensors
from nadkit.networks.norms import LAYERS, NORMS, is_norm
from nadkit.networks.recording import Call
from nadkit.taps import HEADS, Layer
from nadkit.taps.functions import ACTIVATIONS, JOINS

_ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Hardswish, nn.Hardtanh, nn.Softplus, nn.Tanh,
)  # fmt: skip
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def pick_automatically(model: nn.Module, calls: Sequence[Call]) -> dict[str, str]:
    """Return {address: ""} of block outputs in forward order, or the reason of what is picked for a block.

    * A block is a module with children that sits directly in a plain container, or beside others of its class
      or of its name but for numbers (`inception3a`, `inception3b`). The outermost block wins. A plain
      `nn.Sequential` of blocks is a stage, not a block; a subclass of it is a block.
    * A block that gives several tensors goes by the places inside it that give them.
    * A block is opened where its output feeds a normalisation or has no units that can be gated: the
      activations inside it are picked, modules, or else functions, or else its attention heads.
    * Activations that stand in no block are picked too.
    * Outputs with places or tokens (three axes or more) come first; a model that has none gives its
      activations of two axes, and one without activation modules its normalisations, convolutions and linear
      layers.

    No place feeds a normalisation, and none is the model's output or becomes it by shapes, pools,
    activations, copies and scales alone, with as many units as there are classes.

    Examples
    --------
    >>> import torch
    >>> from nadkit.networks.recording import record_calls
    >>> model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 3, 1), nn.ReLU(), nn.Flatten())
    >>> pick_automatically(model, record_calls(model, torch.zeros(1, 1, 1, 1)).calls)
    {'1': ''}

    Parameters
    ----------
    model : the module that ran
    calls : what `record_calls` returned for it
    """
    usable = [c for c in calls if isinstance(c.layer(), Layer) and not c.feeds_norm and not c.answers]
    maps = [c for c in usable if isinstance(c.output, Tensor) and c.output.ndim >= 3]
    picked: dict[str, str] = {}
    chosen, opened = list[str](), dict[str, str]()
    ran = _ran(calls)
    for path in sorted(_blocks(model, calls, ran), key=lambda p: p.count(".")):
        if not _in(path, chosen):
            found = {c.address: "" for c in maps if c.path == path} or _given(path, ran[path], maps)
            picked |= found
            if found:
                chosen.append(path)
            else:
                opened[path] = _why(ran[path][-1])
    outside = [c for c in maps if not _in(c.path, chosen)]
    loose = [c for c in outside if _is_activation(c)]
    for path in reversed(opened):  # the innermost first
        if not any(_in(place, [path]) for place in [*picked, *(c.path for c in loose)]):
            here = [c for c in outside if _in(c.path, [path])]
            loose += [c for c in here if _function(c) in ACTIVATIONS] or [
                c for c in here if _function(c) == HEADS
            ]
    for call in loose:
        block = next((path for path in reversed(opened) if _in(call.path, [path])), None)
        picked[call.address] = f"in place of {block}, which {opened[block]}" if block else ""
    modules = [c for c in usable if c.module]
    kinds: tuple[Iterable[str], ...] = (
        picked,
        [c.address for c in modules if _is_activation(c)],
        [c.address for c in maps if isinstance(c.module, LAYERS + NORMS)],
        [c.address for c in modules if isinstance(c.module, LAYERS)],
    )
    first = set(next((kind for kind in kinds if kind), ()))
    return {c.address: picked.get(c.address, "") for c in calls if c.address in first}


def _in(path: str, blocks: Iterable[str]) -> bool:
    """Return whether a module or a function lies in one of the blocks."""
    return any(path.startswith((f"{block}.", f"{block}:")) for block in blocks)


def _function(call: Call) -> str:
    """Return the function whose output it is, of a module too; "" for none that can be tapped."""
    return call.by if call.module else call.path.rpartition(":")[2]


def _is_activation(call: Call) -> bool:
    """Return whether a module is an activation, torch's own or another that gives what a function gives."""
    alone = call.module is not None and not any(call.module.children())
    return isinstance(call.module, _ACTIVATIONS) or (alone and call.by in ACTIVATIONS)


def _why(call: Call) -> str:
    return "feeds a normalisation" if call.feeds_norm else str(call.layer())


def _ran(calls: Sequence[Call]) -> dict[str, list[Call]]:
    """Return the modules' calls by path, those that give places, tokens or several tensors."""
    ran: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        if (
            call.module
            and not call.answers
            and not (isinstance(call.output, Tensor) and call.output.ndim < 3)
        ):
            ran[call.path].append(call)
    return ran


def _given(block: str, runs: Iterable[Call], maps: Sequence[Call]) -> dict[str, str]:
    """Return the places in a block of several outputs that give these, branch by branch."""
    found: dict[str, str] = {}
    for run in runs:
        for tensor in () if isinstance(run.output, Tensor) else tensors([run.output]):
            places = [c.address for c in maps if c.output is tensor and _in(c.path, [block])]
            found |= dict.fromkeys(places[-1:], f"in place of {block}, which {run.layer()}")
    return found


def _blocks(model: nn.Module, calls: Sequence[Call], ran: Mapping[str, Sequence[Call]]) -> set[str]:
    modules = dict(model.named_modules())
    paths = {module: path for path, module in modules.items()}
    composed = {
        path for path in ran if type(modules[path]) not in _CONTAINERS and any(modules[path].children())
    }
    held = {path for path in composed if type(modules[path.rpartition(".")[0]]) in _CONTAINERS}
    blocks = set(held)
    for path, module in modules.items():  # the outermost first
        if type(module) in _CONTAINERS or path in blocks or _in(path, blocks):
            continue
        beside = [
            child
            for child in (paths[part] for part in module.children())
            if child in composed and _is_whole(modules[child], ran[child], calls, held)
        ]
        classes = Counter(type(modules[child]) for child in beside)
        names = Counter(_alike(child) for child in beside)
        blocks |= {c for c in beside if classes[type(modules[c])] > 1 or names[_alike(c)] > 1}
    return blocks


def _alike(path: str) -> str:
    """Return a path without its numbers and the letters behind them, so that siblings have one name."""
    return re.sub(r"\d+([a-zA-Z](?![a-zA-Z]))?", "#", path)


def _is_whole(module: nn.Module, runs: Sequence[Call], calls: Sequence[Call], held: set[str]) -> bool:
    """Return whether a module is a block by itself, no layer with its normalisation and no stage of blocks.

    It has an activation or a join in it. Its output is not that of a block inside it, or of its only
    activation, as it is or moved: then that one is picked.
    """
    if isinstance(module, LAYERS + _ACTIVATIONS) or is_norm(module):
        return False
    path, behind = runs[-1].path, runs[-1].behind
    within = [c for c in calls if _in(c.path, [path])]
    if any(c.path in held and c.name in behind for c in within):
        return False
    activations = [c for c in within if _is_activation(c)]
    if len(activations) == 1 and activations[0].name in behind:
        return False
    return bool(activations) or any(_function(c) in (*ACTIVATIONS, *JOINS) for c in [*within, runs[-1]])
