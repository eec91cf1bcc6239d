"""Slices answer as the gated network does: the reference is `Taps`, which cuts nothing."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from slicing_models import MODELS, Block, Drawn, Residual, make_model, shaken
from torch import Tensor, nn

import nadkit as nk
from nadkit.errors import ImageError, LayerError, MaskFileError, NadkitError
from nadkit.networks import BUNDLED, gated_logits, log_odds, make_untrained
from nadkit.slicing import report

CLASSES = ("a", "b", "c")


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def wrapped(model: nn.Module, layers: Sequence[str] | str) -> nk.Network:
    first = next(model.parameters())
    return nk.Network.wrap(model, CLASSES, example=torch.zeros(1, 2, 8, 8, dtype=first.dtype), layers=layers)


def random_masks(network: nk.Network, seed: int, share: float, tasks: Sequence[str] = CLASSES) -> nk.MaskSet:
    generator = torch.Generator().manual_seed(seed)
    scores = {}
    for address, layer in network.layers.items():
        rows = torch.rand(len(tasks), layer.units, generator=generator)
        rows = (rows < share).float()
        rows[:, int(torch.randint(layer.units, (), generator=generator))] = 1  # no layer is empty
        scores[address] = rows
    return nk.MaskSet.from_scores(scores, tasks)


def gated(network: nk.Network, gates: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    with torch.no_grad(), nk.Taps(network, (), gates=gates):
        return network.logits(inputs.clone())


def difference(found: Tensor, wanted: Tensor) -> float:
    return float(((found - wanted).abs().max() / wanted.abs().max()).detach())


def some_inputs(seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(5, 2, 8, 8, dtype=dtype, generator=torch.Generator().manual_seed(seed))


# Equality


@pytest.mark.parametrize("share", [0.3, 0.5])
@pytest.mark.parametrize("name", BUNDLED)
def test_a_slice_answers_as_the_gated_network(name: str, share: float) -> None:
    network, masks = nk.load_network(name), nk.load_masks(name, kept_share=share)
    images = nk.load_images(name.split("-")[1], split="test", per_class=2)
    inputs = network.prepare(images.pixels)
    union = list(masks.tasks[2:5])
    for tasks in (masks.tasks[0], masks.tasks[-1], union):
        names = [tasks] if isinstance(tasks, str) else tasks
        gates = {a: rows.amax(0) for a, rows in masks[names].gates().items()}
        small = nk.export(network, masks, tasks)
        with torch.no_grad():
            assert difference(small(inputs), gated(network, gates, inputs)) < 1e-5
        assert parameters(small) < parameters(network.model)
        table = report(small)
        assert (table["gated"] == 0).all()
        assert (table["kept"] + table["sliced"] == table["units"]).all()
        assert table["kept"].tolist() == [int(gate.sum()) for gate in gates.values()]


@pytest.mark.parametrize("name", BUNDLED[:4])
def test_in_double_precision_the_difference_is_rounding(name: str) -> None:
    single = nk.load_network(name)
    model = copy.deepcopy(single.model).double()
    network = nk.Network.wrap(
        model, single.class_names, example=torch.zeros(1, *single.input_shape), layers=list(single.layers)
    )
    masks = nk.MaskSet.from_scores(nk.load_masks(name).scores, nk.load_masks(name).tasks)
    inputs = torch.rand(4, *single.input_shape, dtype=torch.float64)
    task = masks.tasks[1]
    small = nk.export(network, masks, task)
    with torch.no_grad():
        assert difference(small(inputs), gated(network, masks.gates(task), inputs)) < 1e-12


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", MODELS)
def test_hand_built_wiring(name: str, seed: int) -> None:
    network = wrapped(make_model(name, seed), MODELS[name][1])
    masks = random_masks(network, seed, (0.7, 0.4, 0.2, 0.9)[seed])
    gates = {a: rows[:2].amax(0) for a, rows in masks.gates().items()} if seed == 1 else masks.gates("b")
    small = nk.export(network, masks, ["a", "b"] if seed == 1 else "b")
    inputs = some_inputs(seed)
    with torch.no_grad():
        assert difference(small(inputs), gated(network, gates, inputs)) < 1e-12
    assert not report(small)["why"].str.contains("cut out").any()  # sliced, not fallen back on gates


@settings(max_examples=60, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(Drawn.KINDS), min_size=1, max_size=6),
    seed=st.integers(0, 10_000),
    share=st.floats(0.05, 0.95),
)
def test_networks_drawn_by_chance(kinds: list[str], seed: int, share: float) -> None:
    network = wrapped(shaken(lambda: Drawn(tuple(kinds)), seed), [f"taps.{i}" for i in range(len(kinds))])
    masks = random_masks(network, seed, share, ("b",))
    small = nk.export(network, masks, "b")
    inputs = some_inputs(seed)
    with torch.no_grad():
        assert difference(small(inputs), gated(network, masks.gates("b"), inputs)) < 1e-11
    assert not report(small)["why"].str.contains("cut out").any()


def test_all_units_kept_gives_the_whole_network() -> None:
    for name in ("resnet-fashion", "darts-scenes"):
        network = nk.load_network(name)
        scores = {a: torch.ones(1, layer.units) for a, layer in network.layers.items()}
        small = nk.export(
            network, nk.MaskSet.from_scores(scores, [network.class_names[0]]), network.class_names[0]
        )
        inputs = network.prepare(torch.rand(2, *network.input_shape))
        with torch.no_grad():
            assert torch.equal(small(inputs), network.logits(inputs))
        assert parameters(small) == parameters(network.model)


def test_the_untrained_control_keeps_its_scale() -> None:
    network = nk.load_network("vgg-fashion")
    inputs = network.prepare(nk.load_images("fashion", per_class=2).pixels)
    fresh, _ = make_untrained(network, inputs, seed=1)
    masks = random_masks(fresh, 0, 0.5, network.class_names)
    small = nk.export(fresh, masks, "bag")
    wanted = gated_logits(fresh, inputs, {a: g[None] for a, g in masks.gates("bag").items()})[0]
    with torch.no_grad():
        assert difference(small(inputs), wanted) < 1e-5


def test_a_product_of_which_nothing_is_left_answers_a_constant() -> None:
    network = wrapped(make_model("product"), ["left", "right"])
    scores = {"left": torch.tensor([[1.0, 1, 0, 0]]), "right": torch.tensor([[0.0, 0, 1, 1]])}
    masks = nk.MaskSet.from_scores(scores, ["a"])
    small = nk.export(network, masks, "a")
    for count in (1, 5):
        inputs = some_inputs()[:count]
        with torch.no_grad():
            assert small(inputs).shape == (count, 3)
            assert difference(small(inputs), gated(network, masks.gates("a"), inputs)) < 1e-12
    assert not any(isinstance(part, nn.Conv2d | nn.Linear) for part in small.modules())


def own_relu(x: Tensor) -> Tensor:
    """Not torch's: every channel reads all others."""
    return x - x.mean(1, keepdim=True)


