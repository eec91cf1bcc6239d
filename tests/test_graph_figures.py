"""Figures of graphs: marks, lines, widths and words against the graph they draw; no pixels."""

from __future__ import annotations

import copy
import itertools
import json
import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import networkx as nx
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch

from nadkit.errors import LayerError, NadkitError
from nadkit.figures import _arcs, _columns, _course, _drawn
from nadkit.figures._difference import difference
from nadkit.figures._flow import flow, layers
from nadkit.figures._river import river
from nadkit.masks import MaskSet


def add_unit(graph: nx.DiGraph, name: str, layer: str, index: int, **facts: Any) -> None:
    usual = {"score": 1.0, "activation": 1.0, "activation_other": 0.5, "response": 1.0, "response_other": 0.5,
             "incoming": 0.0, "incoming_other": 0.0, "residual": 0.0, "residual_other": 0.0,
             "carried": float(layer == "logit"), "exclusive": False, "tasks": 2}  # fmt: skip
    graph.add_node(name, layer=layer, index=index, **(usual | facts))


def add_link(graph: nx.DiGraph, source: str, target: str, weight: float) -> None:
    """The share is of what the target takes in, which must be known already."""
    share = abs(weight) / graph.nodes[target]["incoming"]
    graph.add_edge(source, target, weight=weight, weight_other=weight / 2, share=share, share_other=share,
                   sign=1 if weight > 0 else -1)  # fmt: skip


def empty_graph(units: dict[str, int], task: str = "bag", network: str = "net") -> nx.DiGraph:
    graph = nx.DiGraph(format=1, network=network, weights_id="x", task=task, threshold=0.5, links_per_unit=5,
                       layers=list(units), units=units, empty=[], own_pictures=32, other_pictures=32,
                       seed=0)  # fmt: skip
    add_unit(graph, "input", "input", -1)
    return graph


def carry(graph: nx.DiGraph) -> nx.DiGraph:
    """The same graph, with what every unit carries along the links that it has."""
    for name in reversed(list(nx.topological_sort(graph))):
        if not name.startswith("logit:"):
            graph.nodes[name]["carried"] = math.fsum(
                graph.nodes[target]["carried"] * share for _, target, share in graph.out_edges(name, "share")
            )
    return graph


def small_graph() -> nx.DiGraph:
    """Three layers: a/0, a/1 -> b/0, b/3 -> c/2 -> logit; one link leads from a past b, and one inhibits."""
    graph = empty_graph({"a": 4, "b": 8, "c": 4})
    add_unit(graph, "a/0", "a", 0, incoming=2.0, response=4.0)
    add_unit(graph, "a/1", "a", 1, incoming=1.0, response=1.0, exclusive=True, tasks=1)
    add_unit(graph, "b/0", "b", 0, incoming=10.0)
    add_unit(graph, "b/3", "b", 3, incoming=30.0, exclusive=True, tasks=1)
    add_unit(graph, "c/2", "c", 2, incoming=20.0)
    add_unit(graph, "logit:bag", "logit", -1, incoming=4.0)
    for source, target, weight in (
        ("input", "a/0", 2.0), ("input", "a/1", 1.0), ("a/0", "b/0", 5.0), ("a/1", "b/0", -2.5),
        ("a/0", "b/3", 3.0), ("a/1", "b/3", 3.0), ("b/0", "c/2", 1.8), ("b/3", "c/2", 9.0),
        ("a/1", "c/2", 0.4),
        ("c/2", "logit:bag", 3.0),
    ):  # fmt: skip
        add_link(graph, source, target, weight)
    return carry(graph)


def random_graph(
    units: dict[str, int],
    kept: Sequence[int],
    links: int,
    skips: float = 0.3,
    task: str = "bag",
    seed: int = 0,
) -> nx.DiGraph:
    """As nk.extract gives, at a real network's size."""
    draw = random.Random(seed)
    graph = empty_graph(units, task)
    columns = [["input"]]
    for (layer, count), number in zip(units.items(), kept, strict=True):
        columns.append([])
        for index in sorted(draw.sample(range(count), number)):
            own = draw.random() < 0.2
            add_unit(graph, f"{layer}/{index}", layer, index, response=draw.expovariate(1), exclusive=own)
            columns[-1].append(f"{layer}/{index}")
    add_unit(graph, f"logit:{task}", "logit", -1)
    columns.append([f"logit:{task}"])
    for at, column in enumerate(columns[1:], start=1):
        for target in column:
            sources = list(columns[at - 1])
            if at > 2 and draw.random() < skips:
                sources += columns[at - 2]
            weights = {source: draw.gauss(0.4, 1) for source in sources}
            graph.nodes[target]["incoming"] = sum(map(abs, weights.values()))
            for source in weights:
                add_link(graph, source, target, weights[source])
    carry(graph)
    for target in graph:
        strongest = sorted(graph.in_edges(target, "share"), key=lambda link: -link[2])
        graph.remove_edges_from(strongest[links:])
    return graph


RESNET = dict(zip(
    ["stem", *(f"stage{a}.{b}" for a, many in ((1, 2), (2, 3), (3, 3)) for b in range(many))],
    [24, 24, 24, 48, 48, 48, 96, 96, 96], strict=True,
))  # fmt: skip


@pytest.fixture(scope="module")
def resnet() -> nx.DiGraph:
    return random_graph(RESNET, [15, 15, 13, 19, 17, 21, 25, 17, 9], 5)


def said(figure: go.Figure) -> str:
    """The title in one line."""
    return " ".join(re.sub("<[^>]*>", " ", figure.layout.title.text).split())


def scatters(figure: go.Figure) -> list[go.Scatter]:
    return [trace for trace in figure.data if trace.type == "scatter"]


def curves(figure: go.Figure) -> list[tuple[str, list[float], list[float]]]:
    """(name of the trace, xs, ys) of every line of links."""
    found = []
    for trace in scatters(figure):
        if trace.mode == "lines" and not trace.showlegend and trace.name and re.search(r", .*%", trace.name):
            points = list(zip(trace.x, trace.y, strict=True))
            for broken, part in itertools.groupby(points, key=lambda point: point[0] is None):
                if not broken:
                    xs, ys = zip(*part, strict=True)
                    found.append((trace.name, list(xs), list(ys)))
    return found


