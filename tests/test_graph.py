"""Sub-architectures: links against closed forms, structures by hand, planted truth; and what is refused."""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import networkx as nx
import pytest
import torch
import torch.nn.functional as F
from hand import NAMES, TASKS, make_images, make_masks, make_network
from test_graph_figures import carry
from torch import Tensor, nn

import nadkit as nk
from nadkit.errors import ImageError, LayerError, MaskFileError, NadkitError
from nadkit.graph import building, effects, extraction
from nadkit.images import Images
from nadkit.masks import MaskSet
from nadkit.networks import Network
from nadkit.toy import graded


def wrap(
    model: nn.Module, layers: list[str], size: tuple[int, int, int] = (2, 6, 6), seed: int = 0
) -> Network:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
    return Network.wrap(model.eval(), NAMES, example=torch.zeros(1, *size), layers=layers, name="net")


def pictures(size: tuple[int, int, int] = (2, 6, 6), per_class: int = 4, seed: int = 0) -> Images:
    labels = torch.arange(4).repeat(per_class)
    draw = torch.Generator().manual_seed(seed)
    return Images(torch.randn(len(labels), *size, generator=draw), labels, NAMES)


def masks_for(network: Network, share: float = 0.7, seed: int = 0, tasks: tuple[str, ...] = TASKS) -> MaskSet:
    draw = torch.Generator().manual_seed(seed)
    scores = {
        name: (torch.rand(len(tasks), one.units, generator=draw) < share).float()
        for name, one in network.layers.items()
    }
    return MaskSet.from_scores(scores, tasks)


def all_kept(network: Network, tasks: tuple[str, ...] = TASKS) -> MaskSet:
    return masks_for(network, share=2, tasks=tasks)


def whole_graph(network: Network, masks: MaskSet, images: Images, task: str, **options: float) -> nx.DiGraph:
    """Every link, however weak."""
    settings = {"links_per_unit": 100, "least_share": 0, **options}
    return nk.extract(network, masks, images, task, progress=False, **settings).graph  # type: ignore[call-overload]


def sides_of(network: Network, images: Images, task: str) -> tuple[Tensor, Tensor]:
    """All own pictures and all others, prepared; the draw takes all where there are fewer than it wants."""
    own = images.labels == images.class_index(task)
    return network.prepare(images.pixels[own]), network.prepare(images.pixels[~own])


# Structures written by hand


class Residual(nn.Module):
    """conv → two blocks with a shortcut each, one ReLU module that runs three times, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = (nn.Conv2d(n, 3, 3, padding=1) for n in (2, 3, 3))
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        y = self.a(x)
        y += x
        y = self.relu(y)
        z = self.b(y)
        z += y
        return self.head(self.relu(z).mean((2, 3)))


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 + 3 * at, 3, 3, padding=1), nn.ReLU()) for at in range(3)
        )
        self.head = nn.Linear(11, 4)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.head(x.mean((2, 3)))


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.squeeze, self.excite = nn.Conv2d(2, 4, 3), nn.Linear(4, 2), nn.Linear(2, 4)
        self.scaled, self.head = nn.Identity(), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        gate = self.excite(self.squeeze(x.mean((2, 3))).relu()).sigmoid()
        return self.head(self.scaled(x * gate[:, :, None, None]).mean((2, 3)))


class Attention(nn.Module):
    """Tokens with units on the last axis; queries, keys and values are layers of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(12, 6)
        self.query, self.key, self.value, self.out = (nn.Linear(6, 6) for _ in range(4))
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.flatten(2).unflatten(2, (3, 12)).flatten(1, 2))
        weights = (self.query(x) @ self.key(x).transpose(1, 2)).softmax(-1)
        return self.head((x + self.out(weights @ self.value(x))).mean(1))


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 3, 3), nn.Conv2d(4, 3, 1)
        self.join, self.spare, self.head = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        both = torch.cat([self.left(x).amax((2, 3)), self.right(x).mean((2, 3))], 1)
        joined = self.join(both)
        self.spare(joined)  # runs, and nothing reads it
        return self.head(joined)


def plain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4),
    )  # fmt: skip


def chain(*names: str) -> set[tuple[str, str]]:
    return set(itertools.pairwise(names))