own_relu.__name__ = "relu"
torch.fx.wrap("own_relu")


class Homonym(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.head = nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(own_relu(self.act(self.conv(x))).mean((2, 3)))


def test_a_function_is_known_by_more_than_its_name() -> None:
    network = wrapped(Homonym(), ["act"])
    table = report(nk.export(network, random_masks(network, 0, 0.5), "a"))
    assert table["why"].tolist() == ["read whole by relu()"]


def trunc_(x: Tensor) -> Tensor:
    """Not torch's, and nothing is written into."""
    return x - x.mean(1, keepdim=True)


torch.fx.wrap("trunc_")
wrapped_relu = nn.functional.relu
torch.fx.wrap("wrapped_relu")


class Named(Homonym):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(wrapped_relu(trunc_(self.act(self.conv(x)))).mean((2, 3)))


def test_a_function_of_the_users_own_stays_what_it_is() -> None:
    network = wrapped(Named(), ["act"])
    masks = random_masks(network, 0, 0.5)
    for _ in range(2):  # the first leaves nothing that the second trips over
        small = nk.export(network, masks, "a")
        inputs = some_inputs(dtype=torch.float32)
        with torch.no_grad():
            assert difference(small(inputs), gated(network, masks.gates("a"), inputs)) < 1e-5
        assert report(small)["why"].tolist() == ["read whole by trunc_()"]


# By hand


def test_sizes_and_weights_worked_out_by_hand() -> None:
    """Of 4 units 1 and 3 are kept, of 3 units only 2: two rows are left, then one of two columns."""
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)
    )
    scores = {"1": torch.tensor([[0.0, 1, 0, 1]]), "3": torch.tensor([[0.0, 0, 1]])}
    small = nk.export(wrapped(model, ["1", "3"]), nk.MaskSet.from_scores(scores, ["a"]), "a")
    first, second, head = (small.get_submodule(path) for path in ("0", "2", "5"))
    assert torch.equal(first.weight, model[0].weight[[1, 3]])
    assert torch.equal(first.bias, model[0].bias[[1, 3]])
    assert torch.equal(second.weight, model[2].weight[2:][:, [1, 3]])
    assert torch.equal(head.weight, model[5].weight[:, 32:])  # 4 × 4 features of unit 2
    assert parameters(small) == (2 * 2 * 9 + 2) + (1 * 2 * 9 + 1) + (3 * 16 + 3)
    assert (first.in_channels, first.out_channels, second.in_channels, head.in_features) == (2, 2, 2, 16)


