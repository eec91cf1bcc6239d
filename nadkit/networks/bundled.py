"""The eight bundled networks and the masks that were learned of them once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from nadkit.errors import NadkitError, closest
from nadkit.masks import MaskSet
from nadkit.networks.builders import build
from nadkit.networks.network import Network, Standardise, hash_weights
from nadkit.networks.places import choose_layers
from nadkit.taps import frozen

DATA = Path(__file__).parent / "data"
FAMILIES = ("vgg", "resnet", "densenet", "darts")
SOURCES = ("fashion", "scenes")
_OBJECTIVES = ("one-vs-rest", "official")
_CONTROLS = ("relabelled", "shared", "untrained")
BUNDLED = tuple(f"{family}-{source}" for source in SOURCES for family in FAMILIES)


def _world(source: str) -> tuple[tuple[int, int, int], tuple[str, ...], Standardise]:
    if source == "fashion":
        from nadkit.images.fashion import CLASS_NAMES

        return (1, 28, 28), CLASS_NAMES, Standardise((0.286,), (0.353,))
    from nadkit.images.scenes import CLASS_NAMES

    return (3, 32, 32), CLASS_NAMES, Standardise((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def _known(name: str) -> tuple[str, str]:
    if name not in BUNDLED:
        raise NadkitError(
            f"no bundled network {name!r}; {closest(str(name), BUNDLED)}; others: Network.wrap(model, ...)"
        )
    family, source = name.split("-")
    return family, source


def fresh_network(name: str, *, seed: int = 0) -> Network:
    """Return a bundled network's architecture with fresh weights; the caller's random state is untouched.

    Examples
    --------
    >>> fresh_network("vgg-fashion").input_shape
    (1, 28, 28)

    Parameters
    ----------
    name : `{vgg, resnet, densenet, darts}-{fashion, scenes}`
    seed : of the weights; the same on every device

    Raises
    ------
    NadkitError
        No such network; the closest names are given.
    """
    family, source = _known(name)
    shape, class_names, preprocess = _world(source)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # not that of a GPU, which is not restored
        model, addresses = build(family, shape[0], len(class_names))
    return _network(name, model, addresses, shape, class_names, preprocess)


def _network(
    name: str, model: nn.Module, addresses: list[str], shape: tuple[int, int, int],
    class_names: tuple[str, ...], preprocess: Standardise,
) -> Network:  # fmt: skip
    model = model.eval().requires_grad_(False)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # missing in torch's types
    with frozen(model), torch.no_grad():
        layers, _ = choose_layers(model, torch.zeros(1, *shape), addresses)
    return Network(
        name,
        model,
        MappingProxyType(layers),
        class_names,
        hash_weights(model.state_dict()),
        preprocess,
        shape,
    )


def load_network(name: str) -> Network:
    """Return a bundled, pre-trained network: frozen, in eval mode, on the CPU; nothing is downloaded.

    Parameters
    ----------
    name : `{vgg, resnet, densenet, darts}-{fashion, scenes}`

    Examples
    --------
    >>> load_network("resnet-fashion").class_names[7]
    'sneaker'

    Raises
    ------
    NadkitError
        No such network (the closest names are given), or its file does not hold the weights it names.
    """
    family, source = _known(name)
    shape, class_names, preprocess = _world(source)
    card, weights = _read(name)
    with torch.random.fork_rng(devices=[]):
        model, addresses = build(family, shape[0], len(class_names))
    counters = {k: v for k, v in model.state_dict().items() if k.endswith("num_batches_tracked")}
    try:
        model.load_state_dict({**weights, **counters})
    except RuntimeError as error:
        raise NadkitError(
            f"the file of {name} does not hold the weights of a {family}; reinstall nadkit ({error})"
        ) from None
    network = _network(name, model, addresses, shape, class_names, preprocess)
    if network.weights_id != card["weights_id"]:
        raise NadkitError(
            f"the file of {name} names weights {card['weights_id']} and holds {network.weights_id}; "
            "it was changed: reinstall nadkit"
        )
    return network


def model_card(name: str) -> Mapping[str, Any]:
    """Return a bundled network's card: data, command, seed, accuracy, parameters, MFLOP per picture.

    A multiplication with its addition counts as two operations. `test_accuracy` is that on all
    `test_pictures`, `test_accuracy_200_a_class` that on `load_images(..., split="test")`.

    Examples
    --------
    >>> model_card("resnet-fashion")["family"]
    'resnet'

    Raises
    ------
    NadkitError
        No such network, or its file is missing or damaged.
    """
    _known(name)
    return _read(name)[0]


def _read(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the card and the tensors of a bundled network's file."""
    path = DATA / f"{name}.safetensors"
    if not path.exists():
        raise NadkitError(
            f"the weights of {name} are not installed; train them: python -m nadkit.networks.train {name}"
        )
    try:
        with safe_open(path, "pt") as file:
            card: dict[str, Any] = json.loads((file.metadata() or {})["card"])
            return card, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, KeyError, ValueError) as error:
        raise NadkitError(
            f"the file of {name} is damaged ({error}); reinstall nadkit, or train it again: "
            f"python -m nadkit.networks.train {name}"
        ) from None


