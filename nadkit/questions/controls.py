"""Which learned controls stand beside the masks, and whether they were learned as the masks were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from nadkit.errors import NadkitError, closest
from nadkit.images import Images
from nadkit.learn.controls import fingerprint, learn_controls
from nadkit.masks import MaskSet
from nadkit.networks import BUNDLED, Network, load_masks, mask_path

LEARNED = ("relabelled", "shared", "untrained")
"""The learned controls, in the order of the tables."""

OTHERWISE = "learned otherwise: "
"""What the origin of a control says before it names how its learning differed from that of the masks."""

NEAR = 0.02
"""How far a kept share may be from the one asked for: as far as learning may miss it."""

Controls = Mapping[str, MaskSet | Sequence[MaskSet]] | str | None

# What a setting says about the result of one run, or about the control itself, and not about the learner.
_NOT_HOW = {"kept_share", "shared", "pictures", "beta", "missed_share_by", "goal", "reached"}

# What masks were learned with before these settings were there to be written down.
_BEFORE: dict[str, object] = {"bend": 3.0}

_LEARNED_BEFORE: dict[str, dict[str, MaskSet]] = {}
"""Controls that this process has learned, by the fingerprint of network, masks' settings and pictures."""


def find_controls(
    controls: Controls, network: Network, sets: Sequence[MaskSet], learn_on: Images | None = None
) -> tuple[dict[str, list[MaskSet]], dict[str, str]]:
    """Return the learned controls asked for, and where each came from.

    A control stands for "what the same learner finds anyway". So the origin says what was different when it
    was learned: "bundled, learned otherwise: steps". Nothing is said where either has no settings.

    Parameters
    ----------
    controls : masks by name, "bundled", "learned", or None
    network : the trained network
    sets : its masks, one or several seeds
    learn_on : the pictures that "learned" learns from, where no bundled controls are those of the masks

    Returns
    -------
    tuple
        The masks of each control, and its origin in words: "bundled", "learned" or "given", and what
        differs.

    Raises
    ------
    NadkitError
        A name that is no learned control, or another text; "learned" without pictures, or of masks whose
        meta does not tell how they were learned.
    """
    if learn_on is not None and controls != "learned":
        raise NadkitError("learn_on is for controls='learned', which learns them from these pictures")
    if controls is None:
        return {}, {}
    if isinstance(controls, str):
        if controls not in ("bundled", "learned"):
            raise NadkitError(
                f"no controls {controls!r}; give 'bundled', 'learned', None, or masks by name "
                f"({', '.join(LEARNED)})"
            )
        found, origin = _bundled(network, sets), "bundled"
        if controls == "learned" and not (len(found) == len(LEARNED) and _are_bundled(network, sets)):
            found, origin = _learned(network, sets, learn_on), "learned"
    else:
        found, origin = _given(controls), "given"
    return found, {name: _origin(origin, sets, masks) for name, masks in found.items()}


def _learned(network: Network, sets: Sequence[MaskSet], images: Images | None) -> dict[str, list[MaskSet]]:
    if images is None:
        raise NadkitError(
            "controls='learned' needs learn_on, the training pictures that the masks were learned from: no "
            f"bundled controls are those of these masks of {network.name}"
        )
    found: dict[str, list[MaskSet]] = {name: [] for name in LEARNED}
    for masks in sets:
        mark = fingerprint(network, images, masks)
        if mark not in _LEARNED_BEFORE:
            _LEARNED_BEFORE[mark] = learn_controls(network, images, masks, progress=True)
        for name, control in _LEARNED_BEFORE[mark].items():
            found[name].append(control)
    return found


def _are_bundled(network: Network, sets: Sequence[MaskSet]) -> bool:
    """Tell whether masks are the bundled ones of their seed, of all tasks or some."""
    for masks in sets:
        share, seed = asked_share(masks), masks.meta.get("seed")
        if share is None or not isinstance(seed, int):
            return False
        path = mask_path(network.name, objective="one-vs-rest", kept_share=share, seed=seed, control=None)
        if not path.exists():
            return False
        theirs = load_masks(network.name, kept_share=share, seed=seed)[list(masks.tasks)]
        if not all(torch.equal(scores, theirs.scores[address]) for address, scores in masks.scores.items()):
            return False
    return True


