"""What a slice costs, and its files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from slicing_models import MODELS, make_model
from test_slicing import parameters, random_masks, some_inputs, wrapped
from torch import Tensor, nn

import nadkit as nk
from nadkit import slicing
from nadkit.errors import NadkitError
from nadkit.masks.encoding import seal
from nadkit.slicing.costs import activation_memory, latencies, multiply_adds

# Cost


class Held(nn.Module):
    """Holds its first tensor to the end: 4 × 16 floats, then 8 × 16 beside them, then 8 × 4."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        y = self.two(x)
        y = y[:, :, ::2, ::2].clone()
        return y.sum() + x.sum()


def test_memory_and_multiply_adds_by_hand() -> None:
    inputs = torch.zeros(1, 2, 4, 4)
    assert activation_memory(Held(), inputs) == 4 * (4 * 16 + 8 * 16 + 8 * 4)
    assert multiply_adds(Held(), inputs) == 16 * (2 * 4 + 4 * 8)
    two = nn.Sequential(nn.Conv2d(2, 4, 1), nn.Flatten(), nn.Linear(64, 5))
    # A view takes nothing, and the first tensor is there while the last is made.
    assert activation_memory(two, inputs) == 4 * (4 * 16 + 5)
    assert multiply_adds(two, inputs) == 16 * 8 + 64 * 5


def test_the_first_three_runs_do_not_count() -> None:
    now, runs = 0.0, 0

    class Slow(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            nonlocal now, runs
            runs += 1
            now += 100.0 if runs <= 3 else float(runs)
            return x

    assert latencies({"one": Slow()}, torch.zeros(1), 3, lambda: now) == {"one": 5000.0}
    assert runs == 6


def test_attention_counts_as_its_products_do() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    assert torch.backends.mha.get_fastpath_enabled()
    # Of 4 tokens: query, key, value and what is made of them, two linear layers; all pairs of tokens, twice.
    assert multiply_adds(layer, torch.zeros(1, 4, 8)) == 4 * (8 * 24 + 8 * 8 + 2 * 8 * 16) + 2 * 4 * 4 * 8
    assert torch.backends.mha.get_fastpath_enabled()


def test_the_table_of_whole_against_sliced() -> None:
    network = wrapped(make_model("residual").train(), ["stem", "one", "two", "three"])
    small = nk.export(network, random_masks(network, 0, 0.4), "a").train()
    table = nk.cost(small, some_inputs()[:2], whole=network, rounds=3, batches=(1, 3))
    assert list(table.columns) == ["quantity", "unit", "batch", "device", "value", "whole", "ratio"]
    assert table["quantity"].tolist() == [
        "parameters", "multiply_adds", "activation_memory", "latency", "latency",
    ]  # fmt: skip
    assert table["batch"].tolist() == [1, 1, 1, 1, 3]
    rows = table.set_index("quantity")
    assert rows.loc["parameters", "value"] == parameters(small)
    assert rows.loc["parameters", "whole"] == parameters(network.model)
    assert (table["value"] > 0).all()
    assert table["ratio"].tolist() == pytest.approx((table["value"] / table["whole"]).tolist())
    assert (rows["ratio"].iloc[:3] < 1).all()
    # Nothing is left behind.
    assert all(part.training for part in [*small.modules(), *network.model.modules()])
    alone = nk.cost(small, some_inputs(), rounds=1, batches=[2])
    assert list(alone.columns) == ["quantity", "unit", "batch", "device", "value"]
    assert alone["value"].tolist()[:3] == table["value"].tolist()[:3]


def test_the_answer_says_where_slicing_does_not_pay() -> None:
    large, small = nn.Linear(4, 300), nn.Linear(4, 2)
    answer = nk.cost(large, torch.zeros(1, 4), whole=small, rounds=1, batches=(1,)).attrs["answer"]
    assert "does not pay in " in answer
    assert "parameters ×150.00" in answer.split("does not pay in ")[1]
    answer = nk.cost(small, torch.zeros(1, 4), whole=large, rounds=1, batches=(1,)).attrs["answer"]
    assert "parameters ×0.01" in answer.split("does not pay in ")[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"module": 3}, "module is a int"),
        ({"whole": "net"}, "whole is a str"),
        ({"example": torch.zeros(0, 4)}, r"at least one sample, and got \(0, 4\)"),
        ({"example": [1.0]}, "at least one sample, and got list"),
        ({"example": torch.zeros(1, 5)}, r"the module does not run on an example \(1, 5\)"),
        ({"whole": nn.Linear(5, 2)}, r"the whole does not run on an example \(1, 4\)"),
        ({"batches": (0,)}, "whole numbers of 1 or more"),
        ({"rounds": 0}, "whole numbers of 1 or more"),
    ],
)
def test_what_is_measured_is_checked(change: dict[str, object], message: str) -> None:
    with pytest.raises(NadkitError, match=message):
        nk.cost(**{"module": nn.Linear(4, 2), "example": torch.zeros(1, 4), **change})


