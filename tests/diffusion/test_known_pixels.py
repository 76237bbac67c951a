"""Sampling from an image and round known pixels: the levels are right, at every call."""

import functools
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax import config, rng
from imagen_jax.diffusion import samplers, sampling_loop, schedules, spacing
from imagen_jax.diffusion.samplers import SamplerParams

KINDS = get_args(config.SamplerKind)
GRIDS = [(kind, None) for kind in KINDS] + [("dpmpp_2m", "logsnr"), ("ancestral", "karras")]
COSINE = config.Diffusion()
SIDE = 96  # of images whose standard deviation is measured: known to 0.5 %


def keys_of(batch: int) -> jax.Array:
    return rng.fold_each(rng.root(3), "test", jnp.arange(batch))


def levels_of(sampler: config.Sampler):
    return functools.partial(spacing.logsnr_at, sampler=sampler, diffusion=COSINE)


@functools.cache
def program(denoise, kind, asked):
    """The loop as one program, whatever the numbers of the sampler are."""
    levels, rule = levels_of(config.Sampler(kind=kind, spacing=asked)), samplers.RULES[kind]

    @jax.jit
    def run(image, known, params) -> sampling_loop.SamplerState:
        state = sampling_loop.init_state(keys_of(image.shape[0]), params, image, levels=levels)
        pixels = None if known is None else sampling_loop.KnownPixels(*known)
        steps = sampling_loop.Steps(rule, levels)
        return sampling_loop.sample(denoise, state, params, steps=steps, known=pixels)

    return run


def sample(denoise, sampler: config.Sampler, image, *, first: int = 0, known=None, repeats=1):
    """From `image`, noised as before step `first`; the last state."""
    params = SamplerParams.from_config(sampler, num_resamples=repeats)
    run = program(denoise, sampler.kind, sampler.spacing)
    return run(image, known, params._replace(first=np.int32(first)))


def halve(z: jax.Array, _: jax.Array) -> jax.Array:
    return 0.5 * z


