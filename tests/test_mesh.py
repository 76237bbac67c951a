"""The mesh states what it needs, and one rule shards every array."""

import jax
import jax.numpy as jnp
import pytest

from imagen_jax import config, mesh


def test_axes_fill_up_and_products_are_checked() -> None:
    assert dict(mesh.build(config.Mesh()).shape) == {"data": 8, "fsdp": 1}
    assert dict(mesh.build(config.Mesh(fsdp=4)).shape) == {"data": 2, "fsdp": 4}
    for options in (config.Mesh(data=3), config.Mesh(data=2, fsdp=2), config.Mesh(fsdp=16)):
        with pytest.raises(ValueError, match=r"needs \d+ devices, found 8 in 1 process"):
            mesh.build(options)


def test_large_arrays_are_sharded_by_their_largest_divisible_axis() -> None:
    devices = mesh.build(config.Mesh(fsdp=4))
    shapes = {
        "kernel": jax.ShapeDtypeStruct((3, 3, 64, 64), jnp.float32),
        "wide": jax.ShapeDtypeStruct((128, 64), jnp.float32),
        "odd": jax.ShapeDtypeStruct((129, 63), jnp.float32),
        "bias": jax.ShapeDtypeStruct((64,), jnp.float32),
        "key": jax.eval_shape(lambda: jax.random.key(0)),
    }
    specs = {
        name: tuple(s.spec)
        for name, s in mesh.state_shardings(shapes, devices, min_shard_bytes=1024).items()
    }
    assert specs == {
        "kernel": (None, None, None, "fsdp"),  # output channels win a tie
        "wide": ("fsdp",),
        "odd": (),
        "bias": (),
        "key": (),
    }
