"""Differences, flows and verified links: by hand, by brute force, and against a second way to ablate."""

from __future__ import annotations

import copy
import io
import itertools
import math
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from hand import TASKS, make_images, make_masks, make_network
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow
from scipy.stats import spearmanr
from test_graph_figures import (
    add_link,
    add_unit,
    carry,
    coat_graph,
    empty_graph,
    overlaid,
    random_graph,
    small_graph,
)
from torch import Tensor, nn

import nadkit as nk
from nadkit.errors import MaskFileError, NadkitError
from nadkit.graph import SubArchitecture, diff, flow, runs
from nadkit.graph.ablation import verified
from nadkit.graph.runs import Clean, Link, Place, all_at_once, one_by_one
from nadkit.images import Images
from nadkit.masks import MaskSet
from nadkit.networks import Network, log_odds
from nadkit.taps import frozen

# Differences


def test_units_and_links_in_both_and_in_one_only() -> None:
    found = diff(SubArchitecture(small_graph()), SubArchitecture(coat_graph()))
    expected = overlaid(small_graph(), coat_graph())
    assert dict(found.graph.nodes) == dict(expected.nodes)
    assert dict(found.graph.edges) == dict(expected.edges)
    assert found.graph.graph == {**expected.graph, "weights_id": "x"}
    assert found.names == ("bag", "coat")
    counts = found.counts.set_index(["layer", "what", "where"])["count"]
    assert [int(counts["b", "units", where]) for where in ("both", "first", "second")] == [1, 1, 1]
    # Into b: a/0 and a/1 -> b/0 in both, -> b/3 in the first, -> b/5 in the second.
    assert [int(counts["b", "links", where]) for where in ("both", "first", "second")] == [2, 2, 2]
    assert [int(counts["logit", "links", where]) for where in ("both", "first", "second")] == [0, 1, 1]
    assert [int(counts["all", "units", where]) for where in ("both", "first", "second")] == [4, 1, 1]
    assert [int(counts["all", "links", where]) for where in ("both", "first", "second")] == [6, 4, 4]
    assert repr(found) == (
        "Difference(bag and coat in net: 4 of 6 units in both, 1 in bag only, 1 in coat only; 6 of 14 links "
        "in both, 4 in bag only, 4 in coat only)"
    )
    page = found._repr_html_()
    assert "<tr><td>b</td><td>1</td><td>1</td><td>1</td><td>2</td><td>2</td><td>2</td></tr>" in page
    assert "<tr><td>logit</td><td></td><td></td><td></td><td>0</td><td>1</td><td>1</td></tr>" in page
    title = nk.figures.difference(found).layout.title.text
    assert title == "net: bag and coat share 4 of 6 kept units and 6 of 14 links"
    assert found.links.set_index(["source", "target"]).loc[("a/0", "b/0"), "where"] == "both"


def test_a_difference_from_itself_is_nothing() -> None:
    arch = SubArchitecture(small_graph())
    counts = diff(arch, arch).counts.groupby("where")["count"].sum()
    assert counts["first"] == counts["second"] == 0


def test_seeds_and_other_names() -> None:
    one, other = small_graph(), small_graph()
    assert diff(SubArchitecture(one), SubArchitecture(other)).names == ("bag (first)", "bag (second)")
    one.graph["mask_seed"], other.graph["mask_seed"] = 0, 2
    assert diff(SubArchitecture(one), SubArchitecture(other)).names == ("bag (seed 0)", "bag (seed 2)")
    named = diff(SubArchitecture(one), SubArchitecture(coat_graph()), names=("true class", "predicted"))
    assert named.names == ("true class", "predicted")
    for names in (("a",), "ab", ("a", 3)):
        with pytest.raises(NadkitError, match="give two names"):
            diff(SubArchitecture(one), SubArchitecture(other), names=names)  # type: ignore[arg-type]


