"""The position is (seed, step): neither processes nor workers nor interruptions change a batch."""

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path

import cloud_storage
import jax
import numpy as np
import pytest
from etils import epath
from jax.sharding import NamedSharding, PartitionSpec
from small_network import SMALL

from imagen_jax import config
from imagen_jax.data import pipeline
from imagen_jax.data.images import transforms
from imagen_jax.data.pipeline import Batch, ProcessRows
from imagen_jax.data.store import fit, records
from imagen_jax.data.store.block_cache import CacheSettings
from imagen_jax.data.store.records import Record
from imagen_jax.data.store.store import Store

COUNT, WIDTH, LENGTH, BATCH = 200, 3, 6, 8
SIDES = (4, 16)
BFLOAT16 = records.DTYPES["bfloat16"]
INLINE = config.Data(threads=0, prefetch=0)
THREADS = config.Data(threads=2, prefetch=4)
PROCESSES = config.Data(workers=2, threads=1, prefetch=2)
COPIES, RANGES = 1 << 30, 1 << 16  # sizes of the cache of a store in a bucket


def make_stage(size: int, low_size: int | None = None, crop: int | None = None) -> config.Stage:
    return config.Stage(name="test", size=size, low_size=low_size, crop=crop, model=SMALL)


BASE, SUPER, CROPPED = make_stage(4), make_stage(16, 4), make_stage(16, 4, 8)


def text_of(index: int) -> np.ndarray:
    rng = np.random.default_rng(index)
    return rng.standard_normal((1 + index % LENGTH, WIDTH)).astype(BFLOAT16)


def pixels_of(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (16, 16, 3), dtype=np.uint8)


def make_store(
    write_store: Callable, folder: Path, count: int = COUNT, told: int = 1, **images: bytes
) -> Store:
    """Records of 16-pixel noise, `told` captions each; `images` replaces PNGs, as side4=..."""
    target = Store(
        folder=folder,
        dataset="fake",
        split="train",
        count=count,
        sizes=SIDES,
        encoder="t5",
        identity="0",
        vocabulary="1",
        width=WIDTH,
        max_length=LENGTH,
        shard_records=60,
    )
    replaced = {int(name.removeprefix("side")): png for name, png in images.items()}

    def make(index: int) -> Record:
        pyramid = transforms.pyramid(transforms.encode(pixels_of(index)), SIDES)
        ways = range(index, index + told * COUNT, COUNT)
        texts = tuple(records.round_encoding(text_of(way), "bfloat16") for way in ways)
        captions = tuple(map(str, ways))
        return Record(key=str(index), captions=captions, images=pyramid | replaced, texts=texts)

    return write_store(target, [make(index) for index in range(count)])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, write_store: Callable) -> Store:
    store = make_store(write_store, tmp_path_factory.mktemp("store") / "s")
    assert len(store.files) > 1
    return store


def take(store: Store, count: int, stage: config.Stage = CROPPED, start: int = 0, **options):
    chosen = {"data": INLINE, "seed": 0} | options
    share = pipeline.ProcessRows.whole(BATCH)
    batches = pipeline.example_stream(store, stage=stage, share=share, start_step=start, **chosen)
    return [loaded.batch for loaded in itertools.islice(batches, count)]


def assert_equal(found: Batch, expected: Batch) -> None:
    for name, ours, theirs in zip(Batch._fields, found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=name)


@pytest.mark.parametrize(
    "shares",
    [
        [range(4), range(4, 8)],
        [[0, 1, 4, 5], [2, 3, 6, 7]],  # devices of a torus seldom lie in the order of their hosts
        [[0, 1], [2, 3], [4, 5], [6, 7]],
        [range(8), range(8)],  # pictures split over two processes: both read all of them
    ],
)
def test_order_and_crops_do_not_depend_on_how_processes_share(store: Store, shares: list) -> None:
    ordered = pipeline.load_examples(store, stage=CROPPED, seed=3)
    options = {"max_length": LENGTH, "start_step": 22}  # over an epoch's end
    alone = pipeline.load_batches(ordered, share=pipeline.ProcessRows.whole(BATCH), **options)
    for rows in shares:
        part = pipeline.load_batches(
            ordered, share=pipeline.ProcessRows(BATCH, tuple(rows)), **options
        )
        for step in range(6):
            expected = jax.tree.map(lambda x, rows=rows: x[list(rows)], alone[step].batch)
            assert_equal(part[step].batch, expected)


