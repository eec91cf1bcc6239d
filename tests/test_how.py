"""`how` against hand-worked cases and a slow second way, planted groups and families, error rates."""

from __future__ import annotations

import copy
import io
import itertools
import math
import re
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch
from scipy.stats import spearmanr, t
from torch import Tensor, nn

import nadkit.questions.connections.roles as roles_module
from nadkit.errors import ImageError, MaskFileError, NadkitError
from nadkit.figures import _connections as figures
from nadkit.images import Images
from nadkit.masks import MaskSet
from nadkit.masks.overlaps import overlap
from nadkit.networks import Network
from nadkit.questions.connections import how, how_answer
from nadkit.questions.connections.facts import Facts, over_tasks, trend
from nadkit.questions.connections.families import (
    STATISTICS,
    Profile,
    Standing,
    between,
    comparison,
    family_facts,
    resampled,
    smallest_p,
)
from nadkit.questions.connections.groups import FASHION, add_groups
from nadkit.questions.connections.pairs import mean_overlap
from nadkit.questions.connections.units import count, kinds_by_chance
from nadkit.questions.forwards import live_units
from nadkit.questions.seeds import stability
from nadkit.taps import Taps
from nadkit.toy import planted

NAMES = ("bag", "coat", "shirt", "boot")
TASKS = ("coat", "boot", "bag")  # fewer than the classes, in another order
UNITS = {"2": 5, "4": 7, "6": 4}
COLUMNS = [
    "network", "task", "other_task", "layer", "metric", "value", "low", "high", "n", "seed", "interval"
]  # fmt: skip


def make_network(seed: int = 0, name: str = "hand") -> Network:
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 4), nn.ReLU(),
        nn.Linear(4, 4),
    ).double()  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        model[1].bias += 1.0
        model[1].weight[3], model[1].bias[3] = 0.0, -1.0  # a dead unit: 2/3
    return Network.wrap(model, NAMES, example=torch.zeros(1, 1, 2, 3), layers=list(UNITS), name=name)


