"""Stores: in order, whole, and nothing incomplete is ever taken for one."""

import dataclasses
import json
import pickle
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_data_source import ArrayRecordDataSource

from imagen_jax import config
from imagen_jax.data.store import records, store
from imagen_jax.data.store.records import Record
from imagen_jax.data.store.store import Store
from imagen_jax.io import errors

COUNT, WIDTH, LENGTH = 12, 3, 5


def make(index: int, dtype: records.TextDtype = "bfloat16") -> Record:
    rng = np.random.default_rng(index)
    text = rng.standard_normal((1 + index % LENGTH, WIDTH)).astype(np.float32)
    images = {16: rng.bytes(300), 4: rng.bytes(40)}
    return Record(
        key=f"k{index}",
        captions=(f"№ {index}",),
        images=images,
        texts=(records.round_encoding(text, dtype),),
    )


def target(folder: Path, dtype: records.TextDtype = "bfloat16") -> Store:
    return Store(
        folder=folder,
        dataset="fake/all",
        split="train",
        count=COUNT,
        sizes=(4, 16),
        encoder="t5",
        identity="0123",
        vocabulary="4567",
        width=WIDTH,
        max_length=LENGTH,
        text_dtype=dtype,
        shard_records=5,
    )


EXAMPLES = [make(i) for i in range(COUNT)]


def assert_same(found: Record, expected: Record) -> None:
    assert records.pack_record(found) == records.pack_record(expected)


@pytest.fixture
def written(tmp_path: Path, write_store: Callable) -> Store:
    """Twelve records in three shards."""
    return write_store(target(tmp_path / "s"), EXAMPLES)


def test_open_gives_what_was_written_in_its_order(written: Store) -> None:
    assert [(file.name, file.count) for file in written.files] == [
        ("records-00000-of-00003.array_record", 5),
        ("records-00001-of-00003.array_record", 5),
        ("records-00002-of-00003.array_record", 2),
        ("empty.array_record", 1),
    ]
    names = {path.name for path in written.folder.iterdir()}
    assert names == {"store.json", *(file.name for file in written.files)}
    opened = store.open_store(written.folder)
    assert opened == written
    source = pickle.loads(pickle.dumps(opened.source()))  # as worker processes get it
    assert len(source) == COUNT
    for index in (11, 0, *range(COUNT)):
        assert_same(source[index], EXAMPLES[index])
    np.testing.assert_array_equal(opened.empty().array().astype(float), np.full((1, WIDTH), 7))


@pytest.mark.parametrize(
    ("place", "says"), [(64, "Corrupted Riegeli"), (65_560, "holds no record")]
)
def test_a_damaged_encoding_of_the_empty_caption_is_named(
    written: Store, place: int, says: str
) -> None:
    file = written.folder / "empty.array_record"
    data = bytearray(file.read_bytes())
    data[place] ^= 16
    file.write_bytes(data)
    with pytest.raises(errors.CorruptDataError, match=rf"empty\.array_record is damaged.*{says}"):
        written.empty()


def test_store_may_be_moved(written: Store, tmp_path: Path) -> None:
    shutil.move(written.folder, tmp_path / "elsewhere")
    moved = store.open_store(tmp_path / "elsewhere")
    assert_same(moved.source()[5], EXAMPLES[5])


def test_shards_may_be_written_in_any_order_and_in_turns(tmp_path: Path, written: Store) -> None:
    wanted = target(tmp_path / "turns")
    assert store.begin_store(wanted) == [0, 1, 2]
    store.write_shard(wanted, 2, EXAMPLES[10:])
    assert store.finish_store(wanted) is None
    with pytest.raises(FileNotFoundError, match=r"interrupted: run `imagen encode` again"):
        store.open_store(wanted.folder)
    assert store.begin_store(wanted) == [0, 1]
    store.write_empty(
        wanted, records.round_encoding(np.full((1, WIDTH), 7, np.float32), "bfloat16")
    )
    store.write_shard(wanted, 1, EXAMPLES[5:10])
    store.write_shard(wanted, 0, EXAMPLES[:5])
    assert store.finish_store(wanted) is not None
    for file in written.folder.iterdir():
        assert (wanted.folder / file.name).read_bytes() == file.read_bytes(), file.name


def test_a_shard_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def killed():
        yield EXAMPLES[0]
        raise KeyboardInterrupt

    wanted = target(tmp_path / "s")
    store.begin_store(wanted)
    with pytest.raises(KeyboardInterrupt):
        store.write_shard(wanted, 0, killed())
    with pytest.raises(ValueError, match="4 records for a shard of 5"):
        store.write_shard(wanted, 0, EXAMPLES[:4])
    assert [path.name for path in wanted.folder.iterdir()] == [store.HEADER]


