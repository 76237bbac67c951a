"""The bound of a learned variance against improved DDPM's formulas, in float64."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax import config, discrete_schedule
from imagen_jax.diffusion import loss as loss_module
from imagen_jax.diffusion import schedules
from imagen_jax.diffusion.prediction import from_x0
from imagen_jax.diffusion.variance_bound import variance_bound

STEPS = np.array([0, 1, 2, 250, 998, 999])
COSINE = config.Diffusion(schedule=config.NoiseSchedule(kind="cosine_betas"))
LEARNED = dataclasses.replace(COSINE, variance="learned_range")


def draw(seed: int, *, scale: float = 1.0) -> np.ndarray:
    return scale * np.random.default_rng(seed).standard_normal((len(STEPS), 4, 4, 3))


def cdf(x: np.ndarray) -> np.ndarray:
    return np.vectorize(lambda value: 0.5 * (1 + math.erf(value / math.sqrt(2))))(x)


def reference(x0: np.ndarray, eps: np.ndarray, predicted: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The closed form, step by step, as arXiv:2102.09672 and its code write it: means and all."""
    betas = discrete_schedule.betas("cosine").astype(np.float64)
    signal = np.cumprod(1 - betas)
    found = []
    for row, t in enumerate(STEPS):
        before = signal[t - 1] if t else 1.0
        z = np.sqrt(signal[t]) * x0[row] + np.sqrt(1 - signal[t]) * eps[row]
        implied = (z - np.sqrt(1 - signal[t]) * predicted[row]) / np.sqrt(signal[t])
        coefficients = (
            betas[t] * np.sqrt(before) / (1 - signal[t]),
            (1 - before) * np.sqrt(1 - betas[t]) / (1 - signal[t]),
        )
        true_mean, mean = (coefficients[0] * x + coefficients[1] * z for x in (x0[row], implied))
        clipped = max(t, 1)  # the code's "posterior_log_variance_clipped"
        smallest = betas[clipped] * (1 - signal[clipped - 1]) / (1 - signal[clipped])
        share = (v[row] + 1) / 2
        log_variance = share * np.log(betas[t]) + (1 - share) * np.log(smallest)
        if t:
            true = np.log(smallest)
            nats = 0.5 * (
                log_variance
                - true
                - 1
                + np.exp(true - log_variance)
                + (true_mean - mean) ** 2 * np.exp(-log_variance)
            )
        else:
            inverse = np.exp(-log_variance / 2)
            above, below = (cdf(inverse * (x0[row] - mean + d)) for d in (1 / 255, -1 / 255))
            inside = np.where(x0[row] > 0.999, 1 - below, above - below)
            likelihood = np.where(x0[row] < -0.999, above, inside)
            nats = -np.log(np.maximum(likelihood, 1e-12))
        found.append(nats.mean() / math.log(2))
    return np.array(found)


def found(x0: np.ndarray, eps: np.ndarray, predicted: np.ndarray, v: np.ndarray) -> jax.Array:
    level = jnp.asarray(discrete_schedule.levels("cosine")[STEPS])
    arrays = (jnp.asarray(x, jnp.float32) for x in (x0, eps, predicted, (v + 1) / 2))
    return variance_bound(*arrays, level, betas="cosine")


@pytest.mark.parametrize("scale", [0.0, 0.02, 1.0])
def test_it_is_the_closed_form(scale: float) -> None:
    """Of a predicted noise that is right, nearly right or wrong."""
    x0, eps = np.clip(draw(0), -1, 1), draw(1)
    predicted, v = eps + draw(2, scale=scale), np.clip(draw(3), -1, 1)
    wanted = reference(x0, eps, predicted, v)
    np.testing.assert_allclose(found(x0, eps, predicted, v), wanted, rtol=2e-4, atol=1e-5)


