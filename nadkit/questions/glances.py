"""What a network does on a few pictures, gated or not: energy per position, and the scores of its classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nadkit.errors import ImageError, LayerError, closest
from nadkit.images import Images, LazyPixels
from nadkit.measures import effective, proportion
from nadkit.measures.hits import energy
from nadkit.networks import Network
from nadkit.networks.outputs import at_once
from nadkit.questions.asked import check_finite, check_network
from nadkit.questions.forwards import BATCH
from nadkit.questions.recording import record
from nadkit.taps import Taps, frozen, maps_of

if TYPE_CHECKING:
    import pandas as pd


def layer_maps(
    network: Network,
    pixels: Tensor | LazyPixels,
    weights: Mapping[str, Tensor],
    gates: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return the energy of the open units at every position of every layer that has a grid.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Flatten(), torch.nn.Linear(8, 2))
    >>> pixels = torch.tensor([[[1.0, 2.0], [0.0, 0.0]], [[3.0, 0.0], [0.0, 0.0]]])[None]
    >>> network = Network.wrap(model, ["a", "b"], example=pixels, layers=["0"])
    >>> weights = {"0": torch.tensor([1.0, 0.5])}
    >>> layer_maps(network, pixels, weights)["0"].tolist()
    [[[5.5, 4.0], [0.0, 0.0]]]
    >>> layer_maps(network, pixels, weights, {"0": torch.tensor([1.0, 0.0])})["0"].tolist()
    [[[1.0, 4.0], [0.0, 0.0]]]

    Parameters
    ----------
    network
        Its modes and gradient flags come back.
    pixels
        (n, C, H, W): a few pictures, as they go through the network in one pass.
    weights
        Address → (n_units,), one over the variance of each unit: `unit_peaks(...).weights`.
    gates
        Address → (n_units,): 1 keeps, 0 removes; None for the whole network.

    Returns
    -------
    dict
        Address → (n, h, w) float64 on the CPU: the sum over units of squared activation times weight, as
        `measures.hits.energy` has it. Layers without rows and columns are left out.

    Raises
    ------
    ImageError
        Pictures that the network cannot take.
    LayerError
        A layer without weights, or weights or gates that do not fit.
    NadkitError
        No network; NaN or infinite logits.

    Notes
    -----
    It may run in a thread of its own, while no other thread runs the same model.
    """
    check_network("layer_maps", network)
    for address, layer in network.layers.items():
        if address not in weights:
            raise LayerError(f"no weights for layer {address!r}; {closest(address, weights)}")
        if tuple(weights[address].shape) != (layer.units,):
            given = tuple(weights[address].shape)
            raise LayerError(f"weights of {address!r} are {given}; give one a unit, ({layer.units},)")
    if isinstance(pixels, LazyPixels):
        pixels = pixels[:]
    logits, activations = record(network, pixels, _one_row(gates))
    check_finite(network, logits)
    found = {}
    for address, layer in network.layers.items():
        maps = maps_of(activations[address], layer)
        if maps is not None:
            found[address] = energy(maps.cpu().double(), weights[address])
    return found


def class_scores(
    network: Network, pictures: Images | Tensor | LazyPixels, gates: Mapping[str, Tensor] | None = None
) -> Tensor:
    """Return the probability of every class, (n_images, n_classes) float64 on the CPU.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 2, bias=False))
    >>> _ = model[1].weight.data.copy_(torch.eye(2))
    >>> pixels = torch.tensor([5.0, 0.0]).view(1, 2, 1, 1)
    >>> network = Network.wrap(model, ["left", "right"], example=pixels, layers=["1"])
    >>> class_scores(network, pixels).round(decimals=3).tolist()
    [[0.993, 0.007]]
    >>> class_scores(network, pixels, {"1": torch.tensor([0.0, 1.0])}).tolist()
    [[0.5, 0.5]]

    Parameters
    ----------
    network
        Its modes and gradient flags come back.
    pictures
        `Images`, or pixels (n, C, H, W); they are decoded batch by batch.
    gates
        Address → (n_units,): 1 keeps, 0 removes; None for the whole network.

    Returns
    -------
    Tensor
        The softmax of the logits; every row adds up to 1.

    Raises
    ------
    ImageError
        Pictures that the network cannot take.
    LayerError
        A gate of no layer, or one that does not fit.
    NadkitError
        No network; NaN or infinite logits.

    Notes
    -----
    It may run in a thread of its own, while no other thread runs the same model.
    """
    check_network("class_scores", network)
    chosen = _one_row(gates)
    found = []
    for pixels in _batches(pictures, at_once(network.input_shape, BATCH)):
        inputs = network.prepare(pixels)
        with frozen(network.model), torch.no_grad(), Taps(network, (), gates=chosen):
            logits = network.logits(inputs)
        check_finite(network, logits)
        found.append(logits.cpu().double().softmax(1))
    return torch.cat(found)


