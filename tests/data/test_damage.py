"""Damaged records: replaced alike everywhere, counted exactly, and too many of them end a run."""

import itertools
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from small_network import SMALL

from imagen_jax import config
from imagen_jax.data import corrupt_records, pipeline
from imagen_jax.data.images import transforms
from imagen_jax.data.pipeline import LoadedBatch, ProcessRows
from imagen_jax.data.store import records, store
from imagen_jax.data.store.records import Record
from imagen_jax.data.store.store import Store
from imagen_jax.io.errors import CorruptDataError

COUNT, SHARD, BATCH, SIDE, CROP = 400, 64, 8, 16, 8
EPOCH = COUNT // BATCH
ALONE = ProcessRows.whole(BATCH)
INLINE = config.Data(threads=0, prefetch=0)
STAGE = config.Stage(
    name="test",
    size=SIDE,
    low_size=4,
    crop=CROP,
    model=SMALL,
)

# 5 % of them, with the first and the last
DRAWN = np.random.default_rng(0).choice(range(1, COUNT - 1), COUNT // 20 - 2, replace=False)
DAMAGED = [0, *sorted(DRAWN.tolist()), COUNT - 1]
BAD_PICTURES = DAMAGED[::4]  # written with a broken picture; bytes of the others flip on the disk
WHOLE = sorted(set(range(COUNT)) - set(DAMAGED))


def picture(index: int) -> bytes:
    rng = np.random.default_rng(index)
    return transforms.encode(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))


def broken(index: int) -> bytes:
    """No picture of this store: cut short, flipped, or of another size."""
    png = picture(index)
    flipped = png[:100] + bytes([png[100] ^ 16]) + png[101:]
    small = transforms.encode(np.zeros((8, 8, 3), np.uint8))
    return [png[:400], flipped, small][index % 3]


def make_store(
    write_store: Callable, folder: Path, *, bad_pictures: Sequence[int] = (), count: int = COUNT
) -> Store:
    target = Store(
        folder=folder,
        dataset="fake",
        split="train",
        count=count,
        sizes=(SIDE,),
        encoder="t5",
        identity="0",
        vocabulary="1",
        width=3,
        max_length=6,
        shard_records=SHARD,
    )

    def make(index: int) -> Record:
        text = np.full((1 + index % 6, 3), index, np.float32)
        png = broken(index) if index in bad_pictures else picture(index)
        text = records.round_encoding(text, "bfloat16")
        return Record(key=f"k{index}", captions=("",), images={SIDE: png}, texts=(text,))

    return write_store(target, [make(index) for index in range(count)])


def flip(target: Store, indices: Sequence[int]) -> None:
    """Flip one bit of each of these records, at a random place in the file."""
    rng, source = np.random.default_rng(1), target.source()
    packed = {index: records.pack_record(source[index]) for index in indices}
    for index, data in packed.items():
        path = target.shard(index // SHARD)
        content, window = bytearray(path.read_bytes()), b""
        while (
            content.count(window) != 1
        ):  # some are in every picture, or parted by a block's header
            start = int(rng.integers(len(data) - 16))
            window = data[start : start + 16]
        content[content.index(window)] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory, write_store: Callable) -> Store:
    return make_store(write_store, tmp_path_factory.mktemp("clean") / "s")


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory, write_store: Callable) -> Store:
    """5 % of the records are damaged."""
    folder = tmp_path_factory.mktemp("damaged") / "s"
    target = make_store(write_store, folder, bad_pictures=BAD_PICTURES)
    flip(target, [index for index in DAMAGED if index not in BAD_PICTURES])
    return store.open_store(folder)


def take(
    target: Store,
    count: int,
    *,
    start: int = 0,
    share: ProcessRows = ALONE,
    data: config.Data = INLINE,
) -> list[LoadedBatch]:
    loaded = pipeline.example_stream(
        target, stage=STAGE, data=data, share=share, seed=0, start_step=start
    )
    return list(itertools.islice(loaded, count))


def assert_same(found: Sequence[LoadedBatch], expected: Sequence[LoadedBatch]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours.lost, theirs.lost)
        for name in ours.batch._fields:
            np.testing.assert_array_equal(
                getattr(ours.batch, name), getattr(theirs.batch, name), err_msg=name
            )


def corner(index: int, crop: np.ndarray) -> tuple[int, int]:
    """Where in a record's picture a crop was taken."""
    whole, room = transforms.decode_image(picture(index)), range(SIDE - CROP + 1)
    (found,) = [
        (top, left)
        for top, left in itertools.product(room, room)
        if np.array_equal(whole[top : top + CROP, left : left + CROP], crop)
    ]
    return found


