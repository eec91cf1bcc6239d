"""Networks and pictures whose true sub-architectures are planted, and therefore known.

A learned mask can be compared with evidence, but never with the truth, because nobody knows it. Here it is
known: the weights are set by hand so that each task needs certain units and no others. That makes a ruler
for every objective and every baseline.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nadkit.errors import NadkitError, closest
from nadkit.images import Images
from nadkit.masks import MaskSet, Unit
from nadkit.networks import Network

if TYPE_CHECKING:
    import pandas as pd

Pair = tuple[int, int]
Whole = tuple[Pair, Pair]

# What each task's pictures show: an object of 2 x 2 parts, here upper and lower pair; two where either will do.
# Tasks 1 and 2 share a pair, 0 and 4 a part, 3 needs one pair twice, 5 has two objects that share a pair.
_OBJECTS: tuple[tuple[Whole, ...], ...] = (
    (((0, 1), (2, 3)),),
    (((4, 5), (6, 7)),),
    (((4, 5), (8, 9)),),
    (((10, 11), (10, 11)),),
    (((12, 13), (0, 14)),),
    (((15, 16), (17, 18)), ((15, 16), (19, 3))),
)
_TASKS = len(_OBJECTS)
_COMMON: Whole = ((20, 21), (20, 21))  # shown in nearly every picture, whatever its task
_ORNAMENTS = tuple(range(22, 22 + _TASKS))  # one part for each task, shown beside its object
_PARTS = 22 + _TASKS
_ECHOES = 3  # units that see what a needed one sees, and lead nowhere
_DEAD = 2  # per layer
_CHANNELS, _SIDE, _CELLS, _ROOM = 3, 3, 4, 2  # a part is 3 x 3; 4 x 4 parts in a picture, with room to move
_CONTRAST = 0.3

LAYERS = ("parts", "pairs", "wholes")


@dataclass(frozen=True, eq=False, repr=False)
class Planted:
    """A network, pictures for it, and which units each task needs.

    Attributes
    ----------
    network : with the tapped layers `parts`, `pairs` and `wholes`
    images, test : pictures to learn from, and as many others
    truth : task → the units that it needs
    kinds : address → what each unit is there for: `needed` (by at least one task), `common`, `ornament`,
        `echo` or `dead` (by none), see `planted`
    """

    network: Network
    images: Images
    test: Images
    truth: Mapping[str, frozenset[Unit]]
    kinds: Mapping[str, tuple[str, ...]]
    _patterns: Tensor = field(repr=False)
    _noise: float = 0.0

    @property
    def masks(self) -> MaskSet:
        """The truth as masks: score 1 for a unit that is needed, 0 for any other.

        Examples
        --------
        >>> planted(per_class=5).masks.kept_share()["task3"]
        0.06666666666666667
        """
        scores = {
            address: torch.tensor(
                [[Unit(address, i) in units for i in range(layer.units)] for units in self.truth.values()]
            ).float()
            for address, layer in self.network.layers.items()
        }
        return MaskSet.from_scores(scores, tuple(self.truth), {"network": self.network.name})

    def pictures(self, per_class: int, seed: int = 2) -> Images:
        """Return more pictures of the same tasks.

        Examples
        --------
        >>> planted(per_class=5).pictures(2).counts()["task0"]
        2

        Parameters
        ----------
        per_class : pictures of each task, at least 1
        seed : 0 gives `images` and 1 `test`, if as many are asked for; any other number gives new ones

        Raises
        ------
        NadkitError
            `per_class` is below 1.
        """
        return _pictures(self._patterns, self._noise, tuple(self.truth), per_class, seed)

    def __repr__(self) -> str:
        """Show the network and how many units each task needs."""
        sizes = ", ".join(f"{task} {len(units)}" for task, units in self.truth.items())
        return f"Planted({self.network!r}; needed: {sizes})"


def planted(
    seed: int = 0, *, per_class: int = 60, noise: float = 0.05, crosstalk: float = 0.02
) -> Planted:
    """Return a plain network of hand-set weights, its pictures, and the units that each task truly needs.

    Pictures are grey noise with parts of 3 x 3 pixels. The first layer finds parts, the second pairs of parts
    side by side, the third wholes: one pair above another. A task's pictures hold one of its wholes, and each
    whole raises its task's logit. There are six tasks of 4 to 11 units: tasks 1 and 2 share a pair and its
    parts, tasks 0 and 4 and tasks 0 and 5 a part; task 3 needs one pair twice; task 5 accepts either of two
    wholes, and each of its pictures shows one.

    Units that no task needs:

    * `common`: active on nearly every picture, and the last of them adds the same to every logit, which no
      log-odds can notice. A gradient of the logit does.
    * `ornament`: active mostly on one task's pictures, and wired to nothing.
    * `echo`: sees exactly what a needed unit sees, and is wired to nothing.
    * `dead`: never active.

    Besides, every picture shows half a whole of another task, so that needed units are active on pictures of
    tasks that do not need them; the sizes of activations say nothing, because each unit is scaled by a number
    of its own that the next layer divides out; and all weights carry cross-talk.

    Parameters
    ----------
    seed : of parts, order of units, scales, cross-talk and pictures
    per_class : pictures of each task, for learning and for testing each
    noise : standard deviation of the pixels' noise; parts are drawn with ± 0.3
    crosstalk : standard deviation of random weights added between all units, where a wired one has 1

    Raises
    ------
    NadkitError
        `per_class` below 1; noise or cross-talk negative.

    Notes
    -----
    **Why exactly these units.** A pair answers only where both of its parts do, and a whole only where both
    of its pairs do: relu((a + b − 1.1) / 0.9) is 1 for two ones and 0 as soon as one is missing. So a whole
    answers only with all of its units, which makes each of them *necessary* for the pictures that show it.
    Rejecting needs no unit at all. The network has one more class, `nothing`, without pictures, whose logit
    is a constant 4, while a task's logit is 10 with a whole and 0 without. Log-odds of a task are thus about
    +6 on its own pictures and −4 elsewhere, *whatever* the units of the other tasks do: they can only lower
    them where they are below 0 already. So the units of its wholes are *sufficient*. Both are tested unit by
    unit.

    Examples
    --------
    >>> toy = planted(per_class=5)
    >>> toy
    Planted(Network('planted-0': 3 layers, 60 units, 7 classes, weights ...); needed: task0 7, task1 7, task2 7,
    task3 4, task4 7, task5 11)
    >>> sorted(str(unit) for unit in toy.truth["task3"])
    ['pairs/...', 'parts/...', 'parts/...', 'wholes/...']
    """
    if noise < 0 or crosstalk < 0:
        raise NadkitError(f"noise and crosstalk must be 0 or more, got {noise} and {crosstalk}")
    generator = torch.Generator().manual_seed(seed)
    patterns = _draw_patterns(generator)
    tasks = tuple(f"task{k}" for k in range(_TASKS))
    model, places, kinds = _wire(patterns, crosstalk, generator)
    images, test = (_pictures(patterns, noise, tasks, per_class, s) for s in (0, 1))
    network = Network.wrap(
        model, (*tasks, "nothing"), example=images.pixels[:2], layers=LAYERS, name=f"planted-{seed}"
    )
    truth = {task: _units(places, wholes) for task, wholes in zip(tasks, _OBJECTS, strict=True)}
    return Planted(network, images, test, MappingProxyType(truth), MappingProxyType(kinds), patterns, noise)


def average_precision(masks: MaskSet, truth: Mapping[str, frozenset[Unit]]) -> dict[str, float]:
    """Return how well each task's scores rank the needed units above the others; 1 is a perfect ranking.

    Examples
    --------
    >>> masks = MaskSet.from_scores({"conv": torch.tensor([[0.9, 0.8, 0.1]])}, ["shirt"])
    >>> average_precision(masks, {"shirt": frozenset({Unit("conv", 1)})})
    {'shirt': 0.5}

    Parameters
    ----------
    masks : scores, of any tasks that the truth has
    truth : task → the units that it needs, at least one

    Raises
    ------
    NadkitError
        The truth lacks a task of the masks, or names a unit that they do not have.

    Notes
    -----
    AP = Σ_n (R_n − R_{n−1}) P_n over the distinct scores in falling order, so that units of equal scores
    count as one step and their order does not matter.
    """
    found = {}
    for task, scores, needed in _rows(masks, truth):
        places = [int((scores >= score).sum()) for score in scores[needed]]
        hits = [int((scores[needed] >= score).sum()) for score in scores[needed]]
        found[task] = sum(h / p for h, p in zip(hits, places, strict=True)) / len(places)
    return found


def compare(
    masks: MaskSet, truth: Mapping[str, frozenset[Unit]], *, threshold: float = 0.5
) -> pd.DataFrame:
    """Return one row per task: how well its scores, and the units it keeps, fit the truth.

    Examples
    --------
    >>> masks = MaskSet.from_scores({"conv": torch.tensor([[0.9, 0.8, 0.1]])}, ["shirt"])
    >>> compare(masks, {"shirt": frozenset({Unit("conv", 1)})}).round(2)
        task  average_precision  precision  recall    f1  kept  needed
    0  shirt                0.5        0.5     1.0  0.67     2       1

    Parameters
    ----------
    masks, truth : as in `average_precision`
    threshold : in [0, 1]; a unit is kept if its score is strictly above

    Returns
    -------
    pandas.DataFrame
        Columns task, average_precision, precision, recall, f1 (all 0-1), kept, needed (numbers of units).
        A task that keeps nothing has precision 0.

    Raises
    ------
    NadkitError
        As in `average_precision`; a threshold outside [0, 1].
    """
    import pandas as pd

    ranked = average_precision(masks, truth)
    rows = []
    for task in masks.tasks:
        kept, needed = set(masks.kept(task, threshold)), truth[task]
        hits = len(kept & needed)
        rows.append({
            "task": task, "average_precision": ranked[task], "precision": hits / max(1, len(kept)),
            "recall": hits / len(needed), "f1": 2 * hits / (len(kept) + len(needed)),
            "kept": len(kept), "needed": len(needed),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _rows(
    masks: MaskSet, truth: Mapping[str, frozenset[Unit]]
) -> list[tuple[str, Tensor, Tensor]]:
    """Return (task, scores over all units, which of them are needed) for every task of the masks."""
    units = [Unit(a, i) for a, count in masks.unit_counts.items() for i in range(count)]
    rows = []
    for number, task in enumerate(masks.tasks):
        if task not in truth:
            raise NadkitError(f"the truth says nothing of task {task!r}; {closest(task, truth)}")
        if not truth[task] or not truth[task] <= set(units):
            strange = [str(unit) for unit in sorted(truth[task] - set(units))][:3]
            raise NadkitError(
                f"the truth of task {task!r} names {', '.join(strange) or 'no unit'}; "
                f"the masks have {masks.unit_counts}: compare masks of the network that the truth is of"
            )
        scores = torch.cat([rows_[number] for rows_ in masks.scores.values()])
        rows.append((task, scores, torch.tensor([unit in truth[task] for unit in units])))
    return rows


def _draw_patterns(generator: torch.Generator) -> Tensor:
    """Draw parts (_PARTS, _CHANNELS, _SIDE, _SIDE) of ± 1, no two of them nearly alike."""
    patterns: list[Tensor] = []
    while len(patterns) < _PARTS:
        new = torch.randint(0, 2, (_CHANNELS * _SIDE**2,), generator=generator) * 2.0 - 1
        if all(float((new @ old).abs()) <= 7 for old in patterns):
            patterns.append(new)
    return torch.stack(patterns).view(_PARTS, _CHANNELS, _SIDE, _SIDE)


def _wire(
    patterns: Tensor, crosstalk: float, generator: torch.Generator
) -> tuple[nn.Module, Mapping[str, Mapping[object, int]], dict[str, tuple[str, ...]]]:
    """Set the weights; return the model, the index of each part, pair and whole, and the units' kinds."""
    wholes = [whole for task in _OBJECTS for whole in task]
    pairs = list(dict.fromkeys(pair for whole in wholes for pair in whole))

    def pick(items: Sequence[object]) -> list[object]:
        chosen = torch.randperm(len(items), generator=generator)[:_ECHOES].tolist()
        return [items[i] for i in chosen]

    # What each unit sees, and its kind. An echo sees what another unit sees, and None sees nothing.
    rosters: list[list[tuple[object, str]]] = [
        [(p, "ornament" if p in _ORNAMENTS else "common" if p in _COMMON[0] else "needed") for p in range(_PARTS)],
        [*((p, "needed") for p in pairs), (_COMMON[0], "common"), *((p, "echo") for p in pick(pairs))],
        [*((w, "needed") for w in wholes), (_COMMON, "common"), *((w, "echo") for w in pick(wholes))],
    ]
    for place, roster in enumerate(rosters):
        roster += [(None, "dead")] * _DEAD
        rosters[place] = [roster[i] for i in torch.randperm(len(roster), generator=generator).tolist()]
    places = {
        address: {sees: i for i, (sees, kind) in enumerate(roster) if kind in ("needed", "common", "ornament")}
        for address, roster in zip(LAYERS, rosters, strict=True)
    }

    def noisy(*shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(*shape, generator=generator) * crosstalk * scale

    counts = [len(roster) for roster in rosters]
    size = _CHANNELS * _SIDE**2
    # A part's filter answers 2 to the part itself, 1 is taken off: weak likenesses are cut.
    first = nn.Conv2d(_CHANNELS, counts[0], _SIDE)
    weight = noisy(counts[0], _CHANNELS, _SIDE, _SIDE, scale=2 / (_CONTRAST * size**0.5))
    for i, (sees, _) in enumerate(rosters[0]):
        if sees is not None:
            weight[i] += patterns[sees] * 2 / (_CONTRAST * size)  # type: ignore[index]
    _set(first, weight, -1 - 0.5 * weight.sum((1, 2, 3)))  # pictures are grey, 0.5, where they show nothing

    second = nn.Conv2d(counts[0], counts[1], (1, _SIDE + 1))
    third = nn.Conv2d(counts[1], counts[2], (_SIDE + 1, 1))
    for conv, below, roster in ((second, "parts", rosters[1]), (third, "pairs", rosters[2])):
        weight = noisy(*conv.weight.shape)
        flat = weight.flatten(2)
        for i, (sees, _) in enumerate(roster):
            if sees is not None:
                for offset, item in zip((0, _SIDE), sees, strict=True):  # type: ignore[call-overload]
                    flat[i, places[below][item], offset] += 1
        _set(conv, weight / 0.9, torch.full((len(roster),), -1.1 / 0.9))

    last = nn.Linear(counts[2], _TASKS + 1)
    weight = noisy(_TASKS + 1, counts[2])
    for task, whole in ((t, w) for t, objects in enumerate(_OBJECTS) for w in objects):
        weight[task, places["wholes"][whole]] += 1
    weight[:, places["wholes"][_COMMON]] = 0.6
    area = (_CELLS * _SIDE + _ROOM - 2 * _SIDE + 1) ** 2
    # The average over the map times its area is the sum, in which one whole counts 1.
    _set(last, weight * 10 * area, torch.tensor([0.0] * _TASKS + [4.0]))

    convs: list[nn.Conv2d | nn.Linear] = [first, second, third, last]
    for conv, after, roster in zip(convs[:3], convs[1:], rosters, strict=True):
        _rescale(conv, after, [kind for _, kind in roster], generator)
    model = nn.Sequential(
        OrderedDict[str, nn.Module](
            conv1=first, parts=nn.ReLU(), conv2=second, pairs=nn.ReLU(), conv3=third, wholes=nn.ReLU(),
            pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), logits=last,
        )
    ).eval().requires_grad_(False)  # fmt: skip
    kinds = {a: tuple(kind for _, kind in roster) for a, roster in zip(LAYERS, rosters, strict=True)}
    return model, places, kinds


