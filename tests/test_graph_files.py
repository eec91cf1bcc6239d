"""Graphs in files and tables: what went in comes out, and what is no graph is refused with its reason."""

from __future__ import annotations

import copy
import io
import json
import random
import re
import tempfile
from pathlib import Path
from typing import Any

import networkx as nx
import pandas as pd
import pytest
from hand import make_images, make_masks, make_network
from hypothesis import given, settings
from hypothesis import strategies as st
from test_graph_figures import coat_graph, small_graph

import nadkit as nk
from nadkit.errors import NadkitError
from nadkit.graph import SubArchitecture, checks, files

SUFFIXES = (".graphml", ".json")


def same(one: nx.DiGraph, other: nx.DiGraph) -> bool:
    """Equal units, links and attributes, types and the order of units included."""
    return (
        type(one) is type(other)
        and one.graph == other.graph
        and list(one.graph["units"]) == list(other.graph["units"])
        and repr(list(one.nodes(data=True))) == repr(list(other.nodes(data=True)))
        and {(a, b): repr(facts) for a, b, facts in one.edges(data=True)}
        == {(a, b): repr(facts) for a, b, facts in other.edges(data=True)}
    )


def renamed(layers: list[str], task: str, network: str) -> nx.DiGraph:
    """The small graph with other names."""
    graph = small_graph()
    new = dict(zip(graph.graph["layers"], layers, strict=True))
    names = {
        node: f"{new[facts['layer']]}/{facts['index']}" if facts["layer"] in new else node
        for node, facts in graph.nodes(data=True)
    }
    graph = nx.relabel_nodes(graph, {**names, "logit:bag": f"logit:{task}"})
    for _, facts in graph.nodes(data=True):
        facts["layer"] = new.get(facts["layer"], facts["layer"])
    units = {new[name]: count for name, count in graph.graph["units"].items()}
    graph.graph.update(layers=layers, units=units, task=task, network=network)
    return graph


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_real_graph_comes_back_as_it_was(suffix: str, tmp_path: Path) -> None:
    network, images, masks = make_network(), make_images([5, 6, 7, 8], 0), make_masks(0, meta={"seed": 2})
    arch = nk.extract(network, masks, images, "coat", progress=False)
    path = arch.save(tmp_path / f"coat{suffix}")
    assert path == tmp_path / f"coat{suffix}"
    read = nk.SubArchitecture.load(path)
    assert same(read.graph, arch.graph)
    assert read.graph.graph["mask_seed"] == 2
    assert read.origin is None
    assert arch.origin is not None
    assert [one.name for one in tmp_path.iterdir()] == [path.name]  # no part is left over
    assert read.save(tmp_path / f"again{suffix}").read_bytes() == path.read_bytes()


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)
ANY_NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


@settings(deadline=None, max_examples=60)
@given(
    layers=st.lists(
        NAMES.filter(lambda name: name not in ("input", "logit")), min_size=3, max_size=3, unique=True
    ),
    task=NAMES,
    network=NAMES,
    number=st.floats(allow_nan=False, allow_infinity=False),
)
def test_any_names_and_numbers_come_back(layers: list[str], task: str, network: str, number: float) -> None:
    graph = renamed(layers, task, network)
    graph.edges["input", f"{layers[0]}/0"]["weight"] = number
    graph.nodes["input"]["response"] = number
    arch = SubArchitecture(graph)
    with tempfile.TemporaryDirectory() as folder:
        for suffix in SUFFIXES:
            assert same(SubArchitecture.load(arch.save(Path(folder) / f"a{suffix}")).graph, graph)
    assert same(SubArchitecture.from_frames(arch.units, arch.links).graph, graph)


@pytest.mark.parametrize(
    "name", ["a\nb", "a\tb", "a\rb", "a  b", " a ", "<a & 'b'>", 'a"b', "]]>", "ä\u2028", "\U0001f600"]
)
def test_white_space_and_signs_of_xml_come_back(name: str, tmp_path: Path) -> None:
    graph = renamed([name, "b", "c"], name, name)
    for suffix in SUFFIXES:
        assert same(SubArchitecture.load(SubArchitecture(graph).save(tmp_path / f"a{suffix}")).graph, graph)


