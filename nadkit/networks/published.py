"""The places at which the published method put its gates, in the four networks that it took apart."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from torch import nn

from nadkit.errors import LayerError
from nadkit.networks.recording import Call


def pick_published(model: nn.Module, calls: Sequence[Call]) -> list[str]:
    """Return the published places of a network that has the modules of one of the four families.

    * VGG (torchvision): every ReLU of `features`, or the pooling behind it; the last one behind `avgpool`
    * ResNet (torchvision): `maxpool` and every block of `layer1` to `layer4`
    * DenseNet (torchvision): `features.pool0`, every dense block but the last, every transition, and the
      ReLU behind the last normalisation; all but that ReLU feed a normalisation
    * DARTS (as its authors wrote it): `stem0`, `stem1` and every cell; or one `stem`

    Examples
    --------
    >>> import torch
    >>> from nadkit.networks.recording import record_calls
    >>> parts = dict(stem=nn.Conv2d(1, 2, 3), cells=nn.Sequential(nn.ReLU(), nn.ReLU()))
    >>> model = nn.Sequential()
    >>> for name, part in parts.items():
    ...     model.add_module(name, part)
    >>> pick_published(model, record_calls(model, torch.zeros(1, 1, 4, 4)).calls)
    ['stem', 'cells.0', 'cells.1']

    Parameters
    ----------
    model : the module that ran
    calls : what `record_calls` found in it

    Raises
    ------
    LayerError
        The model is of none of these families.
    """
    names = {name for name, _ in model.named_children()}
    features = {name for name, _ in getattr(model, "features", nn.Identity()).named_children()}
    if names >= {"layer1", "layer2", "layer3", "layer4", "maxpool"}:
        found = r"maxpool|layer[1-4]\.\d+"
    elif "denseblock1" in features:
        last = max(name for name in features if name.startswith("denseblock"))
        found = rf"features\.(pool0|(?!{last})denseblock\d+|transition\d+)|:relu"
    elif "cells" in names and names & {"stem", "stem0"}:
        found = r"stem[01]?|cells\.\d+"
    elif names >= {"features", "avgpool", "classifier"} and features:
        return list(_behind_relu(calls))
    else:
        raise LayerError(
            f"layers='paper' knows the published places of VGG, ResNet, DenseNet and DARTS networks with the "
            f"names of torchvision or DARTS; {type(model).__name__} has none of these; take layers='auto'"
        )
    return [call.address for call in calls if re.fullmatch(found, call.path)]


def _behind_relu(calls: Sequence[Call]) -> Iterator[str]:
    behind = [call for call in calls if re.fullmatch(r"features\.\d+|avgpool", call.path)]
    after = [*behind[1:], None]
    for call, following in zip(behind, after, strict=True):
        if isinstance(call.module, nn.ReLU):
            if following is None or not isinstance(following.module, nn.MaxPool2d):
                yield call.address
            elif following is behind[-2] and behind[-1].path == "avgpool":
                yield "avgpool"
            else:
                yield following.address
