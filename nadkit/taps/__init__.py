"""Find, read and gate layers of any `torch.nn.Module`, then leave no trace."""

from nadkit.taps.hooks import Taps
from nadkit.taps.layer import Layer, Tappable, frozen, maps_of, parse_address

__all__ = ["Layer", "Tappable", "Taps", "frozen", "maps_of", "parse_address"]
