"""Tars: every example by random access, whatever else is in there; what is left out is named."""

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import random
import re
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cloud_storage
import pytest

from imagen_jax.data.sources import addresses, base, tar_index, tars
from imagen_jax.io import remote_files
from imagen_jax.io.errors import CorruptDataError
from imagen_jax.io.remote_files import KEPT_OPEN

Content = bytes | tarfile.TarInfo
REAL_SCAN = tar_index.build


def written(path: Path, members: list[tuple[str, bytes]], **options: object) -> Path:
    with tarfile.open(path, "w", **options) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def picture_of(number: int) -> bytes:
    return random.Random(number).randbytes(50 + number * 37)


def sample(
    number: int, *, caption: bool = True, status: str = "success"
) -> list[tuple[str, bytes]]:
    """The members of an example as img2dataset 1.47.0 writes them, in this order.

    Without a caption its .json has null and its .txt is empty.
    """
    key = f"{number // 10:05d}{number % 10:04d}"
    about = {
        "caption": f"№ {number}" if caption else None,
        "url": f"https://example.com/{number}.jpg",
        "key": key,
        "status": status,
        "error_message": None,
        "width": 64,
        "height": 48,
        "sha256": "0" * 64,
    }
    return [
        (f"{key}.jpg", picture_of(number)),
        (f"{key}.json", json.dumps(about, indent=4).encode()),
        (f"{key}.txt", f"№ {number}".encode() if caption else b""),
    ]


def opened(path: Path | str, cache: Path | None = None, **options: str) -> tars.Tars:
    return tars.open_tars(str(path), cache=cache or Path("/nowhere"), **options)