def make_images(per_class: Sequence[int], seed: int, names: Sequence[str] = NAMES) -> Images:
    prototypes = torch.randn(4, 1, 2, 3, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(4).repeat_interleave(torch.tensor(per_class))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    labels = labels[order]
    noise = torch.randn(len(labels), 1, 2, 3, generator=torch.Generator().manual_seed(seed + 1))
    return Images(prototypes[labels] + 0.7 * noise, labels, tuple(names))


def make_masks(seed: int, tasks: Sequence[str] = TASKS, share: float = 0.6, **meta: object) -> MaskSet:
    generator = torch.Generator().manual_seed(seed)
    scores = {a: (torch.rand(len(tasks), n, generator=generator) < share).float() for a, n in UNITS.items()}
    return MaskSet.from_scores(scores, tasks, {"seed": seed, **meta})


@pytest.fixture(scope="module")
def network() -> Network:
    return make_network()


@pytest.fixture(scope="module")
def images() -> Images:
    return make_images((11, 8, 9, 12), seed=1)


@pytest.fixture(scope="module")
def sets() -> list[MaskSet]:
    """Two seeds; in the first a task keeps nothing of a layer, and another keeps all of it."""
    first, second = make_masks(3), make_masks(4)
    scores = {address: rows.clone() for address, rows in first.scores.items()}
    scores["6"][0], scores["6"][1] = 0.0, 1.0
    return [MaskSet.from_scores(scores, TASKS, {"seed": 3}), second]


@pytest.fixture(scope="module")
def table(network: Network, sets: list[MaskSet], images: Images) -> pd.DataFrame:
    return how(network, sets[0], images, draws=19)


def cell(
    table: pd.DataFrame, task: str, layer: str, metric: str, other: str | None = None, network: str = "hand"
) -> pd.Series:
    rows = table[(table["task"] == task) & (table["layer"] == layer) & (table["metric"] == metric)]
    rows = rows[rows["network"] == network]
    if other is not None:
        rows = rows[rows["other_task"] == other]
    assert len(rows) == 1, (task, layer, metric, other, len(rows))
    return rows.iloc[0]


def value(table: pd.DataFrame, *key: str | None) -> float:
    return float(cell(table, *key)["value"])


# A second, slow way


def slow_phi(one: set[int], other: set[int], units: int) -> float:
    """The correlation of two 0-1 vectors, which is what φ is."""
    first, second = ([float(u in kept) for u in range(units)] for kept in (one, other))
    if len(set(first)) == 1 or len(set(second)) == 1:
        return math.nan
    return float(np.corrcoef(first, second)[0, 1])


def slow_jaccard(one: set[int], other: set[int]) -> float:
    return len(one & other) / len(one | other) if one | other else 1.0


def kept_units(masks: MaskSet, dead: set[tuple[str, int]]) -> dict[str, dict[str, set[int]]]:
    """Layer → task → its live kept units, numbered anew."""
    found = {}
    for address, units in UNITS.items():
        live = [u for u in range(units) if (address, u) not in dead]
        found[address] = {
            task: {live.index(u.index) for u in masks.kept(task) if u.layer == address and u.index in live}
            for task in masks.tasks
        }
    return found


def mean(numbers: Sequence[float]) -> float:
    there = [number for number in numbers if not math.isnan(number)]
    return statistics.fmean(there) if there else math.nan


def slow_table(masks: MaskSet, dead: set[tuple[str, int]]) -> dict[tuple[str, str, str, str | None], float]:
    """What is counted in one set of masks, (task, layer, metric, other task) → value."""
    kept, tasks = kept_units(masks, dead), masks.tasks
    sizes = {address: UNITS[address] - sum(a == address for a, _ in dead) for address in UNITS}
    facts: dict[tuple[str, str, str, str | None], float] = {}
    for one, other in itertools.combinations(tasks, 2):
        for address in UNITS:
            a, b = kept[address][one], kept[address][other]
            facts[one, address, "phi", other] = slow_phi(a, b, sizes[address])
            facts[one, address, "jaccard", other] = slow_jaccard(a, b)
        for metric in ("phi", "jaccard"):
            facts[one, "all", metric, other] = mean([facts[one, a, metric, other] for a in UNITS])
    for metric, layer in itertools.product(("phi", "jaccard"), (*UNITS, "all")):
        pairs = [facts[a, layer, metric, b] for a, b in itertools.combinations(tasks, 2)]
        facts["mean", layer, metric, "mean"] = mean(pairs)
    for address in UNITS:
        pairs = [facts[a, address, "phi", b] for a, b in itertools.combinations(tasks, 2)]
        facts["all", address, "phi_undefined", None] = float(sum(map(math.isnan, pairs)))
    facts["all", "all", "phi_undefined", None] = sum(facts["all", a, "phi_undefined", None] for a in UNITS)
    held = {
        (address, unit): [task for task in tasks if unit in kept[address][task]]
        for address in UNITS
        for unit in range(sizes[address])
    }
    for layer in (*UNITS, "all"):
        here = [who for (address, _), who in held.items() if layer in (address, "all")]
        for kind, right in (
            ("unused", lambda k: k == 0), ("exclusive", lambda k: k == 1), ("some", lambda k: k == 2),
            ("all", lambda k: k == 3),
        ):  # fmt: skip
            facts["all", layer, kind, None] = sum(right(len(who)) for who in here) / len(here)
        for task in tasks:
            mine = [who for who in here if task in who]
            alone = sum(who == [task] for who in mine)
            facts[task, layer, "exclusive_share", None] = alone / len(mine) if mine else math.nan
            expected = 0.0
            for address in UNITS:
                if layer in (address, "all"):
                    others = [1 - len(kept[address][o]) / sizes[address] for o in tasks if o != task]
                    expected += len(kept[address][task]) * math.prod(others)
            chance = expected / len(mine) if mine else math.nan
            facts[task, layer, "exclusive_share_by_chance", None] = chance
            facts[task, layer, "exclusive_excess", None] = (
                facts[task, layer, "exclusive_share", None] - chance
            )
        for metric in ("exclusive_share", "exclusive_share_by_chance", "exclusive_excess"):
            facts["mean", layer, metric, None] = mean([facts[k, layer, metric, None] for k in tasks])
    return facts


def slow_roles(network: Network, masks: MaskSet, images: Images, task: str) -> dict[str, tuple[bool, bool]]:
    """Unit → (accepts, rejects), picture by picture."""
    k = network.class_index(task)
    gradients: dict[str, list[tuple[str, float]]] = {}
    for picture in images:
        name = images.class_names[int(picture.labels)]
        gates = {a: g.double().requires_grad_() for a, g in masks.gates(task).items()}
        with Taps(network, (), gates=gates):
            logits = network(picture.pixels)[0]
        others = [logits[c] for c in range(4) if c != k]
        odds = logits[k] - torch.stack(others).logsumexp(0)
        for address, gradient in zip(gates, torch.autograd.grad(odds, list(gates.values())), strict=True):
            for unit, number in enumerate(gradient.tolist()):
                gradients.setdefault(f"{address}/{unit}", []).append((name, number))
    found = {}
    for unit, numbers in gradients.items():
        own = [number for name, number in numbers if name == task]
        apart = {n: [x for name, x in numbers if name == n] for n in images.class_names if n != task}
        apart = {n: xs for n, xs in apart.items() if len(xs) > 1}
        error = statistics.stdev(own) / math.sqrt(len(own))
        accepts = statistics.fmean(own) > max(1.959964 * error, 1e-4)
        centre = statistics.fmean(statistics.fmean(xs) for xs in apart.values())
        spread = math.sqrt(sum(statistics.variance(xs) / len(xs) for xs in apart.values())) / len(apart)
        found[unit] = accepts, centre < -max(1.959964 * spread, 1e-4)
    return found


def test_every_counted_value_is_that_of_the_slow_way(table: pd.DataFrame, sets: list[MaskSet]) -> None:
    facts = slow_table(sets[0], {("2", 3)})
    for (task, layer, metric, other), number in facts.items():
        row = cell(table, task, layer, metric, other)
        assert row["value"] == pytest.approx(number, nan_ok=True), (task, layer, metric, other)
        assert (row["n"] == 0) == math.isnan(number)
    assert {metric for _, _, metric, _ in facts} <= set(table["metric"])
    assert sum(math.isnan(number) for number in facts.values()) > 3


def test_all_layers_together_and_trends(table: pd.DataFrame, sets: list[MaskSet]) -> None:
    facts = slow_table(sets[0], {("2", 3)})
    for task in TASKS:
        for metric in ("exclusive_share", "exclusive_excess"):
            curve = [facts[task, address, metric, None] for address in UNITS]
            there = [number for number in curve if not math.isnan(number)]
            moves = len(there) > 2 and len(set(there)) > 1
            rho = spearmanr(range(len(there)), there)[0] if moves else math.nan
            assert value(table, task, "all", f"{metric}_by_depth") == pytest.approx(rho, nan_ok=True)
    curve = [facts["mean", address, "phi", "mean"] for address in UNITS]
    rho = spearmanr(range(3), curve)[0] if not any(map(math.isnan, curve)) else math.nan
    assert value(table, "mean", "all", "phi_by_depth") == pytest.approx(rho, nan_ok=True)
    assert trend(torch.tensor([0.3, math.nan, 0.2, 0.1])) == -1.0
    assert math.isnan(trend(torch.tensor([0.3, math.nan, 0.2])))


def test_chance_is_what_all_masks_of_the_same_sizes_have_on_average() -> None:
    """Every choice of units of these sizes, in layers of four and three units, counted."""
    sizes = {"a": (4, (1, 2, 3)), "b": (3, (2, 0, 3))}
    expected = torch.zeros(4, 3).double(), torch.zeros(3, 3).double()
    totals = 0
    choices = {
        layer: list(itertools.product(*(itertools.combinations(range(units), k) for k in kept)))
        for layer, (units, kept) in sizes.items()
    }
    for picks in itertools.product(*choices.values()):
        kept = {}
        for (layer, (units, _)), picked in zip(sizes.items(), picks, strict=True):
            kept[layer] = torch.tensor([[u in chosen for u in range(units)] for chosen in picked])
        found = count(kept)
        expected[0].add_(found.kinds)
        expected[1].add_(found.exclusive)
        totals += 1
    assert torch.allclose(found.kinds_by_chance, expected[0] / totals)
    assert torch.allclose(found.exclusive_by_chance, expected[1] / totals, equal_nan=True)


def test_kinds_with_one_and_two_tasks() -> None:
    one = count({"a": torch.tensor([[True, False, False, False]])})
    assert one.kinds[:, 0].tolist() == [0.75, 0.25, 0.0, 0.0]
    assert kinds_by_chance(torch.tensor([0.25]).double()).tolist() == [0.75, 0.25, 0.0, 0.0]
    two = count({"a": torch.tensor([[True, True, False, False], [True, False, True, False]])})
    assert two.kinds[:, 0].tolist() == [0.25, 0.5, 0.0, 0.25]
    assert two.kinds_by_chance[:, 0].tolist() == [0.25, 0.5, 0.0, 0.25]


def test_roles_are_those_of_the_slow_way(
    table: pd.DataFrame, network: Network, sets: list[MaskSet], images: Images
) -> None:
    kept = {task: {str(unit) for unit in sets[0].kept(task)} - {"2/3"} for task in TASKS}
    seen = set()
    for task in TASKS:
        said = slow_roles(network, sets[0], images, task)
        others = set().union(*(kept[other] for other in TASKS if other != task))
        shared = kept[task] & others
        for layer in (*UNITS, "all"):
            here = [unit for unit in shared if layer == "all" or unit.startswith(f"{layer}/")]
            for role, right in (
                ("accepts", (True, False)), ("rejects", (False, True)),
                ("accepts_and_rejects", (True, True)), ("neither", (False, False)),
            ):  # fmt: skip
                row = cell(table, task, layer, f"shared_{role}")
                assert row["n"] == len(here)
                if here:
                    assert row["value"] == pytest.approx(sum(said[u] == right for u in here) / len(here))
                    seen.update({role} if row["value"] else ())
    assert len(seen) >= 3


def make_hand() -> tuple[Network, Images]:
    """Three classes; what each unit does for class "a" can be worked out.

    Unit 0 fires on a and raises it; 1 fires on b and lowers a; 2 always fires, and raises a by 1 and b by 2,
    so that it helps a where c is its rival and hurts it where b is; 3 never fires.
    """
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]]))
        model[1].bias.copy_(torch.tensor([0.0, 0, 1, -1]))
        model[3].weight.copy_(torch.tensor([[5.0, -4, 1, 9], [0, 5, 2, 9], [3, 0, 0, 9]]))
        model[3].bias.zero_()
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat(8)
    pixels = torch.eye(3)[labels] * (1 + 0.1 * torch.rand(24, 1, generator=generator))
    network = Network.wrap(
        model, ("a", "b", "c"), example=torch.zeros(1, 1, 1, 3), layers=["2"], name="three"
    )
    return network, Images(pixels[:, None, None], labels, ("a", "b", "c"))


