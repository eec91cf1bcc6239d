"""`Network`: a model with its tapped layers and class names; `Network.wrap` makes one of any module."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nadkit.errors import ImageError, NadkitError, closest
from nadkit.images import LazyPixels
from nadkit.networks.checks import check_logits, check_names, check_whole
from nadkit.networks.places import Wanted, choose_among
from nadkit.networks.recording import record_calls
from nadkit.networks.unchanged import unchanged
from nadkit.taps import Layer, evaluating, frozen


class Standardise:
    """Turn pictures into a network's input: uint8 or [0, 1] pixels → float32 of mean 0 and spread 1.

    Examples
    --------
    >>> Standardise((0.5,), (0.25,))(torch.full((1, 1, 2, 2), 255, dtype=torch.uint8)).mean()
    tensor(2.)

    Parameters
    ----------
    mean : one a channel, in [0, 1]
    std : one a channel, above 0

    Raises
    ------
    ImageError
        When called: float pixels lie outside [0, 1], as those of a picture read as 0-255 floats do.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        self.mean, self.std = tuple(mean), tuple(std)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return (N, C, H, W) float32 in channels-last memory, the format these networks run fastest in."""
        if pixels.dtype == torch.uint8:
            pixels = pixels.float() / 255
        elif pixels.numel() and (pixels.min() < 0 or pixels.max() > 1):
            raise ImageError(
                f"float pixels must lie in [0, 1], these reach from {pixels.min():.3g} to "
                f"{pixels.max():.3g}; divide 0-255 values by 255, or pass uint8"
            )
        mean, std = (
            torch.tensor(v, dtype=torch.float32, device=pixels.device)[:, None, None]
            for v in (self.mean, self.std)
        )
        return ((pixels.float() - mean) / std).contiguous(memory_format=torch.channels_last)

    def __repr__(self) -> str:
        """Show the two constants."""
        return f"Standardise(mean={self.mean}, std={self.std})"


def _as_float(pixels: Tensor) -> Tensor:
    """Turn uint8 pixels into [0, 1]; leave floats as they are (a wrapped network's default)."""
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels


def hash_weights(tensors: Mapping[str, Tensor]) -> str:
    """Return 16 hex digits that name these weights: SHA-256 over names, types, shapes and bytes.

    The order of the names, the device and the memory format do not matter. Left out are counters of training
    steps (`num_batches_tracked`), which no output depends on, and whatever in a state dict is no tensor.

    Examples
    --------
    >>> hash_weights({"w": torch.zeros(2)}) == hash_weights({"w": torch.ones(2)})
    False

    Parameters
    ----------
    tensors : name → tensor, such as `model.state_dict()`
    """
    digest = hashlib.sha256()
    for key in sorted(tensors):
        if key.endswith("num_batches_tracked") or not isinstance(tensors[key], Tensor):
            continue
        value = tensors[key].detach().cpu().resolve_conj().resolve_neg().contiguous()
        digest.update(f"{key}|{value.dtype}|{tuple(value.shape)}|".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return digest.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Network:
    """A model with its tapped layers, class names and the way pictures enter it.

    Attributes
    ----------
    name : such as `"resnet-fashion"`
    model : the `nn.Module`; nothing in it is changed
    layers : address → `Layer(units, axis, feeds_norm)`, in forward order
    class_names : one name per logit
    weights_id : 16 hex digits that name the weights; mask files carry them
    preprocess : pixels (N, C, H, W), uint8 or float → the model's input
    input_shape : (C, H, W) of a picture

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    >>> network = Network.wrap(model, ["cat", "dog"], example=torch.zeros(1, 1, 8, 8))
    >>> list(network.layers), network(torch.zeros(3, 1, 8, 8)).shape
    (['1'], torch.Size([3, 2]))
    """

    name: str
    model: nn.Module
    layers: Mapping[str, Layer]
    class_names: tuple[str, ...]
    weights_id: str
    preprocess: Callable[[Tensor], Tensor]
    input_shape: tuple[int, int, int]

    @property
    def units(self) -> int:
        """Units in all tapped layers together."""
        return sum(layer.units for layer in self.layers.values())

    @property
    def device(self) -> torch.device:
        """Where the model's weights lie (the CPU for a model without weights)."""
        first = next(self.model.parameters(), None)
        return torch.device("cpu") if first is None else first.device

    def class_index(self, class_name: str) -> int:
        """Return the logit that stands for a class, 0 to n_classes - 1.

        Raises
        ------
        NadkitError
            The network has no such class; the closest names are given.
        """
        if class_name not in self.class_names:
            raise NadkitError(
                f"no class {class_name!r} in {self.name}; {closest(str(class_name), self.class_names)}"
            )
        return self.class_names.index(class_name)

    def prepare(self, pixels: Tensor | LazyPixels) -> Tensor:
        """Return the model's input for pictures, on the model's device, after checking them.

        Parameters
        ----------
        pixels : (N, C, H, W), uint8 0-255 or float; pictures of a folder are read, all of them

        Returns
        -------
        Tensor
            What `preprocess` makes of them, in the model's own float type.

        Raises
        ------
        ImageError
            No tensor; wrong number of axes, channels or size; neither uint8 nor float; NaN or infinite
            pixels; for a bundled network, float pixels outside [0, 1].
        """
        if isinstance(pixels, LazyPixels):
            pixels = pixels[:]
        if not isinstance(pixels, Tensor):
            raise ImageError(
                f"pictures must be a tensor (N, C, H, W), got {type(pixels).__name__}; "
                "pass images.pixels, or torch.as_tensor(array)"
            )
        shape = tuple(pixels.shape)
        if len(shape) != 4 or shape[1:] != self.input_shape:
            raise ImageError(
                f"{self.name} takes pictures of shape (N, {', '.join(map(str, self.input_shape))}), "
                f"got {shape}; load_images(folder, like=network) converts a folder of pictures"
            )
        if pixels.dtype != torch.uint8 and not pixels.is_floating_point():
            raise ImageError(
                f"pixels must be uint8 (0-255) or float, got {str(pixels.dtype).removeprefix('torch.')}; "
                "convert them: pixels.to(torch.uint8)"
            )
        if pixels.is_floating_point() and not bool(torch.isfinite(pixels).all()):
            rows = (~torch.isfinite(pixels)).flatten(1).any(1).nonzero().flatten().tolist()
            raise ImageError(
                f"pictures {rows[:5]} hold NaN or infinite pixels ({len(rows)} in all); drop or repair them"
            )
        inputs = self.preprocess(pixels.to(self.device))
        dtype = next((p.dtype for p in self.model.parameters() if p.is_floating_point()), torch.float32)
        inputs = inputs.to(dtype)
        # Pictures made in inference mode can take no part in a gradient; a copy made outside of it can.
        return inputs.clone() if inputs.is_inference() and not torch.is_inference_mode_enabled() else inputs

    def logits(self, inputs: Tensor) -> Tensor:
        """Return (N, n_classes) for inputs made by `prepare`; of a tuple, the first element.

        A model that is in training mode answers as in evaluation mode, and gets its mode back. Attention
        takes its usual way through torch, not the fast one that no hook can see, so that gates of one change
        no bit.
        """
        with evaluating(self.model) as modules:
            attends = any(isinstance(module, nn.MultiheadAttention) for module in modules)
            with _Usual() if attends else nullcontext():
                # A copy, as a first layer that works in place must not reach the pictures.
                out = self.model(inputs.clone())
        first: Tensor = out[0] if isinstance(out, (tuple, list)) else out
        return first

    def __call__(self, pixels: Tensor | LazyPixels) -> Tensor:
        """Return logits (N, n_classes) for pixels (N, C, H, W), uint8 or float."""
        return self.logits(self.prepare(pixels))

    def to(self, device: torch.device | str) -> Network:
        """Move the model to a device, as `nn.Module.to` does, and return this network."""
        self.model.to(device)
        return self

    def __repr__(self) -> str:
        """Show what it is in one line."""
        return (
            f"Network({self.name!r}: {len(self.layers)} layers, {self.units} units, "
            f"{len(self.class_names)} classes, weights {self.weights_id})"
        )

    @staticmethod
    def wrap(
        model: nn.Module,
        class_names: Sequence[str],
        *,
        example: Tensor,
        layers: Wanted = "auto",
        preprocess: Callable[[Tensor], Tensor] | None = None,
        name: str | None = None,
    ) -> Network:
        """Return a `Network` around any module whose output is logits; nothing in the module changes.

        Parameters
        ----------
        model : the module; it is run once on the example, frozen for that moment and restored
        class_names : one name per logit, at least two
        example : (N, C, H, W) pixels, at least one picture
        layers : `"auto"` (block outputs, never a place that feeds a normalisation), `"paper"` (the published
            places of VGG, ResNet, DenseNet and DARTS), a pattern such as `"layer3.*"` or `"**:heads"` (`*`
            stays within one name, `**` goes over dots), a module, a type of modules, a function of an address
            and its module, or a list of these and of addresses; or addresses → the axis of their units. The
            places there are, and those of `"auto"`: `nk.layers(model, example)`
        preprocess : pixels → the model's input; by default uint8 becomes [0, 1] and floats pass unchanged
        name : by default the module's class name in lower case

        Warns
        -----
        UserWarning
            The model returns a tuple; its first element is taken as the logits, here and later. The model
            draws random numbers or changes buffers in evaluation mode (put back here, not later).

        Raises
        ------
        LayerError
            No layer fits what was asked (the closest addresses are given); a scripted, compiled or replicated
            model.
        ImageError
            The example is not pictures, or `prepare` refuses it.
        NadkitError
            No module; weights without size or values, of inference mode, or on several devices; class names
            that are one text, repeat or are fewer than two; an output that is not logits: wrong shape, not
            finite, or probabilities that sum to 1.

        Examples
        --------
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
        >>> Network.wrap(model, ["a", "b"], example=torch.zeros(1, 1, 8, 8), layers=["0", "1"]).units
        8
        """
        if not isinstance(model, nn.Module):
            raise NadkitError(f"cannot wrap a {type(model).__name__}; give a torch.nn.Module")
        check_whole(model)
        names = check_names(class_names)
        if not isinstance(example, Tensor) or example.ndim != 4 or not len(example):
            got = tuple(example.shape) if isinstance(example, Tensor) else type(example).__name__
            raise ImageError(
                f"example must be at least one picture, a tensor (N, C, H, W), got {got}; "
                "one picture of your data will do: images.pixels[:1]"
            )
        shape = (example.shape[1], example.shape[2], example.shape[3])
        network = Network(
            name or type(model).__name__.lower(), model, MappingProxyType({}), names,
            hash_weights(model.state_dict()), preprocess or _as_float, shape,
        )  # fmt: skip
        with frozen(model), torch.no_grad(), unchanged(model) as told:
            recording = record_calls(model, network.prepare(example).clone())
        if told:
            warnings.warn(
                f"the model {' and '.join(told)} in evaluation mode: its answers or its weights' hash differ "
                "from run to run, and so will all that is measured; switch that off, as F.dropout's "
                "training=self.training does",
                stacklevel=2,
            )
        check_logits(recording.out, len(example), names)
        return replace(network, layers=MappingProxyType(choose_among(model, recording, layers)))


class _Usual(TorchFunctionMode):
    """Do nothing; while any mode is open, torch's attention runs function by function."""

    def __torch_function__(
        self, func: Callable[..., object], types: object, args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:  # fmt: skip
        return func(*args, **(kwargs or {}))