@pytest.mark.parametrize(
    "change",
    [
        {"identity": "9"},
        {"vocabulary": "9"},
        {"encoder": "t5_xl"},
        {"max_length": 9},
        {"clean": True},
        {"text_dtype": "float32"},
        {"sizes": (4, 8)},
        {"dataset": "other"},
        {"count": 11},
        {"shard_records": 6},
    ],
)
def test_an_unfinished_store_of_something_else_is_refused_and_kept(
    tmp_path: Path, change: dict
) -> None:
    wanted = target(tmp_path / "s")
    store.begin_store(wanted)
    store.write_shard(wanted, 0, EXAMPLES[:5])
    ((name, value),) = change.items()
    with pytest.raises(ValueError, match=rf"holds another encoding: {name} .* there, .* wanted"):
        store.begin_store(dataclasses.replace(wanted, **change))
    assert getattr(wanted, name) != value
    assert store.begin_store(wanted) == [1, 2]


def test_left_overs_of_killed_processes_go_with_the_last_shard(
    tmp_path: Path, write_store: Callable
) -> None:
    wanted = target(tmp_path / "s")
    store.begin_store(wanted)
    left_over = wanted.folder / "records-00001-of-00003.array_record.host-1.tmp"
    left_over.write_bytes(b"half")
    write_store(wanted, EXAMPLES)
    assert not left_over.exists()


def test_who_writes_a_shard_after_another_completed_the_store_leaves_nothing(
    tmp_path: Path,
) -> None:
    wanted = dataclasses.replace(target(tmp_path / "s"), framing=config.Framing())
    store.begin_store(wanted)
    store.write_empty(
        wanted, records.round_encoding(np.full((1, WIDTH), 7, np.float32), "bfloat16")
    )
    for number, shard in enumerate(wanted.shards()):
        store.write_shard(wanted, number, [EXAMPLES[i] for i in shard])
    finished = store.finish_store(wanted)
    before = sorted(path.name for path in wanted.folder.iterdir())
    store.write_shard(wanted, 2, EXAMPLES[10:])
    assert store.finish_store(wanted) == finished
    assert sorted(path.name for path in wanted.folder.iterdir()) == before


def test_files_that_nobody_began_are_refused(tmp_path: Path) -> None:
    (tmp_path / "records-00000-of-00001.array_record").write_bytes(b"")
    with pytest.raises(ValueError, match=r"neither store\.json nor unfinished\.json"):
        store.begin_store(target(tmp_path))


def test_files_without_index_are_refused(written: Store) -> None:
    (written.folder / store.INDEX).unlink()
    with pytest.raises(FileNotFoundError, match="interrupted"):
        store.open_store(written.folder)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere: run `imagen encode` first"):
        store.open_store(tmp_path / "nowhere")


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("number", [1, 3])
def test_file_cut_short_is_refused(written: Store, number: int, keep: float) -> None:
    path = written.folder / written.files[number].name
    path.write_bytes(path.read_bytes()[: int(keep * written.files[number].bytes)])
    with pytest.raises(ValueError, match=rf"{path.name} was cut short.*`imagen encode`"):
        store.open_store(written.folder)


def test_file_of_right_length_and_wrong_content_is_refused(written: Store) -> None:
    (written.folder / written.files[1].name).write_bytes(bytes(written.files[1].bytes))
    with pytest.raises(ValueError, match=r"00001-of-00003.* has 0 records, not 5"):
        store.open_store(written.folder)


def test_missing_file_is_refused(written: Store) -> None:
    (written.folder / written.files[2].name).unlink()
    with pytest.raises(ValueError, match=r"00002-of-00003\.array_record is missing"):
        store.open_store(written.folder)


def test_damaged_record_is_never_read_as_data(written: Store) -> None:
    path = written.folder / written.files[0].name
    data = bytearray(path.read_bytes())
    data[data.index(EXAMPLES[4].images[16])] ^= 1
    path.write_bytes(data)
    source = store.open_store(written.folder).source()
    assert_same(source[3], EXAMPLES[3])
    with pytest.raises(errors.CorruptDataError, match=r"record 4 of .*hash mismatch"):
        source[4]
    assert_same(source[5], EXAMPLES[5])


def test_a_file_that_went_away_is_not_a_damaged_record(written: Store) -> None:
    source = store.open_store(written.folder).source()
    (written.folder / written.files[1].name).unlink()
    with pytest.raises(FileNotFoundError, match="No such file"):
        source[5]