def test_two_seeds_of_a_real_network() -> None:
    network, images = make_network(), make_images([5, 6, 7, 8], 0)
    sets = [make_masks(seed, meta={"seed": seed}) for seed in (0, 1)]
    one, other = (nk.extract(network, masks, images, "coat", progress=False) for masks in sets)
    found = diff(one, other)
    kept = [{str(unit) for unit in masks.kept("coat")} for masks in sets]
    where = {name: place for name, place in found.graph.nodes(data="where") if "/" in name}
    assert {name for name in where if where[name] == "both"} == kept[0] & kept[1]
    assert {name for name in where if where[name] == "second"} == kept[1] - kept[0]
    assert found.names == ("coat (seed 0)", "coat (seed 1)")


def test_the_true_and_the_predicted_class_of_a_misclassified_picture() -> None:
    network, masks = nk.load_network("vgg-fashion"), nk.load_masks("vgg-fashion")
    images = nk.load_images("fashion", split="test", per_class=20)
    answers = network(images.pixels).argmax(1)
    row = int((answers != images.labels).nonzero()[0])
    classes = [images.class_names[int(each[row])] for each in (images.labels, answers)]
    true, predicted = nk.extract(network, masks, images, classes, pictures=4, progress=False).values()
    found = diff(true, predicted, names=("true", "predicted"))
    kept = [{str(unit) for unit in masks.kept(task)} for task in classes]
    where = {name: place for name, place in found.graph.nodes(data="where") if "/" in name}
    for place, units in (
        ("both", kept[0] & kept[1]), ("first", kept[0] - kept[1]), ("second", kept[1] - kept[0]),
    ):  # fmt: skip
        assert {name for name in where if where[name] == place} == units
        assert units
    assert repr(found).startswith("Difference(true and predicted in vgg-fashion: ")
    links = {(a, b): place for a, b, place in found.graph.edges(data="where")}
    assert {ends for ends in links if links[ends] == "both"} == set(true.graph.edges) & set(
        predicted.graph.edges
    )


@pytest.mark.parametrize("verb", [diff, flow])
def test_other_things_and_other_networks_are_refused(verb: Any) -> None:
    arch = SubArchitecture(small_graph())
    with pytest.raises(
        NadkitError, match=r"takes what nk\.extract returns, and got dict; of several tasks that"
    ):
        verb({"bag": arch}, arch)
    with pytest.raises(NadkitError, match="and got DiGraph"):
        verb(arch, small_graph())
    other = small_graph()
    other.graph["weights_id"] = "y"
    with pytest.raises(NadkitError, match=r"of different networks \(weights_id 'x' and 'y'\)"):
        verb(arch, SubArchitecture(other))
    broken = small_graph()
    del broken.edges["a/0", "b/0"]["share"]
    with pytest.raises(NadkitError, match="it lacks 'share'"):
        verb(arch, SubArchitecture(broken))


# Flows


