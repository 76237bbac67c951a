"""The low-resolution input: resized without a shift, noised by level and key alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax import config, rng
from imagen_jax.diffusion import noise_conditioning

augment_low_res = jax.jit(noise_conditioning.augment_low_res, static_argnames="options")
OPTIONS = config.NoiseConditioning()
LOW_RES = jax.random.uniform(jax.random.key(8), (4, 64, 64, 3), minval=-1, maxval=1)
KEYS = rng.fold_each(rng.root(0), "test", jnp.arange(4))


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_a_constant_stays_and_the_range_is_kept(factor: int) -> None:
    up = noise_conditioning.upsample(jnp.full((1, 4, 4, 3), 0.7), factor=factor)
    np.testing.assert_allclose(up, jnp.full((1, 4 * factor, 4 * factor, 3), 0.7), atol=1e-6)
    assert jnp.abs(noise_conditioning.upsample(LOW_RES, factor=factor)).max() <= 1.0


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("factor", [2, 4])
def test_a_ramp_is_unshifted_after_area_down_and_up(factor: int, axis: int) -> None:
    size = 8 * factor
    ramp = jnp.broadcast_to(jnp.linspace(-1.0, 1.0, size)[None, :, None, None], (1, size, size, 1))
    ramp = jnp.swapaxes(ramp, 1, axis)
    down = ramp.reshape(1, 8, factor, 8, factor, 1).mean(axis=(2, 4))
    up = noise_conditioning.upsample(down, factor=factor)
    inside = slice(factor, -factor)
    np.testing.assert_allclose(up[:, inside, inside], ramp[:, inside, inside], atol=1e-6)


def test_bilinear_weights_by_hand() -> None:
    up = noise_conditioning.upsample(jnp.float32([[0, 1], [2, 3]])[None, :, :, None], factor=2)
    expected = np.add.outer(2 * np.array([0, 0.25, 0.75, 1]), np.array([0, 0.25, 0.75, 1]))
    np.testing.assert_allclose(up[0, :, :, 0], expected, atol=1e-6)


def test_pictures_need_not_be_square() -> None:
    up = noise_conditioning.upsample(LOW_RES[:, :6, :10], factor=4)
    assert up.shape == (4, 24, 40, 3)
    np.testing.assert_allclose(
        up[:, :16, :32], noise_conditioning.upsample(LOW_RES, factor=4)[:, :16, :32], atol=1e-6
    )


@pytest.mark.parametrize(
    ("schedule", "sigmas"),
    [("cosine", (0.1565, 0.3090, 0.4540)), ("linear", (0.3221, 0.5845, 0.7770))],
)
def test_a_level_is_a_standard_deviation(schedule: config.ScheduleKind, sigmas: tuple) -> None:
    options = config.NoiseConditioning(schedule=config.NoiseSchedule(kind=schedule))
    level = jnp.float32([0.1, 0.2, 0.3])
    low_res = LOW_RES[:3]
    noised, aug_logsnr = augment_low_res(low_res, level, KEYS[:3], options=options)
    sigma = np.asarray(sigmas)
    np.testing.assert_allclose(jnp.sqrt(jax.nn.sigmoid(-aug_logsnr)), sigma, atol=1e-4)
    noise = noised - np.sqrt(1 - sigma**2).reshape(3, 1, 1, 1) * np.asarray(low_res)
    np.testing.assert_allclose(noise.std(axis=(1, 2, 3)), sigma, rtol=0.03)
    np.testing.assert_allclose(noise.mean(axis=(1, 2, 3)), 0.0, atol=0.02)


def test_level_zero_is_the_image_and_level_one_the_noise() -> None:
    level = jnp.float32([0.0, 0.0, 1.0, 1.0])
    noised, aug_logsnr = augment_low_res(LOW_RES, level, KEYS, options=OPTIONS)
    np.testing.assert_allclose(aug_logsnr, [20, 20, -20, -20], atol=1e-2)
    np.testing.assert_allclose(noised[:2], LOW_RES[:2], atol=3e-4)
    np.testing.assert_allclose(noised[2:], rng.normal_each(KEYS[2:], (64, 64, 3)), atol=3e-4)


def test_noise_depends_on_its_own_key_alone() -> None:
    level = jnp.full((4,), 0.2)
    together, _ = augment_low_res(LOW_RES, level, KEYS, options=OPTIONS)
    alone, _ = augment_low_res(LOW_RES[2:3], level[:1], KEYS[2:3], options=OPTIONS)
    np.testing.assert_allclose(together[2:3], alone, atol=1e-6)
    other, _ = augment_low_res(LOW_RES, level, KEYS[::-1], options=OPTIONS)
    assert (jnp.abs(other - together).max(axis=(1, 2, 3)) > 0.1).all()