@pytest.mark.parametrize(
    "change",
    [
        {"images": {4: b"", 8: b""}},
        {"texts": (records.round_encoding(np.zeros((2, WIDTH + 1)), "bfloat16"),)},
        {
            "captions": ("a", "b"),
            "texts": (make(2).texts[0], records.round_encoding(np.zeros((9, WIDTH)), "bfloat16")),
        },
        {"texts": (records.round_encoding(np.zeros((LENGTH + 1, WIDTH)), "bfloat16"),)},
    ],
)
def test_a_record_of_another_store_is_taken_for_a_damaged_one(
    written: Store, change: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = records.pack_record(dataclasses.replace(EXAMPLES[4], **change))
    source = written.source()
    monkeypatch.setattr(ArrayRecordDataSource, "__getitem__", lambda _, index: other)
    with pytest.raises(errors.CorruptDataError, match="record k4 has"):
        source[4]


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        ({"version": 1}, "format 1, and this program reads format 3"),
        ({"count": 13}, "promises 13 records, but its files 12"),
        ({"files": []}, "promises 12 records, but its files 0"),
        ({"colour": "red"}, "cannot be read .*colour"),
        ({"files": [{"name": "x"}]}, "cannot be read"),
        (
            {"files": [{"name": "../x", "count": 12, "bytes": 1}]},
            "shard is '../x', which is no name",
        ),
        ({"files": [{"name": "x", "count": -1, "bytes": 1}]}, "cannot be read .*-1 records"),
        ({"files": {}}, "cannot be read .*files: expected a list"),
        ({"sizes": ["a"]}, r"cannot be read .*sizes\[0\]: expected int"),
        ({"width": "8"}, "cannot be read .*width: expected int"),
        ({"text_dtype": []}, "cannot be read .*text_dtype"),
        ({"filters": 3}, "cannot be read .*filters: expected the fields"),
        ({"filters": {"min_side": -1}}, "cannot be read .*min_side"),
        ({"skipped": [3]}, "cannot be read .*skipped"),
        ({"dataset": "a\x1b[2J"}, "cannot be read .*dataset is .*control characters"),
        ({"version": []}, "has format .*, and this program reads format 3"),
    ],
)
def test_index_that_does_not_fit_is_refused(written: Store, edit: dict, sentence: str) -> None:
    path = written.folder / store.INDEX
    path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    with pytest.raises(ValueError, match=sentence):
        store.open_store(written.folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "[" * 10**5], ids=lambda text: text[:4])
def test_unreadable_index_is_refused(written: Store, text: str) -> None:
    (written.folder / store.INDEX).write_text(text)
    with pytest.raises(ValueError, match=r"damaged: store.json cannot be read"):
        store.open_store(written.folder)


@pytest.mark.parametrize(
    "change",
    [
        {"images": {4: b""}},
        {"texts": (records.round_encoding(np.zeros((2, WIDTH)), "float32"),)},
        {"texts": (records.round_encoding(np.zeros((2, WIDTH + 1)), "bfloat16"),)},
        {
            "captions": ("a", "b"),
            "texts": (make(2).texts[0], records.round_encoding(np.zeros((9, WIDTH)), "bfloat16")),
        },
        {"texts": (records.round_encoding(np.zeros((LENGTH + 1, WIDTH)), "bfloat16"),)},
    ],
)
def test_record_that_does_not_fit_the_store_is_refused(tmp_path: Path, change: dict) -> None:
    wanted = target(tmp_path / "s")
    store.begin_store(wanted)
    bad = dataclasses.replace(make(1), **change)
    with pytest.raises(ValueError, match="record k1 has"):
        store.write_shard(wanted, 0, [make(0), bad])


def test_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to write"):
        store.begin_store(dataclasses.replace(target(tmp_path), count=0))


def test_a_full_disk_is_one_sentence_and_leaves_nothing_behind(tmp_path: Path) -> None:
    wanted = target(tmp_path / "s")
    store.begin_store(wanted)
    before = sorted(p.name for p in wanted.folder.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # no file is larger
    try:
        with pytest.raises(OSError, match=rf"{wanted.folder}: {wanted.shard(0).name}.* was not "):
            store.write_shard(wanted, 0, [make(n) for n in range(len(wanted.shards()[0]))])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(p.name for p in wanted.folder.iterdir()) == before


def test_a_folder_of_images_is_no_interrupted_store(tmp_path: Path) -> None:
    """Advice to encode into it would put the pairs among the images."""
    (tmp_path / "a.jpg").touch()
    with pytest.raises(FileNotFoundError, match=r"holds no encoded dataset, but a\.jpg: give the"):
        store.open_store(tmp_path)
