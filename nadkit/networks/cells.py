"""Networks of searched cells: a builder that takes any genotype of the DARTS form.

A genotype names, for each intermediate node of a cell, two operations and the earlier nodes they read;
nodes 0 and 1 are the outputs of the two cells before. The published DARTS_V2 genotype is included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nadkit.errors import NadkitError, closest

OPERATIONS = (
    "none", "max_pool_3x3", "avg_pool_3x3", "skip_connect",
    "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5",
)  # fmt: skip


class Genotype(NamedTuple):
    """What a search found: (operation, node read) pairs, two per node, and the nodes a cell hands on."""

    normal: Sequence[tuple[str, int]]
    normal_concat: Sequence[int]
    reduce: Sequence[tuple[str, int]]
    reduce_concat: Sequence[int]


# Source: Liu, Simonyan, Yang, "DARTS: Differentiable Architecture Search", ICLR 2019 (second order).
DARTS_V2 = Genotype(
    normal=[
        ("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_3x3", 1),
        ("sep_conv_3x3", 1), ("skip_connect", 0), ("skip_connect", 0), ("dil_conv_3x3", 2),
    ],
    normal_concat=[2, 3, 4, 5],
    reduce=[
        ("max_pool_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 1),
        ("max_pool_3x3", 0), ("skip_connect", 2), ("skip_connect", 2), ("max_pool_3x3", 1),
    ],
    reduce_concat=[2, 3, 4, 5],
)  # fmt: skip


class Zero(nn.Module):
    """The operation `none`: an output of zeros, at the stride asked for.

    Examples
    --------
    >>> Zero(2)(torch.ones(1, 1, 3, 3)).shape
    torch.Size([1, 1, 2, 2])

    Parameters
    ----------
    stride : 1 or 2
    """

    def __init__(self, stride: int):
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Return zeros, (N, C, ceil(H / stride), ceil(W / stride))."""
        return x[:, :, :: self.stride, :: self.stride] * 0.0