def class_table(
    network: Network, pictures: Images | Tensor | LazyPixels, gates: Mapping[str, Tensor] | None = None
) -> pd.DataFrame:
    """Return for every class its mean probability, and the share of pictures answered with it.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 2, bias=False))
    >>> _ = model[1].weight.data.copy_(9 * torch.eye(2))
    >>> pixels = torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 1]]).view(4, 2, 1, 1)
    >>> network = Network.wrap(model, ["left", "right"], example=pixels, layers=["1"], name="net")
    >>> class_table(network, pixels).query("metric == 'answered'").round(2)
      network class_name    metric  value   low  high  n interval
    1     net       left  answered   0.75  0.30  0.95  4   images
    3     net      right  answered   0.25  0.05  0.70  4   images

    Parameters
    ----------
    network, pictures, gates
        As in `class_scores`; at least one picture.

    Returns
    -------
    pandas.DataFrame
        Two rows a class. Columns network, class_name, metric (probability or answered), value, low and high
        (95 %, over pictures: Wilson's interval of the share, and for the mean probability that of a
        proportion with its variance), n (pictures) and interval, which says what varies.

    Raises
    ------
    ImageError, LayerError, NadkitError
        As in `class_scores`; no pictures.
    """
    import pandas as pd

    if isinstance(pictures, Images | Tensor | LazyPixels) and not len(pictures):
        raise ImageError("class_table got no pictures, and a mean of none says nothing; give some")
    scores = class_scores(network, pictures, gates)
    n = len(scores)
    answered = scores.argmax(1).bincount(minlength=scores.shape[1]).tolist()
    spread = (scores.var(0) / n).tolist() if n > 1 else [0.0] * scores.shape[1]
    rows = []
    for index, name in enumerate(network.class_names):
        mean = effective(min(1.0, float(scores[:, index].mean())), spread[index], n)
        rows += [("probability", name, mean), ("answered", name, proportion(answered[index], n))]
    return pd.DataFrame(
        [(network.name, name, metric, *estimate, n, "images") for metric, name, estimate in rows],
        columns=["network", "class_name", "metric", "value", "low", "high", "n", "interval"],
    )


def _batches(pictures: Images | Tensor | LazyPixels, size: int) -> Iterator[Tensor]:
    if isinstance(pictures, Images):
        yield from (pixels for pixels, _ in pictures.batches(size))
        return
    if not isinstance(pictures, Tensor | LazyPixels) or not pictures.ndim:
        raise ImageError(
            f"class_scores needs pictures, and got {type(pictures).__name__}; give Images or a tensor "
            "(N, C, H, W)"
        )
    yield from (pictures[start : start + size] for start in range(0, max(1, len(pictures)), size))


def _one_row(gates: Mapping[str, Tensor] | None) -> Mapping[str, Tensor] | None:
    """Refuse gates of several tasks, as every picture passes the network once."""
    if isinstance(gates, Mapping):
        for address, gate in gates.items():
            if isinstance(gate, Tensor) and gate.ndim != 1:
                raise LayerError(
                    f"the gate of {address!r} is {tuple(gate.shape)}; give one value a unit, "
                    "as masks.gates(task) does"
                )
    return gates