def test_what_each_layer_carries_and_lists_by_hand() -> None:
    graph = small_graph()
    found = flow(SubArchitecture(graph))
    table = found.layers.set_index("layer")
    # Into the logit 3 / 4, all through c/2; of that 1.8 / 20 from b/0, 9 / 20 from b/3, 0.4 / 20 from a/1.
    c = 0.75
    b = {"b/0": c * 0.09, "b/3": c * 0.45}
    # b/0 takes 5 / 10 from a/0 and 2.5 / 10 from a/1, b/3 3 / 30 from each.
    a = {"a/0": b["b/0"] * 0.5 + b["b/3"] * 0.1, "a/1": b["b/0"] * 0.25 + b["b/3"] * 0.1 + c * 0.02}
    assert table.loc["c", "carried"] == pytest.approx(c)
    assert table.loc["b", "carried"] == pytest.approx(sum(b.values()))
    assert table.loc["a", "carried"] == pytest.approx(sum(a.values()))
    assert table.loc["input", "carried"] == pytest.approx(sum(a.values()))  # all of a's units
    assert table.loc["c", "listed"] == pytest.approx(c)
    assert table.loc["b", "listed"] == pytest.approx(sum(b.values()) + c * 0.02)  # with the link past b
    assert table.loc["a", "listed"] == pytest.approx(sum(a.values()))
    # The flow through b is in 1 : 5 at its two units.
    assert table.loc["b", "effective_units"] == pytest.approx(36 / 26)
    assert table.loc[["input", "c", "logit"], "effective_units"].tolist() == [1, 1, 1]
    assert table.loc["a", "added"] == pytest.approx(5 + 3 + 3 + 0.4)
    assert table.loc["a", "taken"] == -2.5
    assert table["units"].to_dict() == {"input": 1, "a": 2, "b": 2, "c": 1, "logit": 1}
    assert (table.loc["logit", "carried"], table.loc["logit", "listed"]) == (1, 0)
    # a/0 → b/0 carries half of b/0's part and a/0 → b/3 a tenth of b/3's, which is as much.
    assert found.widest_path[-2:] == ("c/2", "logit:bag")
    assert found.width == pytest.approx(c * 0.045)
    assert found.other_task is None
    assert found.shared_trunk is None
    assert "at its weakest link 3.4 % of the logit's input" in found.answer
    assert "it runs through the fewest units in c, as if 1.0" in found.answer
    assert repr(found) == f"Flow({found.answer})"
    assert "<td>0.75</td>" in found._repr_html_()
    graph.nodes["c/2"]["carried"] = 1.0  # what is not listed is carried, too
    table = flow(SubArchitecture(graph)).layers.set_index("layer")
    assert table.loc["c", "carried"] == 1
    assert table.loc["c", "listed"] == pytest.approx(c)
    assert table.loc["b", "listed"] == pytest.approx(0.09 + 0.45 + 0.02)


@pytest.mark.parametrize("seed", range(6))
def test_widest_path_and_minimum_cut_against_all_paths_and_another_algorithm(seed: int) -> None:
    graph = random_graph({"a": 6, "b": 6, "c": 6, "d": 6}, [4, 5, 3, 4], 3, skips=0.5, seed=seed)
    found = flow(SubArchitecture(graph))
    strength = {(a, b): graph.nodes[b]["carried"] * share for a, b, share in graph.edges(data="share")}
    widths = {
        tuple(path): min(strength[pair] for pair in itertools.pairwise(path))
        for path in nx.all_simple_paths(graph, "input", "logit:bag")
    }
    assert found.width == pytest.approx(max(widths.values()))
    assert widths[found.widest_path] == pytest.approx(found.width)
    names = list(graph)
    scale = 10**6
    strengths = np.zeros((len(names), len(names)))
    for (a, b), value in strength.items():
        strengths[names.index(a), names.index(b)] = value
    capacity = csr_array((strengths * scale).round().astype(np.int32))
    most = maximum_flow(capacity, names.index("input"), names.index("logit:bag")).flow_value / scale
    assert found.cut_share == pytest.approx(most, abs=1e-4)
    assert sum(strength[link] for link in found.cut_links) == pytest.approx(most, abs=1e-4)
    assert most < 1
    assert most <= found.layers[found.layers["layer"] != "logit"]["listed"].min() + 1e-4
    into = {graph.nodes[target]["layer"] for _, target in found.cut_links}
    assert found.cut_layers == tuple(name for name in ("a", "b", "c", "d", "logit") if name in into)
    apart = graph.copy()
    apart.remove_edges_from(found.cut_links)
    assert not nx.has_path(apart, "input", "logit:bag")


def test_the_minimum_cut_is_where_links_listed_tell_least() -> None:
    graph = empty_graph({"a": 2, "b": 2})
    add_unit(graph, "a/0", "a", 0, incoming=1.0, carried=1.0)
    add_unit(graph, "b/0", "b", 0, incoming=10.0, carried=0.5)
    add_unit(graph, "b/1", "b", 1, incoming=10.0, carried=0.5)
    add_unit(graph, "logit:bag", "logit", -1, incoming=2.0)
    for link in (
        ("input", "a/0", 1.0),
        ("a/0", "b/0", 1.0),
        ("a/0", "b/1", 1.5),
        ("b/0", "logit:bag", 1.0),
        ("b/1", "logit:bag", 1.0),
    ):
        add_link(graph, *link)
    found = flow(SubArchitecture(graph))
    assert found.cut_links == (("a/0", "b/0"), ("a/0", "b/1"))
    assert found.cut_layers == ("b",)
    assert found.cut_share == pytest.approx(0.125)
    assert "the links listed hold 12 % at least, least into b (minimum cut, 2 links)" in found.answer


