"""Schedule, optimisers and moving average against their definitions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from imagen_jax import config
from imagen_jax.train import optim


def test_learning_rate_of_the_paper() -> None:
    rate = optim.schedule(config.Optim(), steps=2_500_000)
    with jax.numpy_dtype_promotion("standard"):
        found = [float(rate(s)) for s in (0, 5_000, 10_000, 2_500_000)]
    np.testing.assert_allclose(found, [0.0, 5e-5, 1e-4, 0.0], atol=1e-9)


def test_constant_rate_still_warms_up() -> None:
    rate = optim.schedule(
        config.Optim(schedule="constant", warmup_steps=10, learning_rate=1.0), steps=20
    )
    assert [float(rate(s)) for s in (0, 5, 10, 1000)] == [0.0, 0.5, 1.0, 1.0]
    flat = optim.schedule(config.Optim(schedule="constant", warmup_steps=0), steps=20)
    assert float(flat(0)) == pytest.approx(1e-4)


@pytest.mark.parametrize(("scaled", "rms"), [(True, 1e-7), (False, 1e-4)])
def test_adafactor_first_step_on_a_zero_kernel(scaled: bool, rms: float) -> None:
    options = config.Optim(
        kind="adafactor", adafactor_param_scale=scaled, schedule="constant", warmup_steps=0
    )
    params = {"kernel": jnp.zeros((128, 128))}
    grads = {"kernel": jax.random.normal(jax.random.key(0), (128, 128))}
    rule = optim.build(options, steps=10)
    _, updates = _update(rule, grads, params)
    # Factored second moments make the first update's RMS one only in the mean.
    found = float(jnp.sqrt(jnp.mean(updates["kernel"] ** 2)))
    assert found == pytest.approx(rms, rel=0.05)


def _update(rule: optax.GradientTransformationExtraArgs, grads, params):
    return optim.update(rule, grads, rule.init(params), params, norm=optax.tree.norm(grads))


@pytest.mark.parametrize("size", [0.0, 0.01, 1.0, 100.0])
def test_clipping_by_a_known_norm_is_optaxs_by_the_norm_it_finds(size: float) -> None:
    keys = jax.random.split(jax.random.key(0), 2)
    grads = {"a": size * jax.random.normal(keys[0], (3, 4)), "b": size * jnp.ones(2)}
    theirs, ours = optax.clip_by_global_norm(2.0), optim.clip_by_norm(2.0)
    state = theirs.init(grads)
    expected, _ = theirs.update(grads, state)
    found, after = ours.update(grads, state, norm=optax.tree.norm(grads))
    assert after == state == ours.init(grads)  # so that checkpoints of either restore as the other
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), found, expected)


def test_clipping_bounds_the_gradient_that_adam_sees() -> None:
    params, grads = {"w": jnp.zeros(4)}, {"w": jnp.full(4, 100.0)}
    for clip, norm in ((1.0, 1.0), (None, 200.0)):
        rule = optim.build(config.Optim(clip_norm=clip), steps=10)
        state, _ = _update(rule, grads, params)
        moments = [s for s in jax.tree.leaves(state, is_leaf=_is_adam) if _is_adam(s)]
        assert float(jnp.linalg.norm(moments[0].mu["w"])) == pytest.approx(0.1 * norm, rel=1e-5)


def test_muon_turns_kernels_orthogonally_and_leaves_the_rest_to_adam() -> None:
    options = config.Optim(kind="muon", learning_rate=0.1, schedule="constant", warmup_steps=0)
    options = dataclasses.replace(options, clip_norm=None)
    shapes = {
        "tall": (3, 3, 32, 16),
        "wide": (1, 1, 16, 48),
        "thin": (3, 3, 3, 64),
        "dense": (64, 32),
        "narrow": (64, 4),
    }
    params = {name: jnp.zeros(shape) for name, shape in shapes.items()}
    keys = jax.random.split(jax.random.key(0), len(shapes))
    grads = {
        name: jax.random.normal(key, shape)
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }
    rule = optim.build(options, steps=10)
    _, updates = _update(rule, grads, params)
    for name in ("tall", "wide", "dense"):
        matrix = np.asarray(updates[name], np.float64).reshape(-1, shapes[name][-1])
        u, _, v = np.linalg.svd(np.asarray(grads[name], np.float64).reshape(matrix.shape), False)
        values = np.linalg.svd(matrix, compute_uv=False) / np.sqrt(max(matrix.shape)) / 0.1 * 3
        assert values.min() > 0.5  # what five Newton-Schulz steps promise
        assert values.max() < 1.3
        # The turn itself: along the gradient's own singular vectors, downhill.
        along = np.diag(u.T @ matrix @ v.T) / np.sqrt(max(matrix.shape)) / 0.1 * 3
        assert along.max() < -0.5
    # Adam's first step is the sign of the gradient; Nesterov's look-ahead adds .9 * .1 / .19 of it.
    for name in ("thin", "narrow"):
        expected = -0.1 * (1 + 0.09 / 0.19) * jnp.sign(grads[name])
        np.testing.assert_allclose(updates[name], expected, rtol=1e-3)


def _is_adam(node: object) -> bool:
    return isinstance(node, optax.ScaleByAdamState)


def test_average_follows_its_recursion() -> None:
    ema, expected = {"w": jnp.float32(1.0)}, 1.0
    for n in range(1, 200):
        ema = optim.average(ema, {"w": jnp.float32(n)}, jnp.int32(n), decay=0.9)
        decay = min(0.9, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * n
    assert float(ema["w"]) == pytest.approx(expected, rel=1e-5)
