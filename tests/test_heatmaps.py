"""Attributions: closed forms on linear networks, plain autograd elsewhere, and masks of equal size."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import nadkit.heatmaps
from nadkit.errors import ImageError, LayerError, MaskFileError, NadkitError
from nadkit.heatmaps import ATTRIBUTIONS, DESCRIPTIONS, METHODS, attributions, ranked_masks, unit_attributions
from nadkit.images import Images
from nadkit.masks import MaskSet
from nadkit.networks import Layer, Network, log_odds
from nadkit.taps import Taps

CLASSES = ("ant", "bee", "cat")
SIGNED = ("gradient-x-activation", "integrated-gradients", "feature-ablation")


class Winding(nn.Module):
    """A ReLU that runs twice, in-place consumers of tapped outputs, and a linear layer over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.relu, self.shift = nn.ReLU(inplace=True), nn.Identity()
        self.mix, self.head = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.conv1(x))
        x = self.relu(self.conv2(x) + x)
        x = self.shift(x).mul_(0.5).flatten(2).transpose(1, 2)  # changes what `shift` gave, in place
        return self.head(F.gelu(self.mix(x)).mean(1))


@pytest.fixture(scope="module")
def winding() -> Network:
    model = Winding().double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.7)
    layers = {
        "relu#1": Layer(4, 1), "relu#2": Layer(4, 1), "shift": Layer(4, 1), "mix": Layer(5, -1),
    }  # fmt: skip
    found = Network.wrap(
        model, CLASSES, example=torch.zeros(1, 1, 4, 4), layers=["relu#1", "relu#2", "shift", "mix"]
    )
    return replace(found, layers=layers)


@pytest.fixture(scope="module")
def pictures() -> Images:
    pixels = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    return Images(pixels, torch.arange(12) % 3, CLASSES)


@pytest.fixture(scope="module")
def like(winding: Network) -> MaskSet:
    """Return masks of very different sizes, an empty and a full layer among them."""
    generator = torch.Generator().manual_seed(3)
    scores = {a: torch.rand(3, layer.units, generator=generator) for a, layer in winding.layers.items()}
    scores["relu#1"][0] = scores["relu#1"][0] / 2
    scores["shift"][1] = scores["shift"][1] / 2 + 0.5
    meta = {"network": winding.name, "weights_id": winding.weights_id, "class_names": list(CLASSES)}
    return MaskSet.from_scores(scores, CLASSES, meta)


@pytest.fixture
def linear() -> tuple[Network, Images, torch.Tensor, torch.Tensor]:
    """Return a network with two classes, whose log-odds are linear: (v·a) with a = W x, v = w_0 − w_1."""
    generator = torch.Generator().manual_seed(4)
    first, last = nn.Linear(4, 3, bias=False).double(), nn.Linear(3, 2).double()
    with torch.no_grad():
        first.weight.copy_(torch.randn(3, 4, generator=generator))
        last.weight.copy_(torch.randn(2, 3, generator=generator))
    model = nn.Sequential(nn.Flatten(), first, last)
    pixels = torch.rand(6, 1, 2, 2, generator=generator)
    network = Network.wrap(model, ["in", "out"], example=pixels, layers=["1"])
    images = Images(pixels, torch.tensor([0, 1, 0, 1, 0, 0]), ("in", "out"))
    hidden = pixels.flatten(1).double() @ first.weight.T
    return network, images, hidden.detach(), (last.weight[0] - last.weight[1]).detach()


@pytest.mark.parametrize("method", SIGNED)
def test_on_a_linear_network_signed_methods_are_weight_times_activation(linear, method):
    network, images, hidden, weight = linear
    found = unit_attributions(network, images, method=method)["1"]
    own = images.labels == 0
    assert torch.allclose(found[0], weight * hidden[own].mean(0), atol=1e-12)
    assert torch.allclose(found[1], -weight * hidden[~own].mean(0), atol=1e-12)


def test_on_a_linear_network_activation_and_magnitude_by_hand(linear):
    network, images, hidden, _ = linear
    own = images.labels == 0
    found = unit_attributions(network, images, method="activation")["1"]
    assert torch.allclose(found, torch.stack([hidden[own].square().mean(0), hidden[~own].square().mean(0)]))
    found = unit_attributions(network, images, method="magnitude")["1"]
    assert torch.allclose(found, hidden.abs().mean(0).expand(2, 3))


