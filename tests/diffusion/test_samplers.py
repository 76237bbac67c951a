"""Samplers against closed forms.

Data N(0, s^2) has the denoiser alpha s^2 z / (alpha^2 s^2 + sigma^2).
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian_samples import (
    COSINE,
    KINDS,
    constant_step,
    gaussian,
    keys_of,
    level_grid,
    run,
)

from imagen_jax import config
from imagen_jax.diffusion import samplers, schedules
from imagen_jax.diffusion.samplers import StepInputs

FINAL_STD = {  # (steps, s): DDIM, ancestral gamma 0, 0.3, 1, 2M, Heun; float64 recursions
    (32, 0.5): (0.4765, 0.4532, 0.4690, 0.5123, 0.5029, 0.5078),
    (64, 0.5): (0.4881, 0.4739, 0.4830, 0.5067, 0.5015, 0.5018),
    (256, 0.5): (0.4970, 0.4927, 0.4953, 0.5018, 0.5002, 0.5001),
    (64, 1.0): (0.9809, 0.9649, 0.9749, 0.9997, 1.0001, 1.0029),
}
COLUMNS = {"ddim": 0, 0.0: 1, 0.3: 2, 1.0: 3, "dpmpp_2m": 4, "edm_heun": 5}


@functools.cache
def starting_noise() -> np.ndarray:
    """Of two images: a single step returns denoise(z), here z itself."""
    return run(lambda z, _: z, "ddim", 1, batch=2)


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "ancestral"])
def test_final_std_of_deterministic_samplers(kind: config.SamplerKind) -> None:
    """They are linear in the starting noise."""
    start = starting_noise()
    both = gaussian(jnp.float32([0.5, 1.0]).reshape(2, 1, 1, 1))
    gains = {steps: run(both, kind, steps, batch=2) / start for steps in (32, 64, 256)}
    for (steps, s), row in FINAL_STD.items():
        gain = gains[steps][{0.5: 0, 1.0: 1}[s]]
        np.testing.assert_allclose(gain, row[COLUMNS[kind]], atol=2e-3)


def test_final_std_of_ancestral_sampling() -> None:
    """The variance recursion: each step is linear in z_t and adds its own noise."""

    def coefficients(steps: int, s: float, gamma: float) -> tuple[jax.Array, ...]:
        levels = level_grid(config.Sampler(steps=steps), COSINE)
        z = jnp.ones((steps, 1, 1, 1))
        x0 = gaussian(s)(z, levels[:-1])
        spans = levels[:-1], levels[:-1], levels[1:]
        step = StepInputs(z, x0, x0, *spans, keys_of(1), jnp.float32(gamma))
        return *samplers.ancestral_mean_std(step), x0

    gammas = (0.0, 0.3, 1.0)
    table = jax.jit(lambda: {(*k, g): coefficients(*k, g) for k in FINAL_STD for g in gammas})()
    for (steps, s, gamma), row in table.items():
        gain, std, x0 = (np.float64(x).ravel() for x in row)
        variance = 1.0
        for i in range(steps - 1):
            variance = gain[i] ** 2 * variance + std[i] ** 2
        expected = FINAL_STD[steps, s][COLUMNS[gamma]]
        np.testing.assert_allclose(np.sqrt(variance) * x0[-1], expected, atol=2e-3)


def test_ancestral_samples_have_the_std_of_the_recursion() -> None:
    images = run(gaussian(0.5), "ancestral", 32, shape=(512, 512, 1), stochasticity=0.3)
    np.testing.assert_allclose(images.std(), FINAL_STD[32, 0.5][COLUMNS[0.3]], atol=3e-3)


def test_ddim_derives_eps_again_after_thresholding() -> None:
    z, x0, t, s = 1.3, 0.4, -1.0, 2.0  # x0 is not what eps implied: it was clipped
    got = samplers.ddim_step(constant_step(z, x0, x0, (t, t, s)), gaussian(0.5))
    alpha, sigma = (lambda x: np.sqrt(1 / (1 + np.exp(-x)))), lambda x: np.sqrt(1 / (1 + np.exp(x)))
    expected = alpha(s) * x0 + sigma(s) / sigma(t) * (z - alpha(t) * x0)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_2m_extrapolates_from_the_step_before() -> None:
    """r is the step before over this one: twice here, so D = 5/4 x0 - 1/4 x0_prev."""
    before, t, s = -5.0, -1.0, 1.0
    step = constant_step(1.3, 0.4, 0.2, (before, t, s))
    got = samplers.dpmpp_2m_step(step, gaussian(0.5))
    alpha_s, sigma_s, sigma_t = np.sqrt(1 / (1 + np.exp([-s, s, t])))
    estimate = 1.25 * 0.4 - 0.25 * 0.2
    expected = sigma_s / sigma_t * 1.3 - alpha_s * (np.exp(-(s - t) / 2) - 1) * estimate
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
def test_ancestral_noise_is_a_standard_deviation(gamma: float) -> None:
    t, s = np.array([-20.0, -1.0, 4.0]), np.array([-9.0, 2.0, 20.0])
    step = constant_step(np.zeros(3), np.zeros(3), np.zeros(3), (t, t, s))
    step = step._replace(stochasticity=jnp.float32(gamma))
    _, std = samplers.ancestral_mean_std(step)
    lost = 1 - np.exp(t - s)
    small, large = lost / (1 + np.exp(s)), lost / (1 + np.exp(t))
    expected = np.exp((1 - gamma) * np.log(small) / 2 + gamma * np.log(large) / 2)
    np.testing.assert_allclose(std.ravel(), expected, rtol=1e-4)
    blank = jnp.zeros((3, 64, 64, 1))
    image = step._replace(z_t=blank, x0=blank)
    noise = samplers.ancestral_step(image, gaussian(0.5))
    np.testing.assert_allclose(noise.std(axis=(1, 2, 3)), expected, rtol=0.05)


def test_times_run_from_one_to_zero() -> None:
    levels = level_grid(config.Sampler(steps=4), COSINE)
    np.testing.assert_allclose(levels[jnp.array([0, 4])], [-20.0, 20.0], atol=1e-2)
    np.testing.assert_allclose(levels[2], 0.0, atol=1e-3)


def test_noise_is_fresh_at_every_step() -> None:
    """Were a step's noise that of another step or of the start, the increments would correlate."""
    noises = []

    def denoise(z: jax.Array, logsnr: jax.Array) -> jax.Array:
        noise = z / schedules.alpha_sigma(logsnr)[1]
        jax.debug.callback(lambda x: noises.append(np.ravel(x)), noise, ordered=True)
        return jnp.zeros_like(z)

    # gamma 1 with x0 = 0: z_s = a z_t + std * fresh; what is fresh is the regression's residual
    run(denoise, "ancestral", 4, shape=(64, 64, 1), stochasticity=1.0)
    fresh = [noises[0]]
    for old, new in itertools.pairwise(noises):
        levels = level_grid(config.Sampler(steps=4), COSINE)
        i = len(fresh) - 1
        zeros = np.zeros(1)
        step = constant_step(np.ones(1), zeros, zeros, (levels[i], levels[i], levels[i + 1]))
        gain, _ = samplers.ancestral_mean_std(step._replace(stochasticity=jnp.float32(1.0)))
        (_, sigma_t), (_, sigma_s) = (schedules.alpha_sigma(levels[j : j + 1]) for j in (i, i + 1))
        fresh.append(new * float(sigma_s.item()) - float((gain * sigma_t).item()) * old)
    off_diagonal = np.corrcoef(fresh) - np.eye(4)
    assert np.abs(off_diagonal).max() < 0.06


def test_low_precision_denoisers_are_sampled_in_float32() -> None:
    got = run(lambda z, _: z.astype(jnp.bfloat16), "edm_heun", 2)
    assert got.dtype == np.float32


def test_the_schedule_reaches_the_sampler() -> None:
    linear = dataclasses.replace(COSINE, schedule=config.NoiseSchedule(kind="linear"))
    levels = level_grid(config.Sampler(steps=2), linear)
    np.testing.assert_allclose(levels[:2], [-10.05, -2.455], atol=2e-3)
