"""A figure of every kind as readers meet it: ten tasks, nine layers, all conditions, names of real length."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import networkx as nx
import pandas as pd
import torch

from nadkit import figures
from nadkit.masks import MaskSet

if TYPE_CHECKING:
    import plotly.graph_objects as go

TASKS = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
LAYERS = ("stem", *(f"stage{a}.{b}" for a, many in ((1, 2), (2, 3), (3, 3)) for b in range(many)))
NETWORK = "densenet-fashion"


def table_of(rows: list[dict[str, Any]], **every: Any) -> pd.DataFrame:
    """A table of facts with a value and an interval each, drawn from a fixed seed."""
    draw = random.Random(0)
    usual = {"network": NETWORK, "task": "mean", "other_task": None, "condition": "kept", "layer": "all",
             "interval": "images", "seed": None, "n": 200, **every}  # fmt: skip
    made = []
    for row in rows:
        value = row.get("value", draw.uniform(0.45, 0.98))
        made.append({**usual, "low": value - 0.05, "high": value + 0.02, **row, "value": value})
    return pd.DataFrame(made)


def rows_of(**columns: Any) -> list[dict[str, Any]]:
    """A row for every combination of the columns' values."""
    parts = [[value] if isinstance(value, str | float) else list(value) for value in columns.values()]
    return [dict(zip(columns, combination, strict=True)) for combination in itertools.product(*parts)]


def answers() -> Iterator[tuple[str, go.Figure]]:
    """The figures of `whether`, `where` and `why`."""
    judged = "balanced_accuracy_calibrated"
    learned = ("kept", "random", "relabelled", "shared", "last_layer")
    every = ("whole", *learned[:-1], "removed", "untrained")
    yield "whether", figures.whether(table_of(rows_of(task=("mean", *TASKS), condition=every, metric=judged)))
    rows = rows_of(condition=learned, share=(0.05, 0.1, 0.2, 0.3, 0.5, 0.7), metric=judged)
    alone = [
        {"share": None, "metric": judged, "condition": "whole", "value": 0.98},
        {"share": None, "metric": "smallest_share", "value": 0.5},
    ]
    yield "curve", figures.curve(table_of([*rows, *alone]))
    yield "matrix", figures.matrix(table_of(rows_of(task=TASKS, other_task=TASKS, metric="accepted")))
    doses = ("1 %", "2 %", "5 %", "10 %", "20 %", "kept", "exclusive")
    drops = rows_of(
        condition=("removed", "removed_random"), dose=doses, metric=("drop_own", "drop_others"), value=3.0
    )
    shares = rows_of(condition="removed", dose=doses[-2:], metric="removed_share", value=0.023)
    yield "necessity", figures.necessity(table_of([*drops, *shares]))
    rows = rows_of(
        condition=("ceiling", "kept", "counterfactual", "other", "random", "whole", "area"), layer=LAYERS,
        metric=("hit_rate", "evidence_share"),
    )  # fmt: skip
    rho = [{"metric": "hit_rate_spearman", "value": 0.98}]
    yield "where", figures.where(table_of([*rows, *rho]))
    near = ("overlap", "jaccard", "classifier_weights", "mean_features", "mean_confusions")
    rows = rows_of(condition=near, metric=("top_share", "auc_centred"))
    rows += rows_of(condition=near, metric=("p_value",), value=0.005)
    rows += [{"condition": name, "metric": "top_share_chance", "value": 1 / 3, "n": 9} for name in near]
    yield "why", figures.why(table_of(rows, task="all"))
    whole = [{"condition": "whole", "metric": "margin", "value": -4.0, "layer": None, "unit": None}]
    kinds = (("kept", "silent", -3.0), ("kept", "active", 3.0), ("removed", "margin", 3.0))
    units = [
        {"condition": name, "metric": metric, "layer": LAYERS[-1 - at], "unit": 90 + at, "value": value}
        for name, metric, value in kinds
        for at in range(8)
    ]
    ends = [
        {"condition": "removed", "metric": "flipped", "value": 1.0, "n": 8},
        {"condition": "removed_random", "metric": "flipped", "value": 0.02},
        {"condition": "removed_random", "metric": "found", "value": 0.03},
    ]
    yield (
        "why, one picture",
        figures.why(table_of([*whole, *units, *ends], task="ankle boot", other_task="pullover")),
    )


