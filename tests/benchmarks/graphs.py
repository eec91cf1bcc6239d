"""Measure the numbers of graphs: time, memory, size, planted links, and links checked by ablation.

`python tests/benchmarks/graphs.py` runs all and writes docs/graphs.md; `python tests/benchmarks/graphs.py
speed vgg-fashion` runs some and only prints.
Use a quiet machine: on a busy one the clock's times say little, and the processor's time is what to read.

* `speed`: all tasks of a bundled network, masks of kept share 0.3, 32 pictures on each side; against a naive
  loop, one backward pass for each task and each unit, kept or not, in the same process. Memory is that of
  another process, which only extracts.
* `size`: a graph of 10,000 units and 200,000 links, extracted, saved, loaded and drawn.
* `planted`: extracted links against planted ones, seeds 0 to 4; `truth` keeps the planted units, `all` every
  unit of the network, where links into the task's units are compared.
* `verify`: the strongest 20 links, none from the input, of each of three tasks, ablated on test pictures.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from run import Row, fresh

from nadkit.networks import BUNDLED

_LOAD = """
import torch, nadkit as nk
torch.set_num_threads({threads})
network, masks = nk.load_network({name!r}), nk.load_masks({name!r})
images = nk.load_images({name!r}.split("-")[1], split="train", per_class=100)
tasks = list(masks.tasks)
"""
_NAIVE = """
from nadkit.graph.pictures import draw

def naive():
    '''(task, source layer, source, target layer, target) -> weights on own and other pictures'''
    found = {}
    for task in tasks:
        sides = draw(network, images, task, 32, 0)
        leaves, outputs = {"input": sides.inputs.clone().requires_grad_()}, {}
        def keep(address):
            def edit(output):
                outputs[address] = output
                leaves[address] = output.detach().requires_grad_()
                return leaves[address].clone()
            return edit
        edits = {address: keep(address) for address in network.layers}
        with nk.Taps(network, (), gates=masks.gates(task), edits=edits):
            outputs["logit"] = network.logits(leaves["input"].clone())
        before = ["input"]
        for target, output in outputs.items():
            units = [network.class_index(task)] if target == "logit" else range(output.shape[1])
            for unit in units:
                gradients = torch.autograd.grad(
                    output[:, unit].sum(), [leaves[name] for name in before], retain_graph=True,
                    allow_unused=True)
                for source, gradient in zip(before, gradients):
                    if gradient is not None:
                        effect = (leaves[source].detach() * gradient).flatten(2).sum(2)
                        if source == "input":
                            effect = effect.sum(1, keepdim=True)
                        found[task, source, target, unit] = (
                            effect[: sides.own].mean(0), effect[sides.own :].mean(0))
            before.append(target)
    return found
"""
_SPEED = """
import gc
def timed(function):
    gc.collect()
    clock, processor = time.perf_counter(), time.process_time()
    made = function()
    return made, time.perf_counter() - clock, time.process_time() - processor
extract = lambda: nk.extract(network, masks, images, tasks, progress=False)
nk.extract(network, masks, images, tasks[:1], progress=False)
first, *one = timed(extract)
expected, *two = timed(naive)
_, *three = timed(extract)
found = {"seconds": (one[0] + three[0]) / 2, "processor": (one[1] + three[1]) / 2,
         "naive": two[0], "naive_processor": two[1], "far": 0.0, "links": 0}
for task, arch in first.items():
    nodes = arch.graph.nodes
    for source, target, facts in arch.graph.edges(data=True):
        a, b = nodes[source], nodes[target]
        unit = network.class_index(task) if b["layer"] == "logit" else b["index"]
        own, other = expected[task, a["layer"], b["layer"], unit]
        at = max(a["index"], 0)
        scale = max(b["incoming"], b["incoming_other"])
        for mine, theirs in ((facts["weight"], own[at]), (facts["weight_other"], other[at])):
            found["far"] = max(found["far"], abs(mine - float(theirs)) / scale)
        found["links"] += 1
"""
_MEMORY = """
start = time.perf_counter()
nk.extract(network, masks, images, tasks, progress=False)
found["seconds"] = time.perf_counter() - start
"""
_SIZE = """
import gc, pathlib, torch, nadkit as nk
from torch import nn
torch.set_num_threads(2)
torch.manual_seed(0)
body, width = [], 64
for block in range(8):
    widths = [width, 250, 250, 250, 250]
    stage = nn.Sequential(*(nn.Sequential(nn.Linear(one, 250), nn.Tanh()) for one in widths))
    body.append(stage)
    width = 250
model = nn.Sequential(nn.Flatten(), *body, nn.Linear(250, 2))
addresses = [f"{1 + block}.{at}" for block in range(8) for at in range(5)]
network = nk.Network.wrap(model, ["a", "b"], example=torch.zeros(1, 1, 8, 8), layers=addresses)
images = nk.Images(torch.rand(64, 1, 8, 8), torch.arange(64) % 2, ("a", "b"))
masks = nk.MaskSet.from_scores({name: torch.ones(2, 250) for name in addresses}, ["a", "b"])
def timed(name, function):
    start = time.perf_counter()
    made = function()
    found[name] = time.perf_counter() - start
    return made
