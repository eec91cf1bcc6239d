"""The conditions that `whether` compares: which gates, on which network, and which class is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nadkit.errors import NadkitError, closest
from nadkit.masks import MaskSet
from nadkit.networks import Network
from nadkit.questions.controls import LEARNED


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
    drawn : True if the repetitions are random draws, whose spread is the interval
    """

    name: str
    networks: tuple[Network, ...]
    gates: tuple[Mapping[str, Tensor], ...] | None
    logits: Tensor
    targets: Tensor
    kept_share: Tensor
    seed: int | None = None
    drawn: bool = False

    @property
    def repetitions(self) -> int:
        """How many answers the condition gives to one picture."""
        return 1 if self.gates is None else len(self.gates)


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
    return restore_untrained(network, record)
