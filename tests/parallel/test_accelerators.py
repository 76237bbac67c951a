"""The table of chips: complete, found by jax's names, its options known to the TPU compiler."""

import subprocess
import sys

import pytest

from imagen_jax.parallel import accelerators

COMPILE = """
import sys
from imagen_jax.plan import topology
topology.use_compiler()
import jax
import jax.numpy as jnp
from imagen_jax.parallel import accelerators
from imagen_jax.plan import compile
for chip in accelerators.TPUS.values():
    shape = "x".join(map(str, chip.minimal_shape))
    slice_ = topology.describe_topology(f"{chip.name}:{shape}")
    kind = slice_.devices[0].device_kind
    assert accelerators.from_device_kind(kind) is chip, kind
    one = jax.sharding.SingleDeviceSharding(slice_.devices[0])
    row = jax.ShapeDtypeStruct((8, 128), jnp.float32, sharding=one)
    compile.compile_for(jax.jit(lambda x: x + 1).lower(row), slice_, effort=False)
    print(chip.name, "ok")
for name in ("v5e:3x5", "v5e:2x2x2", "v4:3x3x3"):
    try:
        topology.describe_topology(name)
    except ValueError as error:
        print("refused", error)
one = topology.describe_topology("v5e:1x1")
print(len(one.devices), "chip")
"""


def test_options_are_known_to_the_installed_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert [f"{name} ok" in lines for name in accelerators.TPUS] == [True] * 5
    assert sum(line.startswith("refused") for line in lines) == 3
    assert lines[-1] == "1 chip"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("TPU v4", "v4"),
        ("TPU v5 lite", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA H200", "H200"),
    ],
)
def test_devices_are_found_by_the_name_that_jax_gives_them(kind: str, name: str) -> None:
    assert accelerators.from_device_kind(kind).name == name


def test_what_is_not_listed_is_unknown() -> None:
    assert accelerators.from_device_kind("cpu") is None
    with pytest.raises(ValueError, match="no TPU generation 'v9'; there are v4, v5e"):
        accelerators.from_topology_name("v9")
