"""2 × 2 mosaics of pictures of four distinct classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nadkit.errors import ImageError

if TYPE_CHECKING:
    from nadkit.images.collection import Images


@dataclass(frozen=True, eq=False)
class Mosaics:
    """2 × 2 mosaics of pictures of four distinct classes.

    Parameters
    ----------
    pixels
        (M, C, 2H, 2W), of the dtype of the pictures.
    classes
        (M, 4) int64: the class index of each quadrant, in the order top left, top right, bottom left, bottom
        right.
    sources
        (M, 4) int64: which picture of the images fills each quadrant.
    class_names
        The names that `classes` points to.
    """

    pixels: Tensor
    classes: Tensor
    sources: Tensor
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pixels)


def compose(images: Images, count: int, seed: int, tasks: Sequence[str] | None) -> Mosaics:
    """Return mosaics of these pictures; see `Images.mosaics`."""
    if count < 1:
        raise ImageError(f"{count} mosaics were asked for; give at least 1")
    with_pictures = tuple(name for name, number in images.counts().items() if number)
    names = with_pictures if tasks is None else tuple(tasks)
    if len(names) < 4 or len(set(names)) < len(names):
        raise ImageError(
            f"mosaics of {', '.join(names)} were asked for; "
            "four or more distinct classes with pictures are needed"
        )
    generator = torch.Generator().manual_seed(seed)
    indices = torch.tensor([images.class_index(name) for name in names])
    members = [images.rows_of_class(index) for index in indices.tolist()]
    used = torch.zeros(len(names))
    picks, sources = [], []
    for _ in range(count):
        # The four classes used least so far, ties broken at random: every class is used equally often.
        four = (used + 0.5 * torch.rand(len(names), generator=generator)).argsort()[:4]
        used[four] += 1
        picks.append(indices[four])
        sources.append([_pick(members[position], generator) for position in four.tolist()])
    source_rows = torch.tensor(sources)
    tiles = images.pixels[source_rows.flatten()]
    channels, height, width = tiles.shape[1:]
    tiles = tiles.reshape(count, 2, 2, channels, height, width).permute(0, 3, 1, 4, 2, 5)
    pixels = tiles.reshape(count, channels, 2 * height, 2 * width)
    return Mosaics(pixels, torch.stack(picks), source_rows, images.class_names)


def _pick(rows: Tensor, generator: torch.Generator) -> int:
    return int(rows[torch.randint(len(rows), (1,), generator=generator)])
