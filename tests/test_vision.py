"""Networks of torchvision and timm: every promise of the taps holds on each, checked by ways of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from vision_models import CLASSES, MODELS, TORCHVISION, build, vision

import nadkit as nk
from nadkit.errors import LayerError
from nadkit.networks import Network, hash_weights

pytestmark = [pytest.mark.vision, pytest.mark.slow]

STEPS = 10


@contextmanager
def replaced(model: nn.Module, paths: set[str], change: Callable[[str, Tensor], Tensor]) -> Iterator[None]:
    """Replace the forward of modules, for a reference that knows no hook: path#call and output to output."""
    modules = {path: model.get_submodule(path) for path in paths}
    calls = dict.fromkeys(paths, 0)

    def put(path: str, module: nn.Module) -> None:
        forward = module.forward

        def changed(*args: object, **kwargs: object) -> Tensor:
            calls[path] += 1
            return change(f"{path}#{calls[path]}", forward(*args, **kwargs))

        module.forward = changed  # type: ignore[method-assign]

    try:
        for path, module in modules.items():
            put(path, module)
        yield
    finally:
        for module in modules.values():
            del module.forward


def named(address: str) -> str:
    return address if "#" in address else f"{address}#1"


def state(model: nn.Module) -> tuple[object, ...]:
    return (
        hash_weights(model.state_dict()),
        sum(
            len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks)
            for m in model.modules()
        ),
        [m.training for m in model.modules()],
        [p.requires_grad for p in model.parameters()],
        [p.grad for p in model.parameters()],
        torch.get_rng_state().tolist(),
        torch.is_grad_enabled(),
        torch.overrides._get_current_function_mode_stack(),  # type: ignore[attr-defined]
        sorted(name for m in model.modules() for name in vars(m)),
    )


def pictures(x: Tensor, network: Network) -> nk.Images:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand((5 * len(CLASSES), *x.shape[1:]), generator=generator)
    labels = torch.arange(len(CLASSES)).repeat_interleave(5)
    return nk.Images(pixels, labels, network.class_names)