STRUCTURES: dict[str, tuple[Callable[[], nn.Module], list[str], set[tuple[str, str]]]] = {
    "plain": (plain, ["1", "4"], chain("input", "1", "4", "output")),
    "plain, all": (plain, ["0", "1", "2", "3", "4"], chain("input", "0", "1", "2", "3", "4", "output")),
    "runs three times": (
        Residual, ["relu#1", "relu#2", "relu#3"], chain("input", "relu#1", "relu#2", "relu#3", "output"),
    ),
    "residual, within": (
        Residual, ["stem", "a", "relu#2", "b"],
        {("input", "stem"), ("stem", "a"), ("stem", "relu#2"), ("a", "relu#2"), ("relu#2", "b"),
         ("relu#2", "output"), ("b", "output")},
    ),
    "dense": (
        Dense, ["layers.0", "layers.1", "layers.2"],
        {("input", "layers.0"), ("input", "layers.1"), ("input", "layers.2"), ("input", "output"),
         ("layers.0", "layers.1"), ("layers.0", "layers.2"), ("layers.1", "layers.2"),
         ("layers.0", "output"), ("layers.1", "output"), ("layers.2", "output")},
    ),
    "squeeze-excite": (
        SqueezeExcite, ["conv", "squeeze", "excite", "scaled"],
        {("input", "conv"), ("conv", "squeeze"), ("squeeze", "excite"), ("conv", "scaled"),
         ("excite", "scaled"), ("scaled", "output")},
    ),
    "attention": (
        Attention, ["embed", "query", "key", "value", "out"],
        {("input", "embed"), ("embed", "query"), ("embed", "key"), ("embed", "value"), ("query", "out"),
         ("key", "out"), ("value", "out"), ("embed", "output"), ("out", "output")},
    ),
    "two branches": (
        Branches, ["stem", "left", "right", "join", "spare"],
        {("input", "stem"), ("stem", "left"), ("stem", "right"), ("left", "join"), ("right", "join"),
         ("join", "spare"), ("join", "output")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STRUCTURES)
def test_layers_feed_those_that_read_them(name: str) -> None:
    make, layers, edges = STRUCTURES[name]
    network = wrap(make(), layers)
    graph = nk.layer_graph(network)
    assert set(graph.edges()) == edges
    assert list(graph) == ["input", *layers, "output"]
    assert graph.graph["layers"] == layers
    assert graph.graph["units"] == {address: layer.units for address, layer in network.layers.items()}
    assert graph.graph["network"] == "net"


def test_searched_cells_read_the_two_before_them() -> None:
    graph = nk.layer_graph(nk.load_network("darts-fashion"))
    cells = [f"cells.{at}" for at in range(8)]
    edges = {("input", "stem"), ("stem", "cells.0"), ("stem", "cells.1"), ("cells.7", "output")}
    assert set(graph.edges()) == edges | chain(*cells) | set(zip(cells, cells[2:], strict=False))


def test_links_follow_the_structure_of_layers() -> None:
    for name in STRUCTURES:
        make, layers, edges = STRUCTURES[name]
        network = wrap(make(), layers)
        graph = whole_graph(network, all_kept(network), pictures(), "coat")
        layer = dict(graph.nodes(data="layer"))
        found = {(layer[a], layer[b].replace("logit", "output")) for a, b in graph.edges()}
        assert found <= edges
        assert len(edges - found) <= 1, (name, edges - found)  # a ReLU may be closed on all pictures


# Weights


def closed_form(network: Network, gates: Mapping[str, Tensor], inputs: Tensor) -> dict[str, Tensor]:
    """Of conv → ReLU → conv → pool → linear: kernel × activation, one source at a time."""
    first, _, second, _, _, last = network.model
    found = {}
    with torch.no_grad():
        a = first(inputs).relu() * gates["1"][:, None, None]
        z = second(a) * gates["2"][:, None, None]
        found["input→1"] = torch.stack([
            ((F.conv2d(inputs, first.weight) * (a > 0)).sum((2, 3))).mean(0)
        ])  # fmt: skip
        rows = []
        for c in range(a.shape[1]):
            alone = F.conv2d(a[:, [c]], second.weight[:, [c]])
            rows.append(alone.sum((2, 3)).mean(0))
        found["1→2"] = torch.stack(rows)
        found["2→logit"] = (z.mean((2, 3)).mean(0) * last.weight).T
        found["response"] = z.sum((2, 3)).mean(0)
    return found


def conv_network() -> Network:
    layers = [
        nn.Conv2d(2, 5, 3),
        nn.ReLU(),
        nn.Conv2d(5, 4, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 4),
    ]
    return wrap(nn.Sequential(*layers), ["1", "2"])


def test_weights_of_one_convolution_are_kernel_times_activation() -> None:
    network, images = conv_network(), pictures()
    masks = masks_for(network)
    for task in TASKS:
        graph = whole_graph(network, masks, images, task)
        gates = masks.gates(task)
        logit = network.class_index(task)
        for end, inputs in zip(("", "_other"), sides_of(network, images, task), strict=True):
            expected = closed_form(network, gates, inputs)
            for d in gates["1"].nonzero().flatten().tolist():
                weight = float(expected["input→1"][0, d])
                assert graph.edges["input", f"1/{d}"][f"weight{end}"] == pytest.approx(
                    weight, rel=1e-4, abs=1e-5
                )
            for d in gates["2"].nonzero().flatten().tolist():
                assert graph.nodes[f"2/{d}"][f"response{end}"] == pytest.approx(
                    float(expected["response"][d]), rel=1e-4
                )
                assert graph.nodes[f"2/{d}"][f"activation{end}"] == pytest.approx(
                    float(expected["response"][d]) / 4, rel=1e-4
                )
                sources = gates["1"].nonzero().flatten().tolist()
                weights = {c: float(expected["1→2"][c, d]) for c in sources}
                for c in sources:
                    assert graph.edges[f"1/{c}", f"2/{d}"][f"weight{end}"] == pytest.approx(
                        weights[c], rel=1e-4, abs=1e-5
                    )
                taken = sum(map(abs, weights.values()))
                assert graph.nodes[f"2/{d}"][f"incoming{end}"] == pytest.approx(taken, rel=1e-4)
                residual = float(expected["response"][d]) - sum(weights.values())
                assert graph.nodes[f"2/{d}"][f"residual{end}"] == pytest.approx(residual, rel=1e-3, abs=1e-4)
                weight = float(expected["2→logit"][d, logit])
                assert graph.edges[f"2/{d}", f"logit:{task}"][f"weight{end}"] == pytest.approx(
                    weight, rel=1e-4, abs=1e-6
                )


def test_weights_through_a_whole_block_are_the_jacobian_times_activation() -> None:
    """Attention: no closed form, so the definition itself, one picture and one pair of entries at a time."""
    network, images = wrap(Attention(), ["embed", "out"]), pictures(per_class=1)
    masks = masks_for(network, seed=1)
    graph = whole_graph(network, masks, images, "coat")
    gates, model = masks.gates("coat"), network.model

    def block(a: Tensor) -> Tensor:
        weights = (model.query(a) @ model.key(a).transpose(1, 2)).softmax(-1)
        return model.out(weights @ model.value(a))

    for end, inputs in zip(("", "_other"), sides_of(network, images, "coat"), strict=True):
        expected = torch.zeros(6, 6)
        for x in inputs:
            a = model.embed(x[None].flatten(2).unflatten(2, (3, 12)).flatten(1, 2)).detach() * gates["embed"]
            slopes = torch.autograd.functional.jacobian(block, a)[0, :, :, 0]  # (T, U, T, U)
            expected += torch.einsum("sdtc,tc->cd", slopes, a[0]) / len(inputs)
        pairs = [
            (c, d)
            for c in gates["embed"].nonzero().flatten().tolist()
            for d in gates["out"].nonzero().flatten().tolist()
        ]
        assert len(pairs) > 5
        for c, d in pairs:
            weight = graph.edges[f"embed/{c}", f"out/{d}"][f"weight{end}"]
            assert weight == pytest.approx(float(expected[c, d]), rel=1e-3, abs=1e-5)


def test_weights_add_up_to_the_response_where_blocks_are_linear() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False), nn.AvgPool2d(2), nn.Conv2d(4, 3, 1, bias=False), nn.Flatten(),
        nn.Linear(12, 4, bias=False),
    )  # fmt: skip
    network = wrap(model, ["0", "2"])
    graph = whole_graph(network, masks_for(network), pictures(), "boot")
    checked = 0
    for name, facts in graph.nodes(data=True):
        if name == "input":
            continue
        for end in ("", "_other"):
            total = math.fsum(values[f"weight{end}"] for _, _, values in graph.in_edges(name, data=True))
            assert total == pytest.approx(facts[f"response{end}"], rel=1e-4, abs=1e-5)
            assert facts[f"residual{end}"] == pytest.approx(0, abs=1e-4)
            checked += 1
    assert checked > 8


