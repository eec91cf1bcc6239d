"""`diff`: what two sub-architectures have in common, and what only one of them has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import networkx as nx

from nadkit.errors import NadkitError
from nadkit.graph.architecture import SubArchitecture
from nadkit.graph.building import FORMAT
from nadkit.graph.checks import checked
from nadkit.graph.unit_graphs import UnitGraph, table_html

if TYPE_CHECKING:
    import pandas as pd

WHERE = ("both", "first", "second")


@dataclass(frozen=True, eq=False, repr=False)
class Difference(UnitGraph):
    """Two sub-architectures of one network, laid over each other.

    Attributes
    ----------
    graph : has the units and links of both. Of the graph: `kind` ("difference"), `format`, `network`,
        `weights_id`, `first`, `second` (names), `layers`, `units`. Of a node: `layer`, `index`, `where`
        ("both", "first" or "second"); of an edge: `where`. All that a `SubArchitecture` says of a node or an
        edge is there with `_first` or `_second` at the end, as far as the unit or link is in the one.
    """

    @property
    def names(self) -> tuple[str, str]:
        """What the first and the second one are called."""
        return str(self.graph.graph["first"]), str(self.graph.graph["second"])

    @property
    def counts(self) -> pd.DataFrame:
        """How many units, and links into them, are where: columns `layer`, `what`, `where`, `count`.

        The layer `logit` has links only, and `all` is the sum over layers.
        """
        import pandas as pd

        layer = dict(self.graph.nodes(data="layer"))
        found = Counter(
            (facts["layer"], "units", facts["where"])
            for _, facts in self.graph.nodes(data=True)
            if facts["index"] >= 0
        )
        found.update((layer[target], "links", where) for _, target, where in self.graph.edges(data="where"))
        places = (*self.layers, "logit")
        rows = [
            (name, what, where, found[name, what, where])
            for what in ("units", "links")
            for name in places
            if not (name == "logit" and what == "units")
            for where in WHERE
        ]
        rows += [
            ("all", what, where, sum(found[name, what, where] for name in places))
            for what in ("units", "links")
            for where in WHERE
        ]
        return pd.DataFrame(rows, columns=["layer", "what", "where", "count"])

    def __repr__(self) -> str:
        """Return one line: how much of both is shared."""
        return f"Difference({self._headline()})"

    def _headline(self) -> str:
        table = self.counts
        every = table[table["layer"] == "all"].set_index(["what", "where"])["count"]
        first, second = self.names
        said = [
            f"{every[what, 'both']:,} of {sum(every[what, where] for where in WHERE):,} {what} in both, "
            f"{every[what, 'first']:,} in {first} only, {every[what, 'second']:,} in {second} only"
            for what in ("units", "links")
        ]
        return f"{first} and {second} in {self.network}: {'; '.join(said)}"

    def _repr_html_(self) -> str:
        """Return a table of counts, one row a layer."""
        first, second = self.names
        heads = [f"{what}, {name}" for what in ("units", "links") for name in ("both", first, second)]
        found = {(*key,): count for *key, count in self.counts.itertuples(index=False)}
        rows = []
        for name in (*self.layers, "logit", "all"):
            cells = [found.get((name, what, where), "") for what in ("units", "links") for where in WHERE]
            rows.append((name, *map(str, cells)))
        return table_html(self._headline(), ("layer", *heads), rows)


def diff(
    first: SubArchitecture, second: SubArchitecture, *, names: tuple[str, str] | None = None
) -> Difference:
    """Return two sub-architectures of one network laid over each other.

    Examples
    --------
    >>> import nadkit as nk
    >>> network, masks = nk.load_network("vgg-fashion"), nk.load_masks("vgg-fashion")
    >>> images = nk.load_images("fashion", split="test", per_class=2)
    >>> both = nk.extract(network, masks, images, ["bag", "coat"], progress=False)
    >>> nk.graph.diff(both["bag"], both["coat"]).counts.tail(6)["where"].tolist()
    ['both', 'first', 'second', 'both', 'first', 'second']

    Parameters
    ----------
    first, second
        Of two tasks, of one task with the masks of two seeds, or of the true and the predicted class of a
        misclassified picture.
    names
        What they are called; by default their tasks, and of one task its seeds.

    Returns
    -------
    Difference
        Its `graph` is what `figures.difference` draws.

    Raises
    ------
    NadkitError
        They are no sub-architectures, or not of one network.

    Notes
    -----
    Links are the strongest few into each unit (`links_per_unit` of `extract`), so that a link in one only may
    be in the other as well, among those that are not listed; give both the same `links_per_unit`.
    """
    graphs = [graph_of(one, "diff") for one in (first, second)]
    check_same_network(graphs[0], graphs[1])
    called = names or names_of(graphs[0].graph, graphs[1].graph)
    if (
        not isinstance(called, tuple | list)
        or len(called) != 2
        or not all(isinstance(one, str) for one in called)
    ):
        raise NadkitError(f"names = {names!r}; give two names, such as ('seed 0', 'seed 1')")
    facts = graphs[0].graph
    graph = nx.DiGraph(
        format=FORMAT, kind="difference", network=facts["network"], weights_id=facts["weights_id"],
        first=called[0], second=called[1], layers=list(facts["layers"]), units=dict(facts["units"]),
    )  # fmt: skip
    one, other = graphs
    for name in {**one.nodes, **other.nodes}:
        graph.add_node(name, **_joined(one.nodes.get(name), other.nodes.get(name)))
    for ends in {**one.edges, **other.edges}:
        graph.add_edge(*ends, **_joined(one.edges.get(ends), other.edges.get(ends)))
    return Difference(graph)


def graph_of(value: object, verb: str) -> nx.DiGraph:
    """Return the graph of what `extract` returned.

    Raises
    ------
    NadkitError
        It is something else, or its graph was changed into something else.
    """
    if not isinstance(value, SubArchitecture):
        raise NadkitError(
            f"nk.graph.{verb} takes what nk.extract returns, and got {type(value).__name__}; of several "
            "tasks that is a dictionary: give its values"
        )
    return checked(value.graph, "this graph")


def check_same_network(one: nx.DiGraph, other: nx.DiGraph) -> None:
    """Raise unless two graphs are of one network.

    Raises
    ------
    NadkitError
        Networks, weights or layers differ.
    """
    for what in ("network", "weights_id", "units"):
        mine, theirs = one.graph[what], other.graph[what]
        if mine != theirs:
            shown = f"{what} {str(mine)[:60]!r} and {str(theirs)[:60]!r}"
            raise NadkitError(
                f"these sub-architectures are of different networks ({shown}); units are the same ones only "
                "in one network"
            )


def names_of(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, str]:
    """Return what two sub-architectures are called: their tasks, of one task with its seeds."""
    if one["task"] != other["task"]:
        return one["task"], other["task"]
    seeds = [facts.get("mask_seed") for facts in (one, other)]
    ends = (
        [f"seed {seed}" for seed in seeds]
        if None not in seeds and seeds[0] != seeds[1]
        else ["first", "second"]
    )
    return f"{one['task']} ({ends[0]})", f"{other['task']} ({ends[1]})"


def _joined(mine: Mapping[str, Any] | None, theirs: Mapping[str, Any] | None) -> dict[str, Any]:
    found: dict[str, Any] = {"where": "second" if mine is None else "first" if theirs is None else "both"}
    for facts, end in ((mine, "first"), (theirs, "second")):
        for key, value in (facts or {}).items():
            found[key if key in ("layer", "index") else f"{key}_{end}"] = value
    return found
