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
from nadkit.questions.depth.reading import STRONG

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


def together(source: str) -> pd.DataFrame:
    """Return what `how` says of the four families on one kind of pictures, with further networks if there."""
    names = [name for name in BUNDLED if name.endswith(source)]
    pairs = [(nk.load_network(name), masks_of(name)) for name in names]
    beside = "bundled" if others_path(names[0]).exists() else None
    few = nk.load_images(source, split="test", per_class=50)
    return nk.how(pairs, images=few, beside=beside)


def cell(rows: pd.DataFrame, **wanted: str) -> str:
    """Return `value [low, high]` of the one row that is wanted, or nothing."""
    for column, value in wanted.items():
        rows = rows[rows[column] == value]
    rows = rows.dropna(subset="value")
    if rows.empty:
        return ""
    value, low, high = rows[["value", "low", "high"]].iloc[0]
    if wanted["metric"] == "p_value":
        return f"{value:.3f}"
    return f"{value:.2f}" + ("" if pd.isna(low) else f" [{low:.2f}, {high:.2f}]")


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


def one(table: pd.DataFrame, **wanted: object) -> pd.Series:
    """Return value, low and high of the one row that is wanted."""
    for column, value in wanted.items():
        table = table[table[column] == value]
    if len(table) != 1:
        raise SystemExit(f"{len(table)} rows for {wanted}")
    return table.iloc[0][["value", "low", "high"]].astype(float)


def named(names: list[str]) -> str:
    """Return how many there are, and which where they are few."""
    return str(len(names)) + (f" ({', '.join(names)})" if 0 < len(names) <= 4 else "")


def whether_found(names: list[str], evidence: pd.DataFrame) -> str:
    """Return in words on how many networks the masks do more than every learned control."""
    parts = []
    for share in sorted(evidence["share"].unique()):
        rows = evidence[(evidence["share"] == share) & (evidence["condition"] == "kept")]
        found = {name: one(rows, network=name, metric="excess") for name in names}
        level = [name for name in names if found[name]["low"] <= 0]
        values = [row["value"] for row in found.values()]
        parts.append(
            f"at kept share {share:g} on {len(names) - len(level)} of {len(names)} networks (excess from "
            f"{min(values):.3f} to {max(values):.3f})" + (f", not on {named(level)}" if level else "")
        )
    return (
        "**Whether** (theirs: a network divides into sub-architectures for its tasks): the tasks' masks do "
        f"more than every learned control of their size {'; '.join(parts)}."
    )


def where_found(table: pd.DataFrame) -> str:
    """Return in words on how many networks the measures of `where` rise with depth."""
    said = []
    for metric, what in (
        ("hit_rate_spearman", "hit rate"),
        ("evidence_share_spearman", "share on the evidence"),
    ):
        rows = table[(table["question"] == "where") & (table["metric"] == metric)]
        rows = rows[(rows["condition"] == "kept") & (rows["task"] == "mean") & (rows["layer"] == "all")]
        rows = rows.dropna(subset="value").set_index("network")
        rise, fall = rows.index[rows["low"] > STRONG], rows.index[rows["high"] < -STRONG]
        other = [name for name in rows.index if name not in rise and name not in fall]
        said.append(
            f"the {what} of the kept units rises with depth in {named(list(rise))} of {len(rows)} networks, "
            f"falls in {named(list(fall))}, and does neither, or is not shown to, in {named(other)}"
        )
    return (
        f"**Where** (theirs: deeper layers do not always correspond to higher semantics): {'; '.join(said)}."
    )


def how_found(families: pd.DataFrame) -> str:
    """Return in words whether connection types differ."""
    rows = families[(families["network"] == "all") & (families["task"] == "mean")]
    count = int(rows[rows["metric"] == "phi_families_p"]["n"].iloc[0])
    told = [
        f"{100 * one(rows, metric=f'{name}_between_families')['value']:.0f} % of the variance of {what} "
        f"(p = {one(rows, metric=f'{name}_families_p')['value']:.3g})"
        for name, what in (("phi", "φ between tasks"), ("exclusive_excess", "units of one task alone"))
    ]
    return (
        f"**How** (theirs: connection types divide differently): of {count} networks at equal gate density, "
        f"{' and '.join(told)} lie between the four families."
    )


def why_found(names: list[str], table: pd.DataFrame) -> str:
    """Return in words whether errors land on similar sub-architectures, and what simpler things tell."""
    rows = table[(table["question"] == "why") & (table["task"] == "all")]
    near = [
        name
        for name in names
        if one(rows, network=name, condition="overlap", metric="p_value")["value"] < 0.05
    ]
    simpler = ("classifier_weights", "mean_features", "mean_confusions")
    beyond = {
        name: [one(rows, network=name, condition=c, metric="excess") for c in simpler] for name in names
    }
    more = [name for name in names if any(row["high"] < 0 for row in beyond[name])]
    less = [name for name in names if any(row["low"] > 0 for row in beyond[name])]
    return (
        "**Why** (theirs: errors land on sub-architectures similar to the right one): they do more than "
        f"permuted classes would (p < 0.05 each) in {named(near)} of {len(names)} networks; one of the "
        "simpler similarities (classifier weights, mean features, mean confusions) tells more in "
        f"{named(more)}, and less in {named(less)}."
    )


def findings(table: pd.DataFrame, families: pd.DataFrame, evidence: pd.DataFrame) -> list[str]:
    """Return the four findings of the paper as these networks show them, in words made of the rows."""
    names = [name for name in BUNDLED if name in set(table["network"])]
    said = (
        whether_found(names, evidence),
        where_found(table),
        how_found(families),
        why_found(names, table),
    )
    return [f"{number}. {line}" for number, line in enumerate(said, start=1)]


def page(table: pd.DataFrame, families: list[pd.DataFrame]) -> str:
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
        "## The four findings of the paper, as these networks show them",
        "",
        "Hu et al. state theirs of networks and pictures of their own; no number here is theirs.",
        "",
        *findings(table, families[0], pd.read_csv(DOCS / "evidence.csv")),
        "",
        "## Where: does the kept energy move onto the task's own pixels with depth?",
        "",
        "Rank correlations with the order of the layers: 1 rises at every step. A sentence says *rises* only "
        f"where the whole interval lies above {STRONG}, and *neither rises nor falls* only where all of it "
        f"lies from -{STRONG} to {STRONG}.",
        *table_of(table, where),
        *sentences(table, "where"),
        "",
        "## How: what do the tasks share?",
        "",
        *[f"* {asked.attrs['answer']}" for asked in families],
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