def only(source: base.Source) -> list[tuple[str, bytes, tuple[str, ...]]]:
    rows = [(source.key(i), source[i]) for i in range(len(source))]
    assert all(row["caption"] == row["captions"][0] for _, row in rows)
    return [(key, row["image"], row["captions"]) for key, row in rows]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three tars of ten examples; 13 has no caption, 25 is without a picture."""
    for shard in range(3):
        members = [
            m for n in range(shard * 10, shard * 10 + 10) for m in sample(n, caption=n != 13)
        ]
        members = [m for m in members if m[0] != "000020005.jpg"]
        written(tmp_path / f"{shard:05d}.tar", members)
    (tmp_path / "00000_stats.json").write_text("{}")
    return tmp_path


def test_every_example_is_there_in_order_and_at_any_place(folder: Path) -> None:
    source = opened(folder)
    whole = [n for n in range(30) if n not in (13, 25)]
    wanted = [
        (f"{n // 10:05d}.tar/{n // 10:05d}{n % 10:04d}", picture_of(n), (f"№ {n}",)) for n in whole
    ]
    assert only(source) == wanted
    for index in (27, 0, 14):
        assert source[index]["image"] == picture_of(whole[index])
    assert source.skipped == {
        "caption without image": ("00002.tar: 000020005",),
        "empty": ("00001.tar: 000010003.txt",),
        "image without caption": ("00001.tar: 000010003",),
    }


def test_the_pattern_may_name_shards(folder: Path) -> None:
    assert len(opened(folder / "{00000..00001}.tar")) == 19
    assert len(opened(folder / "0000[02].tar")) == 19
    assert len(opened(folder / "{00002,00000}.tar")) == 19
    assert opened(folder / "00001.tar").key(3) == "00001.tar/000010004"
    assert (
        opened(folder.parent / f"*{folder.name}" / "00001.tar").key(0)
        == f"{folder.name}/00001.tar/000010000"
    )
    with pytest.raises(FileNotFoundError, match=r"00003\.tar is not there; .*00000\.\.00003"):
        opened(folder / "{00000..00003}.tar")
    with pytest.raises(FileNotFoundError, match=r"no file matches .*\*\.tarr"):
        opened(folder / "*.tarr")
    with pytest.raises(FileNotFoundError, match=r"neither a file nor a folder with \*\.tar in it"):
        opened(folder / "missing")


@pytest.mark.parametrize("field", ["alt", "more/words"])
def test_captions_may_be_a_field_of_the_json_one_or_several(tmp_path: Path, field: str) -> None:
    value = ["two", " words ", "", None]
    about = {"caption": "no", "alt": value, "more": {"words": value}}
    members = [("a.png", b"png"), ("a.txt", b"no"), ("a.json", json.dumps(about).encode())]
    members += [("b.WEBP", b"webp"), ("b.json", b'{"caption": "no"}'), ("b.txt", b"no")]
    path = written(tmp_path / "x.tar", members)
    if field == "more/words":
        path = written(tmp_path / "x.tar", members[:3])
    source = opened(path, field=field)
    assert only(source) == [("x.tar/a", b"png", ("two", "words"))]
    assert only(opened(path))[0] == ("x.tar/a", b"png", ("no",))  # another index
    assert len(opened(path, field=field)) == 1


def test_a_json_alone_has_the_caption(tmp_path: Path) -> None:
    members = [("a.json", b'{"caption": "one"}'), ("a.jpeg", b"jpeg")]
    assert only(opened(written(tmp_path / "x.tar", members))) == [("x.tar/a", b"jpeg", ("one",))]


def test_hostile_members_are_left_out_and_named(tmp_path: Path) -> None:
    good = sample(1)
    members = [
        *good,
        ("../../etc/evil.jpg", b"x"),
        ("a/../../evil.jpg", b"x"),
        ("/etc/evil.jpg", b"x"),
        ("C:\\evil.jpg", b"x"),
        ("..\\evil.jpg", b"x"),
        good[0],
        good[2],
        ("000000001.png", b"x"),
        ("empty.jpg", b""),
        ("empty.txt", b"words"),
        ("blank.jpg", b"x"),
        ("blank.txt", b" \n "),
        ("._000000001.jpg", b"x"),
        ("notes.pdf", b"x"),
        ("broken.jpg", b"x"),
        ("broken.json", b"{"),
        ("deep.jpg", b"x"),
        ("deep.json", b"[" * 100_000),
        ("list.jpg", b"x"),
        ("list.json", b'["words"]'),
        ("number.jpg", b"x"),
        ("number.json", b'{"caption": 7}'),
        ("long.jpg", b"x"),
        ("long.txt", b"w" * (base.MAX_TEXT_BYTES + 1)),
        *[(n.replace("0", "5"), d) for n, d in sample(2, status="failed_to_download")],
        ("\udcff\x1b[2J.jpg", b"x"),
        ("\udcff\x1b[2J.txt", b"words"),
    ]
    path = written(tmp_path / "x.tar", members)
    source = opened(path)
    assert only(source) == [
        ("x.tar/000000001", picture_of(1), ("№ 1",)),
        ("x.tar/\\udcff\\x1b[2J", b"x", ("words",)),
    ]
    found = {r: [n.removeprefix("x.tar: ") for n in names] for r, names in source.skipped.items()}
    assert found == {
        "unsafe name": [
            "../../etc/evil.jpg",
            "a/../../evil.jpg",
            "/etc/evil.jpg",
            "C:\\evil.jpg",
            "..\\evil.jpg",
        ],
        "duplicate key": ["000000001.jpg", "000000001.txt", "000000001.png"],
        "empty": ["empty.jpg", "blank.txt"],
        "caption without image": ["empty"],
        "hidden": ["._000000001.jpg"],
        "neither image nor caption": ["notes.pdf"],
        "unreadable .json": ["broken.json", "deep.json", "list.json", "number.json"],
        "too large": ["long.txt"],
        "not downloaded": ["555555552"],
        "image without caption": ["blank", "broken", "deep", "list", "number", "long"],
    }
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.tar", "x.tar.index"]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_are_left_out(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        info = tarfile.TarInfo("a.jpg")
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
        directory = tarfile.TarInfo("b.jpg")
        directory.type = tarfile.DIRTYPE
        tar.addfile(directory)
        for name in ("a.txt", "c.txt", "./c.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
    source = opened(tmp_path / "x.tar")
    assert [source.key(i) for i in range(len(source))] == ["x.tar/c"]
    assert source.skipped["no regular file"] == ("x.tar: a.jpg",)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_are_whole(tmp_path: Path, form: int) -> None:
    key = "ü" * 60 + "/" + "long" * 60
    members = [(f"{key}.jpg", b"image"), (f"{key}.txt", b"words")]
    source = opened(written(tmp_path / "x.tar", members, format=form))
    assert only(source) == [(f"x.tar/{key}", b"image", ("words",))]


def cut_in_a_header(data: bytes) -> bytes:
    return data[: 512 * 2 + 100]


def cut_in_a_picture(data: bytes) -> bytes:
    return data[: data.index(picture_of(5)) + 20]


def garbage_behind(data: bytes) -> bytes:
    return data[: data.index(b"000000005.jpg")] + b"garbage!" * 500


def huge_name(data: bytes) -> bytes:
    """A header that announces a long name of gigabytes."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 33
    return data[: data.index(b"000000005.jpg")] + info.tobuf(tarfile.GNU_FORMAT) + bytes(5000)


