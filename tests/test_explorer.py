"""The explorer without a browser: traits and page messages in, states, tables and pictures out."""

from __future__ import annotations

import base64
import gc
import json
import math
import re
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
import traitlets
from hand import (
    NAMES,
    TASKS,
    UNITS,
    make_images,
    make_masks,
    make_network,
    slow_hidden,
    slow_logits,
    slow_readings,
)
from hand import value as value_of
from PIL import Image
from torch import nn

import nadkit as nk
from nadkit.errors import ImageError, MaskFileError, NadkitError
from nadkit.images import Images, load_images
from nadkit.masks import MaskSet, Unit
from nadkit.networks import Network
from nadkit.widgets import Explorer, Panel
from nadkit.widgets.answers import Answers, Failed
from nadkit.widgets.explorer import PANELS
from nadkit.widgets.panel import source
from nadkit.widgets.stills.map import map_svg
from nadkit.widgets.stills.svg import cut
from nadkit.widgets.subject import MOST_OF_CLASS, Subject
from nadkit.widgets.views import network as map_view
from nadkit.widgets.views.pictures import MOST as MOST_IN_STRIP

PATIENCE = 60
STRANGE = ('say "shirt"', "a</script><b>", "tea & 'cake'", "ÄÖ 文字 🧥", "back\\slash{0}%s", "long " * 60)


@pytest.fixture
def network() -> Network:
    return make_network()


@pytest.fixture
def images() -> Images:
    return make_images((6, 5, 7, 4), seed=3)


@pytest.fixture
def masks() -> MaskSet:
    """Scores on both sides of 0.5, so that a threshold changes what is kept."""
    generator = torch.Generator().manual_seed(5)
    return MaskSet.from_scores({a: torch.rand(3, n, generator=generator) for a, n in UNITS.items()}, TASKS)


@pytest.fixture
def explorer(network: Network, masks: MaskSet, images: Images) -> Iterator[Explorer]:
    found = nk.explore(network, masks, images)
    yield found
    assert found._answers.wait(PATIENCE)


def states(explorer: Explorer) -> dict[str, dict[str, Any]]:
    return {kind: explorer.panel(kind).state for kind in PANELS}


def page(explorer: Explorer, kind: str, content: Any) -> None:
    """A message of the page, on the way that ipywidgets takes."""
    explorer.panel(kind)._handle_custom_msg(content, [])


def kept_by_hand(masks: MaskSet, task: str, threshold: float = 0.5) -> dict[str, list[bool]]:
    row = masks.tasks.index(task)
    return {a: [float(s) > threshold for s in scores[row]] for a, scores in masks.scores.items()}


def strict(state: Any) -> str:
    """JSON as the browser reads it: without NaN."""
    return json.dumps(state, allow_nan=False)


def photographs(count: int, size: int, names: tuple[str, ...]) -> Images:
    """Colour noise, which no PNG makes smaller."""
    pixels = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)
    return Images(pixels, torch.arange(count) % len(names), names)


# What may be chosen


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("task", "bot", r"no task 'bot' in these masks; closest: boot"),
        ("task", "", "no task ''"),
        ("task", "shirt", "no task 'shirt'"),  # a class of the network that has no mask
        ("other_task", "cat", r"no other_task 'cat' in these masks; closest: coat"),
        ("layer", "33", r"no layer '33' in these masks; closest: 3"),
        ("unit", "3/7", r"no unit '3/7' in these masks; write layer/index, such as 1/0"),
        ("unit", "three", "write layer/index"),
        ("unit", "3/-1", "write layer/index"),
        ("image", 22, r"no picture 22 can be chosen \(of 15 pictures"),
        ("image", "0", "'image' trait"),
        ("threshold", 1.01, "threshold"),
        ("threshold", -0.01, "threshold"),
        ("threshold", "0.5", "threshold"),
        ("threshold", math.nan, "threshold"),
        ("condition", "gone", "condition"),
        ("matrix", "theta", "matrix"),
        ("metric", "luck", "metric"),
    ],
)
def test_what_cannot_be_chosen_is_refused_and_changes_nothing(explorer, name, value, words):
    before, chosen = states(explorer), explorer.choice
    with pytest.raises(traitlets.TraitError, match=words):
        setattr(explorer, name, value)
    assert explorer.choice == chosen
    assert states(explorer) == before


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"task": "bot"}, r"no task 'bot' to explore; closest: boot"),
        ({"layer": "33"}, r"no layer '33' to explore; closest: 3"),
        ({"per_class": 0}, "per_class = 0; give a whole number of at least 1"),
        ({"per_class": True}, "per_class = True"),
        ({"seed": -1}, "seed = -1"),
        ({"evidence": pd.DataFrame({"task": []})}, "no table of nk.whether"),
        ({"evidence": {}}, "no table of nk.whether"),
    ],
)
@pytest.mark.filterwarnings("error")  # what was half made goes without a word
def test_what_cannot_be_explored_is_refused(network, masks, images, wrong, words):
    with pytest.raises(NadkitError, match=words):
        nk.explore(network, masks, images, **wrong)
    gc.collect()


def test_arguments_of_other_types_and_masks_of_another_network_are_refused(network, masks, images):
    for wrong in ((masks, network), (network, images), (network, masks, masks), ("net", masks)):
        with pytest.raises(NadkitError, match=r"call nk\.explore\(network, masks, images\)"):
            nk.explore(*wrong)
    other = MaskSet.from_scores({"1": torch.rand(3, 5), "3": torch.rand(3, 8)}, TASKS)
    with pytest.raises(MaskFileError, match="not for the network 'hand'"):
        nk.explore(network, other, images)
    with pytest.raises(ImageError, match="no picture is of a class that has a mask"):
        nk.explore(network, masks, replace_names(images, ("a", "b", "c", "d")))


def replace_names(images: Images, names: tuple[str, ...]) -> Images:
    return Images(images.pixels, images.labels, names)


# What follows


def test_a_unit_brings_its_layer_and_another_layer_drops_the_unit(explorer):
    seen: list[tuple[str, Any]] = []
    explorer.observe(lambda change: seen.append((change.name, change.new)), ["layer", "unit"])
    explorer.unit = "1/2"
    assert (explorer.layer, explorer.unit) == ("1", "1/2")
    assert explorer.panel("map").state["layer"] == explorer.panel("controls").state["layer"] == "1"
    explorer.layer = "1"
    assert explorer.unit == "1/2"
    explorer.layer = "3"
    assert (explorer.layer, explorer.unit) == ("3", "")
    assert explorer.panel("unit").state["title"] == "Unit: none is chosen"
    assert sorted(seen) == [("layer", "1"), ("layer", "3"), ("unit", ""), ("unit", "1/2")]


def test_units_of_a_layer_whose_name_goes_on_after_a_slash_are_told_apart():
    scores = {"a": torch.rand(2, 4), "a/b": torch.rand(2, 4)}
    explorer = nk.explore(None, MaskSet.from_scores(scores, ["x", "y"]))
    explorer.unit = "a/b/3"
    assert explorer.layer == "a/b"
    explorer.layer = "a"
    assert explorer.unit == ""


def test_a_class_is_not_compared_with_itself(explorer):
    explorer.other_task = "boot"
    explorer.task = "boot"
    assert explorer.other_task == ""
    explorer.other_task = "boot"
    assert explorer.other_task == ""
    explorer.other_task = "bag"
    explorer.task = "coat"
    assert explorer.other_task == "bag"


def test_a_picture_goes_with_its_class(explorer, images):
    coats = [at for at, label in enumerate(images.labels.tolist()) if NAMES[label] == "coat"]
    explorer.image = coats[1]
    explorer.task = "boot"
    assert explorer.image is None
    assert explorer.panel("pictures").state["chosen"] is None
    explorer.image = coats[1]  # a picture of another class than the chosen one can be looked at
    explorer.task = "coat"
    assert explorer.image == coats[1]