def dots(figure: go.Figure) -> dict[str, tuple[float, float, float, str]]:
    """Unit -> (x, y, size, name of the trace)."""
    found = {}
    for trace in scatters(figure):
        if trace.mode == "markers" and trace.name not in ("links", "task and layer"):
            for x, y, size, text in zip(trace.x, trace.y, trace.marker.size, trace.text, strict=True):
                found[text.split("<br>")[0]] = (x, y, size, trace.name)
    return found


def words_of_lines(figure: go.Figure) -> list[str]:
    return list(next(trace for trace in figure.data if trace.name == "links").text)


def bars(figure: go.Figure) -> list[go.Bar]:
    return [trace for trace in figure.data if trace.type == "bar"]


# The flow of one task


def test_every_unit_is_a_dot_in_its_layers_column(resnet: nx.DiGraph) -> None:
    figure = flow(resnet)
    found = dots(figure)
    assert set(found) == set(resnet)
    names = [text.split("<br>")[0] for text in figure.layout.xaxis.ticktext]
    assert names == ["input", *RESNET, "logit"]
    for name, facts in resnet.nodes(data=True):
        assert names[round(found[name][0])] == facts["layer"]
    assert len({(x, y) for x, y, _, _ in found.values()}) == len(resnet)  # no dot hides another
    counts = [text.split("<br>")[1] for text in figure.layout.xaxis.ticktext[1:-1]]
    assert counts[0] == "15/24"
    assert counts[-1] == "9/96"


def test_every_link_is_one_curve_from_its_source_to_its_target(resnet: nx.DiGraph) -> None:
    figure = flow(resnet)
    places = {(round(x, 3), round(y, 4)): name for name, (x, y, _, _) in dots(figure).items()}
    drawn = Counter((places[xs[0], ys[0]], places[xs[-1], ys[-1]]) for _, xs, ys in curves(figure))
    assert drawn == Counter(list(resnet.edges()))


def test_width_and_dash_follow_share_and_sign() -> None:
    figure = flow(small_graph())
    widths = {
        trace.name: (trace.line.width, trace.line.dash) for trace in scatters(figure) if trace.mode == "lines"
    }
    places = {(round(x, 3), round(y, 4)): name for name, (x, y, _, _) in dots(figure).items()}
    drawn = {(places[xs[0], ys[0]], places[xs[-1], ys[-1]]): name for name, xs, ys in curves(figure)}
    assert drawn["a/0", "b/0"] == "positive, 40 % and more"  # 5 of 10
    assert drawn["a/1", "b/0"] == "negative, 20 to 40 %"  # 2.5 of 10
    assert drawn["a/0", "b/3"] == "positive, 10 to 20 %"  # 3 of 30, the bound belongs to the wider
    assert drawn["b/0", "c/2"] == "positive, 3 to 10 %"  # 1.8 of 20
    assert drawn["a/1", "c/2"] == "positive, under 3 %"  # 0.4 of 20
    order = ("under 3 %", "3 to 10 %", "10 to 20 %", "40 % and more")
    pixels = [widths[f"positive, {words}"][0] for words in order]
    assert pixels == sorted(set(pixels))
    assert widths["negative, 20 to 40 %"][1] != widths["positive, 40 % and more"][1]
    words = "a/1 → b/0<br>effect -2.5 (on other pictures -1.25)<br>25 % of the input"
    assert words in words_of_lines(figure)
    assert len(words_of_lines(figure)) == 10


def test_shared_and_exclusive_units_differ_in_colour_and_shape_and_size_is_the_response() -> None:
    figure = flow(small_graph())
    found = dots(figure)
    assert found["a/1"][3] == found["b/3"][3] == "kept by this task alone"
    assert found["a/0"][3] == found["c/2"][3] == "kept by other tasks too"
    styles = {
        trace.name: (trace.marker.color, trace.marker.symbol)
        for trace in scatters(figure)
        if trace.mode == "markers"
    }
    assert (
        len(
            {
                styles[name]
                for name in ("kept by this task alone", "kept by other tasks too", "input and logit")
            }
        )
        == 3
    )
    for at in (0, 1):
        assert styles["kept by this task alone"][at] != styles["kept by other tasks too"][at]
    assert found["a/0"][2] > found["a/1"][2]  # 4 and 1 of the layer's largest, 4
    assert found["b/0"][2] == found["b/3"][2]


def test_dots_of_a_crowded_column_are_small_and_those_of_others_are_not() -> None:
    tall = random_graph({"a": 128, "b": 128}, [90, 8], 5, skips=0)
    for _, facts in tall.nodes(data=True):
        facts["response"] = 1.0
    figure = flow(tall)
    found = dots(figure)
    inside = figure.layout.height - figure.layout.margin.t - figure.layout.margin.b
    low, high = figure.layout.yaxis.range
    for layer, most in (("a", 6.0), ("b", 15.0)):
        mine = sorted(y for name, (_, y, _, _) in found.items() if name.startswith(layer))
        apart = min(after - here for here, after in itertools.pairwise(mine)) / (high - low) * inside
        sizes = {size for name, (_, _, size, _) in found.items() if name.startswith(layer)}
        assert len(sizes) == 1
        assert max(sizes) <= min(most, max(5.5, 1.2 * apart))
    assert max(size for name, (_, _, size, _) in found.items() if name.startswith("b")) > 10