def negative_size(data: bytes) -> bytes:
    """A member that ends before it begins."""
    info = tarfile.TarInfo("000000005.jpg")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 10 + b"\xf0\x00"  # -4096
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return data[: data.index(b"000000005.jpg")] + bytes(header) + bytes(5000)


def nested_headers(data: bytes) -> bytes:
    """Thousands of headers that each only describe the next."""
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 0
    return data[: data.index(b"000000005.jpg")] + info.tobuf(tarfile.PAX_FORMAT) * 5000


@pytest.mark.parametrize(
    ("damage", "whole", "says"),
    [
        (cut_in_a_header, 0, "damaged tar: x.tar: read up to byte .*no header"),
        (cut_in_a_picture, 5, "cut short: x.tar: 000000005.jpg"),
        (garbage_behind, 5, "damaged tar: x.tar: read up to byte .*what follows is no header"),
        (huge_name, 5, "damaged tar: .*a header of 8589934592 bytes"),
        (negative_size, 5, "damaged tar: .*member '000000005.jpg' begins before byte"),
        (nested_headers, 5, "damaged tar: .*recursion"),
        (lambda data: b"", 0, "damaged tar: .*empty file"),
        (lambda data: b"<html>" * 1000, 0, "damaged tar: .*byte 0 "),
    ],
)
def test_what_comes_before_the_damage_is_kept(
    tmp_path: Path, damage: Callable[[bytes], bytes], whole: int, says: str
) -> None:
    written(tmp_path / "a.tar", sample(99))
    path = written(tmp_path / "x.tar", [m for n in range(10) for m in sample(n)])
    path.write_bytes(damage(path.read_bytes()))
    source = opened(tmp_path)
    assert [row[1] for row in only(source)] == [picture_of(99), *map(picture_of, range(whole))]
    halves = "image without caption" if damage is cut_in_a_header else ""
    ((reason, (name,)),) = [row for row in source.skipped.items() if row[0] != halves]
    assert re.search(says, f"{reason}: {name}")


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_whatever_bytes_are_flipped_what_is_listed_can_be_read(tmp_path: Path, form: int) -> None:
    long = "ü" * 60 if form != tarfile.USTAR_FORMAT else ""
    members = [(f"{long}{name}", data) for n in range(4) for name, data in sample(n)]
    path = written(tmp_path / "x.tar", members, format=form)
    whole, rng, counts = path.read_bytes(), random.Random(form), set()
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 3, 30])):
            data[rng.randrange(len(data))] = rng.choice([0, 255, 48, 55, rng.randrange(256)])
        path.write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
        file = remote_files.find_files(str(path), ending="tar")[0]
        index = tar_index.build(file, "")
        counts.add(len(index.rows))
        if len(index.rows):
            source = opened(path)
            assert len({key for key, *_ in only(source)}) == len(index.rows) == len(source)
    assert {0, 4} < counts