def test_several_changes_are_drawn_once(explorer):
    drawn: list[dict[str, Any]] = []
    explorer.unit = "3/1"
    explorer.panel("unit").observe(lambda change: drawn.append(change.new), "state")
    explorer.unit = "1/1"  # which changes the layer, too
    assert [state["title"] for state in drawn] == ["Unit 1/1"]


# States and tables


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.97, 1.0])
@pytest.mark.parametrize("condition", ["whole", "kept", "removed", "random"])
def test_the_map_is_that_of_the_masks(explorer, masks, threshold, condition):
    explorer.threshold, explorer.condition, explorer.other_task, explorer.task = (
        threshold,
        condition,
        "",
        "boot",
    )
    kept = {task: kept_by_hand(masks, task, threshold) for task in TASKS}
    table, columns = explorer.to_frame(), explorer.panel("map").state["columns"]
    assert [column["name"] for column in columns] == ["input", "1", "3", "logit:boot"]
    for column in columns[1:-1]:
        layer = column["name"]
        for unit in range(UNITS[layer]):
            keepers = [task for task in TASKS if kept[task][layer][unit]]
            mine, score = "boot" in keepers, float(masks.scores[layer][1, unit])
            row = table[(table["layer"] == layer) & (table["index"] == unit)].iloc[0]
            assert column["marks"][unit] == ("0" if not mine else "2" if keepers == ["boot"] else "1")
            assert column["scores"][unit] == round(100 * score)
            assert column["tasks"][unit] == row["tasks"] == len(keepers)
            assert (row["kept"], row["exclusive"]) == (mine, keepers == ["boot"])
            assert row["score"] == pytest.approx(score)
            if condition != "random":
                opened = {"whole": True, "kept": mine, "removed": not mine}[condition]
                assert row["open"] == opened
            assert column["on"][unit] == str(int(row["open"]))
        assert column["kept"] == sum(kept["boot"][layer])
        if condition == "random":
            assert column["on"].count("1") == column["kept"]
    said = sum(map(sum, kept["boot"].values()))
    assert f"boot keeps {said} of 12 units of hand" in explorer.panel("controls").state["summary"]
    strict(states(explorer))


def test_a_second_class_on_the_map(explorer, masks):
    explorer.other_task = "bag"
    one, two = kept_by_hand(masks, "coat"), kept_by_hand(masks, "bag")
    table = explorer.to_frame()
    for column in explorer.panel("map").state["columns"][1:-1]:
        pairs = list(zip(one[column["name"]], two[column["name"]], strict=True))
        codes = {(False, False): "0", (True, False): "1", (False, True): "3", (True, True): "4"}
        assert column["marks"] == "".join(codes[pair] for pair in pairs)
        rows = table[table["layer"] == column["name"]]
        assert rows["other_kept"].tolist() == two[column["name"]]
        assert rows["other_score"].tolist() == masks.scores[column["name"]][2].tolist()
    both = sum(a and b for layer in UNITS for a, b in zip(one[layer], two[layer], strict=True))
    assert f"and {both} are kept by both." in explorer.panel("map").state["summary"]


def phi_by_hand(one: list[bool], two: list[bool]) -> float | None:
    n, a, b = len(one), sum(one), sum(two)
    if a in (0, n) or b in (0, n):
        return None
    return (n * sum(x and y for x, y in zip(one, two, strict=True)) - a * b) / math.sqrt(
        a * b * (n - a) * (n - b)
    )


@pytest.mark.parametrize("kind", ["phi", "phi_all", "jaccard"])
def test_overlaps_are_those_of_loops(explorer, masks, kind):
    explorer.matrix, explorer.layer, explorer.threshold = kind, "1", 0.4
    state = explorer.panel("matrix").state
    assert state["rows"] == state["columns"] == list(TASKS)
    table = explorer.to_frame("matrix").set_index(["task", "other_task"])["value"]
    for r, task in enumerate(TASKS):
        for c, other in enumerate(TASKS):
            one, two = (kept_by_hand(masks, name, 0.4) for name in (task, other))
            if kind == "phi_all":
                layers = [phi_by_hand(one[layer], two[layer]) for layer in UNITS]
                there = [phi for phi in layers if phi is not None]
                expected = sum(there) / len(there) if there else None
            elif kind == "phi":
                expected = phi_by_hand(one["1"], two["1"])
            else:
                both = sum(x and y for x, y in zip(one["1"], two["1"], strict=True))
                expected = both / sum(x or y for x, y in zip(one["1"], two["1"], strict=True))
            shown = state["values"][r][c]
            assert shown == (None if expected is None else pytest.approx(expected, abs=6e-4))
            assert (shown is None) == math.isnan(table[task, other]) or table[task, other] == shown


def test_a_cell_says_what_two_classes_share_and_what_tells_them_apart(explorer, masks):
    page(explorer, "matrix", {"do": "set", "name": "pair", "value": ["boot", "bag"]})
    assert (explorer.task, explorer.other_task) == ("boot", "bag")
    one, two = kept_by_hand(masks, "boot")["3"], kept_by_hand(masks, "bag")["3"]
    both = sum(a and b for a, b in zip(one, two, strict=True))
    state = explorer.panel("matrix").state
    words = f"{both} unit{'s' * (both != 1)} in 3; {sum(one) - both} are kept by boot only"
    assert f"boot and bag share {words} and {sum(two) - both} by bag only" in state["pair"][0]
    scores = masks.scores["3"]
    apart = sorted(
        (u for u in range(7) if one[u] != two[u]), key=lambda u: -abs(float(scores[1, u] - scores[2, u]))
    )
    assert [name for name, _ in state["units"]] == [f"3/{unit}" for unit in apart]
    page(explorer, "matrix", {"do": "set", "name": "pair", "value": ["bag", "bag"]})
    assert (explorer.task, explorer.other_task) == ("bag", "")


def test_pictures_accepted_are_those_of_loops(explorer, network, masks, images):
    """Log-odds above 0, of pictures through the gated network one by one."""
    explorer.matrix, explorer.threshold = "accepted", 0.3
    state = explorer.panel("matrix").state
    assert state["rows"] == []
    assert state["need"]
    explorer.wait(PATIENCE)
    gates = MaskSet.from_scores(
        {a: torch.tensor([kept_by_hand(masks, t, 0.3)[a] for t in TASKS]).float() for a in UNITS}, TASKS
    )
    readings = slow_readings(network, gates, images)
    state = explorer.panel("matrix").state
    assert "log-odds" in state["note"]
    assert "calibrated" not in state["note"]
    for r, task in enumerate(state["rows"]):
        for c, other in enumerate(state["columns"]):
            rows = [at for at, label in enumerate(images.labels.tolist()) if NAMES[label] == other]
            # As many of each class as there are of every class; the first ones of the set would be others.
            share = np.mean([readings[task][at]["log_odds"] > 0 for at in rows])
            if len(rows) == min(images.counts().values()):
                assert state["values"][r][c] == pytest.approx(share, abs=6e-4)
            assert (state["values"][r][c] * min(images.counts().values())) % 1 == pytest.approx(0, abs=2e-2)