def test_with_all_links_listed_nothing_is_lost() -> None:
    network, masks = nk.load_network("vgg-fashion"), nk.load_masks("vgg-fashion")
    images = nk.load_images("fashion", split="test", per_class=3)
    few, every = (
        flow(nk.extract(network, masks, images, "bag", links_per_unit=most, least_share=0, progress=False))
        for most in (5, 400)
    )
    assert every.cut_share == pytest.approx(1)
    assert every.layers["carried"].tolist() == pytest.approx([1] * 11)
    assert few.layers["carried"].tolist() == every.layers["carried"].tolist()
    assert few.layers["effective_units"].tolist() == every.layers["effective_units"].tolist()
    assert 0.2 < few.cut_share < 0.8
    assert few.cut_layers != ("logit",)


@pytest.mark.parametrize("seed", [42, 57, 84])
def test_rests_of_full_links_are_no_way_past_the_cut(seed: int) -> None:
    """With fractions for capacities the cuts of these graphs came back without a link."""
    graph = random_graph(dict.fromkeys("abcde", 9), [7, 8, 7, 6, 8], 4, skips=0.5, seed=seed)
    found = flow(SubArchitecture(graph))
    strength = [graph.nodes[b]["carried"] * graph.edges[a, b]["share"] for a, b in found.cut_links]
    assert found.cut_share == pytest.approx(sum(strength))
    graph.remove_edges_from(found.cut_links)
    assert not nx.has_path(graph, "input", "logit:bag")


def test_a_cut_flow_has_no_path() -> None:
    graph = small_graph()
    graph.remove_edge("c/2", "logit:bag")
    found = flow(SubArchitecture(graph))
    assert (found.widest_path, found.width) == ((), 0.0)
    assert (found.cut_links, found.cut_share, found.cut_layers) == ((), 0.0, ())
    assert "no path of links leads from the input to the logit" in found.answer
    assert "hold" not in found.answer


def ladder(rungs: dict[str, int], task: str) -> nx.DiGraph:
    """One unit a layer, each feeding the next."""
    graph = empty_graph(dict.fromkeys(rungs, 4), task)
    before = "input"
    for layer, unit in rungs.items():
        add_unit(graph, f"{layer}/{unit}", layer, unit, incoming=2.0)
        add_link(graph, before, f"{layer}/{unit}", 1.0)
        before = f"{layer}/{unit}"
    add_unit(graph, f"logit:{task}", "logit", -1, incoming=1.0)
    add_link(graph, before, f"logit:{task}", 1.0)
    return carry(graph)


def test_two_flows_part_and_rejoin() -> None:
    layers = ["a", "b", "c", "d", "e"]
    one = ladder(dict.fromkeys(layers, 0), "bag")
    other = ladder({"a": 0, "b": 0, "c": 1, "d": 0, "e": 2}, "coat")
    found = flow(SubArchitecture(one), SubArchitecture(other))
    assert (found.shared_trunk, found.split_layer, found.rejoined) == (2, "c", ("d",))
    assert "share a trunk of 2 layers, part at c and rejoin at d" in found.answer
    shared = found.layers[found.layers["task"] == "coat"].set_index("layer")["shared"]
    assert shared.to_dict() == {"input": 1, "a": 1, "b": 1, "c": 0, "d": 1, "e": 0, "logit": 0}
    same = flow(SubArchitecture(one), SubArchitecture(one))
    assert same.layers["task"].unique().tolist() == ["bag (first)", "bag (second)"]
    assert (same.task, same.other_task) == ("bag (first)", "bag (second)")
    assert (same.shared_trunk, same.split_layer, same.rejoined) == (5, None, ())
    assert "share a trunk of 5 layers, never part" in same.answer
    first = flow(SubArchitecture(one), SubArchitecture(ladder({**dict.fromkeys(layers, 0), "a": 1}, "coat")))
    assert (first.shared_trunk, first.split_layer, first.rejoined) == (0, "a", ("b",))


