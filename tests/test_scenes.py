"""Scenes: each picture obeys one rule, nothing simpler tells its class, and the rule can be broken."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from nadkit.errors import ImageError
from nadkit.images import _scene_drawings as drawings
from nadkit.images import _scene_parts as parts
from nadkit.images.scenes import CLASS_NAMES, OBJECT_NAMES, RULES, SceneObjects, render, scene_of

CLASSES = len(CLASS_NAMES)
Rendered = tuple[Tensor, Tensor, SceneObjects]


@pytest.fixture(scope="module")
def train() -> Rendered:
    return render(500, seed=0)


@pytest.fixture(scope="module")
def test() -> Rendered:
    return render(200, seed=0, split="test")


@pytest.fixture(scope="module")
def few() -> Rendered:
    return render(12, seed=7)


# --- the rules ------------------------------------------------------------------------------------------


def test_each_rule_object_belongs_to_two_classes() -> None:
    used = [name for rule in RULES.values() for name in (rule.a, rule.b)]
    assert tuple(RULES) == CLASS_NAMES
    assert len(CLASS_NAMES) >= 8
    assert {used.count(name) for name in used} == {2}
    assert set(used) == set(OBJECT_NAMES[:8])
    assert len({(rule.a, rule.b) for rule in RULES.values()}) == CLASSES
    assert RULES["harbour"].sentence == "a boat on water"
    assert RULES["study"].sentence == "a lamp on a table"


def test_the_masks_alone_give_back_every_label(train: Rendered, test: Rendered) -> None:
    for _, labels, objects in (train, test):
        assert torch.equal(scene_of(objects.masks), labels)
        assert torch.equal(objects.scenes, labels)


def test_the_layout_holds_exactly_the_rule_of_the_label(train: Rendered) -> None:
    """A second judge that never sees a pixel: what stands directly under what."""
    _, labels, objects = train
    rules = [(rule.a, rule.b) for rule in RULES.values()]
    for key, label in zip(objects.keys[::7], labels[::7].tolist(), strict=True):
        kinds = parts.layout(key.numpy().view(np.uint64).reshape(1), np.array([label]))[0]
        names = [(*OBJECT_NAMES, "")[kind] for kind in kinds]
        columns = [names[column::3] for column in range(3)]
        held = [pair for column in columns for pair in pairwise(column) if pair in rules]
        assert held == [rules[label]]
        shown = [name for name in names if name]
        assert len(shown) == len(set(shown))


@pytest.mark.parametrize("without", ["a", "b"])
def test_no_rule_holds_in_a_counterfactual(test: Rendered, without: str) -> None:
    masks = test[2].counterfactual_masks(slice(None, None, 2), without=without)
    assert (scene_of(masks) == -1).all()


# --- nothing simpler ------------------------------------------------------------------------------------


def balanced_accuracy(says: Tensor, truth: Tensor) -> Tensor:
    return (says[truth].float().mean(0) + 1 - says[~truth].float().mean(0)) / 2


def best_threshold_rules(seen: Tensor, labels: Tensor, new: Tensor, truth: Tensor) -> Tensor:
    """Balanced accuracy on new pictures of the best `feature > threshold` rule, either way round.

    For every class and feature the threshold is the best of 40 on the pictures seen.
    """
    scores = torch.zeros(CLASSES, seen.shape[1])
    for feature in range(seen.shape[1]):
        cuts = seen[:, feature].quantile(torch.linspace(0, 1, 40)).unique() - 1e-6
        says, says_new = seen[:, feature, None] > cuts, new[:, feature, None] > cuts
        for label in range(CLASSES):
            fitted = balanced_accuracy(says, labels == label)
            best = int((fitted - 0.5).abs().argmax())
            score = balanced_accuracy(says_new[:, best], truth == label)
            scores[label, feature] = score if fitted[best] >= 0.5 else 1 - score
    return scores


def accuracy_by_bins(seen: Tensor, labels: Tensor, new: Tensor, truth: Tensor) -> Tensor:
    """Accuracy on new pictures of "the class most often seen with this value", one feature at a time."""
    scores = torch.zeros(seen.shape[1])
    for feature in range(seen.shape[1]):
        cuts = seen[:, feature].quantile(torch.linspace(0, 1, 12)).unique()
        bins, bins_new = (torch.bucketize(some[:, feature].contiguous(), cuts) for some in (seen, new))
        table = torch.zeros(len(cuts) + 1, CLASSES)
        table.index_put_((bins, labels), torch.ones(len(labels)), accumulate=True)
        scores[feature] = (table.argmax(1)[bins_new] == truth).float().mean()
    return scores


def object_features(objects: SceneObjects) -> Tensor:
    """What one object alone shows: presence, visible area, first and last row, first and last column."""
    masks = objects.masks
    rows, columns = masks.any(3).float(), masks.any(2).float()
    edges = [lines.argmax(2) for line in (rows, columns) for lines in (line, line.flip(2))]
    return torch.cat([masks.flatten(2).any(2), masks.flatten(2).sum(2), *edges], 1).float()


def test_no_single_object_decides_a_class(train: Rendered, test: Rendered) -> None:
    present, new = train[2].present.float(), test[2].present.float()
    scores = best_threshold_rules(present, train[1], new, test[1])
    assert 0.5 < scores.max() <= 0.6
    assert accuracy_by_bins(present, train[1], new, test[1]).max() <= 0.25


def test_nor_does_its_size_or_place(train: Rendered, test: Rendered) -> None:
    seen, new = object_features(train[2]), object_features(test[2])
    assert best_threshold_rules(seen, train[1], new, test[1]).max() <= 0.6
    assert accuracy_by_bins(seen, train[1], new, test[1]).max() <= 0.25


def test_nor_do_all_objects_together_without_the_relation(train: Rendered, test: Rendered) -> None:
    """A linear rule on which objects are there: far from the 8 of 8 that the relation gives."""
    assert linear_accuracy(train[2].present.float(), train[1], test[2].present.float(), test[1]) <= 0.3


def linear_accuracy(seen: Tensor, labels: Tensor, new: Tensor, truth: Tensor) -> float:
    centre, spread = seen.mean(0), seen.std(0) + 1e-6
    seen, new = (seen - centre) / spread, (new - centre) / spread
    weight = torch.zeros(seen.shape[1] + 1, CLASSES, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight], max_iter=60)

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = cross_entropy(seen @ weight[1:] + weight[0], labels) + 1e-4 * weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    with torch.no_grad():
        return float(((new @ weight[1:] + weight[0]).argmax(1) == truth).float().mean())


def test_no_mean_colour_decides_a_class(train: Rendered, test: Rendered) -> None:
    seen, new = (pixels.float().mean((2, 3)) for pixels in (train[0], test[0]))
    # Brightness and the share of each channel: a colour judged without its light.
    seen, new = (torch.cat([rgb, rgb.mean(1, True), rgb / rgb.sum(1, True)], 1) for rgb in (seen, new))
    assert best_threshold_rules(seen, train[1], new, test[1]).max() <= 0.6
    assert linear_accuracy(seen, train[1], new, test[1]) <= 0.25

    means = one_hot(train[1], CLASSES).float().T @ seen[:, :3] / 500
    nearest = torch.cdist(new[:, :3], means).argmin(1)
    neighbours = torch.cdist(new[:, :3], seen[:, :3]).topk(25, largest=False).indices
    voted = one_hot(train[1][neighbours], CLASSES).sum(1).argmax(1)
    for answer in (nearest, voted):
        assert (answer == test[1]).float().mean() <= 0.25
        for label in range(CLASSES):
            assert balanced_accuracy(answer == label, test[1] == label) <= 0.6


# --- masks and evidence ---------------------------------------------------------------------------------


def test_masks_name_each_pixel_at_most_once(train: Rendered) -> None:
    objects = train[2][::5]
    assert objects.masks.shape == (len(objects), len(OBJECT_NAMES), 32, 32)
    assert int(objects.masks.sum(1).max()) == 1
    assert objects.names == OBJECT_NAMES
    assert torch.equal(objects.present, objects.masks.sum((2, 3)) > 0)
    assert 6 < objects.present.float().sum(1).mean() < 9.5


def test_evidence_is_what_can_be_seen_of_the_two_objects(train: Rendered) -> None:
    _, labels, objects = train
    evidence = objects.evidence
    for at in range(0, len(objects), 131):
        rule = RULES[CLASS_NAMES[labels[at]]]
        masks = objects[at].masks[0]
        both = masks[OBJECT_NAMES.index(rule.a)] | masks[OBJECT_NAMES.index(rule.b)]
        assert torch.equal(evidence[at], both)
    areas = evidence.sum((1, 2))
    assert int(areas.min()) >= 35
    assert int(areas.max()) <= 170


def slow_picture(box: parts.Boxes, at: int) -> tuple[list[list[str]], dict[str, int]]:
    """Paint one layout pixel by pixel, from the drawings as text."""
    seen = [["" for _ in range(32)] for _ in range(32)]
    full: dict[str, int] = {}
    for slot in range(parts.SLOTS):
        kind = int(box.kinds[at, slot])
        if kind == len(OBJECT_NAMES):
            continue
        name = OBJECT_NAMES[kind]
        lines = drawings.DRAWINGS[name].strip("\n").split("\n\n")[int(box.variants[at, slot])].split("\n")
        height, width = int(box.heights[at, slot]), int(box.widths[at, slot])
        for y in range(height):
            for x in range(width):
                line = lines[int((y + 0.5) / height * len(lines))]
                line = line[::-1] if box.flipped[at, slot] else line
                row, column = int(box.top[at, slot]) + y, int(box.left[at, slot]) + x
                if line[int((x + 0.5) / width * len(line))] != "." and 0 <= row < 32 and 0 <= column < 32:
                    seen[row][column] = name
                    full[name] = full.get(name, 0) + 1
    return seen, full


def test_masks_equal_a_slow_painting_and_hide_little_of_the_evidence(few: Rendered) -> None:
    _, labels, objects = few
    keys = objects.keys.numpy().view(np.uint64)
    box, blots = parts.boxes(keys, labels.numpy()), parts._blots(keys)
    blotted = 0
    for at in range(len(objects)):
        seen, full = slow_picture(box, at)
        for name, mask in zip(OBJECT_NAMES, objects[at].masks[0], strict=True):
            slow = torch.tensor([[pixel == name for pixel in row] for row in seen])
            # Nothing but a blot hides a painted pixel.
            assert not (mask & ~slow).any()
            assert not (slow & ~mask & ~torch.from_numpy(blots[at])).any()
            blotted += int((slow & ~mask).sum())
            rule = RULES[CLASS_NAMES[labels[at]]]
            if name in (rule.a, rule.b):
                assert int(mask.sum()) >= 0.65 * full[name]
    assert blotted > 0


def test_most_of_each_rule_object_can_be_seen(train: Rendered) -> None:
    _, labels, objects = train
    keys = objects.keys.numpy().view(np.uint64)
    box = parts.boxes(keys, labels.numpy())
    full = torch.from_numpy(parts._painted(keys, box, None)[1])
    for at in "ab":
        kinds = torch.tensor([OBJECT_NAMES.index(getattr(rule, at)) for rule in RULES.values()])[labels]
        area = full[torch.from_numpy(box.kinds) == kinds[:, None]]
        share = (objects.owners == kinds[:, None, None]).sum((1, 2)) / area
        assert 0.65 <= float(share.min()) < 0.8 < float(share.max()) <= 1


def test_objects_are_large_enough_to_be_recognised(few: Rendered) -> None:
    box = parts.boxes(few[2].keys.numpy().view(np.uint64), few[1].numpy())
    real = box.kinds < len(OBJECT_NAMES)
    assert box.heights[real].min() >= 5
    assert box.widths[real].min() >= 5
    assert box.heights[real & (box.kinds < 8)].min() >= 6
    assert len(np.unique(box.heights[box.kinds == 1])) == 3


def test_drawings_are_rectangles_and_all_differ() -> None:
    shapes = drawings.sprites()
    seen = set()
    for kind, name in enumerate(OBJECT_NAMES):
        for text in drawings.DRAWINGS[name].strip("\n").split("\n\n"):
            lines = text.split("\n")
            assert len({len(line) for line in lines}) == 1
            assert set("".join(lines)) <= set(".#o")
            seen.add(text)
        assert 1 <= shapes.variants[kind] <= 2
    assert len(seen) == int(shapes.variants[: len(OBJECT_NAMES)].sum())
    assert not shapes.parts[len(OBJECT_NAMES)].any()


# --- counterfactuals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("without", ["a", "b"])
def test_a_counterfactual_changes_the_left_out_object_and_nothing_else(few: Rendered, without: str) -> None:
    pixels, labels, objects = few
    changed = (objects.counterfactual(without=without) != pixels).any(1)
    after = objects.counterfactual_masks(without=without)
    for at in range(len(objects)):
        gone = OBJECT_NAMES.index(getattr(RULES[CLASS_NAMES[labels[at]]], without))
        was = objects[at].masks[0]
        assert not (changed[at] & ~was[gone]).any()
        assert changed[at].sum() >= 0.8 * was[gone].sum()
        assert not after[at, gone].any()
        kept = [kind for kind in range(len(OBJECT_NAMES)) if kind != gone]
        assert not (was[kept] & ~after[at, kept]).any()


def test_counterfactuals_of_some_are_those_of_all(few: Rendered) -> None:
    objects = few[2]
    everything = objects.counterfactual()
    assert everything.shape == (len(objects), 3, 32, 32)
    assert everything.dtype == torch.uint8
    assert torch.equal(objects.counterfactual([5, 90]), everything[[5, 90]])
    assert torch.equal(objects[10:20].counterfactual(3), everything[13:14])
    assert torch.equal(objects.counterfactual(), everything)


def test_leaving_out_neither_object_is_refused(few: Rendered) -> None:
    with pytest.raises(ImageError, match=r"'c'.*'a' or 'b'"):
        few[2].counterfactual(0, without="c")  # type: ignore[arg-type]


# --- the same picture again -----------------------------------------------------------------------------


def test_a_seed_means_the_same_pictures_always(few: Rendered) -> None:
    pixels, labels, objects = render(12, seed=7)
    assert torch.equal(pixels, few[0])
    assert torch.equal(objects.owners, few[2].owners)
    assert labels.tolist() == [label for label in range(CLASSES) for _ in range(12)]
    assert pixels.dtype == torch.uint8
    assert labels.dtype == torch.int64


def test_the_pictures_are_those_the_bundled_networks_were_trained_on() -> None:
    """Changing what is rendered means training again: objects to the pixel, colours by each class's mean."""
    pixels, _, objects = render(20, seed=5)
    assert hashlib.sha256(objects.owners.numpy().tobytes()).hexdigest().startswith("fb42d71aafc565bc")
    means = pixels.double().view(CLASSES, -1).mean(1)
    trained = [120.99, 105.67, 113.79, 134.56, 111.45, 112.33, 129.77, 129.11]
    assert means.tolist() == pytest.approx(trained, abs=0.01)


