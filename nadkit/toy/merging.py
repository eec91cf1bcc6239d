"""`merged`: small networks, trained apart, laid side by side in one."""

from __future__ import annotations

import functools
import itertools
from collections import OrderedDict
from collections.abc import Sequence
from types import MappingProxyType

import torch
from torch import nn
from torch.nn.utils import skip_init

from nadkit.errors import ImageError
from nadkit.images import Images, load_images
from nadkit.masks import Unit
from nadkit.networks import Network
from nadkit.toy.checks import SEEDS, STREAMS, check_size, check_whole
from nadkit.toy.planting import Planted
from nadkit.toy.small import KERNELS, SmallNetworks, train

CLASSES = ("trouser", "dress", "sandal", "sneaker", "bag", "pullover")
LAYERS = ("first", "second", "third")
_FOR_TRAINING = 200  # pictures of each class that the small networks see, and masks do not


def merged(seed: int = 0, *, per_class: int = 60, crosstalk: float = 0.05) -> Planted:
    """Return small networks, trained apart, as one network; each task needs the units of its own.

    Each of six small networks tells one class of the bundled `fashion` from the five others. It has three
    layers and one logit, is trained for itself, and is pruned until every unit that is left is needed: its
    removal costs at least 0.05 of balanced accuracy. Laid side by side they are one network of as many
    classes, with their channels in random order and random weights between channels of different networks.

    Examples
    --------
    >>> toy = merged(per_class=5)
    >>> list(toy.truth) == list(CLASSES), sorted(set(toy.kinds["third"]))
    (True, ['needed'])

    Parameters
    ----------
    seed : of weights, training, order of units, cross-talk and pictures; a whole number from 0 to 2³² − 1
    per_class : pictures of each task, for learning (of the training split, without those that the small
        networks were trained on) and for testing (of the test split) each; at most 200
    crosstalk : spread of the random weights, in spreads of the layer's own weights

    Returns
    -------
    Planted
        `links` join every two units of one small network in consecutive layers. `kinds` is `needed` for all
        units, each of one task. `pictures` draws from the test split.

    Raises
    ------
    ImageError
        There are not so many pictures of a class.
    NadkitError
        No such number as a seed, `per_class` or cross-talk.

    Notes
    -----
    A logit without any unit is −3, and the class `nothing`, without pictures, has 0: as in `planted`,
    rejecting needs no unit of another task. Unlike there, how much a unit is worth varies, some units speak
    against their own task, and with cross-talk other tasks' units disturb a little.
    """
    check_whole("seed", seed, 0, SEEDS - 1)
    check_whole("per_class", per_class, 1)
    check_size("crosstalk", crosstalk)
    _, fresh = _train_pictures()
    unseen = _of_classes(load_images("fashion", split="test"))
    most = min(*fresh.counts().values(), *unseen.counts().values())
    if per_class > most:
        raise ImageError(f"per_class = {per_class}; there are {most} of each task; give so many or fewer")
    small = _trained(seed)
    generator = torch.Generator().manual_seed(seed)

    def draw(per_class: int, number: int) -> Images:
        return (unseen if number else fresh).take(per_class, seed=seed * STREAMS + number)

    # The units that are left, layer by layer, in random order: (network, unit in it).
    left = [gate.nonzero().tolist() for gate in small.gates]
    left = [[units[i] for i in torch.randperm(len(units), generator=generator).tolist()] for units in left]
    images = draw(per_class, 0)
    network = Network.wrap(
        _lay_side_by_side(small, left, crosstalk, generator), (*CLASSES, "nothing"),
        example=images.pixels[:2], layers=LAYERS, name=f"merged-{seed}",
    )  # fmt: skip
    own = {
        task: [
            [Unit(a, i) for i, (k, _) in enumerate(units) if k == row]
            for a, units in zip(LAYERS, left, strict=True)
        ]
        for row, task in enumerate(CLASSES)
    }
    truth = {task: frozenset(unit for units in layers for unit in units) for task, layers in own.items()}
    links = {
        task: frozenset((a, b) for below, above in itertools.pairwise(layers) for a in below for b in above)
        for task, layers in own.items()
    }
    return Planted(
        network, images, draw(per_class, 1), MappingProxyType(truth),
        MappingProxyType({task: (units,) for task, units in truth.items()}), MappingProxyType(links),
        MappingProxyType({a: ("needed",) * len(units) for a, units in zip(LAYERS, left, strict=True)}),
        seed, draw,
    )  # fmt: skip


@functools.lru_cache(maxsize=4)
def _trained(seed: int) -> SmallNetworks:
    """Return the small networks of a seed; training takes seconds, so a few are remembered."""
    known, _ = _train_pictures()
    generator = torch.Generator().manual_seed(seed)
    return train(known.pixels[:].float() / 255, known.labels, len(CLASSES), generator)


def _train_pictures() -> tuple[Images, Images]:
    """Return the training pictures that the small networks see, and the others."""
    images = _of_classes(load_images("fashion", split="train"))
    seen = torch.zeros(len(images), dtype=torch.bool)
    for label in range(len(CLASSES)):
        seen[(images.labels == label).nonzero().flatten()[:_FOR_TRAINING]] = True
    return images[seen], images[~seen]


def _of_classes(images: Images) -> Images:
    """Return the pictures of the small networks' classes, in the order of these."""
    numbers = torch.tensor([images.class_names.index(name) for name in CLASSES])
    label = torch.full((len(images.class_names),), -1)
    label[numbers] = torch.arange(len(CLASSES))
    chosen = torch.isin(images.labels, numbers)
    return Images(images.pixels[:][chosen], label[images.labels[chosen]], CLASSES)


def _lay_side_by_side(
    small: SmallNetworks,
    left: Sequence[Sequence[Sequence[int]]],
    crosstalk: float,
    generator: torch.Generator,
) -> nn.Module:
    blocks: OrderedDict[str, nn.Module] = OrderedDict()
    below: Sequence[Sequence[int]] | None = None
    for address, units, weight, bias, kernel in zip(
        LAYERS, left, small.weights, small.biases, KERNELS, strict=True
    ):
        conv = skip_init(nn.Conv2d, 1 if below is None else len(below), len(units), kernel, kernel)
        with torch.no_grad():
            for i, (k, unit) in enumerate(units):
                mine = weight[k, unit].view(kernel, kernel, -1)  # (rows, columns, units below)
                if below is None:
                    conv.weight[i, 0] = mine[..., 0]
                    continue
                spread = float(mine.std()) * crosstalk
                for j, (other, source) in enumerate(below):
                    noise = torch.randn(kernel, kernel, generator=generator) * spread
                    conv.weight[i, j] = mine[..., source] if other == k else noise
            conv.bias.copy_(torch.stack([bias[k, unit] for k, unit in units]))
        blocks[f"conv-{address}"], blocks[address] = conv, nn.ReLU()
        below = units
    count = len(small.last)
    last = skip_init(nn.Linear, len(left[-1]), count + 1)
    with torch.no_grad():
        last.weight.copy_(torch.randn(last.weight.shape, generator=generator) * small.last.std() * crosstalk)
        for j, (k, unit) in enumerate(left[-1]):
            last.weight[k, j] = small.last[k, unit]
        last.weight[-1] = 0
        last.bias.copy_(torch.tensor([small.absent] * count + [0.0]))
    blocks["flatten"], blocks["logits"] = nn.Flatten(), last
    return nn.Sequential(blocks).eval().requires_grad_(False)
