"""Hooks that a copy of their module, made meanwhile, does not keep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Protocol

from torch import nn

from nadkit.errors import LayerError


class Hook:
    """A function as a hook, which `copy.deepcopy` does not take along."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *values: Any) -> Any:
        """Call the function."""
        return self._function(*values)

    def __deepcopy__(self, _memo: dict[int, Any]) -> Callable[..., None]:
        """Give what takes its place in a copy."""
        return _copied

    def __reduce__(self) -> NoReturn:
        """Refuse to be written to a file."""
        raise LayerError(
            "the model is tapped, and its hooks cannot be saved; save it when the block has ended, or save "
            "model.state_dict()"
        )


class Removable(Protocol):
    """What `remove` undoes; done twice it is as done once."""

    def remove(self) -> None: ...  # noqa: D102


def remove_all(open_: Sequence[Removable]) -> None:
    """Remove what was opened, the last first; an interrupt halfway does not keep the rest."""
    try:
        for one in reversed(open_):
            one.remove()
    except BaseException:
        for one in reversed(open_):
            one.remove()
        raise


def _copied(module: nn.Module, *_: object) -> None:
    """Do nothing, and be gone when first called."""
    for hooks in (module._forward_pre_hooks, module._forward_hooks):
        for key in [key for key, hook in hooks.items() if hook is _copied]:
            del hooks[key]
            module._forward_hooks_always_called.pop(key, None)