# Files


@pytest.fixture(scope="module")
def detector() -> tuple[nk.Network, nn.Module, Tensor]:
    network, images = nk.load_network("resnet-fashion"), nk.load_images("fashion", per_class=6)
    small = nk.export(network, nk.load_masks("resnet-fashion"), "bag", head="binary", images=images)
    return network, small, network.prepare(images.pixels[::7])


def same(one: nn.Module, two: nn.Module, inputs: Tensor) -> bool:
    with torch.no_grad():
        return torch.equal(one(inputs), two(inputs))


def test_a_detector_comes_back_from_its_file(
    detector: tuple[nk.Network, nn.Module, Tensor], tmp_path: Path
) -> None:
    network, small, inputs = detector
    path = slicing.save(small, tmp_path / "bag.safetensors")
    for again in (slicing.load(path), slicing.load(path, network)):
        assert same(again, small, inputs)
        assert slicing.report(again).equals(slicing.report(small))
        assert again.meta["slicing"] == small.meta["slicing"]
        assert not again.training
    assert slicing.save(again, tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    length = int.from_bytes(path.read_bytes()[:8], "little")
    record = json.loads(json.loads(path.read_bytes()[8 : 8 + length])["__metadata__"]["nadkit"])
    kept = nk.load_masks("resnet-fashion").kept("bag")
    assert {f"{a}/{u}" for a, units in record["kept"].items() for u in units} == {str(unit) for unit in kept}
    assert record["weights_id"] == network.weights_id
    assert record["tasks"] == ["bag"]
    assert record["preprocess"] == "Standardise(mean=(0.286,), std=(0.353,))"


def test_weights_trained_since_come_back(tmp_path: Path) -> None:
    network = wrapped(make_model("mixed"), MODELS["mixed"][1])
    small = nk.export(network, random_masks(network, 0, 0.5), ["a", "b"])
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.mul_(1.25)
    path = slicing.save(small, tmp_path / "small.safetensors")
    assert same(slicing.load(path, network), small, some_inputs())
    assert small.meta["slicing"]["preprocess"] == "_as_float"
    with pytest.raises(NadkitError, match=r"its network 'mixed' is not bundled.*load\(path, network\)"):
        slicing.load(path)
    single = slicing.save(small.float(), tmp_path / "single.safetensors")
    assert same(slicing.load(single, network), small, some_inputs().float())


def test_a_file_of_other_weights_is_refused(
    detector: tuple[nk.Network, nn.Module, Tensor], tmp_path: Path
) -> None:
    path = slicing.save(detector[1], tmp_path / "bag.safetensors")
    with pytest.raises(NadkitError, match=r"cut out of weights .* and vgg-fashion has"):
        slicing.load(path, nk.load_network("vgg-fashion"))


def test_a_network_that_means_others_is_refused(tmp_path: Path) -> None:
    model, layers = make_model("perceptron"), MODELS["perceptron"][1]
    network = wrapped(model, layers)
    path = slicing.save(nk.export(network, random_masks(network, 0, 0.5), "a"), tmp_path / "a.safetensors")
    example = torch.zeros(1, 2, 8, 8).double()
    turned = nk.Network.wrap(model, ("b", "a", "c"), example=example, layers=layers)
    with pytest.raises(
        NadkitError, match=r"its network had the class names \['a', 'b', 'c'\] and perceptron has"
    ):
        slicing.load(path, turned)
    flat = nk.Network.wrap(model, ("a", "b", "c"), example=example.reshape(1, 2, 4, 16), layers=layers)
    with pytest.raises(NadkitError, match=r"its network had the input shape \[2, 8, 8\]"):
        slicing.load(path, flat)
    with pytest.raises(NadkitError, match=r"load needs the Network .* got Perceptron"):
        slicing.load(path, model)


class TwoTypes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.head = nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Linear(4, 3)
        self.register_buffer("scale", torch.arange(1, 5).reshape(4, 1, 1).double() / 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.act(self.conv(x)) * self.scale).mean((2, 3)).float())


