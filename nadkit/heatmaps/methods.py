"""The names of all ways to rank units, with a line on each, so that others can loop over them."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from types import MappingProxyType, ModuleType

from nadkit.errors import NadkitError, closest

DESCRIPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "activation": "mean squared activation on the task's own pictures",
        "gradient-x-activation": "activation times the gradient of the task's log-odds, on own pictures",
        "integrated-gradients": "conductance: what the unit passes on from a blank to an own picture",
        "feature-ablation": "how far the task's log-odds fall on own pictures when the unit is removed",
        "magnitude": "mean absolute activation on pictures of all classes; the same for every task",
        "random": "random units",
        "other-task": "the scores of another task",
    }
)
"""One line on each method."""

METHODS: tuple[str, ...] = tuple(DESCRIPTIONS)
"""All methods of `ranked_masks`."""

ATTRIBUTIONS: tuple[str, ...] = METHODS[:5]
"""The methods that look at pictures, which are those of `unit_attributions`."""

MAPPED: tuple[str, ...] = METHODS[:3]
"""The methods that say where in a layer, which are those of `heatmap`."""


def check_method(method: object, there: Iterable[str]) -> None:
    """Raise NadkitError, naming the closest, unless there is such a method.

    Examples
    --------
    >>> check_method("randon", METHODS)
    Traceback (most recent call last):
    nadkit.errors.NadkitError: no method 'randon'; closest: random
    """
    names = tuple(there)
    if method not in names:
        raise NadkitError(f"no method {method!r}; {closest(str(method), names)}")


@cache
def captum() -> ModuleType:
    """Import `captum.attr`.

    Examples
    --------
    >>> captum().LayerConductance.__name__
    'LayerConductance'
    """
    found = import_module("captum.attr")
    # It brings in matplotlib, whose parser catches errors and keeps them. They know the callers' frames, and
    # so would keep the network of whoever asked first alive.
    gc.collect()
    return found
