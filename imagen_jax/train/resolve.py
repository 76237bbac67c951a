"""The config of a run: what an experiment leaves open is chosen here, once, before it starts."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from imagen_jax import config
from imagen_jax.data.store import fit
from imagen_jax.data.store.store import Store
from imagen_jax.parallel import auto_layout, backend
from imagen_jax.parallel.axes import AXES, DATA, FSDP, SPATIAL
from imagen_jax.train import state
from imagen_jax.types import Params


def resolve(
    experiment: config.Experiment,
    *,
    store: Store | None = None,
    devices: Sequence[Any] | None = None,
) -> config.Experiment:
    """Return the experiment as it runs on all devices, or on the ones given.

    Its text encoder gets the digests and the dtype of the one that made the store, if there is a
    store; its `layout` the mesh and the micro-batches, chosen for these devices whatever an earlier
    run had.
    Errors: ValueError for a store that does not fit the config, a mesh that does not fit the
    devices, or a batch that does not fit the mesh.
    """
    backend.refuse_x64()
    if store is not None:
        experiment = with_text(experiment, store)
    devices = jax.devices() if devices is None else devices
    sizes = auto_layout.choose_axes(experiment.mesh, workload(experiment), devices=devices)
    parts = experiment.train.micro_batches
    if parts == -1:
        local = experiment.train.batch_size // (sizes[DATA] * sizes[FSDP])
        parts = auto_layout.micro_batches(local, devices[0])
    _check(experiment, sizes, parts)
    layout = config.Layout(**sizes, micro_batches=parts)
    return dataclasses.replace(experiment, layout=layout)


def with_text(experiment: config.Experiment, store: Store) -> config.Experiment:
    """Return the experiment with the text encoder that made the store, and its examples.

    Errors: ValueError for a store that does not fit the config.
    """
    fit.check_store(store, experiment=experiment)
    return fit.with_store(experiment, store)


def axis_sizes(experiment: config.Experiment) -> Mapping[str, int]:
    """Return the sizes of the mesh's axes of a resolved experiment."""
    return {axis: getattr(experiment.layout, axis) for axis in AXES}


def workload(experiment: config.Experiment) -> auto_layout.Workload:
    """Return what a training run's layout carries: gradients are as large as parameters."""
    stage, train = experiment.stage, experiment.train
    _, _, shapes = state.abstract_run(dataclasses.replace(experiment, layout=None))
    return auto_layout.Workload(
        images=train.batch_size // max(train.micro_batches, 1),
        rows=stage.train_side // stage.model.multiple(),
        state_bytes=_bytes(shapes) + _bytes(shapes.params),
    )


def _check(experiment: config.Experiment, sizes: Mapping[str, int], parts: int) -> None:
    """Errors: ValueError naming batch, micro-batches and mesh where they don't divide."""
    size, shards = experiment.train.batch_size, sizes[DATA] * sizes[FSDP]
    if size % (shards * parts):
        raise ValueError(
            f"train.batch_size={size} in train.micro_batches={parts} does not divide over the "
            f"mesh {dict(sizes)}, {shards} parts: give a multiple of {shards * parts}"
        )
    stage = experiment.stage
    rows, strips = stage.train_side // stage.model.multiple(), sizes[SPATIAL]
    if rows % strips:
        raise ValueError(
            f"mesh {dict(sizes)}: the coarsest feature map of stage {stage.name} has {rows} rows, "
            f"which do not divide by spatial={strips}; set mesh.spatial to a divisor"
        )


def _bytes(shapes: Params) -> float:
    return float(
        sum(math.prod(x.shape) * jnp.dtype(x.dtype).itemsize for x in jax.tree.leaves(shapes))
    )
