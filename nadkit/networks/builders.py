"""Four families of small networks from one set of blocks: plain, residual, dense and searched cells.

Every tapped place stands after an activation or at a block's output, and none feeds a normalisation, so
that a unit set to 0 is absent and a network with its removed units cut out computes the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nadkit.errors import NadkitError, closest
from nadkit.networks.cells import DARTS_V2, CellNet


class ConvUnit(nn.Sequential):
    """Convolution, batch normalisation, ReLU: the one brick that all families are laid with.

    Examples
    --------
    >>> ConvUnit(3, 8, stride=2)(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 8, 16, 16])

    Parameters
    ----------
    channels_in, channels_out : at least 1
    kernel : odd size of the convolution, padded so that stride 1 keeps the picture's size
    stride : 1, or 2 to halve the picture (rounded up)
    relu : False leaves the output signed
    """

    def __init__(
        self, channels_in: int, channels_out: int, *, kernel: int = 3, stride: int = 1, relu: bool = True
    ):
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(channels_out)
        if relu:
            self.relu = nn.ReLU()


class Bottleneck(nn.Module):
    """A residual block: 1×1, 3×3, 1×1 convolutions beside a shortcut, joined before the last ReLU.

    Examples
    --------
    >>> Bottleneck(4, 8, stride=2)(torch.zeros(1, 4, 6, 6)).shape
    torch.Size([1, 8, 3, 3])

    Parameters
    ----------
    channels_in, channels_out : at least 1 and 2; the inner convolutions have half of `channels_out`
    stride : of the 3×3 convolution and of the shortcut

    Notes
    -----
    Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, figure 5 right. It differs
    in that the inner width is a half, not a quarter, and that the stride is the 3×3 convolution's.
    """

    def __init__(self, channels_in: int, channels_out: int, *, stride: int = 1):
        super().__init__()
        inner = channels_out // 2
        self.reduce = ConvUnit(channels_in, inner, kernel=1)
        self.spatial = ConvUnit(inner, inner, stride=stride)
        self.expand = ConvUnit(inner, channels_out, kernel=1, relu=False)
        same = stride == 1 and channels_in == channels_out
        self.shortcut = (
            nn.Identity()
            if same
            else ConvUnit(channels_in, channels_out, kernel=1, stride=stride, relu=False)
        )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, channels_out, H, W), never negative."""
        out: Tensor = self.relu(self.expand(self.spatial(self.reduce(x))) + self.shortcut(x))
        return out


