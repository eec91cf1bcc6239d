"""MaskSet, Unit and the mask file: thresholds, overlaps against slow second versions, and damaged files."""

from __future__ import annotations

import copy
import json
import math
import os
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from nadkit.errors import LayerError, MaskFileError, NadkitError
from nadkit.masks import MaskSet, Unit
from nadkit.masks.encoding import seal

BY_HAND = {
    "layer1.0": torch.tensor([[0.9, 0.5, 0.51, 0.0], [0.1, 1.0, 0.0, 0.2]]),
    "layer1.0.relu#2": torch.tensor([[0.0, 0.0, 0.7], [0.8, 0.6, 0.9]]),
}


def by_hand(**meta: object) -> MaskSet:
    return MaskSet.from_scores(BY_HAND, ["shirt", "sneaker"], meta)


def drawn(
    seed: int = 0, tasks: int = 4, counts: tuple[int, ...] = (7, 1, 12), meta: dict[str, object] | None = None
) -> MaskSet:
    generator = torch.Generator().manual_seed(seed)
    scores = {f"layer{i}": torch.rand(tasks, count, generator=generator) for i, count in enumerate(counts)}
    return MaskSet.from_scores(scores, [f"task {i}" for i in range(tasks)], meta)


# Units ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", [Unit("layer3.1", 17), Unit("layer1.0.relu#2", 0), Unit("a/b", 3)])
def test_a_unit_reads_back_what_it_writes(unit: Unit) -> None:
    assert Unit.parse(str(unit)) == unit
    assert str(unit) == f"{unit.layer}/{unit.index}"


@pytest.mark.parametrize(
    "text", ["", "layer3.1", "/3", "layer3.1/", "layer3.1/-1", "a/1.5", "a/²", "a/" + "9" * 10, "a/1 ", None]
)
def test_what_names_no_unit_is_refused(text: str) -> None:
    with pytest.raises(LayerError, match=r"layer3\.1/17"):
        Unit.parse(text)


# Thresholds -------------------------------------------------------------------------------------------


def test_kept_is_strictly_above_the_threshold() -> None:
    masks = by_hand()
    assert [str(unit) for unit in masks.kept("shirt")] == ["layer1.0/0", "layer1.0/2", "layer1.0.relu#2/2"]
    assert [str(unit) for unit in masks.kept("shirt", 0.51)] == ["layer1.0/0", "layer1.0.relu#2/2"]
    assert masks.kept("sneaker", threshold=1) == []
    assert len(masks.kept("sneaker", threshold=0)) == 6  # a score of 0 is never kept
    assert masks.gates("shirt")["layer1.0"].tolist() == [1, 0, 1, 0]


def test_a_threshold_is_read_as_float32_like_the_scores() -> None:
    masks = MaskSet.from_scores({"fc": torch.tensor([[0.3, 0.1]])}, ["a"])  # float32(.3) > .3 in float64
    assert masks.kept("a", 0.3) == []
    assert masks.to_frame(0.3)["kept"].tolist() == [False, False]


def test_gates_have_a_row_a_task_and_their_complement_adds_to_one() -> None:
    masks = drawn()
    for threshold in (0.0, 0.25, 0.5, 1.0):
        together = masks.gates(threshold=threshold)
        removed = masks.gates(threshold=threshold, keep=False)
        for address, count in masks.unit_counts.items():
            assert together[address].shape == (4, count)
            assert together[address].dtype == torch.float32
            assert torch.equal(together[address] + removed[address], torch.ones(4, count))
        for row, task in enumerate(masks):
            alone = masks.gates(task, threshold)
            assert list(alone) == list(masks.scores)
            assert all(torch.equal(alone[a], together[a][row]) for a in alone)
            assert sum(int(gate.sum()) for gate in alone.values()) == len(masks.kept(task, threshold))


def test_gates_are_new_tensors() -> None:
    masks = by_hand()
    masks.gates("shirt")["layer1.0"].zero_()
    masks.gates()["layer1.0"].zero_()
    assert masks == by_hand()


def test_kept_share_by_hand() -> None:
    masks = by_hand()
    assert masks.kept_share() == {"shirt": 3 / 7, "sneaker": 4 / 7}
    assert masks.kept_share(layer="layer1.0") == {"shirt": 2 / 4, "sneaker": 1 / 4}
    assert masks.kept_share(0.8) == {"shirt": 1 / 7, "sneaker": 2 / 7}


@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan, "0.5", None])
def test_thresholds_outside_the_scores_are_refused(threshold: float) -> None:
    masks = by_hand()
    calls: list[Callable[[], object]] = [
        lambda: masks.gates(None, threshold),
        lambda: masks.kept("shirt", threshold),
        lambda: masks.kept_share(threshold),
        lambda: masks.random(0, threshold),
        lambda: masks.overlap(None, threshold),
        lambda: masks.to_frame(threshold),
    ]
    for call in calls:
        with pytest.raises(NadkitError, match="threshold"):
            call()


def test_unknown_tasks_and_layers_name_the_closest() -> None:
    masks = by_hand()
    for ask in (masks.gates, masks.kept, masks.__getitem__):
        with pytest.raises(NadkitError, match=r"sneeker.*closest: sneaker"):
            ask("sneeker")
    for ask_layer in (lambda a: masks.overlap(a), lambda a: masks.kept_share(layer=a)):
        with pytest.raises(LayerError, match=r"layer1\.0\.rellu.*closest: layer1\.0\.relu#2"):
            ask_layer("layer1.0.rellu#2")


