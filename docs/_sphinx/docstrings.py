"""nadkit's docstrings as Sphinx reads them.

Types stand in signatures, so what follows `name : ` in a docstring is what the thing is, not its type.
"""

from __future__ import annotations

import re
from typing import Any

SECTION = re.compile(r"^(\s*)(Parameters|Attributes)$")
ENTRY = re.compile(r"^(\s*)(\*{0,2}\w[\w, *]*?) : (.+)$")
SPAN = re.compile(r"``.*?``|:`[^`]*`|`[^`]*`")
HELD = "\ue000"
"""Stands for the colons of a line that napoleon is not to split."""


def as_numpydoc(lines: list[str]) -> list[str]:
    """Return lines with `name : words` of the sections of names as numpydoc's name and its text below."""
    made: list[str] = []
    inside: str | None = None
    for at, line in enumerate(lines):
        following = lines[at + 1] if at + 1 < len(lines) else ""
        if found := SECTION.match(line):
            inside = found[1]
        elif following.strip() and set(following.strip()) == {"-"}:
            inside = None
        entry = ENTRY.match(line)
        if inside is not None and entry and entry[1] == inside:
            made += [f"{inside}{entry[2]}", f"{inside}    {entry[3]}"]
        else:
            made.append(line)
    return [SPAN.sub(_as_code, line) for line in made]


def _as_code(span: re.Match[str]) -> str:
    """Return `logit:<task>` as code: reStructuredText would make the link "logit:" to "task" of it."""
    text = span[0]
    return f"`{text}`" if re.match(r"`[^`]", text) and "<" in text else text


def process(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Rewrite a docstring before napoleon reads it.

    Of an attribute or property napoleon takes what precedes the first line's colon for a type.
    """
    del app, name, obj, options
    lines[:] = as_numpydoc(lines)
    if what in {"attribute", "data", "property"} and lines:
        lines[0] = lines[0].replace(":", HELD)


def release(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Give the colons back after napoleon."""
    del app, what, name, obj, options
    lines[:] = [line.replace(HELD, ":") for line in lines]


def setup(app: Any) -> dict[str, bool]:
    """Listen before and after napoleon, which listens at 500."""
    app.connect("autodoc-process-docstring", process, priority=400)
    app.connect("autodoc-process-docstring", release, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
