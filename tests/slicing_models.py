"""Small networks, each with wiring that a slice can get wrong."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Layers = list[str]


class Depthwise(nn.Module):
    def __init__(self, times: int = 1) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(inplace=True))
        self.depth = nn.Conv2d(6, 6 * times, 3, padding=1, groups=6)
        self.norm = nn.BatchNorm2d(6 * times)
        self.act = nn.SiLU()
        self.point = nn.Sequential(nn.Conv2d(6 * times, 5, 1), nn.ReLU())
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.depth(self.stem(x))))
        return self.head(self.point(x).mean((2, 3)))


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU())
        self.group = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1, groups=4), nn.ReLU())
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.group(self.stem(x))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Squeeze(nn.Module):
    """Squeeze and excitation: a channel times a number between 0 and 1 that all channels decide."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 7, 3, padding=1), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(7, 4, 1), nn.ReLU())
        self.up = nn.Conv2d(4, 7, 1)
        self.out = nn.Sequential(nn.Conv2d(7, 6, 3), nn.ReLU())
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x * torch.sigmoid(self.up(self.down(F.adaptive_avg_pool2d(x, 1))))
        return self.head(torch.flatten(F.max_pool2d(self.out(x), 2).mean(dim=[2, 3]), 1))


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.ReLU())
        self.left = nn.Sequential(nn.Conv2d(5, 4, 1), nn.ReLU())
        self.right = nn.Sequential(nn.Conv2d(5, 6, 3, padding=1), nn.GELU())
        self.join = nn.Identity()
        self.last = nn.Sequential(nn.Conv2d(15, 6, 3), nn.ReLU())
        self.head = nn.Linear(6 * 6 * 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.join(torch.cat([self.left(x), x, self.right(x)], dim=1))
        x = self.last(x)
        return self.head(x.view(x.size(0), -1))


class Twice(nn.Module):
    """One convolution and one activation that run more than once."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, padding=1)
        self.conv = nn.Conv2d(6, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        x = self.relu(self.conv(x))
        x = self.relu(self.conv(x))
        return self.head(x.amax((2, 3)))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.one = Block(8)
        self.two = Block(8)
        self.three = Block(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.three(self.two(self.one(self.stem(x))))
        b, c, _, _ = x.shape
        return self.head(x.reshape(b, c, -1).mean(-1))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        out += x
        return self.relu(out)


class NormAfter(nn.Module):
    """Removed units become constants: foldable into the 1×1 convolution, not into the padded ones."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 6, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 7, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(7)
        self.third = nn.Conv2d(7, 6, 3, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(6)
        self.pool = nn.AvgPool2d(2, padding=1)
        self.fourth = nn.Conv2d(6, 5, 3, padding=1, padding_mode="circular")
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.first(x)), inplace=True)
        x = torch.sigmoid(self.norm2(self.second(x)))
        x = self.pool(F.leaky_relu(self.norm3(self.third(x))))
        return self.head(self.fourth(x).mean((2, 3)))


class Perceptron(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(128, 9), nn.BatchNorm1d(9), nn.Tanh(), nn.Dropout(0.4), nn.Linear(9, 6),
            nn.Sigmoid(), nn.Linear(6, 3),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Attention(nn.Module):
    """One block of a transformer: both norms and the attention read whole tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(2, 8, 4, 4)
        self.place = nn.Parameter(torch.randn(1, 4, 8))
        self.norm1 = nn.LayerNorm(8)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.join = nn.Identity()
        self.norm2 = nn.LayerNorm(8)
        self.wide = nn.Sequential(nn.Linear(8, 12), nn.GELU())
        self.narrow = nn.Linear(12, 8)
        self.end = nn.Identity()
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2) + self.place
        y = self.norm1(x)
        x = self.join(x + self.attend(y, y, y, need_weights=False)[0])
        x = self.end(x + self.narrow(self.wide(self.norm2(x))))
        return self.head(x[:, 0])


class Mixed(nn.Module):
    """Chunks, slices, padding, upsampling, a transposed convolution, and numbers on either side."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.PReLU(8))
        self.up = nn.ConvTranspose2d(4, 6, 2, 2)
        self.act = nn.Softplus()
        self.scale = nn.Parameter(torch.randn(6, 1, 1))
        self.last = nn.Sequential(nn.Conv2d(6, 5, 3), nn.ReLU())
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.stem(x).chunk(2, dim=1)
        x = self.act(self.up(torch.maximum(one, 2.0 - two)[:, :, 1:, :-1])) * self.scale
        x = F.pad(x, (1, 0, 0, 1)) + x.mean((2, 3), keepdim=True)
        x = F.interpolate(self.last(x[:, :, ::2, 1:]), scale_factor=2.0)
        return self.head(torch.cat([x, x.relu() * 3], dim=3).mean((2, 3)))


class Shuffle(nn.Module):
    """Channels that change places: nothing known, so that gates stay on both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.ReLU())
        self.shuffled = nn.ChannelShuffle(2)
        self.last = nn.Sequential(nn.Conv2d(6, 5, 3), nn.ReLU())
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.shuffled(self.stem(x))).mean((2, 3)))


class Tokens(nn.Module):
    """Samples and places in one axis and apart again, and sizes that the code asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Sequential(nn.Conv2d(2, 6, 4, 4), nn.PReLU())
        self.one = nn.Sequential(nn.Linear(6, 7), nn.ReLU())
        self.two = nn.Sequential(nn.Linear(7, 5), nn.Tanh())
        self.head = nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x)
        b, c, h, w = x.shape
        x = self.one(x.permute(0, 2, 3, 1).reshape(b * h * w, c))
        x = self.two(x.view(b, h * w, -1))
        return self.head(x.transpose(1, 2)[:, :, : h * w].reshape(x.size(0), x.shape[2] * x.shape[1]))


