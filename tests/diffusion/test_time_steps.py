"""Discrete time steps: which ones samplers take, how a list ends, and known pixels that stay clean.

Denoisers are functions of a few lines here, so that each step's result is known.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax import config, discrete_schedule, rng
from imagen_jax.diffusion import samplers, sampling_loop
from imagen_jax.diffusion.samplers import Denoised, SamplerParams
from imagen_jax.diffusion.spacing import logsnr_at

DIFFUSION = config.Diffusion(
    schedule=config.NoiseSchedule(kind="cosine_betas"), variance="learned_range"
)
CLEANEST = float(discrete_schedule.levels("cosine")[0])
SHAPE = (2, 4, 4, 3)


def listed(*times: int, **changes: object) -> config.Sampler:
    return config.Sampler(timesteps=times, **changes)


def times_of(sampler: config.Sampler) -> list[int]:
    index = jnp.arange(sampler.steps)
    levels = logsnr_at(index, sampler.steps, sampler=sampler, diffusion=DIFFUSION)
    return [int(t) for t in discrete_schedule.step_of(levels, "cosine")]


@pytest.mark.parametrize("steps", [1, 27, 50, 80, 100, 150, 999, 1000])
def test_leading_steps_are_multiples_down_to_zero(steps: int) -> None:
    stride = 1000 // steps
    found = times_of(config.Sampler(spacing="leading", steps=steps))
    assert found == [stride * k for k in reversed(range(steps))]


def test_listed_steps_are_those_listed_and_lead_to_no_noise() -> None:
    sampler = listed(999, 600, 250, 3)
    assert sampler.steps == 4
    assert times_of(sampler) == [999, 600, 250, 3]
    end = logsnr_at(jnp.array([4]), 4, sampler=sampler, diffusion=DIFFUSION)
    assert np.exp(-end) == 0


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"timesteps": (5, 5)}, "do not fall"),
        ({"timesteps": (1000,)}, "timesteps"),
        ({"timesteps": (-1,)}, "timesteps"),
        ({"threshold": "static", "threshold_max": 1.5}, "threshold_max"),
    ],
)
def test_a_list_that_is_none_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        config.Sampler(**fields)


@pytest.mark.parametrize(
    ("steps", "strength", "kept"), [(100, 0.29, 28), (5, 0.7, 3), (5, 0.8, 4), (50, 1.0, 50)]
)
def test_strength_keeps_as_many_steps_rounded_down(steps: int, strength: float, kept: int) -> None:
    sampler = config.Sampler(spacing="leading", steps=steps)
    found = SamplerParams.from_config(sampler, strength=strength)
    assert found.last - found.first == kept


def test_pure_noise_has_the_deviation_of_1_whatever_the_first_step_is() -> None:
    sampler = listed(500, 0)
    levels = functools.partial(logsnr_at, sampler=sampler, diffusion=DIFFUSION)
    keys, params = (
        rng.fold_each(rng.root(0), "t", jnp.arange(2)),
        SamplerParams.from_config(sampler),
    )
    blank = jnp.zeros(SHAPE)
    of_level = sampling_loop.init_state(keys, params, blank, levels=levels).z
    unit = sampling_loop.init_state(keys, params, blank, levels=levels, beginning="unit_noise").z
    sigma = np.sqrt(1 / (1 + np.exp(discrete_schedule.levels("cosine")[500])))
    np.testing.assert_allclose(of_level, sigma * unit, rtol=1e-6)


def sampled(sampler: config.Sampler, *, known=None, first: int = 0, image=None):
    """All steps of a denoiser that halves, whose variance is nine tenths of the way up."""
    levels = functools.partial(logsnr_at, sampler=sampler, diffusion=DIFFUSION)
    keys = rng.fold_each(rng.root(3), "t", jnp.arange(SHAPE[0]))
    params = SamplerParams.from_config(sampler)._replace(first=np.int32(first))
    start = jnp.zeros(SHAPE) if image is None else image
    state = sampling_loop.init_state(keys, params, start, levels=levels, beginning="unit_noise")
    cleanest = CLEANEST if sampler.final_noise else -np.inf
    steps = sampling_loop.Steps(samplers.ancestral_step, levels, cleanest)

    def denoise(z: jax.Array, logsnr: jax.Array) -> Denoised:
        return Denoised(z / 2, jnp.full(z.shape, 0.9))

    return state, sampling_loop.sample(denoise, state, params, steps=steps, known=known)


def test_a_list_that_does_not_end_in_zero_gets_noise_at_its_end() -> None:
    """The rule of diffusers: none at time step 0 alone. By default there is none at any end."""
    for times, noisy in (((700, 300, 0), False), ((700, 300, 100), True)):
        _, plain = sampled(listed(*times))
        _, found = sampled(listed(*times, final_noise=True))
        assert (np.abs(found.x0 - plain.x0).max() > 1e-6) == noisy
        if not noisy:
            np.testing.assert_array_equal(found.x0, plain.x0)


def test_noise_at_the_end_has_the_predicted_variance() -> None:
    """From time step t to none: bounds are 1e-20 and 1 - abar_t, nine tenths between."""
    _, plain = sampled(listed(400))
    _, found = sampled(listed(400, final_noise=True))
    largest = 1 / (1 + np.exp(np.float64(discrete_schedule.levels("cosine")[400])))
    std = np.sqrt(1e-20**0.1 * largest**0.9)
    noise = np.asarray(found.x0 - plain.x0, np.float64) / std
    assert 0.5 < noise.std() < 1.5


def test_known_pixels_stay_clean_at_every_step() -> None:
    image = jax.random.uniform(jax.random.key(1), SHAPE, minval=-1.0)
    mask = jnp.zeros((*SHAPE[:3], 1), jnp.bool_).at[:, :2].set(True)
    clean = sampling_loop.KnownPixels(image, mask, noised=False)
    for times in ((700, 300, 0), (700, 300, 100)):
        sampler = listed(*times, final_noise=True)
        _, found = sampled(sampler, known=clean)
        np.testing.assert_array_equal(found.x0[:, :2], image[:, :2])
        _, whole = sampled(sampler, known=clean._replace(mask=jnp.ones_like(mask)))
        np.testing.assert_array_equal(whole.x0, image)
        _, nothing = sampled(sampler, known=clean._replace(mask=jnp.zeros_like(mask)))
        _, unmasked = sampled(sampler)
        np.testing.assert_array_equal(nothing.x0, unmasked.x0)
