from __future__ import annotations

import copy
import itertools
import json
import math
import shutil
import warnings
from collections.abc import Callable
from decimal import Decimal, localcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import nadkit as nk
from nadkit.errors import ImageError, LayerError, NadkitError
from nadkit.images import LazyPixels
from nadkit.learn.bundle import jobs, objective_of
from nadkit.networks import (
    BUNDLED,
    DATA,
    Network,
    Standardise,
    bundled,
    fresh_network,
    gated_logits,
    hash_weights,
    load_masks,
    load_network,
    log_odds,
    log_rest,
    make_untrained,
    mask_path,
    model_card,
    restore_untrained,
    whole_logits,
)
from nadkit.taps import Taps

there = [
    pytest.param(
        name,
        marks=[]
        if (DATA / f"{name}.safetensors").exists()
        else pytest.mark.skip(reason=f"{name} is not trained yet"),
    )
    for name in BUNDLED
]
NAMES = ("a", "b", "c")
X = torch.linspace(0, 1, 4 * 2 * 6 * 6).reshape(4, 2, 6, 6)


def small(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5),
        nn.Conv2d(4, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3),
    )  # fmt: skip


def wrapped(model: nn.Module | None = None) -> Network:
    return Network.wrap((model or small()).eval(), NAMES, example=X)


