"""`where` on a network whose units are known, and against a slow table made mosaic by mosaic."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch
from scipy.stats import t as student_t
from torch import Tensor, nn
from torch.nn.functional import conv2d

import nadkit.questions.depth.conditions as conditions_module
import nadkit.questions.depth.material as material_module
from nadkit.errors import ImageError, MaskFileError, NadkitError
from nadkit.figures._depth import where as draw
from nadkit.images import Images, load_images
from nadkit.masks import MaskSet
from nadkit.measures import stratified_weights
from nadkit.measures.hits import released_hits
from nadkit.networks import Network
from nadkit.questions.depth import COLUMNS, where
from nadkit.questions.depth.conditions import other_tasks
from nadkit.questions.depth.profiles import Profile, Shares, correlation_with_depth, profile
from nadkit.questions.depth.reading import where_answer
from nadkit.questions.outcomes import RANDOM

NAMES = ("ant", "bee", "cow", "doe", "elk")


def cell(table: pd.DataFrame, task: str, condition: str, layer: str, metric: str = "hit_rate") -> pd.Series:
    rows = table[
        (table["task"] == task)
        & (table["condition"] == condition)
        & (table["layer"] == layer)
        & (table["metric"] == metric)
    ]
    assert len(rows) == 1, (task, condition, layer, metric, len(rows))
    return rows.iloc[0]


def value(table: pd.DataFrame, task: str, condition: str, layer: str, metric: str = "hit_rate") -> float:
    return float(cell(table, task, condition, layer, metric)["value"])


# A network whose unit k is active exactly where class k's spot is.


def spots(per_class: int, names: Sequence[str] = NAMES, seed: int = 0) -> Images:
    """Pictures of one channel a class, 8 × 8, with a spot of 2 × 2 near the middle of the class's own."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(names)).repeat_interleave(per_class)
    pixels = torch.zeros(len(labels), len(names), 8, 8)
    for picture, label in zip(pixels, labels.tolist(), strict=True):
        y, x = torch.randint(2, 5, (2,), generator=generator).tolist()
        picture[label, y : y + 2, x : x + 2] = 0.5 + torch.rand(1, generator=generator)
    return Images(pixels, labels, tuple(names))


