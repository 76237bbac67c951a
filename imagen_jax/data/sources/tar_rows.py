"""The rows of a tar's index, and whether they are of that tar: others may have written them."""

import hashlib
import secrets
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from imagen_jax.config import require
from imagen_jax.data.sources.base import MAX_IMAGE_BYTES, MAX_TEXT_BYTES
from imagen_jax.io.buckets import is_bucket
from imagen_jax.io.remote_files import SourceFile

ROW = np.dtype(
    [
        ("image", "<u8"),  # offset of its first byte
        ("size", "<u4"),
        ("text", "<u8"),  # of the member that its captions are in
        ("text_size", "<u4"),
        ("in_json", "?"),
        ("key_end", "<u8"),  # in `keys`
    ]
)
BLOCK = tarfile.BLOCKSIZE  # bytes of a header, which comes right before its member's content
DIGESTED = 64  # rows whose headers are in the digest
CHECKED = 512  # rows that are compared with their headers when an index is loaded
CONTINUES = 0xC0, 0x80  # bits of a byte in UTF-8, and what they are inside of a character


class Headers(NamedTuple):
    """The headers of an example's two members."""

    image: bytes
    text: bytes


def check_rows(rows: np.ndarray, keys: bytes, size: int) -> None:
    """Check rows against a tar of `size` bytes, before anything is read or allocated by them.

    Errors: ValueError for members beyond its end or larger than any that is indexed, and for keys
    that are no printable text or do not follow one another.
    """
    members = (("image", "size", MAX_IMAGE_BYTES), ("text", "text_size", MAX_TEXT_BYTES))
    for start, length, most in members:
        starts, lengths = rows[start], rows[length]
        inside = (starts >= BLOCK) & (starts <= size) & (lengths >= 1) & (lengths <= most)
        require(bool(inside.all()), f"a member's {start} is outside of the tar")
        require(bool((starts + lengths <= size).all()), f"a member's {start} ends behind the tar")
    ends = rows["key_end"]
    last = int(ends[-1]) if len(ends) else 0
    ordered = bool((ends[1:] >= ends[:-1]).all()) and last == len(keys)
    require(ordered, "the keys do not follow one another")
    require(keys.decode().isprintable(), "a key is not printable")
    bits, inside_of = CONTINUES
    firsts = np.frombuffer(keys, np.uint8)[ends[ends < len(keys)].astype(np.int64)]
    require(not bool(((firsts & bits) == inside_of).any()), "a key begins inside of a character")


def digest_headers(file: SourceFile, rows: np.ndarray) -> bytes:
    """SHA-256 of the headers of some rows, the first and the last among them; b"" in a bucket.

    In a bucket the stamp is the content's own, and the index is in the user's own cache.
    Errors: OSError.
    """
    if is_bucket(file.path):
        return b""
    places = np.linspace(0, len(rows) - 1, min(len(rows), DIGESTED)).astype(int)
    headers = _read_headers(file, rows[places])
    return hashlib.sha256(b"".join(image + text for image, text in headers)).digest()


def check_headers(file: SourceFile, rows: np.ndarray) -> None:
    """Compare rows with the tar's headers: all of a small tar, else some that nobody can foresee.

    Errors: ValueError for rows that are not of this tar; OSError.
    """
    if is_bucket(file.path):
        return
    count = min(len(rows), CHECKED)
    places = sorted(secrets.SystemRandom().sample(range(len(rows)), count))  # in the disk's order
    chosen = rows[np.array(places, int)]
    for row, headers in zip(chosen, _read_headers(file, chosen), strict=True):
        _check_pair(headers, row)


def _read_headers(file: SourceFile, rows: np.ndarray) -> list[Headers]:
    with Path(file.path).open("rb", buffering=0) as opened:

        def read(start: int) -> bytes:
            opened.seek(start - BLOCK)
            return opened.read(BLOCK)

        return [Headers(read(int(row["image"])), read(int(row["text"]))) for row in rows]


def _check_pair(headers: Headers, row: np.void) -> None:
    try:
        image, text = (tarfile.TarInfo.frombuf(h, "utf-8", "surrogateescape") for h in headers)
    except tarfile.HeaderError as error:
        raise ValueError(f"a member has no header ({error})") from error
    require((image.size, text.size) == (row["size"], row["text_size"]), "a member's size differs")
    require(_stem(headers.image) == _stem(headers.text), "image and caption have different names")


def _stem(header: bytes) -> bytes:
    """A member's name without folders and ending; long ones are cut off alike in both headers."""
    name = header[:100].partition(b"\0")[0].replace(b"\\", b"/")
    return name.rpartition(b"/")[2].partition(b".")[0]