@settings(deadline=None, max_examples=30)
@given(task=ANY_NAMES)
def test_a_name_that_xml_cannot_hold_is_refused_or_comes_back(task: str) -> None:
    graph = renamed(["a", "b", "c"], task, "net")
    with tempfile.TemporaryDirectory() as folder:
        assert same(SubArchitecture.load(SubArchitecture(graph).save(Path(folder) / "a.json")).graph, graph)
        path = Path(folder) / "a.graphml"
        if re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", task):
            with pytest.raises(NadkitError, match=r"which XML does not have; save it as \.json"):
                SubArchitecture(graph).save(path)
            assert not path.exists()
        else:
            assert same(SubArchitecture.load(SubArchitecture(graph).save(path)).graph, graph)


def test_networkx_reads_the_files_too(tmp_path: Path) -> None:
    graph = small_graph()
    read = nx.read_graphml(SubArchitecture(graph).save(tmp_path / "a.graphml"))
    assert dict(read.nodes(data=True)) == dict(graph.nodes(data=True))
    assert {(a, b): facts for a, b, facts in read.edges(data=True)} == dict(graph.edges)
    assert json.loads(read.graph["units"]) == graph.graph["units"]
    assert read.graph["threshold"] == 0.5
    given = json.loads(SubArchitecture(graph).save(tmp_path / "a.json").read_text())
    assert same(nx.node_link_graph(given, edges="links"), graph)


def test_graphml_that_networkx_wrote_is_read(tmp_path: Path) -> None:
    """Another writer's keys and layout; its graph attributes must be texts."""
    graph = small_graph()
    plain = graph.copy()
    for name in ("layers", "units", "empty"):
        plain.graph[name] = json.dumps(graph.graph[name])
    nx.write_graphml(plain, tmp_path / "a.graphml")
    assert same(SubArchitecture.load(tmp_path / "a.graphml").graph, graph)


# Tables


def test_tables_come_back_through_a_text_file() -> None:
    arch = SubArchitecture(small_graph())
    units, links = (pd.read_csv(io.StringIO(table.to_csv(index=False))) for table in (arch.units, arch.links))
    with pytest.raises(NadkitError, match=r"as attrs get lost in files; give facts=arch\.graph\.graph"):
        SubArchitecture.from_frames(units, links)
    assert same(SubArchitecture.from_frames(units, links, arch.graph.graph).graph, arch.graph)
    shuffled = links.sample(frac=1, random_state=0)
    assert set(SubArchitecture.from_frames(units, shuffled, arch.graph.graph).graph.edges) == set(
        arch.graph.edges
    )


def test_a_graph_without_links_has_tables(tmp_path: Path) -> None:
    graph = small_graph()
    graph.remove_edges_from(list(graph.edges))
    arch = SubArchitecture(graph)
    assert list(arch.links) == list(SubArchitecture(small_graph()).links)
    assert same(SubArchitecture.from_frames(arch.units, arch.links).graph, graph)
    assert same(SubArchitecture.load(arch.save(tmp_path / "a.graphml")).graph, graph)


@pytest.mark.parametrize(
    ("which", "change", "message"),
    [
        ("units", {"score": None}, "no column score"),
        ("links", {"weight": "much"}, "the column weight of the table of links holds what is no float"),
        ("links", {"weight": float("nan")}, "its weight is nan"),
        ("units", {"index": 1.5}, "the column index of the table of units holds what is no int"),
        ("units", {"exclusive": "False"}, "the column exclusive of the table of units holds what is no bool"),
        ("units", {"unit": "a/0"}, "has 'a/0' twice"),
        ("links", {"target": "b/7"}, "the table of links has 'b/7', which the table of units does not"),
        ("links", {"source": "a/0", "target": "b/0"}, "has 'a/0' to 'b/0' twice"),
        ("units", {"layer": "d"}, "is said to be unit"),
    ],
)
def test_tables_of_something_else_are_refused(which: str, change: dict[str, Any], message: str) -> None:
    arch = SubArchitecture(small_graph())
    tables = {"units": arch.units, "links": arch.links}
    for column, value in change.items():
        if value is None:
            tables[which] = tables[which].drop(columns=column)
        else:
            tables[which][column] = value
    with pytest.raises(NadkitError, match=message):
        SubArchitecture.from_frames(tables["units"], tables["links"], arch.graph.graph)


