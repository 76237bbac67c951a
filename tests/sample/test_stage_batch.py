"""A stage step by step: the images of all steps at once, with a seed for each image."""

import dataclasses

import jax
import numpy as np
import pytest
from small_cascade import make_prompts

from imagen_jax.diffusion.samplers import SamplerParams
from imagen_jax.sample import cascade, stage_program
from imagen_jax.sample.stage_batch import StageBatch


def test_a_seed_for_each_image_gives_the_keys_of_each_seed(stages) -> None:
    stage, indices = stages[0].stage, np.array([0, 5], np.int32)
    both = stage_program.image_keys(stage, np.array([7, 2**32 - 1], np.uint32), indices)
    for row, seed in enumerate((7, 2**32 - 1)):
        alone = stage_program.image_keys(stage, seed, indices)
        np.testing.assert_array_equal(
            jax.random.key_data(both[row]), jax.random.key_data(alone[row])
        )


@pytest.fixture(scope="module")
def quick(stages):
    """Fewer programs: without guidance."""
    one = stages[0]
    sampler = dataclasses.replace(one.stage.sampler, guidance_weight=1.0)
    return dataclasses.replace(one, stage=dataclasses.replace(one.stage, sampler=sampler))


@pytest.mark.slow  # tests/serve/test_engine.py compares the same through a cascade
def test_steps_in_spans_are_the_steps_at_once(quick) -> None:
    prompts = make_prompts(3)
    expected = cascade.generate([quick], prompts, seed=7, batch_size=8)[quick.stage.name]
    inputs = prompts._replace(seeds=np.full(3, 7, np.uint32))
    params = SamplerParams.from_config(quick.stage.sampler)
    batch = StageBatch.start(quick, inputs, params, size=(8, 8), batch_size=8)
    assert batch.rows == 8
    made = [batch.made]
    while not batch.is_done:
        batch.advance(len(made))  # one step, then two, then three
        made.append(batch.made)
    batch.wait()
    images, finite = batch.images()
    assert made[:3] == [0, 1, 3]
    assert made[-1] == quick.stage.sampler.steps
    assert finite.all()
    np.testing.assert_array_equal(images, expected)