def test_a_link_that_skips_layers_passes_outside_of_their_marks(resnet: nx.DiGraph) -> None:
    figure = flow(resnet)
    heights: dict[int, list[float]] = {}
    for x, y, _, _ in dots(figure).values():
        heights.setdefault(round(x), []).append(abs(y))
    skips = [(xs, ys) for _, xs, ys in curves(figure) if xs[-1] - xs[0] > 1.5]
    place = {name: at for at, name in enumerate(["input", *RESNET, "logit"])}
    far = [place[resnet.nodes[b]["layer"]] - place[resnet.nodes[a]["layer"]] > 1 for a, b in resnet.edges()]
    assert len(skips) == sum(far) > 20
    for xs, ys in skips:
        assert xs == sorted(xs)
        for column in range(round(xs[0]) + 1, round(xs[-1])):
            before = max(at for at, x in enumerate(xs) if x <= column)
            t = (column - xs[before]) / (xs[before + 1] - xs[before])
            height = ys[before] + t * (ys[before + 1] - ys[before])
            assert abs(height) > max(heights[column]) + 0.02
    low, high = figure.layout.yaxis.range
    assert low < min(min(ys) for _, _, ys in curves(figure))
    assert high > max(max(ys) for _, _, ys in curves(figure))


def test_a_line_passes_on_the_side_where_its_ends_are_beyond_the_tallest_between() -> None:
    reach = [0.1, 0.2, 0.5, 0.3, 0.1]
    for sign in (1, -1):
        xs, ys = _arcs.curve((0.0, 0.05 * sign), (4.0, 0.02 * sign), reach)
        assert (xs[0], ys[0], xs[-1], ys[-1]) == (0, 0.05 * sign, 4, 0.02 * sign)
        beside = [(x, y) for x, y in zip(xs, ys, strict=True) if 0.75 < x < 3.25]
        assert (beside[0][0], beside[-1][0]) == (0.8, 3.2)
        assert all(y * sign > 0.5 for _, y in beside)
    xs, ys = _arcs.curve((1.0, 0.4), (2.0, -0.4), reach)
    assert ys == sorted(ys, reverse=True)
    assert (ys[0], ys[-1]) == (0.4, -0.4)


def test_units_stand_near_those_they_are_linked_with() -> None:
    graph = empty_graph({"a": 6, "b": 6})
    for layer in "ab":
        for index in range(6):
            add_unit(graph, f"{layer}/{index}", layer, index, incoming=1.0)
    add_unit(graph, "logit:bag", "logit", -1, incoming=6.0)
    for index in range(6):
        add_link(graph, "input", f"a/{index}", 1.0)
        add_link(graph, f"a/{index}", f"b/{(index * 5 + 3) % 6}", 1.0)
        add_link(graph, f"b/{index}", "logit:bag", 1.0)
    found = dots(flow(graph))
    for index in range(6):  # as each has one partner, no two of these lines need cross
        assert found[f"a/{index}"][1] == pytest.approx(found[f"b/{(index * 5 + 3) % 6}"][1])


def test_the_chain_follows_the_largest_share_from_the_logit_back() -> None:
    figure = flow(small_graph())
    assert figure.layout.meta["alt"] == (
        "Flow of bag through net, layers as columns from the input to the logit: 5 kept units (a 2 of 4, b 2 "
        "of 8, c 1 of 4), 2 of them kept by no other task; 10 links, 9 that add and 1 that take away. "
        "Strongest chain, from the logit back, with each link's share of the input: logit:bag, "
        "75 % from c/2, 45 % from b/3, 10 % from a/0, 100 % from input."
    )
    title = said(figure)
    assert title.startswith(
        "net, bag: 5 kept units (2 by this task alone), 10 links; the logit's strongest link, 75 %"
    )
    assert "is from c/2" in title
    chain = next(trace for trace in figure.data if trace.name == "strongest chain")
    found = dots(figure)
    turns = {(x, y) for x, y in zip(chain.x, chain.y, strict=True) if x is not None}
    assert {(found[name][0], found[name][1]) for name in ("input", "a/0", "b/3", "c/2", "logit:bag")} <= turns
    assert [note.text for note in figure.layout.annotations] == ["<b>0</b>", "<b>3</b>", "<b>2</b>"]


def test_the_ends_of_a_cycle_or_a_loose_unit_end_the_chain() -> None:
    graph = small_graph()
    graph.remove_edges_from(list(graph.in_edges("b/3")))
    assert "45 % from b/3. No" not in flow(graph).layout.meta["alt"]
    assert flow(graph).layout.meta["alt"].endswith("75 % from c/2, 45 % from b/3.")
    graph.add_edge("c/2", "b/3", weight=1.0, share=1.0, sign=1)
    assert flow(graph).layout.meta["alt"].endswith("75 % from c/2, 45 % from b/3.")


def test_an_object_with_a_graph_is_drawn_alike_and_not_changed() -> None:
    graph = small_graph()
    before = copy.deepcopy(graph)
    figure = flow(SimpleNamespace(graph=graph, task="bag"))
    assert figure.to_dict() == flow(graph).to_dict()
    assert dict(graph.nodes(data=True)) == dict(before.nodes(data=True))
    assert list(graph.edges(data=True)) == list(before.edges(data=True))
    assert figure.layout.width is None


def test_a_real_size_is_light(resnet: nx.DiGraph) -> None:
    darts = random_graph(
        {"stem": 24, **{f"cells.{at}": 128 for at in range(8)}}, [5, 9, 9, 14, 18, 26, 21, 44, 53], 5
    )
    full = random_graph({f"cells.{at}": 128 for at in range(6)}, [96] * 6, 5)
    tall = random_graph({f"c{at}": 128 for at in range(9)}, [20, 95, *[20] * 7], 5)
    for graph, most in ((resnet, 4e5), (darts, 5e5), (tall, 5e5), (full, 1e6)):
        figure = flow(graph)
        assert len(dots(figure)) == len(graph)
        assert len(figure.data) <= 24
        assert len(figure.to_json()) < most


# Cut flows


def test_an_empty_layer_is_where_the_flow_is_cut() -> None:
    graph = small_graph()
    graph.remove_nodes_from(["b/0", "b/3"])
    graph.remove_edge("a/1", "c/2")
    figure = flow(graph)
    assert "the flow is cut at b, where no unit is kept" in said(figure)
    assert figure.layout.meta["alt"].endswith("The flow is cut at b, where no unit is kept.")
    assert "b 0 of 8" in figure.layout.meta["alt"]
    notes = {note.text: note.x for note in figure.layout.annotations}
    assert notes["no kept unit: the flow is cut here"] == 2
    assert [(shape.x0 + shape.x1) / 2 for shape in figure.layout.shapes] == [2]