def test_a_residual_is_what_biases_add_where_units_are_open() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 4))
    network, images = wrap(model, ["1"]), pictures()
    graph = whole_graph(network, all_kept(network), images, "bag")
    with torch.no_grad():
        for end, inputs in zip(("", "_other"), sides_of(network, images, "bag"), strict=True):
            z = model[0](inputs)
            open_ = (z > 0).float().sum((2, 3)).mean(0) * model[0].bias
            for d in range(4):
                assert graph.nodes[f"1/{d}"][f"residual{end}"] == pytest.approx(
                    float(open_[d]), rel=1e-3, abs=1e-5
                )
    assert graph.nodes["logit:bag"]["residual"] == pytest.approx(float(model[3].bias.detach()[0]), rel=1e-3)


def test_direct_effects_are_past_no_other_layer() -> None:
    """In a residual network a shortcut's effect on the layer after next is not a link."""
    network = wrap(Residual(), ["relu#1", "relu#2", "relu#3"])
    graph = whole_graph(network, all_kept(network), pictures(), "bag")
    layer = dict(graph.nodes(data="layer"))
    assert {(layer[a], layer[b]) for a, b in graph.edges()} <= chain(
        "input", "relu#1", "relu#2", "relu#3", "logit"
    )
    within = wrap(Residual(), ["relu#1", "a", "relu#2"])
    graph = whole_graph(within, all_kept(within), pictures(), "bag")
    for unit in range(
        3
    ):  # relu#2 = relu(a + relu#1): a unit reaches its namesake alone, and where that is open
        for source in ("relu#1", "a"):
            others = [f"{source}/{c}" for c in range(3) if c != unit]
            assert not any(graph.has_edge(name, f"relu#2/{unit}") for name in others)