@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_evidence_is_that_of_loops(network, masks, threshold):
    """Recall of the kept and of the removed units, at the threshold that is chosen."""
    images = make_images((5, 5, 5, 5), seed=3)
    explorer = nk.explore(network, masks, images, task="bag")
    explorer.threshold = threshold
    table = explorer.to_frame("evidence")
    assert set(table["task"]) == {"bag"}
    gates = MaskSet.from_scores(
        {a: torch.tensor([kept_by_hand(masks, t, threshold)[a] for t in TASKS]).float() for a in UNITS}, TASKS
    )
    for condition, chosen, keep in (("whole", None, True), ("kept", gates, True), ("removed", gates, False)):
        readings = slow_readings(network, chosen, images, keep=keep)["bag"]
        said = [
            one["log_odds"] > 0
            for one, label in zip(readings, images.labels.tolist(), strict=True)
            if NAMES[label] == "bag"
        ]
        own = table[(table["condition"] == condition) & (table["metric"] == "recall")]
        assert own["value"].item() == pytest.approx(np.mean(said))
    page(explorer, "evidence", {"do": "set", "name": "metric", "value": "recall"})
    state = explorer.panel("evidence").state
    assert state["metric"] == explorer.metric == "recall"
    shown = {row["name"]: row["value"] for row in state["rows"]}
    for condition in ("whole", "kept", "removed"):
        row = table[(table["condition"] == condition) & (table["metric"] == "recall")]
        assert shown[condition] == pytest.approx(row["value"].item(), abs=1e-4)
    assert ("0.50 only" in state["sentence"]) == (threshold != 0.5)
    strict(state)


def test_evidence_at_hand_is_not_measured_again(network, masks, images, monkeypatch):
    table = nk.whether(network, masks, images, draws=3)
    explorer = nk.explore(network, masks, images, evidence=table)
    monkeypatch.setattr(explorer._answers, "_evidence", lambda *_: pytest.fail("measured again"))
    for task in TASKS:
        explorer.task = task
        rows = {row["name"]: row["value"] for row in explorer.panel("evidence").state["rows"]}
        metric = explorer.panel("evidence").state["metric"]
        assert rows["kept"] == pytest.approx(value_of(table, task, "kept", metric), abs=1e-4)
        assert not explorer.panel("evidence").state.get("need")
    explorer.matrix = "accepted"
    state = explorer.panel("matrix").state
    assert not state.get("need")
    cells = table[(table["metric"] == "accepted") & (table["condition"] == "kept")]
    by_hand = cells.set_index(["task", "other_task"])["value"]
    for task, values in zip(state["rows"], state["values"], strict=True):
        for other, value in zip(state["columns"], values, strict=True):
            assert value == pytest.approx(by_hand[task, other], abs=1e-3)
    explorer.threshold = 0.4  # the table is of 0.5
    assert explorer.panel("matrix").state["need"]


def test_evidence_at_hand_stays_for_every_class_and_also_when_nobody_looks():
    tasks = [f"class {at}" for at in range(100)]
    masks = MaskSet.from_scores({"a": torch.rand(100, 4)}, tasks)
    rows = [("net", task, "kept", "auroc", 0.9, 0.8, 1.0, 20) for task in tasks]
    columns = ["network", "task", "condition", "metric", "value", "low", "high", "n"]
    table = pd.DataFrame(rows, columns=columns)
    explorer = nk.explore(None, masks.with_meta(network="net"), evidence=table)
    panel = explorer.panel("map")
    for _ in range(2):
        assert all(explorer._answers.get(("evidence", task, 0.5)) is table for task in tasks)
        panel._view_count = 1
        panel._view_count = 0  # the output was taken away
    explorer._answers.ask([("evidence", "class 0", 0.5)])
    assert explorer._answers._thread is None  # known: nothing to do
    with pytest.raises(NadkitError, match="evidence is of net, and these masks are of other"):
        nk.explore(None, masks.with_meta(network="other"), evidence=table)


def test_what_is_refused_leaves_no_widget_behind(network, masks, images):
    from ipywidgets.widgets import widget

    before = len(widget._instances)
    for wrong in ({"task": "bot"}, {"layer": "33"}, {"evidence": pd.DataFrame()}, {"per_class": 0}):
        with pytest.raises(NadkitError):
            nk.explore(network, masks, images, **wrong)
    assert len(widget._instances) == before


def test_random_units_are_those_of_the_seed(network, masks, images):
    drawn = {}
    for seed in (0, 3):
        explorer = nk.explore(network, masks, images, seed=seed)
        explorer.condition = "random"
        table = explorer.to_frame()
        gates = masks["coat"].random(seed).gates("coat")
        assert table["open"].tolist() == [bool(g) for gate in gates.values() for g in gate]
        drawn[seed] = table["open"].tolist()
    assert drawn[0] != drawn[3]


def test_progress_is_told_without_sending_what_is_drawn_again(explorer, monkeypatch):
    sent: list[Any] = []
    for kind in PANELS:
        monkeypatch.setattr(
            explorer.panel(kind), "send", lambda content, kind=kind: sent.append((kind, content))
        )
    explorer.panel("pictures").show({**explorer.panel("pictures").state, "working": "reading"})
    before = states(explorer)
    explorer._answers._advance(8)(2)  # two of eight pictures
    assert sent == [("pictures", {"do": "progress", "done": 0.25})]
    assert states(explorer) == before


def test_a_link_to_a_unit_that_is_not_drawn_is_left_out():
    graph = nx.DiGraph()
    for name, layer, index in (("a/0", "a", 0), ("a/5", "a", 5), ("a/7", "a", 7), ("b/1", "b", 1)):
        graph.add_node(name, layer=layer, index=index)
    for name, share in (("a/0", 0.2), ("a/5", 0.7), ("a/7", 0.1)):
        graph.add_edge(name, "b/1", share=share, sign=1)
    columns = [
        {"name": "input", "ids": None},
        {"name": "a", "ids": [4, 5], "layers": ["a"]},
        {"name": "b", "ids": None, "layers": ["b"]},
        {"name": "logit", "ids": None},
    ]
    links, hidden = map_view._links(columns, SimpleNamespace(graph=graph), Unit("b", 1))
    assert links == [[1, 1, 2, 1, 0.7, 1]]  # of a, only unit 5 is drawn, second
    assert hidden == 2


