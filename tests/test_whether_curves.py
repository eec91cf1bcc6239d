"""The curve of `whether` over kept shares: its rows are those of single calls, and what is made of them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hand import TASKS, cell, make_images, make_masks, make_network, value

import nadkit.questions.controls as controls_module
import nadkit.questions.curves as curves_module
from nadkit.errors import MaskFileError, NadkitError
from nadkit.images import Images
from nadkit.masks import MaskSet
from nadkit.networks import Network
from nadkit.questions import whether

SHARES = (0.3, 0.5, 0.8)
METRIC = "balanced_accuracy_calibrated"
CURVES = ["area", "smallest_share", "short_again"]


def sets_of(share: float) -> dict[str, MaskSet]:
    seed = round(10 * share)
    return {
        "kept": make_masks(seed, share=share, meta={"seed": seed}),
        "shared": make_masks(seed + 1, share=share),
        "relabelled": make_masks(seed + 2, share=share, meta={"permutation": [0, 2, 3]}),
    }


@pytest.fixture(scope="module")
def network() -> Network:
    return make_network()


@pytest.fixture(scope="module")
def images() -> Images:
    return make_images((8, 9, 7, 8), seed=1)


@pytest.fixture(scope="module")
def held_back() -> Images:
    return make_images((6, 7, 9, 8), seed=50)


@pytest.fixture(scope="module")
def masks() -> MaskSet:
    return make_masks(20)


@pytest.fixture(scope="module")
def table(network: Network, images: Images, held_back: Images, masks: MaskSet) -> pd.DataFrame:
    shares = {share: sets_of(share) for share in reversed(SHARES)}
    return whether(
        network, masks, images, calibrate_on=held_back, controls=None, draws=3, shares=shares, seed=2
    )


def test_every_point_is_that_of_a_call_at_its_share(
    table: pd.DataFrame, network: Network, images: Images, held_back: Images
) -> None:
    points = table[table["share"].notna()]
    assert points["share"].unique().tolist() == list(SHARES)
    for share in SHARES:
        sets = sets_of(share)
        kept = sets.pop("kept")
        single = whether(
            network, kept, images, calibrate_on=held_back, controls=sets, draws=3, seed=2,
            parts=["sufficiency", "comparison"],
        )  # fmt: skip
        compared = 0
        for row in points[points["share"] == share].itertuples():
            there = cell(single, row.task, row.condition, row.metric)
            for column in ("value", "low", "high", "n", "interval"):
                assert there[column] == pytest.approx(getattr(row, column)) if column != "interval" else True
            assert there["interval"] == row.interval
            compared += 1
        # Four tasks and their mean of four metrics, recomposed accuracy, five conditions; and the excess.
        assert compared == 5 * (4 * 4 + 1) + 4
    conditions = {"kept", "random", "last_layer", "relabelled", "shared"}
    assert set(points["condition"]) == conditions


def test_the_area_is_the_mean_height(table: pd.DataFrame) -> None:
    for condition in ("kept", "random", "shared", "last_layer"):
        for task in (*TASKS, "mean"):
            heights = [value(table, task, condition, METRIC, share=share) for share in SHARES]
            row = cell(table, task, condition, "area")
            assert row["value"] == pytest.approx(np.trapezoid(heights, SHARES) / 0.5)
            assert row["low"] <= row["value"] <= row["high"]
    # What is known of three points together is known better than what is known of each.
    mean = cell(table, "mean", "kept", "area")
    widths = [cell(table, "mean", "kept", METRIC, share=share) for share in SHARES]
    assert mean["high"] - mean["low"] < max(row["high"] - row["low"] for row in widths)


def test_the_smallest_share_reaches_95_percent_of_the_better_of_the_whole_networks_values(
    table: pd.DataFrame,
) -> None:
    reached = 0
    for condition in ("kept", "random", "last_layer", "shared", "relabelled"):
        for task in (*TASKS, "mean"):
            goal = 0.95 * max(value(table, task, "whole", metric) for metric in ("balanced_accuracy", METRIC))
            enough = {
                end: [s for s in SHARES if cell(table, task, condition, METRIC, share=s)[end] >= goal]
                for end in ("value", "low", "high")
            }
            row = cell(table, task, condition, "smallest_share")
            for end, from_end in (("value", "value"), ("low", "high"), ("high", "low")):
                first = min(enough[from_end], default=math.nan)
                assert row[end] == pytest.approx(first, nan_ok=True)
            assert (row["n"] == 0) == math.isnan(row["value"])
            reached += row["n"] > 0
            again = [s for s in SHARES if s > row["value"]
                     and cell(table, task, condition, METRIC, share=s)["value"] < goal]  # fmt: skip
            found = value(table, task, condition, "short_again")
            assert found == pytest.approx(max(again, default=math.nan), nan_ok=True)
    assert 0 < reached < 20
    assert "Over kept shares, 0.95 of the balanced accuracy of hand is reached by" in table.attrs["answer"]


def test_the_rows_of_the_masks_themselves_are_as_without_a_curve(
    table: pd.DataFrame, network: Network, images: Images, held_back: Images, masks: MaskSet
) -> None:
    alone = whether(network, masks, images, calibrate_on=held_back, controls=None, draws=3, seed=2)
    both = table[table["share"].isna() & ~table["metric"].isin(CURVES)].drop(columns="share")
    pd.testing.assert_frame_equal(both.reset_index(drop=True), alone, check_dtype=False, atol=1e-9)


def test_a_curve_alone_and_a_single_share(network: Network, images: Images, masks: MaskSet) -> None:
    shares = {0.5: {"kept": [make_masks(5), make_masks(6)]}}
    table = whether(network, masks, images, controls=None, draws=0, parts=[], shares=shares)
    assert set(table["condition"]) == {"kept", "last_layer"}
    assert "area" not in set(table["metric"])  # of one point there is none
    assert cell(table, "mean", "kept", "smallest_share")["interval"] == "mask seeds × images"


def test_the_excess_of_a_share_says_which_controls_were_learned_otherwise(
    network: Network, images: Images, masks: MaskSet
) -> None:
    def told(steps: int) -> dict[str, object]:
        return {"objective": "one-vs-rest", "settings": {"kept_share": [0.5] * 3, "steps": steps}}

    own = make_masks(3, share=0.5, meta=told(800))
    shares = {
        share: {"kept": own, "shared": make_masks(3, share=0.5, meta=told(steps))}
        for share, steps in ((0.3, 800), (0.5, 100))
    }
    table = whether(network, masks, images, controls=None, draws=0, parts=[], shares=shares)
    texts = [cell(table, "mean", "kept", "excess", share=share)["interval"] for share in shares]
    assert texts == [f"images, given this mask{more}" for more in ("", "; learned otherwise: shared (steps)")]


def test_a_control_that_is_not_at_every_share_has_no_area(
    network: Network, images: Images, masks: MaskSet
) -> None:
    shares = {share: {"kept": sets_of(share)["kept"]} for share in SHARES[:2]}
    shares[0.3]["shared"] = make_masks(9)
    table = whether(network, masks, images, controls=None, draws=0, parts=[], shares=shares)
    assert set(table[table["metric"] == "area"]["condition"]) == {"kept", "last_layer"}
    assert set(table[table["metric"] == "smallest_share"]["condition"]) == {"kept", "last_layer", "shared"}


def test_shares_of_a_bundled_network_take_its_masks(
    network: Network, images: Images, masks: MaskSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    meta = {"weights_id": network.weights_id, "settings": {"kept_share": 0.5}}
    half = {"1": [[1.0, 1, 1, 0, 0]] * 4, "3": [[1.0, 1, 1, 0, 0, 0, 0]] * 4}
    names = ("boot", "shirt", "bag", "coat")

    def load(name: str, *, kept_share: float, seed: int, control: str | None = None) -> MaskSet:
        import torch

        if kept_share != 0.5:
            raise NadkitError(f"no bundled masks of {name} for kept_share={kept_share}; there are: 50-s0")
        asked.append((seed, control))
        scores = {address: torch.tensor(rows) for address, rows in half.items()}
        return MaskSet.from_scores(scores, names, {**meta, "seed": seed})

    def path(name: str, *, objective: str, kept_share: float, seed: int, control: str | None) -> Path:
        assert (name, objective) == ("hand", "one-vs-rest")
        there = (control is None and seed < 2) or (control == "shared" and seed == 0)
        return Path(__file__) if there and kept_share == 0.5 else Path("nowhere")

    asked: list[tuple[int, str | None]] = []
    for module in (controls_module, curves_module):
        monkeypatch.setattr(module, "BUNDLED", ("hand",))
        monkeypatch.setattr(module, "mask_path", path)
        monkeypatch.setattr(module, "load_masks", load)
    table = whether(network, [masks] * 3, images, controls=None, draws=0, parts=[], shares=[0.5])
    assert asked == [(0, None), (1, None), (0, "shared")]  # as many seeds as there are of the masks
    assert set(table["condition"]) == {"kept", "last_layer", "shared"}
    assert cell(table, "bag", "kept", METRIC.removesuffix("_calibrated"), share=0.5)["n"] == 32
    with pytest.raises(NadkitError, match="there are: 50-s0"):
        whether(network, masks, images, shares=[0.3, 0.5])


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ([0.3], "shares=0.3 takes bundled masks, and 'hand' is no bundled network"),
        ([], "give kept shares above 0"),
        ([0.3, 0.3], "each once"),
        ([0.0], "above 0 and up to 1"),
        ([1.5], "above 0 and up to 1"),
        ({0.3: {"shared": make_masks(1)}}, "0.3 has no masks 'kept'"),
        ({0.3: make_masks(1)}, "0.3 has no masks 'kept'"),
        (
            {0.3: {"kept": make_masks(1), "shred": make_masks(1)}},
            "no masks 'shred' on a curve; closest: shared",
        ),
        ({0.3: {"kept": "masks"}}, "'kept' of the kept share 0.3 is no MaskSet"),
        ({0.3: {"kept": None}}, "'kept' of the kept share 0.3 is no MaskSet"),
        ({0.3: {"kept": make_masks(1, tasks=("bag",))}}, "0.3 has no masks for coat, boot"),
        ({0.3: {"kept": make_masks(1), "shared": "masks"}}, "is no MaskSet"),
    ],
)
def test_shares_that_cannot_serve_are_refused(
    network: Network, images: Images, masks: MaskSet, shares: object, message: str
) -> None:
    with pytest.raises(NadkitError, match=message):
        whether(network, masks, images, shares=shares)  # type: ignore[arg-type]


def test_masks_of_another_network_on_a_curve_are_refused(
    network: Network, images: Images, masks: MaskSet
) -> None:
    foreign = make_masks(1, meta={"network": "other"})
    with pytest.raises(MaskFileError, match="other"):
        whether(network, masks, images, controls=None, shares={0.3: {"kept": foreign}})


def test_the_bundled_curve_is_read_and_not_measured(
    network: Network,
    images: Images,
    masks: MaskSet,
    table: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    curve = table[table["share"].notna() | table["metric"].isin(CURVES)]
    curve = curve[curve["task"].isin(["mean", "all"])].reset_index(drop=True)
    curve.assign(network=network.name).to_csv(tmp_path / f"curve-{network.name}.csv", index=False)
    monkeypatch.setattr(curves_module, "DATA", tmp_path)
    with pytest.raises(NadkitError, match=r"no curve comes with hand .*; there are curves of no network"):
        whether(network, masks, images, controls=None, draws=0, shares="bundled")
    monkeypatch.setattr(curves_module, "BUNDLED", (network.name,))
    monkeypatch.setattr(curves_module, "load_network", lambda _: make_network())
    every = make_masks(20, tasks=network.class_names)
    with pytest.raises(NadkitError, match="is of all 4 tasks, and the masks are of 3"):
        whether(network, masks, images, controls=None, draws=0, shares="bundled")
    plain = whether(network, every, images, controls=None, draws=0)
    found = whether(network, every, images, controls=None, draws=0, shares="bundled")
    theirs = found[found["share"].notna() | found["metric"].isin(CURVES)]
    pd.testing.assert_frame_equal(
        theirs.reset_index(drop=True)[curve.columns.intersection(theirs.columns)],
        curve[curve.columns.intersection(theirs.columns)],
        rtol=1e-6,
    )
    assert len(found) == len(plain) + len(curve)
    assert found.attrs["answer"].startswith(plain.attrs["answer"][:40])
    monkeypatch.setattr(curves_module, "load_network", lambda _: make_network(1))
    with pytest.raises(NadkitError, match="no curve comes with hand"):
        whether(network, every, images, controls=None, draws=0, shares="bundled")
    with pytest.raises(NadkitError, match="or 'bundled'"):
        whether(network, every, images, controls=None, draws=0, shares="bundle")
