"""`stability` against a slow second way, planted agreement, and masks that have nothing in common."""

from __future__ import annotations

import io
import itertools
import math
import statistics

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import t
from torch import nn

from nadkit.errors import MaskFileError, NadkitError
from nadkit.figures import _connections as figures
from nadkit.images import Images
from nadkit.masks import MaskSet
from nadkit.networks import Network
from nadkit.questions.seeds import _p, stability, stability_answer

TASKS = ("coat", "boot", "bag", "shirt")
UNITS = {"1": 8, "2": 12}
METRICS = ("same", "other", "same_minus_other")


@pytest.fixture(scope="module")
def network() -> Network:
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 8), nn.Linear(8, 12), nn.Linear(12, 5))
    names = (*TASKS[::-1], "hat")
    return Network.wrap(model, names, example=torch.zeros(1, 1, 1, 2), layers=list(UNITS), name="hand")


def make_masks(seed: int, tasks: tuple[str, ...] = TASKS) -> MaskSet:
    generator = torch.Generator().manual_seed(seed)
    scores = {a: (torch.rand(len(tasks), n, generator=generator) < 0.5).float() for a, n in UNITS.items()}
    return MaskSet.from_scores(scores, tasks, {"seed": seed})


def relearned(masks: MaskSet, seed: int, changed: float) -> MaskSet:
    """The same masks with a share of their units drawn anew."""
    generator = torch.Generator().manual_seed(seed)
    scores = {}
    for address, rows in masks.scores.items():
        new = torch.rand(rows.shape, generator=generator) < changed
        scores[address] = torch.where(new, (torch.rand(rows.shape, generator=generator) < 0.5).float(), rows)
    return MaskSet.from_scores(scores, masks.tasks, {"seed": seed})


@pytest.fixture(scope="module")
def sets() -> list[MaskSet]:
    """Three seeds; the second lists its tasks in another order, the third keeps nothing of a layer once."""
    first = make_masks(0)
    second = relearned(first, 1, 0.4)[["bag", "shirt", "coat", "boot"]]
    third = relearned(first, 2, 0.4)
    scores = {address: rows.clone() for address, rows in third.scores.items()}
    scores["1"][0] = 0.0
    return [first, second, MaskSet.from_scores(scores, TASKS, {"seed": 2})]


@pytest.fixture(scope="module")
def table(network: Network, sets: list[MaskSet]) -> pd.DataFrame:
    return stability(network, sets, draws=99)


def cell(table: pd.DataFrame, task: str, layer: str, metric: str) -> pd.Series:
    rows = table[(table["task"] == task) & (table["layer"] == layer) & (table["metric"] == metric)]
    assert len(rows) == 1
    return rows.iloc[0]


def slow_overlap(kind: str, one: MaskSet, a: str, other: MaskSet, b: str, layer: str) -> float:
    if layer == "all":
        values = [slow_overlap(kind, one, a, other, b, address) for address in UNITS]
        return statistics.fmean(v for v in values if not math.isnan(v))
    first, second = one.gates(a)[layer].numpy(), other.gates(b)[layer].numpy()
    if kind == "jaccard":
        either = np.maximum(first, second).sum()
        return float((first * second).sum() / either) if either else 1.0
    if len(set(first)) == 1 or len(set(second)) == 1:
        return math.nan
    return float(np.corrcoef(first, second)[0, 1])


def test_every_value_is_that_of_the_slow_way(table: pd.DataFrame, sets: list[MaskSet]) -> None:
    pairs = list(itertools.combinations(sets, 2))
    for kind, layer in itertools.product(("phi", "jaccard"), (*UNITS, "all")):
        for task in TASKS:
            same, other = [], []
            for one, two in pairs:
                same.append(slow_overlap(kind, one, task, two, task, layer))
                crossed = [
                    slow_overlap(kind, *way, layer)
                    for k in TASKS
                    if k != task
                    for way in ((one, task, two, k), (one, k, two, task))
                ]
                other.append(statistics.fmean(v for v in crossed if not math.isnan(v)))
            gap = [a - b for a, b in zip(same, other, strict=True)]
            for metric, values in (("same", same), ("other", other), ("same_minus_other", gap)):
                row = cell(table, task, layer, f"{kind}_{metric}")
                there = [v for v in values if not math.isnan(v)]
                assert row["value"] == pytest.approx(statistics.fmean(there))
                assert (row["low"], row["high"]) == pytest.approx((min(there), max(there)))
                assert row["n"] == len(there)
    assert cell(table, "coat", "1", "phi_same")["n"] == 1  # the third set keeps nothing there
    assert cell(table, "coat", "1", "jaccard_same")["n"] == 3


