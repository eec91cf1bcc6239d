"""Checks of gates and rows before anything runs."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nadkit.errors import LayerError
from nadkit.taps.layer import Layer, kind_of


def wrong_size(path: str, units: int, there: str) -> LayerError:
    """Return the error of a gate that does not fit what its layer gives."""
    return LayerError(f"the gate of {path!r} has {units} units, the layer has {there}; give one value a unit")


def check_model(model: nn.Module, path: str = "") -> None:
    """Refuse what runs its modules where no hook sees them, or copies of them."""
    inner = None
    if isinstance(model, torch.jit.ScriptModule):
        inner = "a scripted or traced model takes no hooks; take the module it was made from"
    elif "_orig_mod" in model._modules:  # `hasattr` would raise and catch, for every part of every address
        inner = "a compiled model was made without hooks; take the module it was made from: model._orig_mod"
    elif getattr(model, "_compiled_call_impl", None) is not None:
        inner = (
            "a model after model.compile() runs as it was compiled, without hooks; take a copy, which is not "
            "compiled: copy.deepcopy(model)"
        )
    elif isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        inner = (
            f"{type(model).__name__} runs copies of its module; take the one it was made from: model.module"
        )
    if inner:
        raise LayerError(f"{path!r} of the model: {inner}" if path else inner)


def check_rows(rows: Tensor | None, gates: Mapping[str, Tensor]) -> tuple[int, int] | None:
    """Return the lowest and the highest row, None if there are no rows."""
    if not isinstance(gates, Mapping):
        raise LayerError(f"gates are {kind_of(gates)}; give a dictionary {{address: tensor}}")
    if rows is None:
        return None
    if not gates:
        raise LayerError("rows choose among the rows of gates, and there are no gates; give gates=")
    if not isinstance(rows, Tensor) or rows.dtype != torch.int64 or rows.ndim != 1 or rows.is_meta:
        raise LayerError(f"rows are {kind_of(rows)}; give an int64 tensor (N,), the task of each sample")
    return (int(rows.min()), int(rows.max())) if len(rows) else (0, -1)


def check_gate(address: str, gate: Tensor, layer: Layer | None, span: tuple[int, int] | None) -> None:
    """Refuse what is no finite gate of the layer, or has other rows than those asked for."""
    what = f"the gate of {address!r}"
    if not isinstance(gate, Tensor) or gate.ndim not in (1, 2) or gate.is_complex() or gate.is_meta:
        raise LayerError(f"{what} is {kind_of(gate)}; give a tensor (units,) or (tasks, units)")
    if layer is not None and gate.shape[-1] != layer.units:
        raise wrong_size(address, gate.shape[-1], str(layer.units))
    # The sum is the quick look, as learning opens taps at every step; a sum of finite values may overflow.
    values = gate.detach()
    if not math.isfinite(values.sum().item()) and not bool(torch.isfinite(values).all()):
        raise LayerError(f"{what} has NaN or infinite values; 1 keeps a unit, 0 removes it")
    if gate.ndim == 1:
        return
    if span is None:
        raise LayerError(f"{what} has {len(gate)} rows; say with rows= which one each sample takes")
    if span[0] < 0 or span[1] >= len(gate):
        raise LayerError(f"rows run from {span[0]} to {span[1]}; {what} has {len(gate)} rows, counted from 0")


def check_gradients(path: str, gate: Tensor | None, output: object, gradients: bool, acted: bool) -> None:
    """Refuse where a gradient could not pass, or would pass another way than the forward did.

    `gradients` and `acted` tell what was so when the model's forward began: whether gradients were on, and
    what `acts_on_saved` said.
    """
    learned = gate is not None and gate.requires_grad
    if not torch.is_grad_enabled():
        if learned and gradients:
            raise LayerError(
                f"the gate of {path!r} wants a gradient, and the model runs that layer without (in "
                "torch.no_grad, or in torch.utils.checkpoint with use_reentrant=True); switch that off, or "
                "choose other layers"
            )
    elif (learned or (isinstance(output, Tensor) and output.requires_grad)) and acts_on_saved() > acted:
        raise LayerError(
            f"{path!r} runs in torch.utils.checkpoint, and again on the way back, when it is not tapped; "
            "switch checkpointing off (timm: model.set_grad_checkpointing(False)), or use torch.no_grad()"
        )


def acts_on_saved() -> bool:
    """Return whether something, such as checkpointing, acts on what is saved for the way back."""
    try:
        with torch.autograd.graph.disable_saved_tensors_hooks("asked for by nothing"):
            return False
    except RuntimeError:  # what torch raises if there are any at work already
        return True
