"""Any module: what `layers` says of it, units on every axis, functions and heads, and nothing left behind."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nadkit as nk
from nadkit.errors import LayerError, NadkitError
from nadkit.networks import Network
from nadkit.networks.cells import DARTS_V2, Cell
from nadkit.networks.places import choose_layers
from nadkit.taps import Layer, Taps, maps_of

X = torch.linspace(-1, 1, 3 * 2 * 8 * 8).reshape(3, 2, 8, 8)


class Block(nn.Module):
    """Two joins, one in place, a functional ReLU inside and one that is the output."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn(self.conv1(x)))
        y = self.conv2(y)
        y += x
        y = y + x
        return F.relu(y)


def slow_block(block: Block, x: Tensor, gates: dict[str, Tensor]) -> Tensor:
    """The forward of `Block` a second time, with a gate wherever one is named."""

    def gated(name: str, value: Tensor) -> Tensor:
        gate = gates.get(name)
        return value if gate is None else value * gate[:, None, None]

    y = gated("relu#1", F.relu(block.bn(block.conv1(x))))
    y = gated("add#1", block.conv2(y) + x)
    return gated("relu#2", F.relu(gated("add#2", y + x)))


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = nn.Conv2d(2, 4, 1), Block()
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.cat([self.block(x), x], 1)
        return self.head(x.mean((2, 3)))


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def modes() -> int:
    return len(torch.overrides._get_current_function_mode_stack())  # type: ignore[attr-defined]


# The table.


def test_table_by_hand() -> None:
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)),
        nn.Flatten(),
        nn.Linear(144, 3),
    ).train()
    model.idle = nn.Linear(2, 2)
    model.forward = lambda x: model[2](model[1](model[0](x)))  # type: ignore[method-assign]
    table = nk.layers(model, X)
    said = {
        row["address"]: (row["type"], row["calls"], row["in_place"], row["feeds_norm"], row["recommended"])
        for row in table.to_dict("records")
    }
    assert said == {
        "0.0": ("Conv2d", 1, "", True, False),
        "0.1": ("BatchNorm2d", 1, "0.2", False, False),
        "0.2": ("ReLU", 1, "", False, True),
        "0": ("Sequential", 1, "", False, False),
        "1": ("Flatten", 1, "", False, False),
        "2": ("Linear", 1, "", False, False),
        "idle": ("Linear", 0, "", False, False),
    }
    assert list(table["order"].dropna()) == list(range(6))
    assert list(table["units"].dropna()) == [4, 4, 4, 4, 144, 3]
    assert table[~table["tappable"]]["reason"].tolist() == ["did not run on the example"]
    assert hooks(model) == modes() == 0
    assert model.training
    # A parent stands above its parts, and the star is what auto takes.
    lines = str(table).splitlines()
    assert [line.split()[0] for line in lines if not line.startswith("*")] == [
        "0",
        "0.0",
        "0.1",
        "1",
        "2",
        "idle",
    ]
    assert [line for line in lines if line.startswith("*")] == [
        "*   0.2  ReLU  (3, 4, 6, 6)  4 units on axis 1"
    ]


def test_functions_that_matter_have_rows() -> None:
    table = nk.layers(Small().eval(), X).set_index("address")
    functions = table[table["type"] == "function"]
    # The last ReLU of the block is the block's output, and goes by its name.
    assert list(functions.index) == ["block:relu#1", "block:add#1", "block:add#2", ":cat"]
    assert functions["tappable"].all()
    assert list(functions["units"]) == [4, 4, 4, 8]
    assert table.loc["block.conv2", "in_place"] == "block:add"


def test_a_sum_that_is_overwritten_before_its_block_ends_has_a_row() -> None:
    """As in torchvision's residual blocks: the sum, its ReLU and the block give one and the same tensor."""

    class Inplace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu = nn.Conv2d(2, 2, 1), nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.conv(x)
            y += x
            out: Tensor = self.relu(y)
            return out

    model = nn.Sequential(Inplace())
    table = nk.layers(model, X).set_index("address")
    assert list(table.index) == ["0.conv", "0:add", "0.relu", "0"]
    assert list(table["in_place"]) == ["0:add", "0.relu", "", ""]
    with torch.no_grad(), Taps(model, ["0:add"], gates={"0:add": torch.tensor([1.0, 0.0])}) as taps:
        answer = model(X)
        assert torch.equal(
            taps.activations["0:add"][:, 0], (F.conv2d(X, *model[0].conv.parameters()) + X)[:, 0]
        )
    assert (taps.activations["0:add"] < 0).any()
    assert not answer[:, 1].any()


