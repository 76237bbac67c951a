"""The places of records in an ArrayRecord file, from its end: the postscript, then the footer.

ArrayRecord's reader keeps them to itself, and fetching single records of a file in a bucket needs
them. The records themselves are left to that reader, which checks their hashes.
Source: github.com/google/riegeli doc/riegeli_records_file_format.md; github.com/google/array_record
cpp/layout.proto. group_size is 1 here, so that a chunk is a record.
"""

import numpy as np
from jaxtyping import Int64

from imagen_jax.io.errors import CorruptDataError

BLOCK = 1 << 16  # bytes; a file is a whole number of them, and the last one has the postscript
BLOCK_HEADER = 24  # bytes at the beginning of every block, in the middle of a chunk, too
CHUNK_HEADER = 40  # bytes: hash, size of the data, its hash, type and number of records, more
BEGINNING = BLOCK_HEADER + CHUNK_HEADER + 1  # bytes of a record that tell how it is stored
MAGIC = 0x71930E704FDAE05E
LONGEST = 9  # bytes of a number, which has 63 bits then
# Tags of varint fields: of the postscript (offset, magic) and of a footer's chunk (offset, size of
# its records, their number).
POSTSCRIPT, CHUNK = (0x08, 0x10), (0x08, 0x10, 0x18)


def find_footer(block: bytes, *, size: int) -> int:
    """Return where the footer begins in a file of `size` bytes that has this last block.

    Errors: CorruptDataError.
    """
    values, sizes = _simple_chunk(without_headers(block, size - BLOCK))
    numbers = _varints(values[: sizes[0]] if len(sizes) else b"")
    if len(numbers) != 4 or tuple(numbers[::2]) != POSTSCRIPT or numbers[3] != MAGIC:
        raise CorruptDataError("its postscript is not that of an ArrayRecord file")
    footer = int(numbers[1])
    if not 0 < footer <= size - BLOCK:
        raise CorruptDataError(f"its postscript has the footer at byte {footer} of {size}")
    return footer


def read_offsets(footer: bytes, *, start: int, count: int) -> Int64[np.ndarray, " offsets"]:
    """Return where each of `count` records begins, and last of all where they end.

    `footer` are the file's bytes from the footer's `start` on.
    Errors: CorruptDataError where they do not list so many records in the file's order.
    """
    offsets, counts = read_chunks(without_headers(footer, start))
    if len(offsets) != count:
        raise CorruptDataError(f"its footer does not list {count} records")
    if (counts != 1).any():
        raise CorruptDataError("its footer does not list one record after the other")
    offsets = np.append(offsets, start)
    if (np.diff(offsets) <= 0).any():
        raise CorruptDataError("its footer lists records in another order than the file's")
    return offsets


def read_chunks(
    footer: bytes,
) -> tuple[Int64[np.ndarray, " chunks"], Int64[np.ndarray, " chunks"]]:
    """Return where each chunk of records begins that a footer lists, and how many records it has.

    `footer` is the footer's own chunk, not compressed and without the headers of blocks.
    Errors: CorruptDataError where it lists something else.
    """
    values, sizes = _simple_chunk(footer)
    table = _varints(values[sizes[0] :] if len(sizes) else b"")
    count = len(sizes) - 1
    if len(table) != 2 * len(CHUNK) * count:
        raise CorruptDataError(f"its footer does not list {count} records")
    table = table.reshape(count, 2 * len(CHUNK))
    if (table[:, ::2] != CHUNK).any():
        raise CorruptDataError("its footer does not list one record after the other")
    return table[:, 1], table[:, 5]


def check_plain(record: bytes, start: int) -> None:
    """Refuse a record that is compressed; `record` are the file's bytes from its `start` on.

    Errors: CorruptDataError.
    """
    chunk = without_headers(record[:BEGINNING], start)
    if chunk[24:25] + chunk[CHUNK_HEADER : CHUNK_HEADER + 1] != b"r\0":
        raise CorruptDataError("a record in it is compressed, as ours never are")


def without_headers(data: bytes, start: int) -> bytes:
    """Cut the headers of blocks out of a file's bytes from `start` on."""
    first = -start % BLOCK
    if 0 < start % BLOCK < BLOCK_HEADER:
        raise CorruptDataError("a part of it begins inside the header of a block")
    pieces = [data[p + BLOCK_HEADER : p + BLOCK] for p in range(first, len(data), BLOCK)]
    return b"".join([data[:first], *pieces])


def _simple_chunk(chunk: bytes) -> tuple[bytes, Int64[np.ndarray, " records"]]:
    """Return the values of a chunk that is not compressed, one after the other, and their sizes."""
    length = int.from_bytes(chunk[8:16], "little")
    count = int.from_bytes(chunk[25:32], "little")
    data = chunk[CHUNK_HEADER : CHUNK_HEADER + min(length, len(chunk))]
    if len(chunk) < CHUNK_HEADER or len(data) != length or chunk[24:25] + data[:1] != b"r\0":
        raise CorruptDataError("its footer is cut short or compressed")
    begin = next((n + 1 for n, byte in enumerate(data[:10]) if n and byte < 128), 0)
    end = begin + int(_varints(data[1:begin]).sum())  # of the list of sizes
    if not begin < end <= len(data):
        raise CorruptDataError("its footer lists no records")
    values, sizes = data[end:], _varints(data[begin:end])
    if len(sizes) != count or sizes.sum(dtype=object) != len(values):
        raise CorruptDataError("its footer lists records of other sizes than it has")
    return values, sizes


def _varints(data: bytes) -> Int64[np.ndarray, " numbers"]:
    """Return numbers of seven bits a byte, the last byte of each below 128.

    Errors: CorruptDataError for an unfinished number or one of more than 63 bits.
    """
    found = np.frombuffer(data, np.uint8)
    if not len(found):
        return np.zeros(0, np.int64)
    ends = np.flatnonzero(found < 128)
    if not len(ends) or ends[-1] + 1 != len(found):
        raise CorruptDataError("its footer has an unfinished number")
    begins = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - begins + 1
    if lengths.max() > LONGEST:
        raise CorruptDataError(f"its footer has a number of {lengths.max()} bytes")
    place = np.arange(len(found)) - np.repeat(begins, lengths)
    return np.add.reduceat((found.astype(np.int64) & 127) << 7 * place, begins)
