"""Measure the numbers of the design and print them beside their targets.

`make bench` runs all; `python tests/benchmarks/run.py taps learning` runs some. Each measurement has a
process of its own, so that neither imports nor memory of one show up in another. Use a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
NETWORK = "resnet-fashion"


@dataclass(frozen=True)
class Row:
    """One number beside its target; without a limit it is there for information."""

    what: str
    measured: float
    unit: str
    limit: float | None = None

    def cells(self) -> tuple[str, str, str, str]:
        target = "" if self.limit is None else f"<= {self.limit:g} {self.unit}".rstrip()
        verdict = "" if self.limit is None else ("holds" if self.measured <= self.limit else "MISSED")
        return self.what, target, f"{self.measured:.3g} {self.unit}".rstrip(), verdict


def fresh(code: str, threads: int | None = None, **variables: str) -> dict[str, float]:
    """Run `code` in a new interpreter; it leaves its numbers in a dictionary `found`."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    environment.pop("OMP_NUM_THREADS", None)
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    # ru_maxrss is in kilobytes on Linux and in bytes on macOS.
    tail = (
        "\nimport json, resource, sys\n"
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "found['peak'] = peak * (1 if sys.platform == 'darwin' else 1024)\n"
        "print(json.dumps(found))"
    )
    with tempfile.TemporaryDirectory() as folder:
        ran = subprocess.run(
            [sys.executable, "-c", "import time\nfound = {}\n" + code + tail],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return {name: float(value) for name, value in json.loads(ran.stdout.splitlines()[-1]).items()}


def importing() -> Iterator[Row]:
    """What `import nadkit` costs once torch is there, and what all public names cost at first use."""
    code = (
        "import torch\nstart = time.perf_counter()\n"
        "import nadkit\nfound['import'] = time.perf_counter() - start\n"
        "for name in nadkit.__all__: getattr(nadkit, name)\nfound['names'] = time.perf_counter() - start"
    )
    runs = [fresh(code) for _ in range(5)]
    yield Row("import nadkit, beyond import torch", statistics.median(r["import"] for r in runs), "s", 0.2)
    yield Row("  and every public name used", statistics.median(r["names"] for r in runs), "s")


def taps() -> Iterator[Row]:
    """The forward pass with gates of one against the plain one: batch 64, one thread, interleaved medians.

    The time is the processor's: with one thread it is the clock's on a quiet machine, and on a busy one it
    does not count what others take. The allocator of the C library is told to keep memory: where it hands it
    back after every forward, fetching it anew costs more than all gates do (on a virtual machine 4 of 9 ms),
    the more the more tensors there are. The last row is without that.
    """
    code = f"""
import statistics, torch, nadkit as nk
torch.set_num_threads(1)
network = nk.load_network({NETWORK!r})
model = network.model
pixels = network.preprocess(torch.randint(0, 256, (64, *network.input_shape), dtype=torch.uint8))
ones = {{a: torch.ones(layer.units) for a, layer in network.layers.items()}}
table = {{a: torch.ones(10, layer.units) for a, layer in network.layers.items()}}
rows = torch.arange(64) % 10
def plain(): return model(pixels)
def gated():
    with nk.Taps(network, (), gates=ones): return model(pixels)
def gated_by_row():
    with nk.Taps(network, (), gates=table, rows=rows): return model(pixels)
def recording():
    with nk.Taps(network): return model(pixels)
ways = dict(plain=plain, gated=gated, gated_by_row=gated_by_row, recording=recording)
spent = {{name: [] for name in ways}}
with torch.no_grad():
    expected = plain()
    assert all(torch.equal(way(), expected) for way in ways.values())
    for _ in range(60):
        for name, way in ways.items():
            start = time.process_time(); way(); spent[name].append(time.process_time() - start)
median = {{name: statistics.median(times) for name, times in spent.items()}}
found = {{name: median[name] / median["plain"] for name in ways if name != "plain"}}
found["milliseconds"] = 1e3 * median["plain"]
"""
    keep = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**32)}  # read by glibc
    found, usual = fresh(code, threads=1, **keep), fresh(code, threads=1)
    yield Row("taps, all gates one, against plain", found["gated"], "x", 1.15)
    yield Row("  one gate row for each picture", found["gated_by_row"], "x", 1.15)
    yield Row("  recording every layer, no gates", found["recording"], "x")
    yield Row("  the plain forward, batch 64", found["milliseconds"], "ms")
    yield Row("  gates of one, memory handed back", usual["gated"], "x")


