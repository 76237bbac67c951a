"""What the backward pass recomputes saves memory and changes no gradient."""

import dataclasses
import functools
import math
import typing
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax import config, models

POLICIES = typing.get_args(config.Remat)


def _loss(toy: Any, name: str, remat: str) -> Any:
    family = toy.family(name)
    options = dataclasses.replace(toy.ALL_OPTIONS[name], remat=remat)
    module, inputs = models.build(options), toy.make_inputs()

    def loss(params: Any) -> jax.Array:
        cond = toy.encode(module, params, inputs)
        return jnp.mean(toy.predict(module, params, cond, inputs) ** 2)

    return loss, family.params


def _kept(toy: Any, name: str, remat: str) -> int:
    """Bytes that the forward pass leaves to the backward pass, beside the parameters."""
    loss, params = _loss(toy, name, remat)
    kept = jax.eval_shape(lambda p: jax.vjp(loss, p)[1], params)
    shapes = {(x.shape, x.dtype) for x in jax.tree.leaves(params)}
    left = [x for x in jax.tree.leaves(kept) if (x.shape, x.dtype) not in shapes]
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in left)


@pytest.mark.parametrize(
    "name",
    ["base", "sr256"]
    + [pytest.param(name, marks=pytest.mark.slow) for name in ("sr1024", "deepfloyd_2")],
)
def test_each_policy_keeps_less_than_the_one_before(toy: Any, name: str) -> None:
    kept = {remat: _kept(toy, name, remat) for remat in POLICIES}
    none, convs, block, level = (kept[p] for p in ("none", "convs", "block", "level"))
    assert none > 1.3 * convs > 1.3 * block, kept
    assert block > level or name == "sr1024", kept  # whose levels hold one block


@functools.cache
def _gradients(toy: Any, name: str, remat: str) -> Any:
    loss, params = _loss(toy, name, remat)
    return jax.jit(jax.grad(loss))(params)


@pytest.mark.parametrize(
    ("name", "remat"),
    [
        ("sr256", "convs"),
        ("sr256", "block"),
        pytest.param("sr1024", "block", marks=pytest.mark.slow),
        *(
            pytest.param(name, remat, marks=pytest.mark.slow)
            for name in ("base", "sr256", "deepfloyd_2")
            for remat in ("convs", "block", "level")
            if (name, remat) not in (("sr256", "convs"), ("sr256", "block"))
        ),
    ],
)
def test_gradients_stay_the_same(toy: Any, name: str, remat: str) -> None:
    found, expected = _gradients(toy, name, remat), _gradients(toy, name, "none")
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected
    )


def test_an_unknown_policy_is_refused() -> None:
    document = config.to_json(config.load("tiny/base8")[0])
    with pytest.raises(ValueError, match=r"'blocks' is none of \['none', 'convs'"):
        config.from_json(document.replace('"remat": "none"', '"remat": "blocks"'))