def test_fewer_pictures_are_the_first_of_more(few: Rendered) -> None:
    pixels, labels, objects = render(5, seed=7)
    first = torch.cat([torch.arange(5) + 12 * label for label in range(CLASSES)])
    assert torch.equal(pixels, few[0][first])
    assert torch.equal(labels, few[1][first])
    assert torch.equal(objects.owners, few[2][first].owners)
    assert torch.equal(objects.keys, few[2].keys[first])


def test_splits_and_seeds_share_no_picture() -> None:
    keys = [render(40, seed=seed, split=split)[2].keys for seed in (0, 1, -1) for split in ("train", "test")]
    assert len(torch.cat(keys).unique()) == 6 * 40 * CLASSES


def test_pictures_vary_within_a_class(few: Rendered) -> None:
    harbours = few[0][:12].flatten(1)
    assert len(harbours.unique(dim=0)) == 12
    assert few[2].owners[:12].flatten(1).unique(dim=0).shape[0] == 12


# --- choosing pictures, and what is refused -------------------------------------------------------------


def test_objects_are_chosen_like_pictures(few: Rendered) -> None:
    objects = few[2]
    every = torch.arange(len(objects))
    odd = every % 2 == 1
    for index in (3, -1, slice(2, 9, 3), [4, 1, 1], odd, odd.tolist(), torch.tensor([7, 0]), []):
        chosen = objects[index]
        expected = every[torch.tensor([], dtype=torch.long) if index == [] else index].reshape(-1)
        assert len(chosen) == len(expected)
        assert torch.equal(chosen.keys, objects.keys[expected])
        assert torch.equal(chosen.scenes, objects.scenes[expected])
        assert torch.equal(chosen.evidence, objects.evidence[expected])


