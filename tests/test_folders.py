"""Folders of pictures: every mode, every size, and every file that is not as it should be."""

from __future__ import annotations

import io
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from nadkit.errors import ImageError
from nadkit.images import Images, LazyPixels, load_images
from nadkit.images import folders as folders_module
from nadkit.images.convert import match_classes, to_tensor


class Like:
    def __init__(self, shape: tuple[int, int, int], names: tuple[str, ...] = ()) -> None:
        self.input_shape = shape
        self.class_names = names


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def tree(folder: Path, classes: dict[str, int], size: tuple[int, int] = (5, 4)) -> Path:
    """PNG pictures, each of one grey that tells its class and number."""
    for place, (name, count) in enumerate(classes.items()):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            value = 40 * place + number
            Image.new("L", size, value).save(folder / name / f"picture {number:02d}.png")
    return folder


# Conversion


def test_rgb_and_grey_pass_unchanged() -> None:
    colour, grey = noise(6, 9), noise(6, 9, 1)
    assert to_tensor(Image.fromarray(colour)).permute(1, 2, 0).tolist() == colour.tolist()
    assert to_tensor(Image.fromarray(grey)).tolist() == [grey.tolist()]
    assert to_tensor(Image.fromarray(grey), (3, 6, 9)).tolist() == [grey.tolist()] * 3
    assert to_tensor(Image.fromarray(colour), (3, 6, 9)).permute(1, 2, 0).tolist() == colour.tolist()


def test_colour_becomes_grey_by_luma() -> None:
    pixels = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], dtype=np.uint8)
    grey = to_tensor(Image.fromarray(pixels), (1, 1, 4))
    assert grey.tolist() == [[[76, 150, 29, 255]]]  # 0.299, 0.587, 0.114 (ITU-R BT.601)


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_is_scaled_and_not_clipped(order: str) -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65406, 65407, 65535]], dtype=np.uint16)
    mode = "I;16" if order == "<" else "I;16B"
    picture = Image.frombytes(mode, (8, 1), values.astype(f"{order}u2").tobytes())
    expected = [[[0, 0, 1, 1, 128, 254, 255, 255]]]  # value / 257, rounded
    assert to_tensor(picture).tolist() == expected
    wide = Image.fromarray(values.astype(np.int32))
    assert wide.mode == "I"
    assert to_tensor(wide).tolist() == expected


def test_16_bit_files_are_scaled(tmp_path: Path) -> None:
    values = (np.arange(20, dtype=np.uint16) * 3449).reshape(4, 5)
    for name in ("a.png", "b.tif"):
        (tmp_path / "cat").mkdir(exist_ok=True)
        Image.fromarray(values).save(tmp_path / "cat" / name)
    images = load_images(tmp_path)
    expected = np.round(values / 257).astype(int).tolist()
    assert images.pixels[0].tolist() == [expected]
    assert load_images(tmp_path, split="test").pixels[0].tolist() == [expected]


def test_floats_are_read_as_0_to_1_or_0_to_255() -> None:
    assert to_tensor(Image.fromarray(np.array([[0, 0.5, 1]], dtype=np.float32))).tolist() == [[[0, 128, 255]]]
    assert to_tensor(Image.fromarray(np.array([[0, 7.4, 200]], dtype=np.float32))).tolist() == [[[0, 7, 200]]]


@pytest.mark.parametrize("values", [[[0, float("nan")]], [[0, float("inf")]], [[-0.1, 1]], [[0, 256]]])
def test_floats_of_unknown_range_are_refused(values: list[list[float]]) -> None:
    with pytest.raises(ImageError, match="0 to 1 or 0 to 255 can be read"):
        to_tensor(Image.fromarray(np.array(values, dtype=np.float32)))


@pytest.mark.parametrize("values", [[[0, 65536]], [[-1, 9]]])
def test_integers_of_unknown_range_are_refused(values: list[list[int]]) -> None:
    with pytest.raises(ImageError, match="0 to 65535 can be read"):
        to_tensor(Image.fromarray(np.array(values, dtype=np.int32)))


def test_transparency_is_laid_on_white() -> None:
    rgba = Image.fromarray(
        np.array([[[10, 20, 30, 0], [10, 20, 30, 255], [0, 100, 200, 51]]], dtype=np.uint8)
    )
    # 51 / 255 of the colour and 4 / 5 of white.
    assert to_tensor(rgba).permute(1, 2, 0).tolist() == [[[255, 255, 255], [10, 20, 30], [204, 224, 244]]]
    la = Image.fromarray(np.array([[[10, 0], [10, 255], [100, 51]]], dtype=np.uint8))
    assert la.mode == "LA"
    assert to_tensor(la).tolist() == [[[255, 10, 224]]]


