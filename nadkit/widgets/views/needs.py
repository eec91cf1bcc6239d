"""What a panel lacks: answers that are still to be worked out."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

from nadkit.widgets.answers import Answers, Failed, Key, Worker

State = dict[str, Any]

NO_NETWORK = "The network is not at hand: this view is of its masks alone."
OLD = "not up to date yet"
NO_IMAGES = "No pictures were given; nk.explore(network, masks, images) shows more."


def missing(answers: Answers) -> str:
    """Return why nothing can be worked out, empty if it can."""
    if answers.subject.network is None:
        return NO_NETWORK
    return NO_IMAGES if answers.subject.images is None else ""


def found(answers: Worker, keys: Sequence[Key], state: State) -> list[Any]:
    """Return the answers to keys, None where there is none; the state says what is missing or failed."""
    values = [answers.get(key) for key in keys]
    failed = [value.text for value in values if isinstance(value, Failed)]
    lacking = [key for key, value in zip(keys, values, strict=True) if value is None]
    if failed:
        state["error"] = "\n".join(dict.fromkeys(failed))
    if lacking:
        state["stale"] = True
        working = answers.now in lacking
        state["working"] = answers.words() if working else ""
        state["done"] = round(answers.done, 2) if working else 0
        # A number of its own for each wish, so that the page asks for each once.
        state["need"] = 0 if working else zlib.crc32(repr((state.get("stamp"), lacking)).encode()) or 1
        if not working:
            state["note"] = OLD
    return [None if isinstance(value, Failed) else value for value in values]
