"""Networks: `Network`, the eight bundled ones with their masks, and `Network.wrap` for any other."""

from nadkit.networks.bundled import (
    BUNDLED,
    DATA,
    fresh_network,
    load_masks,
    load_network,
    mask_path,
    model_card,
)
from nadkit.networks.network import Network, Standardise, hash_weights
from nadkit.networks.outputs import gated_logits, log_odds, log_rest, whole_logits
from nadkit.networks.table import layers
from nadkit.networks.untrained import make_untrained, restore_untrained
from nadkit.taps import Layer

__all__ = [
    "BUNDLED", "DATA", "Layer", "Network", "Standardise", "fresh_network", "gated_logits", "hash_weights",
    "layers", "load_masks", "load_network", "log_odds", "log_rest", "make_untrained", "mask_path",
    "model_card", "restore_untrained", "whole_logits",
]  # fmt: skip