def test_every_tensor_comes_back_in_its_own_type(tmp_path: Path) -> None:
    network = wrapped(TwoTypes().requires_grad_(False), ["act"])
    small = nk.export(network, random_masks(network, 0, 0.5), "a")
    again = slicing.load(slicing.save(small, tmp_path / "a.safetensors"), network)
    types = {name: value.dtype for name, value in small.state_dict().items()}
    assert set(types.values()) == {torch.float32, torch.float64}
    assert {name: value.dtype for name, value in again.state_dict().items()} == types
    assert same(again, small, some_inputs().float())
    assert not any(p.requires_grad for p in again.parameters())


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[nk.Network, bytes]:
    network = wrapped(make_model("perceptron"), ["layers.1", "layers.3", "layers.6"])
    small = nk.export(network, random_masks(network, 0, 0.5), "a")
    return network, slicing.save(small, tmp_path_factory.mktemp("files") / "a.safetensors").read_bytes()


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_refused(
    data: st.DataObject, stored: tuple[nk.Network, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    network, whole = stored
    kind = data.draw(st.sampled_from(["cut", "flip", "grow"]))
    if kind == "cut":
        damaged = whole[: data.draw(st.integers(0, len(whole) - 1))]
    elif kind == "grow":
        damaged = whole + data.draw(st.binary(min_size=1, max_size=9))
    else:
        at = data.draw(st.integers(0, len(whole) - 1))
        damaged = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(damaged)
    with pytest.raises(NadkitError, match="is refused"):
        slicing.load(path, network)


def _record(whole: bytes) -> tuple[dict[str, object], dict[str, Tensor]]:
    from safetensors.torch import load

    length = int.from_bytes(whole[:8], "little")
    record = json.loads(json.loads(whole[8 : 8 + length])["__metadata__"]["nadkit"])
    del record["sha256"]
    return record, load(whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(kind="masks"), "it holds 'masks'"),
        (lambda r: r.update(format=2), "its format version is 2 and this nadkit reads 1"),
        (lambda r: r.pop("tasks"), "its entries are not those of an export"),
        (lambda r: r.update(extra=1), "its entries are not those of an export"),
        (lambda r: r["kept"].update({"layers.9": [0]}), "its recipe is damaged"),
        (lambda r: r["kept"].update({"layers.1": [99]}), "its recipe is damaged"),
        (lambda r: r["kept"].update({"layers.1": [0]}), "cut the network in another way than this does"),
        (lambda r: r.update(layout="0" * 16), "cut the network in another way than this does"),
        (lambda r: r["tensors"].pop(), "its tensors are not those that its recipe names"),
        (lambda r: r.update(head="binary"), "its recipe is damaged"),
    ],
)
def test_a_sealed_file_with_a_wrong_recipe_is_refused(
    change: Callable[[dict[str, object]], object],
    message: str,
    stored: tuple[nk.Network, bytes],
    tmp_path: Path,
) -> None:
    network, whole = stored
    record, tensors = _record(whole)
    change(record)
    names = [entry[0] for entry in record["tensors"]]
    ordered = {n: tensors[n] for n in names} | tensors
    path = tmp_path / "wrong.safetensors"
    path.write_bytes(seal(record, ordered))
    with pytest.raises(NadkitError, match=message):
        slicing.load(path, network)


def test_a_recipe_written_otherwise_is_refused(stored: tuple[nk.Network, bytes], tmp_path: Path) -> None:
    from safetensors.torch import load, save

    length = int.from_bytes(stored[1][:8], "little")
    text = json.loads(stored[1][8 : 8 + length])["__metadata__"]["nadkit"]
    path = tmp_path / "spaced.safetensors"
    path.write_bytes(save(load(stored[1]), metadata={"nadkit": text.replace(",", ", ", 1)}))
    with pytest.raises(NadkitError, match="it was altered"):
        slicing.load(path, stored[0])


