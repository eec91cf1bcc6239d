"""`planted`: a network of three tapped layers whose true units are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from nadkit.errors import NadkitError, closest
from nadkit.images import Images
from nadkit.masks import MaskSet, Unit
from nadkit.networks import Network
from nadkit.toy.checks import SEEDS, STREAMS, check_size, check_whole
from nadkit.toy.pictures import draw_parts, render
from nadkit.toy.scheme import ALL, FEW, Scheme
from nadkit.toy.wiring import LAYERS, WIRINGS, Link, Twin, wire


@dataclass(frozen=True, eq=False, repr=False)
class Planted:
    """A network, pictures for it, and which units each task needs.

    Attributes
    ----------
    network : with three tapped layers
    images : pictures to learn from
    test : as many others
    truth : task → the units that it needs; of several sets that would do, the first
    alternatives : task → all sets of units of which it needs any one, mostly a single one
    links : task → the links that it needs, pairs of units of `truth` in consecutive layers
    kinds : address → what each unit is there for: `needed` (by at least one task), or why it is there; see
        `planted` and `merged`
    seed : what all of it was drawn from
    draw : (pictures of each task, number of the stream) → pictures; see `pictures`

    Examples
    --------
    >>> toy = planted(per_class=5)
    >>> sorted(str(unit) for unit in toy.truth["task3"])
    ['pairs/9', 'parts/22', 'parts/9', 'wholes/1']
    """

    network: Network
    images: Images
    test: Images
    truth: Mapping[str, frozenset[Unit]]
    alternatives: Mapping[str, tuple[frozenset[Unit], ...]]
    links: Mapping[str, frozenset[Link]]
    kinds: Mapping[str, tuple[str, ...]]
    seed: int
    draw: Callable[[int, int], Images]

    @property
    def masks(self) -> MaskSet:
        """The truth as masks: score 1 for every unit that a task needs, 0 for the others.

        Examples
        --------
        >>> round(planted(per_class=5).masks.kept_share()["task3"], 3)
        0.067
        """
        return self.choose(self.truth)

    def choose(self, units: Mapping[str, frozenset[Unit]]) -> MaskSet:
        """Return masks that keep the units given for each task.

        Examples
        --------
        >>> toy = planted(per_class=5)
        >>> toy.choose(toy.truth) == toy.masks
        True
        """
        scores = {
            address: torch.tensor(
                [[float(Unit(address, i) in kept) for i in range(layer.units)] for kept in units.values()]
            )
            for address, layer in self.network.layers.items()
        }
        network = self.network
        meta = {"network": network.name, "weights_id": network.weights_id, "objective": "planted"}
        return MaskSet.from_scores(scores, tuple(units), {**meta, "class_names": list(network.class_names)})

    def pictures(self, per_class: int, seed: int = 2) -> Images:
        """Return more pictures of the same tasks.

        Examples
        --------
        >>> planted(per_class=5).pictures(2).counts()["task0"]
        2

        Parameters
        ----------
        per_class
            Pictures of each task, at least 1.
        seed
            At most 1,000,002. Any but 0 and 1 gives new pictures; those two, with as many pictures, give
            `images` and `test`.

        Raises
        ------
        NadkitError
            `per_class` or the seed is no whole number in its range.
        ImageError
            Of merged networks: there are not so many pictures of a class.
        """
        check_whole("per_class", per_class, 1)
        check_whole("seed", seed, 0, STREAMS - 1)
        return self.draw(per_class, seed)

    def __repr__(self) -> str:
        """Show the network and how many units each task needs."""
        sizes = ", ".join(f"{task} {len(units)}" for task, units in self.truth.items())
        return f"Planted({self.network!r}; needed: {sizes})"


@dataclass(frozen=True)
class Level:
    """How hard planted tasks are to find.

    Attributes
    ----------
    scheme : the tasks
    noise : see `planted`
    crosstalk : see `planted`
    lure : how much the common whole adds to every second logit, and takes from the others
    echoes : per layer
    """

    scheme: Scheme
    noise: float = 0.03
    crosstalk: float = 0.01
    lure: float = 0.0
    echoes: int = 3


LEVELS: Mapping[str, Level] = MappingProxyType({
    "easy": Level(FEW), "middle": Level(ALL), "hard": Level(ALL, 0.04, 0.01, 1.0, 6),
})  # fmt: skip


def planted(
    seed: int = 0,
    *,
    wiring: str = "plain",
    level: str = "easy",
    per_class: int = 60,
    noise: float | None = None,
    crosstalk: float | None = None,
) -> Planted:
    """Return a network of hand-set weights, its pictures, and the units that each task truly needs.

    Pictures are grey, with noise, and show parts: random patterns of 4 x 4 coloured pixels. The first layer
    finds parts, the second pairs of parts side by side, the third wholes: one pair above another. A task's
    pictures show one of its wholes, and each whole raises its task's logit. At the level "easy" there are six
    tasks, of 4 to 11 units: tasks 1 and 2 share a pair and its parts, tasks 0 and 4 a part, tasks 0 and 5 a
    part; task 3 needs one pair twice, and no unit of another task; task 5 has two wholes, and each of its
    pictures shows one of them. The other levels have three more:

    * task 6 has a *veto*. Half of the other tasks' pictures show its whole too, together with another one
      that speaks against it; without the units that find that one, task 6 answers for pictures not its own.
      (In the whole network these units spare the other tasks a rival too: without them their log-odds fall.)
    * task 7 is *redundant*. Two units find its pair, each with part finders of its own. One of the two is
      enough; from both the whole network gains a little, so that it misses neither alone.
    * task 8 needs a part *passed on*: its whole is a pair above a single part, which the layer of pairs must
      hand on.

    Units that no task needs, by their names in `Planted.kinds`:

    * `common`: active on nearly every picture. Through a pair and a whole they add the same to every logit,
      which gradients of a logit notice and log-odds do not; at the level "hard" they add a little more to
      some than to others, a distractor that log-odds notice and decisions do not.
    * `ornament`: active mostly on one task's pictures, and wired to nothing.
    * `echo`: sees exactly what a needed unit sees, and is wired to nothing.
    * `surplus`: takes away what both twins of task 7 would add together; one twin alone does not need it.
    * `dead`: never active.
    * `carried`, `empty`: in a residual network a unit of an earlier layer whose content no later layer reads,
      and one of a later layer, still without content; in a concatenated one the former only.

    Besides, every picture shows half a whole of another task, so that needed units are active on pictures of
    tasks that do not need them; each unit is scaled by a number of its own, which the next layer divides out,
    so that the size of an activation says little; and all weights carry cross-talk.

    Parameters
    ----------
    seed : of parts, order of units, scales, cross-talk and pictures; a whole number from 0 to 2³² − 1
    wiring : "plain"; "residual": the layers of pairs and wholes are added to what comes in; or "concat": they
        are joined to it. In the last two a unit stays available to all later layers
    level : "easy", "middle" (all kinds of tasks) or "hard" (besides more noise, more echoes, and common units
        that log-odds notice)
    per_class : pictures of each task, for learning and for testing each
    noise : standard deviation of the pixels' noise; parts are drawn with ± 0.3; the level's by default
    crosstalk : standard deviation of random weights added between all units, where a wired one has 1; the
        level's by default

    Raises
    ------
    NadkitError
        No such wiring or level; no such number as a seed, `per_class`, noise or cross-talk.

    Notes
    -----
    **Why exactly these units.** A pair answers only where both of its parts do, and a whole only where both
    of its pairs do: relu((a + b − 1.2) / 0.8) is 1 for two ones, and 0 as soon as one is missing. So a whole
    answers only with all of its units, which makes each of them *necessary* for the pictures that show it.
    Rejecting needs no unit at all, the veto aside. The network has one class more, `nothing`, without
    pictures, whose logit is a constant 5, while a task's logit is 12 with one of its wholes and 0 without. A
    task's log-odds are thus about 7 on its own pictures, and about −5 on all others even with all other
    tasks' units removed; what these units say can only push further below 0 what is below 0 already. So the
    units of its wholes are *sufficient*. The whole of task 6 counts 9, its veto −12. Of task 7's pair found
    twice, the whole w = relu((a + b − 0.2) / 0.8) counts 12 and the surplus relu((a + b − 1.2) / 0.8) −12:
    with one of the two the logit is 12, with both it is 15, where more or less of either changes nothing: as
    in `min(1, a + b)`, no gradient sees either.
    The tests check all of it by removing and adding every single unit.

    Examples
    --------
    >>> toy = planted(per_class=5)
    >>> toy.network.layers.keys(), toy.network.units
    (dict_keys(['parts', 'pairs', 'wholes']), 60)
    >>> {task: len(units) for task, units in toy.truth.items()}
    {'task0': 7, 'task1': 7, 'task2': 7, 'task3': 4, 'task4': 7, 'task5': 11}
    >>> [len(units) for units in planted(level="middle", per_class=5).alternatives["task7"]]
    [4, 4]
    """
    if wiring not in WIRINGS:
        raise NadkitError(f"no wiring {wiring!r}; {closest(str(wiring), WIRINGS)}")
    if level not in tuple(LEVELS):
        raise NadkitError(f"no level {level!r}; {closest(str(level), LEVELS)}")
    chosen = LEVELS[level]
    noise = chosen.noise if noise is None else noise
    crosstalk = chosen.crosstalk if crosstalk is None else crosstalk
    check_whole("seed", seed, 0, SEEDS - 1)
    check_whole("per_class", per_class, 1)
    check_size("noise", noise)
    check_size("crosstalk", crosstalk)
    scheme = chosen.scheme
    generator = torch.Generator().manual_seed(seed)
    parts = draw_parts(scheme, generator)
    wired = wire(scheme, parts, wiring, crosstalk, chosen.lure, chosen.echoes, generator)
    tasks = tuple(f"task{k}" for k in range(len(scheme.tasks)))

    def draw(per_class: int, number: int) -> Images:
        # A seed that no other network shares.
        return render(scheme, parts, noise, tasks, per_class, seed * STREAMS + number)

    images, test = draw(per_class, 0), draw(per_class, 1)
    network = Network.wrap(
        wired.model, (*tasks, "nothing"), example=images.pixels[:2], layers=LAYERS, preprocess=_from_grey,
        name=f"planted-{wiring}-{level}-{seed}",
    )  # fmt: skip
    traced = {}
    for name, task in zip(tasks, scheme.tasks, strict=True):
        wholes = [*task.wholes, *([task.veto] if task.veto else [])]
        uppers = [whole[0] for whole in task.wholes]
        spared: list[list[object]] = [[Twin(upper) for upper in uppers], [*uppers]] if task.twins else [[]]
        traced[name] = [wired.trace(wholes, without) for without in spared]
    alternatives = {task: tuple(units for units, _ in sets) for task, sets in traced.items()}
    needed = {unit for sets in alternatives.values() for units in sets for unit in units}
    return Planted(
        network, images, test,
        truth=MappingProxyType({task: sets[0] for task, sets in alternatives.items()}),
        alternatives=MappingProxyType(alternatives),
        links=MappingProxyType({task: sets[0][1] for task, sets in traced.items()}),
        kinds=MappingProxyType(wired.kinds(needed)), seed=seed, draw=draw,
    )  # fmt: skip


def _from_grey(pixels: Tensor) -> Tensor:
    """Return pixels such that 0 is the grey where pictures show nothing, as methods with a blank expect."""
    return pixels - 0.5
