from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from nadkit import toy
from nadkit.errors import ImageError, NadkitError
from nadkit.learn import learn_masks
from nadkit.masks import MaskSet, Unit
from nadkit.networks import Network, gated_logits, log_odds, whole_logits
from nadkit.taps import Taps
from nadkit.toy import merging
from nadkit.toy.pictures import draw_parts, lay_out
from nadkit.toy.planting import LEVELS, Planted
from nadkit.toy.scheme import ALL, FEW, Scheme
from nadkit.toy.small import WORTH
from nadkit.toy.wiring import LAYERS, wire

STEPS = 60  # of learning: the network is tiny and its tasks are plain
FEW_NAMES = [f"task{k}" for k in range(len(FEW.tasks))]
VETOED, TWINNED, PASSED = "task6", "task7", "task8"


@pytest.fixture(scope="module")
def first() -> Planted:
    return toy.planted(0)


@pytest.fixture(
    scope="module",
    params=[
        ("plain-easy", 3), ("residual-easy", 0), ("plain-hard", 1), ("residual-middle", 0),
        ("concat-hard", 0),
    ],
    ids=str,
)  # fmt: skip
def planted(request: pytest.FixtureRequest) -> Planted:
    return toy.graded(*request.param)


@pytest.fixture(scope="module")
def merged() -> Planted:
    return toy.merged(0)


def ones(network: Network, rows: int) -> dict[str, Tensor]:
    return {address: torch.ones(rows, layer.units) for address, layer in network.layers.items()}


def every_unit(network: Network) -> list[Unit]:
    return [Unit(address, i) for address, layer in network.layers.items() for i in range(layer.units)]


def live_units(planted: Planted) -> list[Unit]:
    """Return the units but those that are 0 on every picture, which another test shows."""
    return [
        u for u in every_unit(planted.network) if planted.kinds[u.layer][u.index] not in ("dead", "empty")
    ]


def flipped(gates: dict[str, Tensor], units: list[Unit]) -> dict[str, Tensor]:
    """Repeat one row of gates, then once more for every unit with that unit's gate turned over."""
    rows = {address: row.repeat(len(units) + 1, 1) for address, row in gates.items()}
    for row, unit in enumerate(units, 1):
        rows[unit.layer][row, unit.index] = 1 - rows[unit.layer][row, unit.index]
    return rows


def outcome(planted: Planted, gates: dict[str, Tensor], per_class: int = 4) -> tuple[Tensor, Tensor]:
    """Return balanced accuracy of log-odds above 0, and mean log-odds on own pictures: (tasks, rows)."""
    images = planted.pictures(per_class, seed=4)
    odds = log_odds(gated_logits(planted.network, planted.network.prepare(images.pixels), gates))
    accuracy, mean = [], []
    for task in range(len(planted.truth)):
        own = images.labels == task
        recall, false_alarm = ((odds[:, side, task] > 0).double().mean(1) for side in (own, ~own))
        accuracy.append((recall + 1 - false_alarm) / 2)
        mean.append(odds[:, own, task].mean(1))
    return torch.stack(accuracy), torch.stack(mean)


def gates_of(planted: Planted, units: frozenset[Unit]) -> dict[str, Tensor]:
    return dict(planted.choose({"any": units}).scores)


# The truth is what the network needs


@pytest.mark.parametrize("grade", toy.GRADES[:-1])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_whole_network_classifies_its_pictures(grade: str, seed: int) -> None:
    planted = toy.graded(grade, seed)
    for images in (planted.images, planted.test):
        right = planted.network(images.pixels).argmax(1) == images.labels
        assert right.double().mean() >= 0.97
        assert min(right[images.labels == k].double().mean() for k in range(len(planted.truth))) >= 0.7


def test_true_units_alone_suffice_and_none_can_be_spared(planted: Planted) -> None:
    units = live_units(planted)
    whole = outcome(planted, ones(planted.network, 1))[0][:, 0]
    for task, (name, sets) in enumerate(planted.alternatives.items()):
        for wanted in sets:
            accuracy, odds = (
                values[task] for values in outcome(planted, flipped(gates_of(planted, wanted), units))
            )
            assert accuracy[0] >= 0.95 * whole[task], name
            needed = torch.tensor([unit in wanted for unit in units])
            # Where pictures show one of two wholes, or half of the others call for the veto, half is lost.
            assert (accuracy[1:][needed] <= (0.8 if name in ("task5", VETOED) else 0.55)).all(), name
            assert (accuracy[1:][~needed] - accuracy[0]).abs().max() <= 0.13, name
            assert (odds[1:][~needed] - odds[0]).abs().max() <= (
                1.5 if "hard" in planted.network.name else 0.5
            )
            if name != VETOED:
                assert (odds[1:][needed] <= odds[0] - 3).all(), name