def test_a_constant_behind_a_norm_moves_into_the_next_bias() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 1, 1), nn.Flatten(), nn.Linear(64, 3)
    ).eval()
    with torch.no_grad():
        model[1].running_mean.copy_(torch.tensor([2.0, 5.0]))
        model[1].running_var.copy_(torch.tensor([4.0, 1.0]) - model[1].eps)
        model[1].weight.copy_(torch.tensor([-3.0, 1.0]))
        model[1].bias.copy_(torch.tensor([0.5, 0.0]))
        model[3].weight.copy_(torch.tensor([2.0, 7.0]).reshape(1, 2, 1, 1))
        model[3].bias.fill_(10.0)
    masks = nk.MaskSet.from_scores({"0": torch.tensor([[0.0, 1.0]])}, ["a"])
    small = nk.export(wrapped(model, ["0"]), masks, "a")
    # (0 − 2) / 2 · −3 + 0.5 = 3.5, times 2, on 10
    assert small.get_submodule("3").bias.tolist() == pytest.approx([17.0])
    assert small.get_submodule("3").in_channels == 1
    assert report(small)[["sliced", "gated"]].values.tolist() == [[1, 0]]


def test_each_call_of_a_module_is_cut_for_itself() -> None:
    network = wrapped(make_model("twice"), ["relu#1", "relu#2", "relu#3"])
    scores = {"relu#1": [1, 1, 1, 0, 0, 0], "relu#2": [1, 0, 0, 0, 0, 0], "relu#3": [0, 0, 1, 1, 1, 1]}
    masks = nk.MaskSet.from_scores({a: torch.tensor([s]).float() for a, s in scores.items()}, ["a"])
    small = nk.export(network, masks, "a")
    shapes = [tuple(m.weight.shape[:2]) for m in small.modules() if isinstance(m, nn.Conv2d)]
    assert shapes == [(3, 2), (1, 3), (4, 1)]
    same = {a: [1, 1, 1, 0, 0, 0] for a in scores}
    masks = nk.MaskSet.from_scores({a: torch.tensor([s]).float() for a, s in same.items()}, ["a"])
    convolutions = [m for m in nk.export(network, masks, "a").modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 2  # cut alike, it stays one


def test_what_is_read_lies_side_by_side() -> None:
    """Both sides of a residual sum have other units; ordered well, none of them is copied."""
    network, masks = nk.load_network("resnet-fashion"), nk.load_masks("resnet-fashion")
    for task in masks.tasks[:3]:
        small = nk.export(network, masks, task)
        used = [getattr(node.target, "__name__", node.target) for node in small.graph.nodes]
        assert "index_select" not in used
        assert "index_add" not in used
        assert used.count("add_") + used.count("add") == 8  # six shortcuts that pass on, two that project


# The report


def test_what_cannot_be_cut_stays_a_gate_and_is_named() -> None:
    network = wrapped(make_model("shuffle"), MODELS["shuffle"][1])
    scores = {"stem": [1, 1, 0, 0, 0, 1], "shuffled": [0, 1, 1, 1, 1, 0], "last": [1, 0, 0, 0, 0]}
    masks = nk.MaskSet.from_scores({a: torch.tensor([s]).float() for a, s in scores.items()}, ["a"])
    table = report(nk.export(network, masks, "a")).set_index("layer")
    assert table[["units", "kept", "sliced", "gated"]].values.tolist() == [
        [6, 3, 0, 3],
        [6, 4, 0, 2],
        [5, 1, 4, 0],
    ]
    assert table["why"].tolist() == [
        "read whole by ChannelShuffle 'shuffled'", "computed whole by ChannelShuffle 'shuffled'", "",
    ]  # fmt: skip


class Picked(nn.Module):
    """Channels in an order of their own, which no rule knows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.head = nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.conv(x))[:, [3, 2, 1, 0]].mean((2, 3)))


def test_an_operation_on_gated_units_is_named_itself() -> None:
    network = wrapped(Picked(), ["act"])
    assert report(nk.export(network, random_masks(network, 0, 0.5), "a"))["why"].tolist() == [
        "read whole by getitem()"
    ]


def test_a_norm_over_tokens_keeps_gates_beside_attention() -> None:
    network = wrapped(make_model("attention"), MODELS["attention"][1])
    table = report(nk.export(network, random_masks(network, 0, 0.5), "a")).set_index("layer")
    assert (table.loc["join", "gated"], table.loc["join", "sliced"]) == (8 - table.loc["join", "kept"], 0)
    assert "LayerNorm 'norm2'" in table.loc["join", "why"]
    assert "MultiheadAttention 'attend'" in table.loc["join", "why"]
    assert table.loc["wide", "gated"] == 0


def test_groups_are_filled_up_and_it_is_said() -> None:
    network = wrapped(make_model("grouped"), ["stem", "group"])
    # Groups of two inputs: one whole, one half, two gone; of three outputs: three, none, one, none.
    scores = {"stem": [1, 1, 1, 0, 1, 0, 0, 1], "group": [1, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0]}
    masks = nk.MaskSet.from_scores({a: torch.tensor([s]).float() for a, s in scores.items()}, ["a"])
    small = nk.export(network, masks, "a")
    conv = small.get_submodule("group_0")
    assert (conv.groups, conv.in_channels, conv.out_channels) == (2, 4, 6)
    table = report(small)
    assert table[["sliced", "gated"]].values.tolist() == [[2, 1], [6, 2]]
    assert table["why"].tolist() == ["read whole by Conv2d 'group.0'", "computed whole by Conv2d 'group.0'"]


class Doubled(nn.Module):
    """40 activations written by hand: 2⁴⁰ ways lead from the gate behind them to the norm before them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.first, self.last = nn.Conv2d(2, 4, 1), nn.Identity(), nn.Identity()
        self.norm, self.head = nn.GroupNorm(2, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.norm(self.conv(x)))
        for _ in range(40):
            x = x * torch.sigmoid(x)
        return self.head(self.norm(self.last(x)).mean((2, 3)))


def test_reasons_are_found_where_many_ways_lead_to_them() -> None:
    network = wrapped(Doubled(), ["first", "last"])
    masks = nk.MaskSet.from_scores(
        {"first": torch.tensor([[0.0, 1, 1, 1]]), "last": torch.tensor([[1.0, 0, 1, 1]])}, ["a"]
    )
    table = report(nk.export(network, masks, "a"))
    assert table["gated"].tolist() == [1, 1]
    assert set(table["why"]) == {"read whole by GroupNorm 'norm'; computed whole by Identity 'first'"}


class Aliased(nn.Module):
    """Writes into a tensor of which another view is read later: its trace is not what runs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.head = nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Linear(4 * 36, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.conv(x))
        flat = x.flatten(1)
        x.mul_(2.0)
        return self.head(flat)


class Drawing(Homonym):
    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.conv(x)).mean((2, 3))
        return self.head(x + torch.rand_like(x))


def test_a_forward_that_draws_is_refused_and_the_generator_is_as_before() -> None:
    network = wrapped(Drawing(), ["act"])
    state = torch.get_rng_state()
    with pytest.raises(NadkitError, match=r"do not answer as the gated network.*such as a draw"):
        nk.export(network, random_masks(network, 0, 0.5), "a")
    assert torch.equal(torch.get_rng_state(), state)


def test_a_trace_that_is_not_what_runs_is_refused() -> None:
    network = wrapped(Aliased(), ["act"])
    with pytest.raises(
        NadkitError, match=r"do not answer as the gated network.*differ by.*Taps\(network, gates"
    ):
        nk.export(network, random_masks(network, 0, 0.5), "a")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_a_slice_that_differs_falls_back_on_gates(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nadkit.slicing import weighted

    network = wrapped(make_model("norm after", dtype=dtype), MODELS["norm after"][1])
    masks = random_masks(network, 0, 0.5)
    monkeypatch.setattr(weighted, "folds", lambda _: True)  # which zero padding forbids
    small = nk.export(network, masks, "a")
    inputs = some_inputs(dtype=dtype)
    with torch.no_grad():
        assert difference(small(inputs), gated(network, masks.gates("a"), inputs)) < 1e-12
    table = report(small)
    assert (table["sliced"] == 0).all()
    assert table["why"].str.contains("cut out, the answers differ").all()


class Light(nn.Module):
    """Answers where half of the picture is light; of noise all its units are silent."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.next = nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        light = nn.functional.relu(nn.functional.avg_pool2d(x, 4, 1) - 0.8)
        x = self.next(self.norm(self.conv(x)))
        return self.head((x * light.amax((1, 2, 3), keepdim=True)).mean((2, 3)))


def test_a_difference_is_found_where_noise_shows_none(monkeypatch: pytest.MonkeyPatch) -> None:
    from nadkit.slicing import weighted

    network = wrapped(shaken(Light, 0), ["conv"])
    masks = nk.MaskSet.from_scores({"conv": torch.tensor([[1.0, 0, 0, 1]])}, ["a"])
    assert report(nk.export(network, masks, "a"))["gated"].tolist() == [2]
    monkeypatch.setattr(weighted, "folds", lambda _: True)  # which zero padding forbids
    table = report(nk.export(network, masks, "a"))
    assert table["why"].str.contains("cut out, the answers differ").all()


def test_an_open_tap_does_not_go_into_the_export() -> None:
    network = wrapped(make_model("perceptron"), ["layers.3"])
    masks = random_masks(network, 0, 0.5)
    with nk.Taps(network) as taps:
        with pytest.raises(NadkitError, match=r"perceptron is tapped at .*outside the block"):
            nk.export(network, masks, "a")
        network.logits(some_inputs())
    assert taps.activations["layers.3"].shape == (5, 9)


class Reserved(nn.Module):
    """Modules by the names that torch uses for itself."""

    def __init__(self) -> None:
        super().__init__()
        self.graph, self.code, self.meta = nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)
        self.detector_others = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.detector_others(self.meta(self.code(self.graph(x))).mean((2, 3)))


