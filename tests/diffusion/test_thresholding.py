"""Thresholding is per image, an identity inside [-1, 1], and never amplifies."""

from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax import config
from imagen_jax.diffusion import thresholding

# Three images: inside the range, outside it, and an outlier that must not reach its neighbours.
IMAGES = jax.random.normal(jax.random.key(7), (3, 8, 8, 3)) * jnp.float32(
    [0.2, 1.5, 100.0]
).reshape(3, 1, 1, 1)


def test_dynamic_is_the_papers_formula_per_image() -> None:
    got = thresholding.dynamic(IMAGES, percentile=99.5)
    for image, result in zip(np.asarray(IMAGES, np.float64), got, strict=True):
        scale = max(np.percentile(np.abs(image), 99.5), 1.0)
        np.testing.assert_allclose(result, np.clip(image, -scale, scale) / scale, atol=1e-5)


def test_dynamic_does_not_see_neighbours() -> None:
    together = thresholding.dynamic(IMAGES, percentile=99.5)
    alone = [thresholding.dynamic(x[None], percentile=99.5)[0] for x in IMAGES]
    np.testing.assert_allclose(together, jnp.stack(alone), atol=1e-6)


def test_dynamic_differs_from_static_outside() -> None:
    dynamic = thresholding.dynamic(IMAGES, percentile=99.5)
    assert jnp.abs(dynamic - thresholding.static(IMAGES))[1].max() > 0.1


@pytest.mark.parametrize("rule", get_args(config.Threshold))
def test_identity_inside_and_never_amplifies(rule: config.Threshold) -> None:
    got = thresholding.threshold(IMAGES, sampler=config.Sampler(threshold=rule, percentile=90.0))
    np.testing.assert_array_equal(got[0], IMAGES[0])
    assert (jnp.abs(got) <= jnp.abs(IMAGES)).all()
    if rule != "none":
        assert jnp.abs(got).max() <= 1.0


def test_the_table_holds_each_rule() -> None:
    expected = {
        "none": IMAGES,
        "static": jnp.clip(IMAGES, -1, 1),
        "dynamic": thresholding.dynamic(IMAGES, percentile=80.0),
    }
    for rule in get_args(config.Threshold):
        sampler = config.Sampler(threshold=rule, percentile=80.0)
        got = thresholding.threshold(IMAGES, sampler=sampler)
        np.testing.assert_array_equal(got, expected[rule])


def test_a_percentile_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.995"):
        config.Sampler(percentile=0.995)