def _given(controls: object) -> dict[str, list[MaskSet]]:
    if not isinstance(controls, Mapping):
        raise NadkitError(
            f"controls are {type(controls).__name__}; give 'bundled', 'learned', None, or masks by name "
            f"({', '.join(LEARNED)})"
        )
    for name in controls:
        if name not in LEARNED:
            raise NadkitError(f"no learned control {name!r}; {closest(str(name), LEARNED)}")
    given = {
        name: [sets] if isinstance(sets, MaskSet) else list(sets) if isinstance(sets, Sequence) else []
        for name, sets in controls.items()
    }
    for name, sets in given.items():
        if not sets or not all(isinstance(one, MaskSet) for one in sets):
            raise NadkitError(f"the control {name!r} is no MaskSet; give one, or several seeds as a list")
    return given


def _bundled(network: Network, sets: Sequence[MaskSet]) -> dict[str, list[MaskSet]]:
    """Controls of the same kept share that were learned of this very network; none if there are none.

    As many seeds as there are of the masks, if so many are bundled.
    """
    shares = {asked_share(masks) for masks in sets}
    share = shares.pop()
    if shares or share is None or network.name not in BUNDLED:
        return {}
    if any(masks.meta.get("weights_id") != network.weights_id for masks in sets):
        return {}
    found: dict[str, list[MaskSet]] = {}
    for name in LEARNED:
        for seed in range(len(sets)):
            path = mask_path(network.name, objective="one-vs-rest", kept_share=share, seed=seed, control=name)
            if not path.exists():
                continue
            control = load_masks(network.name, kept_share=share, seed=seed, control=name)
            if control.meta.get("weights_id") == network.weights_id:
                found.setdefault(name, []).append(control)
    return found


def asked_share(masks: MaskSet) -> float | None:
    """Return the one kept share that all tasks were asked for, None unless the masks have it within 0.02."""
    asked = _settings(masks).get("kept_share")
    values = {asked} if isinstance(asked, int | float) else set(asked) if isinstance(asked, list) else set()
    if len(values) != 1:
        return None
    share = float(values.pop())
    kept = masks.kept_share().values()
    # The official recipe keeps what it keeps; controls of another size are no controls.
    return share if all(abs(each - share) <= NEAR + 1e-9 for each in kept) else None


def _origin(origin: str, sets: Sequence[MaskSet], controls: Sequence[MaskSet]) -> str:
    differ = dict.fromkeys(name for masks in sets for control in controls for name in _differ(masks, control))
    return f"{origin}, {OTHERWISE}{', '.join(differ)}" if differ else origin


def _differ(masks: MaskSet, control: MaskSet) -> list[str]:
    """What was different when the two were learned: the objective alone, or its settings."""
    mine, theirs = _settings(masks), _settings(control)
    if not mine or not theirs:
        return []
    if masks.meta.get("objective") != control.meta.get("objective"):
        return ["objective"]
    one, other = _learner(mine), _learner(theirs)
    found = [key for key in sorted({*one, *other}) if one.get(key) != other.get(key)]
    # The digest is of pictures and of what each task must accept, which is another class for relabelled.
    if masks.tasks == control.tasks and "permutation" not in control.meta and "permutation" not in masks.meta:
        found += ["pictures"] * (mine.get("pictures") != theirs.get("pictures"))
    far = abs(_mean_share(masks) - _mean_share(control)) > 2 * NEAR
    return found + ["kept share"] * far


def _learner(settings: Mapping[str, object]) -> dict[str, object]:
    """The learner's settings, with the number of steps by one name: the one given, or the objective's."""
    plain = {key: value for key, value in {**_BEFORE, **settings}.items() if key not in _NOT_HOW}
    usual = plain.pop("steps_per_task", None)
    plain["steps"] = plain.get("steps") or usual
    return plain


def _settings(masks: MaskSet) -> Mapping[str, object]:
    settings = masks.meta.get("settings")
    return settings if isinstance(settings, Mapping) else {}


def _mean_share(masks: MaskSet) -> float:
    shares = masks.kept_share().values()
    return sum(shares) / len(shares)