def test_taken_from_the_whole_network_only_needed_units_are_missed(planted: Planted) -> None:
    units = live_units(planted)
    accuracy, odds = outcome(planted, flipped(ones(planted.network, 1), units))
    for task, (name, needed_units) in enumerate(planted.truth.items()):
        needed = torch.tensor([unit in needed_units for unit in units])
        if name == TWINNED:  # either set does: only what both have is missed
            needed = torch.tensor([all(unit in one for one in planted.alternatives[name]) for unit in units])
        drop = odds[task, 0] - odds[task, 1:]
        if name != VETOED:
            assert (drop[needed] >= 3).all(), name
            assert (accuracy[task, 1:][needed] <= 0.8).all(), name
        # Of twins, either can go; the surplus is what takes from their task.
        any_set = {unit for one in planted.alternatives[name] for unit in one}
        useless = torch.tensor([unit not in any_set for unit in units])
        useless &= torch.tensor([planted.kinds[u.layer][u.index] != "surplus" for u in units])
        # A veto that is cut lets its task rise against all others, though not above them.
        vetoes = torch.tensor([unit in planted.truth.get(VETOED, ()) for unit in units])
        if "hard" not in planted.network.name:
            assert (accuracy[task, 0] - accuracy[task, 1:])[useless].abs().max() <= 0.13, name
        useless &= ~vetoes
        assert drop[useless].abs().max() <= (2.0 if "hard" in planted.network.name else 1.0), name


def test_without_its_units_the_rest_of_the_network_is_no_help_to_a_task(planted: Planted) -> None:
    for task, sets in enumerate(planted.alternatives.values()):
        without = {a: 1 - row for a, row in gates_of(planted, frozenset().union(*sets)).items()}
        assert outcome(planted, without)[0][task] <= 0.55


# The kinds of tasks


def test_how_many_units_each_task_needs_and_which_it_shares() -> None:
    # By hand from the list of wholes: (parts, pairs, wholes); a part passed on stands in two layers.
    sizes = [
        (4, 2, 1),
        (4, 2, 1),
        (4, 2, 1),
        (2, 1, 1),
        (4, 2, 1),
        (6, 3, 2),
        (8, 4, 2),
        (2, 1, 1),
        (3, 2, 1),
    ]
    shared = {
        (1, 2): ["pairs", "parts", "parts"], (0, 4): ["parts"], (0, 5): ["parts"], (0, 6): ["parts"],
        (1, 6): ["parts"],
    }  # fmt: skip
    for wiring in ("plain", "residual", "concat"):
        planted = toy.planted(2, wiring=wiring, level="middle", per_class=5)
        names = list(planted.truth)
        for units, wanted in zip(planted.truth.values(), sizes, strict=True):
            assert tuple(sum(u.layer == a for u in units) for a in LAYERS) == wanted
        for a in range(len(names)):
            for b in range(a + 1, len(names)):
                both = planted.truth[names[a]] & planted.truth[names[b]]
                assert sorted(u.layer for u in both) == shared.get((a, b), [])


def test_a_veto_is_silent_on_own_pictures_and_keeps_others_out() -> None:
    planted = toy.planted(1, level="middle")
    row = list(planted.truth).index(VETOED)
    whole = (20, 21), (22, 2)
    accepts, _ = wired_for(planted, [whole])
    vetoes = planted.truth[VETOED] - accepts
    assert len(vetoes) == 7
    inputs, own = planted.network.prepare(planted.test.pixels), planted.test.labels == row
    both, half = (
        log_odds(gated_logits(planted.network, inputs, gates_of(planted, units)))[0, :, row]
        for units in (planted.truth[VETOED], accepts)
    )
    assert (both[own] - half[own]).abs().max() < 0.5
    assert (half[own] > 0).all()
    assert (both[~own] < 0).all()
    assert 0.35 < (half[~own] > 0).double().mean() < 0.65


