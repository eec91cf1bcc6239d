"""A static picture of the map, for places where no widget lives.

A plotly figure would need plotly's JavaScript or a browser to become a picture; this is plain SVG.
"""

from __future__ import annotations

import base64
import html
import math
import re
from typing import Any

from nadkit.widgets.choice import Choice
from nadkit.widgets.subject import Subject
from nadkit.widgets.views.network import columns, legend
from nadkit.widgets.views.words import summary

# Control characters, which a name may hold and XML may not.
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_PITCH, _ROWS, _TOP, _GAP, _LEAST = 9, 18, 56, 14, 56
# Colour and outline, drawn from where the pen is, by the codes of the map.
_SHAPES = {
    0: ("#9a9a9a", "m-1 0a1 1 0 1 0 2 0a1 1 0 1 0 -2 0"),
    1: ("#0072B2", "m-3 0a3 3 0 1 0 6 0a3 3 0 1 0 -6 0"),
    2: ("#0072B2", "m0 -4l4 4l-4 4l-4 -4z"),
    3: ("#A6507F", "m0 -3.6l3.4 6.4h-6.8z"),
    4: ("#00805D", "m-2.8 -2.8h5.6v5.6h-5.6z"),
}


def still_html(subject: Subject, choice: Choice, name: str) -> str:
    """Return a figure of the map and its caption; `name` is what the widget hides it by."""
    return figure_html(still_svg(subject, choice), summary(subject, choice), name)


def figure_html(svg: str, words: str, name: str) -> str:
    """Return a figure of an SVG document, its words and how to get the widget instead."""
    words = _NO_XML.sub("\ufffd", words)
    image = base64.b64encode(_NO_XML.sub("\ufffd", svg).encode()).decode()
    caption = (
        f"{html.escape(words)} This is a static picture: run the cell in a notebook with a kernel to explore."
    )
    return (
        f'<figure class="nadkit-still-{name}" style="margin:0"><img alt="{html.escape(words)}" '
        f'style="max-width:100%" src="data:image/svg+xml;base64,{image}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def display_with(still: str, bundle: Any) -> None:
    """Display a widget, given its mime bundle, and what stands in for it."""
    from IPython.display import HTML, display

    # The picture first: where the widget lives, it hides the picture; elsewhere only the picture shows.
    display(HTML(still))
    # An anywidget gives data and metadata, a widget of ipywidgets the data alone.
    data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
    display(data, metadata=metadata, raw=True)


def still_svg(subject: Subject, choice: Choice) -> str:
    """Return the map as an SVG document."""
    made: list[str] = []
    x = 8.0
    for column in columns(subject, choice):
        if column.get("end"):
            continue
        units = len(column["ids"]) if column["ids"] else column["units"]
        wide = max(_LEAST, math.ceil(units / _ROWS) * _PITCH) if column["open"] else _LEAST
        label = str(column["label"])
        label = f"…{label[-9:]}" if len(label) > 10 else label
        for y, text in ((30, label), (45, f"{column['kept']}/{column['units']}")):
            made.append(f'<text x="{x + wide / 2}" y="{y}" text-anchor="middle">{html.escape(text)}</text>')
        made += _marks(column, x, wide) if column["open"] else _bar(column, x, wide)
        x += wide + _GAP
    height = _TOP + _ROWS * _PITCH + 30
    at = 16.0
    for code, words, hollow in legend(subject, choice):
        if not hollow:
            colour, shape = _SHAPES[code]
            made.append(f'<path d="M{at:g} {height - 12}{shape}" fill="{colour}"/>')
            made.append(f'<text x="{at + 9}" y="{height - 8}">{html.escape(words)}</text>')
            at += 26 + 6.2 * len(words)
    width = max(x, at, 420)
    title = f'<text x="8" y="14" font-weight="bold">{html.escape(f"{subject.name}: {choice.task}")}</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" '
        f'height="{height}" font-family="sans-serif" font-size="11" fill="#1b1f24">'
        f'<rect width="100%" height="100%" fill="#fff"/>{title}{"".join(made)}</svg>'
    )


def _marks(column: dict[str, Any], x: float, wide: float) -> list[str]:
    left = x + (wide - math.ceil(len(column["marks"]) / _ROWS) * _PITCH) / 2 + _PITCH / 2
    # One path a kind: a mark each would make the picture ten times as large.
    found = []
    for code, (colour, shape) in _SHAPES.items():
        spots = [at for at, mark in enumerate(column["marks"]) if int(mark) == code]
        moved = "".join(
            f"M{left + at // _ROWS * _PITCH:g} {_TOP + 4 + at % _ROWS * _PITCH}{shape}" for at in spots
        )
        if moved:
            found.append(f'<path fill="{colour}" d="{moved}"/>')
    return found


def _bar(column: dict[str, Any], x: float, wide: float) -> list[str]:
    whole = _ROWS * _PITCH
    high = whole * column["kept"] / max(column["units"], 1)
    left = x + wide / 2 - 8
    return [
        f'<rect x="{left}" y="{_TOP}" width="16" height="{whole}" fill="#eef0f2" stroke="#b8bec5"/>',
        f'<rect x="{left}" y="{_TOP + whole - high:.1f}" width="16" height="{high:.1f}" fill="#0072B2"/>',
    ]
