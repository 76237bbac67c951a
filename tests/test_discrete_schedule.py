"""Levels of discrete time steps, and their inverse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax import discrete_schedule


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_the_step_of_a_level_is_interpolated_as_numpy_does(kind: discrete_schedule.Betas) -> None:
    levels = discrete_schedule.levels(kind)
    between = np.random.default_rng(0).uniform(-30, 20, 1000).astype(np.float32)
    tried = np.concatenate([levels, between])
    wanted = np.interp(tried.astype(np.float64), levels[::-1], np.arange(999, -1, -1))
    found = jax.jit(lambda x: discrete_schedule.step_of(x, kind))(jnp.asarray(tried))
    np.testing.assert_allclose(found, wanted, atol=2e-3)
    np.testing.assert_array_equal(found[:1000], np.arange(1000))


def test_levels_are_found_without_loop_or_gather() -> None:
    """The TPU compiler's model of time counts neither, and `imagen plan` would give no time."""

    def there_and_back(step: jax.Array) -> jax.Array:
        return discrete_schedule.step_of(discrete_schedule.logsnr_of(step, "cosine"), "cosine")

    text = jax.jit(there_and_back).lower(jnp.zeros((2,))).as_text()
    assert "while" not in text
    assert "gather" not in text