def test_tars_without_any_example_are_refused(tmp_path: Path) -> None:
    written(tmp_path / "x.tar", [("a.jpg", b"x"), ("b.jpg", b"x")])
    with pytest.raises(
        ValueError, match=r"in 1 tars; left out: 2 image without caption \(x.tar: a"
    ):
        opened(tmp_path)


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the tars that were gone through, as they are."""
    names: list[str] = []

    def build(file: remote_files.SourceFile, field: str) -> tar_index.Index:
        names.append(file.name)
        return REAL_SCAN(file, field)

    monkeypatch.setattr(tar_index, "build", build)
    return names


def test_an_index_serves_until_its_tar_changes(folder: Path, scans: list[str]) -> None:
    first = only(opened(folder))
    assert sorted(scans) == ["00000.tar", "00001.tar", "00002.tar"]
    again = opened(folder)
    assert only(again) == first
    assert again.skipped == opened(folder).skipped == opened(folder / "*.tar").skipped
    assert again.skipped["caption without image"].total == 1
    assert len(scans) == 3

    os.utime(folder / "00001.tar", ns=(1, 1))  # another time alone
    assert only(opened(folder)) == first
    assert scans[3:] == ["00001.tar"]
    times = os.stat(folder / "00002.tar").st_mtime_ns
    written(folder / "00002.tar", [m for n in range(20, 40) for m in sample(n)])
    os.utime(folder / "00002.tar", ns=(times, times))  # another size alone
    assert len(opened(folder)) == 39
    assert scans[4:] == ["00002.tar"]

    index = folder / "00000.tar.index"
    data = bytearray(index.read_bytes())
    data[40] ^= 1
    for damaged in (bytes(data), b"", b"\xff" * 30):
        index.write_bytes(damaged)
        assert len(opened(folder)) == 39
    assert scans[5:] == ["00000.tar"] * 3


def test_processes_index_much(
    folder: Path, scans: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = opened(folder)
    assert len(scans) == 3
    for index in folder.glob("*.index"):
        index.unlink()
    monkeypatch.setattr(tars, "MUCH", 1)
    source = opened(folder)
    assert len(scans) == 3  # not in this process
    assert only(source) == only(alone)
    assert source.skipped == alone.skipped
    assert len(list(folder.glob("*.index"))) == 3


def test_where_nothing_can_be_written_the_index_is_in_the_cache(
    folder: Path, tmp_path: Path, scans: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tar_index.write_atomic

    def write(path: Path, data: bytes) -> None:
        if path.parent == folder:
            raise PermissionError(13, "read-only", str(path))
        real(path, data)

    monkeypatch.setattr(tar_index, "write_atomic", write)  # root may write everywhere
    cache = tmp_path / "cache" / "indices"
    first = only(opened(folder, cache))
    assert len(list(cache.iterdir())) == 3
    assert only(opened(folder, cache)) == first
    assert len(scans) == 3
    assert not list(folder.glob("*.index"))


def test_a_tar_that_shrinks_while_it_is_read_is_named(folder: Path) -> None:
    source = opened(folder / "00000.tar")
    os.truncate(folder / "00000.tar", 3000)
    with pytest.raises(CorruptDataError, match=r"00000.tar has changed: it ends before byte"):
        source[9]


def test_a_json_that_changes_while_it_is_read_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "x.tar", [("a.jpg", b"x"), ("a.json", b'{"caption": "one"}')])
    source = opened(path)
    path.write_bytes(path.read_bytes().replace(b'{"caption": "one"}', b'{"caption": "one"]'))
    with pytest.raises(CorruptDataError, match=r"x.tar has changed: .json of x.tar/a"):
        source[0]


def test_threads_share_it_and_processes_copy_it(tmp_path: Path) -> None:
    tars_there = KEPT_OPEN + 20  # more than stay open
    for n in range(tars_there):
        written(tmp_path / f"{n:05d}.tar", sample(n))
    source = opened(tmp_path)
    copy = pickle.loads(pickle.dumps(source))
    order = [random.Random(k).randrange(tars_there) for k in range(4000)]
    for one in (source, copy):
        with ThreadPoolExecutor(8) as pool:
            read = list(pool.map(lambda i, one=one: one[i]["image"], order))
        assert read == [picture_of(i) for i in order]
    assert copy.skipped == source.skipped
    # Threads may open some at once.
    assert 2 * KEPT_OPEN <= _open_below(tmp_path) <= 2 * (KEPT_OPEN + 8)
    del source, copy, one
    assert _open_below(tmp_path) == 0


def _open_below(folder: Path) -> int:
    """This process's open files there; other tests' files come and go."""
    links = [str(link) for link in Path("/proc/self/fd").iterdir()]
    return sum(os.path.realpath(link).startswith(f"{folder}/") for link in links)


def test_a_picture_far_from_its_caption_is_read_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = ("filling.jpg", bytes(200_000))
    path = written(tmp_path / "x.tar", [("a.txt", b"words"), far, ("a.jpg", b"image")])
    reads, real = [], os.pread
    monkeypatch.setattr(os, "pread", lambda fd, n, at: reads.append(n) or real(fd, n, at))
    assert only(opened(path)) == [("x.tar/a", b"image", ("words",))]
    assert reads == [5, 5]
    near = written(tmp_path / "y.tar", [("a.txt", b"words"), ("a.jpg", b"image")])
    assert only(opened(near)) == [("y.tar/a", b"image", ("words",))]
    assert reads[2:] == [512 + 512 + 5]


def test_a_bucket_is_read_in_ranges(
    bucket: cloud_storage.Bucket, folder: Path, tmp_path: Path, scans: list[str]
) -> None:
    for path in folder.glob("*.tar"):
        bucket.put(f"data/{path.name}", path.read_bytes())
    cache = tmp_path / "cache"
    source = opened("gs://bucket/data/*.tar", cache)
    here = opened(folder)
    assert only(source) == only(here)
    assert source.skipped == here.skipped
    for again in ("gs://bucket/data/", "gs://bucket/data/{00000..00002}.tar"):
        assert len(opened(again, cache)) == 28
    assert len(scans) == 6
    with pytest.raises(FileNotFoundError, match=r"gs://bucket/none is neither a file nor"):
        opened("gs://bucket/none", cache)


def test_a_bucket_without_its_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"gs://bucket/x.tar: buckets need gcsfs; pip install"):
        remote_files.find_files("gs://bucket/x.tar", ending="tar")


def archive(*numbers: int) -> bytes:
    """A tar of these samples."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in [member for n in numbers for member in sample(n)]:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return data.getvalue()


