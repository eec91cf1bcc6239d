"""`whether` against a slow table made picture by picture, on a network small enough to compute by hand."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Mapping
from pathlib import Path

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
    slow_readings,
    value,
)
from torch import Tensor

import nadkit.questions.conditions as conditions_module
import nadkit.questions.controls as controls_module
import nadkit.questions.outcomes as outcomes_module
from nadkit.errors import ImageError, MaskFileError, NadkitError
from nadkit.images import Images, LazyPixels
from nadkit.masks import MaskSet
from nadkit.measures import Estimate, platt, wilson
from nadkit.networks import Network
from nadkit.questions import answer, evidence_table, whether
from nadkit.questions.conditions import Condition, own_conditions
from nadkit.questions.forwards import Readings, ask
from nadkit.questions.outcomes import Outcome, Sample
from nadkit.questions.reading import plain_rows
from nadkit.questions.tables import excess_rows


@pytest.fixture(scope="module")
def network() -> Network:
    return make_network()


@pytest.fixture(scope="module")
def images() -> Images:
    return make_images((11, 8, 9, 12), seed=1)


@pytest.fixture(scope="module")
def held_back() -> Images:
    return make_images((6, 7, 9, 8), seed=50)


@pytest.fixture(scope="module")
def masks() -> MaskSet:
    return make_masks(3, meta={"seed": 7, "network": "hand", "class_names": list(NAMES)})


CONTROLS = {
    "untrained": make_masks(12, meta={"untrained": {"seed": 5}, "seed": 2}),
    "relabelled": make_masks(10, meta={"permutation": [0, 2, 3]}),
    "shared": MaskSet.from_scores(
        {address: rows[:1].expand(3, -1) for address, rows in make_masks(11).scores.items()}, TASKS
    ),
}


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The untrained network is one with other weights; its masks say which."""
    import nadkit.networks

    def restore(network: Network, record: Mapping[str, int]) -> Network:
        assert network.name == "hand"
        return make_network(record["seed"])

    monkeypatch.setattr(nadkit.networks, "restore_untrained", restore)


def slow_auroc(scores: list[float], own: list[bool]) -> float:
    ours = [x for x, yes in zip(scores, own, strict=True) if yes]
    theirs = [x for x, yes in zip(scores, own, strict=True) if not yes]
    # Log-odds are told apart to the fourth decimal.
    pairs = [(round(a, 4), round(b, 4)) for a, b in itertools.product(ours, theirs)]
    won = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs]
    return sum(won) / len(won)


def slow_metrics(odds: list[float], own: list[bool]) -> dict[str, float]:
    ours = [x for x, yes in zip(odds, own, strict=True) if yes]
    theirs = [x for x, yes in zip(odds, own, strict=True) if not yes]
    recall, alarm = sum(x > 0 for x in ours) / len(ours), sum(x > 0 for x in theirs) / len(theirs)
    return {"recall": recall, "false_alarm": alarm, "balanced_accuracy": (recall + 1 - alarm) / 2}


def slow_condition(
    network: Network,
    masks: MaskSet | None,
    images: Images,
    held_back: Images,
    keep: bool = True,
    targets: Mapping[str, str] | None = None,
) -> dict[tuple[str, str], float]:
    """Value of every (task, metric), recomposed accuracy included."""
    targets = targets or {task: task for task in TASKS}
    parts = slow_readings(network, masks, images, keep)
    test = {task: [each["log_odds"] for each in parts[task]] for task in TASKS}
    fitted = slow_readings(network, masks, held_back, keep)
    train = {task: [each["log_odds"] for each in fitted[task]] for task in TASKS}
    found, calibrated = {}, {}
    for task in TASKS:
        own = [NAMES[label] == targets[task] for label in images.labels]
        for metric, number in slow_metrics(test[task], own).items():
            found[task, metric] = number
        for metric, part in (("auroc", "log_odds"), ("auroc_own", "own"), ("auroc_rest", "rest")):
            found[task, metric] = slow_auroc([each[part] for each in parts[task]], own)
        learned = torch.tensor([NAMES[label] == targets[task] for label in held_back.labels])
        slope, intercept = platt(torch.tensor(train[task]), learned)
        calibrated[task] = [float(slope) * x + float(intercept) for x in test[task]]
        balanced = slow_metrics(calibrated[task], own)["balanced_accuracy"]
        found[task, "balanced_accuracy_calibrated"] = balanced
    for metric in dict.fromkeys(metric for _, metric in found):
        found["mean", metric] = sum(found[task, metric] for task in TASKS) / len(TASKS)
    right = []
    for place, label in enumerate(images.labels.tolist()):
        if NAMES[label] in targets.values():
            most = max(calibrated[task][place] for task in TASKS)
            best = [targets[task] for task in TASKS if calibrated[task][place] == most]
            right.append((NAMES[label] in best) / len(best))
    found["all", "recomposed_accuracy"] = sum(right) / len(right)
    return found


@pytest.fixture(scope="module")
def table(network: Network, images: Images, held_back: Images, masks: MaskSet) -> pd.DataFrame:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nadkit.networks.restore_untrained", lambda _, record: make_network(record["seed"]))
        return whether(network, masks, images, calibrate_on=held_back, controls=CONTROLS, draws=3, seed=4)


def test_every_value_is_that_of_the_slow_way(
    table: pd.DataFrame, network: Network, images: Images, held_back: Images, masks: MaskSet
) -> None:
    moved = dict(zip(TASKS, (NAMES[k] for k in (0, 2, 3)), strict=True))
    slow = {
        "kept": slow_condition(network, masks, images, held_back),
        "removed": slow_condition(network, masks, images, held_back, keep=False),
        "whole": slow_condition(network, None, images, held_back),
        "relabelled": slow_condition(network, CONTROLS["relabelled"], images, held_back, targets=moved),
        "shared": slow_condition(network, CONTROLS["shared"], images, held_back),
        "untrained": slow_condition(make_network(5), CONTROLS["untrained"], images, held_back),
    }
    draws = [slow_condition(network, masks.random(4 + draw), images, held_back) for draw in range(3)]
    slow["random"] = {key: sum(draw[key] for draw in draws) / 3 for key in draws[0]}
    with torch.no_grad():
        asked = images[[NAMES[k] in TASKS for k in images.labels]]
        chosen = network(asked.pixels).argmax(1) == asked.labels
    slow["whole"]["all", "recomposed_accuracy"] = float(chosen.float().mean())
    compared = 0
    for condition, facts in slow.items():
        for (task, metric), number in facts.items():
            assert value(table, task, condition, metric) == pytest.approx(number, abs=1e-6), (condition, task)
            compared += 1
    others = ["kept_share", "excess", "discretisation_gap", "effect_in_spreads", "p_value"]
    plain = plain_rows(table)
    counted = plain[~plain["metric"].isin(others)]
    assert compared == len(counted)


