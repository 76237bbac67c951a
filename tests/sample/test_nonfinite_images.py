"""Images that are not finite: found at the first stage that has one, named, and never kept."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_cascade import SMALL_BASE, make_prompts, make_stage

from imagen_jax.sample import cascade
from imagen_jax.sample.nonfinite_images import NotFinite
from imagen_jax.sample.progress import SamplingCallbacks
from imagen_jax.sample.request import Request
from imagen_jax.sample.stage_program import TrainedStage


def _scaled(trained: TrainedStage, factor: float) -> TrainedStage:
    return dataclasses.replace(trained, params=jax.tree.map(lambda x: x * factor, trained.params))


def test_weights_that_are_not_finite(stages) -> None:
    bad = _scaled(stages[0], np.nan)
    with pytest.raises(NotFinite, match=r"base8: images 0, 1 are not finite: nor are the weights"):
        cascade.generate([bad, *stages[1:]], make_prompts(2), seed=0, batch_size=8)


def test_numbers_that_overflow_are_not_hidden_by_a_threshold() -> None:
    """An infinite x0 would be clipped to black."""
    trained = make_stage(SMALL_BASE, threshold="static", guidance_weight=1.0)

    class Infinite:
        def apply(self, variables, z, *rest, method=None):
            if method == "encode_text":
                return trained.module.apply(variables, z, *rest, method=method)
            return jnp.full_like(z, jnp.inf)  # as eps; x0 is minus as much

    infinite = dataclasses.replace(trained, module=Infinite())
    with pytest.raises(NotFinite, match="guidance_weight=1; lower that"):
        cascade.generate([infinite], make_prompts(1), seed=0, batch_size=8)


def test_one_image_of_a_batch_is_named_and_the_batch_not_kept(stages, tmp_path: Path) -> None:
    prompts = make_prompts(3)
    prompts = prompts._replace(indices=prompts.indices + 5)
    prompts.captions.text[1] = np.nan
    told: list[tuple[str, int]] = []
    callbacks = SamplingCallbacks(lambda *done: told.append(done), tmp_path / "kept")
    options = {"seed": 0, "batch_size": 8, "callbacks": callbacks}
    with pytest.raises(NotFinite, match=r"base8: image 6 is not finite: nor are the encoded") as e:
        cascade.generate(stages, prompts, **options)
    assert (e.value.stage, e.value.indices) == ("base8", (6,))
    assert not told
    assert not (tmp_path / "kept").exists()
    named = e.value.with_prompts(["a", "b", "c"], first_index=5)
    assert str(named).startswith("base8: image 6 ('b') is not finite")


def test_a_preview_that_is_not_finite_is_not_shown(stages) -> None:
    seen = []
    callbacks = SamplingCallbacks(preview_every=1, on_preview=seen.append)
    bad = _scaled(stages[0], np.nan)
    with pytest.raises(NotFinite, match="base8: image 0 is"):
        cascade.generate([bad], make_prompts(1), seed=0, batch_size=8, callbacks=callbacks)
    assert not seen


def test_many_are_not_all_listed() -> None:
    assert "images 0, 1, 2, 3, 4 and 2 more are" in str(NotFinite("base8", range(7), "why"))


def test_a_super_resolution_stage_that_starts(stages) -> None:
    low = Request(low_res=np.zeros((1, 8, 8, 3), np.uint8))
    bad = _scaled(stages[1], np.nan)
    with pytest.raises(NotFinite, match="sr16: image 0 is not finite"):
        cascade.generate([bad], make_prompts(1), seed=0, batch_size=8, request=low)