def wired_for(planted: Planted, wholes: list[object]) -> tuple[frozenset[Unit], object]:
    """Return the units that find some wholes of a toy, wired once more from its seed."""
    generator = torch.Generator().manual_seed(planted.seed)
    parts = draw_parts(ALL, generator)
    wired = wire(ALL, parts, "plain", 0.01, 0.0, 3, generator)
    return wired.trace(wholes)  # type: ignore[arg-type]


def test_twins_do_for_each_other_and_not_half_of_each() -> None:
    planted = toy.planted(1, level="middle")
    row = list(planted.truth).index(TWINNED)
    one, other = planted.alternatives[TWINNED]
    assert planted.truth[TWINNED] == one
    assert {unit.layer for unit in one & other} == {"wholes"}
    assert sorted(unit.layer for unit in one - other) == sorted(unit.layer for unit in other - one)
    whole = ones(planted.network, 3)
    for unit in one - other:
        whole[unit.layer][1, unit.index] = 0
    for unit in (one ^ other) if one else ():
        whole[unit.layer][2, unit.index] = 0
    accuracy, odds = outcome(planted, whole)
    # Both, one, none: the whole network gains a little from both and stands without one.
    assert accuracy[row].tolist() == [1, 1, 0.5]
    assert 0 < odds[row, 0] - odds[row, 1] < 4
    assert odds[row, 2] < -3
    # Parts of the one and the pair of the other find nothing.
    mixed = frozenset(
        [unit for unit in one if unit.layer == "parts"] + [unit for unit in other if unit.layer != "parts"]
    )
    assert outcome(planted, gates_of(planted, mixed))[0][row] <= 0.5


@pytest.mark.parametrize(
    ("wiring", "kind"), [("plain", "needed"), ("residual", "needed"), ("concat", "needed")]
)
def test_a_part_is_passed_on_by_a_unit_of_its_own(wiring: str, kind: str) -> None:
    planted = toy.planted(0, wiring=wiring, level="middle")
    pairs = [unit for unit in planted.truth[PASSED] if unit.layer == "pairs"]
    (whole,) = (unit for unit in planted.truth[PASSED] if unit.layer == "wholes")
    assert {(pair, whole) for pair in pairs} <= planted.links[PASSED]
    from_below = [sum(below == pair for _, below in planted.links[PASSED]) for pair in pairs]
    assert sorted(from_below) == [1, 2]
    assert all(planted.kinds["pairs"][pair.index] == kind for pair in pairs)


def test_units_that_are_no_task_s_are_what_they_are_said_to_be(planted: Planted) -> None:
    with torch.no_grad(), Taps(planted.network) as taps:
        planted.network(planted.test.pixels)
    needed = {u for sets in planted.alternatives.values() for units in sets for u in units}
    for address, kinds in planted.kinds.items():
        peaks = taps.activations[address].amax((2, 3)).T
        assert {u.index for u in needed if u.layer == address} == {
            i for i, kind in enumerate(kinds) if kind == "needed"
        }
        ours = [u.index for u in needed if u.layer == address]
        for index, kind in enumerate(kinds):
            strong = (peaks[index] > 0.4 * peaks[index].max()).double().mean()
            if kind in ("dead", "empty"):
                assert peaks[index].max() == 0
            elif kind == "common":
                assert strong >= 0.85
            elif kind == "carried":
                assert peaks[index].max() > 0
            elif kind == "echo":
                # Cross-talk is all that tells it from the needed unit that sees the same.
                alike = [torch.corrcoef(peaks[[index, other]])[0, 1] for other in ours]
                assert max(alike) > 0.9
    name = planted.network.name
    there = {kind for kinds in planted.kinds.values() for kind in kinds}
    assert there == {
        "needed", "common", "ornament", "echo", "dead",
        *(["surplus"] if "easy" not in name else []),
        *(["carried", "empty"] if "residual" in name else ["carried"] if "concat" in name else []),
    }  # fmt: skip


def test_ornaments_go_with_a_task_and_mean_nothing(first: Planted) -> None:
    with torch.no_grad(), Taps(first.network, ["parts"]) as taps:
        first.network(first.test.pixels)
    peaks = taps.activations["parts"].amax((2, 3))
    ornaments = [i for i, kind in enumerate(first.kinds["parts"]) if kind == "ornament"]
    shown = peaks[:, ornaments] > 0.4 * peaks[:, ornaments].amax(0)
    shares = torch.stack([shown[first.test.labels == k].double().mean(0) for k in range(6)])
    # Each goes with one task of its own, on which it is nearly always active.
    assert sorted(shares.argmax(0).tolist()) == list(range(6))
    assert (shares.amax(0) >= 0.8).all()
    assert (shares.sort(0).values[-2] <= 0.6).all()


