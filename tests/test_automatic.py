"""What `layers="auto"` picks, by hand: blocks beside each other, what stands in for a block, class maps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from test_places import Composed, Residual, conv, head, unit
from torch import Tensor, nn

import nadkit as nk
from nadkit.errors import LayerError
from nadkit.networks import Network
from nadkit.taps import Taps

X = torch.rand(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))
NAMES = ["a", "b", "c"]


def picks(model: nn.Module) -> dict[str, str]:
    """What the table recommends, with the reason; the network has the same, and none feeds a norm."""
    torch.manual_seed(0)
    table = nk.layers(model.eval(), X)
    rows = table[table["recommended"]]
    assert list(Network.wrap(model, NAMES, example=X).layers) == list(rows["address"])
    assert not rows["feeds_norm"].any()
    assert rows["tappable"].all()
    return dict(zip(rows["address"], rows["reason"], strict=True))


def chain(**parts: nn.Module) -> nn.Module:
    """Parts by name, one after the other, and a linear answer to the mean of the last one's four maps."""

    def run(model: Composed, x: Tensor) -> object:
        for name in parts:
            x = model.get_submodule(name)(x)
        return model.answer(x.mean((2, 3)))

    return Composed(run, **parts, answer=nn.Linear(4, 3))


class Functional(nn.Module):
    """Convolution, normalisation, and a ReLU that is no module: as in torchvision's Inception networks."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv, self.bn = conv(channels_in, channels_out), nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Parallel(nn.Module):
    """Two branches side by side, one of them a container of parts that would be blocks by themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.branch1 = Functional(4, 2)
        self.branch2 = nn.Sequential(Functional(4, 3), Functional(3, 2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x)], 1)


class Reduction(Parallel):
    pass


# Blocks that no container holds.


def test_parallel_paths_go_by_their_join() -> None:
    model = chain(
        conv1=Functional(2, 4), conv2=Functional(4, 4), inception3a=Parallel(), inception3b=Parallel()
    )
    assert picks(model) == dict.fromkeys(["conv1", "conv2", "inception3a", "inception3b"], "")


def test_names_alike_but_for_numbers_and_their_letters_make_blocks() -> None:
    model = chain(stem=Functional(2, 4), mixed_5b=Parallel(), mixed_6a=Reduction(), tail=Residual(4))
    # One alone of its class and name is no block.
    assert list(picks(model)) == ["mixed_5b", "mixed_6a", "tail.relu#1", "tail.relu#2"]


@pytest.mark.parametrize("depth", ["", "net.", "1."])
def test_repeated_class_makes_blocks_at_any_depth_of_wrappers(depth: str) -> None:
    model = chain(stem=conv(), block1=Residual(4), other=Residual(4), pool=nn.MaxPool2d(2), last=Residual(4))
    if depth == "net.":
        model = Composed(lambda m, x: m.net(x * 2), net=model)
    if depth == "1.":
        model = nn.Sequential(nn.Identity(), model)
    assert list(picks(model)) == [f"{depth}{name}" for name in ("block1", "other", "last")]


