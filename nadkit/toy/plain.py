"""`planted`: a plain network of three tapped layers whose true units are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from nadkit.errors import NadkitError
from nadkit.images import Images
from nadkit.masks import MaskSet, Unit
from nadkit.networks import Network
from nadkit.toy.pictures import WHOLES, draw_parts, render
from nadkit.toy.wiring import LAYERS, wire


@dataclass(frozen=True, eq=False, repr=False)
class Planted:
    """A network, pictures for it, and which units each task needs.

    Attributes
    ----------
    network : with the tapped layers `parts`, `pairs` and `wholes`
    images, test : pictures to learn from, and as many others
    truth : task → the units that it needs
    kinds : address → what each unit is there for: `needed` (by at least one task), or by none: `common`,
        `ornament`, `echo`, `dead`; see `planted`
    parts : (n_parts, 3, 4, 4) of ± 1, what the pictures show
    noise : standard deviation of the pixels' noise
    seed : what all of it was drawn from

    Examples
    --------
    >>> toy = planted(per_class=5)
    >>> sorted(str(unit) for unit in toy.truth["task3"])
    ['pairs/16', 'parts/22', 'parts/7', 'wholes/1']
    """

    network: Network
    images: Images
    test: Images
    truth: Mapping[str, frozenset[Unit]]
    kinds: Mapping[str, tuple[str, ...]]
    parts: Tensor
    noise: float
    seed: int

    @property
    def masks(self) -> MaskSet:
        """The truth as masks: score 1 for every unit that a task needs, 0 for the others.

        Examples
        --------
        >>> round(planted(per_class=5).masks.kept_share()["task3"], 3)
        0.067
        """
        scores = {
            address: torch.tensor(
                [
                    [float(Unit(address, i) in needed) for i in range(layer.units)]
                    for needed in self.truth.values()
                ]
            )
            for address, layer in self.network.layers.items()
        }
        network = self.network
        meta = {"network": network.name, "weights_id": network.weights_id, "objective": "planted"}
        return MaskSet.from_scores(
            scores, tuple(self.truth), {**meta, "class_names": list(network.class_names)}
        )

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
            Any but 0 and 1 gives new pictures; those two, with as many pictures, give `images` and `test`.

        Raises
        ------
        NadkitError
            `per_class` is below 1.
        """
        return render(self.parts, self.noise, tuple(self.truth), per_class, _stream(self.seed, seed))

    def __repr__(self) -> str:
        """Show the network and how many units each task needs."""
        sizes = ", ".join(f"{task} {len(units)}" for task, units in self.truth.items())
        return f"Planted({self.network!r}; needed: {sizes})"


def planted(seed: int = 0, *, per_class: int = 60, noise: float = 0.03, crosstalk: float = 0.01) -> Planted:
    """Return a plain network of hand-set weights, its pictures, and the units that each task truly needs.

    Pictures are grey, with noise, and show parts: random patterns of 4 x 4 coloured pixels. The first layer
    finds parts, the second pairs of parts side by side, the third wholes: one pair above another. A task's
    pictures show one of its wholes, and each whole raises its task's logit. There are six tasks, of 4 to 11
    units: tasks 1 and 2 share a pair and its parts, tasks 0 and 4 a part, tasks 0 and 5 a part; task 3 needs
    one pair twice; task 5 has two wholes, and each of its pictures shows one of them.

    Units that no task needs:

    * `common`: active on nearly every picture. Through a pair and a whole they add the same to every logit,
      which gradients of a logit notice and log-odds do not.
    * `ornament`: active mostly on one task's pictures, and wired to nothing.
    * `echo`: sees exactly what a needed unit sees, and is wired to nothing.
    * `dead`: never active.

    Besides, every picture shows half a whole of another task, so that needed units are active on pictures of
    tasks that do not need them; each unit is scaled by a number of its own, which the next layer divides out,
    so that the size of an activation says little; and all weights carry cross-talk.

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
    of its pairs do: relu((a + b − 1.2) / 0.8) is 1 for two ones, and 0 as soon as one is missing. So a whole
    answers only with all of its units, which makes each of them *necessary* for the pictures that show it.
    Rejecting needs no unit at all. The network has one class more, `nothing`, without pictures, whose logit
    is a constant 5, while a task's logit is 12 with one of its wholes and 0 without. A task's log-odds are
    thus about 7 on its own pictures, and about −5 on all others even with all other tasks' units removed;
    what these units say can only push further below 0 what is below 0 already. So the units of its wholes
    are *sufficient*. The tests check both by removing and adding every single unit.

    Examples
    --------
    >>> toy = planted(per_class=5)
    >>> toy.network.layers.keys(), toy.network.units
    (dict_keys(['parts', 'pairs', 'wholes']), 60)
    >>> {task: len(units) for task, units in toy.truth.items()}
    {'task0': 7, 'task1': 7, 'task2': 7, 'task3': 4, 'task4': 7, 'task5': 11}
    """
    if noise < 0 or crosstalk < 0:
        raise NadkitError(f"noise and crosstalk must be 0 or more, got {noise} and {crosstalk}")
    generator = torch.Generator().manual_seed(seed)
    parts = draw_parts(generator)
    wired = wire(parts, crosstalk, generator)
    tasks = tuple(f"task{k}" for k in range(len(WHOLES)))
    images, test = (render(parts, noise, tasks, per_class, _stream(seed, s)) for s in (0, 1))
    network = Network.wrap(
        wired.model, (*tasks, "nothing"), example=images.pixels[:2], layers=LAYERS, name=f"planted-{seed}"
    )
    truth = {task: wired.units(wholes) for task, wholes in zip(tasks, WHOLES, strict=True)}
    kinds = {address: tuple(role.kind for role in roles) for address, roles in wired.roles.items()}
    return Planted(
        network, images, test, MappingProxyType(truth), MappingProxyType(kinds), parts, noise, seed
    )


def _stream(seed: int, number: int) -> int:
    """Return a seed for pictures that no other network shares."""
    return seed * 1_000_003 + number