def test_an_empty_layer_that_links_pass_by_does_not_cut() -> None:
    graph = small_graph()
    graph.remove_nodes_from(["b/0", "b/3"])
    figure = flow(graph)
    assert "cut" not in figure.layout.title.text + figure.layout.meta["alt"]
    assert figure.layout.meta["alt"].endswith("No unit is kept in b; links pass by.")
    assert "no kept unit; links pass by" in [note.text for note in figure.layout.annotations]


def test_a_graph_without_a_way_through_says_so() -> None:
    graph = small_graph()
    graph.remove_edge("c/2", "logit:bag")
    words = "o chain of links leads from the input to the logit"
    assert words in flow(graph).layout.meta["alt"]
    assert words in said(flow(graph))
    nothing = empty_graph({"a": 4})
    add_unit(nothing, "logit:bag", "logit", -1)
    figure = flow(nothing)
    assert set(dots(figure)) == {"input", "logit:bag"}
    assert "0 kept units" in figure.layout.meta["alt"]


# Layers as bars


def test_layers_are_summed_as_by_hand() -> None:
    figure = flow(small_graph(), open=[])
    assert set(dots(figure)) == {"input", "logit:bag"}
    found = {
        (trace.name, round(x)): (base, base + y)
        for trace in bars(figure)
        for x, y, base in zip(trace.x, trace.y, trace.base, strict=True)
    }
    shared, own = "kept by other tasks too", "kept by this task alone"
    assert set(found) == {(shared, 1), (own, 1), (shared, 2), (own, 2), (shared, 3)}
    length = {key: top - bottom for key, (bottom, top) in found.items()}
    assert length[shared, 1] == pytest.approx(length[own, 1]) == pytest.approx(length[shared, 3])
    assert found[own, 1][1] == pytest.approx(found[shared, 1][0])  # one above the other
    texts = {text.split("<br>")[0]: text for trace in bars(figure) for text in trace.text}
    assert texts["b"] == "b<br>2 of 8 units kept<br>1 kept by other tasks too<br>1 kept by this task alone"
    lines = {text.split("<br>")[0] + text[-2:]: text.split("<br>")[1:] for text in words_of_lines(figure)}
    assert len(lines) == len(words_of_lines(figure)) - 1 == 5  # a → b once of either sign
    both = [text for text in words_of_lines(figure) if text.startswith("a → b")]
    # Layer b takes in 10 + 30; a adds 5 + 3 + 3 of it and takes away 2.5.
    assert both[0] == "a → b<br>3 links, positive<br>effect +11 (on other pictures +5.5)<br>28 % of the input"
    assert both[1] == "a → b<br>effect -2.5 (on other pictures -1.25)<br>6 % of the input"
    further = "b → c<br>2 links, positive<br>effect +10.8 (on other pictures +5.4)<br>54 % of the input"
    assert further in words_of_lines(figure)
    names = Counter(name for name, _, _ in curves(figure))
    assert names["negative, 3 to 10 %"] == 1
    assert names["positive, 20 to 40 %"] == 1
    assert "drawn by layer" in figure.layout.title.text
    assert "Drawn by layer" in figure.layout.meta["alt"]


def test_lines_lead_from_the_right_side_of_a_bar_to_the_left_of_another() -> None:
    half = _arcs.BAR / 2
    lines = curves(flow(small_graph(), open=[]))
    assert {round(xs[0] % 1, 2) for _, xs, _ in lines} == {0.0, round(half, 2)}
    assert {round(xs[-1] % 1, 2) for _, xs, _ in lines} == {0.0, round(1 - half, 2)}


def test_an_opened_layer_shows_its_units_and_the_others_stay_bars() -> None:
    figure = flow(small_graph(), open=["b"])
    assert set(dots(figure)) == {"input", "logit:bag", "b/0", "b/3"}
    assert {round(x) for trace in bars(figure) for x in trace.x} == {1, 3}
    texts = words_of_lines(figure)
    # Into a unit the share is of the unit's input, not of the layer's.
    assert "a → b/3<br>2 links, positive<br>effect +6 (on other pictures +3)<br>20 % of the input" in texts
    assert "b/3 → c<br>effect +9 (on other pictures +4.5)<br>45 % of the input" in texts
    assert "opened: b" in figure.layout.title.text
    assert flow(small_graph(), open="b").to_dict() == figure.to_dict()
    assert flow(small_graph(), open=["a", "b", "c"]).data[0].x == flow(small_graph()).data[0].x


def test_all_effect_is_in_the_sums_whatever_is_open(resnet: nx.DiGraph) -> None:
    whole = math.fsum(facts["weight"] for _, _, facts in resnet.edges(data=True))
    for opened in ([], ["stage2.1"], ["stem", "stage3.2"], None):
        made = _columns.chart(resnet, _reading(), opened)
        assert math.fsum(line.weights["weight"] for line in made.lines) == pytest.approx(whole)
        assert sum(line.count for line in made.lines) == resnet.number_of_edges()
        assert max(line.share for line in made.lines) <= 1 + 1e-9
        members = [sum(item.counts.values()) if item.counts else 1 for item in made.items.values()]
        assert sum(members) == len(resnet)


def _reading() -> _columns.Reading:
    from nadkit.figures._flow import _READING

    return _READING


def test_a_layer_with_many_units_shows_the_strongest_and_the_rest_as_one() -> None:
    graph = random_graph({"a": 400, "b": 10}, [150, 10], 3, skips=0)
    figure = flow(graph, open=["a"])
    found = dots(figure)
    drawn = [name for name in found if name.startswith("a/")]
    assert len(drawn) == _columns.MOST_OPEN
    response = {name: facts["response"] for name, facts in graph.nodes(data=True)}
    left = [name for name in graph if name.startswith("a/") and name not in drawn]
    assert min(response[name] for name in drawn) >= max(response[name] for name in left)
    rest = found["weaker units of a"]
    assert rest[0] == 1
    assert rest[3] == "weaker units, as one"
    assert rest[1] < min(found[name][1] for name in drawn)
    assert "50 weaker units of opened layers put together" in said(figure)
    assert "50 weaker units of opened layers put together" in figure.layout.meta["alt"]


