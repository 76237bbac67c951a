"""Both halves of classifier-free guidance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagen_jax import config
from imagen_jax.diffusion import guidance, prediction
from imagen_jax.diffusion.samplers import SamplerParams

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


@given(
    st.floats(-1.0, 1.0),
    st.floats(0.01, 1.0),
    st.floats(1.0, 15.0),
    st.sampled_from([0.0, 0.7, 1.0]),
)
def test_rescaling_gives_back_contrast_and_keeps_the_mean(mean, contrast, weight, share) -> None:
    """However bright or dark a picture is."""
    cond, uncond = mean + contrast * COND, mean + contrast * UNCOND
    guided = guidance.guide(cond, uncond, weight=weight)
    found = guidance.rescale(guided, cond, share=share)
    for before, plain, after in zip(*(np.float64(x) for x in (guided, cond, found)), strict=True):
        factor = share * plain.std() / before.std() + 1 - share
        expected = before.mean() + (before - before.mean()) * factor
        np.testing.assert_allclose(after, expected, rtol=1e-4, atol=1e-5 * weight)
        np.testing.assert_allclose(after.mean(), before.mean(), atol=1e-5 * weight)


@pytest.mark.parametrize("shade", [-1.0, 0.0, 0.9])
def test_rescaling_leaves_a_flat_picture(shade: float) -> None:
    flat = jnp.full_like(COND, shade)
    np.testing.assert_allclose(guidance.rescale(flat, flat, share=1.0), flat, atol=1e-6)
    assert np.isfinite(guidance.rescale(flat, COND, share=1.0)).all()


def test_an_interval_is_of_noise_by_signal() -> None:
    for ratio, expected in ((0.1, False), (0.28, False), (0.3, True), (2.8, True), (3.0, False)):
        logsnr = jnp.full(2, -2 * np.log(ratio), jnp.float32)
        for weight in (3.0, 1.0):
            sampler = config.Sampler(guidance_weight=weight, guidance_interval=(0.29, 2.9))
            wanted = guidance.is_guided(logsnr, SamplerParams.from_config(sampler))
            assert bool(wanted) == (expected and weight != 1.0)
