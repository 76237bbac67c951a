"""Samplers against closed forms.

Data N(0, s^2) has the denoiser alpha s^2 z / (alpha^2 s^2 + sigma^2).
"""

import dataclasses
import functools
import itertools
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax import config, rng
from imagen_jax.diffusion import samplers, sampling_loop, schedules, spacing
from imagen_jax.diffusion.samplers import SamplerParams, StepInputs

KINDS = get_args(config.SamplerKind)
COSINE = config.Diffusion()
PIXEL = (1, 1, 1)
FINAL_STD = {  # (steps, s): DDIM, ancestral gamma 0, 0.3, 1, 2M, Heun; float64 recursions
    (32, 0.5): (0.4765, 0.4532, 0.4690, 0.5123, 0.5029, 0.5078),
    (64, 0.5): (0.4881, 0.4739, 0.4830, 0.5067, 0.5015, 0.5018),
    (256, 0.5): (0.4970, 0.4927, 0.4953, 0.5018, 0.5002, 0.5001),
    (64, 1.0): (0.9809, 0.9649, 0.9749, 0.9997, 1.0001, 1.0029),
}
COLUMNS = {"ddim": 0, 0.0: 1, 0.3: 2, 1.0: 3, "dpmpp_2m": 4, "edm_heun": 5}


def keys_of(batch: int) -> jax.Array:
    return rng.fold_each(rng.root(1), "test", jnp.arange(batch))


def gaussian(s):
    """The exact denoiser of N(0, s^2)."""

    def denoise(z: jax.Array, logsnr: jax.Array) -> jax.Array:
        alpha, sigma = schedules.alpha_sigma(logsnr)
        return alpha * s**2 * z / (alpha**2 * s**2 + sigma**2)

    return denoise


def run(denoise, kind: str, steps: int, shape=PIXEL, **options) -> np.ndarray:
    """A jitted run with one key (`batch` of them) on the default schedule."""
    batch = options.pop("batch", 1)
    sampler = config.Sampler(kind=kind, steps=steps, **options)

    @jax.jit
    def sample_all() -> jax.Array:
        keys = keys_of(batch)
        return sample(denoise, keys, shape=shape, sampler=sampler, diffusion=COSINE)

    return np.asarray(sample_all())


@functools.cache
def starting_noise() -> np.ndarray:
    """Of two images: a single step returns denoise(z), here z itself."""
    return run(lambda z, _: z, "ddim", 1, batch=2)


def sample(denoise, keys, *, shape, sampler, diffusion=COSINE) -> jax.Array:
    """All steps, from pure noise."""
    params, blank = SamplerParams.from_config(sampler), jnp.zeros((*keys.shape, *shape))
    levels = functools.partial(spacing.logsnr_at, sampler=sampler, diffusion=diffusion)
    start = sampling_loop.init_state(keys, params, blank, levels=levels)
    rule = samplers.RULES[sampler.kind]
    return sampling_loop.sample(denoise, start, params, levels=levels, step_rule=rule).x0


def level_grid(sampler: config.Sampler, diffusion: config.Diffusion) -> jax.Array:
    numbers = jnp.arange(sampler.steps + 1)
    return spacing.logsnr_at(numbers, sampler.steps, sampler=sampler, diffusion=diffusion)


class Spy:
    """Records the level, mean and standard deviation of each call's z, given the true x0."""

    def __init__(self, denoise, x0: float = 0.0) -> None:
        self.calls, self.denoise, self.x0 = [], denoise, x0

    def __call__(self, z: jax.Array, logsnr: jax.Array) -> jax.Array:
        alpha, sigma = schedules.alpha_sigma(logsnr)
        noise = (z - alpha * self.x0) / sigma
        record = (logsnr[0], noise.mean(), noise.std(), z.std())
        jax.debug.callback(lambda *r: self.calls.append(np.float64(r)), *record, ordered=True)
        return self.denoise(z, logsnr)


def constant_step(z, x0, x0_prev, levels) -> StepInputs:
    """A step on (b, 1, 1, 1) arrays; levels are (before, t, s)."""
    z, x0, x0_prev = (jnp.float32(x).reshape(-1, 1, 1, 1) for x in (z, x0, x0_prev))
    before, t, s = (jnp.float32(x).reshape(-1) for x in levels)
    return StepInputs(z, x0, x0_prev, before, t, s, keys_of(z.shape[0]), jnp.float32(0.3))


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