def test_the_draws_of_random_are_its_interval(
    table: pd.DataFrame, network: Network, images: Images, held_back: Images, masks: MaskSet
) -> None:
    draws = [slow_condition(network, masks.random(4 + draw), images, held_back) for draw in range(3)]
    for key in (("coat", "auroc"), ("mean", "recall"), ("all", "recomposed_accuracy")):
        row = cell(table, key[0], "random", key[1])
        low, high = np.quantile([draw[key] for draw in draws], [0.025, 0.975])
        assert (row["low"], row["high"]) == pytest.approx((low, high), abs=1e-6)
        assert row["interval"] == "random draws, their 2.5-97.5 %"
        assert row["seed"] == 4


def test_columns_counts_seeds_and_intervals(table: pd.DataFrame, masks: MaskSet) -> None:
    assert list(table.columns) == [
        "network", "task", "other_task", "condition", "layer", "metric",
        "value", "low", "high", "n", "seed", "interval",
    ]  # fmt: skip
    assert set(table["network"]) == {"hand"}
    assert not table.duplicated(["task", "other_task", "condition", "layer", "metric"]).any()
    there = table.dropna(subset="value")
    assert (there["low"] <= there["value"] + 1e-9).all()
    assert (there["value"] <= there["high"] + 1e-9).all()
    assert cell(table, "coat", "kept", "recall")["n"] == 8
    assert cell(table, "coat", "kept", "false_alarm")["n"] == 32
    assert cell(table, "coat", "kept", "auroc")["n"] == 40
    assert cell(table, "coat", "relabelled", "recall")["n"] == 11  # pictures of bag, class 0
    assert cell(table, "all", "kept", "recomposed_accuracy")["n"] == 31  # no shirts: no task is theirs
    assert cell(table, "all", "relabelled", "recomposed_accuracy")["n"] == 32  # bag, shirt and boot
    assert cell(table, "mean", "kept", "excess")["n"] == 40
    assert cell(table, "coat", "kept", "recall")["seed"] == 7
    assert cell(table, "coat", "whole", "recall")["seed"] is pd.NA
    texts = table.groupby("condition")["interval"].agg(set).to_dict()
    assert texts["whole"] == {"images", "none: counted"}
    assert texts["shared"] == {"images, given this mask", "none: counted"}
    for task, share in masks.kept_share().items():
        kept, removed = (cell(table, task, name, "kept_share") for name in ("kept", "removed"))
        assert (kept["value"], kept["low"], kept["high"], kept["n"]) == (share, share, share, 12)
        assert removed["value"] == pytest.approx(1 - share)
        assert value(table, task, "random", "kept_share") == pytest.approx(share)
    mean = sum(masks.kept_share().values()) / 3
    assert value(table, "mean", "kept", "kept_share") == pytest.approx(mean)
    assert value(table, "mean", "whole", "kept_share") == 1.0


def test_intervals_of_one_task_are_closed_forms(table: pd.DataFrame) -> None:
    positives = {"coat": 8, "boot": 12, "bag": 11}
    for task, condition in itertools.product(TASKS, ("whole", "kept", "shared")):
        ours, theirs = positives[task], 40 - positives[task]
        recall, alarm = (cell(table, task, condition, metric) for metric in ("recall", "false_alarm"))
        r, f = wilson(round(recall["value"] * ours), ours), wilson(round(alarm["value"] * theirs), theirs)
        assert (recall["low"], recall["high"]) == pytest.approx(r)
        assert (alarm["low"], alarm["high"]) == pytest.approx(f)
        both = cell(table, task, condition, "balanced_accuracy")
        below = math.hypot(recall["value"] - r[0], f[1] - alarm["value"]) / 2
        above = math.hypot(r[1] - recall["value"], alarm["value"] - f[0]) / 2
        assert both["low"] == pytest.approx(both["value"] - below)
        assert both["high"] == pytest.approx(both["value"] + above)
    all_tasks = cell(table, "all", "whole", "recomposed_accuracy")
    assert (all_tasks["low"], all_tasks["high"]) == pytest.approx(wilson(round(31 * all_tasks["value"]), 31))


def test_a_mean_over_tasks_is_known_better_than_one_task(table: pd.DataFrame) -> None:
    for metric in ("recall", "balanced_accuracy", "auroc"):
        mean = cell(table, "mean", "whole", metric)
        single = [cell(table, task, "whole", metric) for task in TASKS]
        assert mean["high"] - mean["low"] < max(row["high"] - row["low"] for row in single)


def test_excess_is_over_the_control_that_is_best_on_its_mean(table: pd.DataFrame) -> None:
    metric = "balanced_accuracy_calibrated"
    best = max(CONTROLS, key=lambda name: value(table, "mean", name, metric))
    for task in (*TASKS, "mean"):
        difference = value(table, task, "kept", metric) - value(table, task, best, metric)
        assert value(table, task, "kept", "excess") == pytest.approx(difference)
    assert f"({best})" in table.attrs["answer"]
    assert table.attrs["controls"] == dict.fromkeys(CONTROLS, "given")


def test_without_calibration_the_evidence_is_of_auroc_and_only_whole_is_recomposed(
    network: Network, images: Images, masks: MaskSet
) -> None:
    table = whether(network, masks, images, controls=CONTROLS, draws=6)
    assert "balanced_accuracy_calibrated" not in set(table["metric"])
    assert table[table["metric"] == "recomposed_accuracy"]["condition"].tolist() == ["whole"]
    best = max(CONTROLS, key=lambda name: value(table, "mean", name, "auroc"))
    for task in (*TASKS, "mean"):
        difference = value(table, task, "kept", "auroc") - value(table, task, best, "auroc")
        assert value(table, task, "kept", "excess") == pytest.approx(difference)
    null = [
        value(whether(network, masks.random(draw), images, controls=None, draws=0), "mean", "kept", "auroc")
        for draw in range(6)
    ]
    spreads = (value(table, "mean", "kept", "auroc") - np.mean(null)) / np.std(null, ddof=1)
    assert value(table, "mean", "kept", "effect_in_spreads") == pytest.approx(spreads)
    assert "an AUROC of" in table.attrs["answer"]
    assert "not calibrated: balanced accuracy" in table.attrs["answer"]
    none = whether(network, masks, images, controls=CONTROLS, draws=0)
    assert "random" not in set(none["condition"])


