"""An exported module in one safe file, and as a program that torch runs without nadkit."""

from __future__ import annotations

import io
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from torch import Tensor, nn

from nadkit import __version__
from nadkit.errors import MaskFileError, NadkitError
from nadkit.masks.encoding import canonical, digest, plain_mapping, seal
from nadkit.masks.files import write
from nadkit.networks import BUNDLED, Network, load_network
from nadkit.slicing.build import is_channels_last
from nadkit.slicing.reporting import record_of
from nadkit.slicing.verb import add_detector, sliced_module

FORMAT = 1
KIND = "export"
KEYS = {
    "format", "kind", "network", "weights_id", "class_names", "input_shape", "preprocess", "kept", "layers",
    "layout", "tasks", "head", "threshold", "calibration", "tensors", "written_by", "sha256",
}  # fmt: skip


def save(module: nn.Module, path: str | os.PathLike[str]) -> Path:
    """Write an exported module to one .safetensors file, and return its path.

    The file holds the weights, and as JSON in its metadata how to build the module: the network's name and
    hash, its class names, input shape and preprocessing in words, the tasks, the kept units of every layer,
    the head with its calibration, the report, a hash of the order of all channels, versions, and the SHA-256
    over all of it. No pickle.

    Parameters
    ----------
    module : what `nadkit.export` returned, perhaps trained since
    path : where to; a file that is there is replaced

    Raises
    ------
    NadkitError
        The module was not exported by nadkit, or the place cannot be written to.

    Examples
    --------
    >>> import tempfile
    >>> import nadkit as nk
    >>> network, masks = nk.load_network("vgg-fashion"), nk.load_masks("vgg-fashion")
    >>> small, inputs = nk.export(network, masks, "bag"), torch.rand(2, 1, 28, 28)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     again = load(save(small, Path(folder) / "bag.safetensors"))
    >>> torch.equal(again(inputs), small(inputs))
    True
    """
    recipe = record_of(module)
    tensors = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    record = plain_mapping(
        {
            **recipe,
            "format": FORMAT,
            "kind": KIND,
            "tensors": [[name, str(value.dtype), list(value.shape)] for name, value in tensors.items()],
            "written_by": {"nadkit": __version__, "torch": str(torch.__version__)},
        },
        "the recipe",
    )
    return _write(path, seal(record, tensors), "the module")


def load(path: str | os.PathLike[str], network: Network | None = None) -> nn.Module:
    """Return the module of a file that `save` wrote.

    It is cut out of the network anew, by the kept units that the file names, and then takes the file's
    weights. No code in a file is ever run.

    Parameters
    ----------
    path : a .safetensors file
    network : that it was cut out of, with the same weights; a bundled one is loaded by its name

    Raises
    ------
    NadkitError
        The file is missing, foreign, truncated, altered or of another format version, or it is another
        network's; the message says which.

    Examples
    --------
    >>> load("missing.safetensors")
    Traceback (most recent call last):
    nadkit.errors.NadkitError: export file 'missing.safetensors' is refused: it cannot be read ...
    """
    record, tensors = _read(path)
    try:
        return _rebuild(path, record, tensors, network)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        _refuse(path, f"its recipe is damaged ({type(error).__name__}: {str(error)[:200]})")


def save_program(module: nn.Module, path: str | os.PathLike[str], example: Tensor) -> Path:
    """Write a module as a program of `torch.export`, which runs where torch is and nadkit is not.

    `torch.export.load(path).module()(inputs)` gives the module's answers for any number of samples. Torch
    itself warns that such a file may not open in other versions of torch; `save` has no such limit. The
    example is left out of the file, so that nothing in it is pickled.

    Parameters
    ----------
    module : what `nadkit.export` returned
    path : where to, by custom ending in .pt2; a file that is there is replaced
    example : (N, ...), what the module takes, N at least 1

    Raises
    ------
    NadkitError
        The module was not exported by nadkit, the example is no sample that it takes, or the place cannot be
        written to.

    Examples
    --------
    >>> import tempfile
    >>> import nadkit as nk
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> network = Network.wrap(model, ["a", "b"], example=torch.zeros(1, 1, 2, 2))
    >>> masks = nk.MaskSet.from_scores({"2": torch.tensor([[1.0, 0.0, 1.0]])}, ["a"])
    >>> small, inputs = nk.export(network, masks, "a"), torch.rand(5, 1, 2, 2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_program(small, Path(folder) / "a.pt2", inputs)
    ...     program = torch.export.load(path).module()
    >>> torch.allclose(program(inputs), small(inputs))
    True
    """
    record_of(module)
    if not isinstance(example, Tensor) or not example.ndim or not len(example):
        raise NadkitError(
            "the program is traced on an example: a tensor of at least one sample the module takes"
        )
    two = torch.cat([example[:1]] * 2)  # one alone would be taken for a size that never changes
    try:
        with torch.no_grad():
            program = torch.export.export(module, (two,), dynamic_shapes=({0: torch.export.Dim("samples")},))
    except (RuntimeError, ValueError, TypeError) as error:
        raise NadkitError(
            f"the module does not run on an example {tuple(example.shape)} of {example.dtype} on "
            f"{example.device} ({error}); network.prepare(images.pixels[:1]) is one"
        ) from error
    program.example_inputs = None
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names folders of this machine
    data = io.BytesIO()
    with warnings.catch_warnings():  # of weights that lie channels last, which it saves as they are
        warnings.filterwarnings("ignore", "No complete tensor found", UserWarning)
        torch.export.save(program, data)
    return _write(path, data.getvalue(), "the program")


