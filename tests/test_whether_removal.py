"""Necessity and minimality: slow and by hand on a small network, and on one whose true units are planted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import pytest
import torch
from hand import (
    NAMES,
    TASKS,
    UNITS,
    cell,
    make_images,
    make_masks,
    make_network,
    slow_logits,
    slow_parts,
    value,
)
from torch import Tensor

import nadkit.questions.minimality as minimality_module
import nadkit.questions.necessity as necessity_module
from nadkit.images import Images
from nadkit.masks import MaskSet
from nadkit.measures import stratified_weights
from nadkit.networks import Network
from nadkit.questions import whether
from nadkit.questions.necessity import removals
from nadkit.toy import Planted, planted

DOSES = ("1 %", "2 %", "5 %", "10 %", "20 %", "kept", "exclusive")


@pytest.fixture(scope="module")
def network() -> Network:
    return make_network()


@pytest.fixture(scope="module")
def images() -> Images:
    return make_images((7, 6, 5, 8), seed=1)


@pytest.fixture(scope="module")
def masks() -> MaskSet:
    generator = torch.Generator().manual_seed(3)
    scores = {address: torch.rand(3, units, generator=generator) for address, units in UNITS.items()}
    return MaskSet.from_scores(scores, TASKS, {"seed": 7})


@pytest.fixture(scope="module")
def table(network: Network, images: Images, masks: MaskSet) -> pd.DataFrame:
    return whether(network, masks, images, draws=3, parts="necessity", seed=4)


def gates_of(removed: Tensor) -> dict[str, Tensor]:
    kept = (~removed).float()
    return {"1": kept[:5], "3": kept[5:]}


def slow_odds(network: Network, gates: Mapping[str, Tensor] | None, images: Images, task: str) -> list[float]:
    logits = [slow_logits(network, pixels, gates) for pixels in images.pixels]
    return [slow_parts(each, NAMES.index(task))["log_odds"] for each in logits]


def slow_drop(network: Network, removed: Tensor, images: Images, of: str) -> float:
    """By how much the log-odds of a class fall on its own pictures."""
    mine = images.of(of)
    before, after = slow_odds(network, None, mine, of), slow_odds(network, gates_of(removed), mine, of)
    return sum(a - b for a, b in zip(before, after, strict=True)) / len(before)


# What is removed


def test_doses_take_the_units_that_score_highest(masks: MaskSet) -> None:
    scores = torch.cat(list(masks.scores.values()), 1)
    kept = scores > 0.5
    found = {removal.dose: removal.own[0] for removal in removals([masks], 0, 0)}
    assert tuple(found) == DOSES
    for dose, count in {"1 %": 1, "2 %": 1, "5 %": 1, "10 %": 1, "20 %": 2}.items():
        for row, chosen in enumerate(found[dose]):
            assert set(chosen.nonzero().flatten().tolist()) == set(
                scores[row].argsort(descending=True)[:count].tolist()
            )
    assert torch.equal(found["kept"], kept)
    for row, chosen in enumerate(found["exclusive"]):
        others = torch.cat([kept[:row], kept[row + 1 :]]).any(0)
        assert torch.equal(chosen, kept[row] & ~others)


def test_units_of_equal_score_are_removed_in_a_random_order() -> None:
    scores = {"1": torch.ones(1, 40), "3": torch.ones(1, 60)}
    scores["3"][0, 59] = 0
    found = removals([MaskSet.from_scores(scores, ["bag"])], 0, 0)
    first = found[4].own[0][0]
    assert int(first.sum()) == 20
    assert 0 < int(first[:40].sum()) < 20  # of both layers
    assert torch.equal(first, removals([MaskSet.from_scores(scores, ["bag"])], 0, 0)[4].own[0][0])
    assert bool((found[3].own[0] & ~found[4].own[0]).sum() == 0)  # doses are nested


def test_where_all_units_score_alike_none_score_highest(network: Network, images: Images) -> None:
    scores = {"1": torch.ones(2, 5), "3": torch.ones(2, 7)}
    scores["3"][1, 2] = 0
    masks = MaskSet.from_scores(scores, ["bag", "boot"])
    table = whether(network, masks, images, controls=None, draws=3, parts="necessity")
    for dose in DOSES[:5]:
        for metric in ("removed_share", "drop_own", "drop_others", "selectivity"):
            row = cell(table, "bag", "removed", metric, dose=dose)
            assert row["n"] == 0
            assert row[["value", "low", "high"]].isna().all()
        assert cell(table, "bag", "removed_random", "drop_own", dose=dose)["n"] == 0
        one, mean = (value(table, task, "removed", "drop_own", dose=dose) for task in ("boot", "mean"))
        assert mean == pytest.approx(one)
        assert value(table, "mean", "removed", "removed_share", dose=dose) > 0
    assert value(table, "bag", "removed", "removed_share", dose="kept") == 1
    for share, words in ((1.0, "that a task keeps (100 % of all)"), (0.0, "No units of hand are kept")):
        alike = MaskSet.from_scores({a: torch.full((2, n), share) for a, n in UNITS.items()}, ["bag", "boot"])
        found = whether(network, alike, images, controls=None, draws=2, parts=["necessity", "minimality"])
        assert words in found.attrs["answer"]
        assert "score highest" not in found.attrs["answer"]
        assert cell(found, "mean", "kept", "minimality")["n"] == 0
    assert "none can be pruned" in found.attrs["answer"]


def test_random_removals_are_of_the_same_layers(masks: MaskSet) -> None:
    second = make_masks(8)
    for removal in removals([masks, second], 5, 2):
        for draw, random in enumerate(removal.random):
            own = removal.own[draw % 2]
            for part in (slice(0, 5), slice(5, 12)):
                assert torch.equal(random[:, part].sum(1), own[:, part].sum(1))
    by_dose = {removal.dose: removal.random for removal in removals([masks], 30, 2)}
    assert len(by_dose["kept"]) == 20  # no more draws than these
    drawn = torch.stack(by_dose["5 %"]).float().mean((0, 1))
    assert (drawn < 1).all()
    assert (drawn > 0).sum() > 3


# Necessity


def test_drops_are_those_of_the_slow_way(
    table: pd.DataFrame, network: Network, images: Images, masks: MaskSet
) -> None:
    for removal in removals([masks], 3, 4):
        for row, task in enumerate(TASKS):
            others = [other for other in TASKS if other != task]

            def drops(removed: Tensor, task: str = task, others: list[str] = others) -> tuple[float, float]:
                rest = [slow_drop(network, removed, images, other) for other in others]
                return slow_drop(network, removed, images, task), sum(rest) / 2

            own = drops(removal.own[0][row])
            random = [drops(removed[row]) for removed in removal.random]
            for place, (name, selectivity) in enumerate(
                (("drop_own", "selectivity"), ("drop_others", "selectivity_others"))
            ):
                null = [draw[place] for draw in random]
                here = {"dose": removal.dose}
                assert value(table, task, "removed", name, **here) == pytest.approx(own[place], abs=1e-4)
                by_chance = cell(table, task, "removed_random", name, **here)
                assert by_chance["value"] == pytest.approx(np.mean(null), abs=1e-4)
                assert by_chance["low"] == pytest.approx(np.quantile(null, 0.025), abs=1e-4)
                spread = np.std(null, ddof=1)
                if spread > 1e-3:
                    expected = (own[place] - np.mean(null)) / spread
                    assert value(table, task, "removed", selectivity, **here) == pytest.approx(
                        expected, rel=1e-2, abs=1e-2
                    )
            share = float(removal.own[0][row].float().mean())
            assert value(table, task, "removed", "removed_share", dose=removal.dose) == pytest.approx(share)
    assert set(table["dose"]) == set(DOSES)


def test_the_mean_of_a_selectivity_is_that_of_the_mean(table: pd.DataFrame) -> None:
    for metric, selectivity in (("drop_own", "selectivity"), ("drop_others", "selectivity_others")):
        own, low = (cell(table, "mean", "removed", metric, dose="20 %")[end] for end in ("value", "low"))
        assert own == pytest.approx(sum(value(table, t, "removed", metric, dose="20 %") for t in TASKS) / 3)
        row = cell(table, "mean", "removed", selectivity, dose="20 %")
        # The mean and the spread of the draws, from two of the row's numbers and two of the drop's.
        spread = (own - low) / (row["value"] - row["low"])
        null = value(table, "mean", "removed_random", metric, dose="20 %")
        assert row["value"] == pytest.approx((own - null) / spread, abs=1e-6)
        assert row["low"] <= row["value"] <= row["high"]


def test_counts_seeds_and_what_varies(
    table: pd.DataFrame, network: Network, images: Images, masks: MaskSet
) -> None:
    row = cell(table, "coat", "removed", "drop_own", dose="kept")
    assert (row["n"], row["seed"], row["interval"]) == (6, 7, "images, given this mask")
    assert (
        cell(table, "coat", "removed", "drop_others", dose="kept")["n"] == 15
    )  # no shirts: no task is theirs
    random = cell(table, "coat", "removed_random", "drop_own", dose="kept")
    assert (random["seed"], random["interval"]) == (4, "random draws, their 2.5-97.5 %")
    assert "spread" in cell(table, "coat", "removed", "selectivity", dose="kept")["interval"]
    both = whether(network, [masks, make_masks(8)], images, draws=0, parts="necessity")
    assert cell(both, "coat", "removed", "drop_own", dose="kept")["interval"] == "mask seeds × images"
    single = [
        value(
            whether(network, one, images, draws=0, parts="necessity"),
            "coat",
            "removed",
            "drop_own",
            dose="kept",
        )
        for one in (masks, make_masks(8))
    ]
    assert value(both, "coat", "removed", "drop_own", dose="kept") == pytest.approx(sum(single) / 2)
    assert not set(both["metric"]) & {"selectivity"}  # without draws nothing to hold it against
    assert "removed_random" not in set(both["condition"])


def test_empty_masks_lose_nothing_and_full_ones_what_any_units_lose(network: Network, images: Images) -> None:
    empty, full = (
        MaskSet.from_scores({address: torch.full((3, n), score) for address, n in UNITS.items()}, TASKS)
        for score in (0.0, 1.0)
    )
    table = whether(network, empty, images, draws=2, parts=["necessity", "minimality"])
    for dose in ("kept", "exclusive"):
        for task in (*TASKS, "mean"):
            assert value(table, task, "removed", "drop_own", dose=dose) == 0
            assert value(table, task, "removed", "selectivity", dose=dose) == 0
    for metric in ("minimality", "needed_share"):
        assert cell(table, "mean", "kept", metric)["n"] == 0
    table = whether(network, full, images, draws=2, parts="necessity")
    assert value(table, "coat", "removed", "selectivity", dose="kept") == 0
    assert value(table, "coat", "removed", "removed_share", dose="kept") == 1


def test_of_one_picture_a_class_a_drop_has_no_interval(
    network: Network, images: Images, masks: MaskSet
) -> None:
    table = whether(
        network, masks, images, controls=None, draws=3, per_class=1, parts=("necessity", "agreement")
    )
    for task in (*TASKS, "mean"):
        row = cell(table, task, "removed", "drop_own", dose="kept")
        assert row["value"] != 0
        assert row["n"] > 0
        assert math.isnan(row["low"])
        assert math.isnan(row["high"])
        assert math.isnan(cell(table, task, "kept", "kl")["low"])
    words = table.attrs["answer"]
    assert "of log-odds on its pictures (as many random units" in words
    assert "nan" not in words
    two = whether(network, masks, images, controls=None, draws=0, per_class=2, parts="necessity")
    row = cell(two, "mean", "removed", "drop_own", dose="kept")
    assert row["low"] < row["value"] < row["high"]


def test_tasks_without_pictures_have_empty_rows(network: Network, images: Images, masks: MaskSet) -> None:
    fewer = images.subset(["shirt", "bag"])
    table = whether(network, masks, fewer, draws=3, parts=["necessity", "minimality"])
    for metric in ("drop_own", "selectivity"):
        assert cell(table, "coat", "removed", metric, dose="5 %")["n"] == 0
    assert cell(table, "coat", "removed", "drop_others", dose="5 %")["n"] == 7
    assert cell(table, "bag", "removed", "drop_others", dose="5 %")["n"] == 0
    assert cell(table, "bag", "removed", "drop_own", dose="5 %")["n"] == 7
    assert cell(table, "coat", "kept", "minimality")["n"] == 0
    assert cell(table, "bag", "kept", "minimality")["n"] > 0
    nothing = whether(network, masks, images.of("shirt"), draws=3, parts=["necessity", "minimality"])
    assert (nothing[~nothing["metric"].isin(["removed_share"])]["n"] == 0).all()


@pytest.mark.slow
def test_intervals_of_drops_cover(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten tasks of twenty pictures whose drops are skewed, and known on average: 1 for every task."""
    monkeypatch.setattr("nadkit.questions.outcomes.DRAWS", 300)
    labels = torch.arange(10).repeat_interleave(20)
    there = torch.arange(10)[:, None] == labels
    covered = {"one": 0, "mean": 0, "others": 0}
    runs = 200
    for run in range(runs):
        generator = torch.Generator().manual_seed(run)
        losses = torch.randn(1, 10, 200, generator=generator).double().square()
        weights = stratified_weights(labels, 300, run)
        own, others = (necessity_module._drop("", losses, there, which, weights) for which in (True, False))
        estimates = {"one": own.estimates()[0], "mean": own.mean(), "others": others.mean()}
        for name, found in estimates.items():
            covered[name] += found.low <= 1 <= found.high
    shares = {name: count / runs for name, count in covered.items()}
    # Percentiles of a bootstrap are a little short where twenty skewed values are all there is.
    assert 0.84 <= shares["one"] <= 0.97, shares
    assert all(0.91 <= shares[name] <= 0.98 for name in ("mean", "others")), shares


