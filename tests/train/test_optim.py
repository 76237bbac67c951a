"""Schedule and optimisers against their definitions."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from imagen_jax import config, models, rng
from imagen_jax.data.pipeline import Batch
from imagen_jax.evaluate import eval_set
from imagen_jax.train import norms, optim, state, step, update_monitor


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


def _judged(options: config.Optim, *, steps: int = 400) -> list[str]:
    """What is said of a part that begins at zero, and of others, under random gradients."""
    keys = jax.random.split(jax.random.key(0), 2)
    params = {
        "stem": {"kernel": 0.1 * jax.random.normal(keys[0], (32, 48)), "scale": jnp.ones(48)},
        "norm": {"scale": jnp.ones(64)},
        "head": {"kernel": jnp.zeros((48, 16))},
    }
    rule = optim.build(options, steps=steps)
    experiment = config.load("tiny/base8")[0]
    train = dataclasses.replace(experiment.train, steps=steps)
    watched = update_monitor.UpdateMonitor(
        dataclasses.replace(experiment, optim=options, train=train)
    )

    @jax.jit
    def step(state, params, key):
        grads = jax.tree.map(lambda p: jax.random.normal(key, p.shape), params)
        state, updates = optim.update(rule, grads, state, params, norm=optax.tree.norm(grads))
        return (
            state,
            optax.apply_updates(params, updates),
            norms.group_norms("update_norm", updates),
        )

    state, rows, told = rule.init(params), {}, []
    for number in range(1, steps + 1):
        state, params, found = step(state, params, jax.random.fold_in(keys[1], number))
        rows[number] = {"skipped": 0.0} | found
        if number % 50 == 0:
            told += watched.check(rows, params, norms.state_norms(params, params))
            rows = {}
    return told


@pytest.mark.parametrize(
    "rate", [1e-4, *(pytest.param(rate, marks=pytest.mark.slow) for rate in (1e-5, 3e-3))]
)
def test_a_part_that_hardly_moves_is_told_once(rate: float) -> None:
    options = config.Optim(
        kind="adafactor", adafactor_param_scale=True, warmup_steps=20, learning_rate=rate
    )
    (told,) = _judged(options)
    assert told.startswith("head hardly learns: from step 21 to ")
    assert "set optim.adafactor_param_scale to False" in told
    assert "of its parameters' norm" in told
    assert "0.03 times the learning rate is" in told


@pytest.mark.parametrize(
    "kind", [pytest.param("adam", marks=pytest.mark.slow), "adafactor", "muon"]
)
def test_parts_that_learn_are_not_told(kind) -> None:
    assert _judged(config.Optim(kind=kind, warmup_steps=20)) == []


def test_parts_that_are_frozen_are_not_told() -> None:
    assert _judged(config.Optim(warmup_steps=20, frozen=("norm/*",))) == []


def _short_training(options: config.Optim, ends: tuple[int, ...]) -> list[float]:
    """Mean losses of the 50 steps before each of `ends`: `tiny/base8` on shapes, 32 at a time."""
    experiment = config.load("tiny/base8")[0]
    stage, text = experiment.stage, experiment.text
    module = models.build(stage.model)
    rule = optim.build(options, steps=ends[-1])
    root = rng.root(0)
    start = functools.partial(state.init, experiment=experiment, module=module, rule=rule)
    current = jax.jit(start)(root)
    train_step = jax.jit(step.build(experiment, module, rule))
    real = eval_set.draw_eval_set(
        "shapes/quickstart", "validation", count=256, seed=0, size=64
    ).real
    small = real.reshape(256, 8, 8, 8, 8, 3).mean(axis=(2, 4)).astype(np.uint8)
    encoded = np.zeros((32, text.max_length, text.width), np.float32)
    losses = []
    for number in range(ends[-1]):
        rows = np.arange(32) + 32 * (number % 8)
        batch = Batch(small[rows], None, encoded, encoded[..., 0] == 0, rows.astype(np.int32))
        current, scalars = train_step(current, batch, root)
        losses.append(float(scalars["loss"]))
    return [float(np.mean(losses[end - 50 : end])) for end in ends]


@pytest.mark.slow
def test_adafactor_learns_as_adam_does_unless_it_is_scaled() -> None:
    """The table in docs/recipe.md."""
    plain = config.Optim(learning_rate=1e-3, schedule="constant", warmup_steps=0)
    table = {}
    for name, changes in {
        "adam": {},
        "unscaled": {"kind": "adafactor"},
        "scaled": {"kind": "adafactor", "adafactor_param_scale": True},
    }.items():
        options = dataclasses.replace(plain, **changes)
        table[name] = _short_training(options, (50, 100, 200, 300))
        print(name, [f"{loss:.3f}" for loss in table[name]])
    assert table["unscaled"][-1] < 1.2 * table["adam"][-1]
    assert table["adam"][-1] < 0.8 * table["scaled"][-1]


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


@pytest.mark.parametrize(
    ("warmup", "steps", "says"),
    [
        (200, 600, None),
        (200, 599, "few steps are left at the full .*; for a run so short give .*-steps 59$"),
        (200, 60, r"optim.warmup_steps=200 are more than a third of train.steps=60: only 30% of"),
        (0, 1, None),
        (1, 4, None),
    ],
)
def test_a_warmup_too_long_for_the_run_is_told(warmup: int, steps: int, says: str | None) -> None:
    found = optim.describe_long_warmup(config.Optim(warmup_steps=warmup), steps=steps)
    assert re.search(says, found) if says else not found


NEST = {
    "down_0": {"kernel": jnp.ones((32, 32)), "bias": jnp.ones(3)},
    "head": {"bias": jnp.ones(2)},
}


@pytest.mark.parametrize("kind", ["adam", "adafactor", "muon"])
def test_frozen_parameters_have_no_optimiser_state(kind: str) -> None:
    whole = optim.build(config.Optim(kind=kind), steps=10).init(NEST)
    held = optim.build(config.Optim(kind=kind, frozen=("down_0/*",)), steps=10).init(NEST)
    alone = optim.build(config.Optim(kind=kind), steps=10).init({"head": NEST["head"]})

    def size(tree: object) -> int:
        return sum(x.size for x in jax.tree.leaves(tree))

    assert size(held) == size(alone) < size(whole)


def test_patterns_select_what_is_trained() -> None:
    assert optim.select_trained(NEST, ("down_0/*",)) == {
        "down_0": {"kernel": False, "bias": False},
        "head": {"bias": True},
    }
    assert optim.select_trained(NEST, ("*/bias",))["down_0"] == {"kernel": True, "bias": False}


@pytest.mark.parametrize(
    ("frozen", "said"),
    [
        (("down_0/*", "up_*"), "optim.frozen: 'up_*' selects no parameter of this network; there"),
        (("*",), "selects every parameter: leave some to train"),
    ],
)
def test_patterns_that_select_nothing_or_all_are_refused(
    frozen: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ValueError, match=re.escape("optim.frozen")) as refusal:
        optim.build(config.Optim(frozen=frozen), steps=10).init(NEST)
    assert said in str(refusal.value)