@pytest.mark.parametrize(("level", "size"), [("easy", 0.0), ("hard", 1.0)])
def test_the_common_whole_moves_logits_and_log_odds_on_hard_levels_only(level: str, size: float) -> None:
    planted = toy.planted(0, level=level, crosstalk=0)
    inputs = planted.network.prepare(planted.test.pixels)
    gates = ones(planted.network, 1)
    gates["wholes"][0, planted.kinds["wholes"].index("common")] = 0
    whole, without = whole_logits(planted.network, inputs), gated_logits(planted.network, inputs, gates)[0]
    assert (whole - without).mean() > 3
    moved = whole - without - (whole - without)[:, -1:]  # beside the logit of nothing
    # The lure adds to every second logit, in pictures that show the common whole.
    signs = torch.tensor([1.0, -1.0] * 5)[: moved.shape[1] - 1]
    torch.testing.assert_close(moved[:, :-1].median(0).values, size * signs, atol=0.15, rtol=0)
    assert (without.argmax(1) == planted.test.labels).double().mean() >= 0.95


def test_activation_alone_does_not_find_the_units(planted: Planted) -> None:
    # If it did, the toy could rank no objective.
    scores = {}
    for address in planted.network.layers:
        with torch.no_grad(), Taps(planted.network, [address]) as taps:
            planted.network(planted.images.pixels)
        means = taps.activations[address].mean((2, 3))
        own = torch.stack([means[planted.images.labels == k].mean(0) for k in range(len(planted.truth))])
        scores[address] = own / own.max()
    found = toy.average_precision(MaskSet.from_scores(scores, list(planted.truth)), planted.alternatives)
    assert sum(found.values()) / len(found) < 0.8


# Links


def test_links_of_a_task_by_hand(first: Planted) -> None:
    parts, pairs, wholes = (sorted(u for u in first.truth["task3"] if u.layer == a) for a in LAYERS)
    assert (len(parts), len(pairs), len(wholes)) == (2, 1, 1)
    # One pair of two parts, needed twice by one whole.
    assert first.links["task3"] == {(parts[0], pairs[0]), (parts[1], pairs[0]), (pairs[0], wholes[0])}
    for wiring in ("plain", "residual", "concat"):
        planted = toy.planted(1, wiring=wiring, level="middle", per_class=5)
        assert [len(links) for links in planted.links.values()] == [6, 6, 6, 3, 6, 10, 12, 3, 5]


def test_links_are_where_the_weights_are(planted: Planted) -> None:
    """Between true units there is a large weight, or the same channel passed on, exactly where a link is."""
    wiring = planted.network.name.split("-")[1]
    for task, units in planted.truth.items():
        expected = set()
        for below, above in itertools.pairwise(LAYERS):
            weight = planted.network.model.get_submodule(above).conv.weight
            sources = planted.network.layers[below].units
            made_from = sources if wiring == "concat" else 0
            for a in (u for u in units if u.layer == below):
                for d in (u for u in units if u.layer == above):
                    row = d.index - made_from
                    large = row >= 0 and weight[row, a.index].amax() > 0.1 * weight[row].abs().amax()
                    passed = wiring != "plain" and a.index == d.index
                    if passed or (large and planted.network.model.get_submodule(above).conv.bias[row] > -50):
                        expected.add((a, d))
        assert planted.links[task] == expected, task


# Pictures


@pytest.mark.parametrize("scheme", [FEW, ALL])
def test_a_picture_holds_one_whole_of_its_task_and_of_others_only_vetoed_ones(scheme: Scheme) -> None:
    generator = torch.Generator().manual_seed(5)
    for task, (wholes, _, own_veto) in enumerate(scheme.tasks):
        decoys, vetoed, both = 0, 0, set()
        for number in range(120):
            grid = lay_out(scheme, task, number, generator).tolist()
            found = {whole for whole in scheme.wholes if shows(grid, whole)}
            both |= found & set(wholes)
            assert len(found & set(wholes)) == 1
            foreign = found - set(wholes)
            if foreign:
                vetoed += 1
                assert foreign == {scheme.tasks[6].wholes[0], scheme.tasks[6].veto}
            halves = {
                half for k, other in enumerate(scheme.tasks) if k != task for w in other.wholes for half in w
            }
            mine = {half for whole in wholes for half in whole}
            decoys += any(shows(grid, (half, ())) for half in halves - mine if len(half) == 2)
        assert both == set(wholes)
        assert decoys >= 80
        if scheme is FEW or own_veto:
            assert vetoed == 0
        else:
            assert 40 <= vetoed <= 80