def test_to_frame_says_every_score_once() -> None:
    masks = drawn(counts=(3, 2), tasks=2)
    frame = masks.to_frame(0.4)
    assert list(frame.columns) == ["task", "layer", "index", "score", "kept"]
    assert len(frame) == 10
    for row in frame.to_dict("records"):
        score = masks.scores[row["layer"]][masks.tasks.index(row["task"]), row["index"]].item()
        assert row["score"] == score
        assert row["kept"] == (score > 0.4)
    assert not frame.duplicated(["task", "layer", "index"]).any()
    assert frame.groupby("task")["kept"].mean().to_dict() == pytest.approx(masks.kept_share(0.4))


# Overlap ----------------------------------------------------------------------------------------------


def slow_overlap(a: set[int], b: set[int], units: int) -> dict[str, float]:
    """The corrections of NAD.md section 5, by expectation and variance rather than by phi's short form."""
    n, size_a, size_b = len(a & b), len(a), len(b)
    expected = size_a * size_b / units
    out = {"jaccard": n / len(a | b) if a | b else 1.0, "phi": math.nan, "z": math.nan}
    if 0 < size_a < units and 0 < size_b < units:
        variance = size_a * size_b * (units - size_a) * (units - size_b) / (units**2 * (units - 1))
        out["z"] = (n - expected) / math.sqrt(variance)
        out["phi"] = out["z"] / math.sqrt(units - 1)
    return out


@given(st.integers(1, 9), st.integers(2, 5), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_overlap_equals_the_slow_version(units: int, tasks: int, seed: int) -> None:
    masks = drawn(seed, tasks, (units,))
    table = masks.overlap(threshold=0.4)
    assert len(table) == tasks * (tasks - 1) // 2
    kept = {task: {unit.index for unit in masks.kept(task, 0.4)} for task in masks}
    for row in table.to_dict("records"):
        a, b = kept[row["task"]], kept[row["other_task"]]
        expected = slow_overlap(a, b, units)
        assert (row["kept"], row["other_kept"], row["shared"]) == (len(a), len(b), len(a & b))
        assert row["units"] == units
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, nan_ok=True)
        assert row["defined"] == (not math.isnan(expected["phi"]))


def test_overlap_by_hand() -> None:
    rows = torch.tensor([[1.0, 1, 1, 0, 0, 0], [1, 1, 0, 1, 0, 0]])
    row = MaskSet.from_scores({"fc": rows}, ["a", "b"]).overlap().iloc[0]
    assert row["jaccard"] == 2 / 4
    assert row["phi"] == pytest.approx(1 / 3)  # (6·2 − 9) / √(3·3·3·3)
    assert row["z"] == pytest.approx(math.sqrt(5) / 3)


def test_empty_and_full_masks_are_defined_in_words_not_hidden() -> None:
    rows = torch.tensor([[0.0, 0, 0], [0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 1]])
    masks = MaskSet.from_scores({"fc": rows}, ["none", "nil", "all", "one", "rest"])
    table = masks.overlap().set_index(["task", "other_task"])
    assert table["jaccard"].notna().all()
    assert table.loc[("none", "nil"), "jaccard"] == 1
    assert table.loc[("none", "all"), "jaccard"] == 0
    assert table.loc[("all", "one"), "jaccard"] == pytest.approx(1 / 3)
    assert table["defined"].sum() == 1  # one × rest alone
    assert table.loc[("one", "rest"), "phi"] == -1
    for name in ("phi", "z"):
        assert (table[name].notna() == table["defined"]).all()


def test_overlap_asks_for_one_layer_and_keeps_their_order() -> None:
    masks = drawn()
    whole = masks.overlap()
    assert list(dict.fromkeys(whole["layer"])) == list(masks.scores)
    alone = masks.overlap("layer2")
    pd.testing.assert_frame_equal(alone, whole[whole["layer"] == "layer2"].reset_index(drop=True))


def test_overlap_with_another_set_compares_every_task_with_every_task() -> None:
    first, second = drawn(1, 3), drawn(2, 3)
    table = first.overlap(other=second)
    assert len(table) == 3 * 3 * 3
    both = MaskSet.join(
        [first, MaskSet.from_scores(second.scores, [f"other {task}" for task in second])]
    ).overlap()
    for row in table.to_dict("records"):
        same = both[
            (both["task"] == row["task"])
            & (both["other_task"] == f"other {row['other_task']}")
            & (both["layer"] == row["layer"])
        ]
        assert row["jaccard"] == same["jaccard"].item()
        assert (row["kept"], row["other_kept"]) == (same["kept"].item(), same["other_kept"].item())
    assert (first.overlap("layer2", other=first).query("task == other_task")["phi"].round(12) == 1).all()
    with pytest.raises(NadkitError, match="layer2"):
        first.overlap(other=drawn(1, 3, (7, 1, 11)))


