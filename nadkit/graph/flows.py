"""`flow`: what part of a logit's input each layer carries, the widest path, and where links tell least."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import networkx as nx

from nadkit.errors import NadkitError
from nadkit.graph.architecture import SubArchitecture
from nadkit.graph.cutting import INPUT, LOGIT
from nadkit.graph.differences import check_same_network, graph_of, names_of
from nadkit.graph.unit_graphs import table_html

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class Flow:
    """How the flow of a task runs, and where that of another one parts from it.

    The flow runs from the logit back: the logit has all of it, 1, and each unit hands what it has to all kept
    units that feed it, to each link's share, whether the graph lists the link or not. A link's strength is
    the part that runs along it: its share, times what its target carries.

    Attributes
    ----------
    task : whose it is; of one task twice, with its seed
    other_task : what it is compared with; None for one alone
    layers : one row a task and layer, from the input on: `task`, `layer`, `units` (kept), `carried` (part of
        the logit's input that passes through the layer's units; the rest passes by, or ends deeper in units
        that take in nothing), `effective_units` (how many units of equal part it would be: 1 / Σ p² of their
        parts p of it; 0 if there is nothing), `listed` (part that runs along links of the graph which leave
        this layer or one before it for one after it, so that skips count), `added` and `taken` (sums of the
        positive and negative weights of the links out of the layer, on own pictures), and with another task
        `shared`: how far the two flows run through the same units of this layer, in [0, 1]
    widest_path : the units of the path from the input to the logit whose weakest link is as strong as can be;
        empty if no path leads through
    width : the strength of that link; 0 without a path
    cut_links : the links of the minimum cut (source, target), which part the input from the logit and have
        the smallest sum of strengths
    cut_share : that sum, in [0, 1]: of the logit's input as much at least runs along links listed wherever
        one looks
    cut_layers : the layers that these links lead into: where the effect comes from more links than are listed
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
    cut_layers: tuple[str, ...]
    shared_trunk: int | None = None
    split_layer: str | None = None
    rejoined: tuple[str, ...] = ()
    at_least: float = field(default=0.5)

    @property
    def answer(self) -> str:
        """All of it in one sentence."""
        if self.widest_path:
            said = [
                f"the widest path is {' → '.join(self.widest_path)}, at its weakest link "
                f"{100 * self.width:.2g} % of the logit's input"
            ]
        else:
            said = ["no path of links leads from the input to the logit"]
        if self.cut_links:
            count = len(self.cut_links)
            said.append(
                f"the links listed hold {100 * self.cut_share:.0f} % at least, least into "
                f"{', '.join(self.cut_layers)} (minimum cut, {count} link{'s' * (count != 1)})"
            )
        rows = self.layers[(self.layers["task"] == self.task) & (self.layers["effective_units"] > 0)]
        inner = rows[~rows["layer"].isin([INPUT, LOGIT])]
        if len(inner):
            few, layer = min(zip(inner["effective_units"], inner["layer"], strict=True))
            said.append(f"it runs through the fewest units in {layer}, as if {few:.1f}")
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
    pictures, and of links that inhibit as of others. With all links listed every cut between layers is as
    good as the next, and `cut_share` is 1, but for what ends in units that take in nothing; with the few of
    `links_per_unit` the minimum cut (networkx, shortest augmenting paths) is where they tell least. Where
    the flow itself is narrow, `effective_units` says.
    """
    if isinstance(at_least, bool) or not isinstance(at_least, int | float) or not 0 < at_least <= 1:
        raise NadkitError(f"at_least = {at_least!r}; give a part above 0 and up to 1")
    graph = graph_of(arch, "flow")
    strengths = _strengths(graph)
    path, width = _widest(graph, strengths)
    share, links = _minimum_cut(graph, strengths)
    layer = dict(graph.nodes(data="layer"))
    into = {layer[target] for _, target in links}
    cut_layers = tuple(name for name in (*arch.layers, LOGIT) if name in into)
    if other is None:
        table = _table(graph, strengths, arch.task)
        return Flow(
            arch.task, None, table, path, width, links, share, cut_layers, at_least=float(at_least)
        )  # fmt: skip
    beside = graph_of(other, "flow")
    check_same_network(graph, beside)
    names = names_of(graph.graph, beside.graph)
    shared = _shared(graph, beside)
    tables = [_table(graph, strengths, names[0]), _table(beside, _strengths(beside), names[1])]
    import pandas as pd

    table = pd.concat([one.assign(shared=one["layer"].map(shared)) for one in tables], ignore_index=True)
    together = [shared[layer] >= at_least for layer in arch.layers]
    trunk = together.index(False) if False in together else len(together)
    rejoined = [
        layer for at, layer in enumerate(arch.layers) if at > trunk and together[at] and not together[at - 1]
    ]
    return Flow(
        *names, table, path, width, links, share, cut_layers, trunk,
        arch.layers[trunk] if trunk < len(together) else None, tuple(rejoined), float(at_least),
    )  # fmt: skip


_Strengths = dict[tuple[str, str], float]


def _strengths(graph: nx.DiGraph) -> _Strengths:
    """Return which part of the logit's input runs along each link."""
    carried = dict(graph.nodes(data="carried"))
    return {(source, target): carried[target] * share for source, target, share in graph.edges(data="share")}


