"""Pictures split by height: every network computes what it computes on one device."""

import dataclasses
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax import config
from imagen_jax.parallel import auto_layout, mesh

MAPS = re.compile(r"(?:f32|bf16)\[(\d+),(\d+),(\d+),\d+\]")


SLOW = pytest.param("deepfloyd_1", marks=pytest.mark.slow)
SLOW_2 = pytest.param("deepfloyd_2", marks=pytest.mark.slow)
SLOW_BASE = pytest.param("base", marks=pytest.mark.slow)
SLOW_1024 = pytest.param("sr1024", marks=pytest.mark.slow)


@functools.cache
def _grid(strips: int) -> jax.sharding.Mesh:
    devices = jax.devices()[:strips]
    sizes = auto_layout.choose_axes(config.Mesh(data=1, spatial=strips), devices=devices)
    return mesh.build(sizes, devices=devices)


def _loss(toy: Any, name: str) -> Any:
    family = toy.family(name)

    def loss(params: Any, z: jax.Array, inputs: Any) -> tuple[jax.Array, jax.Array]:
        cond = toy.encode(family.module, params, inputs)
        out = family.module.apply({"params": params}, z, inputs.logsnr, cond)
        return jnp.mean(out**2), out

    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True), family.params


@pytest.mark.parametrize("name", [SLOW_BASE, "sr256", SLOW_1024, SLOW, SLOW_2])
def test_forward_and_gradient_equal_those_of_one_device(toy: Any, name: str) -> None:
    both, params = _loss(toy, name)
    inputs = toy.make_inputs()
    (_, expected), gradients = jax.jit(both)(params, inputs.z, inputs)
    grid = _grid(2)
    whole, split = mesh.replicated_sharding(grid), mesh.image_sharding(grid)
    run = jax.jit(
        both,
        in_shardings=(whole, split, whole),
        out_shardings=((whole, split), (whole, split)),
    )
    with mesh.activate(grid):
        text = run.lower(params, inputs.z, inputs).compile().as_text()
        (_, found), split_gradients = run(params, inputs.z, inputs)
    assert {s.data.shape for s in found.addressable_shards} == {
        (3, toy.SIDE // 2, toy.SIDE, expected.shape[-1])
    }
    assert "collective-permute" in text  # the rows at the border
    np.testing.assert_allclose(found, expected, atol=2e-5, rtol=2e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5, rtol=2e-4),
        split_gradients,
        gradients,
    )


@pytest.mark.parametrize("name", [SLOW_BASE, "sr256", SLOW_1024, SLOW, SLOW_2])
def test_no_operation_gathers_whole_maps(toy: Any, name: str) -> None:
    """Of a picture's 16 rows, and the 8 of its coarser map, a device sees a quarter and borders.

    Attention's keys and values are whole, as they have to be; they have no rows any more.
    """
    height, width = 16, 24
    both, params = _loss(toy, name)
    inputs = toy.make_inputs(height, width)
    grid = _grid(4)
    low_res = toy.reads_low_res(toy.ALL_OPTIONS[name])
    whole, split = mesh.replicated_sharding(grid), mesh.image_sharding(grid)
    rows = dataclasses.replace(
        jax.tree.map(lambda _: whole, inputs), z=split, low_res=split if low_res else None
    )
    if not low_res:
        inputs = dataclasses.replace(inputs, low_res=None)
    run = jax.jit(both, in_shardings=(whole, split, rows), out_shardings=((whole, split), None))
    with mesh.activate(grid):
        text = run.lower(params, inputs.z, inputs).compile().as_text()
    maps = {tuple(map(int, found)) for found in MAPS.findall(text)}
    assert (3, height // 4, width) in maps
    assert (3, height // 8, width // 2) in maps
    assert not maps & {(3, height, width), (3, height // 2, width // 2)}
