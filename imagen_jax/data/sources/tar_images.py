"""Images in tars without any caption: for scores, which need none.

Their places are found in one pass over the headers, each time, and their bytes read by random
access.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from imagen_jax.data.sources import base, tar_index, tar_members
from imagen_jax.data.sources.base import SkipLog, SkippedNames
from imagen_jax.io import remote_files
from imagen_jax.io.remote_files import RangeReader, SourceFile


class Member(NamedTuple):
    """An image in a tar."""

    file: SourceFile
    name: str
    offset: int
    size: int


@dataclass(frozen=True, eq=False)
class TarImages:
    """The images of several tars, in the order of the tars' names and of the images in them."""

    members: Sequence[Member]
    skipped: Mapping[str, SkippedNames]
    reader: RangeReader = dataclasses.field(default_factory=RangeReader)

    def __len__(self) -> int:
        return len(self.members)

    def read(self, number: int) -> bytes:
        """Read an image's bytes. Errors: OSError."""
        member = self.members[number]
        return self.reader.read(member.file, member.offset, member.size)

    def key(self, number: int) -> str:
        """`00000.tar/000000012.jpg`: the tar and the member."""
        member = self.members[number]
        return f"{base.key(member.file.name)}/{base.key(member.name)}"


def open_images(pattern: str) -> TarImages:
    """The images of tars: one, a folder of them, or several as in `remote_files.find_files`.

    Errors: FileNotFoundError where there are no tars; ValueError when no image is in them; OSError.
    """
    skips = SkipLog()
    found = [
        member
        for file in remote_files.find_files(pattern, ending="tar")
        for member in _members(file, skips)
    ]
    if not found:
        left_out = base.summarise_skips(skips.collect()) or "nothing"
        raise ValueError(f"{pattern}: no image in these tars; left out: {left_out}")
    return TarImages(found, skips.collect())


def _members(file: SourceFile, skips: SkipLog) -> Iterator[Member]:
    with remote_files.open_file(file.path) as opened:
        for member in tar_members.read_members(opened, file, skips):
            if member.isdir():
                continue
            parts = member.name.replace("\\", "/").split("/")
            kind = tar_index.KINDS.get(parts[-1].partition(".")[2].lower(), "")
            if wrong := tar_index.refuse_member(member, parts, kind):
                skips.add(wrong, f"{file.name}: {member.name}")
            elif kind == "image":
                yield Member(file, member.name, member.offset_data, member.size)
