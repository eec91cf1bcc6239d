from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nadkit.errors import LayerError
from nadkit.networks.places import choose_layers
from nadkit.networks.recording import record_calls
from nadkit.taps import Layer, Taps

X = torch.linspace(-1, 1, 2 * 2 * 8 * 8).reshape(2, 2, 8, 8)


class Composed(nn.Module):
    """Modules by name, and a forward given as a function of the module and its input."""

    def __init__(self, forward: Callable[[Composed, Tensor], object], **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)
        self._run = forward

    def forward(self, x: Tensor) -> object:
        return self._run(self, x)


def conv(channels_in: int = 2, channels_out: int = 4) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, padding=1)


def addresses(model: nn.Module, wanted: str | list[str] = "auto", x: Tensor = X) -> list[str]:
    with torch.no_grad():
        return list(choose_layers(model.eval(), x, wanted)[0])


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


# Recording calls.


def test_calls_come_in_order_of_completion_with_numbers_only_where_needed() -> None:
    relu = nn.ReLU()
    inner = nn.Sequential(conv(), relu)
    model = nn.Sequential(inner, relu, nn.MaxPool2d(2))
    calls, out, _ = record_calls(model, X)
    assert [c.address for c in calls] == ["0.0", "0.1#1", "0", "0.1#2", "2"]
    assert [c.number for c in calls] == [1, 1, 1, 2, 1]
    assert torch.equal(out, model(X)) if isinstance(out, Tensor) else pytest.fail("no tensor")
    for call in calls:
        assert call.module is model.get_submodule(call.path)
    assert hooks(model) == 0


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_no_hook_is_left_when_the_pass_breaks(error: type[BaseException]) -> None:
    def broken(_m: Composed, _x: Tensor) -> Tensor:
        raise error("here")

    mine: list[str] = []
    model = nn.Sequential(conv(), nn.BatchNorm2d(4), Composed(broken))
    model[0].register_forward_hook(lambda *_: mine.append("ran"))
    with pytest.raises(error, match="here"):
        record_calls(model, X)
    assert hooks(model) == 1  # the caller's own
    assert not torch.overrides._get_current_function_mode_stack()  # type: ignore[attr-defined]
    model[0](X)
    assert mine == ["ran", "ran"]


def test_calls_number_anew_in_every_pass() -> None:
    relu = nn.ReLU()
    model = nn.Sequential(relu, relu)
    for _ in range(2):
        assert [c.address for c in record_calls(model, X)[0]] == ["0#1", "0#2"]


class FrozenBatchNorm2d(nn.Module):
    """A normalisation of another library, known by its name alone."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - 1) / 2


class Doubled(torch.autograd.Function):
    """A function that no mode sees."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:  # noqa: ARG004 (torch calls it so)
        return x * 2


class Unseen(nn.Module):
    """An activation of another library, written for its own gradient."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = Doubled.apply(x)
        return out


class ConvNormActivation(nn.Module):
    """A block, no normalisation, whatever its name."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1


