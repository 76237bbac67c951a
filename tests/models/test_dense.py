"""A dense layer's product and gradients are those of flax's, and fast on CPUs."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.models.dense import Dense

SHAPES = {"vectors": (6, 5), "tokens": (2, 7, 5), "pixels": (2, 3, 4, 5)}


def gradients(layer: nn.Module, x: jax.Array) -> Callable[[Any, jax.Array, jax.Array], Any]:
    """The product with given weights, and its gradients."""

    def run(params: Any, x: jax.Array, grad: jax.Array) -> Any:
        y, back = jax.vjp(layer.apply, params, x)
        return y, back(grad.astype(y.dtype))

    return run


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_product_and_gradients_are_flaxs(shape: tuple[int, ...], dtype: Any) -> None:
    draw = np.random.default_rng(0)
    x = jnp.asarray(draw.normal(size=shape), dtype)
    grad = jnp.asarray(draw.normal(size=(*shape[:-1], 8)), jnp.float32)
    ours, theirs = Dense(8, dtype=dtype), nn.Dense(8, dtype=dtype)
    params = theirs.init(jax.random.key(0), x)
    found = jax.jit(gradients(ours, x))(params, x, grad)
    wanted = jax.jit(gradients(theirs, x))(params, x, grad)
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(np.float32(a), np.float32(b), rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_float64() -> None:
    draw = np.random.default_rng(1)
    x, grad = draw.normal(size=(2, 3, 4, 5)), draw.normal(size=(2, 3, 4, 8))
    layer = Dense(8)
    params = layer.init(jax.random.key(0), jnp.float32(x))
    _, (of_params, of_x) = gradients(layer, x)(params, jnp.float32(x), jnp.float32(grad))
    kernel = np.float64(params["params"]["kernel"])
    np.testing.assert_allclose(of_x, grad @ kernel.T, rtol=1e-5, atol=1e-6)
    wanted = np.einsum("bhwi,bhwo->io", x, grad)
    np.testing.assert_allclose(of_params["params"]["kernel"], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("layer", "copies"), [(Dense(64), False), (nn.Dense(64), True)])
def test_no_operand_of_the_kernels_gradient_is_copied(layer: nn.Module, copies: bool) -> None:
    x = jax.ShapeDtypeStruct((2, 8, 8, 32), jnp.float32)
    params = jax.eval_shape(layer.init, jax.random.key(0), x)

    def of_params(params: Any, x: jax.Array) -> Any:
        return jax.grad(lambda p: jnp.sum(jnp.square(layer.apply(p, x))))(params)

    program = jax.jit(of_params).lower(params, x).compile().as_text()
    assert (" transpose(" in program) == copies


def test_the_images_products_take_no_more_memory_than_their_operands() -> None:
    """Of many small images and a large kernel there would be a product for each image."""
    x = jax.ShapeDtypeStruct((64, 2, 2, 128), jnp.float32)
    layer = Dense(256, use_bias=False)
    params = jax.eval_shape(layer.init, jax.random.key(0), x)
    grad = jax.ShapeDtypeStruct((64, 2, 2, 256), jnp.float32)

    def of_params(params: Any, x: jax.Array, grad: jax.Array) -> Any:
        return jax.vjp(lambda p: layer.apply(p, x), params)[1](grad)

    compiled = jax.jit(of_params).lower(params, x, grad).compile()
    operands = 4 * 64 * 4 * (128 + 256)
    assert compiled.memory_analysis().temp_size_in_bytes <= operands
    assert operands < 4 * 64 * 128 * 256  # the products of all images


def test_other_platforms_compile_what_they_did() -> None:
    x = jax.ShapeDtypeStruct((2, 8, 8, 32), jnp.float32)

    def program(layer: nn.Module) -> str:
        params = jax.eval_shape(layer.init, jax.random.key(0), x)

        def of_both(params: Any, x: jax.Array) -> Any:
            return jax.grad(lambda p, x: jnp.sum(jnp.square(layer.apply(p, x))), (0, 1))(params, x)

        traced = jax.jit(of_both).trace(params, x)
        return traced.lower(lowering_platforms=("tpu",)).as_text().split("@main", 1)[1]

    ours, theirs = program(Dense(64)), program(nn.Dense(64))
    products = [
        sorted(
            line.split("dot_general", 1)[1].split("loc")[0].strip()
            for line in text.splitlines()
            if "dot_general" in line
        )
        for text in (ours, theirs)
    ]
    strip = [[p.split(", contracting", 1)[1] for p in found] for found in products]
    assert strip[0] == strip[1]
    assert len(strip[0]) == 3
