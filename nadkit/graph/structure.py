"""`layer_graph`: which layers feed which."""

from __future__ import annotations

import networkx as nx
import torch

from nadkit.errors import NadkitError
from nadkit.graph.cutting import INPUT, LOGIT, OUTPUT, check_ends, cut
from nadkit.networks import Network
from nadkit.taps import frozen


def layer_graph(network: Network) -> nx.DiGraph:
    """Return which tapped layers feed which, directly: past no other tapped layer.

    Examples
    --------
    >>> import nadkit as nk
    >>> graph = nk.layer_graph(nk.load_network("densenet-fashion"))
    >>> sorted(graph.predecessors("transition1"))
    ['block1.layers.0', 'block1.layers.1', 'block1.layers.2', 'stem']

    Parameters
    ----------
    network
        Every layer counts, whether it feeds a normalisation or not; `Network.wrap(..., layers=...)` chooses.

    Returns
    -------
    networkx.DiGraph
        Nodes `input`, the layers' addresses in forward order, `output`. The graph's attributes are `network`,
        `weights_id`, `layers` (addresses in forward order) and `units` (address → number).

    Raises
    ------
    LayerError
        A layer is called `input` or `output`, or gives no tensor of floating-point numbers.
    NadkitError
        No network, or logits that are NaN or infinite.

    Notes
    -----
    The network runs once, on two random pictures. A gradient that does not exist says that a layer's output
    is not used on the way to another; one that is 0 says nothing, so that an operation which multiplies by 0
    counts as a connection. A network that chooses its way by the picture is seen on these two only.
    """
    if not isinstance(network, Network):
        raise NadkitError(
            f"layer_graph needs a network, got {type(network).__name__}; nk.Network.wrap makes one of a model"
        )
    check_ends(network, INPUT, OUTPUT)
    pixels = torch.rand(2, *network.input_shape, generator=torch.Generator().manual_seed(0))
    graph = nx.DiGraph(
        network=network.name,
        weights_id=network.weights_id,
        layers=list(network.layers),
        units={address: layer.units for address, layer in network.layers.items()},
    )
    graph.add_nodes_from([INPUT, *network.layers, OUTPUT])
    with frozen(network.model):
        made = cut(network, network.prepare(pixels))
        for name, output in made.outputs.items():
            target = OUTPUT if name == LOGIT else name
            sources = made.gradients(name, torch.ones_like(output))
            graph.add_edges_from((source, target) for source in sources)
    return graph