def test_the_model_runs_once() -> None:
    model, runs = Small().eval(), []
    model.register_forward_pre_hook(lambda *_: runs.append(1))
    nk.layers(model, X)
    assert runs == [1]
    Network.wrap(model, ["a", "b", "c"], example=X, layers=[":cat"])
    assert runs == [1, 1]


def test_table_of_a_network_needs_no_example() -> None:
    network = nk.load_network("resnet-fashion")
    table = nk.layers(network)
    assert set(network.layers) <= set(table[table["tappable"]]["address"])


@pytest.mark.parametrize(("target", "example"), [(3, X), (Small(), None), (Small(), [1.0])])
def test_table_of_nothing(target: object, example: object) -> None:
    with pytest.raises(NadkitError, match=r"layers are listed of a torch.nn.Module and a tensor"):
        nk.layers(target, example)  # type: ignore[arg-type]


def test_outputs_that_are_not_one_tensor_say_so() -> None:
    class Many(nn.Module):
        def __init__(self, give: Callable[[Tensor], object]) -> None:
            super().__init__()
            self.give, self.inner = give, nn.Identity()

        def forward(self, x: Tensor) -> object:
            return self.give(self.inner(x))

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pair, self.book = Many(lambda x: (x, x)), Many(lambda x: {"a": x})
            self.number, self.flat = Many(lambda x: x.argmax(1)), Many(lambda x: x.sum((1, 2, 3)))
            self.odd = Many(lambda x: torch.einsum("nchw->hcnw", x).relu())
            self.turned = Many(lambda x: x.clone().transpose_(0, 1))

        def forward(self, x: Tensor) -> Tensor:
            for part in (self.pair, self.book, self.number, self.flat, self.odd, self.turned):
                part(x)
            return x

    table = nk.layers(Whole(), X[:, :, :2]).set_index("address")
    assert table.loc["pair", "output"] == "tuple of 2"
    assert table.loc["book", "output"] == "dict of 1"
    reasons = table["reason"]
    assert reasons["pair"] == "gives a tuple of 2, not one tensor"
    assert reasons["number"] == "gives torch.int64, not floats"
    assert reasons["flat"] == "has no axis of units"
    assert reasons["odd"] == "has its samples on axis 2, not on axis 0"
    assert reasons["turned"] == "has its samples on no axis that is known, not on axis 0"


# Where units lie.


class Attention(nn.Module):
    """A user's own attention, with every way of writing it."""

    def __init__(self, width: int, heads: int, way: str) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads, self.way = heads, way

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        if self.way == "fused":
            y = F.scaled_dot_product_attention(q, k, v)
        elif self.way == "einsum":
            y = torch.einsum("nhij,nhjd->nhid", torch.einsum("nhid,nhjd->nhij", q, k).softmax(-1), v)
        else:
            y = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        y = y.transpose(1, 2)
        y = y.flatten(2) if self.way == "fused" else y.reshape(n, t, c)
        out: Tensor = self.proj(y)
        return out


class Torchs(nn.Module):
    """Torch's own attention; with weights asked for it takes another way inside."""

    def __init__(self, width: int, heads: int, way: str) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(width, heads, batch_first=way != "second")
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(0, 1) if self.way == "second" else x
        y: Tensor = self.inner(x, x, x, need_weights=self.way == "weights")[0]
        return y.transpose(0, 1) if self.way == "second" else y


class Former(nn.Module):
    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.patch, self.attention, self.head = nn.Conv2d(2, 12, 4, 4), attention, nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        out: Tensor = self.head((x + self.attention(x)).mean(1))
        return out


@pytest.mark.parametrize(
    ("make", "way"),
    [(Attention, way) for way in ("fused", "einsum", "plain")]
    + [(Torchs, way) for way in ("first", "second", "weights")],
)
def test_heads_of_every_attention(make: type[nn.Module], way: str) -> None:
    attention = make(12, 3, way)
    model = Former(attention).eval()
    network = Network.wrap(model, ["a", "b", "c"], example=X, layers="**:heads")
    (place,) = network.layers
    assert network.layers[place] == Layer(units=3, axis=2)
    projection = attention.proj if make is Attention else attention.inner.out_proj  # type: ignore[union-attr]
    gates = torch.eye(3).logical_not().float()  # picture n is without head n
    with torch.no_grad():
        plain = network.logits(X)
        with Taps(network, gates={place: torch.ones(3, 3)}, rows=torch.arange(3)) as taps:
            assert torch.equal(network.logits(X), plain)
        assert taps.activations[place].shape == (3, 4, 3, 4)
        with Taps(network, (), gates={place: gates}, rows=torch.arange(3)):
            gated = network.logits(X)
        for n in range(3):
            kept = projection.weight.clone()  # type: ignore[union-attr]
            projection.weight[:, 4 * n : 4 * n + 4] = 0  # type: ignore[union-attr, index]
            torch.testing.assert_close(gated[n], network.logits(X)[n])
            projection.weight.copy_(kept)  # type: ignore[union-attr, operator]
    assert hooks(model) == modes() == 0


