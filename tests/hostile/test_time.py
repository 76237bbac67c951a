"""Images and Parquet files that would take long: refused by their parts, or ended by a limit."""

import contextlib
import io
import os
import signal
import struct
import time
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from imagen_jax.data.images import decode
from imagen_jax.data.images.decode import UnreadableImageError
from imagen_jax.data.sources import parquet, parquet_process
from imagen_jax.io.errors import CorruptDataError


def encoded(kind: str, **options: object) -> bytes:
    """A small image."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    """A part of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def segment(marker: int, body: bytes) -> bytes:
    """A part of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def exif(entries: int, size: int) -> bytes:
    """EXIF whose entries all claim the same `size` bytes."""
    parts = [struct.pack("<HHLL", tag, 1, size, 8) for tag in range(entries)]
    return (
        b"II*\0" + struct.pack("<L", 8) + struct.pack("<H", entries) + b"".join(parts) + b"\0" * 4
    )


PNG, JPEG, GIF, WEBP = map(encoded, ("PNG", "JPEG", "GIF", "WEBP"))
ANIMATED = io.BytesIO()
Image.new("RGB", (8, 8)).save(
    ANIMATED, "WEBP", save_all=True, append_images=[Image.new("RGB", (8, 8), 9)], lossless=True
)
PROFILE = b"x\0\0" + zlib.compress(bytes(1 << 20))
TEXT = b"x\0\0" + zlib.compress(bytes(1 << 20))
GIF_START = 13 + (3 << (GIF[10] & 7) + 1 if GIF[10] & 0x80 else 0)
EXIF = b"Exif\0\0"


def png(*chunks: bytes) -> bytes:
    """A PNG with further parts behind its header."""
    return PNG[:33] + b"".join(chunks) + PNG[33:]


def png_of(width: int, height: int, *, colour: int, channels: int, rows: int = 0) -> bytes:
    """A PNG of zeros, of fewer rows than it states if `rows` says so."""
    data = zlib.compress((b"\0" * (1 + width * channels)) * (rows or height))
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return PNG[:8] + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def jpeg(*segments: bytes) -> bytes:
    """A JPEG with further parts at its beginning."""
    return JPEG[:2] + b"".join(segments) + JPEG[2:]


def gif(*blocks: bytes) -> bytes:
    """A GIF with further parts before its image."""
    return GIF[:GIF_START] + b"".join(blocks) + GIF[GIF_START:]


def webp(chunks: bytes, count: int) -> bytes:
    """An animated WebP with further parts."""
    data = ANIMATED.getvalue() + chunks * count
    return data[:4] + struct.pack("<L", len(data) - 8) + data[8:]


BIG = exif(5000, 60_000)[:60_000]
FLOODS = {
    "GIF, comments of a byte": lambda: gif(b"!\xfe", b"\1x" * (1 << 20), b"\0"),
    "GIF, extensions": lambda: gif(b"!\xf9\0" * (1 << 20)),
    "GIF, junk": lambda: gif(b"\0" * (1 << 21)),
    "GIF, an extension without end": lambda: GIF[:GIF_START] + b"!\xfe" + b"\1x" * (1 << 20),
    "GIF, an application's parts": lambda: gif(b"!\xff", b"\1x" * (1 << 20), b"\0"),
    "WebP, frames": lambda: webp(b"ANMF" + struct.pack("<L", 0), 1 << 18),
    "WebP, unknown parts": lambda: webp(b"junk" + struct.pack("<L", 0), 1 << 18),
    "WebP, parts of odd sizes": lambda: webp(b"junk" + struct.pack("<L", 1) + b"xx", 1 << 18),
    "PNG, profiles": lambda: png(*[chunk(b"iCCP", PROFILE)] * 1200),
    "PNG, frames": lambda: png(*[chunk(b"fcTL", bytes(26))] * (1 << 18)),
    "PNG, empty texts": lambda: png(*[chunk(b"tEXt", b"x\0")] * (1 << 18)),
    "JPEG, EXIF in parts": lambda: jpeg(*[segment(0xE1, EXIF + bytes(60_000))] * 1000),
    "JPEG, EXIF in five parts": lambda: jpeg(*[segment(0xE1, EXIF + BIG)] * 5),
    "JPEG, comments": lambda: jpeg(*[segment(0xFE, b"x")] * (1 << 18)),
}
ENDURED = {  # decoded, or refused by Pillow itself; either at once
    "PNG, texts that unpack": lambda: png(*[chunk(b"zTXt", TEXT)] * 500),
    "PNG, a text that unpacks": lambda: png(
        chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(1 << 27)))
    ),
    "PNG, a profile that unpacks": lambda: png(chunk(b"iCCP", PROFILE + b"x" * 10**6)),
    "PNG, EXIF of many entries": lambda: png(chunk(b"eXIf", exif(65_535, 10**7) + bytes(10**7))),
    "PNG, EXIF in hexadecimal": lambda: png(
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\n" * 3 + BIG.hex().encode()))
    ),
    "PNG, no end": lambda: PNG[:-12],
    "PNG, a length beyond the file": lambda: (
        PNG[:33] + struct.pack(">I", 2**31) + b"tEXt" + PNG[33:]
    ),
    "JPEG, EXIF of many entries": lambda: jpeg(segment(0xE1, EXIF + BIG)),
    "JPEG, EXIF in four parts": lambda: jpeg(*[segment(0xE1, EXIF + BIG)] * 4),
    "JPEG, a profile in parts": lambda: jpeg(
        *(segment(0xE2, b"ICC_PROFILE\0" + bytes([n, 255]) + bytes(65_000)) for n in range(1, 256))
    ),
    "JPEG, XMP": lambda: jpeg(
        *[segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"<" * 60_000)] * 99
    ),
    "JPEG, Photoshop's": lambda: jpeg(
        *[segment(0xED, b"Photoshop 3.0\0" + b"8BIM" + bytes(60_000))] * 99
    ),
    "JPEG, an index of images": lambda: jpeg(segment(0xE2, b"MPF\0" + BIG)),
    "GIF, a comment": lambda: gif(b"!\xfe", b"\xff" + b"x" * 255, b"\0"),
    "WebP, EXIF of many entries": lambda: webp(b"EXIF" + struct.pack("<L", len(BIG)) + BIG, 1),
    "BMP, a header of any length": lambda: (
        b"BM" + bytes(12) + struct.pack("<L", 2**31) + bytes(100)
    ),
    "BMP, a palette beyond the file": lambda: (
        encoded("BMP")[:46] + struct.pack("<L", 2**31) + bytes(50)
    ),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_of_parts_is_refused_before_it_is_read(name: str) -> None:
    image = FLOODS[name]()
    start = time.process_time()
    for read in (decode.read_header, decode.decode_image):
        with pytest.raises(UnreadableImageError, match=r"it has more than .*: save it again"):
            read(image)
    assert time.process_time() - start < 2


@pytest.mark.parametrize("name", ENDURED)
def test_what_a_part_claims_costs_little(name: str) -> None:
    image = ENDURED[name]()
    start = time.process_time()
    with contextlib.suppress(UnreadableImageError):
        assert decode.decode_image(image).shape == (8, 8, 3)
    assert time.process_time() - start < 2


def test_a_palette_that_is_missing_is_named() -> None:
    image = png_of(9, 9, colour=3, channels=1)
    with pytest.raises(UnreadableImageError):
        decode.decode_image(image)


def test_rows_of_a_pixel_count_as_what_they_take() -> None:
    """Their places take more memory than they do."""
    with pytest.raises(UnreadableImageError, match="IMAGEN_MAX_IMAGE_MEMORY"):
        decode.read_header(png_of(1, 90_000_000, colour=0, channels=1, rows=1))
    assert decode.read_header(png_of(90_000_000, 1, colour=0, channels=1)).height == 1


def test_packed_rows_of_a_bmp_take_no_longer_than_an_image_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("IMAGEN_MAX_IMAGE_SECONDS", "1")
    header = struct.pack("<LllHHLLllLL", 40, 9999, 9999, 1, 8, 1, 0, 0, 0, 0, 0)
    image = b"BM" + struct.pack("<LHHL", 0, 0, 0, 1078) + header + bytes(1024) + b"\1\0" * 4_000_000
    start = time.thread_time()
    with pytest.raises(UnreadableImageError, match="more than 1 seconds of a processor"):
        decode.decode_image(image)
    assert time.thread_time() - start < 3


def test_honest_metadata_are_read() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    image = io.BytesIO()
    Image.new("RGB", (16, 8)).save(image, "JPEG", exif=turned)
    assert decode.decode_image(image.getvalue()).shape == (16, 8, 3)
    padded = turned.tobytes() + bytes(2 * decode.MOST_EXIF)  # longer than a JPEG's may be
    for kind in ("PNG", "WEBP"):
        image = io.BytesIO()
        Image.new("RGB", (16, 8)).save(image, kind, exif=padded)
        assert decode.decode_image(image.getvalue()).shape == (16, 8, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP"])
def test_an_image_has_so_much_of_a_processors_time(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its own thread: others, and waiting, do not count."""
    image, spent = encoded(kind), iter([0.0, *[9.0] * 3, *[11.0] * 1000])
    monkeypatch.setattr(decode.time, "thread_time", lambda: next(spent))
    with pytest.raises(UnreadableImageError, match=r"10 seconds .* set IMAGEN_MAX_IMAGE_SECONDS"):
        decode.decode_image(image)