def telling_network(images: Images) -> Network:
    """A network that tells the classes; its fifth unit takes 99 from the logit of bags, whatever is shown."""
    layers = [torch.nn.Linear(6, 4, bias=False), torch.nn.Linear(4, 5), torch.nn.Linear(5, 4, bias=False)]
    model = torch.nn.Sequential(torch.nn.Flatten(), *layers)
    prototypes = torch.stack([images.of(name).pixels.flatten(1).mean(0) for name in NAMES])
    with torch.no_grad():
        layers[0].weight.copy_(3 * prototypes)
        layers[1].weight.copy_(torch.cat([torch.eye(4), torch.zeros(1, 4)]))
        layers[1].bias.copy_(torch.tensor([0.0, 0, 0, 0, 1]))
        layers[2].weight.copy_(torch.cat([torch.eye(4), torch.tensor([[-99.0], [0], [0], [0]])], 1))
    return Network.wrap(model, NAMES, example=torch.zeros(1, 1, 2, 3), layers=["2"], name="telling")


def test_a_control_that_ranks_as_well_at_another_threshold_leaves_no_excess(images: Images) -> None:
    network = telling_network(images)
    own = MaskSet.from_scores({"2": torch.tensor([[1.0, 1, 1, 1, 0]])}, ["bag"])
    control = MaskSet.from_scores({"2": torch.ones(1, 5)}, ["bag"])
    table = whether(network, own, images, controls={"shared": control}, draws=0)
    gap = [value(table, "bag", name, "balanced_accuracy") for name in ("kept", "shared")]
    assert gap[0] - gap[1] > 0.2
    assert value(table, "bag", "kept", "excess") == 0
    assert "so does a control" in table.attrs["answer"]


def same(first: pd.DataFrame, second: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(first, second, check_exact=False, rtol=0, atol=1e-6)


def test_the_same_call_gives_the_same_table_and_leaves_no_trace(
    network: Network, images: Images, held_back: Images, masks: MaskSet, table: pd.DataFrame
) -> None:
    before = torch.random.get_rng_state()
    weights = {name: tensor.clone() for name, tensor in network.model.state_dict().items()}
    network.model.train()
    again = whether(network, masks, images, calibrate_on=held_back, controls=CONTROLS, draws=3, seed=4)
    assert network.model.training
    network.model.eval()
    same(table, again)
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(weights[name], now) for name, now in network.model.state_dict().items())
    assert not any(module._forward_hooks for module in network.model.modules())


def test_classes_are_matched_by_name(network: Network, images: Images, masks: MaskSet) -> None:
    plain = whether(network, masks, images, controls=None, draws=2)
    order = [2, 0, 3, 1]
    place = torch.tensor([order.index(k) for k in range(4)])
    # "glove" has no picture, so that the network need not know it.
    names = (*(NAMES[k] for k in order), "glove")
    shuffled = Images(images.pixels, place[images.labels], names)
    same(plain, whether(network, masks, shuffled, controls=None, draws=2))


def test_a_task_without_a_picture_has_an_empty_row(
    network: Network, images: Images, held_back: Images, masks: MaskSet
) -> None:
    fewer = images.subset(["shirt", "bag"])
    table = whether(network, masks, fewer, calibrate_on=held_back, controls=CONTROLS, draws=2)
    for condition in ("whole", "kept", "random", "shared"):
        for metric in ("recall", "balanced_accuracy", "balanced_accuracy_calibrated", "auroc"):
            row = cell(table, "coat", condition, metric)
            assert row["n"] == 0
            assert row[["value", "low", "high"]].isna().all()
            mean, only = value(table, "mean", condition, metric), value(table, "bag", condition, metric)
            assert mean == pytest.approx(only)
        assert cell(table, "coat", condition, "false_alarm")["n"] == 20
        assert cell(table, "all", condition, "recomposed_accuracy")["n"] == 11
    assert cell(table, "coat", "kept", "excess")["n"] == 0


def test_pictures_of_one_task_alone_give_recall_and_nothing_that_needs_others(
    network: Network, images: Images, masks: MaskSet
) -> None:
    table = whether(network, masks, images.of("bag"), draws=1, controls=CONTROLS)
    assert cell(table, "bag", "kept", "recall")["n"] == 11
    assert cell(table, "bag", "kept", "false_alarm")["n"] == 0
    assert cell(table, "mean", "kept", "balanced_accuracy")["n"] == 0
    assert "no answer" in table.attrs["answer"]


def test_pictures_of_no_task_recompose_nothing(network: Network, images: Images, masks: MaskSet) -> None:
    table = whether(network, masks, images.of("shirt"), controls=None, draws=1)
    assert cell(table, "all", "whole", "recomposed_accuracy")["n"] == 0
    assert cell(table, "mean", "kept", "recall")["n"] == 0


def test_tasks_without_a_fit_have_no_calibrated_value(
    network: Network, images: Images, held_back: Images, masks: MaskSet
) -> None:
    some = held_back.subset(["bag", "boot"])
    table = whether(network, masks, images, calibrate_on=some, controls=None, draws=1)
    for condition in ("kept", "random"):
        assert cell(table, "coat", condition, "balanced_accuracy_calibrated")["n"] == 0
        assert cell(table, "bag", condition, "balanced_accuracy_calibrated")["n"] == 40
        assert cell(table, "all", condition, "recomposed_accuracy")["n"] == 0
    assert cell(table, "all", "whole", "recomposed_accuracy")["n"] == 31