class Answering(nn.Module):
    """A model whose answer is given."""

    def __init__(self, answer: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Linear(4, 3)
        self.answer = answer

    def forward(self, x: Tensor) -> object:
        return self.answer(self.head(self.relu(self.conv(x)).mean((2, 3))))


def state(model: nn.Module) -> dict[str, object]:
    """All that could change in a model, copied."""
    return {
        "tensors": {k: v.clone() for k, v in model.state_dict(keep_vars=False).items()},
        "modes": [m.training for m in model.modules()],
        "flags": [p.requires_grad for p in model.parameters()],
        "gradients": [p.grad is None for p in model.parameters()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "attributes": [sorted(vars(m)) for m in model.modules()],
        "random": torch.get_rng_state(),
    }


def same(one: dict[str, object], two: dict[str, object]) -> bool:
    tensors, others = one.pop("tensors"), two.pop("tensors")
    assert isinstance(tensors, dict)
    assert isinstance(others, dict)
    random, other = one.pop("random"), two.pop("random")
    assert isinstance(random, Tensor)
    assert isinstance(other, Tensor)
    return (
        one == two
        and torch.equal(random, other)
        and tensors.keys() == others.keys()
        and all(torch.equal(v, others[k]) for k, v in tensors.items())
    )


# The bundled networks.


@pytest.mark.parametrize("name", there)
def test_bundled_network(name: str) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    network = load_network(name)
    assert torch.equal(torch.get_rng_state(), before)
    assert network.name == name
    assert not any(m.training for m in network.model.modules())
    assert not any(p.requires_grad for p in network.model.parameters())
    assert network.units == sum(layer.units for layer in network.layers.values()) > 100
    with pytest.raises(TypeError):
        network.layers["stem"] = network.layers["stem"]  # type: ignore[index]
    assert (DATA / f"{name}.safetensors").stat().st_size <= 1_000_000
    card = model_card(name)
    with safe_open(DATA / f"{name}.safetensors", "pt") as file:
        assert json.loads(file.metadata()["card"]) == card
    assert card["family"] == name.split("-")[0]
    assert card["command"] == (
        f"python -m nadkit.networks.train {name} --epochs {card['epochs']} "
        f"--rate {card['rate']} --seed {card['seed']}"
    ) + (f" --scenes {card['scenes']}" if "scenes" in card else "")
    assert ("Fashion-MNIST, all 60,000" if name.endswith("fashion") else "rendered scenes, ") in card["data"]
    assert card["mflop_per_image"] <= 10
    assert card["weights_id"] == network.weights_id == hash_weights(network.model.state_dict())
    assert 0 < card["test_accuracy"] <= 1
    assert card["test_pictures"] >= 5 * 200 * len(network.class_names)


# The largest of the tests: 2,000 pictures a network, once.
@pytest.mark.parametrize("name", there)
def test_accuracy_on_the_shipped_pictures_is_that_of_the_card(name: str) -> None:
    network = load_network(name)
    images = nk.load_images(name.split("-")[1], split="test")
    assert set(images.counts().values()) == {200}
    assert images.class_names == network.class_names
    logits = whole_logits(network, network.prepare(images.pixels))
    accuracy = float((logits.argmax(1) == images.labels).float().mean())
    # Another processor may round a tie of two logits otherwise: one picture.
    assert accuracy == pytest.approx(model_card(name)["test_accuracy_200_a_class"], abs=1.01 / len(images))
    assert accuracy >= (0.92 if name.endswith("fashion") else 0.97)


@pytest.mark.parametrize("name", [there[1], there[3]])
def test_bundled_network_answers_alike_every_time_and_in_both_memory_formats(name: str) -> None:
    network, again = load_network(name), load_network(name)
    pixels = nk.load_images("fashion", split="test", per_class=2).pixels
    logits = network(pixels)
    assert logits.shape == (20, 10)
    assert not logits.requires_grad
    assert torch.equal(logits, network(pixels))
    assert torch.equal(logits, again(pixels))
    torch.testing.assert_close(network(pixels.float() / 255), logits)
    inputs = network.prepare(pixels)
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    kernels = [m.weight for m in network.model.modules() if isinstance(m, nn.Conv2d)]
    assert all(k.is_contiguous(memory_format=torch.channels_last) for k in kernels)
    plain = copy.deepcopy(network.model).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    torch.testing.assert_close(plain(inputs.contiguous()), logits, rtol=1e-4, atol=1e-4)
    assert hash_weights(plain.state_dict()) == network.weights_id


def test_unknown_network_names_the_closest() -> None:
    for ask in (load_network, fresh_network, model_card, load_masks):
        with pytest.raises(NadkitError, match=r"no bundled network 'resnet-fashon'; closest: resnet-fashion"):
            ask("resnet-fashon")
    with pytest.raises(NadkitError, match="no bundled network 3"):
        load_network(3)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of the test's own, with one network in it."""
    shutil.copy(DATA / "vgg-fashion.safetensors", tmp_path)
    monkeypatch.setattr(bundled, "DATA", tmp_path)
    load_network("vgg-fashion")
    return tmp_path


def rewrite(path: Path, change: Callable[[dict[str, Tensor], dict[str, object]], None]) -> None:
    weights = load_file(path)
    with safe_open(path, "pt") as file:
        card = json.loads(file.metadata()["card"])
    change(weights, card)
    save_file(weights, path, {"card": json.dumps(card)})


def test_every_changed_number_is_seen(folder: Path) -> None:
    path = folder / "vgg-fashion.safetensors"
    with safe_open(path, "pt") as file:
        keys = list(file.keys())
    # Running statistics and biases are part of the answer as much as kernels are.
    for key in [k for k in keys if k.startswith(("stage3.2", "head"))]:
        shutil.copy(DATA / path.name, path)

        def change(weights: dict[str, Tensor], _card: dict[str, object], key: str = key) -> None:
            weights[key].view(-1)[-1] += 1e-3

        rewrite(path, change)
        with pytest.raises(NadkitError, match=r"names weights [0-9a-f]{16} and holds .*reinstall nadkit"):
            load_network("vgg-fashion")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w, _c: w.pop("head.linear.bias"), "does not hold the weights of a vgg"),
        (lambda w, _c: w.update(extra=torch.zeros(1)), "does not hold the weights of a vgg"),
        (lambda w, _c: w.update({"head.linear.bias": torch.zeros(9)}), "does not hold the weights of a vgg"),
        (lambda _w, c: c.update(weights_id="0" * 16), "names weights 0000000000000000 and holds"),
    ],
)
def test_weights_that_do_not_fit_are_refused(folder: Path, change: Callable[..., None], message: str) -> None:
    rewrite(folder / "vgg-fashion.safetensors", change)
    with pytest.raises(NadkitError, match=message):
        load_network("vgg-fashion")


def test_damaged_and_missing_files_are_refused(folder: Path) -> None:
    path = folder / "vgg-fashion.safetensors"
    whole = path.read_bytes()
    for part in (b"", whole[:7], whole[:1000], whole[:-1]):
        path.write_bytes(part)
        with pytest.raises(NadkitError, match=r"damaged .*train it again: python -m nadkit.networks.train"):
            load_network("vgg-fashion")
    save_file(load_file(DATA / path.name), path)  # no card
    with pytest.raises(NadkitError, match="damaged"):
        model_card("vgg-fashion")
    path.unlink()
    with pytest.raises(NadkitError, match="not installed; train them"):
        load_network("vgg-fashion")


