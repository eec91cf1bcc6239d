"""The mask file: score tensors and one sealed JSON text in a single .safetensors file."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import numbers
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import torch
from torch import Tensor

from nadkit.errors import MaskFileError, NadkitError

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
KIND = "masks"
# Prefixed, so that a layer may have any name, even the `__metadata__` that safetensors reserves.
PREFIX = "scores/"
KNOWN_META = (
    "network",
    "weights_id",
    "class_names",
    "objective",
    "settings",
    "seed",
    "threshold",
    "versions",
)
_KEYS = {
    "format",
    "kind",
    "tasks",
    "addresses",
    "units",
    "written_by",
    "history",
    "meta",
    "sha256",
    *KNOWN_META,
}
_DEPTH = 32
_HEADER_LIMIT = 100_000_000  # what safetensors itself accepts
_HISTORY_STEPS = 11
_HISTORY_ROWS = 2_000


class Contents(NamedTuple):
    """What a mask file holds, before `MaskSet` checks the scores."""

    tasks: tuple[str, ...]
    scores: dict[str, Tensor]
    history: pd.DataFrame | None
    meta: dict[str, object]


def plain(value: object, where: str = "meta", depth: int = 0) -> object:
    """Return a value as plain JSON data that comes back from a file as it was, or refuse it.

    Examples
    --------
    >>> plain({"shares": (0.3, 0.5), "control": None})
    {'shares': [0.3, 0.5], 'control': None}

    Parameters
    ----------
    value
        None, booleans, strings, finite numbers (NumPy's too), and lists, tuples and mappings of them.
    where
        How the error names the value.
    depth
        How deep the value sits; 32 levels are allowed.

    Raises
    ------
    NadkitError
        The value is something else: a tensor, NaN, an integer beyond 64 bits, a mapping whose keys are no text.
    """
    if depth > _DEPTH:
        raise NadkitError(f"{where} is nested more than {_DEPTH} levels deep; store it flatter")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, numbers.Integral):
        if abs(int(value)) >= 2**64:
            raise NadkitError(f"{where} is an integer beyond 64 bits; store it as text")
        return int(value)
    if isinstance(value, numbers.Real):
        number = float(value)
        if number - number != 0:
            raise NadkitError(f"{where} is {number}, which JSON cannot hold; store None instead")
        return number
    if isinstance(value, Mapping):
        if odd := [key for key in value if not isinstance(key, str)]:
            raise NadkitError(
                f"{where} has the key {odd[0]!r}; a mask file's keys are text, write str({odd[0]!r})"
            )
        return {str(key): plain(inner, f"{where}[{key!r}]", depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner, f"{where}[{index}]", depth + 1) for index, inner in enumerate(value)]
    raise NadkitError(
        f"{where} is a {type(value).__name__}, which a mask file cannot hold; "
        "store numbers, text, lists and mappings (a tensor or array as .tolist())"
    )


def summary(history: pd.DataFrame | None) -> dict[str, object] | None:
    """Return the part of a learning history that a file keeps: whole steps, evenly spaced, to six digits.

    Examples
    --------
    >>> import pandas as pd
    >>> kept = summary(pd.DataFrame({"step": range(101), "loss": 0.5}))
    >>> kept["columns"], [row[0] for row in kept["rows"]]
    (['step', 'loss'], [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100])

    Parameters
    ----------
    history
        One row a step, or one a step and task; a column `step` says which rows belong together.
        The first and the last step are always kept, and of a summary all of it.
    """
    if history is None:
        return None
    steps = list(dict.fromkeys(history["step"].tolist() if "step" in history else range(len(history))))
    room = max(2, min(_HISTORY_STEPS, _HISTORY_ROWS * len(steps) // max(1, len(history))))
    if len(steps) > room:
        steps = [steps[round(place * (len(steps) - 1) / (room - 1))] for place in range(room)]
    rows = history[history["step"].isin(steps)] if "step" in history else history.iloc[steps]
    columns = [rows.iloc[:, place].tolist() for place in range(rows.shape[1])]
    return {
        "columns": [str(name) for name in rows.columns],
        "rows": [[_cell(column[row]) for column in columns] for row in range(len(rows))],
    }


def _cell(value: object) -> object:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Integral):
        return int(value) if abs(int(value)) < 2**64 else str(value)
    if isinstance(value, numbers.Real):
        number = float(value)
        return float(f"{number:.6g}") if number - number == 0 else None
    return str(value)


def encode(
    tasks: Sequence[str],
    scores: Mapping[str, Tensor],
    history: pd.DataFrame | None,
    meta: Mapping[str, object],
) -> bytes:
    """Return the bytes of a mask file.

    Examples
    --------
    >>> data = encode(["shirt"], {"conv": torch.rand(1, 4)}, None, {"seed": 0})
    >>> data[8:24]
    b'{"__metadata__":'

    Parameters
    ----------
    tasks
        The names of the tasks.
    scores
        (n_tasks, n_units) float32 for every address, in forward order.
    history
        How the scores were learned; its `summary` is written.
    meta
        JSON data.
    """
    known = {key: meta.get(key) for key in KNOWN_META}
    record: dict[str, object] = {
        **known,
        "format": FORMAT,
        "kind": KIND,
        "tasks": list(tasks),
        "addresses": list(scores),
        "units": [rows.shape[1] for rows in scores.values()],
        "written_by": {"nadkit": _version(), "torch": str(torch.__version__)},
        "history": summary(history),
        "meta": {key: value for key, value in meta.items() if known.get(key) is None},
    }
    return seal(record, {PREFIX + address: rows for address, rows in scores.items()})


def seal(record: Mapping[str, object], tensors: Mapping[str, Tensor]) -> bytes:
    """Return the bytes of a file that holds a record, its tensors and the SHA-256 over both.

    Examples
    --------
    >>> len(seal({"format": 1}, {"scores/conv": torch.zeros(1, 4)})) > 16
    True
    """
    import safetensors.torch

    sealed = {**record, "sha256": digest(record, [_bytes(rows) for rows in tensors.values()])}
    stored = {name: rows.contiguous() for name, rows in tensors.items()}
    return safetensors.torch.save(stored, metadata={"nadkit": canonical(sealed)})


def digest(record: Mapping[str, object], blocks: Sequence[bytes | bytearray]) -> str:
    """Return the SHA-256 over a record's canonical JSON, a zero byte, and its tensors' bytes in order.

    Examples
    --------
    >>> digest({"format": 1}, [b"abc"])[:8]
    '34ccdb3b'
    """
    total = hashlib.sha256(canonical(record).encode("ascii") + b"\0")
    for block in blocks:
        total.update(block)
    return total.hexdigest()


def canonical(record: Mapping[str, object]) -> str:
    """Return the one JSON text of a record: sorted keys, no spaces, ASCII, floats that come back exactly.

    Examples
    --------
    >>> canonical({"b": [0.1, None], "a": 1})
    '{"a":1,"b":[0.1,null]}'
    """
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def write(path: str | os.PathLike[str], data: bytes) -> Path:
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
        The place cannot be written to; a file that was there is as before.
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
            f"masks cannot be saved to {path!r}: {error}; give a path in a folder that exists"
        ) from error
    return place


def read(path: str | os.PathLike[str]) -> Contents:
    """Return what a mask file holds, after checking all of it but the range of the scores.

    Examples
    --------
    >>> import tempfile
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
        with open(Path(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if len(start) < 8 or length > min(size - 8, _HEADER_LIMIT):
                _refuse(path, "it is no safetensors file, or truncated")
            header = file.read(length)
            # The header comes first, so that a large foreign file is refused without being read.
            record = _record(path, header)
            data = start + header + file.read()
        return _contents(path, record, data)
    except (OSError, TypeError) as error:
        _refuse(path, f"it cannot be opened ({error})", "check the path")
    except (ValueError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        _refuse(path, f"it is damaged ({type(error).__name__}: {str(error)[:200]})")


def _record(path: object, header: bytes) -> dict[str, object]:
    try:
        outer = json.loads(header.decode("utf-8"))
    except (ValueError, RecursionError):
        _refuse(path, "it is no safetensors file, or damaged in its header")
    texts = outer.get("__metadata__", {}) if isinstance(outer, dict) else {}
    if not isinstance(texts, dict) or not isinstance(texts.get("nadkit"), str):
        _refuse(path, "it holds no nadkit masks", "give a file written by MaskSet.save")
    if set(texts) != {"nadkit"}:
        _refuse(
            path, f"it has metadata that nadkit did not write ({', '.join(sorted(set(texts) - {'nadkit'}))})"
        )
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
    if missing := sorted(_KEYS - set(record)):
        _refuse(path, f"it lacks {', '.join(missing)}")
    if extra := sorted(set(record) - _KEYS):
        _refuse(path, f"it has entries that nadkit did not write ({', '.join(extra)})")
    if canonical(record) != text:
        _refuse(path, "its JSON was rewritten")
    return record


def _contents(path: object, record: dict[str, object], data: bytes) -> Contents:
    import safetensors

    tasks, addresses = (_names(path, record, key) for key in ("tasks", "addresses"))
    units = record["units"]
    if not isinstance(units, list) or len(units) != len(addresses) or not all(type(n) is int for n in units):
        _refuse(path, "its unit counts are not one whole number for every address")
    meta = record["meta"]
    if not isinstance(meta, dict):
        _refuse(path, "its meta is no mapping")
    try:
        stored = dict(safetensors.deserialize(data))
    except safetensors.SafetensorError as error:
        _refuse(path, f"its tensors are truncated or damaged ({error})")
    names = [PREFIX + address for address in addresses]
    if missing := [name for name in names if name not in stored]:
        _refuse(path, f"it lacks the tensor {missing[0]!r}")
    if extra := sorted(set(stored) - set(names)):
        _refuse(path, f"it has a tensor that nadkit did not write ({extra[0]!r})")
    for name, count in zip(names, units, strict=True):
        dtype, shape = stored[name]["dtype"], list(stored[name]["shape"])
        if dtype != "F32" or shape != [len(tasks), count]:
            _refuse(path, f"{name!r} is {dtype} {shape}; expected F32 {[len(tasks), count]}")
    blocks = [bytearray(stored[name]["data"]) for name in names]
    unsealed = {key: value for key, value in record.items() if key != "sha256"}
    if record["sha256"] != digest(unsealed, blocks):
        _refuse(path, "it was altered: its SHA-256 does not match its content", "take an unaltered copy")
    scores = {
        address: torch.frombuffer(block, dtype=torch.float32).reshape(len(tasks), count)
        if count
        else torch.empty(0)
        for address, block, count in zip(addresses, blocks, units, strict=True)
    }
    known = {key: record[key] for key in KNOWN_META if record[key] is not None}
    return Contents(tasks, scores, _history(path, record["history"]), {**meta, **known})


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


def _bytes(rows: Tensor) -> bytes:
    return rows.contiguous().numpy().tobytes()


def _version() -> str:
    try:
        return importlib.metadata.version("nadkit")
    except importlib.metadata.PackageNotFoundError:
        return "uninstalled"


def _refuse(
    path: object, reason: str, advice: str = "take an undamaged copy, or learn the masks again"
) -> NoReturn:
    raise MaskFileError(
        f"{os.fspath(path) if isinstance(path, str | os.PathLike) else path!r} is refused: {reason}; {advice}"
    )
