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
from nadkit.taps import Layer

__all__ = [
    "BUNDLED", "DATA", "Layer", "Network", "Standardise", "fresh_network", "hash_weights", "load_masks",
    "load_network", "mask_path", "model_card",
]  # fmt: skip
