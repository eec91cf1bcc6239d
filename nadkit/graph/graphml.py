"""GraphML, written and read piece by piece: networkx's own needs 1.4 GB for the largest graph, this 0.5 GB.

The files are plain GraphML, which networkx, Gephi and yEd read. Lists and dictionaries among the graph's
attributes, for which GraphML has no type, are JSON texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

import networkx as nx

from nadkit.errors import NadkitError
from nadkit.graph.checks import EDGE, GRAPH, NODE

_TYPES = {int: "long", float: "double", bool: "boolean", str: "string", list: "string", dict: "string"}
_SPACE = "http://graphml.graphdrawing.org/xmlns"
_WITHOUT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 has no way to write."""


def write(graph: nx.DiGraph) -> bytes:
    """Return the file of a checked graph.

    Raises
    ------
    NadkitError
        A name has characters that XML does not have.
    """
    found = "".join(_pieces(graph))
    if wrong := _WITHOUT.search(found):
        raise NadkitError(
            f"the graph has a name with the character {wrong.group()!r}, which XML does not have; "
            "save it as .json"
        )
    return found.encode("utf-8")


def _pieces(graph: nx.DiGraph) -> Iterator[str]:
    yield f'<?xml version="1.0" encoding="utf-8"?>\n<graphml xmlns="{_SPACE}">\n'
    keys: dict[str, dict[str, str]] = {}
    for domain, types in (("graph", GRAPH), ("node", NODE), ("edge", EDGE)):
        keys[domain] = {name: f"{domain[0]}{at}" for at, name in enumerate(types)}
        for name, key in keys[domain].items():
            kind = _TYPES[types[name]]
            yield f'<key id="{key}" for="{domain}" attr.name="{name}" attr.type="{kind}"/>\n'
    yield '<graph edgedefault="directed">\n'
    yield _data(graph.graph, keys["graph"]) + "\n"
    for name, values in graph.nodes(data=True):
        yield f"<node id={quoteattr(name)}>{_data(values, keys['node'])}</node>\n"
    for source, target, values in graph.edges(data=True):
        ends = f"source={quoteattr(source)} target={quoteattr(target)}"
        yield f"<edge {ends}>{_data(values, keys['edge'])}</edge>\n"
    yield "</graph>\n</graphml>\n"


def _data(values: Mapping[str, Any], keys: Mapping[str, str]) -> str:
    texts = []
    for name, key in keys.items():
        if name not in values:
            continue
        value = values[name]
        if isinstance(value, list | dict):
            value = json.dumps(value)
        elif isinstance(value, bool):
            value = str(value).lower()
        texts.append(f'<data key="{key}">{escape(str(value), {chr(13): "&#13;"})}</data>')
    return "".join(texts)


def read(data: bytes) -> nx.DiGraph:
    """Return the graph of a file.

    Raises
    ------
    ValueError
        It is no such file.
    """
    reader = _Reader()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text.append
    parser.StartDoctypeDeclHandler = _no_doctype
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise ValueError(f"no XML, or cut off: {error}") from None
    return reader.graph


def _no_doctype(*_: object) -> None:
    raise ValueError("it has a document type, which could hold entities that grow without end")


class _Reader:
    """Collects a graph from the events of a parser."""

    def __init__(self) -> None:
        self.graph = nx.DiGraph()
        self.text: list[str] = []
        self._keys: dict[str, tuple[str, type]] = {}
        self._values: dict[str, Any] = {}
        self._key = ""
        self._open: list[str] = []
        self._ends: tuple[str, ...] = ()

    def start(self, tag: str, given: dict[str, str]) -> None:
        inside = "/".join(self._open)
        self._open.append(tag)
        if (tag, inside) == ("key", "graphml"):
            self._add_key(given)
        elif (tag, inside) == ("graph", "graphml"):
            if given.get("edgedefault") != "directed":
                raise ValueError("its graph is not directed")
        elif (tag, inside) in (("node", "graphml/graph"), ("edge", "graphml/graph")):
            self._values = {}
            self._ends = (given["id"],) if tag == "node" else (given["source"], given["target"])
        elif tag == "data" and inside in ("graphml/graph", "graphml/graph/node", "graphml/graph/edge"):
            self._key = given["key"]
            if self._key not in self._keys:
                raise ValueError(f"it has data of a key {self._key!r} that it does not declare")
        elif (tag, inside) != ("graphml", ""):
            raise ValueError(f"it has an element {tag!r} in {inside or 'the place of graphml'!r}")
        self.text.clear()

    def _add_key(self, given: dict[str, str]) -> None:
        domain, name = given["for"], given["attr.name"]
        types = {"graph": GRAPH, "node": NODE, "edge": EDGE}.get(domain, {})
        if name not in types:
            raise ValueError(f"it has an attribute {name!r} of a {domain}, which nadkit does not write")
        self._keys[given["id"]] = (name, types[name])

    def end(self, tag: str) -> None:
        self._open.pop()
        if tag == "data":
            name, kind = self._keys[self._key]
            values = self.graph.graph if self._open[-1] == "graph" else self._values
            if name in values:
                raise ValueError(f"it says {name!r} twice")
            values[name] = _value("".join(self.text), kind)
        elif tag == "node":
            if self._ends[0] in self.graph:
                raise ValueError(f"it has unit {self._ends[0]!r} twice")
            self.graph.add_node(self._ends[0], **self._values)
        elif tag == "edge":
            if self.graph.has_edge(*self._ends) or not all(end in self.graph for end in self._ends):
                raise ValueError(f"link {' to '.join(self._ends)} comes twice, or has no unit at its end")
            self.graph.add_edge(*self._ends, **self._values)


def _value(text: str, kind: type) -> Any:
    if kind in (list, dict):
        return json.loads(text)
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{text[:40]!r} is neither true nor false")
        return text.lower() == "true"
    return kind(text)
