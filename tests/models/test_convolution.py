"""The gradients of a convolution are `jax.lax`'s, and on CPUs the kernel's is made of products."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.models import convolution

Case = tuple[tuple[int, int], int, Any, int]  # kernel's sides, stride, padding, input channels
CASES: list[Case] = [
    ((3, 3), 1, "SAME", 16),
    ((2, 2), 1, ((0, 0), (0, 0)), 16),
    ((4, 3), 1, ((2, 1), (0, 2)), 16),
    ((3, 3), 2, "SAME", 16),
    ((3, 3), 1, "SAME", 3),
]


@pytest.mark.parametrize(("sides", "stride", "padding", "channels"), CASES)
def test_gradients_are_those_of_lax(
    sides: tuple[int, int], stride: int, padding: Any, channels: int
) -> None:
    x = jax.random.normal(jax.random.key(0), (2, 5, 6, channels))
    kernel = jax.random.normal(jax.random.key(1), (*sides, channels, 7))

    def loss(convolve: Any, x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(convolve(x, kernel, (stride, stride), padding)))

    def plain(*given: Any) -> jax.Array:
        return jax.lax.conv_general_dilated(*given, dimension_numbers=convolution.LAYOUT)

    of = jax.value_and_grad(loss, argnums=(1, 2))
    found, expected = of(convolution.convolve, x, kernel), of(plain, x, kernel)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), found, expected)


@pytest.mark.parametrize(("platform", "products"), [("cpu", 9), ("tpu", 0)])
def test_the_kernel_s_gradient_is_a_product_a_tap_on_cpus_alone(
    platform: str, products: int
) -> None:
    def loss(kernel: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.sum(convolution.convolve(x, kernel, (1, 1), "SAME"))

    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((3, 3, 16, 7), (2, 5, 6, 16))]
    traced = jax.jit(jax.grad(loss)).trace(*shapes)
    assert traced.lower(lowering_platforms=(platform,)).as_text().count("dot_general") == products
