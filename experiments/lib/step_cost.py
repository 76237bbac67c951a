"""Cost of one training step of a run's config: seconds of CPU, and memory by the compiler."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp

from imagen_jax import config, rng
from imagen_jax.parallel import mesh
from imagen_jax.train import sharded_step


@dataclasses.dataclass(frozen=True)
class StepCost:
    """The cost of a step."""

    cpu_seconds: float
    peak_bytes: int  # arguments, results and what lies between


def measure_step(experiment: config.Experiment, *, steps: int) -> StepCost:
    """Compile a step as a run does, and make some of numbers that mean nothing."""
    program = sharded_step.build(dataclasses.replace(experiment, layout=None))
    compiled = program.lower().compile()
    found: Any = compiled.memory_analysis()
    batch = _filled(sharded_step.batch_shapes(program.experiment), program.batch_shardings)
    current = _filled(program.shapes, program.shardings)
    key = rng.root(0)
    with mesh.activate(program.devices):
        current, _ = jax.block_until_ready(compiled(current, batch, key))
        started = time.process_time()
        for _ in range(steps):
            current, _ = jax.block_until_ready(compiled(current, batch, key))
        took = time.process_time() - started
    held = found.argument_size_in_bytes + found.temp_size_in_bytes
    held += found.output_size_in_bytes - found.alias_size_in_bytes
    return StepCost(cpu_seconds=took / steps, peak_bytes=held)


def _filled(shapes: Any, shardings: Any) -> Any:
    def fill(x: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding) -> jax.Array:
        return jax.device_put(jnp.full(x.shape, 0.01).astype(x.dtype), sharding)

    return jax.tree.map(fill, shapes, shardings)
