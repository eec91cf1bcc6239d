"""The mask file: score tensors and one sealed JSON text in a single .safetensors file, checked when read."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections import Counter
from collections.abc import Mapping
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import torch
from torch import Tensor

from nadkit.errors import MaskFileError
from nadkit.masks.encoding import FORMAT, KEYS, KIND, KNOWN_META, PREFIX, canonical, digest

if TYPE_CHECKING:
    import pandas as pd

# Loading takes at most twice the file's size and 10 MB. The scores take all of twice their own size (as read,
# and as a `MaskSet` copies them), so that reading the header has to do with twice its length and this; the
# rest is left to the allocator.
_SPARE = 8_000_000
_WEIGHTS = (
    ("{", 208),
    ("[", 88),
    (",", 40),
    (":", 120),
    ('"', 32),
)  # bytes of what a letter of JSON may start
_PER_LAYER, _PER_COLUMN = 3_000, 3_000  # two tensors with their names; what pandas keeps of a column


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
            return _contents(path, file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        _refuse(path, f"it cannot be read ({error})", "check the path")
    except MemoryError:
        _refuse(path, "it takes more memory than there is")
    # A RecursionError is a RuntimeError, and so is torch's when memory is short.
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError, RuntimeError) as error:
        _refuse(path, f"it is damaged ({type(error).__name__}: {str(error)[:200]})")


def check(path: object, data: bytes) -> None:
    """Raise, before masks are written, where their file could not be read back.

    Raises
    ------
    MaskFileError
        The meta or the history are so long that reading them would take more memory than a file may cost.
    """
    try:
        _contents(path, BytesIO(data), len(data))
    except MaskFileError as error:
        reason = str(error).partition(" is refused: ")[2].rpartition("; ")[0]
        raise MaskFileError(
            f"masks cannot be saved to {str(path)!r}, as they could not be loaded again: {reason}; put fewer "
            "tasks in a file, masks[tasks], or less into meta and history"
        ) from None


def _contents(path: object, file: BufferedIOBase, size: int) -> Contents:
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > size - 8:
        _refuse(path, "it is no safetensors file, or truncated")
    table, text = _header(path, file, length)
    record = _record(path, text)
    del text
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
    _afford(path, length, _PER_LAYER * len(addresses))
    names = [PREFIX + address for address in addresses]
    shapes = {name: [len(tasks), count] for name, count in zip(names, units, strict=True)}
    places = _places(path, table, shapes)
    del table
    scores = _tensors(path, file, 8 + length, shapes, places)
    unsealed = {key: value for key, value in record.items() if key != "sha256"}
    blocks = [rows.numpy().data.cast("B") for rows in scores.values()]
    if record["sha256"] != digest(unsealed, blocks):
        _refuse(path, "it was altered: its SHA-256 does not match its content", "take an unaltered copy")
    known = {key: record[key] for key in KNOWN_META if record[key] is not None}
    named = dict(zip(addresses, scores.values(), strict=True))
    return Contents(tasks, named, _history(path, record["history"], length), {**meta, **known})


def _header(path: object, file: BufferedIOBase, length: int) -> tuple[dict[str, object], str]:
    """The table of tensors, and the text of the record; of a header too costly to parse neither."""
    _afford(path, length, 2 * length)
    header = file.read(length)
    # Text with one wide letter takes four bytes for every letter.
    width = 1 if header.isascii() else 4
    structure = sum(weight * header.count(letter.encode()) for letter, weight in _WEIGHTS)
    _afford(path, length, max(1 + width, 2 * width) * length + structure)
    try:
        text = header.decode("utf-8")
        del header
        outer = json.loads(text)
        del text
    except (ValueError, RecursionError):
        _refuse(path, "it is no safetensors file, or damaged in its header")
    texts = outer.pop("__metadata__", {}) if isinstance(outer, dict) else {}
    if not isinstance(texts, dict) or not isinstance(texts.get("nadkit"), str):
        _refuse(path, "it holds no nadkit masks", "give a file written by MaskSet.save")
    if extra := sorted(set(texts) - {"nadkit"}):
        _refuse(path, f"it has metadata that nadkit did not write ({', '.join(extra)})")
    text = texts["nadkit"]
    if not text.isascii():
        _refuse(path, "its JSON was rewritten")
    # Counted again, since the outer text can hide a bracket as an escape.
    structure = sum(weight * text.count(letter) for letter, weight in _WEIGHTS)
    _afford(path, length, max(2 * len(text) + structure + 16 * text.count(","), 2 * structure))
    return outer, text


def _afford(path: object, length: int, cost: int) -> None:
    if cost > 2 * length + _SPARE:
        _refuse(path, f"its header of {length} bytes would take {cost} bytes of memory to read")


def _places(
    path: object, table: dict[str, object], shapes: Mapping[str, list[int]]
) -> list[tuple[int, int, str]]:
    """Where each tensor begins and ends, in the order of the file: from 0, without gaps."""
    if missing := [name for name in shapes if name not in table]:
        _refuse(path, f"it lacks the tensor {missing[0]!r}")
    if extra := sorted(set(table) - set(shapes)):
        _refuse(path, f"it has a tensor that nadkit did not write ({extra[0]!r})")
    places = []
    for name, expected in shapes.items():
        entry = table[name]
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            _refuse(path, f"its tensors are damaged (the entry of {name!r})")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if dtype != "F32" or shape != expected or not _whole(shape):
            _refuse(path, f"{name!r} is {dtype} {shape}; expected F32 {expected}")
        if not isinstance(offsets, list) or len(offsets) != 2 or not _whole(offsets):
            _refuse(path, f"its tensors are damaged (the offsets of {name!r})")
        places.append((offsets[0], offsets[1], name))
    places.sort()
    at = 0
    for begin, end, name in places:
        if begin != at or end - begin != 4 * shapes[name][0] * shapes[name][1]:
            _refuse(path, f"its tensors are truncated or damaged (the offsets of {name!r})")
        at = end
    return places


def _whole(values: list[object]) -> bool:
    return all(type(value) is int for value in values)


def _tensors(
    path: object,
    file: BufferedIOBase,
    start: int,
    shapes: Mapping[str, list[int]],
    places: list[tuple[int, int, str]],
) -> dict[str, Tensor]:
    """The tensors, in the order of the shapes, each read into its own memory and nowhere else before."""
    found: dict[str, Tensor] = {}
    file.seek(start)
    for begin, end, name in places:
        rows = torch.empty(shapes[name], dtype=torch.float32, device="cpu")
        if file.readinto(rows.numpy().data.cast("B")) != end - begin:
            _refuse(path, "its tensors are truncated")
        found[name] = rows
    return {name: found[name] for name in shapes}


def _record(path: object, text: str) -> dict[str, object]:
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
        double = Counter(names).most_common(1)[0][0]
        _refuse(path, f"its {key} name {double!r} twice")
    return tuple(names)


def _history(path: object, stored: object, length: int) -> pd.DataFrame | None:
    if stored is None:
        return None
    import pandas as pd

    columns = stored.get("columns") if isinstance(stored, dict) else None
    rows = stored.get("rows") if isinstance(stored, dict) else None
    if not isinstance(columns, list) or not isinstance(rows, list):
        _refuse(path, "its history is no table")
    # Before pandas, which would fill short rows up to the longest.
    if not all(isinstance(row, list) and len(row) == len(columns) for row in rows):
        _refuse(path, f"its history is damaged: not every row has {len(columns)} cells")
    _afford(path, length, _PER_COLUMN * len(columns))
    return pd.DataFrame(rows, columns=columns)


def _refuse(
    path: object, reason: str, advice: str = "take an undamaged copy, or learn them again"
) -> NoReturn:
    if len(reason) > 1_000:  # names in a hostile file can be as long as the file
        reason = f"{reason[:1_000]}…"
    raise MaskFileError(f"mask file {str(path)!r} is refused: {reason}; {advice}")