@pytest.mark.parametrize("way", ["first", "second"])
def test_heads_of_torchs_attention_on_windows(way: str) -> None:
    """Four windows of a picture stand one after another where the samples were."""

    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch, self.attention, self.head = nn.Conv2d(2, 6, 1), Torchs(6, 2, way), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = windows(self.patch(x)).flatten(0, 1)
            out: Tensor = self.head(self.attention(x).unflatten(0, (-1, 4)).mean((1, 2)))
            return out

    model, place = Windows().eval(), "attention.inner:heads"
    network = Network.wrap(model, ["a", "b", "c"], example=X, layers=[place])
    assert network.layers[place] == Layer(units=2, axis=3, folds=4)
    gates = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    with torch.no_grad():
        with Taps(network) as plain:
            network.logits(X)
        with Taps(network, gates={place: gates}, rows=torch.tensor([0, 1, 0])) as taps:
            network.logits(X)
    want = plain.activations[place].clone()
    assert want.shape == (3, 4, 16, 2, 3)
    want[1, :, :, 0] = 0
    assert torch.equal(taps.activations[place], want)
    images = nk.Images(torch.rand(18, 2, 8, 8), torch.arange(3).repeat(6), ("a", "b", "c"))
    assert set(nk.learn_masks(network, images, steps=2, progress=False).scores) == {place}


def test_heads_of_nested_taps_multiply_in_torchs_attention() -> None:
    model = Former(Torchs(12, 3, "first")).eval()
    place = "attention.inner:heads"
    first, second = torch.tensor([2.0, 1.0, 1.0]), torch.tensor([3.0, 0.0, 1.0])
    with torch.no_grad(), Taps(model, [place]) as plain:
        model(X)
    with (
        torch.no_grad(),
        Taps(model, gates={place: first}) as outer,
        Taps(model, gates={place: second}) as inner,
    ):
        model(X)
    assert torch.equal(outer.activations[place], plain.activations[place] * first[:, None])
    assert torch.equal(inner.activations[place], plain.activations[place] * (first * second)[:, None])


def test_gradient_reaches_the_gate_of_a_head() -> None:
    model = Former(Torchs(12, 3, "first")).eval()
    gate = torch.ones(3, requires_grad=True)
    with Taps(model, (), gates={"attention.inner:heads": gate}):
        model(X).sum().backward()
    assert gate.grad is not None
    assert (gate.grad != 0).all()
    with torch.no_grad(), Taps(model, ["attention.inner:heads"]) as taps:
        model(X)
    assert taps.activations["attention.inner:heads"].ndim == 4


AXES: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module, Tensor], Tensor], Layer]] = {
    "map": (lambda: nn.Conv2d(2, 5, 1), lambda m, x: m(x), Layer(5, 1)),
    "line": (lambda: nn.Conv1d(2, 5, 1), lambda m, x: m(x.flatten(2)), Layer(5, 1)),
    "volume": (lambda: nn.Conv3d(2, 5, 1), lambda m, x: m(x.unsqueeze(2)), Layer(5, 1)),
    "channels last": (lambda: nn.Linear(2, 5), lambda m, x: m(x.permute(0, 2, 3, 1)), Layer(5, 3)),
    "tokens": (lambda: nn.Linear(2, 5), lambda m, x: m(x.flatten(2).mT), Layer(5, 2)),
    "vector": (lambda: nn.Linear(2, 5), lambda m, x: m(x.mean((-1, -2))), Layer(5, 1)),
    "tokens moved back": (
        lambda: nn.Identity(), lambda m, x: m(F.linear(x.flatten(2).mT, torch.eye(2)).mT), Layer(2, 1)
    ),
    "windows": (
        lambda: nn.Linear(2, 5),
        lambda m, x: (
            m(x.reshape(len(x), 2, 2, 4, 8).permute(0, 2, 3, 4, 1).reshape(2 * len(x), 32, 2))
            .unflatten(1, (4, 8))  # reads the axes as they are, windows in the samples' one
        ),
        Layer(5, 3, folds=2),
    ),
    "groups shuffled": (
        lambda: nn.Identity(),
        lambda m, x: m(torch.cat([x, x, x], 1).view(-1, 2, 3, 8, 8).transpose(1, 2).reshape(-1, 6, 8, 8)),
        Layer(6, 1),
    ),
    "part of the units": (lambda: nn.Identity(), lambda m, x: m(x.chunk(2, 1)[0]), Layer(1, 1)),
    "joined": (lambda: nn.Identity(), lambda m, x: m(torch.cat([x, x], 1)), Layer(4, 1)),
    "normalised last": (lambda: nn.LayerNorm(2), lambda m, x: m(x.flatten(2).mT), Layer(2, 2)),
    "matrix": (
        lambda: nn.Identity(), lambda m, x: m(x.flatten(2).mT @ nn.Parameter(torch.ones(2, 5))), Layer(5, 2)
    ),
}  # fmt: skip


