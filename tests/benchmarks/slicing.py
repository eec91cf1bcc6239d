"""Write docs/slicing.md: what one-class detectors cut out of the bundled networks cost, and their equality.

`python tests/benchmarks/slicing.py` measures all bundled networks; with names, only those, and leaves the
others' rows as they stand in docs/slicing.csv. A quarter of a minute to one minute a network and share.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import pandas as pd
import torch

import nadkit as nk
from nadkit.errors import LayerError
from nadkit.learn.bundle import pictures
from nadkit.networks import BUNDLED, gated_logits, log_odds
from nadkit.slicing import report
from nadkit.slicing.costs import latencies

DOCS = Path(__file__).parents[2] / "docs"
SHARES = (0.5, 0.3)
ROUNDS = 31
KEYS = ["network", "kept_share", "task", "quantity", "batch"]
COLUMNS = [*KEYS, "value", "whole", "ratio"]


def measure(name: str, share: float) -> pd.DataFrame:
    """Return what every task's detector costs, and how far slices are from the gated network."""
    network, masks, source = nk.load_network(name), nk.load_masks(name, kept_share=share), name.split("-")[1]
    inputs = network.prepare(nk.load_images(source, split="test", per_class=5).pixels)
    _, held_back = pictures(source)
    parts = []
    for task in masks.tasks:
        try:
            full = nk.export(network, masks, task)
        except LayerError:  # a layer of which the task keeps nothing
            parts.append(pd.DataFrame([{"quantity": "refused", "batch": 1, "value": 1.0, "task": task}]))
            continue
        detector = nk.export(network, masks, task, head="binary", images=held_back.take(50))
        gates = {address: gate[None] for address, gate in masks.gates(task).items()}
        wanted = gated_logits(network, inputs, gates)[0]
        fit = detector.meta["slicing"]["calibration"]
        odds = log_odds(wanted)[:, network.class_index(task)] * fit["slope"] + fit["intercept"]
        with torch.no_grad():
            differences = {
                "difference": float((full(inputs) - wanted).abs().max() / wanted.abs().max()),
                "difference_detector": float((detector(inputs) - odds).abs().max() / odds.abs().max()),
            }
        rows = nk.cost(detector, inputs, whole=network, rounds=1)
        rows = rows[rows["quantity"] != "latency"]
        facts = [
            {"quantity": quantity, "batch": 1, "value": value} for quantity, value in differences.items()
        ]
        facts.append({"quantity": "gated_units", "batch": 1, "value": float(report(full)["gated"].sum())})
        for batch in (1, 64):
            some = inputs[torch.arange(batch) % len(inputs)].contiguous(memory_format=torch.channels_last)
            with torch.no_grad():
                # By the process's own clock: on a shared machine, one that stands still counts other work.
                taken = latencies(
                    {"value": detector, "whole": network.model}, some, ROUNDS, time.process_time
                )
            ratio = taken["value"] / taken["whole"]
            facts.append({"quantity": "latency", "batch": batch, **taken, "ratio": ratio})
        parts.append(pd.concat([rows, pd.DataFrame(facts)]).assign(task=task))
    three = list(masks.tasks[:3])
    union = {address: rows.amax(0, keepdim=True) for address, rows in masks[three].gates().items()}
    wanted = gated_logits(network, inputs, union)[0]
    with torch.no_grad():
        off = float((nk.export(network, masks, three)(inputs) - wanted).abs().max() / wanted.abs().max())
    parts.append(
        pd.DataFrame([{"quantity": "difference", "batch": 1, "value": off, "task": "+".join(three)}])
    )
    return pd.concat(parts).assign(network=name, kept_share=share)[COLUMNS]


def _ratio(rows: pd.DataFrame, quantity: str, batch: int = 1) -> float:
    return float(rows[(rows["quantity"] == quantity) & (rows["batch"] == batch)]["ratio"].mean())


def _speed(rows: pd.DataFrame, batch: int) -> pd.Series:
    return 1 / rows[(rows["quantity"] == "latency") & (rows["batch"] == batch)]["ratio"]


