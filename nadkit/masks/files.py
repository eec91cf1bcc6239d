"""The mask file: score tensors and one sealed JSON text in a single .safetensors file, checked when read."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, NoReturn

import torch
from torch import Tensor

from nadkit.errors import MaskFileError
from nadkit.masks.encoding import FORMAT, KEYS, KIND, KNOWN_META, PREFIX, canonical, digest

if TYPE_CHECKING:
    import pandas as pd

_HEADER_LIMIT = 100_000_000  # what safetensors itself accepts


class Contents(NamedTuple):
    """What a mask file holds, before `MaskSet` checks the scores."""

    tasks: tuple[str, ...]
    scores: dict[str, Tensor]
    history: pd.DataFrame | None
    meta: dict[str, object]


def write(path: str | os.PathLike[str], data: bytes, what: str = "masks") -> Path:
    """Write bytes to a file at once: a reader sees the file of before or the new one, never a part.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(Path(folder) / "m.safetensors", b"abc").name
    'm.safetensors'

    Raises
    ------
    MaskFileError
        The place cannot be written to (`what` is named in it); a file that was there is as before.
    """
    try:
        place = Path(os.path.realpath(path))
        # Not tempfile: its files are readable by their owner alone, whatever the umask says.
        part = place.with_name(f".{place.name}.{secrets.token_hex(4)}.part")
        try:
            with open(part, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, place)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink()
            raise
    except (OSError, TypeError, ValueError) as error:
        raise MaskFileError(
            f"{what} cannot be saved to {str(path)!r}: {error}; give a file in a folder that exists"
        ) from error
    return place


def read(path: str | os.PathLike[str]) -> Contents:
    """Return what a mask file holds, after checking all of it but the range of the scores.

    Examples
    --------
    >>> import tempfile
    >>> from nadkit.masks.encoding import encode
    >>> data = encode(["shirt"], {"conv": torch.rand(1, 4)}, None, {"seed": 0})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     read(write(Path(folder) / "m.safetensors", data)).meta
    {'seed': 0}

    Raises
    ------
    MaskFileError
        The file is missing, no mask file, truncated, altered, or of another format version.
    """
    try:
        place = os.path.realpath(path)
    except (TypeError, ValueError) as error:
        _refuse(path, f"it is no path ({error})", "give the path of a file")
    try:
        with open(place, "rb") as file:
            return _contents(path, file)
    except OSError as error:
        _refuse(path, f"it cannot be read ({error})", "check the path")
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        _refuse(path, f"it is damaged ({type(error).__name__}: {str(error)[:200]})")


def _contents(path: object, file: BinaryIO) -> Contents:
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > min(size - 8, _HEADER_LIMIT):
        _refuse(path, "it is no safetensors file, or truncated")
    header = file.read(length)
    record = _record(path, header)
    tasks, addresses = (_names(path, record, key) for key in ("tasks", "addresses"))
    units, meta = record["units"], record["meta"]
    if not isinstance(units, list) or not all(type(count) is int and count > 0 for count in units):
        _refuse(path, "its unit counts are no list of whole numbers")
    if len(units) != len(addresses):
        _refuse(path, f"it has {len(units)} unit counts for {len(addresses)} addresses")
    if not isinstance(meta, dict):
        _refuse(path, "its meta is no mapping")
    expected = 8 + length + 4 * len(tasks) * sum(units)
    # Before the tensors are read, so that a large file of something else costs nothing.
    if size != expected:
        _refuse(path, f"it has {size} bytes and should have {expected}, so it is truncated or altered")
    names = [PREFIX + address for address in addresses]
    shapes = {name: [len(tasks), count] for name, count in zip(names, units, strict=True)}
    blocks = _blocks(path, start + header + file.read(), shapes)
    unsealed = {key: value for key, value in record.items() if key != "sha256"}
    if record["sha256"] != digest(unsealed, blocks):
        _refuse(path, "it was altered: its SHA-256 does not match its content", "take an unaltered copy")
    scores = {
        address: torch.frombuffer(block, dtype=torch.float32).reshape(len(tasks), count)
        for address, block, count in zip(addresses, blocks, units, strict=True)
    }
    known = {key: record[key] for key in KNOWN_META if record[key] is not None}
    return Contents(tasks, scores, _history(path, record["history"]), {**meta, **known})


def _blocks(path: object, data: bytes, shapes: Mapping[str, list[int]]) -> list[bytearray]:
    import safetensors

    try:
        stored = dict(safetensors.deserialize(data))  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        _refuse(path, f"its tensors are truncated or damaged ({error})")
    if missing := [name for name in shapes if name not in stored]:
        _refuse(path, f"it lacks the tensor {missing[0]!r}")
    if extra := sorted(set(stored) - set(shapes)):
        _refuse(path, f"it has a tensor that nadkit did not write ({extra[0]!r})")
    for name, expected in shapes.items():
        dtype, shape = stored[name]["dtype"], list(stored[name]["shape"])
        if dtype != "F32" or shape != expected:
            _refuse(path, f"{name!r} is {dtype} {shape}; expected F32 {expected}")
    return [bytearray(stored[name]["data"]) for name in shapes]


def _record(path: object, header: bytes) -> dict[str, object]:
    try:
        outer = json.loads(header.decode("utf-8"))
    except (ValueError, RecursionError):
        _refuse(path, "it is no safetensors file, or damaged in its header")
    texts = outer.get("__metadata__", {}) if isinstance(outer, dict) else {}
    if not isinstance(texts, dict) or not isinstance(texts.get("nadkit"), str):
        _refuse(path, "it holds no nadkit masks", "give a file written by MaskSet.save")
    if extra := sorted(set(texts) - {"nadkit"}):
        _refuse(path, f"it has metadata that nadkit did not write ({', '.join(extra)})")
    text = texts["nadkit"]
    record = json.loads(text)
    if not isinstance(record, dict) or "format" not in record:
        _refuse(path, "its nadkit metadata has no format version")
    if record.get("kind") != KIND:
        _refuse(path, f"it holds {record.get('kind')!r}, not masks", "give a file written by MaskSet.save")
    if record["format"] != FORMAT or isinstance(record["format"], bool):
        _refuse(
            path,
            f"its format version is {record['format']!r} and this nadkit reads {FORMAT}",
            "read it with the nadkit that wrote it, or learn the masks again",
        )
    if missing := sorted(KEYS - set(record)):
        _refuse(path, f"it lacks {', '.join(missing)}")
    if extra := sorted(set(record) - KEYS):
        _refuse(path, f"it has entries that nadkit did not write ({', '.join(extra)})")
    if canonical(record) != text:
        _refuse(path, "its JSON was rewritten")
    return record


def _names(path: object, record: dict[str, object], key: str) -> tuple[str, ...]:
    names = record[key]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        _refuse(path, f"its {key} are no list of names")
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        _refuse(path, f"its {key} name {double!r} twice")
    return tuple(names)


def _history(path: object, stored: object) -> pd.DataFrame | None:
    if stored is None:
        return None
    import pandas as pd

    columns = stored.get("columns") if isinstance(stored, dict) else None
    rows = stored.get("rows") if isinstance(stored, dict) else None
    if not isinstance(columns, list) or not isinstance(rows, list):
        _refuse(path, "its history is no table")
    return pd.DataFrame(rows, columns=columns)


def _refuse(
    path: object, reason: str, advice: str = "take an undamaged copy, or learn them again"
) -> NoReturn:
    raise MaskFileError(f"mask file {str(path)!r} is refused: {reason}; {advice}")
