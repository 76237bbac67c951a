"""A store in a bucket: the bytes of one in a folder; and what several processes do to one store."""

import dataclasses
import json
import pickle
import types
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cloud_storage
import numpy as np
import pytest
import small_store
from cloud_storage import Fault
from etils import epath

from imagen_jax.config import Framing
from imagen_jax.data.sources.base import SkippedNames
from imagen_jax.data.store import records, skipped, store
from imagen_jax.data.store.records import Record
from imagen_jax.data.store.skipped import Skipped
from imagen_jax.data.store.store import Store
from imagen_jax.io import bucket_driver
from imagen_jax.io.workdir import Workdir

COUNT, BUCKET = 5, "gs://bucket/pairs/a"
EMPTY = records.round_encoding(np.full((1, 4), 7, np.float32), "float32")
LEFT_OUT = {"no caption": SkippedNames(["b.png"], 2)}
LACKS = (Skipped(2, "k2", "too small", "3 x 3"),)


def target(folder: Workdir, count: int = COUNT, **changes) -> Store:
    framed = {"framing": Framing(), "shard_records": 2, "text_dtype": "float32", "width": 4}
    return small_store.make_store(folder, count=count, **(framed | changes))


def make(wanted: Store, index: int) -> Record:
    rng = np.random.default_rng(index)
    text = records.round_encoding(rng.standard_normal((1, 4)).astype(np.float32), "float32")
    images = {side: rng.bytes(50) for side in wanted.sizes}
    return Record(key=f"k{index}", captions=("x",), images=images, texts=(text,))


def write_one(wanted: Store, number: int) -> None:
    """A shard; the second example of the second one is skipped."""
    lacks = LACKS if number == 1 else ()
    kept = [make(wanted, i) for i in wanted.shards()[number] if not lacks or i != 2]
    store.write_shard(wanted, number, kept, lacks=lacks)


def finish(wanted: Store) -> Store | None:
    store.write_empty(wanted, EMPTY)
    return store.finish_store(wanted)


def write(wanted: Store) -> Store:
    for number in store.begin_store(wanted):
        write_one(wanted, number)
    store.write_left_out(wanted, LEFT_OUT)
    found = finish(wanted)
    assert found is not None
    return found


def contents(place: Path | cloud_storage.Bucket) -> dict[str, bytes]:
    if isinstance(place, Path):
        return {file.name: file.read_bytes() for file in place.iterdir()}
    return {n.removeprefix("pairs/a/"): place.objects[n][1] for n in place.names("pairs/a/")}