@pytest.mark.parametrize("padding", [0, 512, 10_240, (1 << 20) + 512])
def test_concatenated_tars_are_one(tmp_path: Path, padding: int) -> None:
    path = tmp_path / "x.tar"
    parts = [archive(0, 1), archive(2), archive(), archive(3, 4)]
    path.write_bytes(bytes(padding).join(parts) + bytes(padding))
    source = opened(path)
    assert only(source) == [(f"x.tar/00000000{n}", picture_of(n), (f"№ {n}",)) for n in range(5)]
    assert source.skipped == {}


def test_the_same_tar_twice_has_its_examples_once(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(archive(1) * 2)
    source = opened(path)
    assert len(source) == 1
    assert {r: n.total for r, n in source.skipped.items()} == {"duplicate key": 3}


def test_bytes_behind_a_tars_end_that_are_no_tar_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    whole = archive(0, 1)
    path.write_bytes(whole + b"garbage!" * 100)
    source = opened(path)
    assert len(source) == 2
    (name,) = source.skipped["damaged tar"]
    assert f"the 800 bytes from byte {len(whole)} on, after its end, are no tar" in name
    path.write_bytes(archive(0) + archive(1) + archive(2)[:600])
    assert len(opened(path)) == 2
    assert opened(path).skipped["cut short"] == ("x.tar: 000000002.jpg",)


def test_a_tar_that_was_cut_between_examples_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    whole = archive(0, 1)
    path.write_bytes(whole[: whole.index(b"000000001.jpg")])
    source = opened(path)
    assert len(source) == 1
    assert list(source.skipped) == ["tar without an end"]


COMPRESSIONS = {
    "gzip": (gzip.compress, "x.tar.gz"),
    "bzip2": (bz2.compress, "x.tar.bz2"),
    "xz": (lzma.compress, "x.tar.xz"),
    "zstd": (lambda data: b"\x28\xb5\x2f\xfd" + data, "x.tar.zst"),
}


@pytest.mark.parametrize("program", COMPRESSIONS)
def test_of_a_compressed_tar_it_is_said_how_to_unpack_it(tmp_path: Path, program: str) -> None:
    compress, name = COMPRESSIONS[program]
    (tmp_path / name).write_bytes(compress(archive(1)))
    said = rf"1 compressed tar \({name}: by {program}; .*: {program} -dc {name} > x.tar\)"
    with pytest.raises(ValueError, match=said):
        opened(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=rf"\*\.tar in it, but the compressed {name}"):
        opened(tmp_path)
    (tmp_path / name).rename(tmp_path / "x.tar")
    with pytest.raises(ValueError, match=f"{program} -dc x.tar > plain-x.tar"):
        opened(tmp_path)
    (tmp_path / "y.tar").write_bytes(archive(2))
    (tmp_path / name).write_bytes(compress(archive(1)))
    source = opened(tmp_path)
    assert len(source) == 1
    assert [n.partition(":")[0] for n in source.skipped["compressed tar"]] == [name, "x.tar"]


def test_an_index_of_an_older_reader_is_made_anew(
    tmp_path: Path, scans: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(archive(0) + archive(1))
    monkeypatch.setattr(tar_index, "VERSION", 1)
    opened(path)
    monkeypatch.undo()
    assert tar_index.VERSION > 1
    assert tar_index.load(remote_files.find_files(str(path), ending="tar")[0], "", tmp_path) is None
    assert len(opened(path)) == 2


def test_a_text_that_is_none_gives_way_to_the_json(tmp_path: Path) -> None:
    members = [("a.jpg", b"x"), ("a.txt", b"caf\xe9"), ("a.json", b'{"caption": "caf\\u00e9"}')]
    members += [("b.jpg", b"x"), ("b.txt", b"words"), ("b.json", b'{"caption": "\\ud83d"}')]
    members += [("c.jpg", b"x"), ("c.json", b'{"caption": "\\ud83d"}')]
    # What is wrong elsewhere in a .json does not matter.
    members += [("d.jpg", b"x"), ("d.json", b'{"caption": "words", "author": "caf\xe9"}')]
    source = opened(written(tmp_path / "x.tar", members))
    captions = [("café",), ("words",), ("words",)]
    assert [row[2] for row in only(source)] == captions
    assert source.skipped == {base.NOT_UNICODE: ("x.tar: c",)}


@pytest.mark.parametrize("name", ["set{a,b}", "what?", "[1]", "*", "a {0..3} b", "~"])
def test_a_path_that_is_there_is_taken_as_it_is_spelled(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / f"{name}.tar").write_bytes(archive(1))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.tar").write_bytes(archive(2))
    for given in (folder, folder / f"{name}.tar", folder / "*.tar"):
        address = addresses.parse_address(f"tars:{given}?text=caption")
        assert address.text == "caption"
        source = addresses.open_source(address, tmp_path)
        assert only(source) == [(f"{name}.tar/000000001", picture_of(1), ("№ 1",))]
        assert addresses.parse_address(f"tars:{given}").dataset == f"tars:{given}"