def _set(module: nn.Conv2d | nn.Linear, weight: Tensor, bias: Tensor) -> None:
    assert module.bias is not None
    with torch.no_grad():
        module.weight.copy_(weight)
        module.bias.copy_(bias)


def _rescale(
    conv: nn.Conv2d | nn.Linear, after: nn.Conv2d | nn.Linear, kinds: Sequence[str], generator: torch.Generator
) -> None:
    """Scale units at random, the useless ones up, and let the next layer divide it out; silence the dead."""
    scale = torch.exp(torch.rand(len(kinds), generator=generator) * 1.4 - 0.7)
    scale = scale * torch.tensor([1.0 if kind == "needed" else 2.0 for kind in kinds])
    dead = torch.tensor([kind == "dead" for kind in kinds])
    assert conv.bias is not None
    with torch.no_grad():
        conv.weight.mul_(scale.view(-1, *[1] * (conv.weight.ndim - 1)))
        conv.bias.mul_(scale)
        conv.bias[dead] = -100.0
        after.weight.div_(scale.view(1, -1, *[1] * (after.weight.ndim - 2)))


def _units(places: Mapping[str, Mapping[object, int]], wholes: Sequence[Whole]) -> frozenset[Unit]:
    pairs = [pair for whole in wholes for pair in whole]
    parts = [part for pair in pairs for part in pair]
    seen = zip(LAYERS, (parts, pairs, wholes), strict=True)
    return frozenset(Unit(address, places[address][item]) for address, items in seen for item in items)