@pytest.mark.parametrize("name", ["vgg-fashion", "darts-scenes"])
def test_fresh_networks_come_from_their_seed_and_leave_random_numbers_alone(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    # Seeding all devices would move those of a GPU, which nothing restores.
    monkeypatch.setattr(torch, "manual_seed", lambda _seed: pytest.fail("seeds every device"))
    one, two, other = (fresh_network(name, seed=seed).weights_id for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert one == two != other


def test_start_of_training_stays_what_it_was() -> None:
    # The cards' commands only make the same weights again while the drawing keeps its order.
    assert fresh_network("vgg-fashion").weights_id == "f31b3a40a3c06d6a"
    assert fresh_network("darts-fashion").weights_id == "d168db19438f7a8c"


# Bundled masks.


def test_mask_paths_differ_by_every_setting() -> None:
    ways = {
        "name": ["vgg-fashion", "darts-fashion"], "objective": ["one-vs-rest", "official"],
        "kept_share": [0.05, 0.3, 0.305, 0.5], "seed": [0, 1],
    }  # fmt: skip
    paths = [
        mask_path(n, objective=o, kept_share=k, seed=s, control=None)
        for n, o, k, s in itertools.product(*ways.values())
    ]
    controls = [
        mask_path("vgg-fashion", objective="one-vs-rest", kept_share=0.3, seed=0, control=c)
        for c in ("relabelled", "shared", "untrained")
    ]
    assert len({p.name for p in paths + controls}) == 2 * 2 * 4 * 2 + 3
    assert paths[-3].name == "darts-fashion-official-30.5-s1.safetensors"
    assert controls[0].name == "vgg-fashion-relabelled-30-s0.safetensors"


def test_bundled_masks_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "DATA", tmp_path)
    with pytest.raises(NadkitError, match="there are: none; learn_masks makes others"):
        load_masks("vgg-fashion")
    (tmp_path / "masks").mkdir()
    scores = {"stem": torch.tensor([[0.0, 1.0]])}
    masks = nk.MaskSet.from_scores(scores, ["a"])
    masks.save(mask_path("vgg-fashion", objective="one-vs-rest", kept_share=0.3, seed=0, control=None))
    assert load_masks("vgg-fashion").tasks == ("a",)
    for wrong in ({"seed": 7}, {"kept_share": 0.305}, {"control": "shared"}, {"objective": "official"}):
        with pytest.raises(NadkitError, match="there are: one-vs-rest-30-s0"):
            load_masks("vgg-fashion", **wrong)  # type: ignore[arg-type]
    for share in ("auto", None, True):
        with pytest.raises(NadkitError, match="have a kept share, a number"):
            load_masks("vgg-fashion", kept_share=share)  # type: ignore[arg-type]


# Wrapping.


def test_wrap_changes_nothing_in_the_model() -> None:
    model = small().train()
    model[1].eval()  # mixed modes and flags, as in fine-tuning
    model[4].weight.requires_grad_(False)
    model[0].register_forward_hook(lambda *_: None)
    before = state(model)
    network = Network.wrap(model, NAMES, example=X, name="mine")
    assert same(before, state(model))
    assert network.model is model
    assert (network.name, network.class_names, network.input_shape) == ("mine", NAMES, (2, 6, 6))
    assert {a: layer.units for a, layer in network.layers.items()} == {"2": 4, "5": 5}
    assert network.units == 9
    assert network.weights_id == hash_weights(model.state_dict())
    with pytest.raises(TypeError):
        network.layers["2"] = network.layers["5"]  # type: ignore[index]
    assert Network.wrap(model, NAMES, example=X).name == "sequential"


def test_wrap_restores_a_model_that_raises() -> None:
    def broken(_x: Tensor) -> Tensor:
        raise RuntimeError("here")

    model = Answering(broken).train()
    before = state(model)
    with pytest.raises(RuntimeError, match="here"):
        Network.wrap(model, NAMES, example=X)
    assert same(before, state(model))


def test_network_answers_in_evaluation_mode_and_gives_the_mode_back() -> None:
    model = small()
    expected = wrapped(model)(X)
    network = wrapped(model)
    model.train()
    model[3].eval()
    before = state(model)
    assert torch.equal(network(X), expected)  # neither dropout nor statistics of the batch
    assert same(dict(before), state(model))
    hook = model[8].register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        network(X)
    hook.remove()
    assert same(before, state(model))


def test_gradients_reach_pictures_and_weights() -> None:
    network = wrapped()
    x = X.clone().requires_grad_(True)
    weight = network.model.get_parameter("0.weight")
    for gradient in torch.autograd.grad(network(x).sum(), [x, weight]):
        assert gradient.abs().sum() > 0


def test_first_of_several_outputs_is_taken_and_said_so() -> None:
    model = Answering(lambda z: (z, z * 0)).eval()
    with pytest.warns(UserWarning, match="returns 2 outputs; the first is taken as the logits") as caught:
        network = Network.wrap(model, NAMES, example=X)
    assert [w.filename for w in caught] == [__file__]
    assert torch.equal(network(X), model(X)[0])
    assert network(X).abs().sum() > 0


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda z: z.softmax(1), "returns probabilities"),
        (lambda z: (z * 0 + torch.tensor([0.3, 0.3, 0.4])).bfloat16(), "returns probabilities"),
        (lambda z: z[:, :2], r"logits, a tensor \(N, 3\) for 3 class names; with N = 4 it returns \(4, 2\)"),
        (lambda z: z[:1], r"with N = 4 it returns \(1, 3\)"),
        (lambda z: z[:, :, None], r"it returns \(4, 3, 1\)"),
        (lambda z: {"logits": z}, "it returns dict"),
        (lambda _z: (), "it returns tuple"),
        (lambda _z: None, "it returns NoneType"),
        (lambda z: z.argsort(1), "it returns torch.int64"),
        (lambda z: z / 0, "not finite"),
        (lambda z: z * math.nan, "not finite"),
    ],
)
def test_outputs_that_are_no_logits_are_refused(answer: Callable[[Tensor], object], message: str) -> None:
    with pytest.raises(NadkitError, match=message):
        Network.wrap(Answering(answer).eval(), NAMES, example=X)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU()), r"must return logits, .* it returns \(2, 4, 6, 6\)"),
        (nn.Sequential(nn.Flatten(), nn.Linear(128, 3), nn.Softmax(1)), "returns probabilities"),
        (nn.Sequential(nn.Flatten(), nn.Linear(128, 3)), "no block, .* units are the classes aside"),
    ],
    ids=["maps", "probabilities", "no units but classes"],
)
def test_what_a_model_answers_is_told_before_what_it_lacks(model: nn.Module, words: str) -> None:
    with pytest.raises(NadkitError, match=words):
        Network.wrap(model, NAMES, example=torch.zeros(2, 2, 8, 8))


