"""Both halves of classifier-free guidance."""

import jax
import jax.numpy as jnp
import numpy as np

from imagen_jax.diffusion import guidance, prediction

COND, UNCOND, Z = jax.random.normal(jax.random.key(5), (3, 3, 4, 4, 3))
LEVEL = jnp.float32([-2.0, 0.0, 3.0])


def test_one_is_conditional_and_zero_unconditional() -> None:
    np.testing.assert_array_equal(guidance.guide(COND, UNCOND, weight=1.0), COND)
    np.testing.assert_array_equal(guidance.guide(COND, UNCOND, weight=0.0), UNCOND)


def test_guiding_x0_is_guiding_eps() -> None:
    def x0(eps: jax.Array) -> jax.Array:
        return prediction.to_x0(eps, Z, LEVEL, predicts="eps")

    in_eps = x0(5.0 * COND + (1 - 5.0) * UNCOND)
    in_x0 = jax.jit(lambda w: guidance.guide(x0(COND), x0(UNCOND), weight=w))(jnp.float32(5.0))
    np.testing.assert_allclose(in_x0, in_eps, atol=2e-4)


def test_captions_are_dropped_at_the_rate() -> None:
    has_text = guidance.drop_text(jax.random.key(6), 20_000, rate=0.1)
    assert has_text.dtype == jnp.bool_
    np.testing.assert_allclose(has_text.mean(), 0.9, atol=0.01)
    assert guidance.drop_text(jax.random.key(6), 100, rate=0.0).all()
    assert not guidance.drop_text(jax.random.key(6), 100, rate=1.0).any()