def test_phi_of_random_masks_is_zero_on_average_whatever_the_width() -> None:
    for units in (6, 60):
        masks = MaskSet.from_scores(
            {"fc": (torch.arange(units) < units // 3).float().repeat(60, 1)}, map_names(60)
        )
        table = masks.random(seed=units).overlap()
        assert abs(table["phi"].mean()) < 4 / math.sqrt(len(table) * (units - 1))
        assert table["z"].std() == pytest.approx(1, abs=0.1)


def map_names(count: int) -> list[str]:
    return [f"task {place}" for place in range(count)]


# Random masks, choosing and joining -------------------------------------------------------------------


def test_random_masks_keep_as_many_per_layer_and_task() -> None:
    masks = drawn(3, 6, (9, 1, 40))
    for threshold in (0.2, 0.5):
        random = masks.random(seed=5, threshold=threshold)
        for address in masks.scores:
            assert random.kept_share(layer=address) == masks.kept_share(threshold, layer=address)
        assert set(torch.cat(list(random.scores.values()), 1).unique().tolist()) <= {0.0, 1.0}
        assert random == masks.random(seed=5, threshold=threshold)
        assert not torch.equal(random.scores["layer2"], masks.random(6, threshold).scores["layer2"])


def test_random_masks_are_uniform_and_leave_the_global_generator_alone() -> None:
    masks = MaskSet.from_scores({"fc": torch.tensor([[1.0, 1, 0, 0, 0]]).repeat(4000, 1)}, map_names(4000))
    state = torch.get_rng_state()
    share = masks.random(seed=0).scores["fc"].mean(0)
    assert torch.equal(torch.get_rng_state(), state)
    assert share.tolist() == pytest.approx([0.4] * 5, abs=0.04)  # five standard errors
    assert len(masks.random(seed=0).scores["fc"].unique(dim=0)) == 10  # tasks draw apart: 5 over 2


def test_random_masks_say_so_in_their_meta() -> None:
    random = by_hand(network="net", control="relabelled", permutation=[1, 0]).random(seed=4, threshold=0.25)
    assert dict(random.meta) == {
        "network": "net",
        "control": "random",
        "random": {"seed": 4, "threshold": 0.25},
    }


def test_choosing_tasks_takes_their_rows_history_and_permutation() -> None:
    history = pd.DataFrame({"step": [0, 0, 1, 1], "task": ["shirt", "sneaker"] * 2, "loss": [4.0, 3, 2, 1]})
    masks = MaskSet(("shirt", "sneaker"), BY_HAND, history, {"seed": 0, "permutation": [7, 5]})
    one = masks["sneaker"]
    assert one.tasks == ("sneaker",)
    assert torch.equal(one.scores["layer1.0"], BY_HAND["layer1.0"][1:])
    assert one.history is not None
    assert one.history["loss"].tolist() == [3, 1]
    assert dict(one.meta) == {"seed": 0, "permutation": [5]}
    turned = masks[["sneaker", "shirt"]]
    assert turned.tasks == ("sneaker", "shirt")
    assert turned.meta["permutation"] == [5, 7]
    assert torch.equal(turned.scores["layer1.0"], BY_HAND["layer1.0"].flip(0))
    assert masks[list(masks)] == masks


@pytest.mark.parametrize("key", [0, slice(0, 1), [], [0], ["shirt", "shirt"], None])
def test_tasks_are_chosen_by_name_only(key: object) -> None:
    with pytest.raises(NadkitError):
        by_hand()[key]  # type: ignore[index]


def test_joining_undoes_choosing() -> None:
    masks = drawn(meta={"network": "net", "seed": 3, "permutation": [1, 2, 3, 0]})
    assert MaskSet.join([masks[task] for task in masks]) == masks
    assert MaskSet.join([masks]) == masks


def test_joining_lists_what_differs_and_choosing_finds_it_again() -> None:
    first = by_hand(network="net", seed=1, settings={"steps": 3})["shirt"]
    second = by_hand(network="net", seed=2, settings={"steps": 3}, permutation=[1, 0])["sneaker"]
    joined = MaskSet.join([first, second])
    assert dict(joined.meta) == {
        "network": "net",
        "settings": {"steps": 3},
        "parts": [{"tasks": ["shirt"], "seed": 1}, {"tasks": ["sneaker"], "seed": 2, "permutation": [0]}],
    }
    assert joined["shirt"] == first
    assert joined["sneaker"] == second


def test_joining_keeps_histories_only_if_all_have_one() -> None:
    table = pd.DataFrame({"step": [0], "task": ["shirt"], "loss": [1.0]})
    first = MaskSet(("shirt",), {"fc": torch.zeros(1, 2)}, table)
    second = MaskSet(("coat",), {"fc": torch.ones(1, 2)}, table.assign(task="coat"))
    joined = MaskSet.join([first, second])
    assert joined.history is not None
    assert joined.history["task"].tolist() == ["shirt", "coat"]
    bare = MaskSet.from_scores({"fc": torch.ones(1, 2)}, ["coat"])
    assert MaskSet.join([first, bare]).history is None


def test_masks_that_do_not_belong_together_are_not_joined() -> None:
    masks = by_hand(network="net", weights_id="aa")
    with pytest.raises(NadkitError, match="no masks to join"):
        MaskSet.join([])
    with pytest.raises(NadkitError, match="'shirt' comes twice"):
        MaskSet.join([masks, masks["shirt"]])
    for other in ({"network": "web"}, {"weights_id": "bb"}):
        with pytest.raises(NadkitError, match="cannot be joined"):
            MaskSet.join([masks["shirt"], masks["sneaker"].with_meta(**other)])
    with pytest.raises(NadkitError, match=r"different layers or units .*layer1\.0#1"):
        MaskSet.join([masks["shirt"], MaskSet.from_scores({"layer1.0#1": torch.ones(1, 4)}, ["sneaker"])])


# The object -------------------------------------------------------------------------------------------


def test_a_mask_set_is_a_frozen_copy() -> None:
    given = torch.tensor([[0.9, 0.1]], requires_grad=True)
    meta: dict[str, object] = {"settings": {"steps": [1, 2]}}
    history = pd.DataFrame({"loss": [1.0]})
    masks = MaskSet(("a",), {"fc": given}, history, meta)
    given.data.zero_()
    history.loc[0, "loss"] = 9.0
    meta["settings"]["steps"].append(3)  # type: ignore[index]
    assert masks.scores["fc"].tolist() == [[pytest.approx(0.9), pytest.approx(0.1)]]
    assert not masks.scores["fc"].requires_grad
    assert masks.meta["settings"] == {"steps": [1, 2]}
    assert masks.history is not None
    assert masks.history["loss"].tolist() == [1.0]
    with pytest.raises(FrozenInstanceError):
        masks.tasks = ("b",)  # type: ignore[misc]
    with pytest.raises(TypeError):
        masks.scores["fc"] = given  # type: ignore[index]
    with pytest.raises(TypeError):
        masks.meta["seed"] = 1  # type: ignore[index]


@pytest.mark.parametrize(
    "scores",
    [torch.ones(1, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.bool), np.ones((1, 2)), [[1, 1]]],
)
def test_scores_of_any_real_kind_become_float32(scores: Tensor) -> None:
    masks = MaskSet.from_scores({"fc": scores}, ["a"])
    assert masks.scores["fc"].dtype == torch.float32
    assert masks.kept_share() == {"a": 1.0}


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        (torch.tensor([[0.1, math.nan]]), "fc/1 for 'a' is not a number"),
        (torch.tensor([[math.inf, 0.1]]), r"fc/0 for 'a' is inf, outside \[0, 1\]"),
        (torch.tensor([[0.1, 1.0001]]), "1.0001, outside"),
        (torch.tensor([[-0.1]]), "-0.1, outside"),
        (torch.zeros(2, 3), r"\(2, 3\).*1 tasks"),
        (torch.zeros(3), r"\(3,\)"),
        (torch.zeros(1, 0), "at least 1 unit"),
        (torch.zeros(1, 2, dtype=torch.complex64), "complex64"),
        ("many", "no tensor"),
    ],
)
def test_scores_that_are_none_are_refused(scores: Tensor, reason: str) -> None:
    with pytest.raises(NadkitError, match=reason):
        MaskSet.from_scores({"fc": scores}, ["a"])


