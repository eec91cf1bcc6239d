"""What a tensor of a forward pass was made from by functions that keep its units one for one."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor

from nadkit.networks.axes import plain_name
from nadkit.networks.identities import Identities
from nadkit.networks.layouts import tensors
from nadkit.networks.norms import NORM_FUNCTIONS, PRODUCTS, WEIGHTED


class Passing:
    """Which tensors reach which through shapes, pools, activations, copies and scales alone.

    Parameters
    ----------
    knows : says of a tensor whether it is an activation, made from the pictures
    names : those of the tensors, which follow every function first
    """

    def __init__(self, knows: Callable[[Tensor], bool], names: Identities) -> None:
        self._knows, self._names = knows, names
        self._made_from: dict[int, int] = {}

    def follow(self, name: str, values: Iterable[object], out: object) -> None:
        """Note what a function read and gave, before what it gave is an activation."""
        plain, read = plain_name(name), list(tensors(values))
        sources = {self._names.was(tensor) for tensor in read if self._knows(tensor)}
        mixes = plain in WEIGHTED | NORM_FUNCTIONS or (plain in PRODUCTS and len(read) > 1)
        if mixes or len(sources) != 1:
            return
        (source,) = sources
        self._made_from.update((self._names.of(made), source) for made in tensors([out]))

    def behind(self, name: int) -> set[int]:
        """Return the names of a tensor and of all that it was so made from.

        Examples
        --------
        >>> import torch
        >>> a, names = torch.ones(2, 3), Identities()
        >>> passing = Passing(lambda tensor: True, names)
        >>> passing.follow("relu", [a], b := a.relu())
        >>> passing.follow("add", [a, b], c := a + b)
        >>> passing.behind(names.of(b)) == {names.of(a), names.of(b)}
        True
        >>> passing.behind(names.of(c)) == {names.of(c)}
        True
        """
        found, at = set[int](), name
        while at not in found:
            found.add(at)
            at = self._made_from.get(at, at)
        return found
