"""Norm, residual block, time features and resampling, against numpy in float64."""

import dataclasses
import math
from typing import get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax import config
from imagen_jax.models import layers, resampling
from imagen_jax.models.efficient_unet import Merge
from imagen_jax.parallel import flops

STYLE = layers.BlockStyle(
    norm_groups=4,
    residual_scaling="sum",
    residual_scale=2**-0.5,
    zero_init=False,
    dropout=0.0,
    dtype=jnp.float32,
)
X = np.random.default_rng(0).standard_normal((2, 4, 6, 8))


def test_time_features_are_sines_then_cosines_of_cosine_time() -> None:
    logsnr = np.array([-30.0, -20.0, -2.0, 0.0, 5.0, 20.0, 30.0])
    time = np.arctan(np.exp(-np.clip(logsnr, -20, 20) / 2)) / (np.pi / 2)
    assert time[3] == 0.5
    assert time[5] == pytest.approx(2.9e-5, rel=5e-3)
    angles = 1000 * time[:, None] * np.exp(-math.log(1e4) * np.arange(8) / 7)
    expected = np.concatenate([np.sin(angles), np.cos(angles)], 1)
    found = layers.time_features(jnp.asarray(logsnr, jnp.float32), features=16, kind="cosine_time")
    np.testing.assert_allclose(found, expected, atol=2e-4)  # 1000 * float32's last place