# Minimality


def slow_worth(network: Network, gates: dict[str, Tensor], images: Images, task: str) -> float:
    """The task's log-odds on its own pictures less those on the others'."""
    odds = [round(x, 4) for x in slow_odds(network, gates, images, task)]
    own = [NAMES[label] == task for label in images.labels]
    mine = [x for x, yes in zip(odds, own, strict=True) if yes]
    theirs = [x for x, yes in zip(odds, own, strict=True) if not yes]
    return sum(mine) / len(mine) - sum(theirs) / len(theirs)


@pytest.mark.parametrize("seed", [3, 4, 5, 6])
def test_minimality_is_that_of_the_slow_way(network: Network, seed: int) -> None:
    masks = make_masks(seed, share=0.5)
    images = make_images((4, 4, 4, 4), seed=1)
    table = whether(network, masks, images, parts="minimality")
    for task in TASKS:
        # Of other classes as many together: one of each, as the module picks them.
        rows = minimality_module._pictures(images.labels, NAMES.index(task), 0)
        assert sorted(images.labels[rows].bincount(minlength=4).tolist()) == [1, 1, 1, 4]
        assert int(images.labels[rows].bincount(minlength=4)[NAMES.index(task)]) == 4
        chosen = images[rows]
        kept = torch.cat(list(masks.gates(task).values())).bool()

        def worth(which: Tensor, task: str = task, chosen: Images = chosen) -> float:
            return slow_worth(network, gates_of(~which), chosen, task)

        here, flipped = worth(kept), []
        for unit in range(12):
            other = kept.clone()
            other[unit] = ~other[unit]
            flipped.append(here - worth(other) if kept[unit] else worth(other) - here)
        bar = np.quantile([flipped[unit] for unit in range(12) if not kept[unit]], 0.95)
        ours = {unit: flipped[unit] for unit in range(12) if kept[unit]}
        share = sum(worth_of > bar + 2e-4 for worth_of in ours.values()) / len(ours)
        row = cell(table, task, "kept", "minimality")
        assert row["value"] == pytest.approx(share)
        assert row["n"] == len(chosen)  # what varies is pictures, and not units
        # Pruned one after the other, from the least worth on.
        left = len(ours)
        pruned = kept.clone()
        for unit in sorted(ours, key=lambda unit: ours[unit]):
            pruned[unit] = False
            if worth(pruned) < 0.99 * here:
                break
            left -= 1
        needed = value(table, task, "kept", "needed_share")
        assert math.isnan(needed) if here <= 2e-4 else needed == pytest.approx(left / len(ours))