def test_numbers_in_the_matrix_can_be_read():
    """4.5 to 1, as WCAG asks of small letters; the shades are in the JavaScript."""
    code = source("matrix.js")

    def brightness(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    (light_from,) = re.findall(r"dark = step !== null && step >= (\d);", code)
    for name in ("SHADES", "AGAINST"):
        shades = re.findall(
            r"#[0-9a-f]{6}", next(line for line in code.splitlines() if f"const {name}" in line)
        )
        assert len(shades) >= 5
        for step, shade in enumerate(shades):
            ink = "#ffffff" if step >= int(light_from) else "#1b1f24"
            low, high = sorted((brightness(shade), brightness(ink)))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (name, step)


def test_a_unit_shows_its_links_its_classes_and_its_pictures(explorer, network, masks, images):
    explorer.threshold, explorer.unit = 0.3, "3/2"
    explorer.wait(PATIENCE)
    state = explorer.panel("unit").state
    arch = nk.extract(network, masks, images, "coat", threshold=0.3, progress=False)
    links = explorer.to_frame("unit")
    expected = {(a, b): facts["share"] for a, b, facts in arch.graph.edges(data=True) if "3/2" in (a, b)}
    assert {(row.source, row.target): row.share for row in links.itertuples()} == pytest.approx(expected)
    assert [name for name, *_ in state["into"]] == sorted(
        (a for a, b in expected if b == "3/2"), key=lambda name: -expected[name, "3/2"]
    )[:6]
    scores = {task: float(masks.scores["3"][row, 2]) for row, task in enumerate(TASKS)}
    keepers = sorted((task for task in TASKS if scores[task] > 0.3), key=lambda task: -scores[task])
    assert state["tasks"] == [[task, round(scores[task], 2)] for task in keepers]
    # The pictures that excite it most, of those with a mask, by the slow way.
    shown = [at for at, label in enumerate(images.labels.tolist()) if NAMES[label] in TASKS]
    with torch.no_grad():
        values = {at: float(slow_hidden(network, images.pixels[at], None)[2]) for at in shown}
    best = sorted(shown, key=lambda at: -values[at])[:8]
    alts = [f"picture {at} of {NAMES[int(images.labels[at])]}, response {values[at]:.2f}" for at in best]
    assert [one["alt"] for one in state["pictures"]] == alts
    assert all(one["box"] is None for one in state["pictures"])  # these layers have no grid


def test_pictures_are_told_right_from_wrong_and_show_their_scores(explorer, network, images):
    explorer.wait(PATIENCE)
    with torch.no_grad():
        logits = [slow_logits(network, pixels, None) for pixels in images.pixels]
    coats = [at for at, label in enumerate(images.labels.tolist()) if NAMES[label] == "coat"]
    said = {at: NAMES[int(np.argmax(logits[at]))] for at in coats}
    strips = dict(explorer.panel("pictures").state["strips"])
    assert [one["index"] for one in strips["answered right"]] == [at for at in coats if said[at] == "coat"]
    assert [one["index"] for one in strips["answered wrong"]] == [at for at in coats if said[at] != "coat"]
    assert explorer.to_frame("pictures").to_dict("list") == {
        "image": coats, "task": ["coat"] * len(coats), "answered": list(said.values()),
    }  # fmt: skip
    explorer.image, explorer.condition = coats[0], "removed"
    explorer.wait(PATIENCE)
    scores = explorer.panel("pictures").state["chosen"]["scores"]
    assert scores["heads"] == ["whole", "removed"]
    gated = slow_logits(network, images.pixels[coats[0]], explorer._subject.masks.gates("coat", keep=False))
    for name, whole, removed in scores["rows"]:
        at = NAMES.index(name)
        assert whole == pytest.approx(
            math.exp(logits[coats[0]][at]) / sum(map(math.exp, logits[coats[0]])), abs=1e-4
        )
        assert removed == pytest.approx(math.exp(gated[at]) / sum(map(math.exp, gated)), abs=1e-4)
    strict(states(explorer))


def test_a_wrong_picture_says_why(explorer, network, masks, images):
    explorer.wait(PATIENCE)
    answered = explorer._subject.answered(explorer._answers.get(("peaks",)).logits)
    wrong = [
        (row, said) for place, (row, said) in enumerate(zip(explorer._subject.rows, answered, strict=True))
        if said != explorer._subject.class_of(place) and said in TASKS
    ]  # fmt: skip
    row, said = wrong[0]
    explorer.task = NAMES[int(images.labels[row])]
    explorer.image = row
    explorer.wait(PATIENCE)
    chosen = explorer.panel("pictures").state["chosen"]
    assert chosen["why_title"] == f"Why {said} and not {explorer.task}"
    assert chosen["other"] == said
    table = nk.why(network, masks, images, image=row, draws=199, seed=0)
    assert chosen["why"] == table.attrs["answer"]
    removed = table[(table["condition"] == "removed") & (table["metric"] == "margin")]
    assert [name for name, _ in chosen["units"]] == [f"{r.layer}/{r.unit}" for r in removed.itertuples()]
    for (_, words), margin in zip(chosen["units"], removed["value"], strict=True):
        side = "above" if margin > 0 else "below"
        assert words.endswith(
            f"the logit of {explorer.task} is {abs(margin):.2f} {side} the best other class"
        )
    before = chosen["why"]
    explorer.threshold = 0.7  # the units that are kept are others, and so are those that turn the answer
    explorer.wait(PATIENCE)
    hard = MaskSet.from_scores({a: (s > 0.7).float() for a, s in masks.scores.items()}, TASKS)
    table = nk.why(network, hard, images, image=row, draws=199, seed=0)
    assert explorer.panel("pictures").state["chosen"]["why"] == table.attrs["answer"] != before
    explorer.threshold = 0.5
    right = next(
        row
        for place, row in enumerate(explorer._subject.rows)
        if answered[place] == explorer._subject.class_of(place)
    )
    explorer.image = right
    explorer.wait(PATIENCE)
    assert "why" not in explorer.panel("pictures").state["chosen"]


def convolutions() -> tuple[Network, MaskSet, Images]:
    """Two layers with a grid of 4 × 4; each class is a place that is bright."""
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 2),
    ).eval()
    pixels = torch.zeros(8, 1, 4, 4)
    pixels[::2, :, 0, 1], pixels[1::2, :, 3, 2] = 1.0, 1.0
    images = Images(pixels, torch.arange(8) % 2, ("top", "low"))
    network = Network.wrap(model, ("top", "low"), example=pixels[:1], layers=["1", "3"], name="two")
    return (
        network,
        MaskSet.from_scores({"1": torch.rand(2, 3), "3": torch.rand(2, 4)}, ["top", "low"]),
        images,
    )


def test_where_maps_and_outlined_places_are_those_of_the_activations():
    network, masks, images = convolutions()
    explorer = nk.explore(network, masks, images)
    explorer.image, explorer.condition, explorer.unit = 0, "whole", "1/1"
    explorer.wait(PATIENCE)
    hidden = network.model[1](network.model[0](images.pixels)).detach()
    later = network.model[3](network.model[2](hidden)).detach()
    maps = {one["name"]: one for one in explorer.panel("pictures").state["chosen"]["maps"]}
    for layer, values in (("1", hidden), ("3", later)):
        spread = values.double().var(dim=(0, 2, 3), unbiased=False)
        weights = torch.where(spread > 0, 1 / spread, 0.0)
        energy = (values[0].double() ** 2 * weights[:, None, None]).sum(0)
        assert torch.tensor(maps[layer]["rows"]).double().allclose(energy / energy.max(), atol=0.011)
        row, column = divmod(int(energy.argmax()), 4)
        assert maps[layer]["alt"] == f"{layer}: most in row {row + 1} of 4, column {column + 1} of 4"
    unit = hidden[:, 1].flatten(1)
    if bool((unit > 0).any()):
        first = explorer.panel("unit").state["pictures"][0]
        best = int(unit.amax(1).argmax())
        row, column = divmod(int(unit[best].argmax()), 4)
        assert first["box"] == [column / 4, row / 4, 0.25, 0.25]
        assert first["alt"].startswith(f"picture {best} of ")


# Waiting, and what goes wrong


def test_waiting_ends_with_everything_there(explorer):
    lacking = {kind: state.get("need") for kind, state in states(explorer).items()}
    assert {kind for kind, need in lacking.items() if need} == {"map", "evidence", "pictures"}
    assert explorer._answers._thread is None  # nothing begins by itself
    explorer.wait(PATIENCE)
    for kind, state in states(explorer).items():
        assert not state.get("need"), kind
        assert not state.get("stale"), kind
        assert not state.get("working"), kind
        assert "error" not in state, kind
    assert explorer._answers._thread is None
    assert "nadkit-explorer" not in [thread.name for thread in threading.enumerate()]


def test_waiting_too_short_says_for_what(explorer, monkeypatch):
    hold = threading.Event()
    monkeypatch.setattr(explorer._answers, "work_out", lambda _: hold.wait(PATIENCE))
    with pytest.raises(
        NadkitError, match=r"reading the links of coat: not done after 0.05 seconds; wait again"
    ):
        explorer.wait(0.05)
    assert explorer.panel("map").state["working"] == "reading the links of coat"
    assert explorer.panel("map").state["need"] == 0
    hold.set()


