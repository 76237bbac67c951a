"""The losses of distillation, against teachers that are known in closed form."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian_mixture import denoise_mixture, draw_mixture, posterior
from gaussian_samples import gaussian

from imagen_jax import config, rng
from imagen_jax.diffusion import schedules
from imagen_jax.diffusion.distillation import guidance, moments, progressive
from imagen_jax.diffusion.guidance import guide
from imagen_jax.diffusion.prediction import from_x0

SCHEDULE = config.NoiseSchedule()
SAMPLES = 40_000


def sample_posterior(key: jax.Array, z: jax.Array, logsnr: jax.Array) -> jax.Array:
    """Clean images as likely as the data's, given z: the generator that leaves nothing to learn."""
    shares, means, variance = posterior(z, logsnr)
    which = jax.random.categorical(rng.fold(key, "mode"), jnp.log(shares))
    noise = jax.random.normal(rng.fold(key, "inside"), (*which.shape, 2))
    chosen = jnp.take_along_axis(means, which[:, None, None], axis=1)[:, 0]
    return (chosen + jnp.sqrt(variance) * noise)[:, None, None, :]


def shifted(denoise, step: float, direction=(1.0, -0.5)):
    """A denoiser whose every image is a little off."""

    def off(z: jax.Array, logsnr: jax.Array) -> jax.Array:
        return denoise(z, logsnr) + step * jnp.asarray(direction).reshape(1, 1, 1, 2)

    return off


def score(found: jax.Array) -> float:
    """A mean in standard errors."""
    return float(found.mean() / found.std() * np.sqrt(found.size))


def test_a_student_of_guidance_learns_the_guided_image() -> None:
    diffusion = config.Diffusion(predicts="v")
    cond, uncond = gaussian(0.5), gaussian(2.0)
    x0 = jax.random.normal(rng.root(0), (64, 2, 2, 1))
    weights = jnp.linspace(1.0, 4.0, 64)[:, None, None, None]

    def teacher(z: jax.Array, logsnr: jax.Array) -> jax.Array:
        return guide(cond(z, logsnr), uncond(z, logsnr), weight=weights)

    def loss_of(step: float) -> jax.Array:
        def student(z: jax.Array, logsnr: jax.Array) -> jax.Array:
            return from_x0(teacher(z, logsnr) + step, z, logsnr, predicts="v")

        found = guidance.loss(student, teacher, x0, rng.root(1), diffusion=diffusion)
        return found.per_example.mean()

    assert float(loss_of(0.0)) < 1e-8
    assert abs(float(jax.grad(loss_of)(0.0))) < 1e-3
    assert float(loss_of(0.1)) > 0.01
    assert float(jax.grad(loss_of)(0.1)) > 0.1


@pytest.mark.parametrize("steps", [1, 4])
def test_a_student_of_two_steps_makes_them_in_one(steps: int) -> None:
    """The image that is implied leads where both steps do; the teacher's own leads elsewhere."""
    t = jnp.arange(1.0, steps + 1) / steps
    levels = [schedules.logsnr(x, schedule=SCHEDULE) for x in (t, t - 0.5 / steps, t - 1 / steps)]
    z = jax.random.normal(rng.root(0), (steps, 1, 1, 2))
    two = progressive.ddim(denoise_mixture, z, levels[0], levels[1])
    two = progressive.ddim(denoise_mixture, two, levels[1], levels[2])
    x0 = progressive.implied_x0(z, two, levels[0], levels[2])
    one = progressive.ddim(lambda *_: x0, z, levels[0], levels[2])
    np.testing.assert_allclose(one, two, atol=2e-4)
    alone = progressive.ddim(denoise_mixture, z, levels[0], levels[2])
    assert np.abs(alone - two).max() > 0.01