@pytest.mark.parametrize("step", [1, 24, 30])  # the first epoch ends after step 25
def test_resumed_stream_equals_the_uninterrupted_one(store: Store, step: int) -> None:
    straight = take(store, step + 4)[step:]
    threads = config.Data(threads=2, prefetch=4)
    for found, expected in zip(take(store, 4, start=step, data=threads), straight, strict=True):
        assert_equal(found, expected)


def test_worker_processes_change_nothing(store: Store) -> None:
    expected = take(store, 5)
    for workers in (1, 2):
        found = take(store, 5, data=config.Data(workers=workers, threads=1, prefetch=2))
        for ours, theirs in zip(found, expected, strict=True):
            assert_equal(ours, theirs)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        pytest.param(INLINE, COPIES, id="inline-copies"),
        pytest.param(INLINE, RANGES, id="inline-ranges"),
        pytest.param(THREADS, COPIES, id="threads-copies"),
        pytest.param(THREADS, RANGES, id="threads-ranges"),
        pytest.param(PROCESSES, COPIES, id="processes-copies"),
        pytest.param(PROCESSES, RANGES, id="processes-ranges", marks=pytest.mark.slow),
    ],
)
def test_the_stream_from_a_bucket_is_the_local_one(
    store: Store, bucket: cloud_storage.Bucket, tmp_path: Path, data: config.Data, size: int
) -> None:
    for file in store.folder.iterdir():
        bucket.put(f"pairs/{file.name}", file.read_bytes())
    settings = CacheSettings(folder=tmp_path / "cache", size=size)
    remote = dataclasses.replace(store, folder=epath.Path("gs://bucket/pairs"), cache=settings)
    expected = take(store, 28)  # over an epoch's end
    for start, count in ((23, 5),) if data.workers else ((0, 28), (23, 5)):
        found = take(remote, count, start=start, data=data)
        for ours, theirs in zip(found, expected[start:], strict=True):
            assert_equal(ours, theirs)


def test_each_epoch_shows_everything_once_in_its_own_order(store: Store) -> None:
    steps = COUNT // BATCH
    indices = np.concatenate([batch.index for batch in take(store, 3 * steps, BASE)])
    epochs = indices.reshape(3, COUNT)
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(COUNT))
    for one, other in itertools.combinations(epochs, 2):
        assert (one == other).mean() < 0.1


def test_seed_decides_the_order(store: Store) -> None:
    first, again, other = (
        np.concatenate([batch.index for batch in take(store, 5, BASE, seed=seed)])
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first == other).mean() < 0.2


