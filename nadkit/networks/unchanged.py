"""What a model does to itself and to the random numbers when it runs, undone and told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def unchanged(model: nn.Module) -> Iterator[list[str]]:
    """Put a model's buffers and the state of random numbers back after the block, whatever ends it.

    Examples
    --------
    >>> model, before = nn.Dropout(0.5), torch.get_rng_state()
    >>> with unchanged(model) as told:
    ...     _ = model(torch.ones(4))
    >>> told, bool((torch.get_rng_state() == before).all())
    (['draws random numbers'], True)

    Parameters
    ----------
    model : the module that runs in the block

    Yields
    ------
    list of str
        Empty in the block; after it, what was undone: "draws random numbers", "changes its buffer 'n'".
    """
    told: list[str] = []
    buffers = [
        (module, f"{path}.{name}".lstrip("."), name, buffer, buffer.detach().clone())
        for path, module in model.named_modules()
        for name, buffer in module.named_buffers(recurse=False)
        if not buffer.is_meta
    ]
    devices = sorted({buffer.device.index or 0 for *_, buffer, _ in buffers if buffer.is_cuda})
    with torch.random.fork_rng(devices):
        before = torch.get_rng_state()
        try:
            yield told
        finally:
            if not torch.equal(torch.get_rng_state(), before):
                told.append("draws random numbers")
            for module, path, name, buffer, value in buffers:
                now = module._buffers.get(name)
                if now is buffer and _equal(buffer, value):
                    continue
                told.append(f"changes its buffer {path!r}")
                module._buffers[name] = buffer
                with torch.no_grad():
                    buffer.copy_(value)


def _equal(one: Tensor, other: Tensor) -> bool:
    """Compare values, NaN being equal to itself."""
    if one.is_floating_point():
        one, other = one.nan_to_num(0.125), other.nan_to_num(0.125)
    return torch.equal(one, other)
