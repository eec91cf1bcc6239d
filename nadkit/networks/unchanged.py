"""What a model does to itself and to the random numbers when it runs, undone and told."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
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
    before = {module: dict(module._buffers) for module in model.modules()}
    values = {id(buffer): buffer.detach().clone() for buffer in model.buffers() if not buffer.is_meta}
    paths = {module: path for path, module in model.named_modules()}
    weights = itertools.chain(model.parameters(), model.buffers())
    devices = sorted({weight.device.index or 0 for weight in weights if weight.is_cuda})
    with torch.random.fork_rng(devices):
        states = _states(devices)
        try:
            yield told
        finally:
            if not all(map(torch.equal, _states(devices), states)):
                told.append("draws random numbers")
            for module, buffers in before.items():
                for name in {**buffers, **module._buffers}:
                    if _put_back(module, name, buffers, values):
                        told.append(f"changes its buffer {f'{paths[module]}.{name}'.lstrip('.')!r}")


def _put_back(
    module: nn.Module, name: str, buffers: Mapping[str, Tensor | None], values: Mapping[int, Tensor]
) -> bool:
    """Give a module's buffer its place and value from before, and return whether its state was another."""
    if name not in buffers:  # made in the block, as positions are on the first run; then no state changed
        saved = name not in module._non_persistent_buffers_set
        del module._buffers[name]
        module._non_persistent_buffers_set.discard(name)
        return saved
    buffer, now = buffers[name], module._buffers.get(name)
    value = None if buffer is None else values.get(id(buffer))
    if now is buffer and (value is None or buffer is None or _equal(buffer, value)):
        return False
    module._buffers[name] = buffer
    if buffer is not None and value is not None:
        with torch.no_grad():
            buffer.copy_(value)
    return True


def _states(devices: Sequence[int]) -> list[Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in devices)]


def _equal(one: Tensor, other: Tensor) -> bool:
    """Compare values, NaN being equal to itself."""
    if one.is_floating_point():
        one, other = one.nan_to_num(0.125), other.nan_to_num(0.125)
    return torch.equal(one, other)
