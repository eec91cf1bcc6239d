"""Whether networks of different connection types divide differently, at equal gate density and depth."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from nadkit.errors import NadkitError, closest
from nadkit.measures import NO_VALUE, Estimate
from nadkit.measures.permutation import p_value, permutations
from nadkit.questions.connections.facts import Facts, mean_of, over_tasks
from nadkit.questions.connections.pairs import pair_mean

DEPTHS = 10
"""Relative depths, from the first layer to the last, at which networks are compared."""
LEAST = 3
"""Networks that a family needs for a test."""
ALIKE = 0.02
"""Kept shares that differ by more are not equal."""
DEEPER = 1.5
"""Networks with more layers than this times another's cannot be compared by relative depth."""

STATISTICS = ("phi", "exclusive_excess", "exclusive_excess_slope")
AT = "relative depth"


class Profile(NamedTuple):
    """What one network brings to the comparison, tasks by layers.

    Attributes
    ----------
    phi : (n_layers, n_tasks, n_tasks), mean over sets of masks
    excess : (n_layers, n_tasks) exclusive share beyond chance, likewise
    kept_share : mean over tasks and sets
    """

    phi: Tensor
    excess: Tensor
    kept_share: float

    def statistic(self, name: str, tasks: Tensor) -> float:
        """Return one of `STATISTICS` for these tasks (indices)."""
        if name == "phi":
            return float(resampled(torch.tensor([pair_mean(layer, tasks) for layer in self.phi])).mean())
        curve = resampled(self.excess[:, tasks].nanmean(1))
        if name == "exclusive_excess":
            return float(curve.mean())
        depth = torch.linspace(-0.5, 0.5, DEPTHS, dtype=torch.float64)
        return float((depth * curve).sum() / depth.square().sum())

    def standing(self) -> Standing:
        """Return what counts in the comparison."""
        every = torch.arange(self.excess.shape[1])
        values = {name: self.statistic(name, every) for name in STATISTICS}
        return Standing(values, self.kept_share, len(self.excess))


class Standing(NamedTuple):
    """What of one network is compared with others; of further networks it is read from their tables.

    Attributes
    ----------
    values : of each of `STATISTICS`
    kept_share : mean over tasks and sets of masks
    layers : their number
    """

    values: Mapping[str, float]
    kept_share: float
    layers: int


def resampled(layers: Tensor) -> Tensor:
    """Return a value a layer (n_layers,) at ten relative depths, linear between layers; NaN are passed over.

    Examples
    --------
    >>> resampled(torch.tensor([0.0, 1.0, 2.0]))[[0, 9]].tolist(), resampled(torch.tensor([3.0])).tolist()[:2]
    ([0.0, 2.0], [3.0, 3.0])
    """
    import numpy as np

    places = np.linspace(0, 1, len(layers)) if len(layers) > 1 else np.array([0.5])
    there = (~layers.isnan()).numpy()
    if not there.any():
        return torch.full((DEPTHS,), math.nan, dtype=torch.float64)
    return torch.from_numpy(
        np.interp(np.linspace(0, 1, DEPTHS), places[there], layers.double().numpy()[there])
    )


def find_families(families: Mapping[str, str] | Sequence[str] | None, names: Sequence[str]) -> dict[str, str]:
    """Return the family of each network: as given, else its name up to the first hyphen.

    Examples
    --------
    >>> find_families(None, ["vgg-fashion", "resnet-fashion"])
    {'vgg-fashion': 'vgg', 'resnet-fashion': 'resnet'}

    Raises
    ------
    NadkitError
        A network has no family, or there are more or fewer families than networks.
    """
    if families is None:
        return {name: name.partition("-")[0] for name in names}
    if isinstance(families, Mapping):
        for name in names:
            if name not in families:
                raise NadkitError(f"no family for the network {name!r}; {closest(name, map(str, families))}")
        return {name: str(families[name]) for name in names}
    if isinstance(families, str) or not isinstance(families, Sequence) or len(families) != len(names):
        raise NadkitError(f"families are {families!r} for {len(names)} networks; give one a network")
    return dict(zip(names, map(str, families), strict=True))


def comparison(families: Mapping[str, str], standings: Mapping[str, Standing]) -> str:
    """Return "tested" if families can be compared, else why they cannot.

    Examples
    --------
    >>> comparison({"net": "plain"}, {})
    'one network: descriptive'
    """
    sizes = Counter(families.values())
    if len(families) == 1:
        return "one network: descriptive"
    shares = [standing.kept_share for standing in standings.values()]
    if max(shares) - min(shares) > ALIKE + 1e-9:
        return f"confounded: kept shares from {min(shares):.2f} to {max(shares):.2f}"
    layers = [standing.layers for standing in standings.values()]
    if max(layers) > DEEPER * min(layers):
        return f"confounded: networks of {min(layers)} to {max(layers)} layers"
    if len(sizes) == 1:
        return "one family: descriptive"
    if max(sizes.values()) == 1:
        return "one network a family: descriptive"
    if min(sizes.values()) < LEAST:
        return f"fewer than {LEAST} networks a family: descriptive"
    return "tested"


