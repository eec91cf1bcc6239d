"""The parts of `whether` that are about answers to pictures, each a second time, slow and by hand."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable, Mapping, Sequence

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
    slow_hidden,
    slow_logits,
    slow_parts,
    value,
)
from scipy.stats import spearmanr
from torch import Tensor

from nadkit.errors import NadkitError
from nadkit.images import Images
from nadkit.masks import MaskSet
from nadkit.measures import Estimate, platt, wilson
from nadkit.networks import Network
from nadkit.questions import answer, chance, evidence_table, outcomes, whether
from nadkit.questions.chance import chance_rows, in_spreads
from nadkit.questions.conditions import own_conditions
from nadkit.questions.showing import show
from nadkit.toy import planted

MOVED = {"coat": "bag", "boot": "shirt", "bag": "boot"}


@pytest.fixture(scope="module")
def network() -> Network:
    return make_network()


@pytest.fixture(scope="module")
def images() -> Images:
    return make_images((7, 6, 5, 8), seed=1)


@pytest.fixture(scope="module")
def held_back() -> Images:
    return make_images((6, 7, 9, 8), seed=50)


@pytest.fixture(scope="module")
def masks() -> MaskSet:
    """Scores of every size, so that a threshold loses something."""
    generator = torch.Generator().manual_seed(3)
    scores = {address: torch.rand(3, units, generator=generator) ** 0.6 for address, units in UNITS.items()}
    return MaskSet.from_scores(scores, TASKS, {"seed": 7})


@pytest.fixture(scope="module")
def controls() -> dict[str, MaskSet]:
    accepted = [NAMES.index(MOVED[task]) for task in TASKS]
    return {"relabelled": make_masks(10, meta={"permutation": accepted}), "shared": make_masks(11)}


@pytest.fixture(scope="module")
def table(
    network: Network, images: Images, held_back: Images, masks: MaskSet, controls: dict[str, MaskSet]
) -> pd.DataFrame:
    parts = ("sufficiency", "layers", "matrix", "comparison", "agreement")
    return whether(
        network, masks, images, calibrate_on=held_back, controls=controls, draws=4, parts=parts, seed=4
    )


def slow_odds(network: Network, gates: Mapping[str, Tensor] | None, images: Images, of: str) -> list[float]:
    logits = [slow_logits(network, pixels, gates) for pixels in images.pixels]
    return [slow_parts(each, NAMES.index(of))["log_odds"] for each in logits]


def slow_balanced(
    network: Network,
    gates: Mapping[str, Tensor] | None,
    images: Images,
    held_back: Images,
    task: str,
) -> float:
    """Calibrated balanced accuracy of one task under its gates."""
    own = torch.tensor([NAMES[label] == task for label in images.labels])
    fitted = torch.tensor([NAMES[label] == task for label in held_back.labels])
    slope, intercept = platt(torch.tensor(slow_odds(network, gates, held_back, task)), fitted)
    yes = float(slope) * torch.tensor(slow_odds(network, gates, images, task)) + float(intercept) > 0
    return (float(yes[own].float().mean()) + 1 - float(yes[~own].float().mean())) / 2


# The gap, layers, the matrix


def test_the_gap_is_that_of_scores_as_gates(
    table: pd.DataFrame, network: Network, images: Images, held_back: Images, masks: MaskSet
) -> None:
    gaps = []
    for row, task in enumerate(TASKS):
        scores = {address: rows[row] for address, rows in masks.scores.items()}
        soft = slow_balanced(network, scores, images, held_back, task)
        gaps.append(soft - slow_balanced(network, masks.gates(task), images, held_back, task))
        assert value(table, task, "kept", "discretisation_gap") == pytest.approx(gaps[-1], abs=1e-6)
    assert any(abs(gap) > 0.01 for gap in gaps)
    assert value(table, "mean", "kept", "discretisation_gap") == pytest.approx(sum(gaps) / 3)
    hard = MaskSet.from_scores({a: (rows > 0.5).float() for a, rows in masks.scores.items()}, TASKS)
    same = cell(whether(network, hard, images, controls=None, draws=0), "mean", "kept", "discretisation_gap")
    assert same["value"] == 0.0
    assert same["low"] <= 0 <= same["high"]


def test_kept_shares_of_every_layer(
    table: pd.DataFrame, network: Network, masks: MaskSet, controls: dict[str, MaskSet]
) -> None:
    for condition, sets in {"kept": masks, **controls}.items():
        for address, units in UNITS.items():
            shares = sets.kept_share(layer=address)
            for task in TASKS:
                row = cell(table, task, condition, "kept_share", layer=address)
                assert (row["value"], row["n"]) == (pytest.approx(shares[task]), units)
            mean = value(table, "mean", condition, "kept_share", layer=address)
            assert mean == pytest.approx(sum(shares.values()) / 3)
    assert set(table[table["layer"] != "all"]["condition"]) == {"kept", "relabelled", "shared"}
    # The readers of whole masks do not see them.
    assert not evidence_table(table).isna().any().any()
    again = table[table["layer"] == "all"].drop(columns="layer")
    assert evidence_table(table).equals(evidence_table(again))
    assert answer(table) == answer(again)
    plain = whether(
        network, masks, make_images((3, 3, 3, 3), seed=1), controls=None, draws=0, parts="sufficiency"
    )
    assert not {"layer", "other_task", "dose", "share"} & set(plain.columns)


def test_the_matrix_counts_who_accepts_what(
    table: pd.DataFrame, network: Network, images: Images, held_back: Images, masks: MaskSet
) -> None:
    for condition, task in itertools.product(("whole", "kept"), TASKS):
        gates = masks.gates(task) if condition == "kept" else None
        odds = torch.tensor(slow_odds(network, gates, images, task))
        own = torch.tensor([NAMES[label] == task for label in held_back.labels])
        slope, intercept = platt(torch.tensor(slow_odds(network, gates, held_back, task)), own)
        for metric, decided in (
            ("accepted", odds),
            ("accepted_calibrated", float(slope) * odds + float(intercept)),
        ):
            for index, name in enumerate(NAMES):
                yes = (decided > 0)[images.labels == index]
                row = cell(table, task, condition, metric, other_task=name)
                assert row["value"] == pytest.approx(float(yes.float().mean()))
                assert (row["low"], row["high"]) == pytest.approx(wilson(int(yes.sum()), len(yes)))
                assert row["n"] == len(yes)
        recall = value(table, task, condition, "recall")
        assert value(table, task, condition, "accepted", other_task=task) == pytest.approx(recall)


def test_the_matrix_has_rows_for_the_classes_that_are_there(
    network: Network, images: Images, held_back: Images, masks: MaskSet
) -> None:
    some = images.subset(["shirt", "boot"])
    sets = [masks, make_masks(5)]
    table = whether(
        network,
        sets,
        some,
        calibrate_on=held_back.subset(["bag", "boot"]),
        controls=None,
        draws=0,
        parts="matrix",
    )
    assert set(table["metric"]) == {"accepted", "accepted_calibrated"}
    assert set(table["other_task"]) == {"shirt", "boot"}
    row = cell(table, "boot", "kept", "accepted", other_task="shirt")
    single = [
        value(
            whether(network, one, some, controls=None, draws=0, parts="matrix"),
            "boot",
            "kept",
            "accepted",
            other_task="shirt",
        )
        for one in sets
    ]
    assert row["value"] == pytest.approx(sum(single) / 2)
    assert row["interval"] == "mask seeds × images"
    assert cell(table, "coat", "kept", "accepted_calibrated", other_task="shirt")["n"] == 0  # without a fit
    assert table.attrs["answer"].startswith("A sub-architecture of hand accepts, calibrated, ")


# Conditions to compare with


def test_other_reads_every_task_under_each_other_tasks_mask(
    table: pd.DataFrame, network: Network, images: Images, held_back: Images, masks: MaskSet
) -> None:
    for task in TASKS:
        found = [
            slow_balanced(network, masks.gates(other), images, held_back, task)
            for other in TASKS
            if other != task
        ]
        row = cell(table, task, "other", "balanced_accuracy_calibrated")
        assert row["value"] == pytest.approx(sum(found) / 2, abs=1e-6)
        assert (row["low"], row["high"]) == pytest.approx(
            (min(found) + 0.025 * abs(found[0] - found[1]), max(found) - 0.025 * abs(found[0] - found[1])),
            abs=1e-6,
        )
        assert row["interval"] == "other tasks' masks, their 2.5-97.5 %"
        shares = [share for other, share in masks.kept_share().items() if other != task]
        assert value(table, task, "other", "kept_share") == pytest.approx(sum(shares) / 2)


def test_last_layer_opens_all_layers_before(
    table: pd.DataFrame, network: Network, images: Images, held_back: Images, masks: MaskSet
) -> None:
    for task in TASKS:
        gates = {"1": torch.ones(5), "3": masks.gates(task)["3"]}
        found = slow_balanced(network, gates, images, held_back, task)
        assert value(table, task, "last_layer", "balanced_accuracy_calibrated") == pytest.approx(
            found, abs=1e-6
        )
        assert value(table, task, "last_layer", "kept_share") == pytest.approx(
            (5 + float(gates["3"].sum())) / 12
        )


def test_other_costs_no_pass_and_one_task_has_none(
    network: Network, images: Images, masks: MaskSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nadkit.questions.forwards as forwards

    rows: list[int] = []

    def counted(*args: object, **named: object) -> Tensor:
        rows.append(len(next(iter(args[2].values()))))  # type: ignore[attr-defined]
        return gated(*args, **named)

    gated = forwards.gated_logits
    monkeypatch.setattr(forwards, "gated_logits", counted)
    whether(network, masks, images, controls=None, draws=0, parts="comparison")
    assert sum(rows) == 6  # kept and last_layer, three tasks each
    alone = whether(network, masks["coat"], images, controls=None, draws=0, parts="comparison")
    assert set(alone["condition"]) == {"last_layer"}


# Chance


def test_effects_are_in_spreads_of_the_draws(
    table: pd.DataFrame, network: Network, images: Images, held_back: Images, masks: MaskSet
) -> None:
    draws = [
        [
            slow_balanced(network, masks.random(4 + draw).gates(task), images, held_back, task)
            for task in TASKS
        ]
        for draw in range(4)
    ]
    null = torch.tensor(draws, dtype=torch.float64)
    for place, task in enumerate((*TASKS, "mean")):
        of_task = null.mean(1) if task == "mean" else null[:, place]
        own = cell(table, task, "kept", "balanced_accuracy_calibrated")
        row = cell(table, task, "kept", "effect_in_spreads")
        for end in ("value", "low", "high"):
            expected = (own[end] - float(of_task.mean())) / float(of_task.std(correction=1))
            assert row[end] == pytest.approx(expected, abs=1e-5)
        assert row["n"] == 4
    p = cell(table, "mean", "kept", "p_value")
    assert p["n"] == 0  # four draws earn none
    assert math.isnan(p["value"])
    assert len(table[table["metric"] == "p_value"]) == 1
    assert "random draws" not in table.attrs["answer"]


def test_the_primary_test_takes_199_draws_and_is_in_the_sentence(
    network: Network, images: Images, masks: MaskSet
) -> None:
    whole = MaskSet.from_scores({at: torch.ones_like(rows) for at, rows in masks.scores.items()}, masks.tasks)
    for one, draws in ((whole, 198), (whole, 199), (masks, 199)):
        table = whether(network, one, images, controls=None, draws=draws, parts="sufficiency")
        p = cell(table, "mean", "kept", "p_value")
        assert p["n"] == (draws if draws == 199 else 0)
        said = f"; p = {p['value']:.2g} against 199 random draws)"
        assert (said in table.attrs["answer"]) == (draws == 199)
        again = pd.read_csv(io.StringIO(table.to_csv(index=False)))
        assert answer(again) == table.attrs["answer"]
    # Random masks of all units are the masks themselves, so that every draw is as good.
    assert "; p = 1 against 199" in whether(network, whole, images, controls=None, draws=199).attrs["answer"]


def test_the_p_value_counts_the_draws_that_are_as_good(
    network: Network, images: Images, masks: MaskSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chance, "TESTED", 19)
    table = whether(network, masks, images, controls=None, draws=19, parts="sufficiency")
    own = value(table, "mean", "kept", "auroc")
    null = [
        value(
            whether(network, masks.random(draw), images, controls=None, draws=0, parts="sufficiency"),
            "mean",
            "kept",
            "auroc",
        )
        for draw in range(19)
    ]
    as_good = sum(one >= own - 1e-9 for one in null)
    assert 0 < as_good < 19
    row = cell(table, "mean", "kept", "p_value")
    assert row["value"] == pytest.approx((1 + as_good) / 20)
    assert (row["low"], row["high"]) == pytest.approx(wilson(as_good, 19))
    assert row["n"] == 19


def test_the_primary_test_is_nominal_and_finds_planted_units(
    network: Network, images: Images, masks: MaskSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chance, "TESTED", 19)
    monkeypatch.setattr(outcomes, "DRAWS", 10)  # intervals are not looked at

    def p_value(network: Network, own: MaskSet, images: Images, seed: int) -> float:
        conditions = own_conditions(network, [own], 19, seed)
        shown = show(network, conditions, own.tasks, images, None, seed, progress=False)
        rows = [row for row in chance_rows(network.name, shown.outcomes) if row["metric"] == "p_value"]
        assert len(rows) == 1
        return float(str(rows[0]["value"]))

    runs, alpha, few = 150, 0.1, images.take(3)
    found = [p_value(network, masks.random(10_000 + run), few, 40 * run) for run in range(runs)]
    rate = sum(p <= alpha for p in found) / runs
    assert rate <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / runs)
    assert 0.4 < sum(found) / runs < 0.65  # and it is no test that always says no
    toy = planted(per_class=4)
    assert p_value(toy.network, toy.masks, toy.test, 0) == 1 / 20


def test_a_spread_that_is_nothing_says_nothing() -> None:
    found = Estimate(0.9, 0.8, 1.0)
    assert in_spreads(found, torch.tensor([0.4, 0.6])) == pytest.approx(
        [x / math.sqrt(0.02) for x in (0.4, 0.3, 0.5)]
    )
    assert in_spreads(Estimate(0.5, 0.4, 0.6), torch.tensor([0.5, 0.5])) == (0.0, 0.0, 0.0)
    for null in ([0.5, 0.5], [0.5], [], [0.5, math.nan]):
        assert all(math.isnan(end) for end in in_spreads(found, torch.tensor(null)))


# Agreement with the whole network


def half_and_half(values: Sequence[float], own: Sequence[bool]) -> float:
    mine = [x for x, yes in zip(values, own, strict=True) if yes]
    theirs = [x for x, yes in zip(values, own, strict=True) if not yes]
    return (sum(mine) / len(mine) + sum(theirs) / len(theirs)) / 2


def softmax(logits: list[float]) -> list[float]:
    total = sum(math.exp(z) for z in logits)
    return [math.exp(z) / total for z in logits]


def slow_agreement(
    network: Network, gates: Mapping[str, Tensor], images: Images, held_back: Images, task: str, target: str
) -> dict[str, float]:
    labels = [NAMES[label] for label in images.labels]
    own = [name == target for name in labels]
    found = {}
    decided = []
    for of, these in ((target, None), (task, gates)):
        fitted = torch.tensor([NAMES[label] == target for label in held_back.labels])
        slope, intercept = platt(torch.tensor(slow_odds(network, these, held_back, of)), fitted)
        decided.append(
            [float(slope) * x + float(intercept) > 0 for x in slow_odds(network, these, images, of)]
        )
    same = [float(a == b) for a, b in zip(*decided, strict=True)]
    found["agreement"] = half_and_half(same, own)
    whole = [slow_logits(network, pixels, None) for pixels in images.pixels]
    gated = [slow_logits(network, pixels, gates) for pixels in images.pixels]
    chosen = [NAMES[logits.index(max(logits))] for logits in whole]
    wrong = [
        agrees
        for agrees, true, said in zip(same, labels, chosen, strict=True)
        if true != said and target in (true, said)
    ]
    found["agreement_on_errors"] = sum(wrong) / len(wrong) if wrong else math.nan
    before, after = slow_odds(network, None, images, target), slow_odds(network, gates, images, task)
    apart = []
    for a, b in zip(before, after, strict=True):
        p, rest = 1 / (1 + math.exp(-a)), 1 / (1 + math.exp(a))
        q, other = 1 / (1 + math.exp(-b)), 1 / (1 + math.exp(b))
        apart.append(p * math.log(p / q) + rest * math.log(rest / other))
    found["kl_task"] = half_and_half(apart, own)
    full = [
        sum(p * math.log(p / q) for p, q in zip(softmax(a), softmax(b), strict=True))
        for a, b, yes in zip(whole, gated, own, strict=True)
        if yes
    ]
    found["kl"] = sum(full) / len(full)
    orders = []
    for name in NAMES:
        there = [place for place, label in enumerate(labels) if label == name]
        pair = [[round(odds[i], 4) for i in there] for odds in (before, after)]
        varies = all(len(set(each)) > 1 for each in pair)
        orders.append(spearmanr(*pair).statistic if varies else 0.0)
    found["rank_correlation"] = sum(orders) / len(orders)
    with torch.no_grad():
        units = [[slow_hidden(network, pixels, these) for pixels in images.pixels] for these in (None, gates)]
    pair = torch.stack([torch.stack(each)[own] for each in units])
    kept = gates["3"] > 0
    squares = [float(torch.corrcoef(pair[:, :, unit])[0, 1]) ** 2 for unit in kept.nonzero().flatten()]
    squares = [0.0 if math.isnan(square) else square for square in squares]  # silent in the gated network
    found["r_squared"] = sum(squares) / len(squares)
    return found


@pytest.mark.parametrize("condition", ["kept", "shared", "relabelled"])
def test_agreement_is_that_of_the_slow_way(
    condition: str,
    table: pd.DataFrame,
    network: Network,
    images: Images,
    held_back: Images,
    masks: MaskSet,
    controls: dict[str, MaskSet],
) -> None:
    sets = {"kept": masks, **controls}[condition]
    errors = 0
    for task in TASKS:
        target = MOVED[task] if condition == "relabelled" else task
        slow = slow_agreement(network, sets.gates(task), images, held_back, task, target)
        if condition == "relabelled":
            # Its logits mean other classes.
            assert table[(table["condition"] == condition) & (table["metric"] == "kl")].empty
            del slow["kl"]
        for metric, number in slow.items():
            row = cell(table, task, condition, metric)
            assert row["value"] == pytest.approx(number, abs=2e-4, nan_ok=True), (task, metric)
            if not math.isnan(number):
                assert row["low"] <= row["value"] <= row["high"], (task, metric)
        errors += cell(table, task, condition, "agreement_on_errors")["n"]
    assert errors > 0


def test_a_mask_of_everything_agrees_in_everything(
    network: Network, images: Images, held_back: Images
) -> None:
    full = MaskSet.from_scores({address: torch.ones(3, n) for address, n in UNITS.items()}, TASKS)
    table = whether(network, full, images, calibrate_on=held_back, controls=None, draws=0, parts="agreement")
    for metric, best in {
        "agreement": 1, "agreement_on_errors": 1, "kl": 0, "kl_task": 0, "rank_correlation": 1, "r_squared": 1
    }.items():  # fmt: skip
        assert value(table, "mean", "kept", metric) == pytest.approx(best, abs=1e-6)
    assert "rank correlation of 1.00" in table.attrs["answer"]


def test_an_empty_mask_agrees_by_chance(network: Network, images: Images) -> None:
    empty = MaskSet.from_scores({address: torch.zeros(3, n) for address, n in UNITS.items()}, TASKS)
    table = whether(network, empty, images, controls=None, draws=2, parts=["sufficiency", "agreement"])
    for task in TASKS:
        assert value(table, task, "kept", "rank_correlation") == 0.0
        assert value(table, task, "kept", "effect_in_spreads") == 0.0
        assert value(table, task, "kept", "kl") > 0
        assert cell(table, task, "kept", "r_squared")["n"] == 0
        assert value(table, task, "kept", "discretisation_gap") == 0.0
    assert cell(table, "mean", "kept", "r_squared")["n"] == 0


def test_parts_of_tasks_without_pictures_are_empty_rows(
    network: Network, images: Images, masks: MaskSet, controls: dict[str, MaskSet]
) -> None:
    fewer = images.subset(["shirt", "bag"])
    parts = ["matrix", "comparison", "agreement", "sufficiency"]
    table = whether(network, masks, fewer, controls=controls, draws=2, parts=parts)
    for metric in ("agreement", "kl", "kl_task", "r_squared", "effect_in_spreads", "discretisation_gap"):
        row = cell(table, "coat", "kept", metric)
        assert row["n"] == 0
        assert row[["value", "low", "high"]].isna().all()
        mean = value(table, "mean", "kept", metric)
        assert metric == "effect_in_spreads" or mean == pytest.approx(value(table, "bag", "kept", metric))


def test_several_seeds_agree_on_average(network: Network, images: Images, masks: MaskSet) -> None:
    sets = [masks, make_masks(5, meta={"seed": 2})]
    both, *single = (
        whether(network, one, images, controls=None, draws=0, parts="agreement") for one in (sets, *sets)
    )
    for metric in ("agreement", "kl", "kl_task", "rank_correlation", "r_squared"):
        mean = sum(value(one, "boot", "kept", metric) for one in single) / 2
        row = cell(both, "boot", "kept", metric)
        assert row["value"] == pytest.approx(mean)
        assert row["interval"] == "mask seeds × images"


# What is asked


def test_parts_that_are_not_there_are_refused(network: Network, images: Images, masks: MaskSet) -> None:
    with pytest.raises(NadkitError, match=r"no part 'necesity' of whether; closest: necessity"):
        whether(network, masks, images, parts=["layers", "necesity"])
    with pytest.raises(NadkitError, match=r"nothing was asked: give parts \(sufficiency, "):
        whether(network, masks, images, parts=[])


def test_all_is_every_part(network: Network, images: Images, masks: MaskSet) -> None:
    table = whether(network, masks, images, controls=None, draws=2, parts="all")
    parts = ("recall", "accepted", "agreement", "drop_own", "minimality")
    assert set(parts) <= set(table["metric"])
    assert "last_layer" in set(table["condition"])
    assert list(table.columns) == [
        "network", "task", "other_task", "condition", "dose", "layer",
        "metric", "value", "low", "high", "n", "seed", "interval",
    ]  # fmt: skip
    sentences = table.attrs["answer"]
    assert sentences.count(". ") >= 3
    assert answer(table) == sentences


@pytest.mark.parametrize("part", ["layers", "matrix", "comparison", "agreement"])
def test_a_part_alone_has_the_rows_it_has_among_others(
    part: str,
    table: pd.DataFrame,
    network: Network,
    images: Images,
    held_back: Images,
    masks: MaskSet,
    controls: dict[str, MaskSet],
) -> None:
    alone = whether(
        network, masks, images, calibrate_on=held_back, controls=controls, draws=4, parts=part, seed=4
    )
    keys = ["task", "condition", "metric", "layer", "other_task"]
    both = []
    for one in (alone, table):
        rows = one.reindex(columns=[*keys, "value", "low"]).astype({"layer": object, "other_task": object})
        both.append(rows.fillna({"layer": "all", "other_task": "-"}))
    if part == "agreement":
        assert not (alone["condition"] == "other").any()
    joined = both[0].merge(both[1], on=keys, how="left", suffixes=("", "_too"))
    assert len(joined) == len(alone) > 0
    for column in ("value", "low"):
        close: Callable[[pd.Series], pd.Series] = lambda gap: (gap.abs() < 1e-6) | gap.isna()  # noqa: E731
        assert close(joined[column] - joined[f"{column}_too"]).all()
        assert joined[column].isna().equals(joined[f"{column}_too"].isna())


# The sentences


def rows_of(*facts: tuple[object, ...]) -> pd.DataFrame:
    """Rows (task, condition, dose, metric, value, low, high) of one network."""
    columns = ["task", "condition", "dose", "metric", "value", "low", "high"]
    return pd.DataFrame(list(facts), columns=columns).assign(network="net", layer="all")


KEPT = ("mean", "kept", None, "balanced_accuracy", 0.9, 0.8, 0.95)


def test_the_first_sentence_ends_with_all_tasks_together() -> None:
    together = ("all", "kept", None, "recomposed_accuracy", 0.8, 0.7, 0.85)
    whole, shared = (
        ("all", condition, None, "recomposed_accuracy", number, 0.5, 1.0)
        for condition, number in (("whole", 0.94), ("shared", 0.6))
    )
    words = "; together they name the right class of 0.80 [0.70, 0.85] of the pictures"
    assert answer(rows_of(KEPT, together)).endswith(f"{words}.")
    both = answer(rows_of(KEPT, whole, together, shared))
    assert both.endswith(f"{words} (whole network 0.94, one shared mask 0.60).")
    assert "together" not in answer(rows_of(KEPT, whole))
    alone = ("bag", *KEPT[1:])
    assert "together" not in answer(rows_of(alone, KEPT, together))  # one task is always the largest


def test_the_sentence_of_a_curve_names_who_reaches_the_goal_where() -> None:
    found = [
        ("mean", condition, None, "smallest_share", number, math.nan, math.nan)
        for condition, number in (
            ("kept", 0.3),
            ("random", math.nan),
            ("shared", 0.5),
            ("untrained", math.nan),
        )
    ]
    assert answer(rows_of(*found)) == (
        "Over kept shares, 0.95 of the balanced accuracy of net is reached by the kept units first at 0.3; "
        "random, untrained at none; shared first at 0.5."
    )
    again = answer(rows_of(*found, ("mean", "kept", None, "short_again", 0.5, math.nan, math.nan)))
    assert "by the kept units first at 0.3 (short of it again at 0.5); random" in again


def test_the_sentence_of_agreement() -> None:
    kept = ("mean", "kept", None, "rank_correlation", 0.25, 0.2, 0.3)
    shared = ("mean", "shared", None, "rank_correlation", 0.2, 0.1, 0.3)
    start = (
        "Within a class, the kept units of net order pictures as the whole network does at a rank "
        "correlation of 0.25 [0.20, 0.30]"
    )
    assert answer(rows_of(kept)) == f"{start}."
    assert answer(rows_of(kept, shared)) == f"{start} (shared 0.20)."


def test_the_sentence_of_necessity_is_of_exclusive_units_if_there_are_any() -> None:
    def dose(name: str, share: float, *, random: bool = True) -> list[tuple[object, ...]]:
        found: list[tuple[object, ...]] = [
            ("mean", "removed", name, "removed_share", share, share, share),
            ("mean", "removed", name, "drop_own", 4.0 + share, 3.0, 5.0),
            ("mean", "removed", name, "drop_others", 0.5, 0.4, 0.6),
        ]
        if random:
            found.append(("mean", "removed_random", name, "drop_own", 1.0, 0.5, 1.5))
            found.append(("mean", "removed", name, "selectivity", 6.0, 5.0, 7.0))
        return found

    assert answer(rows_of(*dose("5 %", 0.05), *dose("exclusive", 0.02))) == (
        "Removing the units that only one task keeps (2 % of all) from net costs that task "
        "4.02 [3.00, 5.00] of log-odds on its pictures (as many random units: 1.00, 6.0 spreads away), and "
        "the other tasks 0.50 [0.40, 0.60]."
    )
    nothing = ("mean", "removed", "5 %", "removed_share", math.nan, math.nan, math.nan)
    alike = answer(rows_of(nothing, *dose("kept", 1.0), *dose("exclusive", 0.0)))
    assert alike.startswith("Removing the units that a task keeps (100 % of all) from net")
    empty = answer(rows_of(nothing, *dose("kept", 0.0), *dose("exclusive", 0.0)))
    assert empty.startswith("No units of net are kept, and none score higher than others")
    none = answer(rows_of(*dose("5 %", 0.05, random=False), *dose("exclusive", 0.0)))
    assert none == (
        "Removing the units that score highest for a task (5 % of all) from net costs that task "
        "4.05 [3.00, 5.00] of log-odds on its pictures, and the other tasks 0.50 [0.40, 0.60]."
    )


def test_the_sentence_of_minimality_comes_last() -> None:
    found = [
        ("mean", "kept", None, metric, number, number - 0.1, number + 0.1)
        for metric, number in (("minimality", 0.7), ("needed_share", 0.8))
    ]
    last = (
        "Of the kept units of net, 0.70 [0.60, 0.80] are worth more than 95 % of the removed ones; "
        "0.80 [0.70, 0.90] of them are left when pruning first costs 1 %."
    )
    assert answer(rows_of(*found)) == last
    gone = ("mean", "kept", None, "minimality", math.nan, math.nan, math.nan)
    assert answer(rows_of(gone, found[1])) == (
        "No units of net are removed that the kept ones could be held against; "
        "0.80 [0.70, 0.90] of them are left when pruning first costs 1 %."
    )
    assert answer(rows_of(gone)).endswith("so none can be pruned.")
    assert answer(rows_of(*found, KEPT)).endswith(f"stands beside it. {last}")


def test_layers_the_matrix_and_the_comparison_have_a_sentence_each(
    network: Network, images: Images, masks: MaskSet
) -> None:
    layers, matrix, comparison = (
        whether(network, masks, images, controls=None, draws=0, parts=part)
        for part in ("layers", "matrix", "comparison")
    )
    shares = {a: sum(masks.kept_share(layer=a).values()) / 3 for a in UNITS}
    least, most = sorted(shares, key=lambda a: shares[a])
    assert answer(layers) == (
        f"Of a layer's units, a task of hand keeps from {100 * shares[least]:.2g} % ({least}) to "
        f"{100 * shares[most]:.2g} % ({most}), on average over tasks."
    )
    kept = matrix[matrix["condition"] == "kept"]
    own = kept[kept["task"] == kept["other_task"]]["value"].mean()
    others = kept[kept["task"] != kept["other_task"]]
    most_of = others.loc[others["value"].idxmax()]
    assert answer(matrix).startswith(
        f"A sub-architecture of hand accepts {own:.2f} of the pictures of its class and "
        f"{others['value'].mean():.2f} of the others' (most {most_of['value']:.2f}, "
    )
    assert "; the whole network " in answer(matrix)
    facts = [cell(comparison, "mean", name, "auroc") for name in ("other", "last_layer")]
    other, last = (f"{x['value']:.2f} [{x['low']:.2f}, {x['high']:.2f}]" for x in facts)
    assert answer(comparison) == (
        f"A task of hand has an AUROC of {other} under another task's mask and {last} with all units but the "
        "last layer's open."
    )
    assert comparison.attrs["answer"] == answer(comparison)


def test_means_count_the_pictures_that_take_part(network: Network, images: Images, masks: MaskSet) -> None:
    table = whether(network, masks, images, controls=None, draws=0, parts=["sufficiency", "agreement"])
    with torch.no_grad():
        labels, chosen = images.labels, network(images.pixels).argmax(1)
    tasks = torch.tensor([NAMES.index(task) for task in TASKS])
    wrong = chosen != labels
    some = int((wrong & (torch.isin(labels, tasks) | torch.isin(chosen, tasks))).sum())
    assert cell(table, "mean", "kept", "agreement_on_errors")["n"] == some
    own = int(torch.isin(labels, tasks).sum())
    assert own < len(images)
    for metric in ("recall", "kl", "r_squared"):
        assert cell(table, "mean", "kept", metric)["n"] == own
    for metric in ("false_alarm", "balanced_accuracy", "auroc", "agreement", "rank_correlation"):
        assert cell(table, "mean", "kept", metric)["n"] == len(images)