def _in_order(graph: nx.DiGraph) -> list[str]:
    """Units from the input to the logit; links lead forward only."""
    place = {name: at for at, name in enumerate((INPUT, *graph.graph["layers"], LOGIT))}
    layer = dict(graph.nodes(data="layer"))
    return sorted(graph, key=lambda name: place[layer[name]])


def _table(graph: nx.DiGraph, strengths: _Strengths, task: str) -> pd.DataFrame:
    import pandas as pd

    names = [INPUT, *graph.graph["layers"], LOGIT]
    place = {name: at for at, name in enumerate(names)}
    layer = dict(graph.nodes(data="layer"))
    parts: list[list[float]] = [[] for _ in names]
    for name, part in graph.nodes(data="carried"):
        parts[place[layer[name]]].append(part)
    carried = [math.fsum(mine) for mine in parts]
    effective = [
        1 / math.fsum((part / whole) ** 2 for part in mine) if whole > 0 else 0.0
        for whole, mine in zip(carried, parts, strict=True)
    ]
    columns = {name: [0.0] * len(names) for name in ("listed", "added", "taken")}
    # What runs along a link crosses every gap between layers that it spans.
    steps = [0.0] * (len(names) + 1)
    for source, target, weight in graph.edges(data="weight"):
        start, end = place[layer[source]], place[layer[target]]
        steps[start] += strengths[source, target]
        steps[end] -= strengths[source, target]
        columns["added" if weight > 0 else "taken"][start] += weight
    running = 0.0
    for at in range(len(names) - 1):
        running += steps[at]
        columns["listed"][at] = running
    return pd.DataFrame({
        "task": task, "layer": names, "units": list(map(len, parts)), "carried": carried,
        "effective_units": effective, **columns,
    })  # fmt: skip


def _widest(graph: nx.DiGraph, strengths: _Strengths) -> tuple[tuple[str, ...], float]:
    """Return the path whose weakest link is strongest, and that link's strength."""
    width = {INPUT: float("inf")}
    before: dict[str, str] = {}
    end = f"{LOGIT}:{graph.graph['task']}"
    for name in _in_order(graph):
        for source in graph.predecessors(name):
            found = min(width.get(source, 0.0), strengths[source, name])
            if found > width.get(name, 0.0):
                width[name], before[name] = found, source
    if end not in before:
        return (), 0.0
    path = [end]
    while path[-1] in before:
        path.append(before[path[-1]])
    return tuple(reversed(path)), width[end]


def _minimum_cut(graph: nx.DiGraph, strengths: _Strengths) -> tuple[float, tuple[tuple[str, str], ...]]:
    room = nx.DiGraph()
    room.add_nodes_from(graph)
    # In whole numbers: a rest of 1e-18 on a full link would be a way past the cut.
    room.add_edges_from((*ends, {"capacity": round(part * 1e12)}) for ends, part in strengths.items())
    _, (near, far) = nx.minimum_cut(
        room,
        INPUT,
        f"{LOGIT}:{graph.graph['task']}",
        flow_func=nx.algorithms.flow.shortest_augmenting_path,
    )
    links = tuple(ends for ends, part in strengths.items() if ends[0] in near and ends[1] in far and part > 0)
    return math.fsum(strengths[ends] for ends in links), links


def _shared(one: nx.DiGraph, other: nx.DiGraph) -> dict[str, float]:
    """Return for every layer how far two flows run through the same units; 0 where one has none there."""
    mine, theirs = dict(one.nodes(data="carried")), dict(other.nodes(data="carried"))
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