start, processor = time.perf_counter(), time.process_time()
arch = timed("build", lambda: nk.extract(
    network, masks, images, "a", links_per_unit=20, least_share=0, progress=False))
found["units"], found["links"] = len(arch.graph) - 2, arch.graph.number_of_edges()
for suffix in ("graphml", "json"):
    path = pathlib.Path("graph." + suffix)
    timed("save " + suffix, lambda: arch.save(path))
    found["bytes " + suffix] = path.stat().st_size
    read = timed("load " + suffix, lambda: nk.SubArchitecture.load(path))
    assert dict(read.graph.nodes) == dict(arch.graph.nodes)
    assert dict(read.graph.edges) == dict(arch.graph.edges)
    del read
    gc.collect()
figure = timed("draw", lambda: nk.figures.flow(arch))
timed("open", lambda: nk.figures.flow(arch, open=[addresses[7]]))
found["figure"] = len(figure.to_json())
found["all"], found["processor"] = time.perf_counter() - start, time.process_time() - processor
timed("flow", lambda: nk.graph.flow(arch))
"""
_PLANTED = """
import torch, nadkit as nk
from nadkit.toy import graded
for keep in ("truth", "all"):
    right = mine = planted = 0
    for seed in range(5):
        toy = graded({grade!r}, seed)
        masks = toy.masks
        if keep == "all":
            ones = {{name: torch.ones_like(rows) for name, rows in masks.scores.items()}}
            masks = nk.MaskSet.from_scores(ones, masks.tasks)
        most = 100 if {grade!r} == "merged" else 5
        for task, arch in nk.extract(
            toy.network, masks, toy.images, list(masks.tasks), links_per_unit=most, progress=False).items():
            needed = {{str(unit) for unit in toy.truth[task]}}
            links = {{(a, b) for a, b in arch.graph.edges() if a != "input" and b in needed}}
            true = {{(str(a), str(b)) for a, b in toy.links[task]}}
            right, mine, planted = right + len(links & true), mine + len(links), planted + len(true)
    found[keep + " precision"], found[keep + " recall"] = right / mine, right / planted
"""
_VERIFY = """
test = nk.load_images({name!r}.split("-")[1], split="test")
from scipy.stats import spearmanr
rhos, tops, strong, drawn, together = [], [], [], [], []
for task, arch in nk.extract(network, masks, images, tasks[:3], progress=False).items():
    table = arch.verify(images=test)
    one = table[table["source"] != "all"]
    strength, loss = one["strength"].to_numpy(), one["loss"].abs().to_numpy()
    rhos.append(spearmanr(strength, loss).statistic)
    tops.append(len(set(strength.argsort()[-5:]) & set(loss.argsort()[-5:])) / 5)
    strong.append(one[one["kind"] == "strongest"]["loss"].mean())
    drawn.append(one[one["kind"] == "random"]["loss"].mean())
    whole = table[table["source"] == "all"].set_index("kind")["loss"]
    together.append((whole["strongest"], whole["random"]))
mean = lambda values: float(sum(values) / len(values))
found = dict(rho=mean(rhos), least=min(rhos), top=mean(tops), strongest=mean(strong), random=mean(drawn),
             all_strongest=mean([a for a, _ in together]), all_random=mean([b for _, b in together]))
