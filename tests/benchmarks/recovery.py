"""Write docs/recovery.md: how well every objective and baseline finds units that were planted.

`python tests/benchmarks/recovery.py` learns and measures everything that `nk.recovery()` does by default, in
about two minutes on a quiet core.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

import nadkit as nk
from nadkit.toy import GRADES

DOCS = Path(__file__).parents[2] / "docs"
METRICS = ("average_precision", "f1")


def page(table: pd.DataFrame) -> str:
    """Return the page as Markdown."""
    mean = table[(table["task"] == "mean") & table["seed"].isna()]
    seeds = table[(table["task"] != "mean") & table["seed"].isna()]["n"].max()  # which a task's rows count
    lines = [
        "# Recovery of planted units",
        "",
        "Made by `python tests/benchmarks/recovery.py` from `nk.recovery()`: networks whose true units are "
        f"known, {seeds} of each grade; means over networks and tasks, with 95 % intervals. Learned masks "
        "are told no share; rankings are lent the number of units that one-vs-rest-bounded keeps in each "
        "layer, and the official recipe its share. one-vs-rest-bounded is `OneVsRest(spread=3)`; without a "
        "bound it is the default of `learn_masks`. Rows of single tasks are in `recovery.csv`.",
        "",
        str(table.attrs["answer"]),
    ]
    for metric in METRICS:
        rows = mean[mean["metric"] == metric]
        grades = [grade for grade in GRADES if grade in set(rows["network"])]
        lines += [
            "",
            f"## {metric}",
            "",
            f"| method | {' | '.join(grades)} |",
            "|---|" + "---|" * len(grades),
        ]
        for method in dict.fromkeys(rows["condition"]):
            here = rows[rows["condition"] == method].set_index("network")
            facts = [here.loc[grade, ["value", "low", "high"]] for grade in grades]
            cells = [f"{value:.2f} [{low:.2f}, {high:.2f}]" for value, low, high in facts]
            lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write."""
    table = nk.recovery(progress=True)
    table[table["seed"].isna()].round(4).to_csv(DOCS / "recovery.csv", index=False)
    (DOCS / "recovery.md").write_text(page(table), encoding="utf-8")


if __name__ == "__main__":
    main()
