"""Names of tensors in a forward pass: what is written in a tensor's place has a name of its own."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from nadkit.networks.layouts import tensors


class Identities:
    """Numbers that stand for tensors; one that a function wrote into, and gave, has another from then on.

    Examples
    --------
    >>> import torch
    >>> names, x, y = Identities(), torch.ones(2), torch.ones(2)
    >>> before = names.of(x)
    >>> names.follow([x, y], x.add_(y))
    >>> names.was(x) == before, names.of(x) == before, names.of(y) == names.was(y)
    (True, False, True)
    """

    def __init__(self) -> None:
        self._names: dict[int, int] = {}
        self._before: dict[int, int] = {}
        self._count = 0
        self._alive: list[Tensor] = []  # identities are compared, so none may be used anew

    def of(self, tensor: Tensor) -> int:
        """Return the name of a tensor as it is now."""
        return self._names.get(id(tensor), id(tensor))

    def was(self, tensor: Tensor) -> int:
        """Return the name that a tensor had before the last function that was followed."""
        return self._before.get(id(tensor), self.of(tensor))

    def follow(self, values: Iterable[object], out: object) -> None:
        """Note what a function read and gave."""
        self._before.clear()
        taken, made = list(tensors(values)), list(tensors([out]))
        self._alive += [*taken, *made]
        for tensor in made:
            if any(tensor is one for one in taken) and id(tensor) not in self._before:
                self._before[id(tensor)] = self.of(tensor)
                self._count += 1
                self._names[id(tensor)] = -self._count