def test_modules_may_have_any_name() -> None:
    network = wrapped(Reserved(), ["code"])
    masks, images = (
        random_masks(network, 0, 0.5),
        nk.Images(torch.rand(8, 2, 8, 8), torch.arange(8) % 2, CLASSES),
    )
    small = nk.export(network, masks, "a")
    inputs = some_inputs(dtype=torch.float32)
    with torch.no_grad():
        assert difference(small(inputs), gated(network, masks.gates("a"), inputs)) < 1e-5
        assert nk.export(network, masks, "a", head="binary", images=images)(inputs).shape == (5,)


def test_a_detector_of_which_nothing_is_left_answers_0() -> None:
    network = wrapped(make_model("product", dtype=torch.float32), ["left", "right"])
    scores = {"left": torch.tensor([[1.0, 1, 0, 0]]), "right": torch.tensor([[0.0, 0, 1, 1]])}
    masks = nk.MaskSet.from_scores(scores, ["a"])
    images = nk.Images(torch.rand(8, 2, 8, 8), torch.arange(8) % 2, CLASSES)
    with pytest.warns(UserWarning, match="always answers 0"):
        small = nk.export(network, masks, "a", head="binary", images=images)
    assert small(some_inputs(dtype=torch.float32)).tolist() == [0.0] * 5


