"""Ten thousand damaged mask files: each is refused as such, or means what the whole one means; none costs."""

from __future__ import annotations

import builtins
import json
import random
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from nadkit.errors import MaskFileError
from nadkit.masks import MaskSet
from nadkit.masks.encoding import seal
from nadkit.networks import mask_path

MUTATIONS = 10_000


def damaged(whole: bytes, draw: random.Random) -> bytes:
    """One to three mutations, more of them in the header, where sizes and names are."""
    data = bytearray(whole)
    for _ in range(draw.randint(1, 3)):
        reach = min(len(data), draw.choice([16, 2000, len(data)])) or 1
        at, other = draw.randrange(reach), draw.randrange(reach)
        low, high = sorted((at, other))
        kind = draw.choice(["flip", "byte", "cut", "drop", "double", "insert", "swap", "digit", "huge"])
        if not data or kind == "insert":
            data[at:at] = draw.randbytes(draw.randint(1, 40))
        elif kind == "flip":
            data[at] ^= 1 << draw.randrange(8)
        elif kind == "byte":
            data[at] = draw.choice(b'\x00\xff{}[]":,0192n')
        elif kind == "cut":
            del data[at:]
        elif kind == "drop":
            del data[low:high]
        elif kind == "double":
            data[high:high] = data[low:high]
        elif kind == "swap":
            data[at], data[other] = data[other], data[at]
        elif kind == "digit":  # a number in the header, such as an offset or a count, becomes another
            places = [i for i, byte in enumerate(data[:3000]) if 48 <= byte <= 57]
            if places:
                data[draw.choice(places)] = draw.choice(b"0123456789")
        else:  # a length or an offset that asks for more memory than there is
            data[:8] = draw.choice([2**63 - 1, 2**40, len(data), 10**8, 0]).to_bytes(8, "little")
    return bytes(data)


@pytest.mark.slow
def test_ten_thousand_mutations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a mask file ran code")

    source = mask_path("vgg-fashion", objective="official", kept_share=0.3, seed=0, control=None)
    whole, draw, path = source.read_bytes(), random.Random(0), tmp_path / "masks.safetensors"
    expected = MaskSet.load(source)
    for name in ("eval", "exec"):
        monkeypatch.setattr(builtins, name, forbidden)
    accepted, most = 0, 0.0
    tracemalloc.start()
    try:
        for _ in range(MUTATIONS):
            data = damaged(whole, draw)
            path.write_bytes(data)
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            try:
                loaded = MaskSet.load(path)
            except MaskFileError:
                loaded = None
            most = max(most, (tracemalloc.get_traced_memory()[1] - before - 10e6) / max(1, len(data)))
            if loaded is not None:
                accepted += 1
                assert loaded == expected
    finally:
        tracemalloc.stop()
    assert most <= 2
    assert accepted <= MUTATIONS // 20  # a mutation that undoes itself or hits nothing


# What a load costs -------------------------------------------------------------------------------------

# Of a process of its own: memory that another test freed would hide what a load takes. VmHWM rather than
# ru_maxrss where there is one, since a process starts with the ru_maxrss of its parent.
CHILD = """
import resource, sys
import pandas
from nadkit.errors import MaskFileError
from nadkit.masks import MaskSet
def peak():
    try:
        lines = open("/proc/self/status").read().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
what, small, path = sys.argv[1:]
MaskSet.load(small)
before = peak()
try:
    if what == "copy":
        held = open(path, "rb").read()
    else:
        MaskSet.load(path)
    outcome = "loaded"
except MaskFileError as error:
    outcome = str(error)
print(peak() - before, outcome)
"""


def cost(folder: Path, data: bytes, what: str = "load") -> tuple[int, str]:
    """The peak memory of one load, and `loaded` or the reason of a refusal; another error fails."""
    small, path = folder / "small.safetensors", folder / "m.safetensors"
    history = pd.DataFrame({"step": [0, 1], "loss": [0.5, 0.25]})
    MaskSet(("shirt",), {"fc": torch.zeros(1, 4)}, history, {"seed": 0}).save(small)
    path.write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, what, str(small), str(path)],
        cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    peak, outcome = done.stdout.split(" ", 1)
    return int(peak), outcome.strip()


def within(folder: Path, data: bytes) -> str:
    peak, outcome = cost(folder, data)
    assert peak <= 2 * len(data) + 10e6, f"{peak / 1e6:.1f} MB for {len(data) / 1e6:.1f} MB: {outcome[:200]}"
    return outcome


