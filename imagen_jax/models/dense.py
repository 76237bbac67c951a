"""A dense layer whose kernel's gradient is fast on CPUs."""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def multiply(
    x: Float[Array, "*n i"],
    kernel: Float[Array, "i o"],
    dimension_numbers: Any,
    precision: Any = None,
    **_: Any,
) -> Float[Array, "*n o"]:
    """`jax.lax.dot_general` as `flax.linen.Dense` calls it.

    jax makes the gradient of a kernel as a product over all axes before the last, transposed; XLA's
    CPU compiler then copies an operand, and has half the rate or less of a product of two matrices.
    jax has no forward-mode derivative (`jax.jvp`) of a function with a gradient of its own.
    """
    if x.ndim < 3 or x.dtype != jnp.float32:
        return jax.lax.dot_general(x, kernel, dimension_numbers, precision=precision)
    return _multiply(x, kernel, precision)


def _last_axis(x: Any) -> Any:
    return ((x.ndim - 1,), (0,)), ((), ())


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _multiply(x: Any, kernel: Any, precision: Any) -> Any:
    return jax.lax.dot_general(x, kernel, _last_axis(x), precision=precision)


def _forward(x: Any, kernel: Any, precision: Any) -> Any:
    return _multiply(x, kernel, precision), (x, kernel)


def _backward(precision: Any, kept: Any, grad: Any) -> Any:
    x, kernel = kept
    product = functools.partial(
        jax.lax.dot_general, dimension_numbers=_last_axis(x), precision=precision
    )

    def of_kernel(x: jax.Array, grad: jax.Array) -> jax.Array:
        return jax.linear_transpose(lambda kernel: product(x, kernel), kernel)(grad)[0]

    # Joined, the batch and a height that is split have no sharding: each image is apart.
    images = x.shape[: x.ndim - 3]

    def of_rows(x: jax.Array, grad: jax.Array) -> jax.Array:
        rows = (y.reshape(*images, -1, y.shape[-1]) for y in (x, grad))
        products = jnp.einsum("...ni,...no->...io", *rows, precision=precision)
        return products.sum(axis=tuple(range(len(images))))

    # The images' products take no more memory than what they are made of.
    is_small = math.prod(images) * kernel.size <= x.size + grad.size
    on_cpu = of_rows if is_small else of_kernel
    return (
        jax.linear_transpose(lambda x: product(x, kernel), x)(grad)[0],
        jax.lax.platform_dependent(x, grad, cpu=on_cpu, default=of_kernel),
    )


_multiply.defvjp(_forward, _backward)
Dense = functools.partial(nn.Dense, dot_general=multiply)