def test_a_slice_that_does_not_run_falls_back_on_gates(monkeypatch: pytest.MonkeyPatch) -> None:
    from nadkit.slicing import known

    network = wrapped(make_model("shuffle"), MODELS["shuffle"][1])
    monkeypatch.setitem(known._POOLS, nn.ChannelShuffle, 2)  # it is no pooling: three channels have no halves
    scores = {"stem": [1, 0, 0, 1, 0, 1], "shuffled": [1, 0, 0, 1, 0, 1], "last": [1, 1, 0, 0, 0]}
    masks = nk.MaskSet.from_scores({a: torch.tensor([s]).float() for a, s in scores.items()}, ["a"])
    small = nk.export(network, masks, "a")
    inputs = some_inputs()
    with torch.no_grad():
        assert difference(small(inputs), gated(network, masks.gates("a"), inputs)) < 1e-12
    assert report(small)["why"].str.contains("cut out, the answers fail").all()


# What is left alone


@pytest.mark.parametrize("name", MODELS)
def test_no_number_is_shared_with_the_network(name: str) -> None:
    network = wrapped(make_model(name), MODELS[name][1])
    scores = {address: torch.ones(1, layer.units) for address, layer in network.layers.items()}
    small = nk.export(network, nk.MaskSet.from_scores(scores, ["a"]), "a")
    theirs, ours = (
        {t.untyped_storage().data_ptr() for t in [*one.parameters(), *one.buffers()]}
        for one in (network.model, small)
    )
    assert not theirs & ours