def test_means_over_tasks_and_their_intervals(table: pd.DataFrame, sets: list[MaskSet]) -> None:
    for layer in (*UNITS, "all"):
        same = [float(cell(table, task, layer, "phi_same")["value"]) for task in TASKS]
        row = cell(table, "mean", layer, "phi_same")
        half = t.ppf(0.975, 3) * statistics.stdev(same) / 2
        assert row["value"] == pytest.approx(statistics.fmean(same))
        assert row["low"] == pytest.approx(max(-1, row["value"] - half))
        assert row["high"] == pytest.approx(min(1, row["value"] + half))
        assert row["n"] == 4
        assert row["interval"] == "tasks, mean of 3 mask seeds"
        gap = cell(table, "mean", layer, "phi_same_minus_other")["value"]
        assert gap == pytest.approx(row["value"] - cell(table, "mean", layer, "phi_other")["value"])
    # Each pair of tasks counts once in either direction, and is left out with either of its tasks.
    pairs = list(itertools.combinations(sets, 2))
    matrix = {
        (a, b): statistics.fmean(slow_overlap("phi", one, a, two, b, "2") for one, two in pairs)
        for a, b in itertools.permutations(TASKS, 2)
    }
    row = cell(table, "mean", "2", "phi_other")
    left = [statistics.fmean(v for pair, v in matrix.items() if task not in pair) for task in TASKS]
    error = math.sqrt(3 / 4 * sum((v - statistics.fmean(left)) ** 2 for v in left))
    assert row["value"] == pytest.approx(statistics.fmean(matrix.values()))
    assert row["high"] - row["value"] == pytest.approx(t.ppf(0.975, 3) * error)


def test_columns_and_what_varies(table: pd.DataFrame, network: Network, sets: list[MaskSet]) -> None:
    assert list(table.columns) == [
        "network", "task", "other_task", "layer", "metric", "value", "low", "high", "n", "seed", "interval"
    ]  # fmt: skip
    assert not table.duplicated(["task", "layer", "metric"]).any()
    assert cell(table, "coat", "2", "phi_same")["other_task"] == "coat"
    assert cell(table, "coat", "2", "phi_other")["other_task"] == "mean"
    assert cell(table, "coat", "2", "phi_same")["interval"] == "lowest to highest of 3 pairs of mask seeds"
    assert table["seed"].isna().all()
    assert table.attrs["sets"] == 3
    assert (table["value"].isna() == (table["n"] == 0)).all()
    two = stability(network, sets[:2], draws=9)
    assert cell(two, "coat", "2", "phi_same")["interval"] == "none: counted"


def test_the_order_of_sets_and_tasks_does_not_matter(
    network: Network, sets: list[MaskSet], table: pd.DataFrame
) -> None:
    back = stability(network, [one[list(TASKS[::-1])] for one in sets[::-1]], draws=99)
    for task, layer, metric in itertools.product((*TASKS, "mean"), ("1", "2", "all"), METRICS):
        first, second = (cell(one, task, layer, f"phi_{metric}") for one in (table, back))
        assert tuple(first[["value", "low", "high"]]) == pytest.approx(
            tuple(second[["value", "low", "high"]])
        )
    again = stability(network, sets, draws=99)
    pd.testing.assert_frame_equal(again, table)
    assert again.attrs == table.attrs


def test_same_masks_agree_fully_and_complements_not_at_all(network: Network) -> None:
    masks = make_masks(3)
    turned = MaskSet.from_scores({a: 1 - rows for a, rows in masks.scores.items()}, TASKS)
    equal = stability(network, [masks, masks.with_meta(seed=9)], draws=99)
    assert cell(equal, "mean", "all", "phi_same")["value"] == pytest.approx(1.0)
    # Four tasks have 24 orders, too few for a small p.
    assert 0.01 <= cell(equal, "all", "all", "phi_p")["value"] <= 0.1
    opposite = stability(network, [masks, turned], draws=99)
    assert cell(opposite, "coat", "1", "phi_same")["value"] == pytest.approx(-1.0)
    assert opposite.attrs["answer"].endswith(": it is not shown that a task keeps units of its own.")


def make_wide(tasks: int) -> tuple[Network, tuple[str, ...]]:
    names = tuple(f"t{k}" for k in range(tasks))
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 40), nn.Linear(40, tasks))
    return Network.wrap(model, names, example=torch.zeros(1, 1, 1, 1), layers=["1"], name="wide"), names


