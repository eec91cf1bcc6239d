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
    """One block of one thread: what it holds, and the modes and flags from before it that it gives back."""

    __slots__ = ("every", "ids", "model", "modules", "things", "thread", "was")

    def __init__(
        self, model: nn.Module, modules: list[nn.Module], parameters: list[nn.Parameter] | None
    ) -> None:
        self.thread, self.model, self.modules = this_thread(), model, modules
        self.things: list[nn.Module | nn.Parameter] = [*modules, *(parameters or ())]
        self.every = parameters is not None  # what is off already comes back too, if someone turns it on
        self.ids = set(map(id, self.things))
        self.was: dict[int, tuple[nn.Module | nn.Parameter, bool]] = {}


_lock = threading.RLock()
_open: list[_Block] = []  # the one that was opened last at the end
# Blocks that ended. A collection may end an abandoned one at any moment, also where its thread has the lock:
# it waits here for that thread to go on.
_ended: deque[_Block] = deque()
_this_thread = threading.local()


def this_thread() -> int:
    """Return the thread that the code runs in, or runs for: see `help_out`."""
    return getattr(_this_thread, "helps", None) or threading.get_ident()


def help_out(thread: int) -> None:
    """Let this thread use what another one holds; the two see to it that they do not run a model at once."""
    _this_thread.helps = thread


@contextmanager
def evaluating(model: nn.Module) -> Iterator[list[nn.Module]]:
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

    Yields
    ------
    list of nn.Module
        The model and all its parts.

    Raises
    ------
    LayerError
        Another thread is in such a block, or in one of `frozen`, with this model or a part of it.
    """
    within = next((block for block in _open if block.model is model and block.thread == this_thread()), None)
    modules = within.modules if within else list(model.modules())  # a walk takes as long as a small layer
    with _held(_Block(model, modules, None)):
        yield modules


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
    modules, parameters = list(model.modules()), list(model.parameters())
    with _held(_Block(model, modules, parameters)):
        yield


@contextmanager
def _held(block: _Block) -> Iterator[None]:
    """Hold the block's model, with its modes and flags off; they come back."""
    _settle()
    try:
        with _lock:
            if any(one.thread != block.thread and not one.ids.isdisjoint(block.ids) for one in _open):
                raise LayerError(
                    f"{type(block.model).__name__} is at work in another thread, and its modes change with "
                    "it; give each thread a copy, copy.deepcopy(model), or run them one after another"
                )
            _open.append(block)
            for thing in block.things:
                # One by one: `.eval()` and `.train()` may be overridden, and flatten modes that differ.
                if (flag := _flag(thing)) or block.every:
                    block.was[id(thing)] = thing, flag
                    _set_flag(thing, False)
        _settle()
        yield
    finally:
        try:
            _ended.append(block)
            _settle()
        except BaseException:  # an interrupt halfway: the rest is given back all the same
            _settle()
            raise


def _settle() -> None:
    """Give back what ended blocks hold; where this thread has the lock already, it does so when done."""
    while _ended and not _lock._is_owned():  # type: ignore[attr-defined]
        with _lock:
            while _ended:
                _let_go(_ended[0])
                _ended.popleft()


def _let_go(block: _Block) -> None:
    """Give back what was before a block; done twice it is as done once."""
    if block not in _open:
        return
    later = _open[_open.index(block) + 1 :]
    for key, (thing, flag) in block.was.items():
        heir = next((one for one in later if key in one.ids), None)
        if heir is None:
            _set_flag(thing, flag)
        else:  # still open: it gives back what was before both
            heir.was[key] = thing, flag
    _open.remove(block)


def _flag(thing: nn.Module | nn.Parameter) -> bool:
    return thing.training if isinstance(thing, nn.Module) else thing.requires_grad


def _set_flag(thing: nn.Module | nn.Parameter, flag: bool) -> None:
    if _flag(thing) == flag:
        return
    if isinstance(thing, nn.Module):
        thing.training = flag
    else:
        thing.requires_grad_(flag)