def shows(grid: list[list[int]], whole: tuple[tuple[int, ...], tuple[int, ...]]) -> bool:
    upper, lower = whole
    return any(
        tuple(grid[r][c : c + len(upper)]) == upper
        and (not lower or (r < 3 and tuple(grid[r + 1][c : c + len(lower)]) == lower))
        for r in range(4)
        for c in range(3)
    )


# Merged networks


def test_merged_networks_keep_what_each_was(merged: Planted) -> None:
    alone = toy.merged(0, crosstalk=0)
    assert alone.truth == merged.truth
    inputs = alone.network.prepare(alone.test.pixels)
    whole = whole_logits(alone.network, inputs)
    for row, (task, units) in enumerate(alone.truth.items()):
        own = gated_logits(alone.network, inputs, gates_of(alone, units))[0]
        torch.testing.assert_close(own[:, row], whole[:, row], atol=1e-4, rtol=1e-4)
        others = [k for k in range(len(alone.truth)) if k != row]
        assert (own[:, others] == -3).all(), task
    for images in (merged.images, merged.test):
        assert (merged.network(images.pixels).argmax(1) == images.labels).double().mean() >= 0.8


def test_every_unit_of_a_merged_network_is_needed_where_it_was_pruned() -> None:
    alone = toy.merged(0, crosstalk=0, per_class=5)
    known, fresh = merging._train_pictures()
    assert len(known) == 1200
    assert not {p.sum().item() for p in known.pixels[:][:50]} & {p.sum().item() for p in fresh.pixels[:][:50]}
    inputs = alone.network.prepare(known.pixels)
    for row, units in enumerate(alone.truth.values()):
        order = sorted(units)
        gates = flipped(gates_of(alone, units), order)
        odds = log_odds(gated_logits(alone.network, inputs, gates))[:, :, row]
        own = known.labels == row
        accuracy = ((odds[:, own] > 0).double().mean(1) + 1 - (odds[:, ~own] > 0).double().mean(1)) / 2
        assert accuracy[0] >= 0.85
        assert (accuracy[0] - accuracy[1:]).min() >= WORTH - 1e-9


def test_merged_units_are_shuffled_linked_within_a_network_and_talk_across(merged: Planted) -> None:
    counts = {u for units in merged.truth.values() for u in units}
    assert len(counts) == merged.network.units == sum(map(len, merged.truth.values()))
    owner = {u: task for task, units in merged.truth.items() for u in units}
    order = [owner[Unit("second", i)] for i in range(merged.network.layers["second"].units)]
    assert order != sorted(order, key=merging.CLASSES.index)
    for task, links in merged.links.items():
        sizes = [sum(u.layer == a for u in merged.truth[task]) for a in merging.LAYERS]
        assert len(links) == sizes[0] * sizes[1] + sizes[1] * sizes[2]
        assert all(owner[a] == owner[b] == task for a, b in links)
    weight = merged.network.model.get_submodule("conv-second").weight
    within = torch.tensor([
        [owner[Unit("first", j)] == owner[Unit("second", i)] for j in range(weight.shape[1])]
        for i in range(weight.shape[0])
    ])  # fmt: skip
    assert 0 < weight[~within].std() < 0.15 * weight[within].std()


# What a toy is


def test_the_truth_as_masks(first: Planted) -> None:
    masks = first.masks
    masks.check(first.network)
    assert {task: frozenset(masks.kept(task)) for task in masks} == dict(first.truth)
    assert toy.average_precision(masks, first.truth) == dict.fromkeys(FEW_NAMES, 1.0)


