"""Fashion-MNIST: the shipped subset, the whole set of IDX files, and the command that makes the subset.

``python -m nadkit.images.fashion [OUT] [--source FOLDER]`` writes the two contact sheets that are shipped in
``nadkit/images/data``: the first 500 training and 200 test pictures of every class in file order, class by
class.

**Source.** Xiao, Rasul and Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms", 2017 (MIT licence). The IDX format is described at the end of LeCun's MNIST page.
"""

from __future__ import annotations

import argparse
import gzip
import math
import struct
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Literal

import torch
from torch import Tensor

from nadkit.errors import ImageError

CLASS_NAMES: tuple[str, ...] = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
SIDE = 28
SHIPPED_PER_CLASS = {"train": 500, "test": 200}
DEBIAN_FOLDERS = (Path("/usr/share/datasets/fashion-mnist"), Path("/usr/share/dataset-fashion-mnist"))
DATA = Path(__file__).parent / "data"
INSTALL_HINT = "run `apt-get install dataset-fashion-mnist`, or give a folder with the four IDX files"

_IDX_STEMS = {"train": "train", "test": "t10k"}
_SHEET_COLUMNS = 100
# The largest array an IDX header may announce; the whole training set has 47 MB. A damaged header would
# otherwise ask for any amount of memory before the first pixel is read.
_MOST_BYTES = 1 << 30


def read_idx(path: str | Path) -> Tensor:
    """Return the array of bytes that an IDX file holds, gzipped or not.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "labels-idx1-ubyte"
    ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 0, 9]))
    ...     read_idx(path)
    tensor([7, 0, 9], dtype=torch.uint8)

    Parameters
    ----------
    path
        A file of unsigned bytes (IDX type 8). Gzip is recognised by its content, not by the name.

    Returns
    -------
    Tensor
        uint8, with the dimensions the header announces.

    Raises
    ------
    ImageError
        The file is missing, is no IDX file of unsigned bytes, is truncated, has bytes left over, or its gzip
        stream is damaged.
    """
    path = Path(path)
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if not zipped:
                return _parse_idx(raw, path)
            with gzip.GzipFile(fileobj=raw) as stream:
                return _parse_idx(stream, path)
    except (OSError, EOFError, zlib.error) as error:
        raise ImageError(f"cannot read the IDX file {path}: {error}; {INSTALL_HINT}") from None


def _parse_idx(stream: BinaryIO | gzip.GzipFile, path: Path) -> Tensor:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] != 8 or magic[3] == 0:
        raise ImageError(
            f"{path} is no IDX file of unsigned bytes: it begins with {magic.hex(' ') or 'nothing'}, "
            f"and 00 00 08 and a number of dimensions is expected; {INSTALL_HINT}"
        )
    dimensions = magic[3]
    header = stream.read(4 * dimensions)
    if len(header) < 4 * dimensions:
        raise ImageError(f"{path} is truncated: it ends within its header; {INSTALL_HINT}")
    shape = struct.unpack(f">{dimensions}I", header)
    size = math.prod(shape)
    if not 0 < size <= _MOST_BYTES:
        raise ImageError(
            f"the header of {path} announces an array of {shape}; "
            f"1 to {_MOST_BYTES} bytes can be read; {INSTALL_HINT}"
        )
    content = bytearray(stream.read(size + 1))
    if len(content) != size:
        state = "truncated" if len(content) < size else "longer than its header says"
        raise ImageError(f"{path} is {state}: {len(content)} of {size} bytes are there; {INSTALL_HINT}")
    return torch.frombuffer(content, dtype=torch.uint8).reshape(shape)


def read_folder(folder: str | Path | None, split: Literal["train", "test"]) -> tuple[Tensor, Tensor]:
    """Return the pictures and labels of a folder of IDX files, class by class.

    Parameters
    ----------
    folder
        Holds ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte`` and the two ``t10k`` files, each with
        or without ``.gz``. None looks where the Debian package ``dataset-fashion-mnist`` puts them.
    split
        ``"train"`` (60,000 pictures) or ``"test"`` (10,000, the ``t10k`` files).

    Returns
    -------
    tuple of Tensor
        Pixels uint8 (N, 1, 28, 28) and labels int64 (N,); sorted by class, in file order within a class.

    Raises
    ------
    ImageError
        The folder or a file is missing or damaged, or pictures and labels do not fit together.
    """
    if folder is None:
        folder = next((there for there in DEBIAN_FOLDERS if there.is_dir()), None)
        if folder is None:
            raise ImageError(
                f"the whole fashion set was asked for and {DEBIAN_FOLDERS[0]} is not there; {INSTALL_HINT}"
            )
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise ImageError(f"the fashion set was asked for from {folder}, which is no folder; {INSTALL_HINT}")
    stem = _IDX_STEMS[split]
    images_path = _find(folder, f"{stem}-images-idx3-ubyte")
    labels_path = _find(folder, f"{stem}-labels-idx1-ubyte")
    pixels, labels = read_idx(images_path), read_idx(labels_path)
    if pixels.ndim != 3 or tuple(pixels.shape[1:]) != (SIDE, SIDE):
        raise ImageError(
            f"{images_path} holds {tuple(pixels.shape)}; pictures of (N, {SIDE}, {SIDE}) are expected"
        )
    if labels.ndim != 1 or len(labels) != len(pixels):
        raise ImageError(
            f"{labels_path} holds {tuple(labels.shape)} labels and {images_path.name} "
            f"{len(pixels)} pictures; one label a picture is expected"
        )
    if int(labels.max()) >= len(CLASS_NAMES):
        raise ImageError(
            f"{labels_path} has the label {int(labels.max())}; labels are 0 to {len(CLASS_NAMES) - 1}"
        )
    order = torch.argsort(labels, stable=True)
    return pixels[order].unsqueeze(1), labels[order].long()