@pytest.mark.parametrize(
    ("tasks", "scores", "history", "meta", "reason"),
    [
        ((), {"fc": torch.zeros(0, 1)}, None, {}, "names of their tasks"),
        (("a", "a"), {"fc": torch.zeros(2, 1)}, None, {}, "'a' comes twice"),
        (("a", ""), {"fc": torch.zeros(2, 1)}, None, {}, "number 1"),
        (("a", 3), {"fc": torch.zeros(2, 1)}, None, {}, "named 3"),
        ("ab", {"fc": torch.zeros(2, 1)}, None, {}, "as a tuple"),
        (7, {"fc": torch.zeros(2, 1)}, None, {}, "as a tuple"),
        (("\ud800",), {"fc": torch.zeros(1, 1)}, None, {}, "Unicode"),
        (("a",), {}, None, {}, "no layer"),
        (("a",), {"": torch.zeros(1, 1)}, None, {}, "layer number 0"),
        (("a",), {"fc": torch.zeros(1, 1)}, [1], {}, "history is a list"),
        (("a",), {"fc": torch.zeros(1, 1)}, None, [1], "meta is a list"),
        (("a",), {"fc": torch.zeros(1, 1)}, None, {"x": torch.zeros(1)}, r"meta\['x'\] is a Tensor.*tolist"),
        (
            ("a",),
            {"fc": torch.zeros(1, 1)},
            None,
            {"x": [0, {"y": math.nan}]},
            r"meta\['x'\]\[1\]\['y'\] is nan",
        ),
        (("a",), {"fc": torch.zeros(1, 1)}, None, {"x": {1: 2}}, "key 1"),
        (("a",), {"fc": torch.zeros(1, 1)}, None, {1: 2}, "key 1"),
        (("a",), {"fc": torch.zeros(1, 1)}, None, {"x": 2**64}, "64 bits"),
    ],
)
def test_what_makes_no_mask_set_is_refused_with_the_reason(
    tasks: object, scores: object, history: object, meta: object, reason: str
) -> None:
    with pytest.raises(NadkitError, match=reason):
        MaskSet(tasks, scores, history, meta)  # type: ignore[arg-type]


def test_meta_that_contains_itself_is_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(NadkitError, match="levels deep"):
        by_hand(loop=loop)


