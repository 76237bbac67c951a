"""Parquet: every row by its place, only the columns needed, few row groups read."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloud_storage
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imagen_jax.data.sources import base, folders, parquet
from imagen_jax.io.errors import CorruptDataError

GROUP = 4
FAULTS = Path(__file__).parent.parent / "fixtures" / "faults"
# As `datasets` writes an Image.
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def picture_of(number: int) -> bytes:
    return random.Random(number).randbytes(100 + number)


def written(path: Path, numbers: range, image: pa.DataType = IMAGE, **more: list[Any]) -> Path:
    """A file of pictures; a column `text` unless there are others."""
    rows: list[Any] = [picture_of(n) for n in numbers]
    if pa.types.is_struct(image):
        rows = [{"bytes": row, "path": f"{n}.jpg"} for n, row in zip(numbers, rows, strict=True)]
    columns = {"id": pa.array(numbers), "image": pa.array(rows, image)}
    columns |= {name: pa.array(v) for name, v in (more or texts_of(numbers)).items()}
    pq.write_table(pa.table(columns), path, row_group_size=GROUP)
    return path


def texts_of(numbers: range) -> dict[str, list[Any]]:
    return {"text": [f"№ {n}" for n in numbers]}


def rows_of(source: base.Source) -> list[tuple[bytes, tuple[str, ...]]]:
    rows = [source[i] for i in range(len(source))]
    assert all(row["caption"] == row["captions"][0] for row in rows)
    return [(row["image"], row["captions"]) for row in rows]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """File and number of the row groups that are read for examples."""
    groups: list[tuple[str, int]] = []
    real = parquet._read

    def read(file: Any, group: int, columns: parquet.Columns) -> pa.Table:
        groups.append((file.name, group))
        return real(file, group, columns)

    monkeypatch.setattr(parquet, "_read", read)
    return groups


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files of 10 and 6 rows."""
    written(tmp_path / "train-00000-of-00002.parquet", range(10))
    written(tmp_path / "train-00001-of-00002.parquet", range(10, 16))
    return tmp_path


@pytest.mark.parametrize("image", [IMAGE, pa.binary(), pa.large_binary()], ids=str)
def test_every_row_is_there_in_order_and_at_any_place(tmp_path: Path, image: pa.DataType) -> None:
    written(tmp_path / "a.parquet", range(10), image)
    written(tmp_path / "b.parquet", range(10, 16), image)
    source = parquet.open_parquet(str(tmp_path))
    wanted = [(picture_of(n), (f"№ {n}",)) for n in range(16)]
    assert rows_of(source) == wanted
    for index in random.Random(0).choices(range(16), k=60):
        assert source[index]["image"] == picture_of(index)
    assert [source.key(i) for i in (0, 9, 10, 15)] == [
        "a.parquet/0",
        "a.parquet/9",
        "b.parquet/0",
        "b.parquet/5",
    ]
    assert source.skipped == {}


def test_a_row_group_is_read_once_in_order_and_kept_for_a_while(
    folder: Path, reads: list[tuple[str, int]]
) -> None:
    source = parquet.open_parquet(str(folder))
    assert reads == []
    rows_of(source)
    first, second = "train-00000-of-00002.parquet", "train-00001-of-00002.parquet"
    assert reads == [(first, 0), (first, 1), (first, 2), (second, 0), (second, 1)]
    for index in (15, 11, 9, 5):  # the last four groups
        source[index]
    assert len(reads) == 5
    source[0]
    assert reads[5:] == [(first, 0)]
    source[15]  # which has not been used for longest
    assert reads[6:] == [(second, 1)]


def test_large_row_groups_are_not_kept_beside_others(
    folder: Path, reads: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "KEPT_BYTES", 100)
    source = parquet.open_parquet(str(folder))
    for index in (0, 1, 4, 5, 0):
        assert source[index]["image"] == picture_of(index)
    assert [group for _, group in reads] == [0, 1, 0]