@pytest.mark.parametrize(
    "answer",
    [
        lambda z: z.log_softmax(1),
        lambda z: z.softmax(1) * 2,
        lambda z: z - z,
        lambda z: z - z.mean(1, keepdim=True) + torch.tensor([2.0, -1.5, 0.5]),  # sums to 1
        lambda z: z - z + torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.5, 0.5]]).repeat(2, 1),  # sometimes does
    ],
)
def test_logits_near_to_probabilities_are_taken(answer: Callable[[Tensor], object]) -> None:
    assert Network.wrap(Answering(answer).eval(), NAMES, example=X)(X).shape == (4, 3)


@pytest.mark.parametrize(
    ("class_names", "message"),
    [
        (["a", "b", "a"], "class names must differ; these repeat: a"),
        (["a", "mean"], "no class can be named 'mean'"),
        (["all", "b"], "no class can be named 'all'"),
        (["a", "b"], r"logits, a tensor \(N, 2\) for 2 class names; .* \(4, 3\)"),
        (["a"], "at least two classes, got 1"),
        ([], "at least two classes, got 0"),
        ("abc", "must be a list of names, got the one text 'abc'"),
        (["a", "b", 3], "must be texts that are not empty, got 3"),
        (["a", "b", ""], "must be texts that are not empty, got ''"),
    ],
)
def test_bad_class_names_are_refused(class_names: list[str], message: str) -> None:
    with pytest.raises(NadkitError, match=message):
        Network.wrap(small(), class_names, example=X)


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (X[0], r"example must be at least one picture, .* got \(2, 6, 6\)"),
        (X[:0], r"got \(0, 2, 6, 6\)"),
        (X.numpy(), "got ndarray"),
        (X.long(), "pixels must be uint8"),
        (X / 0, "NaN or infinite"),
    ],
)
def test_bad_examples_are_refused(example: Tensor, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        Network.wrap(small(), NAMES, example=example)


def test_other_bad_input_of_wrap() -> None:
    with pytest.raises(NadkitError, match=r"cannot wrap a function; give a torch.nn.Module"):
        Network.wrap(lambda x: x, NAMES, example=X)  # type: ignore[arg-type, return-value]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scripting is deprecated
        traced = torch.jit.trace(small().eval(), X)
    with pytest.raises(NadkitError, match="scripted or traced model takes no hooks; take the module it was"):
        Network.wrap(nn.Sequential(traced), NAMES, example=X)
    with pytest.raises(LayerError, match=r"no layer '2.relu' in Sequential; there are: 0, 1"):
        Network.wrap(small(), NAMES, example=X, layers=["2.relu"])


def test_wrapped_network_takes_its_own_preprocessing_dtype_and_layers() -> None:
    network = Network.wrap(
        small().double().eval(), NAMES, example=X, layers=["5", "0"], preprocess=lambda p: p * 2 - 1
    )
    assert list(network.layers) == ["0", "5"]  # forward order, not the order asked for
    assert network.layers["0"].feeds_norm
    assert network.prepare(X).dtype == torch.float64
    assert torch.equal(network(X), network.model(X.double() * 2 - 1))
    bytes_ = (X * 255).to(torch.uint8)
    torch.testing.assert_close(wrapped()(bytes_), wrapped()(bytes_ / 255))


def test_state_that_is_no_tensor_does_not_stop_wrapping() -> None:
    class Noting(nn.ReLU):
        def get_extra_state(self) -> object:
            return {"note": 1}

    model = nn.Sequential(nn.Conv2d(2, 3, 3), Noting(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.append(nn.Linear(3, 3))
    assert len(wrapped(model).weights_id) == 16


def test_class_index() -> None:
    network = load_network("vgg-fashion")
    assert [network.class_index(n) for n in network.class_names] == list(range(10))
    with pytest.raises(NadkitError, match=r"no class 'sneeker' in vgg-fashion; closest: sneaker"):
        network.class_index("sneeker")
    with pytest.raises(NadkitError, match="no class 7 in"):
        network.class_index(7)  # type: ignore[arg-type]


# Pictures on their way in.

GREY = torch.zeros(3, 1, 28, 28, dtype=torch.uint8)


def with_nan(value: float) -> Tensor:
    pixels = GREY.float()
    pixels[1, 0, 3, 4] = value
    return pixels


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (GREY.expand(3, 3, 28, 28), r"pictures of shape \(N, 1, 28, 28\), got \(3, 3, 28, 28\)"),
        (GREY[:, :, :27], r"got \(3, 1, 27, 28\); load_images\(folder, like=network\)"),
        (GREY[0], r"got \(1, 28, 28\)"),
        (GREY.long(), "must be uint8 .* or float, got int64"),
        (GREY.bool(), "got bool"),
        (with_nan(math.nan), r"pictures \[1\] hold NaN or infinite pixels \(1 in all\)"),
        (with_nan(-math.inf), r"pictures \[1\] hold NaN or infinite"),
        (with_nan(255.0), "must lie in .0, 1., these reach from 0 to 255; divide"),
        (with_nan(-0.5), "these reach from -0.5 to 0"),
        (np.zeros((3, 1, 28, 28), np.uint8), "must be a tensor .* got ndarray"),
        ([0], "got list"),
    ],
)
def test_bad_pictures_are_refused(pixels: Tensor, message: str) -> None:
    network = fresh_network("vgg-fashion")
    with pytest.raises(ImageError, match=message):
        network(pixels)


def test_good_pictures_are_standardised_by_hand() -> None:
    network = fresh_network("resnet-scenes")
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    expected = (pixels.numpy().astype(np.float64) / 255 - 0.5) / 0.25
    np.testing.assert_allclose(network.prepare(pixels).numpy(), expected, rtol=1e-6, atol=1e-6)
    channels = Standardise((0.0, 0.5), (1.0, 0.5))(torch.ones(1, 2, 1, 1, dtype=torch.float64))
    assert channels.flatten().tolist() == [1.0, 1.0]
    assert channels.dtype == torch.float32
    assert repr(Standardise((0.5,), (0.25,))) == "Standardise(mean=(0.5,), std=(0.25,))"
    assert network(pixels[:0]).shape == (0, len(network.class_names))


def test_standardising_does_not_follow_torch_s_default_dtype() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        out = Standardise((0.5,), (0.25,))(torch.zeros(1, 1, 2, 2, dtype=torch.uint8))
    finally:
        torch.set_default_dtype(torch.float32)
    assert out.dtype == torch.float32


def test_pictures_on_disk_are_read() -> None:
    network = wrapped()
    lazy = LazyPixels(lambda row: X[row], 4, (2, 6, 6), torch.float32)
    assert torch.equal(network(lazy), network(X))


# Weights by name.


def test_hash_sees_names_types_shapes_and_numbers() -> None:
    base = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(2)}
    others = [
        {"c": base["a"], "b": base["b"]},
        {"a": base["a"].double(), "b": base["b"]},
        {"a": base["a"].reshape(3, 2), "b": base["b"]},
        {"a": base["a"] + 1e-6, "b": base["b"]},
        {"a": base["a"]},
        {"a": base["b"], "b": base["a"]},
        {"a": base["a"], "b": -base["b"]},  # −0.0
        {"a": base["a"], "b": torch.zeros(2, dtype=torch.int32)},
    ]
    ids = [hash_weights(tensors) for tensors in [base, *others]]
    assert len(set(ids)) == len(ids)
    assert hash_weights({}) == hash_weights({"x.num_batches_tracked": torch.tensor(7)})


