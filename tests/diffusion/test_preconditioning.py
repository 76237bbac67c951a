"""The wrap around the raw network: nothing, a residual, or EDM's scalings."""

import inspect
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax import config
from imagen_jax.diffusion import preconditioning, prediction, schedules
from imagen_jax.diffusion.preconditioning import precondition

EDM = config.Diffusion(predicts="x0", preconditioning="edm")
LEVELS = jnp.float32([-12.0, -4.0, 0.0, 4.0, 12.0])


def test_plain_is_the_network_in_float32() -> None:
    z = jnp.ones((5, 2, 2, 3))
    predict = precondition(
        lambda z, logsnr: 2 * z.astype(jnp.bfloat16), None, diffusion=config.Diffusion()
    )
    got = predict(z, LEVELS)
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, 2 * z)


@pytest.mark.parametrize("predicts", get_args(config.Predicts))
def test_the_right_residual_gives_the_image(predicts: config.Predicts) -> None:
    """Also for eps, of which `config.Diffusion` refuses it, as it changes nothing there."""
    x0, low_res, eps = jax.random.normal(jax.random.key(1), (3, 5, 4, 4, 3))

    def network(z_of_residual: jax.Array, logsnr: jax.Array) -> jax.Array:
        """Knows the noise alone: it can only be right about what it is shown."""
        residual = prediction.to_x0(eps, z_of_residual, logsnr, predicts="eps")
        return prediction.from_x0(residual, z_of_residual, logsnr, predicts=predicts)

    @jax.jit
    def through_the_wrap() -> jax.Array:
        z = schedules.add_noise(x0, eps, LEVELS)
        output = preconditioning._residual(network, low_res, predicts)(z, LEVELS)
        return prediction.to_x0(output, z, LEVELS, predicts=predicts)

    got = through_the_wrap()
    np.testing.assert_allclose(got[1:], x0[1:], atol=2e-4)
    np.testing.assert_allclose(got[0], x0[0], atol=2e-2)  # alpha is 0.0025


def test_the_residual_of_an_unknown_prediction_is_refused() -> None:
    """Without the suite's own check of types, which would refuse it first."""
    residual = inspect.unwrap(preconditioning._residual)
    predict = residual(lambda z, logsnr: z, jnp.zeros((5, 4, 4, 3)), "score")
    with pytest.raises(AssertionError, match="score"):
        predict(jnp.ones((5, 4, 4, 3)), LEVELS)


def test_a_zero_residual_is_the_low_resolution_image() -> None:
    low_res, eps = jax.random.normal(jax.random.key(1), (2, 5, 4, 4, 3))
    z = schedules.add_noise(low_res, eps, LEVELS)
    diffusion = config.Diffusion(predicts="x0", predict_residual=True)
    predict = precondition(lambda z, logsnr: jnp.zeros_like(z), low_res, diffusion=diffusion)
    np.testing.assert_array_equal(predict(z, LEVELS), low_res)


def test_a_residual_needs_a_low_resolution_image() -> None:
    diffusion = config.Diffusion(predicts="v", predict_residual=True)
    with pytest.raises(ValueError, match="predict_residual"):
        precondition(lambda z, logsnr: z, None, diffusion=diffusion)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_edm_matches_its_table(value: float) -> None:
    """c_skip, c_out and c_in in EDM's own coordinates and float64."""
    seen = []
    predict = precondition(
        lambda z, _: seen.append(z) or jnp.full_like(z, value), None, diffusion=EDM
    )
    x0 = predict(jnp.ones((5, 1, 1, 1)), LEVELS)[:, 0, 0, 0]
    sigma = np.exp(-np.asarray(LEVELS, np.float64) / 2)
    x, total = np.sqrt(1 + sigma**2), sigma**2 + 0.25  # z = alpha * x and alpha^2 (1 + sigma^2) = 1
    np.testing.assert_allclose(seen[0][:, 0, 0, 0], x / np.sqrt(total), rtol=1e-5)
    expected = 0.25 / total * x + value * 0.5 * sigma / np.sqrt(total)
    np.testing.assert_allclose(x0, expected, rtol=1e-4)


def test_edm_shows_and_asks_unit_variance() -> None:
    """At sigma_data the zero network is the perfect denoiser of Gaussian data."""
    x0, eps = jax.random.normal(jax.random.key(2), (2, 5, 128, 128, 1)) * jnp.float32(
        [0.5, 1.0]
    ).reshape(2, 1, 1, 1, 1)
    level = jnp.float32([-20.0, -3.0, 0.0, 3.0, 12.0])

    @jax.jit
    def through_the_wrap() -> tuple[jax.Array, ...]:
        z, seen = schedules.add_noise(x0, eps, level), []
        zero = precondition(lambda z, _: seen.append(z) or jnp.zeros_like(z), None, diffusion=EDM)(
            z, level
        )
        one = precondition(lambda z, _: jnp.ones_like(z), None, diffusion=EDM)(z, level)
        alpha, sigma = schedules.alpha_sigma(level)
        best = 0.25 * alpha * z / (0.25 * alpha**2 + sigma**2)
        return zero, best, seen[0], (x0 - zero) / (one - zero)

    zero, best, shown, asked = map(np.asarray, through_the_wrap())
    np.testing.assert_allclose(zero, best, atol=1e-5)
    np.testing.assert_allclose(shown.std(axis=(1, 2, 3)), 1.0, atol=0.03)
    np.testing.assert_allclose(asked.std(axis=(1, 2, 3)), 1.0, atol=0.03)


@pytest.mark.parametrize("logsnr", [-20.0, 20.0])
def test_edm_is_finite_at_the_limits(logsnr: float) -> None:
    predict = precondition(lambda z, _: z, None, diffusion=EDM)
    got = jax.jit(predict)(jnp.ones((1, 1, 1, 1)), jnp.float32([logsnr]))
    np.testing.assert_allclose(got, 1.0 if logsnr > 0 else 0.5, atol=1e-3)
