"""Whether masks belong to a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from nadkit.errors import closest


class NetworkLike(Protocol):
    """What masks ask of a network: four read-only attributes; a layer has a count `units`."""

    @property
    def name(self) -> str:
        """The network's name."""

    @property
    def weights_id(self) -> str:
        """The SHA-256 over its weights."""

    @property
    def class_names(self) -> Sequence[str]:
        """The names of its logits."""

    @property
    def layers(self) -> Mapping[str, Any]:
        """Its layers by address."""


def reasons_against(
    tasks: Sequence[str], unit_counts: Mapping[str, int], meta: Mapping[str, object], network: NetworkLike
) -> list[str]:
    """Return every reason why masks cannot be those of a network; none means that they fit.

    Examples
    --------
    >>> from types import SimpleNamespace as Thing
    >>> network = Thing(name="net", weights_id="ab", class_names=("a",), layers={"conv": Thing(units=3)})
    >>> reasons_against(["a"], {"conv": 3}, {"network": "other"}, network)
    ["they were learned on 'other'"]

    Parameters
    ----------
    tasks
        The masks' tasks, which must be among the network's class names.
    unit_counts
        The masks' layers and their numbers of units.
    meta
        Its network, weights_id and class_names are compared where given.
    network
        The network asked about.
    """
    reasons = []
    if meta.get("network") is not None and meta["network"] != network.name:
        reasons.append(f"they were learned on {meta['network']!r}")
    if meta.get("weights_id") is not None and meta["weights_id"] != network.weights_id:
        mine, theirs = str(meta["weights_id"])[:12], str(network.weights_id)[:12]
        reasons.append(f"they were learned on the weights {mine}… and it has {theirs}…")
    counts = {address: int(layer.units) for address, layer in network.layers.items()}
    for address in [address for address in unit_counts if address not in counts]:
        reasons.append(f"it has no layer {address!r}, {closest(address, counts)}")
    if missing := [address for address in counts if address not in unit_counts]:
        shown = ", ".join(missing[:3]) + (f", … ({len(missing)} in all)" if len(missing) > 3 else "")
        reasons.append(f"the masks have no scores for its layers {shown}")
    for address, count in unit_counts.items():
        if counts.get(address, count) != count:
            reasons.append(f"layer {address!r} has {counts[address]} units there and {count} here")
    names = list(network.class_names)
    for task in [task for task in tasks if task not in names]:
        reasons.append(f"it has no class {task!r}, {closest(task, names)}")
    theirs_then = meta.get("class_names")
    if (
        isinstance(theirs_then, list)
        and theirs_then != names
        and not any(task not in names for task in tasks)
    ):
        reasons.append(f"its class names were {theirs_then} and are {names}")
    return reasons