def test_how_far_flows_share_a_layer_by_hand() -> None:
    one, other = SubArchitecture(small_graph()), SubArchitecture(coat_graph())
    found = flow(one, other, at_least=0.95)
    tables = {task: rows.set_index("layer")["shared"] for task, rows in found.layers.groupby("task")}
    assert tables["bag"].to_dict() == tables["coat"].to_dict()
    # In b the bag has 0.09 and 0.45 at b/0 and b/3, the coat as much at b/0 and b/5: of 0.54 0.09 is shared.
    assert tables["bag"]["b"] == pytest.approx(0.09 / 0.54)
    assert tables["bag"]["c"] == 1
    # In a the bag has 0.045 + 0.045 and 0.0225 + 0.045 + 0.02, the coat 0.018 + 0.045 and the same.
    bag, coat = (0.09, 0.0875), (0.063, 0.0875)
    parts = [min(mine / sum(bag), theirs / sum(coat)) for mine, theirs in zip(bag, coat, strict=True)]
    assert tables["bag"]["a"] == pytest.approx(sum(parts))
    assert found.at_least == 0.95
    assert (found.shared_trunk, found.split_layer, found.rejoined) == (0, "a", ("c",))
    for wrong in (0, 1.1, True, "half"):
        with pytest.raises(NadkitError, match="give a part above 0 and up to 1"):
            flow(one, other, at_least=wrong)  # type: ignore[arg-type]


# Ablated links


class Skipping(nn.Module):
    """a → b → c, and a past b into c."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 3, 2), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 4, 1)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        a = self.relu(self.a(x))
        c = self.relu(self.c(self.relu(self.b(a)) + a))
        return self.head(c.mean((2, 3)))


LAYERS = ["relu#1", "relu#2", "relu#3"]


def skipping() -> tuple[Network, Images, MaskSet]:
    model = Skipping()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
    images = make_images([5, 6, 7, 8], 0)
    network = Network.wrap(
        model.eval(), images.class_names, example=images.pixels, layers=LAYERS, name="skip"
    )
    scores = {"relu#1": [[1, 1, 0]], "relu#2": [[1, 0, 1]], "relu#3": [[1, 1, 1, 0]]}
    return (
        network,
        images,
        MaskSet.from_scores({name: torch.tensor(rows).float() for name, rows in scores.items()}, ["coat"]),
    )


def by_hand(network: Network, gates: dict[str, Tensor], x: Tensor, links: list[Link]) -> Tensor:
    """The forward written out, each target's input built for itself."""
    model = network.model
    g = {name: gate[:, None, None] for name, gate in gates.items()}

    def without(values: Tensor, layer: str, target: Place) -> Tensor:
        values = values.clone()
        for source, there in links:
            if there == target and source.layer == layer:
                values[:, source.unit if layer != "input" else slice(None)] = 0
        return values

    with torch.no_grad():
        a = torch.stack([
            (model.a(without(x, "input", Place("relu#1", d))).relu() * g["relu#1"])[:, d] for d in range(3)
        ], 1)  # fmt: skip
        b = torch.stack([
            (model.b(without(a, "relu#1", Place("relu#2", d))).relu() * g["relu#2"])[:, d] for d in range(3)
        ], 1)  # fmt: skip
        rows = []
        for d in range(4):
            target = Place("relu#3", d)
            into = without(b, "relu#2", target) + without(a, "relu#1", target)
            rows.append((model.c(into).relu() * g["relu#3"])[:, d])
        c = torch.stack(rows, 1)
        return torch.stack([
            model.head(without(c, "relu#3", Place("logit", k)).mean((2, 3)))[:, k] for k in range(4)
        ], 1)  # fmt: skip


