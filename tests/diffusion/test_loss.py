"""The loss: levels drawn, targets, weights."""

import math
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax import config
from imagen_jax.config.diffusion import TimeSampling
from imagen_jax.diffusion import loss as loss_module
from imagen_jax.diffusion import prediction, schedules
from imagen_jax.diffusion.loss import draw_time, weight

loss = jax.jit(loss_module.loss, static_argnames=("predict", "diffusion"))
draw_logsnr = jax.jit(loss_module.draw_logsnr, static_argnames=("batch", "diffusion"))

LEVELS = jnp.float32([-20.0, -6.0, 0.0, 1.5, 1.7, 6.0, 20.0])
SNR = np.exp(np.asarray(LEVELS, np.float64))
KEY = jax.random.key(3)
X0 = jax.random.uniform(jax.random.key(4), (16, 16, 16, 3), minval=-1, maxval=1)


def zero(z: jax.Array, logsnr: jax.Array) -> jax.Array:
    return jnp.zeros_like(z)


def weights(loss_weight: config.LossWeight, predicts: config.Predicts) -> np.ndarray:
    diffusion = config.Diffusion(
        loss_weight=loss_weight,
        predicts=predicts,
        schedule=config.NoiseSchedule(logsnr_min=-10.0, logsnr_max=10.0),
    )
    return np.asarray(weight(LEVELS, 2 * jnp.ones_like(LEVELS), diffusion=diffusion))


def test_a_zero_network_that_predicts_eps_loses_one() -> None:
    terms = loss(zero, X0, KEY, diffusion=config.Diffusion())
    assert terms.per_example.shape == terms.logsnr.shape == (16,)
    np.testing.assert_allclose(terms.per_example, 1.0, atol=0.3)
    np.testing.assert_allclose(terms.per_example.mean(), 1.0, atol=0.05)


@pytest.mark.parametrize("predicts", get_args(config.Predicts))
def test_the_truth_loses_nothing_and_zero_loses_the_target(predicts: config.Predicts) -> None:
    def truth(z: jax.Array, logsnr: jax.Array) -> jax.Array:
        return prediction.from_x0(X0, z, logsnr, predicts=predicts)

    @jax.jit
    def losses() -> tuple[jax.Array, ...]:
        diffusion, seen = config.Diffusion(predicts=predicts), []
        right = loss_module.loss(truth, X0, KEY, diffusion=diffusion)
        wrong = loss_module.loss(
            lambda z, level: zero(seen.append(truth(z, level)) or z, level),
            X0,
            KEY,
            diffusion=diffusion,
        )
        return right.per_example, wrong.per_example, jnp.mean(seen[0] ** 2, (1, 2, 3))

    right, wrong, expected = losses()
    np.testing.assert_allclose(right, 0, atol=1e-6)
    np.testing.assert_allclose(wrong, expected, rtol=1e-4)


@pytest.mark.parametrize("loss_weight", get_args(config.LossWeight))
def test_the_weight_multiplies_the_error(loss_weight: config.LossWeight) -> None:
    small, key = X0[:4, :2, :2], jax.random.fold_in(KEY, 1)
    plain = loss(zero, small, key, diffusion=config.Diffusion(predicts="v"))
    diffusion = config.Diffusion(predicts="v", loss_weight=loss_weight)
    terms = loss(zero, small, key, diffusion=diffusion)
    ratio = terms.per_example / plain.per_example
    np.testing.assert_array_equal(terms.logsnr, plain.logsnr)
    # cosine: logsnr = -2 ln tan(angle), so -dlogsnr/dt = 4a / sin(2 angle) = 4a cosh(logsnr / 2),
    # and a is pi / 2 but for 1e-4
    width = 2 * math.pi * np.cosh(np.asarray(plain.logsnr) / 2)
    expected = weight(plain.logsnr, jnp.float32(width), diffusion=diffusion)
    np.testing.assert_allclose(ratio, expected, rtol=1e-3)


@pytest.mark.parametrize("predicts", get_args(config.Predicts))
def test_the_default_weight_is_exactly_one(predicts: config.Predicts) -> None:
    np.testing.assert_array_equal(weights("plain", predicts), 1.0)


