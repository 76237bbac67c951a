"""The index of a tar's images and captions: made in one pass over it, and stored for later."""

import contextlib
import dataclasses
import hashlib
import os
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import numpy as np

from imagen_jax.config import require
from imagen_jax.data.sources import base, tar_members, tar_rows
from imagen_jax.data.sources.base import (
    IMAGE_SUFFIXES,
    MAX_IMAGE_BYTES,
    MAX_TEXT_BYTES,
    BadCaptionError,
    SkipLog,
    SkippedNames,
)
from imagen_jax.data.sources.tar_rows import ROW
from imagen_jax.io import json_reader, remote_files
from imagen_jax.io.atomic import write_atomic
from imagen_jax.io.buckets import is_bucket
from imagen_jax.io.remote_files import SourceFile

VERSION = 3  # of what is stored, and of how tars are read
DOWNLOADED = "success"  # img2dataset's status of an image that is there
KINDS = dict.fromkeys(IMAGE_SUFFIXES, "image") | {"txt": "text", "json": "json"}
LARGEST = {"image": MAX_IMAGE_BYTES, "text": MAX_TEXT_BYTES, "json": MAX_TEXT_BYTES}
SMALL = 1 << 16  # bytes that an index may have whatever its tar has
MAX_SHARE = 8  # bytes of a tar for each further one of its index; two members have 2,048 or more
MAX_BYTES = 1 << 30  # of an index: 25 million examples


class Index(NamedTuple):
    """The examples of one tar, in the order of their images."""

    rows: np.ndarray  # (n,) of ROW
    keys: bytes  # names of the examples, one after another
    skipped: Mapping[str, SkippedNames]


class Span(NamedTuple):
    """A member's content."""

    offset: int
    size: int


@dataclass
class Found:
    """The members that one key has."""

    image: Span | None = None
    text: Span | None = None
    json: Span | None = None
    bad: str = ""  # what is wrong with a caption that it has
    wrong: str = ""  # why it is left out, whatever else there is


@dataclass
class Scan:
    """The members that a pass over a tar has found so far."""

    field: str  # of .json members that has the captions; "": .txt, else `caption`
    keys: dict[str, Found] = dataclasses.field(default_factory=dict)
    skips: SkipLog = dataclasses.field(default_factory=SkipLog)


def index_of(file: SourceFile, field: str, cache: Path) -> Index:
    """The index of a tar; built and stored, next to it or in `cache`, unless it is there.

    Errors: OSError when the tar cannot be read, or when the index can be written in neither place.
    """
    stored = load(file, field, cache)
    if stored is not None:
        return stored
    index = build(file, field)
    _store(index, file, field, cache)
    return index