class Way(nn.Module):
    def __init__(self, place: nn.Module, run: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.place, self.run = place, run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self.place, x).reshape(len(x), -1)[:, :3]


def test_pixels_in_a_row_of_one_picture_with_one_channel() -> None:
    model = nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        assert choose_layers(model, torch.ones(1, 1, 1, 3), ["0", "1"])[0] == {
            "0": Layer(3, 1),
            "1": Layer(3, 1),
        }


def test_what_no_function_tells_of_is_read_off_the_modules_inputs() -> None:
    class Own(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.from_numpy(x.numpy() * 2)

    model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.Flatten(2), Own())
    with torch.no_grad():
        assert choose_layers(model, X, ["2"])[0] == {"2": Layer(4, 1)}


def test_a_network_of_torchs_encoder_answers_the_same_bits_tapped_or_not() -> None:
    """Without hooks, modes and gradients torch would run the whole layer in one step of its own."""
    torch.manual_seed(0)
    encoder = nn.TransformerEncoderLayer(12, 4, 48, batch_first=True)
    model = Former(encoder)
    network = Network.wrap(model, ["a", "b", "c"], example=X, layers=["attention.linear1", "attention:relu"])
    with torch.no_grad():
        many = torch.rand(40, 2, 8, 8)
        plain = network.logits(many)
        ones = {address: torch.ones(layer.units) for address, layer in network.layers.items()}
        with Taps(network, gates=ones):
            assert torch.equal(network.logits(many), plain)
        with Taps(network, (), gates={"attention.linear1": ones["attention.linear1"]}):
            assert torch.equal(network.logits(many), plain)
        assert not torch.equal(model.eval()(many), plain)  # the fast way: equal but for the last bits
        torch.testing.assert_close(model(many), plain)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("way", AXES)
def test_units_lie_where_the_record_says(way: str, count: int) -> None:
    make, run, expected = AXES[way]
    model = Way(make(), run).eval()
    with torch.no_grad():
        layers, _ = choose_layers(model, X[:count], ["place"])
        assert layers == {"place": expected}
        # A gate of each picture's own acts on that picture and that unit, on any number of pictures.
        network = type("Named", (), {"model": model, "layers": layers})()
        gates = torch.ones(2, expected.units)
        gates[1, 0] = 0
        with Taps(network, ["place"]) as plain:
            model(X)
        with Taps(network, gates={"place": gates}, rows=torch.tensor([0, 1, 0])) as taps:
            model(X)
    want = plain.activations["place"].clone()
    want[1].select(expected.axis - 1, 0).zero_()
    assert len(want) == 3
    assert torch.equal(taps.activations["place"], want)


def windows(x: Tensor) -> Tensor:
    """(N, C, 8, 8) to four windows of sixteen positions, units last."""
    return x.reshape(len(x), -1, 2, 4, 2, 4).permute(0, 2, 4, 3, 5, 1).reshape(len(x), 4, 16, -1)


def whole(x: Tensor) -> Tensor:
    """Windows back to (N, 8, 8, C)."""
    return x.reshape(len(x), 2, 2, 4, 4, -1).permute(0, 1, 3, 2, 4, 5).reshape(len(x), 8, 8, -1)


PLACES: dict[str, tuple[Callable[[nn.Module, Tensor], Tensor], bool]] = {
    "map": (lambda m, x: m(x), True),
    "channels last": (lambda m, x: m(x.permute(0, 2, 3, 1)), True),
    "every second": (lambda m, x: m(x.permute(0, 2, 3, 1)[:, 1::2, ::2]), True),
    "tokens as a map": (lambda m, x: m(x.flatten(2).mT.reshape(len(x), 8, 8, 2)), True),
    "windows": (lambda m, x: m(windows(x)), False),
    "windows, units first": (lambda m, x: m(F.conv2d(windows(x).permute(0, 3, 1, 2), ONE)), False),
    "windows in a layer": (lambda m, x: m(F.layer_norm(F.linear(windows(x), ONE[..., 0, 0]), [2])), False),
    "windows put back": (lambda m, x: m(whole(windows(x))), True),
    "windows added to a map": (lambda m, x: m(whole(windows(x) * 2) + x.permute(0, 2, 3, 1)), True),
    "pooled windows": (lambda m, x: m(F.max_pool2d(windows(x).permute(0, 3, 1, 2), 2)), False),
    "convolved, then windows": (lambda m, x: m(windows(F.conv2d(x, ONE))), False),
}  # fmt: skip
ONE = torch.ones(2, 2, 1, 1)


