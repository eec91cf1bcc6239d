"""Pictures that stay where they are until they are indexed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nadkit.errors import ImageError


def rows_of(index: int | slice | Sequence[int] | Tensor, length: int) -> Tensor:
    """Return the row numbers (int64, 0 to length - 1) that an index picks, as a list would.

    Examples
    --------
    >>> rows_of(-1, 5), rows_of(slice(None, None, 2), 5)
    (tensor([4]), tensor([0, 2, 4]))

    Parameters
    ----------
    index
        An integer, slice, sequence of integers or booleans, or a 1-d tensor of either.
    length
        How many pictures there are.

    Raises
    ------
    ImageError
        A row is out of range, a mask has another length, or the index is of another kind.
    """
    if isinstance(index, slice):
        return torch.arange(length)[_forward(index, length)]
    if isinstance(index, str):
        raise ImageError(
            f"pictures cannot be picked by the text {index!r}; use .of(name) for those of a class"
        )
    try:
        rows = torch.as_tensor(index, device="cpu")
    except (TypeError, ValueError, RuntimeError):
        raise ImageError(
            f"pictures cannot be picked by {index!r}; give an integer, slice, list, mask or index tensor"
        ) from None
    rows = rows.reshape(1) if rows.ndim == 0 else rows
    if rows.numel() == 0:
        return torch.empty(0, dtype=torch.int64)
    if rows.ndim != 1 or rows.dtype.is_floating_point or rows.dtype.is_complex:
        raise ImageError(
            f"pictures cannot be picked by {rows.dtype} {tuple(rows.shape)}; "
            "give a 1-d tensor of integers or a mask"
        )
    if rows.dtype == torch.bool:
        if len(rows) != length:
            raise ImageError(
                f"a mask of {len(rows)} was given for {length} pictures; give one value a picture"
            )
        return rows.nonzero().flatten()
    rows = rows.long()
    wrong = rows[(rows < -length) | (rows >= length)]
    if len(wrong):
        raise ImageError(
            f"picture {int(wrong[0])} was asked for and there are {length}; the last is {length - 1}"
        )
    return torch.where(rows < 0, rows + length, rows)


def _forward(index: slice, length: int) -> Tensor | slice:
    start, stop, step = index.indices(length)
    # Tensors take no negative step.
    return torch.arange(start, stop, step) if step < 0 else slice(start, stop, step)


class LazyPixels:
    """Pictures that are decoded when they are indexed, so that only a batch is in memory.

    Indexing works as for a tensor (N, C, H, W): an integer gives (C, H, W), anything else (n, C, H, W).

    Examples
    --------
    >>> pixels = LazyPixels(lambda row: torch.full((1, 2, 2), row, dtype=torch.uint8), 9, (1, 2, 2))
    >>> pixels.shape, pixels[[3, 5]].shape, int(pixels[-1].max())
    (torch.Size([9, 1, 2, 2]), torch.Size([2, 1, 2, 2]), 8)

    Parameters
    ----------
    read
        Takes a row number and returns that picture, (C, H, W) of `dtype`.
    length
        How many pictures there are.
    shape
        (C, H, W) of every picture.
    dtype
        uint8 or float32.
    """

    ndim = 4

    def __init__(
        self,
        read: Callable[[int], Tensor],
        length: int,
        shape: tuple[int, int, int],
        dtype: torch.dtype = torch.uint8,
    ) -> None:
        self._read = read
        self._rows = torch.arange(length)
        self._size = shape
        self.dtype = dtype

    @property
    def shape(self) -> torch.Size:
        """(N, C, H, W)."""
        return torch.Size((len(self), *self._size))

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"LazyPixels({tuple(self.shape)}, {self.dtype})"

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Tensor:
        rows = self._rows[rows_of(index, len(self))].tolist()
        if not isinstance(index, slice) and torch.as_tensor(index).ndim == 0:
            return self._read(rows[0])
        pixels = torch.empty((len(rows), *self._size), dtype=self.dtype)
        for position, row in enumerate(rows):
            pixels[position] = self._read(row)
        return pixels

    def select(self, index: int | slice | Sequence[int] | Tensor) -> LazyPixels:
        """Return the pictures that an index picks, still not decoded."""
        part = LazyPixels(self._read, 0, self._size, self.dtype)
        part._rows = self._rows[rows_of(index, len(self))]
        return part
