"""What can go wrong, in one place: every error a user can cause is a `NadkitError`."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class NadkitError(Exception):
    """An error with a message that says what was asked, what is there and what to do."""


class LayerError(NadkitError):
    """A layer or unit that is not there, cannot be tapped, or never ran."""


class ImageError(NadkitError):
    """Pictures that cannot be read, or that a network cannot take."""


class MaskFileError(NadkitError):
    """A mask file that is damaged, foreign, or made for another network."""


class OptionalDependencyError(NadkitError):
    """A package that is needed for this call only, and is missing or broken."""


def closest(asked: str, there: Iterable[str], count: int = 3) -> str:
    """Return the names nearest to the one asked for, as the end of an error message.

    Examples
    --------
    >>> closest("sneeker", ["sneaker", "shirt"])
    'closest: sneaker'
    """
    names = list(there)
    near = difflib.get_close_matches(asked, names, n=count, cutoff=0.5)
    if near:
        return "closest: " + ", ".join(near)
    if not names:
        return "there are none"
    shown = ", ".join(names[:8])
    return f"there are: {shown}" + (f", … ({len(names)} in all)" if len(names) > 8 else "")


def optional_import(name: str, extra: str) -> ModuleType:
    """Return the imported module, or say which extra of nadkit brings it.

    Examples
    --------
    >>> optional_import("math", "vision").pi > 3
    True

    Raises
    ------
    OptionalDependencyError
        The module is missing, or its import fails. torchvision built for another torch raises
        `RuntimeError`, a missing shared library `OSError`; both are caught for that reason.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError, OSError) as error:
        raise OptionalDependencyError(
            f"{name} is needed here and could not be imported ({error}); "
            f"install it in the root of the repository with: pip install '.[{extra}]'"
        ) from error
