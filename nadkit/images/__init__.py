"""Pictures: the bundled sets, rendered scenes, folders and datasets as `Images`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nadkit.errors import ImageError, closest
from nadkit.images.collection import Batch, Images
from nadkit.images.lazy import LazyPixels
from nadkit.images.mosaics import Mosaics

if TYPE_CHECKING:
    from nadkit.images.convert import Like

__all__ = ["Batch", "Images", "LazyPixels", "Mosaics", "load_images"]

_BUNDLED = ("fashion", "scenes")
_SCENES_PER_CLASS = {"train": 500, "test": 200}


def load_images(
    source: str | Path,
    *,
    split: Literal["train", "test"] = "train",
    per_class: int | None = None,
    seed: int = 0,
    full: bool | str | Path = False,
    like: Like | None = None,
) -> Images:
    """Return the pictures of a bundled set or of a folder, class by class.

    Examples
    --------
    >>> images = load_images("fashion", split="test", per_class=2)
    >>> images
    Images(20 pictures, 1 × 28 × 28 uint8, 10 classes: t-shirt, trouser, pullover, dress, coat, sandal, …)

    Parameters
    ----------
    source
        ``"fashion"`` (Fashion-MNIST, 28 × 28 grey, ten classes), ``"scenes"`` (rendered, 32 × 32 RGB, each
        with its objects), or a folder of class folders that hold pictures, which stay on disk until they are
        indexed. A folder of one of these names is given as a `pathlib.Path`.
    split
        ``"train"`` or ``"test"``; they share no picture, whatever the seeds. A folder without ``train`` and
        ``test`` folders in it is divided 80 : 20, see `nadkit.images.folders.read_tree`.
    per_class
        Pictures of each class, at least 1: a random subset by `seed`, or how many scenes to render. None:
        all, which is 500 for training and 200 for testing a class in the bundled sets.
    seed
        Of the subset of ``"fashion"`` and of folders, and of the rendering of ``"scenes"``.
    full
        For ``"fashion"``: True reads the whole set (60,000 and 10,000) from where Debian's package
        ``dataset-fashion-mnist`` puts it, a folder from the four IDX files there.
    like
        A network. Pictures of a folder are converted to its input shape, and folder names matched to its
        class names, case, spaces, hyphens and underscores aside. Either all are among them, or none is, of
        pictures of other things, which keep their folders' names. The bundled sets are checked against it and
        never converted.

    Returns
    -------
    Images
        uint8.

    Raises
    ------
    ImageError
        The source or split is unknown (the closest are named), too few pictures of a class are there, files
        are missing or damaged (they are named), or the pictures do not fit `like`.

    Source
    ------
    Fashion-MNIST: Xiao, Rasul and Vollgraf, 2017.
    """
    if split not in ("train", "test"):
        raise ImageError(f"no split {split!r}; {closest(str(split), ('train', 'test'))}")
    if per_class is not None and per_class < 1:
        raise ImageError(f"{per_class} pictures a class were asked for; give at least 1, or None for all")
    bundled = isinstance(source, str) and source in _BUNDLED
    if full is not False and source != "fashion":
        raise ImageError(
            f"full={full!r} was asked for with {str(source)!r}; only 'fashion' has a whole set: leave it out"
        )
    if bundled:
        images = _fashion(split, full) if source == "fashion" else _scenes(split, per_class, seed)
        _check_fits(images, str(source), like)
    else:
        images = _tree(source, split, like)
    # Scenes are rendered in the number asked for.
    return images if per_class is None or images.objects is not None else images.take(per_class, seed)


def _fashion(split: Literal["train", "test"], full: bool | str | Path) -> Images:
    from nadkit.images import fashion

    if full is False:
        pixels, labels = fashion.read_shipped(split)
    else:
        pixels, labels = fashion.read_folder(None if full is True else full, split)
    return Images(pixels, labels, fashion.CLASS_NAMES)


def _scenes(split: Literal["train", "test"], per_class: int | None, seed: int) -> Images:
    from nadkit.images import scenes

    count = _SCENES_PER_CLASS[split] if per_class is None else per_class
    pixels, labels, objects = scenes.render(count, seed=seed, split=split)
    return Images(pixels, labels, tuple(scenes.CLASS_NAMES), objects)


def _tree(source: str | Path, split: Literal["train", "test"], like: Like | None) -> Images:
    from nadkit.images.folders import read_tree

    if not isinstance(source, str | Path):
        raise ImageError(
            f"images of a {type(source).__name__} were asked for; give 'fashion', 'scenes' or a folder, "
            "and datasets to Images.from_dataset"
        )
    if not Path(source).expanduser().exists():
        raise ImageError(
            f"no images {str(source)!r}; {closest(str(source), _BUNDLED)}; "
            "or give a folder of class folders that exists"
        )
    return read_tree(source, split=split, like=like)


def _check_fits(images: Images, source: str, like: Like | None) -> None:
    shape = tuple(images.pixels.shape)[1:]
    if like is not None and tuple(like.input_shape) != shape:
        raise ImageError(
            f"{source!r} has pictures of {shape} and the network takes {tuple(like.input_shape)}; "
            "choose a network trained on them, or leave like= out"
        )
