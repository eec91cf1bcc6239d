"""`flow`: what part of a logit's input each layer passes on, the widest path, and where it is narrowest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import networkx as nx

from nadkit.errors import NadkitError
from nadkit.graph.architecture import SubArchitecture
from nadkit.graph.cutting import INPUT, LOGIT
from nadkit.graph.differences import check_same_network, graph_of
from nadkit.graph.unit_graphs import table_html

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class Flow:
    """How the flow of a task runs, and where that of another one parts from it.

    The flow runs from the logit back: the logit has all of it, 1, and each unit hands what it has to the
    units that feed it, to each link's share. What a unit takes in along links that the graph does not list is
    lost there.

    Attributes
    ----------
    task, other_task : whose it is; `other_task` is None for one alone
    layers : one row a task and layer, from the input on: `task`, `layer`, `units` (kept), `carried` (part of
        the logit's input that passes through the layer's units), `passed` (part that runs along links which
        leave this layer or one before it for one after it, so that skips count), `added` and `taken` (sums
        of the positive and negative weights of the links out of the layer, on own pictures), and with another
        task `shared`: how far the two flows run through the same units of this layer, in [0, 1]
    widest_path : the units of the path from the input to the logit whose narrowest link is as wide as can be;
        empty if no path leads through
    width : the share of its narrowest link; 0 without a path
    cut_links : the links of the minimum cut (source, target), which part the input from the logit and have
        the smallest sum of shares
    cut_share : that sum; at most 1, which is the logit's whole input
    shared_trunk : how many layers from the first on the two flows share at least to `at_least`; None for one
    split_layer : the first layer where they do not; None if there is none
    rejoined : layers after it where they do again, having not done so in the layer before
    at_least : the part of the flow that two tasks must share
    """

    task: str
    other_task: str | None
    layers: pd.DataFrame
    widest_path: tuple[str, ...]
    width: float
    cut_links: tuple[tuple[str, str], ...]
    cut_share: float
    shared_trunk: int | None = None
    split_layer: str | None = None
    rejoined: tuple[str, ...] = ()
    at_least: float = field(default=0.5)

    @property
    def answer(self) -> str:
        """All of it in one sentence."""
        rows = self.layers[self.layers["task"] == self.task]
        through = float(rows[rows["layer"] == INPUT]["carried"].iloc[0])
        said = [f"{100 * through:.0f} % of the logit's input is traced to the input along the links listed"]
        if self.widest_path:
            said.append(
                f"the widest path is {' → '.join(self.widest_path)}, "
                f"at its narrowest {100 * self.width:.0f} %"
            )
        else:
            said.append("no path of links leads from the input to the logit")
        if self.cut_links:
            count = len(self.cut_links)
            said.append(f"the minimum cut is {count} link{'s' * (count != 1)} of {self.cut_share:.2f} in all")
        if self.other_task is not None:
            where = "never part" if self.split_layer is None else f"part at {self.split_layer}"
            back = f" and rejoin at {', '.join(self.rejoined)}" if self.rejoined else ""
            trunk = self.shared_trunk or 0
            said.append(
                f"the flows of {self.task} and {self.other_task} share a trunk of {trunk} "
                f"layer{'s' * (trunk != 1)}, {where}{back}"
            )
        return f"{self.task}: {'; '.join(said)}."

    def __repr__(self) -> str:
        """Return the answer."""
        return f"Flow({self.answer})"

    def _repr_html_(self) -> str:
        """Return the layers as a table."""
        rows = [
            [f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row]
            for row in self.layers.itertuples(index=False)
        ]
        return table_html(self.answer, list(self.layers.columns), rows)


def flow(arch: SubArchitecture, other: SubArchitecture | None = None, *, at_least: float = 0.5) -> Flow:
    """Return how a task's flow runs from the input to its logit and, with another task, where the two part.

    Examples
    --------
    >>> import nadkit as nk
    >>> network, masks = nk.load_network("vgg-fashion"), nk.load_masks("vgg-fashion")
    >>> images = nk.load_images("fashion", split="test", per_class=2)
    >>> both = nk.extract(network, masks, images, ["bag", "coat"], progress=False)
    >>> found = nk.graph.flow(both["bag"], both["coat"])
    >>> found.widest_path[0], found.widest_path[-1]
    ('input', 'logit:bag')

    Parameters
    ----------
    arch, other
        Of one network.
    at_least
        In (0, 1]: the part of the flow through a layer that two tasks must share there to run together. Of
        each unit counts the smaller of the two parts that it carries, so that 1 is the same flow and 0 no
        common unit.

    Returns
    -------
    Flow

    Raises
    ------
    NadkitError
        They are no sub-architectures, or of different networks; `at_least` is out of its range.

    Notes
    -----
    Shares, not weights, are followed, as every layer has a scale of its own; they are of the task's own
    pictures, and of links that inhibit as of others. Capacities of the minimum cut are the links' shares as
    well (networkx, shortest augmenting paths); as the shares into the logit add up to 1 at most, it often
    lies there, and a cut elsewhere says that the flow is narrower before.
    """
    if isinstance(at_least, bool) or not isinstance(at_least, int | float) or not 0 < at_least <= 1:
        raise NadkitError(f"at_least = {at_least!r}; give a part above 0 and up to 1")
    graph = graph_of(arch, "flow")
    carried = carried_by(graph)
    tables = [_table(graph, carried)]
    path, width = _widest(graph)
    share, links = _minimum_cut(graph)
    if other is None:
        return Flow(arch.task, None, tables[0], path, width, links, share, at_least=float(at_least))
    beside = graph_of(other, "flow")
    check_same_network(graph, beside)
    theirs = carried_by(beside)
    shared = _shared(graph, beside, carried, theirs)
    tables.append(_table(beside, theirs))
    import pandas as pd

    table = pd.concat([one.assign(shared=one["layer"].map(shared)) for one in tables], ignore_index=True)
    together = [shared[layer] >= at_least for layer in arch.layers]
    trunk = together.index(False) if False in together else len(together)
    rejoined = [
        layer for at, layer in enumerate(arch.layers) if at > trunk and together[at] and not together[at - 1]
    ]
    return Flow(
        arch.task, other.task, table, path, width, links, share, trunk,
        arch.layers[trunk] if trunk < len(together) else None, tuple(rejoined), float(at_least),
    )  # fmt: skip


def carried_by(graph: nx.DiGraph) -> dict[str, float]:
    """Return what part of the logit's input passes through each unit, along links listed.

    Examples
    --------
    >>> graph = nx.DiGraph(layers=["a"])
    >>> for name, layer in (("input", "input"), ("a/0", "a"), ("logit:x", "logit")):
    ...     graph.add_node(name, layer=layer)
    >>> graph.add_edge("input", "a/0", share=1.0)
    >>> graph.add_edge("a/0", "logit:x", share=0.75)
    >>> carried_by(graph)
    {'input': 0.75, 'a/0': 0.75, 'logit:x': 1.0}
    """
    carried = {name: float(layer == LOGIT) for name, layer in graph.nodes(data="layer")}
    for name in reversed(_in_order(graph)):
        for source, _, share in graph.in_edges(name, data="share"):
            carried[source] += carried[name] * share
    return carried


def _in_order(graph: nx.DiGraph) -> list[str]:
    """Units from the input to the logit; links lead forward only."""
    place = {name: at for at, name in enumerate((INPUT, *graph.graph["layers"], LOGIT))}
    layer = dict(graph.nodes(data="layer"))
    return sorted(graph, key=lambda name: place[layer[name]])


def _table(graph: nx.DiGraph, carried: Mapping[str, float]) -> pd.DataFrame:
    import pandas as pd

    names = [INPUT, *graph.graph["layers"], LOGIT]
    place = {name: at for at, name in enumerate(names)}
    layer = dict(graph.nodes(data="layer"))
    columns = {name: [0.0] * len(names) for name in ("carried", "passed", "added", "taken")}
    units = [0] * len(names)
    for name, part in carried.items():
        units[place[layer[name]]] += 1
        columns["carried"][place[layer[name]]] += part
    # What runs along a link crosses every gap between layers that it spans.
    steps = [0.0] * (len(names) + 1)
    for source, target, facts in graph.edges(data=True):
        start, end = place[layer[source]], place[layer[target]]
        part = carried[target] * facts["share"]
        steps[start] += part
        steps[end] -= part
        columns["added" if facts["weight"] > 0 else "taken"][start] += facts["weight"]
    running = 0.0
    for at in range(len(names) - 1):
        running += steps[at]
        columns["passed"][at] = running
    return pd.DataFrame({"task": graph.graph["task"], "layer": names, "units": units, **columns})


def _widest(graph: nx.DiGraph) -> tuple[tuple[str, ...], float]:
    """Return the path whose narrowest link has the largest share, and that share."""
    width = {INPUT: float("inf")}
    before: dict[str, str] = {}
    end = f"{LOGIT}:{graph.graph['task']}"
    for name in _in_order(graph):
        for source, _, share in graph.in_edges(name, data="share"):
            found = min(width.get(source, 0.0), share)
            if found > width.get(name, 0.0):
                width[name], before[name] = found, source
    if end not in before:
        return (), 0.0
    path = [end]
    while path[-1] in before:
        path.append(before[path[-1]])
    return tuple(reversed(path)), width[end]


def _minimum_cut(graph: nx.DiGraph) -> tuple[float, tuple[tuple[str, str], ...]]:
    end = f"{LOGIT}:{graph.graph['task']}"
    share, (near, far) = nx.minimum_cut(
        graph, INPUT, end, capacity="share", flow_func=nx.algorithms.flow.shortest_augmenting_path
    )
    return float(share), tuple(
        (source, target)
        for source, target, part in graph.edges(data="share")
        if source in near and target in far and part > 0
    )


def _shared(
    one: nx.DiGraph, other: nx.DiGraph, mine: Mapping[str, float], theirs: Mapping[str, float]
) -> dict[str, float]:
    """Return for every layer how far two flows run through the same units; 0 where one has none there."""
    parts: dict[str, list[float]] = {name: [0.0, 0.0] for name in (INPUT, *one.graph["layers"], LOGIT)}
    layer = {**dict(one.nodes(data="layer")), **dict(other.nodes(data="layer"))}
    for name, there in layer.items():
        parts[there][0] += mine.get(name, 0.0)
        parts[there][1] += theirs.get(name, 0.0)
    shared = dict.fromkeys(parts, 0.0)
    for name, there in layer.items():
        first, second = parts[there]
        if first > 0 and second > 0:
            shared[there] += min(mine.get(name, 0.0) / first, theirs.get(name, 0.0) / second)
    return shared