def test_the_next_whole_record_stands_in_and_all_other_rows_stay(
    clean: Store, damaged: Store
) -> None:
    stood_in = 0
    for ours, theirs in zip(take(damaged, 2 * EPOCH), take(clean, 2 * EPOCH), strict=True):
        assert theirs.lost.size == 0
        wanted = theirs.batch.index
        np.testing.assert_array_equal(ours.lost, [i for i in wanted if i in DAMAGED])
        for row, index in enumerate(wanted.tolist()):
            other = next(i % COUNT for i in range(index, 2 * COUNT) if i % COUNT in WHOLE)
            assert ours.batch.index[row] == other
            if other == index:
                for name, values in ours.batch._asdict().items():
                    np.testing.assert_array_equal(values[row], getattr(theirs.batch, name)[row])
            else:
                stood_in += 1
                crops = ours.batch.pixels[row], theirs.batch.pixels[row]
                assert corner(other, crops[0]) == corner(index, crops[1])
                assert ours.batch.text_mask[row].sum() == 1 + other % 6
    assert stood_in == 2 * len(DAMAGED)


@pytest.mark.parametrize(
    "data", [config.Data(threads=3, prefetch=6), config.Data(workers=2, threads=2, prefetch=4)]
)
def test_neither_threads_nor_workers_change_what_is_lost(damaged: Store, data: config.Data) -> None:
    assert_same(take(damaged, EPOCH, data=data), take(damaged, EPOCH))


def test_the_shares_of_two_processes_are_what_one_alone_reads(damaged: Store) -> None:
    alone = take(damaged, EPOCH)
    shares = [ProcessRows(BATCH, (0, 1, 4, 5)), ProcessRows(BATCH, (2, 3, 6, 7))]
    parts = [take(damaged, EPOCH, share=share) for share in shares]
    for step, whole in enumerate(alone):
        for share, part in zip(shares, parts, strict=True):
            for name, values in part[step].batch._asdict().items():
                expected = getattr(whole.batch, name)[list(share.rows)]
                np.testing.assert_array_equal(values, expected, err_msg=name)
        together = np.concatenate([part[step].lost for part in parts])
        np.testing.assert_array_equal(np.sort(together), np.sort(whole.lost))


@pytest.mark.parametrize("step", [7, EPOCH + 3])
def test_a_resumed_stream_loses_the_same(damaged: Store, step: int) -> None:
    straight = take(damaged, step + EPOCH)[step:]
    assert_same(take(damaged, EPOCH, start=step), straight)


def test_a_shard_that_is_damaged_from_end_to_end_is_survived(
    tmp_path: Path, write_store: Callable
) -> None:
    lost = range(SHARD, 2 * SHARD)
    target = make_store(write_store, tmp_path / "s", bad_pictures=lost)
    loaded = take(target, EPOCH)
    assert sorted(np.concatenate([x.lost for x in loaded])) == list(lost)
    index = np.concatenate([x.batch.index for x in loaded])
    assert (index == 2 * SHARD).sum() == SHARD + 1


@pytest.mark.parametrize(
    "data",
    [
        INLINE,
        pytest.param(config.Data(workers=2, threads=1, prefetch=2), marks=pytest.mark.slow),
    ],
)
def test_a_store_that_is_damaged_throughout_ends_soon(
    tmp_path: Path, write_store: Callable, data: config.Data
) -> None:
    target = make_store(write_store, tmp_path / "s", bad_pictures=range(COUNT))
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"record \d+ and the 127 after it are damaged; delete"):
        take(target, 1, data=data)
    assert time.monotonic() - start < 60
    small = make_store(write_store, tmp_path / "small", bad_pictures=range(9), count=9)
    with pytest.raises(ValueError, match=r"and the 8 after it are damaged"):
        take(small, 1)


