"""Write docs/answers.md: where, how, why and stability, asked of the bundled networks.

`python tests/benchmarks/answers.py` asks all bundled networks; with names, only those, and leaves the others'
rows as they stand in docs/answers.csv. Three to six minutes a network on a quiet core.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

import nadkit as nk
from nadkit.errors import ImageError, NadkitError
from nadkit.images import Images
from nadkit.networks import BUNDLED
from nadkit.questions.connections.others import others_path

DOCS = Path(__file__).parents[2] / "docs"
SHARE = 0.3
SCENES = 2000  # pictures a class for `why`
COMMAND = "python tests/benchmarks/answers.py"


def masks_of(name: str) -> list[nk.MaskSet]:
    """Return the one-vs-rest masks of all seeds that are bundled."""
    found = []
    for seed in range(3):
        try:
            found.append(nk.load_masks(name, kept_share=SHARE, seed=seed))
        except NadkitError:
            break
    return found


def many(source: str) -> Images:
    """Return as many test pictures as there are, so that some are misclassified."""
    if source == "scenes":
        return nk.load_images("scenes", split="test", per_class=SCENES)
    try:
        return nk.load_images("fashion", split="test", full=True)
    except ImageError:
        return nk.load_images("fashion", split="test")


def ask(name: str) -> pd.DataFrame:
    """Return the rows over all tasks of every question asked of one network."""
    source = name.split("-")[1]
    network, masks = nk.load_network(name), masks_of(name)
    few = nk.load_images(source, split="test", per_class=100)
    tables = {
        "where": nk.where(network, masks, few),
        "how": nk.how(network, masks, few),
        "why": nk.why(network, masks, many(source)),
    }
    if len(masks) > 1:
        tables["stability"] = nk.stability(network, masks, few)
    parts = []
    for question, table in tables.items():
        rows = table[table["task"].isin(["mean", "all"])].assign(network=name, question=question)
        answer = {"network": name, "question": question, "metric": "answer"}
        sentence = {**answer, "interval": table.attrs["answer"]}
        parts += [rows, pd.DataFrame([sentence])]
    return pd.concat(parts)


def together(source: str) -> str:
    """Return what `how` says of the four families on one kind of pictures, with further networks if there."""
    names = [name for name in BUNDLED if name.endswith(source)]
    pairs = [(nk.load_network(name), masks_of(name)) for name in names]
    beside = "bundled" if others_path(names[0]).exists() else None
    few = nk.load_images(source, split="test", per_class=50)
    return str(nk.how(pairs, images=few, beside=beside).attrs["answer"])


def cell(rows: pd.DataFrame, **wanted: str) -> str:
    """Return `value [low, high]` of the one row that is wanted, or nothing."""
    for column, value in wanted.items():
        rows = rows[rows[column] == value]
    rows = rows.dropna(subset="value")
    if rows.empty:
        return ""
    value, low, high = rows[["value", "low", "high"]].iloc[0]
    counted = pd.isna(low) or low == value == high
    return f"{value:.3f}" if counted else f"{value:.2f} [{low:.2f}, {high:.2f}]"


def table_of(table: pd.DataFrame, columns: dict[str, dict[str, str]]) -> list[str]:
    """Return a Markdown table: a row a network, a column for each row wanted."""
    lines = ["", f"| network | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for name in [name for name in BUNDLED if name in set(table["network"])]:
        rows = table[table["network"] == name]
        lines.append(f"| {name} | {' | '.join(cell(rows, **wanted) for wanted in columns.values())} |")
    return [*lines, ""]


def sentences(table: pd.DataFrame, question: str) -> list[str]:
    """Return every network's answer to one question."""
    rows = table[(table["question"] == question) & (table["metric"] == "answer")]
    return [f"* {sentence}" for sentence in rows["interval"]]


def page(table: pd.DataFrame, families: list[str]) -> str:
    """Return the page as Markdown."""
    over = {"task": "mean", "layer": "all"}
    where = {
        f"{name} against depth": {**over, "question": "where", "metric": metric, "condition": "kept"}
        for name, metric in (
            ("hit rate", "hit_rate_spearman"),
            ("its excess over other masks", "hit_rate_excess_spearman"),
            ("evidence share", "evidence_share_spearman"),
            ("evidence share over other masks", "evidence_share_excess_spearman"),
        )
    }
    why = {
        condition.replace("_", " "): {"question": "why", "metric": "top_share", "condition": condition}
        for condition in ("overlap", "classifier_weights", "mean_features", "mean_confusions")
    }
    why["p of overlap"] = {"question": "why", "metric": "p_value", "condition": "overlap"}
    lines = [
        "# Answers of the bundled networks",
        "",
        f"Made by `{COMMAND}` from the bundled one-vs-rest masks at kept share {SHARE}, all seeds there are. "
        "Every sentence is computed from the table that stands behind it; all rows over tasks are in "
        "`answers.csv`. The tables are of these networks and say nothing about others.",
        "",
        "## Where: does the kept energy move onto the task's own pixels with depth?",
        "",
        "Rank correlations with the order of the layers: 1 rises at every step.",
        *table_of(table, where),
        *sentences(table, "where"),
        "",
        "## How: what do the tasks share?",
        "",
        *[f"* {answer}" for answer in families],
        *sentences(table, "how"),
        "",
        "## Why: do errors land on similar sub-architectures?",
        "",
        "The share of errors whose answer is among the three classes nearest to the true one, by each "
        "similarity.",
        *table_of(table, why),
        *sentences(table, "why"),
        "",
        "## Stability: are these the units, or one draw of many?",
        "",
        *sentences(table, "stability"),
        "",
    ]
    return "\n".join(lines)


def main(names: list[str]) -> None:
    """Ask the networks named, or all, and write the page and its rows."""
    stored = DOCS / "answers.csv"
    old = pd.read_csv(stored) if stored.exists() else pd.DataFrame({"network": []})
    asked = names or list(BUNDLED)
    new = []
    for name in asked:
        new.append(ask(name))
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()
    table = pd.concat([old[~old["network"].isin(asked)], *new])
    table = table.sort_values("network", key=lambda c: c.map(list(BUNDLED).index), kind="stable")
    table.round(4).to_csv(stored, index=False)
    (DOCS / "answers.md").write_text(page(table, [together("fashion"), together("scenes")]), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