def comparisons() -> Iterator[tuple[str, go.Figure]]:
    """The figures of `how`, `stability` and `recovery`."""
    pairs = [
        {"task": one, "other_task": other, "metric": "phi"} for one, other in itertools.combinations(TASKS, 2)
    ]
    mean = [{"other_task": "mean", "metric": "phi", "value": 0.2}]
    kinds = ("unused", "exclusive", "some", "all")
    units = rows_of(task="all", layer=LAYERS, metric=kinds, value=0.25)
    yield "how", figures.how(table_of([*pairs, *mean, *units]))
    names = [f"{family}-fashion-{at}" for family in ("vgg", "resnet", "densenet", "darts") for at in range(3)]
    lines = rows_of(network=names, layer=(*LAYERS, "all"), metric=("phi", "exclusive_excess"))
    words = "999 permutations of the networks, each among those trained alike, of 9 to 12 layers each"
    test = [{"network": "all", "metric": "phi_families_p", "value": 0.001, "interval": words}]
    yield "how, several networks", figures.how(table_of([*lines, *test]))
    rows = rows_of(task=("mean", *TASKS), layer=(*LAYERS, "all"), metric=("phi_same", "phi_other"))
    yield "stability", figures.stability(table_of(rows))
    grades = [f"{kind}-{level}" for kind in ("plain", "residual", "concat") for level in ("easy", "hard")]
    methods = (
        "one-vs-rest-bounded",
        "one-vs-rest",
        "integrated-gradients",
        "gradient-x-activation",
        "random",
    )
    rows = rows_of(network=grades, condition=methods, metric=("average_precision", "f1"))
    yield "recovery", figures.recovery(table_of(rows, interval="tasks and seeds"))


def graph_of(task: str) -> nx.DiGraph:
    """A graph as `nk.extract` gives it: six units in each of nine layers, every link to the next."""
    units = dict.fromkeys(LAYERS, 24)
    graph = nx.DiGraph(network=NETWORK, task=task, layers=list(LAYERS), units=units)
    columns = [["input"], *([f"{layer}/{at}" for at in range(6)] for layer in LAYERS), [f"logit:{task}"]]
    for layer, names in zip(("input", *LAYERS, "logit"), columns, strict=True):
        for at, name in enumerate(names):
            index = at if layer in LAYERS else -1
            graph.add_node(name, layer=layer, index=index, response=1.0 + at, incoming=1.0, exclusive=at == 5)
    for ones, others in itertools.pairwise(columns):
        for (at, one), other in itertools.product(enumerate(ones), others):
            share = (0.5, 0.3, 0.15, 0.05, 0.01, 0.01)[at] if len(ones) > 1 else 1.0
            graph.add_edge(one, other, weight=share * (-1) ** at, share=share, sign=(-1) ** at)
    return graph


def difference_of(first: str, second: str) -> nx.DiGraph:
    """Two graphs overlaid as `nk.graph.diff` gives them."""
    graph = graph_of(first)
    graph.add_node(f"logit:{second}", layer="logit", index=-1)
    for facts in graph.nodes.values():
        facts["where"] = ("both", "first", "second")[max(facts["index"], 0) % 3]
    for one, _, facts in graph.edges(data=True):
        facts["where"] = graph.nodes[one]["where"]
        facts["weight_first"] = facts["weight_second"] = facts["weight"]
        facts["share_first"] = facts["share_second"] = facts["share"]
    graph.graph.update(kind="difference", first=first, second=second)
    return graph


def graphs() -> Iterator[tuple[str, go.Figure]]:
    """The figures of graphs, masks and pictures."""
    yield "flow", figures.flow(graph_of("ankle boot"))
    yield "flow by layer", figures.flow(graph_of("ankle boot"), open=LAYERS[-1])
    yield "difference", figures.difference(difference_of("ankle boot", "sneaker"))
    chain = ["input", *LAYERS, "output"]
    links = [*itertools.pairwise(chain), *zip(chain, chain[3:], strict=False)]
    yield "layers", figures.layers(nx.DiGraph(links, layers=list(LAYERS), network=NETWORK))
    draw = torch.Generator().manual_seed(0)
    scores = {layer: torch.rand(len(TASKS), 24, generator=draw) for layer in LAYERS}
    yield "river", figures.river(MaskSet.from_scores(scores, list(TASKS)).overlap())
    for name, other in (("units", ""), ("units of two", "sneaker")):
        rows = [
            {"network": NETWORK, "task": "ankle boot", "other_task": other, "layer": layer, "index": at,
             "score": 0.5, "kept": at % 3 == 0, "other_kept": at % 2 == 0, "tasks": 2, "exclusive": at == 3}
            for layer in LAYERS for at in range(48)
        ]  # fmt: skip
        yield name, figures.units(pd.DataFrame(rows), unit=f"{LAYERS[-1]}/47")
    images = SimpleNamespace(
        pixels=torch.rand(10, 1, 28, 28), labels=torch.arange(10), class_names=list(TASKS)
    )
    yield "pictures", figures.pictures(images, columns=5)


def drawings() -> dict[str, go.Figure]:
    """Every figure by what it shows."""
    return dict(itertools.chain(answers(), comparisons(), graphs()))
