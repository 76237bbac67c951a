"""Images that are not finite: found at the first stage that has one, named, and never kept."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_cascade import make_painter, make_prompts

from imagen_jax.sample import cascade
from imagen_jax.sample.finite import NotFinite
from imagen_jax.sample.progress import SamplingCallbacks
from imagen_jax.sample.request import Request
from imagen_jax.sample.stage_program import TrainedStage


def _scaled(painter: TrainedStage, factor: float) -> TrainedStage:
    return dataclasses.replace(painter, params=jax.tree.map(lambda x: x * factor, painter.params))


def test_weights_that_are_not_finite(painters) -> None:
    bad = _scaled(painters[0], np.nan)
    with pytest.raises(NotFinite, match=r"base8: images 0, 1 are not finite: nor are the weights"):
        cascade.generate([bad, *painters[1:]], make_prompts(2), seed=0, batch_size=8)


def test_numbers_that_overflow_are_not_hidden_by_a_threshold() -> None:
    """An infinite x0 would be clipped to black."""
    painter = make_painter("tiny/base8", threshold="static", guidance_weight=1.0)

    class Infinite:
        def apply(self, variables, z, *rest, method=None):
            if method == "encode_text":
                return painter.module.apply(variables, z, *rest, method=method)
            return jnp.full_like(z, jnp.inf)  # as eps; x0 is minus as much

    infinite = dataclasses.replace(painter, module=Infinite())
    with pytest.raises(NotFinite, match="guidance_weight=1; lower that"):
        cascade.generate([infinite], make_prompts(1), seed=0, batch_size=8)


def test_one_image_of_a_batch_is_named_and_the_batch_not_kept(painters, tmp_path: Path) -> None:
    prompts = make_prompts(3)
    prompts = dataclasses.replace(prompts, indices=prompts.indices + 5)
    prompts.captions.text[1] = np.nan
    told: list[tuple[str, int]] = []
    following = SamplingCallbacks(lambda *done: told.append(done), tmp_path / "kept")
    options = {"seed": 0, "batch_size": 8, "following": following}
    with pytest.raises(NotFinite, match=r"base8: image 6 is not finite: nor are the encoded") as e:
        cascade.generate(painters, prompts, **options)
    assert (e.value.stage, e.value.indices) == ("base8", (6,))
    assert not told
    assert not (tmp_path / "kept").exists()
    named = e.value.naming(["a", "b", "c"], first_index=5)
    assert str(named).startswith("base8: image 6 ('b') is not finite")


def test_a_glimpse_that_is_not_finite_is_not_shown(painters) -> None:
    seen = []
    following = SamplingCallbacks(every=1, glimpse=seen.append)
    bad = _scaled(painters[0], np.nan)
    with pytest.raises(NotFinite, match="base8: image 0 is"):
        cascade.generate([bad], make_prompts(1), seed=0, batch_size=8, following=following)
    assert not seen


def test_many_are_not_all_listed() -> None:
    assert "images 0, 1, 2, 3, 4 and 2 more are" in str(NotFinite("base8", range(7), "why"))


def test_a_super_resolution_stage_that_begins(painters) -> None:
    low = Request(low_res=np.zeros((1, 8, 8, 3), np.uint8))
    bad = _scaled(painters[1], np.nan)
    with pytest.raises(NotFinite, match="sr16: image 0 is not finite"):
        cascade.generate([bad], make_prompts(1), seed=0, batch_size=8, request=low)
