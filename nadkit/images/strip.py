"""A strip of pictures for notebooks."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from nadkit.images.collection import Images

MOST_SHOWN = 20


def strip_html(images: Images) -> str:
    """Return HTML with the first pictures of every class as PNG, at most `MOST_SHOWN` in all.

    Parameters
    ----------
    images
        uint8, or float32; the latter is shown from 0 to 1, or from its lowest to its highest value if it goes
        beyond. Other than 3 channels are shown as their mean.
    """
    rows = _first_of_each(images.labels)
    pixels = _visible(images.pixels[rows])
    figures = []
    for picture, label in zip(pixels, images.labels[rows].tolist(), strict=True):
        name = html.escape(images.class_names[label])
        figures.append(
            '<figure style="display:inline-block;margin:2px;text-align:center;vertical-align:top">'
            f'<img alt="picture of class {name}" title="{name}" src="data:image/png;base64,{_png(picture)}" '
            'style="width:64px;height:64px;object-fit:contain;image-rendering:pixelated">'
            f'<figcaption style="font-size:11px;width:68px">{name}</figcaption></figure>'
        )
    left_out = len(images) - len(rows)
    more = f'<div style="font-size:11px">and {left_out} more</div>' if left_out else ""
    return f"<div><div>{html.escape(repr(images))}</div>{''.join(figures)}{more}</div>"


def _first_of_each(labels: Tensor) -> Tensor:
    """Rows of the first picture of each class, then the second of each, and so on; then sorted by class."""
    order = torch.argsort(labels, stable=True)
    counts = torch.bincount(labels)
    starts = counts.cumsum(0) - counts
    rank = torch.arange(len(labels)) - starts[labels[order]]
    chosen = order[torch.argsort(rank, stable=True)[:MOST_SHOWN]]
    return chosen[torch.argsort(labels[chosen], stable=True)]


def _visible(pixels: Tensor) -> Tensor:
    """uint8 (N, H, W, 1 or 3)."""
    values = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        values = (values - low) / max(high - low, 1e-12)
    if values.shape[1] != 3:
        values = values.mean(1, keepdim=True)
    return (values * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def _png(picture: Tensor) -> str:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture.squeeze(-1).contiguous().numpy()).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()