@pytest.mark.parametrize(
    ("broken", "panels"),
    [
        ("unit_peaks", {"pictures", "unit"}),
        ("whether", {"evidence", "matrix"}),
        ("class_scores", {"pictures"}),
        ("layer_maps", {"pictures"}),
    ],
)
def test_a_fault_is_told_where_the_reader_looks_and_the_rest_goes_on(explorer, monkeypatch, broken, panels):
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError(f"{broken} fell over")

    monkeypatch.setattr(f"nadkit.questions.{broken}", fail)
    explorer.image, explorer.unit, explorer.matrix = explorer._subject.rows[0], "3/1", "accepted"
    explorer.wait(PATIENCE)
    found = states(explorer)
    assert {kind for kind, state in found.items() if "error" in state} == panels
    for kind in panels:
        assert f"{broken} fell over" in found[kind]["error"]
        assert not found[kind].get("working")
    explorer.threshold = 0.31  # what goes by threshold is asked anew, and what does not is still broken
    monkeypatch.undo()
    explorer.wait(PATIENCE)
    still = {kind for kind, state in states(explorer).items() if "error" in state}
    assert still == ({"pictures", "unit"} if broken == "unit_peaks" else set())


def test_to_frame_tells_what_went_wrong(explorer, monkeypatch):
    monkeypatch.setattr("nadkit.questions.unit_peaks", lambda *_, **__: 1 / 0)
    with pytest.raises(NadkitError, match="ZeroDivisionError: division by zero"):
        explorer.to_frame("pictures")
    with pytest.raises(NadkitError, match=r"no unit is chosen; set explorer\.unit"):
        explorer.to_frame("unit")
    with pytest.raises(NadkitError, match="no panel 'mapp' has a table; closest: map"):
        explorer.to_frame("mapp")
    with pytest.raises(NadkitError, match="no panel 'mapp'; closest: map"):
        explorer.panel("mapp")


def test_a_view_that_fails_says_so_and_leaves_the_others(explorer, monkeypatch):
    monkeypatch.setattr("nadkit.widgets.views.matrix_state", lambda *_: 1 / 0)
    explorer.task = "boot"
    assert explorer.panel("matrix").state["error"] == "ZeroDivisionError: division by zero"
    assert explorer.panel("map").state["task"] == "boot"
    monkeypatch.undo()
    explorer.task = "bag"
    assert "error" not in explorer.panel("matrix").state


def test_a_network_of_nan_says_so(masks, images):
    network = make_network()
    with torch.no_grad():
        network.model[4].weight.fill_(math.nan)
    explorer = nk.explore(network, masks, images)
    explorer.unit, explorer.image, explorer.matrix = "3/1", explorer._subject.rows[0], "accepted"
    explorer.wait(PATIENCE)
    for kind in ("evidence", "matrix", "unit", "pictures", "map"):
        assert re.search("NaN|nan|finite", explorer.panel(kind).state["error"]), kind
    strict(states(explorer))


# Messages of the page


def test_the_page_sets_what_may_be_chosen(explorer):
    told: list[Any] = []
    explorer.panel("controls").send = lambda content, *_: told.append(content)
    wishes = {"task": "boot", "layer": "1", "unit": "1/3", "threshold": 0.4, "condition": "removed",
              "other_task": "bag", "matrix": "jaccard", "image": explorer._subject.rows[2]}  # fmt: skip
    for name, value in wishes.items():
        page(explorer, "controls", {"do": "set", "name": name, "value": value})
        assert getattr(explorer, name) == value
    assert told == [{"do": "done"}] * len(wishes)


@pytest.mark.parametrize(
    "content",
    [
        {"do": "set", "name": "_subject", "value": 1},
        {"do": "set", "name": "layout", "value": None},
        {"do": "set", "name": "close", "value": None},
        {"do": "set", "value": "coat"},
        {"do": "set", "name": "task", "value": None},
        {"do": "set", "name": "task", "value": ["coat"]},
        {"do": "set", "name": "task", "value": "shirt"},
        {"do": "set", "name": "threshold", "value": "much"},
        {"do": "set", "name": "threshold", "value": math.nan},
        {"do": "set", "name": "image", "value": 10**20},
        {"do": "set", "name": "pair", "value": ["boot"]},
        {"do": "set", "name": "pair", "value": ["boot", "shirt"]},
        {"do": "set", "name": "pair", "value": None},
        {"do": "set", "name": "unit", "value": "3/99"},
        "text",
        None,
        7,
    ],
)
def test_damaged_messages_are_told_in_the_panel_and_change_nothing(explorer, content):
    told: list[Any] = []
    panel = explorer.panel("map")
    panel.send = lambda content, *_: told.append(content)
    before, drawn = explorer.choice, panel.state
    page(explorer, "map", content)
    assert explorer.choice == before
    assert panel.state["error"].split(":")[0].endswith("Error")
    assert panel.state["columns"] == drawn["columns"]
    assert told == [{"do": "done"}]  # else the page would wait for its next wish
    explorer.task = "boot"
    assert "error" not in panel.state


@pytest.mark.parametrize("content", [{}, {"do": "dance"}, {"do": None}, {"do": "work", "more": [1]}])
def test_foreign_messages_are_passed_over(explorer, content):
    before, error = explorer.choice, explorer.panel("unit").state.get("error")
    page(explorer, "unit", content)
    assert explorer.choice == before
    assert explorer.panel("unit").state.get("error") == error


def test_only_panels_that_were_seen_are_worked_for(explorer, monkeypatch):
    done: list[Any] = []
    work_out = explorer._answers.work_out
    monkeypatch.setattr(explorer._answers, "work_out", lambda key: (done.append(key), work_out(key))[1])
    page(explorer, "map", {"do": "work"})
    assert explorer._answers.wait(PATIENCE)
    assert done == [("graph", "coat", 0.5)]
    page(explorer, "evidence", {"do": "work"})
    page(explorer, "pictures", {"do": "work"})
    assert explorer._answers.wait(PATIENCE)
    assert done == [("graph", "coat", 0.5), ("evidence", "coat", 0.5), ("peaks",)]
    explorer.task = "boot"
    page(explorer, "map", {"do": "work"})
    assert explorer._answers.wait(PATIENCE)
    assert done[3:] == [("graph", "boot", 0.5)]
    explorer.task = "coat"  # known: nothing is left to ask for
    assert not explorer.panel("map").state.get("need")


def test_a_panel_alone():
    panel = Panel("unit")
    panel._handle_custom_msg({"do": "set", "name": "task", "value": 1}, [])
    panel._handle_custom_msg({"do": "work"}, [])
    assert panel.state == {}
    sent: list[Any] = []
    panel.observe(lambda change: sent.append(change.new), "state")
    panel.show({"title": "a"})
    panel.show({"title": "a"})
    assert sent == [{"title": "a"}]
    panel.fail(ValueError("no"))
    assert panel.state == {"title": "a", "error": "ValueError: no", "working": "", "need": 0}


# The queue


class Slow(Answers):
    """Answers that are there once they are let go."""

    def __init__(self) -> None:
        super().__init__(Subject.of(None, make_masks(1)), self.drawn, self.drawn_far, 20, 0)
        self.began: list[Any] = []
        self.states: list[tuple[str, float]] = []
        self.go = threading.Semaphore(0)

    def drawn(self) -> None:
        self.states.append((self.words(), self.done))

    def drawn_far(self, done: float) -> None:
        self.states.append((self.words(), done))

    def work_out(self, key: Any) -> Any:
        self.began.append(key)
        assert self.go.acquire(timeout=PATIENCE)
        if key[1] == "bad":
            raise KeyError("bad")
        return f"about {key[1]}"


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_the_latest_wish_comes_next_and_older_ones_are_dropped():
    slow = Slow()
    slow.ask([("graph", "a", 0.5), ("evidence", "a", 0.5)])
    until(lambda: len(slow.began) == 1)
    for name in "bcde":
        slow.ask([("graph", name, 0.5), ("evidence", name, 0.5)])
    slow.go.release(10)
    assert slow.wait(PATIENCE)
    # What had begun goes on; of the others only the last are worked out, in the order of asking.
    assert slow.began == [("graph", "a", 0.5), ("graph", "e", 0.5), ("evidence", "e", 0.5)]
    assert slow.get(("evidence", "e", 0.5)) == "about e"
    assert slow.get(("evidence", "b", 0.5)) is None