# Which links are kept


def gating_network() -> tuple[Network, Images]:
    """Unit 1/2 is silent on bags, and on coats inhibits 3/0, which two stronger units feed on bags."""
    model = nn.Sequential(
        nn.Flatten(), nn.ReLU(), nn.Linear(3, 1, bias=False), nn.Identity(), nn.Linear(1, 2)
    )
    with torch.no_grad():
        model[2].weight.copy_(torch.tensor([[2.0, 1.0, -5.0]]))
        model[4].weight.copy_(torch.tensor([[1.0], [-1.0]]))
    network = Network.wrap(model.eval(), ["bag", "coat"], example=torch.zeros(1, 1, 1, 3), layers=["1", "3"])
    pixels = torch.tensor([[1.0, 1.0, 0.0], [1.0, 3.0, 0.0], [0.0, 0.5, 1.0]]).view(3, 1, 1, 3)
    return network, Images(pixels, torch.tensor([0, 0, 1]), ("bag", "coat"))


def test_a_silent_inhibitor_is_kept_for_what_it_does_on_others() -> None:
    network, images = gating_network()
    masks = MaskSet.from_scores({"1": torch.ones(1, 3), "3": torch.ones(1, 1)}, ["bag"])
    graph = whole_graph(network, masks, images, "bag")
    # On bags 2 · 1 and 1 · (1 + 3) / 2; on coats 0.5 and −5.
    links = {source: graph.edges[source, "3/0"] for source in ("1/0", "1/1", "1/2")}
    assert [links[name]["weight"] for name in links] == [2, 2, 0]
    assert [links[name]["weight_other"] for name in links] == [0, 0.5, -5]
    assert [links[name]["share"] for name in links] == [0.5, 0.5, 0]
    assert links["1/2"]["share_other"] == pytest.approx(5 / 5.5)
    assert [links[name]["sign"] for name in links] == [1, 1, -1]
    facts = graph.nodes["3/0"]
    assert (facts["incoming"], facts["incoming_other"]) == (4, 5.5)
    assert (facts["response"], facts["response_other"], facts["residual"]) == (4, -4.5, 0)
    one = whole_graph(network, masks, images, "bag", links_per_unit=1)
    assert list(one.in_edges("3/0")) == [("1/2", "3/0")]
    assert one.nodes["3/0"]["incoming"] == 4  # counts what is not listed
    two = whole_graph(network, masks, images, "bag", links_per_unit=2)
    assert set(two.in_edges("3/0")) == {("1/2", "3/0"), ("1/0", "3/0")}  # of equal ones the first
    most = whole_graph(network, masks, images, "bag", least_share=0.6)
    assert list(most.in_edges("3/0")) == [("1/2", "3/0")]


@pytest.mark.parametrize("name", ["plain", "residual, within", "dense", "attention"])
def test_what_units_carry_counts_links_that_are_not_listed(name: str) -> None:
    """Against a walk over all links, from the logit back."""
    make, layers, _ = STRUCTURES[name]
    network = wrap(make(), layers)
    masks = masks_for(network, seed=1)
    every = whole_graph(network, masks, pictures(), "bag")
    carried = {unit: values["carried"] for unit, values in every.nodes(data=True)}
    one = whole_graph(network, masks, pictures(), "bag", links_per_unit=1)
    assert {unit: values["carried"] for unit, values in one.nodes(data=True)} == carried
    assert one.number_of_edges() < every.number_of_edges()
    assert carried["logit:bag"] == 1
    again = {unit: values["carried"] for unit, values in carry(every).nodes(data=True)}
    assert again == pytest.approx(carried)
    assert sum(0 < part < 1 for part in carried.values()) > 3


