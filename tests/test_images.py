"""Images, the fashion set and datasets: the doors, the picks and the files."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from nadkit.errors import ImageError
from nadkit.images import Images, LazyPixels, load_images

NAMES = ("cat", "dog", "cow", "hen", "ant")


def numbered(counts: tuple[int, ...] = (6, 7, 8, 9, 10), lazy: bool = False) -> Images:
    """Pictures 1 × 2 × 3 whose every pixel is the number of the picture; classes are interleaved."""
    left = list(counts)
    labels = []
    while any(left):
        for index, count in enumerate(left):
            if count:
                labels.append(index)
                left[index] -= 1
    size = len(labels)
    pixels = torch.arange(size, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 3).clone()
    held = LazyPixels(lambda row: pixels[row], size, (1, 2, 3)) if lazy else pixels
    return Images(held, torch.tensor(labels), NAMES[: len(counts)])


def numbers(images: Images) -> list[int]:
    return images.pixels[:][:, 0, 0, 0].tolist()


# The door


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pixels": torch.zeros(3, 1, 2, 2, dtype=torch.float64)}, "float64.*uint8"),
        ({"pixels": torch.zeros(3, 1, 2, 2, dtype=torch.int64)}, "int64.*uint8"),
        ({"pixels": torch.zeros(3, 2, 2)}, r"\(3, 2, 2\).*\(N, C, H, W\)"),
        ({"pixels": torch.zeros(3, 1, 0, 2)}, "shape"),
        ({"pixels": [[1]]}, "list.*tensor"),
        ({"pixels": torch.zeros(0, 1, 2, 2), "labels": torch.zeros(0).long()}, "no picture"),
        ({"labels": torch.tensor([0, 1])}, "3 pictures and 2 labels"),
        ({"labels": torch.tensor([0, 1, 2])}, r"label 2 \(of picture 2\).*2 class names"),
        ({"labels": torch.tensor([0, -1, 1])}, r"label -1 \(of picture 1\)"),
        ({"labels": torch.tensor([0.0, 1.0, 1.0])}, "float32.*int64"),
        ({"labels": [0, 1, 1]}, "list.*int64"),
        ({"labels": torch.zeros(3, 1).long()}, r"\(3, 1\)"),
        ({"class_names": ("cat", "cat")}, "twice: cat"),
        ({"class_names": ()}, "at least one"),
        ({"class_names": ("cat", 3)}, "text"),
        ({"objects": ["sun"]}, "3 pictures and objects for 1"),
    ],
)
def test_unsound_pictures_are_refused_with_the_reason(change: dict[str, object], said: str) -> None:
    sound: dict[str, object] = {
        "pixels": torch.zeros(3, 1, 2, 2),
        "labels": torch.tensor([0, 1, 1]),
        "class_names": ("cat", "dog"),
    }
    Images(**sound)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match=said):
        Images(**sound | change)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_pictures_with_nan_or_infinity_are_numbered(bad: float) -> None:
    pixels = torch.zeros(9, 3, 4, 4)
    pixels[2, 1, 0, 3] = bad
    pixels[7, 2, 3, 3] = bad
    with pytest.raises(ImageError, match=r"in 2 picture\(s\): 2, 7;"):
        Images(pixels, torch.zeros(9).long(), ("cat",))


# Picking


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(
    "index",
    [
        0,
        -1,
        slice(2, 30, 5),
        slice(None, None, -3),
        slice(-4, None),
        [5, 1, 1, -2],
        torch.tensor([3, 39]),
        torch.arange(40) % 7 == 0,
        [True, False] * 20,
        range(3, 9),
    ],
)
def test_indexing_is_that_of_a_list(index: object, lazy: bool) -> None:
    images = numbered(lazy=lazy)
    every = list(range(40))
    if isinstance(index, int):
        expected = [every[index]]
    elif isinstance(index, slice):
        expected = every[index]
    else:
        values = index.tolist() if isinstance(index, Tensor) else list(index)  # type: ignore[call-overload]
        is_mask = isinstance(values[0], bool)
        expected = (
            [e for e, v in zip(every, values, strict=True) if v] if is_mask else [every[v] for v in values]
        )
    picked = images[index]  # type: ignore[index]
    assert numbers(picked) == expected
    assert picked.labels.tolist() == images.labels[expected].tolist()
    assert isinstance(picked.pixels, LazyPixels) == lazy
    # Picking from what was picked composes.
    assert numbers(picked[-1:]) == expected[-1:]
    if not lazy and isinstance(index, slice) and (index.step or 1) < 0:
        return  # tensors themselves take no negative step
    straight = images.pixels[index]  # type: ignore[index]
    assert straight.shape == ((1, 2, 3) if isinstance(index, int) else (len(expected), 1, 2, 3))
    assert straight.flatten().tolist() == [number for number in expected for _ in range(6)]


@pytest.mark.parametrize(
    ("index", "said"),
    [
        (40, "picture 40 .* there are 40"),
        (-41, "picture -41"),
        ([0, 99], "picture 99"),
        (torch.ones(3, dtype=torch.bool), "mask of 3 .* 40 pictures"),
        (torch.tensor([0.5]), "float32"),
        (torch.zeros(2, 2).long(), r"\(2, 2\)"),
        ("cat", r"\.of\(name\)"),
        (None, "None"),
        ([], "no picture"),
        (slice(5, 5), "no picture"),
        (torch.zeros(40, dtype=torch.bool), "no picture"),
    ],
)
@pytest.mark.parametrize("lazy", [False, True])
def test_an_index_that_picks_nothing_sensible_is_refused(index: object, said: str, lazy: bool) -> None:
    with pytest.raises(ImageError, match=said):
        numbered(lazy=lazy)[index]  # type: ignore[index]


def test_objects_follow_their_pictures() -> None:
    class Rows:
        def __init__(self, rows: Tensor) -> None:
            self.rows = rows

        def __len__(self) -> int:
            return len(self.rows)

        def __getitem__(self, index: Tensor) -> Rows:
            return Rows(self.rows[index])

    plain = numbered()
    images = Images(plain.pixels, plain.labels, plain.class_names, Rows(torch.arange(40)))  # type: ignore[arg-type]
    parts = [
        images[[4, 2]],
        images.of("cow"),
        images.take(2),
        *images.split(0.5),
        images.subset(["ant", "dog"]),
    ]
    for part in parts:
        assert part.objects.rows.tolist() == numbers(part)  # type: ignore[union-attr]


@pytest.mark.parametrize("lazy", [False, True])
def test_batches_are_all_pictures_in_order(lazy: bool) -> None:
    images = numbered(lazy=lazy)
    batches = list(images.batches(16))
    assert [len(batch.pixels) for batch in batches] == [16, 16, 8]
    assert torch.cat([batch.pixels for batch in batches]).equal(images.pixels[:])
    assert torch.cat([batch.labels for batch in batches]).equal(images.labels)
    with pytest.raises(ImageError, match="batches of 0"):
        images.batches(0)


def test_lazy_pictures_are_read_when_indexed_and_not_before() -> None:
    asked: list[int] = []

    def read(row: int) -> Tensor:
        asked.append(row)
        return torch.full((1, 2, 2), row, dtype=torch.uint8)

    images = Images(LazyPixels(read, 10, (1, 2, 2)), torch.arange(10) % 2, ("even", "odd"))
    odd = images.of("odd")
    first, _rest = odd.split(0.5, seed=3)
    repr(images), images.counts(), first.take(1)
    assert asked == []
    batches: Iterator[object] = iter(odd.batches(2))
    next(batches)
    assert asked == [1, 3]
    whole = odd.in_memory()
    assert isinstance(whole.pixels, Tensor)
    assert numbers(whole) == [1, 3, 5, 7, 9]


def test_of_and_subset_keep_the_right_pictures_and_labels() -> None:
    images = numbered()
    cows = images.of("cow")
    assert cows.class_names == NAMES
    assert set(cows.labels.tolist()) == {2}
    assert len(cows) == 8
    part = images.subset(["hen", "cat"])
    assert part.class_names == ("hen", "cat")
    assert part.counts() == {"hen": 9, "cat": 6}
    for number, label in zip(numbers(part), part.labels.tolist(), strict=True):
        assert NAMES[int(images.labels[number])] == part.class_names[label]
    assert numbers(part) == sorted(numbers(part))


@pytest.mark.parametrize(
    ("pick", "said"),
    [
        (lambda images: images.of("dgo"), "'dgo'.*closest: dog"),
        (lambda images: images.subset(["cat", "caw"]), "'caw'.*closest: c"),
        (lambda images: images.subset(["cat", "cat"]), "every class once"),
        (lambda images: images.subset([]), "at least one"),
        (lambda images: images.of("cow").of("dog"), "no picture of 'dog', only of cow"),
        (lambda images: images.of("cow").subset(["cow", "dog"]), "no picture of 'dog'"),
        (lambda images: images.take(7), "7 pictures a class.*only 6 of 'cat'; ask for 6"),
        (lambda images: images.take(9), "6 of 'cat', 7 of 'dog', 8 of 'cow'; ask for 6"),
        (lambda images: images.take(0), "at least 1"),
        (lambda images: images.split(1.0), "between 0 and 1"),
        (lambda images: images.split(0.0), "between 0 and 1"),
        (lambda images: images[[0, 1, 5]].split(0.5), "two pictures.*'dog'"),
        (lambda images: images.mosaics(0), "0 mosaics"),
        (lambda images: images.mosaics(1, tasks=["cat", "dog", "cow"]), "four or more"),
        (lambda images: images.mosaics(1, tasks=["cat", "dog", "cow", "cow"]), "distinct"),
        (lambda images: images.mosaics(1, tasks=["cat", "dog", "cow", "han"]), "'han'.*closest: hen"),
        (lambda images: images.subset(["cat", "dog", "cow"]).mosaics(1), "four or more"),
    ],
)
def test_picks_that_cannot_be_made_say_why(pick: object, said: str) -> None:
    with pytest.raises(ImageError, match=said):
        pick(numbered())  # type: ignore[operator]


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(2, 12), min_size=1, max_size=5),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**31),
)
def test_a_split_is_disjoint_complete_and_stratified(counts: list[int], share: float, seed: int) -> None:
    images = numbered(tuple(counts))
    first, second = images.split(share, seed)
    assert sorted(numbers(first) + numbers(second)) == list(range(len(images)))
    for part in (first, second):
        assert numbers(part) == sorted(numbers(part))
        assert part.labels.equal(images.labels[numbers(part)])
    for name, count in images.counts().items():
        assert 1 <= first.counts()[name] <= count - 1
        assert abs(first.counts()[name] - share * count) <= 1


def test_take_is_seeded_nested_and_leaves_absent_classes_out() -> None:
    images = numbered()
    assert images.take(3, seed=1).counts() == dict.fromkeys(NAMES, 3)
    assert numbers(images.take(3, seed=1)) == numbers(images.take(3, seed=1))
    assert numbers(images.take(3, seed=1)) != numbers(images.take(3, seed=2))
    assert set(numbers(images.take(3, seed=1))) < set(numbers(images.take(5, seed=1)))
    assert numbers(images.take(6)) == sorted(numbers(images.take(6)))
    assert images.of("ant").take(4).counts() == {"cat": 0, "dog": 0, "cow": 0, "hen": 0, "ant": 4}


def test_picks_leave_the_global_random_state_alone() -> None:
    images = numbered()
    before = torch.random.get_rng_state()
    images.take(2), images.split(0.5), images.mosaics(3)
    assert torch.random.get_rng_state().equal(before)


@pytest.mark.parametrize("lazy", [False, True])
def test_mosaics_hold_their_sources_in_the_named_quadrants(lazy: bool) -> None:
    images = numbered(lazy=lazy)
    mosaics = images.mosaics(11, seed=4)
    assert mosaics.pixels.shape == (11, 1, 4, 6)
    assert mosaics.pixels.dtype == torch.uint8
    for mosaic in range(len(mosaics)):
        classes, sources = mosaics.classes[mosaic].tolist(), mosaics.sources[mosaic].tolist()
        assert len(set(classes)) == 4
        corners = [(0, 0), (0, 3), (2, 0), (2, 3)]  # top left, top right, bottom left, bottom right
        for (top, left), index, source in zip(corners, classes, sources, strict=True):
            assert int(images.labels[source]) == index
            assert mosaics.pixels[mosaic, 0, top : top + 2, left : left + 3].eq(source).all()


def test_mosaics_keep_channels_rows_and_columns_apart() -> None:
    pixels = torch.arange(4 * 3 * 2 * 5).reshape(4, 3, 2, 5).to(torch.uint8)
    mosaics = Images(pixels, torch.arange(4), NAMES[:4]).mosaics(2)
    for mosaic, row in zip(mosaics.pixels, mosaics.sources.tolist(), strict=True):
        one, two, three, four = (pixels[source] for source in row)
        assert mosaic.equal(torch.cat([torch.cat([one, two], 2), torch.cat([three, four], 2)], 1))


def test_mosaics_use_every_class_equally_often_and_in_every_quadrant() -> None:
    images = numbered()
    mosaics = images.mosaics(200, seed=1)
    used = torch.bincount(mosaics.classes.flatten(), minlength=5)
    assert int(used.max() - used.min()) <= 1
    for quadrant in range(4):
        assert torch.bincount(mosaics.classes[:, quadrant], minlength=5).min() > 20
    assert len(set(mosaics.sources.flatten().tolist())) == 40
    tasks = images.mosaics(7, tasks=["ant", "cow", "dog", "cat"])
    assert set(tasks.classes.flatten().tolist()) == {0, 1, 2, 4}


# The strip


def test_the_strip_shows_some_pictures_of_every_class_and_no_more() -> None:
    pixels = torch.randint(0, 256, (300, 3, 5, 4), dtype=torch.uint8)
    labels = torch.arange(3).repeat_interleave(100)
    images = Images(pixels, labels, ("<cat>", 'a "dog"', "cow"))
    page = images._repr_html_()
    alts = re.findall(r'<img alt="picture of class ([^"]*)"', page)
    assert 3 < len(alts) <= 20
    assert set(alts) == {"&lt;cat&gt;", "a &quot;dog&quot;", "cow"}
    assert "<cat>" not in page
    assert f"and {300 - len(alts)} more" in page
    first = re.findall(r"data:image/png;base64,([^\"]*)", page)[0]
    shown = Image.open(io.BytesIO(base64.b64decode(first)))
    assert shown.mode == "RGB"
    assert list(shown.tobytes()) == pixels[0].permute(1, 2, 0).flatten().tolist()
    assert len(page) < 40_000


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "L"), (3, "RGB")])
def test_the_strip_shows_floats_of_any_range_and_channels(channels: int, mode: str) -> None:
    pixels = torch.linspace(-3, 5, 2 * channels * 16).reshape(2, channels, 4, 4)
    page = Images(pixels, torch.tensor([0, 1]), ("cat", "dog"))._repr_html_()
    pictures = [
        Image.open(io.BytesIO(base64.b64decode(code))) for code in re.findall(r"base64,([^\"]*)", page)
    ]
    assert [picture.mode for picture in pictures] == [mode, mode]
    assert min(pictures[0].tobytes()) < 40
    assert max(pictures[1].tobytes()) > 215


# The one door for all sources


class Like:
    def __init__(self, shape: tuple[int, int, int], names: tuple[str, ...] = ()) -> None:
        self.input_shape = shape
        self.class_names = names


def test_per_class_and_seed_pick_a_subset_of_the_fashion_set() -> None:
    few = load_images("fashion", split="test", per_class=4, seed=1)
    assert set(few.counts().values()) == {4}
    assert few.pixels[:].equal(load_images("fashion", split="test").take(4, seed=1).pixels[:])
    assert not few.pixels[:].equal(load_images("fashion", split="test", per_class=4, seed=2).pixels[:])
    with pytest.raises(ImageError, match=r"201 pictures a class.*200 of 't-shirt'"):
        load_images("fashion", split="test", per_class=201)


def test_scenes_come_with_their_objects_in_the_number_asked_for() -> None:
    images = load_images("scenes", split="test", per_class=3, seed=2)
    assert set(images.counts().values()) == {3}
    assert images.pixels.shape[1:] == (3, 32, 32)
    assert images.objects is not None
    assert len(images.of(images.class_names[0]).objects) == 3  # type: ignore[arg-type]
    same = load_images("scenes", split="test", per_class=3, seed=2)
    assert same.pixels[:].equal(images.pixels[:])
    assert not load_images("scenes", split="test", per_class=3, seed=3).pixels[:].equal(images.pixels[:])
    assert not load_images("scenes", split="train", per_class=3, seed=2).pixels[:].equal(images.pixels[:])


def test_the_bundled_sets_render_and_ship_500_and_200_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    from nadkit.images import scenes

    render = scenes.render
    asked: list[tuple[int, str]] = []

    def few(per_class: int, *, seed: int, split: str) -> object:
        asked.append((per_class, split))
        return render(1, seed=seed, split=split)

    monkeypatch.setattr(scenes, "render", few)
    load_images("scenes")
    load_images("scenes", split="test")
    assert asked == [(500, "train"), (200, "test")]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"source": "fasion"}, "'fasion'; closest: fashion; or give a folder"),
        ({"source": 3}, "a int.*from_dataset"),
        ({"source": "fashion", "split": "tset"}, "no split 'tset'; closest: test"),
        ({"source": "fashion", "per_class": 0}, "0 pictures a class"),
        ({"source": "scenes", "per_class": -1}, "-1 pictures a class"),
        ({"source": "scenes", "full": True}, "only 'fashion' has a whole set"),
        ({"source": ".", "full": True}, "only 'fashion' has a whole set"),
        ({"source": "fashion", "like": Like((3, 32, 32))}, r"\(1, 28, 28\).*takes \(3, 32, 32\)"),
    ],
)
def test_what_cannot_be_loaded_is_said_at_the_door(asked: dict[str, object], said: str) -> None:
    with pytest.raises(ImageError, match=said):
        load_images(**asked)  # type: ignore[arg-type]


def test_importing_images_loads_no_pillow() -> None:
    code = "import nadkit.images, sys; sys.exit(any(name.split('.')[0] == 'PIL' for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
