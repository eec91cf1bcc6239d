"""`extract`: kept units and the links among them."""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
from collections.abc import Generator, Mapping, Sequence
from typing import overload

import torch
from torch import Tensor
from tqdm.auto import tqdm

from nadkit.errors import NadkitError, closest
from nadkit.graph.architecture import Origin, SubArchitecture
from nadkit.graph.building import FORMAT, MOST_LINKS, MOST_UNITS, build
from nadkit.graph.cutting import INPUT, LOGIT, check_ends
from nadkit.graph.effects import Effects, effects, portions, total, units_of
from nadkit.graph.pictures import Sides, check_count, check_types, draw
from nadkit.graph.threads import side_by_side, workers_on
from nadkit.images import Images
from nadkit.masks import MaskSet
from nadkit.networks import Network
from nadkit.taps import frozen


@overload
def extract(
    network: Network, masks: MaskSet, images: Images, task: str, *, links_per_unit: int = 5,
    least_share: float = 0.01, threshold: float = 0.5, pictures: int = 32, seed: int = 0,
    progress: bool = True,
) -> SubArchitecture: ...  # fmt: skip
@overload
def extract(
    network: Network, masks: MaskSet, images: Images, task: list[str] | tuple[str, ...], *,
    links_per_unit: int = 5, least_share: float = 0.01, threshold: float = 0.5, pictures: int = 32,
    seed: int = 0, progress: bool = True,
) -> dict[str, SubArchitecture]: ...  # fmt: skip
def extract(
    network: Network,
    masks: MaskSet,
    images: Images,
    task: str | list[str] | tuple[str, ...],
    *,
    links_per_unit: int = 5,
    least_share: float = 0.01,
    threshold: float = 0.5,
    pictures: int = 32,
    seed: int = 0,
    progress: bool = True,
) -> SubArchitecture | dict[str, SubArchitecture]:
    """Return a task's sub-architecture: its kept units, and the strongest links into each of them.

    Examples
    --------
    >>> import nadkit as nk
    >>> network, masks = nk.load_network("vgg-fashion"), nk.load_masks("vgg-fashion")
    >>> images = nk.load_images("fashion", split="test", per_class=4)
    >>> arch = nk.extract(network, masks, images, "bag", pictures=4, progress=False)
    >>> arch.graph.in_degree("logit:bag"), arch.graph.nodes["input"]["layer"]
    (5, 'input')

    Parameters
    ----------
    network
        The trained network; nothing in it changes.
    masks
        For this network.
    images
        Pictures of the task and of other classes.
    task
        The name of a task, or several; several give a dictionary. `masks.tasks` are all.
    links_per_unit
        Links into each unit, at most: the strongest by the larger of their shares on the two sides, so that a
        unit that is silent on the task's own pictures and inhibits on others is seen. What the others bring
        is counted in `incoming`.
    least_share
        In [0, 1): links that bring a smaller share of what their unit takes in, on both sides, are left out.
    threshold
        In [0, 1]: a unit is kept where its score is above it.
    pictures
        Of each side: the task's own, and other classes' in turn; all where there are fewer.
    seed
        Of the draw of pictures.
    progress
        Show a bar.

    Returns
    -------
    SubArchitecture
        Its `graph` has the attributes that `SubArchitecture` lists.

    Raises
    ------
    MaskFileError
        The masks are for another network.
    ImageError
        No picture of the task, or of any other class; pictures that the network cannot take.
    LayerError
        A layer is called `input` or `logit`, or gives no tensor of floating-point numbers.
    NadkitError
        No such task; a number out of its range; a graph of more than 10,000 units, or that could have more
        than 200,000 links; effects that are NaN or infinite.

    Notes
    -----
    **Source** nadkit's own: weight(c → d) = mean over pictures of
    Σ_positions a_c · ∂(Σ_positions z_d) / ∂a_c in the network gated to the task's kept units, with the output
    of every layer made a leaf, so that an effect is direct: past no other tapped layer. Where a block is one
    convolution it is kernel × activation; where it is linear the weights into a unit add up to its response,
    and elsewhere the unit's `residual` says what is missing (biases are part of it). Tasks run side by side
    on the cores that torch may use, up to four; of one task parts of its pictures do.
    """
    names = [task] if isinstance(task, str) else task
    made: dict[str, SubArchitecture] = {}
    _check(network, masks, images, names)
    for name, count, least in (
        ("links_per_unit", links_per_unit, 1), ("pictures", pictures, 1), ("seed", seed, 0),
    ):  # fmt: skip
        check_count(name, count, least)
    if isinstance(least_share, bool) or not isinstance(least_share, int | float) or not 0 <= least_share < 1:
        raise NadkitError(f"least_share = {least_share!r}; give a number from 0 to below 1")
    # Gates made in inference mode could take no part in a backward pass.
    with torch.inference_mode(False):
        gates = {name: _gates(network, masks, name, threshold) for name in names}
        units = {name: units_of(gates[name], network.class_index(name)) for name in names}
        for name, there in units.items():
            _check_size(name, sum(map(len, there.values())) - 2, links_per_unit)
        sides = {name: draw(network, images, name, pictures, seed) for name in names}
        found = _effects(network, gates, units, sides, progress)
        with frozen(network.model), contextlib.closing(found):
            for name, part in found:
                facts = _facts(network, masks, name, units[name], sides[name]) | {
                    "threshold": float(threshold), "links_per_unit": links_per_unit,
                    "least_share": float(least_share), "seed": seed,
                }  # fmt: skip
                graph = build(part, units[name], masks, facts)
                made[name] = SubArchitecture(graph, Origin(network, masks, images))
    return made[task] if isinstance(task, str) else made


