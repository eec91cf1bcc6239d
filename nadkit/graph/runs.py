"""Forward passes in which links are ablated: a source is 0 in what its target takes in directly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from nadkit.graph.cutting import INPUT, LOGIT
from nadkit.networks import Network
from nadkit.taps import Taps

_AT_ONCE = 256
"""Pictures in one forward pass, at most."""
_VALUES = 4_000_000
"""Numbers in them, at most, where one group of pictures has not more."""


class Place(NamedTuple):
    """A unit by its layer and place there; the input is `(input, -1)`, a logit `(logit, class index)`."""

    layer: str
    unit: int


class Link(NamedTuple):
    """From one unit to another."""

    source: Place
    target: Place


@dataclass(frozen=True)
class Clean:
    """A gated network on some pictures, with nothing ablated.

    Attributes
    ----------
    network, gates : gates are address → (n_units,)
    inputs : (n, C, H, W), prepared
    record : address → what the layer gives, gated, in the order in which layers run
    logits : (n, n_classes)
    """

    network: Network
    gates: Mapping[str, Tensor]
    inputs: Tensor
    record: Mapping[str, Tensor]
    logits: Tensor

    @classmethod
    def of(cls, network: Network, gates: Mapping[str, Tensor], inputs: Tensor) -> Clean:
        """Run the network once; call it within `frozen(network.model)`, as all that follows."""
        with torch.no_grad(), Taps(network, list(network.layers), gates=gates) as taps:
            logits = network.logits(inputs)
        return cls(network, gates, inputs, taps.activations, logits)

    @property
    def order(self) -> dict[str, int]:
        """Return the place in the forward order of the ends and every layer."""
        return {name: at for at, name in enumerate((INPUT, *self.record, LOGIT))}

    @property
    def at_once(self) -> int:
        """Return how many groups of these pictures go through together."""
        return max(1, min(_AT_ONCE, _VALUES // self.inputs[0].numel()) // len(self.inputs))

    def unit(self, values: Tensor, place: Place) -> Tensor:
        """Return a view of one unit in what its layer, or the network, gives."""
        axis = 1 if place.layer == LOGIT else self.network.layers[place.layer].axis
        return values.select(axis, place.unit)

    def run(self, groups: int, inputs: Tensor, edits: Mapping[str, Callable[[Tensor], None]]) -> Tensor:
        """Return logits (groups, n, n_classes) of inputs (groups, n, …); edits change what has that shape."""

        def made(change: Callable[[Tensor], None]) -> Callable[[Tensor], Tensor]:
            def edit(output: Tensor) -> Tensor:
                # A copy: some modules hand on the very tensor that came in.
                output = output.clone()
                change(output.unflatten(0, (groups, -1)))
                return output

            return edit

        changes = {address: made(change) for address, change in edits.items()}
        with torch.no_grad(), Taps(self.network, (), gates=self.gates, edits=changes):
            logits: Tensor = self.network.logits(inputs.flatten(0, 1)).unflatten(0, (groups, -1))
        return logits


def one_by_one(clean: Clean, links: Sequence[Link]) -> Tensor:
    """Return the logits (n_links, n, n_classes) with one link ablated at a time.

    Two passes for as many links as there is room for, as later layers may read the source too and must find
    it there: the first says what the target gives when the source is absent, and layers between the two give
    what they give without ablation, so that the absence reaches the target directly only. In the second all
    is as it was, but for the target.
    """
    parts = [links[start : start + clean.at_once] for start in range(0, len(links), clean.at_once)]
    return torch.cat([_one_by_one(clean, part) for part in parts])


def _one_by_one(clean: Clean, links: Sequence[Link]) -> Tensor:
    order = clean.order
    inputs = clean.inputs.expand(len(links), *clean.inputs.shape).clone()
    for group, (source, _) in enumerate(links):
        if source.layer == INPUT:
            inputs[group].zero_()
    caught: dict[int, Tensor] = {}

    def first(address: str) -> Callable[[Tensor], None]:
        def edit(values: Tensor) -> None:
            for group, (source, target) in enumerate(links):
                if source.layer == address:
                    clean.unit(values[group], source).zero_()
                elif target.layer == address:
                    caught[group] = clean.unit(values[group], target).clone()
                elif order[source.layer] < order[address] < order[target.layer]:
                    values[group].copy_(clean.record[address])

        return edit

    def second(address: str) -> Callable[[Tensor], None]:
        def edit(values: Tensor) -> None:
            for group, (_, target) in enumerate(links):
                if target.layer == address:
                    clean.unit(values[group], target).copy_(caught[group])

        return edit

    absent = clean.run(len(links), inputs, {address: first(address) for address in clean.record})
    inputs = clean.inputs.expand(len(links), *clean.inputs.shape)
    logits = clean.run(len(links), inputs, {address: second(address) for address in clean.record})
    for group, (_, target) in enumerate(links):
        if target.layer == LOGIT:
            clean.unit(logits[group], target).copy_(clean.unit(absent[group], target))
    return logits


def all_at_once(clean: Clean, links: Sequence[Link]) -> Tensor:
    """Return the logits (n, n_classes) with all links ablated together.

    Layer by layer: what a layer gives follows from what the layers before it give by now, but for the targets
    of links, each of which sees its own sources as 0.
    """
    order = clean.order
    targets: dict[Place, set[Place]] = {}
    for link in links:
        targets.setdefault(link.target, set()).add(link.source)
    now = dict(clean.record)
    logits = clean.logits
    for layer in (*clean.record, LOGIT):
        mine = [place for place in targets if place.layer == layer]
        if not any(order[place.layer] <= order[layer] for place in targets):
            continue
        made = _layer(clean, layer, now, [set()])[0]
        for start in range(0, len(mine), clean.at_once):
            part = mine[start : start + clean.at_once]
            found = _layer(clean, layer, now, [targets[place] for place in part])
            for group, place in enumerate(part):
                clean.unit(made, place).copy_(clean.unit(found[group], place))
        if layer == LOGIT:
            logits = made
        else:
            now[layer] = made
    return logits


def _layer(clean: Clean, layer: str, now: Mapping[str, Tensor], absent: Sequence[set[Place]]) -> Tensor:
    """Return what a layer gives (groups, n, …) when earlier layers give what is said, less absent units."""
    order = clean.order
    inputs = clean.inputs.expand(len(absent), *clean.inputs.shape).clone()
    for group, sources in enumerate(absent):
        if any(source.layer == INPUT for source in sources):
            inputs[group].zero_()
    caught: list[Tensor] = []

    def change(address: str) -> Callable[[Tensor], None]:
        def edit(values: Tensor) -> None:
            if address == layer:
                caught.append(values.clone())
                return
            for group, sources in enumerate(absent):
                values[group].copy_(now[address])
                for source in sources:
                    if source.layer == address:
                        clean.unit(values[group], source).zero_()

        return edit

    before = [address for address in clean.record if order[address] <= order[layer]]
    logits = clean.run(len(absent), inputs, {address: change(address) for address in before})
    return logits if layer == LOGIT else caught[0]