def test_attributes_of_units_are_those_of_the_masks() -> None:
    network, images = make_network(), make_images([5, 6, 7, 8], 0)
    scores = {
        "1": torch.tensor([[0.9, 0.2, 0.6, 0.5, 0.7], [0.8, 0.9, 0.5, 0.9, 0.1]]),
        "3": torch.full((2, 7), 0.75),
    }
    masks = MaskSet.from_scores(scores, ["coat", "boot"], {"seed": 3})
    arch = nk.extract(network, masks, images, "coat", pictures=4, progress=False)
    facts = arch.graph.graph
    kept = {name: values for name, values in arch.graph.nodes(data=True) if values["layer"] == "1"}
    assert {name: values["score"] for name, values in kept.items()} == pytest.approx(
        {"1/0": 0.9, "1/2": 0.6, "1/4": 0.7}
    )
    assert {name: values["tasks"] for name, values in kept.items()} == {"1/0": 2, "1/2": 1, "1/4": 1}
    assert {name: values["exclusive"] for name, values in kept.items()} == {
        "1/0": False,
        "1/2": True,
        "1/4": True,
    }
    assert {name: values["index"] for name, values in kept.items()} == {"1/0": 0, "1/2": 2, "1/4": 4}
    assert arch.graph.nodes["input"]["index"] == arch.graph.nodes["logit:coat"]["index"] == -1
    assert facts | {"weights_id": ""} == {
        "format": 1, "network": "hand", "weights_id": "", "task": "coat", "layers": ["1", "3"],
        "units": {"1": 5, "3": 7}, "empty": [], "own_pictures": 4, "other_pictures": 4, "mask_seed": 3,
        "threshold": 0.5, "links_per_unit": 5, "least_share": 0.01, "seed": 0,
    }  # fmt: skip
    assert (arch.task, arch.network, arch.layers, arch.empty, arch.cut) == (
        "coat",
        "hand",
        ("1", "3"),
        (),
        (),
    )
    half = nk.extract(network, masks, images, "coat", threshold=0.65, progress=False)
    assert {name for name in half.graph if name.startswith("1/")} == {"1/0", "1/4"}
    assert half.graph.graph["own_pictures"] == 6
    assert len(arch.units) == len(arch.graph)
    assert arch.units.set_index("unit").loc["1/2", "score"] == pytest.approx(0.6)
    first = next(iter(arch.graph.edges(data=True)))
    row = arch.links.iloc[0]
    assert (row["source"], row["target"], row["weight"]) == (first[0], first[1], first[2]["weight"])
    assert row["source_layer"] == "input"


def test_other_pictures_are_of_all_classes_in_turn() -> None:
    network, images = make_network(), make_images([5, 1, 7, 8], 0)
    from nadkit.graph.pictures import draw

    sides = draw(network, images, "bag", 7, 3)
    assert (sides.own, sides.other) == (5, 7)
    rows = [int((network.prepare(images.pixels) == one).flatten(1).all(1).nonzero()) for one in sides.inputs]
    assert len(set(rows)) == 12
    counts = torch.bincount(images.labels[rows], minlength=4).tolist()
    assert counts == [5, 1, 3, 3]
    again = draw(network, images, "bag", 7, 3)
    assert torch.equal(again.inputs, sides.inputs)
    assert not torch.equal(draw(network, images, "bag", 7, 4).inputs, sides.inputs)
    assert sides.means.sum(1).tolist() == pytest.approx([1, 1])


# One pass, parts and threads


def equal(one: nx.DiGraph, other: nx.DiGraph, tolerance: float = 0) -> None:
    assert one.graph == other.graph
    assert list(one.nodes) == list(other.nodes)
    assert set(one.edges) == set(other.edges)
    for mine, theirs in ((one.nodes, other.nodes), (one.edges, other.edges)):
        for key in mine:
            assert mine[key].keys() == theirs[key].keys()
            for name, value in mine[key].items():
                expected = theirs[key][name]
                if isinstance(value, float):
                    expected = pytest.approx(expected, rel=tolerance, abs=tolerance)
                assert value == expected


def test_several_tasks_together_are_each_alone() -> None:
    network, images, masks = make_network(), make_images([5, 6, 7, 8], 0), make_masks(0)
    together = nk.extract(network, masks, images, list(TASKS), progress=False)
    assert list(together) == list(TASKS)
    for task in TASKS:
        equal(together[task].graph, nk.extract(network, masks, images, task, progress=False).graph)
        assert together[task].task == task


def test_parts_of_the_pictures_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    network, images, masks = make_network(), make_images([5, 6, 7, 8], 0), make_masks(0)
    expected = whole_graph(network, masks, images, "boot")
    monkeypatch.setattr(effects, "ROOM", 5)
    equal(whole_graph(network, masks, images, "boot"), expected, 1e-5)
    monkeypatch.setattr(effects, "_VALUES", 1)  # a picture is larger than there is room: one by one
    equal(whole_graph(network, masks, images, "boot"), expected, 1e-5)