def odds_of(network: Network, inputs: torch.Tensor, task: int, gates: dict | None = None) -> torch.Tensor:
    with Taps(network, (), gates=gates or {}):
        return log_odds(network.logits(inputs))[:, task]


def test_gradient_x_activation_equals_plain_autograd_picture_by_picture(winding, pictures):
    found = unit_attributions(winding, pictures, method="gradient-x-activation")
    for task, name in enumerate(CLASSES):
        sums = {address: 0.0 for address in winding.layers}
        for picture in pictures.of(name):
            with Taps(winding) as taps:
                odds = log_odds(winding(picture.pixels))[0, task]
            values = list(taps.activations.values())
            gradients = torch.autograd.grad(odds, values)
            for (address, layer), value, gradient in zip(
                winding.layers.items(), values, gradients, strict=True
            ):
                product = (value * gradient)[0]
                axes = [
                    axis
                    for axis in range(product.ndim)
                    if axis != (0 if layer.axis == 1 else product.ndim - 1)
                ]
                sums[address] = sums[address] + product.sum(axes) / 4
        for address, value in sums.items():
            assert torch.allclose(found[address][task], value.detach(), atol=1e-10), (name, address)


def test_feature_ablation_equals_one_gate_at_a_time(winding, pictures):
    found = unit_attributions(winding, pictures, method="feature-ablation")
    for task, name in enumerate(CLASSES):
        inputs = winding.prepare(pictures.of(name).pixels)
        for address, layer in winding.layers.items():
            for unit in range(layer.units):
                gate = torch.ones(layer.units)
                gate[unit] = 0
                lost = odds_of(winding, inputs, task) - odds_of(winding, inputs, task, {address: gate})
                assert torch.allclose(found[address][task, unit], lost.mean(), atol=1e-10), (address, unit)


def test_activation_equals_what_taps_record(winding, pictures):
    squares = unit_attributions(winding, pictures, method="activation")
    sizes = unit_attributions(winding, pictures, method="magnitude")
    with Taps(winding) as taps, torch.no_grad():
        winding(pictures.pixels)
    for address, layer in winding.layers.items():
        values = taps.activations[address].movedim(layer.axis, 1).flatten(2)
        for task in range(3):
            own = values[pictures.labels == task]
            assert torch.allclose(squares[address][task], own.square().mean((0, 2)))
            assert torch.allclose(sizes[address][task], values.abs().mean((0, 2)))


def slow_conductance(
    network: Network, picture: torch.Tensor, task: int, steps: int
) -> dict[str, torch.Tensor]:
    """Σ over steps of ∂F/∂y · Δy along the line from zeros to the picture, (units,) by address."""
    inputs = network.prepare(picture)
    total, before, slope = {}, None, None
    for step in range(steps + 1):
        with Taps(network) as taps:
            odds = log_odds(network.logits(inputs * (step / steps)))[0, task]
        here = dict(taps.activations)
        if before is not None:
            for address, layer in network.layers.items():
                product = (slope[address] * (here[address] - before[address])).detach()
                product = product.movedim(layer.axis, 1)[0].flatten(1).sum(1)
                total[address] = total.get(address, 0.0) + product
        gradients = torch.autograd.grad(odds, list(here.values()))
        before, slope = here, dict(zip(here, gradients, strict=True))
    return total


def test_conductance_equals_the_sum_over_steps(winding, pictures):
    found = unit_attributions(winding, pictures, method="integrated-gradients", tasks=["bee"])
    each = [slow_conductance(winding, p.pixels, 1, attributions.STEPS) for p in pictures.of("bee")]
    for address, value in found.items():
        slow = torch.stack([one[address] for one in each]).mean(0)
        assert torch.allclose(value[0], slow, atol=1e-6), address


def test_conductance_of_a_layer_adds_up_to_what_the_picture_changes(winding, pictures, monkeypatch):
    one = pictures[:1]
    inputs = winding.prepare(one.pixels)
    change = float((odds_of(winding, inputs, 0) - odds_of(winding, inputs * 0, 0)).detach())
    error = []
    for steps in (10, 200):
        monkeypatch.setattr(attributions, "STEPS", steps)
        found = unit_attributions(winding, one, method="integrated-gradients")
        error.append(max(abs(float(found[address].sum()) - change) for address in ("relu#1", "shift", "mix")))
    assert error[1] < 0.02 * abs(change)
    assert error[1] < error[0] / 5


