"""Indices that others may have written: used where they are of their tar, else made again."""

import contextlib
import io
import os
import stat
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from imagen_jax.data.sources import base, tar_index, tar_rows, tars
from imagen_jax.io import remote_files

HOSTILE = Path(__file__).parent / "hostile_index"
CASES = sorted(file.name for file in HOSTILE.glob("hand-*"))


def write_tar(path: Path, count: int, *, names: str = "{}") -> Path:
    """A tar of `count` examples of the same sizes."""
    with tarfile.open(path, "w") as tar:
        for number in range(count):
            members = [(".jpg", f"image {number:05d}".encode())]
            members += [(".txt", f"caption {number:05d}".encode())]
            for ending, data in members:
                info = tarfile.TarInfo(names.format(f"{number:05d}") + ending)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def opened(path: Path) -> tars.Tars:
    return tars.open_tars(str(path), cache=path.parent / "cache")


def captions(source: base.Source) -> list[tuple[bytes, str]]:
    return [(source[i]["image"], source[i]["caption"]) for i in range(len(source))]


def wanted(count: int) -> list[tuple[bytes, str]]:
    return [(f"image {n:05d}".encode(), f"caption {n:05d}") for n in range(count)]


def parts(path: Path) -> list[Any]:
    return msgpack.unpackb(Path(f"{path}.index").read_bytes()[4:])


def forge(path: Path, found: list[Any]) -> None:
    """Write an index whose checksum is right."""
    body = msgpack.packb(found)
    Path(f"{path}.index").write_bytes(zlib.crc32(body).to_bytes(4, "little") + body)


def forge_rows(path: Path, change: Callable[[np.ndarray], object]) -> None:
    """Change the rows; the digest of the headers is then that of these rows."""
    found = parts(path)
    rows = np.frombuffer(found[4], tar_index.ROW).copy()
    change(rows)
    found[4] = rows.tobytes()
    (file,) = remote_files.find_files(str(path), ending="tar")
    with contextlib.suppress(OverflowError, OSError, ValueError):  # beyond every file
        found[3] = tar_rows.digest_headers(file, rows)
    forge(path, found)


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    real = tar_index.build

    def build(file: remote_files.SourceFile, field: str) -> tar_index.Index:
        names.append(file.name)
        return real(file, field)

    monkeypatch.setattr(tar_index, "build", build)
    return names


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_index_is_made_again(case: str, tmp_path: Path, scans: list[str]) -> None:
    """With the version, size and time that make it look like one of the tar."""
    path = write_tar(tmp_path / "x.tar", 2)
    theirs = msgpack.unpackb((HOSTILE / case).read_bytes()[4:])
    opened(path)
    digest = parts(path)[3]
    for found in (
        theirs,
        [tar_index.VERSION, theirs[1], theirs[2], digest, *theirs[3:]],
    ):
        found[1], found[2] = path.stat().st_size, str(path.stat().st_mtime_ns)
        forge(path, found)
        scans.clear()
        assert captions(opened(path)) == wanted(2)
        assert scans == ["x.tar"]


def swap(rows: np.ndarray) -> None:
    rows["text"][[0, 1]] = rows["text"][[1, 0]]


def put(field: str, value: int, row: int = 0) -> Callable[[np.ndarray], object]:
    return lambda rows: rows[field].__setitem__(row, value)


@pytest.mark.parametrize(
    "change",
    [
        swap,
        put("image", 2**63),
        put("image", 2**64 - 1),
        put("image", 0),
        put("image", 511),
        put("image", 10**6),
        put("size", 2**32 - 1),
        put("size", 0),
        put("size", 4),
        put("text", 2**63),
        put("text", 2**64 - 8),
        put("text_size", 2**32 - 1),
        put("text_size", base.MAX_TEXT_BYTES + 1),
        put("key_end", 2**63),
        put("key_end", 0, row=2),
        put("key_end", 99, row=2),
    ],
)
def test_rows_that_are_not_of_the_tar_are_made_again(
    change: Callable[[np.ndarray], object], tmp_path: Path, scans: list[str]
) -> None:
    path = write_tar(tmp_path / "x.tar", 3)
    opened(path)
    forge_rows(path, change)
    source = opened(path)
    assert captions(source) == wanted(3)
    assert [source.key(i) for i in range(3)] == [f"x.tar/{n:05d}" for n in range(3)]
    assert len(scans) == 2
    opened(path)
    assert len(scans) == 2  # the new one serves


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, "3"),
        (1, None),
        (3, b""),
        (3, "x"),
        (4, b"x"),
        (4, 5),
        (4, None),
        (5, "text"),
        (5, b"\xff" * 15),
        (5, b"\x1b[2J" * 3 + b"abc"),
        (5, "ü".encode() * 7 + b"x"),
        (5, 5),
        (6, None),
        (6, []),
        (6, {"a": 5}),
        (6, {"a": []}),
        (6, {"a": [1]}),
        (6, {"a": ["1", "x"]}),
        (6, {"a": [-1, "x"]}),
        (6, {"a": [10**12, "x"]}),
        (6, {"a": [1, b"x"]}),
        (6, {"a": [1, "\x1b[2J"]}),
        (6, {"\n": [1, "x"]}),
        (6, {b"a": [1, "x"]}),
    ],
)
def test_wrong_types_are_damage(place: int, value: object, tmp_path: Path, scans: list) -> None:
    path = write_tar(tmp_path / "x.tar", 3)
    opened(path)
    found = parts(path)
    found[place] = value
    forge(path, found)
    assert captions(opened(path)) == wanted(3)
    assert len(scans) == 2


