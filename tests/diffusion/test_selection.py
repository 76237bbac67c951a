"""Selected percentiles are those of a sort, bit by bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.diffusion.thresholding import select_percentile

draw = np.random.default_rng(0)


def _sorted(values: jax.Array, q: float) -> jax.Array:
    return jnp.percentile(values.reshape(len(values), -1), q, axis=1)


def _check(values: np.ndarray, q: float) -> None:
    found = jax.jit(select_percentile, static_argnums=1)(values, q)
    expected = jax.jit(_sorted, static_argnums=1)(values, q)
    np.testing.assert_array_equal(
        np.asarray(found).view(np.uint32), np.asarray(expected).view(np.uint32)
    )


@pytest.mark.parametrize("q", [1.5, 50.0, 90.0, 99.5, 99.97, 100.0])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (2, 1, 2, 1), (3, 5, 7, 3), (4, 16, 16, 3), (1, 64, 96, 3)]
)
def test_it_is_the_sorts_percentile(shape: tuple[int, ...], q: float) -> None:
    _check(np.abs(draw.normal(0, 2, shape)).astype(np.float32), q)


@pytest.mark.parametrize("q", [30.0, 99.5, 100.0])
@pytest.mark.parametrize(
    "values",
    {
        "zeros": np.zeros((2, 4, 4, 3)),
        "negative zeros": np.abs(-np.zeros((2, 4, 4, 3))),
        "constant": np.full((2, 4, 4, 3), 1.7),
        "ties": draw.integers(0, 3, (3, 8, 8, 3)),
        "ones and an outlier": np.where(np.arange(192).reshape(1, 8, 8, 3) == 100, 1e30, 1.0),
        "denormal": draw.random((2, 8, 8, 3)) * 1e-40,
        "every scale": 10.0 ** draw.uniform(-37, 38, (3, 8, 8, 3)),
        "infinite": np.where(draw.random((3, 8, 8, 3)) < 0.1, np.inf, 1.0),
        "NaN in one image": np.where(np.arange(384).reshape(2, 8, 8, 3) == 100, np.nan, 1.0),
    }.values(),
)
def test_it_is_the_sorts_percentile_of_odd_values(values: np.ndarray, q: float) -> None:
    _check(values.astype(np.float32), q)


def test_a_large_image_has_its_own_percentile_beside_others() -> None:
    scales = np.float32([0.1, 1.0, 50.0]).reshape(3, 1, 1, 1)
    values = np.abs(draw.normal(0, 1, (3, 128, 128, 3))).astype(np.float32) * scales
    _check(values, 99.5)
    found = select_percentile(jnp.asarray(values), 99.5)
    alone = [select_percentile(jnp.asarray(x[None]), 99.5)[0] for x in values]
    np.testing.assert_array_equal(found, np.stack(alone))