def test_what_python_asks_for_comes_first_and_what_panels_asked_for_stays():
    slow = Slow()
    slow.ask([("graph", "a", 0.5), ("evidence", "a", 0.5)])
    until(lambda: len(slow.began) == 1)
    slow.ask_first(("peaks", "x"))
    slow.ask_first(("evidence", "a", 0.5))  # asked for before: it moves, and is worked out once
    slow.go.release(10)
    assert slow.wait(PATIENCE)
    assert slow.began == [("graph", "a", 0.5), ("evidence", "a", 0.5), ("peaks", "x")]


def test_the_time_that_may_be_waited_is_that_of_all_answers_together():
    slow = Slow()
    asked: list[int] = []

    def keys() -> list[Any]:
        asked.append(1)
        slow.go.release()  # each time one more answer is there, and one more is wanted
        time.sleep(0.05)
        return [("graph", str(at), 0.5) for at in range(len(asked))]

    start = time.monotonic()
    with pytest.raises(NadkitError, match=r"not done after 0\.3 seconds"):
        slow.work_all(keys, 0.3)
    assert 3 < len(asked) < 12
    assert time.monotonic() - start < 20
    slow.go.release(50)
    assert slow.wait(PATIENCE)


def test_what_is_being_worked_out_or_known_is_not_begun_again():
    slow = Slow()
    slow.ask([("graph", "a", 0.5)])
    until(lambda: slow.began == [("graph", "a", 0.5)])
    slow.ask([("graph", "a", 0.5)])
    slow.go.release(5)
    assert slow.wait(PATIENCE)
    slow.ask([("graph", "a", 0.5)])
    assert slow.wait(PATIENCE)
    assert slow.began == [("graph", "a", 0.5)]


def test_waiting_has_an_end_and_the_thread_has_one_too():
    slow = Slow()
    assert slow.wait(0)  # nothing was asked
    slow.ask([("graph", "a", 0.5)])
    start = time.monotonic()
    assert not slow.wait(0.05)
    assert time.monotonic() - start < 5
    until(lambda: slow.words() == "reading the links of a")
    slow.go.release()
    assert slow.wait(PATIENCE)
    assert slow.words() == ""
    assert slow._thread is None
    slow.ask([("graph", "b", 0.5)])  # it begins again
    slow.go.release()
    assert slow.wait(PATIENCE)
    assert slow.get(("graph", "b", 0.5)) == "about b"


def test_a_failed_answer_is_told_and_the_next_one_is_worked_out():
    slow = Slow()
    slow.go.release(2)
    slow.ask([("graph", "bad", 0.5), ("graph", "good", 0.5)])
    assert slow.wait(PATIENCE)
    failed = slow.get(("graph", "bad", 0.5))
    assert isinstance(failed, Failed)
    assert failed.text == "KeyError: 'bad'"
    assert slow.get(("graph", "good", 0.5)) == "about good"


def test_a_fault_while_drawing_does_not_end_the_work(monkeypatch):
    slow = Slow()
    told: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", lambda fault: told.append(fault.exc_type))
    slow.changed = lambda: 1 / 0
    slow.go.release(2)
    slow.ask([("graph", "a", 0.5), ("graph", "b", 0.5)])
    assert slow.wait(PATIENCE)
    assert slow.get(("graph", "b", 0.5)) == "about b"


def test_a_wish_while_the_last_answer_is_drawn_is_not_lost():
    slow = Slow()
    slow.go.release(5)
    later = [[("graph", "b", 0.5)]]

    def drawn() -> None:
        if slow.get(("graph", "a", 0.5)) and slow.now is None and later:
            slow.ask(later.pop())

    slow.changed = drawn
    slow.ask([("graph", "a", 0.5)])
    assert slow.wait(PATIENCE)
    assert slow.get(("graph", "b", 0.5)) == "about b"


def test_old_answers_are_let_go():
    slow = Slow()
    for number in range(70):
        slow.put(("graph", str(number), 0.5), number)
        slow.put(("peaks",), "peaks")
    assert [slow.get(("graph", str(n), 0.5)) for n in (5, 6, 69)] == [None, 6, 69]
    assert slow.get(("peaks",)) == "peaks"


def test_another_class_drops_what_was_wanted_for_the_one_before(explorer, monkeypatch):
    """Evidence takes seconds; it must not stand in the way of the class that is chosen now."""
    began: list[Any] = []
    go = threading.Semaphore(0)

    def work_out(key: Any) -> str:
        began.append(key)
        assert go.acquire(timeout=PATIENCE)
        raise NadkitError("not today")

    monkeypatch.setattr(explorer._answers, "work_out", work_out)
    page(explorer, "map", {"do": "work"})
    page(explorer, "evidence", {"do": "work"})
    until(lambda: len(began) == 1)
    explorer.task = "boot"
    go.release(5)
    assert explorer._answers.wait(PATIENCE)
    assert began == [("graph", "coat", 0.5)]


# The network that was given


def test_the_network_given_is_never_touched(masks, images):
    network = make_network()
    network.model.train()
    network.model[1].weight.requires_grad_(False)
    network.model[3].weight.grad = torch.ones(7, 5)
    model = network.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    calls: list[bool] = []  # a hook of the user's is copied with the model, as it may be part of what it does
    handle = model.register_forward_hook(lambda module, *_: calls.append(module is model))
    hooks = [len(module._forward_hooks) for module in model.modules()]
    explorer = nk.explore(network, masks, images, calibrate_on=make_images((6, 5, 7, 4), 8))
    explorer.unit, explorer.matrix, explorer.image = "3/1", "accepted", explorer._subject.rows[0]
    explorer.wait(PATIENCE)
    explorer.snapshot()
    assert calls
    assert not any(calls)
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
    assert not any(module._forward_pre_hooks or module._backward_hooks for module in model.modules())
    assert all(module.training for module in model.modules())
    assert [p.requires_grad for p in model.parameters()] == [False] + [True] * 5
    assert torch.equal(model[3].weight.grad, torch.ones(7, 5))
    assert model[4].weight.grad is None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    assert torch.is_grad_enabled()
    handle.remove()


def test_a_cell_may_run_the_model_while_the_worker_gates_its_copy(masks, images):
    network = make_network()
    pixels = network.preprocess(images.pixels)
    with torch.no_grad():
        expected = network.model(pixels)
    explorer = nk.explore(network, masks, images)
    explorer.matrix = "accepted"
    for kind in ("map", "evidence", "matrix", "pictures"):
        page(explorer, kind, {"do": "work"})
    passes = 0
    while not explorer._answers.wait(0) or not passes:
        logits = network.model(pixels)
        assert torch.equal(logits, expected)
        assert logits.requires_grad  # gradients are on in this thread, whatever the worker does
        passes += 1
    assert explorer._answers.wait(PATIENCE)
    assert passes > 1
    assert "error" not in explorer.panel("evidence").state


def test_a_model_that_cannot_be_copied_is_refused(network, masks, images):
    class Stubborn(nn.Sequential):
        def __deepcopy__(self, memo: Any) -> None:
            raise TypeError("cannot be copied")

    with pytest.raises(NadkitError, match=r"cannot be copied \(cannot be copied\); a widget works on a copy"):
        nk.explore(replace(network, model=Stubborn(*network.model)), masks, images)


# Few, many, none


