"""The example format: encoded captions next to an image's PNG pyramid, as msgpack bytes."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import ml_dtypes
import msgpack
import numpy as np
from jaxtyping import Float, Float32

from imagen_jax.io.errors import CorruptDataError
from imagen_jax.io.int8 import quantise_int8

TextDtype = Literal["bfloat16", "float32", "int8"]
DTYPES: dict[str, Any] = {
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
    "int8": np.dtype(np.int8),
}


class Encoding(NamedTuple):
    """A caption's encoding as it is stored, without padding; `rounded` makes it."""

    values: np.ndarray  # (n, d), of one of DTYPES
    scale: Float32[np.ndarray, " n"] | None = None  # what int8 counts in, by token

    def array(self) -> Float[np.ndarray, "n d"]:
        """The encoding: bfloat16 or float32, and float32 of what was int8."""
        if self.scale is None:
            return self.values
        return self.values.astype(np.float32) * self.scale[:, None]

    def is_finite(self) -> bool:
        """Return whether no value is NaN or infinite."""
        return bool(np.isfinite(self.values if self.scale is None else self.scale).all())

    def to_bytes(self) -> bytes:
        """Scales, if there are any, then values; little-endian, token by token."""
        scale = b"" if self.scale is None else self.scale.tobytes()
        return scale + self.values.tobytes()


def round_encoding(text: Float[np.ndarray, "n d"], dtype: TextDtype) -> Encoding:
    """An encoding to the nearest of `dtype`; int8 in 127ths of each token's largest magnitude."""
    if dtype != "int8":
        return Encoding(text.astype(DTYPES[dtype]))
    return Encoding(*quantise_int8(text.astype(np.float32), (1,)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """A captioned image: PNG bytes by side, and its captions' encodings."""

    key: str
    captions: tuple[str, ...]  # at least one; a visit draws one of them
    images: dict[int, bytes]
    texts: tuple[Encoding, ...]  # of each caption, all of one width and dtype


def pack_record(record: Record) -> bytes:
    """A record as msgpack bytes."""
    tokens = [len(text.values) for text in record.texts]
    width = record.texts[0].values.shape[1]
    images = sorted(record.images.items())
    texts = b"".join(text.to_bytes() for text in record.texts)
    return msgpack.packb([record.key, record.captions, images, tokens, width, texts])


def unpack_record(data: bytes, *, text_dtype: TextDtype) -> Record:
    """The record that `pack_record` made bytes of; its arrays are read-only.

    Errors: CorruptDataError when the bytes are no record of that `text_dtype`.
    """
    try:
        return _unpack(data, text_dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise CorruptDataError(f"{len(data)} bytes are no record: {error}") from error


def _unpack(data: bytes, text_dtype: TextDtype) -> Record:
    key, captions, images, tokens, width, texts = msgpack.unpackb(data)
    images = dict(images)
    if not (isinstance(key, str) and captions and all(isinstance(c, str) for c in captions)):
        raise TypeError("key and captions are no text")
    if not all(isinstance(n, int) and isinstance(png, bytes) for n, png in images.items()):
        raise TypeError("its images are no bytes by side")
    encodings, start = [], 0
    for _, count in zip(captions, tokens, strict=True):
        if count < 0:
            raise ValueError(f"an encoding of {count} tokens")
        scale = None
        if text_dtype == "int8":
            scale = np.frombuffer(texts, np.float32, count, start)
            start += scale.nbytes
        values = np.frombuffer(texts, DTYPES[text_dtype], count * width, start)
        start += values.nbytes
        encodings.append(Encoding(values.reshape(count, width), scale))
    if start != len(texts):
        raise ValueError(f"{len(texts)} bytes of encodings where {start} belong")
    return Record(key=key, captions=tuple(captions), images=images, texts=tuple(encodings))
