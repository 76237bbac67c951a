"""Schedules: the specification's float64 table, and the laws of the forward process."""

import math
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax import config
from imagen_jax.diffusion import loss, schedules

SCHEDULES = get_args(config.ScheduleKind)
TIMES = (0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.9, 1.0)
LOGSNR = {  # float64, from the closed forms, or from products of 1,000 betas; limits +-20
    "cosine": (12.855, 8.301, 5.083, 3.685, 2.248, 1.348, 0.0, -3.685, -20.0),
    "cosine_iddpm": (10.095, 7.367, 4.821, 3.551, 2.183, 1.306, -0.025, -3.702, -20.0),
    "linear": (9.115, 6.216, 3.496, 2.157, 0.656, -0.421, -2.455, -8.149, -10.050),
    "linear_approx": (9.115, 6.812, 3.672, 2.251, 0.709, -0.378, -2.414, -8.100, -10.0),
    "cosine_betas": (9.345, 7.235, 4.788, 3.534, 2.175, 1.301, -0.028, -3.704, -19.836),
    "linear_betas": (8.423, 6.122, 3.476, 2.146, 0.649, -0.427, -2.467, -8.200, -10.118),
}
SIGMA = {
    "cosine": (0.0016, 0.0158, 0.0785, 0.1565, 0.3090, 0.4540, 0.7071, 0.9877, 1.0),
    "cosine_iddpm": (0.0064, 0.0251, 0.0894, 0.1671, 0.3183, 0.4616, 0.7114, 0.9879, 1.0),
    "linear": (0.0105, 0.0446, 0.1716, 0.3221, 0.5845, 0.7770, 0.9597, 0.9999, 1.0),
    "linear_approx": (0.0105, 0.0332, 0.1574, 0.3086, 0.5742, 0.7704, 0.9581, 0.9998, 1.0),
    "cosine_betas": (0.0093, 0.0268, 0.0909, 0.1684, 0.3194, 0.4626, 0.7120, 0.9879, 1.0),
    "linear_betas": (0.0148, 0.0468, 0.1732, 0.3235, 0.5858, 0.7780, 0.9601, 0.9999, 1.0),
}


def at(times, **options) -> jax.Array:
    times = jnp.asarray(times, jnp.float32)
    return schedules.logsnr(times, schedule=config.NoiseSchedule(**options))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_levels_match_the_table(schedule: config.ScheduleKind) -> None:
    level = at(TIMES, kind=schedule)
    alpha, sigma = schedules.alpha_sigma(level)
    assert sigma.shape == (len(TIMES), 1, 1, 1)
    np.testing.assert_allclose(level, LOGSNR[schedule], atol=2e-3)
    np.testing.assert_allclose(sigma[:, 0, 0, 0], SIGMA[schedule], atol=1e-4)
    np.testing.assert_allclose(alpha**2 + sigma**2, 1.0, atol=1e-6)


@pytest.mark.parametrize("shift", [0.0, 2 * math.log(64 / 256)])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_levels_fall_and_stay_finite(schedule: config.ScheduleKind, shift: float) -> None:
    level = at(np.linspace(0, 1, 2001), kind=schedule, shift=shift)
    assert np.isfinite(level).all()
    steps = np.diff(np.asarray(level, np.float64))
    assert (steps <= 0).all()
    inside = np.abs(np.asarray(level)) < 20
    assert (steps[inside[1:] & inside[:-1]] < 0).all()
    assert (np.abs(np.asarray(level)) <= 20).all()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_slopes_are_finite_at_both_ends(schedule: config.ScheduleKind) -> None:
    slope = jax.vmap(jax.grad(lambda t: at(t[None], kind=schedule)[0]))(jnp.array([0.0, 1.0]))
    assert np.isfinite(slope).all()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_shift_moves_the_middle(schedule: config.ScheduleKind) -> None:
    shift = 2 * math.log(64 / 256)
    times = TIMES[3:7]
    moved = at(times, kind=schedule, shift=shift)
    np.testing.assert_allclose(moved, np.add(LOGSNR[schedule][3:7], shift), atol=2e-3)


@pytest.mark.parametrize("shift", [-2.0, 2.0])
def test_a_shift_keeps_the_limits(shift: float) -> None:
    limits = at([0.0, 1.0], shift=shift, logsnr_min=-15.0, logsnr_max=10.0)
    np.testing.assert_allclose(limits, [10.0, -15.0], atol=1e-2)


def test_one_noising_step_after_another_is_the_marginal() -> None:
    s, t = at([0.0, 0.1, 0.5, 0.9]), at([0.05, 0.3, 0.55, 1.0])
    (alpha_s, sigma_s), (alpha_t, sigma_t) = map(schedules.alpha_sigma, (s, t))
    variance = schedules.transition_variance(s, t)
    composed = (alpha_t / alpha_s * sigma_s) ** 2 + variance
    np.testing.assert_allclose(composed, sigma_t**2, rtol=1e-5)
    np.testing.assert_allclose(np.sqrt(variance[2, 0, 0, 0]), 0.396, atol=5e-4)


def test_a_tiny_step_keeps_its_variance() -> None:
    """1 - exp(-1e-5) must not cancel in float32."""
    variance = schedules.transition_variance(jnp.float32([1e-5]), jnp.float32([0.0]))
    np.testing.assert_allclose(variance, 0.5e-5, rtol=1e-3)


def test_add_noise_gives_the_marginal() -> None:
    x0, eps = jnp.full((2, 1, 1, 1), 3.0), jnp.full((2, 1, 1, 1), 5.0)
    z = schedules.add_noise(x0, eps, jnp.float32([20.0, 2 * math.log(0.6 / 0.8)]))
    np.testing.assert_allclose(z[:, 0, 0, 0], [3.0, 0.6 * 3 + 0.8 * 5], atol=3e-4)


def straight(t: jax.Array) -> jax.Array:
    """A schedule that no file of the package knows: even in logsnr."""
    return 10.0 - 20.0 * t


def test_a_function_handed_over_is_a_schedule() -> None:
    times = jnp.linspace(0.0, 1.0, 5)
    np.testing.assert_allclose(at(times, curve=straight), [10.0, 5.0, 0.0, -5.0, -10.0], atol=1e-5)
    moved = at(times, curve=straight, shift=2.0, logsnr_max=8.0)
    np.testing.assert_allclose(moved, [8.0, 7.0, 2.0, -3.0, -8.0], atol=1e-5)


def test_training_draws_its_levels_from_a_function_handed_over() -> None:
    """Its slope too: the density of a straight line is one over its length."""
    diffusion = config.Diffusion(schedule=config.NoiseSchedule(curve=straight))
    level, inverse_density = loss.draw_logsnr(jax.random.key(0), 1000, diffusion=diffusion)
    assert -10 <= float(level.min()) < -9 < 9 < float(level.max()) <= 10
    np.testing.assert_allclose(inverse_density, 20.0, rtol=1e-5)
