"""Where every unit responds most in every picture, from one pass of the whole network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nadkit.errors import LayerError, closest
from nadkit.images import Images
from nadkit.masks import Unit
from nadkit.networks import Network
from nadkit.networks.outputs import at_once
from nadkit.questions.asked import check_finite, check_images, check_network, check_number
from nadkit.questions.forwards import BATCH
from nadkit.questions.recording import Moments, add_moments, record, weights_of
from nadkit.taps import maps_of

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("image", "value", "left", "top", "width", "height")
MOST = 2**24
"""Numbers that the layers of one batch may give together: 64 MB in float32."""


@dataclass(frozen=True, eq=False)
class UnitPeaks:
    """Where every unit responds most in every picture. All tensors lie on the CPU.

    Attributes
    ----------
    values : address → (n_images, n_units) float32: the largest response over positions
    places : address → (n_images, n_units) int32: its flat position on the layer's grid, row by row; the
        first of equal ones
    grids : address → (h, w) of the layer's grid; (1, 1) where a layer has no rows and columns
    weights : address → (n_units,) float64, one over the variance of each unit, as
        `measures.hits.unit_weights` gives it
    logits : (n_images, n_classes) of the whole network
    """

    values: Mapping[str, Tensor]
    places: Mapping[str, Tensor]
    grids: Mapping[str, tuple[int, int]]
    weights: Mapping[str, Tensor]
    logits: Tensor

    def __repr__(self) -> str:
        units = sum(values.shape[1] for values in self.values.values())
        return f"UnitPeaks({units} units of {len(self.values)} layers on {len(self.logits)} pictures)"

    def top(self, unit: Unit | str, count: int = 8) -> pd.DataFrame:
        """Return the pictures to which a unit responds most, and the place in each.

        Parameters
        ----------
        unit
            Such as `"layer3.1/17"`.
        count
            Pictures, at least 1.

        Returns
        -------
        pandas.DataFrame
            Largest response first, equal ones by index. Columns: image (index), value, and the cell of the
            grid in fractions of the picture, 0 to 1: left, top, width, height; the whole picture, where a
            layer has no rows and columns. A picture on which the unit's largest response is 0 has no such
            place and no row, so that a unit that is 0 everywhere gives no rows.

        Raises
        ------
        LayerError
            There is no such layer or unit.
        NadkitError
            `count` is no whole number of 1 or more.
        """
        import pandas as pd

        layer, index = self._find(unit)
        check_number("count", count, 1)
        values = self.values[layer][:, index]
        order = values.argsort(descending=True, stable=True)
        order = order[values[order] != 0][:count]
        high, wide = self.grids[layer]
        places = self.places[layer][order, index]
        rows, columns = places // wide, places % wide
        table = pd.DataFrame(
            {
                "image": order.numpy(),
                "value": values[order].double().numpy(),
                "left": (columns / wide).double().numpy(),
                "top": (rows / high).double().numpy(),
            }
        )
        return table.assign(width=1 / wide, height=1 / high)

    def _find(self, unit: Unit | str) -> tuple[str, int]:
        layer, index = unit if isinstance(unit, Unit) else Unit.parse(unit)
        if layer not in self.values:
            raise LayerError(f"no layer {layer!r} for unit {layer}/{index}; {closest(layer, self.values)}")
        units = self.values[layer].shape[1]
        if not 0 <= index < units:
            raise LayerError(f"no unit {layer}/{index}; {layer!r} has units 0 to {units - 1}")
        return layer, index


def unit_peaks(
    network: Network, images: Images, *, advance: Callable[[int], object] | None = None
) -> UnitPeaks:
    """Return where every unit responds most in every picture, from one pass of the whole network.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Flatten(), torch.nn.Linear(4, 2))
    >>> pixels = torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0]]).view(2, 1, 2, 2)
    >>> network = Network.wrap(model, ["a", "b"], example=pixels, layers=["0"])
    >>> unit_peaks(network, Images(pixels, torch.tensor([0, 1]), ("a", "b"))).top("0/0")
       image  value  left  top  width  height
    0      1    3.0   0.0  0.5    0.5     0.5
    1      0    1.0   0.5  0.0    0.5     0.5

    Parameters
    ----------
    network
        The trained network; its modes and gradient flags come back.
    images
        Any pictures that it takes; their classes are not looked at. They are decoded batch by batch.
    advance
        Called with the number of pictures done.

    Returns
    -------
    UnitPeaks
        What is kept is eight bytes for each picture and unit.

    Raises
    ------
    ImageError
        The pictures do not fit the network.
    LayerError
        A layer cannot be tapped as it is named.
    NadkitError
        No network or no pictures; NaN or infinite logits.

    Notes
    -----
    It may run in a thread of its own, while no other thread runs the same model.
    """
    check_network("unit_peaks", network)
    check_images("unit_peaks", images)
    count, done = len(images), 0
    values = {address: torch.empty(count, layer.units) for address, layer in network.layers.items()}
    places = {a: torch.zeros(count, layer.units, dtype=torch.int32) for a, layer in network.layers.items()}
    grids = dict.fromkeys(network.layers, (1, 1))
    moments: dict[str, Moments] = {}
    logits = []
    for pixels, _ in images.batches(_batch_size(network, images)):
        found, activations = record(network, pixels)
        check_finite(network, found)
        logits.append(found.cpu())
        part = slice(done, done + len(pixels))
        for address, layer in network.layers.items():
            maps = maps_of(activations[address], layer)
            if maps is not None:
                grids[address] = (maps.shape[2], maps.shape[3])
                most, at = maps.flatten(2).max(2)
                places[address][part] = at.cpu().int()
            else:
                units = activations[address].movedim(layer.axis, 1)
                most = units.reshape(len(pixels), layer.units, -1).amax(2)
            values[address][part] = most.float().cpu()
        add_moments(moments, network, activations)
        # They are gone before the next batch adds its own.
        activations.clear()
        done += len(pixels)
        if advance is not None:
            advance(len(pixels))
    weights = {address: weight.cpu() for address, weight in weights_of(moments).items()}
    return UnitPeaks(values, places, grids, weights, torch.cat(logits))


def _batch_size(network: Network, images: Images) -> int:
    """As many pictures as a batch has, fewer if the layers of a large network would give too much."""
    activations = record(network, images.pixels[:1]).activations
    most = at_once(network.input_shape, BATCH)
    return max(1, min(most, MOST // sum(values.numel() for values in activations.values())))
