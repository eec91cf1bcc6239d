"""Where a gate may sit: choose places by rule, by what was published, or by what was asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from torch import Tensor, nn

from nadkit.errors import LayerError, closest
from nadkit.networks.automatic import pick_automatically
from nadkit.networks.published import pick_published
from nadkit.networks.recording import Call, Recording, record_calls
from nadkit.taps import Layer, parse_address, split_function

Choice = str | nn.Module | type[nn.Module] | Callable[[str, nn.Module | None], bool]
"""An address, a pattern, `"auto"`, `"paper"`, a module, a type, or a function of address and module."""

Wanted = Choice | Sequence[Choice] | Mapping[str, int]


def choose_layers(model: nn.Module, inputs: Tensor, wanted: Wanted) -> tuple[dict[str, Layer], object]:
    """Return {address: Layer} in forward order, and the model's output on the inputs.

    Examples
    --------
    >>> import torch
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> choose_layers(model, torch.ones(1, 2), "auto")[0]
    {'1': Layer(units=3, axis=1, feeds_norm=False)}
    >>> list(choose_layers(model, torch.ones(1, 2), [nn.ReLU, lambda name, module: name == "0"])[0])
    ['0', '1']

    Parameters
    ----------
    model : the module, in the mode in which it shall run
    inputs : what it takes
    wanted : `"auto"`, `"paper"`, a pattern, a module, a type of modules, a function of an address and its
        module (None for a function's place), or a list of these and of addresses; or addresses → the axis of
        their units. In a pattern `*` stands for any part of one name, `**` goes over dots, `?` is one sign
        and `[12]` one of these; without a call number it fits all calls, and functions only where it has
        their colon

    Raises
    ------
    LayerError
        What is wanted fits nothing, names a module that did not run or that ran more than once, or a call
        whose output is no tensor of units.
    """
    recording = record_calls(model, inputs)
    return choose_among(model, recording, wanted), recording.out


def choose_among(model: nn.Module, recording: Recording, wanted: Wanted) -> dict[str, Layer]:
    """Return {address: Layer} of what is wanted of a recorded model, as `choose_layers` does."""
    if not isinstance(wanted, Iterable) and not callable(wanted):
        raise LayerError(f"layers are {wanted!r}; give 'auto', 'paper', a pattern, or a list of addresses")
    axes: dict[object, int] = dict(wanted.items()) if isinstance(wanted, Mapping) else {}
    by_address = {c.address: c for c in recording.calls}
    names: dict[str, int | None] = {}
    for asked in [wanted] if isinstance(wanted, str) or callable(wanted) else wanted:
        if isinstance(asked, str) and asked == "auto":
            picked = list(pick_automatically(model, recording.calls))
            if not picked:
                raise LayerError(
                    f"no block, activation or hidden layer with units was found in {type(model).__name__} "
                    "(places whose units are the classes aside); name the layers: layers=[addresses]"
                )
        elif isinstance(asked, str) and asked == "paper":
            picked = pick_published(model, recording.calls)
        elif isinstance(asked, str) and set(asked) & set("*?[") and asked not in by_address:
            picked = _fitting(model, by_address, asked)
        elif isinstance(asked, nn.Module):
            picked = _told(model, by_address, partial(_is, asked))
        elif callable(asked):
            picked = _told(model, by_address, asked)
        elif not isinstance(asked, str):
            raise LayerError(
                f"{asked!r} names no layers; give addresses, patterns, modules, types of modules or functions"
            )
        else:
            picked = [_named(model, recording, by_address, asked, axes.get(asked))]
        names.update((address, axes.get(asked)) for address in picked)
    if not names:
        raise LayerError(f"no layers were named for {type(model).__name__}; give addresses, or layers='auto'")
    found: dict[str, Layer] = {}
    for address, call in by_address.items():
        if address in names:
            layer = call.layer(names[address])
            if not isinstance(layer, Layer):  # of a pattern with an axis that one of its places has not
                raise LayerError(f"layer {address!r} {layer}; pick a place inside or after it")
            found[address] = layer
    return found


def _is(wanted: nn.Module, _address: str, module: nn.Module | None) -> bool:
    return module is wanted


def _told(model: nn.Module, by_address: Mapping[str, Call], asked: Choice) -> list[str]:
    """Return the addresses of what a type or a function chooses among places with units."""
    usable = {a: c for a, c in by_address.items() if isinstance(c.layer(), Layer)}
    if isinstance(asked, type):
        found, what = [a for a, c in usable.items() if isinstance(c.module, asked)], asked.__name__
    else:
        assert callable(asked)
        found, what = [a for a, c in usable.items() if asked(a, c.module)], "the function given"
    if not found:
        raise LayerError(
            f"{what} fits no layer with units that ran in {type(model).__name__}; "
            "nk.layers(model, example) lists them"
        )
    return found


def _fitting(model: nn.Module, by_address: Mapping[str, Call], pattern: str) -> list[str]:
    try:
        fit = re.compile("".join(map(_regex, re.split(r"(\*\*|\*|\?|\[[^\]]+\])", pattern))))
    except re.error as error:
        raise LayerError(f"{pattern!r} is no pattern of layers: {error}") from None
    # A pattern passes over outputs that have no units; an address must have them.
    fitting = [
        a
        for a, c in by_address.items()
        if (fit.fullmatch(a) or fit.fullmatch(c.path)) and isinstance(c.layer(), Layer)
    ]
    if not fitting:
        raise LayerError(
            f"{pattern!r} fits no layer with units that ran in {type(model).__name__}; '*' stays within one "
            f"name, '**' goes over dots; {closest(pattern, by_address)}"
        )
    return fitting


def _regex(part: str) -> str:
    if part.startswith("[") and len(part) > 1:
        return f"[^{part[2:]}" if part[1] == "!" else part
    return {"**": "[^:]*", "*": "[^.:]*", "?": "[^.:]"}.get(part, re.escape(part))


def _named(
    model: nn.Module, recording: Recording, by_address: Mapping[str, Call], asked: str, axis: int | None
) -> str:
    path, number = parse_address(asked)
    owner, function = split_function(path)
    known = dict(model.named_modules(remove_duplicate=False))
    if owner in known:  # a second name of a module stands for its first
        owner = next(first for first, module in model.named_modules() if module is known[owner])
        path = owner if function is None else f"{owner}:{function}"
    address = path if number is None or (number == 1 and path in by_address) else f"{path}#{number}"
    if address in by_address:
        layer = by_address[address].layer(axis)
        if isinstance(layer, str):
            raise LayerError(f"layer {asked!r} {layer}; pick a place inside or after it")
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
            f"such as one inside it ({recording.dead.get(path, 'it has no forward of its own')})"
        )
    raise LayerError(f"no layer {asked!r} in {name}; {closest(asked, by_address)}")
