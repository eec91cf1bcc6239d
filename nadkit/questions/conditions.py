"""The conditions that `whether` compares: which gates, on which network, and which class is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nadkit.errors import NadkitError, closest
from nadkit.masks import MaskSet
from nadkit.networks import BUNDLED, Network, load_masks, mask_path

LEARNED = ("relabelled", "shared", "untrained")
"""The learned controls, in the order of the tables."""

Controls = Mapping[str, MaskSet | Sequence[MaskSet]] | str | None


@dataclass(frozen=True, eq=False)
class Condition:
    """One way to gate a network for its tasks, once or several times (seeds of the masks, random draws).

    Attributes
    ----------
    name : a condition of the vocabulary
    network : the network that is gated
    gates : for each repetition address → (n_tasks, n_units); None stands for the whole network, ungated
    logits : (n_tasks,) the logit that each task reads
    targets : (n_tasks,) the class index that each task must accept
    kept_share : (n_repetitions, n_tasks) open gates over all units
    seed : of the masks or the draws, None where none or several apply
    drawn : True if the repetitions are random draws, whose spread is the interval
    """

    name: str
    network: Network
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
    kept = _condition("kept", network, sets, logits, logits)
    removed = tuple(masks.gates(keep=False) for masks in sets)
    random = [sets[draw % len(sets)].random(seed + draw) for draw in range(draws)]
    conditions = [
        Condition("whole", network, None, logits, logits, ones),
        kept,
        replace(kept, name="removed", gates=removed, kept_share=1 - kept.kept_share),
    ]
    if random:
        drawn = _condition("random", network, random, logits, logits)
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
        targets = logits
        if name == "relabelled":
            targets = _targets(sets, len(network.class_names))
        gated = network
        if name == "untrained":
            gated = _untrained(network, sets)
        conditions.append(_condition(name, gated, sets, logits, targets))
    return conditions


def find_controls(
    controls: Controls, network: Network, masks: MaskSet
) -> tuple[dict[str, list[MaskSet]], dict[str, str]]:
    """Return the learned controls asked for, and where each came from.

    Raises
    ------
    NadkitError
        A name that is no learned control, or a text other than "bundled".
    """
    if controls is None:
        return {}, {}
    if isinstance(controls, str):
        if controls != "bundled":
            raise NadkitError(
                f"no controls {controls!r}; give 'bundled', None, or masks by name ({', '.join(LEARNED)})"
            )
        found = _bundled(network, masks)
        return found, dict.fromkeys(found, "bundled")
    for name in controls:
        if name not in LEARNED:
            raise NadkitError(f"no learned control {name!r}; {closest(str(name), LEARNED)}")
    given = {name: [sets] if isinstance(sets, MaskSet) else list(sets) for name, sets in controls.items()}
    for name, sets in given.items():
        if not sets or not all(isinstance(one, MaskSet) for one in sets):
            raise NadkitError(f"the control {name!r} is no MaskSet; give one, or several seeds as a list")
    return given, dict.fromkeys(given, "given")


def _bundled(network: Network, masks: MaskSet) -> dict[str, list[MaskSet]]:
    """Controls of the same kept share that were learned of this very network; none if there are none."""
    share = _asked_share(masks)
    if network.name not in BUNDLED or masks.meta.get("weights_id") != network.weights_id or share is None:
        return {}
    found = {}
    for name in LEARNED:
        path = mask_path(network.name, objective="one-vs-rest", kept_share=share, seed=0, control=name)
        if path.exists():
            control = load_masks(network.name, kept_share=share, seed=0, control=name)
            if control.meta.get("weights_id") == network.weights_id:
                found[name] = [control]
    return found


def _asked_share(masks: MaskSet) -> float | None:
    """The one kept share that all tasks were asked for, if the masks have it within 0.02."""
    settings = masks.meta.get("settings")
    asked = settings.get("kept_share") if isinstance(settings, Mapping) else None
    values = {asked} if isinstance(asked, int | float) else set(asked) if isinstance(asked, list) else set()
    if len(values) != 1:
        return None
    share = float(values.pop())
    kept = masks.kept_share().values()
    # The official recipe keeps what it keeps; controls of another size are no controls.
    return share if all(abs(each - share) <= 0.02 + 1e-9 for each in kept) else None


def _condition(
    name: str, network: Network, sets: Sequence[MaskSet], logits: Tensor, targets: Tensor
) -> Condition:
    shares = torch.tensor([list(masks.kept_share().values()) for masks in sets], dtype=torch.float64)
    seed = sets[0].meta.get("seed") if len(sets) == 1 else None
    gates = tuple(masks.gates() for masks in sets)
    return Condition(name, network, gates, logits, targets, shares, seed if isinstance(seed, int) else None)


def _for_tasks(masks: MaskSet, tasks: Sequence[str], control: str) -> MaskSet:
    missing = [task for task in tasks if task not in masks.tasks]
    if missing:
        raise NadkitError(
            f"the control {control!r} has no masks for {', '.join(missing)}; "
            f"{closest(missing[0], masks.tasks)}"
        )
    return masks if masks.tasks == tuple(tasks) else masks[list(tasks)]


def _targets(sets: Sequence[MaskSet], classes: int) -> Tensor:
    permutations = [masks.meta.get("permutation") for masks in sets]
    first = permutations[0] if isinstance(permutations[0], list) else []
    if len(first) != len(sets[0].tasks) or not all(isinstance(k, int) and 0 <= k < classes for k in first):
        raise NadkitError(
            f"relabelled masks need meta['permutation'], one class index (0 to {classes - 1}) for each task; "
            f"it is {permutations[0]!r}: learn them with learn_masks(..., control='relabelled')"
        )
    if any(permutation != first for permutation in permutations):
        raise NadkitError("the seeds of 'relabelled' have different permutations; give those of one")
    return torch.tensor(first)


def _untrained(network: Network, sets: Sequence[MaskSet]) -> Network:
    from nadkit.networks import restore_untrained

    specs = [masks.meta.get("untrained") for masks in sets]
    if not isinstance(specs[0], Mapping) or any(spec != specs[0] for spec in specs):
        raise NadkitError(
            "untrained masks need meta['untrained'], the same for all seeds, which says how the network was "
            "re-initialised; learn them with learn_masks(..., control='untrained')"
        )
    return restore_untrained(network, specs[0])