def test_neighbours_in_the_store_rarely_share_a_batch(store: Store) -> None:
    batches = take(store, COUNT // BATCH, BASE)
    shared = [np.isin(batch.index + 1, batch.index).mean() for batch in batches]
    assert np.mean(shared) < 0.15  # expected 7/199 = .04; unshuffled 7/8


def test_each_visit_has_its_own_crop(store: Store) -> None:
    steps = COUNT // BATCH
    visits: dict[int, list[bytes]] = {}
    for batch in take(store, 2 * steps):
        for index, pixels in zip(batch.index, batch.pixels, strict=True):
            visits.setdefault(int(index), []).append(pixels.tobytes())
    same = np.mean([first == second for first, second in visits.values()])
    assert same < 0.25  # nine corners: 1/9 expected


def test_each_visit_draws_one_of_the_captions_and_a_resumed_run_the_same(
    tmp_path: Path, write_store: Callable
) -> None:
    told = make_store(write_store, tmp_path / "s", told=3)
    one = make_store(write_store, tmp_path / "one")
    size, steps = 10, 40

    def batches(store: Store, start: int = 0) -> list[Batch]:
        parts = {"stage": CROPPED, "data": INLINE, "share": ProcessRows.whole(size), "seed": 3}
        loaded = pipeline.example_stream(store, **parts, start_step=start)
        return [next(loaded).batch for _ in range(steps - start)]

    drawn, visits = np.zeros(3, int), batches(told)
    for batch in visits:
        for index, text, mask in zip(batch.index, batch.text, batch.text_mask, strict=True):
            ways = [text_of(int(index) + way * COUNT).astype(np.float32) for way in range(3)]
            same = [np.array_equal(text[mask], way) for way in ways]
            assert sum(same) == 1
            drawn += same
    expected = size * steps / 3
    assert np.abs(drawn - expected).max() < 4 * np.sqrt(expected)
    for found, resumed in zip(visits[17:], batches(told, 17), strict=True):
        jax.tree.map(np.testing.assert_array_equal, found, resumed)
    # Pictures and crops are those of a store with one caption each.
    for found, alone in zip(visits, batches(one), strict=True):
        np.testing.assert_array_equal(found.pixels, alone.pixels)


def test_base_stage_reads_its_size(store: Store) -> None:
    (batch,) = take(store, 1, BASE)
    assert batch.low_pixels is None
    assert batch.pixels.dtype == np.uint8
    for index, pixels in zip(batch.index, batch.pixels, strict=True):
        expected = transforms.area_downsample(pixels_of(int(index)), 4)
        np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("stage", [BASE, CROPPED])
def test_no_other_side_is_decoded(
    tmp_path: Path, write_store: Callable, stage: config.Stage
) -> None:
    other = 4 if stage.size == 16 else 16
    store = make_store(write_store, tmp_path / "s", 8, **{f"side{other}": b"no picture"})
    (batch,) = take(store, 1, stage)
    assert len(batch.pixels) == BATCH


@pytest.mark.parametrize("stage", [SUPER, CROPPED])
def test_low_and_high_show_the_same_window(store: Store, stage: config.Stage) -> None:
    for batch in take(store, 4, stage):
        assert batch.pixels.shape == (BATCH, stage.train_side, stage.train_side, 3)
        assert batch.low_pixels.shape == (BATCH, stage.train_side // 4, stage.train_side // 4, 3)
        for low, high in zip(batch.low_pixels, batch.pixels, strict=True):
            target = transforms.area_downsample(high.astype(np.float32), 4)
            assert np.corrcoef(low.ravel(), target.ravel())[0, 1] > 0.99


def test_text_is_exact_padded_with_zeros_and_masked(store: Store) -> None:
    for batch in take(store, 3, BASE):
        assert batch.text.shape == (BATCH, LENGTH, WIDTH)
        assert (batch.text.dtype, batch.text_mask.dtype) == (np.float32, bool)
        for index, text, mask in zip(batch.index, batch.text, batch.text_mask, strict=True):
            stored = text_of(int(index))
            np.testing.assert_array_equal(mask, np.arange(LENGTH) < len(stored))
            np.testing.assert_array_equal(text[: len(stored)], stored.astype(np.float32))
            assert not text[len(stored) :].any()


@pytest.mark.parametrize("stage", [BASE, SUPER])
def test_to_device_splits_the_rows_and_the_height(store: Store, stage: config.Stage) -> None:
    mesh = jax.make_mesh((4, 2), ("data", "height"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    by_row, by_height = (
        NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ("data", "height"))
    )
    (batch,) = take(store, 1, stage)
    low = None if batch.low_pixels is None else by_row
    shardings = Batch(by_height, low, by_row, by_row, by_row)
    placed = pipeline.to_device(batch, shardings, share=pipeline.ProcessRows.whole(BATCH))
    assert isinstance(placed, Batch)
    assert [leaf.sharding for leaf in jax.tree.leaves(placed)] == jax.tree.leaves(shardings)
    assert_equal(jax.device_get(placed), batch)


def make_experiment(stage: config.Stage = BASE, **text: object) -> config.Experiment:
    fitting = {"encoder": "t5", "width": WIDTH, "max_length": LENGTH}
    return config.Experiment(stage=stage, text=config.Text(**fitting | text))


def test_check_accepts_what_fits(store: Store) -> None:
    for stage in (BASE, SUPER, CROPPED):
        fit.check_store(store, experiment=make_experiment(stage))
    fit.check_store(store, experiment=make_experiment(encoder="checkpoints/t5"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ({"encoder": "t5_xxl"}, "with encoder 't5', but text.encoder='t5_xxl'"),
        ({"width": 4096}, "with width 3, but text.width=4096"),
        ({"max_length": 7}, "with max_length 6, but text.max_length=7"),
        ({"clean": True}, "with clean False, but text.clean=True"),
        ({"identity": "77"}, "with identity '0', but text.identity='77'"),
        ({"vocabulary": "77"}, "with vocabulary '1', but text.vocabulary='77'"),
        ({"dtype": "bfloat16"}, "with dtype 'float32', but text.dtype='bfloat16'"),
    ],
)
def test_check_refuses_another_encoder(store: Store, text: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        fit.check_store(store, experiment=make_experiment(**text))


def test_a_run_keeps_the_digests_of_its_encoder(store: Store) -> None:
    kept = fit.with_store(make_experiment(), store)
    assert (kept.text.identity, kept.text.vocabulary) == ("0", "1")
    assert kept.data.examples == store.count
    fit.check_store(store, experiment=kept)


def test_a_run_keeps_the_dtype_of_its_encoder(store: Store) -> None:
    """So that prompts are encoded as the captions of training were."""
    rounded = dataclasses.replace(store, computed_in="bfloat16")
    assert fit.with_store(make_experiment(), store).text.dtype == "float32"
    kept = fit.with_store(make_experiment(), rounded)
    assert kept.text.dtype == "bfloat16"
    fit.check_store(rounded, experiment=kept)
    with pytest.raises(ValueError, match=r"with dtype 'float32', but text.dtype='bfloat16'"):
        fit.check_store(store, experiment=kept)
    with pytest.raises(ValueError, match=r"with dtype 'bfloat16', but text.dtype='float32'"):
        fit.check_store(rounded, experiment=make_experiment(dtype="float32"))


def test_check_refuses_a_size_that_is_not_stored(store: Store) -> None:
    with pytest.raises(ValueError, match=r"sides \[4, 16\], but stage test trains on 64"):
        fit.check_store(store, experiment=make_experiment(make_stage(64)))


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_encodings_that_are_not_finite_are_told(
    tmp_path: Path, write_store: Callable, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    sound = text_of
    monkeypatch.setitem(globals(), "text_of", lambda i: sound(i) * (np.nan if i == 5 else 1))
    found = make_store(write_store, tmp_path / "s", count=8)
    fit.check_store(found, experiment=make_experiment())
    with pytest.raises(ValueError, match=r"encoding of record 5, '5', is NaN or inf.* delete the"):
        take(found, 1, BASE, data=config.Data(threads=0, prefetch=1, workers=workers))


def test_a_store_whose_empty_caption_is_not_finite_is_refused(store: Store, monkeypatch) -> None:
    empty = records.round_encoding(np.full((1, WIDTH), np.inf, np.float32), "bfloat16")
    monkeypatch.setattr(Store, "empty", lambda _: empty)
    with pytest.raises(ValueError, match=r"encoding of the empty caption is NaN or infinite"):
        fit.check_store(store, experiment=make_experiment())