def test_threads_change_nothing_and_come_back() -> None:
    network, images, masks = make_network(), make_images([5, 6, 7, 8], 0), make_masks(0)
    alone = nk.extract(network, masks, images, list(TASKS), progress=False)
    torch.set_num_threads(2)
    try:
        together = nk.extract(network, masks, images, list(TASKS), progress=False)
        single = nk.extract(network, masks, images, "coat", progress=False)
        assert threads_of_a_new_thread() == torch.get_num_threads() == 2
        with pytest.raises(NadkitError, match="NaN"):
            nk.extract(broken_network(), masks, images, list(TASKS), progress=False)
        assert threads_of_a_new_thread() == torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    for task in TASKS:
        equal(together[task].graph, alone[task].graph, 1e-5)
    equal(single.graph, alone["coat"].graph, 1e-5)


def threads_of_a_new_thread() -> int:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


def broken_network() -> Network:
    network = make_network()
    with torch.no_grad():
        network.model[3].weight[0, 0] = math.nan
    return Network(network.name, network.model, network.layers, network.class_names, network.weights_id,
                   network.preprocess, network.input_shape)  # fmt: skip


def test_nothing_in_the_network_changes() -> None:
    network, images = wrap(Residual().train(), ["relu#1", "relu#2"]), pictures()
    network.model.train()
    network.model.a.eval()
    before = {name: value.clone() for name, value in network.model.state_dict().items()}
    state = torch.random.get_rng_state()
    nk.layer_graph(network)
    nk.extract(network, all_kept(network), images, ["bag", "coat"], progress=False)
    with pytest.raises(LayerError):
        nk.extract(network, all_kept(network), images, "bag", progress=False).links_of("a/1")
    with torch.inference_mode():  # as in a cell that looks at a network's answers
        nk.extract(network, all_kept(network), images, "bag", progress=False)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert network.model.training
    assert not network.model.a.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.model.modules())


@pytest.mark.parametrize("where", ["in a thread", "between two tasks"])
def test_an_interrupt_leaves_no_trace(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, images, masks = make_network(), make_images([5, 6, 7, 8], 0), make_masks(0)
    module, name = (effects, "totals") if where == "in a thread" else (extraction, "build")
    calls, right = [], getattr(module, name)

    def interrupted(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return right(*given)

    monkeypatch.setattr(module, name, interrupted)
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyboardInterrupt):
            nk.extract(network, masks, images, list(TASKS), progress=False)
        assert threads_of_a_new_thread() == torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert all(parameter.requires_grad for parameter in network.model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.model.modules())
    monkeypatch.undo()
    assert nk.extract(network, masks, images, "coat", progress=False).graph.number_of_edges()


# Planted truth


@pytest.mark.parametrize("grade", ["plain-easy", "residual-middle", "concat-hard", "merged"])
def test_extracted_links_are_the_planted_ones(grade: str) -> None:
    toy = graded(grade, 1)
    most = 100 if grade == "merged" else 5  # there every two units of a small network are linked
    archs = nk.extract(
        toy.network, toy.masks, toy.images, list(toy.masks.tasks), links_per_unit=most, progress=False
    )
    right = mine = planted = 0
    for task, arch in archs.items():
        links = {(a, b) for a, b in arch.graph.edges() if a != "input" and not b.startswith("logit:")}
        true = {(str(a), str(b)) for a, b in toy.links[task]}
        right, mine, planted = right + len(links & true), mine + len(links), planted + len(true)
    assert planted > 30
    assert right / mine >= 0.98
    assert right / planted >= 0.98


def test_planted_links_stand_out_when_every_unit_is_kept() -> None:
    toy = graded("residual-easy", 0)
    masks = MaskSet.from_scores(
        {name: torch.ones_like(rows) for name, rows in toy.masks.scores.items()}, toy.masks.tasks
    )
    archs = nk.extract(toy.network, masks, toy.images, list(masks.tasks), least_share=0.05, progress=False)
    for task, arch in archs.items():
        needed = {str(unit) for unit in toy.truth[task]}
        links = {(a, b) for a, b in arch.graph.edges() if a != "input" and b in needed}
        assert links == {(str(a), str(b)) for a, b in toy.links[task]}


class Root(nn.Module):
    """The root of a sum of squares has no slope at 0, which is what a closed unit gives."""

    def __init__(self) -> None:
        super().__init__()
        self.relu, self.pool, self.head = nn.ReLU(), nn.Identity(), nn.Linear(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.relu(x).square().sum((2, 3)).sqrt()))


