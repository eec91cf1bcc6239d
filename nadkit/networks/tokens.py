"""Which axes of what an attention gives hold the tokens that ask, so that they are not taken for heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from nadkit.networks.axes import RESHAPES, VIEWS, plain_name
from nadkit.networks.layouts import Axes, find_merged, follow_move, tensors
from nadkit.taps import is_mixed, is_weights

_MATRICES = {"matmul", "bmm", "baddbmm", "scaled_dot_product_attention"}


class Tokens:
    """The axes of tokens, of products with an attention's weights and of what these become by moves.

    Examples
    --------
    >>> import torch
    >>> from nadkit.taps import Watch
    >>> tokens = Tokens()
    >>> tokens.of(torch.zeros(2, 3))
    ()
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, ...]] = {}
        self._alive: list[Tensor] = []  # identities are compared, so none may be used anew

    def of(self, tensor: Tensor) -> tuple[int, ...]:
        """Return the axes of a tensor that hold tokens, () if none is known."""
        return self._known.get(id(tensor), ())

    def follow(
        self, name: str, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], out: object
    ) -> None:
        """Note what a function gave, if that is part of an attention."""
        found: list[tuple[int, ...]] = []
        made = list(tensors([out]))
        source = args[0] if args and isinstance(args[0], Tensor) else None
        if made and is_mixed(made[0]) and plain_name(name) in _MATRICES:
            beside = is_weights(args[-1]) and not (is_weights(args[-2]) or is_mixed(args[-2]))
            found = [(made[0].ndim - (1 if beside else 2),)]
        elif made and is_mixed(made[0]) and name == "einsum" and isinstance(args[0], str):
            found = [_letters(args[0], list(tensors(args[1:])))]
        elif source is not None and (known := self.of(source)):
            if name in VIEWS:
                moved = follow_move(func, args, kwargs, source, Axes(None, known), len(made))
                found = [axes.units for axes in moved]
            elif name in RESHAPES:
                found = [find_merged(source.shape, tensor.shape, known) for tensor in made]
            else:
                found = [known if tensor.shape == source.shape else () for tensor in made]
        for tensor, axes in zip(made, found, strict=False):
            self._alive.append(tensor)
            self._known[id(tensor)] = axes


def _letters(equation: str, operands: Sequence[Tensor]) -> tuple[int, ...]:
    """Return the places of those letters of an equation's result that the weights alone have."""
    terms, _, result = equation.replace(" ", "").partition("->")
    of_weights, others = set[str](), set[str]()
    for letters, operand in zip(terms.split(","), operands, strict=False):
        (of_weights if is_weights(operand) else others).update(letters)
    return tuple(at for at, letter in enumerate(result) if letter in of_weights - others and letter != ".")