EACH = [
    Link(Place("input", -1), Place("relu#1", 0)),
    Link(Place("relu#1", 0), Place("relu#2", 0)),
    Link(Place("relu#1", 1), Place("relu#3", 1)),  # past relu#2
    Link(Place("relu#2", 2), Place("relu#3", 0)),
    Link(Place("relu#3", 1), Place("logit", 1)),
    Link(Place("relu#3", 0), Place("logit", 2)),
]


def test_a_link_is_ablated_in_its_target_alone() -> None:
    network, images, masks = skipping()
    inputs, gates = network.prepare(images.pixels), masks.gates("coat")
    with frozen(network.model):
        clean = Clean.of(network, gates, inputs)
        found = one_by_one(clean, EACH)
        assert torch.allclose(clean.logits, by_hand(network, gates, inputs, []), atol=1e-5)
        changed = 0
        for link, logits in zip(EACH, found, strict=True):
            expected = by_hand(network, gates, inputs, [link])
            assert torch.allclose(logits, expected, atol=1e-5), link
            assert torch.allclose(all_at_once(clean, [link]), expected, atol=1e-5), link
            changed += bool((logits - clean.logits).abs().max() > 1e-3)
        assert changed == len(EACH)
        for links in (
            EACH,
            EACH[1:4],
            EACH[2:],
            [EACH[2], EACH[3], Link(Place("relu#1", 0), Place("relu#3", 0))],
        ):
            assert torch.allclose(
                all_at_once(clean, links), by_hand(network, gates, inputs, links), atol=1e-5
            )
    assert not any(module._forward_hooks for module in network.model.modules())