def test_more_lines_than_the_limit_are_left_out_weakest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_columns, "MOST_LINKS", 7)
    graph = small_graph()
    assert len(bars(flow(graph))) == 2  # so many links are drawn by layer
    figure = flow(graph, open=["a", "b", "c"])
    assert len(curves(figure)) == 7
    assert "3 curves with the smallest shares not drawn" in said(figure)
    assert not any(text.startswith(("a/1 → c/2", "b/0 → c/2")) for text in words_of_lines(figure))


def test_ten_thousand_units_are_drawn_by_block_and_opened_on_demand() -> None:
    units = {f"layer{1 + at // 50}.{at % 50}": 100 for at in range(200)}
    graph = random_graph(units, [50] * 200, 20, skips=0)
    assert len(graph) == 10_002
    figure = flow(graph)
    names = [text.split(" · ")[0].split("<br>")[0] for text in figure.layout.xaxis.ticktext]
    assert names == ["input", "layer1", "layer2", "layer3", "layer4", "logit"]
    assert len(figure.data) <= 24
    assert len(figure.to_json()) < 1e5
    assert "drawn by block (4 columns)" in said(figure)
    inside = sum(
        graph.nodes[a]["layer"].split(".")[0] == graph.nodes[b]["layer"].split(".")[0]
        for a, b in graph.edges()
    )
    assert f"{inside:,} links within a mark not drawn" in said(figure)
    alt = figure.layout.meta["alt"]
    assert "10,000 kept units (in 200 layers, fewest" in alt
    assert len(alt) < 2000
    opened = flow(graph, open=["layer3.1"])
    assert sum(name.startswith("layer3.1/") for name in dots(opened)) == 50
    names = [text.split(" · ")[0].split("<br>")[0] for text in opened.layout.xaxis.ticktext]
    assert names == ["input", "layer1", "layer2", "layer3.0", "layer3.1", "layer3", "layer4", "logit"]
    assert len(opened.to_json()) < 1e6
    block = flow(graph, open="layer2")
    assert len(block.layout.xaxis.ticktext) == 55
    assert set(dots(block)) == {"input", "logit:bag"}
    with pytest.raises(NadkitError, match="100 layers to open; at most 60"):
        flow(graph, open=["layer2", "layer3"])


def test_a_graph_above_the_limits_is_drawn_by_layer_by_itself() -> None:
    graph = random_graph({f"conv{at}": 256 for at in range(4)}, [200] * 4, 2)
    figure = flow(graph)
    assert set(dots(figure)) == {"input", "logit:bag"}
    assert "drawn by layer" in figure.layout.title.text
    assert "open= shows the units of a layer" in said(figure)


def test_blocks_of_addresses() -> None:
    names = ["stem", "l1.0.a", "l1.0.b", "l1.1.a", "l2.0.a", "l2.0.b"]
    assert _columns.runs_of(names, (), 6) == [(name, (name,)) for name in names]
    assert [name for name, _ in _columns.runs_of(names, (), 5)] == ["stem", "l1.0", "l1.1.a", "l2.0"]
    flat = [f"features.{at}" for at in range(10)]
    found = _columns.runs_of(flat, ("features.5",), 4)
    assert [run for _, run in found] == [
        tuple(flat[:3]), tuple(flat[3:5]), ("features.5",), tuple(flat[6:9]), ("features.9",)
    ]  # fmt: skip
    assert found[0][0] == "features.0 … features.2"
    alone = _columns.runs_of(["a", "a.0", "a.1", "b.0", "c.0"], ("a",), 4)
    assert [run for _, run in alone] == [("a",), ("a.0", "a.1"), ("b.0",), ("c.0",)]
    # Every layer once, in order, whatever the limit.
    for most in range(1, 12):
        assert [layer for _, run in _columns.runs_of(flat, ("features.2",), most) for layer in run] == flat


# Names and broken inputs


def test_odd_names_are_shown_as_they_are_written() -> None:
    graph = nx.relabel_nodes(small_graph(), {"logit:bag": "logit:<b>&", "a/0": "<i>/0"})
    graph.graph.update(
        task="<b>&", network="n<s>", layers=["<i>", "b", "c"], units={"<i>": 4, "b": 8, "c": 4}
    )
    for name, facts in graph.nodes(data=True):
        facts["layer"] = "<i>" if facts["layer"] == "a" else facts["layer"]
        assert name
    for figure in (flow(graph), flow(graph, open=[])):
        text = json.dumps(figure.to_dict()["data"], default=str)
        assert "<i>" not in text
        assert "logit:<b>" not in text
        assert figure.layout.title.text.startswith("n&lt;s&gt;, &lt;b&gt;&amp;: 5 kept")
        assert figure.layout.xaxis.ticktext[1] == "&lt;i&gt;<br>2/4"
        assert figure.layout.meta["alt"].startswith("Flow of <b>& through n<s>,")
    assert "logit:&lt;b&gt;&amp;<br>" in "".join(dots(flow(graph))) + "<br>"


def broken(change: str) -> Any:
    graph = small_graph()
    if change == "no task":
        del graph.graph["task"]
    elif change == "layer":
        graph.nodes["a/0"]["layer"] = "aa"
    elif change == "index":
        del graph.nodes["a/0"]["index"]
    elif change == "share":
        del graph.edges["a/0", "b/0"]["share"]
    elif change == "nan":
        graph.edges["a/0", "b/0"]["weight"] = math.nan
    elif change == "undirected":
        return graph.to_undirected()
    elif change == "multi":
        return nx.MultiDiGraph(graph)
    elif change == "difference":
        graph.graph["kind"] = "difference"
    return graph


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("a graph", "figures.flow draws what nk.extract returns, or its graph; this is str"),
        (SimpleNamespace(graph=3), "this is SimpleNamespace"),
        (broken("undirected"), "this is Graph"),
        (broken("multi"), "this is MultiDiGraph"),
        (broken("difference"), "this graph is of two; figures.difference draws it"),
        (broken("no task"), "does not say its task"),
        (broken("layer"), "unit 'a/0' is of layer 'aa', which is none of the graph's; closest: a"),
        (broken("index"), "unit 'a/0' has index None"),
        (broken("share"), "link 'a/0' to 'b/0' has share None"),
        (broken("nan"), "link 'a/0' to 'b/0' has weight nan"),
    ],
)
def test_other_graphs_are_refused(value: Any, message: str) -> None:
    with pytest.raises(NadkitError, match=re.escape(message)):
        flow(value)