def _find(folder: Path, name: str) -> Path:
    for candidate in (folder / f"{name}.gz", folder / name):
        if candidate.is_file():
            return candidate
    raise ImageError(f"neither {name}.gz nor {name} is in {folder}; {INSTALL_HINT}")


def read_shipped(split: Literal["train", "test"], data: str | Path = DATA) -> tuple[Tensor, Tensor]:
    """Return the pictures and labels shipped with nadkit, class by class.

    Examples
    --------
    >>> pixels, labels = read_shipped("test")
    >>> pixels.shape, labels.bincount().tolist()[:3]
    (torch.Size([2000, 1, 28, 28]), [200, 200, 200])

    Parameters
    ----------
    split
        ``"train"`` (500 a class) or ``"test"`` (200 a class).
    data
        The folder of the two contact sheets.

    Returns
    -------
    tuple of Tensor
        Pixels uint8 (N, 1, 28, 28) and labels int64 (N,), sorted by class.

    Raises
    ------
    ImageError
        A contact sheet is missing, damaged or of another size.
    """
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    path = Path(data) / f"fashion_{split}.png"
    per_class = SHIPPED_PER_CLASS[split]
    count = per_class * len(CLASS_NAMES)
    expected = (_SHEET_COLUMNS * SIDE, count // _SHEET_COLUMNS * SIDE)
    advice = "reinstall nadkit, or run `python -m nadkit.images.fashion`"
    try:
        with Image.open(path, formats=["PNG"]) as sheet:
            if sheet.mode != "L" or sheet.size != expected:
                raise ImageError(
                    f"{path} is a sheet of {sheet.size} in mode {sheet.mode}; "
                    f"{expected} in mode L is expected; {advice}"
                )
            pixels = torch.from_numpy(np.array(sheet))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, zlib.error) as error:
        raise ImageError(f"cannot read the shipped pictures {path}: {error}; {advice}") from None
    rows = count // _SHEET_COLUMNS
    pixels = pixels.reshape(rows, SIDE, _SHEET_COLUMNS, SIDE).transpose(1, 2).reshape(count, 1, SIDE, SIDE)
    return pixels, torch.arange(len(CLASS_NAMES)).repeat_interleave(per_class)


def build(out: str | Path = DATA, source: str | Path | None = None) -> dict[Path, int]:
    """Write the two contact sheets and return the size of each in bytes.

    Parameters
    ----------
    out
        The folder to write ``fashion_train.png`` and ``fashion_test.png`` to; made if it is not there.
    source
        A folder of IDX files; None for the one of the Debian package.

    Returns
    -------
    dict
        Path to bytes. The same source and Pillow give the same pixels, whatever the time or place.

    Raises
    ------
    ImageError
        The source is missing or damaged, or has too few pictures of a class.
    """
    from PIL import Image

    out = Path(out)
    written = {}
    splits: tuple[Literal["train", "test"], ...] = ("train", "test")
    for split in splits:
        pixels, labels = read_folder(source, split)
        per_class = SHIPPED_PER_CLASS[split]
        chosen = []
        for index, name in enumerate(CLASS_NAMES):
            of_class = (labels == index).nonzero().flatten()
            if len(of_class) < per_class:
                raise ImageError(
                    f"{per_class} {split} pictures of {name!r} are shipped and the source has "
                    f"{len(of_class)}; {INSTALL_HINT}"
                )
            chosen.append(pixels[of_class[:per_class], 0])
        tiles = torch.cat(chosen)
        rows = len(tiles) // _SHEET_COLUMNS
        sheet = tiles.reshape(rows, _SHEET_COLUMNS, SIDE, SIDE).transpose(1, 2)
        sheet = sheet.reshape(rows * SIDE, _SHEET_COLUMNS * SIDE)
        out.mkdir(parents=True, exist_ok=True)
        path = out / f"fashion_{split}.png"
        Image.fromarray(sheet.numpy()).save(path, "PNG", compress_level=9)
        written[path] = path.stat().st_size
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m nadkit.images.fashion", description="Write the contact sheets that nadkit ships."
    )
    parser.add_argument(
        "out", nargs="?", type=Path, default=DATA, help="folder to write to (default: %(default)s)"
    )
    parser.add_argument("--source", type=Path, default=None, help="folder of IDX files (default: Debian's)")
    options = parser.parse_args(arguments)
    try:
        written = build(options.out, options.source)
    except ImageError as error:
        parser.exit(1, f"{error}\n")
    for path, size in written.items():
        sys.stdout.write(f"{path}  {size / 1e6:.2f} MB\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