@pytest.mark.parametrize("teacher_steps", [2, 3])
def test_the_loss_of_progressive_distillation_is_least_at_the_implied_image(
    teacher_steps: int,
) -> None:
    steps = 4

    def student(z: jax.Array, logsnr: jax.Array) -> jax.Array:
        time = jnp.round(_time_of(logsnr) * steps) / steps
        done = np.arange(teacher_steps + 1) / teacher_steps
        levels = [schedules.logsnr(time - x / steps, schedule=SCHEDULE) for x in done]
        there = z
        for before, after in itertools.pairwise(levels):
            there = progressive.ddim(denoise_mixture, there, before, after)
        return progressive.implied_x0(z, there, logsnr, levels[-1])

    x0 = draw_mixture(rng.root(0), 512)
    loss = functools.partial(
        progressive.loss,
        teacher=denoise_mixture,
        x0=x0,
        key=rng.root(1),
        schedule=SCHEDULE,
        distillation=config.Distillation(
            method="progressive", steps=steps, teacher_steps=teacher_steps
        ),
    )
    assert float(loss(student).per_example.mean()) < 1e-5
    assert float(loss(denoise_mixture).per_example.mean()) > 1e-2
    levels = np.unique(np.round(np.asarray(loss(student).logsnr), 3))
    ends = schedules.logsnr(jnp.arange(1, 5) / steps, schedule=SCHEDULE)
    np.testing.assert_allclose(levels, np.sort(ends), atol=1e-2)


def _time_of(logsnr: jax.Array) -> jax.Array:
    """The cosine schedule's time."""
    ends = jnp.arctan(jnp.exp(-jnp.array([20.0, -20.0]) / 2))
    return (jnp.arctan(jnp.exp(-logsnr / 2)) - ends[0]) / (ends[1] - ends[0])


@pytest.mark.parametrize("steps", [1, 4])
def test_moments_leave_a_generator_of_the_data_as_it_is(steps: int) -> None:
    """The auxiliary denoiser stays at the teacher, and has nothing to tell the generator.

    The first in expectation: its gradient is within noise, at each of two shifts. Where the
    generator samples means, as every denoiser does, it is not.
    """
    x0 = draw_mixture(rng.root(0), SAMPLES)
    draw = functools.partial(
        moments.generate, x0=x0, key=rng.root(1), schedule=SCHEDULE, steps=steps
    )

    def slopes(generated: moments.Generated) -> jax.Array:
        """How each example's loss rises as the auxiliary moves off the teacher."""

        def loss_of(step: jax.Array) -> jax.Array:
            # outwards, where a generator of means has too little
            def auxiliary(z: jax.Array, logsnr: jax.Array) -> jax.Array:
                return denoise_mixture(z, logsnr) * (1 + step)

            return moments.auxiliary_loss(auxiliary, denoise_mixture, generated).per_example

        return jax.jvp(loss_of, (jnp.float32(0.0),), (jnp.float32(1.0),))[1]

    of_data = draw(functools.partial(sample_posterior, rng.root(2)))
    assert abs(score(slopes(of_data))) < 4
    of_means = draw(denoise_mixture)
    assert score(slopes(of_means)) > 20
    gap = moments.generator_loss(denoise_mixture, denoise_mixture, of_data)
    np.testing.assert_array_equal(gap.per_example, 0.0)


def test_moments_move_the_generator_against_the_gap() -> None:
    """Where the auxiliary sees too large an image, the generator's has to become smaller."""
    x0 = draw_mixture(rng.root(0), 256)

    def loss_of(shift: jax.Array, gap: float) -> jax.Array:
        generated = moments.generate(
            shifted(denoise_mixture, shift), x0, rng.root(1), schedule=SCHEDULE, steps=4
        )
        auxiliary = shifted(denoise_mixture, gap)
        found = moments.generator_loss(auxiliary, denoise_mixture, generated)
        return found.per_example.mean()

    rising = jax.grad(loss_of)(0.0, 0.1)
    expected = moments.weight(jnp.zeros(1))  # of the same order
    assert float(rising) > 0.01 * float(expected[0])
    np.testing.assert_allclose(jax.grad(loss_of)(0.0, -0.1), -rising, rtol=1e-4)


def test_the_data_that_is_denoised_further_has_the_noise_of_its_level() -> None:
    """z_s has the variance of the data with noise, if the generator samples the data."""
    x0 = draw_mixture(rng.root(0), SAMPLES)
    found = moments.generate(
        functools.partial(sample_posterior, rng.root(2)),
        x0,
        rng.root(1),
        schedule=SCHEDULE,
        steps=2,
    )
    alpha, sigma = (x[:, 0, 0, 0] for x in schedules.alpha_sigma(found.logsnr_s))
    spread = np.asarray(found.z_s[:, 0, 0, :] ** 2).mean(axis=1)
    data = float((x0**2).mean())
    for low, high in ((-20, -3), (-3, 0), (0, 3), (3, 20)):
        inside = np.asarray((found.logsnr_s >= low) & (found.logsnr_s < high))
        expected = float((alpha**2 * data + sigma**2)[inside].mean())
        np.testing.assert_allclose(spread[inside].mean(), expected, rtol=0.05)