def test_captions_may_be_several_and_nested(tmp_path: Path) -> None:
    words = [["one", " two ", ""], ["three"], [], None]
    nested = [{"raw": w, "id": 1} for w in words]
    written(tmp_path / "x.parquet", range(4), alt=words, sentences=nested, id=[1, 2, 3, 4])
    for text in ("alt", "sentences/raw"):
        source = parquet.open_parquet(str(tmp_path), text=text)
        assert [captions for _, captions in rows_of(source)] == [("one", "two"), ("three",)]
        assert source.skipped == {"image without caption": ("x.parquet/2", "x.parquet/3")}


def test_rows_that_lack_something_are_left_out(tmp_path: Path) -> None:
    images = [{"bytes": picture_of(n), "path": None} for n in range(10)]
    images[2]["bytes"] = None
    columns = {"image": pa.array([*images[:5], None, *images[6:]], IMAGE)}
    texts = [f"№ {n}" for n in range(10)]
    texts[4:5] = [" "]
    texts[8] = "w" * (base.MAX_TEXT_BYTES + 1)
    pq.write_table(
        pa.table(columns | {"text": [*texts[:-1], None]}), tmp_path / "x.parquet", row_group_size=4
    )
    source = parquet.open_parquet(str(tmp_path))
    assert rows_of(source) == [(picture_of(n), (f"№ {n}",)) for n in (0, 1, 3, 6, 7)]
    assert source.key(2) == "x.parquet/3"
    assert source.skipped == {
        "caption without image": ("x.parquet/2", "x.parquet/5"),
        "image without caption": ("x.parquet/4", "x.parquet/9"),
        "too large": ("x.parquet/8",),
    }


def test_files_and_row_groups_that_are_damaged_are_left_out(folder: Path) -> None:
    whole = (folder / "train-00000-of-00002.parquet").read_bytes()
    (folder / "cut.parquet").write_bytes(whole[:-30])
    (folder / "empty.parquet").write_bytes(b"")
    (folder / "page.parquet").write_bytes(damaged(whole, group=1, column="text"))
    source = parquet.open_parquet(str(folder))
    assert len(source) == 16 + 6
    assert [key.split("/")[1] for key in map(source.key, range(6))] == list("012389")
    assert [image for image, _ in rows_of(source)[:6]] == [
        picture_of(n) for n in (0, 1, 2, 3, 8, 9)
    ]
    assert source.skipped["damaged row group"] == tuple(f"page.parquet/{n}" for n in range(4, 8))
    assert [n.partition(":")[0] for n in source.skipped["damaged file"]] == [
        "cut.parquet",
        "empty.parquet",
    ]


def damaged(data: bytes, *, group: int, column: str) -> bytes:
    """A file whose pages of one column chunk are gone."""
    about = pq.ParquetFile(pa.BufferReader(data)).metadata.row_group(group)
    chunks = [about.column(n) for n in range(about.num_columns)]
    chunk = next(c for c in chunks if c.path_in_schema == column)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    end = start + chunk.total_compressed_size
    return data[:start] + b"\xff" * (end - start) + data[end:]


def test_pictures_that_are_damaged_are_named_when_they_are_read(tmp_path: Path) -> None:
    path = written(tmp_path / "x.parquet", range(10))
    path.write_bytes(damaged(path.read_bytes(), group=1, column="image.bytes"))
    source = parquet.open_parquet(str(tmp_path))
    assert source[9]["image"] == picture_of(9)
    with pytest.raises(CorruptDataError, match=r"x.parquet: row group 1: "):
        source[5]


