"""Collectives in a program's text: kinds, counts and bytes."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from imagen_jax.parallel import auto_layout, mesh
from imagen_jax.plan import collectives

TEXT = """
  %all-gather.1 = bf16[8,128]{1,0:T(8,128)(2,1)} all-gather(%p), dimensions={0}
  %ags = (f32[2,4]{1,0}, f32[8,4]{1,0}) all-gather-start(%p), dimensions={0}
  %agd = f32[8,4]{1,0} all-gather-done(%ags)
  ROOT %all-reduce.5 = (f32[16]{0}, bf16[4]{0}) all-reduce(%a, %b), to_apply=%add
  %cp = (f32[3]{0}, f32[3]{0}, u32[], u32[]) collective-permute-start(%x)
  %a2a = pred[10]{0} all-to-all(%y), dimensions={0}
  %fusion.1 = f32[8]{0} fusion(%all-gather.1), kind=kLoop
"""


def test_kinds_counts_and_bytes() -> None:
    found = collectives.read_collectives(TEXT)
    assert {k: (v.count, v.payload) for k, v in found.items()} == {
        "all-gather": (2, 8 * 128 * 2 + 8 * 4 * 4),
        "all-reduce": (1, 16 * 4 + 4 * 2),
        "collective-permute": (1, 12),
        "all-to-all": (1, 10),
    }
    assert collectives.bytes_sent(found) == 2048 + 128 + 2 * 72 + 12 + 10


def test_a_real_program() -> None:
    """Each of eight devices gets the mean of a row that is split over all: one all-reduce."""
    devices = mesh.build(auto_layout.choose_axes())
    split = NamedSharding(devices, PartitionSpec("data"))
    mean = jax.jit(
        lambda x: x.sum(0), in_shardings=split, out_shardings=mesh.replicated_sharding(devices)
    )
    text = mean.lower(jax.ShapeDtypeStruct((8, 32), jnp.float32)).compile().as_text()
    found = collectives.read_collectives(text)
    assert {k: (v.count, v.payload) for k, v in found.items()} == {"all-reduce": (1, 128)}
    np.testing.assert_array_equal(mean(np.ones((8, 32), np.float32)), np.full(32, 8.0))
