"""`learn_controls`: the learned controls of masks, learned as the masks were."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from nadkit.errors import MaskFileError, NadkitError
from nadkit.images import Images
from nadkit.learn.objectives import Objective
from nadkit.learn.problem import set_up
from nadkit.learn.verb import OBJECTIVES, learn_masks
from nadkit.masks import MaskSet
from nadkit.networks import Network

NAMES = ("relabelled", "shared", "untrained")


def learn_controls(
    network: Network,
    images: Images,
    like: MaskSet,
    *,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> dict[str, MaskSet]:
    """Return the three learned controls of masks: by the same objective, as long, as large, of the same seed.

    Parameters
    ----------
    network : the trained network that the masks are of
    images : the training pictures that the masks were learned from
    like : the masks, as `learn_masks` gave them; their meta says how they were learned
    folder : where each control is written when it is done, and found again instead of learned; a run that was
        interrupted is resumed from there
    progress : show a bar for each control

    Returns
    -------
    dict
        relabelled (each logit must accept another class), shared (one mask for all tasks; of masks of several
        kept shares, of their mean) and untrained (fresh weights); the first argument of
        `whether(..., controls=...)`.

    Raises
    ------
    NadkitError
        The meta of the masks does not tell how they were learned, or they are a control themselves; they
        were learned from other pictures, as far as their meta tells.
    MaskFileError
        Masks of another network; a file in the folder is damaged, or is of other masks or pictures.
    ImageError
        As `learn_masks` raises it.

    Notes
    -----
    Each takes as long as the masks did. Masks of `kept_share="auto"` and of the official recipe have controls
    of the size that the masks came to have.

    Examples
    --------
    >>> import nadkit as nk
    >>> network, images = nk.load_network("vgg-fashion"), nk.load_images("fashion", per_class=8)
    >>> masks = nk.learn_masks(network, images, tasks=["bag", "coat"], steps=2, progress=False)
    >>> controls = learn_controls(network, images, masks)
    >>> {name: control.meta["control"] for name, control in controls.items()}
    {'relabelled': 'relabelled', 'shared': 'shared', 'untrained': 'untrained'}
    """
    for argument, kind in ((network, Network), (images, Images), (like, MaskSet)):
        if not isinstance(argument, kind):
            raise NadkitError(
                f"learn_controls needs a {kind.__name__}, and got {type(argument).__name__}; "
                "give network, images, masks"
            )
    like.check(network)
    settings = _settings_of(like)
    _check_pictures(network, images, like)
    mark = fingerprint(network, images, like)
    place = None if folder is None else Path(folder)
    if place is not None:
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NadkitError(f"the folder {place} cannot be made ({error}); give another one") from None
    found = {}
    for name in NAMES:
        path = None if place is None else place / f"{name}-s{settings['seed']}.safetensors"
        if path is not None and path.exists():
            found[name] = _checked(path, network, mark)
            continue
        given = dict(settings)
        if name == "shared":
            shares = given["kept_share"].values()
            given["kept_share"] = sum(shares) / len(shares)
        state = None if path is None else path.with_suffix(".part")
        masks = learn_masks(
            network,
            images,
            tasks=like.tasks,
            shared=name == "shared",
            control=None if name == "shared" else name,
            progress=progress,
            checkpoint=state,
            **given,
        )
        found[name] = masks.with_meta(learned_like=mark)
        if path is not None and state is not None:
            found[name].save(path)
            for rest in path.parent.glob(f"{state.name}*"):
                rest.unlink()
    return found


def fingerprint(network: Network, images: Images, like: MaskSet) -> str:
    """Return 16 hex digits that name a network's weights, how masks were learned, their size, and pictures.

    Examples
    --------
    >>> import nadkit as nk
    >>> network, images = nk.load_network("vgg-fashion"), nk.load_images("fashion", per_class=5)
    >>> masks = nk.load_masks("vgg-fashion")
    >>> len(fingerprint(network, images, masks))
    16

    Raises
    ------
    NadkitError
        The meta of the masks does not tell how they were learned.
    """
    settings = _settings_of(like)
    how = {**settings, "objective": [settings["objective"].name, vars(settings["objective"])]}
    facts = [network.weights_id, like.tasks, how, list(images.class_names), tuple(images.pixels.shape)]
    sha = hashlib.sha256(json.dumps(facts, sort_keys=True, default=repr).encode())
    sha.update(images.labels.contiguous().numpy().tobytes())
    sample = torch.linspace(0, len(images) - 1, min(64, len(images))).long()
    sha.update(images[sample].pixels[:].contiguous().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()[:16]


def _check_pictures(network: Network, images: Images, like: MaskSet) -> None:
    """Refuse other pictures than the masks were learned from, as far as their meta tells."""
    settings = cast(Mapping[str, Any], like.meta["settings"])
    asked, digest = settings.get("kept_share"), settings.get("pictures")
    # The digest is of the tasks, too: of some of them alone it cannot be made again.
    if digest is None or not isinstance(asked, list) or len(asked) != len(like.tasks):
        return
    usual = [name for name in network.class_names if name in like.tasks]
    if digest not in {set_up(network, images, tasks, None, 0).digest() for tasks in (like.tasks, usual)}:
        raise NadkitError(
            "these are not the pictures that the masks were learned from, and controls that saw others are "
            "none; give the very pictures that learn_masks got, and masks with the tasks in the order of then"
        )


def _settings_of(like: MaskSet) -> dict[str, Any]:
    """What `learn_masks` has to be given to learn like these masks; kept shares by task."""
    meta, settings = like.meta, like.meta.get("settings")
    name, seed, steps = meta.get("objective"), meta.get("seed"), None
    known = isinstance(name, str) and name in OBJECTIVES
    if not isinstance(settings, Mapping) or not isinstance(seed, int) or not known:
        raise NadkitError(
            "the meta of these masks does not tell how they were learned (objective, settings and seed, as "
            f"learn_masks writes them; the objective is {name!r}); give controls by name: "
            f"controls={{{', '.join(f'{control!r}: …' for control in NAMES)}}}"
        )
    if meta.get("control") is not None or settings.get("shared"):
        raise NadkitError(
            f"these masks are a control themselves ({meta.get('control')}); give the tasks' own masks"
        )
    steps = settings.get("steps")
    asked, shares = settings.get("kept_share"), like.kept_share()
    if isinstance(asked, list) and len(set(asked)) == 1 and name != "official":
        shares = dict.fromkeys(like.tasks, float(asked[0]))
    elif isinstance(asked, list) and len(asked) == len(like.tasks) and name != "official":
        shares = dict(zip(like.tasks, map(float, asked), strict=True))
    return {
        "objective": _objective(str(name), settings),
        "kept_share": {task: max(share, 1e-6) for task, share in shares.items()},
        "steps": steps if isinstance(steps, int) else None,
        "seed": seed,
    }


def _objective(name: str, settings: Mapping[str, Any]) -> Objective:
    """The objective with the settings that it had, its batch size among them."""
    made = OBJECTIVES[name]()
    for key, value in settings.items():
        if key in ("own", "rest", "hard") or (key in vars(made) and key != "beta"):
            setattr(made, key, tuple(value) if isinstance(value, list) else value)
    return made


def _checked(path: Path, network: Network, mark: str) -> MaskSet:
    masks = MaskSet.load(path)
    masks.check(network)
    if masks.meta.get("learned_like") != mark:
        raise MaskFileError(
            f"{path} holds a control of other masks or pictures; give another folder, or remove the file"
        )
    return masks
