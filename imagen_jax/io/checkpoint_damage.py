"""Incomplete and damaged checkpoints, told in one sentence, whatever Orbax and TensorStore say."""

import contextlib
import functools
import logging
import math
from collections.abc import Iterator
from typing import Any

import jax

from imagen_jax.io import checksums, closed_loops
from imagen_jax.io.errors import CorruptDataError
from imagen_jax.io.workdir import Workdir

# TensorStore's words for what is no damage.
PASSING = (
    "CANCELLED",
    "DEADLINE_EXCEEDED",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "UNAUTHENTICATED",
    "UNAVAILABLE",
)
DAMAGE = (
    *(ValueError, LookupError, TypeError, AttributeError, EOFError, ArithmeticError),
    RecursionError,  # JSON that is nested too deeply
)
# asyncio's words for a failed read that nothing has waited for.
UNRETRIEVED = ("Task exception was never retrieved", "Future exception was never retrieved")
SPARE = 1 << 26  # bytes that a chunk may have beyond twice its array's


@contextlib.contextmanager
def name_damage(folder: Workdir) -> Iterator[None]:
    """Turn what Orbax says of missing or damaged files into one sentence that names the folder."""
    try:
        with closed_loops.ignore_late_answers():
            yield
    except Exception as error:  # Orbax wraps what TensorStore says into bare ones
        if not _is_damage(error):
            raise
        logging.getLogger("asyncio").addFilter(functools.partial(_is_unrelated, folder))
        cause = _innermost(error)
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        raise CorruptDataError(
            f"{folder}: the checkpoint is incomplete or damaged ({reason[:200]})"
        ) from error


def require_tree(metadata: Any) -> Any:
    """Names and kinds of a checkpoint's arrays, which Orbax leaves out where one can't be opened.

    Errors: CorruptDataError.
    """
    if metadata is None:
        raise CorruptDataError("what its files say of the arrays can't be read")
    return metadata.tree


def _is_unrelated(folder: Workdir, record: logging.LogRecord) -> bool:
    """Return whether a log record is about anything but another read of the damaged `folder`.

    Orbax reads all arrays at once, and raises what the first of them meets; asyncio reports each of
    the others, a task or the future that it waits for, when it is freed, at any later time, with
    its stack.
    """
    message = record.getMessage()
    where = str(folder).partition("://")[2] or str(folder)
    return not (message.startswith(UNRETRIEVED) and where in message)


def _is_damage(error: BaseException) -> bool:
    """Return whether an error means damaged files, not rights, memory or a network."""
    error = _innermost(error)
    if isinstance(error, OSError):
        return isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError)
    is_bad = isinstance(error, DAMAGE)
    return is_bad and not any(word in str(error) for word in PASSING)


def _innermost(error: BaseException) -> BaseException:
    """What Orbax has wrapped."""
    while type(error) is Exception and error.__cause__ is not None:
        error = error.__cause__
    return error


def check_chunks(tree: Any) -> None:
    """Refuse chunks far larger than their array: TensorStore aborts where one has no memory.

    `tree` is what Orbax says of a state's arrays. Errors: ValueError.
    """
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        width = jax.numpy.dtype(leaf.dtype).itemsize
        array = width * math.prod(leaf.shape)
        for chunk in (leaf.storage.chunk_shape, leaf.storage.write_shape) if leaf.storage else ():
            size = width * math.prod(chunk or ())
            if size > 2 * array + SPARE:
                raise ValueError(
                    f"{checksums.path_name(path)} has chunks of {size:,} bytes for an array of "
                    f"{array:,}"
                )