@pytest.mark.parametrize("found", [None, 5, {}, [], [tar_index.VERSION], [[[[]]]]])
def test_other_things_are_damage(found: object, tmp_path: Path, scans: list[str]) -> None:
    path = write_tar(tmp_path / "x.tar", 3)
    opened(path)
    forge(path, found)  # type: ignore[arg-type]
    assert captions(opened(path)) == wanted(3)
    assert len(scans) == 2


def test_another_tar_of_the_same_size_and_time_is_noticed(tmp_path: Path, scans: list) -> None:
    path = write_tar(tmp_path / "x.tar", 3)
    opened(path)
    times = path.stat().st_mtime_ns
    size = path.stat().st_size
    write_tar(path, 3, names="b{}")
    os.utime(path, ns=(times, times))
    assert path.stat().st_size == size
    assert opened(path).key(0) == "x.tar/b00000"
    assert len(scans) == 2


@pytest.mark.parametrize("count", [3, 700])
def test_swapped_captions_are_noticed_wherever_they_are(
    count: int, tmp_path: Path, scans: list[str]
) -> None:
    """All of a small tar; of a large one so many that it hardly ever fails for a tenth of them."""
    assert 3 < tar_rows.CHECKED < 700
    path = write_tar(tmp_path / "x.tar", count)
    opened(path)
    for first in range(0, count - 1, max(2, count // 40)):
        forge_rows(path, lambda rows, first=first: swap(rows[first : first + 2]))
    assert captions(opened(path)) == wanted(count)
    assert len(scans) == 2


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("length", [1, 92, 94, 95, 96, 97, 99, 100, 101, 150])
def test_long_names_fit_their_headers(
    form: int, length: int, tmp_path: Path, scans: list[str]
) -> None:
    path = tmp_path / "x.tar"
    stems = ["a" * length, "ü" * (length // 2 + 1), f"{'d' * 60}/{'e' * min(length, 60)}"]
    if form == tarfile.USTAR_FORMAT:
        stems = [stem for stem in stems if len(stem.rpartition("/")[2].encode()) < 95]
    stems = stems or ["b"]
    with tarfile.open(path, "w", format=form) as tar:
        for stem in stems:
            for ending, data in ((".jpg", b"image"), (".json", b'{"caption": "words"}')):
                info = tarfile.TarInfo(stem + ending)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    for _ in range(2):
        assert captions(opened(path)) == [(b"image", "words")] * len(stems)
    assert len(scans) == 1


def test_an_index_is_for_its_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tar(tmp_path / "x.tar", 2)
    before = os.umask(0)
    try:
        opened(path)
        real = tar_index.write_atomic

        def write(file: Path, content: Any) -> None:
            if file.parent == tmp_path:
                raise PermissionError(13, "read-only", str(file))
            real(file, content)

        monkeypatch.setattr(tar_index, "write_atomic", write)
        other = write_tar(tmp_path / "y.tar", 2)
        opened(other)
    finally:
        os.umask(before)
    (cached,) = (tmp_path / "cache").iterdir()
    for file in (Path(f"{path}.index"), cached):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(cached.parent.stat().st_mode) == 0o700


def test_no_link_is_followed_on_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tar(tmp_path / "x.tar", 2)
    precious = tmp_path / "precious"
    precious.write_text("mine")
    Path(f"{path}.index").symlink_to(precious)
    assert captions(opened(path)) == wanted(2)
    assert precious.read_text() == "mine"
    link = tmp_path / "link"
    link.symlink_to(precious)
    with pytest.raises(OSError, match="symbolic links"):
        tar_index._write_private(link, b"theirs")
    assert precious.read_text() == "mine"


def test_what_is_no_file_or_too_large_is_not_read(tmp_path: Path, scans: list[str]) -> None:
    path = write_tar(tmp_path / "x.tar", 2)
    index = Path(f"{path}.index")
    index.symlink_to("/dev/zero")
    assert captions(opened(path)) == wanted(2)
    index.unlink()
    os.mkfifo(index)
    assert captions(opened(path)) == wanted(2)
    index.unlink(missing_ok=True)
    index.touch()
    os.truncate(index, 1 << 33)
    assert captions(opened(path)) == wanted(2)
    assert len(scans) == 3
