"""Which classes are alike, told five ways, and the pictures that the whole network gets wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from nadkit.images import Images
from nadkit.masks import MaskSet
from nadkit.networks import Network
from nadkit.networks.outputs import at_once
from nadkit.questions.asked import check_finite
from nadkit.questions.connections.pairs import overlaps
from nadkit.questions.forwards import BATCH, active, labels_of
from nadkit.taps import Taps, frozen


@dataclass(frozen=True, eq=False)
class Reading:
    """What the whole network makes of pictures.

    Attributes
    ----------
    labels : (n_images,) class indices of the network
    chosen : (n_images,) its own answers
    correct : (n_classes,) pictures of each class that it answers right
    features : (n_classes, n_units) of the last layer, over positions and these pictures; NaN without any
    confusions : (n_classes, n_classes) softmax over the same pictures; NaN rows without any
    live : address → (n_units,) bool, whether a unit is not 0 on all pictures
    """

    labels: Tensor
    chosen: Tensor
    correct: Tensor
    features: Tensor
    confusions: Tensor
    live: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Similarity:
    """How alike every two classes are.

    Attributes
    ----------
    name : the condition in tables
    matrices : (n_seeds, n_classes, n_classes) float64: how near the class of the column is to that of the row
    known : (n_classes,) the classes that it is known of
    """

    name: str
    matrices: Tensor
    known: Tensor


def read(network: Network, images: Images, advance: Callable[[int], object] = lambda _: None) -> Reading:
    """Return the whole network's answers, and means over the pictures it answers right.

    Features and confusions are of right answers only, so that no error predicts itself.

    Raises
    ------
    ImageError
        The pictures do not fit the network.
    NadkitError
        The network gives NaN or infinite logits.
    """
    labels = labels_of(network, images)
    classes, last = len(network.class_names), list(network.layers)[-1]
    features = torch.zeros(classes, network.layers[last].units, dtype=torch.float64)
    confusions = torch.zeros(classes, classes, dtype=torch.float64)
    live = {at: torch.zeros(layer.units, dtype=torch.bool) for at, layer in network.layers.items()}
    chosen: list[Tensor] = []
    for pixels, _ in images.batches(at_once(network.input_shape, BATCH)):
        inputs = network.prepare(pixels)
        mine = labels[sum(map(len, chosen)) :][: len(inputs)]
        with frozen(network.model), torch.no_grad(), Taps(network) as taps:
            logits = network.logits(inputs).cpu().double()
        check_finite(network, logits)
        for address, values in taps.activations.items():
            live[address] |= active(network, address, values)
        chosen.append(logits.argmax(1))
        right = chosen[-1] == mine
        pooled = over_positions(network, last, taps.activations[last])
        features.index_add_(0, mine[right], pooled[right])
        confusions.index_add_(0, mine[right], logits.softmax(1)[right])
        advance(len(inputs))
    answers = torch.cat(chosen)
    correct = torch.bincount(labels[labels == answers], minlength=classes)
    features, confusions = features / correct[:, None], confusions / correct[:, None]
    return Reading(labels, answers, correct, features, confusions, live)


def over_positions(network: Network, address: str, activation: Tensor) -> Tensor:
    """Return the mean over positions of what a layer gives, (n_images, n_units) float64 on the CPU."""
    values = activation.detach().movedim(network.layers[address].axis, 1)
    return values.flatten(2).mean(2).double().cpu() if values.ndim > 2 else values.double().cpu()


def similarities(
    network: Network, sets: Sequence[MaskSet], reading: Reading
) -> tuple[list[Similarity], list[str]]:
    """Return overlap (φ) and Jaccard of the masks and what simpler things say, and notes on what is left out.

    All are of the masks' tasks only, so that all choose among the same classes as far as they are known.
    """
    classes = len(network.class_names)
    places = torch.tensor([network.class_index(task) for task in sets[0].tasks])
    asked = torch.zeros(classes, dtype=torch.bool).index_fill(0, places, True)
    both = [_overlaps(masks, reading.live) for masks in sets]
    found = []
    for name, parts in zip(("overlap", "jaccard"), zip(*both, strict=True), strict=True):
        matrices = torch.full((len(sets), classes, classes), torch.nan, dtype=torch.float64)
        matrices[:, places[:, None], places] = torch.stack(parts)
        found.append(Similarity(name, matrices, asked))
    notes = []
    weights = classifier_weights(network)
    if weights is None:
        notes.append(f"no classifier weights: {network.name} has no Linear layer with one row a class")
    else:
        found.append(Similarity("classifier_weights", cosine(weights)[None], asked))
    pictured = asked & (reading.correct > 0)
    found.append(Similarity("mean_features", cosine(reading.features)[None], pictured))
    # Ranks are those of the softmax itself; in the logarithm a class that is often answered is additive.
    confusions = reading.confusions.clamp(min=1e-300).log()
    found.append(Similarity("mean_confusions", confusions[None], pictured))
    if missing := [network.class_names[k] for k in (asked & ~pictured).nonzero().flatten().tolist()]:
        notes.append(
            f"mean features and mean confusions leave out {', '.join(missing)}: no such picture is "
            "answered right"
        )
    return found, notes


def classifier_weights(network: Network) -> Tensor | None:
    """Return the rows (n_classes, n_inputs) of the model's last Linear layer with one output a class."""
    linear = [module for module in network.model.modules() if isinstance(module, nn.Linear)]
    fitting = [module for module in linear if module.out_features == len(network.class_names)]
    return fitting[-1].weight.detach().double().cpu() if fitting else None


def cosine(rows: Tensor) -> Tensor:
    """Return the cosine of every two rows; 0 to a row of zeros."""
    unit = normalize(rows, dim=1)
    return unit @ unit.T


def _overlaps(masks: MaskSet, live: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Mean φ and Jaccard over the layers where they exist; 0 (chance, nothing shared) where in none."""
    kept = {address: gates[:, live[address]] > 0 for address, gates in masks.gates().items()}
    found = overlaps(kept, kept)
    return found.phi[-1].nan_to_num(0.0), found.jaccard[-1].nan_to_num(0.0)