def learning() -> Iterator[Row]:
    """Ten masks of the residual network at kept share 0.3, two threads."""
    code = f"""
import torch, nadkit as nk
torch.set_num_threads(2)
network, images = nk.load_network({NETWORK!r}), nk.load_images("fashion", split="train")
start = time.perf_counter()
masks = nk.learn_masks(network, images, kept_share=0.3, progress=False)
found["seconds"] = time.perf_counter() - start
found["far"] = max(abs(share - 0.3) for share in masks.kept_share().values())
"""
    found = fresh(code, threads=2)
    yield Row(f"ten masks of {NETWORK}, kept share 0.3", found["seconds"], "s", 60)
    yield Row("  peak resident memory", found["peak"] / 1e9, "GB", 1.0)
    yield Row("  farthest kept share from 0.3", found["far"], "", 0.02)


def evidence() -> Iterator[Row]:
    """`whether` with bundled masks and controls, 20 pictures a class, 20 random draws."""
    code = f"""
import nadkit as nk
network, masks = nk.load_network({NETWORK!r}), nk.load_masks({NETWORK!r}, kept_share=0.3)
test, train = nk.load_images("fashion", split="test"), nk.load_images("fashion", split="train")
start = time.perf_counter()
table = nk.whether(network, masks, test, calibrate_on=train, draws=20, per_class=20)
found["seconds"] = time.perf_counter() - start
found["rows"] = len(table)
"""
    found = fresh(code)
    yield Row("whether, 20 a class, 20 draws", found["seconds"], "s", 20)
    yield Row("  peak resident memory", found["peak"] / 1e9, "GB")


def questions() -> Iterator[Row]:
    """`where`, `how` and `why` with bundled masks, and `whether` in full: every part, 199 random draws."""
    code = f"""
import nadkit as nk
network, masks = nk.load_network({NETWORK!r}), nk.load_masks({NETWORK!r}, kept_share=0.3)
test, train = nk.load_images("fashion", split="test"), nk.load_images("fashion", split="train")
for question in (nk.where, nk.how, nk.why):
    start = time.perf_counter()
    question(network, masks, test)
    found[question.__name__] = time.perf_counter() - start
start = time.perf_counter()
nk.whether(network, masks, test, calibrate_on=train, draws=199, per_class=20, parts="all")
found["whether"] = time.perf_counter() - start
"""
    found = fresh(code)
    for name in ("where", "how", "why"):
        yield Row(name, found[name], "s", 30)
    yield Row("whether, all parts, 20 a class, 199 draws", found["whether"], "s", 300)
    yield Row("  peak resident memory of all four", found["peak"] / 1e9, "GB")


def tour() -> Iterator[Row]:
    """`python -m nadkit tour`, from nothing to the page."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "nadkit", "tour"],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        yield Row("python -m nadkit tour", time.perf_counter() - start, "s", 90)


def notebooks() -> Iterator[Row]:
    """Every notebook on one thread, as Binder has it: the whole run, and the kernel's memory."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        code = f"""
import pathlib, nbclient, nbformat
from traitlets.config import Config
notebook = nbformat.read({str(path)!r}, as_version=4)
notebook.cells.append(nbformat.v4.new_code_cell(
    "import resource\\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"))
sockets = Config({{"KernelManager": {{"transport": "ipc", "ip": str(pathlib.Path("kernel").resolve())}}}})
start = time.perf_counter()
nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", config=sockets).execute()
found["seconds"] = time.perf_counter() - start
found["kernel"] = 1024 * int(notebook.cells[-1].outputs[0]["text"])
"""
        found = fresh(code, threads=1)
        yield Row(f"notebook {path.stem}", found["seconds"], "s", 60)
        yield Row("  peak resident memory of its kernel", found["kernel"] / 1e9, "GB", 0.7)


def explorer() -> Iterator[Row]:
    """`explore` in JupyterLab in Chromium; tests/benchmarks/explorer.py says what is measured."""
    import explorer as benchmark

    if benchmark.browser_path() is None:
        print("explorer: not measured, there is no Chromium")
        return
    yield from benchmark.rows()


BENCHMARKS: dict[str, Callable[[], Iterator[Row]]] = {
    "import": importing,
    "taps": taps,
    "learning": learning,
    "evidence": evidence,
    "questions": questions,
    "tour": tour,
    "notebooks": notebooks,
    "explorer": explorer,
}


def main() -> int:
    """Print a line for each number as it comes; return 1 if a measurement could not be made."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"some of: {', '.join(BENCHMARKS)}")
    names = parser.parse_args().names or list(BENCHMARKS)
    if unknown := sorted(set(names) - set(BENCHMARKS)):
        parser.error(f"no benchmark {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}")
    load = os.getloadavg()[0]
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, load {load:.1f} at the start\n")
    form = "{:<44} {:>12} {:>12}  {}"
    print(form.format("what", "target", "measured", ""))
    failed = False
    for name in names:
        try:
            for row in BENCHMARKS[name]():
                print(form.format(*row.cells()), flush=True)
        except subprocess.CalledProcessError as error:
            failed = True
            print(f"{name}: not measured, its process ended with {error.returncode}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
