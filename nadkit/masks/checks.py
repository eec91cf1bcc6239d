"""Whether names are names, scores are scores, and masks belong to a network."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from nadkit.errors import NadkitError, closest


def checked_names(names: object, kind: str) -> tuple[str, ...]:
    """Return the names of tasks or layers as a tuple, each a text that is there once.

    Examples
    --------
    >>> checked_names(["shirt", "sneaker"], "task")
    ('shirt', 'sneaker')

    Raises
    ------
    NadkitError
        No names, an empty one, one that UTF-8 cannot hold, or one that comes twice.
    """
    if isinstance(names, str) or not isinstance(names, Sequence) or not names:
        raise NadkitError(f"masks need the names of their {kind}s as a tuple, and got {names!r}")
    for place, name in enumerate(names):
        if not isinstance(name, str) or not name:
            raise NadkitError(f"{kind} number {place} is named {name!r}; give a text that is not empty")
        # Folders give such names (surrogateescape), and a file's UTF-8 cannot hold them.
        if any("\ud800" <= letter <= "\udfff" for letter in name):
            raise NadkitError(f"the {kind} name {name!r} is no valid Unicode; rename it")
    if len(set(names)) < len(names):
        double = Counter(names).most_common(1)[0][0]
        raise NadkitError(f"the {kind} {double!r} comes twice; name every {kind} once")
    return tuple(names)


def checked_scores(address: str, given: object, tasks: tuple[str, ...]) -> Tensor:
    """Return the scores of one layer as a new (n_tasks, n_units) float32 tensor on the CPU.

    Examples
    --------
    >>> checked_scores("conv", [[0, 1]], ("shirt",))
    tensor([[0., 1.]])

    Raises
    ------
    NadkitError
        They have another shape, or a score that is not in [0, 1]; the first such is named.
    """
    try:
        rows = torch.as_tensor(given).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise NadkitError(f"the scores of layer {address!r} are no tensor: {error}") from None
    if rows.ndim != 2 or rows.shape[0] != len(tasks) or rows.shape[1] < 1 or rows.is_complex():
        raise NadkitError(
            f"the scores of layer {address!r} are {tuple(rows.shape)} of {rows.dtype}; "
            f"expected real numbers of shape ({len(tasks)} tasks, at least 1 unit)"
        )
    low, high = rows.aminmax()  # takes no memory; NaN where any score is
    if not (low >= 0 and high <= 1):
        bad = ~((rows >= 0) & (rows <= 1))  # not <, > : NaN must count as bad
        # Not nonzero, which takes 16 bytes for every bad score.
        task, index = divmod(int(bad.to(torch.uint8).argmax()), rows.shape[1])
        value = float(rows[task, index])
        what = "is not a number" if math.isnan(value) else f"is {value:g}, outside [0, 1]"
        raise NadkitError(f"the score of {address}/{index} for {tasks[task]!r} {what}; give scores in [0, 1]")
    return rows.to("cpu", torch.float32, copy=True).contiguous()


def _few(reasons: Iterable[str]) -> list[str]:
    """The first three of many reasons of one kind: another network may differ in a hundred layers."""
    every = list(reasons)
    return [*every[:3], *([f"and {len(every) - 3} more such"] if len(every) > 3 else [])]


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
    unknown = [address for address in unit_counts if address not in counts]
    reasons += _few(f"it has no layer {address!r}, {closest(address, counts)}" for address in unknown)
    if missing := [address for address in counts if address not in unit_counts]:
        shown = ", ".join(missing[:3]) + (f", … ({len(missing)} in all)" if len(missing) > 3 else "")
        reasons.append(f"the masks have no scores for its layers {shown}")
    reasons += _few(
        f"layer {address!r} has {counts[address]} units there and {count} here"
        for address, count in unit_counts.items()
        if counts.get(address, count) != count
    )
    names = list(network.class_names)
    reasons += _few(
        f"it has no class {task!r}, {closest(task, names)}" for task in tasks if task not in names
    )
    then = meta.get("class_names")
    if isinstance(then, list) and then != names and not any(task not in names for task in tasks):
        reasons.append(f"its class names were {then} and are {names}")
    return reasons