def test_partial_agreement_is_found_and_named_as_what_it_is() -> None:
    network, names = make_wide(8)
    generator = torch.Generator().manual_seed(0)
    first = MaskSet.from_scores({"1": (torch.rand(8, 40, generator=generator) < 0.4).float()}, names)
    nearly = stability(network, [first, relearned(first, 1, 0.05), relearned(first, 2, 0.05)])
    assert nearly.attrs["answer"].endswith(": a task keeps nearly the same units, whatever the seed.")
    table = stability(network, [first, relearned(first, 1, 0.6), relearned(first, 2, 0.6)])
    same = cell(table, "mean", "all", "phi_same")["value"]
    assert 0.15 < same < 0.6
    assert cell(table, "all", "all", "phi_p")["value"] == 0.001
    assert table.attrs["answer"].endswith("units of its own, but no single unit is sure to be among them.")


def test_random_masks_agree_as_chance_does() -> None:
    network, names = make_wide(8)
    generator = torch.Generator().manual_seed(0)
    masks = MaskSet.from_scores({"1": (torch.rand(8, 40, generator=generator) < 0.4).float()}, names)
    tables = [
        stability(network, [masks, *(masks.random(seed + k) for k in (1, 2))], draws=9)
        for seed in range(0, 60, 3)
    ]
    same = [float(cell(table, "mean", "all", "phi_same")["value"]) for table in tables]
    # φ of random masks has the spread 1 / √(C − 1); here over 8 tasks, 3 pairs of seeds and 20 tables.
    assert abs(statistics.fmean(same)) < 3 / math.sqrt(39 * 8 * 3 * 20)
    covered = [
        cell(table, "mean", "all", "phi_same_minus_other")["low"]
        <= 0
        <= cell(table, "mean", "all", "phi_same_minus_other")["high"]
        for table in tables
    ]
    assert sum(covered) >= 17


def test_without_agreement_p_is_nominal() -> None:
    """Random matrices with hubs on both sides, and undefined entries."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for draw in range(300):
        hubs = torch.randn(3, 6, 1, generator=generator) + torch.randn(3, 1, 6, generator=generator)
        matrices = hubs + torch.randn(3, 6, 6, generator=generator).round()
        if draw % 3 == 0:
            matrices[:, 2, :3] = torch.nan
        found.append(_p(matrices.double(), 3, 19, draw))
    there = np.array(found)
    for alpha in (0.05, 0.25, 0.5):
        assert (there <= alpha).mean() <= alpha + 2.5 * math.sqrt(alpha * (1 - alpha) / len(there))
    assert (there <= 0.5).mean() > 0.35


def test_the_permutation_moves_tasks_and_not_pairs_of_sets() -> None:
    """Two sets of three tasks: six orders, of which the given one is the best."""
    matrix = torch.tensor([[[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.0, 0.3, 0.7]]]).double()
    sums = [
        sum(float(matrix[0, k, order[k]]) for k in range(3)) for order in itertools.permutations(range(3))
    ]
    expected = np.mean([one >= sums[0] - 1e-12 for one in sums])
    assert expected == pytest.approx(1 / 6)
    assert _p(matrix, 2, 4000, 0) == pytest.approx(expected, abs=0.02)


def test_empty_and_full_masks_are_defined(network: Network) -> None:
    for fill in (0.0, 1.0):
        scores = {address: torch.full((4, units), fill) for address, units in UNITS.items()}
        sets = [MaskSet.from_scores(scores, TASKS, {"seed": seed}) for seed in (0, 1)]
        table = stability(network, sets, draws=9)
        phi = table[table["metric"].str.startswith("phi")]
        assert phi["value"].isna().all()
        assert (phi["n"] == 0).all()
        assert cell(table, "mean", "all", "jaccard_same")["value"] == 1.0
        assert "no task has an overlap φ" in table.attrs["answer"]
        alt = figures.stability(table).layout.meta["alt"]
        assert alt.endswith("same task no value, other tasks no value. Chance is 0.")
    alone = stability(network, [make_masks(0, ("bag",)), make_masks(1, ("bag",))], draws=9)
    assert math.isnan(cell(alone, "mean", "all", "phi_other")["value"])
    assert "no other task to compare with" in alone.attrs["answer"]


def test_the_answer_is_computed_from_the_table(table: pd.DataFrame) -> None:
    said = table.attrs["answer"]
    for metric in METRICS:
        row = cell(table, "mean", "all", f"phi_{metric}")
        assert f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]" in said
    assert f"(p = {cell(table, 'all', 'all', 'phi_p')['value']:.2g})" in said
    assert stability_answer(pd.read_csv(io.StringIO(table.to_csv(index=False)))) == said
    clear = table.copy()
    place = clear[(clear["metric"] == "phi_p")].index
    clear.loc[place, "value"] = 0.2
    assert "it is not shown" in stability_answer(clear)
    with pytest.raises(NadkitError, match="no φ of the same task"):
        stability_answer(table[table["metric"] != "phi_same"])


def test_figure(table: pd.DataFrame) -> None:
    before = table.copy()
    figure = figures.stability(table)
    pd.testing.assert_frame_equal(table, before)
    dots, same, other = figure.data
    assert list(figure.layout.xaxis.ticktext) == ["1", "2", "<b>all</b>"]
    assert len(dots.x) == 4 * 3
    for trace, metric in ((same, "phi_same"), (other, "phi_other")):
        for place, layer in enumerate((*UNITS, "all")):
            row = cell(table, "mean", layer, metric)
            assert round(trace.x[place]) == place
            assert trace.y[place] == pytest.approx(row["value"])
            assert trace.y[place] + trace.error_y.array[place] == pytest.approx(row["high"])
            assert trace.y[place] - trace.error_y.arrayminus[place] == pytest.approx(row["low"])
    row = cell(table, "mean", "all", "phi_same")
    assert f"same task {row['value']:.2f}" in figure.layout.title.text
    assert f"same task {row['value']:.2f}" in figure.layout.meta["alt"]
    with pytest.raises(NadkitError, match="no phi_same of all layers"):
        figures.stability(table[table["layer"] != "all"])


def test_dead_units_are_left_out() -> None:
    """On units that are never active all masks agree, which is no agreement."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 3))
    with torch.no_grad():
        model[1].weight.copy_((torch.arange(40) < 20).float()[:, None])
        model[1].bias.zero_()
    names = ("bag", "coat", "boot")
    network = Network.wrap(model, names, example=torch.ones(1, 1, 1, 1), layers=["2"], name="half")
    generator = torch.Generator().manual_seed(3)
    rows = [(torch.rand(3, 40, generator=generator) < 0.5).float() for _ in range(2)]
    for scores in rows:
        scores[:, 20:] = 0
    sets = [MaskSet.from_scores({"2": one}, names, {"seed": k}) for k, one in enumerate(rows)]
    images = Images(torch.ones(6, 1, 1, 1), torch.arange(3).repeat(2), names)
    blind, seeing = stability(network, sets, draws=9), stability(network, sets, images, draws=9)
    assert blind.attrs["dead"] == []
    assert seeing.attrs["dead"] == [f"2/{unit}" for unit in range(20, 40)]
    live = [MaskSet.from_scores({"2": one[:, :20]}, names, {"seed": k}) for k, one in enumerate(rows)]
    small = Network.wrap(
        nn.Sequential(nn.Flatten(), nn.Linear(1, 20), nn.ReLU(), nn.Linear(20, 3)), names,
        example=torch.ones(1, 1, 1, 1), layers=["2"], name="half",
    )  # fmt: skip
    pd.testing.assert_frame_equal(seeing, stability(small, live, draws=9))
    both = [
        one[(one["task"] == "mean") & (one["metric"] == "phi_other")]["value"].iloc[-1]
        for one in (blind, seeing)
    ]
    assert both[0] > both[1] + 0.2