class ConvBatchNorm(nn.Module):
    """A convolution with its normalisation, by the name of what it ends with."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = conv(4), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(x)).relu()
        return out


def tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def written(x: Tensor) -> Tensor:
    """Twice the units, in a tensor made before."""
    whole = torch.zeros(len(x), 8, *x.shape[2:])
    whole[:, :4] = x
    whole[:, 4:] = -x
    return whole


# What stands between the place and a normalisation, and whether that normalisation reads the place.
BETWEEN: dict[str, tuple[Callable[[Composed, Tensor], object], bool]] = {
    "nothing": (lambda m, x: m.norm(m.place(x)), True),
    "by keyword": (lambda m, x: m.norm(input=m.place(x)), True),
    "join": (lambda m, x: m.norm8(torch.cat([m.place(x), m.place2(x)], 1)), True),
    "two joins": (lambda m, x: m.norm8(torch.cat([torch.cat([m.place(x)]), m.place2(x)], dim=1)), True),
    "pooling": (lambda m, x: m.norm(F.max_pool2d(F.avg_pool2d(m.place(x), 2), 2)), True),
    "pooling module": (lambda m, x: m.norm(m.pool(m.place(x))), True),
    "global mean": (lambda m, x: m.token_norm(m.place(x).mean((2, 3))), True),
    "activation": (lambda m, x: m.norm(m.relu(m.place(x))), True),
    "in-place activation": (lambda m, x: m.norm(F.relu_(m.place(x))), True),
    "tokens": (lambda m, x: m.token_norm(tokens(m.place(x))), True),
    "window": (lambda m, x: m.norm(F.pad(m.place(x)[:, :, 1:-1, 1:-1], (1, 1, 1, 1))), True),
    "dropout": (lambda m, x: m.norm(F.dropout(m.place(x), training=False)), True),
    "function": (lambda m, x: F.layer_norm(tokens(m.place(x)), (4,)), True),
    "function by keyword": (lambda m, x: F.group_norm(input=m.place(x), num_groups=2), True),
    "torch's own function": (lambda m, x: torch.group_norm(input=m.place(x), num_groups=2), True),
    "by name": (lambda m, x: m.foreign(m.place(x)), True),
    "by name and keyword": (lambda m, x: m.foreign(x=m.place(x)), True),
    "other views": (lambda m, x: m.token_norm(m.place(x).flatten(2).mT.moveaxis(0, 1).swapdims(0, 1)), True),
    "pieces": (lambda m, x: m.norm(torch.stack(m.place(x).unbind(1), 1).repeat(1, 1, 2, 1)), True),
    "sum over places": (lambda m, x: m.token_norm(m.place(x).sum((2, 3))), True),
    "letters": (lambda m, x: m.token_norm(torch.einsum("nchw->nhwc", m.place(x))), True),
    "scale": (lambda m, x: m.norm(m.place(x) * 0.5 / 2), True),
    "learned scale": (lambda m, x: m.norm(m.place(x) * m.scale), True),
    "position": (lambda m, x: m.norm(m.place(x) + m.scale), True),
    "mask of a dropped path": (lambda m, x: m.norm(m.place(x) * x.new_ones(2, 1, 1, 1)), True),
    "other activation": (lambda m, x: m.norm(F.hardswish(F.prelu(m.place(x), m.ones))), True),
    "turned": (lambda m, x: m.norm(m.place(x).index_select(2, torch.tensor([1, 0])).flip(2)), True),
    "other type": (lambda m, x: m.norm(m.place(x).double().type_as(m.place2(x))), True),
    "unseen function": (lambda m, x: m.norm(m.unseen(m.place(x))), True),
    "gated": (lambda m, x: m.norm(m.place2(x).sigmoid() * m.place(x)), True),
    "product with weights": (lambda m, x: m.token_norm(tokens(m.place(x)) @ m.weights), False),
    "letters of weights": (
        lambda m, x: m.token_norm(torch.einsum("nchw,cd->nhwd", m.place(x), m.weights)),
        False,
    ),
    "layer function": (lambda m, x: m.norm(F.conv2d(m.place(x), m.weights[:, :, None, None])), False),
    "shares": (lambda m, x: m.norm(m.place(x).softmax(1)), False),
    "later": (lambda m, x: (m.place(x), m.norm(m.place2(x)))[1], False),
    "convolution": (lambda m, x: m.norm(m.conv(m.place(x))), False),
    "sum": (lambda m, x: m.norm(m.place(x) + m.place2(x)), False),
    "in-place sum": (lambda m, x: m.norm(m.place(x).add_(m.place2(x))), False),
    "in-place sum of what was activated": (lambda m, x: m.norm(F.relu_(m.place(x)).add_(m.place2(x))), False),
    "read before it is overwritten": (lambda m, x: (m.norm(y := m.place(x)), y.add_(m.place2(x))), True),
    "a part of a buffer": (lambda m, x: m.norm8(written(m.place(x)).relu()), True),
    "a part of an activation": (
        lambda m, x: (y := m.place(x), y.__setitem__(0, 0.0), y.__setitem__(1, m.place2(x)[1]), m.norm(y)),
        True,
    ),
    "in-place scale": (lambda m, x: m.norm(m.place(x).mul_(2).add_(m.scale)), True),
    "product": (lambda m, x: m.norm(m.place2(x) * m.place(x).sigmoid()), False),
    "block": (lambda m, x: m.block(m.place(x)), False),
    "layer with its norm": (lambda m, x: m.conv_norm(m.place(x)), False),
    "statistics only": (lambda m, x: F.batch_norm(m.place2(x), m.place(x).mean((0, 2, 3)), m.ones), False),
}  # fmt: skip


@pytest.mark.parametrize("way", BETWEEN)
def test_feeds_norm(way: str) -> None:
    run, expected = BETWEEN[way]
    model = Composed(
        run, place=conv(), place2=conv(), conv=conv(4), norm=nn.BatchNorm2d(4), norm8=nn.BatchNorm2d(8),
        token_norm=nn.LayerNorm(4), relu=nn.ReLU(), pool=nn.AvgPool2d(2), foreign=FrozenBatchNorm2d(),
        block=ConvNormActivation(), conv_norm=ConvBatchNorm(), unseen=Unseen(),
    )  # fmt: skip
    model.register_buffer("ones", torch.ones(4))
    model.register_parameter("scale", nn.Parameter(torch.ones(4, 1, 1)))
    model.register_parameter("weights", nn.Parameter(torch.eye(4)))
    with torch.no_grad():
        calls, _, _ = record_calls(model.eval(), X)
        layers, _ = choose_layers(model, X, ["place"])
    assert {c.path: c.feeds_norm for c in calls}["place"] is expected
    assert layers == {"place": Layer(4, 1, expected)}
    assert hooks(model) == 0


def test_in_place_activation_after_a_norm_does_not_feed_it() -> None:
    model = nn.Sequential(conv(), nn.BatchNorm2d(4), nn.ReLU(inplace=True), conv(4))
    calls, _, _ = record_calls(model.eval(), X)
    assert [c.feeds_norm for c in calls] == [True, False, False, False]


def test_identities_of_freed_tensors_are_not_mistaken() -> None:
    # Each round frees its tensors; a reused address in memory would mark places that feed nothing.
    def run(m: Composed, x: Tensor) -> Tensor:
        for _ in range(20):
            m.norm(x.sigmoid())
            F.group_norm(torch.cat([x.sigmoid()]), 1)
            x = m.place(x)
        return x

    model = Composed(run, place=nn.Conv2d(2, 2, 1), norm=nn.BatchNorm2d(2)).eval()
    with torch.no_grad():
        calls, _, _ = record_calls(model, X)
    assert not any(c.feeds_norm for c in calls if c.path == "place")


# `"auto"`.


def unit(channels_in: int, channels_out: int) -> list[nn.Module]:
    return [conv(channels_in, channels_out), nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True)]


class Residual(nn.Module):
    """Torchvision's way: one in-place ReLU for all, `out += x`, and its own output last."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(channels, channels), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = conv(channels, channels), nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x
        result: Tensor = self.relu(out)
        return result