def test_accepting_rejecting_and_dead_units_of_a_network_worked_out_by_hand() -> None:
    network, images = make_hand()
    masks = MaskSet.from_scores(
        {"2": torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]])}, tuple("abc")
    )
    table = how(network, masks, images, draws=9)
    assert table.attrs["dead"] == {"three": ["2/3"]}
    for role, share in (("accepts", 1), ("rejects", 1), ("accepts_and_rejects", 1), ("neither", 0)):
        row = cell(table, "a", "2", f"shared_{role}", network="three")
        assert (row["value"], row["n"]) == (pytest.approx(share / 3), 3)
    nothing = cell(table, "c", "2", "shared_accepts", network="three")
    assert math.isnan(nothing["value"])
    assert nothing["n"] == 0
    # The dead unit, kept by two tasks, counts nowhere: all three live units are shared by a and b.
    assert value(table, "all", "2", "some", None, "three") == 1.0
    without = how(network, masks, draws=9)
    assert without.attrs["dead"] == {"three": []}
    assert cell(without, "all", "2", "some", network="three")["n"] == 4
    assert not without["metric"].str.startswith("shared").any()


def test_a_negative_activation_is_not_dead() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2), nn.Linear(2, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[-1.0], [0.0]]))
        model[1].bias.zero_()
    network = Network.wrap(model, ("a", "b"), example=torch.ones(1, 1, 1, 1), layers=["1"])
    images = Images(torch.ones(4, 1, 1, 1), torch.tensor([0, 0, 1, 1]), ("a", "b"))
    live = live_units(network, images)
    assert live["1"].tolist() == [True, False]


def test_planted_units_accept() -> None:
    """Each unit that a task needs raises its log-odds on its own pictures, and rejects nothing."""
    toy = planted(per_class=12)
    full = MaskSet.from_scores(
        {address: torch.ones(6, layer.units) for address, layer in toy.network.layers.items()},
        tuple(toy.truth),
    )
    for masks in (toy.masks, full):
        found = roles_module.roles(toy.network, masks, toy.test, 0, lambda _: None)
        for row, needed in enumerate(toy.truth.values()):
            # Task 5 shows either of two wholes, so not all of its units speak on each of its pictures.
            assert all(bool(found.accepts[unit.layer][row, unit.index]) for unit in needed)
            if masks is toy.masks:
                assert sum(int(rows[row].sum()) for rows in found.accepts.values()) == len(needed)
                assert not any(bool(rows[row].any()) for rows in found.rejects.values())
        assert found.known.all()


# Several seeds, orders, subsets


def test_with_several_seeds_it_says_how_far_they_agree(network: Network, sets: list[MaskSet]) -> None:
    table, beside = how(network, sets, draws=9), stability(network, sets, draws=9)
    rows = beside[(beside["metric"] == "phi_same") & (beside["layer"] == "all")]
    for task in (*TASKS, "mean"):
        mine = cell(table, task, "all", "phi_over_seeds", task if task != "mean" else "mean")
        theirs = rows[rows["task"] == task].iloc[0]
        for column in ("value", "low", "high", "n"):
            assert mine[column] == pytest.approx(theirs[column], nan_ok=True), (task, column)
    assert "of one task the masks of two seeds overlap by φ = " in table.attrs["answer"]
    single = how(network, sets[0], draws=9)
    assert "phi_over_seeds" not in set(single["metric"])
    assert "; masks of one seed alone, and another seed may keep other units; " in single.attrs["answer"]
    assert "seeds" not in single.attrs["answer"]


def test_several_seeds_are_averaged(network: Network, sets: list[MaskSet], images: Images) -> None:
    both = how(network, sets, images, draws=9)
    singles = [how(network, one, images, draws=9) for one in sets]
    for task, layer, metric, other in (
        ("coat", "2", "phi", "boot"), ("coat", "all", "phi", "bag"), ("boot", "4", "jaccard", "bag"),
        ("all", "4", "unused", None), ("coat", "all", "exclusive_share", None),
        ("bag", "all", "exclusive_excess_by_depth", None), ("boot", "4", "shared_accepts", None),
    ):  # fmt: skip
        values = [value(one, task, layer, metric, other) for one in singles]
        row = cell(both, task, layer, metric, other)
        there = [number for number in values if not math.isnan(number)]
        assert row["value"] == pytest.approx(mean(values), nan_ok=True)
        if there:
            assert (row["low"], row["high"]) == pytest.approx((min(there), max(there)))
        assert row["interval"] == "lowest to highest of 2 mask seeds"
        assert row["seed"] is pd.NA
    # φ that one seed does not have is taken from the other.
    assert value(both, "coat", "6", "phi", "bag") == value(singles[1], "coat", "6", "phi", "bag")
    assert math.isnan(value(singles[0], "coat", "6", "phi", "bag"))
    assert value(both, "all", "6", "phi_undefined") == pytest.approx(
        mean([value(one, "all", "6", "phi_undefined") for one in singles])
    )
    assert cell(both, "mean", "all", "phi")["interval"] == "tasks, mean of 2 mask seeds"


def test_the_order_of_tasks_and_classes_does_not_matter(
    network: Network, sets: list[MaskSet], images: Images, table: pd.DataFrame
) -> None:
    turned = [sets[1][["bag", "coat", "boot"]], sets[0]]
    first = how(network, [sets[1], sets[0]], images, draws=9)
    second = how(network, turned, images, draws=9)
    for here, there in ((("coat", "boot"), ("coat", "boot")), (("coat", "bag"), ("bag", "coat"))):
        number = value(first, here[0], "4", "phi", here[1])
        assert number == pytest.approx(value(second, there[0], "4", "phi", there[1]))
    other = images.subset(("shirt", "boot", "bag", "coat"))
    again = how(network, sets[0], other, draws=19)
    pd.testing.assert_frame_equal(again, table)


def test_pictures_of_fewer_classes_leave_rows_without_a_value(
    network: Network, sets: list[MaskSet], images: Images
) -> None:
    found = how(network, sets[0], images.subset(("bag", "shirt")), draws=9)
    for task, there in (("coat", False), ("boot", False), ("bag", True)):
        row = cell(found, task, "all", "shared_accepts")
        assert math.isnan(row["value"]) != there
        assert (row["n"] > 0) == there
    assert cell(found, "mean", "all", "shared_accepts")["n"] == 1
    # A single picture has no spread, and one class has no other.
    one = images[torch.cat([images.rows_of_class(0)[:1], images.rows_of_class(1)])]
    assert cell(how(network, sets[0], one, draws=9), "bag", "all", "shared_accepts")["n"] == 0
    alone = how(network, sets[0], images.of("bag"), draws=9)
    assert cell(alone, "bag", "all", "shared_accepts")["n"] == 0


