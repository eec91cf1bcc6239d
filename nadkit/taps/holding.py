"""Who holds a model: one thread at a time, whose blocks may end in any order and still leave it as it was."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from nadkit.errors import LayerError
from nadkit.taps.layer import Tappable, model_and_layers


@dataclass(eq=False)
class _Hold:
    """What a block keeps for a module or a parameter: its mode or flag from before."""

    block: object
    thread: int
    thing: nn.Module | nn.Parameter  # alive, so that nothing else has its identity
    was: bool


_lock = threading.RLock()  # re-entrant, as a collection may close an abandoned block at any moment
_holds: dict[int, list[_Hold]] = {}  # by what is held, the block that was opened last at the end
_this_thread = threading.local()


def this_thread() -> int:
    """Return the thread that the code runs in, or runs for: see `help_out`."""
    return getattr(_this_thread, "helps", None) or threading.get_ident()


def help_out(thread: int) -> None:
    """Let this thread use what another one holds; the two see to it that they do not run a model at once."""
    _this_thread.helps = thread


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module in evaluation mode, for the block and this thread only; parameters stay as they are.

    Examples
    --------
    >>> model = nn.Dropout()
    >>> with evaluating(model):
    ...     model.training
    False
    >>> model.training
    True

    Parameters
    ----------
    model : the module

    Raises
    ------
    LayerError
        Another thread is in such a block, or in one of `frozen`, with this model or a part of it.
    """
    with _held(model, list(model.modules())):
        yield


@contextmanager
def frozen(target: nn.Module | Tappable) -> Iterator[None]:
    """Put every module in evaluation mode and stop every parameter's gradient, for the block only.

    Examples
    --------
    >>> model = nn.Linear(2, 2)
    >>> with frozen(model):
    ...     model.training, model.weight.requires_grad
    (False, False)
    >>> model.training, model.weight.requires_grad
    (True, True)

    Parameters
    ----------
    target
        A network or a module. Every single mode and flag comes back, whatever ends the block, and in
        whatever order blocks end.

    Raises
    ------
    LayerError
        The target is neither a module nor has one; another thread has the model, or a part of it, frozen or
        answering at this moment.
    """
    model, _ = model_and_layers(target)
    with _held(model, [*model.modules(), *model.parameters()]):
        yield


@contextmanager
def _held(model: nn.Module, things: list[nn.Module | nn.Parameter]) -> Iterator[None]:
    block, thread = object(), this_thread()
    try:
        with _lock:
            if any(id(thing) in _holds and _holds[id(thing)][-1].thread != thread for thing in things):
                raise LayerError(
                    f"{type(model).__name__} is at work in another thread, and its modes change with it; "
                    "give each thread a copy, copy.deepcopy(model), or run them one after another"
                )
            for thing in things:
                _holds.setdefault(id(thing), []).append(_Hold(block, thread, thing, _flag(thing)))
                # One by one: `.eval()` and `.train()` may be overridden, and flatten modes that differ.
                _set_flag(thing, False)
        yield
    finally:
        with _lock:
            for thing in things:
                _let_go(thing, block)


def _let_go(thing: nn.Module | nn.Parameter, block: object) -> None:
    holds = _holds.get(id(thing), [])
    at = next((at for at, hold in enumerate(holds) if hold.block is block), None)
    if at is None:
        return
    was = holds.pop(at).was
    if at < len(holds):
        holds[at].was = was  # the block after it is still open: it gives back what was before both
    else:
        _set_flag(thing, was)
    if not holds:
        del _holds[id(thing)]


def _flag(thing: nn.Module | nn.Parameter) -> bool:
    return thing.training if isinstance(thing, nn.Module) else thing.requires_grad


def _set_flag(thing: nn.Module | nn.Parameter, flag: bool) -> None:
    if isinstance(thing, nn.Module):
        thing.training = flag
    elif thing.requires_grad != flag:
        thing.requires_grad_(flag)
