"""Smaller modules: the gated network with its removed units cut out, and what that saves."""

from nadkit.slicing.costs import cost
from nadkit.slicing.reporting import report
from nadkit.slicing.verb import export

__all__ = ["cost", "export", "report"]
