"""What a tensor of a forward pass was made from by functions that keep its units one for one."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor

from nadkit.networks.axes import plain_name
from nadkit.networks.layouts import tensors
from nadkit.networks.norms import NORM_FUNCTIONS, PRODUCTS, WEIGHTED


class Passing:
    """Which tensors reach which through shapes, pools, activations, copies and scales alone.

    Parameters
    ----------
    knows : says of a tensor whether it is an activation, made from the pictures
    """

    def __init__(self, knows: Callable[[Tensor], bool]) -> None:
        self._knows = knows
        self._made_from: dict[int, int] = {}
        self._alive: list[Tensor] = []  # identities are compared, so none may be used anew

    def follow(self, name: str, values: Iterable[object], out: object) -> None:
        """Note what a function read and gave, before what it gave is an activation."""
        plain, read = plain_name(name), list(tensors(values))
        sources = {id(tensor): tensor for tensor in read if self._knows(tensor)}
        mixes = plain in WEIGHTED | NORM_FUNCTIONS or (plain in PRODUCTS and len(read) > 1)
        if mixes or len(sources) != 1:
            return
        ((source, tensor),) = sources.items()
        self._alive.append(tensor)
        for made in tensors([out]):
            if made is not tensor:
                self._alive.append(made)
                self._made_from[id(made)] = source

    def behind(self, tensor: Tensor) -> set[int]:
        """Return the identities of a tensor and of all that it was so made from.

        Examples
        --------
        >>> import torch
        >>> a, passing = torch.ones(2, 3), Passing(lambda tensor: True)
        >>> passing.follow("relu", [a], b := a.relu())
        >>> passing.follow("add", [a, b], c := a + b)
        >>> passing.behind(b) == {id(a), id(b)}, passing.behind(c) == {id(c)}
        (True, True)
        """
        found, at = set[int](), id(tensor)
        while at not in found:
            found.add(at)
            at = self._made_from.get(at, at)
        return found
