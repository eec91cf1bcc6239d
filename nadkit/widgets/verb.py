"""`explore`: the explorer as one call."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nadkit.masks import MaskSet
from nadkit.widgets.explorer import Explorer
from nadkit.widgets.subject import Subject

if TYPE_CHECKING:
    import pandas as pd

    from nadkit.images import Images
    from nadkit.networks import Network


def explore(
    network: Network | None,
    masks: MaskSet,
    images: Images | None = None,
    *,
    calibrate_on: Images | None = None,
    task: str | None = None,
    layer: str | None = None,
    evidence: pd.DataFrame | None = None,
    per_class: int = 20,
    seed: int = 0,
) -> Explorer:
    """Return a widget to explore a network's sub-architectures by class and layer.

    Show it as the last line of a cell. It needs a notebook with a kernel: JupyterLab 4, Notebook 7, or
    anything that shows ipywidgets; elsewhere a static picture stands in for it.

    Examples
    --------
    >>> import nadkit as nk
    >>> network, masks = nk.load_network("resnet-fashion"), nk.load_masks("resnet-fashion")
    >>> images = nk.load_images("fashion", split="test", per_class=20)
    >>> explorer = explore(network, masks, images, task="sneaker")
    >>> explorer.layer, explorer.threshold
    ('stage3.2', 0.5)
    >>> explorer.task = "coat"
    >>> explorer.to_frame().query("kept").shape[0]
    151

    Parameters
    ----------
    network
        The trained network, or None if only masks are at hand; then panels that need it say so. The widget
        works on a copy of it, so that its work never meets that of your cells.
    masks
        Of this network, of one task or more.
    images
        Test pictures, or None. Up to 100 of each class, and 2,000 in all, can be chosen in the widget.
    calibrate_on
        Training pictures that the masks were not learned from, as in `whether`.
    task, layer
        What is shown first; by default the first task and the deepest layer.
    evidence
        A table of `whether` of these masks, if it is there already; otherwise it is measured, class by class.
    per_class
        Pictures of each class that the evidence is measured on, at most; the fewest there are of any class.
    seed
        Of random masks and of the pictures taken.

    Returns
    -------
    Explorer
        Its traits can be read, set and observed.

    Raises
    ------
    MaskFileError
        The masks are for another network.
    ImageError
        No picture is of a class that has a mask.
    NadkitError
        Something is of another type, or there is no such task or layer.
    """
    subject = replace(Subject.of(network, masks, images, calibrate_on), seed=seed)
    return Explorer(subject, task=task, layer=layer, evidence=evidence, per_class=per_class, seed=seed)
