"""Tars in which one picture of twenty is broken, through `imagen encode`, to training's batches."""

import io
import itertools
import tarfile
from pathlib import Path

import jpegs
import numpy as np
import pytest

from imagen_jax import config
from imagen_jax.cli import encode
from imagen_jax.data import pipeline
from imagen_jax.data.pipeline import Batch, ProcessRows
from imagen_jax.data.store import skipped, store
from imagen_jax.data.store.skipped import Total
from imagen_jax.data.store.store import Store
from imagen_jax.io import errors

COUNT, TAR, BATCH, SIDE = 200, 80, 8, 8
HURT = sorted(np.random.default_rng(0).choice(COUNT, COUNT // 20, replace=False).tolist())
MODEL = config.UNet(channel_mult=(1,), attention_at=(), text=config.TextConditioning(kv="none"))
STAGE = config.Stage(name="any", size=SIDE, model=MODEL)
INLINE = config.Data(threads=0, prefetch=0)


def photo(index: int) -> bytes:
    return jpegs.photo((40, 30), seed=index)


def broken(image: bytes, kind: int) -> bytes:
    """As many bytes that nobody can decode: zeros, a server's page, a download that ended early."""
    page = b"<html>404 Not Found</html>"
    return [bytes(len(image)), page.ljust(len(image)), image[:60] + bytes(len(image) - 60)][kind]


def write_tars(folder: Path) -> None:
    for first in range(0, COUNT, TAR):
        with tarfile.open(folder / f"{first // TAR:05d}.tar", "w") as tar:
            for index in range(first, min(first + TAR, COUNT)):
                caption = f"snapshot {index}".encode()
                for ending, data in (("jpg", photo(index)), ("txt", caption)):
                    info = tarfile.TarInfo(f"{index:09d}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))


def hurt(folder: Path) -> None:
    """Overwrite the pictures of HURT where they lie in their tars."""
    for number, index in enumerate(HURT):
        path = folder / f"{index // TAR:05d}.tar"
        with tarfile.open(path) as tar:
            member = tar.getmember(f"{index:09d}.jpg")
        with path.open("r+b") as file:
            file.seek(member.offset_data)
            file.write(broken(photo(index), number % 3))


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, str]:
    """The store of tars that were hurt, and what the command said."""
    folder = tmp_path_factory.mktemp("tars")
    write_tars(folder)
    hurt(folder)
    out = folder / "pairs"
    command = ["--encoder", "t5_1_1_tiny", "--sizes", str(SIDE), "--max-length", "32"]
    with pytest.MonkeyPatch.context() as patch:
        said = io.StringIO()
        patch.setattr("sys.stdout", said)
        encode.run([f"tars:{folder}", *command, "--shard-records", "48", "--out", str(out)])
    return store.open_store(out), said.getvalue()


def test_the_others_are_all_there_and_each_broken_one_is_counted_and_listed(
    encoded: tuple[Store, str],
) -> None:
    found, said = encoded
    assert f"{COUNT - len(HURT)} (image, encoding) pairs of " in said
    assert f"{len(HURT)} of {COUNT} examples were skipped: {len(HURT)} unreadable; each is" in said
    assert found.skipped == (Total(errors.UNREADABLE, len(HURT)),)
    listed = skipped.read_skipped(found.folder)
    assert [one.example for one in listed] == HURT
    assert {one.reason for one in listed} == {errors.UNREADABLE}
    assert all("no complete image" in one.detail for one in listed)
    source = found.source()
    captions = [source[place].captions[0] for place in range(found.count)]
    assert captions == [f"snapshot {index}" for index in range(COUNT) if index not in HURT]


def take(
    found: Store,
    count: int,
    *,
    start: int = 0,
    data: config.Data = INLINE,
    share: ProcessRows | None = None,
) -> list[Batch]:
    share = share or ProcessRows.whole(BATCH)
    batches = pipeline.example_stream(
        found, stage=STAGE, data=data, share=share, seed=1, start_step=start
    )
    return [loaded.batch for loaded in itertools.islice(batches, count)]


def assert_same(found: list[Batch], expected: list[Batch]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        for name in Batch._fields:
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)


def test_a_run_that_is_killed_at_any_step_goes_on_with_the_very_next_record(
    encoded: tuple[Store, str],
) -> None:
    found, _ = encoded
    steps = found.count // BATCH + 4  # over an epoch's end
    straight = take(found, steps)
    first = np.concatenate([batch.index for batch in straight])[: found.count]
    assert sorted(first) == list(range(found.count))
    for start in range(steps):
        assert_same(take(found, 1, start=start), straight[start : start + 1])


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow), 3])
def test_any_number_of_workers_goes_on_in_the_same_order(
    encoded: tuple[Store, str], workers: int
) -> None:
    found, _ = encoded
    data = config.Data(workers=workers, threads=1, prefetch=2 * workers)
    assert_same(take(found, 5, start=20, data=data), take(found, 25)[20:])


@pytest.mark.parametrize("processes", [2, 4, 8])
def test_any_number_of_processes_goes_on_in_the_same_order(
    encoded: tuple[Store, str], processes: int
) -> None:
    found, _ = encoded
    rows = np.arange(BATCH).reshape(processes, -1)
    shares = [ProcessRows(BATCH, tuple(own)) for own in rows.tolist()]
    parts = [take(found, 5, start=20, share=share) for share in shares]
    whole = [np.concatenate([part[n].index for part in parts]) for n in range(5)]
    np.testing.assert_array_equal(whole, [batch.index for batch in take(found, 25)[20:]])
