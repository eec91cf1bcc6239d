"""The conditions that `whether` compares: which gates, on which network, and which class is right."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from nadkit.errors import NadkitError, closest
from nadkit.masks import MaskSet
from nadkit.networks import Network
from nadkit.questions.controls import LEARNED, find_controls

_DRAWN: WeakKeyDictionary[Network, dict[str, Network]] = WeakKeyDictionary()
"""Untrained controls by the network they are of. To draw weights takes torch's one random state for a moment,
which a thread must not do while others draw: an explorer has them drawn before its thread begins."""


@dataclass(frozen=True, eq=False)
class Condition:
    """One way to gate a network for its tasks, once or several times (seeds of the masks, random draws).

    Attributes
    ----------
    name : a condition of the vocabulary
    networks : for each repetition the network that is gated
    gates : for each repetition address → (n_tasks, n_units); None stands for the whole network, ungated
    logits : (n_tasks,) the logit that each task reads
    targets : (n_repetitions, n_tasks) the class index that each task must accept
    kept_share : (n_repetitions, n_tasks) open gates over all units
    seed : of the masks or the draws, None where none or several apply
    drawn : True if the repetitions are draws, or other tasks' masks, whose spread is the interval
    rows : (n_repetitions, n_tasks) the row of the gates that each task is read under; None for its own
    """

    name: str
    networks: tuple[Network, ...]
    gates: tuple[Mapping[str, Tensor], ...] | None
    logits: Tensor
    targets: Tensor
    kept_share: Tensor
    seed: int | None = None
    drawn: bool = False
    rows: Tensor | None = None

    @property
    def repetitions(self) -> int:
        """How many answers the condition gives to one picture."""
        return 1 if self.gates is None else len(self.gates)

    @property
    def runs(self) -> int:
        """How often a picture passes the network for each task; another row of gates known needs no pass."""
        return 0 if self.rows is not None else self.repetitions


def own_conditions(network: Network, sets: Sequence[MaskSet], draws: int, seed: int) -> list[Condition]:
    """Return whole, kept, removed and (with at least one draw) random.

    Random draw i takes as many units of each layer and task as masks i (counted around) keep.
    """
    tasks = sets[0].tasks
    logits = torch.tensor([network.class_index(task) for task in tasks])
    ones = torch.ones(1, len(tasks), dtype=torch.float64)
    kept = _condition("kept", [network], sets, logits, logits[None])
    removed = tuple(masks.gates(keep=False) for masks in sets)
    random = [sets[draw % len(sets)].random(seed + draw) for draw in range(draws)]
    conditions = [
        Condition("whole", (network,), None, logits, logits[None], ones),
        kept,
        replace(kept, name="removed", gates=removed, kept_share=1 - kept.kept_share),
    ]
    if random:
        drawn = _condition("random", [network], random, logits, logits[None])
        conditions.append(replace(drawn, seed=seed, drawn=True))
    return conditions


def soft_condition(network: Network, sets: Sequence[MaskSet]) -> Condition:
    """Return kept with the scores themselves as gates, not what a threshold makes of them."""
    logits = torch.tensor([network.class_index(task) for task in sets[0].tasks])
    kept = _condition("kept", [network], sets, logits, logits[None])
    return replace(kept, name="soft", gates=tuple(dict(masks.scores) for masks in sets))


def compared_conditions(network: Network, kept: Condition) -> list[Condition]:
    """Return other, every task read under each other task's mask, and last_layer: all earlier units open.

    Of one task alone there is no other.
    """
    if kept.gates is None:
        return []
    last, count = list(network.layers)[-1], len(kept.logits)
    ends = tuple(
        {address: rows if address == last else torch.ones_like(rows) for address, rows in gates.items()}
        for gates in kept.gates
    )
    open_shares = torch.stack([torch.cat(list(gates.values()), 1).double().mean(1) for gates in ends])
    last_layer = replace(kept, name="last_layer", gates=ends, kept_share=open_shares)
    if count < 2:
        return [last_layer]
    # The same gates as kept, so that they are run once; task k reads its logit in row k + 1, k + 2, …
    shifts = torch.stack([torch.arange(count).roll(-shift) for shift in range(1, count)])
    rows = shifts.repeat(kept.repetitions, 1)
    other = replace(
        kept,
        name="other",
        networks=tuple(one for one in kept.networks for _ in shifts),
        gates=tuple(gates for gates in kept.gates for _ in shifts),
        targets=kept.logits.expand(len(rows), -1),
        kept_share=kept.kept_share.repeat_interleave(len(shifts), 0).gather(1, rows),
        drawn=True,
        rows=rows,
    )
    return [other, last_layer]


def learned_conditions(
    network: Network, tasks: Sequence[str], controls: Mapping[str, Sequence[MaskSet]]
) -> list[Condition]:
    """Return a condition for each learned control given, in the order of `LEARNED`."""
    logits = torch.tensor([network.class_index(task) for task in tasks])
    conditions = []
    for name in [name for name in LEARNED if name in controls]:
        sets = [_for_tasks(masks, tasks, name) for masks in controls[name]]
        for masks in sets:
            masks.check(network)
        targets, networks = logits[None], [network]
        if name == "relabelled":
            targets = torch.stack([_targets(masks, len(network.class_names)) for masks in sets])
        if name == "untrained":
            networks = [_untrained(network, masks) for masks in sets]
        conditions.append(_condition(name, networks, sets, logits, targets))
    return conditions


def draw_untrained(network: Network, masks: MaskSet) -> None:
    """Draw the weights of bundled untrained controls now, so that `whether` finds them drawn."""
    found, _ = find_controls("bundled", network, [masks])
    for control in found.get("untrained", ()):
        _untrained(network, control)


def _condition(
    name: str, networks: Sequence[Network], sets: Sequence[MaskSet], logits: Tensor, targets: Tensor
) -> Condition:
    """One network and one row of targets serve all repetitions, or each has its own."""
    shares = torch.tensor([list(masks.kept_share().values()) for masks in sets], dtype=torch.float64)
    seed = sets[0].meta.get("seed") if len(sets) == 1 else None
    return Condition(
        name,
        tuple(networks) if len(networks) > 1 else (networks[0],) * len(sets),
        tuple(masks.gates() for masks in sets),
        logits,
        targets.expand(len(sets), -1),
        shares,
        seed if isinstance(seed, int) else None,
    )


def _for_tasks(masks: MaskSet, tasks: Sequence[str], control: str) -> MaskSet:
    missing = [task for task in tasks if task not in masks.tasks]
    if missing:
        raise NadkitError(
            f"the control {control!r} has no masks for {', '.join(missing)}; "
            f"{closest(missing[0], masks.tasks)}"
        )
    return masks if masks.tasks == tuple(tasks) else masks[list(tasks)]


def _targets(masks: MaskSet, classes: int) -> Tensor:
    """(n_tasks,) the classes that relabelled masks had to accept."""
    moved = masks.meta.get("permutation")
    there = moved if isinstance(moved, list) else []
    if len(there) != len(masks.tasks) or not all(isinstance(k, int) and 0 <= k < classes for k in there):
        raise NadkitError(
            f"relabelled masks need meta['permutation'], one class index (0 to {classes - 1}) for each task; "
            f"it is {moved!r}: learn them with learn_masks(..., control='relabelled')"
        )
    return torch.tensor(there)


def _untrained(network: Network, masks: MaskSet) -> Network:
    from nadkit.networks import restore_untrained

    record = masks.meta.get("untrained")
    if not isinstance(record, Mapping):
        raise NadkitError(
            "untrained masks need meta['untrained'], which says how the network was re-initialised; "
            "learn them with learn_masks(..., control='untrained')"
        )
    drawn = _DRAWN.setdefault(network, {})
    mark = json.dumps(record, sort_keys=True, default=str)
    if mark not in drawn:
        drawn[mark] = restore_untrained(network, record)
    return drawn[mark]