def test_a_transparent_palette_is_laid_on_white(tmp_path: Path) -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([200, 0, 0, 0, 50, 0])
    picture.putdata([0, 1])
    assert to_tensor(picture)[:, 0].T.tolist() == [[200, 0, 0], [0, 50, 0]]
    picture.save(tmp_path / "p.png", transparency=1)
    with Image.open(tmp_path / "p.png") as read:
        assert read.mode == "P"
        assert to_tensor(read)[:, 0].T.tolist() == [[200, 0, 0], [255, 255, 255]]
    Image.fromarray(np.array([[7, 9]], dtype=np.uint8)).save(tmp_path / "l.png", transparency=9)
    with Image.open(tmp_path / "l.png") as read:
        assert read.mode == "L"
        assert to_tensor(read).tolist() == [[[7, 255]]]


def test_cmyk_black_and_white_and_bilevel_come_out_right() -> None:
    cmyk = Image.fromarray(
        np.array([[[0, 0, 0, 0], [0, 0, 0, 255], [255, 0, 0, 0], [0, 255, 255, 0]]], dtype=np.uint8), "CMYK"
    )
    assert to_tensor(cmyk)[:, 0].T.tolist() == [[255, 255, 255], [0, 0, 0], [0, 255, 255], [255, 0, 0]]
    bilevel = Image.new("1", (2, 1))
    bilevel.putpixel((1, 0), 1)
    assert to_tensor(bilevel).tolist() == [[[0, 255]]]


MODES = [
    "1",
    "L",
    "LA",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBX",
    "RGBa",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I",
    "F",
    "I;16",
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [None, (1, 7, 7), (3, 7, 12)])
def test_every_mode_gives_the_shape_asked_for_and_the_picture(
    mode: str, shape: tuple[int, int, int] | None
) -> None:
    # Left half dark, right half bright: whatever the mode, it has to stay so.
    grey = np.zeros((10, 16), dtype=np.uint8)
    grey[:, 8:] = 255
    source = Image.fromarray(grey)
    if mode == "I;16":
        picture = Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode == "I":
        picture = Image.fromarray(grey.astype(np.int32) * 257)
    elif mode in ("PA", "RGBa"):
        picture = source.convert("RGBA").convert(mode)
    else:
        picture = source.convert("RGB").convert(mode)
    pixels = to_tensor(picture, shape)
    grey_mode = mode in ("1", "L", "LA", "I", "F", "I;16")
    assert pixels.shape == (shape or (1 if grey_mode else 3, 10, 16))
    assert pixels.dtype == torch.uint8
    assert pixels[:, :, 0].max() <= 2
    assert pixels[:, :, -1].min() >= 253


def covered(pixels: Tensor, height: int, width: int) -> Tensor:
    """Scaling until it covers, then cropping, by torch's own antialiased interpolation."""
    scale = max(height / pixels.shape[1], width / pixels.shape[2])
    size = [max(height, round(pixels.shape[1] * scale)), max(width, round(pixels.shape[2] * scale))]
    scaled = F.interpolate(pixels[None].float(), size, mode="bilinear", antialias=True)[0]
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return scaled[:, top : top + height, left : left + width]


@pytest.mark.parametrize("size", [(40, 64), (64, 40), (33, 17), (9, 30), (5, 4), (16, 20)])
@pytest.mark.parametrize("target", [(12, 12), (10, 18), (16, 20)])
def test_scaling_is_antialiased_keeps_proportions_and_crops_the_centre(
    size: tuple[int, int], target: tuple[int, int]
) -> None:
    picture = noise(*size)
    expected = covered(torch.from_numpy(picture).permute(2, 0, 1), *target)
    difference = (to_tensor(Image.fromarray(picture), (3, *target)).float() - expected).abs()
    assert float(difference.max()) <= 1.5


