"""Arrays of zarr as TensorStore reads them: a missing chunk is an error, memory holds one chunk."""

from typing import Any

import numpy as np
import tensorstore

from imagen_jax.text.checkpoints import zarr_limits


def open_array(name: str, place: Any, request: dict[str, Any], *, assume_metadata: bool) -> Any:
    """The store of an array; of `name` and `place` errors speak.

    With `assume_metadata` those of the request are believed, and none are read.
    Errors: ValueError for one that is missing or damaged, or states too large sizes.
    """
    request = {**request, "fill_missing_data_reads": False}  # not zeros for a missing chunk
    try:
        zarr_limits.check_array(request, f"{name} in {place}")
        return tensorstore.open(request, open=True, assume_metadata=assume_metadata).result()
    except (ValueError, KeyError, OSError) as error:
        raise _damaged(name, place, error) from error


def copy_array(name: str, place: Any, store: Any) -> np.ndarray:
    """The array of a store, chunk by chunk: read at once, all chunks would be there twice.

    Errors: ValueError for a chunk that is missing or damaged, or where memory has no room for all.
    """
    try:
        array = np.empty(store.shape, store.dtype.numpy_dtype)
    except MemoryError as error:
        raise ValueError(f"{name} in {place} has no room in memory: {error}") from error
    chunk = store.chunk_layout.read_chunk.shape
    counts = [-(-size // step) for size, step in zip(store.shape, chunk, strict=True)]
    try:
        for corner in np.ndindex(*counts):
            index = tuple(slice(i * n, (i + 1) * n) for i, n in zip(corner, chunk, strict=True))
            array[index] = store[_clipped(index, store.shape)].read().result()
    except (ValueError, KeyError, OSError) as error:
        raise _damaged(name, place, error) from error
    return array


def _clipped(index: tuple[slice, ...], shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(i.start, min(i.stop, n)) for i, n in zip(index, shape, strict=True))


def _damaged(name: str, place: Any, error: Exception) -> ValueError:
    hint = "a chunk or its metadata is missing or damaged: copy the whole folder again"
    return ValueError(f"{name} cannot be read from {place}: {hint} ({error})")