@pytest.mark.parametrize("way", PLACES)
def test_windows_are_not_taken_for_rows_and_columns(way: str) -> None:
    run, expected = PLACES[way]
    model = Way(nn.Identity(), run).eval()
    with torch.no_grad():
        layers, _ = choose_layers(model, X, ["place"])
        network = type("Named", (), {"model": model, "layers": layers})()
        with Taps(network) as taps:
            model(X)
    assert (maps_of(taps.activations["place"], layers["place"]) is not None) == expected


def test_a_heatmap_of_windows_is_refused() -> None:
    model = Way(nn.Identity(), lambda m, x: m(windows(x)))
    network = Network.wrap(model, ["a", "b", "c"], example=X, layers=["place"])
    with pytest.raises(LayerError, match=r"'place' gives \(4, 16, 2\) .* no rows and columns"):
        nk.heatmap(network, nk.Images(X, torch.tensor([0, 1, 2]), ["a", "b", "c"]), "a", layer="place")


def test_samples_that_are_not_on_axis_0_are_refused_and_the_units_axis_may_be_said() -> None:
    second = Way(nn.Linear(2, 5), lambda m, x: m(x.flatten(2).permute(2, 0, 1)).transpose(0, 1))
    with torch.no_grad(), pytest.raises(LayerError, match="'place' has its samples on axis 1, not on axis 0"):
        choose_layers(second, X, ["place"])
    odd = Way(nn.Identity(), lambda m, x: m(torch.rot90(x, 1, (1, 3))))
    with torch.no_grad():
        with pytest.raises(
            LayerError, match=r"units on no axis that is known; say which: layers=\{address: axis\}"
        ):
            choose_layers(odd, X, ["place"])
        assert choose_layers(odd, X, {"place": -1})[0] == {"place": Layer(2, 3)}


SQUARE = torch.linspace(-1, 1, 8**4).reshape(8, 8, 8, 8)  # of every axis the same size


def mixer(x: Tensor, swapped: bool) -> Tensor:
    """A layer over the 64 tokens and one over the 8 units."""
    x = F.linear(x.flatten(2).mT, torch.eye(8))
    mixed = F.gelu(F.linear(x.mT, torch.ones(64, 64))).mT
    return mixed + x if swapped else x + mixed


