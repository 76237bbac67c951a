"""Processes that work for this one, and end with it."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor


def start_pool(count: int, *, start: Callable[[], None] | None = None) -> ProcessPoolExecutor:
    """A pool of fresh processes: what they work on has to be importable, and to survive a copy.

    Each calls `start` before any work.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(
        count, mp_context=context, initializer=_follow_parent, initargs=(start,)
    )


def _follow_parent(start: Callable[[], None] | None) -> None:
    """Lets the parent alone answer Ctrl-C, and ends this process if the parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if start is not None:
        start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # a worker has one
    parent.join()
    os._exit(1)  # the main thread waits for work that nobody will send
