"""The name of one unit of one layer."""

from __future__ import annotations

import re
from typing import NamedTuple

from nadkit.errors import LayerError

_UNIT = re.compile(r"(?P<layer>.*[^/])/(?P<index>[0-9]{1,9})", re.DOTALL)


class Unit(NamedTuple):
    """One channel, attention head or neuron of a layer, written ``layer3.1/17``.

    Examples
    --------
    >>> unit = Unit("layer3.1", 17)
    >>> str(unit)
    'layer3.1/17'
    >>> Unit.parse("layer1.0.relu#2/5")
    Unit(layer='layer1.0.relu#2', index=5)
    """

    layer: str
    """The address of its layer."""
    index: int  # type: ignore[assignment]  # hides tuple.index, which a unit does not need
    """Its place in the layer, counted from 0."""

    def __str__(self) -> str:
        """Return the written form, which `Unit.parse` reads back."""
        return f"{self.layer}/{self.index}"

    @classmethod
    def parse(cls, text: str) -> Unit:
        """Return the unit that a written form such as ``layer3.1/17`` names.

        Examples
        --------
        >>> Unit.parse("layer3.1/17").index
        17

        Parameters
        ----------
        text
            A layer's address, a slash, and the unit's index counted from 0.

        Raises
        ------
        LayerError
            The text is no address followed by a slash and a whole number.
        """
        found = _UNIT.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise LayerError(f"no unit is written {text!r}; write layer/index, such as layer3.1/17")
        return cls(found["layer"], int(found["index"]))