@pytest.mark.parametrize("steps", [2, 12, 100])
def test_pruning_finds_the_first_loss_of_one_percent(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few steps and many find the same size, as every size is looked at where the loss is passed."""
    monkeypatch.setattr(minimality_module, "STEPS", steps)
    asked: list[int] = []

    def paired(rows: Tensor) -> Tensor:
        gone = 100 - rows.sum(1)
        asked.extend(gone.tolist())
        # As they are, 0.11 % is lost with every unit; in the draws all at once when 37 are gone.
        return torch.stack([1 - 0.0011 * gone, (gone < 37).double()], dim=1).double()

    found = minimality_module._pruned(paired, torch.ones(100, dtype=torch.bool), torch.arange(100))
    assert float(found[0]) == pytest.approx(0.91)  # 9 units cost 0.99 %, 10 cost 1.1 %
    # The draws know the sizes that were looked at.
    before = max(size for size in asked if size < 37)
    assert float(found[1]) == pytest.approx(1 - before / 100)
    assert len(asked) <= steps + 1 + 100 / steps


def test_pictures_are_few_and_of_all_classes() -> None:
    labels = torch.arange(60).repeat(40)
    rows = minimality_module._pictures(labels, 7, 0)
    counts = labels[rows].bincount(minlength=60)
    assert counts[7] == 20
    assert counts.sum() == 40
    assert counts.max() == 20


# Planted truth


@pytest.fixture(scope="module")
def toy() -> Planted:
    return planted(per_class=12)


@pytest.fixture(scope="module")
def truth(toy: Planted) -> pd.DataFrame:
    return whether(toy.network, toy.masks, toy.test, draws=8, parts=["necessity", "minimality"])


def test_planted_units_are_necessary_for_their_task_and_for_no_other(
    toy: Planted, truth: pd.DataFrame
) -> None:
    for task in toy.truth:
        kept = {"dose": "kept"}
        assert value(truth, task, "removed", "drop_own", **kept) > 5
        assert value(truth, task, "removed", "selectivity", **kept) > 0
        alone = {"dose": "exclusive"}
        assert value(truth, task, "removed", "drop_own", **alone) > 5
        assert value(truth, task, "removed", "drop_others", **alone) < 0.5
        assert value(truth, task, "removed", "selectivity", **alone) > 0
        assert value(truth, task, "removed", "selectivity_others", **alone) < -1
    assert cell(truth, "mean", "removed", "drop_others", dose="exclusive")["high"] < 0.5
    assert value(truth, "mean", "removed", "selectivity", dose="exclusive") > 2
    assert value(truth, "mean", "removed", "selectivity_others", dose="exclusive") < -2
    assert truth.attrs["answer"].startswith("Removing the units that only one task keeps")


def test_true_masks_are_minimal(truth: pd.DataFrame) -> None:
    for metric in ("minimality", "needed_share"):
        row = cell(truth, "mean", "kept", metric)
        assert row["value"] == 1.0
        assert row["low"] > 0.85
    assert cell(truth, "mean", "kept", "minimality")["n"] <= 72  # pictures


def test_masks_with_useless_units_are_not_minimal(toy: Planted) -> None:
    useless = {
        address: torch.tensor([kind in ("dead", "echo", "ornament") for kind in kinds]).float()
        for address, kinds in toy.kinds.items()
    }
    scores = {address: torch.maximum(rows, useless[address]) for address, rows in toy.masks.scores.items()}
    table = whether(toy.network, MaskSet.from_scores(scores, toy.masks.tasks), toy.test, parts="minimality")
    extra = int(sum(each.sum() for each in useless.values()))
    for task, needed in toy.truth.items():
        share = len(needed) / (len(needed) + extra)
        assert value(table, task, "kept", "minimality") == pytest.approx(share, abs=0.12)
        assert value(table, task, "kept", "needed_share") == pytest.approx(share, abs=0.12)


def test_more_units_than_are_tried_alone_can_all_be_pruned(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of units that do nothing all can go, though only two are tried alone; lowest scores go first."""
    monkeypatch.setattr(minimality_module, "KEPT", 2)
    asked: list[list[int]] = []
    pruned = minimality_module._pruned

    def watched(paired: Callable[[Tensor], Tensor], kept: Tensor, order: Tensor) -> Tensor:
        asked.append(order.tolist())
        return pruned(paired, kept, order)

    monkeypatch.setattr(minimality_module, "_pruned", watched)
    images = make_images((4, 4, 4, 4), seed=1)
    scores = {"1": torch.tensor([[0.9, 0.8, 0.2, 0.95, 0.7]]), "3": torch.ones(1, 7)}
    whether(network, MaskSet.from_scores(scores, ["bag"]), images, parts="minimality")
    assert asked[0][:4] == [4, 1, 0, 3]
    assert sorted(asked[0]) == [0, 1, 3, 4, *range(5, 12)]
    monkeypatch.setattr(minimality_module, "_pruned", pruned)
    # Only the first unit of either layer is read, and it tells bags.
    dull, bags = make_network(), images.of("bag").pixels.flatten(1).mean(0)
    with torch.no_grad():
        for layer in (dull.model[3], dull.model[4]):
            layer.weight.copy_(torch.zeros_like(layer.weight))
            layer.weight[0, 0] = 1
        dull.model[1].weight[0] = bags
    scores = {a: torch.tensor([[0.9, *[0.8] * (n - 1)]]) for a, n in UNITS.items()}
    table = whether(dull, MaskSet.from_scores(scores, ["bag"]), images, parts="minimality")
    assert value(table, "bag", "kept", "needed_share") == pytest.approx(2 / 12)