class PreActivated(nn.Module):
    """Normalisation and ReLU before the convolution; the block hands on a sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn, self.relu, self.conv = nn.BatchNorm2d(channels), nn.ReLU(), conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv(self.relu(self.bn(x)))
        return out


class DenseLayer(nn.Module):
    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.relu1 = nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(channels, 6, 1)
        self.norm2, self.relu2, self.conv2 = nn.BatchNorm2d(6), nn.ReLU(inplace=True), conv(6, growth)

    def forward(self, parts: list[Tensor]) -> Tensor:
        x = self.conv1(self.relu1(self.norm1(torch.cat(parts, 1))))
        out: Tensor = self.conv2(self.relu2(self.norm2(x)))
        return out


class DenseBlock(nn.ModuleDict):
    def __init__(self, channels: int, growth: int, depth: int) -> None:
        super().__init__({f"layer{i}": DenseLayer(channels + i * growth, growth) for i in range(depth)})

    def forward(self, x: Tensor) -> Tensor:
        parts = [x]
        for layer in self.values():
            parts.append(layer(parts))
        return torch.cat(parts, 1)


class Encoder(nn.Module):
    """A block of tokens, normalised first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln1, self.attention = nn.LayerNorm(width), nn.MultiheadAttention(width, 2, batch_first=True)
        self.ln2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 12), nn.GELU(), nn.Linear(12, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        out: Tensor = x + self.mlp(self.ln2(x))
        return out


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(2, 6, 4, 4)
        self.blocks = nn.Sequential(Encoder(6), Encoder(6))
        self.norm, self.head = nn.LayerNorm(6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.norm(self.blocks(tokens(self.embed(x)))).mean(1))
        return out


def head(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3)]


