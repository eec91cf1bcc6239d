"""Smaller modules: the gated network with its removed units cut out, what that saves, and their files."""

from nadkit.slicing.costs import cost
from nadkit.slicing.files import load, save, save_program
from nadkit.slicing.reporting import report
from nadkit.slicing.verb import export

__all__ = ["cost", "export", "load", "report", "save", "save_program"]
