"""Tasks side by side: one thread a task, each on one core."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")
_MOST = 4
"""Threads, as each holds the values of one network's forward pass."""


def side_by_side(function: Callable[[_Item], _Made], items: Sequence[_Item]) -> Iterator[_Made]:
    """Yield the function's results in order, several at a time where torch may use several cores.

    Examples
    --------
    >>> list(side_by_side(abs, [-1, 2]))
    [1, 2]

    Notes
    -----
    The small operations of a backward pass gain little from a second core, and lose much on a busy machine;
    tasks gain all of it. Torch's number of threads is as before afterwards.
    """
    threads = torch.get_num_threads()
    workers = min(threads, len(items), _MOST)
    if workers < 2:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield from pool.map(function, items)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
