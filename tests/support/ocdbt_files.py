"""Databases of TensorStore (OCDBT) written byte by byte, with right checksums and any structure.

Source: TensorStore's documentation, "OCDBT format".
"""

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import google_crc32c

MANIFEST, NODE = 0x0CDB3A2A, 0x0CDB20DE  # magic numbers
FILE = "d/a"  # that has all nodes
Value = bytes | tuple[str, int, int]  # inline; or a file, an offset and a length


class Place(NamedTuple):
    """Where a node is in its file."""

    offset: int
    length: int


def numbers(*values: int) -> bytes:
    """Numbers of seven bits a byte."""
    found = b""
    for value in values:
        while value > 127:
            found, value = found + bytes([value & 127 | 128]), value >> 7
        found += bytes([value])
    return found


def leaf(values: Mapping[bytes, Value], file: str = FILE) -> bytes:
    """A node of keys and their values."""
    keys = sorted(values)
    stored = [values[key] for key in keys]
    elsewhere = [value for value in stored if isinstance(value, tuple)]
    files = [file, *dict.fromkeys(value[0] for value in elsewhere)]
    lengths = [value[2] if isinstance(value, tuple) else len(value) for value in stored]
    inline = b"".join(value for value in stored if isinstance(value, bytes))
    body = _keys(keys) + b"".join(keys) + numbers(*lengths)
    body += bytes(isinstance(value, tuple) for value in stored)
    body += numbers(*(files.index(value[0]) for value in elsewhere))
    body += numbers(*(value[1] for value in elsewhere)) + inline
    return _sealed(NODE, b"\0" + _files(files) + body)


def inner(height: int, children: Mapping[bytes, Place]) -> bytes:
    """A node of others, whose keys begin with those that are given."""
    keys = sorted(children)
    places = [children[key] for key in keys]
    body = _keys(keys) + numbers(*map(len, keys)) + b"".join(keys)
    body += bytes(len(keys)) + numbers(*(p.offset for p in places), *(p.length for p in places))
    body += numbers(*[1] * len(keys), *[100] * len(keys)) + bytes(len(keys))
    return _sealed(NODE, bytes([height]) + _files([FILE]) + body)


def manifest(root: Place, *, height: int = 0, file: str = FILE) -> bytes:
    """A manifest of one version."""
    config = bytes(16) + numbers(0, 1024, 8 << 20) + b"\4\0"
    version = numbers(1, 1) + bytes([height]) + numbers(0, *root, 1, 100, 0)
    stamp = struct.pack("<Q", 1 << 60) + numbers(0)
    return _sealed(MANIFEST, config + _files([file]) + version + stamp)


def shared_tree(values: Mapping[bytes, Value], *, height: int, width: int) -> dict[str, bytes]:
    """Files of a database with these keys, and behind them others, each level `width` times more.

    Each node below the root has all its entries lead to one node.
    """
    data = leaf(values)
    honest = shared = Place(0, len(data))
    for level in range(1, height + 1):
        node = inner(level, {b"": honest})
        honest, data = Place(len(data), len(node)), data + node
        node = inner(level, {bytes([n]): shared for n in range(width)})
        shared, data = Place(len(data), len(node)), data + node
    root = inner(height + 1, {b"": honest, b"zz": shared})
    place = Place(len(data), len(root))
    return {FILE: data + root, "manifest.ocdbt": manifest(place, height=height + 1)}


def _keys(keys: Sequence[bytes]) -> bytes:
    return numbers(len(keys)) + bytes(len(keys) - 1) + numbers(*map(len, keys))


def _files(names: Sequence[str]) -> bytes:
    lengths = numbers(*map(len, names)) + bytes(len(names))
    return numbers(len(names)) + bytes(len(names) - 1) + lengths + "".join(names).encode()


def _sealed(magic: int, body: bytes) -> bytes:
    """A whole file or node: its length before, its checksum behind it."""
    data = struct.pack(">I", magic) + struct.pack("<Q", len(body) + 18) + b"\0\0" + body
    return data + struct.pack("<I", google_crc32c.value(data))