def test_layers_to_open_must_be_there_and_keep_a_unit(resnet: nx.DiGraph) -> None:
    with pytest.raises(
        LayerError, match=re.escape("no layer 'stage2.3' to open in this graph; closest: stage2.")
    ):
        flow(resnet, open=["stage2.3"])
    graph = small_graph()
    graph.remove_nodes_from(["b/0", "b/3"])
    with pytest.raises(LayerError, match="layer 'b' keeps no unit in this graph"):
        flow(graph, open=["b"])


# Two overlaid


def overlaid(a: nx.DiGraph, b: nx.DiGraph) -> nx.DiGraph:
    """The graph of nk.graph.diff, by the contract."""
    graph = nx.DiGraph(format=1, kind="difference", network=a.graph["network"], first=a.graph["task"],
                       second=b.graph["task"], layers=a.graph["layers"], units=a.graph["units"])  # fmt: skip

    def joined(mine: dict[str, Any] | None, theirs: dict[str, Any] | None) -> dict[str, Any]:
        found: dict[str, Any] = {"where": "both" if mine and theirs else "first" if mine else "second"}
        for facts, end in ((mine, "first"), (theirs, "second")):
            for key, value in (facts or {}).items():
                found[key if key in ("layer", "index") else f"{key}_{end}"] = value
        return found

    for name in {**a.nodes, **b.nodes}:
        graph.add_node(name, **joined(a.nodes.get(name), b.nodes.get(name)))
    for edge in {**a.edges, **b.edges}:
        graph.add_edge(*edge, **joined(a.edges.get(edge), b.edges.get(edge)))
    return graph


def coat_graph() -> nx.DiGraph:
    """As `small_graph`, but another logit, b/5 in place of b/3, and a/0 -> b/0 weaker."""
    graph = nx.relabel_nodes(small_graph(), {"logit:bag": "logit:coat", "b/3": "b/5"})
    graph.graph["task"] = "coat"
    graph.nodes["b/5"]["index"] = 5
    graph.edges["a/0", "b/0"].update(weight=2.0, share=0.2)
    return carry(graph)


def test_units_and_links_of_both_and_of_one_only_are_told_apart() -> None:
    graph = overlaid(small_graph(), coat_graph())
    figure = difference(graph)
    found = dots(figure)
    assert set(found) == set(graph)
    assert found["a/0"][3] == "units, both: 4"
    assert found["b/3"][3] == "units, bag only: 1"
    assert found["b/5"][3] == "units, coat only: 1"
    assert found["b/3"][1] > found["b/0"][1] > found["b/5"][1]
    kinds = Counter(name.split(",")[0] for name, _, _ in curves(figure))
    assert kinds == Counter(facts["where"] for _, _, facts in graph.edges(data=True))
    assert kinds == {"both": 6, "first": 4, "second": 4}
    legend = [
        trace.name for trace in figure.data if trace.showlegend is not False and trace.legend != "legend2"
    ]
    assert legend[:3] == ["links, bag only: 4", "links, both: 6", "links, coat only: 4"]
    looks = [
        (trace.marker.color, trace.marker.symbol)
        for trace in figure.data
        if (trace.name or "").startswith("units")
    ]
    assert len({colour for colour, _ in looks}) == len({symbol for _, symbol in looks}) == 3
    title = figure.layout.title.text
    assert title == "net: bag and coat share 4 of 6 kept units and 6 of 14 links"
    assert figure.layout.meta["alt"] == (
        "bag and coat in net overlaid, layers as columns from the input to the logits. Units: 4 in both, 1 "
        "in bag only, 1 in coat only. Links: 6 in both, 4 in bag only, 4 in coat only. Units by layer (both, "
        "bag only, coat only): a 2, 0, 0; b 1, 1, 1; c 1, 0, 0."
    )
    assert {note.text for note in figure.layout.annotations} == {"bag", "coat"}


def test_a_link_in_both_is_as_wide_as_the_larger_share_and_says_both() -> None:
    figure = difference(overlaid(small_graph(), coat_graph()))
    places = {(round(x, 3), round(y, 4)): name for name, (x, y, _, _) in dots(figure).items()}
    drawn = {(places[xs[0], ys[0]], places[xs[-1], ys[-1]]): name for name, xs, ys in curves(figure)}
    assert drawn["a/0", "b/0"] == "both, 40 % and more"  # 0.5 and 0.2
    text = next(text for text in words_of_lines(figure) if text.startswith("a/0 → b/0"))
    assert text.split("<br>")[1:] == ["bag: effect +5 (on other pictures +2.5)",
                                      "coat: effect +2 (on other pictures +2.5)",
                                      "50 % of the input"]  # fmt: skip
    swapped = difference(overlaid(coat_graph(), small_graph()))
    assert (
        Counter(name for name, _, _ in curves(swapped))["both, 40 % and more"]
        == Counter(name for name, _, _ in curves(figure))["both, 40 % and more"]
    )


def test_two_overlaid_are_summed_by_layer_too() -> None:
    figure = difference(overlaid(small_graph(), coat_graph()), open=[])
    assert set(dots(figure)) == {"input", "logit:bag", "logit:coat"}
    assert {trace.name for trace in bars(figure)} == {
        "units, both: 4",
        "units, bag only: 1",
        "units, coat only: 1",
    }
    texts = [text for text in words_of_lines(figure) if text.startswith("a → b")]
    # In both a/0 and a/1 -> b/0: 7.5 of the 40 that bag's b takes in, 4.5 of coat's 40. In one only 6 of 40.
    assert sorted(text.split("<br>")[-1] for text in texts) == [
        "15 % of the input",
        "15 % of the input",
        "19 % of the input",
    ]


