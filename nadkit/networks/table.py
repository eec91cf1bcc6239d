"""`nk.layers`: every place of a model as a table, with what can be tapped and why the rest cannot."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nadkit.errors import NadkitError
from nadkit.networks.automatic import pick_automatically
from nadkit.networks.checks import check_whole
from nadkit.networks.network import Network
from nadkit.networks.recording import Call, kind, record_calls
from nadkit.networks.unchanged import unchanged
from nadkit.taps import Layer, frozen

if TYPE_CHECKING:
    import pandas as pd


@cache
def _printing_table() -> type[pd.DataFrame]:
    import pandas as pd

    class LayerTable(pd.DataFrame):
        """A table of places that prints as a tree; in a notebook it is shown as a table."""

        def __str__(self) -> str:
            return _tree(self.to_dict("records"))

    return LayerTable


def layers(network: nn.Module | Network, example: Tensor | None = None) -> pd.DataFrame:
    """Return one row for every place of a model: what it gives, and whether and how it can be tapped.

    The model runs once on the example, frozen, and is left as it was. Printed, the table is a tree.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten())
    >>> table = layers(model, torch.zeros(1, 1, 8, 8))
    >>> print(table)
      0  Conv2d  (1, 4, 6, 6)  4 units on axis 1, feeds a normalisation
      1  BatchNorm2d  (1, 4, 6, 6)  4 units on axis 1, overwritten by 2
    * 2  ReLU  (1, 4, 6, 6)  4 units on axis 1
      3  Flatten  (1, 144)  144 units on axis 1, its units are the classes
    >>> list(table[table["recommended"]]["address"])
    ['2']

    Parameters
    ----------
    network
        A network, or any module.
    example
        What the module takes, samples on axis 0; of a network, pixels (N, C, H, W), by default one black
        picture.

    Returns
    -------
    DataFrame
        `address`; `type` of the module, or `function`; `calls` of it in the pass, 0 if it never ran;
        `output` and `shape`; `units` on `axis` of a record, missing where it cannot be tapped; `in_place`,
        who writes into the output; `feeds_norm`, a normalisation reads it, so that a gate of 0 is not
        absence; `order` of completion from 0; `tappable`; `recommended`, what `layers="auto"` takes; the
        `reason` why a place cannot be tapped, or why it is, or is not, recommended: in place of which block,
        or because its units are the classes.

    Raises
    ------
    LayerError
        A compiled, scripted or replicated model.
    NadkitError
        No module, or no example; weights without size or values, of inference mode, or on several devices.
    """
    model = network.model if isinstance(network, Network) else network
    if isinstance(network, Network):
        example = network.prepare(torch.zeros(1, *network.input_shape) if example is None else example)
    if not isinstance(model, nn.Module) or not isinstance(example, Tensor):
        got = f"a {type(model).__name__} and a {type(example).__name__}"
        raise NadkitError(f"layers are listed of a torch.nn.Module and a tensor that it takes, got {got}")
    check_whole(model)
    with frozen(model), torch.no_grad(), unchanged(model):
        calls, _, dead = record_calls(model, example.clone())
    times = Counter(call.path for call in calls)
    chosen = pick_automatically(model, calls)
    rows = [_row(call, order, times, chosen.get(call.address)) for order, call in enumerate(calls)]
    types = {path: type(module).__name__ for path, module in model.named_modules()}
    rows += [
        {"address": path, "type": types[path], "calls": 0, "feeds_norm": False, "tappable": False,
         "reason": reason, "recommended": False}
        for path, reason in dead.items()
    ]  # fmt: skip
    columns = [
        "address", "type", "calls", "output", "shape", "units", "axis", "in_place", "feeds_norm", "order",
        "tappable", "reason", "recommended",
    ]  # fmt: skip
    table = _printing_table()(rows, columns=columns)
    for name in ("units", "axis", "order"):
        table[name] = table[name].astype("Int64")
    for name in ("output", "in_place", "reason"):
        table[name] = table[name].fillna("")
    return table


def _above(address: str) -> list[str]:
    """Return the addresses on the way to one, and itself."""
    parts = re.split(r"(?=[.:])", address)
    return ["".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _row(call: Call, order: int, times: Mapping[str, int], recommended: str | None) -> dict[str, Any]:
    layer = call.layer()
    reason = "its units are the classes" if call.answers else recommended or ""
    return {
        "address": call.address,
        "type": "function" if call.module is None else type(call.module).__name__,
        "calls": times[call.path],
        "output": "tensor" if isinstance(call.output, Tensor) else kind(call.output).removeprefix("a "),
        "shape": tuple(call.output.shape) if isinstance(call.output, Tensor) else None,
        "units": layer.units if isinstance(layer, Layer) else None,
        "axis": layer.axis if isinstance(layer, Layer) else None,
        "in_place": call.in_place,
        "feeds_norm": call.feeds_norm,
        "order": order,
        "tappable": isinstance(layer, Layer),
        "reason": reason if isinstance(layer, Layer) else layer,
        "recommended": recommended is not None,
    }


def _tree(rows: Sequence[Mapping[Any, Any]]) -> str:
    """Return a place a line, each under what it lies in, those recommended with a star."""
    order = [row["order"] if row["calls"] else len(rows) for row in rows]
    first: dict[str, int] = {}
    for row, at in zip(rows, order, strict=True):
        for part in _above(row["address"]):
            first[part] = min(at, first.get(part, at))
    places = [[first[part] for part in _above(row["address"])] for row in rows]
    return "\n".join(_line(rows[at]) for at in sorted(range(len(rows)), key=lambda at: places[at]))


def _line(row: Mapping[Any, Any]) -> str:
    path = row["address"]
    said = (
        [f"{row['units']} units on axis {row['axis']}"]
        if row["tappable"]
        else [f"not tappable: {row['reason']}"]
    )
    said += [row["reason"]] if row["tappable"] and row["reason"] else []
    said += ["feeds a normalisation"] * row["feeds_norm"]
    said += [f"overwritten by {row['in_place']}"] if row["in_place"] else []
    shape = f"  {row['shape']}" if isinstance(row["shape"], tuple) else ""
    mark = "*" if row["recommended"] else " "
    return f"{mark} {'  ' * len(_above(path)[1:])}{path}  {row['type']}{shape}  {', '.join(said)}"
