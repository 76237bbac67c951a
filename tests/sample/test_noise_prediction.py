"""`TrainedStage.predict`: the noise that a network predicts, for losses of one's own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_cascade import make_prompts

from imagen_jax import models
from imagen_jax.diffusion import prediction, schedules
from imagen_jax.sample.noise_prediction import Guidance, LowRes
from imagen_jax.sample.stage_program import TrainedStage

COUNT = 2
TIMES = jnp.array([0.3, 0.8])
CAPTIONS = jax.tree.map(jnp.asarray, make_prompts(COUNT).captions)
NOTHING = jax.tree.map(jnp.asarray, CAPTIONS.without_text())


@pytest.fixture(scope="module")
def base(stages: list[TrainedStage]) -> TrainedStage:
    return stages[0]


@pytest.fixture(scope="module")
def z() -> jax.Array:
    return jax.random.normal(jax.random.key(0), (COUNT, 8, 8, 3))


def network_output(trained: TrainedStage, z: jax.Array, captions: object) -> jax.Array:
    cond = models.condition(trained.module, trained.params, captions)
    logsnr = schedules.logsnr(TIMES, schedule=trained.stage.diffusion.schedule)
    return models.predictor(trained.module, trained.params, cond)(z, logsnr)


def test_it_is_the_networks_noise(base: TrainedStage, z: jax.Array) -> None:
    found = base.predict(base.params, z, TIMES, CAPTIONS)
    assert base.stage.diffusion.predicts == "eps"
    assert found.variance is None
    np.testing.assert_allclose(found.eps, network_output(base, z, CAPTIONS), atol=1e-5)


def test_guidance_leads_away_from_the_negative_text(base: TrainedStage, z: jax.Array) -> None:
    found = base.predict(base.params, z, TIMES, CAPTIONS, guidance=Guidance(NOTHING, 3.0)).eps
    text, negative = (network_output(base, z, some) for some in (CAPTIONS, NOTHING))
    np.testing.assert_allclose(found, negative + 3.0 * (text - negative), atol=1e-4)
    assert np.abs(found - text).max() > 1e-3


def test_what_predicts_something_else_is_turned_into_noise(
    base: TrainedStage, z: jax.Array
) -> None:
    diffusion = dataclasses.replace(base.stage.diffusion, predicts="v")
    stage = dataclasses.replace(base.stage, diffusion=diffusion)
    found = dataclasses.replace(base, stage=stage).predict(base.params, z, TIMES, CAPTIONS).eps
    logsnr = schedules.logsnr(TIMES, schedule=diffusion.schedule)
    output = network_output(base, z, CAPTIONS)
    x0 = prediction.to_x0(output, z, logsnr, predicts="v")
    np.testing.assert_allclose(schedules.add_noise(x0, found, logsnr), z, atol=1e-5)
    assert np.abs(found - output).max() > 1e-3


def test_noise_and_its_prediction_are_differentiable(base: TrainedStage, z: jax.Array) -> None:
    eps = jax.random.normal(jax.random.key(1), z.shape)
    noised = base.add_noise(z, eps, TIMES)
    logsnr = schedules.logsnr(TIMES, schedule=base.stage.diffusion.schedule)
    np.testing.assert_array_equal(noised, schedules.add_noise(z, eps, logsnr))

    @jax.jit
    @jax.grad
    def slope(x: jax.Array) -> jax.Array:
        found = base.predict(base.params, base.add_noise(x, eps, 0.5), 0.5, CAPTIONS)
        return jnp.mean((found.eps - eps) ** 2)

    found = slope(z)
    assert np.isfinite(found).all()
    assert np.abs(found).max() > 0


def test_a_super_resolution_stage_sees_its_low_resolution_image(
    stages: list[TrainedStage],
) -> None:
    trained = stages[1]
    z, seen = jax.random.normal(jax.random.key(2), (2, COUNT, 16, 16, 3))
    found, other, noisier = (
        trained.predict(trained.params, z, TIMES, CAPTIONS, low_res=low_res).eps
        for low_res in (LowRes(seen, 0.1), LowRes(-seen, 0.1), LowRes(seen, 0.9))
    )
    assert np.abs(found - other).max() > 1e-3
    assert np.abs(found - noisier).max() > 1e-3
    with pytest.raises(ValueError, match="sr16 enlarges an image: give low_res"):
        trained.predict(trained.params, z, TIMES, CAPTIONS)