class DenseBlock(nn.Module):
    """Layers that each see everything before them; the block hands on all of it, concatenated.

    Examples
    --------
    >>> DenseBlock(4, growth=2, depth=3)(torch.zeros(1, 4, 6, 6)).shape
    torch.Size([1, 10, 6, 6])

    Parameters
    ----------
    channels_in : channels of the block's input
    growth : channels that each layer adds
    depth : number of layers

    Notes
    -----
    Source: Huang et al., "Densely Connected Convolutional Networks", CVPR 2017, equation 2. It differs in
    the order within a layer (convolution, normalisation, ReLU) and has no 1×1 convolution in it.
    """

    def __init__(self, channels_in: int, growth: int, depth: int):
        super().__init__()
        self.layers = nn.ModuleList(ConvUnit(channels_in + i * growth, growth) for i in range(depth))
        self.channels_out = channels_in + depth * growth

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, channels_out, H, W): the input's channels, then each layer's."""
        for layer in self.layers:
            x = torch.cat([x, layer(x)], dim=1)
        return x


class Head(nn.Sequential):
    """Global average, then one linear layer to the logits.

    Examples
    --------
    >>> Head(4, 10)(torch.zeros(2, 4, 6, 6)).shape
    torch.Size([2, 10])

    Parameters
    ----------
    channels_in : channels of the last layer
    n_classes : number of logits
    """

    def __init__(self, channels_in: int, n_classes: int):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(channels_in, n_classes)


def plain(channels_in: int, n_classes: int, widths: Sequence[Sequence[int]]) -> tuple[nn.Module, list[str]]:
    """Return a plain (VGG-like) network and its tapped addresses; stages are parted by max-pooling.

    Examples
    --------
    >>> plain(1, 10, [[8], [8, 16]])[1]
    ['stem', 'stage1.0', 'stage1.1']

    Parameters
    ----------
    channels_in : channels of a picture
    n_classes : number of logits
    widths : units of each layer: the stem (one number, at half the size), then one list a stage

    Returns
    -------
    tuple
        The network, with fresh weights from torch's random state, and the addresses in forward order.

    Notes
    -----
    Source: Simonyan and Zisserman, "Very Deep Convolutional Networks", ICLR 2015. It differs in its batch
    normalisation, its stem, and one linear layer for three.
    """
    (stem,), *stages = widths
    net = nn.Sequential()
    net.add_module("stem", ConvUnit(channels_in, stem, stride=2))
    addresses, width = ["stem"], stem
    for number, stage in enumerate(stages, start=1):
        if number > 1:
            net.add_module(f"pool{number}", nn.MaxPool2d(2, ceil_mode=True))
        units = []
        for next_width in stage:
            units.append(ConvUnit(width, next_width))
            width = next_width
        net.add_module(f"stage{number}", nn.Sequential(*units))
        addresses += [f"stage{number}.{i}" for i in range(len(units))]
    net.add_module("head", Head(width, n_classes))
    return net, addresses


def residual(
    channels_in: int, n_classes: int, widths: Sequence[int], depths: Sequence[int]
) -> tuple[nn.Module, list[str]]:
    """Return a residual (ResNet-like) network of bottleneck blocks and its tapped addresses.

    Examples
    --------
    >>> residual(1, 10, [8, 16], [1, 2])[1]
    ['stem', 'stage1.0', 'stage2.0', 'stage2.1']

    Parameters
    ----------
    channels_in : channels of a picture
    n_classes : number of logits
    widths : units of each stage's blocks; the stem is as wide as the first
    depths : blocks in each stage; the first of each later stage halves the picture

    Returns
    -------
    tuple
        The network, with fresh weights from torch's random state, and the addresses in forward order.
    """
    net = nn.Sequential()
    net.add_module("stem", ConvUnit(channels_in, widths[0], stride=2))
    addresses, width = ["stem"], widths[0]
    for number, (next_width, depth) in enumerate(zip(widths, depths, strict=True), start=1):
        blocks = [
            Bottleneck(width if i == 0 else next_width, next_width, stride=2 if i == 0 and number > 1 else 1)
            for i in range(depth)
        ]
        net.add_module(f"stage{number}", nn.Sequential(*blocks))
        addresses += [f"stage{number}.{i}" for i in range(depth)]
        width = next_width
    net.add_module("head", Head(width, n_classes))
    return net, addresses


def dense(
    channels_in: int,
    n_classes: int,
    stem: int,
    growths: Sequence[int],
    depth: int,
    transitions: Sequence[int],
) -> tuple[nn.Module, list[str]]:
    """Return a dense (DenseNet-like) network and its tapped addresses.

    Activations follow the normalisation (conv, norm, ReLU) rather than precede it, so that what a dense
    layer adds can be gated without a normalisation behind the gate.

    Examples
    --------
    >>> dense(1, 10, 8, [4, 4], 1, [8])[1]
    ['stem', 'block1.layers.0', 'transition1', 'block2.layers.0']

    Parameters
    ----------
    channels_in : channels of a picture
    n_classes : number of logits
    stem : units of the first convolution
    growths : units that each layer of a block adds, one number a block
    depth : layers in each block
    transitions : units of the 1×1 convolution after each block but the last; average pooling follows it

    Returns
    -------
    tuple
        The network, with fresh weights from torch's random state, and the addresses in forward order.
    """
    net = nn.Sequential()
    net.add_module("stem", ConvUnit(channels_in, stem, stride=2))
    addresses, width = ["stem"], stem
    for number, growth in enumerate(growths, start=1):
        block = DenseBlock(width, growth, depth)
        net.add_module(f"block{number}", block)
        addresses += [f"block{number}.layers.{i}" for i in range(depth)]
        width = block.channels_out
        if number < len(growths):
            net.add_module(f"transition{number}", ConvUnit(width, transitions[number - 1], kernel=1))
            net.add_module(f"pool{number}", nn.AvgPool2d(2, ceil_mode=True))
            addresses.append(f"transition{number}")
            width = transitions[number - 1]
    net.add_module("head", Head(width, n_classes))
    return net, addresses


def build(family: str, channels_in: int, n_classes: int) -> tuple[nn.Module, list[str]]:
    """Return a family's network at the width that is bundled, with fresh weights, and its tapped addresses.

    Examples
    --------
    >>> model, addresses = build("vgg", 1, 10)
    >>> len(addresses), addresses[:2]
    (9, ['stem', 'stage1.0'])

    Parameters
    ----------
    family : `"vgg"`, `"resnet"`, `"densenet"` or `"darts"`
    channels_in : channels of a picture
    n_classes : number of logits

    Returns
    -------
    tuple
        The network, with fresh weights from torch's random state, and the addresses in forward order.

    Raises
    ------
    NadkitError
        No such family; the closest names are given.
    """
    if family == "vgg":
        return plain(channels_in, n_classes, [[16], [16, 20], [32, 32, 48], [64, 64, 64]])
    if family == "resnet":
        return residual(channels_in, n_classes, [24, 48, 96], [2, 3, 3])
    if family == "densenet":
        return dense(channels_in, n_classes, 16, [8, 16, 32], 3, [32, 48])
    if family == "darts":
        net = CellNet(channels_in, n_classes, width=8, n_cells=8, genotype=DARTS_V2)
        return net, net.addresses
    raise NadkitError(f"no family {family!r}; {closest(str(family), ['vgg', 'resnet', 'densenet', 'darts'])}")
