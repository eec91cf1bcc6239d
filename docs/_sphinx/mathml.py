"""Equations as MathML, which browsers draw by themselves, without JavaScript or fonts, and read aloud.

MathJax is on npm alone, and a page that loads it from elsewhere asks a foreign server for it.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

logger = logging.getLogger(__name__)
SIZES = re.compile(r"\\[bB]igg?[lrm]?(?![a-zA-Z])")
"""Sizes of brackets, which MathML sets by itself."""


def mathml(node: nodes.Element, *, block: bool) -> str:
    """Return a node's equation as MathML; what cannot be read is a warning, and shown as it is."""
    try:
        return str(tex2mathml(SIZES.sub("", node.astext()), as_block=block))
    except MathError as error:
        logger.warning("%s in the equation %s", error, node.astext(), location=node)
        return f"<code>{node.astext()}</code>"


def visit_inline(self: Any, node: nodes.Element) -> None:
    """Write an equation within a line."""
    self.body.append(mathml(node, block=False))
    raise nodes.SkipNode


def visit_block(self: Any, node: nodes.Element) -> None:
    """Write an equation in a line of its own."""
    self.body.append(f'<div class="math">{mathml(node, block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Add the renderer."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