def test_the_target_is_the_log_odds_and_not_the_logit(linear):
    """Adding one number to all logits changes no log-odds, so it may change no attribution."""
    network, images, _, _ = linear
    before = {m: unit_attributions(network, images, method=m)["1"] for m in SIGNED}
    with torch.no_grad():
        network.model[2].weight.add_(torch.tensor([[3.0, -2.0, 5.0]]))
    for method, values in before.items():
        assert torch.allclose(unit_attributions(network, images, method=method)["1"], values, atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_masks_have_exactly_the_size_of_the_others_in_every_layer(winding, pictures, like, method):
    masks = ranked_masks(winding, pictures, method=method, like=like)
    for address in winding.layers:
        assert masks.kept_share(layer=address) == like.kept_share(layer=address), address
    assert masks.tasks == like.tasks
    masks.check(winding)


@pytest.mark.parametrize("method", ATTRIBUTIONS)
def test_the_units_kept_are_those_ranked_first_and_scores_keep_the_order(winding, pictures, like, method):
    values = unit_attributions(winding, pictures, method=method)
    masks = ranked_masks(winding, pictures, method=method, like=like)
    for address, scores in masks.scores.items():
        assert torch.equal(scores.argsort(1, descending=True), values[address].argsort(1, descending=True))
        for task in range(3):
            kept = scores[task] > 0.5
            assert int(kept.sum()) == int((like.scores[address][task] > 0.5).sum())
            if 0 < int(kept.sum()) < len(kept):
                assert values[address][task][kept].min() >= values[address][task][~kept].max()
        assert len(scores[0].unique()) == scores.shape[1]


def test_scores_by_hand():
    values = torch.tensor([[0.1, 0.4, 0.3, 0.2], [-1.0, -2.0, -3.0, -4.0]])
    scores = nadkit.heatmaps.ranking._scores(values, torch.tensor([2, 1]))
    assert torch.allclose(scores, torch.tensor([[0, 1, 0.75, 0.25], [1, 1 / 3, 1 / 6, 0]]))
    for kept in (0, 4):
        scores = nadkit.heatmaps.ranking._scores(values, torch.tensor([kept, kept]))
        assert (scores > 0.5).sum(1).tolist() == [kept, kept]
        assert bool(((scores >= 0) & (scores <= 1)).all())


def test_random_units_hang_on_the_seed_alone(winding, pictures, like):
    first = ranked_masks(winding, pictures, method="random", like=like, seed=1)
    torch.manual_seed(7)
    again = ranked_masks(winding, pictures, method="random", like=like, seed=1)
    other = ranked_masks(winding, pictures, method="random", like=like, seed=2)
    assert first == again
    assert not torch.equal(first.scores["mix"], other.scores["mix"])
    some = ranked_masks(winding, pictures, method="random", like=like, tasks=["cat"], seed=1)
    assert torch.equal(some.scores["mix"], first["cat"].scores["mix"])


def test_other_task_is_never_the_own_and_every_task_serves_once(winding, pictures, like):
    for seed in range(12):
        masks = ranked_masks(winding, pictures, method="other-task", like=like, seed=seed)
        partners = masks.meta["settings"]["other"]
        assert sorted(partners.values()) == sorted(CLASSES)
        assert all(task != other for task, other in partners.items())
        for task, other in partners.items():
            ranking = like[other].scores["mix"][0].argsort(descending=True)
            assert torch.equal(masks[task].scores["mix"][0].argsort(descending=True), ranking)
    one = ranked_masks(winding, pictures, method="other-task", like=like, tasks=["cat"], seed=3)
    everyone = ranked_masks(winding, pictures, method="other-task", like=like, seed=3)
    assert torch.equal(one.scores["mix"], everyone["cat"].scores["mix"])
    with pytest.raises(NadkitError, match="two tasks or more"):
        ranked_masks(winding, pictures, method="other-task", like=like["cat"])


def test_methods_without_attribution_look_at_no_picture(winding, like):
    strange = Images(torch.zeros(1, 3, 9, 9), torch.tensor([0]), ("dog",))
    for method in ("random", "other-task"):
        ranked_masks(winding, strange, method=method, like=like)


def test_classes_are_matched_by_name_and_tasks_come_in_the_order_asked(winding, pictures):
    names = ("cat", "dog", "ant", "bee")
    moved = Images(pictures.pixels, torch.tensor([2, 3, 0])[pictures.labels], names)
    first = unit_attributions(winding, pictures, method="gradient-x-activation")
    second = unit_attributions(winding, moved, method="gradient-x-activation", tasks=["cat", "ant"])
    for address, values in first.items():
        assert torch.equal(second[address], values[[2, 0]])
    assert len(unit_attributions(winding, moved, method="activation")["mix"]) == 3


@pytest.mark.parametrize("method", ATTRIBUTIONS)
def test_batches_change_nothing(winding, pictures, monkeypatch, method):
    whole = unit_attributions(winding, pictures, method=method)
    monkeypatch.setattr(attributions, "_BATCH", 2 * (attributions.STEPS + 1))
    for address, values in unit_attributions(winding, pictures, method=method).items():
        assert torch.allclose(values, whole[address], atol=1e-12)


def test_pictures_are_picked_by_number_and_seed(winding, pictures):
    def found(**settings: int) -> torch.Tensor:
        return unit_attributions(winding, pictures, method="activation", **settings)["mix"]

    assert torch.equal(found(per_class=2, seed=1), found(per_class=2, seed=1))
    assert not torch.equal(found(per_class=2, seed=1), found(per_class=2, seed=2))
    assert torch.allclose(found(per_class=4), found())
    with pytest.raises(ImageError, match="there are only 4 of 'ant'"):
        found(per_class=5)


def state_of(model: nn.Module) -> list:
    return [
        [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()],
        [p.grad for p in model.parameters()],
        [bool(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks) for m in model.modules()],
        [n for n, _ in model.named_modules()], torch.get_rng_state().tolist(), torch.is_grad_enabled(),
    ]  # fmt: skip


@pytest.mark.parametrize("method", ATTRIBUTIONS)
def test_nothing_is_left_behind_also_by_an_error(winding, pictures, method):
    model = winding.model
    model.train()
    model.mix.eval()
    model.head.weight.requires_grad_(False)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    before, calls = state_of(model), []

    def fail(module, args):  # noqa: ARG001 (torch's)
        calls.append(1)
        if len(calls) == 2:  # the first forward is the look at the layers, the second captum's
            raise KeyboardInterrupt

    try:
        unit_attributions(winding, pictures, method=method, tasks=["ant"])
        assert state_of(model) == before
        handle = model.head.register_forward_pre_hook(fail)
        with pytest.raises(KeyboardInterrupt):
            unit_attributions(winding, pictures, method=method, tasks=["ant"])
        handle.remove()
        assert len(calls) == 2
        assert state_of(model) == before
        assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    finally:
        model.eval().requires_grad_(True)


@pytest.mark.parametrize("method", ATTRIBUTIONS)
def test_frozen_networks_and_inference_mode_give_the_same(winding, pictures, method):
    plain = unit_attributions(winding, pictures, method=method, tasks=["ant"])
    winding.model.requires_grad_(False)
    try:
        with torch.inference_mode():
            there = unit_attributions(winding, pictures, method=method, tasks=["ant"])
    finally:
        winding.model.requires_grad_(True)
    for address, values in plain.items():
        assert torch.allclose(there[address], values, atol=1e-12)


class Branched(nn.Module):
    """The layer `aside` runs, and the answer does not depend on it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.aside, self.head = nn.Linear(4, 3), nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x.flatten(1))
        self.aside(x)
        return self.head(x)


@pytest.mark.parametrize("method", SIGNED)
def test_a_layer_that_the_answer_does_not_hang_on_matters_nothing(method):
    torch.manual_seed(0)
    network = Network.wrap(Branched(), ["a", "b"], example=torch.zeros(1, 1, 2, 2), layers=["first"])
    network = replace(network, layers={"first": Layer(3, 1), "aside": Layer(2, 1)})
    images = Images(torch.rand(2, 1, 2, 2), torch.tensor([0, 1]), ("a", "b"))
    found = unit_attributions(network, images, method=method)
    assert found["aside"].tolist() == [[0, 0], [0, 0]]
    assert bool((found["first"] != 0).all())
    network = replace(network, layers={"aside": Layer(2, 1)})
    if method == "feature-ablation":
        assert unit_attributions(network, images, method=method)["aside"].tolist() == [[0, 0], [0, 0]]
    else:
        with pytest.raises(LayerError, match="no gradient reaches the logits"):
            unit_attributions(network, images, method=method)


@pytest.mark.parametrize("method", ATTRIBUTIONS)
def test_a_bare_address_of_a_module_that_runs_twice_is_refused(winding, pictures, method):
    bare = replace(winding, layers={"relu": Layer(4, 1)})
    with pytest.raises(LayerError, match=r"relu#1, relu#2"):
        unit_attributions(bare, pictures, method=method)


def test_an_unknown_method_names_the_closest(winding, pictures, like):
    with pytest.raises(NadkitError, match="no method 'gradient-activation'; closest: gradient-x-activation"):
        ranked_masks(winding, pictures, method="gradient-activation", like=like)
    with pytest.raises(NadkitError, match="no method 'random'; there are: activation"):
        unit_attributions(winding, pictures, method="random")


def test_images_that_miss_a_task_are_refused(winding, pictures, like):
    part = pictures[pictures.labels != 1]
    with pytest.raises(ImageError, match="no picture of 'bee', only of ant, cat"):
        ranked_masks(winding, part, method="activation", like=like)
    with pytest.raises(ImageError, match="no class 'bee'"):
        ranked_masks(winding, pictures.subset(["ant", "cat"]), method="activation", like=like)
    assert ranked_masks(winding, part, method="activation", like=like, tasks=["cat"]).tasks == ("cat",)


def test_unknown_tasks_and_one_text_are_refused(winding, pictures, like):
    with pytest.raises(NadkitError, match="no task 'bea' in the masks given as like; closest: bee"):
        ranked_masks(winding, pictures, method="random", like=like, tasks=["bea"])
    with pytest.raises(NadkitError, match="no class 'bea' in"):
        unit_attributions(winding, pictures, method="activation", tasks=["bea"])
    for ask in (
        lambda: ranked_masks(winding, pictures, method="random", like=like, tasks="bee"),
        lambda: unit_attributions(winding, pictures, method="activation", tasks="bee"),
    ):
        with pytest.raises(NadkitError, match=r"give \['bee'\]"):
            ask()
    dogs = Images(pictures.pixels, torch.zeros(12, dtype=torch.int64), ("dog",))
    with pytest.raises(NadkitError, match="no task to attribute to"):
        unit_attributions(winding, dogs, method="activation")


def test_masks_of_another_network_are_refused(winding, pictures, like):
    with pytest.raises(MaskFileError, match="learned on 'other'"):
        ranked_masks(winding, pictures, method="random", like=like.with_meta(network="other"))


def test_a_broken_network_is_named(pictures):
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    network = Network.wrap(model, CLASSES, example=pictures.pixels[:1], layers=["1"])
    with torch.no_grad():
        model[1].weight[0, 0] = torch.nan
    with pytest.raises(NadkitError, match="activation of sequential is NaN or infinite for 'ant'"):
        unit_attributions(network, pictures, method="activation")


def test_meta_says_how_the_masks_came_about_and_survives_a_file(winding, pictures, like, tmp_path):
    named = like.with_meta(objective="one-vs-rest", seed=4)
    masks = ranked_masks(winding, pictures, method="activation", like=named, per_class=3, seed=9)
    assert masks.meta["objective"] == "activation"
    assert masks.meta["control"] is None
    assert masks.meta["seed"] == 9
    settings = masks.meta["settings"]
    assert settings["per_class"] == 3
    assert settings["like"] == {"objective": "one-vs-rest", "control": None, "seed": 4}
    assert MaskSet.load(masks.save(tmp_path / "m.safetensors")) == masks


def test_each_method_has_one_line_and_captum_loads_at_first_use_only():
    assert tuple(DESCRIPTIONS) == METHODS
    assert all(text and "\n" not in text for text in DESCRIPTIONS.values())
    assert set(ATTRIBUTIONS) < set(METHODS)
    for path in Path(nadkit.heatmaps.__file__).parent.glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            assert not (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("captum"))
