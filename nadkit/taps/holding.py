"""Who holds a model: one thread at a time, whose blocks may end in any order and still leave it as it was."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from nadkit.errors import LayerError
from nadkit.taps.layer import Tappable, model_and_layers


class _Block:
    """One block of one thread, and the modes and flags from before it of all that it holds."""

    __slots__ = ("thread", "was")

    def __init__(self, thread: int) -> None:
        self.thread = thread
        self.was: dict[int, bool] = {}


_Things = list[nn.Module | nn.Parameter]

_lock = threading.RLock()
_holds: dict[int, list[_Block]] = {}  # by what is held, the block that was opened last at the end
# Blocks that end, with what they hold, so that nothing else has its identity. A collection may end an
# abandoned one at any moment, also where its thread has the lock: it waits here for that thread to go on.
_ended: deque[tuple[_Block, _Things]] = deque()
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
def _held(model: nn.Module, things: _Things) -> Iterator[None]:
    block = _Block(this_thread())
    _settle()
    try:
        with _lock:
            if any(id(thing) in _holds and _holds[id(thing)][-1].thread != block.thread for thing in things):
                raise LayerError(
                    f"{type(model).__name__} is at work in another thread, and its modes change with it; "
                    "give each thread a copy, copy.deepcopy(model), or run them one after another"
                )
            for thing in things:
                block.was[id(thing)] = _flag(thing)
                _holds.setdefault(id(thing), []).append(block)
                # One by one: `.eval()` and `.train()` may be overridden, and flatten modes that differ.
                _set_flag(thing, False)
        _settle()
        yield
    finally:
        try:
            _ended.append((block, things))
            _settle()
        except BaseException:  # an interrupt halfway: the rest is given back all the same
            _settle()
            raise


def _settle() -> None:
    """Give back what ended blocks hold; where this thread has the lock already, it does so when done."""
    while _ended and not _lock._is_owned():  # type: ignore[attr-defined]
        with _lock:
            while _ended:
                block, things = _ended[0]
                for thing in things:
                    _let_go(thing, block)
                _ended.popleft()


def _let_go(thing: nn.Module | nn.Parameter, block: _Block) -> None:
    """Give back one mode or flag; done twice it is as done once."""
    holds = _holds.get(id(thing), [])
    if block in holds:
        at, was = holds.index(block), block.was[id(thing)]
        if at + 1 < len(holds):
            holds[at + 1].was[id(thing)] = was  # still open: it gives back what was before both
        else:
            _set_flag(thing, was)
        holds.remove(block)
    if not holds:
        _holds.pop(id(thing), None)


def _flag(thing: nn.Module | nn.Parameter) -> bool:
    return thing.training if isinstance(thing, nn.Module) else thing.requires_grad


def _set_flag(thing: nn.Module | nn.Parameter, flag: bool) -> None:
    if _flag(thing) == flag:
        return
    if isinstance(thing, nn.Module):
        thing.training = flag
    else:
        thing.requires_grad_(flag)
