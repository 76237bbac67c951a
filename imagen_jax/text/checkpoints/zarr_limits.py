"""Sizes that the metadata of a zarr array states, bounded before TensorStore allocates any.

TensorStore ends the process where a chunk has no room in memory, which nothing can catch.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import tensorstore

from imagen_jax import limits
from imagen_jax.config.sentences import shorten
from imagen_jax.io import json_reader, key_lists, zarr_dtype

FILES = {"zarr": ".zarray", "zarr3": "zarr.json"}
SPARE = 1 << 26  # bytes that a chunk may have beyond twice its array's
LARGEST = 16  # bytes of an element, where its dtype is not one of these
_BITS = re.compile(r"(?:int|uint|bfloat|float|complex)([0-9]+)")  # zarr3's
_BYTES = re.compile(r"[<>|]?[biufcmMSV]([0-9]+)")  # zarr's


def check_array(request: Mapping[str, Any], where: str) -> None:
    """Refuse an array, as TensorStore is asked for it, whose metadata state too large sizes.

    `where` names it. Errors: ValueError with the number and its limit, or for no such metadata.
    """
    metadata = request.get("metadata")
    if metadata is None:
        metadata = _stored(request)
    if metadata is None:
        return  # TensorStore says what is missing
    if not isinstance(metadata, Mapping):
        raise ValueError(f"{where} has metadata without fields")
    dtype = metadata.get("dtype", metadata.get("data_type", request.get("dtype")))
    zarr_dtype.check_dtype(dtype, where)
    width, array = element_size(dtype), _count(metadata.get("shape"), where)
    limits.TENSOR_BYTES.check(width * array, f"{where} states")
    for chunk in _chunks(metadata):
        size = width * _count(chunk, where)
        limits.CHUNK_BYTES.check(size, f"{where} states")
        if size > 2 * width * array + SPARE:
            raise ValueError(
                f"{where} states chunks of {shorten(chunk)}, {size:,} bytes each, for an array of "
                f"{width * array:,}: the metadata are damaged"
            )


def element_size(dtype: Any) -> int:
    """The bytes of an element; `LARGEST` of a dtype that is not known here."""
    text = dtype if isinstance(dtype, str) else ""
    if found := _BYTES.fullmatch(text):
        return int(found[1])
    return int(found[1]) // 8 if (found := _BITS.fullmatch(text)) else LARGEST


def _stored(request: Mapping[str, Any]) -> Any:
    """The metadata in a store; None where there are none."""
    kvstore = tensorstore.KvStore.open(dict(request["kvstore"])).result()
    found = key_lists.read_key(kvstore, FILES[request["driver"]])
    if found.state != "value":
        return None
    return json_reader.parse_json(found.value, where="its metadata", remedy="copy it again")


def _chunks(metadata: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the shapes of chunks, and of the parts that a chunk of zarr3 has."""
    if "chunks" in metadata:
        yield metadata["chunks"]
    grid = metadata.get("chunk_grid")
    waiting = [grid, *_list(metadata.get("codecs"))]
    while waiting:
        one = waiting.pop()
        configured = one.get("configuration") if isinstance(one, Mapping) else None
        if isinstance(configured, Mapping):
            if "chunk_shape" in configured:
                yield configured["chunk_shape"]
            waiting += _list(configured.get("codecs"))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _count(shape: Any, where: str) -> int:
    if not isinstance(shape, list | tuple) or not all(
        type(side) is int and side >= 0 for side in shape
    ):
        raise ValueError(f"{where} states the shape {shorten(shape)}, which is none")
    return math.prod(shape)
