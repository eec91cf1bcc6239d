"""Photos go through a network a few at a time, whatever asks: 200 at once take more memory than there is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import nadkit as nk
from nadkit.heatmaps import unit_attributions
from nadkit.heatmaps.attributions import STEPS
from nadkit.networks import Network
from nadkit.networks.outputs import at_once
from nadkit.questions import class_scores, unit_peaks
from nadkit.questions.forwards import live_units

SIZE, CLASSES = 224, ["a", "b", "c", "d"]
MOST = at_once((3, SIZE, SIZE), 10_000)


class Sees(nn.Sequential):
    """It notes how many pictures come together."""

    most = 0

    def forward(self, x: Tensor) -> Tensor:
        self.most = max(self.most, len(x))
        return super().forward(x)


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    model = Sees(
        nn.Conv2d(3, 4, 16, stride=16), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 4)
    )
    return Network.wrap(model.eval(), CLASSES, example=torch.zeros(1, 3, SIZE, SIZE), layers=["1"])


@pytest.fixture(scope="module")
def images(network: Network) -> nk.Images:
    """Sixty pictures, of which the network answers about as many with every class."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (15 * len(CLASSES), 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    return nk.Images(pixels, torch.arange(len(CLASSES)).repeat(15), network.class_names)


@pytest.fixture(scope="module")
def masks(network: Network, images: nk.Images) -> nk.MaskSet:
    return nk.learn_masks(network, images, steps=2, batch_size=2, kept_share=0.5, progress=False)


@pytest.fixture(autouse=True)
def few_at_once(network: Network) -> Iterator[None]:
    network.model.most = 0
    yield
    assert 1 < network.model.most <= max(MOST, STEPS + 1) < 60  # the steps of one path go together


def test_learning(network: Network, images: nk.Images) -> None:
    nk.learn_masks(network, images, tasks=["a"], steps=1, batch_size=2, kept_share="auto", progress=False)


def test_whether(network: Network, images: nk.Images, masks: nk.MaskSet) -> None:
    parts = ("necessity", "agreement")
    nk.whether(network, masks, images, controls=None, draws=2, parts=parts, per_class=15)


def test_how(network: Network, images: nk.Images, masks: nk.MaskSet) -> None:
    nk.how(network, masks, images, draws=9)


def test_why(network: Network, images: nk.Images, masks: nk.MaskSet) -> None:
    nk.why(network, masks, images, draws=9)


def test_glances(network: Network, images: nk.Images) -> None:
    class_scores(network, images)
    class_scores(network, images.pixels)
    unit_peaks(network, images)
    live_units(network, images)


@pytest.mark.parametrize("method", ["activation", "gradient-x-activation", "integrated-gradients"])
def test_heatmaps(network: Network, images: nk.Images, method: str) -> None:
    nk.heatmap(network, images[:30], "a", layer="1", method=method)
    unit_attributions(network, images, method=method, per_class=15, progress=False)