def test_nothing_changes_in_the_network_and_nothing_is_shared() -> None:
    model = make_model("residual").train()
    model.two.eval()
    network = wrapped(model, ["stem", "one", "two", "three"])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [part.training for part in model.modules()]
    flags = [p.requires_grad for p in model.parameters()]
    state = torch.get_rng_state()
    small = nk.export(network, random_masks(network, 0, 0.5), "a")
    assert torch.equal(torch.get_rng_state(), state)
    assert [part.training for part in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(not part._forward_hooks and not part._forward_pre_hooks for part in model.modules())
    assert not any(part.training for part in small.modules())
    theirs = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    ours = {t.untyped_storage().data_ptr() for t in [*small.parameters(), *small.buffers()]}
    assert not theirs & ours
    assert not set(model.modules()) & set(small.modules())
    optimiser = torch.optim.SGD(small.parameters(), lr=1.0)
    small.train()(some_inputs()).square().sum().backward()
    optimiser.step()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["residual", "mixed", "attention", "grouped", "reread"])
def test_gradients_are_those_of_the_gated_network(name: str) -> None:
    network = wrapped(make_model(name), MODELS[name][1])
    masks = random_masks(network, 1, 0.6, ("a",))
    if name == "reread":  # side by side, so that the sum is written into where it may
        masks = nk.MaskSet.from_scores({"stem": torch.tensor([[0.0, 0, 1, 1, 1, 0]])}, ["a"])
    small = nk.export(network, masks, "a")
    ours, theirs = some_inputs().requires_grad_(), some_inputs().requires_grad_()
    small(ours).square().sum().backward()
    with nk.Taps(network, (), gates=masks.gates("a")):
        network.logits(theirs).square().sum().backward()
    assert difference(ours.grad, theirs.grad) < 1e-12
    assert all(p.grad is not None for p in small.parameters())


def test_parameters_keep_their_flags() -> None:
    model = make_model("perceptron").requires_grad_(False)
    model.layers[7].weight.requires_grad_(True)
    network = wrapped(model, ["layers.3"])
    small = nk.export(network, random_masks(network, 0, 0.5), "a")
    assert [key for key, p in small.named_parameters() if p.requires_grad] == ["layers_7.weight"]


