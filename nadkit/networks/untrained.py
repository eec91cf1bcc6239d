"""The same architecture with fresh weights: the learned control `untrained`."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from nadkit.errors import ImageError, NadkitError
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


def _has_start(module: nn.Module) -> bool:
    """Tell whether a module knows how to draw its own parameters."""
    reset = getattr(module, "reset_parameters", None)
    if not callable(reset):
        return False
    try:
        inspect.signature(reset).bind()
    except TypeError:  # it wants arguments that only its author knows
        return False
    return True


def _fresh(network: Network, seed: int) -> nn.Module:
    """Copy the model and draw its weights anew; the caller's random state is untouched."""
    model = copy.deepcopy(network.model)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # not that of a GPU, which is not restored
        device = network.device
        model.to("cpu")  # drawn on the CPU, so that a seed means the same weights on every device
        knowing = [module for module in model.modules() if _has_start(module)]
        for module in knowing:
            module.reset_parameters()  # type: ignore[operator] # a method, by `_has_start`
        drawn = {id(p) for module in knowing for p in module.parameters(recurse=False)}
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
    inputs : (N, C, H, W), prepared pictures; up to 1,000 of 32×32 are used for the statistics, of larger
        ones as many as hold no more pixels, and at least 64
    seed : seed of the fresh weights

    Returns
    -------
    tuple
        The network, named `"… (untrained)"`, and a record of seed, statistics, scale and `weights_id` that
        JSON can hold.

    Raises
    ------
    ImageError
        There are no inputs.

    Examples
    --------
    >>> import nadkit as nk
    >>> network = nk.load_network("vgg-fashion")
    >>> inputs = network.prepare(nk.load_images("fashion", per_class=2).pixels)
    >>> fresh, record = make_untrained(network, inputs)
    >>> restored = restore_untrained(network, record)
    >>> bool((restored.logits(inputs) == fresh.logits(inputs)).all())
    True
    """
    if not len(inputs):
        raise ImageError("the untrained control needs pictures for its statistics, got none")
    most = min(1000, max(64, 3_072_000 // inputs[0].numel()))
    sample = inputs[:: max(1, len(inputs) // most)][:most]
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

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
    >>> network = Network.wrap(model, ["a", "b"], example=torch.zeros(1, 1, 4, 4))
    >>> _, record = make_untrained(network, torch.rand(9, 1, 4, 4))
    >>> restore_untrained(network, record).weights_id == record["weights_id"]
    True

    Raises
    ------
    NadkitError
        The record does not fit the network, or this version of torch draws other weights from the seed.
    """
    try:
        seed, weights_id = int(record["seed"]), str(record["weights_id"])
        kept = {key: torch.tensor(values) for key, values in record["statistics"].items()}
        float(record["logit_scale"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NadkitError(
            f"this is no record of an untrained control ({error!r}); learn the control again"
        ) from None
    model = _fresh(network, seed)
    statistics = _statistics(model)
    if {k: v.shape for k, v in statistics.items()} != {k: v.shape for k, v in kept.items()}:
        raise NadkitError(
            f"the record of the untrained control does not fit {network.name}; learn the control again"
        )
    for key, buffer in statistics.items():
        buffer.copy_(kept[key])
    if hash_weights(model.state_dict()) != weights_id:
        raise NadkitError(
            "the untrained control's weights cannot be drawn again from their seed: the record is another "
            f"network's, or this version of torch ({torch.__version__}) draws others; learn the control again"
        )
    return _scaled(network, model, record)


def _scaled(network: Network, model: nn.Module, record: Mapping[str, Any]) -> Network:
    return _Scaled(
        f"{network.name} (untrained)",
        model.eval().requires_grad_(False),
        network.layers,
        network.class_names,
        str(record["weights_id"]),
        network.preprocess,
        network.input_shape,
        float(record["logit_scale"]),
    )
