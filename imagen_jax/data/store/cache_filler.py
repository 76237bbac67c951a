"""Threads that fetch a store's blocks ahead of need, in the order of its files."""

import threading
from collections.abc import Iterator

from imagen_jax.data.store.block_cache import BlockCache

WIDTH = 4  # blocks that are fetched at once
NAME = "imagen-fill"  # of the threads
PAUSE = 30.0  # seconds, after a bucket's refusal or where another process fills the same cache


def fill(cache: BlockCache) -> threading.Event:
    """Begin to fetch all missing blocks; setting what is returned ends it."""
    stop = threading.Event()
    threading.Thread(target=_fill, args=(cache, stop), daemon=True, name=NAME).start()
    return stop


def _fill(cache: BlockCache, stop: threading.Event) -> None:
    while not stop.is_set() and next(cache.missing_blocks(), None) is not None:
        lock = cache.try_filling()
        if lock is None:  # another process fills it, and may be killed
            stop.wait(PAUSE)
            continue
        with lock:
            missing = _Shared(cache.missing_blocks())
            threads = [
                threading.Thread(
                    target=_fetch_all, args=(cache, missing, stop), daemon=True, name=NAME
                )
                for _ in range(WIDTH)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()


def _fetch_all(cache: BlockCache, missing: "_Shared", stop: threading.Event) -> None:
    for block in missing:
        if stop.is_set():
            return
        try:
            cache.fetch_block(block)
        except OSError:  # a reader of the block meets the same, and says it
            stop.wait(PAUSE)


class _Shared:
    """An iterator that threads take turns at."""

    def __init__(self, items: Iterator[int]) -> None:
        self._items, self._lock = items, threading.Lock()

    def __iter__(self) -> Iterator[int]:
        while True:
            with self._lock:
                item = next(self._items, None)
            if item is None:
                return
            yield item
