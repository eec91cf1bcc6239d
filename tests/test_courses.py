"""Mosaics one by one: their means are the numbers of `where`, and each is what a plain pass gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from test_where import NAMES, own_units, slow_hits, slow_layers, slow_spreads, spots, spotter, study, value

import nadkit.questions.depth.conditions as conditions_module
import nadkit.questions.depth.courses as courses_module
from nadkit.errors import ImageError, MaskFileError, NadkitError
from nadkit.images import Images
from nadkit.masks import MaskSet
from nadkit.questions import mosaic_course, mosaic_courses, unit_peaks, where


@pytest.mark.parametrize("names", [NAMES, NAMES[1:]], ids=["an outsider is the other", "a neighbour is"])
def test_the_mean_over_mosaics_is_what_where_says(names, monkeypatch):
    network, _, images, masks = study()
    images, masks = images.subset(list(names)), masks[list(names)]
    monkeypatch.setattr(conditions_module, "SHARE", 1)  # so that the draw of `where` sees all
    table = where(network, masks, images, mosaics=10, draws=1, seed=3)
    for task in masks.tasks:
        courses = list(mosaic_courses(network, masks, images, task=task, mosaics=10, draws=1, seed=3))
        for condition in ("kept", "other", "random", "whole"):
            found = np.nanmean([course.shares[condition].numpy() for course in courses], axis=0)
            for at, layer in enumerate(("1", "3")):
                assert value(table, task, condition, layer) == pytest.approx(found[at], abs=1e-6), condition


def test_every_number_and_map_is_that_of_a_plain_pass():
    network, _, images, masks = study()
    courses = mosaic_courses(network, masks, images, task="elk", mosaics=8, draws=2, seed=1)
    spreads = slow_spreads(network, images)
    places = set()
    assert 0 < len(courses) <= 8
    for course in courses:
        assert course.classes[course.place] == "elk"
        assert course.other_task not in course.classes
        assert course.shown == "at object scale"
        assert course.pixels.shape == (2, 10, 10)
        places.add(course.place)
        gates = {
            "kept": [masks.gates("elk")],
            "other": [masks.gates(course.other_task)],
            "random": [masks.random(1 + draw).gates("elk") for draw in range(2)],
            "whole": [None],
        }
        assert list(course.shares) == list(course.maps) == list(gates)
        for condition, several in gates.items():
            seen = [slow_layers(network, course.pixels, gate) for gate in several]
            for at, layer in enumerate(("1", "3")):
                hits = [slow_hits(each[layer], spreads[layer])[course.place] for each in seen]
                assert float(course.shares[condition][at]) == pytest.approx(np.nanmean(hits), abs=1e-5)
                energies = [
                    sum(
                        (each[layer][unit] / spread) ** 2
                        for unit, spread in enumerate(spreads[layer])
                        if spread
                    )
                    for each in seen
                ]
                slow = torch.stack(energies).mean(0)
                assert torch.allclose(course.maps[condition][layer], slow, rtol=1e-4)
    assert len(places) > 1


def test_the_threshold_decides_what_is_kept():
    network, _, images, masks = study()
    strict = MaskSet.from_scores({at: (x > 0.8).float() for at, x in masks.scores.items()}, masks.tasks)
    first = mosaic_course(network, masks, images, task="ant", threshold=0.8, seed=2)
    second = mosaic_course(network, strict, images, task="ant", seed=2)
    for condition in first.shares:
        assert torch.equal(first.shares[condition].nan_to_num(), second.shares[condition].nan_to_num())
    loose = mosaic_course(network, masks, images, task="ant", seed=2)
    assert not torch.equal(loose.shares["kept"], first.shares["kept"])
    assert not torch.equal(loose.shares["random"], first.shares["random"])


def test_known_peaks_spare_the_pass_over_all_pictures(monkeypatch):
    network, _, images, masks = study()
    peaks = unit_peaks(network, images)
    first = mosaic_course(network, masks, images, task="doe", index=1)
    monkeypatch.setattr(courses_module, "look", None)  # would fail if it were called
    second = mosaic_course(network, masks, images, task="doe", index=1, peaks=peaks)
    assert torch.equal(first.pixels, second.pixels)
    for condition, shares in first.shares.items():
        assert torch.allclose(shares, second.shares[condition])
    with pytest.raises(NadkitError, match="peaks are of 150 pictures and 2 layers, and there are 20"):
        mosaic_courses(network, masks, images[:20], task="doe", peaks=peaks)


def test_a_planted_unit_looks_at_its_quadrant_and_layers_without_places_have_no_value():
    network, masks, images = spotter(NAMES[:4]), own_units(NAMES[:4]), spots(6, NAMES[:4])
    courses = mosaic_courses(network, masks, images, task="cow", mosaics=6, draws=3)
    assert len(courses) == 6
    for course in courses:
        assert course.shares["kept"][:3].tolist() == pytest.approx([1, 1, 1])
        assert course.shares["other"][:3].tolist() == pytest.approx([0, 0, 0])
        assert all(shares[3].isnan() for shares in course.shares.values())
        for maps in course.maps.values():
            assert {at: tuple(one.shape) for at, one in maps.items()} == {
                "0": (16, 16),
                "1": (8, 8),
                "2": (8, 8),
            }
    table = courses[0].to_frame()
    assert tuple(table.columns) == courses_module.COLUMNS
    assert table.groupby("condition", sort=False).size().to_dict() == {
        "kept": 4, "other": 4, "random": 4, "whole": 4,
    }  # fmt: skip
    assert table.query("condition == 'kept' and layer == '1'")["value"].item() == pytest.approx(1)
    assert set(table["metric"]) == {"hit_rate"}
    assert pd.isna(table.query("condition == 'kept' and layer == '3'")["value"].item())


def test_conditions_that_do_not_exist_are_left_out():
    network, masks, images = spotter(NAMES[:4]), own_units(NAMES[:4]), spots(6, NAMES[:4])
    course = mosaic_course(network, masks["bee"], images, task="bee", draws=0)
    assert list(course.shares) == list(course.maps) == ["kept", "whole"]
    assert course.other_task is None
    # A mask that keeps nothing has maps, all dark, and no share.
    nothing = MaskSet.from_scores({layer: torch.zeros(4, 4) for layer in "0123"}, NAMES[:4])
    empty = mosaic_course(network, nothing, images, task="bee")
    assert all(bool(empty.shares[condition].isnan().all()) for condition in ("kept", "other", "random"))
    assert float(empty.maps["kept"]["0"].abs().max()) == 0
    assert float(empty.maps["whole"]["0"].max()) > 0


def test_many_draws_and_a_network_of_one_size():
    network = spotter(NAMES[:4], fixed=True)
    masks, images = own_units(NAMES[:4]), spots(6, NAMES[:4])
    course = mosaic_course(network, masks, images, task="cow", draws=120)
    assert course.shown == "resized to the network's input"
    assert course.pixels.shape == (4, 8, 8)
    # One of four units at random, for which the three others show as often: about a quarter.
    assert 0.1 < float(course.shares["random"][0]) < 0.45


def test_the_same_seed_gives_the_same_and_more_mosaics_go_on():
    network, _, images, masks = study()
    few = mosaic_courses(network, masks, images, task="bee", mosaics=6, seed=4)
    many = mosaic_courses(network, masks, images, task="bee", mosaics=12, seed=4)
    assert len(many) > len(few)
    for one, same in zip(few, many, strict=False):
        assert torch.equal(one.pixels, same.pixels)
    again = mosaic_course(network, masks, images, task="bee", mosaics=6, seed=4, index=1)
    for condition, shares in few[1].shares.items():
        assert torch.equal(shares, again.shares[condition])
    other = mosaic_course(network, masks, images, task="bee", mosaics=6, seed=5, index=1)
    assert not torch.equal(few[1].pixels, other.pixels)


def test_errors_are_those_of_where_and_say_which_mosaics_there_are():
    network, masks, images = spotter(), own_units(), spots(6)
    with pytest.raises(NadkitError, match="no task 'bea' in the masks; closest: bee"):
        mosaic_courses(network, masks, images, task="bea")
    with pytest.raises(ImageError, match="classifies correctly of four classes, there are some of ant, bee"):
        mosaic_courses(network, masks, images.subset(["ant", "bee"]), task="bee")
    with pytest.raises(ImageError, match="none of 100 mosaics shows 'elk'"):
        mosaic_courses(network, masks, images.subset(list(NAMES[:4])), task="elk")
    with pytest.raises(ImageError, match="no class of spotter"):
        mosaic_courses(network, masks, Images(images.pixels, images.labels, ("yak", *NAMES[1:])), task="bee")
    with pytest.raises(MaskFileError, match="not for the network"):
        mosaic_courses(network, own_units(NAMES[:4]), images, task="bee")
    with pytest.raises(NadkitError, match="one MaskSet, and got list"):
        mosaic_courses(network, [masks], images, task="bee")
    with pytest.raises(NadkitError, match="needs images"):
        mosaic_courses(network, masks, images.pixels, task="bee")
    with pytest.raises(NadkitError, match="draws = -1"):
        mosaic_courses(network, masks, images, task="bee", draws=-1)
    with pytest.raises(NadkitError, match="threshold"):
        mosaic_courses(network, masks, images, task="bee", threshold=2.0, draws=0)
    courses = mosaic_courses(network, masks, images, task="bee", mosaics=5)
    assert len(courses) == len(list(courses)) == 4
    with pytest.raises(NadkitError, match="mosaic 4 was asked for and 4 show 'bee', the last is 3"):
        courses[4]
    with pytest.raises(NadkitError, match="index = -1"):
        mosaic_course(network, masks, images, task="bee", index=-1)


def test_the_network_is_left_as_it_was():
    network, _, images, masks = study()
    network.model.train()
    done: list[int] = []
    courses = mosaic_courses(network, masks, images, task="doe", advance=done.append)
    courses[0]
    assert sum(done) == len(images)
    assert network.model.training
    assert all(not module._forward_hooks for module in network.model.modules())
    assert network.input_shape == (2, 5, 5)
    network.model[-1].bias.data[0] = torch.nan
    with pytest.raises(NadkitError, match="NaN or infinite logits"):
        replace(courses)[0]
    assert network.model.training
    assert all(not module._forward_hooks for module in network.model.modules())
