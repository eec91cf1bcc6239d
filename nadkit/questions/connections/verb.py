"""`how`: the question as one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from nadkit.images import Images
from nadkit.masks import MaskSet
from nadkit.networks import Network
from nadkit.questions.asked import check_images, check_number
from nadkit.questions.connections.answers import how_answer
from nadkit.questions.connections.facts import Facts, to_table
from nadkit.questions.connections.families import Profile, add_profile, family_facts, find_families
from nadkit.questions.connections.groups import Groups, add_groups, find_groups
from nadkit.questions.connections.others import find_others
from nadkit.questions.connections.pairs import add_pairs, add_stability, overlaps
from nadkit.questions.connections.roles import add_roles, few, roles
from nadkit.questions.connections.subjects import Subject, subjects
from nadkit.questions.connections.units import add_units, count
from nadkit.questions.forwards import live_units

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor


def how(
    network: Network | Sequence[tuple[Network, MaskSet | Sequence[MaskSet]]],
    masks: MaskSet | Sequence[MaskSet] | None = None,
    images: Images | None = None,
    *,
    groups: Groups | None = None,
    families: Mapping[str, str] | Sequence[str] | None = None,
    beside: pd.DataFrame | str | None = None,
    draws: int = 999,
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """Return what the sub-architectures of the tasks share, layer by layer, of one network or several.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 4), torch.nn.Linear(4, 2))
    >>> example = torch.zeros(1, 1, 1, 2)
    >>> network = Network.wrap(model, ["left", "right"], example=example, layers=["1"], name="net")
    >>> masks = MaskSet.from_scores({"1": torch.tensor([[1.0, 1, 0, 0], [1, 0, 0, 0]])}, ["left", "right"])
    >>> table = how(network, masks)
    >>> row = table.query("task == 'left' and metric == 'phi' and layer == '1'").iloc[0]
    >>> row["other_task"], round(float(row["value"]), 3), int(row["n"])
    ('right', 0.577, 4)

    Parameters
    ----------
    network
        The trained network; or several, as a sequence of (network, masks) whose tasks have the same names.
    masks
        Of this network: one set, or several seeds of the same tasks, in any order. None for several networks.
    images
        Pictures that tell which units are dead, and which accept and reject. Classes are matched by name;
        they may be fewer than the tasks, more, or in another order. None leaves those two out.
    groups
        Classes that people group, by a name for the group. None takes tops and shoes where the network has
        the classes of Fashion-MNIST, and else no groups. A class in no group is a group of its own.
    families
        The connection type of each network: by its name in the table, or one each, those of `beside` last.
        None takes the name up to the first hyphen.
    beside
        A table of `how` of further networks of the same tasks, which join the comparison of families;
        "bundled" takes that of networks trained as the bundled ones were, from other seeds and half as long;
        they and the networks asked about are each centred and permuted among themselves.
    draws
        Permutations, of the tasks for groups and of the networks for families; at least 1.
    seed
        Of the permutations, and of the pictures that tell accepting units from rejecting ones.
    progress
        Show a bar.

    Returns
    -------
    pandas.DataFrame
        One row one fact: network, task, other_task (of pairs), layer, metric, value, low, high (95 %), n,
        seed (of the masks, if one set) and interval, which says what varies. Numbers counted in the masks are
        the mean over their seeds, from the lowest to the highest. Means over tasks vary with the tasks
        (jackknife). A metric that does not exist is empty (NaN) with n = 0. Of pairs, n is the live units of
        the layer, of layer "all" the layers that have a value.

        phi, jaccard
            Overlap of two tasks; layer "all" is the mean over layers. Task "mean" is over all pairs, and
            n their number.
        phi_by_depth, jaccard_by_depth
            Correlation of that mean with depth (Spearman, n layers).
        phi_over_seeds
            Of several seeds: φ of a task's masks of two seeds, the mean over pairs of seeds (n) and layers,
            from the lowest to the highest; `stability` tells more. What is said of units holds for these
            masks, and for others as far as this is near 1.
        phi_undefined
            Task "all": pairs without φ, because a task keeps none or all of a layer's units.
        unused, exclusive, some, all
            Task "all": share of units that no task keeps, one, several but not all, all tasks; n units.
        unused_by_chance, exclusive_by_chance, some_by_chance, all_by_chance
            The same, expected of random units, as many for every task and layer.
        exclusive_share, exclusive_share_by_chance, exclusive_excess
            Share of a task's kept units (n) that no other task keeps; expected of random units; difference.
        exclusive_share_by_depth, exclusive_excess_by_depth
            Its correlation with depth (Spearman, n layers). Tasks keep fewer units in deep layers, which
            alone makes more of them exclusive; the excess is free of that.
        shared_accepts, shared_rejects, shared_accepts_and_rejects, shared_neither
            Share of a task's shared units (n; those that another task keeps too) that only accept, only
            reject, do both, do neither for this task. See Notes. Needs images.
        phi_within, phi_across, phi_within_minus_across, groups_p
            Task "all": φ of pairs of one group, of other pairs (n pairs), their difference, and how often a
            permutation of the tasks has as large a difference; low and high of the difference are of 90 %, as
            the test is one-sided. Of several networks the rows of network "all"
            are of φ's mean over them, and theirs is the primary test.

        At layer "relative depth", which is the mean over ten depths from the first layer to the last, each
        network, those of `beside` too, has phi, exclusive_excess, exclusive_excess_slope (change of the
        excess from the first layer to the last, by least squares), kept_share and layers; network "family …"
        has the mean over the networks of a family (n), and network "all" each metric with
        `_between_families`, the share of its variance between networks that lies between families, and
        `_families_p`. That p, of phi first of all, exists where every family has three networks, all kept
        shares agree within 0.02 and no network has more than 1.5 times the layers of another; else `interval`
        says why not.

        `attrs`: answer (the table in one sentence), dead (network → names of units that are 0 on all
        pictures), groups, families, comparison.

    Raises
    ------
    MaskFileError
        Masks for another network.
    ImageError
        Pictures that a network cannot take, or of a class that it does not have.
    NadkitError
        Masks of different tasks, a network twice, groups or families that do not fit, draws below 1, a seed
        that is none, NaN logits.

    Notes
    -----
    Dead units are left out of everything here. **Accepting and rejecting** is found in the network gated to
    the task, to first order: the gradient of the task's log-odds with respect to the gate of a unit. A unit
    accepts if that is clearly above 0 over the task's own pictures, and rejects if it is clearly below 0 over
    those of the other classes ("clearly": by 1.96 standard errors; at most 50 pictures of a class are used).

    **Source** φ is the correlation of two masks as numbers 0 and 1. The paper compares networks of
    different depth, width and density, whose types of connection cannot be told from those; with one network
    a family nothing can be tested.
    """
    check_number("draws", draws, 1)
    check_number("seed", seed, 0)
    if images is not None:
        check_images("how", images)
    asked = subjects(network, masks)
    names = [subject.name for subject in asked]
    others, standings = find_others(beside, names, asked[0].tasks)
    family = find_families(families, [*names, *standings])
    chosen = find_groups(groups, asked[0].tasks, asked[0].network.class_names)
    from tqdm.auto import tqdm

    used = 0 if images is None else len(few(images, seed))
    passes = sum(len(subject.sets) * len(subject.tasks) for subject in asked)
    facts, found, phis, dead = [], {}, [], {}
    with tqdm(total=used * passes, disable=not progress, unit="picture", unit_scale=True) as bar:
        for subject in asked:
            live = live_units(subject.network, images)
            dead[subject.name] = [
                f"{address}/{index}"
                for address, units in live.items()
                for index in (~units).nonzero().flatten().tolist()
            ]
            one, profile, phi = _read(subject, live, images, seed, bar.update)
            add_groups(one, phi, subject.tasks, chosen, draws, seed)
            facts.append(one)
            phis.append(phi)
            found[subject.name] = profile.standing()
    if len(asked) > 1:
        both = Facts("all", None, 1)
        add_groups(both, torch.stack(phis).nanmean(0), asked[0].tasks, chosen, draws, seed)
        facts.append(both)
    # Those that come with the package were trained half as long as the bundled networks themselves.
    apart = standings if isinstance(beside, str) else ()
    compared, status = family_facts(family, {**found, **standings}, draws, seed, apart)
    table = to_table(
        facts,
        others,
        compared,
        dead=dead,
        groups={name: list(classes) for name, classes in chosen.items()},
        families=family,
        comparison=status,
    )
    table.attrs["answer"] = how_answer(table)
    return table


def _read(
    subject: Subject,
    live: Mapping[str, Tensor],
    images: Images | None,
    seed: int,
    advance: Callable[[int], object],
) -> tuple[Facts, Profile, Tensor]:
    """All facts of one network, what it brings to the comparison of several, and φ over all layers."""
    facts = Facts(subject.name, subject.seed, len(subject.sets))
    kept = [
        {address: rows[:, live[address]].bool() for address, rows in masks.gates().items()}
        for masks in subject.sets
    ]
    found = [overlaps(one, one) for one in kept]
    counts = [count(one) for one in kept]
    sizes = [int(units.sum()) for units in live.values()]
    add_pairs(facts, subject.tasks, list(live), sizes, found)
    add_units(facts, subject.tasks, list(live), counts)
    add_stability(facts, subject.tasks, kept)
    if images is not None:
        said = [roles(subject.network, masks, images, seed, advance) for masks in subject.sets]
        add_roles(facts, subject.tasks, kept, live, said)
    shares = [share for masks in subject.sets for share in masks.kept_share().values()]
    phi = torch.stack([one.phi for one in found]).nanmean(0)
    excess = torch.stack([one.excess for one in counts]).nanmean(0)
    profile = Profile(phi[:-1], excess.T[:-1], sum(shares) / len(shares))
    add_profile(facts, profile)
    return facts, profile, phi[-1]