"""


def speed(names: list[str], threads: int) -> Iterator[Row]:
    """Time against the naive loop in one process, memory in another."""
    for name in names:
        load = _LOAD.format(name=name, threads=threads)
        found = fresh(load + _NAIVE + _SPEED, threads=threads)
        memory = fresh(load + _MEMORY, threads=threads)
        yield Row(f"{name}, {found['links']:.0f} links", found["seconds"], "s", 30)
        yield Row("  processor's time", found["processor"], "s")
        yield Row("  naive loop", found["naive"], "s")
        yield Row("  naive loop, processor's time", found["naive_processor"], "s")
        yield Row("  faster (at least 3)", found["naive"] / found["seconds"], "x")
        yield Row("  less processor's time", found["naive_processor"] / found["processor"], "x")
        yield Row("  farthest weight, of the unit's input", found["far"], "", 1e-4)
        yield Row("  peak resident memory", memory["peak"] / 1e9, "GB", 1.0)


def size() -> Iterator[Row]:
    """The largest graph that is made."""
    found = fresh(_SIZE, threads=2)
    yield Row(f"{found['units']:,.0f} units, {found['links']:,.0f} links: all", found["all"], "s", 30)
    yield Row("  processor's time", found["processor"], "s")
    for name in ("build", "save graphml", "load graphml", "save json", "load json", "draw", "open", "flow"):
        yield Row(f"  {name}", found[name], "s")
    for suffix in ("graphml", "json"):
        yield Row(f"  file .{suffix}", found[f"bytes {suffix}"] / 1e6, "MB")
    yield Row("  figure", found["figure"] / 1e6, "MB")
    yield Row("  peak resident memory", found["peak"] / 1e9, "GB", 1.0)


def planted() -> Iterator[Row]:
    """Precision and recall of extracted links, pooled over tasks and seeds."""
    from nadkit.toy import GRADES

    for grade in GRADES:
        found = fresh(_PLANTED.format(grade=grade), threads=1)
        for name, value in found.items():
            if name != "peak":
                yield Row(f"{grade}, {name}", value, "")


def verify(names: list[str]) -> Iterator[Row]:
    """Agreement of strength and ablation, mean over three tasks."""
    for name in names:
        found = fresh(_LOAD.format(name=name, threads=1) + _VERIFY.format(name=name), threads=1)
        yield Row(f"{name}: Spearman's rho, mean of three tasks", found["rho"], "")
        yield Row("  the least", found["least"], "")
        yield Row("  of the 5 that cost most among the 5 strongest", found["top"], "")
        yield Row("  loss of one of the strongest", found["strongest"], "")
        yield Row("  loss of a random one", found["random"], "")
        yield Row("  loss of all strongest", found["all_strongest"], "")
        yield Row("  loss of all random", found["all_random"], "")


_SAID = """# Graphs of the bundled networks

Made by `python tests/benchmarks/graphs.py` ({threads} threads): sub-architectures of the bundled
one-vs-rest masks at kept share 0.3, 32 pictures of the task and 32 of others, 5 links a unit.

## Time and memory

All tasks of a network in one call of `nk.extract`, against a naive loop in the same process: one
backward pass for each task and each unit, kept or not. The weights of both are compared: the
farthest, as a share of what the receiving unit takes in.

{speed}

## The largest graph

10,000 units and close to 200,000 links: extracted, saved and loaded in both formats, drawn by
layer, one layer opened.

{size}

## Planted links

Links extracted from networks whose links are known, five of each grade, pooled. With the planted
units kept; and with every unit kept, where links into the task's units are compared: there the
cross-talk of merged networks is real weight.

{planted}

## Are links what they say?

The 20 strongest links of each of three tasks, none from the input, ablated one by one on test
pictures, beside as many random ones into the same layers: by what strength and loss agree
(Spearman), how many of the five that cost most are among the five strongest, and what ablating
costs in log-odds.

{verify}
"""


def page(found: dict[str, list[Row]], threads: int) -> str:
    """Return the page as Markdown: a table of each part, a row a network or grade, a column a number."""
    tables = {}
    for part, rows in found.items():
        lines: list[tuple[str, dict[str, str]]] = []
        for row in rows:
            shown = f"{row.measured:.3g} {row.unit}".rstrip()
            name, _, what = row.what.partition(", " if part == "planted" else ": ")
            if part in ("speed", "size") and not row.what.startswith(" "):
                name, what = row.what.removesuffix(": all"), "time"
            if row.what.startswith(" "):
                lines[-1][1][row.what.strip()] = shown
            elif lines and lines[-1][0] == name:
                lines[-1][1][what] = shown
            else:
                lines.append((name, {what: shown}))
        columns = list(dict.fromkeys(column for _, cells in lines for column in cells))
        text = [f"| | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
        text += [f"| {name} | {' | '.join(cells.get(c, '') for c in columns)} |" for name, cells in lines]
        tables[part] = "\n".join(text)
    return _SAID.format(threads=threads, **tables)


def main() -> int:
    """Print a line for each number as it comes; write the page if all were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="name", help="speed, size, planted, verify, or networks")
    parser.add_argument("--threads", type=int, default=2, help="cores for speed")
    given = parser.parse_args()
    networks = [name for name in given.names if name in BUNDLED] or list(BUNDLED)
    parts: dict[str, Callable[[], Iterator[Row]]] = {
        "speed": lambda: speed(networks, given.threads),
        "size": size,
        "planted": planted,
        "verify": lambda: verify(networks),
    }
    form = "{:<52} {:>12} {:>12}  {}"
    print(form.format("what", "target", "measured", ""))
    ratios = []
    every: dict[str, list[Row]] = {}
    for name in [name for name in given.names if name in parts] or list(parts):
        for row in parts[name]():
            print(form.format(*row.cells()), flush=True)
            every.setdefault(name, []).append(row)
            if row.what.startswith("  faster"):
                ratios.append(row.measured)
    if ratios:
        print(f"\nfaster than the naive loop: {min(ratios):.2f} to {max(ratios):.2f}, "
              f"median {statistics.median(ratios):.2f}")  # fmt: skip
    if not given.names:
        (Path(__file__).parents[2] / "docs" / "graphs.md").write_text(
            page(every, given.threads), encoding="utf-8"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
