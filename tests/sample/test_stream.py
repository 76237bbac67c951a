"""Many images: a few batches at a time, memory flat, each image the one that its index says."""

import dataclasses
import gc
import tracemalloc
from pathlib import Path

import jax
import numpy as np
import pytest

from imagen_jax import config, models
from imagen_jax.imagen import Imagen
from imagen_jax.sample import cascade, stage_program
from imagen_jax.sample.nonfinite_images import NotFinite
from imagen_jax.sample.progress import SamplingCallbacks
from imagen_jax.sample.request import Request
from imagen_jax.text.encoder import TextEncoder

SIZE = (64, 64)
PROMPTS = [f"a {size} {n} circle" for size in ("large", "small") for n in range(64)]


@pytest.fixture(scope="module")
def tiny(stages) -> Imagen:
    encoder = TextEncoder.from_config(config.load("tiny/base8")[0].text)
    return Imagen(stages=tuple(stages[:2]), encoder=encoder)


@dataclasses.dataclass(frozen=True)
class Silent:
    """A network that always answers zero."""

    def apply(self, variables, *arguments, method: str | None = None):
        if method == "encode_text":
            return models.Conditioning(kv={}, text_mask=arguments[1], pooled=None)
        return 0 * arguments[0]


def _peak(silent: Imagen, count: int) -> int:
    """Most bytes of numpy's and of jax's arrays while `count` images are taken one by one."""
    device = 0

    def measure(*_: object) -> None:
        nonlocal device
        device = max(device, sum(x.nbytes for x in jax.live_arrays() if x.ndim == 4))

    gc.collect()
    tracemalloc.start()
    request, callbacks = Request(size=SIZE), SamplingCallbacks(on_batch=measure)
    options = {"batch_size": 8, "request": request, "callbacks": callbacks}
    for _ in silent.stream(PROMPTS[:count], **options):
        measure()
    _, host = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return host + device


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(tiny) -> None:
    trained = dataclasses.replace(tiny.stages[0], module=Silent(), params={})
    silent = dataclasses.replace(tiny, stages=(trained,))
    request = Request(size=SIZE)
    for _ in silent.stream(PROMPTS[:32], batch_size=8, request=request):
        pass  # a part, of the same programs: compiling is slow where memory is traced
    few, many = _peak(silent, 64), _peak(silent, 128)  # a part, and the one before it
    images = 64 * SIZE[0] * SIZE[1] * 3  # in uint8; sampled ones take four times that
    assert many < few + images, (few, many)


def test_parts_are_the_whole_and_compile_nothing_anew(tiny) -> None:
    whole = tiny.sample(PROMPTS[:37], batch_size=8)
    before = stage_program.sample_stage._cache_size()
    parts = list(tiny.stream(PROMPTS[:37], batch_size=8))
    assert stage_program.sample_stage._cache_size() == before
    assert [part.first_index for part in parts] == [0, 32]
    for name, images in whole.items():
        np.testing.assert_array_equal(images, np.concatenate([p[name] for p in parts]))
    encoded = tiny.encode(PROMPTS[:37])
    at_once = cascade.generate(tiny.stages, encoded, seed=0, batch_size=8)
    for name, images in whole.items():
        assert np.abs(images / 127.5 - 1 - at_once[name]).max() < 1.5 / 127.5


def test_an_image_of_a_list_alone(tiny) -> None:
    """From another chunk of the list, whatever is beside it."""
    listed = tiny.sample(PROMPTS[:37], batch_size=8, seed=3)["sr16"].astype(int)
    (alone,) = tiny(PROMPTS[34:35], seed=3, first_index=34)  # 8 devices fill its batch
    (other,) = tiny(PROMPTS[34:35], seed=3)
    assert np.abs(np.asarray(alone) - listed[34]).max() <= 1
    assert np.abs(np.asarray(other) - listed[34]).max() > 1
    moved = tiny.sample(PROMPTS[30:37], seed=3, request=Request(first_index=30))["sr16"]
    assert np.abs(moved - listed[30:]).max() <= 1


@pytest.mark.parametrize("index", [-1, 2**31])
def test_an_index_that_is_none(tiny, index: int) -> None:
    with pytest.raises(ValueError, match="first_index="):
        tiny(PROMPTS[:1], first_index=index)
    with pytest.raises(ValueError, match=r"first_index=2147483647: 2 images go beyond"):
        tiny(PROMPTS[:2], first_index=2**31 - 1)


def test_each_part_of_a_request_is_its_images(tiny) -> None:
    given = np.random.default_rng(0).integers(0, 256, (37, 8, 8, 3), np.uint8)
    request = Request(init_image=given, strength=0.0)
    base = dataclasses.replace(tiny, stages=tiny.stages[:1])
    found = base.sample(PROMPTS[:37], batch_size=8, request=request)["base8"]
    np.testing.assert_array_equal(found, given)


def test_finished_parts_are_found_again(tiny, tmp_path: Path, monkeypatch) -> None:
    callbacks = SamplingCallbacks(cache_dir=tmp_path)
    parts = tiny.stream(PROMPTS[:37], batch_size=8, callbacks=callbacks)
    first = next(parts)
    assert [f.name for f in tmp_path.iterdir()] == ["0000000.npz"]  # no batch is left beside
    told = []
    again = SamplingCallbacks(lambda *done: told.append(done), tmp_path)
    monkeypatch.setattr(cascade, "generate", lambda *_, **__: pytest.fail("sampled again"))
    found = next(tiny.stream(PROMPTS[:37], batch_size=8, callbacks=again))
    for name, images in first.items():
        np.testing.assert_array_equal(found[name], images)
    assert told == [("base8", 32), ("sr16", 32)]


def test_a_wrong_argument_costs_no_time(tiny, monkeypatch) -> None:
    monkeypatch.setattr(TextEncoder, "encode", lambda *_, **__: pytest.fail("encoded"))
    with pytest.raises(ValueError, match="1 images in init_image for 2 prompts"):
        tiny(PROMPTS[:2], request=Request(init_image=np.zeros((1, 16, 16, 3), np.uint8)))


def test_an_image_that_is_not_finite_is_named_by_its_prompt(tiny) -> None:
    bad = jax.tree.map(lambda x: x * np.nan, tiny.stages[0].params)
    stages = (dataclasses.replace(tiny.stages[0], params=bad), tiny.stages[1])
    broken = dataclasses.replace(tiny, stages=stages)
    with pytest.raises(NotFinite, match=r"base8: image 7 \('a large 0 circle'\) is not finite"):
        broken(PROMPTS[:1], first_index=7)


def test_negatives_that_nothing_reads(tiny) -> None:
    off = tiny.with_sampler({"guidance_weight": 1.0})
    with pytest.raises(ValueError, match="negative prompts would change nothing: guidance_weight"):
        off(PROMPTS[:1], request=Request(negative_prompt="ugly"))
    with pytest.raises(ValueError, match="3 negative prompts for 2 prompts"):
        tiny(PROMPTS[:2], request=Request(negative_prompt=("a", "b", "c")))
