"""Models that write into what they read, draw random numbers, or count: nothing changes."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nadkit as nk
from nadkit.heatmaps import unit_attributions
from nadkit.networks import Network, gated_logits, hash_weights, whole_logits
from nadkit.networks.unchanged import unchanged

CLASSES = ["a", "b", "c"]


class Scales(nn.Module):
    """Its first operation writes into the pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x.sub_(0.5).div_(0.25)
        out: Tensor = self.head(self.relu(self.conv(x)).mean((2, 3)))
        return out


def pictures() -> nk.Images:
    pixels = torch.rand(18, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return nk.Images(pixels, torch.arange(3).repeat(6), CLASSES)


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network.wrap(Scales().eval(), CLASSES, example=torch.rand(1, 1, 8, 8), layers=["relu"])


def test_every_row_of_gates_sees_the_same_pictures(network: Network) -> None:
    inputs = pictures().pixels.clone()
    rows = gated_logits(network, inputs, {"relu": torch.ones(3, 4)})
    assert torch.equal(rows[0], rows[1])
    assert torch.equal(rows[0], rows[2])
    assert torch.equal(rows[0], whole_logits(network, inputs))
    assert torch.equal(inputs, pictures().pixels)


def test_pictures_stay_as_they_were(network: Network) -> None:
    images, example = pictures(), torch.rand(1, 1, 8, 8)
    kept = example.clone()
    nk.layers(network.model, example)
    Network.wrap(network.model, CLASSES, example=example)
    assert torch.equal(example, kept)
    network(images.pixels)
    masks = nk.learn_masks(network, images, steps=2, progress=False)
    nk.whether(network, masks, images, controls=None, draws=1, per_class=2)
    nk.extract(network, masks, images, "a", pictures=2, progress=False)
    nk.heatmap(network, images, "a", layer="relu")
    for method in ("integrated-gradients", "gradient-x-activation", "feature-ablation"):
        unit_attributions(network, images, method=method, per_class=2, progress=False)
    assert torch.equal(images.pixels, pictures().pixels)


class Draws(nn.Module):
    """It drops units whatever its mode, and counts its runs in one buffer in place and in one by another."""

    def __init__(self) -> None:
        super().__init__()
        self.relu, self.head = nn.ReLU(), nn.Linear(64, 3)
        self.register_buffer("runs", torch.zeros(1))
        self.register_buffer("last", torch.full((2,), torch.nan))
        self.register_buffer("fixed", torch.full((2,), torch.nan))

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        self.last = self.last + 1
        out: Tensor = self.head(F.dropout(self.relu(x.flatten(1))))
        return out


def test_random_numbers_and_buffers_are_put_back_and_told() -> None:
    model, x = Draws().eval(), torch.rand(1, 1, 8, 8)
    before, weights = torch.get_rng_state(), hash_weights(model.state_dict())
    last = model.last
    nk.layers(model, x)
    with pytest.warns(UserWarning, match="draws random numbers and changes its buffer 'runs' and .*'last'"):
        network = Network.wrap(model, CLASSES, example=x)
    assert torch.equal(torch.get_rng_state(), before)
    assert hash_weights(model.state_dict()) == weights == network.weights_id
    assert model.last is last
    with pytest.raises(RuntimeError, match="shapes"), unchanged(model):
        model(torch.rand(1, 9))  # breaks off at its last layer
    assert torch.equal(torch.get_rng_state(), before)
    assert hash_weights(model.state_dict()) == weights


class Keeps(nn.Module):
    """It keeps what it saw in a buffer that was empty, and makes two more on its first run."""

    def __init__(self) -> None:
        super().__init__()
        self.relu, self.head = nn.ReLU(), nn.Linear(64, 3)
        self.register_buffer("seen", None)

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "ones"):
            self.register_buffer("ones", torch.ones(64))
            self.register_buffer("positions", torch.arange(64), persistent=False)
        self.seen = x.mean(0)
        out: Tensor = self.head(self.relu(x.flatten(1)) * self.ones)
        return out


def test_buffers_that_a_run_makes_are_gone() -> None:
    model, x = Keeps().eval(), torch.rand(2, 1, 8, 8)
    before = dict(model.named_buffers()), list(model.state_dict()), set(model._non_persistent_buffers_set)
    nk.layers(model, x)
    with pytest.warns(UserWarning, match="the model changes its buffer 'seen' and .* 'ones' in evaluation"):
        Network.wrap(model, CLASSES, example=x)
    assert model.seen is None
    assert not hasattr(model, "ones")
    after = dict(model.named_buffers()), list(model.state_dict()), set(model._non_persistent_buffers_set)
    assert after == before


def test_what_neither_draws_nor_counts_is_told_nothing_of() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(144, 3)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Network.wrap(model, CLASSES, example=torch.rand(1, 1, 8, 8))
