"""The same architecture with fresh weights: the learned control `untrained`."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from nadkit.errors import NadkitError
from nadkit.networks.network import Network, hash_weights
from nadkit.networks.outputs import whole_logits
from nadkit.taps import frozen


@dataclass(frozen=True, eq=False, repr=False)
class _Scaled(Network):
    """A network whose logits are multiplied by one number; model, addresses and taps are the same."""

    scale: float = 1.0

    def logits(self, inputs: Tensor) -> Tensor:
        """Return (N, n_classes), scaled."""
        return super().logits(inputs) * self.scale


def _fresh(network: Network, seed: int) -> nn.Module:
    """Copy the model and draw its weights anew; the caller's random state is untouched."""
    model = copy.deepcopy(network.model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        device = network.device
        model.to("cpu")  # drawn on the CPU, so that a seed means the same weights on every device
        for module in model.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
        drawn = {
            id(p)
            for m in model.modules()
            if hasattr(m, "reset_parameters")
            for p in m.parameters(recurse=False)
        }
        for parameter in model.parameters():
            if id(parameter) not in drawn:  # a bare nn.Parameter knows no start of its own
                with torch.no_grad():
                    parameter.normal_(0.0, 0.02)
    return model.to(device)


def _statistics(model: nn.Module) -> dict[str, Tensor]:
    return {k: v for k, v in model.named_buffers() if k.endswith(("running_mean", "running_var"))}


def make_untrained(network: Network, inputs: Tensor, *, seed: int = 0) -> tuple[Network, dict[str, Any]]:
    """Return the network with fresh weights, and the record from which `restore_untrained` makes it again.

    Normalisations get the statistics of the inputs, and the logits the spread that the trained network's
    have, so that the control is not weaker than it must be.

    Parameters
    ----------
    network : the trained network; nothing in it changes
    inputs : (N, C, H, W), prepared pictures; up to 1,000 are used for the statistics
    seed : seed of the fresh weights

    Examples
    --------
    >>> import nadkit as nk
    >>> network = nk.load_network("vgg-fashion")
    >>> inputs = network.prepare(nk.load_images("fashion", per_class=2).pixels[:])
    >>> fresh, record = make_untrained(network, inputs)
    >>> bool((restore_untrained(network, record)(torch.zeros(1, 1, 28, 28)) == fresh(torch.zeros(1, 1, 28, 28))).all())
    True
    """
    sample = inputs[:: max(1, len(inputs) // 1000)][:1000]
    model = _fresh(network, seed)
    norms = [
        m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats
    ]
    momenta = [norm.momentum for norm in norms]
    with frozen(model), torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain average over the one batch
            norm.train()
        if norms:
            model(sample)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    fresh = replace(network, model=model.eval().requires_grad_(False))
    spread = float(whole_logits(fresh, sample).std())
    scale = float(whole_logits(network, sample).std()) / spread if spread > 0 else 1.0
    record: dict[str, Any] = {
        "seed": seed,
        "logit_scale": scale,
        "statistics": {k: v.tolist() for k, v in _statistics(model).items()},
        "weights_id": hash_weights(model.state_dict()),
    }
    return _scaled(network, model, record), record


def restore_untrained(network: Network, record: Mapping[str, Any]) -> Network:
    """Return the untrained network that a record describes (mask files of the control carry it).

    Parameters
    ----------
    network : the trained network
    record : what `make_untrained` returned, such as `masks.meta["untrained"]`

    Raises
    ------
    NadkitError
        The record does not fit the network, or this version of torch draws other weights from the seed.
    """
    model = _fresh(network, int(record["seed"]))
    statistics = _statistics(model)
    if set(statistics) != set(record["statistics"]):
        raise NadkitError(
            f"the record of the untrained control does not fit {network.name}; learn the control again"
        )
    for key, buffer in statistics.items():
        buffer.copy_(torch.tensor(record["statistics"][key], dtype=buffer.dtype))
    if hash_weights(model.state_dict()) != record["weights_id"]:
        raise NadkitError(
            "the untrained control's weights cannot be drawn again from their seed with this version of torch "
            f"({torch.__version__}); learn the control again"
        )
    return _scaled(network, model, record)


def _scaled(network: Network, model: nn.Module, record: Mapping[str, Any]) -> Network:
    return _Scaled(
        f"{network.name} (untrained)", model.eval().requires_grad_(False), network.layers, network.class_names,
        str(record["weights_id"]), network.preprocess, network.input_shape, float(record["logit_scale"]),
    )  # fmt: skip