def test_hash_does_not_see_order_memory_or_counters() -> None:
    tensors = {"a": torch.randn(2, 3, 4, 5), "b": torch.tensor(2.0), "e": torch.empty(0)}
    alike = {
        "n.num_batches_tracked": torch.tensor(3), "e": torch.empty(0), "b": tensors["b"],
        "a": tensors["a"].clone(memory_format=torch.channels_last).requires_grad_(True),
    }  # fmt: skip
    assert hash_weights(tensors) == hash_weights(alike)
    for dtype in (torch.bfloat16, torch.complex64, torch.bool):
        assert len(hash_weights({"a": torch.ones(3).to(dtype)})) == 16


# Log-odds.

LOGITS = [
    [0.0, 0.0, 0.0],
    [5.0, 0.0, 0.0],
    [-3.0, 2.0, 2.0],
    [1.0, 1.5, -40.0],
    [60.0, 59.9, -60.0],
    [1000.0, 0.0, -1000.0],
    [-1e4, 1e4, 1e4],
    [1e-6, 0.0, -1e-6],
]


def exact(logits: list[float], k: int) -> tuple[float, float]:
    """Log-odds of class k and the log-sum of the others, with 100 digits, from their definitions."""
    with localcontext() as context:
        context.prec, context.Emin, context.Emax = 100, -(10**9), 10**9
        weights = [Decimal(z).exp() for z in logits]
        p = weights[k] / sum(weights)
        rest = sum(w for i, w in enumerate(weights) if i != k)
        # 1 − p would lose all its digits where p is nearly 1.
        return float((p / (rest / sum(weights))).ln()), float(rest.ln())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_odds_equal_their_definition(dtype: torch.dtype) -> None:
    logits = torch.tensor(LOGITS, dtype=dtype)
    both = [[exact(row, k) for k in range(3)] for row in logits.double().tolist()]
    rtol = 1e-6 if dtype == torch.float32 else 1e-14
    torch.testing.assert_close(
        log_odds(logits),
        torch.tensor([[b[0] for b in row] for row in both], dtype=dtype),
        rtol=rtol,
        atol=rtol,
    )
    torch.testing.assert_close(
        log_rest(logits),
        torch.tensor([[b[1] for b in row] for row in both], dtype=dtype),
        rtol=rtol,
        atol=rtol,
    )
    assert torch.equal(log_odds(logits.reshape(2, 4, 3)), log_odds(logits).reshape(2, 4, 3))


