"""Small pictures for a page."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from torch.nn.functional import interpolate

from nadkit.figures._png import png_uri, visible

_MADE: WeakKeyDictionary[Any, dict[tuple[int, int], str]] = WeakKeyDictionary()


def thumb(images: Any, place: int, most: int) -> str:
    """Return one picture as the address of a PNG, at most `most` pixels a side; made once."""
    made = _MADE.setdefault(images, {})
    key = (place, most)
    if key not in made:
        shown = visible(images[[place]].pixels[:])
        height, width = shown.shape[1:3]
        if max(height, width) > most:
            size = (max(1, height * most // max(height, width)), max(1, width * most // max(height, width)))
            small = interpolate(shown.permute(0, 3, 1, 2).float(), size=size, mode="area")
            shown = small.round().byte().permute(0, 2, 3, 1)
        made[key] = png_uri(shown[0])
    return made[key]