@pytest.mark.parametrize("hurt", ["flip", "zeros", "cut"])
def test_a_shard_hurt_at_a_random_place_gives_true_records_or_none(
    clean: Store, tmp_path: Path, hurt: str
) -> None:
    """Sixteen shards each: every record is as it was written, or damaged, or the shard refused."""
    draw, lost, refused = np.random.default_rng(len(hurt)), 0, []
    expected = [
        records.pack_record(record) for record in map(clean.source().__getitem__, range(COUNT))
    ]
    for number in range(16):
        folder = tmp_path / str(number)
        shutil.copytree(clean.folder, folder)
        path = clean.shard(int(draw.integers(COUNT // SHARD)))
        content = bytearray(path.read_bytes())
        place = int(draw.integers(len(content)))
        if hurt == "flip":
            content[place] ^= 1 << int(draw.integers(8))
        elif hurt == "zeros":
            content[place : place + 4096] = bytes(len(content[place : place + 4096]))
        else:
            del content[place:]
        (folder / path.name).write_bytes(content)
        try:
            source = store.open_store(folder).source()
        except ValueError as error:
            refused.append((path.name, str(error)))
            continue
        for index in range(COUNT):
            try:
                found = records.pack_record(source[index])
            except CorruptDataError:
                assert clean.shard_of(index).name == path.name
                lost += 1
            else:
                assert found == expected[index], (number, place, index)
    assert lost or refused
    assert len(refused) == 16 or hurt != "cut"
    assert all(name in said for name, said in refused)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, TypeError, RuntimeError])
@pytest.mark.parametrize("where", [(transforms, "decode_image"), (store.Records, "__getitem__")])
def test_what_is_no_damage_ends_the_run(
    clean: Store, monkeypatch: pytest.MonkeyPatch, error: type, where: tuple
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error("a bug")

    monkeypatch.setattr(*where, fail)
    with pytest.raises(error, match="a bug"):
        take(clean, 1)


def entries(folder: Path, name: str = corrupt_records.FILE) -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def add_all(
    tally: corrupt_records.CorruptRecordCounter, loaded: Sequence[LoadedBatch], *, start: int = 0
) -> None:
    for step, one in enumerate(loaded, start + 1):
        tally.add(step, one)


def test_count_and_list_are_exact(
    damaged: Store, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    tally, loaded = (
        corrupt_records.CorruptRecordCounter(damaged, tmp_path, most=0.05),
        take(damaged, 2 * EPOCH),
    )
    for step, one in enumerate(loaded, 1):
        tally.add(step, one)
        assert tally.damaged == len({i for x in loaded[:step] for i in x.lost.tolist()})
    assert tally.damaged == len(DAMAGED)
    shards = {i: damaged.shard(i // SHARD).name for i in DAMAGED}
    assert tally.by_shard == Counter(shards.values())
    found = {entry["record"]: entry for entry in entries(tmp_path)}
    assert sorted(found) == DAMAGED
    assert len(entries(tmp_path)) == len(DAMAGED)
    first = {i: step for step, x in reversed([*enumerate(loaded, 1)]) for i in x.lost.tolist()}
    for index, entry in found.items():
        key = f"k{index}" if index in BAD_PICTURES else None
        step, shard = first[index], shards[index]
        assert entry == {"step": step, "record": index, "key": key, "shard": shard}
    said = capsys.readouterr().out.splitlines()
    assert sorted(line.split(":")[0] for line in said) == sorted(set(shards.values()))


def test_a_resumed_run_lists_nothing_twice(damaged: Store, tmp_path: Path) -> None:
    loaded = take(damaged, EPOCH)
    add_all(corrupt_records.CorruptRecordCounter(damaged, tmp_path, most=0.5), loaded[:30])
    before = entries(tmp_path)
    with (tmp_path / corrupt_records.FILE).open("a") as file:
        file.write('{"step": 31, "rec')  # killed while it wrote
    again = corrupt_records.CorruptRecordCounter(damaged, tmp_path, most=0.5)
    assert again.damaged == len(before) > 0
    add_all(again, loaded[20:], start=20)
    assert again.damaged == len(DAMAGED)
    assert entries(tmp_path)[: len(before)] == before
    assert sorted(entry["record"] for entry in entries(tmp_path)) == DAMAGED


def test_each_process_has_its_own_list(damaged: Store, tmp_path: Path) -> None:
    for process, rows in enumerate(([0, 1, 2, 3], [4, 5, 6, 7])):
        share = ProcessRows(BATCH, tuple(rows))
        tally = corrupt_records.CorruptRecordCounter(damaged, tmp_path, most=1.0, process=process)
        add_all(tally, take(damaged, EPOCH, share=share))
    listed = [entries(tmp_path, n) for n in (corrupt_records.FILE, "damaged_records.1.jsonl")]
    assert all(listed)
    assert sorted(entry["record"] for entry in itertools.chain(*listed)) == DAMAGED


def test_a_store_without_damage_leaves_no_list(clean: Store, tmp_path: Path) -> None:
    tally = corrupt_records.CorruptRecordCounter(clean, tmp_path, most=0.0)
    add_all(tally, take(clean, EPOCH))
    assert tally.damaged == 0
    assert not list(tmp_path.iterdir())


def test_more_damage_than_allowed_ends_the_run_with_a_sentence(
    damaged: Store, tmp_path: Path
) -> None:
    loaded = take(damaged, EPOCH)
    add_all(
        corrupt_records.CorruptRecordCounter(damaged, tmp_path, most=0.05), loaded
    )  # 20 of 400 are not more
    with pytest.raises(
        ValueError,
        match=rf"20 of \d+ records read from {damaged.folder} are damaged \(\d+ in records-0000.*\)"
        rf", more than data\.max_damaged=0\.049 allows: see {tmp_path}/{corrupt_records.FILE}; "
        r"delete the",
    ):
        add_all(corrupt_records.CorruptRecordCounter(damaged, tmp_path, most=0.049), loaded)
    with pytest.raises(ValueError, match="1 of"):
        add_all(corrupt_records.CorruptRecordCounter(damaged, tmp_path, most=0.0), loaded)