def test_equality_sees_every_part_but_the_history() -> None:
    masks = by_hand(seed=0)
    assert masks == by_hand(seed=0)
    assert masks == MaskSet(masks.tasks, masks.scores, pd.DataFrame({"loss": [1.0]}), masks.meta)
    nudged = {address: rows.clone() for address, rows in BY_HAND.items()}
    nudged["layer1.0"][0, 0] = torch.nextafter(torch.tensor(0.9), torch.tensor(1.0))
    others = [
        by_hand(seed=1),
        by_hand(),
        MaskSet.from_scores(BY_HAND, ["shirt", "coat"], {"seed": 0}),
        MaskSet.from_scores(dict(reversed(BY_HAND.items())), masks.tasks, {"seed": 0}),
        MaskSet.from_scores(nudged, masks.tasks, {"seed": 0}),
        masks[["sneaker", "shirt"]],
        "masks",
    ]
    for other in others:
        assert masks != other
    with pytest.raises(TypeError, match="unhashable"):
        hash(masks)


def test_copies_are_equal_and_with_meta_replaces_entries() -> None:
    masks = by_hand(seed=0)
    assert copy.deepcopy(masks) == masks
    assert copy.copy(masks) == masks
    changed = masks.with_meta(seed=1, network="net")
    assert dict(changed.meta) == {"seed": 1, "network": "net"}
    assert dict(masks.meta) == {"seed": 0}
    assert changed.scores["layer1.0"].tolist() == masks.scores["layer1.0"].tolist()


def test_it_is_a_collection_of_task_names() -> None:
    masks = by_hand()
    assert (len(masks), list(masks), "shirt" in masks, "coat" in masks) == (
        2,
        ["shirt", "sneaker"],
        True,
        False,
    )


def test_what_the_eye_sees() -> None:
    masks = by_hand(network="net", objective="one-vs-rest")
    assert repr(masks) == (
        "MaskSet of 2 tasks over 7 units in 2 layers (net, one-vs-rest); "
        "kept share at 0.5: shirt 0.429, sneaker 0.571"
    )
    assert "… (12 tasks)" in repr(drawn(tasks=12))
    page = MaskSet.from_scores({"fc": torch.ones(1, 3)}, ["<b>"])._repr_html_()
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert "<tr><td>all</td><td>7</td><td>3</td><td>4</td></tr>" in masks._repr_html_()


# A network to check against ---------------------------------------------------------------------------


def network(**changes: object) -> SimpleNamespace:
    layers = {"layer1.0": SimpleNamespace(units=4), "layer1.0.relu#2": SimpleNamespace(units=3)}
    values = {"name": "net", "weights_id": "aa", "class_names": ("shirt", "sneaker", "bag"), "layers": layers}
    return SimpleNamespace(**{**values, **changes})


def test_masks_of_the_network_pass_with_and_without_meta() -> None:
    by_hand().check(network())
    by_hand(network="net", weights_id="aa", class_names=["shirt", "sneaker", "bag"]).check(network())
    by_hand()["sneaker"].check(network())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": "web"}, r"not for the network 'web': they were learned on 'net'; learn"),
        ({"weights_id": "bb"}, "weights aa… and it has bb…"),
        (
            {"layers": {"layer1.0": SimpleNamespace(units=4)}},
            r"no layer 'layer1\.0\.relu#2', closest: layer1\.0",
        ),
        (
            {"layers": {**network().layers, "fc": SimpleNamespace(units=2)}},
            "no scores for its layers fc;",
        ),
        (
            {"layers": {**network().layers, "layer1.0": SimpleNamespace(units=5)}},
            r"'layer1\.0' has 5 units there and 4 here",
        ),
        ({"class_names": ("shirts", "sneaker", "bag")}, "no class 'shirt', closest: shirts"),
        ({"class_names": ("sneaker", "shirt", "bag")}, "class names were"),
    ],
)
def test_masks_of_another_network_are_refused_with_the_reason(
    changes: dict[str, object], reason: str
) -> None:
    masks = by_hand(network="net", weights_id="aa", class_names=["shirt", "sneaker", "bag"])
    with pytest.raises(MaskFileError, match=reason):
        masks.check(network(**changes))


def test_all_reasons_are_given_at_once() -> None:
    with pytest.raises(MaskFileError, match=r"learned on 'net'.*weights aa.*no class 'shirt'"):
        by_hand(network="net", weights_id="aa").check(
            network(name="web", weights_id="bb", class_names=("sneaker", "bag"))
        )


# The file ---------------------------------------------------------------------------------------------

FULL_META: dict[str, object] = {
    "network": "resnet-fashion",
    "weights_id": "ab" * 32,
    "class_names": ["shirt", "sneaker"],
    "objective": "one-vs-rest",
    "settings": {"steps": 200, "rate": 0.1, "nested": {"z": [1, 2.5, None, True], "a": "ü"}},
    "seed": 3,
    "threshold": 0.5,
    "versions": {"nadkit": "0.0.1", "torch": "2.13.0"},
    "control": None,
    "permutation": [1, 0],
}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64) + 1, 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
names = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
    min_size=1,
    max_size=3,
    unique=True,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "masks.safetensors"


def test_a_file_gives_back_what_was_saved(path: Path) -> None:
    masks = by_hand(**FULL_META)
    assert masks.save(path) == path
    loaded = MaskSet.load(str(path))
    assert loaded == masks
    assert loaded.history is None
    again = path.read_bytes()
    loaded.save(path)
    assert path.read_bytes() == again