def test_at_most_so_many_pictures_of_a_class_are_used(
    network: Network, sets: list[MaskSet], images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roles_module, "PER_CLASS", 9)
    picked = roles_module.few(images, 0)
    assert picked.counts() == {"bag": 9, "coat": 8, "shirt": 9, "boot": 9}
    assert not torch.equal(picked.pixels, roles_module.few(images, 1).pixels)
    done: list[int] = []
    roles_module.roles(network, sets[0], images, 0, lambda n: done.append(n))
    assert sum(done) == 35 * 3
    monkeypatch.setattr(roles_module, "BATCH", 10)
    small = roles_module.roles(network, sets[0], images, 0, lambda _: None)
    monkeypatch.setattr(roles_module, "BATCH", 200)
    large = roles_module.roles(network, sets[0], images, 0, lambda _: None)
    assert all(torch.equal(small.accepts[a], large.accepts[a]) for a in UNITS)
    assert all(torch.equal(small.rejects[a], large.rejects[a]) for a in UNITS)


def test_the_same_call_gives_the_same_table_and_leaves_no_trace(
    network: Network, sets: list[MaskSet], images: Images, table: pd.DataFrame
) -> None:
    before = torch.random.get_rng_state()
    network.model.train()
    again = how(network, sets[0], images, draws=19)
    assert network.model.training
    network.model.eval()
    pd.testing.assert_frame_equal(again, table)
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(parameter.grad is None for parameter in network.model.parameters())
    assert again.attrs == table.attrs


def test_columns_and_what_varies(table: pd.DataFrame) -> None:
    assert list(table.columns) == COLUMNS
    assert not table.duplicated(["network", "task", "other_task", "layer", "metric"]).any()
    assert cell(table, "coat", "4", "phi", "boot")["n"] == 7
    assert cell(table, "coat", "2", "phi", "boot")["n"] in (0, 4)  # one of its five units is dead
    assert cell(table, "coat", "all", "phi", "boot")["n"] <= 3
    assert cell(table, "coat", "4", "phi", "boot")["interval"] == "none: counted"
    assert cell(table, "coat", "4", "phi", "boot")["seed"] == 3
    assert cell(table, "mean", "all", "exclusive_share")["interval"] == "tasks"
    there = table.dropna(subset=["value", "low"])
    assert (there["low"] <= there["value"] + 1e-9).all()
    assert (there["value"] <= there["high"] + 1e-9).all()
    assert (table["value"].isna() == (table["n"] == 0)).all()


def test_empty_full_and_single_masks_are_defined(network: Network, images: Images) -> None:
    for fill in (0.0, 1.0):
        masks = MaskSet.from_scores({a: torch.full((3, n), fill) for a, n in UNITS.items()}, TASKS)
        found = how(network, masks, images, draws=9)
        assert found[found["metric"] == "phi"]["value"].isna().all()
        assert value(found, "all", "all", "phi_undefined") == 9
        assert value(found, "coat", "all", "jaccard", "bag") == 1.0
        assert value(found, "all", "all", "all" if fill else "unused") == 1.0
        assert found.attrs["answer"].startswith("hand: no two tasks have an overlap φ")
        assert figures.how(found).layout.meta["alt"]
    one = how(network, make_masks(3, ("coat",)), images, draws=9)
    assert one[one["metric"] == "phi"]["value"].isna().all()
    assert value(one, "coat", "4", "exclusive_share") == 1.0
    assert math.isnan(value(one, "coat", "4", "shared_accepts"))


def test_a_layer_without_a_live_unit_says_nothing() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        model[1].bias.fill_(-9.0)
        model[1].weight.zero_()
    network = Network.wrap(model, ("a", "b"), example=torch.ones(1, 1, 1, 1), layers=["2"], name="dead")
    images = Images(torch.ones(4, 1, 1, 1), torch.tensor([0, 0, 1, 1]), ("a", "b"))
    table = how(network, MaskSet.from_scores({"2": torch.eye(2)}, ("a", "b")), images, draws=9)
    assert table.attrs["dead"] == {"dead": ["2/0", "2/1"]}
    counted = table[~table["metric"].isin(["phi_undefined", "kept_share", "layers"])]
    assert counted["value"].isna().all()
    assert (counted["n"] == 0).all()


# Intervals over tasks


def test_of_a_plain_mean_the_interval_is_students() -> None:
    values = torch.tensor([0.1, 0.5, 0.3, 0.9, 0.2]).double()
    found = over_tasks(lambda rows: float(values[rows].mean()), torch.arange(5))
    half = t.ppf(0.975, 4) * statistics.stdev(values.tolist()) / math.sqrt(5)
    assert found == pytest.approx((0.4, 0.4 - half, 0.4 + half))
    bounded = over_tasks(lambda rows: float(values[rows].mean()), torch.arange(5), (0.3, 0.45))
    assert (bounded.low, bounded.high) == (0.3, 0.45)
    assert math.isnan(over_tasks(lambda rows: 1.0 * len(rows), torch.arange(2)).low)
    every = over_tasks(lambda rows: math.nan if len(rows) < 4 else 1.0, torch.arange(4))
    assert every.value == 1.0
    assert math.isnan(every.low)


def test_the_interval_of_the_mean_overlap_covers() -> None:
    """Tasks drawn from one population, whose mean φ over pairs is known from very many."""
    generator = torch.Generator().manual_seed(1)
    base = 0.7 * torch.randn(40, generator=generator)

    def phi(tasks: int) -> Tensor:
        liking = base + 0.8 * torch.randn(tasks, 40, generator=generator)
        sizes = torch.randint(8, 20, (tasks, 1), generator=generator)
        kept = liking.argsort(1).argsort(1) >= 40 - sizes
        return overlap(kept, kept).phi

    many = phi(2000)
    truth = float((many.sum() - many.diagonal().sum()) / (2000 * 1999))
    hits = 0
    for _ in range(200):
        found, pairs = mean_overlap(phi(10))
        hits += found.low <= truth <= found.high
        assert pairs == 45
    assert 0.915 <= hits / 200 <= 0.995


def test_a_task_without_any_overlap_has_no_part_in_the_interval() -> None:
    matrix = torch.rand(6, 6, generator=torch.Generator().manual_seed(0)).double()
    matrix = matrix + matrix.mT
    more = torch.full((7, 7), math.nan).double()
    more[:6, :6] = matrix
    more[6, 6] = 1.0
    found, pairs = mean_overlap(more)
    assert pairs == 15
    assert found == pytest.approx(mean_overlap(matrix)[0])


def test_the_error_of_a_mean_over_classes_of_pictures() -> None:
    pictures = {0: [1.0, 2.0, 4.0], 2: [3.0, 5.0]}
    sums, squares = torch.zeros(3, 1).double(), torch.zeros(3, 1).double()
    for label, numbers in pictures.items():
        sums[label], squares[label] = sum(numbers), sum(number**2 for number in numbers)
    mean, error = roles_module._stratified(sums, squares, torch.tensor([3, 0, 2]), [0, 2])
    assert float(mean) == pytest.approx((7 / 3 + 4) / 2)
    variances = [statistics.variance(numbers) / len(numbers) for numbers in pictures.values()]
    assert float(error) == pytest.approx(math.sqrt(sum(variances)) / 2)


# Groups