def test_a_slice_is_made_of_torch_alone() -> None:
    network = wrapped(make_model("residual"), ["stem", "one", "two", "three"])
    small = nk.export(network, random_masks(network, 0, 0.5), "a")
    homes = {type(part).__module__.split(".")[0] for part in small.modules()}
    homes |= {
        node.target.__module__.split(".")[0].lstrip("_")
        for node in small.graph.nodes
        if callable(node.target)
    }
    assert homes <= {"torch", "operator"}
    assert "nadkit" not in small.code


def test_in_place_operations_write_into_no_input() -> None:
    network = wrapped(make_model("residual"), ["stem"])
    small = nk.export(network, random_masks(network, 0, 0.5), "a")
    inputs = some_inputs()
    before = inputs.clone()
    small(inputs)
    assert torch.equal(inputs, before)
    assert not any(getattr(part, "inplace", False) for part in small.modules())


# The detector


@pytest.fixture(scope="module")
def fashion() -> tuple[nk.Network, nk.MaskSet, nk.Images]:
    return (
        nk.load_network("vgg-fashion"),
        nk.load_masks("vgg-fashion"),
        nk.load_images("fashion", per_class=15),
    )


def test_a_detector_gives_calibrated_log_odds(fashion: tuple[nk.Network, nk.MaskSet, nk.Images]) -> None:
    network, masks, images = fashion
    small = nk.export(network, masks, "bag", head="binary", images=images)
    inputs = network.prepare(images.pixels)
    raw = log_odds(gated(network, masks.gates("bag"), inputs))[:, network.class_index("bag")]
    positive = images.labels == images.class_names.index("bag")
    with torch.no_grad():
        found = small(inputs)
    assert found.shape == (len(images),)
    fit = small.meta["slicing"]["calibration"]
    assert torch.allclose(found, raw * fit["slope"] + fit["intercept"], rtol=1e-3, atol=1e-3)
    # The balanced loss is smallest there: a small step to any side makes it larger.
    epsilon = 1 / (int(positive.sum()) + 2)
    target = torch.where(positive, 1 - epsilon, epsilon).double()
    weight = torch.where(positive, 1 / positive.sum(), 1 / (~positive).sum()).double()

    def loss(slope: float, intercept: float) -> float:
        odds = raw.double() * slope + intercept
        each = nn.functional.binary_cross_entropy_with_logits(odds, target, weight=weight, reduction="sum")
        return float(each)

    best = loss(fit["slope"], fit["intercept"])
    for slope, intercept in ((0.02, 0), (-0.02, 0), (0, 0.02), (0, -0.02)):
        assert loss(fit["slope"] + slope, fit["intercept"] + intercept) > best
    hits = (found > 0) == positive
    assert float(hits[positive].float().mean() + hits[~positive].float().mean()) / 2 > 0.9


def test_a_detector_knows_classes_by_name(fashion: tuple[nk.Network, nk.MaskSet, nk.Images]) -> None:
    """Pictures may number their classes otherwise than the network does."""
    network, masks, images = fashion
    order = list(range(9, -1, -1))
    turned = nk.Images(images.pixels, 9 - images.labels, tuple(images.class_names[k] for k in order))
    one, two = (nk.export(network, masks, "coat", head="binary", images=i) for i in (images, turned))
    inputs = network.prepare(images.pixels[:3])
    with torch.no_grad():
        assert torch.equal(one(inputs), two(inputs))


def test_a_detector_that_ranks_nothing_says_so(fashion: tuple[nk.Network, nk.MaskSet, nk.Images]) -> None:
    network, masks, images = fashion
    # The task's pictures are named for another class and the other way round: the rank is the wrong one.
    swapped = images.labels.clone()
    bag, boot = images.class_names.index("bag"), images.class_names.index("ankle boot")
    swapped[images.labels == bag], swapped[images.labels == boot] = boot, bag
    wrong = nk.Images(images.pixels, swapped, images.class_names)[
        (images.labels == bag) | (images.labels == boot)
    ]
    with pytest.warns(UserWarning, match="always answers 0"):
        small = nk.export(network, masks, "bag", head="binary", images=wrong)
    with torch.no_grad():
        assert small(network.prepare(images.pixels[:4])).tolist() == [0.0] * 4


