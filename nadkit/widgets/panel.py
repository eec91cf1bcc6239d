"""`Panel`: one frame of a widget, whose state Python sends and whose wishes come back as messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from nadkit.widgets.still import Still
from nadkit.widgets.stills.panels import panel_still

STATIC = Path(__file__).parent / "static"

# Files that a panel's own one builds on, after what every panel shares.
PARTS = {"gallery": ("fields.js",), "player": ("fields.js",), "bench": ("fields.js",)}

Act = Callable[[str, Any], object]


@cache
def source(*names: str) -> str:
    """Return the text of shipped files, one after the other.

    A widget's JavaScript is one module without a bundler, so what panels share is put before each of them.
    """
    return "\n".join((STATIC / name).read_text(encoding="utf-8") for name in names)


class Panel(anywidget.AnyWidget):
    """A frame that draws `state`; what the reader does in it is handed to `act`, what it needs to `work`.

    Attributes
    ----------
    kind : the name of its JavaScript file
    state : what is drawn, plain JSON data; the keys that every panel understands are `title`, `note`,
        `error`, `stale` (what is drawn is of before), `need` (work is wanted, once the panel is seen),
        `working` (what is being worked out), `done` (how much of it, 0 to 1) and `stamp`
    still : the name of the picture that stands in for it where there is no kernel
    picture : that picture
    """

    kind = traitlets.Unicode("").tag(sync=True)
    state = traitlets.Dict().tag(sync=True)
    still = traitlets.Unicode("").tag(sync=True)
    _esm = traitlets.Unicode("").tag(sync=True)
    _css = traitlets.Unicode("").tag(sync=True)

    def __init__(
        self, kind: str, *, act: Act | None = None, work: Callable[[], object] | None = None, **traits: Any
    ) -> None:
        self.act, self.work = act, work
        code, style = source("shared.js", *PARTS.get(kind, ()), f"{kind}.js"), source("nadkit.css")
        super().__init__(kind=kind, _esm=code, _css=style, **traits)
        self.still = self.model_id or ""
        self.picture = Still(self.still, self._still, self._whole)
        self.on_msg(self._received)

    def show(self, state: Mapping[str, Any]) -> None:
        """Draw another state, if it is another."""
        if dict(state) != self.state:
            self.state = dict(state)

    def _still(self) -> tuple[str, str]:
        """Return an SVG document of what is drawn, and its words."""
        return panel_still(self.kind, self.state)

    def _whole(self) -> bool:
        """Whether nothing is missing that is still to come."""
        return not self.state.get("need") and not self.state.get("working")

    def _ipython_display_(self) -> None:
        self.picture.display(self._repr_mimebundle_())

    def fail(self, error: BaseException) -> None:
        """Show what went wrong, beside what was drawn before."""
        self.state = {**self.state, "error": f"{type(error).__name__}: {error}", "working": "", "need": 0}

    def _received(self, _: object, content: Any, __: object) -> None:
        """Do what the page asks for; a fault belongs into the panel, where the reader looks."""
        try:
            if content.get("do") == "work" and self.work is not None:
                self.work()
            elif content.get("do") == "set" and self.act is not None:
                self.act(str(content["name"]), content.get("value"))
        except Exception as error:
            self.fail(error)
        # The page sends its next wish once it is told that this one is dealt with.
        self.send({"do": "done"})