def spotter(names: Sequence[str] = NAMES, name: str = "spotter", fixed: bool = False) -> Network:
    """Its layers pass the channels on, on ever coarser grids; the last has no places left."""
    count = len(names)
    head = [nn.AvgPool2d(4), nn.Flatten()] if fixed else [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(
            nn.Identity(), nn.MaxPool2d(2), nn.AvgPool2d(3, 1, 1), *head, nn.Linear(count, count)
        )
    with torch.no_grad():
        model[-1].weight.copy_(50 * torch.eye(count))
        model[-1].bias.zero_()
    example = torch.zeros(1, count, 8, 8)
    return Network.wrap(model, names, example=example, layers=["0", "1", "2", "3"], name=name)


def own_units(names: Sequence[str] = NAMES) -> MaskSet:
    return MaskSet.from_scores({layer: torch.eye(len(names)) for layer in "0123"}, names)


@pytest.fixture(scope="module")
def planted() -> pd.DataFrame:
    return where(spotter(NAMES[:4]), own_units(NAMES[:4]), spots(6, NAMES[:4]), mosaics=12, draws=8)


def test_a_unit_of_one_class_hits_its_quadrant_and_no_other(planted: pd.DataFrame) -> None:
    for task in (*NAMES[:4], "mean"):
        for layer in "012":
            assert value(planted, task, "kept", layer) == pytest.approx(1)
            assert value(planted, task, "ceiling", layer) == pytest.approx(1, abs=0.005)
            # With four classes the other mask is of another quadrant, where all of its energy is.
            assert value(planted, task, "other", layer) == pytest.approx(0)
            assert value(planted, task, "kept", layer, "hit_rate_excess") == pytest.approx(1)
    for layer in "012":
        assert value(planted, "mean", "whole", layer) == pytest.approx(0.25)
        random = cell(planted, "mean", "random", layer)
        assert 0 < random["value"] < 0.6
        assert random["low"] < random["value"] < random["high"]


def test_a_mask_of_no_class_in_the_mosaic_is_silent_and_counted() -> None:
    table = where(spotter(), own_units(), spots(6), mosaics=10, draws=0)
    assert value(table, "mean", "kept", "0") == pytest.approx(1)
    # With five classes one is outside every mosaic; its unit has nothing to see there.
    other = cell(table, "mean", "other", "0")
    assert math.isnan(other["value"])
    assert other["n"] == 0
    assert value(table, "all", "other", "0", "hit_rate_undefined") == 1
    assert value(table, "all", "kept", "0", "hit_rate_undefined") == 0
    assert cell(table, "all", "kept", "0", "hit_rate_undefined")["n"] == 40
    assert "random" not in set(table["condition"])
    assert "another task's mask" not in table.attrs["answer"]


def test_a_layer_without_rows_and_columns_has_no_value(planted: pd.DataFrame) -> None:
    for condition in ("kept", "whole", "other", "ceiling", "random"):
        row = cell(planted, "mean", condition, "3")
        assert math.isnan(row["value"])
        assert row["n"] == 0
    assert value(planted, "all", "kept", "3", "hit_rate_undefined") == 1
    # Steps and the rank correlation are of the layers that have a value.
    assert planted.query("metric == 'hit_rate_step'")["layer"].tolist() == ["1", "2"]


def test_a_task_that_keeps_nothing_in_a_layer_has_no_value_there() -> None:
    scores = {layer: torch.eye(4) for layer in "0123"}
    scores["2"][1] = 0
    masks = MaskSet.from_scores(scores, NAMES[:4])
    table = where(spotter(NAMES[:4]), masks, spots(6, NAMES[:4]), mosaics=12, draws=4)
    row = cell(table, "bee", "kept", "2")
    assert math.isnan(row["value"])
    assert row["n"] == 0
    assert math.isnan(value(table, "bee", "kept", "2", "hit_rate_excess"))
    assert value(table, "bee", "kept", "1") == pytest.approx(1)
    assert value(table, "mean", "kept", "2") == pytest.approx(1)  # of the three tasks that have one
    assert value(table, "all", "kept", "2", "hit_rate_undefined") == pytest.approx(0.25)
    nothing = MaskSet.from_scores({layer: torch.zeros(4, 4) for layer in "0123"}, NAMES[:4])
    empty = where(spotter(NAMES[:4]), nothing, spots(6, NAMES[:4]), mosaics=4, draws=2)
    assert empty.query("condition == 'kept' and metric == 'hit_rate'")["value"].isna().all()
    assert "no task has a hit rate" in empty.attrs["answer"]


def test_classes_are_matched_by_name() -> None:
    network, masks = spotter(), own_units()
    order = [3, 1, 4, 2, 0]
    images = spots(6)
    turned = images.subset([NAMES[place] for place in order])
    table = where(network, masks[["elk", "ant", "doe", "cow", "bee"]], turned, mosaics=5, draws=0)
    assert value(table, "mean", "kept", "1") == pytest.approx(1)
    assert table["task"].unique().tolist()[:5] == ["elk", "ant", "doe", "cow", "bee"]
    # Of a subset: the mosaics are of its classes, and the task without a picture has an empty row.
    subset = where(network, masks, images.subset(["elk", "ant", "doe", "cow"]), mosaics=6, draws=0)
    row = cell(subset, "bee", "kept", "1")
    assert math.isnan(row["value"])
    assert row["n"] == 0
    assert value(subset, "elk", "kept", "1") == pytest.approx(1)
    # The one mask outside is of a task without pictures.
    assert value(subset, "all", "other", "1", "hit_rate_undefined") == 1
    # With fewer than four tasks, classes that are no task fill the other quadrants.
    few = where(network, masks[["cow", "elk"]], images, mosaics=20, draws=0)
    assert value(few, "cow", "kept", "1") == pytest.approx(1)
    assert cell(few, "cow", "kept", "1")["n"] == 16
    alone = where(network, masks["cow"], images, mosaics=20, draws=0)
    assert math.isnan(value(alone, "cow", "other", "1"))


def test_only_pictures_that_the_network_gets_right_are_shown() -> None:
    network, masks = spotter(NAMES[:4]), own_units(NAMES[:4])
    images = spots(6, NAMES[:4])
    labels = images.labels.clone()
    labels[::6] = (labels[::6] + 1) % 4  # one of six of each class is called something else
    wrong = Images(images.pixels, labels, images.class_names)
    table = where(network, masks, wrong, mosaics=40, draws=0)
    assert value(table, "mean", "kept", "0") == pytest.approx(1)
    official = where(network, masks, wrong, mosaics=40, draws=0, protocol="official")
    assert value(official, "mean", "kept", "0", "hit_rate_official") < 0.95
    with pytest.raises(ImageError, match="classifies correctly of four classes, there are none"):
        where(network, masks, Images(images.pixels, (images.labels + 1) % 4, images.class_names))
    labels = torch.where(images.labels == 2, 1, images.labels)
    with pytest.raises(ImageError, match="some of ant, bee, doe"):
        where(network, masks, Images(images.pixels, labels, images.class_names))


def test_a_network_of_one_size_is_shown_small_mosaics(planted: pd.DataFrame) -> None:
    assert planted.attrs["mosaics"] == {"spotter": "at object scale"}
    network = spotter(NAMES[:4], fixed=True)
    table = where(network, own_units(NAMES[:4]), spots(6, NAMES[:4]), mosaics=12, draws=0)
    assert table.attrs["mosaics"] == {"spotter": "resized to the network's input"}
    assert value(table, "mean", "kept", "0") > 0.95
    assert table.attrs["answer"].startswith("spotter: the hit rate of the kept units")


def test_the_scale_of_a_unit_does_not_matter() -> None:
    network, _, images, masks = study()
    first = where(network, masks, images, mosaics=12, draws=2)
    model = network.model
    scales = torch.tensor([1e-3, 10.0, 1.0, 300.0, 0.5, 7.0])
    scaled = nn.Sequential(*(nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 3, 2, 1), *model[3:]))
    with torch.no_grad():
        scaled[0].weight.copy_(model[0].weight * scales[:, None, None, None])
        scaled[0].bias.copy_(model[0].bias * scales)
        scaled[2].weight.copy_(model[2].weight / scales[:, None, None])
        scaled[2].bias.copy_(model[2].bias)
    other = Network.wrap(scaled, NAMES, example=images.pixels[:1], layers=["1", "3"], name="conv")
    second = where(other, masks, images, mosaics=12, draws=2)
    pd.testing.assert_series_equal(first["value"], second["value"], rtol=0, atol=1e-4)