def test_min_snr_is_the_minimum() -> None:
    eps = weights("min_snr", "eps")
    np.testing.assert_array_equal(eps[SNR <= 5.0], 1.0)
    np.testing.assert_allclose(eps[SNR > 5.0], 5.0 / SNR[SNR > 5.0], rtol=1e-5)
    np.testing.assert_allclose(weights("min_snr", "x0"), np.minimum(SNR, 5), rtol=1e-5)
    np.testing.assert_allclose(weights("min_snr", "v"), np.minimum(SNR, 5) / (SNR + 1), rtol=1e-5)


def test_sigmoid_on_eps_is_a_sigmoid_in_logsnr() -> None:
    expected = 2 / (1 + np.exp(np.asarray(LEVELS, np.float64) + 1))  # bias -1, width 2
    np.testing.assert_allclose(weights("sigmoid", "eps"), expected, rtol=1e-5)


def test_edm_on_x0_is_its_table() -> None:
    sigma = np.exp(-np.asarray(LEVELS, np.float64) / 2)
    expected = (sigma**2 + 0.25) / (sigma * 0.5) ** 2
    np.testing.assert_allclose(weights("edm", "x0"), expected, rtol=1e-5)


@pytest.mark.parametrize("loss_weight", sorted(set(get_args(config.LossWeight)) - {"plain"}))
def test_every_weight_means_the_same_for_x0(loss_weight: config.LossWeight) -> None:
    """x0 error = eps error / SNR = v error / (1 + SNR)."""
    of_x0 = weights(loss_weight, "x0")
    np.testing.assert_allclose(weights(loss_weight, "eps") * SNR, of_x0, rtol=1e-4)
    np.testing.assert_allclose(weights(loss_weight, "v") * (1 + SNR), of_x0, rtol=1e-4)


def test_uniform_times_cover_the_unit_interval() -> None:
    t = draw_time(KEY, 20_000, stratified=False)
    assert t.min() < 5e-4
    assert t.max() > 1 - 5e-4
    np.testing.assert_allclose(np.histogram(t, 10, (0, 1))[0], 2000, atol=200)


def test_stratified_times_fill_every_stratum_and_each_example_sees_all() -> None:
    draws = jax.vmap(lambda key: draw_time(key, 8, stratified=True))(jax.random.split(KEY, 500))
    strata = np.sort(np.floor(np.asarray(draws) * 8), axis=1)
    np.testing.assert_array_equal(strata, np.tile(np.arange(8.0), (500, 1)))
    assert draws.min(axis=0).max() < 0.05
    assert draws.max(axis=0).min() > 0.95


@pytest.mark.parametrize("time_sampling", get_args(TimeSampling))
def test_widths_are_one_over_the_density(time_sampling: TimeSampling) -> None:
    """So that their mean against any function is its integral over logsnr: here, 1."""
    diffusion = config.Diffusion(time_sampling=time_sampling)
    level, width = draw_logsnr(KEY, 50_000, diffusion=diffusion)
    density = np.exp(-((level - 2.0) ** 2) / 2) / math.sqrt(2 * math.pi)
    np.testing.assert_allclose(np.mean(density * width), 1.0, atol=0.02)


def test_edm_levels_are_log_normal() -> None:
    level, _ = draw_logsnr(KEY, 50_000, diffusion=config.Diffusion(time_sampling="edm"))
    log_sigma = -np.asarray(level) / 2
    np.testing.assert_allclose([log_sigma.mean(), log_sigma.std()], [-1.2, 1.2], atol=0.02)


@pytest.mark.parametrize("time_sampling", get_args(TimeSampling))
def test_levels_stay_within_their_limits(time_sampling: TimeSampling) -> None:
    diffusion = config.Diffusion(
        time_sampling=time_sampling, schedule=config.NoiseSchedule(logsnr_min=-1.0, logsnr_max=1.0)
    )
    level, _ = draw_logsnr(KEY, 1000, diffusion=diffusion)
    assert np.abs(np.asarray(level)).max() <= 1.0


def test_the_schedule_reaches_the_levels() -> None:
    diffusion = config.Diffusion(schedule=config.NoiseSchedule(kind="linear"))
    level, _ = draw_logsnr(KEY, 100, diffusion=diffusion)
    t = draw_time(KEY, 100, stratified=False)
    np.testing.assert_allclose(level, schedules.logsnr(t, schedule=diffusion.schedule), rtol=1e-5)
