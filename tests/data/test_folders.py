"""Folders: pictures beside their captions, or in a table; nothing is read outside of them."""

import csv
import json
import os
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import cloud_storage
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imagen_jax.data.sources import base, folders

FAULTS = Path(__file__).parent.parent / "fixtures" / "faults"
Rows = list[dict[str, object]]


def picture_of(name: str) -> bytes:
    return random.Random(name).randbytes(100)


def filled(folder: Path, names: list[str]) -> Path:
    """A folder of pictures and captions: those of pictures are drawn, those of texts their name."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() if name.endswith(".txt") else picture_of(name))
    return folder


def rows_of(source: folders.Folder) -> dict[str, tuple[str, ...]]:
    """Captions by key; the pictures are checked."""
    for index in range(len(source)):
        example = source[index]
        assert example["image"] == Path(source.root, source.key(index)).read_bytes()
        assert example["caption"] == example["captions"][0]
    return {source.key(i): source[i]["captions"] for i in range(len(source))}


def jsonl(path: Path, rows: Rows) -> None:
    path.with_suffix(".jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def comma_separated(path: Path, rows: Rows) -> None:
    with path.with_suffix(".csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def parquet(path: Path, rows: Rows) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path.with_suffix(".parquet"))


TABLES = {"jsonl": jsonl, "csv": comma_separated, "parquet": parquet}


def test_a_text_beside_a_picture_is_its_caption(tmp_path: Path) -> None:
    names = ["b.jpg", "b.txt", "a/2.v1.PNG", "a/2.v1.txt", "a/10.webp", "a/10.txt", "a/b/c.jpeg"]
    source = folders.open_folder(
        str(filled(tmp_path, [*names, "a/b/c.txt", "b.json", "b.parquet"]))
    )
    wanted = ["a/10.webp", "a/2.v1.PNG", "a/b/c.jpeg", "b.jpg"]
    captions = ["a/10.txt", "a/2.v1.txt", "a/b/c.txt", "b.txt"]
    assert rows_of(source) == {n: (c,) for n, c in zip(wanted, captions, strict=True)}
    assert list(rows_of(source)) == wanted
    assert source.skipped == {}


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    outside = filled(tmp_path / "outside", ["secret.jpg", "secret.txt"])
    folder = filled(
        tmp_path / "in",
        ["a.jpg", "a.png", "a.txt", "lonely.jpg", "lone.txt", ".git/x.jpg", "._a.jpg", "x.gif"],
    )
    filled(folder, ["empty.jpg", "empty.txt", "silent.jpg", "silent.txt", "long.jpg", "real/r.jpg"])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "silent.txt").write_bytes(b"")
    (folder / "long.txt").write_bytes(b"w" * (base.MAX_TEXT_BYTES + 1))
    (folder / "leads_out.jpg").symlink_to(outside / "secret.jpg")
    (folder / "leads_out.txt").symlink_to(outside / "secret.txt")
    (folder / "climbs.jpg").symlink_to("../outside/secret.jpg")
    (folder / "folder").symlink_to(outside)
    (folder / "loop").symlink_to(folder)
    (folder / "gone.jpg").symlink_to("nothing.jpg")
    (folder / "inside.jpg").symlink_to("real/r.jpg")
    (folder / "inside.txt").symlink_to("a.txt")
    os.mkfifo(folder / "pipe.jpg")
    source = folders.open_folder(str(folder))
    assert rows_of(source) == {"a.jpg": ("a.txt",), "inside.jpg": ("a.txt",)}
    assert {reason: set(names) for reason, names in source.skipped.items()} == {
        "duplicate key": {"a.png"},
        "image without caption": {"lonely.jpg", "real/r.jpg"},
        "caption without image": {"lone.txt", "empty.txt"},
        "hidden": {".git", "._a.jpg"},
        "neither image nor caption": {"x.gif"},
        "empty": {"empty.jpg", "silent.txt"},
        "too large": {"long.txt"},
        "link out of the folder": {"leads_out.jpg", "leads_out.txt", "climbs.jpg", "folder"},
        "link to no file": {"loop", "gone.jpg"},
        "no regular file": {"pipe.jpg"},
    }


def test_a_folder_may_itself_be_a_link(tmp_path: Path) -> None:
    filled(tmp_path / "real", ["a.jpg", "a.txt"])
    (tmp_path / "link").symlink_to("real")
    assert list(rows_of(folders.open_folder(str(tmp_path / "link")))) == ["a.jpg"]


@pytest.mark.parametrize("write", TABLES.values(), ids=TABLES)
def test_a_table_has_the_captions_in_its_order(tmp_path: Path, write: Callable) -> None:
    outside = filled(tmp_path, ["secret.jpg"])
    folder = filled(tmp_path / "in", ["b.jpg", "a/1.png", "c.jpg", "c.txt", "d.jpg", "e.jpg"])
    (folder / "link.jpg").symlink_to(outside / "secret.jpg")
    names = ["b.jpg", "./a//1.png", "b.jpg", "none.jpg", "c.jpg", "link.jpg", "d.jpg", ""]
    hostile = ["../secret.jpg", str(outside / "secret.jpg"), "a/../b.jpg", "C:\\b.jpg"]
    rows: Rows = [
        {"file_name": name, "text": f' "№", {n} ', "split": "train"}
        for n, name in enumerate([*names, *hostile])
    ]
    rows[4]["text"] = " "
    rows[6]["text"] = "w" * (base.MAX_TEXT_BYTES + 1)
    write(folder / "metadata", rows)
    source = folders.open_folder(str(folder))
    captions = {"b.jpg": ('"№", 0', '"№", 2'), "a/1.png": ('"№", 1',)}  # rows of one picture
    assert list(rows_of(source).items()) == list(captions.items())
    # Python's csv stops at fields of 128 KiB.
    too_large = "unreadable row" if write is comma_separated else "too large"
    assert {reason: list(names) for reason, names in source.skipped.items()} == {
        "caption without image": ["none.jpg", "link.jpg"],
        "image without caption": ["c.jpg"],
        too_large: ["metadata.csv line 8" if write is comma_separated else "caption of d.jpg"],
        "row without file_name": ["''"],
        "unsafe name": hostile,
        "link out of the folder": ["link.jpg"],
        "image without row": ["c.jpg", "d.jpg", "e.jpg"],
    }


@pytest.mark.parametrize("write", [jsonl, parquet])
def test_a_row_may_have_several_captions(tmp_path: Path, write: Callable) -> None:
    filled(tmp_path, ["a.jpg", "b.jpg"])
    rows: Rows = [
        {"file_name": "a.jpg", "alt": {"texts": ["one", "", "two"]}},
        {"file_name": "b.jpg", "alt": {"texts": []}},
    ]
    write(tmp_path / "metadata", rows)
    source = folders.open_folder(str(tmp_path), column="alt/texts")
    assert rows_of(source) == {"a.jpg": ("one", "two")}


def test_rows_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    filled(tmp_path, ["a.jpg", "b.jpg"])
    good = [json.dumps({"file_name": n, "text": n}) for n in ("a.jpg", "b.jpg")]
    lines = [good[0], "", "{", "[1]", "[" * 100_000, '{"file_name": 7, "text": "x"}', good[1]]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    source = folders.open_folder(str(tmp_path))
    assert list(rows_of(source)) == ["a.jpg", "b.jpg"]
    assert source.skipped == {
        "row without file_name": ("7",),
        "unreadable row": tuple(f"metadata.jsonl line {n}" for n in (3, 4, 5)),
    }


@pytest.mark.parametrize("write", TABLES.values(), ids=TABLES)
def test_a_table_without_its_columns_is_refused(tmp_path: Path, write: Callable) -> None:
    filled(tmp_path, ["a.jpg"])
    write(tmp_path / "metadata", [{"file_name": "a.jpg", "alt": "words"}])
    with pytest.raises(ValueError, match="no column 'text'; it has file_name, alt: name the one"):
        folders.open_folder(str(tmp_path))
    write(tmp_path / "metadata", [{"file": "a.jpg", "text": "words"}])
    with pytest.raises(ValueError, match=r"no column 'file_name'; it has file, text$"):
        folders.open_folder(str(tmp_path))


def test_a_column_of_something_else_is_refused(tmp_path: Path) -> None:
    filled(tmp_path, ["a.jpg"])
    jsonl(tmp_path / "metadata", [{"file_name": "a.jpg", "text": 7}])
    with pytest.raises(ValueError, match=r"metadata.jsonl: column 'text' of a.jpg is no text but"):
        folders.open_folder(str(tmp_path))


def test_folders_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder .*missing"):
        folders.open_folder(str(tmp_path / "missing"))
    filled(tmp_path, ["a.jpg"])
    with pytest.raises(ValueError, match=r"has no table for text=alt: add metadata.jsonl, "):
        folders.open_folder(str(tmp_path), column="alt")
    with pytest.raises(ValueError, match=r"left out: 1 image without caption \(a.jpg\)"):
        folders.open_folder(str(tmp_path))


@pytest.mark.parametrize("table", [None, *TABLES])
def test_a_folder_in_a_bucket_is_that_folder(
    tmp_path: Path, bucket: cloud_storage.Bucket, table: str | None
) -> None:
    names = ["b.jpg", "b.txt", "a/c.PNG", "a/c.txt", "a/lost.webp", ".hidden/d.jpg", "notes.md"]
    filled(tmp_path, names)
    if table is not None:
        rows: Rows = [
            {"file_name": "b.jpg", "text": "ein Bär,\nbraun"},
            {"file_name": "../up.jpg", "text": "out"},
            {"file_name": "a/c.PNG", "text": "a cat"},
        ]
        TABLES[table](tmp_path / "metadata", rows)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            bucket.put(f"data/{path.relative_to(tmp_path)}", path.read_bytes())
    bucket.put("data2/e.jpg", b"another")
    here, there = folders.open_folder(str(tmp_path)), folders.open_folder("gs://bucket/data/")
    assert len(here) == 2
    assert [there[i] for i in range(len(there))] == [here[i] for i in range(len(here))]
    assert [there.key(i) for i in range(2)] == [here.key(i) for i in range(2)]
    named = {reason: names.total for reason, names in here.skipped.items()}
    assert {reason: names.total for reason, names in there.skipped.items()} == named
    with pytest.raises(FileNotFoundError, match="no files below gs://bucket/none"):
        folders.open_folder("gs://bucket/none")


def test_tables_of_subfolders_are_for_their_own_pictures(tmp_path: Path) -> None:
    source = folders.open_folder(str(FAULTS / "nested_meta"))
    assert rows_of(source) == {"test/b.png": ("blue",), "train/a.png": ("red",)}
    assert source.skipped == {}
    names = ["train/b.jpg", "train/deep/c.jpg", "train/lost.jpg", "other/b.jpg", "other/b.txt"]
    filled(tmp_path, [*names, "train/deep/c.txt", "lone.txt", "test/a.jpg"])
    train = ["b.jpg", "deep/c.jpg", "../test/a.jpg", "other/b.jpg"]
    jsonl(tmp_path / "train" / "metadata", [{"file_name": n, "text": n} for n in train])
    comma_separated(tmp_path / "train" / "metadata", [{"file_name": "lost.jpg", "text": "words"}])
    jsonl(tmp_path / "train" / "deep" / "metadata", [{"file_name": "c.jpg", "text": "words"}])
    jsonl(tmp_path / "test" / "metadata", [{"file_name": "a.jpg", "label": 3}])
    source = folders.open_folder(str(tmp_path))
    assert rows_of(source) == {
        "train/b.jpg": ("b.jpg",),
        "train/deep/c.jpg": ("deep/c.jpg",),
        "other/b.jpg": ("other/b.txt",),
    }
    said = "has no column 'text'; it has file_name, label: name the one of texts with text="
    assert source.skipped == {
        "caption without image": ("train/other/b.jpg", "lone.txt"),
        "further table": ("train/metadata.csv", "train/deep/metadata.jsonl"),
        "image without caption": ("test/a.jpg",),
        "image without row": ("train/lost.jpg",),
        "table that is none of captions": (f"{tmp_path}/test/metadata.jsonl {said}",),
        "unsafe name": ("../test/a.jpg",),
    }
    assert source[0] == pickle.loads(pickle.dumps(source))[0]


@pytest.mark.parametrize("write", TABLES.values(), ids=TABLES)
def test_rows_of_one_picture_are_its_captions(tmp_path: Path, write: Callable) -> None:
    assert rows_of(folders.open_folder(str(FAULTS / "rows"))) == {
        "a.png": ("first", "second", "third"),
        "b.png": ("blue",),
    }
    filled(tmp_path, ["a.jpg", "b.jpg"])
    words = [("a", "one"), ("b", "x"), ("a", "two"), ("a", "one"), ("a", " "), ("b", "y")]
    write(tmp_path / "metadata", [{"file_name": f"{n}.jpg", "text": t} for n, t in words])
    source = folders.open_folder(str(tmp_path))
    assert rows_of(source) == {"a.jpg": ("one", "two"), "b.jpg": ("x", "y")}
    assert source.skipped == {
        "duplicate row": ("a.jpg",),
        "image without caption": ("a.jpg",),
    }


def test_links_of_a_snapshot_of_the_hub_are_followed_within_its_cache(tmp_path: Path) -> None:
    shutil.copytree(FAULTS / "hub" / "blobs", tmp_path / "hub" / "blobs")
    revision = tmp_path / "hub" / "snapshots" / "rev"
    revision.mkdir(parents=True)
    (revision / "a.png").symlink_to("../../blobs/aaa")
    (revision / "a.txt").symlink_to("../../blobs/bbb")
    for place in (revision, revision.parent, revision.parent.parent):
        source = folders.open_folder(str(place))
        assert [source[n]["captions"] for n in range(len(source))] == [("a red circle",)]
    outside = filled(tmp_path, ["secret.jpg", "secret.txt", "repo/blobs/a", "repo/refs/main"])
    snapshot = filled(tmp_path / "repo" / "snapshots" / "rev" / "train", ["b.jpg", "b.txt"])
    for ending in ("jpg", "txt"):
        (snapshot / f"a.{ending}").symlink_to("../../../blobs/a")
        (snapshot / f"s.{ending}").symlink_to(outside / f"secret.{ending}")
        (snapshot / f"r.{ending}").symlink_to("../../../refs/main")
    source = folders.open_folder(str(snapshot))
    assert [source.key(n) for n in range(len(source))] == ["a.jpg", "b.jpg"]
    assert source.skipped["link out of the folder"].total == 4


def test_of_links_that_are_not_followed_it_is_said_what_helps(tmp_path: Path) -> None:
    outside = filled(tmp_path / "outside", ["a.jpg", "a.txt"])
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "a.txt"):
        (tmp_path / "in" / name).symlink_to(outside / name)
    with pytest.raises(ValueError, match=r"2 link out of the folder .*copy their files \(cp -rL\)"):
        folders.open_folder(str(tmp_path / "in"))


def test_one_bad_row_is_named_and_the_others_stay(tmp_path: Path) -> None:
    filled(tmp_path, [f"{n}.jpg" for n in range(8)])
    good = '{"file_name": "0.jpg", "text": "words"}'
    bad = [
        '{"file_name": "1.jpg", "text": NaN}',
        '{"file_name": "2.jpg", "text": {"en": "words"}}',
        '{"file_name": "3.jpg"}',
        '{"file_name": "4.jpg", "text": "\\ud83d"}',
        '{"file_name": "\\ud83d.jpg", "text": "words"}',
        '{"text": "words"}',
        "null",
        '"words"',
        "NaN",
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join([*bad, "", good]))
    source = folders.open_folder(str(tmp_path))
    assert rows_of(source) == {"0.jpg": ("words",)}
    without = {n: source.skipped[n] for n in source.skipped if n != "image without row"}
    assert without == {
        "caption that is no Unicode text": ("4.jpg: '\\ud83d' at character 0: save it as UTF-8",),
        "caption that is no text": (
            "1.jpg (no text but float)",
            "2.jpg (no text but has the parts en)",
        ),
        "caption without image": ("\\ud83d.jpg",),
        "image without caption": ("3.jpg",),
        "row without file_name": ("None",),
        "unreadable row": tuple(f"metadata.jsonl line {n}" for n in (8, 9)),
    }


def test_a_quote_that_is_not_closed_costs_no_row_silently(tmp_path: Path) -> None:
    filled(tmp_path, [f"{n}.jpg" for n in range(4)])
    lines = ["file_name,text", '0.jpg,"a ""red"" one,', 'on two lines"', '1.jpg,"open', "2.jpg,b"]
    (tmp_path / "metadata.csv").write_text("\n".join([*lines, "3.jpg,c"]))
    source = folders.open_folder(str(tmp_path))
    assert rows_of(source) == {"0.jpg": ('a "red" one,\non two lines',)}
    assert source.skipped["unreadable row"] == ("metadata.csv line 4-6",)


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_tables_may_be_of_any_unicode_encoding(tmp_path: Path, ending: str, codec: str) -> None:
    filled(tmp_path, ["赤.jpg", "b.jpg"])
    TABLES[ending](tmp_path / "metadata", [{"file_name": "赤.jpg", "text": "赤い円"}])
    table = tmp_path / f"metadata.{ending}"
    data = table.read_text(encoding="utf-8-sig").encode(codec)
    for cut in (b"", b"\0" if codec != "utf-8-sig" else b"\xc3"):
        table.write_bytes(data + cut)
        assert rows_of(folders.open_folder(str(tmp_path))) == {"赤.jpg": ("赤い円",)}


@pytest.mark.parametrize("ending", TABLES)
def test_empty_tables_are_refused_by_what_lacks(tmp_path: Path, ending: str) -> None:
    filled(tmp_path, ["a.jpg"])
    empty = pa.table({"file_name": pa.array([], pa.string()), "text": pa.array([], pa.string())})
    pq.write_table(empty, tmp_path / "metadata.parquet")
    if ending != "parquet":
        (tmp_path / "metadata.parquet").unlink()
        (tmp_path / f"metadata.{ending}").write_bytes(b"")
    with pytest.raises(ValueError, match=r"left out: 1 image without row \(a.jpg\)"):
        folders.open_folder(str(tmp_path))
    if ending == "parquet":
        (tmp_path / "metadata.parquet").write_bytes(b"PAR1")
        with pytest.raises(ValueError, match=r"metadata.parquet is damaged \(.*\): write it again"):
            folders.open_folder(str(tmp_path))


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_of_a_table_in_latin_1_the_rows_with_other_letters_are_left_out(
    tmp_path: Path, ending: str
) -> None:
    filled(tmp_path, ["a.jpg", "b.jpg", "c.jpg"])
    words = {"a.jpg": "plain", "b.jpg": "caf\xe9", "c.jpg": "plain too"}
    rows = {
        "jsonl": [f'{{"file_name": "{name}", "text": "{text}"}}' for name, text in words.items()],
        "csv": ["file_name,text", *(f"{name},{text}" for name, text in words.items())],
    }
    (tmp_path / f"metadata.{ending}").write_bytes("\n".join(rows[ending]).encode("latin-1"))
    source = folders.open_folder(str(tmp_path))
    assert rows_of(source) == {"a.jpg": ("plain",), "c.jpg": ("plain too",)}
    assert source.skipped[base.NOT_UNICODE] == (
        "b.jpg: '\\udce9' at character 3: save it as UTF-8",
    )