def between(values: Tensor, family: Tensor) -> Tensor:
    """Return the share of the variance of values (n,) that lies between families; NaN without variance.

    Examples
    --------
    >>> between(torch.tensor([1.0, 1.0, 3.0, 3.0]), torch.tensor([[0, 0, 1, 1], [0, 1, 0, 1]])).tolist()
    [1.0, 0.0]

    Parameters
    ----------
    values
        One a network.
    family
        (..., n) int64 from 0.

    Returns
    -------
    Tensor
        (...) in [0, 1].
    """
    centred = values - values.mean()
    total = centred.square().sum()
    members = torch.nn.functional.one_hot(family).to(values)
    sums = torch.einsum("n,...nf->...f", centred, members)
    share = (sums.square() / members.sum(-2)).sum(-1) / total
    return torch.where(total > 1e-15, share, torch.nan)


def smallest_p(*blocks: Sequence[int]) -> float:
    """Return the smallest p that permuting networks among families of these sizes can give, in each block.

    Examples
    --------
    >>> smallest_p([3, 3]), round(smallest_p([3, 3, 3, 3]), 6), round(smallest_p([1, 1], [2, 2]), 4)
    (0.1, 6.5e-05, 0.1667)
    """
    ways = 1
    for sizes in blocks:
        ways *= math.factorial(sum(sizes))
        for size in sizes:
            ways //= math.factorial(size)
    # Families of one size in every block can swap their networks whole.
    alike = Counter(zip(*blocks, strict=True))
    return math.prod(math.factorial(n) for n in alike.values()) / ways


def within_blocks(blocks: Tensor, draws: int, seed: int) -> Tensor:
    """Return permutations (draws, n) that leave everything in its block (n,).

    Examples
    --------
    >>> within_blocks(torch.tensor([0, 1, 1]), draws=4, seed=0)[:, 0].tolist()
    [0, 0, 0, 0]
    """
    orders = torch.arange(len(blocks)).repeat(draws, 1)
    for block in blocks.unique().tolist():
        at = (blocks == block).nonzero().flatten()
        orders[:, at] = at[permutations(len(at), draws, seed + block)]
    return orders


def add_profile(facts: Facts, profile: Profile) -> None:
    """Add a network's statistics at relative depths."""
    tasks = torch.arange(profile.excess.shape[1])
    bounds = {"exclusive_excess_slope": (-math.inf, math.inf)}
    for name in STATISTICS:
        found = over_tasks(partial(profile.statistic, name), tasks, bounds.get(name, (-1.0, 1.0)))
        other = "mean" if name == "phi" else None
        facts.add("mean", AT, name, found, profile.excess.shape[0], facts.tasks, other)
    standing = profile.standing()
    for name, value in (("kept_share", standing.kept_share), ("layers", standing.layers)):
        facts.add("mean", AT, name, Estimate(value, value, value), len(tasks), facts.counted)


def family_facts(
    families: Mapping[str, str],
    standings: Mapping[str, Standing],
    draws: int,
    seed: int,
    apart: Collection[str] = (),
) -> tuple[list[Facts], str]:
    """Return the rows of every family and of the test between them, and what `comparison` says.

    Parameters
    ----------
    families : network → family
    standings : network → what is compared
    draws : permutations of the networks
    seed : of the permutations
    apart : networks that were trained otherwise than the rest; each of the two is compared within itself:
        values are centred there, and networks permuted there
    """
    status = comparison(families, standings)
    names = list(dict.fromkeys(families.values()))
    family = torch.tensor([names.index(one) for one in families.values()])
    sizes = torch.bincount(family).tolist()
    together = Facts("all", None, 1)
    parts = [Facts(f"family {name}", None, 1) for name in names]
    blocks = torch.tensor([int(name in apart) for name in families])
    each = [torch.bincount(family[blocks == block], minlength=len(names)).tolist() for block in (0, 1)]
    least = max(smallest_p(*each), 1 / (1 + draws))
    layers = sorted({standing.layers for standing in standings.values()})
    span = " to ".join(map(str, layers[:: len(layers) - 1 or 1]))
    alike = "each among those trained alike, " if apart else ""
    how = f"{draws} permutations of the networks, {alike}of {span} layers each"
    how += f"; the smallest p possible is {least:.2g}"
    for name in STATISTICS:
        values = torch.tensor([one.values[name] for one in standings.values()]).double()
        other = "mean" if name == "phi" else None
        if len(families) > 1:
            for place, part in enumerate(parts):
                found, n = mean_of(values[family == place], (-math.inf, math.inf))
                part.add("mean", AT, name, found, n, "networks", other)
        share, p = math.nan, math.nan
        # With one network a family all variance lies between families, whatever they are.
        for block in blocks.unique().tolist():
            values[blocks == block] -= values[blocks == block].mean()
        if len(sizes) > 1 and max(sizes) > 1:
            share = float(between(values, family))
        if status == "tested":
            orders = within_blocks(blocks, draws, seed)
            p = p_value(share, between(values, family[orders]))
        for suffix, number in (("_between_families", share), ("_families_p", p)):
            found = NO_VALUE if math.isnan(number) else Estimate(number, number, number)
            words = how if suffix == "_families_p" and status == "tested" else status
            if status == "tested" and math.isnan(number):
                words = "no variance between the networks, or one without a value"
            together.add("mean", AT, name + suffix, found, len(families), words, other)
    return [*parts, together], status