def test_what_are_no_tables_and_no_attributes_is_refused() -> None:
    arch = SubArchitecture(small_graph())
    with pytest.raises(NadkitError, match=r"do not say which graph .* give facts=arch\.graph\.graph"):
        SubArchitecture.from_frames(arch.units, None)  # type: ignore[arg-type]
    with pytest.raises(NadkitError, match=r"the table of links has no column source; give arch\.links"):
        SubArchitecture.from_frames(arch.units, None, arch.graph.graph)  # type: ignore[arg-type]
    with pytest.raises(NadkitError, match="it has 3, which nadkit does not write"):
        SubArchitecture.from_frames(arch.units, arch.links, {**arch.graph.graph, 3: 4})  # type: ignore[dict-item]
    twice = pd.concat([arch.units, arch.units[["score"]]], axis=1)
    with pytest.raises(NadkitError, match="the table of units has score more than once"):
        SubArchitecture.from_frames(twice, arch.links)


# What is no graph


def altered(change: str) -> nx.DiGraph:
    graph = small_graph()
    facts, unit, link = graph.graph, graph.nodes["a/0"], graph.edges["a/0", "b/0"]
    if change == "no format":
        del facts["format"]
    elif change == "later format":
        facts["format"] = 2
    elif change == "difference":
        facts["kind"] = "difference"
    elif change == "no task":
        del facts["task"]
    elif change == "layers twice":
        facts["layers"] = ["a", "a", "c"]
    elif change == "units of others":
        facts["units"] = {"a": 4, "b": 8}
    elif change == "no score":
        del unit["score"]
    elif change == "score is text":
        unit["score"] = "high"
    elif change == "infinite":
        unit["response"] = float("inf")
    elif change == "carried":
        unit["carried"] = 1.5
    elif change == "more":
        unit["colour"] = "red"
    elif change == "other layer":
        unit["layer"] = "b"
    elif change == "beyond":
        unit["index"] = 4
    elif change == "no logit":
        graph.remove_node("logit:bag")
    elif change == "other logit":
        facts["task"] = "coat"
    elif change == "empty":
        facts["empty"] = ["b"]
    elif change == "backwards":
        graph.add_edge("c/2", "a/0", **link)
    elif change == "sign":
        link["sign"] = 0
    elif change == "share":
        link["share"] = 1.5
    elif change == "no weight":
        del link["weight"]
    elif change == "exclusive":
        unit["exclusive"] = 1
    return graph


REASONS = {
    "no format": "it does not say its format, so nk.extract did not make it",
    "later format": "its format is 2 and this nadkit reads 1",
    "difference": "it is a 'difference', not one task's sub-architecture",
    "no task": "it lacks 'task'",
    "layers twice": "its layers are no list of distinct names",
    "units of others": "its units are no whole number for each of its layers",
    "no score": "unit 'a/0': it lacks 'score'",
    "score is text": "unit 'a/0': its score is 'high', not a float",
    "infinite": "unit 'a/0': its response is inf",
    "carried": "unit 'a/0' carries 1.5, which is no part of 1",
    "more": "unit 'a/0': it has 'colour', which nadkit does not write",
    "other layer": "unit 'a/0' should be 'b/0'",
    "beyond": "unit 'a/0' is said to be unit 4 of layer 'a'",
    "no logit": "it has no 'logit:bag'",
    "other logit": "unit 'logit:bag' should be 'logit:coat'",
    "empty": r"it names \['b'\] as layers without a unit",
    "backwards": "link 'c/2' to 'a/0' leads backwards",
    "sign": "link 'a/0' to 'b/0' has a sign other than 1 and -1",
    "share": r"a share outside \[0, 1\]",
    "no weight": "link 'a/0' to 'b/0': it lacks 'weight'",
    "exclusive": "unit 'a/0': its exclusive is 1, not a bool",
}


@pytest.mark.parametrize("change", REASONS)
def test_altered_graphs_are_neither_written_nor_read(change: str, tmp_path: Path) -> None:
    graph = altered(change)
    for suffix in SUFFIXES:
        with pytest.raises(NadkitError, match=f"this graph is refused: .*{REASONS[change]}"):
            SubArchitecture(graph).save(tmp_path / f"a{suffix}")
    assert not list(tmp_path.iterdir())
    (tmp_path / "a.json").write_text(json.dumps(nx.node_link_data(graph, edges="links")))
    with pytest.raises(NadkitError, match=f"graph file '.*a.json' is refused: .*{REASONS[change]}"):
        SubArchitecture.load(tmp_path / "a.json")