class FactorizedReduce(nn.Module):
    """Halve the picture without losing every second pixel: two shifted 1×1 convolutions, side by side.

    Examples
    --------
    >>> FactorizedReduce(4, 8)(torch.zeros(1, 4, 7, 7)).shape
    torch.Size([1, 8, 4, 4])

    Parameters
    ----------
    channels_in : at least 1
    channels_out : at least 2; half of them come from either convolution
    """

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.relu = nn.ReLU()
        self.even = nn.Conv2d(channels_in, channels_out // 2, 1, 2, bias=False)
        self.odd = nn.Conv2d(channels_in, channels_out - channels_out // 2, 1, 2, bias=False)
        self.norm = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, channels_out, ceil(H / 2), ceil(W / 2)); odd sizes get a zero row and column."""
        x = self.relu(x)
        # The odd half starts one pixel later; padding first keeps both halves the same size at odd sizes.
        shifted = nn.functional.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        out: Tensor = self.norm(torch.cat([self.even(x), self.odd(shifted)], dim=1))
        return out


def _separable(channels: int, kernel: int, stride: int, dilation: int = 1) -> list[nn.Module]:
    pad = dilation * (kernel // 2)
    return [
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel, stride, pad, dilation, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
    ]


def operation(name: str, channels: int, stride: int) -> nn.Module:
    """Return one operation of the DARTS search space, by its published name.

    Examples
    --------
    >>> operation("sep_conv_5x5", 4, 2)(torch.zeros(1, 4, 8, 8)).shape
    torch.Size([1, 4, 4, 4])

    Parameters
    ----------
    name : one of the eight in `OPERATIONS`
    channels : of its input and of its output
    stride : 1, or 2 to halve the picture (rounded up)

    Raises
    ------
    NadkitError
        The name is none of the eight operations of the search space.

    Notes
    -----
    Source: Liu, Simonyan, Yang, "DARTS", ICLR 2019, section 3. Pooling is followed by batch normalisation
    here, as in the authors' search and unlike in their final networks; all normalisations are affine.
    """
    if name in ("max_pool_3x3", "avg_pool_3x3"):
        pool: nn.Module = (
            nn.MaxPool2d(3, stride, 1)
            if name.startswith("max")
            else nn.AvgPool2d(3, stride, 1, count_include_pad=False)
        )
        return nn.Sequential(pool, nn.BatchNorm2d(channels))
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels)
    if name in ("sep_conv_3x3", "sep_conv_5x5"):
        kernel = int(name[-1])
        return nn.Sequential(*_separable(channels, kernel, stride), *_separable(channels, kernel, 1))
    if name in ("dil_conv_3x3", "dil_conv_5x5"):
        return nn.Sequential(*_separable(channels, int(name[-1]), stride, dilation=2))
    if name == "none":
        return Zero(stride)
    raise NadkitError(f"no operation {name!r} in the DARTS search space; {closest(str(name), OPERATIONS)}")


def check_genotype(genotype: Genotype) -> None:
    """Refuse a genotype that no cell can be built from.

    Examples
    --------
    >>> check_genotype(DARTS_V2)

    Parameters
    ----------
    genotype : node i = 2, 3, … reads by its two operations from nodes 0 to i - 1

    Raises
    ------
    NadkitError
        An unknown operation, an odd number of them, a node that reads itself or a later one, or handed-on
        nodes that are none, not there, or (in the reduction cell, whose inputs have twice the size) 0 or 1.
    """
    for kind, edges, concat, lowest in (
        ("normal", genotype.normal, genotype.normal_concat, 0),
        ("reduce", genotype.reduce, genotype.reduce_concat, 2),
    ):
        if not edges or len(edges) % 2:
            raise NadkitError(f"{kind} cell: {len(edges)} operations; every node adds two, from at least one")
        for i, (name, source) in enumerate(edges):
            if name not in OPERATIONS:
                raise NadkitError(
                    f"{kind} cell: no operation {name!r} in the DARTS search space; "
                    f"{closest(str(name), OPERATIONS)}"
                )
            if not 0 <= source < 2 + i // 2:
                raise NadkitError(
                    f"{kind} cell: node {2 + i // 2} reads node {source}; it can read 0 to {1 + i // 2}"
                )
        last = 1 + len(edges) // 2
        if not concat or not all(lowest <= node <= last for node in concat):
            raise NadkitError(
                f"{kind} cell: hands on nodes {list(concat)}; name at least one of {lowest} to {last}"
            )


class Cell(nn.Module):
    """One cell: two inputs, nodes that add two operations each, and their concatenation.

    Examples
    --------
    >>> cell = Cell(DARTS_V2, (6, 8), 4, reduces=True, after_reduction=False)
    >>> cell(torch.zeros(1, 6, 8, 8), torch.zeros(1, 8, 8, 8)).shape
    torch.Size([1, 16, 4, 4])

    Parameters
    ----------
    genotype : of the form that `check_genotype` accepts
    inputs : channels of the outputs of the cell before the last one, and of the last one
    channels : of every node
    reduces : use the genotype's reduction cell, which halves the picture
    after_reduction : the last cell was one, so the one before it gave pictures of twice the size
    """

    def __init__(
        self,
        genotype: Genotype,
        inputs: tuple[int, int],
        channels: int,
        *,
        reduces: bool,
        after_reduction: bool,
    ):
        super().__init__()
        edges, concat = (
            (genotype.reduce, genotype.reduce_concat)
            if reduces
            else (genotype.normal, genotype.normal_concat)
        )
        # The cell before the last one works at twice the size when the last one was a reduction.
        self.first: nn.Module = (
            FactorizedReduce(inputs[0], channels) if after_reduction else self._align(inputs[0], channels)
        )
        self.second = self._align(inputs[1], channels)
        self.sources = [source for _, source in edges]
        self.concat = list(concat)
        self.operations = nn.ModuleList(
            operation(name, channels, 2 if reduces and source < 2 else 1) for name, source in edges
        )
        self.channels_out = channels * len(self.concat)

    @staticmethod
    def _align(channels_in: int, channels_out: int) -> nn.Module:
        return nn.Sequential(
            nn.ReLU(), nn.Conv2d(channels_in, channels_out, 1, bias=False), nn.BatchNorm2d(channels_out)
        )

    def forward(self, before_last: Tensor, last: Tensor) -> Tensor:
        """Return (N, channels_out, H, W), signed: the nodes that the genotype hands on, concatenated."""
        nodes = [self.first(before_last), self.second(last)]
        for i in range(0, len(self.sources), 2):
            nodes.append(
                self.operations[i](nodes[self.sources[i]])
                + self.operations[i + 1](nodes[self.sources[i + 1]])
            )
        return torch.cat([nodes[i] for i in self.concat], dim=1)


class CellNet(nn.Module):
    """A stem and a row of cells; the cells at one and two thirds of the depth halve the picture.

    Examples
    --------
    >>> net = CellNet(1, 10, width=4, n_cells=3, genotype=DARTS_V2)
    >>> net(torch.zeros(2, 1, 28, 28)).shape, net.addresses
    (torch.Size([2, 10]), ['stem', 'cells.0', 'cells.1', 'cells.2'])

    Parameters
    ----------
    channels_in : channels of a picture
    n_classes : number of logits
    width : channels of a node in the first cells; twice as many after each reduction
    n_cells : at least 1
    genotype : of the form that `check_genotype` accepts

    Raises
    ------
    NadkitError
        The genotype is not of that form.

    Notes
    -----
    Source: Liu, Simonyan, Yang, "DARTS", ICLR 2019, section 4. It differs in that the stem halves the
    picture, and has neither an auxiliary head nor dropped paths.
    """

    def __init__(self, channels_in: int, n_classes: int, *, width: int, n_cells: int, genotype: Genotype):
        super().__init__()
        check_genotype(genotype)
        # The stem has no ReLU, as published: each cell starts with one.
        self.stem = nn.Sequential(
            nn.Conv2d(channels_in, 3 * width, 3, 2, 1, bias=False), nn.BatchNorm2d(3 * width)
        )
        inputs, after_reduction, cells = (3 * width, 3 * width), False, []
        for number in range(n_cells):
            reduces = number in (n_cells // 3, 2 * n_cells // 3)
            width *= 2 if reduces else 1
            cell = Cell(genotype, inputs, width, reduces=reduces, after_reduction=after_reduction)
            cells.append(cell)
            inputs, after_reduction = (inputs[1], cell.channels_out), reduces
        self.cells = nn.ModuleList(cells)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(inputs[1], n_classes)
        self.addresses = ["stem", *(f"cells.{number}" for number in range(n_cells))]

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, n_classes)."""
        before_last = last = self.stem(x)
        for cell in self.cells:
            before_last, last = last, cell(before_last, last)
        logits: Tensor = self.head(self.pool(last).flatten(1))
        return logits
