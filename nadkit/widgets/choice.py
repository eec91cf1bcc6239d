"""What is chosen in an explorer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Choice:
    """The state that every panel is drawn from.

    Attributes
    ----------
    task, other_task : classes; the second one is empty if nothing is compared
    layer : an address
    unit : written layer/index, or empty
    place : of the picture among those shown, or None
    threshold, condition : as in `MaskSet.gates`, and one of whole, kept, removed, random
    matrix : which matrix is drawn
    metric : which metric of the evidence is drawn, or empty for the first there is
    """

    task: str
    other_task: str
    layer: str
    unit: str
    place: int | None
    threshold: float
    condition: str
    matrix: str
    metric: str

    @property
    def stamp(self) -> str:
        """Return the choice in one line, by which the page tells which state it shows."""
        return "|".join(
            str(one) for one in (self.task, self.other_task, self.layer, self.unit, self.threshold,
                                 self.condition)
        )  # fmt: skip