# What is refused


def test_an_empty_layer_is_refused_by_name() -> None:
    network = wrapped(Residual().double(), ["stem", "one", "two"])
    scores = {"stem": torch.ones(2, 8), "one": torch.zeros(2, 8), "two": torch.ones(2, 8)}
    scores["one"][1, 3] = 1
    masks = nk.MaskSet.from_scores(scores, ["a", "b"])
    with pytest.raises(LayerError, match="task 'a' keeps no unit of layer 'one'"):
        nk.export(network, masks, "a")
    assert report(nk.export(network, masks, ["a", "b"]))["kept"].tolist() == [8, 1, 8]
    with pytest.raises(LayerError, match=r"tasks a, b keep no unit of layer 'stem', 'one', 'two'"):
        nk.export(network, masks, ["a", "b"], threshold=1.0)


def test_units_and_layers_of_another_network_are_refused() -> None:
    network = wrapped(Residual().double(), ["stem", "one"])
    more = nk.MaskSet.from_scores({"stem": torch.ones(1, 9), "one": torch.ones(1, 8)}, ["a"])
    with pytest.raises(MaskFileError, match="layer 'stem' has 8 units there and 9 here"):
        nk.export(network, more, "a")
    other = nk.MaskSet.from_scores({"stem": torch.ones(1, 8), "ones": torch.ones(1, 8)}, ["a"])
    with pytest.raises(MaskFileError, match="no layer 'ones'"):
        nk.export(network, other, "a")


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.head = nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.conv(x)).mean((2, 3))
        if x.sum() > 1e9:
            x = -x
        return self.head(x)


def test_a_forward_that_depends_on_values_is_refused() -> None:
    model = Branching()
    network = wrapped(model, ["act"])
    with pytest.raises(NadkitError, match=r"branching cannot be exported.*values.*with Taps\(network"):
        nk.export(network, random_masks(network, 0, 0.5), "a")
    assert model.training


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": "bagg"}, r"no task 'bagg' in these masks; closest: bag"),
        ({"tasks": []}, "a task's name or a list of names"),
        ({"tasks": 3}, "a task's name or a list of names"),
        ({"head": "half"}, r"no head 'half'; there are: full, binary"),
        ({"head": "binary"}, "a binary head is calibrated on training pictures"),
        ({"head": "binary", "tasks": ["bag", "coat"]}, "a binary head answers for one task"),
        ({"threshold": 2}, "threshold is 2"),
        ({"network": nn.ReLU()}, "export needs a Network, and got ReLU"),
        ({"masks": {}}, "export needs a MaskSet, and got dict"),
    ],
)
def test_what_is_asked_is_checked(
    change: dict[str, object], message: str, fashion: tuple[nk.Network, nk.MaskSet, nk.Images]
) -> None:
    network, masks, _ = fashion
    asked: dict[str, object] = {"network": network, "masks": masks, "tasks": "bag", **change}
    with pytest.raises(NadkitError, match=message):
        nk.export(**asked)


def test_pictures_of_a_detector_are_checked(fashion: tuple[nk.Network, nk.MaskSet, nk.Images]) -> None:
    network, masks, images = fashion
    with pytest.raises(NadkitError, match="leave them out"):
        nk.export(network, masks, "bag", images=images)
    with pytest.raises(ImageError, match="on pictures of it and of others"):
        nk.export(network, masks, "bag", head="binary", images=images.of("bag"))
    renamed = nk.Images(images.pixels, images.labels, ("bagg", *images.class_names[1:]))
    with pytest.raises(ImageError, match="pictures of 'bagg'"):
        nk.export(network, masks, "bag", head="binary", images=renamed)


def test_no_warning_on_the_way() -> None:
    network = wrapped(nn.Sequential(Block2(), nn.Flatten(), nn.Linear(128, 3)), ["0"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nk.export(network, random_masks(network, 0, 0.5), "a")


class Block2(nn.Module):
    """A block that adds into its input, as `out += x` and `F.relu(x, True)` do."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Block(2)

    def forward(self, x: Tensor) -> Tensor:
        out = self.block(x)
        out.add_(x)
        return nn.functional.relu(out, True)