def test_logsnr_features_are_linear_in_logsnr() -> None:
    found = layers.time_features(jnp.asarray([20.0, 10.0, 9.98]), features=2, kind="logsnr")
    expected = [[0.0, 1.0], *([math.sin(a), math.cos(a)] for a in (250.0, 250.5))]
    np.testing.assert_allclose(found, expected, atol=2e-3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_norm_has_float32_statistics_and_keeps_the_dtype(dtype: str) -> None:
    x = jnp.asarray(100.0 + X, dtype)  # bfloat16 statistics would be far off at this mean
    found, params = layers.Norm(4).init_with_output(jax.random.key(0), x)
    assert found.dtype == x.dtype
    assert {a.dtype for a in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    wide = np.asarray(x, np.float64).reshape(2, 24, 4, 2)
    mean, var = (f(wide, axis=(1, 3), keepdims=True) for f in (np.mean, np.var))
    expected = ((wide - mean) / np.sqrt(var + 1e-6)).reshape(X.shape)
    np.testing.assert_allclose(np.asarray(found, np.float64), expected, atol=0.02)


@pytest.mark.parametrize(("ratio", "error"), [(4.5, 1e-5), (100, 2e-3), (300, 1e-2), (1000, 8e-2)])
def test_norm_has_the_precision_that_it_states(ratio: float, error: float) -> None:
    """Of groups whose mean is so many times their deviation; one pass loses digits there."""
    x = np.float32(np.random.default_rng(1).standard_normal((2, 32, 32, 32)) + ratio)
    found, _ = layers.Norm(8).init_with_output(jax.random.key(0), jnp.asarray(x))
    wide = np.float64(x).reshape(2, 1024, 8, 4)
    mean, std = (f(wide, axis=(1, 3), keepdims=True) for f in (np.mean, np.std))
    off = np.float64(found) - ((wide - mean) / std).reshape(x.shape)
    assert np.sqrt(np.mean(off**2)) < error


@pytest.mark.parametrize("ratio", [3e3, 1e5, 1e8])
def test_norm_of_what_is_flat_but_for_rounding_is_no_gain(ratio: float) -> None:
    x = np.float32(np.random.default_rng(1).standard_normal((2, 32, 32, 32)) + ratio)
    found, _ = layers.Norm(8).init_with_output(jax.random.key(0), jnp.asarray(x))
    assert np.abs(found).max() < 10


def test_pooling_averages_and_nearest_repeats() -> None:
    pooled = np.asarray(resampling.average_pool(jnp.asarray(X, jnp.float32)))
    expected = (X[:, ::2, ::2] + X[:, 1::2, ::2] + X[:, ::2, 1::2] + X[:, 1::2, 1::2]) / 4
    np.testing.assert_allclose(pooled, expected, atol=1e-6)
    doubled = np.asarray(resampling.repeat_pixels(jnp.asarray(X, jnp.float32)))
    np.testing.assert_array_equal(doubled, np.kron(X, np.ones((1, 2, 2, 1))).astype(np.float32))


def test_space_to_depth_gathers_patches_and_is_inverted() -> None:
    x = jnp.asarray(X, jnp.float32)
    deep = resampling.space_to_depth(x, 2)
    np.testing.assert_array_equal(deep[:, 1, 2], x[:, 2:4, 4:6].reshape(2, -1))
    np.testing.assert_array_equal(resampling.depth_to_space(deep, 2), x)


@pytest.mark.parametrize("scaling", get_args(config.ResidualScaling))
def test_a_residual_block_without_main_branch_is_its_scaled_shortcut(scaling: str) -> None:
    """T16: shortcut / sqrt(2) under `sum` and `shortcut`; long skips scaled under `long_skip`."""
    style = dataclasses.replace(STYLE, residual_scaling=scaling, zero_init=True)
    x, emb = jnp.asarray(X, jnp.float32), jnp.ones((2, 5))
    gain = 1.0 if scaling == "long_skip" else 2**-0.5
    for resample, expected in (
        ("none", x),
        ("down", resampling.average_pool(x)),
        ("up", resampling.repeat_pixels(x)),
    ):
        block = layers.ResBlock(8, style, resample=resample)
        found, _ = block.init_with_output(jax.random.key(0), x, emb)
        np.testing.assert_allclose(found, gain * expected, atol=1e-6)
    block = layers.ResBlock(8, style, project=True)
    found, variables = block.init_with_output(jax.random.key(0), x, emb)
    shortcut = variables["params"]["shortcut"]
    np.testing.assert_allclose(found, gain * (x @ shortcut["kernel"]), atol=1e-5)
    np.testing.assert_allclose(
        style.long_skip(x), x * (2**-0.5 if scaling == "long_skip" else 1.0), atol=1e-7
    )


@pytest.mark.parametrize(("scaling", "branch"), [("sum", 2**-0.5), ("shortcut", 1.0)])
def test_scaling_reaches_the_main_branch_only_in_a_sum(scaling: str, branch: float) -> None:
    style = dataclasses.replace(STYLE, residual_scaling=scaling)
    zero, one = jnp.zeros((1, 1, 1, 1)), jnp.ones((1, 1, 1, 1))
    assert float(style.join(zero, one)[0, 0, 0, 0]) == pytest.approx(branch)


def test_film_scales_by_one_plus_scale_then_shifts() -> None:
    x, emb = jnp.asarray(X, jnp.float32), jnp.asarray([[0.5, -1.0], [2.0, 0.0]])
    film = layers.Film(jnp.float32)
    params = {"dense": {"kernel": jnp.ones((2, 16)) * 0.3, "bias": jnp.arange(16) / 16}}
    act = np.asarray(emb) / (1 + np.exp(-np.asarray(emb)))
    both = act @ np.full((2, 16), 0.3) + np.arange(16) / 16
    expected = X * (1 + both[:, None, None, :8]) + both[:, None, None, 8:]
    np.testing.assert_allclose(film.apply({"params": params}, x, emb), expected, atol=1e-5)


def test_dropout_acts_in_training_alone() -> None:
    options = config.UNet(dropout=0.5)
    assert layers.block_style(options, train=False).dropout == 0.0
    style = dataclasses.replace(STYLE, dropout=layers.block_style(options, train=True).dropout)
    x, block = jnp.asarray(X, jnp.float32), layers.ResBlock(8, style)
    variables = layers.ResBlock(8, STYLE).init(jax.random.key(0), x, None)
    a, b = (block.apply(variables, x, None, rngs={"dropout": jax.random.key(i)}) for i in (0, 1))
    assert float(jnp.abs(a - b).max()) > 0.1


def test_a_merged_skip_is_appended_or_projected_and_added() -> None:
    h, skip = jnp.asarray(X, jnp.float32), jnp.asarray(X[..., 5:], jnp.float32)
    joined, _ = Merge("concat", STYLE).init_with_output(jax.random.key(0), h, skip)
    np.testing.assert_array_equal(joined, jnp.concatenate([h, skip], -1))
    added, variables = Merge("add", STYLE).init_with_output(jax.random.key(0), h, skip)
    kernel = variables["params"]["project"]["kernel"]
    np.testing.assert_allclose(added, X + X[..., 5:] @ np.asarray(kernel, np.float64), atol=1e-5)
    plain, variables = Merge("add", STYLE).init_with_output(jax.random.key(0), h, 2 * h)
    np.testing.assert_allclose(plain, 3 * h, atol=1e-5)
    assert not variables


@pytest.mark.parametrize(("height", "width"), [(4, 6), (1, 5), (3, 1)])
def test_a_convolution_of_doubled_pixels_is_that_of_nearest(height: int, width: int) -> None:
    x = jnp.asarray(np.random.default_rng(1).standard_normal((2, height, width, 8)), jnp.float32)
    plain = layers.conv(5, jnp.float32, name="conv")
    params = plain.init(jax.random.key(0), resampling.repeat_pixels(x))
    params["params"]["bias"] += jnp.arange(5.0)
    expected = plain.apply(params, resampling.repeat_pixels(x))
    module = resampling.FusedUpsampleConv(5, jnp.float32)
    np.testing.assert_allclose(module.apply(params, x), expected, atol=2e-6)
    own = module.init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, own) == jax.tree.map(jnp.shape, params)


def test_a_convolution_that_doubles_is_the_same_on_a_tpu(monkeypatch: pytest.MonkeyPatch) -> None:
    x = jax.random.normal(jax.random.key(0), (2, 4, 6, 3))
    module = resampling.FusedUpsampleConv(5, jnp.float32)
    params = module.init(jax.random.key(1), x)

    def loss(params: dict, x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(module.apply(params, x)))

    elsewhere = jax.value_and_grad(loss, argnums=(0, 1))(params, x)
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *xs, tpu, default: tpu(*xs))
    found = jax.value_and_grad(loss, argnums=(0, 1))(params, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, elsewhere)


def test_a_block_that_doubles_makes_fewer_products_than_its_pixels_would_have() -> None:
    x = jnp.ones((1, 16, 16, 8))
    up = layers.ResBlock(8, STYLE, resample="up")
    params = jax.eval_shape(up.init, jax.random.key(0), x, None)
    pixels = 2 * 32 * 32 * 8 * 8  # FLOPs of a 1x1 convolution of the result
    assert flops.count_flops(up.apply, params, x, None) == pytest.approx(pixels * (4 + 9), rel=0.1)


def test_a_transposed_convolution_is_that_of_flax() -> None:
    x = jax.random.normal(jax.random.key(0), (2, 5, 6, 7))
    plain = nn.ConvTranspose(3, (4, 4), strides=(2, 2))
    params = plain.init(jax.random.key(1), x)
    own = resampling.TransposedConv(3, jnp.float32)
    jax.tree.map(np.testing.assert_array_equal, own.init(jax.random.key(1), x), params)
    np.testing.assert_allclose(own.apply(params, x), plain.apply(params, x), atol=1e-5)
