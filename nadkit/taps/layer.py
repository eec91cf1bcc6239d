"""What a tapped place is: its address, its units, and the module it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn

from nadkit.errors import LayerError


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
        Number of channels, heads or neurons, at least 1.
    axis
        Axis of the units: 1 for maps (N, U, H, W), -1 for tokens (N, T, U), 2 for attention heads
        (N, T, U, values of a head); never 0, the samples'.
    feeds_norm
        True if a normalisation reads the output, so that a gate of 0 does not mean absence.
    folds
        How many rows of the output's axis 0 are one sample's, such as the windows of a picture. Where it is
        not 1, records have them on axis 1, between the samples and the rest; `axis` counts that.
    places
        False if the two other axes of a record of four are not rows and columns, but windows and the
        positions in one, say.
    """

    units: int
    axis: int
    feeds_norm: bool = False
    folds: int = field(default=1, repr=False)
    places: bool = field(default=True, repr=False, compare=False)


class Tappable(Protocol):
    """Anything with a model and its layers by address, in forward order, such as a `Network`."""

    @property
    def model(self) -> nn.Module: ...  # noqa: D102
    @property
    def layers(self) -> Mapping[str, Layer]: ...  # noqa: D102


def parse_address(address: str) -> tuple[str, int | None]:
    """Return the module path of an address and its call number, None if it names no call.

    Examples
    --------
    >>> parse_address("layer1.0.relu#2"), parse_address("layer3.1")
    (('layer1.0.relu', 2), ('layer3.1', None))

    Parameters
    ----------
    address
        `path` or `path#call`, where the path is a module's, or `module:function`; the calls within one
        forward count from 1.

    Returns
    -------
    tuple
        The path (with its function, if it has one), and the call number or None.

    Raises
    ------
    LayerError
        Not text, no path (the whole model is not a layer), or a call that is no whole number from 1.
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


def maps_of(activation: Tensor, layer: Layer) -> Tensor | None:
    """Return a layer's maps, None if it has no rows and columns to tell places by.

    Examples
    --------
    >>> import torch
    >>> maps_of(torch.zeros(2, 7, 7, 3), Layer(units=3, axis=-1)).shape
    torch.Size([2, 3, 7, 7])
    >>> maps_of(torch.zeros(2, 5, 3), Layer(units=3, axis=-1)) is None
    True

    Parameters
    ----------
    activation
        What the layer gave, samples on axis 0.
    layer
        Says where the units lie.

    Returns
    -------
    Tensor or None
        (n, n_units, h, w), of at least two rows and two columns.
    """
    # Axis 2 is that of heads, which have tokens and values.
    if activation.ndim != 4 or not layer.places or layer.axis not in (1, 3, -1):
        return None
    maps = activation.movedim(layer.axis, 1)
    return maps if min(maps.shape[2:]) >= 2 else None


def model_and_layers(target: nn.Module | Tappable) -> tuple[nn.Module, Mapping[str, Layer]]:
    """Return the module of a network or a module itself, with the layers that are known of it."""
    if isinstance(target, nn.Module):
        return target, {}
    model, layers = getattr(target, "model", None), getattr(target, "layers", None)
    if not isinstance(model, nn.Module) or not isinstance(layers, Mapping):
        raise LayerError(f"cannot tap {kind_of(target)}; give a network or a torch.nn.Module")
    return model, layers


def kind_of(value: object) -> str:
    """Return what a value is, for an error: type, shape and device of a tensor, the type of anything else."""
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    return f"{value.dtype} {tuple(value.shape)} on {value.device}"