@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_denoiser_stays_on_the_forward_marginal(kind: config.SamplerKind) -> None:
    """Point-mass data: every z a sampler shows is alpha x0 + sigma eps, and x0 comes back."""
    spy = Spy(lambda z, _: jnp.full_like(z, 0.7), x0=0.7)
    images = run(spy, kind, 6, shape=(128, 128, 1), stochasticity=0.0)
    calls = np.stack(spy.calls)
    np.testing.assert_array_equal(images, np.float32(0.7))
    np.testing.assert_allclose(calls[:, 1], 0.0, atol=0.03)
    np.testing.assert_allclose(calls[:, 2], 1.0, atol=0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_gaussian_marginals_converge_with_steps(kind: config.SamplerKind) -> None:
    errors = []
    for steps in (16, 64):
        spy = Spy(gaussian(0.5))
        run(spy, kind, steps, shape=(64, 64, 1))
        level, std = np.stack(spy.calls)[:, [0, 3]].T
        alpha_squared = 1 / (1 + np.exp(-level))
        errors.append(np.abs(std / np.sqrt(alpha_squared * 0.25 + 1 - alpha_squared) - 1).max())
    assert errors[1] < 0.05
    assert errors[1] < max(errors[0] / 1.5, 0.03)  # a std of 4096 values is known to 0.011


@pytest.mark.parametrize(("kind", "order"), [("ddim", 1.0), ("dpmpp_2m", 2.0), ("edm_heun", 2.0)])
def test_convergence_order(kind: config.SamplerKind, order: float) -> None:
    """On a benign range of levels the error against the exact flow falls as 1 / steps^order."""
    diffusion = config.Diffusion(schedule=config.NoiseSchedule(logsnr_min=-1.5, logsnr_max=1.5))
    denoise, rule = gaussian(0.5), samplers.RULES[kind]

    def error(steps: int) -> jax.Array:
        levels = schedules.logsnr(jnp.linspace(1.0, 0.0, steps + 1), schedule=diffusion.schedule)[
            :, None
        ]
        before = jnp.concatenate([levels[:1], levels[:-2]])

        def body(carry, span):
            z, x0_prev, first = carry
            x0 = denoise(z, span[1])
            x0_prev = jnp.where(first, x0, x0_prev)
            step = StepInputs(z, x0, x0_prev, *span, keys_of(1), jnp.float32(0.3))
            return (rule(step, denoise), x0, False), None

        start = jnp.ones((1, 1, 1, 1))
        spans = (before, levels[:-1], levels[1:])
        (z, _, _), _ = jax.lax.scan(body, (start, start, True), spans)
        alpha_squared = jax.nn.sigmoid(levels)
        variance = alpha_squared * 0.25 + 1 - alpha_squared
        return jnp.abs(z[0, 0, 0, 0] - jnp.sqrt(variance[-1, 0] / variance[0, 0]))

    coarse, fine = jax.jit(lambda: (error(8), error(32)))()
    np.testing.assert_allclose(np.log2(coarse / fine) / 2, order, atol=0.3)


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
    image = step._replace(z_t=jnp.zeros((3, 64, 64, 1)))
    noise = samplers.ancestral_step(image, gaussian(0.5))
    np.testing.assert_allclose(noise.std(axis=(1, 2, 3)), expected, rtol=0.05)


CHAINS = [(k, None) for k in KINDS] + [
    ("ancestral", "karras"),
    ("ddim", "logsnr"),
    ("dpmpp_2m", "logsnr"),
    ("dpmpp_2m", "karras"),
    ("edm_heun", "time"),
]


@pytest.mark.parametrize(("kind", "asked"), CHAINS)
def test_levels_form_one_chain(kind: config.SamplerKind, asked, monkeypatch) -> None:
    """Each step's s is the next step's t; the last step returns x0 as it is: here, its level."""
    chain, rule = [], samplers.RULES[kind]

    def spying(step: StepInputs, denoise) -> jax.Array:
        levels = (step.logsnr_prev[0], step.logsnr_t[0], step.logsnr_s[0])
        jax.debug.callback(lambda *r: chain.append(np.float64(r)), *levels, ordered=True)
        return rule(step, denoise)

    monkeypatch.setitem(samplers.RULES, kind, spying)
    spy = Spy(lambda z, logsnr: 0 * z + logsnr.reshape(-1, 1, 1, 1))
    image = run(spy, kind, 7, spacing=asked)
    before, t, s = np.stack(chain).T
    np.testing.assert_array_equal(s[:-1], t[1:])
    np.testing.assert_array_equal(before[1:], t[:-1])
    assert before[0] == t[0]
    called = np.array([call[0] for call in spy.calls])
    if kind == "edm_heun":  # two calls a step, but for the last
        assert len(called) == 2 * 7 - 1
        np.testing.assert_array_equal(called[1::2], called[2::2])
        called = called[::2]
    expected = {
        "time": schedules.logsnr(jnp.linspace(1.0, 0.0, 8), schedule=COSINE.schedule)[:-1],
        "logsnr": np.linspace(-10.2, 11.0, 7),
        "karras": -2 * 7 * np.log(np.linspace(80.0 ** (1 / 7), 0.002 ** (1 / 7), 7)),
    }[asked or ("karras" if kind == "edm_heun" else "time")]
    np.testing.assert_allclose(called, expected, atol=1e-3)
    np.testing.assert_array_equal(called, [*t, s[-1]])
    np.testing.assert_allclose(image.ravel(), called[-1], rtol=2e-7)  # compiled apart


def test_times_run_from_one_to_zero() -> None:
    levels = level_grid(config.Sampler(steps=4), COSINE)
    np.testing.assert_allclose(levels[jnp.array([0, 4])], [-20.0, 20.0], atol=1e-2)
    np.testing.assert_allclose(levels[2], 0.0, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_depends_on_its_own_key_alone(kind: config.SamplerKind) -> None:
    sampler = config.Sampler(kind=kind, steps=3, stochasticity=1.0)

    def sample_all(keys: jax.Array) -> jax.Array:
        return sample(gaussian(0.5), keys, shape=(2, 2, 3), sampler=sampler, diffusion=COSINE)

    keys = keys_of(5)
    sample_all = jax.jit(sample_all)
    image, other = sample_all(keys[:3]), sample_all(keys[2:])
    assert image.shape == (3, 2, 2, 3)
    assert image.dtype == jnp.float32
    np.testing.assert_allclose(image[2], other[0], atol=1e-6)
    assert len(np.unique(np.round(np.asarray([image, other]), 5))) == 5 * 2 * 2 * 3
    if kind == "ancestral":  # the only one that draws noise after the start
        np.testing.assert_allclose(sample_all(keys[2:3])[0], image[2], atol=1e-6)


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
