"""`why` against a slow table made error by error, planted similarities, chance with hubs, and by hand."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import t as student_t
from torch import Tensor, nn

from nadkit.errors import ImageError, MaskFileError, NadkitError
from nadkit.figures._mistakes import why as figure_of
from nadkit.images import Images
from nadkit.masks import MaskSet
from nadkit.measures import stratified_weights, wilson
from nadkit.measures.permutation import permutations
from nadkit.networks import Network
from nadkit.questions.mistakes import why
from nadkit.questions.mistakes.ranks import Ranking, nearness, strata
from nadkit.questions.mistakes.reading import answer, answer_one
from nadkit.questions.mistakes.similarities import Similarity, classifier_weights, read, similarities

NAMES = ("bag", "coat", "shirt", "boot", "dress", "hat")
UNITS = 24
SIMILARITIES = ("overlap", "jaccard", "classifier_weights", "mean_features", "mean_confusions")


def make_network(name: str = "hand") -> Network:
    """Pictures are the logits: the second layer undoes the first, so every error can be made to order."""
    generator = torch.Generator().manual_seed(4)
    spread = torch.randn(UNITS, 6, generator=generator)
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(nn.Flatten(), nn.Linear(6, UNITS, bias=False), nn.Linear(UNITS, 6, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(spread)
        model[2].weight.copy_(torch.linalg.pinv(spread))
    return Network.wrap(model, NAMES, example=torch.zeros(1, 1, 2, 3), layers=["1"], name=name)


def make_images(
    errors: Sequence[tuple[int, int]], right: Sequence[int] = (9, 9, 9, 9, 9, 9), names: Sequence[str] = NAMES
) -> Images:
    """Pictures answered right, so many of each class, and one for every (true, answered)."""
    true = [k for k, count in enumerate(right) for _ in range(count)] + [t for t, _ in errors]
    chosen = [k for k, count in enumerate(right) for _ in range(count)] + [p for _, p in errors]
    noise = torch.rand(len(true), 6, generator=torch.Generator().manual_seed(8))
    logits = noise + 3.0 * torch.nn.functional.one_hot(torch.tensor(chosen), 6)
    order = torch.randperm(len(true), generator=torch.Generator().manual_seed(1))
    return Images(logits.reshape(-1, 1, 2, 3)[order], torch.tensor(true)[order], tuple(names))


def make_masks(seed: int, tasks: Sequence[str] = NAMES, share: float = 0.4) -> MaskSet:
    generator = torch.Generator().manual_seed(seed)
    scores = (torch.rand(len(tasks), UNITS, generator=generator) < share).float()
    return MaskSet.from_scores({"1": scores}, tasks, {"seed": seed})


def paired_masks() -> MaskSet:
    """Bag and coat, shirt and boot, dress and hat share most units; others share few."""
    scores = torch.zeros(6, UNITS)
    for k in range(6):
        scores[k, 8 * (k // 2) : 8 * (k // 2) + 6] = 1
        scores[k, 8 * (k // 2) + 6 + k % 2] = 1
    return MaskSet.from_scores({"1": scores}, NAMES)


ERRORS = [(0, 1)] * 7 + [(0, 2)] * 2 + [(1, 0)] * 5 + [(2, 3)] * 3 + [(3, 5)] * 4 + [(4, 0)] + [(5, 4)] * 6


@pytest.fixture(scope="module")
def network() -> Network:
    return make_network()


@pytest.fixture(scope="module")
def images() -> Images:
    return make_images(ERRORS)


def cell(table: pd.DataFrame, task: str, condition: str, metric: str) -> pd.Series:
    rows = table[(table["task"] == task) & (table["condition"] == condition) & (table["metric"] == metric)]
    assert len(rows) == 1, (task, condition, metric, len(rows))
    return rows.iloc[0]


def value(table: pd.DataFrame, task: str, condition: str, metric: str) -> float:
    return float(cell(table, task, condition, metric)["value"])


# Ranks.


def test_nearness_by_hand() -> None:
    near = torch.tensor([[9.0, 0.8, 0.5, 0.5, 0.1]] + [[0.0] * 5] * 4)
    share, auc = nearness(near, top=2)
    # One class is nearest; the next two share the second place; of three others 3, 1½, 1½ and 0 are farther.
    assert share[0, 1:].tolist() == [1.0, 0.5, 0.5, 0.0]
    assert auc[0, 1:].tolist() == [1.0, 0.5, 0.5, 0.0]
    # Four equal classes share two places.
    assert share[1].nan_to_num(-1).tolist() == [0.5, -1, 0.5, 0.5, 0.5]
    assert auc[1].nan_to_num(-1).tolist() == [0.5, -1, 0.5, 0.5, 0.5]


def test_nearness_takes_rounding_for_a_tie_and_the_row_for_the_true_class() -> None:
    near = torch.tensor([[0, 0.1 + 0.2, 0.3, 0.0], [1, 0, 2, 3], [0] * 4, [0] * 4], dtype=torch.float64)
    _, auc = nearness(near, top=1)
    assert auc[0].tolist()[1:] == [0.75, 0.75, 0.0]
    assert [auc[1, k].item() for k in (0, 2, 3)] == [0.0, 0.5, 1.0]


def test_nearness_of_few_classes() -> None:
    share, auc = nearness(torch.zeros(2, 2), top=3)
    assert share[0, 1] == 1.0
    assert auc.isnan().all()


# A second time, slowly: every error alone.


def slow_phi(mine: Tensor, theirs: Tensor) -> float:
    if mine.unique().numel() < 2 or theirs.unique().numel() < 2:
        return math.nan
    return float(np.corrcoef(mine.numpy(), theirs.numpy())[0, 1])


def slow_jaccard(mine: Tensor, theirs: Tensor) -> float:
    return float((mine * theirs).sum() / torch.maximum(mine, theirs).sum())


def slow_cosine(mine: Tensor, theirs: Tensor) -> float:
    return float(mine @ theirs / (mine.norm() * theirs.norm()))


def slow_tables(network: Network, masks: MaskSet, images: Images) -> dict[str, np.ndarray]:
    found = {name: np.zeros((6, 6)) for name in SIMILARITIES}
    weights = network.model[2].weight.detach().double()
    right = {}
    for k in range(6):
        mine = images.pixels[images.labels == k].flatten(1)
        right[k] = mine[mine.argmax(1) == k]
    for i, j in itertools.permutations(range(6), 2):
        rows = masks.gates()["1"][[i, j]]
        found["overlap"][i, j] = slow_phi(*rows)
        found["jaccard"][i, j] = slow_jaccard(*rows)
        found["classifier_weights"][i, j] = slow_cosine(weights[i], weights[j])
        means = [(right[k] @ network.model[1].weight.detach().T).mean(0).double() for k in (i, j)]
        found["mean_features"][i, j] = slow_cosine(*means)
        found["mean_confusions"][i, j] = math.log(right[i].double().softmax(1)[:, j].mean())
    return found


def slow_centred(table: np.ndarray) -> np.ndarray:
    """Least squares over the pairs of different classes."""
    pairs = list(itertools.permutations(range(len(table)), 2))
    design = np.zeros((len(pairs), 1 + 2 * len(table)))
    for at, (i, j) in enumerate(pairs):
        design[at, [0, 1 + i, 1 + len(table) + j]] = 1
    values = np.array([table[i, j] for i, j in pairs])
    rest = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    centred = np.zeros_like(table)
    for (i, j), left in zip(pairs, rest, strict=True):
        centred[i, j] = left
    return centred


def slow_auc(table: np.ndarray, true: int, answered: int) -> float:
    others = [k for k in range(len(table)) if k not in (true, answered)]
    ours = table[true, answered]
    wins = [
        1.0 if ours > table[true, k] + 1e-9 else 0.5 if ours > table[true, k] - 1e-9 else 0.0 for k in others
    ]
    return sum(wins) / len(others)


def slow_top(table: np.ndarray, true: int, answered: int, top: int) -> float:
    """The average over all orders of the tied classes."""
    others = [k for k in range(len(table)) if k != true]
    ours = table[true, answered]
    nearer = sum(table[true, k] > ours + 1e-9 for k in others)
    tied = sum(abs(table[true, k] - ours) <= 1e-9 for k in others)
    return float(np.mean([nearer + place < top for place in range(tied)]))


@pytest.mark.parametrize("seed", [3, 12])
def test_the_table_is_what_errors_one_by_one_give(network: Network, images: Images, seed: int) -> None:
    masks, draws, top = make_masks(seed), 60, 2
    table = why(network, masks, images, draws=draws, top=top, seed=5)
    for name, plain in slow_tables(network, masks, images).items():
        for suffix, near in (("", plain), ("_centred", slow_centred(plain))):
            for task in (*NAMES, "all"):
                mine = [(t, p) for t, p in ERRORS if task in ("all", NAMES[t])]
                shares = [slow_top(near, t, p, top) for t, p in mine]
                aucs = [slow_auc(near, t, p) for t, p in mine]
                row = cell(table, task, name, f"top_share{suffix}")
                assert row["value"] == pytest.approx(np.mean(shares)), (name, task, suffix)
                assert (row["low"], row["high"]) == pytest.approx(wilson(sum(shares), len(shares)))
                assert row["n"] == len(mine)
                assert value(table, task, name, f"auc{suffix}") == pytest.approx(np.mean(aucs))
        centred = slow_centred(plain)
        null: dict[str, list[float]] = {task: [] for task in (*NAMES, "all")}
        for order in permutations(6, draws, seed=5).tolist():
            moved = [(NAMES[t], slow_auc(centred, order[t], order[p])) for t, p in ERRORS]
            for task, found in null.items():
                found.append(float(np.mean([auc for name_, auc in moved if task in ("all", name_)])))
        observed = value(table, "all", name, "auc_centred")
        more = sum(one >= observed - 1e-9 for one in null["all"])
        assert value(table, "all", name, "p_value") == pytest.approx((1 + more) / (1 + draws))
        for task, found in null.items():
            effect = (value(table, task, name, "auc_centred") - np.mean(found)) / np.std(found, ddof=1)
            assert value(table, task, name, "effect") == pytest.approx(effect)
        needed = 0.5 + (1.644854 + 0.841621) * np.std(null["all"], ddof=1)
        row = cell(table, "all", name, "detectable")
        assert (row["value"] == pytest.approx(needed, abs=1e-5)) if needed <= 1 else math.isnan(row["value"])
        assert value(table, "all", name, "top_share_chance") == pytest.approx(top / 5)
        if name != "overlap":
            lead = value(table, "all", "overlap", "auc_centred") - observed
            row = cell(table, "all", name, "excess")
            assert row["value"] == pytest.approx(lead)
            assert row["low"] <= lead + 1e-12
            assert row["high"] >= lead - 1e-12


def test_error_rates_count_every_misclassified_picture(network: Network, images: Images) -> None:
    table = why(network, make_masks(3), images, draws=0)
    row = cell(table, "bag", "whole", "error_rate")
    assert (row["value"], row["n"]) == (9 / 18, 18)
    row = cell(table, "all", "whole", "error_rate")
    assert (row["value"], row["n"]) == (28 / 82, 82)
    assert (row["low"], row["high"]) == pytest.approx(wilson(28, 82))


def test_errors_do_not_predict_themselves(network: Network) -> None:
    few, many = (read(network, make_images([(0, 3)] * count)) for count in (0, 50))
    # The same pictures are answered right, so their means stay.
    assert torch.equal(few.correct, many.correct)
    only = make_images([(0, 3)] * 50, right=(0, 9, 9, 9, 9, 9))
    assert read(network, only).confusions[0].isnan().all()
    assert read(network, only).features[0].isnan().all()


# Planted truth and chance.


def test_errors_that_follow_the_masks_are_found(network: Network) -> None:
    errors = [(k, k ^ 1) for k in range(6) for _ in range(10)]
    table = why(network, paired_masks(), make_images(errors), top=1, draws=199)
    for metric in ("auc", "auc_centred", "top_share", "top_share_centred"):
        assert value(table, "all", "overlap", metric) == 1.0
    # 48 of the 720 permutations keep the three pairs, so p is near 1/15.
    assert value(table, "all", "overlap", "p_value") == pytest.approx(1 / 15, abs=0.06)
    assert value(table, "all", "overlap", "effect") > 2
    assert cell(table, "all", "overlap", "auc")["low"] > 0.9
    assert (
        "of 60 errors 100 % [94, 100] land on the nearest sub-architecture (chance 20 %)"
        in table.attrs["answer"]
    )


def ranked(near: Tensor, errors: Tensor, draws: int, seed: int) -> Ranking:
    similarity = Similarity("overlap", near[None].double(), torch.ones(len(near), dtype=torch.bool))
    return Ranking.of(similarity, errors[:, 0], errors[:, 1], 3, draws, seed)


def test_planted_similarity_of_ten_classes_has_a_small_p() -> None:
    generator = torch.Generator().manual_seed(0)
    near = torch.randn(10, 10, generator=generator)
    near = near + near.T
    nearest = near.clone().fill_diagonal_(-torch.inf).argsort(1, descending=True)
    errors = torch.tensor([(k, int(nearest[k, rank])) for k in range(10) for rank in (0, 0, 1)])
    found = ranked(near, errors, 199, 0)
    assert found.p_value() == 1 / 200
    assert found.effect() > 4
    assert float(found.values["top_share"].mean()) == 1.0


def test_the_error_rate_is_nominal_although_hubs_attract_errors() -> None:
    """Classes that are near to all others also draw errors; nothing else goes together."""
    trials, draws, alpha, classes = 200, 39, 0.05, 10
    generator = torch.Generator().manual_seed(17)
    found, naive = [], []
    for trial in range(trials):
        hubs = torch.randn(classes, generator=generator)
        near = torch.randn(classes, classes, generator=generator)
        near = (near + near.T) / 2**0.5 + hubs[:, None] + hubs
        pull = hubs + 0.7 * torch.randn(classes, classes, generator=generator)
        pull = pull.fill_diagonal_(-torch.inf).softmax(1)
        true = torch.arange(classes).repeat_interleave(8)
        answered = torch.multinomial(pull[true], 1, generator=generator)[:, 0]
        found.append(ranked(near, torch.stack([true, answered], 1), draws, trial).p_value())
        auc = nearness(near, 3)[1].nan_to_num(0.0)
        seen = float(auc[true, answered].mean())
        null = [float(auc[o[true], o[answered]].mean()) for o in permutations(classes, draws, trial)]
        naive.append((1 + sum(one >= seen for one in null)) / (1 + draws))
    rate, fooled = (float(np.mean(np.array(p) <= alpha)) for p in (found, naive))
    assert rate <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / trials)
    assert fooled > 0.3


def test_several_seeds_are_averaged_and_vary(network: Network, images: Images) -> None:
    sets = [make_masks(seed) for seed in (3, 4, 5)]
    together = why(network, sets, images, draws=30)
    alone = [why(network, one, images, draws=30) for one in sets]
    for metric in ("top_share", "auc", "auc_centred"):
        row = cell(together, "all", "overlap", metric)
        parts = [value(table, "all", "overlap", metric) for table in alone]
        assert row["value"] == pytest.approx(np.mean(parts))
        assert row["interval"] == "mask seeds × errors"
        assert row["high"] - row["low"] > 0.5 * (max(parts) - min(parts))
    assert cell(together, "all", "overlap", "auc")["seed"] is pd.NA
    assert cell(alone[0], "all", "overlap", "auc")["seed"] == 3
    assert cell(alone[0], "all", "overlap", "auc")["interval"] == "errors, given this mask"
    simple = [cell(table, "all", "mean_features", "auc") for table in (together, alone[0])]
    assert simple[0].equals(simple[1])


def test_intervals_of_auc_are_those_of_a_resampled_mean(network: Network, images: Images) -> None:
    masks = make_masks(3)
    row = cell(why(network, masks, images, draws=0), "all", "overlap", "auc")
    near = slow_tables(network, masks, images)["overlap"]
    # The one error of dress is drawn with those of shirt, which are the fewest.
    by_class = [
        [slow_auc(near, t, p) for t, p in ERRORS if t in classes]
        for classes in ((0,), (1,), (2, 4), (3,), (5,))
    ]
    variance = sum(len(a) * np.var(a, ddof=1) for a in by_class) / len(ERRORS) ** 2
    trials = (
        row["value"] * (1 - row["value"]) / variance / (student_t.ppf(0.975, len(ERRORS) - 5) / 1.959964) ** 2
    )
    assert (row["low"], row["high"]) == pytest.approx(wilson(row["value"] * trials, trials), abs=0.005)


@pytest.mark.parametrize("count", [1, 2, 3, 6, 20])
def test_few_errors_do_not_tell_two_similarities_apart(count: int) -> None:
    """Two similarities that mean nothing: neither may seem to tell more, however few the errors are."""
    generator = torch.Generator().manual_seed(count)
    told, runs = 0, 300
    for run in range(runs):
        errors = torch.stack([torch.randperm(10, generator=generator)[:2] for _ in range(count)])
        one, other = (ranked(torch.randn(10, 10, generator=generator), errors, 0, 0) for _ in range(2))
        lead, n = one.lead(other, stratified_weights(strata(errors[:, 0]), 200, run))
        assert n == count
        assert -1 <= lead.low <= lead.value <= lead.high <= 1
        told += lead.low > 0 or lead.high < 0
    assert told / runs <= 0.09


def test_errors_that_all_tell_the_same_leave_a_width() -> None:
    """Two errors under which one similarity is as far ahead have no spread, and are two errors."""
    errors = torch.tensor([(0, 1), (2, 3)])
    near = torch.zeros(6, 6)
    near[0, 1] = near[2, 3] = 1.0
    lead, _ = ranked(near, errors, 0, 0).lead(
        ranked(-near, errors, 0, 0), stratified_weights(errors[:, 0], 50)
    )
    assert lead.value > 0.8
    assert lead.low < 0.4


# What is not there.


def test_without_errors_there_is_nothing_to_explain(network: Network) -> None:
    table = why(network, make_masks(3), make_images([]))
    assert table.attrs["answer"] == (
        "hand: none of 54 pictures is misclassified, so there is no error to explain."
    )
    for metric in ("top_share", "auc", "p_value", "effect", "detectable"):
        row = cell(table, "all", "overlap", metric)
        assert math.isnan(row["value"])
        assert row["n"] == 0
    assert "no value" in figure_of(table).layout.meta["alt"]


def test_a_task_without_picture_or_error_has_an_empty_row(network: Network) -> None:
    table = why(network, make_masks(3), make_images([(0, 1), (0, 4)], right=(3, 3, 3, 3, 3, 0)), draws=20)
    assert (
        cell(table, "hat", "whole", "error_rate")["n"],
        cell(table, "coat", "whole", "error_rate")["n"],
    ) == (0, 3)
    for task in ("coat", "hat"):
        for metric in ("top_share", "auc", "auc_centred", "effect"):
            row = cell(table, task, "overlap", metric)
            assert math.isnan(row["value"])
            assert row["n"] == 0
    # What needs pictures of a class ranks among the others.
    assert value(table, "all", "overlap", "top_share_chance") == 3 / 5
    assert value(table, "all", "mean_features", "top_share_chance") == 3 / 4
    assert table.attrs["notes"] == [
        "mean features and mean confusions leave out hat: no such picture is answered right"
    ]


def test_a_similarity_skips_errors_of_classes_that_it_does_not_know(network: Network) -> None:
    table = why(
        network, make_masks(3), make_images([(0, 1), (5, 1), (5, 2)], right=(3, 3, 3, 3, 3, 0)), draws=20
    )
    assert cell(table, "all", "overlap", "auc")["n"] == 3
    assert cell(table, "all", "mean_features", "auc")["n"] == 1
    assert cell(table, "all", "mean_features", "excess")["n"] == 1
    lead = cell(table, "all", "mean_features", "excess")["value"]
    overlap = slow_centred(slow_tables_of_masks(make_masks(3)))
    theirs = value(table, "all", "mean_features", "auc_centred")
    assert lead == pytest.approx(slow_auc(overlap, 0, 1) - theirs)


def slow_tables_of_masks(masks: MaskSet) -> np.ndarray:
    rows = masks.gates()["1"]
    return np.array([[slow_phi(mine, theirs) for theirs in rows] for mine in rows])


def test_pictures_of_some_classes_in_another_order(network: Network, images: Images) -> None:
    names = ("hat", "shirt", "bag")
    part = images.subset(names)
    same = Images(part.pixels, torch.tensor([5, 2, 0])[part.labels], NAMES)
    tables = [why(network, make_masks(3), given, draws=30) for given in (part, same)]
    pd.testing.assert_frame_equal(*tables)
    assert cell(tables[0], "bag", "overlap", "auc")["n"] == 9
    assert cell(tables[0], "boot", "overlap", "auc")["n"] == 0


def test_errors_of_classes_without_masks_are_left_out(network: Network, images: Images) -> None:
    tasks = ("hat", "bag", "coat", "dress")  # another order, too
    table = why(network, make_masks(3, tasks), images, draws=30, top=1)
    kept = [(t, p) for t, p in ERRORS if {NAMES[t], NAMES[p]} <= set(tasks)]
    assert cell(table, "all", "overlap", "auc")["n"] == len(kept) == 19
    assert table.attrs["notes"] == ["9 of 28 errors have a true or answered class without a mask"]
    assert cell(table, "all", "mean_confusions", "top_share_chance")["value"] == 1 / 3
    near = slow_tables_of_masks(make_masks(3, tasks))
    places = [(tasks.index(NAMES[t]), tasks.index(NAMES[p])) for t, p in kept]
    assert value(table, "all", "overlap", "auc") == pytest.approx(
        np.mean([slow_auc(near, t, p) for t, p in places])
    )
    assert set(table["task"]) == {*tasks, "all"}


@pytest.mark.parametrize("count", [2, 3])
def test_two_or_three_classes_cannot_be_told_from_hubs(network: Network, images: Images, count: int) -> None:
    table = why(network, make_masks(3, NAMES[:count]), images)
    assert math.isnan(value(table, "all", "overlap", "auc_centred"))
    assert math.isnan(value(table, "all", "overlap", "p_value"))
    assert math.isnan(value(table, "all", "overlap", "auc")) == (count == 2)
    assert "p =" not in table.attrs["answer"]


def test_masks_that_keep_all_or_nothing_are_as_near_as_chance(network: Network, images: Images) -> None:
    scores = make_masks(3).scores["1"].clone()
    scores[0], scores[1] = 0, 1
    table = why(network, MaskSet.from_scores({"1": scores}, NAMES), images, draws=30)
    reading = read(network, images)
    overlap = similarities(network, [MaskSet.from_scores({"1": scores}, NAMES)], reading)[0][0]
    assert (overlap.matrices[0, 0] == 0).all()
    assert not math.isnan(value(table, "all", "overlap", "auc"))


def test_overlap_leaves_out_layers_where_it_does_not_exist(network: Network) -> None:
    both = make_masks(3).scores["1"]
    scores = {"1": both, "2": torch.ones(6, 4)}
    masks = MaskSet.from_scores(scores, NAMES)
    live = {"1": torch.ones(24, dtype=torch.bool), "2": torch.ones(4, dtype=torch.bool)}
    reading = replace(read(network, make_images(ERRORS)), live=live)
    overlap, jaccard = similarities(network, [masks], reading)[0][:2]
    assert float(overlap.matrices[0, 0, 1]) == pytest.approx(slow_phi(both[0], both[1]))
    assert float(jaccard.matrices[0, 0, 1]) == pytest.approx((slow_jaccard(both[0], both[1]) + 1) / 2)


def test_dead_units_are_left_out_of_the_overlap(network: Network) -> None:
    """Masks that agree on units that are never active agree on nothing."""
    generator = torch.Generator().manual_seed(5)
    first, second = (torch.rand(2, 12, generator=generator) < 0.5).float()
    scores = torch.zeros(6, 24)
    scores[:2, :12] = torch.stack([first, second])
    masks = MaskSet.from_scores({"1": scores}, NAMES)
    live = torch.arange(24) < 12
    with_all = read(network, make_images(ERRORS))
    assert bool(with_all.live["1"].all())
    for reading, units in ((with_all, 24), (replace(with_all, live={"1": live}), 12)):
        overlap = similarities(network, [masks], reading)[0][0]
        wanted = slow_phi(scores[0, :units], scores[1, :units])
        assert float(overlap.matrices[0, 0, 1]) == pytest.approx(wanted)


def test_a_model_without_a_linear_classifier_has_no_classifier_weights() -> None:
    model = nn.Sequential(nn.Conv2d(1, 8, (2, 3)), nn.ReLU(), nn.Conv2d(8, 6, 1), nn.Flatten())
    network = Network.wrap(model, NAMES, example=torch.zeros(1, 1, 2, 3), layers=["1"], name="conv")
    with torch.no_grad():
        model[2].bias.copy_(torch.tensor([0.0, 0, 0, 0, 0, 9]))
    masks = MaskSet.from_scores({"1": torch.eye(8)[:6]}, NAMES)
    table = why(network, masks, make_images(ERRORS), draws=20)
    assert "classifier_weights" not in set(table["condition"])
    assert table.attrs["notes"] == [
        "no classifier weights: conv has no Linear layer with one row a class",
        "mean features and mean confusions leave out bag, coat, shirt, boot, dress: no such picture is "
        "answered right",
    ]


def test_the_classifier_is_the_last_linear_layer_with_a_row_a_class(network: Network) -> None:
    weights = classifier_weights(network)
    assert weights is not None
    assert torch.equal(weights, network.model[2].weight.detach().double())


def test_few_errors_say_what_could_have_been_found(network: Network, images: Images) -> None:
    table = why(network, make_masks(3), images, draws=99)
    detectable = value(table, "all", "overlap", "detectable")
    assert f"an AUC of {detectable:.2f} would have been found with power 0.8" in table.attrs["answer"]
    single = why(network, make_masks(3), make_images([(0, 1)]), draws=99)
    assert "no effect, however large, would have been found" in single.attrs["answer"]
    many = why(network, make_masks(3), make_images(ERRORS * 2), draws=99)
    assert "power" not in many.attrs["answer"]


def test_the_answer_is_computed_from_the_rows(network: Network, images: Images) -> None:
    table = why(network, make_masks(3), images, draws=99)
    again = pd.read_csv(io.StringIO(table.to_csv(index=False)))
    assert answer(again) == table.attrs["answer"]
    chosen = (again["task"] == "all") & (again["condition"] == "overlap")
    again.loc[chosen & (again["metric"] == "p_value"), "value"] = 0.004
    assert "more than permuted classes have (p = 0.004)" in answer(again)
    again.loc[chosen & (again["metric"] == "p_value"), "value"] = 0.4
    assert "no more than permuted classes have (p = 0.4)" in answer(again)
    with pytest.raises(NadkitError, match=r"why\(\.\.\.\)"):
        answer(again[again["metric"] == "auc"])


@pytest.mark.parametrize("draws", [0, 18, 19])
def test_p_values_are_earned(network: Network, images: Images, draws: int) -> None:
    table = why(network, make_masks(3), images, draws=draws)
    for metric in ("p_value", "effect", "detectable"):
        assert math.isnan(value(table, "all", "overlap", metric)) == (draws < 19)


def test_without_a_spread_over_permutations_nothing_is_detectable(network: Network, images: Images) -> None:
    for fill in (torch.zeros, torch.ones):
        table = why(network, MaskSet.from_scores({"1": fill(6, 24)}, NAMES), images, draws=30)
        assert math.isnan(value(table, "all", "overlap", "detectable"))
        assert "equally alike, so they could tell nothing" in table.attrs["answer"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"images": None}, "why needs images, and got NoneType"),
        ({"images": torch.zeros(3, 1, 2, 3)}, "why needs images, and got Tensor"),
        ({"network": "vgg"}, "why needs a Network, and got str; load_network"),
        ({"network": nn.Linear(2, 2)}, "needs a Network, and got Linear"),
        ({"draws": 2.5}, "draws = 2.5; give a whole number of 0 or more"),
        ({"top": "3"}, "top = '3'; give a whole number of 1 or more"),
        ({"flips": True}, "flips = True"),
        ({"seed": "a"}, "seed = 'a'; give a whole number of 0 or more"),
        ({"seed": None}, "seed = None; give a whole number of 0 or more"),
        ({"per_class": 1.5}, "per_class = 1.5; give a whole number of 1 or more"),
        ({"per_class": 0}, "per_class = 0; give a whole number of 1 or more"),
    ],
)
def test_what_is_of_another_kind_is_refused(
    network: Network, images: Images, given: dict[str, object], message: str
) -> None:
    settings = {"network": network, "masks": make_masks(3), "images": images, **given}
    with pytest.raises(NadkitError, match=message):
        why(**settings)  # type: ignore[arg-type]


def test_the_seed_decides_and_nothing_is_left_behind(network: Network, images: Images) -> None:
    state = torch.random.get_rng_state()
    first, again, other = (why(network, make_masks(3), images, draws=50, seed=seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(other)
    assert torch.equal(state, torch.random.get_rng_state())
    assert not any(module._forward_hooks for module in network.model.modules())
    assert all(parameter.requires_grad for parameter in network.model.parameters())
    assert network.model.training


def test_per_class_takes_so_many(network: Network, images: Images) -> None:
    table = why(network, make_masks(3), images, draws=0, per_class=5)
    assert cell(table, "all", "whole", "error_rate")["n"] == 30


@pytest.mark.parametrize(
    ("options", "message"),
    [({"draws": -1}, "draws = -1"), ({"top": 0}, "top = 0"), ({"flips": 0}, "flips = 0")],
)
def test_impossible_numbers_are_refused(
    network: Network, images: Images, options: dict[str, int], message: str
) -> None:
    with pytest.raises(NadkitError, match=message):
        why(network, make_masks(3), images, **options)  # type: ignore[arg-type]


def test_bad_masks_are_refused(network: Network, images: Images) -> None:
    with pytest.raises(MaskFileError, match="not for the network"):
        why(network, MaskSet.from_scores({"1": torch.eye(7)[:6]}, NAMES), images)
    with pytest.raises(MaskFileError, match="other"):
        why(network, make_masks(3).with_meta(network="other"), images)
    with pytest.raises(NadkitError, match="same tasks"):
        why(network, [make_masks(3), make_masks(3, NAMES[1:])], images)
    with pytest.raises(NadkitError, match="alone; give masks of all classes"):
        why(network, make_masks(3, ("bag",)), images)
    for nothing in ([], ["bag"]):
        with pytest.raises(NadkitError, match="one MaskSet, or a list"):
            why(network, nothing, images)  # type: ignore[arg-type]
    with pytest.raises(NadkitError, match="sock"):
        why(network, make_masks(3, ("bag", "sock")), images)


def test_bad_pictures_are_refused(network: Network, images: Images) -> None:
    with pytest.raises(ImageError, match="takes pictures of shape"):
        why(network, make_masks(3), Images(torch.zeros(6, 1, 3, 3), torch.arange(6), NAMES))
    with pytest.raises(ImageError, match="no class of hand"):
        why(network, make_masks(3), Images(images.pixels, images.labels, (*NAMES[:5], "sock")))


def test_nan_logits_are_refused(images: Images) -> None:
    network = make_network()
    with torch.no_grad():
        network.model[2].weight[0, 0] = torch.nan
    with pytest.raises(NadkitError, match="NaN or infinite logits"):
        why(network, make_masks(3), images)
    with pytest.raises(NadkitError, match="NaN or infinite logits"):
        why(network, make_masks(3), images, image=0)


# One picture: a network whose units are known.

ONE = ("cat", "dog", "cow")


def one_network() -> Network:
    """Eight units read a picture of eight pixels; each speaks for one class."""
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(
            nn.Flatten(), nn.Linear(8, 8, bias=False), nn.ReLU(), nn.Linear(8, 3, bias=False)
        )
    votes = torch.tensor([[1.0, 1, 1, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0, 1, 1]])
    with torch.no_grad():
        model[1].weight.copy_(torch.eye(8))
        model[3].weight.copy_(votes)
    return Network.wrap(model, ONE, example=torch.zeros(1, 1, 2, 4), layers=["2"], name="one")


def one_masks() -> MaskSet:
    # Cat keeps 0, 1, 2, 6; dog 2, 3, 4, 5; cow 6, 7.
    scores = torch.tensor([[1.0, 1, 1, 0, 0, 0, 1, 0], [0, 0, 1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0, 1, 1]])
    return MaskSet.from_scores({"2": scores}, ONE)


def one_images(count: int = 40) -> Images:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat_interleave(count)
    own = torch.tensor([[1.0, 1, 1, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0, 1, 1]])
    pixels = (own[labels] + 0.2 * torch.randn(len(labels), 8, generator=generator)).clamp(min=0)
    return Images(pixels.reshape(-1, 1, 2, 4), labels, ONE)


# A cat without its unit 0, with much of dog's units 4 and a little of 5: cat 2, dog 3.5, cow 0.
WRONG = Images(torch.tensor([0.0, 1, 1, 0, 3, 0.5, 0, 0]).reshape(1, 1, 2, 4), torch.tensor([0]), ONE)


def units_of(table: pd.DataFrame, condition: str, metric: str) -> list[int]:
    rows = table[(table["condition"] == condition) & (table["metric"] == metric)].dropna(subset="value")
    return [int(unit) for unit in rows["unit"].dropna()]


def test_one_picture_by_hand() -> None:
    network, masks, images = one_network(), one_masks(), one_images()
    table = why(network, masks, images, image=WRONG, draws=999)
    assert value(table, "cat", "whole", "margin") == pytest.approx(-1.5)
    assert units_of(table, "removed", "margin") == [4]
    rows = table[(table["condition"] == "removed") & (table["metric"] == "margin")]
    assert rows["value"].tolist() == pytest.approx([1.5])
    assert rows["layer"].tolist() == ["2"]
    assert value(table, "cat", "removed", "flipped") == 1.0
    # One of eight units turns it.
    row = cell(table, "cat", "removed_random", "flipped")
    assert row["value"] == pytest.approx(1 / 8, abs=0.04)
    assert (row["low"], row["high"]) == pytest.approx(wilson(round(row["value"] * 999), 999))
    # Three of eight units are candidates; a random three hold unit 4 in three of eight cases.
    assert value(table, "cat", "removed_random", "found") == pytest.approx(3 / 8, abs=0.3)
    softmax = torch.tensor([2, 3.5, 0]).softmax(0)
    assert value(table, "cat", "whole", "probability") == pytest.approx(float(softmax[0]), abs=1e-6)
    assert value(table, "dog", "whole", "probability") == pytest.approx(float(softmax[1]), abs=1e-6)
    assert (value(table, "dog", "whole", "accuracy"), value(table, "dog", "removed", "accuracy")) == (
        1.0,
        1.0,
    )
    assert units_of(table, "kept", "silent") == [0]
    assert units_of(table, "kept", "active") == [4, 5]  # 3 is where a cat has it; 2 is not far
    assert (
        "removing 1 unit that dog keeps and cat does not (2/4) turns the answer to cat"
        in table.attrs["answer"]
    )
    again = pd.read_csv(io.StringIO(table.to_csv(index=False)))
    assert answer_one(again).split(" (2/4")[0] == table.attrs["answer"].split(" (2/4")[0]


def test_responses_a_second_time() -> None:
    network, masks, images = one_network(), one_masks(), one_images()
    table = why(network, masks, images, image=WRONG, draws=0)
    own, other = (images.pixels[images.labels == k].flatten(1).double().numpy() for k in (0, 1))
    spread = np.sqrt((own.var(0, ddof=1) + other.var(0, ddof=1)) / 2)
    response = (WRONG.pixels.flatten().double().numpy() - own.mean(0)) / spread
    row = table[(table["metric"] == "silent")].iloc[0]
    assert row["value"] == pytest.approx(response[0], rel=1e-5)
    assert row["n"] == 40
    rows = table[table["metric"] == "active"]
    assert rows["value"].tolist() == pytest.approx([response[4], response[5]], rel=1e-5)
    silent = table[table["metric"] == "silent_share"].set_index("condition")
    far = response <= -2
    for condition, mine in (("kept", [0, 1, 2, 6]), ("removed", [3, 4, 5, 7])):
        assert silent.loc[condition, "value"] == far[mine].mean()
        assert silent.loc[condition, "n"] == 4
    usual = table[(table["metric"] == "usual_share") & (table["task"] == "cat")].iloc[0]
    each = ((own - own.mean(0)) / spread <= -2)[:, [0, 1, 2, 6]].mean(1)
    assert usual["value"] == pytest.approx(each.mean())
    assert usual["value"] > 0
    assert usual["n"] == 40


def test_the_picture_may_be_an_index() -> None:
    images = one_images(5)
    both = Images(torch.cat([images.pixels, WRONG.pixels]), torch.cat([images.labels, WRONG.labels]), ONE)
    tables = [
        why(one_network(), one_masks(), both, image=picture, draws=20) for picture in (15, -1, both[15])
    ]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(tables[0], table)


def deep_network(seed: int) -> Network:
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(
            nn.Conv2d(1, 6, 2), nn.ReLU(), nn.Flatten(), nn.Linear(24, 12), nn.ReLU(), nn.Linear(12, 4)
        )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return Network.wrap(model, NAMES[:4], example=torch.zeros(1, 1, 3, 3), layers=["1", "4"], name="deep")


def slow_logits(network: Network, pixels: Tensor, removed: set[tuple[str, int]]) -> Tensor:
    """Removal by weights: what a removed unit sends on is set to 0."""
    conv, _, _, first, _, last = network.model
    x = torch.nn.functional.conv2d(pixels, conv.weight, conv.bias).relu()
    for layer, unit in removed:
        if layer == "1":
            x[:, unit] = 0
    x = (x.flatten(1) @ first.weight.T + first.bias).relu()
    for layer, unit in removed:
        if layer == "4":
            x[:, unit] = 0
    return (x @ last.weight.T + last.bias).detach()


def test_the_counterfactual_holds_in_an_independent_forward() -> None:
    flips = 0
    for seed in range(8):
        network = deep_network(seed)
        generator = torch.Generator().manual_seed(seed + 100)
        pixels = torch.randn(60, 1, 3, 3, generator=generator)
        best = network(pixels).detach().topk(2)
        # A near miss, so that few units decide.
        pixels = pixels[(best.values[:, 0] - best.values[:, 1]).argsort()]
        best = network(pixels).detach().topk(2)
        chosen = best.indices[:, 0]
        labels = chosen.clone()
        labels[0] = best.indices[0, 1]
        images = Images(pixels, labels, NAMES[:4])
        scores = {a: (torch.rand(4, n, generator=generator) < 0.6).float() for a, n in (("1", 6), ("4", 12))}
        masks = MaskSet.from_scores(scores, NAMES[:4])
        table = why(network, masks, images, image=0, draws=200, flips=4)
        true, answered = int(labels[0]), int(chosen[0])
        rows = table[(table["condition"] == "removed") & (table["metric"] == "margin")]
        units = list(zip(rows["layer"], rows["unit"].astype(int), strict=True))
        assert len(units) <= 4
        for layer, unit in units:
            assert scores[layer][answered, unit] == 1
            assert scores[layer][true, unit] == 0
        for step, margin in enumerate(rows["value"], 1):
            logits = slow_logits(network, pixels[:1], set(units[:step]))[0]
            rest = max(float(logits[k]) for k in range(4) if k != true)
            assert float(logits[true]) - rest == pytest.approx(margin, abs=1e-4)
        flipped = cell(table, NAMES[true], "removed", "flipped")
        if not units:
            assert flipped["n"] == 0
            continue
        final = int(slow_logits(network, pixels[:1], set(units)).argmax())
        assert bool(flipped["value"]) == (final == true)
        if final == true:
            flips += 1
            # None of them can be put back.
            for unit in units:
                assert int(slow_logits(network, pixels[:1], set(units) - {unit}).argmax()) != true
        after = slow_logits(network, pixels[labels == answered], set(units)).argmax(1)
        kept = cell(table, NAMES[answered], "removed", "accuracy")
        assert kept["value"] == pytest.approx(float((after == answered).double().mean()))
        # Random sets take as many units of the same layers.
        sizes = {layer: sum(a == layer for a, _ in units) for layer in ("1", "4")}
        count = {"1": 6, "4": 12}
        sets = [
            {("1", i) for i in one} | {("4", j) for j in two}
            for one in itertools.combinations(range(count["1"]), sizes["1"])
            for two in itertools.combinations(range(count["4"]), sizes["4"])
        ]
        if len(sets) <= 100:
            hits = [int(slow_logits(network, pixels[:1], one).argmax()) == true for one in sets]
            found = value(table, NAMES[true], "removed_random", "flipped")
            assert found == pytest.approx(np.mean(hits), abs=0.13)
    assert flips >= 4


def test_units_that_are_not_needed_are_put_back() -> None:
    """Unit 3 speaks a little for dog and cow and goes first; 4 and 5, which must go, make it needless."""
    network = one_network()
    votes = torch.tensor([[5.0, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 3, 0, 3.3, 0], [0, 0, 0, 1, 0, 3, 3, 0]])
    with torch.no_grad():
        network.model[3].weight.copy_(votes)  # type: ignore[index]
    picture = Images(torch.ones(1, 1, 2, 4), torch.tensor([0]), ONE)
    scores = torch.tensor([[1.0, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0, 0, 1]])
    table = why(network, MaskSet.from_scores({"2": scores}, ONE), one_images(), image=picture, draws=0)

    def odds(removed: set[int]) -> float:
        logits = votes.double() @ torch.tensor([0.0 if k in removed else 1.0 for k in range(8)]).double()
        return float(logits[0] - logits[1:].logsumexp(0))

    assert max((3, 4, 5), key=lambda unit: odds({unit})) == 3
    assert units_of(table, "removed", "margin") == [4, 5]
    assert value(table, "cat", "removed", "flipped") == 1.0


def test_a_picture_that_no_candidate_turns() -> None:
    masks = MaskSet.from_scores(
        {"2": torch.tensor([[1.0] * 8, [0, 0, 1, 1, 1, 1, 0, 0], [0] * 7 + [1]])}, ONE
    )
    table = why(one_network(), masks, one_images(), image=WRONG, draws=20)
    assert cell(table, "cat", "removed", "flipped")["n"] == 0
    assert math.isnan(value(table, "dog", "removed", "accuracy"))
    assert "no unit that dog keeps and cat does not" in table.attrs["answer"]
    assert "no removal" in figure_of(table).layout.meta["alt"]


def test_more_flips_than_allowed_are_not_made() -> None:
    picture = Images(torch.tensor([0.0, 1, 0, 2, 2, 2, 0, 0]).reshape(1, 1, 2, 4), torch.tensor([0]), ONE)
    short, enough = (
        why(one_network(), one_masks(), one_images(), image=picture, draws=20, flips=flips)
        for flips in (2, 3)
    )
    assert len(units_of(short, "removed", "margin")) == 2
    assert value(short, "cat", "removed", "flipped") == 0.0
    assert math.isnan(value(short, "cat", "removed_random", "found"))
    assert "does not turn the answer to cat" in short.attrs["answer"]
    assert value(enough, "cat", "removed", "flipped") == 1.0
    assert sorted(units_of(enough, "removed", "margin")) == [3, 4, 5]


def test_units_of_several_seeds_are_those_of_most() -> None:
    seeds = [one_masks(), one_masks(), MaskSet.from_scores({"2": torch.ones(3, 8)}, ONE)]
    one, three = (
        why(one_network(), sets, one_images(), image=WRONG, draws=20) for sets in (one_masks(), seeds)
    )
    again = [table[table["metric"] != "phi_over_seeds"].reset_index(drop=True) for table in (one, three)]
    pd.testing.assert_frame_equal(*again)


def test_what_is_said_of_units_says_how_far_other_masks_keep_them() -> None:
    turned = one_masks().scores["2"].clone()
    turned[0] = torch.tensor([1.0, 1, 0, 0, 0, 0, 1, 1])  # of cat's units 0, 1, 2 and 6 three are kept again
    sets = [one_masks(), MaskSet.from_scores({"2": turned}, ONE), one_masks()]
    table = why(one_network(), sets, one_images(), image=WRONG, draws=0)
    row = cell(table, "cat", "kept", "phi_over_seeds")
    again = (3 * 3 - 1 * 1) / 16  # kept by both, by neither, by one alone; four of eight units in each
    assert (row["value"], row["low"], row["high"]) == pytest.approx(((1 + 2 * again) / 3, again, 1.0))
    assert row["n"] == 3
    assert value(table, "dog", "kept", "phi_over_seeds") == pytest.approx(1.0)
    assert table.attrs["answer"].endswith(
        "; masks of two seeds overlap, for cat by φ = 0.67 and for dog by φ = 1.00 (chance is 0)."
    )
    alone = why(one_network(), one_masks(), one_images(), image=WRONG, draws=0)
    assert cell(alone, "cat", "kept", "phi_over_seeds")["n"] == 0
    assert alone.attrs["answer"].endswith("of one seed of the masks, and another seed may keep others.")


def test_a_task_with_too_few_pictures_has_no_usual_response() -> None:
    images = one_images(5)
    table = why(one_network(), one_masks(), images[images.labels != 1], image=WRONG, draws=20)
    for task, metric in (("cat", "silent"), ("dog", "active"), ("cat", "usual_share")):
        row = cell(table, task, "kept", metric)
        assert math.isnan(row["value"])
        assert row["n"] == 0
    assert math.isnan(value(table, "dog", "whole", "accuracy"))
    assert value(table, "cat", "removed", "flipped") == 1.0


def test_pictures_that_cannot_be_explained_are_refused() -> None:
    network, masks, images = one_network(), one_masks(), one_images(5)
    with pytest.raises(ImageError, match="'cat' right, so there is no mistake"):
        why(network, masks, images, image=0)
    mixed = Images(torch.cat([images.pixels, WRONG.pixels]), torch.cat([images.labels, WRONG.labels]), ONE)
    with pytest.raises(ImageError, match="such as 15"):
        why(network, masks, mixed, image=0)
    with pytest.raises(ImageError, match="2 pictures were given"):
        why(network, masks, images, image=images[:2])
    with pytest.raises(ImageError):
        why(network, masks, images, image=99)
    with pytest.raises(NadkitError, match="no mask of 'dog'"):
        why(network, masks[["cat", "cow"]], images, image=WRONG)


# Figures.


def test_the_figure_of_errors_shows_every_similarity(network: Network, images: Images) -> None:
    table = why(network, make_masks(3), images, draws=50)
    figure = figure_of(table)
    dots = [trace for trace in figure.data if trace.name in SIMILARITIES]
    assert len(dots) == 10
    for name in SIMILARITIES:
        left, right = (trace for trace in dots if trace.name == name)
        row = cell(table, "all", name, "top_share")
        assert left.x[0] == row["value"]
        assert left.error_x.array[0] == pytest.approx(row["high"] - row["value"])
        assert left.error_x.arrayminus[0] == pytest.approx(row["value"] - row["low"])
        assert right.x[0] == value(table, "all", name, "auc_centred")
    chances = [trace for trace in figure.data if trace.name == "chance"]
    assert [trace.x[0] for trace in chances] == [3 / 5, 0.5]
    ticks = figure.layout.yaxis.ticktext
    assert f"p = {value(table, 'all', 'overlap', 'p_value'):.2g}" in ticks[0]
    share = value(table, "all", "overlap", "top_share")
    assert f"{100 * share:.0f} % of 28 errors" in figure.layout.title.text
    assert f"overlap of masks (φ) {share:.2f} [" in figure.layout.meta["alt"]


def test_the_figure_of_one_task_is_of_its_errors(network: Network, images: Images) -> None:
    table = why(network, make_masks(3), images, draws=30)
    row = cell(table, "coat", "overlap", "top_share")
    figure = figure_of(table, "coat")
    dots = [trace for trace in figure.data if trace.name == "overlap"]
    assert dots[0].x == (row["value"],)
    assert f"{int(row['n'])} errors of coat" in figure.layout.title.text
    assert f"{int(row['n'])} errors on pictures of coat" in figure.layout.meta["alt"]
    assert "p = " not in figure.layout.meta["alt"]
    with pytest.raises(NadkitError, match="no task 'cot' in the table; closest: coat"):
        figure_of(table, "cot")


def test_the_figure_of_one_picture_has_signed_bars() -> None:
    table = why(one_network(), one_masks(), one_images(), image=WRONG, draws=50)
    silent, active, margin = figure_of(table).data
    assert silent.x[0] < 0 < min(active.x)
    assert list(silent.customdata) == ["2/0"]
    assert list(active.customdata) == ["2/5", "2/4"]
    assert list(margin.x) == pytest.approx([-1.5, 1.5])
    assert list(margin.customdata) == ["whole network", "− 2/4"]
    alt = figure_of(table).layout.meta["alt"]
    assert "The margin of cat goes -1.50, 1.50: removing 1 unit turns it" in alt
    # Every bar has a row of its own.
    assert len({*silent.y, *active.y}) == 3


def test_figures_refuse_other_tables(network: Network, images: Images) -> None:
    table = why(network, make_masks(3), images, draws=0)
    with pytest.raises(NadkitError, match="no column value"):
        figure_of(table.drop(columns="value"))
    with pytest.raises(NadkitError, match="no row of top_share"):
        figure_of(table[table["metric"] == "auc"])
    with pytest.raises(NadkitError, match="2 networks"):
        figure_of(pd.concat([table, table.assign(network="other")]))
