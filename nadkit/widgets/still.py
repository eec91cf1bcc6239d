"""What stands in for a widget where none lives: a static picture in the same output."""

from __future__ import annotations

import base64
import html
import itertools
import re
from collections.abc import Callable
from typing import Any

# Control characters, which a name may hold and XML may not.
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")

Draw = Callable[[], tuple[str, str]]
"""Returns an SVG document and its words."""


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


class Still:
    """The picture beside a widget, drawn anew until it shows what the cell made of the widget.

    An output is displayed before its answers are there, so its picture follows the widget: until the cell is
    over, and after that until all is there that the widget waits for. What is chosen later is not drawn, or
    a notebook's first picture would show what its last cell did.

    Attributes
    ----------
    name : what the widget hides the picture by
    draw : returns the picture and its words, as the widget is now
    whole : returns whether nothing is missing in it
    displayed : whether there is an output to draw in
    """

    def __init__(self, name: str, draw: Draw, whole: Callable[[], bool]) -> None:
        self.name, self.draw, self.whole = name, draw, whole
        self.displayed = False
        self._count = itertools.count(1)
        self._output, self._html, self._cell, self._done = "", "", 0, False

    def display(self, bundle: Any) -> None:
        """Display a widget, given its mime bundle, and its picture."""
        from IPython.display import HTML, display

        self._html, self._done = self._made(), self.whole()
        # Each output has a name of its own: one that an earlier cell shows stays as it is.
        self._output, self._cell = f"nadkit-{self.name}-{next(self._count)}", _cell()
        # The picture first: where the widget lives, it hides the picture; elsewhere only the picture shows.
        display(HTML(self._html), display_id=self._output)
        # An anywidget gives data and metadata, a widget of ipywidgets the data alone.
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        display(data, metadata=metadata, raw=True)
        self.displayed = True

    def follow(self) -> None:
        """Draw the picture anew in its output, unless it is whole and its cell is over."""
        if not self.displayed or not (cell := _cell()) or (self._done and cell != self._cell):
            return
        made, self._done = self._made(), self.whole()
        if made != self._html:
            from IPython.display import HTML, update_display

            self._html = made
            update_display(HTML(made), display_id=self._output)

    def _made(self) -> str:
        return figure_html(*self.draw(), self.name)


def _cell() -> int:
    """The number of the cell that runs, or of the next one; 0 where there is no kernel."""
    from IPython import get_ipython

    shell: Any = get_ipython()
    return int(shell.execution_count) if getattr(shell, "kernel", None) is not None else 0
