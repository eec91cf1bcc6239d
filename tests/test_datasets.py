"""Torch and torchvision-style datasets as `Images`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from PIL import Image
from torch import Tensor

from nadkit.errors import ImageError
from nadkit.images import Images, LazyPixels


class Like:
    def __init__(self, shape: tuple[int, int, int], names: tuple[str, ...] = ()) -> None:
        self.input_shape = shape
        self.class_names = names


class Pairs:
    def __init__(self, items: list[tuple[object, object]], classes: list[str] | None = None) -> None:
        self.items = items
        if classes is not None:
            self.classes = classes

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[object, object]:
        return self.items[index]


def test_a_dataset_of_tensors_is_read_on_demand() -> None:
    pixels = torch.rand(6, 3, 4, 5, dtype=torch.float64)
    data = torch.utils.data.TensorDataset(pixels, torch.tensor([0, 1, 2, 0, 1, 2]))
    images = Images.from_dataset(data, ["a", "b", "c"])
    assert isinstance(images.pixels, LazyPixels)
    assert images.pixels[:].equal(pixels.float())
    assert images.labels.tolist() == [0, 1, 2, 0, 1, 2]
    grey = Images.from_dataset([(torch.full((4, 5), 9, dtype=torch.uint8), torch.tensor(0))], ["a"])
    assert grey.pixels.shape == (1, 1, 4, 5)
    assert grey.pixels.dtype == torch.uint8


def test_a_torchvision_style_dataset_brings_its_classes_and_pictures() -> None:
    items: list[tuple[object, object]] = [
        (Image.new("RGB", (8, 6), colour), n) for n, colour in enumerate(["red", "lime"])
    ]
    images = Images.from_dataset(Pairs(items, ["fire", "grass"]))
    assert images.class_names == ("fire", "grass")
    assert images.pixels[:][:, :, 0, 0].tolist() == [[255, 0, 0], [0, 255, 0]]
    assert images.pixels.shape == (2, 3, 6, 8)
    part = Images.from_dataset(torch.utils.data.Subset(Pairs(items, ["fire", "grass"]), [1]))  # type: ignore[arg-type]
    assert part.counts() == {"fire": 0, "grass": 1}
    # By name, not by position, and converted to what the network takes.
    fitted = Images.from_dataset(
        Pairs(items, ["fire", "grass"]), like=Like((1, 4, 4), ("grass", "sea", "fire"))
    )
    assert fitted.class_names == ("grass", "sea", "fire")
    assert fitted.labels.tolist() == [2, 0]
    assert fitted.pixels.shape == (2, 1, 4, 4)


@pytest.mark.parametrize(
    ("items", "names", "said"),
    [
        ([], ["a"], "no item"),
        ([(torch.zeros(1, 2, 2), 0)], None, "class_names="),
        ([(torch.zeros(1, 2, 2), 0), (torch.zeros(1, 2, 3), 0)], ["a"], r"item 1 .*\(1, 2, 3\).*item 0"),
        ([(torch.zeros(1, 2, 2), 0), (torch.zeros(1, 2, 2).byte(), 0)], ["a"], "item 1 is torch.uint8"),
        ([(torch.zeros(1, 2, 2), 0), (torch.full((1, 2, 2), float("nan")), 0)], ["a"], r"picture\(s\): 1;"),
        ([(torch.zeros(1, 2, 2), 1)], ["a"], "label 1 .* 1 class names"),
        ([(torch.zeros(1, 2, 2), -1)], ["a"], "label -1"),
        ([(torch.zeros(1, 2, 2), "cat")], ["a"], "label 'cat'"),
        ([torch.zeros(1, 2, 2)], ["a"], "item 0 of the dataset is a Tensor"),
        ([(torch.zeros(1, 2, 2).long(), 0)], ["a"], "int64"),
        ([(torch.zeros(2), 0)], ["a"], r"\(2,\)"),
        ([("path.png", 0)], ["a"], "item 0 is a str"),
    ],
)
def test_a_dataset_that_does_not_fit_is_refused_with_the_item(
    items: list[tuple[object, object]], names: list[str] | None, said: str
) -> None:
    with pytest.raises(ImageError, match=said):
        Images.from_dataset(Pairs(items), names)


def test_a_dataset_of_tensors_must_have_the_shape_the_network_takes() -> None:
    with pytest.raises(ImageError, match=r"\(1, 2, 2\).*takes \(3, 8, 8\)"):
        Images.from_dataset(Pairs([(torch.zeros(1, 2, 2), 0)]), ["a"], like=Like((3, 8, 8), ("a",)))


def test_an_iterable_dataset_is_refused() -> None:
    class Stream(torch.utils.data.IterableDataset[tuple[Tensor, int]]):
        def __iter__(self) -> Iterator[tuple[Tensor, int]]:
            yield torch.zeros(1, 2, 2), 0

    with pytest.raises(ImageError, match="Stream has no length"):
        Images.from_dataset(Stream(), ["a"])  # type: ignore[arg-type]
