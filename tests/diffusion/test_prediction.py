"""eps, x0 and v are views of one another."""

from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax import config
from imagen_jax.diffusion import prediction, schedules

LEVELS = jnp.float32([-8.0, 0.0, 8.0])
X0, EPS = jax.random.normal(jax.random.key(0), (2, 3, 4, 4, 3))


@pytest.mark.parametrize("predicts", get_args(config.Predicts))
def test_from_x0_inverts_to_x0(predicts: config.Predicts) -> None:
    x0 = prediction.to_x0(EPS, X0, LEVELS, predicts=predicts)
    again = prediction.from_x0(x0, X0, LEVELS, predicts=predicts)
    np.testing.assert_allclose(again, EPS, atol=1e-3)


def test_targets_are_their_definitions() -> None:
    alpha, sigma = schedules.alpha_sigma(LEVELS)
    z = schedules.add_noise(X0, EPS, LEVELS)
    expected = {"eps": EPS, "x0": X0, "v": alpha * EPS - sigma * X0}
    assert set(expected) == set(get_args(config.Predicts))
    for predicts, target in expected.items():
        got = prediction.from_x0(X0, z, LEVELS, predicts=predicts)
        np.testing.assert_allclose(got, target, atol=1e-4)
        got = prediction.to_x0(target, z, LEVELS, predicts=predicts)
        np.testing.assert_allclose(got, X0, atol=1e-3)
