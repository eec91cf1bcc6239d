"""How much each unit matters to each task, by captum: one number per task and unit."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

import torch
from torch import Tensor
from tqdm.auto import tqdm

from nadkit.errors import LayerError, NadkitError
from nadkit.heatmaps.methods import ATTRIBUTIONS, captum, check_method
from nadkit.heatmaps.places import Place, answers, connected
from nadkit.images import Images
from nadkit.networks import Network, log_odds
from nadkit.networks.outputs import at_once
from nadkit.taps import Taps, frozen

PICTURES = MappingProxyType(
    {
        "activation": 100, "gradient-x-activation": 100, "integrated-gradients": 20, "feature-ablation": 10,
        "magnitude": 100,
    }
)  # fmt: skip
"""Pictures of a class, at most, where the caller gives no number; fewer for what costs more a picture."""

STEPS = 32
"""Steps from the blank to the picture, for conductance."""

_BATCH = 256  # pictures in one forward pass
BY_GRADIENT = ("gradient-x-activation", "integrated-gradients")
"""The methods that need a gradient from a layer to the logits."""


def unit_attributions(
    network: Network,
    images: Images,
    *,
    method: str,
    tasks: Sequence[str] | None = None,
    per_class: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, Tensor]:
    """Return how much each unit of every layer matters to each task, as an attribution method has it.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 2, bias=False))
    >>> _ = model[1].weight.data.copy_(torch.eye(2))
    >>> pixels = torch.tensor([[5.0, 0.0], [0.0, 3.0]])[:, None, None]
    >>> network = Network.wrap(model, ["left", "right"], example=pixels[:1], layers=["1"])
    >>> images = Images(pixels, torch.tensor([0, 1]), ("left", "right"))
    >>> unit_attributions(network, images, method="feature-ablation")["1"]
    tensor([[5., 0.],
            [0., 3.]], dtype=torch.float64)

    Parameters
    ----------
    network
        The trained network; it is frozen meanwhile and restored afterwards.
    images
        Pictures of every task; classes are matched to tasks by name.
    method
        One of `ATTRIBUTIONS`.
    tasks
        Class names of the network; by default all that have pictures.
    per_class
        Use so many pictures of each class, picked at random by `seed`; None for a number that suits the
        method's cost (10 to 100), or all if there are fewer.
    seed
        Of the pictures picked.
    progress
        Show a bar.

    Returns
    -------
    dict
        For every address (n_tasks, n_units) float64: the mean over pictures. On the scale of the task's
        log-odds, and signed, for gradient × activation, conductance and ablation; of the activations, and 0
        or more, for activation and magnitude. 0 for a layer from which no gradient reaches the logits.

    Raises
    ------
    ImageError
        There is no picture of a task, or fewer than `per_class`; pictures that the network cannot take.
    LayerError
        A layer cannot be tapped as it is named, such as a bare address of a module that runs twice.
    NadkitError
        An unknown method or task; attributions that are not finite.

    Notes
    -----
    The target is the log-odds of the task, on the task's own pictures. Maps are summed over positions
    (squares and absolute values: averaged).

    * activation: captum's LayerActivation, squared.
    * gradient-x-activation: captum's LayerGradientXActivation.
    * integrated-gradients: captum's LayerConductance, in `STEPS` steps from an input of zeros, which for the
      bundled networks is an even picture of the mean grey. A layer's units sum up to the difference of the
      log-odds between picture and blank, as far as the steps are fine enough.
    * feature-ablation: captum's FeatureAblation over a vector of gates, one a unit and all one: the log-odds
      lost when a gate is set to 0, which is what "removed" means everywhere here.
    * magnitude: mean absolute activation over pictures of all classes. A place after an activation or a block
      has no weights of its own, so that a norm of weights would not exist for every unit.

    **Source**: Dhamdhere, Sundararajan, Yan, "How Important Is a Neuron?", ICLR 2019, for conductance.
    """
    check_method(method, ATTRIBUTIONS)
    names = _tasks(network, images, tasks)
    indices = [network.class_index(name) for name in names]
    sizes = [layer.units for layer in network.layers.values()]
    groups = [_picked(images, name, method, per_class, seed) for name in names]
    if method == "magnitude":
        every = [name for name, count in images.counts().items() if count]
        groups, indices = [_picked(images, name, method, per_class, seed) for name in every], [0] * len(every)
    means = []
    with torch.inference_mode(False), torch.no_grad(), frozen(network.model):
        reached = connected(network, network.prepare(groups[0].pixels[:1]))
        if not reached and method in BY_GRADIENT:
            raise LayerError(
                f"no gradient reaches the logits of {network.name} from its layers "
                f"{', '.join(list(network.layers)[:5])}; use 'feature-ablation', which needs none"
            )
        for group, index in zip(tqdm(groups, desc=method, disable=not progress), indices, strict=True):
            means.append(_mean(network, group, index, method, reached))
    if method == "magnitude":
        weights = torch.tensor([len(group) for group in groups]).double()
        means = [(torch.stack(means) * weights[:, None]).sum(0) / weights.sum()] * len(names)
    values = torch.stack(means)
    if not bool(torch.isfinite(values).all()):
        bad = names[int((~values.isfinite()).nonzero()[0, 0])]
        raise NadkitError(
            f"{method} of {network.name} is NaN or infinite for {bad!r}; check the network's weights"
        )
    return dict(zip(network.layers, values.split(sizes, 1), strict=True))


def _tasks(network: Network, images: Images, tasks: Sequence[str] | None) -> list[str]:
    if isinstance(tasks, str):
        raise NadkitError(f"tasks must be a list of class names; give [{tasks!r}]")
    counts = images.counts()
    names = [name for name in network.class_names if counts.get(name)] if tasks is None else list(tasks)
    if not names:
        raise NadkitError(
            f"no task to attribute to: pictures are of {list(images.class_names)}, classes of {network.name} "
            f"are {list(network.class_names)}"
        )
    return names


def _picked(images: Images, name: str, method: str, per_class: int | None, seed: int) -> Images:
    own = images.of(name)
    return own.take(min(len(own), PICTURES[method]) if per_class is None else per_class, seed)


def _mean(network: Network, images: Images, index: int, method: str, reached: Sequence[str]) -> Tensor:
    """Mean over pictures of every unit's attribution to the log-odds of one class, (units,) float64."""
    total = torch.zeros(network.units, dtype=torch.float64)
    for pixels, _ in images.batches(max(1, at_once(network.input_shape, _BATCH) // (STEPS + 1))):
        inputs = network.prepare(pixels)
        if method == "feature-ablation":
            found = _ablation(network, inputs, index)
        else:
            maps = maps_by(network, inputs, index, method, reached)
            found = torch.cat(
                [
                    _per_unit(maps[address], layer.axis, method)
                    if address in maps
                    else inputs.new_zeros(len(inputs), layer.units)
                    for address, layer in network.layers.items()
                ],
                dim=1,
            )
        total += found.double().sum(0).cpu()
    return total / len(images)


def maps_by(
    network: Network, inputs: Tensor, index: int, method: str, reached: Sequence[str]
) -> dict[str, Tensor]:
    """Return attributions to the log-odds of a class, picture by picture, in the shape of each layer.

    Parameters
    ----------
    network : frozen; gates around the call act before a layer's output is read
    inputs : prepared pictures
    index : of the class
    method : one that has maps: of `MAPPED`, or "magnitude"
    reached : addresses from which a gradient reaches the logits; methods by gradient are of these only
    """
    attr = captum()
    places = {address: Place() for address in (reached if method in BY_GRADIENT else network.layers)}
    every = answers(network, places)
    maps: list[Tensor]
    if method == "gradient-x-activation":
        maps = attr.LayerGradientXActivation(every, list(places.values())).attribute(inputs, target=index)
    elif method == "integrated-gradients":
        # Unlike captum's default, these steps begin at the blank and end at the picture.
        settings = {"target": index, "n_steps": STEPS, "method": "riemann_trapezoid"}
        maps = [
            attr.LayerConductance(every, place).attribute(inputs, **settings) for place in places.values()
        ]
    else:
        maps = attr.LayerActivation(every, list(places.values())).attribute(inputs)
    return dict(zip(places, maps, strict=True))


def _per_unit(values: Tensor, axis: int, method: str) -> Tensor:
    """One number per picture and unit, (N, units), of maps with the units on an axis."""
    rows = values.double().movedim(axis, 1)
    rows = rows.reshape(*rows.shape[:2], -1)
    if method == "activation":
        return rows.square().mean(2)
    return rows.abs().mean(2) if method == "magnitude" else rows.sum(2)


def _ablation(network: Network, inputs: Tensor, index: int) -> Tensor:
    """Log-odds lost on each picture by removing each unit, (N, units)."""
    sizes = [layer.units for layer in network.layers.values()]

    def forward(gates: Tensor, pictures: Tensor) -> Tensor:
        opened = dict(zip(network.layers, gates.split(sizes, 1), strict=True))
        with Taps(network, (), gates=opened, rows=torch.arange(len(gates), device=gates.device)):
            return log_odds(network.logits(pictures))

    together = max(1, at_once(inputs.shape[1:], _BATCH) // len(inputs))
    lost: Tensor = captum().FeatureAblation(forward).attribute(
        inputs.new_ones(len(inputs), sum(sizes)), target=index, additional_forward_args=(inputs,),
        perturbations_per_eval=together,
    )  # fmt: skip
    return lost
