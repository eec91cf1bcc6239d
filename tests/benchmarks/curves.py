"""Learn the curves of the bundled networks over kept shares and measure them: docs/curves.md.

`python tests/benchmarks/curves.py` learns what is missing, a run for each network and kind (own, relabelled,
shared; five minutes each on a quiet core; masks stay in build/curves), measures the networks one by one, and
writes the tables that `nk.whether(..., shares="bundled")` reads. With names, only those networks.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
from evidence import cell

import nadkit as nk
from nadkit.learn.bundle import objective_of, pictures
from nadkit.learn.curve import SHARES, learn_curve
from nadkit.networks import BUNDLED
from nadkit.questions.curves import bundled_curve_path

DOCS, SCRATCH = Path(__file__).parents[2] / "docs", Path("build/curves")
KINDS: dict[str, dict[str, object]] = {
    "kept": {},
    "relabelled": {"control": "relabelled"},
    "shared": {"shared": True},
}
PER_CLASS, DRAWS = 100, 5
METRIC = "balanced_accuracy_calibrated"


def learn(name: str) -> dict[float, dict[str, nk.MaskSet]]:
    """Return the masks of every share and kind, learning what is missing."""
    network = nk.load_network(name)
    images, _ = pictures(name.split("-")[1])
    spread = getattr(objective_of(name, "one-vs-rest"), "spread", None)
    found: dict[float, dict[str, nk.MaskSet]] = {share: {} for share in SHARES}
    for kind, settings in KINDS.items():
        folder = SCRATCH / f"{name}-{kind}"
        folder.mkdir(parents=True, exist_ok=True)
        paths = {share: folder / f"{share:g}.safetensors" for share in SHARES}
        if not all(path.exists() for path in paths.values()):
            curve = learn_curve(
                network, images, spread=spread, checkpoint=folder / "state", progress=sys.stderr.isatty(),
                **settings,
            )  # fmt: skip
            for share, masks in curve.items():
                masks.save(paths[share])
            for rest in folder.glob("state*"):
                rest.unlink()
        for share, path in paths.items():
            found[share][kind] = nk.MaskSet.load(path)
    return found


def measure(name: str) -> pd.DataFrame:
    """Return the rows of the curve over tasks, and each task's smallest share."""
    source, masks = name.split("-")[1], learn(name)
    table = nk.whether(
        nk.load_network(name), masks[0.3]["kept"], nk.load_images(source, split="test"),
        calibrate_on=pictures(source)[1], per_class=PER_CLASS, draws=DRAWS, parts=(), shares=masks,
    )  # fmt: skip
    curve = table["share"].notna() | table["metric"].isin(["area", "smallest_share", "short_again"])
    over = table["task"].isin(["mean", "all"]) | (table["metric"] == "smallest_share")
    return table[curve & over]


def page(tables: dict[str, pd.DataFrame]) -> str:
    """Return the page as Markdown."""
    lines = [
        "# Curves over kept shares",
        "",
        "Made by `python tests/benchmarks/curves.py`: balanced accuracy, calibrated, mean over tasks, of "
        "masks at six kept shares. All shares of one kind come from one run of 2,400 steps whose share falls "
        "in stages (`nadkit.learn.curve`), own and control masks alike, one seed (those of darts-scenes with "
        "log-odds bounded to a spread of 2, as its bundled masks; those of densenet, of darts-fashion and of "
        "the other scene networks on a GPU, which rounds otherwise); "
        f"{PER_CLASS} test pictures a class, calibrated on 100 that no mask has seen; 95 % intervals over "
        f"images, of random over {DRAWS} draws. `last_layer` keeps all units but those of the last layer "
        "that the task does not need. `excess` is kept minus the best learned control; the smallest share is "
        "the first at which kept reaches 0.95 of the whole network, of the mean, and over the tasks.",
    ]
    for name, table in tables.items():
        mean = table[table["task"] == "mean"]
        lines += [
            "",
            f"## {name}",
            "",
            f"| condition | {' | '.join(f'{share:g}' for share in SHARES)} | area |",
        ]
        lines.append("|---|" + "---|" * (len(SHARES) + 1))
        for condition in ("kept", "relabelled", "shared", "untrained", "random", "last_layer"):
            rows = mean[mean["condition"] == condition]
            if len(rows):
                cells = [cell(rows[rows["share"] == share], METRIC) for share in SHARES]
                lines.append(f"| {condition} | {' | '.join(cells)} | {cell(rows, 'area')} |")
        cells = [cell(mean[mean["share"] == share], "excess") for share in SHARES]
        lines.append(f"| excess | {' | '.join(cells)} | |")
        smallest = table[(table["metric"] == "smallest_share") & (table["condition"] == "kept")]
        of_mean = smallest[smallest["task"] == "mean"]["value"].iloc[0]
        of_tasks = smallest[smallest["task"] != "mean"]["value"]
        said = "none" if pd.isna(of_mean) else f"{of_mean:g}"
        worst = "none" if of_tasks.isna().any() else f"{of_tasks.max():g}"
        lines += ["", f"Smallest share {said}; of tasks from {of_tasks.min():g} to {worst}."]
    return "\n".join(lines) + "\n"


def main(names: list[str]) -> None:
    """Learn, measure, write."""
    for name in names or list(BUNDLED):
        table = measure(name)
        path = bundled_curve_path(name)
        path.parent.mkdir(exist_ok=True)
        table.round(4).to_csv(path, index=False)
        there = [known for known in BUNDLED if bundled_curve_path(known).exists()]
        tables = {known: pd.read_csv(bundled_curve_path(known)) for known in there}
        (DOCS / "curves.md").write_text(page(tables), encoding="utf-8")
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