def _pictures(patterns: Tensor, noise: float, tasks: tuple[str, ...], per_class: int, seed: int) -> Images:
    if per_class < 1:
        raise NadkitError(f"{per_class} pictures of each task were asked for; give at least 1")
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(_TASKS).repeat_interleave(per_class)
    layout = torch.stack([_lay_out(int(k), generator) for k in labels])  # (N, 4, 4) parts
    shown = torch.cat([patterns, torch.zeros_like(patterns[:1])])[layout] * _CONTRAST  # -1 shows nothing
    side = _CELLS * _SIDE
    shown = shown.permute(0, 3, 1, 4, 2, 5).reshape(len(labels), _CHANNELS, side, side)
    pixels = torch.full((len(labels), _CHANNELS, side + _ROOM, side + _ROOM), 0.5)
    for picture, part in zip(pixels, shown, strict=True):
        top, left = torch.randint(0, _ROOM + 1, (2,), generator=generator).tolist()
        picture[:, top : top + side, left : left + side] += part
    pixels += torch.randn(pixels.shape, generator=generator) * noise
    return Images(pixels, labels, tasks)


def _lay_out(task: int, generator: torch.Generator) -> Tensor:
    """Return (4, 4) parts: in four blocks, in any order, an object, half of another's, and what is useless."""

    def draw(count: int) -> int:
        return int(torch.randint(0, count, (1,), generator=generator))

    def chance(share: float) -> bool:
        return float(torch.rand(1, generator=generator)) < share

    def ornament() -> int:
        return _ORNAMENTS[draw(_TASKS)] if chance(0.5) else -1

    own = _OBJECTS[task][draw(len(_OBJECTS[task]))]
    other = _OBJECTS[(task + 1 + draw(_TASKS - 1)) % _TASKS]
    half = draw(2)
    decoy = [(ornament(), ornament()), (ornament(), ornament())]
    # An upper pair stays above and a lower one below, next to ornaments, so that no second whole arises.
    decoy[half] = other[draw(len(other))][half]
    useless = [(_ORNAMENTS[task] if chance(0.9) else -1, ornament()), (ornament(), ornament())]
    empty = ((-1, -1), (-1, -1))
    blocks = torch.tensor([own, decoy, _COMMON if chance(0.9) else empty, useless])
    blocks = blocks[torch.randperm(4, generator=generator)]
    return blocks.view(2, 2, 2, 2).permute(0, 2, 1, 3).reshape(4, 4)
