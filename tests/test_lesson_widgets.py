"""Lesson widgets without a browser: traits in, state out, errors where the reader looks, numbers by hand."""

from __future__ import annotations

import base64
import math
import re
import threading
from typing import Any
from xml.etree import ElementTree

import hand
import pandas as pd
import pytest
import torch
from traitlets import TraitError

import nadkit as nk
from nadkit import questions, widgets
from nadkit.errors import ImageError, NadkitError
from nadkit.masks import MaskSet
from nadkit.measures import wilson
from nadkit.widgets.still import figure_html
from nadkit.widgets.stills.charts import courses


def asks(widget: widgets.Panel, **content: Any) -> None:
    """Hand a widget what its page would send."""
    widget._received(widget, content, [])


def small() -> MaskSet:
    scores = {"a": torch.tensor([[1.0, 1, 0, 0], [1, 0, 1, 1], [0, 0, 0, 0]]), "b": torch.ones(3, 2)}
    return MaskSet.from_scores(scores, ["one", "two", "none"])


@pytest.fixture
def things() -> tuple[Any, MaskSet, Any]:
    return hand.make_network(), hand.make_masks(1), hand.make_images([6, 5, 4, 7], 0)


# The doors in questions


def test_layer_shares_by_hand() -> None:
    def values(metric: str) -> list[float]:
        table = questions.layer_shares(small(), metric=metric)
        assert list(table["task"] + table["layer"]) == ["onea", "oneb", "twoa", "twob", "nonea", "noneb"]
        return [float(value) for value in table["value"]]

    assert values("kept_share") == [0.5, 1, 0.75, 1, 0, 1]
    assert values("exclusive_share") == [0.25, 0, 0.5, 0, 0, 0]
    # φ = (4·1 − 2·3) / √(2·3·2·1); a task that keeps none or all has none.
    phi = values("phi")
    assert phi[0] == phi[2] == pytest.approx(-2 / math.sqrt(12))
    assert all(math.isnan(phi[at]) for at in (1, 3, 4, 5))
    assert questions.layer_shares(small(), metric="phi")["n"].tolist() == [1, 0, 1, 0, 0, 0]
    assert questions.layer_shares(small(), threshold=1.0)["value"].sum() == 0
    with pytest.raises(NadkitError, match="closest: kept_share"):
        questions.layer_shares(small(), metric="kept_shares")


def test_class_table_the_slow_way(things: tuple[Any, MaskSet, Any]) -> None:
    network, masks, images = things
    gates = masks.gates("coat")
    table = questions.class_table(network, images, gates).set_index(["class_name", "metric"])
    logits = torch.tensor([hand.slow_logits(network, one, gates) for one in images.pixels]).double()
    shares = logits.softmax(1)
    for k, name in enumerate(hand.NAMES):
        mean, answered = table.loc[(name, "probability")], table.loc[(name, "answered")]
        assert mean["value"] == pytest.approx(float(shares[:, k].mean()), abs=1e-5)
        assert mean["low"] < mean["value"] < mean["high"]
        count = sum(int(row.argmax()) == k for row in logits)
        assert answered["value"] == count / 22
        assert (answered["low"], answered["high"]) == wilson(count, 22)
    with pytest.raises(ImageError, match="no pictures"):
        questions.class_table(network, images.pixels[:0])


# layer_class_grid


def test_grid_says_what_a_cell_is() -> None:
    grid = widgets.layer_class_grid(small())
    assert (grid.layer, grid.task, grid.kind) == ("a", "one", "matrix")
    assert grid.state["values"] == [[0.5, 1.0], [0.75, 1.0], [0.0, 1.0]]
    asks(grid, do="set", name="pair", value=["two", "a"])
    assert (grid.task, grid.layer) == ("two", "a")
    assert grid.state["pair"][0] == "two keeps 3 of 4 units of a (kept share 0.75); exclusive share 0.50."
    assert grid.state["pair"][1] == "Mean φ to 1 other class: -0.58."
    assert grid.state["pair"][2] == "Kept units of a: 0, 2, 3."
    grid.values = "phi"
    assert grid.state["values"][2] == [None, None]
    assert grid.to_frame()["metric"].unique().tolist() == ["phi"]
    grid.threshold = 1.0
    assert grid.state["pair"][0].startswith("two keeps 0 of 4 units")


def test_grid_turns_over_many_classes() -> None:
    tasks = [f"class {at}" for at in range(70)]
    grid = widgets.layer_class_grid(MaskSet.from_scores({"a": torch.eye(70)}, tasks))
    assert (len(grid.state["rows"]), [way for way, _ in grid.state["turns"]]) == (30, ["on"])
    asks(grid, do="set", name="turn", value="on")
    assert grid.state["rows"][0] == "class 30"
    grid.task = "class 65"
    assert grid.state["rows"][0] == "class 60"
    assert [way for way, _ in grid.state["turns"]] == ["back"]


