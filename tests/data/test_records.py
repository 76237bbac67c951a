"""The example format: round trips, and nothing incomplete is ever taken for a store."""

import dataclasses
import itertools
import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from imagen_jax.data import records
from imagen_jax.data.records import Record, Store

COUNT, WIDTH, LENGTH = 12, 3, 5


def make(index: int, text_dtype: str = "bfloat16") -> Record:
    rng = np.random.default_rng(index)
    text = rng.standard_normal((1 + index % LENGTH, WIDTH)).astype(records.DTYPES[text_dtype])
    images = {16: rng.bytes(300), 4: rng.bytes(40)}
    return Record(key=f"k{index}", caption=f"ein Kreis № {index}", images=images, text=text)


def target(folder: Path, text_dtype: str = "bfloat16") -> Store:
    return Store(
        folder=folder,
        dataset="fake/all",
        split="train",
        sizes=(4, 16),
        encoder="t5",
        identity="0123",
        width=WIDTH,
        max_length=LENGTH,
        text_dtype=text_dtype,
    )


def assert_same(found: Record, expected: Record) -> None:
    assert (found.key, found.caption, found.images) == (
        expected.key,
        expected.caption,
        expected.images,
    )
    assert found.text.dtype == expected.text.dtype
    np.testing.assert_array_equal(found.text, expected.text)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Twelve records of about 400 bytes in three files."""
    return records.write(target(tmp_path / "s"), map(make, range(COUNT)), file_bytes=1500)


@pytest.mark.parametrize("text_dtype", get_args(records.TextDtype))
def test_unpack_inverts_pack(text_dtype: records.TextDtype) -> None:
    record = make(3, text_dtype)
    assert_same(records.unpack(records.pack(record), text_dtype=text_dtype), record)


def test_open_gives_what_was_written_in_its_order(store: Store) -> None:
    assert [file.count for file in store.files] == [4, 4, 4]
    assert store.files[0].name == "records-00000-of-00003.array_record"
    opened = records.open(store.folder)
    assert opened == store
    assert opened.count == COUNT
    source = pickle.loads(pickle.dumps(opened.source()))  # as worker processes get it
    assert len(source) == COUNT
    for index in (11, 0, *range(COUNT)):
        assert_same(source[index], make(index))


def test_store_may_be_moved(store: Store, tmp_path: Path) -> None:
    shutil.move(store.folder, tmp_path / "elsewhere")
    moved = records.open(tmp_path / "elsewhere")
    assert_same(moved.source()[5], make(5))


def test_text_is_stored_without_padding(store: Store) -> None:
    source = store.source()
    assert [len(source[i].text) for i in range(LENGTH + 1)] == [1, 2, 3, 4, 5, 1]


def test_interrupted_write_is_refused_and_can_be_repeated(tmp_path: Path) -> None:
    def interrupted() -> Iterator[Record]:
        yield from map(make, range(7))
        raise KeyboardInterrupt

    folder = tmp_path / "s"
    with pytest.raises(KeyboardInterrupt):
        records.write(target(folder), interrupted(), file_bytes=1500)
    assert list(folder.iterdir())  # something was written, yet
    with pytest.raises(FileNotFoundError, match=r"interrupted: run `imagen encode` again"):
        records.open(folder)
    records.write(target(folder), map(make, range(2)))
    assert {p.name for p in folder.iterdir()} == {
        "store.json",
        "records-00000-of-00001.array_record",
    }
    assert records.open(folder).count == 2


def test_files_without_index_are_refused(store: Store) -> None:
    (store.folder / records.INDEX).unlink()
    with pytest.raises(FileNotFoundError, match="interrupted"):
        records.open(store.folder)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere: run `imagen encode` first"):
        records.open(tmp_path / "nowhere")


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.999])
def test_file_cut_short_is_refused(store: Store, keep: float) -> None:
    path = store.folder / store.files[1].name
    path.write_bytes(path.read_bytes()[: int(keep * store.files[1].bytes)])
    with pytest.raises(ValueError, match=r"00001-of-00003.* was cut short.*`imagen encode`"):
        records.open(store.folder)


def test_file_of_right_length_and_wrong_content_is_refused(store: Store) -> None:
    (store.folder / store.files[1].name).write_bytes(bytes(store.files[1].bytes))
    with pytest.raises(ValueError, match=r"00001-of-00003.* has 0 records, not 4"):
        records.open(store.folder)


def test_missing_file_is_refused(store: Store) -> None:
    (store.folder / store.files[2].name).unlink()
    with pytest.raises(ValueError, match=r"00002-of-00003\.array_record is missing"):
        records.open(store.folder)


def test_damaged_record_is_never_read_as_data(tmp_path: Path) -> None:
    store = records.write(target(tmp_path / "s"), map(make, range(COUNT)))
    path = store.folder / store.files[0].name
    data = bytearray(path.read_bytes())
    data[data.index(make(4).images[16])] ^= 1
    path.write_bytes(data)
    source = records.open(store.folder).source()
    assert_same(source[3], make(3))
    with pytest.raises(RuntimeError, match="hash mismatch"):
        source[4]


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        ({"version": 99}, "format 99, and this program reads format 1"),
        ({"count": 13}, "promises 13 records, but its files 12"),
        ({"colour": "red"}, "cannot be read .*colour"),
        ({"files": [{"name": "x"}]}, "cannot be read"),
    ],
)
def test_index_that_does_not_fit_is_refused(store: Store, edit: dict, sentence: str) -> None:
    path = store.folder / records.INDEX
    path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    with pytest.raises(ValueError, match=sentence):
        records.open(store.folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_unreadable_index_is_refused(store: Store, text: str) -> None:
    (store.folder / records.INDEX).write_text(text)
    with pytest.raises(ValueError, match=r"damaged: store.json cannot be read"):
        records.open(store.folder)


@pytest.mark.parametrize(
    "change",
    [
        {"images": {4: b""}},
        {"text": np.zeros((2, WIDTH), np.float32)},
        {"text": np.zeros((2, WIDTH + 1), records.DTYPES["bfloat16"])},
        {"text": np.zeros((LENGTH + 1, WIDTH), records.DTYPES["bfloat16"])},
    ],
)
def test_record_that_does_not_fit_the_store_is_refused(tmp_path: Path, change: dict) -> None:
    bad = dataclasses.replace(make(1), **change)
    with pytest.raises(ValueError, match="record k1 has"):
        records.write(target(tmp_path / "s"), [make(0), bad])


def test_nothing_and_too_much_are_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to write"):
        records.write(target(tmp_path / "none"), itertools.chain())
    with pytest.raises(FileExistsError, match="already holds"):
        records.write(target(store.folder), [make(0)])