def line(rows: pd.DataFrame) -> str:
    """Return one row of the page: a network at one kept share, the mean over its tasks."""
    name, share = rows["network"].iloc[0], rows["kept_share"].iloc[0]
    off = rows[rows["quantity"].str.startswith("difference")]["value"].max()
    left = int(rows[rows["quantity"] == "gated_units"]["value"].sum())
    ratios = " | ".join(
        f"{_ratio(rows, q):.2f}" for q in ("parameters", "multiply_adds", "activation_memory")
    )
    speeds = []
    for batch in (1, 64):
        speed = _speed(rows, batch)
        ratio = _ratio(rows, "latency", batch)
        speeds.append(f"{ratio:.2f} | {speed.mean():.2f} [{speed.min():.2f}, {speed.max():.2f}]")
    return f"| {name} | {share} | {off:.1e} | {left} | {ratios} | {' | '.join(speeds)} |"


def refused(table: pd.DataFrame) -> list[str]:
    """Return a sentence about tasks that are not exported, and an empty line; nothing if there are none."""
    rows = table[table["quantity"] == "refused"]
    named = ", ".join(f"{r.task} of {r.network} at {r.kept_share}" for r in rows.itertuples())
    return [f"Not exported, as a layer of theirs is empty: {named}.", ""] if named else []


def page(table: pd.DataFrame) -> str:
    """Return the page as Markdown."""
    groups = [rows for _, rows in table.groupby(["network", "kept_share"], sort=False)]
    lines = [
        "# Exported sub-networks",
        "",
        f"Made by `python tests/benchmarks/slicing.py` (torch {torch.__version__}, "
        f"{torch.get_num_threads()} thread). Of every bundled network, the "
        'one-class detectors of all its tasks (one-vs-rest masks of seed 0, `nk.export(..., head="binary")`) '
        "against the whole network.",
        "",
        "* difference: the largest of the slices' logits, those of a union of three tasks, and the "
        "detectors' log-odds from the gated network's, over test pictures, relative to the largest of these; "
        "in float32.",
        "* gated: removed units that could not be cut out, over all tasks.",
        "* parameters, multiply-adds, activation memory, latency: mean over tasks of detector / whole, "
        f"below 1 is cheaper. Latencies are medians of {ROUNDS} runs in turns with the whole network, of the "
        "process's own time, as other work shares the machine.",
        "* speed-up: mean over the detectors of whole / detector, with the slowest and the fastest.",
        "",
        "The masks are of block outputs. The convolutions inside a residual block or a cell are no units of "
        "theirs, so that they stay as wide as they were; plain and dense networks have a unit for every "
        "channel and shrink most. At batch 1 these small networks spend their time on calling operations, of "
        "which a slice has as many: there it pays little or not at all.",
        "",
        "| network | kept share | difference | gated | parameters | multiply-adds | activation memory "
        "| latency, batch 1 | speed-up, batch 1 | latency, batch 64 | speed-up, batch 64 |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *[line(rows) for rows in groups],
        "",
        *refused(table),
        "## The mean detector",
        "",
    ]
    for share in SHARES:
        here = table[table["kept_share"] == share]
        if here.empty:
            continue
        speeds = {batch: _speed(here, batch).mean() for batch in (1, 64)}
        slower = [
            f"{rows['network'].iloc[0]} (×{_ratio(rows, 'latency', batch):.2f} at batch {batch})"
            for rows in groups
            if rows["kept_share"].iloc[0] == share
            for batch in (1, 64)
            if round(_ratio(rows, "latency", batch), 2) >= 1
        ]
        lines.append(
            f"* At kept share {share} the mean speed-up over all networks and tasks is {speeds[1]:.2f} at "
            f"batch 1 and {speeds[64]:.2f} at batch 64. "
            + (f"Slicing does not pay in time on {', '.join(slower)}." if slower else "It pays everywhere.")
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, merge with what stands, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(BUNDLED))
    options = parser.parse_args()
    stored = DOCS / "slicing.csv"
    table = pd.read_csv(stored) if stored.exists() else pd.DataFrame(columns=COLUMNS)
    for name in options.names:
        new = pd.concat([measure(name, share) for share in SHARES])
        table = pd.concat([part for part in (table[table["network"] != name], new) if len(part)])
        order = {one: place for place, one in enumerate(BUNDLED)}
        table = table.sort_values("network", kind="stable", key=lambda column: column.map(order))
        table.to_csv(stored, index=False, float_format="%.6g")
        (DOCS / "slicing.md").write_text(page(table), encoding="utf-8")
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