def test_one_class_and_one_layer():
    network = Network.wrap(
        nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.Linear(5, 4)), NAMES,
        example=torch.zeros(1, 1, 2, 3), layers=["1"], name="hand",
    )  # fmt: skip
    masks = MaskSet.from_scores({"1": torch.tensor([[0.9, 0.1, 0.6, 0.4, 0.8]])}, ["coat"])
    explorer = nk.explore(network, masks, make_images((4, 4, 4, 4), 3))
    explorer.unit, explorer.image, explorer.matrix = "1/0", explorer._subject.rows[0], "accepted"
    explorer.wait(PATIENCE)
    assert all("error" not in state for state in states(explorer).values()), states(explorer)
    column = explorer.panel("map").state["columns"][1]
    assert column["marks"] == "10101"  # no other class: none is kept "alone"
    assert column["tasks"] is None
    assert explorer.panel("matrix").state["rows"] == ["coat"]
    assert (
        explorer.panel("unit")
        .state["facts"]
        .startswith("Score 0.90 for coat; kept by 1 of 1 class above 0.50.")
    )
    explorer.matrix = "phi"
    assert explorer.panel("matrix").state["values"] == [[1.0]]
    assert explorer.snapshot().data
    strict(states(explorer))


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_masks_that_keep_nothing_or_everything(network, images, score):
    scores = {address: torch.full((3, units), score) for address, units in UNITS.items()}
    explorer = nk.explore(network, MaskSet.from_scores(scores, TASKS), images)
    explorer.unit, explorer.image, explorer.other_task = "3/1", explorer._subject.rows[0], "boot"
    for matrix in ("phi", "phi_all", "jaccard", "accepted"):
        explorer.matrix = matrix
        explorer.wait(PATIENCE)
        assert [k for k, state in states(explorer).items() if "error" in state] == [], states(explorer)
        strict(states(explorer))
    explorer.matrix = "phi"
    # No spread, no φ; and a class is as much like itself as can be said.
    assert all(value is None for row in explorer.panel("matrix").state["values"] for value in row)
    assert ("keeps 0 of 12" in explorer.panel("controls").state["summary"]) == (score == 0)
    if score == 0:
        assert "so it has no links" in explorer.panel("unit").state["facts"]
        assert explorer.to_frame("unit").empty
    assert "<svg" in map_svg(explorer._subject, explorer.choice)
    explorer.snapshot()


def test_without_pictures_or_network_panels_say_what_they_lack(network, masks, images):
    no_network = "The network is not at hand"
    for given, words in (
        ((network, masks), "No pictures were given"),
        ((None, masks), no_network),
        ((None, masks, images), no_network),
    ):
        explorer = nk.explore(*given)
        explorer.unit, explorer.matrix = "3/1", "accepted"
        explorer.wait(1)
        for kind in ("map", "evidence", "unit", "matrix", "pictures"):
            assert explorer.panel(kind).state["note"].startswith(words), kind
            assert not explorer.panel(kind).state.get("need"), kind
        assert len(explorer.to_frame()) == 12
        with pytest.raises(NadkitError, match=words):
            explorer.to_frame("evidence")
        explorer.matrix = "phi"
        assert explorer.panel("matrix").state["values"][0][0] == 1.0
        assert explorer.snapshot().data
        strict(states(explorer))


def test_masks_alone_name_the_network_they_are_for(masks):
    explorer = nk.explore(None, masks.with_meta(network="far-net"))
    assert explorer.panel("controls").state["title"] == "Sub-architectures of far-net"
    assert "of far-net" in explorer.panel("controls").state["summary"]


def test_pictures_of_classes_without_masks_and_masks_without_pictures(network, masks):
    """ "shirt" has no mask and is not shown; of "boot" there is no picture, which its panels say."""
    images = make_images((6, 5, 7, 4), 3)
    images = images[[at for at, label in enumerate(images.labels.tolist()) if NAMES[label] != "boot"]]
    explorer = nk.explore(network, masks, images)
    labels = images.labels.tolist()
    assert list(explorer._subject.rows) == [at for at, label in enumerate(labels) if NAMES[label] in TASKS]
    explorer.matrix = "accepted"
    explorer.wait(PATIENCE)
    assert "error" not in explorer.panel("matrix").state
    explorer.task = "boot"
    explorer.wait(PATIENCE)
    assert explorer.panel("pictures").state["note"] == "there is no picture of boot among those given"
    for kind in ("evidence", "map"):
        state = explorer.panel(kind).state
        # What cannot be measured is said in words, not by an error of Python's own.
        assert not re.match("IndexError|ValueError|KeyError", state.get("error", "")), state
    strict(states(explorer))


def test_of_many_pictures_some_of_each_class_can_be_chosen(network, masks):
    images = make_images((150, 3, 150, 150), seed=3)
    explorer = nk.explore(network, masks, images)
    counts = {task: len(list(explorer._subject.of_class(task))) for task in TASKS}
    assert counts == {"coat": 3, "boot": MOST_OF_CLASS, "bag": MOST_OF_CLASS}
    explorer.task = "bag"
    explorer.wait(PATIENCE)
    strips = dict(explorer.panel("pictures").state["strips"])
    assert max(map(len, strips.values())) == MOST_IN_STRIP
    assert all(NAMES[int(images.labels[one["index"]])] == "bag" for strip in strips.values() for one in strip)


def test_pictures_of_a_folder_are_decoded_as_they_are_needed(tmp_path: Path):
    network, masks, _ = convolutions()
    for name, at in (("top", (1, 0)), ("low", (2, 3))):
        (tmp_path / name).mkdir()
        for number in range(4):
            picture = Image.new("L", (4, 4))
            picture.putpixel(at, 200 + number)
            picture.save(tmp_path / name / f"{number}.png")
    images = load_images(tmp_path, like=network)
    explorer = nk.explore(network, masks, images)
    explorer.unit, explorer.matrix = "3/1", "accepted"
    explorer.image = explorer._subject.rows[-1]
    explorer.wait(PATIENCE)
    assert [k for k, state in states(explorer).items() if "error" in state] == [], states(explorer)
    assert explorer.panel("pictures").state["chosen"]["picture"]["src"].startswith("data:image/png")


WIDE = {f"layer{at}": units for at, units in enumerate([64] * 2 + [128] * 2 + [256] * 3 + [512] * 6)}


def test_a_thousand_classes_and_four_thousand_units():
    assert sum(WIDE.values()) == 4224
    names = [f"class number {at}" for at in range(1000)]
    masks = MaskSet.from_scores({address: torch.rand(1000, units) for address, units in WIDE.items()}, names)
    start = time.process_time()
    explorer = nk.explore(None, masks)
    assert time.process_time() - start < 5
    sent: dict[str, int] = {}
    for kind in PANELS:
        explorer.panel(kind).observe(
            lambda change, kind=kind: sent.__setitem__(kind, len(strict(change.new))), "state"
        )
    changes = {"task": names[7], "layer": "layer3", "threshold": 0.6, "other_task": names[999],
               "unit": "layer6/200", "matrix": "phi_all", "condition": "random"}  # fmt: skip
    for name, value in changes.items():
        sent.clear()
        setattr(explorer, name, value)
        assert 0 < sum(sent.values()) < 200_000, (name, sent)
    state = explorer.panel("matrix").state
    assert len(state["rows"]) == 30
    assert state["rows"][:2] == [names[7], names[999]]
    assert "970 classes further from class number 7 are left out" in state["note"]
    columns = explorer.panel("map").state["columns"]
    assert [column["name"] for column in columns if column["open"]] == [
        "input",
        "layer6",
        f"logit:{names[7]}",
    ]
    # Of the chosen layer all 256 units; elsewhere only how many are kept.
    assert len(columns[7]["marks"]) == 256
    assert columns[8]["kept"] == sum(kept_by_hand(masks, names[7], 0.6)["layer7"])
    assert len(explorer.to_frame()) == 4224


