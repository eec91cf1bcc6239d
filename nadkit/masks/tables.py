"""Masks as tidy tables, one row one fact, and as a table for the eye."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nadkit.masks.overlaps import overlap

if TYPE_CHECKING:
    import pandas as pd


def score_table(
    tasks: Sequence[str], scores: Mapping[str, Tensor], kept: Mapping[str, Tensor]
) -> pd.DataFrame:
    """Return one row for every task and unit: task, layer, index, score, kept.

    Examples
    --------
    >>> scores = {"conv": torch.tensor([[0.75]])}
    >>> score_table(["shirt"], scores, {"conv": scores["conv"] > 0.5}).values.tolist()
    [['shirt', 'conv', 0, 0.75, True]]
    """
    import numpy as np
    import pandas as pd

    counts = [rows.shape[1] for rows in scores.values()]
    layers = np.repeat(np.array(list(scores), dtype=object), counts)
    return pd.DataFrame(
        {
            "task": np.repeat(np.array(tasks, dtype=object), sum(counts)),
            "layer": np.tile(layers, len(tasks)),
            "index": np.tile(np.concatenate([np.arange(count) for count in counts]), len(tasks)),
            "score": torch.cat(list(scores.values()), dim=1).flatten().numpy(),
            "kept": torch.cat(list(kept.values()), dim=1).flatten().numpy(),
        }
    )


def overlap_table(
    tasks: Sequence[str],
    kept: Mapping[str, Tensor],
    others: Sequence[str] | None = None,
    other_kept: Mapping[str, Tensor] | None = None,
) -> pd.DataFrame:
    """Return one row for every layer and pair of tasks; with others given, for every task of both.

    Examples
    --------
    >>> kept = {"conv": torch.tensor([[True, False], [False, True]])}
    >>> overlap_table(["shirt", "sneaker"], kept)[["task", "other_task", "phi"]].values.tolist()
    [['shirt', 'sneaker', -1.0]]
    """
    import numpy as np
    import pandas as pd

    there = tasks if others is None else others
    if other_kept is None:
        first, second = np.triu_indices(len(tasks), 1)
    else:
        first, second = np.indices((len(tasks), len(there))).reshape(2, -1)
    tables = []
    for address, rows in kept.items():
        found = overlap(rows, rows if other_kept is None else other_kept[address])
        values = {name: value.numpy()[first, second] for name, value in found._asdict().items()}
        tables.append(
            pd.DataFrame(
                {
                    "task": np.array(tasks, dtype=object)[first],
                    "other_task": np.array(there, dtype=object)[second],
                    "layer": address,
                    "units": rows.shape[1],
                    **{name: values[name].astype("int64") for name in ("kept", "other_kept", "shared")},
                    **{name: values[name] for name in ("jaccard", "phi", "z", "defined")},
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def kept_html(caption: str, tasks: Sequence[str], kept: Mapping[str, Tensor]) -> str:
    """Return an HTML table of how many units every task keeps in every layer, of the first twelve tasks.

    Examples
    --------
    >>> kept_html("masks", ["shirt"], {"conv": torch.tensor([[True, True]])}).count("<td>2</td>")
    4
    """
    counts = {address: rows.sum(1).tolist() for address, rows in kept.items()}
    units = {address: rows.shape[1] for address, rows in kept.items()}
    totals = [sum(column) for column in zip(*counts.values(), strict=True)]
    lines = [(address, str(units[address]), *map(str, counts[address])) for address in kept]
    lines.append(("all", str(sum(units.values())), *map(str, totals)))
    parts = [_line("th", ("layer", "units", *tasks)), *(_line("td", line) for line in lines)]
    return f"<table><caption>{html.escape(caption)}</caption>{''.join(parts)}</table>"


def _line(tag: str, cells: Sequence[str]) -> str:
    shown = [*cells[:14], "…"] if len(cells) > 14 else cells
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in shown) + "</tr>"
