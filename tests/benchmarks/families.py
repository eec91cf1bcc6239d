"""Train further networks of every family on fashion and ask `how` of them; nadkit/networks/data/how-*.csv.

`python tests/benchmarks/families.py` trains four networks of each family (seeds 1 to 4) beside the bundled
one, half as long as that, learns their masks as the bundled ones were learned, and writes the rows over tasks
that `nk.how(..., beside="bundled")` reads. The networks are kept in build/families and not shipped. Fifteen
minutes a network on a quiet core, one on a GPU; networks whose rows the table has are left as they are, and a
training that was interrupted goes on.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
from safetensors import safe_open

import nadkit as nk
from nadkit.learn.bundle import pictures
from nadkit.networks.bundled import FAMILIES, fresh_network
from nadkit.networks.network import Network, hash_weights
from nadkit.networks.train import train
from nadkit.questions.connections.others import others_path

SOURCE, SHARE, SEEDS, EPOCHS = "fashion", 0.3, (1, 2, 3, 4), 8
FOLDER = Path("build/families")


def trained(family: str, seed: int) -> tuple[Network, float]:
    """Return a network of a family, trained from a seed if it is not there, and its test accuracy."""
    name, folder = f"{family}-{SOURCE}", FOLDER / f"seed{seed}"
    path = folder / f"{name}.safetensors"
    if not path.exists():
        train(name, epochs=EPOCHS, seed=seed, folder=folder, scratch=folder)
    network = fresh_network(name)
    with safe_open(path, "pt") as file:
        card = json.loads(file.metadata()["card"])
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    network.model.load_state_dict(weights, strict=False)  # the file has no counters of batches
    found = Network(
        f"{name} {seed}", network.model, network.layers, network.class_names,
        hash_weights(network.model.state_dict()), network.preprocess, network.input_shape,
    )  # fmt: skip
    if found.weights_id != card["weights_id"]:
        raise SystemExit(f"{path} holds {found.weights_id} and names {card['weights_id']}; remove it")
    return found, card["test_accuracy"]


def masks_of(network: Network, seed: int) -> nk.MaskSet:
    """Return one-vs-rest masks of a network, learned if they are not there."""
    path = FOLDER / f"seed{seed}" / f"{network.name.split()[0]}-masks.safetensors"
    if not path.exists():
        images, _ = pictures(SOURCE)
        nk.learn_masks(network, images, kept_share=SHARE, progress=sys.stderr.isatty()).save(path)
    return nk.MaskSet.load(path)


def main() -> None:
    """Train, learn, ask and write."""
    images = nk.load_images(SOURCE, split="test", per_class=50)
    path = others_path(f"vgg-{SOURCE}")
    tables = [pd.read_csv(path)] if path.exists() else []
    there = set(tables[0]["network"]) if tables else set()
    for seed in SEEDS:
        for family in FAMILIES:
            if f"{family}-{SOURCE} {seed}" in there:
                continue
            network, accuracy = trained(family, seed)
            table = nk.how(network, masks_of(network, seed), images)
            own = (table["metric"] == "exclusive_share") & (table["layer"] == "all")
            tables.append(
                table[(table["network"] == network.name) & (table["task"].isin(["mean", "all"]) | own)]
            )
            sys.stdout.write(f"{network.name} {accuracy:.4f} {table.attrs['answer']}\n")
            sys.stdout.flush()
            pd.concat(tables).round(6).to_csv(path, index=False)


if __name__ == "__main__":
    main()
