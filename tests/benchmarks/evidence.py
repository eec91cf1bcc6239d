"""Write docs/evidence.md: every bundled network, its masks and every control, at both kept shares.

`python tests/benchmarks/evidence.py` measures all bundled networks; with names, only those, and leaves the
others' rows as they stand in docs/evidence.csv. About two minutes a network and share on a quiet core.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

import nadkit as nk
from nadkit.errors import NadkitError
from nadkit.learn.bundle import SHARES, pictures
from nadkit.networks import BUNDLED, model_card
from nadkit.questions import whether

DOCS = Path(__file__).parents[2] / "docs"
PER_CLASS = 100
ORDER = ["whole", "kept", "official", "relabelled", "shared", "untrained", "random", "removed"]
METRICS = ["balanced_accuracy", "balanced_accuracy_calibrated", "auroc", "recomposed_accuracy", "excess"]


def masks_of(name: str, share: float) -> list[nk.MaskSet]:
    """Return the one-vs-rest masks of all seeds that are bundled."""
    found = []
    for seed in range(3):
        try:
            found.append(nk.load_masks(name, kept_share=share, seed=seed))
        except NadkitError:
            break
    return found


def measure(name: str) -> pd.DataFrame:
    """Return the mean rows of one network at every kept share."""
    network, source = nk.load_network(name), name.split("-")[1]
    test, (_, held_back) = nk.load_images(source, split="test"), pictures(source)
    tables = []
    for share in SHARES:
        settings = {"calibrate_on": held_back, "per_class": PER_CLASS, "parts": "sufficiency"}
        masks = masks_of(name, share)
        if not masks:
            continue
        own = whether(network, masks, test, draws=5, **settings)
        try:
            official = nk.load_masks(name, objective="official", kept_share=share)
        except NadkitError:
            published = own.iloc[:0]
        else:
            published = whether(network, official, test, controls=None, draws=0, **settings)
            published = published[published["condition"] == "kept"].assign(condition="official")
        rows = pd.concat([own, published])
        tables.append(rows[rows["task"].isin(["mean", "all"])].assign(share=share))
    return pd.concat(tables)


def cell(rows: pd.DataFrame, metric: str) -> str:
    """Return `value [low, high]` of the one row of a metric, or nothing."""
    found = rows[rows["metric"] == metric]
    if found.empty:
        return ""
    value, low, high = found[["value", "low", "high"]].iloc[0]
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def page(table: pd.DataFrame) -> str:
    """Return the page as Markdown."""
    lines = [
        "# Evidence on the bundled networks",
        "",
        "Made by `python tests/benchmarks/evidence.py` from the bundled masks: mean over tasks, "
        f"{PER_CLASS} test pictures a class, calibrated on 100 training pictures a class that no mask has "
        "seen; 95 % intervals. "
        "`kept` is the task's own one-vs-rest mask, `official` the published recipe with "
        "β bisected for the same share; "
        "relabelled, shared and untrained are the same learner's controls. "
        "`excess` is the calibrated balanced accuracy of `kept` minus that of the best learned control.",
        "",
        "| network | accuracy, 200 a class | MFLOP |",
        "|---|---|---|",
    ]
    names = [name for name in BUNDLED if name in set(table["network"])]
    for name in names:
        card = model_card(name)
        lines.append(f"| {name} | {card['test_accuracy_200_a_class']:.3f} | {card['mflop_per_image']:.1f} |")
    for name in names:
        of_name = table[table["network"] == name]
        lines += ["", f"## {name}", "", "| kept share | condition | " + " | ".join(METRICS) + " |"]
        lines.append("|---|---|" + "---|" * len(METRICS))
        for share in SHARES:
            for condition in ORDER:
                rows = of_name[(of_name["share"] == share) & (of_name["condition"] == condition)]
                if not rows.empty:
                    shown = " | ".join(cell(rows, metric) for metric in METRICS)
                    lines.append(f"| {share} | {condition} | {shown} |")
    return "\n".join(lines) + "\n"


def main(names: list[str]) -> None:
    """Measure, merge with what stands, write."""
    kept = DOCS / "evidence.csv"
    table = pd.read_csv(kept) if kept.exists() else pd.DataFrame(columns=["network"])
    for name in names or [name for name in BUNDLED if any(masks_of(name, share) for share in SHARES)]:
        table = pd.concat([table[table["network"] != name], measure(name)])
        columns = ["network", "share", "condition", "task", "metric", "value", "low", "high", "n", "interval"]
        table[columns].round(4).to_csv(kept, index=False)
        (DOCS / "evidence.md").write_text(page(table))
        print(name)


if __name__ == "__main__":
    main(sys.argv[1:])
