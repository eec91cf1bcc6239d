"""Whether a model can be wrapped: its parts, its class names and what it answers."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nadkit.errors import NadkitError
from nadkit.taps import check_model


def check_whole(model: nn.Module) -> None:
    """Refuse a model whose parts no hook reaches, or whose weights are not all there, on one device.

    Raises
    ------
    LayerError
        A scripted, compiled or replicated part.
    NadkitError
        Weights that have no size yet, no values, no way for gradients, or several devices.
    """
    for path, module in model.named_modules():
        check_model(module, path)
    weights = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    lazy = [name for name, weight in weights.items() if nn.parameter.is_lazy(weight)]
    if lazy:
        raise NadkitError(
            f"{len(lazy)} weights have no size yet, such as {lazy[0]!r} of a lazy module; run the model "
            "once: model(example)"
        )
    devices = {str(weight.device) for weight in weights.values() if weight.ndim}
    if len(devices) > 1:
        where = "; ".join(
            f"{name} on {device}"
            for device in sorted(devices)
            for name in [next(n for n, w in weights.items() if w.ndim and str(w.device) == device)]
        )
        raise NadkitError(
            f"the model's parameters and buffers lie on {' and '.join(sorted(devices))} ({where}); move it "
            "to one: model.to(device)"
        )
    if devices == {"meta"}:
        raise NadkitError(
            "the model lies on meta, where weights have no values; model.to_empty(device='cpu') and load them"
        )
    sealed = [name for name, weight in weights.items() if weight.is_inference()]
    if sealed:
        raise NadkitError(
            f"{len(sealed)} weights, such as {sealed[0]!r}, were made in torch.inference_mode, and no "
            "gradient passes them; take a copy made outside of it: copy.deepcopy(model)"
        )


def check_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of classes, refused where they could not be told apart."""
    if isinstance(class_names, str):
        raise NadkitError(f"class names must be a list of names, got the one text {class_names!r}")
    names = tuple(class_names)
    strange = [name for name in names if not isinstance(name, str) or not name]
    if strange:
        raise NadkitError(f"class names must be texts that are not empty, got {strange[0]!r}")
    taken = [name for name in names if name in ("mean", "all")]
    if taken:
        raise NadkitError(
            f"no class can be named {taken[0]!r}, which in tables means all classes; rename it: {taken[0]}_"
        )
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise NadkitError(f"class names must differ; these repeat: {', '.join(repeated)}")
    if len(names) < 2:
        raise NadkitError(
            f"a network needs at least two classes, got {len(names)}: a task is told apart from the others; "
            "turn one logit z into two: (0, z)"
        )
    return names


def check_logits(out: object, count: int, class_names: tuple[str, ...]) -> None:
    """Refuse what a model gave for `count` pictures if it is not logits, one a class."""
    wanted = (
        f"the model must return logits, a tensor (N, {len(class_names)}) for {len(class_names)} class names"
    )
    if isinstance(out, (tuple, list)) and out:
        warnings.warn(f"the model returns {len(out)} outputs; the first is taken as the logits", stacklevel=3)
        out = out[0]
    if not isinstance(out, Tensor):
        raise NadkitError(f"{wanted}; it returns {type(out).__name__}; wrap it in a module that picks them")
    if tuple(out.shape) != (count, len(class_names)):
        raise NadkitError(f"{wanted}; with N = {count} it returns {tuple(out.shape)}")
    if not out.is_floating_point():
        raise NadkitError(f"{wanted}; it returns {out.dtype}")
    if not bool(torch.isfinite(out).all()):
        raise NadkitError(f"{wanted}; its output on the example is not finite")
    # Numbers of 16 bits sum to 1 less exactly.
    near = 1e-4 if out.dtype.itemsize > 2 else 1e-2
    if bool((out >= 0).all()) and bool(((out.float().sum(1) - 1).abs() < near).all()):
        raise NadkitError(
            "the model returns probabilities (they sum to 1); take its softmax off: logits are needed"
        )
