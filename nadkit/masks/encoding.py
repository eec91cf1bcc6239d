"""From masks to the bytes of a mask file: plain JSON, a summary of the history, and the seal over all."""

from __future__ import annotations

import hashlib
import json
import numbers
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nadkit import __version__
from nadkit.errors import NadkitError

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
KIND = "masks"
# Prefixed, so that a layer may have any name, even the `__metadata__` that safetensors reserves.
PREFIX = "scores/"
KNOWN_META = (
    "network", "weights_id", "class_names", "objective", "settings", "seed", "threshold", "versions",
)  # fmt: skip
KEYS = {
    "format", "kind", "tasks", "addresses", "units", "written_by", "history", "meta", "sha256", *KNOWN_META,
}  # fmt: skip
_DEPTH = 32
_HISTORY_STEPS = 11
_HISTORY_ROWS = 2_000


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
        The value is something else: a tensor, NaN, an integer beyond 64 bits, a mapping with keys that are
        no text.
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
        return plain_mapping(value, where, depth + 1)
    if isinstance(value, list | tuple):
        return [plain(inner, f"{where}[{index}]", depth + 1) for index, inner in enumerate(value)]
    raise NadkitError(
        f"{where} is a {type(value).__name__}, which a mask file cannot hold; "
        "store numbers, text, lists and mappings (a tensor or array as .tolist())"
    )


def plain_mapping(value: Mapping[str, object], where: str = "meta", depth: int = 0) -> dict[str, object]:
    """Return a mapping as a dictionary of plain JSON data, as `plain` does with its values.

    Examples
    --------
    >>> plain_mapping({"shares": (0.3, 0.5)})
    {'shares': [0.3, 0.5]}

    Raises
    ------
    NadkitError
        A key is no text, or a value is no JSON data.
    """
    for key in value:
        if not isinstance(key, str):
            raise NadkitError(f"{where} has the key {key!r}; a mask file's keys are text, write str({key!r})")
    return {str(key): plain(inner, f"{where}[{key!r}]", depth) for key, inner in value.items()}


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
        "written_by": {"nadkit": __version__, "torch": str(torch.__version__)},
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


def digest(record: Mapping[str, object], blocks: Sequence[bytes | memoryview]) -> str:
    """Return the SHA-256 over a record's canonical JSON, a zero byte, and its tensors' bytes in order.

    Examples
    --------
    >>> digest({"format": 1}, [b"abc"])[:8]
    '34ccdb3b'
    """
    total = hashlib.sha256(canonical(record).encode("ascii"))
    total.update(b"\0")
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


def _bytes(rows: Tensor) -> bytes:
    # By bytes, since NumPy has no type for some of torch's.
    return rows.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
