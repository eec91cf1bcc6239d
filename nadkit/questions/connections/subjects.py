"""The networks that `how` and `stability` are asked about, with their masks put in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nadkit.errors import NadkitError
from nadkit.masks import MaskSet
from nadkit.networks import Network
from nadkit.questions.sets import in_order, seed_of


@dataclass(frozen=True, eq=False)
class Subject:
    """One network and the masks of its tasks, one set or several seeds.

    Attributes
    ----------
    name : in the table; of networks that share a name, followed by six digits of the weights
    network : the network
    sets : all with the same tasks in the same order
    """

    name: str
    network: Network
    sets: tuple[MaskSet, ...]

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks' names."""
        return self.sets[0].tasks

    @property
    def seed(self) -> int | None:
        """Of the masks, if they are one set that says so."""
        return seed_of(self.sets)


def subjects(network: object, masks: object) -> list[Subject]:
    """Return the networks asked about: one with its masks, or a sequence of pairs.

    Raises
    ------
    MaskFileError
        Masks of another network.
    NadkitError
        Neither of the two, one network twice, or networks of different tasks.
    """
    if isinstance(network, Network):
        return [Subject(network.name, network, tuple(in_order(network, masks, "how")))]
    pairs = list(network) if isinstance(network, Sequence) else []
    good = all(
        isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[0], Network) for pair in pairs
    )
    if not pairs or not good or masks is not None:
        raise NadkitError(
            "how is asked about one network and its masks, how(network, masks), or about several, "
            f"how([(network, masks), ...]); got {type(network).__name__} and {type(masks).__name__}"
        )
    names = [one.name for one, _ in pairs]
    found: list[Subject] = []
    for one, its_masks in pairs:
        name = one.name if names.count(one.name) == 1 else f"{one.name} {one.weights_id[:6]}"
        if any(name == other.name for other in found):
            raise NadkitError(f"{name} is given twice; several seeds of its masks go together, as a list")
        tasks = found[0].tasks if found else ()
        found.append(Subject(name, one, tuple(in_order(one, its_masks, "how", tasks))))
    return found