def test_auto_on_plain_model() -> None:
    classifier = [nn.Flatten(), nn.Linear(80, 6), nn.ReLU(), nn.Linear(6, 3)]
    model = nn.Sequential(*unit(2, 4), nn.MaxPool2d(2), *unit(4, 5), *classifier)
    assert addresses(model) == ["2", "6"]  # not the neurons of the classifier


def test_auto_on_residual_model() -> None:
    model = nn.Sequential()
    model.add_module("stem", nn.Sequential(*unit(2, 4)))
    model.add_module("layer1", nn.Sequential(Residual(4), Residual(4)))
    model.add_module("head", nn.Sequential(*head(4)))
    assert addresses(model) == ["stem.2", "layer1.0", "layer1.1"]


def test_auto_opens_blocks_that_feed_a_norm() -> None:
    model = nn.Sequential(conv(), PreActivated(4), PreActivated(4), nn.BatchNorm2d(4), nn.ReLU(), *head(4))
    assert addresses(model) == ["1.relu", "2.relu", "4"]


def test_auto_on_dense_model() -> None:
    features = nn.Sequential(*unit(2, 4), DenseBlock(4, 3, 2), nn.BatchNorm2d(10), nn.ReLU())
    model = nn.Sequential(features, *head(10))
    # Layers and stem reach a normalisation through the joins; what may be gated stands behind one.
    assert addresses(model) == [
        "0.3.layer0.relu1", "0.3.layer0.relu2", "0.3.layer1.relu1", "0.3.layer1.relu2", "0.5",
    ]  # fmt: skip
    flags = choose_layers(model, X, ["0.2", "0.3", "0.3.layer0", "0.3.layer1"])[0]
    assert all(layer.feeds_norm for layer in flags.values())


def test_auto_on_token_model() -> None:
    chosen, _ = choose_layers(Tokens().eval(), X, "auto")
    assert chosen == {f"blocks.{i}.mlp.1": Layer(12, 2, False) for i in range(2)}
    # (N, tokens, units): the gate sits on the last axis, and Taps agrees.
    model = Tokens().eval()
    gate = torch.ones(12)
    gate[3] = 0
    network = type("Thing", (), {"model": model, "layers": chosen})()
    with torch.no_grad(), Taps(network, gates={"blocks.0.mlp.1": gate}) as taps:
        model(X)
    read = taps.activations["blocks.0.mlp.1"]
    assert read.shape == (2, 4, 12)
    assert not read[..., 3].any()
    assert read[..., 2].any()


def test_auto_takes_the_outermost_block() -> None:
    inner = nn.Sequential(Residual(4), Residual(4))
    outer = Composed(lambda m, x: m.stage(x), stage=inner)
    model = nn.Sequential(conv(), outer, *head(4))
    assert addresses(model) == ["1"]


def test_auto_on_models_without_maps_activations_or_norms() -> None:
    neurons = nn.Sequential(nn.Flatten(), nn.Linear(128, 5), nn.ReLU(), nn.Linear(5, 3))
    assert addresses(neurons) == ["2"]
    functional = Composed(
        lambda m, x: m.head(F.relu(m.bn(m.conv(x))).mean((2, 3))),
        conv=conv(),
        bn=nn.BatchNorm2d(4),
        head=nn.Linear(4, 3),
    )
    assert addresses(functional) == ["bn"]
    bare = nn.Sequential(nn.Flatten(), nn.Linear(128, 5), nn.Linear(5, 3))
    assert addresses(bare) == ["1"]  # never the logits
    with pytest.raises(LayerError, match=r"no block, activation or hidden layer .* name the layers"):
        addresses(nn.Sequential(nn.Flatten(), nn.Linear(128, 3)))


def test_auto_names_the_calls_of_a_module_that_runs_twice() -> None:
    model = Composed(
        lambda m, x: m.head(m.relu(m.b(m.relu(m.a(x)))).mean((2, 3))),
        a=conv(),
        b=conv(4, 5),
        relu=nn.ReLU(),
        head=nn.Linear(5, 3),
    )
    chosen, _ = choose_layers(model.eval(), X, "auto")
    assert chosen == {"relu#1": Layer(4, 1), "relu#2": Layer(5, 1)}


# Patterns and addresses.