@pytest.fixture(params=["folder", "bucket"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, bucket: cloud_storage.Bucket
) -> tuple[Workdir, Callable[[], dict[str, bytes]]]:
    """A folder for a store, here or in a bucket, and what it has."""
    if request.param == "folder":
        return tmp_path / "a", lambda: contents(tmp_path / "a")
    return epath.Path(BUCKET), lambda: contents(bucket)


def test_the_bytes_are_those_of_a_folder(tmp_path: Path, bucket: cloud_storage.Bucket) -> None:
    here, there = write(target(tmp_path / "a")), write(target(epath.Path(BUCKET)))
    assert contents(bucket) == contents(tmp_path / "a")
    assert dataclasses.replace(there, folder=here.folder) == here
    opened = store.open_store(BUCKET)
    assert opened == there == pickle.loads(pickle.dumps(opened))
    assert str(opened.folder) == BUCKET
    np.testing.assert_array_equal(opened.empty().array(), EMPTY.array())
    assert skipped.read_skipped(there.folder) == [
        *LACKS,
        *skipped.list_left_out(LEFT_OUT),
    ]
    assert store.describe_source(there.folder) == store.describe_source(here.folder) != ""


def test_which_shards_lack_is_one_listing(bucket: cloud_storage.Bucket) -> None:
    wanted = target(epath.Path(BUCKET), count=200)
    store.begin_store(wanted)
    write_one(wanted, 7)
    bucket.requests.clear()
    assert store.begin_store(wanted) == [n for n in range(100) if n != 7]
    assert len(bucket.requests) <= 3


def test_a_finished_store_is_gone_on_with_by_nobody(place: tuple) -> None:
    folder, has = place
    late = target(folder)
    written = write(target(folder))
    before = has()
    assert store.begin_store(late) == []
    write_one(late, 1)  # begun before the other ended
    store.write_left_out(late, LEFT_OUT)
    assert finish(late) == written
    assert has() == before
    with pytest.raises(ValueError, match=r"a holds another encoding: identity '.*' there, 'other'"):
        store.begin_store(target(folder, identity="other"))


def test_of_two_encodings_begun_at_once_one_is_refused(
    place: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, has = place
    create = store._create_header

    def after_another(wanted: Store) -> None:
        """Between the look and the header another process writes its own."""
        monkeypatch.setattr(store, "_create_header", create)
        store.begin_store(target(folder, identity="first"))
        create(wanted)

    monkeypatch.setattr(store, "_create_header", after_another)
    with pytest.raises(ValueError, match=r"another encoding: identity 'first' there, 'second' wan"):
        store.begin_store(target(folder, identity="second"))
    assert json.loads(has()["unfinished.json"])["identity"] == "first"


def test_a_shard_of_other_bytes_is_refused_by_name(place: tuple) -> None:
    folder, has = place
    wanted = target(folder)
    store.begin_store(wanted)
    write_one(wanted, 0)
    before = has()
    write_one(wanted, 0)  # the same, by another process
    with pytest.raises(FileExistsError, match=r"records-00000-of-00003.array_record is there alre"):
        store.write_shard(wanted, 0, [make(wanted, 3), make(wanted, 4)])
    assert has() == before


def test_nothing_that_was_kept_leaves_no_half_store(place: tuple) -> None:
    folder, has = place
    wanted = target(folder, count=2)
    for number in store.begin_store(wanted):
        lacks = [Skipped(i, f"k{i}", "too small") for i in wanted.shards()[number]]
        store.write_shard(wanted, number, [], lacks=lacks)
    with pytest.raises(ValueError, match="2 too small"):
        finish(wanted)
    assert set(has()) == {"skipped.jsonl"}
    with pytest.raises(FileNotFoundError, match="no encoded dataset at"):
        store.open_store(folder)
    write(target(folder))


@pytest.mark.parametrize(
    ("hurt", "says"),
    [
        (lambda b: b.objects.pop("pairs/a/empty.array_record"), "empty.array_record is missing"),
        (lambda b: b.put("pairs/a/empty.array_record", b"12"), "was cut short: 2 bytes instead of"),
        (lambda b: b.put("pairs/a/store.json", b"{"), "store.json cannot be read"),
        (lambda b: b.objects.pop("pairs/a/store.json"), " has no store.json, so its encoding was"),
    ],
)
def test_a_damaged_store_in_a_bucket_is_refused(
    bucket: cloud_storage.Bucket, hurt: Callable, says: str
) -> None:
    write(target(epath.Path(BUCKET)))
    hurt(bucket)
    with pytest.raises((ValueError, FileNotFoundError), match=rf"{BUCKET}.*{says}"):
        store.open_store(BUCKET)


@pytest.mark.parametrize("name", ["unfinished.json", "records-00001", "empty", "store.json"])
@pytest.mark.parametrize("code", [403, 503])
def test_a_bucket_that_refuses_leaves_what_is_whole(
    bucket: cloud_storage.Bucket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    code: int,
) -> None:
    async def nap(seconds: float) -> None: ...

    monkeypatch.setattr(bucket_driver, "asyncio", types.SimpleNamespace(sleep=nap))
    wanted = target(epath.Path(BUCKET))
    bucket.faults = [Fault("POST", name, 100, code)]
    with pytest.raises(OSError, match=rf"^{BUCKET}/{name}\S* was not written \({code}[^\n]*$"):
        write(wanted)
    assert not [n for n in bucket.names() if name in n]
    bucket.faults = []
    write(wanted)
    write(target(tmp_path / "a"))
    assert contents(bucket) == contents(tmp_path / "a")


def test_passing_faults_change_nothing(
    bucket: cloud_storage.Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nap(seconds: float) -> None: ...

    monkeypatch.setattr(bucket_driver, "asyncio", types.SimpleNamespace(sleep=nap))
    kinds = [{"code": 503}, {"code": 429, "retry_after": "1"}, {"cut": 0.5}]
    kinds += [{"code": 503, "lost": True}, {"code": 502}]
    methods = ["POST", "GET"] * 5
    for number in range(10):
        bucket.faults.append(Fault(methods[number], **kinds[number % len(kinds)]))
    write(target(epath.Path(BUCKET)))
    store.open_store(BUCKET)
    assert bucket.injected == 10
    write(target(tmp_path / "a"))
    assert contents(bucket) == contents(tmp_path / "a")


KINDS = [
    {"code": 429, "retry_after": "1"},
    {"code": 500},
    {"code": 502},
    {"code": 503},
    {"code": 503, "lost": True},
    {"cut": 0.0},
    {"cut": 0.5},
]


@pytest.mark.faults
def test_hundreds_of_passing_faults_change_nothing(
    bucket: cloud_storage.Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At random requests, up to three times in a row: the driver tries six times."""

    async def nap(seconds: float) -> None: ...

    monkeypatch.setattr(bucket_driver, "asyncio", types.SimpleNamespace(sleep=nap))
    rng, row = np.random.default_rng(0), Counter[str]()

    def fall(method: str, text: str) -> Fault | None:
        row[text] = row[text] + 1 if row[text] < 3 and rng.random() < 0.5 else 0
        if not row[text]:
            return None
        bucket.injected += 1
        return Fault(method, **KINDS[rng.integers(len(KINDS))])

    monkeypatch.setattr(bucket, "take_fault", fall)
    write(target(tmp_path / "a", 30))
    while bucket.injected < 300:
        bucket.objects.clear()
        write(target(epath.Path(BUCKET), 30))
        store.open_store(BUCKET)
        assert contents(bucket) == contents(tmp_path / "a")