def test_grid_does_not_turn_past_its_ends() -> None:
    """A second press comes before the page has taken the button away."""
    tasks = [f"class {at}" for at in range(70)]
    grid = widgets.layer_class_grid(MaskSet.from_scores({"a": torch.eye(70)}, tasks))
    for way, first in (("back", "class 0"), ("on", "class 30"), ("on", "class 60"), ("on", "class 60")):
        asks(grid, do="set", name="turn", value=way)
        assert grid.state["rows"][0] == first


def test_no_line_is_drawn_across_a_layer_without_a_value() -> None:
    svg = courses(["a", "b", "c", "d"], {"kept": [0.1, None, 0.3, 0.4]}).parts
    (line,) = re.findall(r'<path d="(M[^"]+)" fill="none" stroke="#0072B2"', svg)
    assert re.findall("[ML]", line) == ["M", "M", "L"]


def test_a_strange_name_breaks_no_picture() -> None:
    grid = widgets.layer_class_grid(MaskSet.from_scores({"a": torch.rand(1, 3)}, ["bell \x07"]))
    html = figure_html(*grid._still(), "x")
    ElementTree.fromstring(base64.b64decode(re.search('base64,([^"]+)', html)[1]))  # type: ignore[index]


def test_grid_refuses() -> None:
    grid = widgets.layer_class_grid(small())
    with pytest.raises(TraitError, match="closest"):
        grid.task = "on"
    with pytest.raises(TraitError, match="no layer 'c'"):
        grid.layer = "c"
    assert (grid.task, grid.layer) == ("one", "a")
    asks(grid, do="set", name="pair", value=["one", "zzz"])
    assert "no layer 'zzz'" in grid.state["error"]
    asks(grid, do="set", name="_held", value=True)
    assert "cannot be chosen" in grid.state["error"]
    grid.task = "two"
    assert "error" not in grid.state
    for wrong in ({"masks": [1]}, {"masks": small(), "values": "shares"}, {"masks": small(), "threshold": 2}):
        with pytest.raises(NadkitError):
            widgets.layer_class_grid(**wrong)


# unit_gallery


def test_gallery_shows_what_peaks_say(things: tuple[Any, MaskSet, Any]) -> None:
    network, masks, images = things
    gallery = widgets.unit_gallery(network, images, masks=masks, task="boot", count=3)
    best = masks.scores["1"][1].argmax()
    assert gallery.unit == f"1/{best}"
    assert gallery.state["need"]
    asks(gallery, do="work")
    gallery.wait(60)
    gallery.unit = "3/2"
    table = gallery.to_frame()
    by_hand = [hand.slow_hidden(network, one, None)[2].item() for one in images.pixels]
    order = sorted(range(len(by_hand)), key=lambda at: -by_hand[at])[:3]
    assert table["image"].tolist() == order
    assert table["value"].tolist() == pytest.approx([by_hand[at] for at in order], abs=1e-4)
    assert table["class_name"].tolist() == [hand.NAMES[images.labels[at]] for at in order]
    assert [one["caption"].split()[0] for one in gallery.state["pictures"]] == table["class_name"].tolist()
    gallery.task = "bag"
    assert gallery.unit == gallery.state["offered"][0]


def test_gallery_refuses(things: tuple[Any, MaskSet, Any]) -> None:
    network, masks, images = things
    gallery = widgets.unit_gallery(network, images, ["3/1", "1/0"])
    assert (gallery.state["offered"], gallery.unit, gallery.task) == (["3/1", "1/0"], "3/1", "")
    for wrong, words in (("3/7", "units 0 to 6"), ("5/0", "layers"), ("x", "layer/index")):
        with pytest.raises(TraitError, match=words):
            gallery.unit = wrong
    with pytest.raises(TraitError, match="no masks"):
        gallery.task = "bag"
    for arguments, named in (
        ((images, network), {}), ((network, images, ["9/9"]), {}), ((network, images), {"task": "bag"}),
        ((network, images), {"masks": masks, "task": "bags"}), ((network, images), {"count": 0}),
    ):  # fmt: skip
        with pytest.raises(NadkitError):
            widgets.unit_gallery(*arguments, **named)


# mosaic_player


@pytest.fixture(scope="module")
def player() -> widgets.MosaicPlayer:
    images = nk.load_images("fashion", split="test", per_class=4)
    network, masks = nk.load_network("vgg-fashion"), nk.load_masks("vgg-fashion")
    return widgets.mosaic_player(network, masks, images, task="bag", mosaics=10, seed=3)