class Written(nn.Module):
    """Writes into tensors that are read again, in every way of saying so."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.next = nn.Conv2d(6, 6, 1)
        self.tap, self.tip = nn.Identity(), nn.Identity()
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        z = self.tap(self.act(y))
        z = self.next(z) + y  # y was written into
        F.leaky_relu(z, 0.1, True)
        z.mul_(0.5)
        u = torch.relu_(1 - z)
        return self.head((self.tip(u) - z).mean((2, 3)))


class Reread(nn.Module):
    """What is added to is read again: written into, it would be another; and a linear layer along rows."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.ReLU())
        self.base = nn.Sequential(nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6))
        self.act = nn.ReLU()
        self.rows = nn.Linear(8, 5)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.base(x)
        z = self.act(self.base[0](x)) + x
        return self.head(self.rows(torch.tanh(y + x) * y + z).mean((2, 3)))


class Product(nn.Module):
    """Two gated tensors multiplied, and what their product is worth behind a padded convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU())
        self.right = nn.Sequential(nn.Conv2d(2, 4, 1), nn.Sigmoid())
        self.last = nn.Conv2d(4, 5, 3, padding=1)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.sigmoid(self.last(self.left(x) * self.right(x))).mean((2, 3)))


class Dropped(nn.Module):
    """Every kind of dropout, most of which take no single numbers, and a join by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout2d(0.3))
        self.line = nn.Sequential(nn.Dropout1d(0.3), nn.Conv1d(6, 5, 1), nn.ReLU(), nn.AlphaDropout(0.3))
        self.deep = nn.Sequential(nn.Dropout3d(0.3), nn.FeatureAlphaDropout(0.3))
        self.head = nn.Linear(11, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout2d(self.stem(x), 0.2, self.training).flatten(2)
        y = F.dropout1d(self.line(x), 0.2, training=self.training)
        x = torch.cat(tensors=(self.deep(x.unsqueeze(3).unsqueeze(4)).flatten(2), y), dim=1)
        return self.head(x.mean(2))


class Averaged(nn.Module):
    """What means, sums and borders make of constants that are not 0."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6)
        self.third, self.inside = (
            nn.AvgPool2d(2, divisor_override=3),
            nn.AvgPool2d(3, padding=1, count_include_pad=False, ceil_mode=True),
        )
        self.head = nn.Linear(42, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x))
        parts = [
            F.avg_pool2d(x, 2, 1, 1),
            self.third(x),
            self.inside(x),
            F.pad(F.relu(x), (1, 0, 0, 1), value=1.5),
            F.pad(x, (0, 0, 0, 0, 1, 0))[:, :-1],
            torch.cat([x, x + 1], 2),
            x.sum((2, 3), keepdim=True),
        ]
        return self.head(torch.cat([part.mean((2, 3)) for part in parts], 1))


def less_mean(module: nn.Module, args: object, output: Tensor) -> Tensor:  # noqa: ARG001
    return output - output.mean(1, keepdim=True)


class Shared(nn.Module):
    """A convolution that runs twice, on the same units with other constants, and a gate for each feature."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, 2)
        self.one, self.two, self.both = nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)
        self.flat, self.head = nn.Flatten(), nn.Linear(36, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.flat(torch.sigmoid(self.both(self.one(x))) + self.both(self.two(x))))