def test_bad_input_is_refused(network: Network, sets: list[MaskSet]) -> None:
    for few in (sets[0], sets[:1], [], None):
        with pytest.raises(NadkitError, match="two sets of masks or more"):
            stability(network, few)  # type: ignore[arg-type]
    with pytest.raises(NadkitError, match="stability needs masks"):
        stability(network, "masks")  # type: ignore[arg-type]
    with pytest.raises(NadkitError, match=r"sets 0 and 2 are the same masks .*another seed"):
        stability(network, [sets[0], sets[1], make_masks(0)])
    with pytest.raises(NadkitError, match="compares masks of the same tasks"):
        stability(network, [sets[0], make_masks(1, ("coat", "boot", "bag"))])
    with pytest.raises(MaskFileError, match="not for the network 'hand'"):
        stability(network, [sets[0], sets[1].with_meta(network="elsewhere")])
    foreign = MaskSet.from_scores({"1": torch.ones(4, 9), "2": torch.ones(4, 12)}, TASKS)
    with pytest.raises(MaskFileError, match="layer '1' has 8 units"):
        stability(network, [sets[0], foreign])
    with pytest.raises(NadkitError, match="draws = 0; give a whole number of 1 or more"):
        stability(network, sets, draws=0)
    for seed in ("a", None, 1.5, -1):
        with pytest.raises(NadkitError, match=r"seed = .*; give a whole number of 0 or more"):
            stability(network, sets, seed=seed)  # type: ignore[arg-type]
    with pytest.raises(NadkitError, match="needs images, and got str"):
        stability(network, sets, "images", draws=9)  # type: ignore[arg-type]
    with pytest.raises(NadkitError, match="needs a Network, and got str"):
        stability("hand", sets, draws=9)  # type: ignore[arg-type]