def planted_groups(seed: int, tasks: int = 9) -> MaskSet:
    """Tasks 0-2 and 3-5 keep units of their group, and each some of its own; the others only their own."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.rand(tasks, 60, generator=generator) < 0.2
    rows[0:3, :10] |= torch.rand(3, 10, generator=generator) < 0.8
    rows[3:6, 10:20] |= torch.rand(3, 10, generator=generator) < 0.8
    return MaskSet.from_scores({"1": rows.float()}, [f"t{k}" for k in range(tasks)])


@pytest.fixture(scope="module")
def nine() -> Network:
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 60), nn.Linear(60, 9))
    names = [f"t{k}" for k in range(9)]
    return Network.wrap(model, names, example=torch.zeros(1, 1, 1, 1), layers=["1"], name="nine")


GROUPS = {"first": ["t0", "t1", "t2"], "second": ["t3", "t4", "t5"]}


def test_planted_groups_are_found_and_worked_out_by_hand(nine: Network) -> None:
    masks = planted_groups(5)
    table = how(nine, masks, groups=GROUPS, draws=999)
    kept = masks.scores["1"].bool()
    phi = {
        (a, b): slow_phi(*({*kept[k].nonzero().flatten().tolist()} for k in (a, b)), 60)
        for a, b in itertools.combinations(range(9), 2)
    }
    inside = [(0, 1), (0, 2), (1, 2), (3, 4), (3, 5), (4, 5)]
    within = statistics.fmean(phi[pair] for pair in inside)
    across = statistics.fmean(number for pair, number in phi.items() if pair not in inside)
    assert value(table, "all", "all", "phi_within", None, "nine") == pytest.approx(within)
    assert value(table, "all", "all", "phi_across", None, "nine") == pytest.approx(across)
    row = cell(table, "all", "all", "phi_within_minus_across", None, "nine")
    assert row["value"] == pytest.approx(within - across)
    assert row["low"] > 0
    p = cell(table, "all", "all", "groups_p", None, "nine")
    assert p["value"] <= 0.005
    assert p["interval"] == "999 permutations of the tasks"
    assert "classes that people group overlap more than others" in table.attrs["answer"]
    assert table.attrs["groups"] == GROUPS
    wrong = how(nine, masks, groups={"mixed": ["t0", "t3", "t6"], "rest": ["t1", "t4", "t7"]}, draws=199)
    assert value(wrong, "all", "all", "groups_p", None, "nine") > 0.3
    assert "do not overlap more" in wrong.attrs["answer"]


def test_without_groups_p_is_nominal() -> None:
    """Hubs, hardly any levels and undefined pairs included: P(p ≤ α) is at most α."""
    generator = torch.Generator().manual_seed(0)
    groups = {"one": ("t0", "t1", "t2"), "two": ("t3", "t4")}
    tasks = [f"t{k}" for k in range(7)]
    found = []
    for draw in range(200):
        hub = torch.randn(7, generator=generator)
        matrix = hub[:, None] + hub + 0.5 * torch.randn(7, 7, generator=generator).round()
        matrix = (matrix + matrix.T).double()
        gone = int(torch.randint(7, (1,), generator=generator))
        if draw % 2:
            matrix[gone, :5] = matrix[:5, gone] = torch.nan
        facts = Facts("net", None, 1)
        add_groups(facts, matrix, tasks, groups, 39, draw)
        found.append(next(row["value"] for row in facts.rows if row["metric"] == "groups_p"))
    there = np.array([p for p in found if not math.isnan(p)])
    assert len(there) > 150
    for alpha in (0.05, 0.2, 0.5):
        assert (there <= alpha).mean() <= alpha + 2 * math.sqrt(alpha * (1 - alpha) / len(there))
    assert (there <= 0.5).mean() > 0.35  # and it is no test that never rejects


def test_draws_without_a_value_do_not_speak_for_the_groups() -> None:
    """Of six ways to pick the group one is the given one, one is worse, and four have no pair with a φ."""
    matrix = torch.full((4, 4), math.nan).double()
    matrix[0, 1] = matrix[1, 0] = 1.0
    matrix[2, 3] = matrix[3, 2] = 0.0
    facts = Facts("net", None, 1)
    add_groups(facts, matrix, ["a", "b", "c", "d"], {"one": ("a", "b")}, 999, 0)
    found = {row["metric"]: row["value"] for row in facts.rows}
    assert found["phi_within_minus_across"] == 1.0
    assert found["groups_p"] == pytest.approx(5 / 6, abs=0.05)


def test_groups_of_fashion_are_there_by_default_and_only_there(network: Network) -> None:
    names = (*FASHION["tops"], *FASHION["shoes"], "bag")
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 5), nn.Linear(5, 8))
    example = torch.zeros(1, 1, 1, 1)
    wrapped = Network.wrap(model, names, example=example, layers=["1"], name="fashion")
    generator = torch.Generator().manual_seed(0)
    scores = {"1": (torch.rand(8, 5, generator=generator) < 0.5).float()}
    masks = MaskSet.from_scores(scores, names)
    assert set(how(wrapped, masks, draws=9).attrs["groups"]) == {"tops", "shoes"}
    few = how(wrapped, masks[["shirt", "coat", "sandal", "bag"]], draws=9)
    assert few.attrs["groups"] == {"tops": ["coat", "shirt"]}
    none = how(wrapped, masks[["shirt", "sandal", "bag"]], draws=9)
    assert none.attrs["groups"] == {}
    assert "groups_p" not in set(none["metric"])
    assert "groups_p" not in set(how(network, make_masks(3), draws=9)["metric"])


# Several networks


def fleet(sizes: Sequence[int], families: Sequence[str] = ("plain", "residual", "dense")) -> list[str]:
    return [f"{family}-{k}" for family, size in zip(families, sizes, strict=False) for k in range(size)]


def make_profile(seed: int, shift: float = 0.0, kept_share: float = 0.3) -> Profile:
    generator = torch.Generator().manual_seed(seed)
    layers = 4 + seed % 3
    phi = torch.rand(layers, 5, 5, generator=generator).double() + shift
    return Profile((phi + phi.mT) / 2, torch.rand(layers, 5, generator=generator).double(), kept_share)


def standing(profiles: dict[str, Profile]) -> dict[str, Standing]:
    return {name: profile.standing() for name, profile in profiles.items()}


def of(facts: list[Facts], network: str, metric: str) -> dict[str, object]:
    rows = [row for one in facts for row in one.rows if row["network"] == network and row["metric"] == metric]
    assert len(rows) == 1
    return rows[0]


def test_families_that_differ_are_told_apart() -> None:
    names = fleet((3, 3, 3))
    families = {name: name.split("-")[0] for name in names}
    profiles = {name: make_profile(k, 2.0 * (k // 3)) for k, name in enumerate(names)}
    facts, status = family_facts(families, standing(profiles), 999, 0)
    assert status == "tested"
    p = of(facts, "all", "phi_families_p")
    assert float(p["value"]) <= 0.01  # type: ignore[arg-type]
    assert p["n"] == 9
    assert "smallest p possible is 0.0036" in str(p["interval"])
    assert float(of(facts, "all", "exclusive_excess_families_p")["value"]) > 0.05  # type: ignore[arg-type]
    every = torch.arange(5)
    plain = [profiles[name].statistic("phi", every) for name in names[:3]]
    row = of(facts, "family plain", "phi")
    assert row["value"] == pytest.approx(statistics.fmean(plain))
    assert row["n"] == 3
    half = t.ppf(0.975, 2) * statistics.stdev(plain) / math.sqrt(3)
    assert row["high"] == pytest.approx(row["value"] + half)
    values = [profiles[name].statistic("phi", every) for name in names]
    centre = statistics.fmean(values)
    inner = sum(
        (v - statistics.fmean(values[k // 3 * 3 : k // 3 * 3 + 3])) ** 2 for k, v in enumerate(values)
    )
    share = 1 - inner / sum((v - centre) ** 2 for v in values)
    assert of(facts, "all", "phi_between_families")["value"] == pytest.approx(share)


def test_networks_trained_otherwise_are_compared_among_themselves() -> None:
    """All others lie lower by the same: that is no difference between families, and must hide none."""
    names = fleet((3, 3, 3))
    families = {name: name.split("-")[0] for name in names}
    apart = [name for name in names if not name.endswith("-0")]
    shift, family = {name: 5.0 * (name in apart) for name in names}, {"plain": 0, "residual": 1, "dense": 2}
    values = {name: shift[name] + family[families[name]] + 0.1 * k % 0.3 for k, name in enumerate(names)}
    standings = {name: Standing(dict.fromkeys(STATISTICS, value), 0.3, 5) for name, value in values.items()}
    blind, _ = family_facts(families, standings, 999, 0)
    seeing, status = family_facts(families, standings, 999, 0, apart)
    assert status == "tested"
    assert float(of(blind, "all", "phi_families_p")["value"]) > 0.3  # type: ignore[arg-type]
    row = of(seeing, "all", "phi_families_p")
    assert float(row["value"]) <= 0.03  # type: ignore[arg-type]
    assert "each among those trained alike" in str(row["interval"])
    assert float(of(seeing, "all", "phi_between_families")["value"]) > 0.95  # type: ignore[arg-type]
    # By hand: of the three alone there are 6 orders, of the others 90, and 6 of all name the same families.
    assert "smallest p possible is 0.011" in str(row["interval"])


def test_the_test_of_families_is_nominal() -> None:
    names = fleet((3, 3, 4))
    families = {name: name.split("-")[0] for name in names}
    found = []
    for draw in range(120):
        profiles = {name: make_profile(1000 * draw + k) for k, name in enumerate(names)}
        facts, _ = family_facts(families, standing(profiles), 19, draw)
        found.append(float(of(facts, "all", "phi_families_p")["value"]))  # type: ignore[arg-type]
    for alpha in (0.05, 0.25, 0.5):
        rate = np.mean(np.array(found) <= alpha)
        assert rate <= alpha + 2.5 * math.sqrt(alpha * (1 - alpha) / 120)
    assert np.mean(np.array(found) <= 0.5) > 0.35


@pytest.mark.parametrize(
    ("sizes", "shares", "status"),
    [
        ((1,), 0.3, "one network: descriptive"),
        ((3,), 0.3, "one family: descriptive"),
        ((1, 1), 0.3, "one network a family: descriptive"),
        ((3, 2), 0.3, "fewer than 3 networks a family: descriptive"),
        ((3, 3), 0.3, "tested"),
        ((3, 3), 0.33, "confounded: kept shares from 0.30 to 0.33"),
        ((1, 1), 0.33, "confounded: kept shares from 0.30 to 0.33"),
        ((3, 3), 0.32, "tested"),
    ],
)
def test_what_can_be_compared(sizes: tuple[int, ...], shares: float, status: str) -> None:
    names = fleet(sizes)
    families = {name: name.split("-")[0] for name in names}
    profiles = {name: make_profile(k) for k, name in enumerate(names)}
    profiles[names[-1]] = make_profile(0, kept_share=shares)
    assert comparison(families, standing(profiles)) == status
    facts, said = family_facts(families, standing(profiles), 9, 0)
    assert said == status
    row = of(facts, "all", "phi_families_p")
    assert (row["n"] == 0) == (status != "tested")
    if status != "tested":
        assert row["interval"] == status
    if max(sizes) == 1:
        assert math.isnan(float(of(facts, "all", "phi_between_families")["value"]))  # type: ignore[arg-type]


def test_smallest_p_is_counted() -> None:
    for sizes in ((2, 2), (3, 2), (2, 2, 1)):
        labels = [k for k, size in enumerate(sizes) for _ in range(size)]
        values = torch.randn(len(labels), generator=torch.Generator().manual_seed(0)).double()
        # Make the given partition the best there is.
        values = torch.tensor(labels).double() * 10 + values
        best = between(values, torch.tensor(labels))
        every = [between(values, torch.tensor(order)) for order in itertools.permutations(labels)]
        assert smallest_p(sizes) == pytest.approx(np.mean([one >= best - 1e-12 for one in every]))


def test_relative_depth_is_the_same_for_every_number_of_layers() -> None:
    for layers in (2, 5, 9):
        line = resampled(torch.linspace(1, 3, layers))
        assert torch.allclose(line, torch.linspace(1, 3, 10).double(), atol=1e-6)
    gap = resampled(torch.tensor([1.0, math.nan, 3.0]))
    assert torch.allclose(gap, torch.linspace(1, 3, 10).double())
    assert resampled(torch.full((3,), math.nan)).isnan().all()
    steep = Profile(torch.zeros(5, 2, 2), torch.linspace(0, 0.8, 5)[:, None].expand(-1, 2), 0.3)
    assert steep.statistic("exclusive_excess_slope", torch.arange(2)) == pytest.approx(0.8)
    assert steep.statistic("exclusive_excess", torch.arange(2)) == pytest.approx(0.4)


def test_several_networks_in_one_table(network: Network, sets: list[MaskSet], images: Images) -> None:
    other = make_network(1, "other-hand")
    theirs = make_masks(8, ("bag", "coat", "boot"))  # in another order
    table = how(
        [(network, sets), (other, theirs)], images=images, groups={"warm": ["coat", "boot"]}, draws=19
    )
    alone = how(other, theirs[list(TASKS)], images, groups={"warm": ["coat", "boot"]}, draws=19)
    mine = table[table["network"] == "other-hand"].reset_index(drop=True)
    pd.testing.assert_frame_equal(mine, alone[alone["network"] == "other-hand"].reset_index(drop=True))
    assert table.attrs["families"] == {"hand": "hand", "other-hand": "other"}
    assert table.attrs["comparison"] in table.attrs["answer"]
    assert table.attrs["answer"].startswith("2 networks: masks of two tasks overlap by φ = hand ")
    mean_phi = np.mean([value(table, "coat", "all", "phi", "boot", name) for name in ("hand", "other-hand")])
    assert value(table, "all", "all", "phi_within", None, "all") == pytest.approx(mean_phi)
    named = how([(network, sets[0]), (other, theirs)], families=["x", "x"], draws=9)
    assert set(named["network"]) == {"hand", "other-hand", "family x", "all"}
    mapped = how([(network, sets[0]), (other, theirs)], families={"other-hand": "y", "hand": "x"}, draws=9)
    assert mapped.attrs["families"] == {"hand": "x", "other-hand": "y"}


def test_networks_of_one_name_are_told_apart_by_their_weights(sets: list[MaskSet]) -> None:
    first, second = make_network(0), make_network(1)
    table = how([(first, sets[0]), (second, sets[0])], draws=9)
    names = [f"hand {one.weights_id[:6]}" for one in (first, second)]
    assert list(table.attrs["families"]) == names
    assert names[0] in set(table["network"])
    assert figures.how(table).layout.title.text.startswith("2 networks")


def test_networks_known_by_their_tables_count_like_others(tmp_path: Path) -> None:
    pairs = []
    for k, name in enumerate(fleet((3, 3), ("plain", "dense"))):
        rows = torch.rand(3, 16, generator=torch.Generator().manual_seed(k)).argsort(1).argsort(1) < 8
        parts = rows.float().split(list(UNITS.values()), 1)
        pairs.append(
            (make_network(k, name), MaskSet.from_scores(dict(zip(UNITS, parts, strict=True)), TASKS))
        )
    whole = how(pairs, draws=39)
    assert whole.attrs["comparison"] == "tested"
    # Of the second family's networks only a saved table is there.
    path = tmp_path / "others.csv"
    how(pairs[3:], draws=39).to_csv(path, index=False)
    table = how(pairs[:3], beside=pd.read_csv(path), draws=39)
    assert table.attrs["comparison"] == "tested"
    assert table.attrs["families"] == whole.attrs["families"]
    over = ["mean", "all"]
    for name in whole["network"].unique():
        mine, theirs = (
            one[(one["network"] == name) & one["task"].isin(over) & ~one["metric"].str.contains("group|with")]
            for one in (table, whole)
        )
        pd.testing.assert_frame_equal(mine.reset_index(drop=True), theirs.reset_index(drop=True))
    assert table.attrs["answer"].startswith("6 networks: masks of two tasks overlap by φ = ")
    assert ": plain " in table.attrs["answer"]
    assert ", dense " in table.attrs["answer"]
    assert how_answer(table) == table.attrs["answer"]
    figure = figures.how(table)
    assert figure.layout.title.text.startswith("6 networks")
    colours = {trace.legendgroup: set() for trace in figure.data}
    for trace in figure.data:
        colours[trace.legendgroup].add(trace.line.color)
    assert sorted(colours) == ["dense", "plain"]  # a colour and an entry of the legend each
    assert sorted(len(found) for found in colours.values()) == [1, 1]
    assert colours["dense"] != colours["plain"]
    assert [trace.name for trace in figure.data if trace.showlegend] == ["plain", "dense"]


def test_one_network_beside_others_still_has_its_groups(network: Network, sets: list[MaskSet]) -> None:
    groups = {"warm": ["coat", "boot"]}
    other = how(make_network(1, "other-hand"), sets[0], groups=groups, draws=19)
    alone = how(network, sets[0], groups=groups, draws=19)
    both = how(network, sets[0], groups=groups, beside=other, draws=19)
    words = re.search(r"classes that people group [^;]*", alone.attrs["answer"])
    assert words is not None
    assert words[0] in both.attrs["answer"]


def test_tables_beside_that_do_not_fit_are_refused(network: Network, sets: list[MaskSet]) -> None:
    def refused(words: str, beside: object) -> None:
        with pytest.raises(NadkitError, match=words):
            how(network, sets[0], beside=beside, draws=9)  # type: ignore[arg-type]

    table = how(make_network(1, "other-hand"), sets[0], draws=9)
    refused("got 'tables'", "tables")
    refused("without network", pd.DataFrame({"task": []}))
    refused("no table of further networks comes with the package for 'hand'", "bundled")
    refused("beside has hand; give networks", how(network, sets[0], draws=9))
    refused("beside has no network", table.iloc[:0])
    refused("no rows kept_share and layers of other-hand", table[table["metric"] != "kept_share"])
    refused("numbers that are none", table.assign(value="much"))
    refused("without the name of a network", table.assign(network=3))
    refused("no rows kept_share and layers", table.assign(value=math.inf))
    refused("same tasks; other-hand has", table[table["metric"] != "exclusive_share"])
    refused(
        "same tasks; other-hand has", how(make_network(1, "other-hand"), sets[0][list(TASKS[:2])], draws=9)
    )


def test_a_full_comparison_runs_and_says_what_it_finds() -> None:
    pairs = []
    for k, name in enumerate(fleet((3, 3), ("plain", "dense"))):
        rows = torch.rand(3, 4, generator=torch.Generator().manual_seed(k)) < 0.5
        scores = {"6": rows.float(), "4": (torch.rand(3, 7) < 0.5).float(), "2": torch.eye(5)[:3]}
        ordered = {address: scores[address] for address in UNITS}
        pairs.append((make_network(k, name), MaskSet.from_scores(ordered, TASKS)))
    shares = [np.mean(list(masks.kept_share().values())) for _, masks in pairs]
    table = how(pairs, draws=19)
    if max(shares) - min(shares) > 0.02:
        assert table.attrs["comparison"].startswith("confounded: kept shares")
    equal = [(network, pairs[0][1]) for network, _ in pairs]
    table = how(equal, draws=19)
    assert table.attrs["comparison"] == "tested"
    # The same masks everywhere: nothing varies, so there is nothing to explain.
    row = table[table["metric"] == "phi_families_p"].iloc[0]
    assert math.isnan(row["value"])
    assert "no variance" in table.attrs["answer"]


# Answers and figures


def test_the_answer_is_computed_from_the_table(table: pd.DataFrame) -> None:
    said = table.attrs["answer"]
    assert said == how_answer(table)
    row = cell(table, "mean", "all", "phi")
    assert f"φ = {row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}] (chance is 0)" in said
    assert f"{100 * value(table, 'all', 'all', 'unused'):.0f} % are kept by no task" in said
    assert said.endswith("; one network: descriptive.")
    assert "\n" not in said
    read = pd.read_csv(io.StringIO(table.to_csv(index=False)))
    assert how_answer(read) == said
    changed = table.copy()
    changed.loc[row.name, "value"] = 0.77
    assert "φ = 0.77" in how_answer(changed)


def test_a_tested_answer_says_how_it_came_out() -> None:
    columns = ["network", "task", "layer", "metric", "value", "low", "high", "n", "interval"]
    rows: list[tuple[object, ...]] = [
        (name, "mean", "all", "phi", 0.1, math.nan, math.nan, 45, "tasks") for name in ("a", "b")
    ]
    for p, words in ((0.01, "connection types differ in φ (40 %"), (0.2, "do not differ in φ as far as")):
        test = [
            ("all", "mean", "relative depth", "phi_families_p", p, p, p, 6, "19 permutations"),
            ("all", "mean", "relative depth", "phi_between_families", 0.4, 0.4, 0.4, 6, "tested"),
        ]
        assert words in how_answer(pd.DataFrame([*rows, *test], columns=columns))


def test_figure_of_one_network(table: pd.DataFrame) -> None:
    before = table.copy()
    figure = figures.how(table)
    pd.testing.assert_frame_equal(table, before)
    heat, bars = figure.data[0], figure.data[1:]
    assert isinstance(heat, go.Heatmap)
    names = list(figure.layout.xaxis.ticktext)
    assert set(names) == set(TASKS)
    for one, other in itertools.combinations(TASKS, 2):
        expected = value(table, one, "all", "phi", other)
        a, b = names.index(one), names.index(other)
        assert heat.z[a][b] == heat.z[b][a] == pytest.approx(expected)
    assert [bar.name for bar in bars] == ["no task", "one task", "some tasks", "all tasks"]
    assert list(figure.layout.xaxis2.ticktext) == list(UNITS)
    assert np.sum([bar.y for bar in bars], axis=0) == pytest.approx([1, 1, 1])
    assert bars[1].y[2] == value(table, "all", "6", "exclusive")
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]
    row = cell(table, "mean", "all", "phi")
    assert f"φ = {row['value']:.2f}" in figure.layout.title.text
    assert f"Mean over pairs {row['value']:.2f}" in figure.layout.meta["alt"]
    assert figure.layout.xaxis2.title.text == "layer"


def test_figure_of_several_networks(network: Network, sets: list[MaskSet]) -> None:
    table = how([(network, sets[0]), (make_network(1, "other-<b>"), make_masks(8))], draws=9)
    figure = figures.how(table)
    assert [trace.name for trace in figure.data if trace.showlegend] == ["hand", "other-&lt;b&gt;"]
    assert len(figure.data) == 4
    line = figure.data[0]
    assert list(line.x) == [0.0, 0.5, 1.0]
    expected = [value(table, "mean", layer, "phi") for layer in UNITS]
    assert list(line.y) == pytest.approx(expected, nan_ok=True)
    assert figure.layout.meta["alt"].lower().endswith(f"{table.attrs['comparison']}.")
    assert "Mean φ over layers: hand " in figure.layout.meta["alt"]


def test_other_tables_have_no_figure(table: pd.DataFrame) -> None:
    with pytest.raises(NadkitError, match=r"no column layer"):
        figures.how(table.drop(columns="layer"))
    with pytest.raises(NadkitError, match="no phi of all layers"):
        figures.how(table[table["metric"] != "phi"])
    with pytest.raises(NadkitError, match="no comparison of families"):
        how_answer(table[table["metric"] == "phi"])


# Bad input


def test_masks_and_networks_that_do_not_fit_are_refused(network: Network, sets: list[MaskSet]) -> None:
    foreign = MaskSet.from_scores({"2": torch.ones(3, 5)}, TASKS)
    with pytest.raises(MaskFileError, match="no scores for its layers 4, 6"):
        how(network, foreign)
    with pytest.raises(MaskFileError, match="learned on 'elsewhere'"):
        how(network, sets[0].with_meta(network="elsewhere"))
    with pytest.raises(NadkitError, match=r"compares masks of the same tasks; there are .*choose them"):
        how(network, [sets[0], make_masks(3, ("coat", "boot"))])
    with pytest.raises(NadkitError, match=r"hand .* is given twice"):
        how([(network, sets[0]), (network, sets[1])])
    other = make_network(1, "other")
    with pytest.raises(NadkitError, match="the same tasks"):
        how([(network, sets[0]), (other, make_masks(3, ("coat", "shirt", "bag")))])
    for wrong in ((network, None), (network, []), (network, "masks"), (network, [network])):
        with pytest.raises(NadkitError, match="how needs masks of"):
            how(*wrong)  # type: ignore[arg-type]
    for asked in ([], [network], "network", [(network, sets[0], 1)], None):
        with pytest.raises(NadkitError, match="one network and its masks"):
            how(asked)  # type: ignore[arg-type]
    with pytest.raises(NadkitError, match="one network and its masks"):
        how([(network, sets[0])], sets[0])


def test_networks_of_other_depths_are_confounded() -> None:
    names = fleet((3, 3))
    families = {name: name.split("-")[0] for name in names}
    standings = standing({name: make_profile(3 * k) for k, name in enumerate(names)})  # of 4 layers each
    assert comparison(families, standings) == "tested"
    for layers, status in ((6, "tested"), (7, "confounded: networks of 4 to 7 layers")):
        standings[names[0]] = standings[names[0]]._replace(layers=layers)
        assert comparison(families, standings) == status


def test_one_task_shares_nothing(network: Network, sets: list[MaskSet]) -> None:
    table = how(network, sets[0][["coat"]], draws=9)
    assert "there is one task, and nothing that it could share units with" in table.attrs["answer"]


def test_other_bad_input(network: Network, sets: list[MaskSet]) -> None:
    with pytest.raises(NadkitError, match=r"groups are \{'a': None\}"):
        how(network, sets[0], groups={"a": None})  # type: ignore[dict-item]
    with pytest.raises(NadkitError, match="families are 3"):
        how(network, sets[0], families=3)  # type: ignore[arg-type]
    with pytest.raises(NadkitError, match="how needs images, and got str"):
        how(network, sets[0], "pictures")  # type: ignore[arg-type]
    for draws in (0, True, 1.5):
        with pytest.raises(NadkitError, match="give a whole number of 1 or more"):
            how(network, sets[0], draws=draws)  # type: ignore[arg-type]
    for seed in ("a", None, 1.5, -1):
        with pytest.raises(NadkitError, match=r"seed = .*; give a whole number of 0 or more"):
            how(network, sets[0], seed=seed)  # type: ignore[arg-type]
    with pytest.raises(NadkitError, match=r"'cot', which is no class; closest: coat"):
        how(network, sets[0], groups={"warm": ["cot", "boot"]})
    with pytest.raises(NadkitError, match="'coat' is in the groups 'one' and 'two'"):
        how(network, sets[0], groups={"one": ["coat", "bag"], "two": ["coat", "boot"]})
    with pytest.raises(NadkitError, match="no group has two of the tasks coat, boot, bag"):
        how(network, sets[0], groups={"one": ["coat", "shirt"]})
    for groups in ({"one": "coat"}, ["coat"]):
        with pytest.raises(NadkitError, match="give class names by group"):
            how(network, sets[0], groups=groups)  # type: ignore[arg-type]
    with pytest.raises(NadkitError, match="no family for the network 'hand'; closest: hands"):
        how(network, sets[0], families={"hands": "x"})
    for families in (["a", "b"], "ab"):
        with pytest.raises(NadkitError, match="for 1 networks; give one a network"):
            how(network, sets[0], families=families)
    cats = Images(torch.zeros(2, 1, 2, 3), torch.tensor([0, 1]), ("cat", "bag"))
    with pytest.raises(ImageError, match="'cat', which is no class of hand"):
        how(network, sets[0], cats)
    with pytest.raises(ImageError, match="takes pictures of shape"):
        how(network, sets[0], Images(torch.zeros(2, 1, 3, 3), torch.tensor([0, 1]), ("bag", "coat")))


def test_nan_logits_are_refused(network: Network, sets: list[MaskSet], images: Images) -> None:
    model = copy.deepcopy(network.model)
    broken = Network.wrap(model, NAMES, example=torch.zeros(1, 1, 2, 3), layers=list(UNITS), name="hand")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(math.nan)
    with pytest.raises(NadkitError, match="hand gives NaN or infinite logits"):
        how(broken, sets[0], images, draws=9)


def test_a_copy_of_the_network_answers_alike(network: Network, sets: list[MaskSet], images: Images) -> None:
    """Parameters that ask for gradients, and a model in training mode, change nothing."""
    model = copy.deepcopy(network.model).train().requires_grad_(True)
    twin = Network.wrap(model, NAMES, example=torch.zeros(1, 1, 2, 3), layers=list(UNITS), name="hand")
    first, second = (how(one, sets[0], images, draws=9) for one in (network, twin))
    pd.testing.assert_frame_equal(first, second)
    assert all(parameter.grad is None for parameter in model.parameters())
