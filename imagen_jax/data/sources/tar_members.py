"""The members of a tar as far as it can be read; what is wrong with it is named."""

import os
import shlex
import tarfile
from collections.abc import Iterator
from typing import Any

from imagen_jax.data.sources.base import SkipLog
from imagen_jax.io.remote_files import SourceFile

COMPRESSED = {  # beginnings of files, and what unpacks them
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"(\xb5/\xfd": "zstd",
}
ENDINGS = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4")
CHUNK = 1 << 20  # bytes of padding that are read at once
LARGEST_HEADER = 1 << 20  # bytes of a long name or of a member's further attributes
# What tarfile raises about bytes that are no tar.
BROKEN = (tarfile.TarError, ValueError, OverflowError, RecursionError, EOFError)


class Guarded:
    """A file for tarfile to read headers from: none makes it take much memory."""

    def __init__(self, file: Any) -> None:
        self.seek, self.tell, self._read = file.seek, file.tell, file.read

    def read(self, size: int) -> bytes:
        """Read bytes. Errors: tarfile.ReadError for more than any honest header has."""
        if not 0 <= size <= LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._read(size)


def read_members(opened: Any, file: SourceFile, skips: SkipLog) -> Iterator[tarfile.TarInfo]:
    """Members whose content is all there, as far as the file can be read: several tars are one."""
    end = 0
    start: int | None = 0
    try:
        while start is not None:
            opened.seek(start)
            whole = {"fileobj": Guarded(opened), "mode": "r:", "encoding": "utf-8"}
            with tarfile.open(**whole) as tar:  # type: ignore[call-overload]
                while (member := tar.next()) is not None:
                    tar.members.clear()  # or all of them stay in memory
                    if member.size < 0 or member.offset_data < end:
                        raise tarfile.ReadError(f"member {member.name!r} begins before byte {end}")
                    end = member.offset_data + member.size
                    if end > file.size:
                        skips.add("cut short", member.name)
                        return
                    yield member
            if start and tar.offset == start:
                behind = f"the {file.size - start} bytes from byte {start} on"
                raise tarfile.ReadError(f"{behind}, after its end, are no tar")
            if tar.offset >= file.size:
                skips.add("tar without an end", f"read up to byte {end}: it may have been cut")
            start = _after_end(opened, tar.offset)
    except BROKEN as error:
        if not end and (program := _compressed(opened)):
            skips.add("compressed tar", _unpacking(file.path, program))
        else:
            skips.add("damaged tar", f"read up to byte {end} ({error})")


def _after_end(opened: Any, end: int) -> int | None:
    """Find data behind the zeros that end a tar; None where there is none.

    Errors: tarfile.ReadError where it does not end in zeros.
    """
    opened.seek(end)
    if opened.read(tarfile.BLOCKSIZE).strip(b"\0"):  # tarfile takes garbage for the end
        raise tarfile.ReadError("what follows is no header")
    while chunk := opened.read(CHUNK):
        if rest := chunk.lstrip(b"\0"):
            start = opened.tell() - len(rest)
            return start - start % tarfile.BLOCKSIZE
    return None


def list_compressed(folder: str) -> list[str]:
    """Names of compressed tars in a folder, which no pattern of tars finds."""
    if not os.path.isdir(folder):
        return []
    return sorted(name for name in os.listdir(folder) if name.endswith(ENDINGS))


def _compressed(opened: Any) -> str:
    """Name the compression of a file that is no tar as it is; "" if it is unknown."""
    opened.seek(0)
    begin = opened.read(max(map(len, COMPRESSED)))
    return next((p for magic, p in COMPRESSED.items() if begin.startswith(magic)), "")


def _unpacking(path: str, program: str) -> str:
    """Name a tar's compression and the command that unpacks it."""
    name = path.rpartition("/")[2]
    plain = name.removesuffix(next(filter(name.endswith, ENDINGS), ".tar")) + ".tar"
    plain = f"plain-{plain}" if plain == name else plain
    command = f"{program} -dc {shlex.quote(name)} > {shlex.quote(plain)}"
    return f"by {program}; examples are read at any place of a plain one: {command}"