def test_a_graph_that_is_no_difference_is_refused() -> None:
    with pytest.raises(NadkitError, match=re.escape("this graph is of one task; figures.flow draws it")):
        difference(small_graph())
    with pytest.raises(NadkitError, match="this is str"):
        difference("a")
    graph = overlaid(small_graph(), coat_graph())
    graph.edges["a/0", "b/0"]["where"] = "neither"
    with pytest.raises(NadkitError, match=re.escape("a/0 → b/0 is in 'neither'")):
        difference(graph)
    graph = overlaid(small_graph(), coat_graph())
    del graph.edges["a/0", "b/3"]["share_first"]
    with pytest.raises(NadkitError, match="has share_first None"):
        difference(graph)


def test_task_names_in_a_difference_are_shown_as_they_are_written() -> None:
    graph = overlaid(small_graph(), coat_graph())
    graph.graph.update(first="<b>&", second="<i>")
    text = json.dumps(difference(graph).to_dict()["data"], default=str)
    assert "<b>&" not in text
    assert "<i>" not in text
    assert "units, &lt;b&gt;&amp; only: 1" in text


# Layers


def test_layers_and_their_skips() -> None:
    graph = nx.DiGraph(layers=["a", "b", "c#2"], network="net")
    graph.add_edges_from(
        [("input", "a"), ("a", "b"), ("b", "c#2"), ("c#2", "output"), ("a", "c#2"), ("input", "c#2")]
    )
    figure = layers(graph)
    assert list(figure.layout.xaxis.ticktext) == ["input", "a", "b", "c#2", "output"]
    assert [text.split("<br>")[0] for text in words_of_lines(figure)] == [
        "input → a", "input → c#2", "a → b", "a → c#2", "b → c#2", "c#2 → output"
    ]  # fmt: skip
    heights = {(xs[0], xs[-1]): max(ys) for _, xs, ys in curves(figure)}
    assert heights[0, 1] == heights[1, 2] == 0
    assert 0 < heights[1, 3] < heights[0, 3]
    assert figure.layout.title.text.startswith("net: 3 layers, 6 links, 2 of them past at least one layer")
    assert "Skips: input to c#2, a to c#2." in figure.layout.meta["alt"]
    lonely = nx.DiGraph([("input", "output")], layers=["a"])
    assert layers(lonely).layout.meta["alt"].endswith("Without links: a.")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("a", "this is str"),
        (nx.DiGraph(), "this is DiGraph"),
        (small_graph(), "this is one of units"),
        (overlaid(small_graph(), coat_graph()), "this is one of units"),
        (nx.DiGraph([("input", "b")], layers=["a"]), "layer 'b' is in the graph, but not in its list"),
    ],
)
def test_other_things_are_no_layers(value: Any, message: str) -> None:
    with pytest.raises(NadkitError, match=message):
        layers(value)


# The river


def masks_of(rows: dict[str, list[list[int]]], tasks: Sequence[str]) -> MaskSet:
    scores = {layer: torch.tensor(kept, dtype=torch.float32) for layer, kept in rows.items()}
    return MaskSet.from_scores(scores, tasks)


def parting() -> MaskSet:
    """In "a" bag and coat are equal, hat the opposite; in "b" bag and coat share by chance, hat is empty."""
    return masks_of(
        {
            "a": [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]],
            "b": [[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]],
        },
        ["bag", "coat", "hat"],
    )


def lines_of(figure: go.Figure, layer: int) -> dict[str, float | None]:
    return {
        trace.name: next(y for x, y in zip(trace.x, trace.y, strict=True) if x == layer)
        for trace in scatters(figure)
        if trace.mode == "lines" and trace.name != "to the names"
    }


def test_neighbours_are_one_less_phi_apart() -> None:
    figure = river(parting().overlap())
    first = lines_of(figure, 0)
    order = sorted(first, key=lambda name: -first[name])
    assert order in (["coat", "bag", "hat"], ["bag", "coat", "hat"])
    assert abs(first["bag"] - first["coat"]) == pytest.approx(_course.BREATH)  # phi = 1
    assert first[order[1]] - first["hat"] == pytest.approx(1)  # phi = -1 is drawn as 0
    second = lines_of(figure, 1)
    assert abs(second["bag"] - second["coat"]) == pytest.approx(1)  # phi = 0
    assert second["hat"] is None
    assert sum(first.values()) != 0
    assert max(first.values()) == pytest.approx(-min(first.values()))


def test_all_distances_are_those_of_the_table() -> None:
    draw = torch.Generator().manual_seed(0)
    scores = {layer: torch.rand(7, 40, generator=draw) for layer in ("a", "b", "c")}
    table = MaskSet.from_scores(scores, [f"t{at}" for at in range(7)]).overlap()
    figure = river(table)
    phi = {}
    for one, other, layer, value in table[["task", "other_task", "layer", "phi"]].itertuples(index=False):
        phi[one, other, layer] = phi[other, one, layer] = value
    orders = []
    for at, layer in enumerate("abc"):
        heights = lines_of(figure, at)
        order = sorted(heights, key=lambda name: -heights[name])
        orders.append(order)
        for above, below in itertools.pairwise(order):
            apart = max(1 - max(phi[above, below, layer], 0), _course.BREATH)
            assert heights[above] - heights[below] == pytest.approx(apart, abs=2e-4)
    assert orders[0] == orders[1] == orders[2]  # lines never cross


def test_tasks_alike_are_neighbours() -> None:
    draw = torch.Generator().manual_seed(0)
    groups = torch.rand(3, 60, generator=draw)
    rows = groups.repeat(3, 1) + 0.2 * torch.rand(9, 60, generator=draw)  # task t is of group t % 3
    table = MaskSet.from_scores({"a": rows / 1.2}, [str(at) for at in range(9)]).overlap(threshold=0.5)
    heights = lines_of(river(table), 0)
    kinds = [int(name) % 3 for name in sorted(heights, key=lambda name: -heights[name])]
    assert len([kind for kind, _ in itertools.groupby(kinds)]) == 3


