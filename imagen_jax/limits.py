"""Limits of what a file may ask for, checked before anything is allocated.

Files come from strangers, and a few bytes can claim any size. Each limit is far above what honest
files need; a variable of the environment raises or lowers it, in this process and those that it
starts.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

DIGITS = 19  # of a limit, at most as many less one: those of int64
SHARE = 4  # the threads that decode have a quarter of the machine's memory


@dataclass(frozen=True)
class Limit:
    """A number that files may not exceed."""

    variable: str  # of the environment, which has another number
    default: int
    unit: str  # continues a sentence after the number

    def value(self) -> int:
        """The number that holds. Errors: ValueError for a variable that is no whole number."""
        text = os.environ.get(self.variable, "")
        if not text:
            return self.default
        if not (text.isascii() and text.isdigit() and len(text) < DIGITS and int(text)):
            shown = text if len(text) < DIGITS else f"{text[:DIGITS]}..."
            raise ValueError(
                f"{self.variable}={shown!a} is no whole number of 1 or more: correct it, or "
                "unset it"
            )
        return int(text)

    def check(self, count: int, subject: str) -> None:
        """Refuse a count. `subject` begins the sentence and ends in its verb: "x.png has".

        Errors: ValueError that names the limit and its variable.
        """
        try:
            most = self.value()
        except ValueError:
            # Importing the package checks configs already: a command refuses the variable itself.
            if count > self.default:
                raise
            return
        if count > most:
            raise ValueError(
                f"{subject} {count:,} {self.unit}, more than {most:,}; if you trust it, set "
                f"{self.variable}={count}"
            )


IMAGE_PIXELS = Limit("IMAGEN_MAX_IMAGE_PIXELS", 100_000_000, "pixels")
IMAGE_MEMORY = Limit("IMAGEN_MAX_IMAGE_MEMORY", 3 << 29, "bytes of memory while it is decoded")
JPEG_SCANS = Limit("IMAGEN_MAX_JPEG_SCANS", 100, "scans")
SCANNED_PIXELS = Limit("IMAGEN_MAX_SCANNED_PIXELS", 2_000_000_000, "pixels in all its scans")
IMAGE_SECONDS = Limit(
    "IMAGEN_MAX_IMAGE_SECONDS", 10, "seconds of a processor's time while it is decoded"
)
TENSOR_BYTES = Limit("IMAGEN_MAX_TENSOR_BYTES", 16 << 30, "bytes")
CHUNK_BYTES = Limit("IMAGEN_MAX_CHUNK_BYTES", 8 << 30, "bytes in a chunk")
PARQUET_MEMORY = Limit("IMAGEN_MAX_PARQUET_MEMORY", 1 << 30, "bytes of memory")
PARQUET_SECONDS = Limit("IMAGEN_MAX_PARQUET_SECONDS", 300, "seconds without an answer")
FILE_BYTES = Limit("IMAGEN_MAX_FILE_BYTES", 1 << 28, "bytes")
TREE_BYTES = Limit("IMAGEN_MAX_TREE_BYTES", 2 << 30, "bytes")
MIXTURE_SOURCES = Limit("IMAGEN_MAX_MIXTURE_SOURCES", 1_000, "sources")
TENSORS = Limit("IMAGEN_MAX_TENSORS", 20_000, "tensors")
NETWORK_BLOCKS = Limit("IMAGEN_MAX_NETWORK_BLOCKS", 512, "blocks or layers")
NESTING = Limit("IMAGEN_MAX_NESTING", 64, "levels of lists and fields")


ALL = (
    *(IMAGE_PIXELS, IMAGE_MEMORY, IMAGE_SECONDS, JPEG_SCANS, SCANNED_PIXELS),
    *(FILE_BYTES, TREE_BYTES, MIXTURE_SOURCES, TENSORS),
    *(TENSOR_BYTES, CHUNK_BYTES, PARQUET_MEMORY, PARQUET_SECONDS, NETWORK_BLOCKS, NESTING),
)


def check_variables() -> None:
    """Read all variables. Errors: ValueError for one that is no whole number."""
    for limit in ALL:
        limit.value()


class MemoryBudget:
    """Memory that threads share: one waits while others hold what it needs.

    It is the machine's by `SHARE`, and at least what one may have.
    """

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._share = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // SHARE
        self._changed = threading.Condition()
        self._held = 0

    @contextmanager
    def hold(self, size: int, subject: str) -> Iterator[None]:
        """Hold `size` bytes until the block ends.

        Errors: ValueError, as `Limit.check`, for more than there will ever be.
        """
        self._limit.check(size, subject)
        most = max(self._limit.value(), self._share)
        with self._changed:
            self._changed.wait_for(lambda: not self._held or self._held + size <= most)
            self._held += size
        try:
            yield
        finally:
            with self._changed:
                self._held -= size
                self._changed.notify_all()