def test_a_stage_is_opened_and_a_layer_with_its_normalisation_is_no_block() -> None:
    class Stage(nn.Sequential):
        pass

    stages = chain(
        stem=conv(), stage1=Stage(Residual(4), Residual(4)), stage2=Stage(Residual(4), Residual(4))
    )
    # A subclass of Sequential holds no blocks for others, but these are blocks as two of a class.
    assert list(picks(stages)) == ["stage1", "stage2"]

    class Held(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks, self.pool = nn.Sequential(Residual(4), Residual(4)), nn.MaxPool2d(2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.pool(self.blocks(x))
            return out

    held = chain(stem=conv(), stage1=Held(), stage2=Held())
    assert list(picks(held)) == [f"stage{i}.blocks.{j}" for i in (1, 2) for j in (0, 1)]

    class ConvNorm(nn.Module):
        def __init__(self, channels: int, act: nn.Module | None = None) -> None:
            super().__init__()
            self.conv, self.bn, self.act = conv(channels), nn.BatchNorm2d(4), act or nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.act(self.bn(self.conv(x)))
            return out

    apart = chain(a=ConvNorm(2), act1=nn.ReLU(), b=ConvNorm(4), act2=nn.ReLU())
    assert list(picks(apart)) == ["act1", "act2"]
    within = chain(a=ConvNorm(2, nn.ReLU()), b=ConvNorm(4, nn.ReLU(inplace=True)))
    assert list(picks(within)) == ["a.act", "b.act"]


def test_parts_of_a_block_that_are_of_one_class_are_no_blocks() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn, self.one, self.two = nn.BatchNorm2d(4), Residual(4), Residual(4)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = x + self.two(self.one(self.bn(x)))
            return out

    model = nn.Sequential(conv(), Two(), Two(), *head(4))
    # The first feeds the normalisation of the second.
    why = "in place of 1, which feeds a normalisation"
    relus = [f"1.{part}.relu#{call}" for part in ("one", "two") for call in (1, 2)]
    assert picks(model) == {**dict.fromkeys(relus, why), "2": ""}


def test_activations_of_other_libraries_count() -> None:
    class Gelu(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.gelu(x)

    assert list(picks(nn.Sequential(conv(), nn.BatchNorm2d(4), Gelu(), *head(4)))) == ["2"]


# What stands in for a block.


def former(norm_first: bool, batch_first: bool, wrapped: bool) -> nn.Module:
    def layer() -> nn.TransformerEncoderLayer:
        return nn.TransformerEncoderLayer(12, 3, 24, norm_first=norm_first, batch_first=batch_first)

    def run(model: Composed, x: Tensor) -> object:
        rows = model.embed(x).flatten(2)
        x = model.former(rows.permute((0, 2, 1) if batch_first else (2, 0, 1)))
        return model.answer(x.mean(1 if batch_first else 0))

    last = nn.LayerNorm(12) if norm_first else None
    encoder = nn.TransformerEncoder(layer(), 2, norm=last, enable_nested_tensor=False)
    parts = encoder if wrapped else nn.Sequential(layer(), layer())
    return Composed(run, embed=nn.Conv2d(2, 12, 4, 4), former=parts, answer=nn.Linear(12, 3))


def test_transformers_of_torch() -> None:
    first, later = "former.layers.0", "former.layers.1"
    norm = "in place of {}, which feeds a normalisation"
    samples = "in place of {}, which has its samples on axis 1, not on axis 0"
    assert picks(former(True, True, True)) == {
        f"{first}:relu": norm.format(first),
        f"{later}:relu": norm.format(later),
    }
    assert picks(former(False, True, True)) == {first: "", later: ""}
    assert picks(former(True, False, True)) == {
        f"{first}.self_attn:heads": norm.format(first),
        f"{later}.self_attn:heads": norm.format(later),
    }
    assert picks(former(False, False, True)) == {
        f"{first}.self_attn:heads": samples.format(first),
        f"{later}.self_attn:heads": samples.format(later),
    }
    assert picks(former(True, True, False)) == {"former.0:relu": norm.format("former.0"), "former.1": ""}


def test_hidden_units_of_a_block_that_feeds_a_norm_are_removed_as_its_weights_say() -> None:
    model = former(True, True, True)
    network = Network.wrap(model.eval(), NAMES, example=X)
    gate = torch.ones(24)
    gate[5] = 0
    with torch.no_grad():
        whole = network.logits(X)
        with Taps(network, gates={"former.layers.0:relu": gate}):
            gated = network.logits(X)
        model.get_parameter("former.layers.0.linear2.weight")[:, 5] = 0
        torch.testing.assert_close(gated, network.logits(X))
    assert not torch.equal(whole, gated)


def test_blocks_of_several_outputs_go_by_the_places_that_give_them() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block, self.other = Residual(4), conv(4)

        def forward(self, pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            return self.block(pair[0]), self.other(pair[0]) + pair[1]

    def run(model: Composed, x: Tensor) -> object:
        x = model.stem(x)
        first, second = model.blocks((x, x))
        return model.answer((first * second.sigmoid()).mean((2, 3)))

    blocks = nn.Sequential(Pair(), Pair())
    model = Composed(run, stem=conv(), blocks=blocks, answer=nn.Linear(4, 3))
    assert picks(model) == {
        f"blocks.{i}{place}": f"in place of blocks.{i}, which gives a tuple of 2, not one tensor"
        for i in (0, 1)
        for place in (".block", ":add")
    }


def test_a_block_of_several_outputs_that_feed_a_norm_is_opened() -> None:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.one, self.two = nn.LayerNorm(6), nn.Linear(6, 10), nn.Linear(10, 6)

        def forward(self, x: Tensor) -> tuple[Tensor, None]:
            return x + self.two(F.gelu(self.one(self.norm(x)))), None

    def run(model: Composed, x: Tensor) -> object:
        x = model.embed(x).flatten(2).mT
        for layer in model.layers:  # type: ignore[union-attr]
            x = layer(x)[0]
        return model.answer(model.norm(x).mean(1))

    layers = nn.ModuleList([Layer(), Layer()])
    parts = {"embed": nn.Conv2d(2, 6, 4, 4), "norm": nn.LayerNorm(6), "answer": nn.Linear(6, 3)}
    found = picks(Composed(run, layers=layers, **parts))
    assert list(found) == ["layers.0:gelu", "layers.1:gelu"]


# Class maps.


ENDS: dict[str, Callable[[Tensor], object]] = {
    "pooled": lambda z: z.mean((2, 3)),
    "flattened": lambda z: F.adaptive_avg_pool2d(z, 1).flatten(1),
    "copied": lambda z: z.amax((2, 3)).clone(),
    "in a tuple": lambda z: (z.mean((2, 3)), z),
    "scaled": lambda z: z.flatten(2).mean(-1) * 3 + torch.ones(3),
    "as logarithms": lambda z: z.mean((2, 3)).log_softmax(1),
    "activated": lambda z: F.relu(z).mean((2, 3)),
}


@pytest.mark.filterwarnings("ignore:the model returns 2 outputs")
@pytest.mark.parametrize("end", ENDS)
def test_maps_of_classes_are_not_picked(end: str) -> None:
    def run(model: Composed, x: Tensor) -> object:
        return ENDS[end](model.classifier(model.features(x)))

    # Three hidden units too: a convolution behind them tells them from the classes.
    features = nn.Sequential(*unit(2, 3))
    classifier = nn.Sequential(nn.Dropout(), nn.Conv2d(3, 3, 1), nn.LeakyReLU())
    model = Composed(run, features=features, classifier=classifier)
    assert picks(model) == {"features.2": ""}
    table = nk.layers(model, X)
    reasons = dict(zip(table["address"], table["reason"], strict=True))
    for address in ("classifier.1", "classifier.2", "classifier"):
        assert reasons[address] == "its units are the classes"
    assert reasons["features.2"] == ""
    line = "classifier.2  LeakyReLU  (3, 3, 8, 8)  3 units on axis 1, its units are the classes"
    assert line in str(table)


def test_maps_that_become_the_answer_number_by_number_are_no_class_maps() -> None:
    model = nn.Sequential(conv(2, 4), nn.ReLU(), nn.AdaptiveAvgPool2d((1, 3)), nn.Flatten()).eval()
    table = nk.layers(model, X)
    assert list(table[table["recommended"]]["address"]) == ["1"]  # 4 units, 12 classes
    with pytest.raises(LayerError, match="no block, activation or hidden layer"):
        Network.wrap(nn.Sequential(conv(2, 3), nn.ReLU(), *head(3)[:2]), NAMES, example=X)
