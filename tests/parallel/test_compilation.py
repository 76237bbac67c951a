"""What Python compiles is kept, too: counted by jax's own events after its memory is emptied."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache as jax_cache
from small_network import SMALL

import imagen_jax
from imagen_jax import config
from imagen_jax.data.images import transforms
from imagen_jax.data.store import records, store
from imagen_jax.data.store.records import Record
from imagen_jax.data.store.store import Store
from imagen_jax.parallel import compilation_cache
from imagen_jax.train import loop

FOLDER = "jax_compilation_cache_dir"
HIT, MISS = "/jax/compilation_cache/cache_hits", "/jax/compilation_cache/cache_misses"
OURS = Path(".cache/imagen_jax/xla")
SMALL_RUN = config.Experiment(
    stage=config.Stage(name="small", size=4, model=SMALL),
    data=config.Data(threads=0, prefetch=0),
    text=config.Text(encoder="t5", width=3, max_length=6),
    train=config.Train(steps=2, batch_size=8, log_every=1, save_every=2),
    mesh=config.Mesh(fsdp=1, spatial=1),
)


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A user's home, and jax as it starts, without a folder."""
    before = {name: getattr(jax.config, name) for name in (FOLDER, compilation_cache.LEAST)}
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(FOLDER.upper(), raising=False)
    _use({FOLDER: None, compilation_cache.LEAST: compilation_cache.JAX_LEAST})
    yield tmp_path
    _use(before)


def _use(settings: dict[str, object]) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)
    jax_cache.reset_cache()


def _counted(run: Callable[[], object]) -> Counter[str]:
    """Events of jax during a call that finds nothing in memory, as in a new process."""
    heard: Counter[str] = Counter()
    listening = True

    def hear(event: str, **_: object) -> None:
        heard[event] += listening

    jax.clear_caches()
    jax_cache.reset_cache()
    jax.monitoring.register_event_listener(hear)
    run()
    listening = False
    return heard


def test_a_second_start_of_python_compiles_nothing_to_encode_prompts(home: Path) -> None:
    def encode() -> None:
        imagen_jax.load("shapes").encode(["a large red circle"])

    assert _counted(encode)[MISS]
    second = _counted(encode)
    assert not second[MISS]
    assert second[HIT]
    assert list((home / OURS).iterdir())


def test_training_from_python_keeps_programs(home: Path, pairs: Store) -> None:
    other = dataclasses.replace(SMALL_RUN, text=config.Text(encoder="t5", width=4, max_length=6))
    with pytest.raises(ValueError, match="width"):
        loop.train(other, home / "refused", store=pairs)
    assert getattr(jax.config, FOLDER) == str(home / OURS)


@pytest.mark.slow
def test_a_second_training_from_python_compiles_nothing(home: Path, pairs: Store) -> None:
    assert _counted(lambda: loop.train(SMALL_RUN, home / "first", store=pairs))[MISS]
    second = _counted(lambda: loop.train(SMALL_RUN, home / "second", store=pairs))
    assert not second[MISS]
    assert second[HIT]


@pytest.fixture
def pairs(tmp_path: Path) -> Store:
    """A store of eight grey images."""
    kept = Store(
        folder=tmp_path / "store",
        dataset="fake",
        split="train",
        count=8,
        sizes=(4,),
        encoder="t5",
        identity="0",
        vocabulary="1",
        width=3,
        max_length=6,
    )
    image = {4: transforms.encode(np.full((4, 4, 3), 100, np.uint8))}
    text = records.round_encoding(np.ones((2, 3), np.float32), "bfloat16")
    one = Record(key="0", captions=("",), images=image, texts=(text,))
    store.begin_store(kept)
    store.write_shard(kept, 0, [dataclasses.replace(one, key=str(i)) for i in range(8)])
    store.write_empty(kept, records.round_encoding(np.ones((1, 3), np.float32), "bfloat16"))
    store.finish_store(kept)
    return store.open_store(kept.folder)


def test_what_jax_was_told_stays(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _use({FOLDER: str(tmp_path / "own"), compilation_cache.LEAST: 3.0})
    compilation_cache.use_cache()
    assert getattr(jax.config, FOLDER) == str(tmp_path / "own")
    assert getattr(jax.config, compilation_cache.LEAST) == 3.0
    _use({FOLDER: None, compilation_cache.LEAST: compilation_cache.JAX_LEAST})
    monkeypatch.setenv(compilation_cache.LEAST.upper(), "1.0")
    compilation_cache.use_cache()
    assert getattr(jax.config, compilation_cache.LEAST) == 1.0


def test_the_cache_can_be_turned_off(home: Path) -> None:
    imagen_jax.load("shapes", compile_cache=False)
    assert getattr(jax.config, FOLDER) is None
    imagen_jax.load("shapes")
    assert getattr(jax.config, FOLDER) == str(home / OURS)


def test_whoever_wants_no_folder_gets_none(home: Path) -> None:
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        compilation_cache.use_cache()
        assert getattr(jax.config, FOLDER) is None
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