def test_too_large_graphs_and_files_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = SubArchitecture(small_graph()).save(tmp_path / "a.json")
    monkeypatch.setattr(checks, "MOST_LINKS", 9)
    with pytest.raises(NadkitError, match="it has 7 units and 10 links, and at most 10,000 and 9 are read"):
        SubArchitecture.load(path)
    monkeypatch.setattr(files, "MOST_BYTES", 100)
    with pytest.raises(NadkitError, match=r"it has [\d,]+ bytes, and at most 100 are read"):
        SubArchitecture.load(path)


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE graphml [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    '<graphml xmlns="http://graphml.graphdrawing.org/xmlns"><graph edgedefault="directed"><node id="&b;"/>'
    "</graph></graphml>"
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_documents_that_could_hold_entities_are_refused(encoding: str, tmp_path: Path) -> None:
    text = BOMB.replace('version="1.0"', f'version="1.0" encoding="{encoding}"')
    (tmp_path / "a.graphml").write_bytes(text.encode(encoding))
    with pytest.raises(NadkitError, match="it has a document type, which could hold entities"):
        SubArchitecture.load(tmp_path / "a.graphml")


def bytes_of(suffix: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return SubArchitecture(small_graph()).save(Path(folder) / f"a{suffix}").read_bytes()


@pytest.mark.parametrize(
    ("suffix", "old", "new", "message"),
    [
        (".graphml", b"<edge ", b"<hyperedge ", "is refused"),
        (".graphml", b'edgedefault="directed"', b'edgedefault="undirected"', "its graph is not directed"),
        (".graphml", b'attr.name="score"', b'attr.name="rating"', "an attribute 'rating' of a node"),
        (".graphml", b'<data key="n0">', b'<data key="x0">', "data of a key 'x0' that it does not declare"),
        (".graphml", b'source="a/0"', b'source="a/3"', "has no unit at its end"),
        (".graphml", b'<node id="a/1">', b'<node id="a/0">', "it has unit 'a/0' twice"),
        (".graphml", b">true<", b">maybe<", "'maybe' is neither true nor false"),
        (".graphml", b"</graphml>", b"", "no XML, or cut off"),
        (".json", b'"directed":true', b'"directed":false', "no directed graph in node-link form"),
        (".json", b'"multigraph":false', b'"multigraph":true', "no directed graph in node-link form"),
        (".json", b'"source":"a/0"', b'"source":"a/3"', "a link has no unit at its end"),
        (".json", b'"nodes":[', b'"knots":[', "its nodes are no list"),
        (".json", b'"graph":{', b'"graph":[],"graphs":{', "its attributes are no dictionary"),
        (".json", b'"score":1.0', b'"score":NaN', "its score is nan"),
        (".json", b"]}", b"]", "is refused: it is no graph, or damaged"),
    ],
)
def test_damaged_files_are_refused(suffix: str, old: bytes, new: bytes, message: str, tmp_path: Path) -> None:
    whole = bytes_of(suffix)
    assert old in whole
    (tmp_path / f"a{suffix}").write_bytes(whole.replace(old, new))
    with pytest.raises(NadkitError, match=message):
        SubArchitecture.load(tmp_path / f"a{suffix}")


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 40, b"[]", b"{}", b"<a/>", b"null", b"PK\x03\x04", b'"' + b"[" * 9]
)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_other_files_are_refused(suffix: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / f"a{suffix}").write_bytes(content)
    with pytest.raises(NadkitError, match="is refused"):
        SubArchitecture.load(tmp_path / f"a{suffix}")


def test_deeply_nested_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"[" * 100_000)
    (tmp_path / "a.graphml").write_bytes(b"<graphml>" * 100_000)
    for suffix in SUFFIXES:
        with pytest.raises(NadkitError, match="is refused"):
            SubArchitecture.load(tmp_path / f"a{suffix}")


@settings(deadline=None, max_examples=200)
@given(suffix=st.sampled_from(SUFFIXES), seed=st.integers(0, 10**6))
def test_a_changed_byte_is_refused_or_gives_a_graph(suffix: str, seed: int) -> None:
    draw, data = random.Random(seed), bytearray(bytes_of(suffix))
    for _ in range(draw.choice([1, 1, 3])):
        place = draw.randrange(len(data))
        if draw.random() < 0.3:
            del data[place : place + draw.randrange(1, 60)]
        else:
            data[place] = draw.choice(b'0123456789-"<>&/{}[],:eE\xff\x00 ')
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        path.write_bytes(data)
        try:
            read = SubArchitecture.load(path)
        except NadkitError:  # any other exception fails the test
            return
        checks.checked(read.graph, "it")
        assert same(SubArchitecture.load(read.save(path)).graph, read.graph)


