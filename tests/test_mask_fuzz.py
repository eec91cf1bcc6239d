"""Ten thousand damaged mask files: each is refused as such, or means what the whole one means; none costs."""

from __future__ import annotations

import builtins
import random
import tracemalloc
from pathlib import Path

import pytest

from nadkit.errors import MaskFileError
from nadkit.masks import MaskSet
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
