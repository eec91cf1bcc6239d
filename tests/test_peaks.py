"""Peaks, maps and scores: by hand, against plain loops over positions, and for layers of every kind."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import nadkit.questions.peaks as peaks_module
from nadkit.errors import ImageError, LayerError, NadkitError
from nadkit.images import Images, LazyPixels, load_images
from nadkit.masks import Unit
from nadkit.measures.hits import energy
from nadkit.networks import Layer, Network, load_masks, load_network
from nadkit.questions import class_scores, layer_maps, unit_peaks
from nadkit.questions.depth.material import look
from nadkit.questions.peaks import UnitPeaks
from nadkit.taps import Taps

NAMES = ("ant", "bee", "cow")


class Every(nn.Module):
    """A layer of each kind: maps, maps with the channels last, tokens, neurons, and a grid of one row."""

    def __init__(self) -> None:
        super().__init__()
        self.maps, self.last, self.row = nn.Conv2d(2, 4, 3, padding=1), nn.Linear(4, 3), nn.Identity()
        self.tokens, self.neurons, self.head = nn.Linear(3, 5), nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.maps(x).movedim(1, -1))
        x = self.row(x.flatten(1, 2)[:, None])[:, 0]
        return self.head(self.neurons(self.tokens(x).mean(1)))


@pytest.fixture(scope="module")
def every() -> Network:
    model = Every()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        model.tokens.weight[2], model.tokens.bias[2] = 0, 0  # a dead unit
    axes = {"maps": (4, 1), "last": (3, -1), "row": (3, -1), "tokens": (5, -1), "neurons": (6, 1)}
    network = Network.wrap(model, NAMES, example=torch.zeros(1, 2, 4, 6), layers=list(axes), name="every")
    return replace(network, layers={address: Layer(*kind) for address, kind in axes.items()})


@pytest.fixture(scope="module")
def pictures() -> Images:
    pixels = torch.rand(11, 2, 4, 6, generator=torch.Generator().manual_seed(2))
    return Images(pixels, torch.arange(11) % 3, NAMES)


def recorded(network: Network, pixels: Tensor, gates: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """What layers give, with the units on axis 1."""
    with torch.no_grad(), Taps(network, gates=gates) as taps:
        network(pixels)
    return {at: taps.activations[at].movedim(layer.axis, 1) for at, layer in network.layers.items()}


def test_peaks_are_those_of_a_loop(every, pictures, monkeypatch):
    monkeypatch.setattr(peaks_module, "BATCH", 4)  # so that pictures come in several batches
    done: list[int] = []
    found = unit_peaks(every, pictures, advance=done.append)
    assert done == [4, 4, 3]
    whole = recorded(every, pictures.pixels)
    for at, layer in every.layers.items():
        grid = found.grids[at]
        assert grid == ((4, 6) if at in ("maps", "last") else (1, 1))
        assert found.values[at].dtype == torch.float32
        assert found.places[at].dtype == torch.int32
        assert found.values[at].shape == found.places[at].shape == (11, layer.units)
        for n in range(11):
            for unit in range(layer.units):
                seen = whole[at][n, unit]
                assert found.values[at][n, unit] == pytest.approx(float(seen.max()), abs=1e-6)
                place = int(found.places[at][n, unit])
                if grid == (1, 1):
                    assert place == 0
                else:
                    assert seen[place // 6, place % 6] == seen.max()
        spread = whole[at].double().movedim(1, 0).flatten(1).var(1, correction=0)
        dead = spread < 1e-12
        assert torch.allclose(found.weights[at][~dead], 1 / spread[~dead], rtol=1e-5)
        assert (found.weights[at][dead] == 0).all()
    with torch.no_grad():
        assert torch.allclose(found.logits, every(pictures.pixels), atol=1e-5)


def test_weights_and_logits_are_those_that_where_uses(every, pictures):
    found, known = unit_peaks(every, pictures), look(every, pictures, lambda _: None)
    for at in every.layers:
        assert torch.allclose(found.weights[at], known.weights[at].cpu(), rtol=1e-9)
    assert ((found.logits.argmax(1) == pictures.labels) == known.right).all()


def test_a_large_network_is_shown_fewer_pictures_at_once(every, pictures, monkeypatch):
    units = sum(values[:1].numel() for values in recorded(every, pictures.pixels).values())
    monkeypatch.setattr(peaks_module, "MOST", 3 * units + 1)
    done: list[int] = []
    few = unit_peaks(every, pictures, advance=done.append)
    assert done == [3, 3, 3, 2]
    monkeypatch.setattr(peaks_module, "MOST", 1)
    assert len(unit_peaks(every, pictures[:2]).logits) == 2
    assert torch.allclose(few.values["maps"], recorded(every, pictures.pixels)["maps"].amax((2, 3)))


def by_hand() -> UnitPeaks:
    values = torch.tensor([[1.0, 0.0, -2.0], [3.0, 0.0, -1.0], [0.0, 0.0, -3.0], [3.0, 0.0, -1.5]])
    places = torch.tensor([[5, 0, 1], [2, 0, 1], [0, 0, 1], [4, 0, 1]], dtype=torch.int32)
    weights = {"conv": torch.ones(3), "head": torch.ones(1)}
    return UnitPeaks(
        {"conv": values, "head": torch.tensor([[1.0], [2.0], [0.5], [4.0]])},
        {"conv": places, "head": torch.zeros(4, 1, dtype=torch.int32)},
        {"conv": (2, 4), "head": (1, 1)},
        weights,
        torch.zeros(4, 2),
    )


def test_the_top_pictures_by_hand():
    peaks = by_hand()
    table = peaks.top("conv/0")
    # Pictures 1 and 3 tie; picture 2, where the unit is silent, has no place to show.
    assert table.to_dict("list") == {
        "image": [1, 3, 0],
        "value": [3.0, 3.0, 1.0],
        "left": [0.5, 0.0, 0.25],
        "top": [0.0, 0.5, 0.5],
        "width": [0.25] * 3,
        "height": [0.5] * 3,
    }
    assert peaks.top(Unit("conv", 0), 2)["image"].tolist() == [1, 3]
    # A unit that is negative everywhere has a largest response, too; one that is 0 has none.
    assert peaks.top("conv/2")["image"].tolist() == [1, 3, 0, 2]
    assert peaks.top("conv/1").empty
    assert tuple(peaks.top("conv/1").columns) == peaks_module.COLUMNS
    whole = peaks.top("head/0", 1).iloc[0]
    assert whole.tolist() == [3, 4.0, 0, 0, 1, 1]


def test_equal_responses_come_by_index():
    many = torch.tensor([2.0, 1.0]).repeat(500)[:, None]
    at = torch.zeros(1000, 1, dtype=torch.int32)
    peaks = UnitPeaks({"a": many}, {"a": at}, {"a": (1, 1)}, {"a": torch.ones(1)}, torch.zeros(1000, 2))
    assert peaks.top("a/0", 700)["image"].tolist() == [*range(0, 1000, 2), *range(1, 401, 2)]


def test_a_dead_unit_has_no_top_picture(every, pictures):
    found = unit_peaks(every, pictures)
    assert found.top("tokens/2").empty
    assert len(found.top("tokens/1")) == 8


def test_units_that_are_not_there_are_refused():
    peaks = by_hand()
    with pytest.raises(LayerError, match="no layer 'cnv' for unit cnv/0; closest: conv"):
        peaks.top("cnv/0")
    with pytest.raises(LayerError, match="'conv' has units 0 to 2"):
        peaks.top("conv/3")
    with pytest.raises(LayerError, match="'conv' has units 0 to 2"):
        peaks.top(Unit("conv", -1))
    with pytest.raises(LayerError, match="write layer/index"):
        peaks.top("conv")
    with pytest.raises(NadkitError, match="count = 0"):
        peaks.top("conv/0", 0)


def test_maps_are_the_energy_of_the_open_units(every, pictures):
    weights = unit_peaks(every, pictures).weights
    generator = torch.Generator().manual_seed(3)
    gates = {at: (torch.rand(x.units, generator=generator) > 0.4).float() for at, x in every.layers.items()}
    for given in (None, gates):
        maps = layer_maps(every, pictures.pixels[:3], weights, given)
        assert list(maps) == ["maps", "last"]
        seen = recorded(every, pictures.pixels[:3], given)
        for at, found in maps.items():
            assert found.dtype == torch.float64
            assert found.shape == (3, 4, 6)
            slow = torch.zeros(3, 4, 6, dtype=torch.float64)
            for unit in range(every.layers[at].units):
                slow += weights[at][unit] * seen[at][:, unit].double() ** 2
            assert torch.allclose(found, slow, rtol=1e-5)
    lazy = LazyPixels(lambda row: pictures.pixels[row], 11, (2, 4, 6), torch.float32)
    again = layer_maps(every, lazy.select([0, 1, 2]), weights, gates)
    assert torch.equal(again["last"], maps["last"])


def test_kept_and_removed_energy_of_the_first_layer_add_up(every, pictures):
    weights = unit_peaks(every, pictures).weights
    gate = torch.tensor([1.0, 0.0, 0.0, 1.0])
    kept, removed, whole = (
        layer_maps(every, pictures.pixels, weights, gates)["maps"]
        for gates in ({"maps": gate}, {"maps": 1 - gate}, None)
    )
    assert torch.allclose(kept + removed, whole)
    # By the definition of the weights, the mean over all that was seen is one for each unit that varies.
    variance = recorded(every, pictures.pixels)["maps"].double()
    shifted = energy(variance - variance.mean((0, 2, 3), keepdim=True), weights["maps"])
    assert float(shifted.mean()) == pytest.approx(4)


def test_scores_are_the_softmax_of_the_gated_network(every, pictures):
    gates = {"tokens": torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0])}
    for given in (None, gates):
        found = class_scores(every, pictures, given)
        assert found.dtype == torch.float64
        with torch.no_grad(), Taps(every, (), gates=given):
            logits = every(pictures.pixels)
        assert torch.allclose(found, logits.double().softmax(1), atol=1e-6)
        assert torch.allclose(class_scores(every, pictures.pixels, given), found)
    ones = {at: torch.ones(layer.units) for at, layer in every.layers.items()}
    assert torch.equal(class_scores(every, pictures, ones), class_scores(every, pictures))
    lazy = LazyPixels(lambda row: pictures.pixels[row], 11, (2, 4, 6), torch.float32)
    assert torch.equal(class_scores(every, lazy), class_scores(every, pictures))


def test_many_pictures_come_in_batches(every, pictures):
    many = pictures.pixels.repeat(41, 1, 1, 1)
    sizes: list[int] = []

    def note(pixels: Tensor) -> Tensor:
        sizes.append(len(pixels))
        return pixels

    found = class_scores(replace(every, preprocess=note), many)
    assert sizes == [200, 200, 51]
    assert torch.allclose(found[-11:], class_scores(every, pictures), atol=1e-6)


def test_what_does_not_fit_is_refused(every, pictures):
    weights = unit_peaks(every, pictures).weights
    with pytest.raises(LayerError, match="no weights for layer 'last'"):
        layer_maps(every, pictures.pixels[:1], {"maps": weights["maps"]})
    with pytest.raises(LayerError, match=r"weights of 'maps' are \(2,\); give one a unit, \(4,\)"):
        layer_maps(every, pictures.pixels[:1], {**weights, "maps": torch.ones(2)})
    with pytest.raises(LayerError, match=r"gate of 'maps' is \(3, 4\); give one value a unit"):
        layer_maps(every, pictures.pixels[:1], weights, {"maps": torch.ones(3, 4)})
    with pytest.raises(LayerError, match=r"gate of 'maps' is \(3, 4\); give one value a unit"):
        class_scores(every, pictures, {"maps": torch.ones(3, 4)})
    with pytest.raises(LayerError, match="5 units, the layer has 4"):
        class_scores(every, pictures, {"maps": torch.ones(5)})
    with pytest.raises(ImageError, match="takes pictures of shape"):
        class_scores(every, pictures.pixels[0])
    with pytest.raises(ImageError, match="class_scores needs pictures, and got str"):
        class_scores(every, "a picture")
    with pytest.raises(ImageError, match="takes pictures of shape"):
        layer_maps(every, pictures.pixels[0], weights)
    with pytest.raises(NadkitError, match="unit_peaks needs images, and got Tensor"):
        unit_peaks(every, pictures.pixels)
    for door in (
        lambda it: unit_peaks(it, pictures),
        lambda it: layer_maps(it, pictures.pixels, weights),
        lambda it: class_scores(it, pictures),
    ):
        with pytest.raises(NadkitError, match="needs a Network, and got Every"):
            door(every.model)
        bias = every.model.head.bias.detach().clone()
        try:
            every.model.head.bias.data[0] = torch.nan
            with pytest.raises(NadkitError, match="every gives NaN or infinite logits"):
                door(every)
        finally:
            every.model.head.bias.data.copy_(bias)


def test_nothing_is_left_behind_also_after_an_error(every, pictures):
    every.model.train()
    every.model.last.eval()
    state, random = {k: v.clone() for k, v in every.model.state_dict().items()}, torch.get_rng_state()
    weights = unit_peaks(every, pictures).weights
    layer_maps(every, pictures.pixels, weights)
    class_scores(every, pictures)

    def fail(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unit_peaks(every, pictures, advance=fail)
    assert torch.is_grad_enabled()
    assert every.model.training
    assert not every.model.last.training
    assert all(
        not module._forward_hooks and not module._forward_pre_hooks for module in every.model.modules()
    )
    assert all(parameter.requires_grad for parameter in every.model.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[key]) for key, value in every.model.state_dict().items())
    every.model.eval()


def test_another_thread_gets_the_same(every, pictures):
    here = unit_peaks(every, pictures)
    there: list[object] = []

    def work() -> None:
        peaks = unit_peaks(every, pictures)
        there.extend(
            [peaks, layer_maps(every, pictures.pixels, peaks.weights), class_scores(every, pictures)]
        )

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    peaks, maps, scores = there
    assert torch.equal(peaks.values["maps"], here.values["maps"])
    assert not scores.requires_grad
    assert not any(part.requires_grad for part in (*maps.values(), peaks.logits, *peaks.values.values()))


def test_a_bundled_network_whose_pictures_are_bytes():
    network, masks = load_network("resnet-fashion"), load_masks("resnet-fashion")
    images = load_images("fashion", split="test", per_class=3)
    peaks = unit_peaks(network, images)
    assert repr(peaks) == "UnitPeaks(504 units of 9 layers on 30 pictures)"
    assert set(peaks.grids.values()) == {(14, 14), (7, 7), (4, 4)}
    maps = layer_maps(network, images.pixels[:1], peaks.weights, masks.gates("bag"))
    assert {at: tuple(one.shape[1:]) for at, one in maps.items()} == peaks.grids
    scores = class_scores(network, images, masks.gates("bag"))
    bag = network.class_index("bag")
    is_bag = images.labels == images.class_index("bag")
    assert scores[is_bag, bag].mean() > 0.5 > scores[~is_bag, bag].mean()
