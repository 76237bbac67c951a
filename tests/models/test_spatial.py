"""Pictures split by height: every network computes what it computes on one device."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax import config, mesh


@functools.cache
def _grid() -> jax.sharding.Mesh:
    return mesh.build(config.Mesh(data=1, spatial=2), devices=jax.devices()[:2])


def _loss(toy: Any, name: str) -> Any:
    family = toy.family(name)

    def loss(params: Any, z: jax.Array, inputs: Any) -> tuple[jax.Array, jax.Array]:
        cond = toy.encode(family.module, params, inputs)
        out = family.module.apply({"params": params}, z, inputs.logsnr, cond)
        return jnp.mean(out**2), out

    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True), family.params


@pytest.mark.parametrize("name", ["base", "sr256", "sr1024"])
def test_forward_and_gradient_equal_those_of_one_device(toy: Any, name: str) -> None:
    both, params = _loss(toy, name)
    inputs = toy.make_inputs()
    (_, expected), gradients = jax.jit(both)(params, inputs.z, inputs)
    grid = _grid()
    whole, split = mesh.replicated(grid), mesh.image_sharding(grid)
    run = jax.jit(
        both,
        in_shardings=(whole, split, whole),
        out_shardings=((whole, split), (whole, split)),
    )
    with mesh.use(grid):
        text = run.lower(params, inputs.z, inputs).compile().as_text()
        (_, found), split_gradients = run(params, inputs.z, inputs)
    assert {s.data.shape for s in found.addressable_shards} == {(3, toy.SIDE // 2, toy.SIDE, 3)}
    assert "collective-permute" in text  # the rows at the border
    np.testing.assert_allclose(found, expected, atol=2e-5, rtol=2e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5, rtol=2e-4),
        split_gradients,
        gradients,
    )