@pytest.mark.parametrize("name", MODELS)
def test_network_of_others(name: str) -> None:
    model, x = build(name)
    before = state(model)
    table = nk.layers(model, x)
    network = Network.wrap(model, CLASSES, example=x)
    assert list(network.layers) == list(table[table["recommended"]]["address"])
    assert not table[table["recommended"]]["feeds_norm"].any()

    # What is recorded is what a forward without hooks gives, copied before anything writes into it.
    seen: dict[str, Tensor] = {}

    def note(call: str, output: Tensor) -> Tensor:
        if isinstance(output, Tensor):
            seen[call] = output.clone()
        return output

    paths = {address.partition("#")[0] for address in network.layers}
    with torch.no_grad():
        expected = network.logits(x)
        assert expected.std() > 0
        with replaced(model, paths, note):
            network.logits(x)
        with nk.Taps(network) as taps:
            network.logits(x)
        for address in network.layers:
            assert torch.equal(taps.activations[address], seen[named(address)]), address

        # Gates of one, a row for each picture, on all places that can be tapped.
        usable = list(table[table["tappable"]]["address"])
        every = Network.wrap(model, CLASSES, example=x, layers=usable)
        ones = {a: torch.ones(len(x), layer.units) for a, layer in every.layers.items()}
        with nk.Taps(every, (), gates=ones, rows=torch.arange(len(x))):
            assert torch.equal(every.logits(x), expected)

        # A gate of zero removes that unit and nothing else.
        address = list(network.layers)[len(network.layers) // 2]
        layer = network.layers[address]
        gate = torch.ones(layer.units)
        gate[1] = 0

        def remove(call: str, output: Tensor) -> Tensor:
            if call == named(address):
                output = output.clone()
                output.select(layer.axis, 1).zero_()
            return output

        with replaced(model, {address.partition("#")[0]}, remove):
            without = network.logits(x)
        with nk.Taps(network, gates={address: gate}) as taps:
            gated = network.logits(x)
        assert torch.equal(gated, without)
        assert not taps.activations[address].select(layer.axis, 1).any()

    images = pictures(x, network)
    masks = nk.learn_masks(
        network,
        images,
        tasks=["bee"],
        objective="official",
        beta=0.1,
        steps=STEPS,
        batch_size=4,
        progress=False,
    )
    assert set(masks.scores) == set(network.layers)
    few = {a: torch.zeros(1, layer.units) for a, layer in network.layers.items()}
    for score in few.values():
        score[:, :2] = 1
    few_masks = nk.MaskSet.from_scores(few, ["bee"])
    arch = nk.extract(network, few_masks, images, "bee", pictures=2, progress=False)
    assert arch.graph.number_of_nodes() == 2 * len(few) + 2
    assert arch.graph.number_of_edges() > 0
    assert state(model) == before


HEADS = {
    "torchvision:vit_b_16": ("encoder.layers.encoder_layer_3.self_attention", "out_proj"),
    "torchvision:swin_t": ("features.3.1.attn", "proj"),
    "torchvision:maxvit_t": ("blocks.1.layers.0.layers.grid_attention.attn_layer.1", "merge"),
    "timm:vit_tiny_patch16_224": ("blocks.3.attn", "proj"),
    "timm:deit_tiny_patch16_224": ("blocks.0.attn", "proj"),
}


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", HEADS)
def test_a_head_without_its_gate_is_one_whose_projection_is_zero(name: str, fused: bool) -> None:
    """The projection adds up what heads give, so a head is removed by zeros in its columns of the weights."""
    path, projection = HEADS[name]
    model, x = build(name)
    attention = model.get_submodule(path)
    if hasattr(attention, "fused_attn"):
        attention.fused_attn = fused
    elif not fused:
        pytest.skip("has one way through its attention")
    place = f"{path}:heads"
    network = Network.wrap(model, CLASSES, example=x, layers=[place])
    layer = network.layers[place]
    weight = attention.get_submodule(projection).weight
    assert weight.shape[1] % layer.units == 0
    width = weight.shape[1] // layer.units
    gates = torch.eye(layer.units).logical_not().float()[:3]  # picture n is without head n
    with torch.no_grad():
        whole = network.logits(x)
        with nk.Taps(network, gates={place: gates}, rows=torch.arange(3)) as taps:
            gated = network.logits(x)
        heads = taps.activations[place]
        assert heads.shape[layer.axis] == layer.units
        assert heads.shape[-1] == width
        for n in range(min(3, layer.units)):
            kept = weight[:, n * width : (n + 1) * width].clone()
            weight[:, n * width : (n + 1) * width] = 0
            without = network.logits(x)
            weight[:, n * width : (n + 1) * width] = kept
            torch.testing.assert_close(gated[n], without[n], atol=1e-5, rtol=1e-4)
            assert not torch.equal(gated[n], whole[n])
            assert not heads.select(layer.axis, n)[n].any()
            assert heads.select(layer.axis, (n + 1) % layer.units)[n].any()


def test_paper_names_the_published_places() -> None:
    counts = {"torchvision:vgg16": 13, "torchvision:resnet50": 17, "torchvision:densenet121": 8}
    units = {"torchvision:vgg16": 4224, "torchvision:resnet50": 15168, "torchvision:densenet121": 3776}
    for name, count in counts.items():
        model, x = build(name)
        network = Network.wrap(model, CLASSES, example=x, layers="paper")
        assert len(network.layers) == count
        assert network.units == units[name]
        feeding = sum(layer.feeds_norm for layer in network.layers.values())
        assert feeding == (7 if "densenet" in name else 0)
    assert list(network.layers)[-1] == ":relu"
    model, x = build("torchvision:googlenet")
    with pytest.raises(LayerError, match=r"layers='paper' knows .* GoogLeNet has none"):
        Network.wrap(model, CLASSES, example=x, layers="paper")


def test_what_never_runs_is_named() -> None:
    assert "layer1.0:add" in set(nk.layers(*build("torchvision:resnet18"))["address"])
    dead = {"torchvision:vit_b_16": 12, "torchvision:swin_t": 24, "torchvision:resnet50": 0}
    for name, count in dead.items():
        table = nk.layers(*build(name))
        assert table["reason"].str.startswith("dead").sum() == count
    for name in TORCHVISION:
        table = nk.layers(*build(f"torchvision:{name}"))
        model = vision("torchvision").models  # every module with a forward has a row
        assert model is not None
        assert not table["address"].duplicated().any()


def test_auto_takes_whole_inceptions_and_no_class_maps() -> None:
    def recommended(name: str) -> list[str]:
        table = nk.layers(*build(name))
        return list(table[table["recommended"]]["address"])

    inceptions = [f"inception{name}" for name in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")]
    assert recommended("torchvision:googlenet") == ["conv1", "conv2", "conv3", *inceptions]
    names = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")
    assert recommended("torchvision:inception_v3")[5:] == [f"Mixed_{name}" for name in names]
    assert recommended("torchvision:squeezenet1_1")[-1] == "features.12"
    # The last block of a stage feeds the normalisation behind it.
    assert recommended("timm:convnext_atto")[:3] == [
        "stages.0.blocks.0", "stages.0.blocks.1.mlp.act", "stages.1.blocks.0",
    ]  # fmt: skip