def named() -> nn.Module:
    model = nn.Sequential()
    for stage, width in ((1, 4), (2, 4)):
        blocks = nn.Sequential(Residual(width), Residual(width))
        model.add_module(f"layer{stage}", blocks if stage > 1 else nn.Sequential(conv(), *blocks))
    model.add_module("head", nn.Sequential(*head(4)))
    return model


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("layer2.*", ["layer2.0", "layer2.1"]),
        ("layer[12].1", ["layer1.1", "layer2.1"]),
        ("layer[!1].1", ["layer2.1"]),
        ("layer?.0", ["layer1.0", "layer2.0"]),
        ("**.conv2", ["layer1.1.conv2", "layer1.2.conv2", "layer2.0.conv2", "layer2.1.conv2"]),
        ("layer2.0.rel*", ["layer2.0.relu#1", "layer2.0.relu#2"]),
        ("layer2.?.relu", []),
        ("**.relu#2", []),
        (["layer2.1", "layer1.*", "layer1.1"], ["layer1.0", "layer1.1", "layer1.2", "layer2.1"]),
        (["layer2.0.relu#2"], ["layer2.0.relu#2"]),
        (["layer2.0#1"], ["layer2.0"]),
    ],
)
def test_patterns(wanted: str | list[str], found: list[str]) -> None:
    model = named()
    if wanted == "layer2.?.relu":
        found = [f"layer2.{i}.relu#{call}" for i in (0, 1) for call in (1, 2)]
    if wanted == "**.relu#2":
        found = [f"layer{s}.{i}.relu#2" for s, i in ((1, 1), (1, 2), (2, 0), (2, 1))]
    assert addresses(model, wanted) == found


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("layer2.5", r"no layer 'layer2.5' in Sequential; closest: layer2"),
        (["layer2.0", "layer3.0"], r"no layer 'layer3.0'.*closest: layer"),
        ("layer3.*", r"'layer3.\*' fits no layer.*'\*' stays within one name"),
        ("layer2.0.relu", r"ran 2 times in Sequential; say which call: layer2.0.relu#1, layer2.0.relu#2"),
        ("layer2.0.relu#3", r"ran 2 times"),
        ("layer2.0#2", r"'layer2.0' ran once; use 'layer2.0'"),
        ("layer2.0#x", r"calls are counted 1, 2"),
        ("", r"names the whole model"),
        ([], r"no layers were named"),
        (None, r"layers are None; give 'auto', 'paper', a pattern"),
        ([3], r"3 names no layers; give addresses"),
        ("layer[z-a]", r"no pattern of layers: bad character range"),
    ],
)
def test_layers_that_are_not_there(wanted: list[str], message: str) -> None:
    with pytest.raises(LayerError, match=message):
        addresses(named(), wanted)


def test_a_module_that_did_not_run_or_has_no_units_is_named_as_such() -> None:
    def run(m: Composed, x: Tensor) -> object:
        return m.head(m.pair(x)[0].mean((2, 3)))

    pair = Composed(lambda m, x: (m.conv(x), x), conv=conv())
    counts = Composed(lambda _m, x: x.argmax(1))
    model = Composed(run, pair=pair, idle=conv(), head=nn.Linear(4, 3), counts=counts)
    with pytest.raises(LayerError, match="layer 'idle' did not run in Composed on the example"):
        addresses(model, "idle")
    with pytest.raises(LayerError, match="layer 'pair' gives a tuple of 2, not one tensor"):
        addresses(model, "pair")
    assert addresses(model, "*") == ["head"]  # a pattern passes over what has no units
    with pytest.raises(LayerError, match=r"'p\?ir' fits no layer"):
        addresses(model, "p?ir")
    whole = nn.Sequential(counts, Composed(lambda _m, x: x[:, None].float()), conv(1))
    with pytest.raises(LayerError, match=r"layer '0' gives torch.int64, not floats"):
        addresses(whole, "0")


def test_second_name_of_a_module_stands_for_the_first() -> None:
    shared = conv(2, 2)
    once = Composed(lambda m, x: m.b(x), a=shared, b=shared)
    assert addresses(once, "b") == ["a"]
    assert addresses(once, ["a", "b#1"]) == ["a"]
    twice = Composed(lambda m, x: m.b(m.a(x)), a=shared, b=shared)
    assert addresses(twice, ["b#2"]) == ["a#2"]
    with pytest.raises(LayerError, match=r"layer 'b' ran 2 times .* a#1, a#2"):
        addresses(twice, "b")