def test_empty_masks_answer_alike_everywhere(network: Network, images: Images, held_back: Images) -> None:
    empty = MaskSet.from_scores({address: torch.zeros(3, n) for address, n in UNITS.items()}, TASKS)
    table = whether(network, empty, images, calibrate_on=held_back, controls={"shared": empty}, draws=2)
    for task in (*TASKS, "mean"):
        assert value(table, task, "kept", "auroc") == 0.5
        assert value(table, task, "kept", "balanced_accuracy_calibrated") == 0.5
        assert value(table, task, "kept", "balanced_accuracy") == 0.5
        assert value(table, task, "kept", "kept_share") == 0.0
        assert value(table, task, "kept", "excess") == 0.0
        assert value(table, task, "removed", "auroc") == value(table, task, "whole", "auroc")
    # Three tasks tie on every picture.
    assert value(table, "all", "kept", "recomposed_accuracy") == pytest.approx(1 / 3)
    assert "does not solve the tasks" in table.attrs["answer"]


def test_full_masks_are_the_whole_network(network: Network, images: Images, held_back: Images) -> None:
    full = MaskSet.from_scores({address: torch.ones(3, n) for address, n in UNITS.items()}, TASKS)
    table = whether(network, full, images, calibrate_on=held_back, controls=None, draws=1)
    for metric in ("recall", "false_alarm", "balanced_accuracy", "auroc", "kept_share"):
        for task in (*TASKS, "mean"):
            kept, whole = (cell(table, task, name, metric) for name in ("kept", "whole"))
            assert (
                kept[["value", "low", "high", "n"]].tolist() == whole[["value", "low", "high", "n"]].tolist()
            )


def test_several_seeds_are_averaged_and_vary(network: Network, images: Images, held_back: Images) -> None:
    sets = [make_masks(seed, meta={"seed": seed}, share=0.7) for seed in (20, 21, 22)]
    table = whether(network, sets, images, calibrate_on=held_back, controls=CONTROLS, draws=4, seed=1)
    single = [
        whether(network, one, images, calibrate_on=held_back, controls=None, draws=0, seed=1) for one in sets
    ]
    for condition, metric, task in itertools.product(
        ("kept", "removed"),
        ("recall", "balanced_accuracy_calibrated", "auroc", "kept_share"),
        ("coat", "mean"),
    ):
        mean = sum(value(one, task, condition, metric) for one in single) / 3
        assert value(table, task, condition, metric) == pytest.approx(mean)
    recomposed = sum(value(one, "all", "kept", "recomposed_accuracy") for one in single) / 3
    assert value(table, "all", "kept", "recomposed_accuracy") == pytest.approx(recomposed)
    row = cell(table, "mean", "kept", "balanced_accuracy")
    assert row["interval"] == "mask seeds × images"
    given = cell(table, "mean", "kept", "excess")["interval"]
    assert given == "mask seeds × images, given the control's masks"
    assert row["seed"] is pd.NA
    assert cell(table, "mean", "whole", "balanced_accuracy")["interval"] == "images"
    # What varies between seeds widens the interval beyond that of the pictures.
    widths = [one["high"] - one["low"] for one in (cell(x, "mean", "kept", "auroc") for x in single)]
    two_levels = cell(table, "mean", "kept", "auroc")
    assert two_levels["high"] - two_levels["low"] > max(widths)
    # Draws go around the seeds: each is as large as the masks it stands for.
    shares = [sets[draw % 3].random(1 + draw).kept_share()["coat"] for draw in range(4)]
    assert value(table, "coat", "random", "kept_share") == pytest.approx(sum(shares) / 4)


def test_each_seed_of_a_control_has_its_own_exchange_and_its_own_fresh_weights(
    network: Network, images: Images, held_back: Images, masks: MaskSet
) -> None:
    moves, fresh = ([1, 2, 0], [3, 0, 2]), (5, 6)
    seeds = {
        "relabelled": [make_masks(40 + s, meta={"permutation": move}) for s, move in enumerate(moves)],
        "untrained": [make_masks(50 + s, meta={"untrained": {"seed": seed}}) for s, seed in enumerate(fresh)],
    }
    table = whether(network, masks, images, calibrate_on=held_back, controls=seeds, draws=0)
    slow = {
        "relabelled": [
            slow_condition(
                network,
                one,
                images,
                held_back,
                targets={t: NAMES[k] for t, k in zip(TASKS, move, strict=True)},
            )
            for one, move in zip(seeds["relabelled"], moves, strict=True)
        ],
        "untrained": [
            slow_condition(make_network(seed), one, images, held_back)
            for one, seed in zip(seeds["untrained"], fresh, strict=True)
        ],
    }
    for condition, found in slow.items():
        for (task, metric), first in found[0].items():
            row = cell(table, task, condition, metric)
            assert row["value"] == pytest.approx((first + found[1][task, metric]) / 2, abs=1e-6), (
                condition,
                task,
                metric,
            )
            assert row["low"] <= row["value"] <= row["high"]
            assert row["interval"] == "mask seeds × images"
    # coat must accept coats (8) in one seed and boots (12) in the other; the fewest are counted.
    assert cell(table, "coat", "relabelled", "recall")["n"] == 8
    assert cell(table, "coat", "relabelled", "false_alarm")["n"] == 28
    # All but boots (28) are asked for in the first seed, all but coats (32) in the second.
    assert cell(table, "all", "relabelled", "recomposed_accuracy")["n"] == 28
    # A task whose pictures are missing in one seed has no value.
    fewer = whether(network, masks, images.subset(["bag", "coat", "shirt"]), controls=seeds, draws=0)
    assert cell(fewer, "coat", "relabelled", "recall")["n"] == 0
    assert cell(fewer, "bag", "relabelled", "recall")["n"] == 9


def test_the_same_masks_as_two_seeds_change_no_value(
    network: Network, images: Images, masks: MaskSet
) -> None:
    once = whether(network, masks, images, controls=None, draws=0)
    twice = whether(network, [masks, masks], images, controls=None, draws=0)
    keys = ["task", "condition", "metric", "value", "n"]
    pd.testing.assert_frame_equal(once[keys], twice[keys])


def test_a_control_as_good_as_the_masks_leaves_no_excess(
    network: Network, images: Images, masks: MaskSet
) -> None:
    table = whether(network, masks, images, controls={"shared": masks}, draws=0)
    row = cell(table, "mean", "kept", "excess")
    assert row["value"] == 0
    assert row["low"] <= 0 <= row["high"]
    assert "contains" not in table.attrs["answer"]


def test_controls_may_have_more_tasks_in_another_order(
    network: Network, images: Images, masks: MaskSet
) -> None:
    wide = make_masks(30, tasks=NAMES, meta={"permutation": [1, 2, 3, 0]})
    narrow = wide[list(TASKS)]
    assert narrow.meta["permutation"] == [2, 0, 1]
    first, second = (
        whether(network, masks, images, controls={"relabelled": control}, draws=0)
        for control in (wide, narrow)
    )
    same(first, second)


