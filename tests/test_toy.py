from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from nadkit import toy
from nadkit.errors import NadkitError
from nadkit.learn import learn_masks
from nadkit.masks import MaskSet, Unit
from nadkit.networks import Network, gated_logits, log_odds, whole_logits
from nadkit.taps import Taps
from nadkit.toy.pictures import TASKS, WHOLES, lay_out
from nadkit.toy.plain import Planted

STEPS = 60  # of learning: the network is tiny and its tasks are plain
TASK_NAMES = [f"task{k}" for k in range(TASKS)]


@pytest.fixture(scope="module", params=[0, 3])
def planted(request: pytest.FixtureRequest) -> Planted:
    return toy.planted(request.param)


@pytest.fixture(scope="module")
def first() -> Planted:
    return toy.planted(0)


def whole_gates(network: Network, rows: int) -> dict[str, Tensor]:
    return {address: torch.ones(rows, layer.units) for address, layer in network.layers.items()}


def every_unit(network: Network) -> Iterator[Unit]:
    return (Unit(address, i) for address, layer in network.layers.items() for i in range(layer.units))


def outcome(planted: Planted, gates: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return balanced accuracy of log-odds above 0, and mean log-odds on own pictures: (tasks, rows)."""
    images = planted.pictures(12, seed=4)
    odds = log_odds(gated_logits(planted.network, planted.network.prepare(images.pixels), gates))
    accuracy, mean = [], []
    for task in range(TASKS):
        own = images.labels == task
        recall, false_alarm = ((odds[:, side, task] > 0).double().mean(1) for side in (own, ~own))
        accuracy.append((recall + 1 - false_alarm) / 2)
        mean.append(odds[:, own, task].mean(1))
    return torch.stack(accuracy), torch.stack(mean)


@pytest.mark.parametrize("seed", range(5))
def test_the_whole_network_classifies_its_pictures(seed: int) -> None:
    planted = toy.planted(seed)
    for images in (planted.images, planted.test):
        answers = planted.network(images.pixels).argmax(1)
        assert (answers == images.labels).double().mean() >= 0.98


@pytest.mark.parametrize("task", range(TASKS))
def test_needed_units_alone_suffice_and_none_can_be_spared(planted: Planted, task: int) -> None:
    # Row 0 is the truth; every other row flips one unit: a needed one is dropped, any other is added.
    units = list(every_unit(planted.network))
    gates = {address: rows[task].repeat(len(units) + 1, 1) for address, rows in planted.masks.scores.items()}
    for row, unit in enumerate(units, 1):
        gates[unit.layer][row, unit.index] = 1 - gates[unit.layer][row, unit.index]
    accuracy, odds = (values[task] for values in outcome(planted, gates))
    whole = outcome(planted, whole_gates(planted.network, 1))[0][task, 0]
    assert accuracy[0] >= 0.95 * whole
    needed = torch.tensor([unit in planted.truth[TASK_NAMES[task]] for unit in units])
    # A task with two wholes loses the half of its pictures that show one of them.
    assert (accuracy[1:][needed] <= (0.75 if len(WHOLES[task]) > 1 else 0.5)).all()
    assert (odds[1:][needed] <= odds[0] - 3).all()
    assert (accuracy[1:][~needed] - accuracy[0]).abs().max() <= 0.02
    assert (odds[1:][~needed] - odds[0]).abs().max() <= 0.5


def test_taken_from_the_whole_network_only_needed_units_are_missed(planted: Planted) -> None:
    units = list(every_unit(planted.network))
    gates = whole_gates(planted.network, len(units) + 1)
    for row, unit in enumerate(units, 1):
        gates[unit.layer][row, unit.index] = 0
    accuracy, odds = outcome(planted, gates)
    for task, name in enumerate(TASK_NAMES):
        needed = torch.tensor([unit in planted.truth[name] for unit in units])
        assert (accuracy[task, 1:][needed] <= 0.75).all()
        assert (odds[task, 1:][needed] <= odds[task, 0] - 3).all()
        assert (accuracy[task, 1:][~needed] - accuracy[task, 0]).abs().max() <= 0.02
        assert (odds[task, 1:][~needed] - odds[task, 0]).abs().max() <= 0.5


def test_without_its_units_the_rest_of_the_network_is_no_help_to_a_task(planted: Planted) -> None:
    without = {address: 1 - rows for address, rows in planted.masks.scores.items()}
    assert (outcome(planted, without)[0].diagonal() <= 0.5).all()


def test_how_many_units_each_task_needs_and_which_it_shares(first: Planted) -> None:
    # By hand from the list of wholes: (parts, pairs, wholes).
    sizes = [(4, 2, 1), (4, 2, 1), (4, 2, 1), (2, 1, 1), (4, 2, 1), (6, 3, 2)]
    for units, wanted in zip(first.truth.values(), sizes, strict=True):
        assert tuple(sum(u.layer == a for u in units) for a in ("parts", "pairs", "wholes")) == wanted
    shared = {(1, 2): ["pairs", "parts", "parts"], (0, 4): ["parts"], (0, 5): ["parts"]}
    for a in range(TASKS):
        for b in range(a + 1, TASKS):
            both = first.truth[TASK_NAMES[a]] & first.truth[TASK_NAMES[b]]
            assert sorted(u.layer for u in both) == shared.get((a, b), [])


def test_units_that_are_no_task_s_are_what_they_are_said_to_be(planted: Planted) -> None:
    with torch.no_grad(), Taps(planted.network) as taps:
        planted.network(planted.test.pixels)
    for address, kinds in planted.kinds.items():
        peaks = taps.activations[address].amax((2, 3)).T
        needed = {u.index for units in planted.truth.values() for u in units if u.layer == address}
        assert needed == {i for i, kind in enumerate(kinds) if kind == "needed"}
        for index, kind in enumerate(kinds):
            strong = (peaks[index] > 0.4 * peaks[index].max()).double().mean()
            if kind == "dead":
                assert peaks[index].max() == 0
            elif kind == "common":
                assert strong >= 0.85
            elif kind == "echo":
                # Cross-talk is all that tells it from the needed unit that sees the same.
                alike = [torch.corrcoef(peaks[[index, other]])[0, 1] for other in needed]
                assert max(alike) > 0.95
    assert {kind for kinds in planted.kinds.values() for kind in kinds} == {
        "needed", "common", "ornament", "echo", "dead",
    }  # fmt: skip


def test_ornaments_go_with_a_task_and_mean_nothing(first: Planted) -> None:
    with torch.no_grad(), Taps(first.network, ["parts"]) as taps:
        first.network(first.test.pixels)
    peaks = taps.activations["parts"].amax((2, 3))
    ornaments = [i for i, kind in enumerate(first.kinds["parts"]) if kind == "ornament"]
    shown = peaks[:, ornaments] > 0.4 * peaks[:, ornaments].amax(0)
    shares = torch.stack([shown[first.test.labels == k].double().mean(0) for k in range(TASKS)])
    # Each goes with one task of its own, on which it is nearly always active.
    assert sorted(shares.argmax(0).tolist()) == list(range(TASKS))
    assert (shares.amax(0) >= 0.8).all()
    assert (shares.sort(0).values[-2] <= 0.6).all()


def test_the_common_whole_moves_logits_and_no_log_odds(first: Planted) -> None:
    inputs = first.network.prepare(first.test.pixels)
    gates = whole_gates(first.network, 1)
    gates["wholes"][0, first.kinds["wholes"].index("common")] = 0
    whole, without = whole_logits(first.network, inputs), gated_logits(first.network, inputs, gates)[0]
    assert (whole - without).mean() > 3
    torch.testing.assert_close(log_odds(whole), log_odds(without), atol=1e-3, rtol=0)


def test_activation_alone_does_not_find_the_units(planted: Planted) -> None:
    # If it did, the toy could rank no objective.
    scores = {}
    for address in planted.network.layers:
        with torch.no_grad(), Taps(planted.network, [address]) as taps:
            planted.network(planted.images.pixels)
        means = taps.activations[address].mean((2, 3))
        own = torch.stack([means[planted.images.labels == k].mean(0) for k in range(TASKS)])
        scores[address] = own / own.max()
    found = toy.average_precision(MaskSet.from_scores(scores, TASK_NAMES), planted.truth)
    assert sum(found.values()) / TASKS < 0.8


@pytest.mark.parametrize("task", range(TASKS))
def test_a_picture_holds_one_whole_of_its_task_and_none_of_another(task: int) -> None:
    generator = torch.Generator().manual_seed(5)
    decoys, both = 0, set()
    for number in range(200):
        grid = lay_out(task, number, generator).tolist()
        pairs = [(r, c, (grid[r][c], grid[r][c + 1])) for r in range(4) for c in range(3)]
        at = {(r, c): pair for r, c, pair in pairs}
        wholes = [(pair, at[r + 1, c]) for r, c, pair in pairs if r < 3]
        shown = [(k, whole) for k in range(TASKS) for whole in WHOLES[k] if whole in wholes]
        assert [k for k, _ in shown] == [task]
        both |= {whole for _, whole in shown}
        mine = {pair for whole in WHOLES[task] for pair in whole}
        theirs = {p for k in range(TASKS) for whole in WHOLES[k] for p in whole} - mine
        decoys += any(pair in theirs for _, _, pair in pairs)
    assert both == set(WHOLES[task])
    # The decoy of a task that shares its pair is no foreign pair.
    assert decoys >= 150


def test_the_truth_as_masks(first: Planted) -> None:
    masks = first.masks
    masks.check(first.network)
    assert {task: frozenset(masks.kept(task)) for task in masks} == dict(first.truth)
    assert toy.average_precision(masks, first.truth) == dict.fromkeys(TASK_NAMES, 1.0)


def test_a_seed_gives_the_same_network_and_another_seed_another(first: Planted) -> None:
    again, other = toy.planted(0), toy.planted(1)
    assert again.network.weights_id == first.network.weights_id != other.network.weights_id
    assert torch.equal(again.images.pixels, first.images.pixels)
    assert again.truth == first.truth != other.truth
    assert not torch.equal(other.images.pixels, first.images.pixels)
    assert not torch.equal(first.test.pixels, first.images.pixels)


def test_more_pictures_are_new_and_as_easy(first: Planted) -> None:
    assert torch.equal(first.pictures(60, seed=0).pixels, first.images.pixels)
    assert torch.equal(first.pictures(60, seed=1).pixels, first.test.pixels)
    more = first.pictures(30)
    assert more.counts() == dict.fromkeys(TASK_NAMES, 30)
    assert not torch.equal(more.pixels, first.pictures(30, seed=3).pixels)
    assert (first.network(more.pixels).argmax(1) == more.labels).double().mean() >= 0.98


def test_automatic_layers_are_the_planted_ones(first: Planted) -> None:
    wrapped = Network.wrap(first.network.model, first.network.class_names, example=first.images.pixels[:2])
    assert wrapped.layers == first.network.layers


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"noise": -0.1}, "0 or more"), ({"crosstalk": -1}, "0 or more"), ({"per_class": 0}, "at least 1")],
)
def test_settings_that_make_no_network_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(NadkitError, match=message):
        toy.planted(0, **settings)  # type: ignore[arg-type]


def test_average_precision_agrees_with_a_second_implementation_also_on_ties() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = {
        "a": torch.randint(0, 5, (3, 8), generator=generator) / 4,
        "b": torch.rand(3, 5, generator=generator),
    }
    units = [Unit(a, i) for a, rows in scores.items() for i in range(rows.shape[1])]
    needed = torch.rand(3, 13, generator=generator) < 0.4
    tasks = ["x", "y", "z"]
    truth = {
        t: {u for u, n in zip(units, row, strict=True) if n} for t, row in zip(tasks, needed, strict=True)
    }
    found = toy.average_precision(MaskSet.from_scores(scores, tasks), truth)
    for row, task in enumerate(tasks):
        flat = torch.cat([rows[row] for rows in scores.values()])
        assert found[task] == pytest.approx(average_precision_score(needed[row], flat))


def test_compare_by_hand() -> None:
    masks = MaskSet.from_scores({"a": torch.tensor([[0.9, 0.8, 0.7, 0.2], [0.1, 0.2, 0.3, 0.4]])}, ["x", "y"])
    truth = {"x": {Unit("a", 0), Unit("a", 2), Unit("a", 3)}, "y": {Unit("a", 3)}, "z": {Unit("a", 0)}}
    table = toy.compare(masks, truth).set_index("task")
    # x ranks needed, not, needed, needed: (1/1 + 2/3 + 3/4) / 3; it keeps three, two of them needed.
    assert table.loc["x", "average_precision"] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert table.loc["x", ["precision", "recall", "f1"]].tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3])
    assert table.loc["y", ["average_precision", "precision", "recall", "f1", "kept"]].tolist() == [
        1,
        0,
        0,
        0,
        0,
    ]
    assert toy.compare(masks, truth, threshold=0.35).set_index("task").loc["y", "f1"] == 1


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        ({"shert": {Unit("a", 0)}}, "closest: shert"),
        ({"shirt": set()}, "names no unit"),
        ({"shirt": {Unit("b", 1)}}, "names b/1"),
        ({"shirt": {Unit("a", 2)}}, "names a/2"),
    ],
)
def test_a_truth_of_something_else_is_refused(truth: dict[str, set[Unit]], message: str) -> None:
    masks = MaskSet.from_scores({"a": torch.rand(1, 2)}, ["shirt"])
    with pytest.raises(NadkitError, match=message):
        toy.average_precision(masks, truth)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 5))])
def test_learning_recovers_the_planted_units_without_being_told_how_many(seed: int) -> None:
    planted = toy.planted(seed)
    masks = learn_masks(
        planted.network, planted.images, kept_share="auto", steps=STEPS, seed=seed, progress=False
    )
    table = toy.compare(masks, planted.truth)
    assert table["average_precision"].mean() >= 0.98
    assert table["f1"].mean() >= 0.9