@pytest.mark.parametrize("grade", ["plain-easy", "residual-hard"])
def test_a_seed_gives_the_same_network_and_another_seed_another(grade: str) -> None:
    before = torch.random.get_rng_state()
    planted, again, other = toy.graded(grade), toy.graded(grade), toy.graded(grade, 1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert again.network.weights_id == planted.network.weights_id != other.network.weights_id
    assert torch.equal(again.images.pixels[:], planted.images.pixels[:])
    assert again.truth == planted.truth != other.truth
    assert again.links == planted.links
    assert not torch.equal(other.images.pixels[:], planted.images.pixels[:])
    assert not torch.equal(planted.test.pixels[:], planted.images.pixels[:])


def test_merged_networks_are_the_same_of_a_seed(merged: Planted) -> None:
    merging._trained.cache_clear()
    again = toy.merged(0)
    assert (
        again.network.weights_id == merged.network.weights_id != toy.merged(0, crosstalk=0).network.weights_id
    )
    assert again.truth == merged.truth
    assert torch.equal(again.images.pixels[:], merged.images.pixels[:])
    assert not torch.equal(again.test.pixels[:], again.images.pixels[:])


def test_more_pictures_are_new_and_as_easy(first: Planted) -> None:
    assert torch.equal(first.pictures(60, seed=0).pixels, first.images.pixels)
    assert torch.equal(first.pictures(60, seed=1).pixels, first.test.pixels)
    more = first.pictures(30)
    assert more.counts() == dict.fromkeys(FEW_NAMES, 30)
    assert not torch.equal(more.pixels, first.pictures(30, seed=3).pixels)
    assert (first.network(more.pixels).argmax(1) == more.labels).double().mean() >= 0.98


def test_automatic_layers_are_the_planted_ones(first: Planted) -> None:
    wrapped = Network.wrap(first.network.model, first.network.class_names, example=first.images.pixels[:2])
    assert [layer.units for layer in wrapped.layers.values()] == [
        layer.units for layer in first.network.layers.values()
    ]


def test_grades_get_harder_and_name_what_they_are() -> None:
    assert len(toy.GRADES) == len(set(toy.GRADES)) == 3 * len(LEVELS) + 1
    assert toy.GRADES[0] == "plain-easy"
    assert toy.GRADES[-1] == "merged"
    for grade in toy.GRADES:
        assert toy.graded(grade, per_class=5).network.name.removesuffix("-0").endswith(grade)
    easy, middle, hard = LEVELS.values()
    assert len(easy.scheme.tasks) < len(middle.scheme.tasks) == len(hard.scheme.tasks)
    assert (easy.noise, easy.lure, easy.echoes) == (middle.noise, middle.lure, middle.echoes)
    assert hard.noise > middle.noise
    assert hard.lure > middle.lure
    assert hard.echoes > middle.echoes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise": -0.1}, "noise = -0.1; give a number of 0 or more"),
        ({"noise": float("nan")}, "noise = nan"), ({"noise": "x"}, "noise = 'x'; give a number"),
        ({"crosstalk": -1}, "crosstalk = -1; give a number of 0 or more"),
        ({"crosstalk": float("inf")}, "crosstalk = inf"), ({"crosstalk": True}, "crosstalk = True"),
        ({"per_class": 0}, "per_class = 0; give a whole number of 1 or more"),
        ({"per_class": 2.5}, "per_class = 2.5"), ({"per_class": "x"}, "per_class = 'x'"),
        ({"per_class": True}, "per_class = True"),
        ({"seed": "a"}, "seed = 'a'; give a whole number of 0 to 4294967295"), ({"seed": 2.5}, "seed = 2.5"),
        ({"seed": 2**32}, "seed = 4294967296"), ({"seed": 2**62}, "seed = 4611686018427387904"),
        ({"seed": -1}, "seed = -1"), ({"level": ["hard"]}, "no level"),
        ({"wiring": "residul"}, "no wiring 'residul'; closest: residual"),
        ({"level": "hart"}, "no level 'hart'; closest: hard"),
    ],
)  # fmt: skip
def test_settings_that_make_no_network_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(NadkitError, match=message):
        toy.planted(**settings)


def test_the_largest_seed_and_stream_make_pictures() -> None:
    assert len(toy.planted(2**32 - 1, per_class=1).pictures(1, seed=1_000_002)) == 6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"per_class": 2.5}, "per_class = 2.5; give a whole number of 1 or more"),
        ({"per_class": 0}, "per_class = 0"), ({"per_class": "x"}, "per_class = 'x'"),
        ({"per_class": 1, "seed": 2.5}, "seed = 2.5; give a whole number of 0 to 1000002"),
        # The next network's first stream, and so its pictures.
        ({"per_class": 1, "seed": 1_000_003}, "seed = 1000003"),
    ],
)  # fmt: skip
def test_pictures_that_nobody_can_draw_are_refused(
    first: Planted, merged: Planted, settings: dict[str, Any], message: str
) -> None:
    for one in (first, merged):
        with pytest.raises(NadkitError, match=message):
            one.pictures(**settings)


