"""`SubArchitecture`: one task's kept units and the links among them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nadkit.errors import NadkitError
from nadkit.graph import dot, files, tables
from nadkit.graph.checks import checked
from nadkit.graph.cutting import INPUT, LOGIT
from nadkit.graph.unit_graphs import UnitGraph, table_html

if TYPE_CHECKING:
    import pandas as pd

    from nadkit.images import Images
    from nadkit.masks import MaskSet
    from nadkit.networks import Network


class Origin(NamedTuple):
    """What a graph was read from; files do not hold it."""

    network: Network
    masks: MaskSet
    images: Images


@dataclass(frozen=True, eq=False, repr=False)
class SubArchitecture(UnitGraph):
    """One task's kept units as a graph, with links weighted by direct effect.

    `graph` is a plain `networkx.DiGraph`. Its nodes are `input`, `layer/index` for every kept unit, and
    `logit:<task>`.

    *Of the graph*: `format`, `network`, `weights_id`, `task`, `threshold`, `links_per_unit`, `least_share`,
    `layers` (addresses in forward order), `units` (address → number), `empty` (layers without a kept unit),
    `own_pictures`, `other_pictures` (how many), `seed` (of their draw), `mask_seed` (if the masks have one).

    *Of a node*: `layer` (`input`, an address, `logit`), `index` (−1 at the ends), `score`, `activation` (mean
    over pictures and positions), `response` (mean over pictures, sum over positions; of the input, of what
    enters the network), `incoming` (Σ `|weight|` over all kept units that feed it, listed or not), `residual`
    (`response` minus the sum of these weights; of the input 0), `carried` (which part of the logit's input
    passes through it along all links, listed or not; see `nk.graph.flow`), `exclusive` (no other task of the
    masks keeps it), `tasks` (how many keep it).

    *Of an edge*: `weight`, `share` (`|weight|` / `incoming` of the target), `sign` (1 or −1: of the weight on
    the side where its share is larger).

    `activation`, `response`, `incoming`, `residual`, `weight` and `share` are of the task's own pictures;
    with `_other` at the end they are of other classes'.

    Examples
    --------
    >>> import nadkit as nk
    >>> network, masks = nk.load_network("vgg-fashion"), nk.load_masks("vgg-fashion")
    >>> images = nk.load_images("fashion", split="test", per_class=4)
    >>> nk.extract(network, masks, images, "bag", pictures=4, progress=False)
    SubArchitecture('bag' in vgg-fashion: 107 of 356 units in 9 layers, ... links)

    Attributes
    ----------
    graph : see above
    origin : network, masks and images that `extract` was given, for `verify`; None of a graph that was read
        from a file
    """

    origin: Origin | None = field(default=None)

    @property
    def task(self) -> str:
        """The name of the task."""
        return str(self.graph.graph["task"])

    @property
    def empty(self) -> tuple[str, ...]:
        """The layers in which the task keeps no unit."""
        return tuple(self.graph.graph["empty"])

    @property
    def cut(self) -> tuple[str, ...]:
        """The layers at which the flow is cut: they have no kept unit, and no link passes by."""
        order = {name: at for at, name in enumerate((INPUT, *self.layers, LOGIT))}
        layer = dict(self.graph.nodes(data="layer"))
        spans = {(order[layer[source]], order[layer[target]]) for source, target in self.graph.edges()}
        return tuple(
            name for name in self.empty if not any(start < order[name] < end for start, end in spans)
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the graph to a file, and return its path.

        Examples
        --------
        >>> import tempfile, nadkit as nk
        >>> network, masks = nk.load_network("vgg-fashion"), nk.load_masks("vgg-fashion")
        >>> images = nk.load_images("fashion", split="test", per_class=1)
        >>> arch = nk.extract(network, masks, images, "bag", progress=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     read = SubArchitecture.load(arch.save(Path(folder) / "bag.graphml"))
        >>> dict(read.graph.nodes) == dict(arch.graph.nodes), dict(read.graph.edges) == dict(arch.graph.edges)
        (True, True)

        Parameters
        ----------
        path
            `.graphml`, or `.json` (node-link); complete or not there, a file that is there is replaced.

        Raises
        ------
        NadkitError
            Another suffix, a place that cannot be written to, a graph without the attributes above, or (only
            GraphML) names with characters that XML does not have.
        """
        return files.save(self.graph, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SubArchitecture:
        """Return the graph of a file that `save` wrote.

        Parameters
        ----------
        path
            `.graphml` or `.json`.

        Raises
        ------
        NadkitError
            The file is missing, no graph, damaged, foreign (it lacks units' attributes), or too large; the
            message says which. XML with a document type, which could hold entities, is refused.
        """
        return cls(files.load(path))

    @classmethod
    def from_frames(
        cls, units: pd.DataFrame, links: pd.DataFrame, facts: dict[str, Any] | None = None
    ) -> SubArchitecture:
        """Return the graph of two tables, as `units` and `links` give them.

        Examples
        --------
        >>> import nadkit as nk
        >>> network, masks = nk.load_network("vgg-fashion"), nk.load_masks("vgg-fashion")
        >>> images = nk.load_images("fashion", split="test", per_class=1)
        >>> arch = nk.extract(network, masks, images, "bag", progress=False)
        >>> read = nk.SubArchitecture.from_frames(arch.units, arch.links)
        >>> read.links.equals(arch.links), read.units.equals(arch.units)
        (True, True)

        Parameters
        ----------
        units, links
            They may have been written and read again, as long as every column is there.
        facts
            The graph's attributes, `arch.graph.graph`; by default those that the table of links carries in
            its `attrs`, which most file formats lose.

        Raises
        ------
        NadkitError
            The tables are not of one such graph.
        """
        return cls(tables.from_frames(units, links, facts))

    def to_dot(self) -> str:
        """Return the graph as text in the DOT language, a rank for each layer; nadkit does not read it.

        Raises
        ------
        NadkitError
            A graph without the attributes above.
        """
        return dot.text(checked(self.graph, "this graph"))

    def verify(
        self,
        network: Network | None = None,
        masks: MaskSet | None = None,
        images: Images | None = None,
        *,
        links: int = 20,
        pictures: int | None = None,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Return what ablating the strongest links costs the task, beside as many random ones.

        A link c → d is ablated by setting c to 0 in what d takes in directly, and nowhere else.

        Examples
        --------
        >>> import nadkit as nk
        >>> network, masks = nk.load_network("vgg-fashion"), nk.load_masks("vgg-fashion")
        >>> images = nk.load_images("fashion", split="test", per_class=8)
        >>> arch = nk.extract(network, masks, images, "bag", pictures=8, progress=False)
        >>> table = arch.verify(links=3)
        >>> table.groupby("kind")["source"].count().to_dict()
        {'random': 4, 'strongest': 4}

        Parameters
        ----------
        network, masks, images
            By default those that the graph was extracted from. A graph that was loaded needs all three; other
            pictures than those of the extraction are a harder test.
        links
            How many of the strongest links, by `strength`. Links from the input are none of them: the picture
            is one unit, and who does not see it is as if removed.
        pictures
            Of the task, at most; by default as many as the graph was read on. The draw is the extraction's.
        seed
            Of the random links.

        Returns
        -------
        pandas.DataFrame
            A row a link, and for either kind a row for all its links at once (source and target `all`):
            `task`, `kind` (`strongest`, `random`), `source`, `target`, `layer` (the target's), `weight`,
            `share`, `strength`, `loss` (what the task's log-odds lose, mean over its own pictures), `low`,
            `high` (its interval of 95 %, pictures vary; NaN with one picture) and `n` (pictures). Rows for
            all links at once have neither weight nor share nor strength (NaN). `attrs["answer"]` is a
            sentence, computed from the table.

            `strength` is the part of the logit's input that runs along the link (`share` × `carried` of the
            target), which links of different layers can be compared by; weights cannot, as every layer has a
            scale of its own. For
            each of the strongest links a random one is drawn among all pairs of kept units that have a
            weight other than 0, end in the same layer and are not among the strongest; where the graph does
            not list it, its weight is computed. Where a layer has fewer pairs, all are taken.

        Raises
        ------
        NadkitError
            The graph was loaded and network, masks or images are missing, or they are not those of the graph;
            there is no link.
        """
        from nadkit.graph.ablation import verify

        if self.origin is not None:
            network = self.origin.network if network is None else network
            masks = self.origin.masks if masks is None else masks
            images = self.origin.images if images is None else images
        if network is None or masks is None or images is None:
            raise NadkitError(
                "this graph was read from a file or a table, and does not hold its network, masks and "
                "images; give them: arch.verify(network, masks, images)"
            )
        origin = Origin(network, masks, images)
        return verify(self.graph, origin, links=links, pictures=pictures, seed=seed)

    def __repr__(self) -> str:
        """Return one line: whose it is, how many units and links, and where the flow is cut."""
        return f"SubArchitecture({self._headline()})"

    def _headline(self) -> str:
        facts = self.graph.graph
        kept = self.graph.number_of_nodes() - 2
        layers = len(self.layers) - len(self.empty)
        cut = f"; the flow is cut at {', '.join(self.cut)}" if self.cut else ""
        return (
            f"{self.task!r} in {self.network}: {kept:,} of {sum(facts['units'].values()):,} units in "
            f"{layers} layer{'s' * (layers != 1)}, {self.graph.number_of_edges():,} links{cut}"
        )

    def _repr_html_(self) -> str:
        """Return a table of kept units and of links into them, one row a layer."""
        layer = dict(self.graph.nodes(data="layer"))
        rows = []
        for name in (*self.layers, LOGIT):
            mine = [facts for _, facts in self.graph.nodes(data=True) if facts["layer"] == name]
            into = [layer[source] for source, target in self.graph.edges() if layer[target] == name]
            sources = ", ".join(f"{source} {into.count(source)}" for source in dict.fromkeys(into))
            units = self.graph.graph["units"].get(name, "")
            own = sum(facts["exclusive"] for facts in mine)
            rows.append(
                (name, str(units), *(("", "") if name == LOGIT else (str(len(mine)), str(own))), sources)
            )
        return table_html(
            self._headline(), ("layer", "units", "kept", "by no other task", "links from"), rows
        )
