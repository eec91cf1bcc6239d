"""Fashion-MNIST: what is shipped is the source's, and damaged files are named."""

from __future__ import annotations

import gzip
import hashlib
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from nadkit.errors import ImageError
from nadkit.images import fashion as fashion_module
from nadkit.images import load_images


def idx(array: Tensor) -> bytes:
    return (
        bytes([0, 0, 8, array.ndim])
        + struct.pack(f">{array.ndim}I", *array.shape)
        + bytes(array.flatten().tolist())
    )


def write_set(folder: Path, per_class: int = 3, zipped: bool = True) -> tuple[Tensor, Tensor]:
    """A whole set of IDX files in `folder`; labels are in no order. Returns the training part."""
    folder.mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(5)
    for stem in ("t10k", "train"):
        labels = torch.arange(10).repeat(per_class)[torch.randperm(10 * per_class, generator=generator)]
        pixels = torch.randint(0, 256, (10 * per_class, 28, 28), generator=generator).to(torch.uint8)
        for kind, array in (("images-idx3", pixels), ("labels-idx1", labels.to(torch.uint8))):
            content = gzip.compress(idx(array)) if zipped else idx(array)
            (folder / f"{stem}-{kind}-ubyte{'.gz' if zipped else ''}").write_bytes(content)
    return pixels, labels


@pytest.mark.parametrize(
    ("split", "per_class", "digest"),
    [
        ("train", 500, "4140a00a749e1f61e28928789f0c1a40d186ebcb94e163107591e25173a52f72"),
        ("test", 200, "80f041a1db53aeefce90d32bb6094e616abf55eed82a9c247b6c2a44a773acf7"),
    ],
)
def test_the_shipped_pictures_are_those_that_were_chosen(split: str, per_class: int, digest: str) -> None:
    images = load_images("fashion", split=split)  # type: ignore[arg-type]
    assert images.class_names == fashion_module.CLASS_NAMES
    assert images.pixels.shape == (10 * per_class, 1, 28, 28)
    assert images.labels.equal(torch.arange(10).repeat_interleave(per_class))
    assert hashlib.sha256(images.pixels[:].numpy().tobytes()).hexdigest() == digest


def test_the_shipped_files_are_small() -> None:
    sizes = [path.stat().st_size for path in fashion_module.DATA.iterdir()]
    assert len(sizes) == 2
    assert sum(sizes) < 4e6