def test_effects_without_a_number_are_refused() -> None:
    network = wrap(Root(), ["relu", "pool"])
    dark = pictures()
    pixels = dark.pixels[:].clone()
    pixels[0] = -1
    with pytest.raises(NadkitError, match="direct effects on layer 'pool' are NaN or infinite"):
        nk.extract(network, all_kept(network), Images(pixels, dark.labels, NAMES), "bag", progress=False)
    assert nk.extract(network, all_kept(network), dark, "bag", progress=False).graph.number_of_edges() > 4


def test_the_order_of_layers_is_the_networks() -> None:
    network, images = wrap(plain(), ["4", "1"]), pictures()
    assert list(network.layers) == ["1", "4"]
    masks = all_kept(network)
    swapped = MaskSet.from_scores({name: masks.scores[name] for name in ("4", "1")}, TASKS)
    one, other = (nk.extract(network, each, images, "bag", progress=False) for each in (masks, swapped))
    equal(one.graph, other.graph)
    assert list(one.graph)[:2] == ["input", "1/0"]


# Cut flows, looks, figures


def test_an_empty_layer_cuts_the_flow() -> None:
    network, images, masks = make_network(), make_images([5, 6, 7, 8], 0), make_masks(0)
    scores = {name: rows.clone() for name, rows in masks.scores.items()}
    scores["1"][0] = 0
    arch = nk.extract(network, MaskSet.from_scores(scores, TASKS), images, "coat", progress=False)
    assert arch.empty == arch.cut == ("1",)
    assert "the flow is cut at 1" in repr(arch)
    assert arch.graph.in_degree("3/0") == 0 if "3/0" in arch.graph else True
    assert "The flow is cut at 1, where no unit is kept." in nk.figures.flow(arch).layout.meta["alt"]
    # Passed by, not cut: the shortcut leads around an empty layer.
    around = wrap(Residual(), ["relu#1", "a", "relu#2"])
    kept = {name: torch.full((1, 3), float(name != "a")) for name in around.layers}
    arch = nk.extract(around, MaskSet.from_scores(kept, ["bag"]), pictures(), "bag", progress=False)
    assert arch.empty == ("a",)
    assert arch.cut == ()
    assert "cut" not in repr(arch)


def test_how_it_looks() -> None:
    network, images, masks = make_network(), make_images([5, 6, 7, 8], 0), make_masks(0)
    arch = nk.extract(network, masks, images, "coat", progress=False)
    kept = len(masks.kept("coat"))
    assert repr(arch) == (
        f"SubArchitecture('coat' in hand: {kept} of 12 units in 2 layers, "
        f"{arch.graph.number_of_edges()} links)"
    )
    page = arch._repr_html_()
    assert page.count("<tr>") == 4
    assert f"<td>{sum(unit.layer == '1' for unit in masks.kept('coat'))}</td>" in page
    assert nk.figures.flow(arch).layout.meta["alt"].startswith("Flow of coat through hand, layers as columns")
    assert f"{kept} kept units" in nk.figures.flow(arch).layout.meta["alt"]
    alt = nk.figures.layers(nk.layer_graph(network)).layout.meta["alt"]
    assert alt.startswith("2 layers in forward order, input to output, and which feeds which: 3 links, 0")


def test_links_of_a_unit() -> None:
    network, images, masks = make_network(), make_images([5, 6, 7, 8], 0), make_masks(0)
    arch = nk.extract(network, masks, images, "coat", progress=False)
    unit = next(unit for unit in masks.kept("coat") if unit.layer == "3")
    table = arch.links_of(unit)
    assert len(table) == arch.graph.degree(str(unit)) > 1
    assert ((table["source"] == str(unit)) | (table["target"] == str(unit))).all()
    assert len(arch.links_of("logit:coat")) == arch.graph.in_degree("logit:coat")
    missing = next(index for index in range(7) if f"3/{index}" not in arch.graph)
    for name, reason in (
        (f"3/{missing}", "it is not kept; of 3 there are: 3/"),
        ("3/7", "3 has units 0 to 6; of those kept there are: 3/"),
        ("3/²", "3 has units 0 to 6"),
        ("inputs/0", "hand has no layer 'inputs'"),
        ("2/0", "hand has no layer '2'"),
        ("3", "units are written layer/index, and the ends are input, logit:coat"),
        ("logit:bag", "units are written layer/index, and the ends are"),
    ):
        with pytest.raises(LayerError, match=f"no unit '{name}' in this graph: {reason}"):
            arch.links_of(name)


# Bad input