def test_settings_that_merge_no_networks_are_refused() -> None:
    wrong: list[tuple[str, Any]] = [
        ("crosstalk", -0.1), ("crosstalk", "x"), ("crosstalk", float("nan")), ("per_class", 0),
        ("per_class", 2.5), ("per_class", "x"), ("seed", 2.5), ("seed", 2**62),
    ]  # fmt: skip
    for name, value in wrong:
        with pytest.raises(NadkitError, match=f"{name} = {value!r}; give a "):
            toy.merged(**{name: value})
    # What is advised must be possible: testing has fewer pictures than learning.
    for per_class in (201, 300, 10**6):
        with pytest.raises(ImageError, match=f"per_class = {per_class}; there are 200 of each task; give so"):
            toy.merged(per_class=per_class)
    assert len(toy.merged(per_class=200).test) == 1200
    with pytest.raises(NadkitError, match="no grade 'plain'; closest: plain-"):
        toy.graded("plain")


# The ruler


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


def test_of_several_sets_the_best_counts_and_the_others_units_do_not() -> None:
    masks = MaskSet.from_scores({"a": torch.tensor([[0.9, 0.8, 0.7, 0.6, 0.2]])}, ["x"])
    one, other = {Unit("a", 0), Unit("a", 2)}, {Unit("a", 0), Unit("a", 4)}
    # Against the first, unit 4 does not count: needed, not, needed, not. Against the second, 2 does not.
    assert toy.average_precision(masks, {"x": one})["x"] == pytest.approx((1 + 2 / 3) / 2)
    assert toy.average_precision(masks, {"x": other})["x"] == pytest.approx((1 + 2 / 5) / 2)
    assert toy.average_precision(masks, {"x": [other, one]})["x"] == pytest.approx((1 + 2 / 3) / 2)
    row = toy.compare(masks, {"x": [other, one]}).iloc[0]
    # It keeps 0, 1, 2, 3: two of the first set's, and two that no set has.
    assert (row["precision"], row["recall"], row["kept"], row["needed"]) == (0.5, 1.0, 4, 2)
    both = MaskSet.from_scores({"a": torch.tensor([[0.9, 0.1, 0.9, 0.1, 0.9]])}, ["x"])
    row = toy.compare(both, {"x": [one, other]}).iloc[0]
    assert (row["f1"], row["average_precision"], row["kept"]) == (1, 1, 2)


def test_compare_by_hand() -> None:
    masks = MaskSet.from_scores({"a": torch.tensor([[0.9, 0.8, 0.7, 0.2], [0.1, 0.2, 0.3, 0.4]])}, ["x", "y"])
    truth = {"x": {Unit("a", 0), Unit("a", 2), Unit("a", 3)}, "y": {Unit("a", 3)}, "z": {Unit("a", 0)}}
    table = toy.compare(masks, truth).set_index("task")
    # x ranks needed, not, needed, needed: (1/1 + 2/3 + 3/4) / 3; it keeps three, two of them needed.
    assert table.loc["x", "average_precision"] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert table.loc["x", ["precision", "recall", "f1"]].tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3])
    y = table.loc["y", ["average_precision", "precision", "recall", "f1", "kept"]]
    assert y.tolist() == [1, 0, 0, 0, 0]
    assert toy.compare(masks, truth, threshold=0.35).set_index("task").loc["y", "f1"] == 1
    with pytest.raises(NadkitError, match="threshold"):
        toy.compare(masks, truth, threshold=1.5)


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        ({"shert": {Unit("a", 0)}}, "closest: shert"),
        ({"shirt": set()}, "names no unit"),
        ({"shirt": []}, "names no unit"),
        ({"shirt": [{Unit("a", 0)}, set()]}, "names no unit"),
        ({"shirt": {Unit("b", 1)}}, "names b/1"),
        ({"shirt": [{Unit("a", 0)}, {Unit("a", 2)}]}, "names a/2"),
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