def test_player_shows_the_courses_of_where(player: widgets.MosaicPlayer) -> None:
    images = nk.load_images("fashion", split="test", per_class=4)
    network, masks = nk.load_network("vgg-fashion"), nk.load_masks("vgg-fashion")
    courses = questions.mosaic_courses(network, masks, images, task="bag", mosaics=10, seed=3)
    layer = list(network.layers)[1]
    player.layer, player.mosaic, player.condition = layer, 1, "other"
    player.wait(60)
    course = courses[1]
    pd.testing.assert_frame_equal(player.to_frame().drop(columns="mosaic"), course.to_frame())
    state = player.state
    assert state["count"] == len(courses)
    assert state["lines"]["whole"][1] == pytest.approx(float(course.shares["whole"][1]), abs=1e-4)
    energy = course.maps["other"][layer]
    assert torch.tensor(state["map"]).max() == 1
    assert torch.allclose(torch.tensor(state["map"]).double(), energy / energy.max(), atol=1e-3)
    assert state["picture"]["box"] == [0.5 * (course.place % 2), 0.5 * (course.place // 2), 0.5, 0.5]
    assert f"other {course.shares['other'][1]:.2f}" in state["sentence"]


def test_player_refuses(player: widgets.MosaicPlayer) -> None:
    player.wait(60)
    with pytest.raises(TraitError, match="the last is"):
        player.mosaic = player.state["count"]
    with pytest.raises(TraitError):
        player.condition = "removed"
    with pytest.raises(TraitError, match="no layer 'nowhere'"):
        player.layer = "nowhere"


def test_what_fails_while_working_is_shown(things: tuple[Any, MaskSet, Any]) -> None:
    network, masks, images = things
    made = widgets.mosaic_player(network, masks, images[[0, 1]], task="coat")
    asks(made, do="work")
    made.wait(60)
    assert "ImageError" in made.state["error"]
    with pytest.raises(NadkitError, match="ImageError"):
        made.to_frame()


# gate_bench


def test_bench_gates_what_is_closed(things: tuple[Any, MaskSet, Any]) -> None:
    network, masks, images = things
    bench = widgets.gate_bench(network, masks, images, task="coat")
    assert (bench.closed, bench.pictures_of) == ((), "coat")
    bench.closed = ["3/1", "1/0", "3/1"]
    assert bench.closed == ("1/0", "3/1")
    gates = {"1": torch.ones(5), "3": torch.ones(7)}
    gates["1"][0] = gates["3"][1] = 0
    own = [one for one, label in zip(images.pixels, images.labels, strict=True) if label == 1]
    slow = torch.tensor([hand.slow_logits(network, one, gates) for one in own]).softmax(1)
    table = bench.to_frame().set_index(["class_name", "metric"])
    for k, name in enumerate(hand.NAMES):
        assert table.loc[(name, "probability"), "value"] == pytest.approx(float(slow[:, k].mean()), abs=1e-5)
    assert set(table["n"]) == {5}
    bench.wait(60)
    row = next(row for row in bench.state["rows"] if row[0] == "coat")
    whole = torch.tensor([hand.slow_logits(network, one, None) for one in own]).softmax(1)
    assert row[1:3] == pytest.approx([float(slow[:, 1].mean()), float(whole[:, 1].mean())], abs=1e-3)


def test_bench_presets_and_switches(things: tuple[Any, MaskSet, Any]) -> None:
    network, masks, images = things
    bench = widgets.gate_bench(network, masks, images, task="coat", units=["1/0", "3/2"])
    kept = {str(unit) for unit in masks.kept("coat")}
    bench.preset("removed")
    assert set(bench.closed) == kept
    asks(bench, do="set", name="preset", value="kept")
    assert set(bench.closed).isdisjoint(kept)
    assert len(bench.closed) == 12 - len(kept)
    assert bench.state["preset"] == "kept"
    # The page speaks of its switches only; what else is closed stays so.
    rest = set(bench.closed) - {"1/0", "3/2"}
    asks(bench, do="set", name="switches", value=["3/2"])
    assert set(bench.closed) == rest | {"3/2"}
    asks(bench, do="set", name="switches", value=["3/6"])
    assert set(bench.closed) == rest
    with pytest.raises(TraitError, match="units 0 to 4"):
        bench.closed = ("1/5",)
    with pytest.raises(TraitError, match="closest"):
        bench.pictures_of = "boots"
    with pytest.raises(NadkitError, match="no preset"):
        bench.preset("random")
    for named in ({"task": "boots"}, {"task": "coat", "units": []}, {"task": "coat", "units": ["9/1"]}):
        with pytest.raises(NadkitError):
            widgets.gate_bench(network, masks, images, **named)


def test_lessons_leave_the_network_as_it_was(things: tuple[Any, MaskSet, Any]) -> None:
    network, masks, images = things
    before = {name: value.clone() for name, value in network.model.state_dict().items()}
    bench = widgets.gate_bench(network, masks, images, task="coat")
    bench.preset("kept")
    bench.wait(60)
    assert all(torch.equal(value, before[name]) for name, value in network.model.state_dict().items())
    assert not any(module._forward_hooks for module in network.model.modules())
    assert bench._material.network.model is not network.model


# learning_monitor


class Report:
    def __init__(self, step: int, steps: int = 10, tasks: tuple[str, ...] = ("a", "b")) -> None:
        self.step, self.steps, self.tasks = step, steps, tasks
        self.loss = [1.0, 3.0][: len(tasks)]
        self.kept_share = [0.5, 0.7][: len(tasks)]


def from_page(monitor: widgets.LearningMonitor, **content: Any) -> None:
    """As where messages arrive while the cell runs: on another thread."""
    thread = threading.Thread(target=asks, args=(monitor,), kwargs=content)
    thread.start()
    thread.join()


def test_monitor_tells_what_it_was_told() -> None:
    monitor = widgets.learning_monitor()
    assert monitor(Report(1)) is False
    assert monitor(Report(2)) is False
    assert monitor.history.to_dict("list") == {
        "run": [1] * 4, "step": [1, 1, 2, 2], "steps": [10] * 4, "task": ["a", "b"] * 2,
        "loss": [1.0, 3.0] * 2, "kept_share": [0.5, 0.7] * 2,
    }  # fmt: skip
    chart = monitor.state["charts"][1]
    assert (chart["mean"], chart["low"], chart["high"]) == ([2.0, 2.0], [1.0, 1.0], [3.0, 3.0])
    monitor(Report(10))
    assert monitor.state["running"] is False
    monitor(Report(1))
    assert monitor.history["run"].max() == 2
    assert monitor.state["steps"] == [1]


def test_stop_stops_this_run_and_not_the_next() -> None:
    monitor = widgets.learning_monitor()
    monitor(Report(1))
    from_page(monitor, do="set", name="stop", value=1)
    assert monitor.stopped
    assert monitor(Report(2)) is True
    assert "as far as they have come" in monitor.state["sentence"]
    assert monitor(Report(3)) is False  # a run that goes on from a checkpoint
    assert monitor.stopped is False
    from_page(monitor, do="set", name="stop", value=1)  # of the run before
    assert monitor(Report(4)) is False
    asks(monitor, do="set", name="stop", value=2)  # read once the cell was done
    assert monitor(Report(5)) is False
    monitor.stopped = True
    assert monitor(Report(6)) is True


def test_monitor_says_to_interrupt_only_where_it_is_not_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("nadkit.widgets.lessons.monitor.time.monotonic", lambda: clock[0])

    def run(heard: str) -> list[bool]:
        monitor, said = widgets.learning_monitor(), []
        for step in range(1, 11):
            clock[0] += 1
            monitor(Report(step))
            said.append("nterrupt the kernel" in monitor.state["hint"])
            if heard == "early":
                from_page(monitor, do="seen", value=step)
            elif heard == "late":
                asks(monitor, do="seen", value=step)
        return said

    assert run("early") == [False] * 10
    for heard in ("never", "late"):
        assert run(heard) == [False] * 4 + [True] * 5 + [False]


def test_monitor_never_raises_into_the_loop() -> None:
    monitor = widgets.learning_monitor()
    assert monitor(object()) is False
    assert "AttributeError" in monitor.state["error"]
    assert monitor(Report(1)) is False
    monitor._state = lambda: 1 / 0  # type: ignore[assignment, method-assign]
    assert monitor(Report(2)) is False


def test_monitor_stops_learn_masks() -> None:
    network = nk.load_network("vgg-fashion")
    images = nk.load_images("fashion", per_class=20)
    monitor = widgets.learning_monitor()

    def press_at_three(progress: Any) -> bool:
        if progress.step == 3:
            monitor.stopped = True
        return monitor(progress)

    masks = nk.learn_masks(network, images, tasks=["bag"], steps=9, progress=False, callback=press_at_three)
    assert monitor.history["step"].max() == 3
    assert masks.history["step"].max() == 3


def test_statics_have_words(things: tuple[Any, MaskSet, Any]) -> None:
    network, masks, images = things
    monitor = widgets.learning_monitor()
    lessons = [
        widgets.layer_class_grid(masks),
        widgets.unit_gallery(network, images, masks=masks),
        widgets.gate_bench(network, masks, images, task="coat"),
        monitor,
    ]
    for worked in (False, True):
        for lesson in lessons:
            svg, words = lesson._still()
            assert svg.startswith("<svg")
            assert len(words) > 20
            if not worked:
                lesson.wait(60)
        monitor(Report(1))
