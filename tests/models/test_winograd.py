"""Winograd's convolutions are `jax.lax`'s, in all directions, and other platforms have theirs."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.models import convolution, layers, remat, winograd

Case = tuple[tuple[int, int], Any, tuple[int, int], tuple[int, int]]
CASES: list[Case] = [  # kernel's sides, padding, image's sides, channels in and out
    ((3, 3), "SAME", (8, 8), (32, 32)),
    ((3, 3), "SAME", (9, 11), (48, 33)),
    ((3, 3), ((0, 2), (2, 1)), (7, 10), (32, 64)),
    ((2, 2), ((0, 0), (0, 0)), (9, 9), (64, 128)),
    ((4, 3), "VALID", (12, 7), (32, 32)),
    ((1, 2), ((0, 0), (1, 0)), (64, 1), (32, 32)),
]
TOLERANCE = 3e-6  # of the largest number: thirty roundings of float32


def _plain(x: Any, kernel: Any, padding: Any) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=winograd.LAYOUT, precision="highest"
    )


def _ours(x: Any, kernel: Any, padding: Any) -> jax.Array:
    return convolution.convolve(x, kernel, (1, 1), padding)


def _with_gradients(convolve: Any, padding: Any) -> Callable[..., Any]:
    def run(x: Any, kernel: Any, gradient: Any) -> Any:
        found, transposed = jax.vjp(lambda *given: convolve(*given, padding), x, kernel)
        return found, *transposed(gradient)

    return run


@pytest.mark.parametrize("taps", winograd.POINTS)
def test_transforms_multiply_polynomials(taps: int) -> None:
    matrices = winograd.transforms(taps)
    found = np.einsum("np,pt,pj->ntj", matrices.output, matrices.kernel, matrices.image)
    places, shifts, pixels = np.indices(found.shape)
    np.testing.assert_allclose(found, pixels == places + shifts, atol=1e-6)


@pytest.mark.parametrize(("sides", "padding", "image", "channels"), CASES)
def test_results_and_gradients_are_those_of_lax(
    sides: tuple[int, int], padding: Any, image: tuple[int, int], channels: tuple[int, int]
) -> None:
    draw = np.random.default_rng(0)
    x = draw.standard_normal((2, *image, channels[0]), np.float32)
    kernel = draw.standard_normal((*sides, *channels), np.float32)
    shape = jax.eval_shape(lambda *given: _plain(*given, padding), x, kernel).shape
    gradient = draw.standard_normal(shape, np.float32)
    ours = jax.jit(_with_gradients(_ours, padding))
    text = ours.lower(x, kernel, gradient).as_text()
    products = winograd.TILE + sides[1] - 1
    assert text.count("stablehlo.convolution") == 2 * products  # and not one direct
    found = ours(x, kernel, gradient)
    expected = jax.jit(_with_gradients(_plain, padding))(x, kernel, gradient)
    for one, other in zip(found, expected, strict=True):
        atol = TOLERANCE * np.abs(other).max()
        np.testing.assert_allclose(one, other, atol=atol, rtol=0)


def _lowered(platform: str, dtype: Any, shape: tuple[int, ...], outputs: int) -> str:
    x = jax.ShapeDtypeStruct(shape, dtype)
    kernel = jax.ShapeDtypeStruct((3, 3, shape[-1], outputs), dtype)
    traced = jax.jit(lambda *given: _ours(*given, "SAME")).trace(x, kernel)
    return traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize(
    ("platform", "dtype", "shape", "outputs", "convolutions"),
    [
        ("cpu", jnp.float32, (1, 8, 8, 32), 32, 6),
        ("cpu", jnp.float32, (64, 8, 8, 32), 32, 6),
        ("cpu", jnp.bfloat16, (1, 8, 8, 32), 32, 1),
        ("cpu", jnp.float32, (1, 8, 8, 32), 3, 1),
        ("cpu", jnp.float32, (1, 8, 8, 24), 32, 1),
        ("cpu", jnp.float32, (64, 4, 4, 32), 32, 1),
        ("cpu", jnp.float32, (64, 8, 8, 384), 384, 1),
        ("tpu", jnp.float32, (1, 8, 8, 32), 32, 1),
        ("cuda", jnp.float32, (1, 8, 8, 32), 32, 1),
    ],
)
def test_it_is_chosen_by_platform_and_by_the_shape_of_an_image(
    platform: str, dtype: Any, shape: tuple[int, ...], outputs: int, convolutions: int
) -> None:
    text = _lowered(platform, dtype, shape, outputs)
    assert text.count("stablehlo.convolution") == convolutions
    assert ("dot_general" in text) == (convolutions > 1)


def test_a_mapped_convolution_is_that_of_each_image_alone() -> None:
    x = jax.random.normal(jax.random.key(0), (3, 1, 8, 8, 32))
    kernels = jax.random.normal(jax.random.key(1), (3, 3, 3, 32, 32))
    found = jax.vmap(lambda x, kernel: _ours(x, kernel, "SAME"))(x, kernels)
    expected = jnp.stack([_ours(*pair, "SAME") for pair in zip(x, kernels, strict=True)])
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.slow
def test_a_block_that_is_computed_again_has_the_same_gradients() -> None:
    style = layers.BlockStyle(
        norm_groups=8,
        residual_scaling="sum",
        residual_scale=1.0,
        zero_init=False,
        dropout=0.0,
        dtype=jnp.float32,
    )
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 32))

    def gradients(module: nn.Module) -> Any:
        params = module.init(jax.random.key(1), x, None)
        return jax.grad(lambda params: jnp.sum(module.apply(params, x, None) ** 2))(params)

    again = remat.maybe_remat(layers.ResBlock, "convs", part="block")
    found, expected = gradients(again(32, style)), gradients(layers.ResBlock(32, style))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected
    )