def test_a_layer_of_thousands_draws_those_that_score_highest_and_the_chosen_one():
    scores = torch.rand(2, 5000)
    scores[0, 17] = 0.0
    explorer = nk.explore(None, MaskSet.from_scores({"wide": scores}, ["a", "b"]))
    explorer.unit = "wide/17"
    column = explorer.panel("map").state["columns"][1]
    assert len(column["ids"]) == len(column["marks"]) == 601
    assert set(column["ids"]) - {17} == set(np.argsort(-scores[0].numpy(), kind="stable")[:600].tolist())
    assert column["ids"] == sorted(column["ids"])
    assert column["hint"] == "the 601 that score highest are drawn"


def test_a_deep_network_is_drawn_by_blocks():
    scores = {f"stage{b}.{at}": torch.rand(2, 3) for b in range(10) for at in range(10)}
    explorer = nk.explore(None, MaskSet.from_scores(scores, ["a", "b"]), layer="stage4.3")
    columns = explorer.panel("map").state["columns"][1:-1]
    assert len(columns) <= 40
    assert sum(column["units"] for column in columns) == 300
    covered = [layer for column in columns for layer in column["layers"]]
    assert covered == list(scores)
    assert [column["name"] for column in columns if column["open"]] == ["stage4.3"]


def test_colour_photographs_stay_within_the_budget(network):
    names = ("a", "b")
    model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3), nn.Linear(3, 2))
    images = photographs(100, 96, names)
    network = Network.wrap(model, names, example=torch.zeros(1, 3, 96, 96), layers=["2"], name="photo",
                           preprocess=lambda pixels: pixels.float() / 255)  # fmt: skip
    explorer = nk.explore(network, MaskSet.from_scores({"2": torch.rand(2, 3)}, names), images)
    explorer.wait(PATIENCE)
    sent: dict[str, int] = {}
    for kind in PANELS:
        explorer.panel(kind).observe(
            lambda change, kind=kind: sent.__setitem__(kind, len(strict(change.new))), "state"
        )
    explorer.task = "b"
    explorer.wait(PATIENCE)
    assert max(sent.values()) < 200_000, sent


# Pictures that stand still


def shown(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What displaying the explorer hands to the front end."""
    found: list[Any] = []
    monkeypatch.setattr("IPython.display.display", lambda *things, **_: found.extend(things))
    explorer._ipython_display_()
    return found


def test_a_static_picture_stands_before_the_widget(explorer, monkeypatch):
    explorer.task = "boot"
    picture, bundle = shown(explorer, monkeypatch)
    text = picture.data
    words = explorer.panel("controls").state["summary"]
    assert text.startswith(f'<figure class="nadkit-still-{explorer.panel("controls").model_id}"')
    assert explorer.panel("controls").still == explorer.panel("controls").model_id
    assert f'alt="{words}"' in text
    assert f"<figcaption>{words} This is a static picture" in text
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert "http" not in re.sub(r'src="[^"]*"', "", text)
    # A picture of its own for each panel; that of the explorer goes by the controls, which it always shows.
    assert [explorer.panel(kind).still for kind in PANELS] == [
        explorer.panel(kind).model_id for kind in PANELS
    ]


def svg_of(text: str) -> ET.Element:
    encoded = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', text)
    assert encoded is not None
    return ET.fromstring(base64.b64decode(encoded[1]).decode())


def texts(svg: ET.Element) -> list[str]:
    return [node.text or "" for node in svg.iter("{http://www.w3.org/2000/svg}text")]


def test_the_static_picture_counts_what_is_kept(explorer, masks, monkeypatch):
    svg = svg_of(shown(explorer, monkeypatch)[0].data)
    kept = kept_by_hand(masks, "coat")
    assert {f"{sum(kept[layer])}/{units}" for layer, units in UNITS.items()} <= set(texts(svg))
    assert texts(svg)[0] == "hand: coat"
    drawn = sum(path.get("d").count("M") for path in svg.iter("{http://www.w3.org/2000/svg}path"))
    assert drawn == 12 + sum(not hollow for *_, hollow in explorer.panel("map").state["legend"])


@pytest.mark.parametrize("other", [False, True])
def test_names_of_any_letters(other, monkeypatch):
    layers = ('a"b', "<layer>/4", "x & y", "文字", "z" * 200)
    scores = {layer: torch.rand(len(STRANGE), 3) for layer in layers}
    explorer = nk.explore(None, MaskSet.from_scores(scores, STRANGE))
    for task in STRANGE:
        explorer.task = task
        explorer.other_task = STRANGE[0] if other and task != STRANGE[0] else ""
        for layer in layers:
            explorer.unit = f"{layer}/2"
            assert explorer.layer == layer
        picture, _ = shown(explorer, monkeypatch)
        svg = svg_of(picture.data)  # well-formed, or this raises
        assert svg.findtext("{http://www.w3.org/2000/svg}title") == f"a network: {task}"
        assert texts(svg)[0] == cut(f"a network: {task}", 720)
        for kind in PANELS:  # and of every panel by itself
            svg_of(explorer.panel(kind).picture._made())
        html = ET.fromstring(xhtml(picture.data))
        assert html.find("img").get("alt") == explorer.panel("controls").state["summary"]
        strict(states(explorer))
    assert explorer.snapshot().layout.meta["alt"]
    page(explorer, "matrix", {"do": "set", "name": "pair", "value": [STRANGE[1], STRANGE[2]]})
    assert (explorer.task, explorer.other_task) == (STRANGE[1], STRANGE[2])


def xhtml(text: str) -> str:
    """The figure as XML: its image closes nowhere in HTML."""
    return re.sub(r"(<img [^>]*)>", r"\1/>", text)


def test_a_name_with_control_characters_does_not_break_the_picture(monkeypatch):
    explorer = nk.explore(None, MaskSet.from_scores({"a\x08b": torch.rand(2, 3)}, ["bell\x07", "x"]))
    svg_of(shown(explorer, monkeypatch)[0].data)


def test_a_snapshot_is_the_map_with_words(explorer):
    explorer.unit = "3/2"
    explorer.wait(PATIENCE)
    figure = explorer.snapshot()
    assert figure.to_dict() == nk.figures.units(explorer.to_frame(), unit="3/2").to_dict()
    assert "coat keeps" in figure.layout.meta["alt"]
    explorer.unit, explorer.other_task = "", "boot"
    assert "boot" in explorer.snapshot().layout.meta["alt"]


def test_two_explorers_do_not_meet(network, masks, images):
    one, two = nk.explore(network, masks, images), nk.explore(network, masks, images)
    one.task = "bag"
    assert two.task == "coat"
    assert one.panel("map").model_id != two.panel("map").model_id
    one.wait(PATIENCE)
    assert two.panel("map").state["need"]


def test_closing_while_the_worker_works_does_no_harm(network, masks, images):
    explorer = nk.explore(network, masks, images)
    for kind in ("map", "evidence", "pictures"):
        page(explorer, kind, {"do": "work"})
    explorer.close()
    explorer.close()
    assert explorer._answers.wait(PATIENCE)
    explorer.task = "boot"  # nobody sees it, and nothing breaks
    assert explorer.to_frame()["task"].unique().tolist() == ["boot"]


def test_a_unit_is_written_in_one_way(explorer):
    explorer.unit = "3/02"
    assert explorer.unit == "3/2"
    assert explorer.panel("map").state["unit"] == "3/2"


def test_a_model_that_was_not_wrapped_is_refused_with_the_way_to_wrap_it(masks, images):
    model = nn.Sequential(nn.Flatten())
    model.layers = nn.ModuleList()  # as some networks of others have; it is no network of nadkit for that
    with pytest.raises(NadkitError, match=r"explore got Sequential as network; .*nk.Network.wrap\(model"):
        nk.explore(model, masks, images)