@pytest.mark.parametrize("index", [96, [0, 96], torch.ones(5, dtype=torch.bool), [0.5]])
def test_pictures_that_are_not_there_are_refused(few: Rendered, index: object) -> None:
    with pytest.raises(ImageError, match="there are 96"):
        few[2][index]  # type: ignore[index]


def test_bad_requests_are_refused() -> None:
    with pytest.raises(ImageError, match=r"'tset'.*closest: test"):
        render(1, split="tset")
    with pytest.raises(ImageError, match="at least 1"):
        render(0)


def test_scene_of_tells_no_rule_from_several() -> None:
    """By hand: a boat on water, a boat too high, beside it, with a lamp on a table too, in it."""
    masks = torch.zeros(5, len(OBJECT_NAMES), 32, 32, dtype=torch.bool)
    boat, water, lamp, table = (OBJECT_NAMES.index(name) for name in ("boat", "water", "lamp", "table"))
    masks[:, water, 16:22, 4:14] = True
    masks[0, boat, 8:16, 5:13] = True
    masks[1, boat, 6:14, 5:13] = True
    masks[2, boat, 8:16, 16:24] = True
    masks[3, boat, 8:16, 5:13] = True
    masks[3, lamp, 2:10, 20:26] = True
    masks[3, table, 9:16, 18:28] = True
    masks[4, boat, 14:22, 5:13] = True
    assert scene_of(masks).tolist() == [CLASS_NAMES.index("harbour"), -1, -1, -2, -1]