def test_tasks_and_pictures_that_are_not_there_are_refused() -> None:
    network, images, masks = make_network(), make_images([5, 6, 7, 8], 0), make_masks(0)
    for task, message in (
        ("cot", "no task 'cot'; closest: coat"), ("shirt", "no task 'shirt'"), ([], r"several, got \[\]"),
        (["coat", 3], "no task 3"), (None, "several, got None"),
    ):  # fmt: skip
        with pytest.raises(NadkitError, match=message):
            nk.extract(network, masks, images, task, progress=False)  # type: ignore[call-overload]
    others = images[(images.labels != NAMES.index("coat")).nonzero().flatten()]
    with pytest.raises(ImageError, match="no picture of 'coat', only of bag, shirt, boot"):
        nk.extract(network, masks, others, "coat", progress=False)
    with pytest.raises(ImageError, match="no pictures of 'coat', only of bag, boot; closest"):
        nk.extract(network, masks, images.subset(["bag", "boot"]), "coat", progress=False)
    with pytest.raises(ImageError, match=r"all pictures are of 'coat'.*give pictures of other classes"):
        nk.extract(network, masks, images.of("coat"), "coat", progress=False)
    wrong = Images(torch.zeros(2, 1, 3, 3), torch.tensor([0, 1]), NAMES)
    with pytest.raises(ImageError, match="takes pictures of shape"):
        nk.extract(network, masks, wrong, "coat", progress=False)


def test_masks_networks_and_numbers_that_do_not_fit_are_refused() -> None:
    network, images, masks = make_network(), make_images([5, 6, 7, 8], 0), make_masks(0)
    with pytest.raises(MaskFileError, match="learned on 'elsewhere'"):
        nk.extract(network, masks.with_meta(network="elsewhere"), images, "coat", progress=False)
    for at, what in enumerate(("network", "masks", "images")):
        given = [network, masks, images]
        given[at] = "text"  # type: ignore[call-overload]
        with pytest.raises(NadkitError, match=f"extract needs {what} of type .*, got str"):
            nk.extract(*given, "coat", progress=False)  # type: ignore[call-overload]
    with pytest.raises(NadkitError, match="layer_graph needs a network, got Sequential"):
        nk.layer_graph(network.model)  # type: ignore[arg-type]
    for name, value in (
        ("links_per_unit", 0), ("links_per_unit", 2.0), ("pictures", 0), ("pictures", True),
        ("least_share", 1),
        ("least_share", -0.1), ("least_share", "0"), ("threshold", 2), ("seed", -1), ("seed", "0"),
    ):  # fmt: skip
        with pytest.raises(NadkitError, match=name):
            nk.extract(network, masks, images, "coat", progress=False, **{name: value})
    with pytest.raises(NadkitError, match="hand gives NaN or infinite logits"):
        nk.extract(broken_network(), masks, images, "coat", progress=False)
    with pytest.raises(NadkitError, match="hand gives NaN or infinite logits"):
        nk.layer_graph(broken_network())


@pytest.mark.parametrize("name", ["input", "logit", "output"])
def test_layers_with_the_names_of_ends_are_refused(name: str) -> None:
    model = nn.Sequential(
        OrderedDict([("flat", nn.Flatten()), (name, nn.Linear(72, 4)), ("last", nn.Linear(4, 4))])
    )
    network = wrap(model, [name])
    message = rf"net has a layer '{name}', which in graphs is the name of an end; .* body\.{name}"
    if name != "output":
        with pytest.raises(LayerError, match=message):
            nk.extract(network, all_kept(network), pictures(), "bag", progress=False)
    if name != "logit":
        with pytest.raises(LayerError, match=message):
            nk.layer_graph(network)
    advised = wrap(nn.Sequential(OrderedDict(body=model)), [f"body.{name}"])
    assert nk.layer_graph(advised).has_edge("input", f"body.{name}")


def test_a_graph_that_is_too_large_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    network, images, masks = make_network(), make_images([5, 6, 7, 8], 0), all_kept(make_network())
    monkeypatch.setattr(extraction, "MOST_LINKS", 59)
    with pytest.raises(
        NadkitError, match=r"12 kept units with 5 links each .*; give links_per_unit of 4 or less"
    ):
        nk.extract(network, masks, images, "coat", progress=False)
    assert nk.extract(
        network, masks, images, "coat", links_per_unit=4, progress=False
    ).graph.number_of_edges()
    monkeypatch.setattr(extraction, "MOST_UNITS", 11)
    with pytest.raises(NadkitError, match="'coat' keeps 12 units, and a graph holds at most 11"):
        nk.extract(network, masks, images, "coat", progress=False)
    assert building.MOST_UNITS == 10_000
    assert building.MOST_LINKS == 200_000
