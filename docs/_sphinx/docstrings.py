"""nadkit's docstrings as Sphinx reads them.

Types stand in signatures, so what follows `name : ` in a docstring is what the thing is, not its type.
"""

from __future__ import annotations

import re
from typing import Any

SECTION = re.compile(r"^(\s*)(Parameters|Attributes)$")
ENTRY = re.compile(r"^(\s*)(\*{0,2}\w[\w, *]*?) : (.+)$")


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
    return made


def process(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Rewrite a docstring before napoleon reads it."""
    del app, what, name, obj, options
    lines[:] = as_numpydoc(lines)


def setup(app: Any) -> dict[str, bool]:
    """Listen before napoleon does, which listens at 500."""
    app.connect("autodoc-process-docstring", process, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
