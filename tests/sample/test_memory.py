"""Memory is estimated before anything is compiled, and what is too large refused in a sentence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_cascade import make_prompts

from imagen_jax.sample import cascade, memory, stage
from imagen_jax.sample.request import Request


def _peak(function, *arguments: jax.Array) -> int:
    return memory.peak_bytes(jax.make_jaxpr(function)(*arguments).jaxpr)


def test_the_peak_of_what_is_alive() -> None:
    x = jnp.zeros((10, 10))  # 400 bytes; an argument, which does not count
    assert _peak(lambda x: x + 1, x) == 400
    assert _peak(lambda x: ((x + 1) * 2) - 3, x) == 800  # one is read while the next is written
    assert _peak(lambda x: (x + 1) @ (x + 2) + x, x) == 1200
    assert _peak(lambda x: (x[:, None] * x[None]).sum(axis=0), x) >= 4000


def test_attention_grows_with_the_square_of_the_pixels(stages) -> None:
    prompts = make_prompts(1)
    small, large = (
        memory.peak_bytes(memory._traced(stages[1], prompts.captions, (side, side), 1))
        for side in (64, 128)
    )
    assert 4 * small < large < 17 * small


def test_what_does_not_fit_is_refused_before_it_is_compiled(stages, monkeypatch) -> None:
    monkeypatch.setattr(memory, "available", lambda _: 10_000_000)
    monkeypatch.setattr(stage, "sample_batches", lambda *_, **__: pytest.fail("sampled"))
    request = Request(low_res=np.zeros((1, 64, 64, 3), np.uint8))
    sentence = (
        r"sr16 would need [\d,]+\.\d GB of memory for 8 images of 128x128 pixels at once, and 0\.0 "
        r"GB are there; about (\d+)x\1 pixels fit, which (\d+)x\2 are enlarged to: give smaller"
    )
    with pytest.raises(ValueError, match=sentence):
        cascade.generate(stages[1:2], make_prompts(1), seed=0, batch_size=1, request=request)


def test_sides_of_training_are_not_looked_at(stages, monkeypatch) -> None:
    monkeypatch.setattr(memory, "available", lambda _: 1)
    monkeypatch.setattr(memory, "_traced", lambda *_: pytest.fail("traced"))
    stage.check_memory(stages[0], make_prompts(1), (8, 8), batch_size=1)


def test_available_is_what_is_left(tmp_path, monkeypatch) -> None:
    devices = jax.sharding.Mesh(np.array(jax.devices()), ("x",))
    there = memory.available(devices)
    assert there is None or there > 1e6
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    5000 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "GROUP", tmp_path)
    assert memory.available(devices) == 5_120_000
    (tmp_path / "memory.max").write_text("4000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert memory.available(devices) == 3_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available(devices) == 5_120_000
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "none")
    assert memory.available(devices) is None