def test_weights_of_another_shape_are_refused(stored: tuple[nk.Network, bytes], tmp_path: Path) -> None:
    record, tensors = _record(stored[1])
    first = min(name for name, tensor in tensors.items() if tensor.ndim)  # a file has no order of its own
    tensors[first] = tensors[first][:1].clone()
    record["tensors"] = [[n, str(tensors[n].dtype), list(tensors[n].shape)] for n, _, _ in record["tensors"]]
    path = tmp_path / "wrong.safetensors"
    path.write_bytes(seal(record, {n: tensors[n] for n, _, _ in record["tensors"]}))
    with pytest.raises(NadkitError, match="its weights are not those of its recipe"):
        slicing.load(path, stored[0])


def test_other_files_are_refused(tmp_path: Path) -> None:
    masks = nk.MaskSet.from_scores({"conv": torch.eye(2)}, ["a", "b"])
    with pytest.raises(NadkitError, match="it holds 'masks', not an exported module"):
        slicing.load(masks.save(tmp_path / "masks.safetensors"))
    with pytest.raises(NadkitError, match="cannot be read"):
        slicing.load(tmp_path / "missing.safetensors")


def test_what_is_saved_is_checked(detector: tuple[nk.Network, nn.Module, Tensor], tmp_path: Path) -> None:
    for call in (
        lambda: slicing.save(nn.ReLU(), tmp_path / "a"),
        lambda: slicing.report(nn.ReLU()),
        lambda: slicing.save_program(nn.ReLU(), tmp_path / "a", torch.zeros(1)),
    ):
        with pytest.raises(NadkitError, match="this ReLU was not exported by nadkit"):
            call()
    with pytest.raises(NadkitError, match="the module cannot be saved to"):
        slicing.save(detector[1], tmp_path / "nowhere" / "a.safetensors")
    with pytest.raises(NadkitError, match="a tensor of at least one sample"):
        slicing.save_program(detector[1], tmp_path / "a.pt2", torch.zeros(0, 1, 28, 28))
    with pytest.raises(NadkitError, match=r"does not run on an example \(1, 3, 28, 28\)"):
        slicing.save_program(detector[1], tmp_path / "a.pt2", torch.zeros(1, 3, 28, 28))
    assert list(tmp_path.iterdir()) == []


RUN = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "nadkit":
            raise ImportError("this process has no nadkit")
sys.meta_path.insert(0, Refuse())
import torch
from safetensors.torch import load_file, save_file
program = torch.export.load(sys.argv[1]).module()
inputs = load_file("inputs.safetensors")["inputs"]
with torch.no_grad():
    save_file({"all": program(inputs), "one": program(inputs[:1])}, "answers.safetensors")
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet-fashion", "darts-scenes"])
def test_a_program_runs_without_nadkit(name: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    network, images = nk.load_network(name), nk.load_images(name.split("-")[1], per_class=6)
    task = network.class_names[2]
    small = nk.export(network, nk.load_masks(name), task, head="binary", images=images)
    inputs = network.prepare(images.pixels[::5])
    path = slicing.save_program(small, tmp_path / "small.pt2", inputs[:1])
    save_file({"inputs": inputs.contiguous()}, tmp_path / "inputs.safetensors")
    # -I and another folder: neither this folder nor PYTHONPATH leads to nadkit.
    command = [sys.executable, "-I", "-c", RUN, path.name]
    ran = subprocess.run(
        command, cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, timeout=240
    )
    assert ran.returncode == 0, ran.stderr
    answers = load_file(tmp_path / "answers.safetensors")
    with torch.no_grad():
        assert torch.allclose(answers["all"], small(inputs), rtol=1e-5, atol=1e-5)
        assert torch.allclose(answers["one"], small(inputs[:1]), rtol=1e-5, atol=1e-5)
    with zipfile.ZipFile(path) as archive:
        parts = {entry: archive.read(entry) for entry in archive.namelist()}
    everything = b"".join(parts.values())
    # Of weights there are numbers alone; the rest is text, or empty: no pickle, and no archive of one.
    rest = {entry: part for entry, part in parts.items() if "/weights/weight_" not in entry}
    assert all(part.decode().strip().isprintable() for part in rest.values())
    assert str(Path(nk.__file__).parent).encode() not in everything