def test_a_right_step_with_the_true_variance_costs_nothing() -> None:
    x0, eps = np.clip(draw(0), -1, 1), draw(1)
    smallest = found(x0, eps, eps, -np.ones_like(eps))
    np.testing.assert_allclose(smallest[1:], 0.0, atol=1e-6)
    assert (found(x0, eps, eps, np.ones_like(eps))[1:3] > 0.01).all()


def test_training_draws_whole_time_steps_alone() -> None:
    draw_logsnr = jax.jit(loss_module.draw_logsnr, static_argnames=("batch", "diffusion"))
    level, width = draw_logsnr(jax.random.key(0), 4096, diffusion=COSINE)
    steps = np.asarray(discrete_schedule.step_of(level, "cosine"))
    np.testing.assert_allclose(steps, steps.round(), atol=1e-3)
    assert (steps.min(), steps.max()) == (0, 999)
    counts = np.bincount(steps.round().astype(int) // 100)
    np.testing.assert_allclose(counts, 409.6, rtol=0.2)
    np.testing.assert_array_equal(width, 1.0)


def _loss(output: jax.Array, diffusion: config.Diffusion) -> jax.Array:
    x0 = jnp.asarray(np.clip(draw(0), -1, 1), jnp.float32)
    terms = loss_module.loss(lambda *_: output, x0, jax.random.key(0), diffusion=diffusion)
    return terms.per_example.sum()


def test_the_bound_is_off_by_default_and_the_mean_learns_nothing_of_it() -> None:
    output = jnp.asarray(np.concatenate([draw(4), draw(5)], axis=-1), jnp.float32)
    gradient = jax.jit(jax.grad(_loss), static_argnames=("diffusion",))
    plain, learned = (np.asarray(gradient(output, diffusion=d)) for d in (COSINE, LEARNED))
    np.testing.assert_array_equal(plain[..., 3:], 0.0)
    assert (learned[..., 3:] != 0).any()
    np.testing.assert_allclose(plain[..., :3], learned[..., :3], rtol=1e-6)
    assert _loss(output, LEARNED) > _loss(output, COSINE)


@pytest.mark.parametrize("predicts", ["x0", "v"])
def test_another_prediction_has_the_same_bound(predicts: config.Predicts) -> None:
    """At the level that is drawn: a network that knows the truth predicts it either way."""
    x0 = jnp.asarray(np.clip(draw(0), -1, 1), jnp.float32)
    share = jnp.asarray(draw(5), jnp.float32)

    def truth(z: jax.Array, logsnr: jax.Array) -> jax.Array:
        return jnp.concatenate([from_x0(x0, z, logsnr, predicts=predicts), share], axis=-1)

    diffusion = dataclasses.replace(LEARNED, predicts=predicts)
    terms = loss_module.loss(truth, x0, jax.random.key(0), diffusion=diffusion)
    alpha, sigma = schedules.alpha_sigma(terms.logsnr)
    assert float((sigma / alpha).max()) > 0.1
    right = loss_module.loss(
        lambda z, logsnr: jnp.concatenate(
            [(z - schedules.alpha_sigma(logsnr)[0] * x0) / schedules.alpha_sigma(logsnr)[1], share],
            axis=-1,
        ),
        x0,
        jax.random.key(0),
        diffusion=LEARNED,
    )
    np.testing.assert_allclose(terms.per_example, right.per_example, rtol=1e-3, atol=1e-4)


def test_what_has_no_meaning_is_refused() -> None:
    with pytest.raises(ValueError, match="learned_range' needs a schedule of discrete betas"):
        config.Diffusion(variance="learned_range")
    with pytest.raises(ValueError, match="1,000 levels"):
        dataclasses.replace(COSINE, loss_weight="sigmoid", predicts="v")
    with pytest.raises(ValueError, match="predicts no variance"):
        _loss(jnp.zeros((len(STEPS), 4, 4, 3)), LEARNED)
    with pytest.raises(ValueError, match="predicts no variance: only a deepfloyd_unet"):
        config.Stage(name="base", size=16, model=config.UNet(), diffusion=LEARNED)
