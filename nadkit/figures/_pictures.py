"""Pictures side by side, each with its caption."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from nadkit.errors import NadkitError
from nadkit.figures._png import png_uri, visible

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from torch import Tensor


class Pictures(Protocol):
    """Labelled pictures, such as `Images`."""

    @property
    def pixels(self) -> Tensor:
        """(N, C, H, W), indexable by a slice."""

    @property
    def labels(self) -> Tensor:
        """(N,) class indices."""

    @property
    def class_names(self) -> Sequence[str]:
        """A name for each class."""


def pictures(images: Pictures, titles: Sequence[str] | None = None, columns: int = 8) -> go.Figure:
    """Return a grid of small pictures, each with its caption below.

    Examples
    --------
    >>> import torch
    >>> from types import SimpleNamespace as Thing
    >>> labels = torch.tensor([0, 1, 0])
    >>> images = Thing(pixels=torch.rand(3, 1, 4, 4), labels=labels, class_names=("bag", "coat"))
    >>> pictures(images, columns=2).layout.meta["alt"]
    'Grid of 3 pictures in 2 rows: bag, coat, bag.'

    Parameters
    ----------
    images
        `Images`; uint8, or floats that are shown from 0 to 1, or from their lowest to their highest value if
        they go beyond. Other than 3 channels are shown as their mean.
    titles
        One caption a picture, lines parted by a newline; None takes class names.
    columns
        Pictures side by side, at least 1.

    Returns
    -------
    plotly.graph_objects.Figure
        One image trace with every picture, pixels kept square and sharp, and an annotation a caption.

    Raises
    ------
    NadkitError
        Another number of titles than of pictures, or fewer than one column.
    """
    import plotly.graph_objects as go

    count = len(images.labels)
    captions = [images.class_names[k] for k in images.labels.tolist()] if titles is None else list(titles)
    if len(captions) != count:
        raise NadkitError(f"{len(captions)} titles for {count} pictures; give one a picture")
    if columns < 1:
        raise NadkitError(f"{columns} columns were asked for; give at least 1")
    columns = min(columns, count)
    shown = visible(images.pixels[:])
    _, height, width, _ = shown.shape
    lines = max(caption.count("\n") + 1 for caption in captions)
    # A cell is 104 pixels wide on the screen; captions of 12 pixels need 17 a line.
    gap, below = max(1, round(width * 0.08)), max(2, math.ceil(width / 104 * (17 * lines + 6)))
    across, down = width + gap, height + below
    grid_rows = -(-count // columns)
    canvas = shown.new_full((grid_rows * down, columns * across - gap, 3), 255)
    notes = []
    for place, (picture, caption) in enumerate(zip(shown, captions, strict=True)):
        top, left = place // columns * down, place % columns * across
        canvas[top : top + height, left : left + width] = picture
        notes.append(
            {
                "x": left + (width - 1) / 2,
                "y": top + height - 0.5,
                "text": html.escape(caption).replace("\n", "<br>"),
                "showarrow": False,
                "yanchor": "top",
                "font": {"size": 12, "color": "#1b1f24"},
            }
        )
    figure = go.Figure(go.Image(source=png_uri(canvas), hoverinfo="skip"))
    said = ", ".join(caption.replace("\n", " ") for caption in captions)
    kinds = f"{count} picture{'s' * (count != 1)} in {grid_rows} row{'s' * (grid_rows != 1)}"
    figure.update_layout(
        annotations=notes,
        width=round(104 / width * across * columns) + 20,
        height=round(104 / width * down * grid_rows) + 20,
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        plot_bgcolor="white",
        paper_bgcolor="white",
        meta={"alt": f"Grid of {kinds}: {said}."},
    )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return figure