@given(
    tasks=names,
    layers=names,
    meta=st.dictionaries(st.text(max_size=8), json_values, max_size=4),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_names_and_meta_come_back(
    path: Path, tasks: list[str], layers: list[str], meta: dict[str, object], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = {layer: torch.rand(len(tasks), 3, generator=generator) for layer in layers}
    masks = MaskSet.from_scores(scores, tasks, meta)
    assert MaskSet.load(masks.save(path)) == masks


@pytest.mark.parametrize("key", [*FULL_META, "more"])
def test_known_entries_of_none_and_absent_ones_come_back(path: Path, key: str) -> None:
    for meta in ({key: None}, {k: v for k, v in FULL_META.items() if k != key}):
        masks = by_hand(**meta)
        assert dict(MaskSet.load(masks.save(path)).meta) == dict(masks.meta)


def test_numbers_in_meta_come_back_exactly(path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(1000, generator=generator) * 10 ** torch.linspace(-38, 38, 1000)
    masks = by_hand(
        reinitialised={
            "scale": means.tolist(),
            "array": list(means.numpy()),
            "count": np.int64(3),
            "pair": (1, 2),
        }
    )
    found = MaskSet.load(masks.save(path)).meta["reinitialised"]
    assert isinstance(found, dict)
    assert torch.equal(torch.tensor(found["scale"]), means)
    assert torch.equal(torch.tensor(found["array"]), means)
    assert (found["count"], found["pair"]) == (3, [1, 2])
    assert type(found["count"]) is int


def test_the_file_is_safetensors_and_says_what_the_design_says(path: Path) -> None:
    by_hand(**FULL_META).save(path)
    with safetensors.safe_open(path, "pt") as file:
        record = json.loads(file.metadata()["nadkit"])
        assert set(file.keys()) == {"scores/layer1.0", "scores/layer1.0.relu#2"}
        assert torch.equal(file.get_tensor("scores/layer1.0"), BY_HAND["layer1.0"])
    assert record["format"] == 1
    assert record["tasks"] == ["shirt", "sneaker"]
    assert record["addresses"] == ["layer1.0", "layer1.0.relu#2"]
    assert record["units"] == [4, 3]
    assert record["written_by"]["torch"] == torch.__version__
    for key in (
        "network",
        "weights_id",
        "class_names",
        "objective",
        "settings",
        "seed",
        "threshold",
        "versions",
    ):
        assert record[key] == FULL_META[key]
    assert record["meta"] == {"control": None, "permutation": [1, 0]}
    assert len(record["sha256"]) == 64


def test_forward_order_is_kept_whatever_the_tensors_are_named(path: Path) -> None:
    scores = {name: torch.rand(1, 2) for name in ("stem", "layer10", "layer2", "a", "__metadata__")}
    masks = MaskSet.from_scores(scores, ["x"])
    assert list(MaskSet.load(masks.save(path)).scores) == list(scores)


def test_loaded_scores_can_be_written_to_without_touching_the_file(path: Path) -> None:
    masks = by_hand()
    loaded = MaskSet.load(masks.save(path))
    loaded.scores["layer1.0"].zero_()
    assert MaskSet.load(path) == masks


# The history ------------------------------------------------------------------------------------------


def test_a_file_keeps_eleven_whole_steps_and_of_those_all(path: Path) -> None:
    steps, tasks = 200, ["shirt", "sneaker"]
    history = pd.DataFrame(
        [
            {"step": step, "task": task, "loss": math.exp(-step / 50) / 3, "kept": step % 7}
            for step in range(steps)
            for task in tasks
        ]
    )
    history.loc[0, "loss"] = math.nan
    masks = MaskSet(("shirt", "sneaker"), BY_HAND, history)
    found = MaskSet.load(masks.save(path)).history
    assert found is not None
    assert list(found.columns) == list(history.columns)
    assert found["step"].unique().tolist() == [0, 20, 40, 60, 80, 100, 119, 139, 159, 179, 199]
    assert found["task"].tolist() == tasks * 11
    expected = history.set_index(["step", "task"]).loc[list(zip(found["step"], found["task"], strict=True))]
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-5)
    assert math.isnan(found["loss"][0])
    assert found["kept"].tolist() == expected["kept"].tolist()
    first = path.read_bytes()
    MaskSet.load(path).save(path)
    assert path.read_bytes() == first


@pytest.mark.parametrize(
    "history",
    [
        pd.DataFrame(),
        pd.DataFrame({"loss": [1.0, 2.0]}),
        pd.DataFrame({"step": [0], "when": [pd.Timestamp("2024-01-01")], "n": [np.int64(4)], "ok": [True]}),
        pd.DataFrame([[1, 2]], columns=["a", "a"]),
        pd.DataFrame({"loss": range(5000)}),
        pd.DataFrame({"step": [0] * 5000 + [1] * 5000, "loss": 0.0}),
    ],
)
def test_any_history_can_be_saved(path: Path, history: pd.DataFrame) -> None:
    found = MaskSet.load(MaskSet(("a",), {"fc": torch.zeros(1, 1)}, history).save(path)).history
    assert found is not None
    assert list(found.columns) == list(history.columns)
    assert len(found) == (len(history) if "step" in history else min(len(history), 11))


# Damage -----------------------------------------------------------------------------------------------


def refused(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(MaskFileError) as caught:
        MaskSet.load(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    history = pd.DataFrame({"step": [0, 1], "loss": [0.5, 0.25]})
    masks = MaskSet(("shirt", "sneaker"), BY_HAND, history, FULL_META)
    return masks.save(tmp_path_factory.mktemp("whole") / "masks.safetensors").read_bytes()


def damage_is_seen(path: Path, whole: bytes, damaged: bytes) -> None:
    """Refused with the right error, or (bytes that mean the same) loaded as what was saved."""
    path.write_bytes(damaged)
    try:
        loaded = MaskSet.load(path)
    except MaskFileError:
        return
    path.write_bytes(whole)
    assert loaded == MaskSet.load(path)
    assert loaded.history is not None
    assert loaded.history["loss"].tolist() == [0.5, 0.25]


def test_every_single_flipped_bit_is_refused(path: Path, whole: bytes) -> None:
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        refused(path, bytes(damaged))


@given(st.data())
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_damage_never_loads_wrongly(path: Path, whole: bytes, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["flip", "truncate", "insert", "delete", "replace", "double", "append"]))
    place = data.draw(st.integers(0, len(whole) - 1))
    end = data.draw(st.integers(place, len(whole)))
    new = data.draw(st.binary(min_size=1, max_size=16))
    damaged = {
        "flip": whole[:place] + bytes([whole[place] ^ new[0]]) + whole[place + 1 :],
        "truncate": whole[:place],
        "insert": whole[:place] + new + whole[place:],
        "delete": whole[:place] + whole[end:],
        "replace": whole[:place] + new + whole[place + len(new) :],
        "double": whole[:end] + whole[place:],
        "append": whole + new,
    }[kind]
    damage_is_seen(path, whole, damaged)


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_bytes_are_refused(path: Path, data: bytes) -> None:
    refused(path, data)
    refused(path, struct.pack("<Q", len(data)) + data)


@given(json_values, st.sampled_from(["__metadata__", "nadkit"]))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_headers_are_refused(path: Path, value: object, where: str) -> None:
    outer = value if where == "__metadata__" else {"__metadata__": {"nadkit": json.dumps(value)}}
    header = json.dumps(outer).encode()
    refused(path, struct.pack("<Q", len(header)) + header)


RECORD: dict[str, object] = {
    "format": 1, "kind": "masks", "tasks": ["a", "b"], "addresses": ["fc"], "units": [2], "history": None,
    "written_by": {}, "meta": {}, "network": None, "weights_id": None, "class_names": None, "objective": None,
    "settings": None, "seed": None, "threshold": None, "versions": None,
}  # fmt: skip
TENSORS = {"scores/fc": torch.tensor([[0.0, 1.0], [0.5, 0.25]])}


def test_the_forged_file_of_the_next_test_would_load(path: Path) -> None:
    path.write_bytes(seal(RECORD, TENSORS))
    assert MaskSet.load(path).scores["fc"].tolist() == [[0, 1], [0.5, 0.25]]


@pytest.mark.parametrize(
    ("changes", "tensors", "reason"),
    [
        ({"format": 2}, {}, "format version is 2 and this nadkit reads 1"),
        ({"format": True}, {}, "format version"),
        ({"format": "1"}, {}, "format version"),
        ({"kind": "network"}, {}, "holds 'network', not masks"),
        ({"seed": ...}, {}, "lacks seed"),
        ({"format": ...}, {}, "no format version"),
        ({"tasks": ...}, {}, "lacks tasks"),
        ({"note": 1}, {}, r"did not write \(note\)"),
        ({"tasks": ["a", "a"]}, {}, "tasks name 'a' twice"),
        ({"tasks": ["a"]}, {}, "bytes and should have"),
        ({"tasks": "ab"}, {}, "no list of names"),
        ({"tasks": []}, {}, "no list of names"),
        ({"tasks": [1, 2]}, {}, "no list of names"),
        ({"addresses": ["fc", "fc"], "units": [1, 1]}, {}, "addresses name 'fc' twice"),
        ({"addresses": ["conv"]}, {}, "lacks the tensor 'scores/conv'"),
        ({"addresses": []}, {}, "no list of names"),
        ({"units": [3]}, {}, "bytes and should have"),
        ({"units": [1, 1]}, {}, "2 unit counts for 1 addresses"),
        ({"units": [2.0]}, {}, "unit counts"),
        ({"units": [-2]}, {}, "unit counts"),
        ({"units": None}, {}, "unit counts"),
        ({"meta": []}, {}, "meta is no mapping"),
        ({"history": []}, {}, "history is no table"),
        ({"history": {"columns": ["a"], "rows": [[1, 2]]}}, {}, "damaged"),
        ({}, {"scores/fc": torch.tensor([[0.0, 1.5], [0, 0]])}, r"1\.5, outside \[0, 1\]"),
        ({}, {"scores/fc": torch.tensor([[0.0, math.nan], [0, 0]])}, "not a number"),
        ({}, {"scores/fc": torch.zeros(4)}, r"F32 \[4\]; expected F32 \[2, 2\]"),
        ({}, {"scores/fc": torch.zeros(2, 2, dtype=torch.int32)}, "I32"),
        ({}, {"scores/fc": torch.zeros(4, 2, dtype=torch.float16)[:2]}, "bytes and should have"),
        ({}, {"more": torch.zeros(2)}, "bytes and should have"),
        ({"units": [4]}, {"more": torch.zeros(4)}, "tensor that nadkit did not write"),
    ],
)
def test_well_sealed_nonsense_is_refused_with_the_reason(
    path: Path, changes: dict[str, object], tensors: dict[str, Tensor], reason: str
) -> None:
    record = {key: value for key, value in {**RECORD, **changes}.items() if value is not ...}
    message = refused(path, seal(record, {**TENSORS, **tensors}))
    assert pytest.RaisesExc(MaskFileError, match=reason).matches(MaskFileError(message)), message


def test_foreign_files_are_refused_by_what_they_are(path: Path) -> None:
    assert "no nadkit masks" in refused(path, safetensors.torch.save({"w": torch.zeros(2)}))
    assert "no nadkit masks" in refused(path, safetensors.torch.save({"w": torch.zeros(2)}, {"format": "pt"}))
    assert "did not write (format)" in refused(
        path, safetensors.torch.save({"w": torch.zeros(2)}, {"nadkit": "{}", "format": "pt"})
    )
    assert "no safetensors" in refused(path, b"")
    assert "no safetensors" in refused(path, b"\x80\x04\x95" + bytes(50))
    deep = b'{"__metadata__":{"nadkit":"' + b"[" * 100_000 + b'"}}'
    assert "damaged" in refused(path, struct.pack("<Q", len(deep)) + deep)
    deep = b"[" * 100_000
    assert "damaged" in refused(path, struct.pack("<Q", len(deep)) + deep)


def test_truncation_is_named(path: Path, whole: bytes) -> None:
    assert "truncated" in refused(path, whole[:-1])
    assert "truncated" in refused(path, whole[:100])
    assert "truncated" in refused(path, whole + b"\0")


def test_an_altered_score_is_named(path: Path, whole: bytes) -> None:
    data = bytearray(whole)
    data[-4:] = struct.pack("<f", 0.25)
    assert "SHA-256" in refused(path, bytes(data))


def test_altered_text_is_named(path: Path, whole: bytes) -> None:
    assert "SHA-256" in refused(path, whole.replace(b"resnet-fashion", b"resnet-fasbion"))
    assert "rewritten" in refused(path, whole.replace(rb"\"steps\":200", rb"\"steps\":2e2"))


def test_paths_that_lead_to_no_file_are_refused(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none.safetensors", "a\0b", None, 3.5):
        with pytest.raises(MaskFileError, match="is refused"):
            MaskSet.load(place)  # type: ignore[arg-type]


def test_places_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none" / "m.safetensors", "a\0b", None):
        with pytest.raises(MaskFileError, match="cannot be saved"):
            by_hand().save(place)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["meta", "history"])
def test_what_could_not_be_loaded_again_is_not_saved(tmp_path: Path, what: str) -> None:
    path = MaskSet.from_scores({"conv": torch.eye(2)}, ["a", "b"]).save(tmp_path / "m.safetensors")
    before = path.read_bytes()
    count = 40_000
    tasks = [f"task {number}" for number in range(count if what == "history" else 1)]
    history = pd.DataFrame({"step": 1, "task": tasks, "loss": 0.25, "kept_share": 0.5})
    long = MaskSet(
        tuple(tasks), {"conv": torch.rand(len(tasks), 1)}, history if what == "history" else None,
        {"pairs": [[1, 2]] * 500_000} if what == "meta" else {},
    )  # fmt: skip
    with pytest.raises(MaskFileError, match=r"could not be loaded again: its header of .* bytes of memory"):
        long.save(path)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    assert long["task 0"].with_meta(pairs=[]).save(path).read_bytes() != before
    assert MaskSet.load(path).tasks == ("task 0",)


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    by_hand(seed=0).save(path)

    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises((MaskFileError, KeyboardInterrupt)):
            by_hand(seed=1).save(path)
    assert MaskSet.load(path) == by_hand(seed=0)
    assert list(path.parent.iterdir()) == [path]


def test_a_saved_file_has_the_mode_that_others_expect(path: Path) -> None:
    by_hand().save(path)
    (path.parent / "plain").write_bytes(b"")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((path.parent / "plain").stat().st_mode)


def test_saving_through_a_link_writes_the_file_it_points_to(path: Path) -> None:
    link = path.with_name("link")
    by_hand(seed=0).save(path)
    link.symlink_to(path)
    by_hand(seed=1).save(link)
    assert link.is_symlink()
    assert MaskSet.load(path) == by_hand(seed=1)


def test_masks_import_no_pandas_until_a_table_is_asked_for(path: Path) -> None:
    by_hand(seed=0).save(path)
    code = (
        "import sys; from nadkit.masks import MaskSet; masks = MaskSet.load(sys.argv[1]); masks.gates(); "
        "repr(masks); print('pandas' in sys.modules)"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_of_many_reasons_of_one_kind_three_are_told() -> None:
    layers = {f"layer{at}": torch.rand(1, 2) for at in range(30)}
    masks = MaskSet.from_scores(layers, ["shirt"])
    other = SimpleNamespace(
        name="net", weights_id="ab", class_names=("shirt",), layers={"conv": SimpleNamespace(units=2)}
    )
    with pytest.raises(MaskFileError) as told:
        masks.check(other)
    assert str(told.value).count("it has no layer") == 3
    assert "and 27 more such" in str(told.value)
    assert len(str(told.value)) < 400
