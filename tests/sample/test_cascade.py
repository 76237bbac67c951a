"""An image is its own seed, index and prompt; guidance runs only where it is wanted."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_cascade import SMALL_BASE, make_prompts, make_stage

from imagen_jax import config, models
from imagen_jax.diffusion.samplers import SamplerParams
from imagen_jax.sample import cascade, stage_program
from imagen_jax.sample.request import Request
from imagen_jax.sample.sampler_inputs import EncodedText, SamplerInputs
from imagen_jax.sample.stage_program import TrainedStage


def _inputs(prompts: SamplerInputs, *, level: float, low_res=None) -> SamplerInputs:
    captions = EncodedText(*map(jnp.asarray, prompts.captions))
    levels = jnp.full(len(prompts.indices), level)
    return SamplerInputs(captions, prompts.indices, captions.without_text(), levels, low_res)


@pytest.fixture(scope="module")
def sampled(stages) -> dict[str, np.ndarray]:
    return cascade.generate(stages, make_prompts(16), seed=0, batch_size=16)


def test_every_stage_samples_in_range_at_its_size(sampled) -> None:
    sides = {name: images.shape[1] for name, images in sampled.items()}
    assert sides == {"base8": 8, "sr16": 16, "sr32": 32}
    for images in sampled.values():
        assert images.shape == (16, images.shape[1], images.shape[1], 3)
        assert np.abs(images).max() <= 1.0
        assert images.std() > 0.01


def test_a_image_does_not_depend_on_batch_size_or_neighbours(stages, sampled) -> None:
    one = make_prompts(16).rows(np.array([11]))
    alone = cascade.generate(stages[:2], one, seed=0, batch_size=1)
    assert list(alone) == ["base8", "sr16"]
    for name, images in alone.items():
        # Another batch size rounds otherwise, and stages of random networks amplify it.
        np.testing.assert_allclose(images[0], sampled[name][11], atol=1e-3)


def test_a_image_depends_on_seed_and_index(stages, sampled) -> None:
    base = stages[:1]
    other = cascade.generate(base, make_prompts(16), seed=1, batch_size=16)["base8"]
    assert np.abs(other - sampled["base8"]).mean() > 0.05
    moved = make_prompts(16)._replace(indices=np.arange(16, dtype=np.int32) + 1)
    shifted = cascade.generate(base, moved, seed=0, batch_size=16)["base8"]
    assert np.abs(shifted - sampled["base8"]).mean() > 0.05


def test_an_image_does_not_depend_on_the_number_of_devices(stages, sampled) -> None:
    """The same program, unsharded on one device."""
    trained, prompts = stages[0], make_prompts(16)
    inputs = _inputs(prompts, level=0.0)
    one = stage_program.sample_stage(
        trained.params,
        jax.device_put(inputs, jax.devices()[0]),
        None,
        SamplerParams.from_config(trained.stage.sampler),
        program=trained.program(),
        size=(8, 8),
    ).x0
    np.testing.assert_allclose(one, sampled["base8"], atol=2e-5)


def test_weight_one_is_conditional_and_zero_unconditional(stages) -> None:
    prompts, nothing = make_prompts(8), make_prompts(8, has_text=False)

    def sample(weight: float, shown: SamplerInputs) -> np.ndarray:
        trained = make_stage(SMALL_BASE, guidance_weight=weight)
        return cascade.generate([trained], shown, seed=0, batch_size=8)["base8"]

    unconditional = sample(1.0, nothing)
    np.testing.assert_allclose(sample(0.0, prompts), unconditional, atol=2e-5)
    # Weight 1 skips the second pass; 1 + 1e-6 makes it, and must agree.
    np.testing.assert_allclose(sample(1.0, prompts), sample(1.0 + 1e-6, prompts), atol=1e-4)
    assert np.abs(sample(1.0, prompts) - unconditional).mean() > 1e-4


def test_guidance_in_an_interval(stages) -> None:
    prompts = make_prompts(8)

    def sample(**sampler: object) -> np.ndarray:
        trained = make_stage(SMALL_BASE, **sampler)
        return cascade.generate([trained], prompts, seed=0, batch_size=8)["base8"]

    everywhere, nowhere = sample(guidance_weight=4.0), sample(guidance_weight=1.0)
    whole = sample(guidance_weight=4.0, guidance_interval=(0.0, 1e9))
    np.testing.assert_allclose(whole, everywhere, atol=1e-4)
    none = sample(guidance_weight=4.0, guidance_interval=(1e8, 1e9))
    np.testing.assert_allclose(none, nowhere, atol=1e-4)
    some = sample(guidance_weight=4.0, guidance_interval=(0.2, 2.0))
    assert min(np.abs(some - x).mean() for x in (everywhere, nowhere)) > 1e-3


def test_a_new_guidance_weight_compiles_nothing(stages) -> None:
    before = stage_program.sample_stage._cache_size()
    for weight in (4.0, 5.5):
        trained = dataclasses.replace(
            stages[0],
            stage=dataclasses.replace(
                stages[0].stage,
                sampler=dataclasses.replace(stages[0].stage.sampler, guidance_weight=weight),
            ),
        )
        cascade.generate([trained], make_prompts(16), seed=0, batch_size=16)
    assert stage_program.sample_stage._cache_size() == before


class _Recorder:
    """Stands in for a network: counts calls, and keeps what each was shown."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.low_res: list[jax.Array] = []

    def apply(self, variables, z, *rest, method=None):
        if method == "encode_text":
            return models.Conditioning(kv={}, text_mask=rest[0], pooled=None)
        self.batches.append(z.shape[0])
        cond = rest[1]
        if cond.low_res is not None:
            jax.debug.callback(lambda x: self.low_res.append(np.asarray(x)), cond.low_res)
        return jnp.zeros_like(z)


@pytest.mark.parametrize(("guided", "rows"), [(False, 4), (True, 8)])
def test_the_unconditional_pass_is_skipped_at_weight_one(guided: bool, rows: int) -> None:
    stage, recorder = config.load("tiny/sr16")[0].stage, _Recorder()
    inputs = _inputs(make_prompts(4), level=0.3, low_res=jnp.zeros((4, 8, 8, 3)))
    sampler = dataclasses.replace(stage.sampler, guidance_weight=2.0 if guided else 1.0)
    stage = dataclasses.replace(stage, sampler=sampler)
    program = TrainedStage(stage=stage, module=recorder, params=None).program()
    params = SamplerParams.from_config(sampler)._replace(seed=jnp.uint32(0))
    stage_program.sample_stage.__wrapped__({}, inputs, None, params, program=program, size=(16, 16))
    jax.effects_barrier()
    # Traced once in the scan and once more for the step after it: never one call a sampling step.
    assert set(recorder.batches) == {rows}
    assert len(recorder.batches) <= 2
    if guided:
        for low_res in recorder.low_res:  # both halves see the same noise, drawn once
            np.testing.assert_array_equal(low_res[:4], low_res[4:])
    level = recorder.low_res[0][:4].std(axis=(1, 2, 3))
    np.testing.assert_allclose(level, 0.454, rtol=0.1)


def test_super_resolution_alone_needs_images(stages) -> None:
    with pytest.raises(ValueError, match="sr16, which enlarges 8-px images: give low_res"):
        cascade.generate(stages[1:], make_prompts(1), seed=0, batch_size=8)
    low = Request(low_res=np.zeros((1, 8, 8, 3), np.uint8))
    images = cascade.generate(stages[1:2], make_prompts(1), seed=0, batch_size=8, request=low)
    assert images["sr16"].shape == (1, 16, 16, 3)
