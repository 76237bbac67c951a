"""Laws that every rule of a sampler obeys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian_samples import (
    COSINE,
    KINDS,
    Spy,
    constant_step,
    gaussian,
    keys_of,
    run,
    sample,
)

from imagen_jax import config
from imagen_jax.diffusion import guidance, samplers, schedules
from imagen_jax.diffusion.samplers import StepInputs

CHAINS = [(k, None) for k in KINDS] + [
    ("ancestral", "karras"),
    ("ddim", "logsnr"),
    ("dpmpp_2m", "logsnr"),
    ("dpmpp_2m", "karras"),
    ("edm_heun", "time"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_guidance_of_weight_one_is_the_conditional_step(kind: config.SamplerKind) -> None:
    """And of weight zero the unconditional one, whatever the other half says."""
    cond, uncond = gaussian(0.5), gaussian(2.0)
    t = jnp.array([-3.0, 0.0, 4.0])
    z = jnp.array([1.3, -0.7, 0.2]).reshape(3, 1, 1, 1)

    def stepped(denoise) -> jax.Array:
        x0 = denoise(z, t)
        step = constant_step(z, x0, 0.9 * x0, (t - 1.0, t, t + 1.0))
        return samplers.RULES[kind](step, denoise)

    for weight, alone in ((jnp.float32(1.0), cond), (jnp.float32(0.0), uncond)):

        def guided(z: jax.Array, logsnr: jax.Array, weight=weight) -> jax.Array:
            return guidance.guide(cond(z, logsnr), uncond(z, logsnr), weight=weight)

        np.testing.assert_allclose(stepped(guided), stepped(alone), rtol=1e-5, atol=1e-6)
    assert np.abs(stepped(cond) - stepped(uncond)).max() > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_one_step_is_the_denoisers_image_of_pure_noise(kind: config.SamplerKind) -> None:
    """The first level is noise alone, and the last step adds none."""
    image = run(lambda z, _: 2 * z + 1, kind, 1, shape=(64, 64, 1))
    np.testing.assert_allclose([image.mean(), image.std()], [1.0, 2.0], atol=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_of_no_length_stays_and_one_to_the_end_is_the_image(
    kind: config.SamplerKind,
) -> None:
    """Of the last level, logsnr 20, noise has the standard deviation e^-10."""
    t = np.array([-3.0, 0.0, 4.0])
    denoise = lambda z, _: jnp.full_like(z, 0.4)  # noqa: E731
    levels = jnp.float32([t, t, t])
    z = np.array([1.3, -0.7, 0.2])
    stay = constant_step(z, np.full(3, 0.4), np.full(3, 0.4), levels)
    np.testing.assert_allclose(samplers.RULES[kind](stay, denoise).ravel(), z, rtol=1e-5, atol=1e-6)
    end = stay._replace(logsnr_s=jnp.full(3, 20.0), stochasticity=jnp.float32(0.0))
    np.testing.assert_allclose(samplers.RULES[kind](end, denoise).ravel(), 0.4, atol=1e-3)


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