def second(x: Tensor) -> Tensor:
    """Attention by hand with the tokens first, as many as there are pictures."""
    x = x[:, :, 0].permute(2, 0, 1)
    t, n, c = x.shape
    q = x.contiguous().view(t, n * 2, c // 2).transpose(0, 1)
    return ((q @ q.mT).softmax(-1) @ q).transpose(0, 1).contiguous().view(t, n, c)


SQUARES: dict[str, tuple[Callable[[Tensor], Tensor], Layer | str]] = {
    "einsum, units last": (lambda x: torch.einsum("nchw->nhwc", x), Layer(8, 3)),
    "einsum, samples moved": (lambda x: torch.einsum("nchw->hcnw", x), "samples on axis 2"),
    "einsum, no arrow": (lambda x: torch.einsum("nbca", x), "samples on axis 3"),
    "einsum of weights": (lambda x: torch.einsum("nchw,cd->nhwd", x, torch.eye(8)), Layer(8, 3)),
    "einsum with dots": (lambda x: torch.einsum("...ab->...ba", x), "samples on no axis"),
    "in-place view": (lambda x: x.clone().transpose_(1, 2), "samples on no axis"),
    "by keyword": (lambda x: torch.permute(input=x, dims=(0, 2, 3, 1)), Layer(8, 3)),
    "pooled tokens": (
        lambda x: F.max_pool2d(F.linear(x.flatten(2).mT, torch.eye(8)), (2, 1)), Layer(8, 2)
    ),
    "pooled channels last": (lambda x: F.avg_pool2d(x.permute(0, 2, 3, 1), (2, 1)), Layer(8, 3)),
    "mixed tokens second": (lambda x: mixer(x, False), Layer(8, 2)),
    "mixed tokens first": (lambda x: mixer(x, True), Layer(8, 2)),
    "turned weights": (lambda x: x.flatten(2).mT @ torch.eye(8).t(), Layer(8, 2)),
    "turned weights, units lost": (lambda x: x.reshape(8, 16, 32) @ torch.ones(32, 5).neg(), Layer(5, 2)),
    "a constant over columns": (lambda x: x @ torch.ones(8, 8).triu(), Layer(8, 1)),
    "a new axis": (lambda x: x.reshape(8, 1, 8, 8, 8), Layer(8, 2)),
    "two that disagree": (lambda x: x + x.transpose(1, 2), "units on no axis"),
    "tokens first by hand": (second, "samples on no axis"),
    "stacked": (lambda x: torch.stack([x, x], 1).sum(1), Layer(8, 1)),
    "weights as an activation": (lambda x: x + torch.ones(8, 1, 1).expand_as(x), Layer(8, 1)),
    "picked by a list": (lambda x: x[:, torch.tensor([3, 1])], Layer(2, 1)),
    "picked samples": (lambda x: x[torch.tensor([3, 1])], "samples on no axis"),
    "turned": (lambda x: torch.rot90(x, 1, (0, 1)), "samples on no axis"),
    "hardswish": (F.hardswish, Layer(8, 1)),
}  # fmt: skip


@pytest.mark.parametrize("way", SQUARES)
def test_equal_sizes_tell_nothing(way: str) -> None:
    run, expected = SQUARES[way]
    model = nn.Module()
    model.place = nn.Identity()
    model.forward = lambda x: model.place(run(x))  # type: ignore[method-assign]
    with torch.no_grad():
        if isinstance(expected, str):
            with pytest.raises(LayerError, match=expected):
                choose_layers(model, SQUARE, ["place"])
        else:
            assert choose_layers(model, SQUARE, ["place"])[0] == {"place": expected}


# Functions.


@pytest.mark.parametrize("place", ["relu#1", "add#1", "add#2", "relu#2"])
def test_gate_of_a_function(place: str) -> None:
    model = Small().eval()
    gate = torch.tensor([1.0, 0.0, 2.0, 1.0])
    with torch.no_grad():
        with Taps(model.block, [], gates={f":{place}": gate}):
            gated = model.block(model.stem(X))
        assert torch.equal(gated, slow_block(model.block, model.stem(X), {place: gate}))
        with Taps(model, [f"block:{place}", ":cat"], gates={f"block:{place}": gate}) as taps:
            model(X)
    assert not taps.activations[f"block:{place}"][:, 1].any()
    assert taps.activations[":cat"].shape == (3, 8, 8, 8)
    assert hooks(model) == modes() == 0


def test_what_an_edit_calls_is_not_counted() -> None:
    model = Small().eval()
    with torch.no_grad(), Taps(model, ["block:add#1", "block:add#2"]) as plain:
        model(X)

    def edit(output: Tensor) -> Tensor:
        return F.relu(output + output) * 0 + output

    edits = {"block.conv2": edit, "block": edit, "block:add#1": edit}
    with torch.no_grad(), Taps(model, ["block:add#1", "block:add#2"]) as taps, Taps(model, [], edits=edits):
        model(X)
    for address in ("block:add#1", "block:add#2"):
        assert torch.equal(taps.activations[address], plain.activations[address])


def test_functions_that_are_not_there() -> None:
    model = Small().eval()
    with pytest.raises(LayerError, match=r"'block:ad' names no function .*closest: add"):
        Taps(model, ["block:ad"])
    with (
        pytest.raises(LayerError, match=r"'block:add' runs more than once.* block:add#1"),
        Taps(model, ["block:add"]),
    ):
        model(X)
    ended = r"block:add#3 of Small never ran; it ended with block:add#2"
    with pytest.raises(LayerError, match=ended), Taps(model, ["block:add#3"]):
        model(X)


def test_learning_links_and_heatmaps_take_functions_and_heads() -> None:
    torch.manual_seed(0)
    former = Former(Torchs(12, 3, "first"))
    for model, places in ((former, ["attention.inner:heads", "patch"]), (Small(), ["block:add#2", ":cat"])):
        network = Network.wrap(model, ["a", "b", "c"], example=X, layers=places)
        images = nk.Images(torch.rand(18, 2, 8, 8), torch.arange(3).repeat(6), ("a", "b", "c"))
        masks = nk.learn_masks(network, images, steps=3, progress=False)
        assert set(masks.scores) == set(places)
        ones = nk.MaskSet.from_scores({a: torch.ones(1, la.units) for a, la in network.layers.items()}, ["b"])
        arch = nk.extract(network, ones, images, "b", pictures=4, progress=False)
        assert arch.graph.in_degree("logit:b") > 0
        if ":cat" in places:
            assert nk.heatmap(network, images[:2], "b", layer=":cat").shape == (2, 8, 8)
        with pytest.raises(NadkitError, match="is the place of a function, which an export cannot cut"):
            nk.export(network, ones, "b")
        assert hooks(model) == modes() == 0


# Choosing.


class Stem(nn.Sequential):
    pass


class Imagenet(nn.Module):
    """The searched network as its authors wrote it for ImageNet, with 14 cells and an auxiliary output."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem0 = nn.Sequential(nn.Conv2d(2, width, 3, 2, 1), nn.BatchNorm2d(width))
        self.stem1 = nn.Sequential(nn.ReLU(), nn.Conv2d(width, width, 3, 2, 1), nn.BatchNorm2d(width))
        inputs, after, cells = (width, width), True, []
        for number in range(14):
            reduces = number in (4, 9)
            width *= 2 if reduces else 1
            cell = Cell(DARTS_V2, inputs, width, reduces=reduces, after_reduction=after)
            cells.append(cell)
            inputs, after = (inputs[1], cell.channels_out), reduces
        self.cells, self.classifier = nn.ModuleList(cells), nn.Linear(inputs[1], 3)

    def forward(self, x: Tensor) -> Tensor:
        before = self.stem0(x)
        last = self.stem1(before)
        for cell in self.cells:
            before, last = last, cell(before, last)
        out: Tensor = self.classifier(last.mean((2, 3)))
        return out


def test_paper_on_a_searched_network_of_14_cells() -> None:
    x = torch.rand(1, 2, 64, 64)
    network = Network.wrap(Imagenet(4), ["a", "b", "c"], example=x, layers="paper")
    assert list(network.layers) == ["stem0", "stem1", *(f"cells.{i}" for i in range(14))]
    assert [layer.units for layer in network.layers.values()] == [4, 4, *[16] * 4, *[32] * 5, *[64] * 5]


def test_types_functions_and_lists_of_choices() -> None:
    model = Small().eval()

    def chosen(wanted: object) -> list[str]:
        return list(choose_layers(model, X, wanted)[0])  # type: ignore[arg-type]

    with torch.no_grad():
        assert chosen(nn.BatchNorm2d) == ["block.bn"]
        assert chosen([nn.Linear, "stem", "**:add#2"]) == ["stem", "block:add#2", "head"]
        assert chosen(lambda _address, module: module is model.block) == ["block"]
        assert chosen(["auto", ":cat"]) == [*chosen("auto"), ":cat"]
        assert all(":" not in address for address in chosen("**"))
        signs = nn.Sequential(nn.ModuleDict({"a[0]": nn.ReLU(), "a*": nn.ReLU()}), nn.Flatten())
        signs[0].forward = lambda x: signs[0]["a*"](signs[0]["a[0]"](x))  # type: ignore[method-assign]
        for address in ("0.a[0]", "0.a*"):  # a name may have signs of patterns
            assert list(choose_layers(signs, X, [address])[0]) == [address]
        assert chosen(model.block) == chosen([model.block]) == ["block"]
        for axis in (0, 4, -4, 5, True, 1.0, "1"):
            for name in ("stem", "ste*"):
                with pytest.raises(LayerError, match=r"'stem' has 4 axes, .* its units cannot lie on"):
                    chosen({name: axis})
        assert choose_layers(model, X, {"stem": -1})[0]["stem"].axis == 3
        with pytest.raises(LayerError, match=r"\['stem'\] names no layers; give addresses"):
            chosen([["stem"]])
        with pytest.raises(LayerError, match="LSTM fits no layer with units"):
            chosen(nn.LSTM)
        with pytest.raises(LayerError, match="knows the published places of VGG"):
            chosen("paper")


# Models that hooks cannot follow.


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # scripting is deprecated
def test_models_that_take_no_hooks_are_refused_by_name() -> None:
    model = Small().eval()
    refused = {
        "a compiled model": torch.compile(model),
        "DataParallel runs copies": nn.DataParallel(model),
        "a scripted or traced": torch.jit.trace(model, X),
    }
    for words, other in refused.items():
        for use in (lambda m: Taps(m, ["stem"]), lambda m: nk.layers(m, X)):
            with pytest.raises(NadkitError, match=words):
                use(other)
        with pytest.raises(NadkitError, match=words):
            Network.wrap(other, ["a", "b", "c"], example=X)


def test_hooks_of_the_models_own_stay_and_act() -> None:
    model = Small().eval()
    model.block.register_forward_hook(lambda _m, _a, out: out * 2)
    with torch.no_grad():
        plain = model(X)
        with Taps(model, ["block", "block:add#1"]) as taps:
            assert torch.equal(model(X), plain)
        assert hooks(model) == 1
        assert torch.equal(taps.activations["block"], model.block(model.stem(X)))


def test_another_thread_is_refused() -> None:
    model, said = Small().eval(), []

    def work() -> None:
        try:
            model(X)
        except LayerError as error:
            said.append(str(error))

    with Taps(model, ["stem"]):
        model(X)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        with Taps(Small().eval(), ["stem"]) as other:  # a second model meanwhile
            other._model(X)  # type: ignore[misc]
    assert "Small is tapped in another thread" in said[0]
    work()
    assert len(said) == 1


def test_a_model_on_two_devices_is_refused_by_their_names() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.Flatten(), nn.Linear(256, 3, device="meta"))
    words = r"buffers lie on cpu and meta \(0.weight on cpu; 2.weight on meta\); move it to one"
    with pytest.raises(NadkitError, match=words):
        Network.wrap(model, ["a", "b", "c"], example=X)


@pytest.mark.parametrize("model", [Small(), Former(Torchs(12, 3, "first"))], ids=["maps", "heads"])
def test_gates_follow_autocast(model: nn.Module) -> None:
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        table = nk.layers(model.eval(), X)
        usable = list(table[table["tappable"]]["address"])
        layers, _ = choose_layers(model, X, usable)
        network = type("Named", (), {"model": model, "layers": layers})()
        with Taps(network) as plain:
            expected = model(X)
        with Taps(network, gates={a: torch.ones(layer.units) for a, layer in layers.items()}) as taps:
            assert torch.equal(model(X), expected)
    assert expected.dtype == torch.bfloat16
    for address in usable:
        assert taps.activations[address].dtype == plain.activations[address].dtype


# Nothing left behind.


def state(model: nn.Module) -> tuple[object, ...]:
    return (
        nk.networks.hash_weights(model.state_dict()), hooks(model), modes(), torch.get_rng_state().tolist(),
        [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()],
        [p.grad for p in model.parameters()], torch.is_grad_enabled(), torch.get_num_threads(),
        torch.is_autocast_enabled("cpu"),
    )  # fmt: skip


def test_a_hundred_uses_leave_nothing() -> None:
    model = Small().train()
    before, places = state(model), ["block", "block:add#1", ":cat"]

    def broken(_output: Tensor) -> Tensor:
        raise KeyboardInterrupt

    def use(model: nn.Module, number: int) -> None:
        with torch.no_grad(), Taps(model, places), Taps(model, (), edits={"block:add#2": torch.neg}):
            model.eval()(X)
            model.train()
        nk.layers(model, X)
        with (
            pytest.raises(KeyboardInterrupt),
            torch.no_grad(),
            Taps(model, (), edits={places[number % 3]: broken}),
        ):
            model.eval()(X)
        model.train()

    for number in range(3):
        use(model, number)
    gc.collect()
    count = len(gc.get_objects())
    for number in range(100):
        use(model, number)
    gc.collect()
    assert len(gc.get_objects()) <= 1.01 * count
    assert state(model) == before
    held = weakref.ref(model)
    gc.disable()
    try:
        del model
        assert held() is None  # no cycle holds it: counting references frees it
    finally:
        gc.enable()


def test_recording_ties_no_knot() -> None:
    """Counting references alone frees the model and every activation, without a collection."""

    def use(model: nn.Module) -> None:
        nk.layers(model, X)
        Network.wrap(model, ["a", "b", "c"], example=X)

    for model in (Small().eval(), Former(Attention(12, 3, "plain")).eval()):
        kept: list[weakref.ref[Tensor]] = []
        model.register_forward_hook(lambda _m, _a, out, kept=kept: kept.append(weakref.ref(out)))
        gc.collect()
        gc.disable()
        try:
            use(model)
            assert len(kept) == 2
            assert [out() for out in kept] == [None, None]
        finally:
            gc.enable()
    held = weakref.ref(small := Small())
    gc.disable()
    try:
        use(small)
        del small
        assert held() is None
    finally:
        gc.enable()


def test_names_with_the_signs_of_addresses_are_listed_with_that_reason() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            part = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())
            self.d = nn.ModuleDict({"u:r": nn.Conv2d(2, 4, 1), "v#1": part, "w": Block(4)})
            self.h = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.d["w"](self.d["v#1"](self.d["u:r"](x)))
            out: Tensor = self.h(x.mean((2, 3)))
            return out

    model = Named().eval()
    table = nk.layers(model, X).set_index("address")
    for address in ("d.u:r", "d.v#1", "d.v#1.0", "d.v#1.1"):
        assert "has ':' or '#' in a module's name" in table.loc[address, "reason"]
    for address in ("d.u:r", "d.v#1"):
        with pytest.raises(LayerError, match=r"has ':' or '#' in a module's name.*rename it"):
            Network.wrap(model, ["a", "b", "c"], example=X, layers=address)
    assert list(Network.wrap(model, ["a", "b", "c"], example=X).layers) == ["d.w"]
    usable = list(table[table["tappable"]].index)
    assert usable
    with Taps(model, usable):
        model(X)
