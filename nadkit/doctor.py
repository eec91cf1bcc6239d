"""What `python -m nadkit doctor` checks: packages, memory, front end, bundled files, gates, a model."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from nadkit import __version__
from nadkit.errors import NadkitError, OptionalDependencyError, optional_import

NETWORK = "resnet-fashion"


class Check(NamedTuple):
    """What one check found: its state (ok, warn or FAIL), its name, and what there is and what to do."""

    state: str
    name: str
    text: str


def verdict(name: str, good: bool, text: str, cure: str, otherwise: str = "FAIL") -> Check:
    """Return ok and what there is, or another state with what to do."""
    return Check("ok", name, text) if good else Check(otherwise, name, f"{text}; {cure}")


def examine() -> Iterator[Check]:
    """Yield what each check of this environment finds, one after the other."""
    for check in (check_python, check_packages, check_threads, check_memory, check_front_end, check_optional,
                  check_bundled, check_gates):  # fmt: skip
        try:
            found = list(check())
        except Exception as error:  # a broken package may raise anything; the other checks go on
            name = check.__name__.removeprefix("check_")
            found = [verdict(name, False, f"{type(error).__name__}: {error}", "reinstall nadkit")]
        yield from found


def list_layers(name: str, size: int) -> str:
    """Return the places of a model of torchvision or timm, fresh weights, as a tree, and their counts."""
    import torch

    from nadkit.networks import layers

    library, _, model_name = name.partition(":")
    if library not in ("torchvision", "timm") or not model_name:
        raise NadkitError(
            f"no model {name!r}; give torchvision:NAME or timm:NAME, as in torchvision:resnet50"
        )
    package = optional_import(library, "vision")
    try:
        if library == "timm":
            model = package.create_model(model_name, pretrained=False)
        else:
            model = package.models.get_model(model_name, weights=None)
    except (ValueError, RuntimeError) as error:
        raise NadkitError(f"{library} makes no model {model_name!r}: {error}") from None
    table = layers(model.eval(), torch.zeros(1, 3, size, size))
    counts = (
        f"{len(table)} places, {table['tappable'].sum()} tappable, {table['recommended'].sum()} recommended"
    )
    return f"{table}\n{counts} (*); {table['reason'].str.startswith('dead').sum()} dead"


def check_python(version: Sequence[int] = sys.version_info[:3]) -> Iterator[Check]:
    """Python 3.11 or newer."""
    yield verdict("python", tuple(version) >= (3, 11), ".".join(map(str, version)), "3.11 or newer is needed")


def check_packages(
    requires: Callable[[str], list[str] | None] = metadata.requires,
    version: Callable[[str], str] = metadata.version,
) -> Iterator[Check]:
    """Each dependency has a version that the metadata of nadkit asks for."""
    try:
        needed = [line for line in requires("nadkit") or [] if ";" not in line]  # the others are of extras
    except metadata.PackageNotFoundError:
        needed = []
    yield verdict(
        "nadkit",
        bool(needed),
        f"{__version__} in {Path(__file__).parent}",
        "not installed: pip install .",
        "warn",
    )
    ranges = optional_import("packaging.requirements", "dev")  # JupyterLab brings it along
    for wanted in map(ranges.Requirement, needed):
        try:
            there = version(wanted.name)
            good = wanted.specifier.contains(there, prereleases=True)
        except metadata.PackageNotFoundError:
            there, good = "not installed", False
        yield verdict(wanted.name, good, there, f"pip install '{wanted}'")


def check_threads(threads: int | None = None, cores: int | None = None) -> Iterator[Check]:
    """No more threads than cores: on small tensors, threads that wait for each other cost a factor."""
    threads = threads or int(optional_import("torch", "dev").get_num_threads())
    cores = cores or (len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1)
    cure = f"slow: export OMP_NUM_THREADS={cores}"
    yield verdict("threads", threads <= cores, f"torch uses {threads}, cores: {cores}", cure, "warn")


def check_memory(root: Path = Path("/")) -> Iterator[Check]:
    """Memory for the kernel of a notebook: what is free, or what a container still allows."""
    group = root / "sys/fs/cgroup"
    try:
        free = 1024 * int(re.findall(r"MemAvailable:\s*(\d+)", (root / "proc/meminfo").read_text())[0])
    except (OSError, IndexError):
        yield Check("warn", "memory", "not known on this system; a notebook needs 1 GB")
        return
    try:
        cache = re.findall(r"^inactive_file (\d+)", (group / "memory.stat").read_text(), re.M)
        used = int((group / "memory.current").read_text()) - sum(map(int, cache))
        free = min(free, int((group / "memory.max").read_text()) - used)
    except (OSError, ValueError):
        pass  # no container, or one without a limit: it says "max"
    cure = "a notebook needs 1 GB: shut other kernels down"
    yield verdict("memory", free >= 1e9, f"{free / 1e9:.1f} GB free", cure, "warn" if free >= 7e8 else "FAIL")


def check_front_end(prefixes: Sequence[str] = (sys.prefix, "/usr/local", "/usr")) -> Iterator[Check]:
    """JupyterLab has the extensions that draw widgets and figures."""
    packages = {"@jupyter-widgets/jupyterlab-manager": "jupyterlab_widgets", "anywidget": "anywidget",
                "jupyterlab-plotly": "plotly"}  # fmt: skip
    for extension, package in packages.items():
        places = [Path(p, "share/jupyter/labextensions", extension, "package.json") for p in prefixes]
        place = next(filter(Path.exists, places), None)
        text = json.loads(place.read_text()).get("version", "") if place else "missing, outputs stay empty"
        cure = f"pip install --force-reinstall --no-deps {package}"
        yield verdict("front end", place is not None, f"{extension} {text}", cure)


def check_optional(which: Callable[[str], str | None] = shutil.which) -> Iterator[Check]:
    """What only some need: a browser for the browser tests, two packages for networks of others."""
    path = which("chromium") or which("chromium-browser") or which("google-chrome")
    cure = "only the browser tests need it: apt-get install chromium"
    yield verdict("chromium", path is not None, path or "not there", cure, "warn")
    for name in ("torchvision", "timm"):
        try:
            yield Check("ok", name, str(optional_import(name, "vision").__version__))
        except OptionalDependencyError as error:
            yield Check("warn", name, f"optional: {error}")


def check_bundled() -> Iterator[Check]:
    """The pictures, weights and masks that come with nadkit are there and hold what their hashes say."""
    from nadkit.images import load_images
    from nadkit.masks import MaskSet
    from nadkit.networks import BUNDLED, load_network, mask_path

    yield Check("ok", "pictures", repr(load_images("fashion", split="test")))
    folder = mask_path(NETWORK, objective="official", kept_share=0.3, seed=0, control=None).parent
    for name in BUNDLED:
        try:
            network, files = load_network(name), sorted(folder.glob(f"{name}-*.safetensors"))
            for file in files:
                MaskSet.load(file).check(network)
            text = f"weights {network.weights_id}, mask files: {len(files)}"
            yield verdict(name, bool(files), text, "reinstall nadkit")
        except NadkitError as error:
            yield Check("FAIL", name, str(error))


def check_gates() -> Iterator[Check]:
    """Gates of one change no bit of a network's answer."""
    import torch

    from nadkit.images import load_images
    from nadkit.networks import load_network
    from nadkit.taps import Taps

    network, pixels = load_network(NETWORK), load_images("fashion", split="test", per_class=2).pixels[:]
    with Taps(network, gates={address: torch.ones(layer.units) for address, layer in network.layers.items()}):
        gated = network(pixels)
    same, text = torch.equal(gated, network(pixels)), "gates of one change no bit of an answer"
    yield verdict("self test", same, text, "this does not hold here: please report it")
