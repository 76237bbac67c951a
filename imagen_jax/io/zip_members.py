"""Members of zip archives, whose headers may be anybody's: none unpacks to more than it states."""

import zipfile

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # those that NumPy writes


def stored_members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Return the members of an archive of `size` bytes by name, none of them compressed.

    Errors: ValueError for a compressed one, for two of one name, and for more bytes than the
    archive has, as where members lie over each other.
    """
    found = archive.infolist()
    members = {one.filename: one for one in found}
    if len(members) < len(found):
        raise ValueError("a member is there twice")
    if any(
        one.compress_type != zipfile.ZIP_STORED or one.file_size != one.compress_size
        for one in found
    ):
        raise ValueError("a member is compressed")
    if (total := sum(one.file_size for one in found)) > size:
        raise ValueError(f"its members have {total:,} bytes, and it has {size:,}")
    return members


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Read a member, which may be compressed: `ZipFile.read` unpacks more than its header states.

    Errors: ValueError for a method of compression that unpacks everything at once; those of
    zipfile.
    """
    if member.compress_type not in METHODS:
        raise ValueError(f"{member.filename!r} is compressed by method {member.compress_type}")
    with archive.open(member) as opened:
        return opened.read(member.file_size)