@pytest.mark.parametrize(("kind", "asked"), GRIDS)
def test_a_image_enters_a_step_with_the_noise_of_its_level(kind, asked) -> None:
    """Both coefficients: signal from the difference of two images, noise from what is left."""
    sampler = config.Sampler(kind=kind, steps=8, spacing=asked)
    flat = jnp.full((1, SIDE, SIDE, 1), 0.7)
    options = {"sampler": sampler, "diffusion": COSINE}
    levels = spacing.logsnr_at(jnp.arange(9), 8, **options)
    for first in (1, 4, 7):
        params = SamplerParams.from_config(sampler)._replace(first=np.int32(first))
        with_it, without = (
            sampling_loop.init_state(keys_of(1), params, shown, levels=levels_of(sampler)).z
            for shown in (flat, 0 * flat)
        )
        alpha, sigma = (float(x[0, 0, 0, 0]) for x in schedules.alpha_sigma(levels[first][None]))
        np.testing.assert_allclose(with_it - without, 0.7 * alpha, atol=1e-6)
        np.testing.assert_allclose(without.std(), sigma, rtol=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_no_step_gives_the_image_back(kind: config.SamplerKind) -> None:
    image = jax.random.uniform(jax.random.key(0), (2, 4, 4, 3), minval=-1)
    sampler = config.Sampler(kind=kind, steps=5)
    state = sample(halve, sampler, image, first=5)
    np.testing.assert_array_equal(state.x0, image)


NOISE: list[np.ndarray] = []  # mean and deviation at each call of `know_nothing`


def know_nothing(z: jax.Array, logsnr: jax.Array) -> jax.Array:
    """Black, whatever it sees; it notes the noise on the left half, whose pixels are 0.6."""
    alpha, sigma = schedules.alpha_sigma(logsnr)
    noise = (z[:, :, : SIDE // 2] - alpha * 0.6) / sigma
    jax.debug.callback(lambda *r: NOISE.append(np.float64(r)), noise.mean(), noise.std())
    return jnp.zeros_like(z)


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize(("kind", "asked"), GRIDS)
def test_known_pixels_have_the_level_that_the_network_is_told(kind, asked, repeats) -> None:
    """However wrong the network is about them; in the end they are exact."""
    NOISE.clear()
    pixels = jnp.full((1, SIDE, SIDE, 3), 0.6)
    mask = jnp.broadcast_to((jnp.arange(SIDE) < SIDE // 2)[None, None, :, None], (1, SIDE, SIDE, 1))
    sampler = config.Sampler(kind=kind, steps=5, stochasticity=0.0, spacing=asked)
    state = sample(know_nothing, sampler, pixels, known=(pixels, mask), repeats=repeats)
    jax.effects_barrier()
    steps = 4 * repeats + 1
    assert len(NOISE) == (2 * steps - 1 if kind == "edm_heun" else steps)
    mean, std = np.stack(NOISE).T
    np.testing.assert_allclose(mean, 0.0, atol=0.03)
    np.testing.assert_allclose(std, 1.0, atol=0.02)
    np.testing.assert_array_equal(state.x0[:, :, : SIDE // 2], np.float32(0.6))
    np.testing.assert_array_equal(state.x0[:, :, SIDE // 2 :], 0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_known_is_image_to_image_and_all_known_the_image(
    kind: config.SamplerKind,
) -> None:
    image = jax.random.uniform(jax.random.key(0), (2, 4, 4, 3), minval=-1)
    sampler = config.Sampler(kind=kind, steps=4, stochasticity=1.0)

    def around(known: bool) -> jax.Array:
        mask = jnp.full((2, 4, 4, 1), known)
        return sample(halve, sampler, image, first=1, known=(image, mask)).x0

    free = sample(halve, sampler, image, first=1).x0
    np.testing.assert_allclose(around(False), free, atol=1e-6)
    np.testing.assert_array_equal(around(True), image)


@pytest.mark.parametrize(("s", "t"), [(6.0, 5.0), (0.5, -0.5), (3.0, -4.0), (-8.0, -15.0)])
def test_noise_put_back_leads_to_the_level(s: float, t: float) -> None:
    """q(z_t given z_s) after q(z_s given x0) is q(z_t given x0)."""
    x0 = jnp.full((2, SIDE, SIDE, 3), 0.5)
    level_s, level_t = jnp.full(2, s), jnp.full(2, t)
    keys = keys_of(2)
    z_s = schedules.add_noise(x0, rng.normal_each(keys, x0.shape[1:]), level_s)
    z_t = sampling_loop.renoise(z_s, rng.fold_keys(keys, "other"), level_s, level_t)
    alpha, sigma = (float(x[0, 0, 0, 0]) for x in schedules.alpha_sigma(level_t))
    np.testing.assert_allclose(z_t.std(), sigma, rtol=0.015)
    np.testing.assert_allclose(z_t.mean(), 0.5 * alpha, atol=0.015)


def test_repeats_draw_the_unknown_from_what_is_known() -> None:
    """Pairs of pixels with correlation 0.9: given 1 the other has mean 0.9 and variance 0.19."""
    covariance = jnp.array([[1.0, 0.9], [0.9, 1.0]])

    def denoise(z: jax.Array, logsnr: jax.Array) -> jax.Array:
        alpha, sigma = (x[0, 0, 0, 0] for x in schedules.alpha_sigma(logsnr))
        gain = alpha * covariance @ jnp.linalg.inv(alpha**2 * covariance + sigma**2 * jnp.eye(2))
        return jnp.einsum("vw,bhwc->bhvc", gain, z)

    pixels = jnp.ones((1, 4096, 2, 1))
    known = (
        pixels,
        jnp.broadcast_to(jnp.array([True, False])[None, None, :, None], (1, 4096, 2, 1)),
    )
    sampler = config.Sampler(kind="ancestral", steps=128, stochasticity=0.5)
    once, often = (
        np.float64(sample(denoise, sampler, pixels, known=known, repeats=n).x0[0, :, 1, 0])
        for n in (1, 12)
    )
    assert abs(often.mean() - 0.9) < 0.02
    assert abs(often.var() - 0.19) < 0.02
    assert abs(once.mean() - 0.9) > 0.2  # what repeats are for