def test_log_odds_keep_what_a_difference_of_probabilities_loses() -> None:
    # In float32 1 − p is 0 here.
    assert log_odds(torch.tensor([30.0, 0.0]))[0].item() == 30.0
    assert torch.equal(log_odds(torch.tensor([[3e4, -3e4]])), torch.tensor([[6e4, -6e4]]))


def test_gradients_of_log_odds_are_finite_and_exact() -> None:
    logits = torch.tensor(LOGITS, dtype=torch.float64, requires_grad=True)
    for k in range(3):
        (gradient,) = torch.autograd.grad(log_odds(logits)[:, k].sum(), logits)
        others = torch.tensor([i for i in range(3) if i != k])
        expected = torch.zeros_like(gradient)
        expected[:, k] = 1
        expected[:, others] = -logits.detach()[:, others].softmax(1)
        torch.testing.assert_close(gradient, expected)


# Many tasks.


def test_gated_logits_equal_taps_one_by_one() -> None:
    network = wrapped()
    generator = torch.Generator().manual_seed(1)
    gates = {
        a: (torch.rand(3, layer.units, generator=generator) > 0.4).float()
        for a, layer in network.layers.items()
    }
    inputs = network.prepare(X)
    network.model.train()  # handled and given back
    before = state(network.model)
    out = gated_logits(network, inputs, gates, batch_size=3)
    whole = whole_logits(network, inputs, batch_size=3)
    assert same(before, state(network.model))
    network.model.eval()
    assert out.shape == (3, 4, 3)
    assert not out.requires_grad
    assert not whole.requires_grad
    for task in range(3):
        for n in range(4):
            with torch.no_grad(), Taps(network, (), gates={a: g[task] for a, g in gates.items()}):
                torch.testing.assert_close(out[task, n], network(X[n : n + 1])[0])
    with torch.no_grad():
        torch.testing.assert_close(whole, network.model(X))
    ones = {a: torch.ones(2, layer.units) for a, layer in network.layers.items()}
    assert torch.equal(gated_logits(network, inputs, ones, batch_size=3), torch.stack([whole, whole]))
    assert not torch.equal(out[0], out[1])