def test_the_words_of_the_river() -> None:
    figure = river(parting().overlap())
    title = said(figure)
    # In a the three phi are 1, -1, -1; in b only bag and coat have one, 0. Over layers (1 + 0) / 2.
    assert "3 tasks run together with depth: mean φ -0.33 in a, 0.00 in b; closest" in title
    assert "0.50" in title
    alt = figure.layout.meta["alt"]
    assert "Mean φ of all pairs: a -0.33, b 0.00." in alt
    assert "Broken, without φ: hat in b (keeps none)." in alt
    assert "(1 place)" in title
    words = next(trace for trace in figure.data if trace.name == "task and layer").text
    assert len(words) == 5  # three tasks in a, two in b
    assert any("hat<br>a: keeps 2 of 4 units<br>φ with" in text for text in words)
    whole = masks_of({"a": [[1, 0], [1, 1]]}, ["bag", "coat"])
    alt = river(whole.overlap()).layout.meta["alt"]
    assert "coat in a (keeps all)" in alt
    assert "a no value" in alt
    apart = masks_of({"a": [[1, 0], [1, 0]], "b": [[1, 0], [0, 1]]}, ["bag", "coat"])
    assert "2 tasks part with depth: mean φ 1.00 in a, -1.00 in b" in river(apart.overlap()).layout.title.text


def test_names_never_overlap() -> None:
    same = masks_of({"a": [[1, 1, 0, 0]] * 30}, [f"task {at}" for at in range(30)])
    draw = torch.Generator().manual_seed(0)
    rows = torch.cat([(torch.arange(40) < 20).float().repeat(25, 1), torch.rand(5, 40, generator=draw)])
    crowd = MaskSet.from_scores({"a": rows}, [f"task {at}" for at in range(30)])  # 25 alike beside 5
    for table in (same.overlap(), crowd.overlap(), parting().overlap()):
        figure = river(table)
        notes = [note for note in figure.layout.annotations if "●" in note.text]
        inside = figure.layout.height - figure.layout.margin.t - figure.layout.margin.b
        low, high = figure.layout.yaxis.range
        pixels = sorted((note.y - low) / (high - low) * inside for note in notes)
        assert len(notes) == len(set(table["task"]) | set(table["other_task"]))
        assert min(b - a for a, b in itertools.pairwise(pixels)) >= 15
        assert pixels[0] >= 5
        assert pixels[-1] <= inside - 5


def test_names_are_moved_no_farther_than_needed() -> None:
    assert _course.spread([5.0, 3.0, 1.0], 1.0) == [5.0, 3.0, 1.0]
    assert _course.spread([2.0, 2.0, 2.0], 1.0) == [3.0, 2.0, 1.0]
    assert _course.spread([9.0, 2.0, 2.0], 1.0) == [9.0, 2.5, 1.5]
    draw = random.Random(0)
    for _ in range(50):
        wanted = sorted((draw.uniform(0, 5) for _ in range(8)), reverse=True)
        found = _course.spread(wanted, 0.5)
        assert all(a - b >= 0.5 - 1e-9 for a, b in itertools.pairwise(found))
        assert sum(found) == pytest.approx(sum(wanted))


def test_many_tasks_are_few_traces_without_names() -> None:
    draw = torch.Generator().manual_seed(0)
    scores = {layer: torch.rand(60, 40, generator=draw) for layer in ("a", "b")}
    table = MaskSet.from_scores(scores, [f"t{at}" for at in range(60)]).overlap()
    figure = river(table)
    assert len(figure.data) <= 40
    assert not [note for note in figure.layout.annotations if "●" in note.text]
    assert "task names on hover" in said(figure)
    assert len(next(trace for trace in figure.data if trace.name == "task and layer").x) == 120
    lines = sum(list(trace.x).count(0) for trace in scatters(figure) if trace.mode == "lines")
    assert lines == 60
    assert len(figure.layout.meta["alt"]) < 2000


def test_lines_are_told_apart_by_colour_and_dash() -> None:
    draw = torch.Generator().manual_seed(0)
    tasks = [f"t{at}" for at in range(30)]
    figure = river(MaskSet.from_scores({"a": torch.rand(30, 40, generator=draw)}, tasks).overlap())
    styles = [(trace.line.color, trace.line.dash) for trace in figure.data if trace.name in tasks]
    assert len(set(styles)) == 30
    for (colour, dash), (other, further) in itertools.pairwise(styles):
        assert colour != other
        assert dash != further


def test_the_table_of_the_river_is_not_changed_and_names_are_escaped() -> None:
    masks = masks_of({"<u>": [[1, 0, 0], [0, 1, 0]]}, ["<b>&", "coat"])
    table = masks.overlap()
    before = table.copy()
    figure = river(table)
    pd.testing.assert_frame_equal(table, before)
    assert "&lt;b&gt;&amp;" in "".join(note.text for note in figure.layout.annotations)
    assert list(figure.layout.xaxis.ticktext) == ["&lt;u&gt;"]
    assert "<b>" not in json.dumps(figure.to_dict()["data"], default=str)


def bad_table(change: str) -> Any:
    table = parting().overlap()
    if change == "column":
        return table.drop(columns="phi")
    if change == "pair":
        return table.iloc[1:]
    if change == "other":
        return parting().overlap(other=parting())
    return table.iloc[:0]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (bad_table("column"), "no column phi"),
        (bad_table("empty"), "no row: it takes at least two tasks"),
        (bad_table("pair"), "in layer a 2 rows are of 2 of 3 pairs"),
        (bad_table("other"), "in layer a 9 rows are of 6 of 3 pairs"),
        ("a", "no column task"),
    ],
)
def test_other_tables_are_no_river(table: Any, message: str) -> None:
    with pytest.raises(NadkitError, match=re.escape(message)):
        river(table)


def test_the_width_of_a_share() -> None:
    bounds = [width.least for width in _drawn.WIDTHS]
    assert bounds == sorted(bounds)
    for at, least in enumerate(bounds):
        assert _drawn.width_of(least) == at
    assert _drawn.width_of(1.0) == len(bounds) - 1
