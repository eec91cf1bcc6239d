"""Take a trained network apart by task, and see the evidence beside its controls.

Everything public is a name of this module: ``import nadkit as nk``, then ``nk.load_network(...)``. The
names are resolved at first use, so the import itself loads neither torch nor any display library.

Examples
--------
>>> import nadkit as nk
>>> "load_network" in dir(nk)
True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import nadkit.errors as errors  # noqa: F401 - a public name
    import nadkit.figures as figures  # noqa: F401 - a public name
    import nadkit.graph as graph  # noqa: F401 - a public name
    import nadkit.toy as toy  # noqa: F401 - a public name
    import nadkit.widgets as widgets  # noqa: F401 - a public name
    from nadkit.errors import NadkitError as NadkitError
    from nadkit.graph import SubArchitecture as SubArchitecture
    from nadkit.graph import extract as extract
    from nadkit.graph import layer_graph as layer_graph
    from nadkit.heatmaps import heatmap as heatmap
    from nadkit.images import Images as Images
    from nadkit.images import load_images as load_images
    from nadkit.learn import Objective as Objective
    from nadkit.learn import learn_masks as learn_masks
    from nadkit.masks import MaskSet as MaskSet
    from nadkit.masks import Unit as Unit
    from nadkit.networks import Network as Network
    from nadkit.networks import layers as layers
    from nadkit.networks import load_masks as load_masks
    from nadkit.networks import load_network as load_network
    from nadkit.questions import how as how
    from nadkit.questions import recovery as recovery
    from nadkit.questions import stability as stability
    from nadkit.questions import where as where
    from nadkit.questions import whether as whether
    from nadkit.questions import why as why
    from nadkit.slicing import cost as cost
    from nadkit.slicing import export as export
    from nadkit.taps import Taps as Taps
    from nadkit.widgets import explore as explore

__version__ = "0.1.0"

# Where each public name lives; None for a module that is itself the public name.
_HOMES: dict[str, str | None] = {
    "Images": "images",
    "MaskSet": "masks",
    "NadkitError": "errors",
    "Network": "networks",
    "Objective": "learn",
    "SubArchitecture": "graph",
    "Taps": "taps",
    "Unit": "masks",
    "cost": "slicing",
    "errors": None,
    "explore": "widgets",
    "export": "slicing",
    "extract": "graph",
    "figures": None,
    "graph": None,
    "heatmap": "heatmaps",
    "how": "questions",
    "layer_graph": "graph",
    "layers": "networks",
    "learn_masks": "learn",
    "load_images": "images",
    "load_masks": "networks",
    "load_network": "networks",
    "recovery": "questions",
    "stability": "questions",
    "toy": None,
    "where": "questions",
    "whether": "questions",
    "why": "questions",
    "widgets": None,
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    """Return a public name, imported at first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'nadkit' has no attribute {name!r}; there are: {', '.join(_HOMES)}")
    home = _HOMES[name]
    value: object = importlib.import_module(f"nadkit.{home or name}")
    if home:
        value = getattr(value, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, for completion."""
    return sorted([*_HOMES, "__version__"])