def test_the_seed_decides_everything() -> None:
    network, _, images, masks = study()
    first, again = (where(network, masks, images, mosaics=8, draws=3, seed=5) for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    other = where(network, masks, images, mosaics=8, draws=3, seed=6)
    assert value(first, "mean", "kept", "3") != value(other, "mean", "kept", "3")


def test_the_network_is_left_as_it_was() -> None:
    network, _, images, masks = study()
    network.model.train()
    where(network, masks, images, mosaics=4, draws=1)
    assert network.model.training
    assert not network.model[1]._forward_hooks
    assert network.input_shape == (2, 5, 5)


# The slow way: mosaic by mosaic, layer by layer, quadrant by quadrant.


def study(seed: int = 0, size: int = 5) -> tuple[Network, list[Tensor], Images, MaskSet]:
    """A random network of two layers, and pictures most of which it calls what they are called."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 3, 2, 1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 5),
        )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=generator))
        pixels = torch.randn(150, 2, size, size, generator=generator)
        logits = model(pixels)
        model[-1].weight.div_(logits.std(0)[:, None])
        model[-1].bias.copy_((model[-1].bias - logits.mean(0)) / logits.std(0))
        labels = model(pixels).argmax(1)
    labels[::7] = (labels[::7] + 1) % 5
    network = Network.wrap(model, NAMES, example=pixels[:1], layers=["1", "3"], name="conv")
    tasks = ("doe", "ant", "elk", "bee", "cow")
    scores = {"1": torch.rand(5, 6, generator=generator), "3": torch.rand(5, 5, generator=generator)}
    scores["3"][:, 0] = 1.0
    masks = MaskSet.from_scores(scores, tasks, {"seed": 9})
    return network, [model[at].weight.detach() for at in (0, 2)], Images(pixels, labels, NAMES), masks


def slow_layers(network: Network, picture: Tensor, gates: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    first, _, second = network.model[:3]
    with torch.no_grad():
        one = conv2d(picture[None], first.weight, first.bias, padding=1)[0].clamp(min=0)
        one = one * gates["1"][:, None, None] if gates else one
        two = conv2d(one[None], second.weight, second.bias, stride=2, padding=1)[0].clamp(min=0)
        two = two * gates["3"][:, None, None] if gates else two
    return {"1": one.double(), "3": two.double()}


def slow_spreads(network: Network, images: Images) -> dict[str, np.ndarray]:
    every = [slow_layers(network, picture, None) for picture in images.pixels]
    return {at: np.std([each[at].numpy() for each in every], axis=(0, 2, 3)) for at in ("1", "3")}


def slow_hits(maps: Tensor, spread: np.ndarray) -> list[float]:
    energies = sum((maps[unit] / spread[unit]) ** 2 for unit in range(len(maps)) if spread[unit] > 0)
    height, width = energies.shape
    found = [0.0] * 4
    for y in range(2 * height):
        for x in range(2 * width):
            found[2 * (y >= height) + (x >= width)] += float(energies[y // 2, x // 2]) / 4
    return [each / sum(found) if sum(found) else math.nan for each in found]


class Slow:
    """Every hit of every mosaic, by condition."""

    def __init__(self, count: int, seed: int, draws: int) -> None:
        self.network, _, self.images, self.masks = study()
        network, images, masks = self.network, self.images, self.masks
        spreads = slow_spreads(network, images)
        with torch.no_grad():
            right = network(images.pixels).argmax(1) == images.labels
        mosaics = images[right.nonzero().flatten()].mosaics(count, seed, NAMES)
        self.tasks = torch.tensor([masks.tasks.index(name) for name in NAMES])[mosaics.classes]
        generator = torch.Generator().manual_seed(seed)
        others = other_tasks(self.tasks, 5, generator)
        blank = images.pixels.mean((0, 2, 3))[:, None, None].expand(2, 10, 10)
        self.hits: dict[str, dict[tuple[int, int, str], list[float]]] = {}
        for mosaic in range(count):
            pixels = mosaics.pixels[mosaic]
            for place in range(4):
                task, other = int(self.tasks[mosaic, place]), int(others[mosaic, place])
                assert other not in self.tasks[mosaic].tolist()
                gates = {at: gate[task] for at, gate in masks.gates().items()}
                foreign = {at: gate[other] for at, gate in masks.gates().items()}
                down, across = 5 * (place // 2), 5 * (place % 2)
                alone = blank.clone()
                alone[:, down : down + 5, across : across + 5] = pixels[
                    :, down : down + 5, across : across + 5
                ]
                empty = slow_layers(network, blank, gates)
                shown = slow_layers(network, alone, gates)
                every = {
                    "whole": [slow_layers(network, pixels, None)],
                    "kept": [slow_layers(network, pixels, gates)],
                    "other": [slow_layers(network, pixels, foreign)],
                    "ceiling": [{at: shown[at] - empty[at] for at in shown}],
                    "random": [
                        slow_layers(
                            network, pixels, {at: g[task] for at, g in masks.random(seed + d).gates().items()}
                        )
                        for d in range(draws)
                    ],
                }
                for condition, many in every.items():
                    for at in ("1", "3"):
                        found = [slow_hits(each[at], spreads[at])[place] for each in many]
                        self.hits.setdefault(condition, {})[mosaic, place, at] = found

    def means(self, condition: str, at: str) -> dict[str, float]:
        """Of every task and over tasks, of one repetition after the other."""
        found = {}
        for row, task in enumerate(self.masks.tasks):
            mine = [
                np.array(many)
                for (mosaic, place, layer), many in self.hits[condition].items()
                if layer == at and int(self.tasks[mosaic, place]) == row
            ]
            found[task] = float(np.mean(np.nanmean(mine, axis=0)))
        return {**found, "mean": sum(found.values()) / 5}


@pytest.fixture(scope="module")
def slow() -> Slow:
    return Slow(10, 3, 2)


@pytest.fixture(scope="module")
def table(slow: Slow) -> pd.DataFrame:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conditions_module, "SHARE", 1)  # so that every draw sees all
        patch.setattr(material_module, "BATCH", 40)  # so that pictures and mosaics come in several batches
        return where(slow.network, slow.masks, slow.images, mosaics=10, draws=2, seed=3)


def test_every_hit_rate_is_that_of_the_slow_way(table: pd.DataFrame, slow: Slow) -> None:
    for condition in ("kept", "whole", "other", "ceiling", "random"):
        for at in ("1", "3"):
            for task, number in slow.means(condition, at).items():
                assert value(table, task, condition, at) == pytest.approx(number, abs=1e-5), (condition, task)
    for at in ("1", "3"):
        assert value(table, "mean", "whole", at) == pytest.approx(0.25)
        for task in (*slow.masks.tasks, "mean"):
            excess = value(table, task, "kept", at) - value(table, task, "other", at)
            assert value(table, task, "kept", at, "hit_rate_excess") == pytest.approx(excess)
    step = value(table, "mean", "kept", "3") - value(table, "mean", "kept", "1")
    assert value(table, "mean", "kept", "3", "hit_rate_step") == pytest.approx(step)


def test_intervals_are_a_bootstrap_over_mosaics(table: pd.DataFrame, slow: Slow) -> None:
    weights = stratified_weights(torch.zeros(10, dtype=torch.int64), 1000, 3).numpy()
    hits = [
        (mosaic, int(slow.tasks[mosaic, place]), many[0])
        for (mosaic, place, layer), many in slow.hits["kept"].items()
        if layer == "3" and not math.isnan(many[0])
    ]
    drawn: dict[str, list[float]] = {task: [] for task in (*slow.masks.tasks, "mean")}
    for counts in weights.tolist():
        above, below = [0.0] * 5, [0.0] * 5
        for mosaic, row, hit in hits:
            above[row] += counts[mosaic] * hit
            below[row] += counts[mosaic]
        means = [a / b if b else math.nan for a, b in zip(above, below, strict=True)]
        for task, mean in zip(slow.masks.tasks, means, strict=True):
            drawn[task].append(mean)
        drawn["mean"].append(float(np.nanmean(means)))
    for task, numbers in drawn.items():
        row = cell(table, task, "kept", "3")
        wider = student_t.ppf(0.975, row["n"] - 1) / 1.959964
        ends = row["value"] + wider * (np.nanquantile(numbers, [0.025, 0.975]) - row["value"])
        assert (row["low"], row["high"]) == pytest.approx(ends.clip(0, 1), abs=1e-5)


def test_of_one_mosaic_or_picture_nothing_is_known() -> None:
    network, masks, images = spotter(NAMES[:4]), own_units(NAMES[:4]), spots(6, NAMES[:4])
    table = where(network, masks, images, mosaics=1, draws=2)
    rows = table[(table["condition"] == "kept") & table["value"].notna() & (table["n"] == 1)]
    assert {"hit_rate", "hit_rate_excess", "hit_rate_step"} <= set(rows["metric"])
    rates = rows["metric"] == "hit_rate"
    assert (rows["low"] == np.where(rates, 0, -1)).all()
    assert (rows["high"] == 1).all()
    assert "above that of another task's mask in 0 of" in table.attrs["answer"]


def test_the_rank_correlation_of_random_masks_is_the_mean_over_draws() -> None:
    """That of their mean, -0.87 here, may lie outside of all of theirs."""
    values = torch.tensor([[[0.1, 0.2, 0.3]], [[0.9, 0.2, 0.1]]]).double()
    draws = Profile("random", "hit_rate", values.mean(0), values, values[:1], torch.ones(1, 3), 0, RANDOM)
    assert correlation_with_depth(draws).estimate(0, 0).value == pytest.approx(0.0)


def test_columns_counts_seeds_and_intervals(table: pd.DataFrame) -> None:
    assert tuple(table.columns) == COLUMNS
    assert not table.duplicated(["task", "condition", "layer", "metric"]).any()
    assert cell(table, "mean", "kept", "3")["n"] == 10
    assert cell(table, "doe", "kept", "3")["n"] == 8  # of 10 mosaics of four of five classes
    seeds = {condition: set(rows["seed"]) for condition, rows in table.groupby("condition")}
    assert seeds == {"kept": {9}, "other": {9}, "ceiling": {9}, "random": {3}, "whole": {pd.NA}}
    texts = table[table["metric"] == "hit_rate"].groupby("condition")["interval"].agg(set).to_dict()
    assert texts["kept"] == texts["ceiling"] == {"mosaics, given this mask"}
    assert texts["whole"] == {"mosaics"}
    assert texts["random"] == {"random draws, their 2.5-97.5 %"}
    defined = table.dropna(subset="value")
    assert (defined["low"] <= defined["value"] + 1e-9).all()
    assert (defined["value"] <= defined["high"] + 1e-9).all()


def test_each_random_draw_sees_a_quarter_and_all_together_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    network, _, images, masks = study()
    seen: list[list[tuple[int, int]]] = []
    read = conditions_module.read

    def spy(material, condition, which, places, *others):  # type: ignore[no-untyped-def]
        if condition == "random":
            seen.append(list(zip(which.tolist(), places.tolist(), strict=True)))
        return read(material, condition, which, places, *others)

    monkeypatch.setattr(conditions_module, "read", spy)
    where(network, masks, images, mosaics=10, draws=8)
    assert [len(part) for part in seen] == [10] * 8
    assert len({pair for part in seen[:4] for pair in part}) == 40
    assert seen[0] == seen[4]


def test_several_seeds_count_alike(slow: Slow, table: pd.DataFrame) -> None:
    network, images, masks = slow.network, slow.images, slow.masks
    other = masks.random(77)
    both = where(network, [masks, other], images, mosaics=10, draws=0, seed=3)
    alone = where(network, other, images, mosaics=10, draws=0, seed=3)
    for task in (*masks.tasks, "mean"):
        mean = (value(table, task, "kept", "3") + value(alone, task, "kept", "3")) / 2
        assert value(both, task, "kept", "3") == pytest.approx(mean)
    row = cell(both, "mean", "kept", "3")
    assert row["interval"] == "mask seeds × mosaics"
    assert row["seed"] is pd.NA
    assert row["n"] == 10
    twice = where(network, [masks, masks], images, mosaics=10, draws=0, seed=3)
    assert value(twice, "mean", "kept", "3") == pytest.approx(value(table, "mean", "kept", "3"))
    # Two equal seeds add nothing to what mosaics vary.
    pair = cell(twice, "mean", "kept", "3"), cell(table, "mean", "kept", "3")
    assert pair[0]["high"] - pair[0]["low"] == pytest.approx(pair[1]["high"] - pair[1]["low"])


def test_seeds_that_differ_widen_the_interval() -> None:
    network, masks, images = spotter(NAMES[:4]), own_units(NAMES[:4]), spots(6, NAMES[:4])
    astray = MaskSet.from_scores({at: scores.roll(1, 0) for at, scores in masks.scores.items()}, masks.tasks)
    row = cell(where(network, [masks, astray], images, mosaics=12, draws=0), "mean", "kept", "1")
    # One seed hits always, the other never, so which of the two was learned decides everything.
    assert (row["value"], row["low"], row["high"]) == pytest.approx((0.5, 0, 1))


@pytest.mark.parametrize(("mosaics", "least"), [(5, 0.89), (10, 0.91), (30, 0.91)])
def test_intervals_cover(mosaics: int, least: float) -> None:
    generator = torch.Generator().manual_seed(0)
    truth, covered = 0.4, 0
    for seed in range(200):
        # Mosaics differ, and their four quadrants resemble each other.
        level = torch.rand(1, mosaics, 1, 1, generator=generator, dtype=torch.float64)
        noise = torch.rand(1, mosaics, 4, 1, generator=generator, dtype=torch.float64)
        values = truth + 0.3 * (level - 0.5) + 0.2 * (noise - 0.5)
        tasks, strata = torch.zeros(mosaics, 4, dtype=torch.int64), torch.zeros(mosaics, dtype=torch.int64)
        one = profile(Shares("kept", values, 4 * mosaics), "hit_rate", "mosaics", tasks, 1, strata, seed)
        _, low, high = one.estimate(0, 0)
        covered += low <= truth <= high
    assert least <= covered / 200 <= 0.98


@pytest.mark.parametrize(("seeds", "spread"), [(3, 0.02), (3, 0.1), (5, 0.02), (5, 0.1)])
def test_intervals_of_several_seeds_cover(seeds: int, spread: float) -> None:
    """Seeds vary in truth, and so few of them that their spread is known badly."""
    generator = torch.Generator().manual_seed(0)
    truth, covered, trials = 0.4, 0, 300
    tasks, strata = torch.zeros(30, 4, dtype=torch.int64), torch.zeros(30, dtype=torch.int64)
    for trial in range(trials):
        level = torch.rand(1, 30, 1, 1, generator=generator, dtype=torch.float64)
        noise = torch.rand(seeds, 30, 4, 1, generator=generator, dtype=torch.float64)
        learned = spread * torch.randn(seeds, 1, 1, 1, generator=generator, dtype=torch.float64)
        values = truth + 0.3 * (level - 0.5) + 0.2 * (noise - 0.5) + learned
        one = profile(Shares("kept", values, 120), "hit_rate", "mosaics", tasks, 1, strata, trial)
        _, low, high = one.estimate(0, 0)
        covered += low <= truth <= high
    assert 0.92 <= covered / trials <= 1.0


def test_the_other_task_is_never_the_own_and_outside_the_mosaic_if_it_can_be() -> None:
    generator = torch.Generator().manual_seed(0)
    tasks = torch.stack([torch.randperm(6, generator=generator)[:4] for _ in range(200)])
    tasks[0, 1] = -1
    others = other_tasks(tasks, 6, generator)
    assert not (others[:, :, None] == tasks[:, None, :]).any()
    assert set(others.flatten().tolist()) == set(range(6))
    four = torch.tensor([[2, 0, 3, 1]]).expand(200, -1)
    others = other_tasks(four, 4, generator)
    assert (others != four).all()
    assert (others >= 0).all()
    assert {int(each) for each in others[:, 0]} == {0, 1, 3}
    assert (other_tasks(torch.zeros(3, 1, dtype=torch.int64), 1, generator) == -1).all()


# The released measure


def test_the_official_protocol_reads_small_mosaics_of_any_pictures() -> None:
    network, _, images, masks = study(size=10)
    found = where(network, masks, images, mosaics=15, draws=4, seed=1, protocol="official")
    names = ("", "_excess", "_spearman", "_excess_spearman", "_step", "_undefined")
    assert set(found["metric"]) == {f"hit_rate_official{name}" for name in names}
    assert found.attrs["mosaics"] == {"conv": "resized to the network's input"}
    mosaics = images.mosaics(15, 1, NAMES)
    pixels = nn.functional.interpolate(mosaics.pixels, (10, 10), mode="bicubic", antialias=True)
    pixels = pixels.clamp(float(mosaics.pixels.min()), float(mosaics.pixels.max()))
    for row, task in enumerate(masks.tasks):
        hits = []
        for mosaic, place in (mosaics.classes == NAMES.index(task)).nonzero().tolist():
            layers = slow_layers(network, pixels[mosaic], {at: g[row] for at, g in masks.gates().items()})
            hits.append(float(released_hits(layers["1"][None], (10, 10))[0, place]))
        expected = float(np.nanmean(hits)) if not np.isnan(hits).all() else math.nan
        assert value(found, task, "kept", "1", "hit_rate_official") == pytest.approx(expected, nan_ok=True)
        assert cell(found, task, "kept", "1", "hit_rate_official")["n"] == np.sum(~np.isnan(hits))


# Evidence


@pytest.fixture(scope="module")
def scenes() -> tuple[Network, Images, MaskSet]:
    """Scenes that a random network of one layer calls by their names, with a few names wrong."""
    images = load_images("scenes", split="test", per_class=6)
    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(
            nn.Conv2d(3, 8, 5, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 8)
        )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        logits = model(images.pixels / 255)
        model[-1].weight.div_(logits.std(0)[:, None])
        model[-1].bias.copy_((model[-1].bias - logits.mean(0)) / logits.std(0))
        labels = model(images.pixels / 255).argmax(1)
    labels[::5] = (labels[::5] + 1) % 8
    named = Images(images.pixels, labels, images.class_names, images.objects)
    network = Network.wrap(model, images.class_names, example=images.pixels[:1], layers=["1"], name="scenic")
    scores = {"1": torch.rand(8, 8, generator=generator)}
    return network, named, MaskSet.from_scores(scores, images.class_names)


def slow_evidence(
    network: Network, pixels: Tensor, gate: Tensor | None, evidence: Tensor, spread: np.ndarray
) -> float:
    convolution = network.model[0]
    with torch.no_grad():
        maps = (
            conv2d(pixels[None] / 255, convolution.weight, convolution.bias, stride=4)[0]
            .clamp(min=0)
            .double()
        )
    maps = maps if gate is None else maps * gate[:, None, None]
    energies = sum((maps[unit] / spread[unit]) ** 2 for unit in range(8) if spread[unit] > 0)
    # 7 × 7 cells on 32 × 32 pixels: every pixel in 7 × 7 parts, every cell in 32 × 32.
    fine = energies.repeat_interleave(32, 0).repeat_interleave(32, 1)
    there = evidence.repeat_interleave(7, 0).repeat_interleave(7, 1)
    return float(fine[there].sum() / fine.sum())


def test_every_evidence_share_is_that_of_the_slow_way(scenes: tuple[Network, Images, MaskSet]) -> None:
    network, images, masks = scenes
    found = where(network, masks, images, mosaics=4, draws=2)
    with torch.no_grad():
        right = network(images.pixels).argmax(1) == images.labels
        maps = nn.Sequential(*network.model[:2])(images.pixels / 255).double()
    spread = maps.numpy().std(axis=(0, 2, 3))
    objects = images.objects
    assert objects is not None
    changed = objects.counterfactual()
    shares: dict[str, dict[str, list[float]]] = {}
    for place in right.nonzero().flatten().tolist():
        task = images.class_names[int(images.labels[place])]
        gate, evidence = masks.gates(task)["1"], objects.evidence[place]
        for condition, pixels, chosen in (
            ("kept", images.pixels[place], gate),
            ("whole", images.pixels[place], None),
            ("counterfactual", changed[place], gate),
        ):
            share = slow_evidence(network, pixels, chosen, evidence, spread)
            shares.setdefault(condition, {}).setdefault(task, []).append(share)
        shares.setdefault("area", {}).setdefault(task, []).append(float(evidence.double().mean()))
    for condition, by_task in shares.items():
        layer = "all" if condition == "area" else "1"
        means = {task: float(np.nanmean(numbers)) for task, numbers in by_task.items()}
        means["mean"] = sum(means.values()) / len(means)
        for task, number in means.items():
            share = value(found, task, condition, layer, "evidence_share")
            assert share == pytest.approx(number, abs=1e-5), (condition, task)
    for task in (*images.class_names, "mean"):
        kept, changed_share = (
            value(found, task, condition, "1", "evidence_share") for condition in ("kept", "counterfactual")
        )
        drop = value(found, task, "kept", "1", "evidence_share_drop")
        assert drop == pytest.approx(kept - changed_share)
    row = cell(found, "mean", "kept", "1", "evidence_share")
    assert row["n"] == sum(not math.isnan(share) for many in shares["kept"].values() for share in many)
    assert row["interval"] == "images, given this mask"
    assert cell(found, "mean", "whole", "1", "evidence_share")["interval"] == "images"


def test_classes_of_one_picture_are_drawn_together(scenes: tuple[Network, Images, MaskSet]) -> None:
    """Each for itself they would seem not to vary, and the mean over tasks to be known exactly."""
    network, images, masks = scenes
    row = cell(
        where(network, masks, images.take(1), mosaics=1, draws=0), "mean", "kept", "1", "evidence_share"
    )
    assert 1 < row["n"] <= len(images.class_names)
    assert row["high"] - row["low"] > 0.02


def test_without_objects_or_by_the_official_protocol_there_is_no_evidence(
    scenes: tuple[Network, Images, MaskSet],
) -> None:
    network, images, masks = scenes
    plain = Images(images.pixels, images.labels, images.class_names)
    for found in (
        where(network, masks, plain, mosaics=3, draws=0),
        where(network, masks, images, mosaics=3, draws=0, protocol="official"),
    ):
        assert not found["metric"].str.startswith("evidence").any()
        assert "evidence" not in found.attrs["answer"]


# Several networks


def test_several_networks_are_one_table() -> None:
    one, two = spotter(NAMES[:4], "one"), spotter(NAMES, "two")
    mine, theirs = own_units(NAMES[:4]), own_units()
    images = {"one": spots(6, NAMES[:4]), "two": spots(6)}
    together = where([(one, mine), (two, [theirs, theirs])], images=images, mosaics=5, draws=2)
    alone = where(one, mine, images["one"], mosaics=5, draws=2)
    rows = together[together["network"] == "one"].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows, alone)
    assert together["network"].unique().tolist() == ["one", "two"]
    assert set(together.attrs["mosaics"]) == {"one", "two"}
    assert "of 2 networks" in together.attrs["answer"]
    shared = where([(spotter(NAMES[:4], "one"), mine)], images=images["one"], mosaics=5, draws=2)
    pd.testing.assert_frame_equal(shared, alone)


# Bad input


def test_what_cannot_be_asked_is_refused() -> None:
    network, masks, images = spotter(), own_units(), spots(3)
    with pytest.raises(NadkitError, match="needs masks of spotter"):
        where(network, images=images)
    with pytest.raises(NadkitError, match="needs images, and got NoneType"):
        where(network, masks)
    with pytest.raises(NadkitError, match="one MaskSet, or a list of several seeds"):
        where(network, [], images)
    with pytest.raises(NadkitError, match="where compares masks of the same tasks"):
        where(network, [masks, masks[["bee", "ant"]]], images)
    with pytest.raises(NadkitError, match="masks stand beside them"):
        where([(network, masks)], masks, images)
    with pytest.raises(NadkitError, match=r"list of pairs \(network, masks\)"):
        where([network], images=images)  # type: ignore[list-item]
    with pytest.raises(NadkitError, match="and got str"):
        where("resnet", images=images)  # type: ignore[arg-type]
    with pytest.raises(NadkitError, match="two networks are named 'spotter'"):
        where([(network, masks), (network, masks)], images=images)
    with pytest.raises(NadkitError, match="no images for 'spotter'; closest: spottr"):
        where([(network, masks)], images={"spottr": images})
    with pytest.raises(NadkitError, match="no protocol 'offical'; closest: official"):
        where(network, masks, images, protocol="offical")
    with pytest.raises(NadkitError, match="mosaics = 0; give"):
        where(network, masks, images, mosaics=0)
    with pytest.raises(NadkitError, match="draws = -1"):
        where(network, masks, images, draws=-1)
    for seed in ("a", None, 1.5, -1):
        with pytest.raises(NadkitError, match=r"seed = .*; give a whole number of 0 or more"):
            where(network, masks, images, seed=seed)  # type: ignore[arg-type]
    for few in (0, "a", 1.5):
        with pytest.raises(NadkitError, match=r"per_class = .*; give a whole number of 1 or more"):
            where(network, masks, images, per_class=few)  # type: ignore[arg-type]
    with pytest.raises(MaskFileError, match="not for the network 'spotter'"):
        where(network, MaskSet.from_scores({"0": torch.eye(5)}, NAMES), images)
    with pytest.raises(ImageError, match="some of ant, bee, cow"):
        where(network, masks, images.subset(NAMES[:3]))
    with pytest.raises(ImageError, match="'fox', which is no class of spotter"):
        where(network, masks, Images(images.pixels, images.labels, (*NAMES[:4], "fox")))
    with pytest.raises(ImageError, match="5 pictures a class"):
        where(network, masks, images, per_class=5)


@pytest.mark.parametrize("protocol", ["energy", "official"])
def test_nan_logits_are_refused(protocol: str) -> None:
    network = spotter()
    nn.init.constant_(network.model[-1].weight, math.nan)
    with pytest.raises(NadkitError, match="spotter gives NaN or infinite logits"):
        where(network, own_units(), spots(3), protocol=protocol)


def test_per_class_takes_so_many() -> None:
    network, masks, images = spotter(), own_units(), spots(6)
    taken = where(network, masks, images, per_class=2, mosaics=5, draws=0, seed=4)
    pd.testing.assert_frame_equal(taken, where(network, masks, images.take(2, 4), mosaics=5, draws=0, seed=4))


def test_a_bar_ends_at_its_total(capsys: pytest.CaptureFixture[str]) -> None:
    network, masks, images = spotter(), own_units(), spots(6)
    where(network, masks, images, mosaics=5, draws=4, progress=True)
    assert "100%" in capsys.readouterr().err
    where(network, masks, images, mosaics=5, draws=4)
    assert capsys.readouterr().err == ""


# The sentence and the figure


def made(
    kept: Sequence[float], correlation: float, other: Sequence[float] = (), network: str = "net"
) -> pd.DataFrame:
    layers = [f"layer{place}" for place in range(len(kept))]
    rows = [
        (network, "mean", "kept", at, "hit_rate", v, v - 0.01, v + 0.01)
        for at, v in zip(layers, kept, strict=True)
    ]
    for at, v, o in zip(layers, kept, other, strict=False):
        rows.append((network, "mean", "other", at, "hit_rate", o, o - 0.01, o + 0.01))
        rows.append((network, "mean", "kept", at, "hit_rate_excess", v - o, v - o - 0.02, v - o + 0.02))
    for at, before, after in zip(layers[1:], kept, kept[1:], strict=False):
        step = after - before
        rows.append((network, "mean", "kept", at, "hit_rate_step", step, step - 0.02, step + 0.02))
    row = (correlation, correlation - 0.1, min(1.0, correlation + 0.1))
    rows.append((network, "mean", "kept", "all", "hit_rate_spearman", *row))
    columns = ["network", "task", "condition", "layer", "metric", "value", "low", "high"]
    return pd.DataFrame(rows, columns=columns).assign(n=40)


def test_the_sentence_is_computed_from_the_table() -> None:
    rising = made((0.25, 0.3, 0.5, 0.7), 1.0, (0.25, 0.25, 0.25, 0.25))
    assert where_answer(rising) == (
        "net: the hit rate of the kept units rises with depth (Spearman 1.00 [0.90, 1.00]), from 0.25 in "
        "layer0 to 0.70 in layer3, where chance is 0.25; it is above that of another task's mask in 3 of 4 "
        "layers, in layer3 by 0.45 [0.43, 0.47]."
    )
    # 0.01 less may be chance, 0.1 less is not.
    assert "though it falls into layer3;" in where_answer(made((0.25, 0.5, 0.49, 0.39, 0.9), 0.7, (0.2,) * 5))
    assert "neither rises nor falls" in where_answer(made((0.25, 0.5, 0.3, 0.4), 0.4))
    assert "though" not in where_answer(made((0.25, 0.5, 0.3, 0.4), 0.4))
    assert "falls with depth" in where_answer(made((0.7, 0.5, 0.3, 0.2), -1.0))
    # What is not known to rise is not known to stay either.
    for unsure in (-0.55, 0.45, 0.55):
        assert "units is not shown to rise or to fall with depth (S" in where_answer(made((0.7, 0.3), unsure))
    several = pd.concat([rising, made((0.25, 0.9, 0.3, 0.4), 0.1, (0.5,) * 4, "flat")])
    assert where_answer(several) == (
        "The hit rate of the kept units rises with depth in 1 of 2 networks: net; neither rises nor falls "
        "with depth in 1 of 2 networks: flat; in the deepest layer it is above that of another task's mask "
        "in 1 of 2."
    )
    with pytest.raises(NadkitError, match="no hit rate of 'kept'"):
        where_answer(rising[rising["condition"] == "other"])


def test_the_figure_has_a_line_and_a_band_a_condition(table: pd.DataFrame) -> None:
    figure = draw(table)
    lines = {trace.name: trace for trace in figure.data if trace.hoverinfo != "skip"}
    assert list(lines) == ["ceiling", "kept", "other", "random", "whole"]
    for name, trace in lines.items():
        assert list(trace.x) == ["1", "3"]
        assert list(trace.y) == [value(table, "mean", name, layer) for layer in "13"]
        low, high = (each for each in figure.data if each.name == name and each.hoverinfo == "skip")
        assert list(low.y) == [cell(table, "mean", name, layer)["low"] for layer in "13"]
        assert list(high.y) == [cell(table, "mean", name, layer)["high"] for layer in "13"]
        assert high.fill == "tonexty"
    assert len({(each.line.color, each.marker.symbol) for each in lines.values()}) == len(lines)
    assert [shape.y0 for shape in figure.layout.shapes] == [0.25]
    kept = [value(table, "mean", "kept", layer) for layer in "13"]
    assert f"hit rate of kept units {kept[0]:.2f} in 1, {kept[1]:.2f} in 3" in figure.layout.title.text
    assert f"kept {kept[0]:.2f} to {kept[1]:.2f}" in figure.layout.meta["alt"]
    assert figure.layout.xaxis.title.text == "layer, from input to output"
    task = draw(table, "doe")
    assert next(t for t in task.data if t.name == "kept" and t.showlegend).y[0] == value(
        table, "doe", "kept", "1"
    )
    assert "doe" in task.layout.title.text


def test_the_figure_has_a_second_panel_for_evidence(scenes: tuple[Network, Images, MaskSet]) -> None:
    network, images, masks = scenes
    figure = draw(where(network, masks, images, mosaics=4, draws=2))
    assert isinstance(figure, go.Figure)
    titles = [figure.layout.yaxis.title.text, figure.layout.yaxis2.title.text]
    assert [title.split("<br>")[0] for title in titles] == ["hit rate", "evidence share"]
    below = [trace.name for trace in figure.data if trace.yaxis == "y2" and trace.hoverinfo != "skip"]
    assert below == ["kept", "counterfactual", "other", "random", "whole", "area"]
    named = [trace.name for trace in figure.data if trace.showlegend]
    assert len(named) == len(set(named))  # once in the legend, not once a panel
    assert set(named) == {*below, "ceiling"}


def test_a_layer_without_a_value_leaves_a_gap(planted: pd.DataFrame) -> None:
    figure = draw(planted)
    kept = next(trace for trace in figure.data if trace.name == "kept" and trace.hoverinfo != "skip")
    assert list(kept.x) == ["0", "1", "2", "3"]
    assert math.isnan(kept.y[3])
    assert "in 2;" in figure.layout.title.text


def test_what_cannot_be_drawn_is_refused(table: pd.DataFrame) -> None:
    with pytest.raises(NadkitError, match="no column layer"):
        draw(table.drop(columns="layer"))
    with pytest.raises(NadkitError, match="no row with a hit rate"):
        draw(table[table["metric"] == "hit_rate_step"])
    with pytest.raises(NadkitError, match="no task 'dough' in this table; closest: doe"):
        draw(table, "dough")
    with pytest.raises(NadkitError, match="of 2 networks"):
        draw(pd.concat([table, table.assign(network="second")]))
