"""Checks of what a question is given, so that every question refuses the same things in the same words."""

from __future__ import annotations

import torch
from torch import Tensor

from nadkit.errors import NadkitError
from nadkit.images import Images
from nadkit.networks import Network


def check_network(verb: str, network: object) -> Network:
    """Return the network, if it is one.

    Raises
    ------
    NadkitError
        It is something else; of a model it is said how to make a network of it.
    """
    if not isinstance(network, Network):
        raise NadkitError(
            f"{verb} needs a Network, and got {type(network).__name__}; "
            "load_network(name) gives a bundled one, Network.wrap(model, class_names, example=...) any other"
        )
    return network


def check_images(verb: str, images: object, name: str = "images") -> Images:
    """Return the pictures, if they are some.

    Raises
    ------
    NadkitError
        They are no `Images`.
    """
    if not isinstance(images, Images):
        raise NadkitError(
            f"{verb} needs {name}, and got {type(images).__name__}; "
            "load_images(...) gives some, Images(pixels, labels, class_names) makes them"
        )
    return images


def check_number(name: str, value: object, least: int) -> int:
    """Return a whole number of at least so many.

    Examples
    --------
    >>> check_number("draws", 2.5, 0)
    Traceback (most recent call last):
    nadkit.errors.NadkitError: draws = 2.5; give a whole number of 0 or more

    Raises
    ------
    NadkitError
        It is no whole number, or smaller.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise NadkitError(f"{name} = {value!r}; give a whole number of {least} or more")
    return value


def check_finite(network: Network, logits: Tensor) -> None:
    """Refuse logits from which nothing can be read.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 2))
    >>> example = torch.zeros(1, 2, 1, 1)
    >>> network = Network.wrap(model, ["a", "b"], example=example, layers=["1"], name="net")
    >>> check_finite(network, torch.tensor([[0.0, torch.nan]]))
    Traceback (most recent call last):
    nadkit.errors.NadkitError: net gives NaN or infinite logits; check its weights

    Raises
    ------
    NadkitError
        One of them is NaN or infinite.
    """
    if not bool(torch.isfinite(logits).all()):
        raise NadkitError(f"{network.name} gives NaN or infinite logits; check its weights")