def test_files_that_are_gone_are_not_called_damaged(folder: Path) -> None:
    source = parquet.open_parquet(str(folder))
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError):
        source[5]


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"image": "photo"}, "x.parquet has no column 'photo'; it has id, image, text: name one"),
        ({"text": "caption"}, "x.parquet has no column 'caption'; it has id, image, text"),
        ({"image": "text"}, "column 'text' holds no images' bytes but string; name another"),
        ({"text": "id"}, "column 'id' of row group 0, row 0 is no text but int: name one of texts"),
        ({"text": "text/raw"}, "column 'text/raw' .* row 0 is a text, which has no part 'raw'"),
    ],
)
def test_columns_that_do_not_fit_are_named(
    tmp_path: Path, columns: dict[str, str], says: str
) -> None:
    written(tmp_path / "x.parquet", range(3))
    with pytest.raises(ValueError, match=says):
        parquet.open_parquet(str(tmp_path), **columns)


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    images = pa.array([{"bytes": b"", "path": None}], IMAGE)
    table = pa.Table.from_arrays(
        [images, pa.array(["a"]), pa.array(["b"])], ["image", *["text"] * 2]
    )
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="has several columns 'text'; it has image, text, text"):
        parquet.open_parquet(str(tmp_path))


def test_pictures_by_path_alone_are_none(tmp_path: Path) -> None:
    images = pa.array([{"bytes": None, "path": "a.jpg"}], IMAGE)
    pq.write_table(pa.table({"image": images, "text": ["a"]}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"left out: 1 caption without image \(x.parquet/0\)"):
        parquet.open_parquet(str(tmp_path))


def test_a_bucket_is_read_in_ranges(folder: Path, bucket: cloud_storage.Bucket) -> None:
    for path in folder.iterdir():
        bucket.put(f"data/{path.name}", path.read_bytes())
    source = parquet.open_parquet("gs://bucket/data")
    assert rows_of(source) == rows_of(parquet.open_parquet(str(folder)))
    assert source.key(10) == "train-00001-of-00002.parquet/0"


def test_without_pyarrow_it_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"Parquet needs pyarrow; pip install 'imagen_jax\[parq"):
        parquet.open_parquet(str(folder))
    (folder / "metadata.parquet").write_bytes(b"")
    with pytest.raises(ValueError, match=r"metadata.parquet: Parquet needs pyarrow"):
        folders.open_folder(str(folder))


BAD = {
    "Latin-1": b"caf\xe9",
    "half an emoji": b"\xed\xa0\xbd",
    "a zero": b"a\0b",
}


def unchecked(words: list[bytes]) -> pa.Array:
    """Texts that nobody looked at."""
    return pa.array(words).view(pa.string())


NESTINGS: dict[str, Callable[[pa.Array], pa.Array]] = {
    "text": lambda words: words,
    "text of a dictionary": lambda words: words.dictionary_encode(),
    "large text": lambda words: (
        words.cast(pa.binary()).cast(pa.large_binary()).view(pa.large_string())
    ),
    "list": lambda words: pa.ListArray.from_arrays(list(range(len(words) + 1)), words),
    "list/raw": lambda words: pa.ListArray.from_arrays(
        list(range(len(words) + 1)), pa.StructArray.from_arrays([words], ["raw"])
    ),
    "struct/en": lambda words: pa.StructArray.from_arrays([words, words], ["en", "de"]),
}


@pytest.mark.parametrize("nesting", NESTINGS)
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_text_that_is_no_unicode_costs_its_row_alone(
    tmp_path: Path, bad: bytes, nesting: str
) -> None:
    words = unchecked([b"one", bad, b"three", "№ 4".encode(), bad])
    images = [picture_of(n) for n in range(5)]
    column = nesting.partition("/")[0]
    table = pa.table({"image": images, column: NESTINGS[nesting](words)})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=GROUP)
    source = parquet.open_parquet(str(tmp_path), text=nesting)
    assert rows_of(source) == [
        (images[0], ("one",)),
        (images[2], ("three",)),
        (images[3], ("№ 4",)),
    ]
    assert source.skipped == {base.NOT_UNICODE: ("x.parquet/1", "x.parquet/4")}


def test_the_rows_of_a_file_with_a_latin_1_caption_are_read() -> None:
    source = parquet.open_parquet(str(FAULTS / "pq"))
    assert source.skipped[base.NOT_UNICODE].total == 1
    assert all(row["caption"].encode() for row in map(source.__getitem__, range(len(source))))
