"""Learned controls: learned as the masks were, found again, and taken by `whether`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hand import NAMES, cell, make_images, make_masks, make_network

import nadkit.learn.controls as controls_module
import nadkit.questions.controls as asked_module
from nadkit.errors import MaskFileError, NadkitError
from nadkit.images import Images
from nadkit.learn import Official, OneVsRest, learn_masks
from nadkit.learn.controls import fingerprint, learn_controls
from nadkit.masks import MaskSet
from nadkit.networks import Network, load_masks, load_network
from nadkit.questions import whether

CONTROLS = ("relabelled", "shared", "untrained")


@pytest.fixture(scope="module")
def network() -> Network:
    return make_network()


@pytest.fixture(scope="module")
def images() -> Images:
    return make_images((9, 9, 9, 9), seed=1)


@pytest.fixture(scope="module")
def masks(network: Network, images: Images) -> MaskSet:
    objective = OneVsRest(own=4, rest=6, rate=0.02)
    return learn_masks(
        network, images, tasks=["boot", "bag"], objective=objective, kept_share=[0.5, 0.25], steps=6,
        seed=3, progress=False,
    )  # fmt: skip


def equal(first: MaskSet, second: MaskSet) -> bool:
    return first.tasks == second.tasks and all(
        torch.equal(scores, second.scores[address]) for address, scores in first.scores.items()
    )


def test_controls_are_learned_as_the_masks_were(network: Network, images: Images, masks: MaskSet) -> None:
    found = learn_controls(network, images, masks)
    assert tuple(found) == CONTROLS
    settings = {"objective": OneVsRest(own=4, rest=6, rate=0.02), "steps": 6, "seed": 3, "progress": False}
    tasks, shares = ["boot", "bag"], [0.5, 0.25]
    for name in ("relabelled", "untrained"):
        slow = learn_masks(network, images, tasks=tasks, kept_share=shares, control=name, **settings)  # type: ignore[arg-type]
        assert equal(found[name], slow)
    slow = learn_masks(network, images, tasks=tasks, kept_share=0.375, shared=True, **settings)  # type: ignore[arg-type]
    assert equal(found["shared"], slow)
    table = whether(network, masks, images, controls=found, draws=0)
    assert table.attrs["controls"]["untrained"] == "given"  # and nothing was different
    assert set(CONTROLS) < set(table["condition"])


def test_masks_without_one_share_have_controls_of_their_size(network: Network, images: Images) -> None:
    official = learn_masks(
        network, images, objective=Official(beta=0.5, epochs=1), tasks=["bag", "boot"], progress=False
    )
    found = learn_controls(network, images, official)["relabelled"]
    assert found.meta["objective"] == "official"
    auto = learn_masks(network, images, tasks=["bag"], kept_share="auto", steps=4, progress=False)
    for name, control in learn_controls(network, images, auto).items():
        assert control.kept_share()["bag"] == pytest.approx(auto.kept_share()["bag"], abs=0.09), name
    both = learn_masks(network, images, tasks=["bag", "boot"], kept_share=0.5, steps=4, progress=False)
    one = learn_controls(network, images, both["boot"])["untrained"]
    assert one.tasks == ("boot",)
    assert one.meta["settings"]["kept_share"] == [0.5]


def test_files_in_a_folder_are_found_again_and_checked(
    network: Network, images: Images, masks: MaskSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = learn_controls(network, images, masks, folder=tmp_path / "controls")
    names = sorted(path.name for path in (tmp_path / "controls").iterdir())
    assert names == [f"{name}-s3.safetensors" for name in CONTROLS]  # and no checkpoint
    (tmp_path / "controls" / names[1]).unlink()
    learned: list[object] = []

    def counted(*args: object, **named: object) -> MaskSet:
        learned.append(named["shared"])
        return learn_masks(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(controls_module, "learn_masks", counted)
    again = learn_controls(network, images, masks, folder=tmp_path / "controls")
    assert learned == [True]
    assert all(equal(first[name], again[name]) for name in CONTROLS)
    with pytest.raises(NadkitError, match="not the pictures that the masks were learned from"):
        learn_controls(network, images[:30], masks, folder=tmp_path / "controls")
    untold = {key: value for key, value in dict(masks.meta["settings"]).items() if key != "pictures"}  # type: ignore[call-overload]
    with pytest.raises(MaskFileError, match="a control of other masks or pictures"):
        learn_controls(network, images[:30], masks.with_meta(settings=untold), folder=tmp_path / "controls")
    with pytest.raises(MaskFileError, match="a control of other masks or pictures"):
        learn_controls(network, images, masks.with_meta(seed=3, settings={
            **dict(masks.meta["settings"]), "rate": 0.5}), folder=tmp_path / "controls")  # type: ignore[call-overload]  # fmt: skip
    (tmp_path / "file").touch()
    with pytest.raises(NadkitError, match="cannot be made"):
        learn_controls(network, images, masks, folder=tmp_path / "file")


def test_masks_that_do_not_say_how_they_were_learned_are_refused(
    network: Network, images: Images, masks: MaskSet
) -> None:
    for meta in ({"seed": None}, {"settings": None}, {"objective": "mine"}):
        with pytest.raises(NadkitError, match="does not tell how they were learned"):
            learn_controls(network, images, masks.with_meta(**meta))
    with pytest.raises(NadkitError, match="does not tell how they were learned"):
        learn_controls(network, images, make_masks(3))
    with pytest.raises(NadkitError, match="a control themselves"):
        learn_controls(network, images, masks.with_meta(control="shared"))
    with pytest.raises(MaskFileError, match="not for the network"):
        learn_controls(make_network(1), images, masks)


def test_a_fingerprint_is_of_weights_settings_size_and_pictures(
    network: Network, images: Images, masks: MaskSet
) -> None:
    mark = fingerprint(network, images, masks)
    settings = dict(masks.meta["settings"])  # type: ignore[call-overload]
    others = [
        fingerprint(make_network(1), images, masks),
        fingerprint(network, images[:-1], masks),
        fingerprint(network, Images(images.pixels + 1, images.labels, NAMES), masks),
        fingerprint(network, Images(images.pixels, images.labels.flip(0), NAMES), masks),
        fingerprint(network, images, masks["bag"]),
        fingerprint(network, images, masks.with_meta(seed=4)),
        *(
            fingerprint(network, images, masks.with_meta(settings={**settings, key: other}))
            for key, other in (("steps", 7), ("own", 5), ("kept_share", [0.5, 0.5]))
        ),
    ]
    assert len({mark, *others}) == 1 + len(others)
    assert fingerprint(network, make_images((9, 9, 9, 9), seed=1), masks) == mark


def test_whether_learns_controls_once_a_process(
    network: Network, images: Images, masks: MaskSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asked_module, "_LEARNED_BEFORE", {})
    calls: list[bool] = []

    def counted(*args: object, progress: bool) -> dict[str, MaskSet]:
        calls.append(progress)
        return learn_controls(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(asked_module, "learn_controls", counted)
    table = whether(network, masks, images, controls="learned", learn_on=images, draws=0)
    assert calls == [True]
    # A shared mask of so few units cannot have the mean of two shares.
    assert table.attrs["controls"] == {
        **dict.fromkeys(CONTROLS, "learned"),
        "shared": "learned, learned otherwise: kept share",
    }
    again = whether(network, masks, images, controls="learned", learn_on=images, draws=0)
    assert calls == [True]
    assert again.equals(table)
    given = whether(network, masks, images, controls=learn_controls(network, images, masks), draws=0)
    assert given.equals(table)
    # A second seed has controls of its own.
    second = learn_masks(
        network, images, tasks=["boot", "bag"], kept_share=[0.5, 0.25], steps=6, seed=4, progress=False
    )
    both = whether(network, [masks, second], images, controls="learned", learn_on=images, draws=0)
    assert calls == [True, True]
    assert cell(both, "bag", "untrained", "auroc")["interval"] == "mask seeds × images"
    # Other pictures than the masks' are refused.
    with pytest.raises(NadkitError, match="not the pictures that the masks were learned from"):
        whether(network, masks, images, controls="learned", learn_on=images[:33], draws=0)
    for wrong in ((3, images, masks), (network, 3, masks), (network, images, 3)):
        with pytest.raises(NadkitError, match=r"learn_controls needs a .* got int"):
            learn_controls(*wrong)  # type: ignore[arg-type]


def test_learned_controls_of_bundled_masks_are_the_bundled_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    network, masks = load_network("vgg-fashion"), load_masks("vgg-fashion")
    for some in (masks, masks[["bag", "coat"]]):
        found, origins = asked_module.find_controls("learned", network, [some])
        assert origins == dict.fromkeys(CONTROLS, "bundled")
        assert equal(found["shared"][0], load_masks("vgg-fashion", control="shared"))
    turned = {address: scores.roll(1, 1) for address, scores in masks.scores.items()}
    other = MaskSet.from_scores(turned, masks.tasks, dict(masks.meta))
    with pytest.raises(NadkitError, match=r"needs learn_on.*no bundled controls are those of these masks"):
        asked_module.find_controls("learned", network, [other])
    monkeypatch.setattr(asked_module, "LEARNED", (*CONTROLS, "further"))
    with pytest.raises(NadkitError, match="needs learn_on"):
        asked_module.find_controls("learned", network, [masks])


def test_pictures_to_learn_from_are_for_learned_controls(
    network: Network, images: Images, masks: MaskSet
) -> None:
    with pytest.raises(NadkitError, match="controls='learned' needs learn_on"):
        whether(network, masks, images, controls="learned", draws=0)
    with pytest.raises(NadkitError, match="learn_on is for controls='learned'"):
        whether(network, masks, images, controls=None, learn_on=images, draws=0)
    with pytest.raises(NadkitError, match="whether needs learn_on, and got str"):
        whether(network, masks, images, controls="learned", learn_on="fashion", draws=0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"network": "hand"}, "whether needs a Network, and got str"),
        ({"network": torch.nn.Linear(2, 2)}, "whether needs a Network, and got Linear"),
        *(
            ({"images": wrong}, f"whether needs images, and got {type(wrong).__name__}")
            for wrong in (None, torch.zeros(2, 1, 2, 3), "test", [1, 2])
        ),
        ({"calibrate_on": "x"}, "whether needs calibrate_on, and got str"),
        ({"shares": 0.3}, r"shares are 0\.3; give a list"),
        ({"parts": None}, "parts are None; give one or several of sufficiency"),
        ({"draws": 2.5}, r"draws = 2\.5; give a whole number of 0"),
        ({"draws": "20"}, "draws = '20'; give"),
        ({"draws": -1}, "draws = -1; give"),
        ({"seed": None}, "seed = None; give"),
        ({"per_class": "x"}, "per_class = 'x'; give a whole number of 1"),
        ({"per_class": 0}, "per_class = 0; give"),
        ({"controls": {"shared": None}}, "the control 'shared' is no MaskSet"),
        ({"controls": {"shared": 3}}, "the control 'shared' is no MaskSet"),
        ({"controls": 3}, "controls are int; give 'bundled', 'learned', None"),
        ({"controls": "learnt"}, "no controls 'learnt'; give 'bundled', 'learned'"),
    ],
)
def test_what_cannot_be_asked_is_said(
    network: Network, images: Images, masks: MaskSet, named: dict[str, object], message: str
) -> None:
    given = {"network": network, "masks": masks, "images": images, "controls": None, "draws": 0, **named}
    with pytest.raises(NadkitError, match=message):
        whether(**given)  # type: ignore[arg-type]