@pytest.mark.parametrize("room", [1, 60])
def test_ablation_needs_room_for_few_pictures_only(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network, images, masks = skipping()
    inputs, gates = network.prepare(images.pixels), masks.gates("coat")
    sizes = []
    with frozen(network.model):
        clean = Clean.of(network, gates, inputs)
        expected = one_by_one(clean, EACH), all_at_once(clean, EACH)
        monkeypatch.setattr(runs, "_AT_ONCE", room)
        with network.model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0]))):
            found = one_by_one(clean, EACH), all_at_once(clean, EACH)
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)
    assert max(sizes) == len(inputs) * max(1, room // len(inputs))


class Tokens(nn.Module):
    """Units on the last axis."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(3, 4), nn.Linear(4, 3), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(self.a(x.flatten(1).unflatten(1, (3, 3))).relu()).relu().mean(1))


def test_links_of_tokens_are_ablated_too() -> None:
    torch.manual_seed(1)
    model, inputs = Tokens().eval(), torch.randn(7, 1, 3, 3)
    network = Network.wrap(model, list("wxyz"), example=inputs, layers=["a", "b"], name="tokens")
    assert network.layers["a"].axis in (-1, 2)
    link = Link(Place("a", 2), Place("b", 1))
    with frozen(model), torch.no_grad():
        clean = Clean.of(network, {}, inputs)
        a = model.a(inputs.flatten(1).unflatten(1, (3, 3)))
        b = model.b(a.relu())
        a[..., 2] = 0
        b[..., 1] = model.b(a.relu())[..., 1]
        expected = model.head(b.relu().mean(1))
        assert not torch.allclose(expected, clean.logits, atol=1e-3)
        assert torch.allclose(one_by_one(clean, [link])[0], expected, atol=1e-5)
        assert torch.allclose(all_at_once(clean, [link]), expected, atol=1e-5)


def verified_graph() -> tuple[SubArchitecture, pd.DataFrame]:
    network, images, masks = skipping()
    arch = nk.extract(network, masks, images, "coat", links_per_unit=2, progress=False)
    return arch, arch.verify(links=5)


def test_the_table_of_verify_is_what_ablation_gives() -> None:
    _, table = verified_graph()
    network, images, masks = skipping()
    own = network.prepare(images.of("coat").pixels)
    gates = masks.gates("coat")

    def place(name: str) -> Place:
        if name == "input":
            return Place("input", -1)
        layer, _, unit = name.rpartition("/")
        return Place(layer, int(unit)) if layer else Place("logit", 1)

    whole = log_odds(by_hand(network, gates, own, []).double())[:, 1]
    for kind, rows in table[table["source"] != "all"].groupby("kind"):
        links = [Link(place(a), place(b)) for a, b in zip(rows["source"], rows["target"], strict=True)]
        for link, (_, row) in zip(links, rows.iterrows(), strict=True):
            loss = whole - log_odds(by_hand(network, gates, own, [link]).double())[:, 1]
            assert row["loss"] == pytest.approx(float(loss.mean()), abs=1e-4)
            half = 1.96 * float(loss.std()) / math.sqrt(len(own))
            assert (row["low"], row["high"]) == pytest.approx(
                (row["loss"] - half, row["loss"] + half), abs=1e-4
            )
            assert row["n"] == len(own) == 6
            assert row["layer"] == link.target.layer
        loss = whole - log_odds(by_hand(network, gates, own, links).double())[:, 1]
        together = table[(table["kind"] == kind) & (table["source"] == "all")]["loss"].item()
        assert together == pytest.approx(float(loss.mean()), abs=1e-4)


def test_strongest_links_carry_most_and_random_ones_end_in_the_same_layers() -> None:
    arch, table = verified_graph()
    one = table[table["source"] != "all"]
    strongest, drawn = (one[one["kind"] == kind] for kind in ("strongest", "random"))
    strength = {
        (a, b): arch.graph.nodes[b]["carried"] * share
        for a, b, share in arch.graph.edges(data="share")
        if a != "input"
    }
    assert strongest["strength"].tolist() == pytest.approx(sorted(strength.values(), reverse=True)[:5])
    mine = set(zip(strongest["source"], strongest["target"], strict=True))
    others = list(zip(drawn["source"], drawn["target"], strict=True))
    assert len(set(others)) == len(others) > 2
    assert not set(others) & mine
    assert set(drawn["layer"]) <= set(strongest["layer"])
    for layer, count in drawn["layer"].value_counts().items():
        assert count <= (strongest["layer"] == layer).sum()
    for _, row in drawn.iterrows():
        for name in (row["source"], row["target"]):
            assert name in arch.graph
    # A random link that the graph does not list has the weight that a graph with all links gives it.
    network, images, masks = skipping()
    every = nk.extract(network, masks, images, "coat", links_per_unit=99, least_share=0, progress=False).graph
    unlisted = [link for link in others if link not in arch.graph.edges]
    assert unlisted
    for _, row in one.iterrows():
        facts = every.get_edge_data(row["source"], row["target"], {"weight": 0, "share": 0})
        assert row["weight"] == pytest.approx(facts["weight"], rel=1e-4, abs=1e-6)
        assert row["share"] == pytest.approx(facts["share"], rel=1e-4, abs=1e-6)
    again = arch.verify(links=5)
    pd.testing.assert_frame_equal(again, table)


class Adding(nn.Module):
    """b = relu(a + x), where each unit reaches its namesake alone."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.a, self.b = nn.Conv2d(1, 3, 2), nn.Conv2d(3, 3, 1), nn.ReLU()
        self.head = nn.Linear(3, 4)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.x(pixels)
        return self.head(self.b(self.a(x) + x).mean((2, 3)))


def test_random_links_are_links() -> None:
    torch.manual_seed(0)
    images = make_images([5, 6, 7, 8], 0)
    network = Network.wrap(
        Adding().eval(), images.class_names, example=images.pixels, layers=["x", "a", "b"], name="adding"
    )
    masks = MaskSet.from_scores({name: torch.ones(1, 3) for name in network.layers}, ["coat"])
    table = nk.extract(network, masks, images, "coat", links_per_unit=1, progress=False).verify()
    drawn = table[(table["kind"] == "random") & (table["layer"] == "b")]
    assert len(drawn) > 1
    for source, target in zip(drawn["source"], drawn["target"], strict=True):
        assert source.rpartition("/")[2] == target.rpartition("/")[2]


def test_the_answer_is_computed_from_the_table() -> None:
    _, table = verified_graph()
    said = table.attrs["answer"]
    assert verified(pd.read_csv(io.StringIO(table.to_csv(index=False)))) == said
    one = table[table["source"] != "all"]
    rho = spearmanr(one["strength"], one["loss"].abs()).statistic
    assert f"Spearman's ρ = {rho:.2f} [" in said
    strongest = one[one["kind"] == "strongest"]["loss"].mean()
    assert f"the 5 strongest links cost {strongest:.2f} of log-odds on average" in said
    changed = table.copy()
    changed.loc[changed["source"] == "all", "loss"] = 7.5
    assert "all at once 7.50 and 7.50" in verified(changed)
    top = {*one["strength"].nlargest(5).index} & {*one["loss"].abs().nlargest(5).index}
    assert f"of the 5 links that cost most {len(top)} are among the 5 strongest" in said


def test_an_answer_without_random_links_says_so() -> None:
    _, table = verified_graph()
    said = verified(table[table["kind"] == "strongest"])
    assert "0 random ones into the same layers (none); all at once" in said
    assert "and (none); " in said
    assert "nan" not in said
    few = table[table["source"].isin(["all", table["source"].iloc[0]])].head(2)
    assert verified(few).endswith("too few links for a rank agreement.")


def test_strength_foretells_loss_in_a_trained_network() -> None:
    network, masks = nk.load_network("vgg-fashion"), nk.load_masks("vgg-fashion")
    images = nk.load_images("fashion", split="test", per_class=12)
    table = nk.extract(network, masks, images, "bag", pictures=12, progress=False).verify(links=10)
    one = table[table["source"] != "all"]
    assert spearmanr(one["strength"], one["loss"].abs()).statistic > 0.7
    means = one.groupby("kind")["loss"].mean()
    assert means["strongest"] > 3 * abs(means["random"])
    whole = table[table["source"] == "all"].set_index("kind")["loss"]
    assert whole["strongest"] > 2 * whole["random"]


def test_a_loaded_graph_needs_what_it_was_extracted_from(tmp_path: Any) -> None:
    network, images, masks = make_network(), make_images([5, 6, 7, 8], 0), make_masks(0)
    arch = nk.extract(network, masks, images, "coat", progress=False)
    read = SubArchitecture.load(arch.save(tmp_path / "a.json"))
    with pytest.raises(NadkitError, match=r"give them: arch\.verify\(network, masks, images\)"):
        read.verify()
    with pytest.raises(NadkitError, match="give them"):
        read.verify(network, masks)
    pd.testing.assert_frame_equal(read.verify(network, masks, images, links=3), arch.verify(links=3))
    assert arch.verify(links=3, pictures=2)["n"].unique().tolist() == [2]
    other = make_images([5, 6, 7, 8], 5)
    assert not arch.verify(images=other, links=3)["loss"].equals(arch.verify(links=3)["loss"])
    with pytest.raises(
        NadkitError, match=r"this graph is not of these masks: \d+ units are kept in the masks only"
    ):
        read.verify(network, make_masks(1), images)
    with pytest.raises(
        NadkitError, match=r"this graph is of hand with weights .*, and the network given is Network"
    ):
        read.verify(make_network(1), masks, images)
    with pytest.raises(MaskFileError):
        read.verify(network, masks.with_meta(network="elsewhere"), images)
    for what, given in (("network", network.model), ("masks", "m"), ("images", other.pixels)):
        with pytest.raises(NadkitError, match=f"verify needs {what} of type"):
            arch.verify(**{what: given})
    for name, value in (("links", 0), ("links", 1.5), ("pictures", 0), ("seed", -1)):
        with pytest.raises(NadkitError, match=f"{name} = {value}; give a whole number"):
            arch.verify(**{name: value})  # type: ignore[arg-type]
    none = copy.deepcopy(read.graph)
    none.remove_edges_from(list(none.edges))
    with pytest.raises(NadkitError, match="the graph of 'coat' has no link between units that"):
        SubArchitecture(none).verify(network, masks, images)
    assert set(TASKS) == set(masks.tasks)
