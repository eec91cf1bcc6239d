"""What was learned: one score per task and unit, with thresholds, overlaps, tables and one safe file."""

from __future__ import annotations

from nadkit.masks.sets import MaskSet
from nadkit.masks.units import Unit

__all__ = ["MaskSet", "Unit"]