def load(file: SourceFile, field: str, cache: Path) -> Index | None:
    """The stored index of a tar; None where there is none of the tar as it is now."""
    for place in _places(file, field, cache):
        with contextlib.suppress(OSError):
            most = min(file.size // MAX_SHARE + SMALL, MAX_BYTES)
            if not place.is_file() or place.stat().st_size > most:
                continue
            data = place.read_bytes()
            # What is damaged, or of another tar, is built again.
            with contextlib.suppress(ValueError, msgpack.UnpackException):
                return _unpack(data, file)
    return None


def build(file: SourceFile, field: str) -> Index:
    """Go through a tar, header by header. Errors: OSError when it cannot be read."""
    scan = Scan(field)
    with remote_files.open_file(file.path) as opened:
        for member in tar_members.read_members(opened, file, scan.skips):
            _take(scan, member, opened)
    rows, keys, end = [], [], 0
    for key, found in scan.keys.items():
        text = found.text or found.json
        if wrong := found.wrong or _lacking(found):
            scan.skips.add(wrong, key)
        elif found.image and text:
            keys.append(base.key(key).encode())
            end += len(keys[-1])
            rows.append((*found.image, *text, found.text is None, end))
    prefixed = SkipLog()
    prefixed.extend(scan.skips.collect(), f"{base.make_printable(file.name)}: ")
    return Index(np.array(rows, ROW), b"".join(keys), prefixed.collect())


def _lacking(found: Found) -> str:
    if found.image is None:
        return "caption without image"
    return "" if found.text or found.json else found.bad or "image without caption"


def _take(scan: Scan, member: tarfile.TarInfo, opened: Any) -> None:
    if member.isdir():
        return
    parts = member.name.replace("\\", "/").split("/")
    # As in webdataset the ending begins at the first dot.
    stem, _, ending = parts[-1].partition(".")
    kind = KINDS.get(ending.lower(), "")
    wrong = refuse_member(member, parts, kind)
    if not wrong and not (kind == "text" and scan.field):
        key = "/".join([*(part for part in parts[:-1] if part not in ("", ".")), stem])
        wrong = _add(scan, key, kind, Span(member.offset_data, member.size), opened)
    if wrong:
        scan.skips.add(wrong, member.name)


def refuse_member(member: tarfile.TarInfo, parts: list[str], kind: str) -> str:
    """Give the reason why a member is left out, by its header; "" if it is not."""
    if ".." in parts or parts[0] == "" or parts[0].endswith(":"):
        return "unsafe name"
    if not member.isreg() or member.sparse is not None:
        return "no regular file"
    if parts[-1].startswith("."):  # such as macOS's ._name.jpg
        return "hidden"
    if not kind:
        return "neither image nor caption"
    if not member.size:
        return "empty"
    return "too large" if member.size > LARGEST[kind] else ""


def _add(scan: Scan, key: str, kind: str, span: Span, opened: Any) -> str:
    """Note a member of an example; why it is left out, "" if it is not."""
    found = scan.keys.setdefault(key, Found())
    if getattr(found, kind) is not None:
        return "duplicate key"
    if kind != "image":
        opened.seek(span.offset)
        data = opened.read(span.size)
        try:
            if kind == "text":
                captions = base.make_texts(data)
            else:
                about = parse_member(data)
                if about.get("status", DOWNLOADED) != DOWNLOADED:
                    found.wrong = "not downloaded"
                captions = captions_in(about, scan.field)
        except BadCaptionError as error:  # the other one may have a caption
            found.bad = error.reason
            return ""
        except (ValueError, TypeError):
            return "unreadable .json"
        if not captions:  # there may be a .txt
            return "empty" if kind == "text" else ""
    setattr(found, kind, span)
    return ""


def captions_in(about: dict[str, Any], field: str) -> tuple[str, ...]:
    """The captions in what a .json member says. Errors: TypeError when the field is no text."""
    return base.make_texts(about if field else about.get("caption"), field)


def parse_member(data: bytes) -> dict[str, Any]:
    """Read the fields of a .json member. Errors: ValueError."""
    text = base.decode_text(data)
    return json_reader.parse_object(text, where="it", remedy="-", depth=base.parse_depth())


def _places(file: SourceFile, field: str, cache: Path) -> list[Path]:
    """List the places of an index: next to the tar, unless that is in a bucket; in the cache."""
    ending = f".{hashlib.sha256(field.encode()).hexdigest()[:8]}.index" if field else ".index"
    digest = hashlib.sha256(file.path.encode(errors="surrogateescape")).hexdigest()[:16]
    cached = cache / f"{digest}{ending}"
    return [cached] if is_bucket(file.path) else [Path(file.path + ending), cached]


def _store(index: Index, file: SourceFile, field: str, cache: Path) -> None:
    skipped = {reason: [names.total, *names] for reason, names in index.skipped.items()}
    headers = tar_rows.digest_headers(file, index.rows)
    rows = index.rows.tobytes()
    body = msgpack.packb([VERSION, file.size, file.stamp, headers, rows, index.keys, skipped])
    data = zlib.crc32(body).to_bytes(4, "little") + body
    *next_to, cached = _places(file, field, cache)
    for place in next_to:
        with contextlib.suppress(OSError):
            return write_atomic(place, lambda path: _write_private(path, data))
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    return write_atomic(cached, lambda path: _write_private(path, data))


def _write_private(path: Path, data: bytes) -> None:
    """Write what `write_atomic` has made, for its user alone. Errors: OSError for a link."""
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(descriptor, "wb") as opened:
        os.fchmod(descriptor, 0o600)
        opened.write(data)


def _unpack(data: bytes, file: SourceFile) -> Index | None:
    """The index in what `_store` wrote; None if it is of another version or of another tar.

    Errors: ValueError where it is damaged, or says of the tar what is not so.
    """
    body = data[4:]
    if zlib.crc32(body).to_bytes(4, "little") != data[:4]:
        return None
    found = msgpack.unpackb(body)
    if not isinstance(found, list) or found[:3] != [VERSION, file.size, file.stamp]:
        return None
    digest, packed, keys, skipped = found[3:]
    for value in (digest, packed, keys):
        require(isinstance(value, bytes), "rows, keys or digest are no bytes")
    rows = np.frombuffer(packed, ROW)
    tar_rows.check_rows(rows, keys, file.size)
    if tar_rows.digest_headers(file, rows) != digest:
        return None
    tar_rows.check_headers(file, rows)
    return Index(rows, keys, _unpack_skipped(skipped))


def _unpack_skipped(skipped: Any) -> dict[str, SkippedNames]:
    """Errors: ValueError for what `_store` does not write."""
    require(isinstance(skipped, dict), "what is left out has no reasons")
    found = {}
    for reason, listed in skipped.items():
        require(isinstance(listed, list) and len(listed) > 1, "a reason has no names")
        total, *names = listed
        for text in (reason, *names):
            require(isinstance(text, str) and text.isprintable(), "a name is not printable")
        known = type(total) is int and len(names) == min(total, base.LISTED)
        require(known, "a reason has another number of names")
        found[reason] = SkippedNames(names, total)
    return found
