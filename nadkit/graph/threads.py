"""Parts of a work side by side: one thread each, on one core each."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from nadkit.taps import help_out, this_thread

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")
_MOST = 4
"""Threads, as each holds the values of one forward pass."""


def workers_on(device: torch.device) -> int:
    """Return how many parts can run side by side: on a CPU as many as torch may use cores, up to four."""
    return min(torch.get_num_threads(), _MOST) if device.type == "cpu" else 1


def side_by_side(
    function: Callable[[_Item], _Made], items: Sequence[_Item], workers: int
) -> Generator[_Made]:
    """Yield the function's results in order, `workers` at a time.

    Examples
    --------
    >>> list(side_by_side(abs, [-1, 2], 2))
    [1, 2]

    Notes
    -----
    The small operations of a backward pass gain little from a second core, and lose much where others use it
    too; parts gain all of it. Torch's number of threads is as before afterwards.
    """
    if workers < 2 or len(items) < 2:
        yield from map(function, items)
        return
    threads = torch.get_num_threads()
    held_by = this_thread()

    def begin() -> None:
        torch.set_num_threads(1)
        help_out(held_by)

    pool = ThreadPoolExecutor(workers, initializer=begin)
    try:
        yield from pool.map(function, items)
    finally:
        # What has not begun never does; what has is waited for, as the model's flags change back next.
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