def test_a_reader_without_an_answer_is_ended_and_its_row_group_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pa.table({"image": [b"abc"], "text": ["a"]}), tmp_path / "x.parquet")
    source = parquet.open_parquet(str(tmp_path))
    monkeypatch.setattr(parquet_process, "_POOL", parquet_process.ReaderPool())
    with parquet_process._POOL.borrow() as reader:
        os.kill(reader._process.pid, signal.SIGSTOP)
    monkeypatch.setattr(parquet_process, "SLOWEST", 1 << 40)
    monkeypatch.setenv("IMAGEN_MAX_PARQUET_SECONDS", "1")
    monkeypatch.setattr(parquet_process, "READ_THERE", ())  # the reader that waits
    monkeypatch.setattr(parquet_process._POOL, "_idle", {(os.getpid(),): [reader]})
    start = time.monotonic()
    with pytest.raises(
        CorruptDataError, match=r"row group 0: .* no answer for 1 seconds; .*SECOND"
    ):
        source[0]
    assert 1 <= time.monotonic() - start < 10
    assert reader.has_ended()
    assert source[0]["caption"] == "a"  # by another one


def test_a_reader_whose_answers_are_awaited_slowly_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pa.table({"file_name": [f"{n}.jpg" for n in range(1000)], "text": ["a"] * 1000})
    pq.write_table(table, tmp_path / "metadata.parquet")
    monkeypatch.setenv("IMAGEN_MAX_PARQUET_SECONDS", "1")
    rows = parquet.row_index(str(tmp_path / "metadata.parquet"), ["file_name", "text"])
    next(rows)
    time.sleep(1.2)
    assert sum(1 for _ in rows) == 999


def test_a_larger_file_has_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"image": [b"abc"], "text": ["a"]}), tmp_path / "x.parquet")
    waited = []

    def within(self, seconds, read, out):
        waited.append(seconds)
        return read(out)

    monkeypatch.setattr(parquet_process.ParquetReader, "_within", within)
    monkeypatch.setattr(parquet_process, "SLOWEST", 10)
    parquet.open_parquet(str(tmp_path))
    size = (tmp_path / "x.parquet").stat().st_size
    assert waited[0] == 300
    assert waited[1:] == [300 + size / 10] * len(waited[1:])
