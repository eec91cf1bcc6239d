"""Pictures from a folder tree, decoded when they are indexed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from nadkit.errors import ImageError
from nadkit.images.collection import Images
from nadkit.images.convert import Like, match_classes, to_tensor
from nadkit.images.lazy import LazyPixels

TRAIN_SHARE = 0.8

_SHOWN = 8
# What file managers leave behind without being asked.
_LITTER = {"thumbs.db", "desktop.ini", "__macosx"}


def read_tree(folder: str | Path, *, split: Literal["train", "test"], like: Like | None = None) -> Images:
    """Return the pictures of a ``class/picture`` tree, on disk until they are indexed.

    Every file is decoded once here, so that a damaged one is named now and not in the middle of a run.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for path in (Path(folder, "cat", f"{number}.png") for number in range(5)):
    ...         path.parent.mkdir(exist_ok=True)
    ...         Image.new("RGB", (6, 4), "red").save(path)
    ...     images = read_tree(folder, split="train")
    ...     images.counts(), images.pixels[0].shape
    ({'cat': 4}, torch.Size([3, 4, 6]))

    Parameters
    ----------
    folder
        Holds one folder for each class, which holds pictures in any format of Pillow;
        the first frame of an animated one is taken. Hidden files are ignored, and files beside the class
        folders if they are no pictures. If it holds folders ``train`` or ``test`` of class folders, these are
        the splits, and other folders beside them are ignored.
    split
        Which part. Without ``train`` and ``test`` folders, 80 % of every class are for training and 20 % for
        testing, at least one picture each, chosen by the SHA-256 of ``class/name``: the same on every machine
        and for every seed, and a picture added later moves hardly any other.
    like
        A network: pictures are converted to its input shape (see `nadkit.images.convert.to_tensor`) and
        folder names are matched to its class names: all of them, or none, of foreign pictures; any other
        folder is named in an error (see `match_classes`). None: all pictures must share one
        size and be all grey or all colour, and the class names are the sorted folder names.

    Returns
    -------
    Images
        uint8 `LazyPixels`; classes in the order of the class names, files by name within a class.

    Raises
    ------
    ImageError
        The folder, split, or a class has no picture; files are damaged or no pictures (all are counted, the
        first eight named); sizes differ without `like`; a class is none of the network's; a class has one
        picture only and there are no ``train`` and ``test`` folders.
    """
    folder = Path(folder).expanduser()
    classes, ready = _class_folders(folder, split)
    names = sorted({name for part in classes.values() for name in part})
    try:
        class_names, indices = match_classes(names, like)
    except ImageError as error:
        raise ImageError(f"class folders of {folder}: {error}") from None
    found = {name: _files(path) for name, path in classes[split].items()}
    empty = [str(classes[split][name]) for name, paths in found.items() if not paths]
    if empty:
        raise ImageError(f"class folders hold no picture: {_listed(empty)}; add some or remove them")
    files: list[list[Path]] = [[] for _ in class_names]
    for name, index in zip(names, indices, strict=True):
        # A class may have pictures in the other split alone.
        if name in found:
            files[index] = found[name] if ready else _part(found[name], classes[split][name], split)
    paths = [path for part in files for path in part]
    labels = torch.tensor([index for index, part in enumerate(files) for _ in part])
    shape = _verify(paths, None if like is None else like.input_shape)

    def read(row: int) -> Tensor:
        try:
            return _decode(paths[row], shape)
        except Exception as error:  # Pillow's plugins raise whatever damaged bytes lead them to.
            raise ImageError(
                f"{paths[row]} could be read before and cannot now: {error}; load again"
            ) from None

    return Images(LazyPixels(read, len(paths), shape), labels, class_names)


def _class_folders(folder: Path, split: str) -> tuple[dict[str, dict[str, Path]], bool]:
    """Return class name to folder for each split, and whether the tree is split already."""
    if not folder.is_dir():
        raise ImageError(f"{folder} is no folder; give one of class folders that hold pictures")
    inner = {path.name: _folders(path) for path in _folders(folder) if path.name in ("train", "test")}
    # A class may be called "train": then the folder holds pictures and no class folders.
    splits = {name: paths for name, paths in inner.items() if paths and not _own_files(folder / name)}
    if splits:
        if split not in splits:
            others = [path.name for path in _folders(folder) if path.name not in splits]
            beside = f" (and {_listed(others)}, no name of a split)" if others else ""
            raise ImageError(
                f"the {split} pictures of {folder} were asked for and it has only {next(iter(splits))}/"
                f"{beside}; add {split}/ with class folders"
            )
        _refuse_strays(folder / split)
        return {name: {path.name: path for path in paths} for name, paths in splits.items()}, True
    _refuse_strays(folder)
    classes = {path.name: path for path in _folders(folder)}
    if not classes:
        raise ImageError(
            f"{folder} holds no class folder; put the pictures of every class in a folder of its name"
        )
    return {split: classes}, False


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _LITTER


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not _hidden(path.name))


def _own_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.is_dir() and not _hidden(path.name))


def _files(folder: Path) -> list[Path]:
    inside = _folders(folder)
    if inside:
        # Were they searched, folders like Train and Test would pass for two classes.
        raise ImageError(
            f"the class folder {folder} has folders inside: {_listed(path.name for path in inside)}; "
            f"move their pictures up, load {folder} if they are the classes, or name the folders of the "
            "splits train and test"
        )
    return _own_files(folder)


def _refuse_strays(folder: Path) -> None:
    """Raise if pictures lie beside the class folders, where they would be left out in silence."""
    strays = [path for path in _own_files(folder) if _problem(path)[0] is None]
    if strays:
        raise ImageError(
            f"{len(strays)} picture(s) of {folder} lie in no class folder: "
            f"{_listed(path.name for path in strays)}; put each in the folder of its class"
        )


def _part(found: list[Path], folder: Path, split: str) -> list[Path]:
    if len(found) < 2:
        raise ImageError(
            f"{folder} holds one picture and is to be split into training and test pictures; add pictures, "
            "or make the folders train/ and test/ with class folders in each"
        )
    ranked = sorted(
        found,
        key=lambda path: hashlib.sha256(
            f"{folder.name}/{path.relative_to(folder).as_posix()}".encode()
        ).digest(),
    )
    count = min(max(round(TRAIN_SHARE * len(found)), 1), len(found) - 1)
    return sorted(ranked[:count] if split == "train" else ranked[count:])


def _verify(paths: list[Path], wanted: tuple[int, int, int] | None) -> tuple[int, int, int]:
    """Return the shape of all pictures, after decoding each once."""
    problems, shapes = [], []
    for path in paths:
        problem, shape = _problem(path, wanted)
        if problem:
            problems.append(f"{path} ({problem})")
        shapes.append(shape)
    if problems:
        raise ImageError(
            f"{len(problems)} of {len(paths)} files cannot be read as pictures: {_listed(problems)}; "
            "mend or remove them"
        )
    for path, shape in zip(paths, shapes, strict=True):
        if shape != shapes[0]:
            raise ImageError(
                f"{paths[0]} is {_size(shapes[0])} and {path} is {_size(shape)}; pictures of one folder "
                "must agree: pass like=network to convert them to what the network takes"
            )
    return shapes[0]


def _problem(
    path: Path, wanted: tuple[int, int, int] | None = None
) -> tuple[str | None, tuple[int, int, int]]:
    """Return what is wrong with a file, None if nothing, and the shape of its picture."""
    from PIL import Image, UnidentifiedImageError

    nothing = (0, 0, 0)
    if not path.is_file():
        return "no regular file", nothing
    try:
        # Decoding alone passes over some checksums, verifying alone over the pixels.
        with Image.open(path) as image:
            image.verify()
        pixels = _decode(path, wanted)
    except UnidentifiedImageError:
        known = path.suffix.casefold() in Image.registered_extensions()
        return ("damaged: its beginning is no picture's" if known else "no picture"), nothing
    except Exception as error:  # Pillow's plugins raise whatever damaged bytes lead them to.
        return f"damaged: {error}" if not isinstance(error, ImageError) else str(error), nothing
    channels, height, width = pixels.shape
    return None, (channels, height, width)


def _decode(path: Path, shape: tuple[int, int, int] | None) -> Tensor:
    from PIL import Image

    with Image.open(path) as image:
        return to_tensor(image, shape)


def _listed(items: Iterable[str]) -> str:
    every = list(items)
    return ", ".join(every[:_SHOWN]) + (", …" if len(every) > _SHOWN else "")


def _size(shape: tuple[int, int, int]) -> str:
    return f"{'grey' if shape[0] == 1 else 'colour'} {shape[1]} × {shape[2]}"
