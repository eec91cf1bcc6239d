"""Masks of many kept shares from one run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from nadkit import learn_masks
from nadkit.errors import NadkitError
from nadkit.images import Images
from nadkit.learn import curve
from nadkit.learn.curve import Stages, learn_curve, stage_ends
from nadkit.networks import Network

CLASSES = ("ant", "bee", "cat")
SETTINGS = {"shares": (0.25, 0.5, 0.75), "steps": 40, "progress": False}


@pytest.fixture(scope="module")
def images() -> Images:
    pixels = torch.rand(30, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    return Images(pixels, torch.arange(30) % 3, CLASSES)


@pytest.fixture(scope="module")
def network(images: Images) -> Network:
    torch.manual_seed(4)
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 8), nn.ReLU(),
        nn.Linear(8, 3),
    ).double()  # fmt: skip
    return Network.wrap(model, CLASSES, example=images.pixels[:1], layers=["1", "5"], name="small")


def test_every_share_is_kept_exactly_and_comes_from_its_moment(network: Network, images: Images) -> None:
    found = learn_curve(network, images, **SETTINGS)
    assert list(found) == [0.25, 0.5, 0.75]
    for share, masks in found.items():
        assert list(masks.kept_share().values()) == [share] * 3
        assert masks.meta["settings"]["kept_share"] == [share] * 3
        assert masks.meta["weights_id"] == network.weights_id
    # The run is an ordinary one; stopped at the end of a stage, it ranks the units as that stage's masks do.
    stages = Stages(shares=(0.75, 0.5, 0.25), steps_per_task=40)
    for share, end in zip((0.75, 0.5, 0.25), stage_ends(3), strict=True):
        stopped = learn_masks(
            network, images, objective=stages, kept_share=0.25, progress=False,
            callback=lambda p, end=end: p.step >= round(end * 40),
        )  # fmt: skip
        theirs, ours = (torch.cat(list(m.scores.values()), 1) for m in (stopped, found[share]))
        assert torch.equal(theirs.argsort(1), ours.argsort(1))
    assert any(
        bool(((low > 0.5) & ~(high > 0.5)).any()) or not torch.equal(low, high)
        for low, high in zip(found[0.25].scores.values(), found[0.75].scores.values(), strict=True)
    )


def test_the_share_falls_from_stage_to_stage_and_stays() -> None:
    stages, last = Stages(shares=(0.8, 0.4), falling=0.5), torch.tensor([0.4])
    seen = [float(stages.kept_share(last, at / 100)) for at in range(101)]
    assert seen == sorted(seen, reverse=True)
    assert seen[0] == 1
    assert seen[25:51] == pytest.approx([0.8] * 26)  # half a stage long, and as the next begins
    assert seen[51] < 0.8
    assert seen[75:] == pytest.approx([0.4] * 26)


def test_an_interrupted_run_has_the_stages_it_had_kept(
    network: Network, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = learn_curve(network, images, **SETTINGS)
    path = tmp_path / "new" / "run"
    learn = curve.learn_masks

    def interrupted(*args: object, callback: object, **settings: object) -> object:
        def stop(progress: object) -> None:
            callback(progress)
            if progress.step >= 30:
                raise KeyboardInterrupt

        return learn(*args, callback=stop, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(curve, "learn_masks", interrupted)
        with pytest.raises(KeyboardInterrupt):
            learn_curve(network, images, checkpoint=path, **SETTINGS)
    assert learn_curve(network, images, checkpoint=path, **SETTINGS) == straight


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"shares": ()}, "give 1 to 20"),
        ({"shares": (0.5, 0.5)}, "each once"),
        ({"shares": (0.0, 0.5)}, "in \\(0, 1\\]"),
        ({"steps": 30}, "multiple of 20"),
        ({"kept_share": 0.4}, "sets kept_share itself"),
    ],
)
def test_what_cannot_be_is_refused(network: Network, images: Images, wrong: dict, message: str) -> None:
    with pytest.raises(NadkitError, match=message):
        learn_curve(network, images, **{**SETTINGS, **wrong})


def test_a_spread_is_the_objectives_and_is_told(network: Network, images: Images) -> None:
    free, bound = (
        learn_curve(network, images, **SETTINGS),
        learn_curve(network, images, spread=0.001, **SETTINGS),
    )
    assert free[0.5].meta["settings"]["spread"] is None
    assert bound[0.5].meta["settings"]["spread"] == 0.001
    assert any((free[0.5].scores[a] - bound[0.5].scores[a]).abs().max() > 1e-3 for a in network.layers)