def test_a_wide_picture_loses_its_sides_and_not_its_proportions() -> None:
    picture = np.zeros((10, 30), dtype=np.uint8)
    picture[:, 10:20] = 200
    assert to_tensor(Image.fromarray(picture), (1, 10, 10)).unique().tolist() == [200]
    assert to_tensor(Image.fromarray(picture.T.copy()), (1, 10, 10)).unique().tolist() == [200]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, tmp_path: Path) -> None:
    upright = noise(3, 5)
    # What a camera stores for each orientation (EXIF 2.32, tag 0x0112): undoing it gives the upright picture.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "cat").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "cat" / name, exif=exif)
    images = load_images(tmp_path)
    assert images.pixels.shape == (1, 3, 3, 5)
    assert images.pixels[0].permute(1, 2, 0).tolist() == upright.tolist()


def test_other_channel_numbers_are_refused() -> None:
    with pytest.raises(ImageError, match="pictures of 4 channels"):
        to_tensor(Image.new("RGB", (4, 4)), (4, 4, 4))


# Class names


def test_names_are_matched_to_those_of_the_network() -> None:
    like = Like((1, 1, 1), ("ankle boot", "bag", "coat"))
    assert match_classes(["coat", "bag"], like) == (like.class_names, [2, 1])
    assert match_classes(["Ankle_Boot", "bag"], like) == (like.class_names, [0, 1])
    assert match_classes(["cat", "dog"], like) == (("cat", "dog"), [0, 1])
    with pytest.raises(ImageError, match=r"1 of 2 classes .* 'cat' .*or leave like= out"):
        match_classes(["bag", "cat"], like)
    with pytest.raises(ImageError, match=r"'baag' \(closest: bag\)"):
        match_classes(["coat", "baag"], like)
    with pytest.raises(ImageError, match="'Bag' and 'bag' both mean the class 'bag'; give both one name"):
        match_classes(["Bag", "bag"], like)


def test_many_foreign_names_are_said_beside_one_list_of_the_known() -> None:
    like = Like((1, 1, 1), ("ankle boot", "bag", "coat"))
    with pytest.raises(ImageError) as raised:
        match_classes(["bag", "baag", *"123456"], like)
    assert str(raised.value) == (
        "7 of 8 classes are none of the network's: 'baag' (closest: bag), '1', '2', '3', '4', …; "
        "there are: ankle boot, bag, coat; rename or remove them, or leave like= out"
    )


@pytest.mark.parametrize(
    ("names", "slips"),
    [
        (["sneeker"], "'sneeker' (closest: sneaker)"),
        (["Sneeker", "lamp"], "'Sneeker' (closest: sneaker)"),
        (["ankleboots", "trouserz"], "'ankleboots' (closest: ankle boot), 'trouserz' (closest: trouser)"),
    ],
)
def test_names_that_are_all_misspelt_do_not_pass_for_foreign_ones(names: list[str], slips: str) -> None:
    like = Like((1, 1, 1), ("ankle boot", "sneaker", "trouser", "coat"))
    with pytest.raises(ImageError, match=r"^no class is one of the network's") as raised:
        match_classes(names, like)
    assert slips in str(raised.value)
    # Other words, though the network has some that look like them.
    for others in (["cat", "dog"], ["sandal", "trousseau"], ["boat"]):
        assert match_classes(others, like)[0] == tuple(others)


# Trees


