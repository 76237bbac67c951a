"""The convolution's gradients, which are its own, beside those of jax."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.models import convolution


def _plain(x: jax.Array, kernel: jax.Array, padding: int) -> jax.Array:
    both = ((padding, padding), (padding, padding))
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), both, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.mark.parametrize("channels", [(64, 72), (5, 3)])  # its own gradient, and jax's
@pytest.mark.parametrize(("side", "padding"), [(3, 1), (2, 0), (1, 0)])
def test_gradients_are_those_of_jax(side: int, padding: int, channels: tuple[int, int]) -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (3, 6, 5, channels[0]))
    kernel = jax.random.normal(keys[1], (side, side, *channels))
    own = functools.partial(convolution.convolve, padding=padding, precision=None)
    expected, transposed = jax.vjp(functools.partial(_plain, padding=padding), x, kernel)
    found, own_transposed = jax.vjp(own, x, kernel)
    np.testing.assert_array_equal(found, expected)
    gradient = jax.random.normal(keys[2], expected.shape)
    for mine, other in zip(own_transposed(gradient), transposed(gradient), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-4)


def test_other_devices_have_the_compiler_s_own_gradient() -> None:
    """A TPU's program has the one convolution over rows and columns, for which it has units."""
    x, kernel = jnp.ones((2, 4, 4, 64)), jnp.ones((3, 3, 64, 64))

    def loss(kernel: jax.Array) -> jax.Array:
        return convolution.convolve(x, kernel, 1, None).sum()

    def text(platform: str) -> str:
        traced = jax.jit(jax.grad(loss)).trace(kernel)
        return traced.lower(lowering_platforms=(platform,)).as_text()

    assert "[b, 0, f]" in text("cpu")
    assert "[b, 0, f]" not in text("tpu")
    assert "case" not in text("tpu")
