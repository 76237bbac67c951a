"""Fingerprints: any changed bit tells, and neither sharding nor restoring changes them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax import config
from imagen_jax.io import checksums
from imagen_jax.parallel import auto_layout, mesh

TREE = {
    "step": jnp.int32(7),
    "wide": jax.random.normal(jax.random.key(0), (16, 8)),
    "half": (jnp.arange(12, dtype=jnp.bfloat16).reshape(3, 4), jnp.ones((5,), jnp.bool_)),
    "key": jax.random.key(3),
}


def test_every_array_has_its_name() -> None:
    assert set(checksums.compute(TREE)) == {"step", "wide", "half/0", "half/1", "key"}


@pytest.mark.parametrize("fsdp", [2, 8])
def test_sharding_changes_nothing(fsdp: int) -> None:
    grid = mesh.build(auto_layout.choose_axes(config.Mesh(fsdp=fsdp)))
    where = mesh.state_shardings(TREE, grid, min_shard_bytes=0)
    assert checksums.compute(jax.device_put(TREE, where)) == checksums.compute(TREE)


@pytest.mark.parametrize("bit", range(32))
@pytest.mark.parametrize("place", [0, 77, 127])
def test_one_flipped_bit_tells(bit: int, place: int) -> None:
    raw = np.array(TREE["wide"]).view(np.uint32).copy()
    raw.flat[place] ^= np.uint32(1 << bit)
    changed = TREE | {"wide": jnp.asarray(raw.view(np.float32))}
    saved = checksums.compute(TREE)
    assert checksums.changed_names(checksums.compute(changed), saved) == ["wide"]


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[::-1],
        lambda x: x.at[0, 0].set(x[0, 1]).at[0, 1].set(x[0, 0]),
        lambda x: x.at[3:5].set(0),
        lambda x: -x,
        lambda x: x.at[2].set(jnp.nan),
    ],
)
def test_exchanged_and_lost_values_tell(change) -> None:
    found = checksums.compute(TREE | {"wide": change(TREE["wide"])})
    assert checksums.changed_names(found, checksums.compute(TREE)) == ["wide"]


def test_a_part_is_compared_with_its_part() -> None:
    saved = checksums.compute(TREE)
    assert not checksums.changed_names(checksums.compute({"wide": TREE["wide"]}), saved)
    assert checksums.changed_names(checksums.compute({"other": TREE["wide"]}), saved) == ["other"]


def test_elements_that_are_too_wide_are_refused() -> None:
    with (
        jax.enable_x64(True),
        pytest.raises(ValueError, match="an array of float64 cannot be summed"),
    ):
        checksums.compute({"x": jnp.zeros((2,), jnp.float64)})
