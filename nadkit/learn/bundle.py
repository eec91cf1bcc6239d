"""Learn the masks that are bundled: `python -m nadkit.learn.bundle resnet-fashion`.

Own masks at two kept shares for three seeds, the three learned controls and the released recipe, from the
first 400 training pictures of every class; the last 100 stay for calibration. What is there is skipped, and
an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from nadkit.images import Images, load_images
from nadkit.learn.objectives import Objective, OneVsRest
from nadkit.learn.verb import learn_masks
from nadkit.networks import BUNDLED, load_network, mask_path

SHARES = (0.5, 0.3)
FOR_MASKS = 400  # of the 500 bundled training pictures a class


def objective_of(name: str, objective: str) -> str | Objective:
    """Return what a network's bundled masks are learned for; see the notes of `OneVsRest` on the exception.

    Examples
    --------
    >>> objective_of("vgg-scenes", "one-vs-rest"), objective_of("darts-scenes", "one-vs-rest").spread
    ('one-vs-rest', 2.0)
    """
    if (name, objective) == ("darts-scenes", "one-vs-rest"):
        return OneVsRest(spread=2.0, ramp=0.85, bend=1.5)
    return objective


def pictures(source: str) -> tuple[Images, Images]:
    """Return the training pictures for masks, and those held back for calibration.

    Examples
    --------
    >>> [len(part) for part in pictures("fashion")]
    [4000, 1000]
    """
    images = load_images(source, split="train")
    first = torch.zeros(len(images), dtype=torch.bool)
    for label in range(len(images.class_names)):
        first[(images.labels == label).nonzero().flatten()[:FOR_MASKS]] = True
    return images[first], images[~first]


def jobs() -> list[dict[str, Any]]:
    """Return what is learned for one network, the most needed first.

    Examples
    --------
    >>> len(jobs()), jobs()[0]
    (14, {'objective': 'one-vs-rest', 'kept_share': 0.3, 'seed': 0, 'control': None})
    """
    order: list[dict[str, Any]] = []
    for share in reversed(SHARES):
        order += [
            {"objective": "one-vs-rest", "kept_share": share, "seed": 0, "control": control}
            for control in (None, "relabelled", "shared", "untrained")
        ]
    order += [
        {"objective": "official", "kept_share": share, "seed": 0, "control": None}
        for share in reversed(SHARES)
    ]
    order += [
        {"objective": "one-vs-rest", "kept_share": share, "seed": seed, "control": None}
        for seed in (1, 2)
        for share in reversed(SHARES)
    ]
    return order


def bundle(name: str, *, first: int | None = None, scratch: Path = Path("build")) -> list[Path]:
    """Learn and write what is missing of a network's first jobs; return the paths written."""
    network = load_network(name)
    images, _ = pictures(name.split("-")[1])
    written = []
    for job in jobs()[:first]:
        path = mask_path(name, **job)
        if path.exists():
            continue
        settings = {**job, "objective": objective_of(name, job["objective"])}
        shared = settings["control"] == "shared"
        if shared:
            settings["control"] = None
        path.parent.mkdir(parents=True, exist_ok=True)
        masks = learn_masks(
            network,
            images,
            shared=shared,
            progress=sys.stderr.isatty(),
            checkpoint=scratch / path.stem,
            **settings,
        )
        masks.save(path)
        for rest in scratch.glob(f"{path.stem}*"):
            rest.unlink()
        written.append(path)
        sys.stdout.write(f"{path.name} {path.stat().st_size / 1e3:.0f} kB\n")
        sys.stdout.flush()
    return written


def main(arguments: list[str] | None = None) -> None:
    """Learn the masks of the networks named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m nadkit.learn.bundle", description=__doc__)
    parser.add_argument("names", nargs="+", help="bundled networks, or `all`")
    parser.add_argument("--first", type=int, help="only so many jobs a network, the most needed first")
    options = parser.parse_args(arguments)
    for name in list(BUNDLED) if options.names == ["all"] else options.names:
        bundle(name, first=options.first)


if __name__ == "__main__":
    main()