def _write(path: str | os.PathLike[str], data: bytes, what: str) -> Path:
    try:
        return write(path, data, what)
    except MaskFileError as error:
        raise NadkitError(str(error)) from None


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        data = Path(path).read_bytes()
    except (OSError, TypeError, ValueError) as error:
        _refuse(path, f"it cannot be read ({error})", "check the path")
    length = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + length])
        text = header["__metadata__"]["nadkit"]
        record = json.loads(text)
    except (ValueError, KeyError, TypeError, RecursionError):
        _refuse(path, "it is no file of an exported module, or truncated", "give a file written by save")
    if not isinstance(record, dict) or record.get("kind") != KIND:
        kind = record.get("kind") if isinstance(record, dict) else record
        _refuse(path, f"it holds {kind!r}, not an exported module", "give a file written by save")
    if record.get("format") != FORMAT or isinstance(record["format"], bool):
        _refuse(
            path, f"its format version is {record.get('format')!r} and this nadkit reads {FORMAT}",
            "read it with the nadkit that wrote it, or export again",
        )  # fmt: skip
    if set(record) != KEYS:
        _refuse(path, f"its entries are not those of an export ({', '.join(sorted(set(record) ^ KEYS))})")
    try:
        tensors = read_tensors(data)
    except (SafetensorError, ValueError, KeyError) as error:
        _refuse(path, f"its tensors are truncated or damaged ({error})")
    named = [[name, str(value.dtype), list(value.shape)] for name, value in tensors.items()]
    stored = record["tensors"]
    if not isinstance(stored, list) or sorted(map(repr, named)) != sorted(map(repr, stored)):
        _refuse(path, "its tensors are not those that its recipe names")
    blocks = [_bytes(tensors[name]) for name, _, _ in record["tensors"]]
    unsealed = {key: value for key, value in record.items() if key != "sha256"}
    if record["sha256"] != digest(unsealed, blocks) or canonical(record) != text:
        _refuse(path, "it was altered: its SHA-256 does not match its content", "take an unaltered copy")
    return record, tensors


def _bytes(value: Tensor) -> bytes:
    return value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _rebuild(
    path: object, record: Mapping[str, Any], tensors: dict[str, Tensor], network: Network | None
) -> nn.Module:
    name = record["network"]
    if network is None:
        if name not in BUNDLED:
            _refuse(path, f"its network {name!r} is not bundled", "give it: load(path, network)")
        network = load_network(name)
    if not isinstance(network, Network):
        raise NadkitError(
            f"load needs the Network that a module was cut out of, and got {type(network).__name__}; "
            "load_network(name) gives a bundled one, Network.wrap(model, ...) any other"
        )
    if network.weights_id != record["weights_id"]:
        _refuse(
            path,
            f"it was cut out of weights {record['weights_id']} and {network.name} has {network.weights_id}",
            "give the network it was exported from",
        )  # fmt: skip
    for what, here in (("class_names", network.class_names), ("input_shape", network.input_shape)):
        if list(here) != record[what]:  # the same weights, and logits or pictures that mean others
            there = f"the {what.replace('_', ' ')} {record[what]}"
            _refuse(
                path, f"its network had {there} and {network.name} has {list(here)}",
                "give the network as it was when exported",
            )  # fmt: skip
    kept = {}
    for address, units in record["kept"].items():
        kept[address] = torch.zeros(network.layers[address].units, dtype=torch.bool)
        kept[address][units] = True
    small = sliced_module(network, kept)
    if small.meta["slicing"]["layout"] != record["layout"]:
        # The file's weights would fit, and mean other channels.
        _refuse(
            path, f"nadkit {record['written_by']['nadkit']} cut the network in another way than this does",
            "load it with that version, or export again",
        )  # fmt: skip
    if record["head"] == "binary":
        task, fit = record["tasks"][0], record["calibration"]
        add_detector(
            small, network.class_index(task), len(network.class_names), fit["slope"], fit["intercept"]
        )
    weights = {name: value.to(network.device) for name, value in tensors.items()}
    try:
        small.load_state_dict(weights, assign=True)  # in the file's own types
    except RuntimeError as error:
        _refuse(path, f"its weights are not those of its recipe ({str(error)[:300]})")
    if is_channels_last(network.model):
        small.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # missing in torch's types
    for key in ("tasks", "head", "threshold", "calibration"):
        small.meta["slicing"][key] = record[key]
    return small


def _refuse(path: object, reason: str, advice: str = "take an undamaged copy, or export again") -> NoReturn:
    raise NadkitError(f"export file {str(path)!r} is refused: {reason}; {advice}")
