"""Models that hooks or gradients cannot follow are refused by name, and copies made meanwhile stay free."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import nadkit as nk
from nadkit.errors import LayerError, NadkitError
from nadkit.networks import Network
from nadkit.taps import Taps

NAMES = ["a", "b", "c"]
X = torch.linspace(-1, 1, 6 * 2 * 8 * 8).reshape(6, 2, 8, 8)


class Block(nn.Module):
    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(channels_in, channels_out, 3, padding=1), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.conv(x))
        return out


class Steps(nn.Module):
    """Two blocks, the second run as `way` says."""

    def __init__(self, way: Callable[[nn.Module, Tensor], Tensor] = lambda block, x: block(x)) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head = Block(2, 4), Block(4, 4), nn.Linear(4, 3)
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(F.gelu(self.way(self.second, self.first(x))).mean((2, 3)))
        return out


def pictures() -> nk.Images:
    return nk.Images(torch.rand(18, 2, 8, 8), torch.arange(3).repeat(6), NAMES)


# Parts that run where no hook sees them.


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # scripting is deprecated
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda block: torch.compile(block, backend="eager"), "compiled model .* model._orig_mod"),
        (lambda block: block.compile(backend="eager") or block, "compile.. runs .* copy.deepcopy"),
        (lambda block: torch.jit.trace(block, torch.rand(1, 4, 8, 8)), "scripted or traced"),
        (nn.DataParallel, "DataParallel runs copies"),
    ],
    ids=["compiled", "compiled in place", "traced", "replicated"],
)
def test_parts_that_hooks_cannot_follow(change: Callable[[nn.Module], nn.Module], words: str) -> None:
    model = Steps().eval()
    model.second = change(model.second)
    for refused in (
        lambda: nk.layers(model, X),
        lambda: Network.wrap(model, NAMES, example=X),
        lambda: Taps(model, ["second"]),
    ):
        with pytest.raises(LayerError, match=rf"'second' of the model: .*{words}"):
            refused()
    with torch.no_grad(), Taps(model, ["first.relu"]) as taps:  # the rest can be tapped all the same
        model(X)
    assert torch.equal(taps.activations["first.relu"], model.first(X))


def test_a_model_compiled_in_place_is_refused_and_its_copy_is_not() -> None:
    model = Steps().eval()
    model.compile(backend="eager")
    with pytest.raises(LayerError, match=r"after model.compile\(\).*copy.deepcopy\(model\)"):
        Taps(model, ["first"])
    with Taps(copy.deepcopy(model), ["first"]) as taps:
        taps._model(X)  # type: ignore[misc]


def test_a_model_that_calls_itself() -> None:
    class Views(Steps):
        def forward(self, x: Tensor) -> Tensor:
            if x.shape[-1] < 8:
                return super().forward(x)
            out: Tensor = self(x[..., :6]) + self(x[..., 2:])
            return out

    model = Views().eval()
    for use in (lambda: nk.layers(model, X), lambda: Network.wrap(model, NAMES, example=X)):
        with pytest.raises(LayerError, match="Views calls itself in its forward"):
            use()
    assert Network.wrap(model, NAMES, example=X[..., :6]).units
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


# Weights that are not all there.


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(4, 1), nn.Flatten(), nn.LazyLinear(3))


def scattered() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.Flatten(), nn.Linear(256, 3))
    model.register_buffer("mean", torch.zeros(2, device="meta"))
    return model


def sealed() -> nn.Module:
    with torch.inference_mode():
        return Steps()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lazy, r"4 weights have no size yet, such as '0.weight' .*model\(example\)"),
        (scattered, r"lie on cpu and meta \(0.weight on cpu; mean on meta\)"),
        (lambda: Steps().to("meta"), "lies on meta"),
        (sealed, r"6 weights, such as 'first.conv.weight', were made in torch.inference_mode"),
    ],
    ids=["lazy", "a buffer elsewhere", "meta", "inference mode"],
)
def test_weights_that_are_not_all_there(make: Callable[[], nn.Module], words: str) -> None:
    for use in (lambda m: nk.layers(m, X), lambda m: Network.wrap(m, NAMES, example=X)):
        with pytest.raises(NadkitError, match=words):
            use(make())


def test_what_the_refusals_advise_works() -> None:
    model = lazy()
    model(X)
    assert Network.wrap(model, NAMES, example=X).units
    assert Network.wrap(copy.deepcopy(sealed()), NAMES, example=X).units
    counted = nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3))
    counted[1].num_batches_tracked = torch.tensor(0, device="meta")  # a lone number works with any device
    assert Network.wrap(counted, NAMES, example=X).units


def test_pictures_made_in_inference_mode_do() -> None:
    network = Network.wrap(Steps().eval(), NAMES, example=X)
    with torch.inference_mode():
        images = nk.Images(X.clone().repeat(3, 1, 1, 1), torch.arange(3).repeat(6), NAMES)
        inside = nk.heatmap(network, images[:2], "a", layer="first.relu", method="gradient-x-activation")
    assert torch.equal(
        inside, nk.heatmap(network, images[:2], "a", layer="first.relu", method="gradient-x-activation")
    )
    assert len(nk.learn_masks(network, images, steps=2, progress=False).tasks) == 3


# Parts that run a second time on the way back, or without gradients.


def again(reentrant: bool) -> Callable[[nn.Module, Tensor], Tensor]:
    def way(block: nn.Module, x: Tensor) -> Tensor:
        out: Tensor = checkpoint(block, x, use_reentrant=reentrant)
        return out

    return way


def without(block: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        out: Tensor = block(x)
    return out


UNREACHED = {"again": (again(False), "runs in torch.utils.checkpoint"),
             "again, reentrant": (again(True), "torch.utils.checkpoint"),
             "without gradients": (without, "torch.no_grad")}  # fmt: skip


@pytest.mark.parametrize("way", UNREACHED)
def test_parts_that_gradients_do_not_reach(way: str) -> None:
    run, words = UNREACHED[way]
    model, plain = Steps(run).eval(), Steps().eval()
    network = Network.wrap(model, NAMES, example=X, layers=["first.relu", "second.relu"])
    ones = nk.MaskSet.from_scores({a: torch.ones(1, one.units) for a, one in network.layers.items()}, ["b"])
    with pytest.raises(LayerError, match=f"'second.relu'.*{words}"):
        nk.learn_masks(network, pictures(), steps=2, progress=False)
    with pytest.raises(LayerError, match=f"'second.relu'.*{words}"):
        nk.extract(network, ones, pictures(), "b", progress=False)
    # What needs no gradient works, with a gate and without.
    gates = {"second.relu": torch.tensor([0.0, 1.0, 1.0, 1.0])}
    with torch.no_grad():
        with Taps(network, gates=gates) as taps:
            gated = network.logits(X)
        with Taps(plain, gates=gates) as wanted:
            assert torch.equal(plain(X), gated)
    assert torch.equal(taps.activations["second.relu"], wanted.activations["second.relu"])


def test_places_around_a_checkpointed_part_learn_the_same() -> None:
    torch.manual_seed(0)
    images, made = pictures(), []
    for run in (again(False), lambda block, x: block(x)):
        network = Network.wrap(Steps(run).eval(), NAMES, example=X, layers=["first.relu"])
        made.append(nk.learn_masks(network, images, steps=5, progress=False))
    assert torch.equal(made[0].scores["first.relu"], made[1].scores["first.relu"])


def test_what_is_saved_elsewhere_by_the_caller_is_no_checkpoint() -> None:
    gate = torch.ones(4, requires_grad=True)
    with torch.autograd.graph.save_on_cpu(), Taps(model := Steps().eval(), gates={"second": gate}):
        model(X).sum().backward()
    assert gate.grad is not None


def test_a_gate_that_could_learn_does_nothing_else_where_the_caller_wants_no_gradients() -> None:
    model, gate = Steps().eval(), torch.tensor([1.0, 0, 1, 1], requires_grad=True)
    with torch.no_grad(), Taps(model, ["second"], gates={"second": gate}) as taps:
        model(X)
    assert torch.equal(taps.activations["second"], model.second(model.first(X)) * gate[:, None, None])


# Copies.


def test_a_copy_made_within_a_block_is_free() -> None:
    model = Steps().eval()
    gates = {"first": torch.zeros(4), ":gelu": torch.tensor([1.0, 0, 1, 1])}
    with torch.no_grad():
        want = model(X)
        with Taps(model, gates=gates):
            copied = copy.deepcopy(model)
            assert torch.equal(copied(X), want)
            assert not torch.equal(model(X), want)
        assert torch.equal(copied(X), want)
    for part in copied.modules():
        for hooks in (part._forward_hooks, part._forward_pre_hooks, part._forward_hooks_always_called):
            assert not hooks


def test_a_tapped_model_is_not_saved_but_its_state_is() -> None:
    model = nn.Sequential(Block(2, 4), nn.Flatten())
    with Taps(model, ["0"]):
        model(X)
        with pytest.raises(
            LayerError, match=r"save it when the block has ended, or save model.state_dict\(\)"
        ):
            torch.save(model, io.BytesIO())
        torch.save(model.state_dict(), io.BytesIO())
    torch.save(model, io.BytesIO())