@pytest.mark.parametrize(
    "gates",
    [{}, {"2": torch.ones(4)}, {"2": torch.ones(2, 4), "5": torch.ones(3, 5)}, {"2": torch.ones(1, 2, 4)}],
)
def test_gates_without_one_row_a_task_are_refused(gates: dict[str, Tensor]) -> None:
    network = wrapped()
    with pytest.raises(NadkitError, match=r"one row a task, .*masks.gates\(\)"):
        gated_logits(network, network.prepare(X), gates)


# Untrained.


class Bare(nn.Module):
    """Parameters of its own, a start that wants arguments, and no normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.linear = nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Linear(4, 3)
        self.scale = nn.Parameter(torch.ones(4))
        self.odd = Odd()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv(x)) * self.scale[:, None, None]
        out: Tensor = self.odd(self.linear(x.mean((2, 3))))
        return out


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.full((3,), 5.0))

    def reset_parameters(self, value: float) -> None:
        self.shift.data.fill_(value)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift


@pytest.mark.parametrize("build", [small, Bare])
def test_untrained_control_round_trip(build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(4)
    network = wrapped(build())
    with torch.no_grad():
        for p in network.model.parameters():
            p.mul_(1.5)  # trained, say
    network.model.train()
    inputs = network.prepare(torch.rand(50, 2, 6, 6))
    before = state(network.model)
    fresh, record = make_untrained(network, inputs, seed=3)
    restored = restore_untrained(network, json.loads(json.dumps(record)))
    assert same(before, state(network.model))
    assert torch.equal(fresh(X), restored(X))
    assert fresh.weights_id == restored.weights_id == record["weights_id"] != network.weights_id
    assert fresh.name == "sequential (untrained)" if build is small else fresh.name == "bare (untrained)"
    assert (fresh.layers, fresh.class_names) == (network.layers, network.class_names)
    assert not any(m.training for m in fresh.model.modules())
    assert not any(p.requires_grad for p in fresh.model.parameters())
    # Every weight is another, shared memory included.
    old = dict(network.model.named_parameters())
    for key, parameter in fresh.model.named_parameters():
        assert parameter.data_ptr() != old[key].data_ptr()
        if not key.startswith("1."):  # the normalisation starts at ones and zeros
            assert not torch.equal(parameter, old[key])
    # The logits spread as the trained network's do.
    assert whole_logits(fresh, inputs).std() == pytest.approx(float(whole_logits(network, inputs).std()))
    assert make_untrained(network, inputs, seed=3)[1] == record
    assert make_untrained(network, inputs, seed=4)[1]["weights_id"] != record["weights_id"]
    # Taps reach it as they reach any network.
    with Taps(fresh, (), gates={a: torch.zeros(layer.units) for a, layer in fresh.layers.items()}):
        silent = fresh(X)
    assert torch.equal(silent[0], silent[1])


def test_untrained_statistics_are_those_of_the_pictures() -> None:
    network = wrapped()
    inputs = network.prepare(torch.rand(50, 2, 6, 6))
    fresh, record = make_untrained(network, inputs)
    maps = fresh.model.get_submodule("0")(inputs)
    statistics = record["statistics"]
    assert list(statistics) == ["1.running_mean", "1.running_var"]
    assert statistics["1.running_mean"] == pytest.approx(maps.mean((0, 2, 3)).tolist(), abs=1e-5)
    assert statistics["1.running_var"] == pytest.approx(maps.var((0, 2, 3)).tolist(), rel=1e-4)
    norm = fresh.model.get_submodule("1")
    assert norm.momentum == 0.1


def test_untrained_forgets_statistics_that_a_start_leaves() -> None:
    class OwnStart(nn.BatchNorm2d):
        def reset_parameters(self) -> None:
            if self.affine:
                nn.init.ones_(self.weight)

    model = small()
    model[1] = OwnStart(4)
    model[1].running_mean.fill_(7.0)  # type: ignore[union-attr, operator]
    model[1].num_batches_tracked.fill_(100)  # type: ignore[union-attr, operator]
    record = make_untrained(wrapped(model), X)[1]
    assert max(record["statistics"]["1.running_mean"]) < 3


def test_untrained_uses_pictures_from_all_over_and_not_too_many() -> None:
    network = wrapped()
    seen: list[int] = []
    network.model[0].register_forward_hook(lambda _m, args, _out: seen.append(len(args[0])))  # type: ignore[operator]
    make_untrained(network, network.prepare(torch.rand(2500, 2, 6, 6)))
    assert max(seen) <= 1000
    halves = torch.cat([torch.zeros(1000, 2, 6, 6), torch.ones(1000, 2, 6, 6)])
    record = make_untrained(network, halves)[1]
    assert max(record["statistics"]["1.running_var"]) > 1e-2  # both halves are in it


def test_untrained_leaves_random_numbers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    network = wrapped()
    before = torch.get_rng_state()
    monkeypatch.setattr(torch, "manual_seed", lambda _seed: pytest.fail("seeds every device"))
    _, record = make_untrained(network, X)
    restore_untrained(network, record)
    assert torch.equal(torch.get_rng_state(), before)


def test_untrained_records_that_do_not_fit_are_refused() -> None:
    network = wrapped()
    _, record = make_untrained(network, X)
    with pytest.raises(NadkitError, match=r"cannot be drawn again .* torch \(2.*learn the control again"):
        restore_untrained(network, {**record, "weights_id": "0" * 16})
    with pytest.raises(NadkitError, match="cannot be drawn again"):
        restore_untrained(network, {**record, "seed": 1})
    changed = copy.deepcopy(record)
    changed["statistics"]["1.running_mean"][2] += 1.0
    with pytest.raises(NadkitError, match="cannot be drawn again"):
        restore_untrained(network, changed)
    for statistics in ({}, {"1.running_mean": [0.0] * 4}, {**record["statistics"], "1.running_var": [1.0]}):
        with pytest.raises(NadkitError, match="does not fit sequential"):
            restore_untrained(network, {**record, "statistics": statistics})
    for key in record:
        with pytest.raises(NadkitError, match="no record of an untrained control"):
            restore_untrained(network, {k: v for k, v in record.items() if k != key})
    with pytest.raises(NadkitError, match="no record of an untrained control"):
        restore_untrained(network, {**record, "statistics": "none"})
    with pytest.raises(ImageError, match="needs pictures"):
        make_untrained(network, X[:0])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"objective": "relabelled"}, "no bundled masks of objective 'relabelled'"),
        ({"control": "sharred"}, "closest: shared"),
        ({"objective": "official", "control": "shared"}, "controls are bundled for one-vs-rest"),
        ({"kept_share": 0.77}, "no bundled masks of resnet-fashion"),
    ],
)
def test_masks_that_are_not_bundled_are_refused(asked, message):
    with pytest.raises(NadkitError, match=message):
        load_masks("resnet-fashion", **asked)


@pytest.mark.parametrize("name", BUNDLED)
def test_every_mask_of_the_bundle_is_there_and_says_how_it_was_learned(name: str) -> None:
    objective = objective_of(name, "one-vs-rest")
    spread = None if isinstance(objective, str) else objective.spread
    for job in jobs():
        masks = load_masks(name, **job)
        masks.check(load_network(name))
        settings = masks.meta["settings"]
        assert (masks.meta["objective"], masks.meta["seed"]) == (job["objective"], job["seed"])
        assert masks.meta["control"] == job["control"]
        if job["objective"] == "one-vs-rest":
            assert settings.get("spread") == spread  # masks of before there was one have none
            assert max(abs(share - job["kept_share"]) for share in masks.kept_share().values()) < 0.01


def test_large_pictures_pass_in_small_parts() -> None:
    """What a network holds within it grows with the pixels, not with the number of pictures."""
    network = nk.load_network("vgg-fashion")
    seen: list[int] = []

    def logits(inputs: torch.Tensor) -> torch.Tensor:
        seen.append(len(inputs))
        return torch.zeros(len(inputs), 10)

    stand_in: Any = SimpleNamespace(model=network.model, logits=logits)
    assert len(whole_logits(stand_in, torch.zeros(1001, 1, 28, 28))) == 1001
    assert seen == [500, 500, 1]
    seen.clear()
    assert len(whole_logits(stand_in, torch.zeros(50, 3, 224, 224))) == 50
    assert seen == [20, 20, 10]
    seen.clear()
    whole_logits(stand_in, torch.zeros(2, 3, 2000, 2000))
    assert seen == [1, 1]
