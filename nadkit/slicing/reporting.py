"""What became of every layer's units: cut out, or left as a gate and why."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from nadkit.errors import NadkitError
from nadkit.slicing.build import Builder

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["layer", "units", "kept", "sliced", "gated", "why"]


def report(module: nn.Module) -> pd.DataFrame:
    """Return one row for each layer of an exported module: what was cut out, what stays as a gate and why.

    Parameters
    ----------
    module : what `nadkit.export` returned

    Returns
    -------
    pandas.DataFrame
        layer; units (of the whole network); kept; sliced: removed units that are neither computed, unless
        something else reads them before the gate, nor read; gated: removed units that are still computed, or
        stand as a constant in what an operation reads; why: the operations for which they do, empty if there
        are none. kept + sliced + gated are the units.

    Raises
    ------
    NadkitError
        The module was not exported by nadkit.

    Examples
    --------
    >>> import nadkit as nk
    >>> small = nk.export(nk.load_network("vgg-fashion"), nk.load_masks("vgg-fashion"), "bag")
    >>> table = report(small)
    >>> list(table.columns), int(table["gated"].sum())
    (['layer', 'units', 'kept', 'sliced', 'gated', 'why'], 0)
    """
    import pandas as pd

    record = record_of(module)
    return pd.DataFrame(record["layers"], columns=COLUMNS)


def record_of(module: object) -> dict[str, Any]:
    """Return how an exported module was made, JSON data.

    Raises
    ------
    NadkitError
        The module was not exported by nadkit.
    """
    meta = getattr(module, "meta", None)
    if not isinstance(module, fx.GraphModule) or not isinstance(meta, dict) or "slicing" not in meta:
        raise NadkitError(
            f"this {type(module).__name__} was not exported by nadkit; "
            "small = nk.export(network, masks, task) is"
        )
    record: dict[str, Any] = meta["slicing"]
    return record


def layer_rows(builder: Builder, prefix: str = "") -> list[dict[str, object]]:
    """Return the rows of the report, once the module is built.

    Parameters
    ----------
    builder : that built it
    prefix : put before every reason
    """
    flow = builder.flow
    left: dict[fx.Node, dict[str, torch.Tensor]] = {gate: {} for gate in flow.trace.gates}

    def note(gate: fx.Node, reason: str, units: torch.Tensor) -> None:
        before = left[gate].get(reason, torch.zeros_like(units))
        left[gate][reason] = before | units

    for reader, node, mask in builder.restored:
        for gate, units in flow.origins(node, mask):
            note(gate, f"read whole by {_told(builder, reader)}", units)
    for gate, (_, axis, values) in flow.trace.gates.items():
        if gate not in flow.live:
            continue
        (source,) = (arg for arg in gate.args if isinstance(arg, fx.Node))
        for unit in (values == 0).nonzero().flatten().tolist():
            one = torch.zeros(len(values), dtype=torch.bool)
            one[unit] = True
            same = flow.states[source].axis == axis
            for spender in flow.spent(source, one if same else None):
                note(gate, f"computed whole by {_told(builder, spender)}", one)
    rows = []
    for gate, (address, _, values) in flow.trace.gates.items():
        reasons = left[gate]
        units = torch.stack(list(reasons.values())).any(0) if reasons else torch.zeros(0, dtype=torch.bool)
        kept, gated = int(values.sum()), int(units.sum())
        rows.append(
            {
                "layer": address,
                "units": len(values),
                "kept": kept,
                "sliced": len(values) - kept - gated,
                "gated": gated,
                "why": prefix + "; ".join(reasons) if reasons else "",
            }
        )
    return rows


def _told(builder: Builder, node: fx.Node) -> str:
    if node.op == "placeholder":
        return "the input"
    if node.op == "output":
        return "the output"
    source = node.args[0] if node.target is operator.getitem else None
    if isinstance(source, fx.Node) and builder.flow.shape(source) is None:
        return _told(builder, source)  # one of several tensors that an operation gives
    if node.op == "call_module":
        module = builder.modules[str(node.target)]
        return f"{type(module).__name__} {str(node.target).removeprefix('model.')!r}"
    name = node.target if node.op == "call_method" else getattr(node.target, "__name__", str(node.target))
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = str(stack[-1][0]).removeprefix("model").removeprefix(".") if stack else ""
    return f"{name}()" + (f" in {path!r}" if path else "")
