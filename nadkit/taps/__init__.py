"""Find, read and gate layers of any `torch.nn.Module`, then leave no trace."""

from nadkit.taps.checks import check_model
from nadkit.taps.functions import FUNCTIONS, HEADS, Watch, is_mixed, is_scores, is_weights, split_function
from nadkit.taps.holding import evaluating, frozen, help_out, this_thread
from nadkit.taps.hooks import Taps
from nadkit.taps.layer import Layer, Tappable, maps_of, parse_address

__all__ = [
    "FUNCTIONS", "HEADS", "Layer", "Tappable", "Taps", "Watch", "check_model", "evaluating", "frozen",
    "help_out", "is_mixed", "is_scores", "is_weights", "maps_of", "parse_address", "split_function",
    "this_thread",
]  # fmt: skip