def test_a_tree_is_read_by_class_and_name(tmp_path: Path) -> None:
    folder = tree(tmp_path, {"dog": 5, "cat": 10})
    train, test = load_images(folder), load_images(str(folder), split="test")
    assert train.class_names == test.class_names == ("cat", "dog")
    assert train.counts() == {"cat": 8, "dog": 4}
    assert test.counts() == {"cat": 2, "dog": 1}
    assert isinstance(train.pixels, LazyPixels)
    assert train.pixels.shape == (12, 1, 4, 5)
    values = {}
    for name, images in (("train", train), ("test", test)):
        values[name] = images.pixels[:][:, 0, 0, 0].tolist()
        for value, label in zip(values[name], images.labels.tolist(), strict=True):
            assert value // 40 == {0: 1, 1: 0}[label]  # dog was made first, cat second
        assert values[name] == sorted(values[name], key=lambda value: (-(value // 40), value))
    assert sorted(values["train"] + values["test"]) == [*range(5), *range(40, 50)]


def test_the_division_is_the_same_for_every_seed_and_place_and_not_by_name(tmp_path: Path) -> None:
    one, two = tree(tmp_path / "one", {"cat": 40}), tree(tmp_path / "two", {"cat": 40})
    values = load_images(one, split="test").pixels[:].flatten(1)[:, 0].tolist()
    assert values == load_images(two, split="test", seed=9).pixels[:].flatten(1)[:, 0].tolist()
    assert values not in (list(range(8)), list(range(32, 40)))
    # A picture more leaves the others where they are, but for at most one.
    Image.new("L", (5, 4), 200).save(two / "cat" / "zebra.png")
    later = load_images(two, split="test").pixels[:].flatten(1)[:, 0].tolist()
    assert len(set(values) - set(later)) <= 1


LIKE = Like((1, 4, 5), ("sneaker", "bag", "ankle boot"))


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ({"sneeker": 5, "bag": 5}, r"class folders of \S+: 1 of 2 .* 'sneeker' \(closest: sneaker\)"),
        ({"sneeker": 5, "ankle boots": 5}, r"class folders of \S+: no class .*ankle boot.*sneaker"),
        (
            {"sneaker": 5, "notes": 5},
            r"1 of 2 .* 'notes'; there are: sneaker, bag, ankle boot; rename or remove",
        ),
        ({"Sneaker": 5, "sneaker": 5}, r"'Sneaker' and 'sneaker' both mean .* give both one name"),
        ({"train/Sneaker": 5, "test/sneaker": 5}, r"both mean the class 'sneaker'"),
        ({"train/bag": 5, "test/bagg": 5}, r"'bagg' \(closest: bag\)"),
        ({"pictures/sneaker": 5, "pictures/bag": 5}, r"folders inside: bag, sneaker; .* load \S+pictures if"),
        ({"sneaker/old": 5, "bag": 5}, r"sneaker has folders inside: old"),
        ({"sneaker": 5, "bag": 0}, r"hold no picture: \S+bag; add some or remove"),
    ],
)
def test_folders_that_do_not_fit_a_network_are_named(
    tmp_path: Path, there: dict[str, int], said: str
) -> None:
    for name, count in there.items():
        (tmp_path / name).mkdir(parents=True)
        for number in range(count):
            Image.new("L", (5, 4), number).save(tmp_path / name / f"{number}.png")
    with pytest.raises(ImageError, match=said) as raised:
        load_images(tmp_path, like=LIKE)
    assert str(tmp_path) in str(raised.value)


def test_folders_that_fit_a_network_in_other_letters_or_not_at_all(tmp_path: Path) -> None:
    images = load_images(tree(tmp_path / "one", {"Ankle-Boot": 5, " BAG": 5}), like=LIKE)
    assert images.counts() == {"sneaker": 0, "bag": 4, "ankle boot": 4}
    images = load_images(tree(tmp_path / "two", {"lamp": 5, "n02124075": 5}), like=LIKE)
    assert images.counts() == {"lamp": 4, "n02124075": 4}


def test_a_misspelt_split_is_named(tmp_path: Path) -> None:
    for name in ("train", "tset"):
        tree(tmp_path / name, {"bag": 5})
    with pytest.raises(ImageError, match=r"has only train/ \(and tset, no name of a split\); add test/"):
        load_images(tmp_path, split="test", like=LIKE)


def test_train_and_test_folders_are_the_splits(tmp_path: Path) -> None:
    tree(tmp_path / "train", {"cat": 3, "dog": 2, "emu": 1})
    tree(tmp_path / "test", {"dog": 4, "emu": 1})
    tree(tmp_path / "val", {"yak": 1})
    train, test = load_images(tmp_path), load_images(tmp_path, split="test")
    assert train.counts() == {"cat": 3, "dog": 2, "emu": 1}
    # The same names and indices for both, though the test pictures lack a class.
    assert test.counts() == {"cat": 0, "dog": 4, "emu": 1}
    assert test.pixels[:][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 40]


def test_a_split_that_is_not_there_is_said(tmp_path: Path) -> None:
    tree(tmp_path / "train", {"cat": 3})
    with pytest.raises(ImageError, match=r"test pictures .* has only train/; add test/"):
        load_images(tmp_path, split="test")


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert load_images(tree(tmp_path, {"train": 5, "car": 5})).counts() == {"car": 4, "train": 4}


def test_pictures_are_converted_to_what_the_network_takes(tmp_path: Path) -> None:
    for place, (name, mode, size) in enumerate(
        [
            ("bag", "RGB", (40, 30)),
            ("bag", "L", (9, 50)),
            ("coat", "CMYK", (28, 28)),
            ("coat", "RGBA", (7, 7)),
        ]
    ):
        (tmp_path / "train" / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (90, 90, 90)).convert(mode).save(tmp_path / "train" / name / f"{place}.tif")
    like = Like((1, 28, 28), ("shirt", "coat", "bag"))
    images = load_images(tmp_path, like=like)
    assert images.class_names == like.class_names
    assert images.labels.tolist() == [1, 1, 2, 2]
    assert images.pixels.shape == (4, 1, 28, 28)
    assert [batch.pixels.unique().tolist() for batch in images.batches(1)] == [[90]] * 4
    assert load_images(tmp_path, like=like, per_class=1).counts() == {"shirt": 0, "coat": 1, "bag": 1}
    with pytest.raises(ImageError, match="pass like=network"):
        load_images(tmp_path)


@pytest.mark.parametrize(("mode", "size"), [("RGB", (5, 4)), ("L", (4, 5))])
def test_without_a_network_size_and_channels_must_agree(
    tmp_path: Path, mode: str, size: tuple[int, int]
) -> None:
    tree(tmp_path / "train", {"cat": 3})
    Image.new(mode, size).save(tmp_path / "train" / "cat" / "zebra.png")
    with pytest.raises(ImageError, match=r"picture 00\.png is grey 4 × 5 and .*zebra\.png is .*pass like="):
        load_images(tmp_path)


def test_one_picture_cannot_be_divided(tmp_path: Path) -> None:
    tree(tmp_path, {"cat": 3, "dog": 1})
    with pytest.raises(ImageError, match=r"dog holds one picture.*train/ and test/"):
        load_images(tmp_path)


def test_hidden_files_are_ignored(tmp_path: Path) -> None:
    tree(tmp_path, {"cat": 5})
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("x")
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._picture 00.png"):
        (tmp_path / name).write_bytes(b"x")
        (tmp_path / "cat" / name).write_bytes(b"x")
    (tmp_path / "cat" / ".ipynb_checkpoints").mkdir()
    assert load_images(tmp_path).counts() == {"cat": 4}


def test_files_beside_the_classes_are_refused_if_they_are_pictures(tmp_path: Path) -> None:
    tree(tmp_path, {"cat": 5})
    (tmp_path / "README.txt").write_text("made by hand")
    assert load_images(tmp_path).counts() == {"cat": 4}
    Image.new("L", (5, 4)).save(tmp_path / "lost.png")
    with pytest.raises(ImageError, match=r"1 picture\(s\).*no class folder: lost\.png; put"):
        load_images(tmp_path)


# Damage


def test_all_damaged_files_are_counted_and_the_first_named(tmp_path: Path) -> None:
    tree(tmp_path / "train", {"cat": 12, "dog": 12})
    files = sorted((tmp_path / "train").rglob("*.png"))
    broken = files[1::2]
    for path in broken[:-1]:
        path.write_bytes(path.read_bytes()[:-20])
    broken[-1].write_text("not a picture at all")
    (tmp_path / "train" / "cat" / "notes.txt").write_text("a note")
    with pytest.raises(ImageError, match="13 of 25 files cannot be read as pictures") as caught:
        load_images(tmp_path)
    said = str(caught.value)
    assert "notes.txt (no picture)" in said
    named = [path for path in files if str(path) in said]
    assert len(named) == 7
    assert set(named) < set(broken)
    assert "…" in said
    assert "mend or remove" in said


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_a_file_of_nothing_is_damaged(tmp_path: Path, content: bytes) -> None:
    tree(tmp_path / "train", {"cat": 2})
    (tmp_path / "train" / "cat" / "x.png").write_bytes(content)
    with pytest.raises(ImageError, match=r"1 of 3 .*x\.png \(damaged"):
        load_images(tmp_path)


def test_what_is_no_regular_file_is_named_and_not_opened(tmp_path: Path) -> None:
    tree(tmp_path / "train", {"cat": 2})
    os.mkfifo(tmp_path / "train" / "cat" / "pipe.png")  # opening it would wait for ever
    (tmp_path / "train" / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(
        ImageError, match=r"2 of 4 .*gone\.png \(no regular file\), .*pipe\.png \(no regular file\)"
    ):
        load_images(tmp_path)


def test_pixels_of_unknown_range_are_named_with_their_file(tmp_path: Path) -> None:
    (tmp_path / "train" / "cat").mkdir(parents=True)
    Image.fromarray(np.array([[0.0, -3.0]], dtype=np.float32)).save(tmp_path / "train" / "cat" / "depth.tif")
    with pytest.raises(ImageError, match=r"depth\.tif \(its values go from -3 to 0"):
        load_images(tmp_path)


SAVED = {
    "PNG": {},
    "JPEG": {"quality": 95},
    "GIF": {},
    "BMP": {},
    "WEBP": {"lossless": True},
    "TIFF": {"compression": "tiff_lzw"},
    "PPM": {},
}


def encoded(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(noise(9, 11)).save(stream, kind, **SAVED[kind])
    return stream.getvalue()


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(sorted(SAVED)), share=st.floats(0, 0.97))
def test_truncated_pictures_of_every_format_are_found(
    tmp_path_factory: pytest.TempPathFactory, kind: str, share: float
) -> None:
    folder = tmp_path_factory.mktemp("tree") / "train" / "cat"
    folder.mkdir(parents=True)
    sound = encoded(kind)
    (folder / "x").write_bytes(sound[: int(len(sound) * share)])
    with pytest.raises(ImageError, match="1 of 1 files cannot be read as pictures"):
        load_images(folder.parent.parent)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=120, deadline=None)
@given(kind=st.sampled_from(sorted(SAVED)), seed=st.integers(0, 2**32), flips=st.integers(1, 4))
@example(kind="PNG", seed=5117, flips=1)  # in the last chunk's name, after all of the picture
def test_altered_bytes_raise_image_errors_or_nothing(
    tmp_path_factory: pytest.TempPathFactory, kind: str, seed: int, flips: int
) -> None:
    folder = tmp_path_factory.mktemp("tree") / "train" / "cat"
    folder.mkdir(parents=True)
    content = bytearray(encoded(kind))
    for place in random.Random(seed).sample(range(len(content)), flips):
        content[place] ^= 1 << (seed % 8)
    (folder / "x").write_bytes(content)
    try:
        images = load_images(folder.parent.parent)
    except ImageError as error:
        assert str(folder / "x") in str(error)  # noqa: PT017 (either outcome is right, any other exception is not)
    else:
        assert images.pixels[0].dtype == torch.uint8
        if kind == "PNG":  # the one format here whose every byte of the picture is under a checksum
            assert torch.equal(images.pixels[0], torch.from_numpy(noise(9, 11)).permute(2, 0, 1))


def test_a_file_that_changes_after_loading_is_named(tmp_path: Path) -> None:
    folder = tree(tmp_path, {"cat": 2})
    images = load_images(folder)
    for path in (folder / "cat").iterdir():
        path.unlink()
    with pytest.raises(ImageError, match=r"picture 0.\.png could be read before and cannot now"):
        images.pixels[:]


@pytest.mark.parametrize("inside", ["train/cat/more", "cat/more", "Train/cat"])
def test_folders_inside_class_folders_are_named(tmp_path: Path, inside: str) -> None:
    tree(tmp_path / inside, {"x": 2})
    for part in (tmp_path / inside / "x").iterdir():
        part.rename(tmp_path / inside / part.name)
    (tmp_path / inside / "x").rmdir()
    with pytest.raises(ImageError, match=r"folders inside: .*name the folders of the splits train and test"):
        load_images(tmp_path)


def test_empty_and_missing_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="holds no class folder"):
        load_images(tmp_path)
    tree(tmp_path, {"cat": 3})
    (tmp_path / "dog").mkdir()
    (tmp_path / "emu").mkdir()
    (tmp_path / "emu" / ".keep").write_text("")
    with pytest.raises(ImageError, match=r"hold no picture: \S*dog, \S*emu; add some or remove them"):
        load_images(tmp_path)
    with pytest.raises(ImageError, match="is no folder"):
        load_images(tmp_path / "cat" / "picture 00.png")
    with pytest.raises(ImageError, match=r"no images .*nowhere"):
        load_images(tmp_path / "nowhere")


def test_a_folder_called_fashion_is_given_as_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tree(tmp_path / "fashion", {"cat": 5})
    assert load_images(Path("fashion")).counts() == {"cat": 4}
    assert load_images("fashion", per_class=1).class_names[0] == "t-shirt"


def test_only_what_is_indexed_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images: Images = load_images(tree(tmp_path / "train", {"cat": 6}).parent)
    opened = []
    decode = folders_module._decode

    def counted(path: Path, shape: tuple[int, int, int] | None) -> Tensor:
        opened.append(path.name)
        return decode(path, shape)

    monkeypatch.setattr(folders_module, "_decode", counted)
    next(images[2:].batches(2))
    assert opened == ["picture 02.png", "picture 03.png"]