def _gates(network: Network, masks: MaskSet, task: str, threshold: float) -> dict[str, Tensor]:
    """The gates in the network's order of layers, which need not be the masks'."""
    gates = masks.gates(task, threshold)
    return {address: gates[address] for address in network.layers}


def _effects(
    network: Network, gates: Mapping[str, dict[str, Tensor]], units: Mapping[str, dict[str, list[int]]],
    sides: Mapping[str, Sides], progress: bool,
) -> Generator[tuple[str, Effects]]:  # fmt: skip
    """Yield the effects of each task, tasks (of one task: parts of its pictures) side by side."""
    workers = workers_on(network.device)
    least = math.ceil(workers / len(units))
    jobs = [(name, part) for name, side in sides.items() for part in portions(side.inputs, least)]
    alone, counting = threading.Lock(), threading.Lock()
    work = sum(len(sides[name].inputs) * (sum(map(len, there.values())) - 1) for name, there in units.items())

    def advance(done: int) -> None:
        with counting:
            bar.update(done)

    def one(job: tuple[str, slice]) -> Effects:
        name, part = job
        return effects(
            network, sides[name].inputs[part], sides[name].means[:, part], gates[name], units[name],
            alone=alone, advance=advance,
        )  # fmt: skip

    made = side_by_side(one, jobs, workers)
    bar = tqdm(total=work, desc="links", unit="", disable=not progress, leave=False)
    with bar, contextlib.closing(made):
        results = zip(jobs, made, strict=True)
        for name, parts in itertools.groupby(results, key=lambda result: result[0][0]):
            yield name, total(part for _, part in parts)


def _check(network: Network, masks: MaskSet, images: Images, names: Sequence[str]) -> None:
    check_types("extract", network, masks, images)
    masks.check(network)
    check_ends(network, INPUT, LOGIT)
    if not isinstance(names, Sequence) or not names:
        raise NadkitError(f"extract needs the name of a task, or several, got {names!r}; masks.tasks are all")
    for name in names:
        if name not in masks.tasks:
            raise NadkitError(f"the masks have no task {name!r}; {closest(str(name), masks.tasks)}")


def _check_size(task: str, units: int, links_per_unit: int) -> None:
    if units > MOST_UNITS:
        raise NadkitError(
            f"{task!r} keeps {units:,} units, and a graph holds at most {MOST_UNITS:,}; raise the threshold, "
            "or learn masks of a smaller kept_share"
        )
    if units * links_per_unit > MOST_LINKS:
        raise NadkitError(
            f"{units:,} kept units with {links_per_unit} links each are more than the {MOST_LINKS:,} links "
            f"that a graph holds; give links_per_unit of {MOST_LINKS // units} or less"
        )


def _facts(
    network: Network, masks: MaskSet, task: str, units: dict[str, list[int]], sides: Sides
) -> dict[str, object]:
    facts: dict[str, object] = {
        "format": FORMAT,
        "network": network.name,
        "weights_id": network.weights_id,
        "task": task,
        "layers": list(network.layers),
        "units": {address: layer.units for address, layer in network.layers.items()},
        "empty": [address for address in network.layers if not units[address]],
        "own_pictures": sides.own,
        "other_pictures": sides.other,
    }
    mask_seed = masks.meta.get("seed")
    # Of several tasks' masks joined from parts there may be no one seed.
    return facts | ({"mask_seed": mask_seed} if isinstance(mask_seed, int) else {})