JUNK: list[Any] = [None, True, -1, 0.5, "a", "a/0", [], [[]], {}, {"a": []}]


@settings(deadline=None, max_examples=150)
@given(seed=st.integers(0, 10**6), junk=st.sampled_from(JUNK), depth=st.integers(0, 3))
def test_another_value_in_a_file_is_refused_or_gives_a_graph(seed: int, junk: Any, depth: int) -> None:
    """A value of the JSON tree, the root included, becomes something else."""
    draw, holder = random.Random(seed), {"root": json.loads(bytes_of(".json"))}
    there: Any = holder
    key: Any = "root"
    for _ in range(depth):
        if not isinstance(there[key], dict | list) or not there[key]:
            break
        there = there[key]
        key = draw.choice(list(there) if isinstance(there, dict) else range(len(there)))
    there[key] = junk
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        path.write_text(json.dumps(holder["root"]))
        try:
            read = SubArchitecture.load(path)
        except NadkitError:  # any other exception fails the test
            return
        assert same(SubArchitecture.load(read.save(path)).graph, read.graph)


# Where files go


@pytest.mark.parametrize("path", ["a", "a.xml", "a.gml", "a.graphml.txt"])
def test_other_suffixes_are_refused(path: str, tmp_path: Path) -> None:
    for verb in (SubArchitecture(small_graph()).save, SubArchitecture.load):
        with pytest.raises(NadkitError, match=r"graphs are saved as \.graphml or \.json, not"):
            verb(tmp_path / path)


def test_places_that_cannot_be_used_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arch = SubArchitecture(small_graph())
    with pytest.raises(NadkitError, match=r"cannot be saved to .*give a file in a folder that exists"):
        arch.save(tmp_path / "no" / "a.json")
    with pytest.raises(NadkitError, match=r"it cannot be read .*check the path"):
        SubArchitecture.load(tmp_path / "no.json")
    with pytest.raises(NadkitError, match="3 is no path"):
        SubArchitecture.load(3)  # type: ignore[arg-type]
    path = arch.save(tmp_path / "a.GraphML")
    before = path.read_bytes()
    monkeypatch.setattr(files.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(NadkitError, match="disk full"):
        SubArchitecture(coat_graph()).save(path)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["a.GraphML"]


def test_files_do_not_change_the_graph(tmp_path: Path) -> None:
    graph = small_graph()
    before = copy.deepcopy(graph)
    for suffix in SUFFIXES:
        read = SubArchitecture.load(SubArchitecture(graph).save(tmp_path / f"a{suffix}"))
        read.graph.nodes["a/0"]["score"] = 0.25
        read.graph.graph["layers"].append("d")
    arch = SubArchitecture(graph)
    SubArchitecture.from_frames(arch.units, arch.links).graph.graph["layers"].append("d")
    SubArchitecture.from_frames(arch.units, arch.links, graph.graph).graph.graph["units"]["d"] = 1
    assert same(graph, before)


# DOT


def test_dot_names_every_unit_and_link() -> None:
    graph = small_graph()
    text = SubArchitecture(graph).to_dot()
    lines = text.splitlines()
    assert lines[0] == 'digraph "bag in net" {'
    assert lines[-1] == "}"
    links = [re.match(r'  "(.*)" -> "(.*)" \[(.*)\];', line) for line in lines if "->" in line]
    assert {(link[1], link[2]) for link in links if link} == set(graph.edges)
    styles = {(link[1], link[2]): link[3] for link in links if link}
    assert "style=dashed" in styles["a/1", "b/0"]
    assert "style=solid" in styles["a/0", "b/0"]
    assert "penwidth=2.80" in styles["a/0", "b/0"]  # half of the input
    assert '  { rank=same; "a/0" [shape=ellipse]; "a/1" [shape=diamond]; }' in lines
    assert text.count("rank=same") == 5


def test_dot_quotes_names() -> None:
    text = SubArchitecture(renamed(['a"', "b\\", "c\n"], "x", 'net "1"')).to_dot()
    assert 'digraph "x in net \\"1\\"" {' in text
    assert '"a\\"/0" -> "b\\\\/0"' in text
    assert '"c\\n/2"' in text
    with pytest.raises(NadkitError, match="this graph is refused"):
        SubArchitecture(altered("no score")).to_dot()
