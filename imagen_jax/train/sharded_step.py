"""One stage's training step as a program: jitted, with the sharding of all that goes in and out.

The loop runs it, `imagen plan` compiles it for devices that are not here, the benchmark times it.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from imagen_jax import config, models, rng
from imagen_jax.data.pipeline import Batch, ProcessRows
from imagen_jax.parallel import backend, compilation_cache, flops, mesh
from imagen_jax.train import optim, state, step
from imagen_jax.types import Network, Params, RandomKey

CHANNELS = 3
TRAINING = 3  # times the forward pass: the backward pass is twice it


@dataclass(frozen=True, kw_only=True)
class ShardedStep:
    """The step of an experiment on a mesh, and what it needs to run."""

    experiment: config.Experiment  # its micro-batches chosen
    devices: jax.sharding.Mesh
    module: Network
    rule: optax.GradientTransformationExtraArgs
    shapes: state.TrainState  # of the state, as jax.ShapeDtypeStruct
    shardings: state.TrainState
    batch_shardings: Batch

    @property
    def share(self) -> ProcessRows:
        """The rows of every batch that this process has to load."""
        size = self.experiment.train.batch_size
        return ProcessRows(size, mesh.local_rows(self.devices, size))

    def init(self, key: RandomKey) -> state.TrainState:
        """A fresh state, made where it belongs."""
        fresh = functools.partial(
            state.init, experiment=self.experiment, module=self.module, rule=self.rule
        )
        options = compilation_cache.run_once(self.devices)
        with jax.threefry_partitionable(True):  # as in `mesh.activate`
            return jax.jit(fresh, out_shardings=self.shardings, compiler_options=options)(key)

    def step(self) -> Any:
        """`train_step(state, batch, key) -> (state, metrics)`, jitted; the state is donated.

        Call or lower it under `mesh.use(devices)`.
        """
        whole = mesh.replicated_sharding(self.devices)
        return jax.jit(
            step.build(self.experiment, self.module, self.rule),
            in_shardings=(self.shardings, self.batch_shardings, whole),
            out_shardings=(self.shardings, whole),
            donate_argnums=0,
        )

    def target(self) -> state.TrainState:
        """Shapes that carry their shardings: what a restore and a lowering need to know."""
        return state.with_shardings(self.shapes, self.shardings)

    def lower(self) -> jax.stages.Lowered:
        """The step for these devices, which need not be here, with nothing computed."""
        batch = state.with_shardings(batch_shapes(self.experiment), self.batch_shardings)
        key = jax.eval_shape(lambda: rng.root(0))
        with mesh.activate(self.devices):
            return self.step().lower(self.target(), batch, key)


def build(experiment: config.Experiment, *, devices: Sequence[Any] | None = None) -> ShardedStep:
    """The program on all devices, or on the ones given.

    Errors: ValueError for a mesh that does not fit the devices, or a batch that does not fit it.
    """
    backend.refuse_x64()
    module = models.build(experiment.stage.model)
    rule = optim.build(experiment.optim, steps=experiment.train.steps)
    shapes = state.abstract_state(experiment, module, rule)
    grid = mesh.build(experiment.mesh, workload=workload(experiment, shapes), devices=devices)
    experiment = _with_micro_batches(experiment, grid)
    _check(experiment, grid)
    by_row, by_height = mesh.batch_sharding(grid), mesh.image_sharding(grid)
    low = by_row if experiment.stage.is_super_resolution else None
    return ShardedStep(
        experiment=experiment,
        devices=grid,
        module=module,
        rule=rule,
        shapes=shapes,
        shardings=state.shardings_of(shapes, grid, experiment.mesh),
        batch_shardings=Batch(by_height, low, by_row, by_row, by_row),
    )


def workload(experiment: config.Experiment, shapes: state.TrainState) -> mesh.Workload:
    """What the layout of a training run has to carry: gradients are as large as parameters."""
    stage, train = experiment.stage, experiment.train
    return mesh.Workload(
        images=train.batch_size // max(train.micro_batches, 1),
        rows=stage.train_side // stage.model.multiple(),
        state_bytes=_bytes(shapes) + _bytes(shapes.params),
    )


def _with_micro_batches(
    experiment: config.Experiment, grid: jax.sharding.Mesh
) -> config.Experiment:
    train = experiment.train
    if train.micro_batches > 0:
        return experiment
    local = int(mesh.local_images(train.batch_size, grid))
    parts = mesh.micro_batches(local, grid.devices.flat[0])
    return dataclasses.replace(experiment, train=dataclasses.replace(train, micro_batches=parts))


def batch_shapes(experiment: config.Experiment) -> Batch:
    """Shapes and dtypes of a global batch."""
    stage, text, size = experiment.stage, experiment.text, experiment.train.batch_size
    side, low = stage.train_side, stage.train_side // stage.factor

    def array(*shape: int, dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((size, *shape), dtype)

    return Batch(
        pixels=array(side, side, CHANNELS, dtype=jnp.uint8),
        low_pixels=array(low, low, CHANNELS, dtype=jnp.uint8)
        if stage.is_super_resolution
        else None,
        text=array(text.max_length, text.width, dtype=jnp.float32),
        text_mask=array(text.max_length, dtype=jnp.bool_),
        index=array(dtype=jnp.int32),
    )


def flops_per_image(experiment: config.Experiment) -> float:
    """FLOPs of training on one picture: 3 times the forward pass, text conditioning included."""
    stage, text = experiment.stage, experiment.text
    module = models.build(stage.model)
    one = dataclasses.replace(
        experiment, train=dataclasses.replace(experiment.train, batch_size=1, micro_batches=1)
    )
    batch = batch_shapes(one)
    shapes = models.parameter_shapes(stage, text)

    def forward(params: Any, text: Any, mask: Any, image: Any, logsnr: Any) -> Any:
        has_text = jnp.ones((1,), jnp.bool_)
        low = {"low_res": image, "aug_logsnr": logsnr} if stage.is_super_resolution else {}
        cond = models.condition(module, params, (text, mask, has_text), **low)
        return models.predictor(module, params, cond)(image, logsnr)

    image = jax.ShapeDtypeStruct(batch.pixels.shape, jnp.float32)
    logsnr = jax.ShapeDtypeStruct((1,), jnp.float32)
    return TRAINING * float(
        flops.count_flops(forward, shapes, batch.text, batch.text_mask, image, logsnr)
    )


def _check(experiment: config.Experiment, grid: jax.sharding.Mesh) -> None:
    """Errors: ValueError naming batch, micro-batches and mesh where they don't divide."""
    train, sizes = experiment.train, dict(grid.shape)
    holders = round(1 / mesh.local_images(1, grid))
    if train.batch_size % (holders * train.micro_batches):
        raise ValueError(
            f"train.batch_size={train.batch_size} in train.micro_batches={train.micro_batches} "
            f"does not divide over the mesh {sizes}, {holders} parts: give a multiple of "
            f"{holders * train.micro_batches}"
        )
    stage = experiment.stage
    rows, strips = stage.train_side // stage.model.multiple(), mesh.spatial_shards(grid)
    if rows % strips:
        raise ValueError(
            f"mesh {sizes}: the coarsest feature map of stage {stage.name} has {rows} rows, which "
            f"do not divide by spatial={strips}; set mesh.spatial to a divisor"
        )


def _bytes(shapes: Params) -> float:
    return float(
        sum(math.prod(x.shape) * jnp.dtype(x.dtype).itemsize for x in jax.tree.leaves(shapes))
    )