def test_lazy_pictures_are_read_once_and_give_the_same_table(
    network: Network, images: Images, masks: MaskSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nadkit.questions.forwards.BATCH", 7)
    reads: list[int] = []

    def read(row: int) -> Tensor:
        reads.append(row)
        return images.pixels[row]

    lazy = Images(LazyPixels(read, 40, (1, 2, 3), torch.float32), images.labels, NAMES)
    reads.clear()
    table = whether(network, masks, lazy, controls=CONTROLS, draws=2)
    assert sorted(reads) == list(range(40))
    same(table, whether(network, masks, images, controls=CONTROLS, draws=2))


def test_per_class_takes_of_both_by_seed(
    network: Network, images: Images, held_back: Images, masks: MaskSet
) -> None:
    table = whether(
        network, masks, images, calibrate_on=held_back, controls=None, draws=1, per_class=5, seed=9
    )
    few, calibration = images.take(5, 9), held_back.take(5, 9)
    same(table, whether(network, masks, few, calibrate_on=calibration, controls=None, draws=1, seed=9))
    with pytest.raises(ImageError, match="only"):
        whether(network, masks, images, controls=None, draws=1, per_class=100)


def test_progress_ends_at_its_total(network: Network, images: Images, masks: MaskSet) -> None:
    conditions = own_conditions(network, [masks], 3, 0)
    done: list[int] = []
    ask(network, conditions, images, done.append)
    assert sum(done) == len(images) * len(TASKS) * sum(condition.repetitions for condition in conditions)


def test_one_shared_mask_runs_once(network: Network, images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    import nadkit.questions.forwards as forwards

    rows: list[int] = []

    def counted(*args: object, **named: object) -> Tensor:
        rows.append(len(next(iter(args[2].values()))))  # type: ignore[attr-defined]
        return gated(*args, **named)

    gated = forwards.gated_logits
    monkeypatch.setattr(forwards, "gated_logits", counted)
    ask(
        network,
        conditions_module.learned_conditions(network, TASKS, {"shared": [CONTROLS["shared"]]}),
        images,
    )
    assert rows == [1]


# Controls by name


SETTINGS = {
    "kept_share": [0.5] * 3, "own": 8, "rate": 0.05, "steps": None, "steps_per_task": 800, "pictures": "aa"
}  # fmt: skip
HALF = {"1": torch.tensor([[1.0, 1, 1, 0, 0]] * 3), "3": torch.tensor([[1.0, 1, 1, 0, 0, 0, 0]] * 3)}


def learned(network: Network, objective: str = "one-vs-rest", **settings: object) -> MaskSet:
    """Masks of half of the units that say how they were learned."""
    meta = {"weights_id": network.weights_id, "objective": objective, "settings": {**SETTINGS, **settings}}
    return MaskSet.from_scores(HALF, TASKS, meta)


@pytest.fixture
def bundled(network: Network, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float, int]]:
    """Two seeds of `shared` are there at kept share 0.5, and nothing else; the list is what was asked for."""
    asked: list[tuple[str, float, int]] = []

    def path(name: str, *, objective: str, kept_share: float, seed: int, control: str) -> Path:
        assert (name, objective) == ("hand", "one-vs-rest")
        asked.append((control, kept_share, seed))
        return Path(__file__) if control == "shared" and seed < 2 else Path("nowhere")

    def load(name: str, *, kept_share: float, seed: int, control: str) -> MaskSet:
        assert (name, kept_share, control) == ("hand", 0.5, "shared")
        return learned(network, shared=True).with_meta(seed=seed)

    monkeypatch.setattr(controls_module, "BUNDLED", ("hand",))
    monkeypatch.setattr(controls_module, "mask_path", path)
    monkeypatch.setattr(controls_module, "load_masks", load)
    return asked


def test_bundled_controls_are_those_of_the_same_network_share_and_files(
    network: Network, images: Images, bundled: list[tuple[str, float, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = learned(network)
    table = whether(network, own, images, draws=0)
    assert table.attrs["controls"] == {"shared": "bundled"}
    assert "shared" in set(table["condition"])
    assert bundled == [("relabelled", 0.5, 0), ("shared", 0.5, 0), ("untrained", 0.5, 0)]
    # Three seeds of the masks take as many of the controls as there are.
    table = whether(network, [own] * 3, images, draws=0)
    assert cell(table, "coat", "shared", "recall")["interval"] == "mask seeds × images"
    assert len(controls_module.find_controls("bundled", network, [own] * 3)[0]["shared"]) == 2
    # Of other weights, without a share, of several shares, or of another size than asked: none, silently.
    for other in (
        own.with_meta(weights_id=None),
        own.with_meta(settings={}),
        learned(network, kept_share="auto"),
        learned(network, kept_share=[0.5, 0.5, 0.3]),
        learned(network, kept_share=[0.3] * 3),
    ):
        assert whether(network, other, images, draws=0).attrs["controls"] == {}
        assert whether(network, [own, other], images, draws=0).attrs["controls"] == {}
    monkeypatch.setattr(controls_module, "BUNDLED", ("resnet-fashion",))
    assert whether(network, own, images, draws=0).attrs["controls"] == {}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "bundled"),
        ({"steps": 800}, "bundled"),  # the usual number, given by hand
        ({"steps": 900}, "bundled, learned otherwise: steps"),
        ({"rate": 0.1, "own": 16}, "bundled, learned otherwise: own, rate"),
        ({"hard": 0.3}, "bundled, learned otherwise: hard"),
        ({"bend": 3.0}, "bundled"),  # as before there was such a setting
        ({"bend": 1.5}, "bundled, learned otherwise: bend"),
        ({"pictures": "bb"}, "bundled, learned otherwise: pictures"),
        ({"objective": "official", "rate": 0.1}, "bundled, learned otherwise: objective"),
    ],
)
def test_controls_that_were_learned_otherwise_are_said_to(
    network: Network,
    images: Images,
    bundled: list[tuple[str, float, int]],
    settings: dict[str, object],
    words: str,
) -> None:
    assert bundled == []
    table = whether(network, learned(network, **settings), images, draws=0)  # type: ignore[arg-type]
    assert table.attrs["controls"] == {"shared": words}
    # One seed that differs is enough.
    both = whether(network, [learned(network), learned(network, **settings)], images, draws=0)  # type: ignore[arg-type]
    assert both.attrs["controls"] == {"shared": words}
    # It stays with the number, for whoever reads the table from a file.
    unlike = words.removeprefix("bundled").removeprefix(", ").partition(": ")[2]
    for task in (*TASKS, "mean"):
        row = cell(table, task, "kept", "excess")
        said = "images, given this mask" + (f"; learned otherwise: shared ({unlike})" if unlike else "")
        assert row["interval"] == said


def test_the_pictures_and_the_size_of_given_controls(
    network: Network, images: Images, bundled: list[tuple[str, float, int]]
) -> None:
    own, moved = learned(network), learned(network, pictures="bb").with_meta(permutation=[0, 2, 3])
    wide = learned(network, pictures="bb")
    wide = MaskSet.from_scores({a: torch.ones_like(rows) for a, rows in HALF.items()}, TASKS, wide.meta)
    given = {"relabelled": moved, "shared": wide, "untrained": CONTROLS["untrained"]}
    found = whether(network, own, images, controls=given, draws=0).attrs["controls"]
    # What relabelled masks accept is part of the digest; masks without settings say nothing.
    assert found == {
        "relabelled": "given",
        "shared": "given, learned otherwise: pictures, kept share",
        "untrained": "given",
    }
    assert bundled == []


def test_without_controls_the_answer_says_so(network: Network, images: Images, masks: MaskSet) -> None:
    table = whether(network, masks, images, controls=None, draws=0)
    assert table.attrs["controls"] == {}
    assert "excess" not in set(table["metric"])


@pytest.mark.parametrize(
    ("controls", "message"),
    [
        ({"sharred": make_masks(1)}, "no learned control 'sharred'; closest: shared"),
        ({"shared": "masks"}, "is no MaskSet"),
        ({"shared": []}, "is no MaskSet"),
        ({"shared": make_masks(1, tasks=("coat", "bag"))}, "has no masks for boot"),
        ({"relabelled": make_masks(1)}, r"need meta\['permutation'\]"),
        ({"relabelled": make_masks(1, meta={"permutation": [0, 9, 1]})}, "0 to 3"),
        ({"relabelled": make_masks(1, meta={"permutation": [0, 1]})}, "one class index"),
        ({"relabelled": [make_masks(1, meta={"permutation": [1, 0, 3]}), make_masks(2)]}, "is None"),
        ({"untrained": make_masks(1)}, r"need meta\['untrained'\]"),
    ],
)
def test_controls_that_cannot_serve_are_refused(
    network: Network, images: Images, masks: MaskSet, controls: object, message: str
) -> None:
    with pytest.raises(NadkitError, match=message):
        whether(network, masks, images, controls=controls, draws=0)  # type: ignore[arg-type]


def test_seeds_may_have_their_tasks_in_any_order(network: Network, images: Images, masks: MaskSet) -> None:
    turned = masks[list(masks.tasks[::-1])]
    straight, mixed = (whether(network, [masks, one], images, draws=2) for one in (masks, turned))
    pd.testing.assert_frame_equal(straight, mixed)


def test_masks_for_another_network_are_refused(network: Network, images: Images, masks: MaskSet) -> None:
    foreign = masks.with_meta(network="other")
    with pytest.raises(MaskFileError, match="other"):
        whether(network, foreign, images, draws=0)
    with pytest.raises(MaskFileError, match="other"):
        whether(network, masks, images, controls={"shared": foreign}, draws=0)
    with pytest.raises(NadkitError, match="whether compares masks of the same tasks"):
        whether(network, [masks, masks[["bag", "coat"]]], images, draws=0)
    with pytest.raises(NadkitError, match="needs masks"):
        whether(network, [], images, draws=0)
    with pytest.raises(NadkitError, match="draws = -1"):
        whether(network, masks, images, draws=-1)


def test_pictures_of_a_class_the_network_lacks_are_refused(
    network: Network, images: Images, masks: MaskSet
) -> None:
    strange = Images(images.pixels, images.labels, ("bag", "coat", "shirts", "boot"))
    with pytest.raises(ImageError, match=r"9 pictures of 'shirts'.*closest: shirt"):
        whether(network, masks, strange, controls=None, draws=0)


def test_logits_that_are_not_finite_are_refused(images: Images) -> None:
    network = make_network()
    with torch.no_grad():
        network.model[4].bias[0] = math.inf
    full = MaskSet.from_scores({address: torch.ones(3, n) for address, n in UNITS.items()}, TASKS)
    with pytest.raises(NadkitError, match="NaN or infinite logits under the condition 'whole'"):
        whether(network, full, images, controls=None, draws=0)
    for part in ("necessity", "minimality"):
        # Without a random draw, and of masks that leave nothing else to be told.
        with pytest.raises(NadkitError, match="hand gives NaN or infinite logits"):
            whether(network, full, images, controls=None, draws=0, parts=part)


@pytest.mark.slow
def test_intervals_of_means_and_of_excess_cover_near_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten tasks of twenty pictures; what is true is known, since scores are normal and share a difficulty."""
    monkeypatch.setattr(outcomes_module, "DRAWS", 300)
    tasks, n, runs, shift, weaker = 10, 20, 150, 3.3, 2.6
    classes = torch.arange(tasks)
    labels = classes.repeat_interleave(n)
    positive = classes[:, None] == labels
    one = torch.ones(1, tasks)
    conditions = [
        Condition(name, (make_network(),), ({},), classes, classes[None], one) for name in ("kept", "shared")
    ]
    chance = torch.distributions.Normal(0.0, 1.0).cdf
    recall, less = (float(chance(torch.tensor(size / 2))) for size in (shift, weaker))  # 1 − false alarm, too
    area = float(chance(torch.tensor(shift / math.sqrt(2))))
    truth = {"recall": recall, "balanced_accuracy": recall, "auroc": area, "excess": recall - less}
    covered = dict.fromkeys(truth, 0)
    for run in range(runs):
        generator = torch.Generator().manual_seed(run)
        own, other = torch.randn(2, tasks, tasks * n, generator=generator)
        own = 0.8 * own + 0.6 * torch.randn(tasks * n, generator=generator)
        other = 0.5 * own + math.sqrt(0.75) * other
        sample = Sample.of(tuple(map(str, range(tasks))), labels, labels, run)
        kept, shared = (
            Outcome(
                condition,
                sample,
                Readings(*[odds := (noise + size * positive - size / 2)[None].double()] * 4),
                odds,
            )
            for condition, noise, size in zip(conditions, (own, other), (shift, weaker), strict=True)
        )
        found = {metric.name: metric.mean() for metric in kept.metrics()}
        rows = {row["task"]: row for row in excess_rows("net", [kept, shared])}
        found["excess"] = Estimate(*(float(str(rows["mean"][key])) for key in ("value", "low", "high")))
        for name, true in truth.items():
            covered[name] += found[name].low <= true <= found[name].high
    shares = {name: count / runs for name, count in covered.items()}
    assert all(0.9 <= share <= 0.995 for share in shares.values()), shares


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_intervals_of_several_seeds_cover(seeds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three tasks of twenty pictures; each seed of the masks, and of the control, has its own difficulty."""
    monkeypatch.setattr(outcomes_module, "DRAWS", 100)
    tasks, n, runs, varies = 3, 20, 50, 0.5
    classes = torch.arange(tasks)
    labels = classes.repeat_interleave(n)
    positive = (classes[:, None] == labels).double() - 0.5
    network, one = make_network(), torch.ones(seeds, tasks)
    chance = torch.distributions.Normal(0.0, 1.0).cdf
    sizes = {"kept": 3.0, "shared": 2.4}
    # Over seeds, whose shifts are normal, too.
    recall, less = (
        float(chance(torch.tensor(size / 2 / math.sqrt(1 + varies**2 / 4)))) for size in sizes.values()
    )
    area = float(chance(torch.tensor(sizes["kept"] / math.sqrt(2 + varies**2))))
    truth = {"recall": recall, "balanced_accuracy": recall, "auroc": area, "excess": recall - less}
    covered = dict.fromkeys(truth, 0)
    for run in range(runs):
        generator = torch.Generator().manual_seed(run)
        sample = Sample.of(tuple(map(str, range(tasks))), labels, labels, run)
        shown = torch.randn(tasks, tasks * n, generator=generator)
        outcomes = []
        for name, size in sizes.items():
            moved = size + varies * torch.randn(seeds, 1, 1, generator=generator)
            noise = 0.8 * shown + 0.6 * torch.randn(seeds, tasks, tasks * n, generator=generator)
            odds = (noise + moved * positive).double()
            gated = ({},) * seeds
            condition = Condition(name, (network,) * seeds, gated, classes, classes.expand(seeds, -1), one)
            outcomes.append(Outcome(condition, sample, Readings(*[odds] * 4), odds))
        found = {metric.name: metric.mean() for metric in outcomes[0].metrics()}
        rows = {row["task"]: row for row in excess_rows("net", outcomes)}
        found["excess"] = Estimate(*(float(str(rows["mean"][key])) for key in ("value", "low", "high")))
        for name, true in truth.items():
            covered[name] += found[name].low <= true <= found[name].high
    shares = {name: count / runs for name, count in covered.items()}
    assert all(share >= 0.88 for share in shares.values()), shares


# The sentence, and the table for the eye


def facts(**rows: tuple[float, float, float]) -> pd.DataFrame:
    """A table of means: kept=(value, low, high) and so on; `excess` is a metric of kept."""
    made = [("net", "mean", "kept", "kept_share", 0.3, 0.3, 0.3)]
    for name, numbers in rows.items():
        metric = "excess" if name == "excess" else "balanced_accuracy"
        made.append(("net", "mean", "kept" if name == "excess" else name, metric, *numbers))
    return pd.DataFrame(made, columns=["network", "task", "condition", "metric", "value", "low", "high"])


def calibrated(table: pd.DataFrame) -> pd.DataFrame:
    """The same numbers as those after calibration."""
    rows = table[table["metric"] == "balanced_accuracy"]
    return rows.assign(metric="balanced_accuracy_calibrated")


KEPT = (0.93, 0.91, 0.95)
CONTROL = (0.85, 0.83, 0.87)
ALL = {"relabelled": (0.7, 0.6, 0.8), "shared": CONTROL, "untrained": (0.6, 0.55, 0.65)}


def test_the_sentence_says_contains_only_above_every_doubt() -> None:
    above = answer(facts(whole=(0.95, 0.9, 1), kept=KEPT, **ALL, excess=(0.08, 0.01, 0.1)))
    assert above == (
        "net contains sub-architectures of its tasks: keeping 30 % of the units of each task solves the "
        "tasks, at a balanced accuracy of 0.93 [0.91, 0.95] (whole network 0.95); the best learned control "
        "(shared) has 0.85 [0.83, 0.87], an excess of 0.08 [0.01, 0.10]."
    )
    for low in (0.0, -0.01):
        touching = answer(facts(kept=KEPT, **ALL, excess=(0.08, low, 0.1)))
        assert "contains" not in touching
        assert "solves the tasks, at" in touching
        assert "but so does a control: the best learned control (shared)" in touching


def test_of_one_task_the_sentence_names_it() -> None:
    table = facts(whole=(0.95, 0.9, 1), kept=KEPT, **ALL, excess=(0.08, 0.01, 0.1))
    both = pd.concat([table, table.assign(task="coat")])
    said = answer(both)
    assert said.startswith(
        "net contains a sub-architecture of coat: keeping 30 % of the units of coat solves the task, at a "
    )
    assert answer(pd.concat([both, table.assign(task="bag")])) == answer(table)
    none = pd.concat([(low := facts(kept=(0.6, 0.4, 0.7))), low.assign(task="coat")])
    assert "of the units of coat does not solve the task, at" in answer(none)


def test_a_control_without_a_value_is_named_and_nothing_is_contained() -> None:
    some = {name: numbers for name, numbers in ALL.items() if name != "untrained"}
    found = answer(facts(kept=KEPT, **some, excess=(0.08, 0.01, 0.1)))
    assert "contains" not in found
    assert found.endswith(
        "0.93 [0.91, 0.95], more than the learned controls there are (relabelled, shared): the best (shared) "
        "has 0.85 [0.83, 0.87], an excess of 0.08 [0.01, 0.10]; untrained is missing."
    )
    two = answer(facts(kept=KEPT, shared=CONTROL, untrained=(math.nan,) * 3, excess=(0.0, -0.1, 0.1)))
    assert two.endswith("0.00 [-0.10, 0.10]; relabelled and untrained are missing.")


def test_above_controls_that_were_learned_otherwise_nothing_is_contained() -> None:
    """A control that had fewer steps, or another objective, is not what the same learner finds anyway."""
    table = facts(whole=(0.95, 0.9, 1), kept=KEPT, **ALL, excess=(0.08, 0.01, 0.1))
    alike = table.assign(interval="images, given this mask")
    assert answer(alike) == answer(table)
    assert "contains" in answer(alike)
    found = answer(table.assign(interval="images, given this mask; learned otherwise: shared (steps)"))
    assert found == (
        "net: keeping 30 % of the units of each task solves the tasks, at a balanced accuracy of 0.93 "
        "[0.91, 0.95] (whole network 0.95), more than the learned controls (relabelled, shared, untrained): "
        "the best (shared) has 0.85 [0.83, 0.87], an excess of 0.08 [0.01, 0.10]; "
        "learned otherwise: shared (steps)."
    )


def test_without_pictures_of_both_kinds_there_is_no_answer_of_the_network(
    network: Network, images: Images, masks: MaskSet
) -> None:
    alone = whether(network, masks, images.subset(["coat"]), controls=None, draws=0, parts="sufficiency")
    assert alone.attrs["answer"].startswith("hand: no task has pictures of both kinds")


def test_a_control_at_chance_has_not_done_as_well() -> None:
    chance = dict.fromkeys(ALL, (0.55, 0.45, 0.65))
    found = answer(facts(kept=(0.6, 0.51, 0.7), **chance, excess=(0.05, -0.02, 0.1)))
    assert "but a control cannot be ruled out (excess 0.05 [-0.02, 0.10]): the best" in found
    assert "so does" not in found


def test_relabelled_masks_of_classes_without_pictures_are_missing(images: Images) -> None:
    """Bag and boot are there; their relabelled masks accept what is not there, in one case or in both."""
    network, two = telling_network(images), images.subset(["bag", "boot"])
    rows = torch.tensor([[1.0, 1, 1, 1, 0]] * 3)
    own, less = (MaskSet.from_scores({"2": rows * keep}, TASKS) for keep in (torch.ones(5), torch.eye(5)[0]))
    for permutation, words in (
        ([0, 1, 2], "; relabelled and untrained are missing"),
        ([0, 2, 3], "; relabelled has a value for 1 of 2 tasks, untrained is missing"),
    ):
        moved = less.with_meta(permutation=permutation)
        table = whether(network, own, two, controls={"relabelled": moved, "shared": less}, draws=0)
        assert (cell(table, "bag", "relabelled", "auroc")["n"] > 0) == (permutation[2] == 3)
        assert "contains" not in table.attrs["answer"]
        assert words in table.attrs["answer"]


def test_the_best_control_leaves_the_smallest_excess_over_tasks_that_both_have() -> None:
    """Shared is better on its one task, a, and worse than kept there; untrained leaves less over both."""
    columns = ["network", "task", "condition", "metric", "value", "low", "high"]
    values = {"kept": {"a": 0.99, "b": 0.71}, "untrained": {"a": 0.97, "b": 0.7}, "shared": {"a": 0.95}}
    rows = [
        ("net", task, condition, "auroc", number, number - 0.01, number + 0.01)
        for condition, of_task in values.items()
        for task, number in (*of_task.items(), ("mean", sum(of_task.values()) / len(of_task)))
    ]
    rows.append(("net", "mean", "kept", "excess", 0.02, 0.01, 0.03))
    found = answer(pd.DataFrame(rows, columns=columns))
    assert "the best (untrained) has" in found
    assert found.endswith("; shared has a value for 1 of 2 tasks, relabelled is missing.")


def test_the_sentence_names_the_best_control() -> None:
    table = facts(kept=KEPT, shared=CONTROL, relabelled=(0.9, 0.8, 0.95), excess=(0.03, 0.01, 0.1))
    assert "(relabelled) has 0.90" in answer(table)


def test_the_sentence_without_controls_and_without_a_solution() -> None:
    assert "no learned control stands beside it" in answer(facts(kept=KEPT))
    constant = answer(facts(kept=(0.5, 0.48, 0.52), shared=CONTROL, excess=(0.08, 0.01, 0.1)))
    assert "does not solve the tasks" in constant
    assert "contains" not in constant


def test_a_task_solved_worse_than_by_the_whole_is_solved_in_part() -> None:
    assert "solves the tasks in part" in answer(facts(whole=(0.99, 0.9, 1), kept=KEPT))
    assert "in part" not in answer(facts(whole=(0.97, 0.9, 1), kept=KEPT))
    # The whole network's better value counts, raw or calibrated.
    both = pd.concat([facts(whole=(0.99, 0.9, 1), kept=KEPT), calibrated(facts(whole=KEPT, kept=KEPT))])
    assert "in part, at a calibrated balanced accuracy" in answer(both)
    assert "(whole network 0.99)" in answer(both)


def test_the_sentence_prefers_calibrated_values_and_survives_a_file(table: pd.DataFrame) -> None:
    assert "calibrated balanced accuracy" in table.attrs["answer"]
    again = pd.read_csv(io.StringIO(table.to_csv(index=False)))
    assert answer(again) == table.attrs["answer"]


def test_a_table_of_something_else_has_no_answer() -> None:
    with pytest.raises(NadkitError, match="no rows of 'kept' or 'removed'"):
        answer(facts(whole=KEPT))


def test_the_table_for_the_eye(table: pd.DataFrame, network: Network, images: Images, masks: MaskSet) -> None:
    shown = evidence_table(table)
    assert list(shown.columns) == ["recall", "false_alarm", "balanced_accuracy", "kept_share"]
    assert shown.index.names == ["task", "condition"]
    assert list(dict.fromkeys(shown.index.get_level_values("task"))) == [*TASKS, "mean"]
    assert list(shown.loc["mean"].index) == [
        "whole", "kept", "removed", "random", "relabelled", "shared", "untrained"
    ]  # fmt: skip
    row = cell(table, "coat", "kept", "recall")
    text = f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
    assert shown.loc[("coat", "kept"), "recall"] == text
    assert shown.loc[("coat", "whole"), "kept_share"] == "1.00"
    empty = evidence_table(whether(network, masks, images.of("shirt"), controls=None, draws=0))
    assert empty.loc[("coat", "kept"), "recall"] == "–"
