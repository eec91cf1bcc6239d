"""Write docs/methods.md: how masks of every method fare at equal size, on the bundled networks.

`python tests/benchmarks/methods.py` measures all bundled networks; with names, only those, and leaves the
others' rows as they stand in docs/methods.csv; with `--only METHOD`, only that method's rows. Six minutes
a network on a quiet core.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pandas as pd
from evidence import cell, masks_of

import nadkit as nk
from nadkit.errors import NadkitError
from nadkit.heatmaps import DESCRIPTIONS, METHODS, ranked_masks
from nadkit.learn.bundle import pictures
from nadkit.networks import BUNDLED

DOCS = Path(__file__).parents[2] / "docs"
SHARE, DOSE, ALONE = 0.3, "5 %", 50
OURS = "one-vs-rest"
METRICS = ("balanced_accuracy_calibrated", "auroc", "recomposed_accuracy")
LOSSES = ("drop_own", "drop_others", "selectivity")
COLUMNS = ["network", "method", "condition", "dose", "metric", "value", "low", "high", "n", "interval"]


def every_mask(
    name: str, network: nk.Network, only: str | None
) -> Iterator[tuple[str, nk.MaskSet | list[nk.MaskSet]]]:
    """Yield the masks of all methods, as many units each; of the ranked ones also in every layer."""
    ours = masks_of(name, SHARE)
    train, _ = pictures(name.split("-")[1])
    for method in [only] if only else [OURS, *METHODS, "routing", "official"]:
        if method == OURS:
            yield method, ours
        elif method in METHODS:
            yield method, ranked_masks(network, train, method=method, like=ours[0], per_class=50)
        elif method == "routing":
            yield (
                method,
                nk.learn_masks(
                    network, train, objective=method, kept_share=SHARE, progress=sys.stderr.isatty()
                ),
            )
        else:
            with suppress(NadkitError):
                yield method, nk.load_masks(name, objective=method, kept_share=SHARE)


def measure(name: str, only: str | None) -> pd.DataFrame:
    """Return the mean rows of every method on one network."""
    network, source = nk.load_network(name), name.split("-")[1]
    test, (_, held_back) = nk.load_images(source, split="test"), pictures(source)
    parts = []
    for method, masks in every_mask(name, network, only):
        alone = nk.whether(
            network, masks, test, calibrate_on=held_back, controls=None, draws=0, per_class=ALONE,
            parts="sufficiency",
        )  # fmt: skip
        alone = alone[(alone["condition"] == "kept") & alone["metric"].isin(METRICS)]
        lost = nk.whether(network, masks, test, controls=None, draws=10, per_class=20, parts="necessity")
        lost = lost[lost["dose"].notna() & lost["condition"].isin(["removed", "removed_random"])]
        rows = pd.concat([alone, lost])
        parts.append(rows[rows["task"].isin(["mean", "all"])].assign(method=method))
    return pd.concat(parts)[COLUMNS]


def better(rows: pd.DataFrame) -> list[str]:
    """Return the methods whose interval lies wholly above that of one-vs-rest."""
    ours = rows[rows["method"] == OURS]["high"].iloc[0]
    return sorted(rows[rows["low"] > ours]["method"])


def _chosen(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    rows = table[table["metric"] == metric]
    return rows[(rows["dose"] == DOSE) & (rows["condition"] == "removed")] if metric in LOSSES else rows


def verdict(table: pd.DataFrame, metric: str) -> str:
    """Return in words on how many networks another method is better, beyond both intervals."""
    found = {
        name: better(_chosen(table[table["network"] == name], metric))
        for name in BUNDLED
        if name in set(table["network"])
    }
    worse = "; ".join(f"{name}: {', '.join(methods)}" for name, methods in found.items() if methods)
    if not worse:
        return f"* {metric}: no method's interval lies above that of {OURS}, on any of {len(found)} networks."
    count = sum(map(bool, found.values()))
    return f"* {metric}: on {count} of {len(found)} networks intervals lie above that of {OURS} ({worse})."


def page(table: pd.DataFrame) -> str:
    """Return the page as Markdown."""
    lines = [
        "# Methods at equal size",
        "",
        f"Made by `python tests/benchmarks/methods.py`: masks of every method at kept share {SHARE}, mean "
        "over tasks, 95 % intervals. The ranked ones (activation to other-task) keep as many units of each "
        f"layer as {OURS} does; routing and official chose their own layers. {OURS} has three seeds, and its "
        f"intervals vary with them. What the kept units do alone is measured on {ALONE} test pictures a "
        "class and calibrated on as many that no mask has seen. `drop_own` is what a task's log-odds lose "
        f"on its own pictures when its {DOSE} most important units are removed from the whole network, "
        "`drop_others` what the other tasks' lose on theirs, and `selectivity` how far `drop_own` lies above "
        "that of as many random units of the same layers, in spreads of those (10 draws). All doses: "
        "`methods.csv`.",
        "",
        *[f"* {method}: {DESCRIPTIONS[method]}." for method in METHODS],
        "* routing: gates from one, Kullback-Leibler divergence to the network's own answer and an L1 term.",
        "* official: the published recipe, β bisected for the same share.",
        "",
        "## Is another method above one-vs-rest?",
        "",
        *[verdict(table, metric) for metric in (*METRICS, "drop_own", "selectivity")],
    ]
    for name in [name for name in BUNDLED if name in set(table["network"])]:
        here = table[table["network"] == name]
        lines += ["", f"## {name}", "", f"| method | {' | '.join((*METRICS, *LOSSES))} |"]
        lines.append("|---|" + "---|" * (len(METRICS) + len(LOSSES)))
        for method in dict.fromkeys(here["method"]):
            rows = here[here["method"] == method]
            cells = [cell(_chosen(rows, metric), metric) for metric in (*METRICS, *LOSSES)]
            lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, merge with what stands, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(BUNDLED))
    parser.add_argument("--only", choices=[OURS, *METHODS, "routing", "official"])
    options = parser.parse_args()
    stored = DOCS / "methods.csv"
    table = pd.read_csv(stored) if stored.exists() else pd.DataFrame(columns=COLUMNS)
    for name in options.names:
        new = measure(name, options.only)
        replaced = (table["network"] == name) & table["method"].isin(new["method"])
        table = pd.concat([table[~replaced], new.round(4)])
        order = [OURS, *METHODS, "routing", "official"]
        keys = {"network": list(BUNDLED), "method": order}
        table = table.sort_values(
            list(keys), kind="stable", key=lambda column: column.map(keys[str(column.name)].index)
        )
        table.to_csv(stored, index=False)
        (DOCS / "methods.md").write_text(page(table), encoding="utf-8")
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
