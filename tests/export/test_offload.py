"""Weights are read when they are needed; with `offload` one part at a time is on the devices."""

import gc
from pathlib import Path

import jax
import numpy as np
import pytest

import imagen_jax
from imagen_jax import config, models
from imagen_jax.io import checkpoints, run_dir
from imagen_jax.text.encoder import TextEncoder

PROMPTS = ["a large red circle", ""]


@pytest.fixture(scope="module")
def saved_runs(tmp_path_factory) -> Path:
    """The same cascade as training leaves it: Orbax checkpoints."""
    folder, noise = tmp_path_factory.mktemp("runs"), np.random.default_rng(0)
    for experiment in config.load("tiny")[:2]:
        run, shapes = (
            folder / experiment.stage.name,
            models.parameter_shapes(experiment.stage, experiment.text),
        )
        ema = jax.tree.map(lambda x: noise.normal(0.0, 0.2, x.shape).astype(np.float32), shapes)
        run_dir.write_config(run, experiment)
        writer = checkpoints.Checkpoints(run)
        writer.save(1, {"ema": ema}, experiment)
        writer.close()
    return folder


def _live() -> int:
    """Bytes on the first device; views of the same memory count once."""
    gc.collect()
    numbers = (x for x in jax.live_arrays() if x.dtype != jax.random.key(0).dtype)
    parts = [x.addressable_shards[0].data for x in numbers]
    first = [x for x in parts if x.devices() == {jax.devices()[0]}]
    return sum({x.unsafe_buffer_pointer(): x.nbytes for x in first}.values())


@pytest.fixture
def held(monkeypatch) -> dict[str, int]:
    """How much is on the devices while the text encoder works."""
    found: dict[str, int] = {}
    encode = TextEncoder.encode

    def watched(encoder, captions, **options):
        found["text"] = _live()
        return encode(encoder, captions, **options)

    monkeypatch.setattr(TextEncoder, "encode", watched)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bundle", "runs"])
def test_one_part_at_a_time(kind: str, random_bundle: Path, saved_runs: Path, held) -> None:
    place = random_bundle if kind == "bundle" else saved_runs
    staying = imagen_jax.load(place)
    expected = staying.sample(PROMPTS, seed=3)
    parts = {p.stage.name: _bytes(p.device_params()) for p in staying.stages}
    parts["text"] = _bytes(staying.encoder.params)
    del staying
    before = _live()
    imagen = imagen_jax.load(place, offload=True)
    assert _live() == before

    def progress(stage: str, done: int) -> None:
        held[stage] = _live()

    found = imagen.sample(
        PROMPTS, seed=3, callbacks=imagen_jax.SamplingCallbacks(on_batch=progress)
    )
    for name, pictures in expected.items():
        np.testing.assert_array_equal(found[name], pictures)
    assert held.keys() == parts.keys()
    for name, size in parts.items():
        beside = held[name] - before - size
        assert 0 <= beside < 0.5 * min(parts.values()), name  # a batch's pictures, no other part
    assert _live() - before < 0.1 * min(parts.values())


def test_without_offload_what_was_needed_stays(random_bundle: Path) -> None:
    imagen = imagen_jax.load(random_bundle)
    before, first = _live(), imagen.stages[0]
    imagen.sample(PROMPTS, last_stage="base8")
    stays = _live() - before
    assert stays >= _bytes(first.device_params())
    assert stays < _bytes(first.device_params()) + _bytes(imagen.stages[1].device_params())


def _bytes(tree) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
