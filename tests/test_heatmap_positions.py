"""Attributions per position: against plain autograd, sums over units, and gates."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from test_heatmaps import CLASSES, Branched, Winding, odds_of, state_of
from torch import Tensor

import nadkit as nk
from nadkit.errors import ImageError, LayerError, MaskFileError, NadkitError
from nadkit.heatmaps import ATTRIBUTIONS, MAPPED, attributions, heatmap, unit_attributions
from nadkit.images import Images
from nadkit.masks import MaskSet
from nadkit.networks import Layer, Network, log_odds
from nadkit.taps import Taps

GRIDS = ("relu#1", "relu#2", "shift")
METHOD = "gradient-x-activation"


@pytest.fixture(scope="module")
def winding() -> Network:
    model = Winding().double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.7)
    layers = {**{address: Layer(4, 1) for address in GRIDS}, "mix": Layer(5, -1)}
    found = Network.wrap(model, CLASSES, example=torch.zeros(1, 1, 4, 3), layers=list(layers))
    return replace(found, layers=layers)


@pytest.fixture(scope="module")
def pictures() -> Images:
    pixels = torch.rand(70, 1, 4, 3, generator=torch.Generator().manual_seed(2))
    return Images(pixels, torch.arange(70) % 3, CLASSES)


@pytest.fixture(scope="module")
def masks(winding: Network) -> MaskSet:
    generator = torch.Generator().manual_seed(3)
    scores = {a: torch.rand(3, layer.units, generator=generator) for a, layer in winding.layers.items()}
    for address in GRIDS:
        scores[address][:, 1] = 1.0
    scores["shift"][2] = 0.2
    return MaskSet.from_scores(scores, CLASSES)


def slow(
    network: Network, picture: Tensor, task: int, layer: str, gates: Mapping[str, Tensor] | None
) -> Tensor:
    """Gradient × activation of one picture, (h, w), by one call of autograd."""
    with Taps(network, gates=gates) as taps:  # all layers, as their copies keep in-place consumers apart
        odds = log_odds(network(picture[None]))[0, task]
    activation = taps.activations[layer]
    (gradient,) = torch.autograd.grad(odds, [activation])
    return (gradient * activation)[0].sum(0).detach()


def test_gradient_x_activation_is_plain_autograd_gated_or_not(winding, pictures, masks):
    for given in (None, masks):
        for task, name in enumerate(CLASSES):
            gates = given and given.gates(name)
            for layer in GRIDS:
                found = heatmap(winding, pictures[:5], name, layer=layer, masks=given)
                assert found.shape == (5, 4, 3)
                assert found.dtype == torch.float64
                for row in range(5):
                    expected = slow(winding, pictures.pixels[row], task, layer, gates)
                    assert torch.allclose(found[row], expected, atol=1e-10), (layer, name, row)


@pytest.mark.parametrize("method", MAPPED)
def test_over_positions_and_units_it_is_what_unit_attributions_says(winding, pictures, method):
    each = unit_attributions(winding, pictures, method=method, per_class=15)
    for task, name in enumerate(CLASSES):
        own = pictures.of(name).take(15)
        for layer in GRIDS:
            found = heatmap(winding, own, name, layer=layer, method=method)
            total = found.mean((1, 2)) if method == "activation" else found.sum((1, 2))
            assert float(total.mean()) == pytest.approx(float(each[layer][task].sum()), rel=1e-6), layer


def test_conductance_in_the_gated_network_adds_up_to_what_the_picture_changes(
    winding, pictures, masks, monkeypatch
):
    monkeypatch.setattr(attributions, "STEPS", 300)
    inputs, gates = winding.prepare(pictures.pixels[:2]), masks.gates("bee")
    change = (odds_of(winding, inputs, 1, gates) - odds_of(winding, inputs * 0, 1, gates)).detach()
    # All of the picture passes through the first ReLU; a whole network would change otherwise.
    found = heatmap(winding, pictures[:2], "bee", layer="relu#1", masks=masks, method="integrated-gradients")
    assert torch.allclose(found.sum((1, 2)), change, rtol=0.03)
    whole = (odds_of(winding, inputs, 1) - odds_of(winding, inputs * 0, 1)).detach()
    assert not torch.allclose(whole, change, rtol=0.1)


def test_activation_is_the_sum_of_squares_over_kept_units(winding, pictures, masks):
    for name in CLASSES:
        found = heatmap(winding, pictures, name, layer="relu#2", masks=masks, method="activation")
        with Taps(winding, gates=masks.gates(name)) as taps, torch.no_grad():
            winding(pictures.pixels)
        assert torch.allclose(found, taps.activations["relu#2"].square().sum(1))


@pytest.mark.parametrize("method", MAPPED)
def test_a_layer_that_keeps_nothing_is_dark_and_all_open_is_whole(winding, pictures, masks, method):
    few = pictures[:3]
    dark = heatmap(winding, few, "cat", layer="shift", masks=masks, method=method)
    assert not bool(dark.any())
    every = MaskSet.from_scores({a: torch.ones_like(s) for a, s in masks.scores.items()}, CLASSES)
    whole = heatmap(winding, few, "cat", layer="relu#1", method=method)
    gated = heatmap(winding, few, "cat", layer="relu#1", masks=every, method=method)
    assert torch.allclose(gated, whole, atol=1e-12)


def test_the_threshold_decides_what_is_kept(winding, pictures, masks):
    strict = MaskSet.from_scores({at: (x > 0.8).float() for at, x in masks.scores.items()}, CLASSES)
    found = heatmap(winding, pictures, "ant", layer="relu#1", masks=masks, threshold=0.8)
    assert torch.equal(found, heatmap(winding, pictures, "ant", layer="relu#1", masks=strict))
    assert not torch.equal(found, heatmap(winding, pictures, "ant", layer="relu#1", masks=masks))


@pytest.mark.parametrize("method", MAPPED)
def test_batches_and_the_pictures_beside_it_change_no_map(winding, pictures, masks, method):
    every = heatmap(winding, pictures, "bee", layer="relu#2", masks=masks, method=method)
    assert len(every) == 70
    for row in (0, 6, 7, 63, 64, 69):
        one = heatmap(winding, pictures[row], "bee", layer="relu#2", masks=masks, method=method)
        assert torch.allclose(one[0], every[row], atol=1e-12)


def test_channels_may_lie_last(pictures):
    class Last(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix, self.head = torch.nn.Linear(1, 2), torch.nn.Linear(24, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.mix(x.movedim(1, -1)).flatten(1))

    network = Network.wrap(Last(), ["a", "b"], example=torch.zeros(1, 1, 4, 3), layers=["mix"])
    network = replace(network, layers={"mix": Layer(2, -1)})
    found = heatmap(network, pictures[:2], "a", layer="mix")
    with Taps(network) as taps:
        logits = network(pictures.pixels[:2])
    seen = taps.activations["mix"]
    (gradient,) = torch.autograd.grad(log_odds(logits)[:, 0].sum(), [seen])
    assert torch.allclose(found, (gradient * seen).sum(-1).double(), atol=1e-6)


def test_what_has_no_map_is_refused(winding, pictures, masks):
    with pytest.raises(
        LayerError, match=r"'mix' gives \(12, 5\) for a picture, which has no rows and columns"
    ):
        heatmap(winding, pictures, "bee", layer="mix")
    with pytest.raises(LayerError, match="no layer 'shft' in winding; closest: shift"):
        heatmap(winding, pictures, "bee", layer="shft")
    for method in set(ATTRIBUTIONS) - set(MAPPED):
        with pytest.raises(NadkitError, match=f"no method '{method}'"):
            heatmap(winding, pictures, "bee", layer="shift", method=method)
    with pytest.raises(NadkitError, match="no class 'bea' in winding; closest: bee"):
        heatmap(winding, pictures, "bea", layer="shift")
    with pytest.raises(NadkitError, match="no task 'bee'"):
        heatmap(winding, pictures, "bee", layer="shift", masks=masks["ant"])
    with pytest.raises(NadkitError, match="threshold"):
        heatmap(winding, pictures, "bee", layer="shift", masks=masks, threshold=2.0)
    with pytest.raises(NadkitError, match="needs images, and got Tensor"):
        heatmap(winding, pictures.pixels, "bee", layer="shift")
    with pytest.raises(ImageError, match="takes pictures of shape"):
        heatmap(
            winding, Images(torch.zeros(1, 1, 5, 5), torch.zeros(1).long(), CLASSES), "bee", layer="shift"
        )
    foreign = MaskSet.from_scores({"shift": torch.ones(1, 4)}, ["bee"])
    with pytest.raises(MaskFileError, match="not for the network"):
        heatmap(winding, pictures, "bee", layer="shift", masks=foreign)


def test_a_layer_that_the_answer_does_not_hang_on_has_activation_only():
    class Aside(Branched):
        def forward(self, x: Tensor) -> Tensor:
            self.aside(x.movedim(1, -1).expand(-1, 2, 2, 3))
            return self.head(self.first(x.flatten(1)))

    network = Network.wrap(Aside(), ["a", "b"], example=torch.zeros(1, 1, 2, 2), layers=["first"])
    network = replace(network, layers={"first": Layer(3, 1), "aside": Layer(2, -1)})
    images = Images(torch.rand(2, 1, 2, 2), torch.tensor([0, 1]), ("a", "b"))
    with pytest.raises(LayerError, match="no gradient reaches the logits of aside from 'aside'"):
        heatmap(network, images, "a", layer="aside")
    assert heatmap(network, images, "a", layer="aside", method="activation").shape == (2, 2, 2)


def test_maps_that_are_not_finite_are_refused(winding, pictures):
    weight = winding.model.head.weight
    before = weight.detach().clone()
    try:
        weight.data.fill_(torch.inf)
        with pytest.raises(NadkitError, match="is NaN or infinite at 'shift' for picture 0"):
            heatmap(winding, pictures, "bee", layer="shift")
    finally:
        weight.data.copy_(before)


@pytest.mark.parametrize("method", MAPPED)
def test_nothing_is_left_behind_also_by_an_error(winding, pictures, masks, method):
    model = winding.model
    model.train()
    model.mix.eval()
    model.head.weight.requires_grad_(False)
    before, calls = state_of(model), []
    with torch.inference_mode():
        there = heatmap(winding, pictures[:2], "ant", layer="shift", masks=masks, method=method)
    assert state_of(model) == before

    def fail(module, args):  # noqa: ARG001 (torch's)
        calls.append(1)
        if len(calls) == (2 if method == "activation" else 3):  # after the looks at the layer
            raise KeyboardInterrupt

    try:
        handle = model.head.register_forward_pre_hook(fail)
        with pytest.raises(KeyboardInterrupt):
            heatmap(winding, pictures[:2], "ant", layer="shift", masks=masks, method=method)
        handle.remove()
        assert state_of(model) == before
        model.eval()
        again = heatmap(winding, pictures[:2], "ant", layer="shift", masks=masks, method=method)
        assert torch.allclose(again, there)
        assert not again.requires_grad
    finally:
        model.eval().requires_grad_(True)


def test_it_is_a_public_verb_and_runs_on_a_bundled_network():
    network, images = nk.load_network("vgg-scenes"), nk.load_images("scenes", split="test", per_class=1)
    task = network.class_names[0]
    for layer, grid in (("stem", 16), ("stage3.2", 4)):
        for method in MAPPED:
            found = nk.heatmap(
                network, images, task, layer=layer, masks=nk.load_masks("vgg-scenes"), method=method
            )
            assert found.shape == (len(images), grid, grid)
            assert bool(found.any())


FIRST = """
import gc, sys, weakref
import torch
from torch import nn
import nadkit as nk
from nadkit.heatmaps import MAPPED
model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(32, 2)).eval()
images = nk.Images(torch.rand(2, 1, 4, 4), torch.arange(2), ("a", "b"))
network = nk.Network.wrap(model, ["a", "b"], example=images.pixels)
assert "captum" not in sys.modules
held = weakref.ref(model)
gc.disable()
for method in MAPPED:
    nk.heatmap(network, images, "a", layer="1", method=method)
del network, model
assert held() is None
"""


def test_a_heatmap_keeps_no_model_alive_not_even_the_first_one_that_imports_captum() -> None:
    subprocess.run([sys.executable, "-c", FIRST], check=True)
