"""Text that fits its place: where names and numbers in tables may be broken, and which output is prose."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes

NUMBER = re.compile(r"(?P<value>[-−+]?[\d.,]+ )(?:(?P<interval>\[[^\]]*\])|(?:[^\W\d]{1,3}|×|%))")
"""A number with its interval, which may stand below it but not be broken, or with its unit."""

COLUMNS = re.compile(r"\S {2,}\S")
"""What is set in columns has wide gaps within lines; sentences have none."""


def loosen(text: nodes.Text) -> None:
    """Let the browser break a name after its underscores, as it does after hyphens."""
    parts = re.split(r"(?<=[^_]_)(?=[^_])", text.astext())
    if len(parts) == 1:
        return
    made: list[nodes.Node] = [nodes.Text(parts[0])]
    for part in parts[1:]:
        made += [nodes.raw("", "<wbr>", format="html"), nodes.Text(part)]
    text.parent.replace(text, made)


def is_prose(text: str) -> bool:
    r"""Whether a printed text is sentences, whose lines may be broken anywhere.

    Examples
    --------
    >>> is_prose("one sentence. And another")
    True
    >>> is_prose("layer  units\nstem   24")
    False
    """
    return not COLUMNS.search(text) and "\n " not in text


def fit(app: object, doctree: nodes.document, name: str) -> None:
    """Mark the tables and outputs of a page."""
    del app, name
    for table in list(doctree.findall(nodes.table)):
        for text in list(table.findall(nodes.Text)):
            if number := NUMBER.fullmatch(text.astext()):
                free = number["value"] if number["interval"] else ""
                kept = text.astext()[len(free) :].replace(" ", "\N{NO-BREAK SPACE}")
                text.parent.replace(text, nodes.Text(free + kept))
            else:
                loosen(text)
    for block in doctree.findall(nodes.literal_block):
        if "output" in block["classes"] and is_prose(block.astext()):
            block["classes"].append("nadkit-prose")


def setup(app: Any) -> dict[str, bool]:
    """Listen when the outputs of cells have become nodes."""
    app.connect("doctree-resolved", fit)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