def mask_path(name: str, *, objective: str, kept_share: float, seed: int, control: str | None) -> Path:
    """Return where a bundled mask file lies.

    Examples
    --------
    >>> mask_path("vgg-fashion", objective="official", kept_share=0.3, seed=0, control=None).name
    'vgg-fashion-official-30-s0.safetensors'
    """
    percent = f"{kept_share * 100:.6g}".zfill(2)  # 30, but 30.5 for a share that is not bundled
    return DATA / "masks" / f"{name}-{control or objective}-{percent}-s{seed}.safetensors"


def load_masks(
    name: str,
    *,
    objective: str = "one-vs-rest",
    kept_share: float = 0.3,
    seed: int = 0,
    control: str | None = None,
) -> MaskSet:
    """Return masks of a bundled network that were learned once, from the first 400 training pictures a class.

    Parameters
    ----------
    name : a bundled network
    objective : `"one-vs-rest"` (of `darts-scenes` with bounded log-odds, see `nadkit.learn.OneVsRest`) or
        `"official"` (β bisected per task; seed 0)
    kept_share : share of all units that each task keeps: 0.3 or 0.5
    seed : seed of the learning: 0, 1 or 2 of the tasks' own one-vs-rest masks
    control : None for the tasks' own masks, or `"relabelled"`, `"shared"`, `"untrained"` (seed 0)

    Examples
    --------
    >>> load_masks("resnet-fashion").tasks[7]
    'sneaker'

    Raises
    ------
    NadkitError
        No such masks are bundled; what there is is listed.
    """
    _known(name)
    if isinstance(kept_share, bool) or not isinstance(kept_share, (int, float)):
        raise NadkitError(f"bundled masks have a kept share, a number in (0, 1], got {kept_share!r}")
    for kind, given, known in (("objective", objective, _OBJECTIVES), ("control", control, _CONTROLS)):
        if given is not None and given not in known:
            raise NadkitError(f"no bundled masks of {kind} {given!r}; {closest(str(given), known)}")
    if control is not None and objective != "one-vs-rest":
        raise NadkitError(
            f"controls are bundled for one-vs-rest, not for {objective!r}; learn_masks makes others"
        )
    path = mask_path(
        name,
        objective=objective,
        kept_share=kept_share,
        seed=seed,
        control=control,
    )
    if not path.exists():
        there = sorted(p.stem.removeprefix(f"{name}-") for p in path.parent.glob(f"{name}-*.safetensors"))
        asked = f"objective={objective!r}, kept_share={kept_share}, seed={seed}, control={control!r}"
        raise NadkitError(
            f"no bundled masks of {name} for {asked}; there are: {', '.join(there) or 'none'}; "
            "learn_masks makes others"
        )
    return MaskSet.load(path)