@pytest.mark.skipif(
    not fashion_module.DEBIAN_FOLDERS[0].is_dir(), reason="needs Debian's dataset-fashion-mnist"
)
@pytest.mark.parametrize(("split", "stem"), [("train", "train"), ("test", "t10k")])
def test_the_shipped_pictures_are_the_first_of_the_source(split: str, stem: str) -> None:
    shipped = load_images("fashion", split=split)  # type: ignore[arg-type]
    per_class = fashion_module.SHIPPED_PER_CLASS[split]
    folder = fashion_module.DEBIAN_FOLDERS[0]
    pixels = gzip.decompress((folder / f"{stem}-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((folder / f"{stem}-labels-idx1-ubyte.gz").read_bytes())[8:]
    seen = [0] * 10
    for number, label in enumerate(labels):
        if seen[label] < per_class:
            picture = shipped.pixels[label * per_class + seen[label]]
            assert picture.numpy().tobytes() == pixels[number * 784 : (number + 1) * 784]
            seen[label] += 1
    assert seen == [per_class] * 10
    whole = load_images("fashion", split=split, full=True)  # type: ignore[arg-type]
    assert set(whole.counts().values()) == {len(labels) // 10}
    assert whole.of("sneaker").pixels[:per_class].equal(shipped.of("sneaker").pixels[:])


@pytest.mark.parametrize("zipped", [True, False])
def test_a_folder_of_idx_files_is_read_class_by_class_in_file_order(tmp_path: Path, zipped: bool) -> None:
    pixels, labels = write_set(tmp_path, zipped=zipped)
    images = load_images("fashion", full=tmp_path)
    expected = [
        picture
        for index in range(10)
        for picture, label in zip(pixels, labels, strict=True)
        if label == index
    ]
    assert images.pixels[:].equal(torch.stack(expected).unsqueeze(1))
    assert images.labels.tolist() == sorted(labels.tolist())
    assert not load_images("fashion", full=str(tmp_path), split="test").pixels[:].equal(images.pixels[:])


def test_the_command_writes_what_the_loader_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion_module, "SHIPPED_PER_CLASS", {"train": 20, "test": 10})
    pixels, labels = write_set(tmp_path / "source", per_class=23)
    out = tmp_path / "out"
    assert fashion_module.main([str(out), "--source", str(tmp_path / "source")]) == 0
    shipped, shipped_labels = fashion_module.read_shipped("train", out)
    assert shipped_labels.tolist() == [index for index in range(10) for _ in range(20)]
    for index in range(10):
        assert shipped[20 * index : 20 * index + 20, 0].equal(pixels[labels == index][:20])
    assert len(fashion_module.read_shipped("test", out)[0]) == 100
    monkeypatch.setattr(fashion_module, "SHIPPED_PER_CLASS", {"train": 30, "test": 10})
    with pytest.raises(ImageError, match=r"30 train pictures of 't-shirt'.*has 23"):
        fashion_module.build(out, tmp_path / "source")


def test_the_command_reports_a_missing_source_without_a_traceback(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "nadkit.images.fashion",
        str(tmp_path / "out"),
        "--source",
        str(tmp_path / "no"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "apt-get install dataset-fashion-mnist" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr


def test_a_missing_whole_set_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion_module, "DEBIAN_FOLDERS", (tmp_path / "nowhere",))
    with pytest.raises(ImageError, match=r"apt-get install dataset-fashion-mnist.*folder"):
        load_images("fashion", full=True)
    with pytest.raises(ImageError, match=r"no folder.*apt-get install"):
        load_images("fashion", full=tmp_path / "nowhere")
    with pytest.raises(ImageError, match=r"train-images-idx3-ubyte\.gz.*apt-get install"):
        load_images("fashion", full=tmp_path)


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        ("train-labels-idx1-ubyte", torch.zeros(29, dtype=torch.uint8), r"\(29,\) labels.*30 pictures"),
        ("train-labels-idx1-ubyte", torch.full((30,), 10, dtype=torch.uint8), "label 10; labels are 0 to 9"),
        ("train-images-idx3-ubyte", torch.zeros(30, 28, 27, dtype=torch.uint8), r"\(30, 28, 27\)"),
        ("train-images-idx3-ubyte", torch.zeros(30, 784, dtype=torch.uint8), r"\(30, 784\)"),
    ],
)
def test_idx_files_that_do_not_fit_are_refused(tmp_path: Path, name: str, array: Tensor, said: str) -> None:
    write_set(tmp_path, zipped=False)
    (tmp_path / name).write_bytes(idx(array))
    with pytest.raises(ImageError, match=said):
        load_images("fashion", full=tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "nothing"),
        (bytes([0, 0, 13, 1, 0, 0, 0, 1, 5]), "no IDX file.*00 00 0d 01"),
        (bytes([0, 0, 8, 0]), "no IDX file"),
        (bytes([0, 0, 8, 2, 0, 0, 0, 1, 0]), "within its header"),
        (bytes([0, 0, 8, 1, 0, 0, 0, 3, 1, 2]), "truncated: 2 of 3 bytes"),
        (bytes([0, 0, 8, 1, 0, 0, 0, 1, 1, 2]), "longer than its header"),
        (bytes([0, 0, 8, 1, 0, 0, 0, 0]), "announces"),
        (bytes([0, 0, 8, 3]) + b"\xff" * 12, "announces"),
        (gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 3, 1, 2, 3]))[:-6], "cannot read"),
        (b"\x1f\x8b no gzip", "cannot read"),
    ],
)
def test_a_damaged_idx_file_is_named_with_the_reason(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "damaged"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=said) as caught:
        fashion_module.read_idx(path)
    assert str(path) in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), zipped=st.booleans())
def test_damaged_idx_bytes_never_pass_for_others(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, zipped: bool
) -> None:
    array = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 4)
    sound = gzip.compress(idx(array), mtime=0) if zipped else idx(array)
    path = tmp_path_factory.getbasetemp() / "some-idx"
    kind = data.draw(st.sampled_from(["cut", "grow", "flip", "noise"]))
    place = data.draw(st.integers(0, len(sound) - 1))
    if kind == "cut":
        damaged = sound[:place]
    elif kind == "grow":
        damaged = sound + data.draw(st.binary(min_size=1, max_size=9))
    elif kind == "flip":
        damaged = (
            sound[:place] + bytes([sound[place] ^ (1 << data.draw(st.integers(0, 7)))]) + sound[place + 1 :]
        )
    else:
        damaged = data.draw(st.binary(max_size=60))
    path.write_bytes(damaged)
    try:
        read = fashion_module.read_idx(path)
    except ImageError as error:
        assert str(path) in str(error)  # noqa: PT017 (either outcome is right, any other exception is not)
        return
    # Only what no checksum covers can pass: a pixel of a plain file, or the name and time in gzip's header.
    assert kind in ("flip", "noise") or (kind == "grow" and zipped)
    if not zipped and kind == "flip":
        assert place >= 4
        assert read.numel() == 24
    if zipped and kind != "noise":
        assert read.equal(array)


def test_a_damaged_contact_sheet_is_named(tmp_path: Path) -> None:
    sheet = (fashion_module.DATA / "fashion_test.png").read_bytes()
    for content in (b"", sheet[:1000], sheet[:-30_000], b"GIF89a" + sheet[6:]):
        (tmp_path / "fashion_test.png").write_bytes(content)
        with pytest.raises(ImageError, match=r"fashion_test\.png.*reinstall"):
            fashion_module.read_shipped("test", tmp_path)
    Image.new("L", (2800, 561)).save(tmp_path / "fashion_test.png")
    with pytest.raises(ImageError, match=r"2800, 560.*expected"):
        fashion_module.read_shipped("test", tmp_path)