def sealed(scores: dict[str, torch.Tensor], **changes: object) -> bytes:
    """A file whose seal is right, whatever it says."""
    record: dict[str, object] = {
        "format": 1, "kind": "masks", "tasks": [f"t{at}" for at in range(len(next(iter(scores.values()))))],
        "addresses": list(scores), "units": [rows.shape[1] for rows in scores.values()], "history": None,
        "written_by": {}, "meta": {}, "network": None, "weights_id": None, "class_names": None,
        "objective": None, "settings": None, "seed": None, "threshold": None, "versions": None,
    }  # fmt: skip
    tensors = {f"scores/{address}": rows for address, rows in scores.items()}
    return seal({**record, **changes}, tensors)


def framed(header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header


def inner(text: bytes) -> bytes:
    return framed(b'{"__metadata__":{"nadkit":"' + text + b'"}}')


def test_the_measure_sees_a_copy_of_the_file(tmp_path: Path) -> None:
    assert 20e6 <= cost(tmp_path, bytes(20_000_000), "copy")[0] <= 30e6


@pytest.mark.parametrize("layers", [1, 8])
def test_a_large_file_takes_no_more_than_twice_its_size(tmp_path: Path, layers: int) -> None:
    scores = {f"layer{at}": torch.rand(10, 1_000_000 // layers) for at in range(layers)}
    data = sealed(scores)
    assert len(data) > 40e6
    assert within(tmp_path, data) == "loaded"


def test_a_large_file_of_bad_scores_does_not_either(tmp_path: Path) -> None:
    outcome = within(tmp_path, sealed({"fc": torch.full((10, 1_000_000), torch.nan)}))
    assert "fc/0 for 't0' is not a number" in outcome


HOSTILE: dict[str, Callable[[], bytes]] = {
    "numbers": lambda: framed(b"[" + b"0," * 5_000_000 + b"0]"),
    "mappings": lambda: framed(b"[" + b"{}," * 4_000_000 + b"{}]"),
    "lists": lambda: framed(b"[" + b"[]," * 4_000_000 + b"[]]"),
    "entries": lambda: framed(b'{"__metadata__":{"nadkit":"{}"}' + b',"":{}' * 2_000_000 + b"}"),
    "spaces": lambda: framed(b" " * 12_000_000),
    "one wide letter": lambda: framed(b'["\xf0\x9f\x98\x80' + b"a" * 12_000_000 + b'"]'),
    "numbers inside": lambda: inner(b"[" + b"0," * 5_000_000 + b"0]"),
    "mappings inside": lambda: inner(b"[" + b"{}," * 4_000_000 + b"{}]"),
    "escaped mappings": lambda: inner(b"[" + rb"\u007b\u007d\u002c" * 650_000 + b"{}]"),
    "depth": lambda: framed(b"[" * 10_000_000),
    "a wide letter in little": lambda: framed(b'["\xf0\x9f\x98\x80' + b"a" * 2_500_000 + b'"]'),
}
# Just below what is refused unread.
HOSTILE["little, of numbers"] = lambda: framed(b"[" + b"1.5," * 110_000 + b"0]")
HOSTILE["little, of lists inside"] = lambda: inner(b"[" + b"[]," * 60_000 + b"0]")


@pytest.mark.parametrize("header", HOSTILE)
def test_hostile_headers_are_refused_at_little_cost(tmp_path: Path, header: str) -> None:
    assert "is refused" in within(tmp_path, HOSTILE[header]())


def rows_of(first: int, others: int) -> dict[str, object]:
    return {"columns": ["c"] * first, "rows": [[0] * first] + [[]] * others}


SEALED: dict[str, Callable[[], bytes]] = {
    # pandas would make 30,000 x 30,000 cells of it.
    "uneven rows": lambda: sealed({"fc": torch.zeros(1, 1)}, history=rows_of(2_000, 30_000)),
    "many columns": lambda: sealed({"fc": torch.zeros(1, 1)}, history=rows_of(20_000, 0)),
    "some columns": lambda: sealed({"fc": torch.zeros(1, 1)}, history=rows_of(2_500, 0)),
    "many layers": lambda: sealed({f"{at}": torch.zeros(1, 1) for at in range(20_000)}),
    "some layers": lambda: sealed({f"{at}": torch.zeros(1, 1) for at in range(3_000)}),
    "nested meta": lambda: sealed({"fc": torch.zeros(1, 1)}, meta={"a": [[]] * 45_000}),
    "small mappings": lambda: sealed({"fc": torch.zeros(1, 1)}, meta={"a": [{"": 0}] * 15_000}),
    "many keys": lambda: sealed({"fc": torch.zeros(1, 1)}, meta={str(at): 0 for at in range(20_000)}),
    "a tall history": lambda: sealed(
        {"fc": torch.zeros(1, 1)}, history={"columns": ["a", "b"], "rows": [[0.5, "x"]] * 15_000}
    ),
    "nested meta by a large layer": lambda: sealed(
        {"fc": torch.zeros(1, 5_000_000)}, meta={"a": [[]] * 45_000}
    ),
}


@pytest.mark.parametrize("name", SEALED)
def test_well_sealed_files_cost_no_more(tmp_path: Path, name: str) -> None:
    loads = name in ("some columns", "a tall history")
    assert within(tmp_path, SEALED[name]()).startswith("loaded" if loads else "mask file")


def test_a_double_name_among_many_is_found_at_once(tmp_path: Path) -> None:
    names = [str(at) for at in range(20_000)]
    data = sealed({"fc": torch.zeros(1, 1)}, tasks=[*names, names[-1]])
    assert "name '19999' twice" in within(tmp_path, data)


def test_the_largest_honest_headers_load(tmp_path: Path) -> None:
    """A thousand tasks and classes over 300 layers; the 80,000 statistics of a large untrained network."""
    tasks = tuple(f"a class with a longish name, number {at}" for at in range(1_000))
    scores = {f"features.block{at}.layer": torch.rand(1_000, 8) for at in range(300)}
    frame = pd.DataFrame([(step, task, 0.123456, 0.5) for step in range(20) for task in tasks])
    frame.columns = pd.Index(["step", "task", "loss", "kept_share"])
    statistics = (torch.rand(80_000, generator=torch.Generator().manual_seed(0)) / 3).tolist()
    path = tmp_path / "honest.safetensors"
    for masks in (
        MaskSet(tasks, scores, frame, {"class_names": list(tasks)}),
        MaskSet(("shirt",), {"fc": torch.rand(1, 8)}, None, {"untrained": {"statistics": statistics}}),
    ):
        assert MaskSet.load(masks.save(path)) == masks
        assert within(tmp_path, path.read_bytes()) == "loaded"


def test_headers_without_order_are_refused(tmp_path: Path) -> None:
    """Offsets that overlap, leave a gap, are no whole numbers or lie outside, and entries that are none."""
    data = sealed({"a": torch.tensor([[0.1, 0.2]]), "b": torch.tensor([[0.3, 0.4]])})
    length = int.from_bytes(data[:8], "little")
    path = tmp_path / "m.safetensors"
    changes: list[dict[str, object]] = [
        {"data_offsets": offsets}
        for offsets in (
            [0, 8],
            [0, 16],
            [9, 17],
            [8, 20],
            [8, 8],
            [16, 8],
            [-8, 0],
            [8.0, 16.0],
            [8],
            [],
            None,
        )
    ]
    changes += [
        {"shape": [2, 1]},
        {"shape": [1.0, 2]},
        {"shape": [True, 2]},
        {"dtype": "I32"},
        {"dtype": None},
    ]
    changes += [{"more": 1}, {"data_offsets": [8, 2**70]}, {"data_offsets": [False, 8]}]
    for change in [{}, *changes]:
        header = json.loads(data[8 : 8 + length])
        header["scores/b"].update(change)
        text = json.dumps(header).encode()
        path.write_bytes(framed(text) + data[8 + length :])
        if not change:
            assert MaskSet.load(path).scores["b"].tolist() == torch.tensor([[0.3, 0.4]]).tolist()
            continue
        with pytest.raises(MaskFileError):
            MaskSet.load(path)


@pytest.mark.parametrize("error", [MemoryError(), RecursionError(), RuntimeError("not enough memory")])
def test_memory_that_runs_out_is_a_mask_file_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    path = MaskSet(("a",), {"fc": torch.zeros(1, 1)}).save(tmp_path / "m.safetensors")

    def fail(*_: object, **__: object) -> None:
        raise error

    for place in (
        "torch.empty",
        "json.loads",
        "nadkit.masks.files.digest",
        "nadkit.masks.scores.checked_scores",
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, fail)
            with pytest.raises(MaskFileError):
                MaskSet.load(path)
