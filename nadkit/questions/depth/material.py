"""What `where` looks at: mosaics and pictures that the network gets right, and how layers are read there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from nadkit.errors import ImageError
from nadkit.images import Images
from nadkit.images.mosaics import Mosaics
from nadkit.measures.hits import energy, quadrant_shares, region_shares, released_hits
from nadkit.networks import Network
from nadkit.networks.outputs import at_once
from nadkit.questions.asked import check_finite
from nadkit.questions.forwards import BATCH, labels_of
from nadkit.questions.recording import Moments, add_moments, record, weights_of
from nadkit.taps import frozen, maps_of

AT_OBJECT_SCALE = "at object scale"
RESIZED = "resized to the network's input"


class Known(NamedTuple):
    """What one pass of the whole network over all pictures tells.

    Attributes
    ----------
    labels : (n_images,) class indices of the network
    right : (n_images,) bool: the network's own answer is the picture's class
    weights : address → (n_units,) one over the variance of each unit
    mean_pixel : (C,) in the units of the pixels
    """

    labels: Tensor
    right: Tensor
    weights: dict[str, Tensor]
    mean_pixel: Tensor


@dataclass(frozen=True, eq=False)
class Material:
    """Mosaics of four places each, or pictures of one place, and how their layers are read.

    Attributes
    ----------
    metric : what is read: the share of activation on a place
    network : takes pictures of this size
    tasks : (n, n_places) the task of each place, -1 for a class that is none
    strata : (n,) what a bootstrap draws for itself
    unit : of the bootstrap, in words
    pixels : (condition, which, places) → (len(which), C, H, W)
    shares : (address, maps, which) → (len(which), n_places), of maps (len(which), n_units, h, w)
    controls : conditions besides kept, other, whole and random: the kept units on changed pixels
    less : condition → pixels whose activations are taken off first
    """

    metric: str
    network: Network
    tasks: Tensor
    strata: Tensor
    unit: str
    pixels: Callable[[str, Tensor, Tensor], Tensor]
    shares: Callable[[str, Tensor, Tensor], Tensor]
    controls: tuple[str, ...]
    less: Mapping[str, str]


def look(network: Network, images: Images, advance: Callable[[int], object]) -> Known:
    """Run the whole network once over all pictures.

    Parameters
    ----------
    network, images : classes are matched by name
    advance : called with the number of pictures done

    Raises
    ------
    ImageError
        The pictures do not fit the network, or are of a class that it does not have.
    NadkitError
        The network gives NaN or infinite logits.
    """
    labels = labels_of(network, images)
    moments: dict[str, Moments] = {}
    chosen, pixel_sum = [], torch.zeros(images.pixels.shape[1], dtype=torch.float64)
    for pixels, _ in images.batches(at_once(network.input_shape, BATCH)):
        logits, activations = record(network, pixels)
        check_finite(network, logits)
        chosen.append(logits.argmax(1).cpu())
        pixel_sum += pixels.double().mean((2, 3)).sum(0).cpu()
        add_moments(moments, network, activations)
        # They are gone before the next batch adds its own.
        activations.clear()
        advance(len(pixels))
    return Known(labels, torch.cat(chosen) == labels, weights_of(moments), pixel_sum / len(images))


def draw_mosaics(
    network: Network,
    images: Images,
    right: Tensor | None,
    tasks: Sequence[str],
    count: int,
    seed: int,
) -> Mosaics:
    """Return mosaics of a network's pictures.

    The classes are the tasks that have pictures; if these are fewer than four, all classes that have.

    Parameters
    ----------
    network, images : classes are matched by name
    right : (n_images,) bool: pictures that the network classifies correctly; None for mosaics of any
    tasks : names of classes
    count, seed : of the mosaics

    Raises
    ------
    ImageError
        Fewer than four classes have pictures (with `right`: pictures that the network gets right).
    """
    rows = torch.arange(len(images)) if right is None else right.nonzero().flatten()
    drawn_from = images[rows] if len(rows) else None
    there = [] if drawn_from is None else [name for name, number in drawn_from.counts().items() if number]
    if drawn_from is None or len(there) < 4:
        what = "pictures" if right is None else f"pictures that {network.name} classifies correctly"
        some = f"there are some of {', '.join(there)}" if there else "there are none"
        raise ImageError(f"mosaics need {what} of four classes, {some}; give pictures of more classes")
    of_tasks = [name for name in there if name in tasks]
    return drawn_from.mosaics(count, seed, of_tasks if len(of_tasks) >= 4 else there)


def at_scale(network: Network, pixels: Tensor) -> tuple[Network, Tensor, str]:
    """Return a network that takes mosaics as they are, or itself and the mosaics resized to its input.

    Parameters
    ----------
    network : of pictures of a quadrant's size
    pixels : (n, C, H, W) of mosaics

    Returns
    -------
    tuple
        The network, the pixels, and at which scale they are shown, in words.
    """
    channels, high, wide = pixels.shape[1:]
    large = replace(network, input_shape=(channels, high, wide))
    if _runs(large, pixels[:1]):
        return large, pixels, AT_OBJECT_SCALE
    return network, _resized(pixels, (high // 2, wide // 2)), RESIZED


def mosaic_material(
    network: Network,
    images: Images,
    known: Known,
    tasks: Sequence[str],
    count: int,
    seed: int,
    protocol: str,
) -> tuple[Material, str]:
    """Return the mosaics of a network's pictures, and at which scale they are shown.

    Raises
    ------
    ImageError
        As in `draw_mosaics`; for `protocol` "energy" they are of pictures that the network gets right.
    """
    official = protocol == "official"
    mosaics = draw_mosaics(network, images, None if official else known.right, tasks, count, seed)
    pixels, shown = mosaics.pixels, RESIZED
    if official:
        pixels = _resized(pixels, (pixels.shape[2] // 2, pixels.shape[3] // 2))
    else:
        network, pixels, shown = at_scale(network, pixels)
    height, width = (size // 2 for size in mosaics.pixels.shape[2:])
    quadrants = _quadrant_pixels(pixels.shape[2], pixels.shape[3])
    blank = known.mean_pixel if pixels.is_floating_point() else known.mean_pixel.round()

    def make(condition: str, which: Tensor, places: Tensor) -> Tensor:
        chosen = pixels[which]
        if condition not in ("ceiling", "blank"):
            return chosen
        shown = quadrants[places][:, None] & (condition == "ceiling")
        return torch.where(shown, chosen, blank.to(chosen.dtype)[:, None, None])

    def shares(address: str, maps: Tensor, which: Tensor) -> Tensor:  # noqa: ARG001 (as for pictures)
        if official:
            return released_hits(maps, (height, width))
        return quadrant_shares(energy(maps, known.weights[address])).cpu()

    material = Material(
        metric="hit_rate_official" if official else "hit_rate",
        network=network,
        tasks=tasks_of(mosaics.class_names, tasks)[mosaics.classes],
        strata=torch.zeros(count, dtype=torch.int64),
        unit="mosaics",
        pixels=make,
        shares=shares,
        controls=("ceiling",),
        less={} if official else {"ceiling": "blank"},
    )
    return material, shown


def evidence_material(
    network: Network, images: Images, known: Known, tasks: Sequence[str]
) -> tuple[Material, Tensor] | None:
    """Return the pictures whose evidence is known, and the share of its area, (n, 1); None if none are.

    They are the tasks' pictures that the network gets right.
    """
    of_task = tasks_of(images.class_names, tasks)[images.labels]
    rows = (known.right & (of_task >= 0)).nonzero().flatten()
    if images.objects is None or not len(rows):
        return None
    objects = images.objects[rows]
    evidence, changed = objects.evidence, objects.counterfactual()

    def make(condition: str, which: Tensor, places: Tensor) -> Tensor:  # noqa: ARG001 (as for mosaics)
        return changed[which] if condition == "counterfactual" else images.pixels[rows[which]]

    def shares(address: str, maps: Tensor, which: Tensor) -> Tensor:
        return region_shares(energy(maps, known.weights[address]).cpu(), evidence[which])[:, None]

    material = Material(
        metric="evidence_share",
        network=network,
        tasks=of_task[rows, None],
        strata=_strata(known.labels[rows]),
        unit="images",
        pixels=make,
        shares=shares,
        controls=("counterfactual",),
        less={},
    )
    return material, evidence.double().mean((1, 2))[:, None]


def read(
    material: Material,
    condition: str,
    which: Tensor,
    places: Tensor,
    gates: Mapping[str, Tensor] | None,
    rows: Tensor | None,
    advance: Callable[[int], object],
) -> Tensor:
    """Return the share on every place, layer by layer, of mosaics or pictures that are run once each.

    Parameters
    ----------
    material, condition : what is shown
    which, places : (m,) of the material; the same mosaic may come more than once
    gates, rows : `{address: (n_tasks, n_units)}` and (m,) the row of each; None for the whole network
    advance : called with the number done

    Returns
    -------
    Tensor
        (m, n_places, n_layers) float64; NaN for layers without rows and columns, and where nothing is active.
    """
    network, places_each = material.network, material.tasks.shape[1]
    found = torch.full((len(which), places_each, len(network.layers)), torch.nan, dtype=torch.float64)
    size = max(1, at_once(network.input_shape, BATCH) // places_each)
    for part in torch.arange(len(which)).split(size):
        chosen = None if rows is None else rows[part]
        shown = material.pixels(condition, which[part], places[part])
        recorded = record(network, shown, gates, chosen).activations
        if condition in material.less:
            before = material.pixels(material.less[condition], which[part], places[part])
            empty = record(network, before, gates, chosen).activations
            recorded = {address: values - empty[address] for address, values in recorded.items()}
        for place, (address, layer) in enumerate(network.layers.items()):
            maps = maps_of(recorded[address], layer)
            if maps is not None:
                found[part, :, place] = material.shares(address, maps, which[part])
        advance(len(part))
    return found


def _strata(labels: Tensor) -> Tensor:
    """The classes, if each has two pictures or more: a single one would count as if it did not vary."""
    return labels if int(labels.unique(return_counts=True)[1].min()) > 1 else torch.zeros_like(labels)


def tasks_of(class_names: Sequence[str], tasks: Sequence[str]) -> Tensor:
    """Return for each class the index of its task, -1 where it is none."""
    return torch.tensor([tasks.index(name) if name in tasks else -1 for name in class_names])


def _runs(network: Network, pixels: Tensor) -> bool:
    """Whether the network takes pictures of this size; how one that cannot says so is its own affair."""
    try:
        with frozen(network.model), torch.no_grad():
            return tuple(network.logits(network.prepare(pixels)).shape) == (1, len(network.class_names))
    except Exception:
        return False


def _resized(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    small = interpolate(pixels.float(), size=size, mode="bicubic", antialias=True)
    # A bicubic filter overshoots at edges, and networks may refuse pixels outside their range.
    small = small.clamp(float(pixels.min()), float(pixels.max()))
    return (small if pixels.is_floating_point() else small.round()).to(pixels.dtype)


def _quadrant_pixels(height: int, width: int) -> Tensor:
    """(4, height, width) bool, in the order of the mosaics' places; a middle line belongs to the far half."""
    low, right = torch.arange(height) >= height // 2, torch.arange(width) >= width // 2
    return torch.stack(
        [(low == down)[:, None] & (right == across) for down in (False, True) for across in (False, True)]
    )