class Strange(nn.Module):
    """Modules like known ones that are not: grouped and transposed, of the batch, with a hook."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6))
        self.up = nn.ConvTranspose2d(6, 4, 3, groups=2)
        self.batch = nn.BatchNorm2d(6, affine=False, track_running_stats=False)
        self.plain = nn.BatchNorm2d(6, affine=False)
        self.hooked = nn.ReLU()
        self.hooked.register_forward_hook(less_mean)
        self.head = nn.Linear(22, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = x.mean((0, 2, 3), keepdim=True) + x.permute(1, 0, 2, 3).permute(1, 0, 2, 3)
        parts = [self.up(F.relu(x)), self.batch(x), self.hooked(self.plain(x)), y]
        return self.head(torch.cat([part.amax((2, 3)) for part in parts], 1))


# Name → how it is made, and where its gates sit.
MODELS: dict[str, tuple[Callable[[], nn.Module], Layers]] = {
    "depthwise": (Depthwise, ["stem", "act", "point"]),
    "depthwise, two a channel": (lambda: Depthwise(2), ["stem", "depth", "act", "point"]),
    "grouped": (Grouped, ["stem", "group"]),
    "squeeze": (Squeeze, ["stem", "down", "up", "out"]),
    "branches": (Branches, ["stem", "left", "right", "join", "last"]),
    "branches, joined alone": (Branches, ["join"]),
    "twice": (Twice, ["relu#1", "relu#2", "relu#3"]),
    "twice, once": (Twice, ["conv#2"]),
    "residual": (Residual, ["stem", "one", "two", "three"]),
    "residual, inside": (Residual, ["stem.2", "one.relu#1", "two.relu#1", "two", "three.conv2"]),
    "norm after": (NormAfter, ["first", "second", "third", "fourth"]),
    "perceptron": (Perceptron, ["layers.1", "layers.3", "layers.6"]),
    "attention": (Attention, ["join", "wide", "end"]),
    "mixed": (Mixed, ["stem", "up", "act", "last"]),
    "tokens": (Tokens, ["patch", "one", "two"]),
    "written": (Written, ["tap", "next", "tip"]),
    "reread": (Reread, ["stem"]),
    "product": (Product, ["left", "right", "last"]),
    "shuffle": (Shuffle, ["stem", "shuffled", "last"]),
    "averaged": (Averaged, ["stem"]),
    "shared": (Shared, ["stem", "flat"]),
    "strange": (Strange, ["stem.0", "plain"]),
    "dropped": (Dropped, ["stem.0"]),
}


def make_model(name: str, seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Module:
    return shaken(MODELS[name][0], seed, dtype)


def shaken(make: Callable[[], nn.Module], seed: int, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A model with weights and statistics that are all different, so that none hides a mistake."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make()
        for part in model.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.affine:
                nn.init.normal_(part.weight)
                nn.init.normal_(part.bias)
            if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.track_running_stats:
                nn.init.normal_(part.running_mean)
                nn.init.uniform_(part.running_var, 0.5, 2.0)
            if isinstance(part, nn.PReLU):
                nn.init.uniform_(part.weight, -0.5, 0.5)
    return model.to(dtype)


class Drawn(nn.Module):
    """A network drawn by chance: one step after another, each of a kind, a tap after each."""

    KINDS = (
        "conv",
        "point",
        "depth",
        "group",
        "residual",
        "join",
        "norm",
        "squeeze",
        "pool",
        "shift",
        "whole",
    )

    def __init__(self, kinds: tuple[str, ...], width: int = 4) -> None:
        super().__init__()
        self.kinds = kinds
        self.stem = nn.Conv2d(2, width, 3, padding=1)
        self.steps, self.taps = nn.ModuleList(), nn.ModuleList()
        for kind in kinds:
            step, grown = self._step(kind, width)
            width += grown
            self.steps.append(step)
            self.taps.append(nn.Identity())
        self.head = nn.Linear(width * 4, 3)

    @staticmethod
    def _step(kind: str, width: int) -> tuple[nn.Module, int]:
        simple: dict[str, Callable[[], nn.Module]] = {
            "conv": lambda: nn.Conv2d(width, width, 3, padding=1),
            "point": lambda: nn.Conv2d(width, width, 1, bias=False),
            "depth": lambda: nn.Conv2d(width, width, 3, padding=1, groups=width),
            "group": lambda: nn.Conv2d(width, width, 1, groups=2),
            "residual": lambda: nn.Conv2d(width, width, 3, padding=1),
            "norm": lambda: nn.BatchNorm2d(width),
            "squeeze": lambda: nn.Conv2d(width, width, 1),
            "pool": lambda: nn.AvgPool2d(3, 1, 1),
            "whole": lambda: nn.GroupNorm(2, width),
        }
        if kind == "join":
            return nn.Conv2d(width, 2, 3, padding=1), 2
        return (simple[kind]() if kind in simple else nn.Identity()), 0

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for kind, step, tap in zip(self.kinds, self.steps, self.taps, strict=True):
            y = step(x if kind != "squeeze" else x.mean((2, 3), keepdim=True))
            if kind == "residual":
                y = F.relu(y) + x
            elif kind == "join":
                y = torch.cat([F.relu(y), x], 1)
            elif kind == "squeeze":
                y = x * torch.sigmoid(y)
            elif kind == "shift":
                y = F.silu(1 - x)
            x = tap(y)
        return self.head(F.adaptive_avg_pool2d(x, 2).flatten(1))
