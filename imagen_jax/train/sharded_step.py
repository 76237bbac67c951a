"""One stage's training step as a program: jitted, with the sharding of all that goes in and out.

The loop runs it, `imagen plan` compiles it for devices that are not here, the benchmark times it.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from imagen_jax import config, models, rng
from imagen_jax.data.pipeline import Batch, ProcessRows
from imagen_jax.parallel import backend, compilation_cache, flops, mesh
from imagen_jax.train import distillation, resolve, state, step
from imagen_jax.types import Network, RandomKey

CHANNELS = 3
TRAINING = 3  # times the forward pass: the backward pass is twice it
ADAPTING = 2  # of adapters: the gradients of frozen kernels are left out


@dataclass(frozen=True, kw_only=True)
class ShardedStep:
    """The step of an experiment on a mesh, and what it needs to run."""

    experiment: config.Experiment  # resolved
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
        """A fresh state, made where it belongs; adapters without the network that they change."""

        def fresh(key: RandomKey) -> state.TrainState:
            made = state.init(key, experiment=self.experiment, module=self.module, rule=self.rule)
            return made.with_frozen(None)  # of which the compiler then makes nothing

        options = compilation_cache.run_once(self.devices)
        shardings = self.shardings.with_frozen(None)
        with jax.threefry_partitionable(True):  # as in `mesh.activate`
            return jax.jit(fresh, out_shardings=shardings, compiler_options=options)(key)

    def step(self) -> Any:
        """`train_step(state, batch, key) -> (state, metrics)`, jitted; the state is donated.

        Call or lower it under `mesh.use(devices)`.
        """
        whole = mesh.replicated_sharding(self.devices)
        build = step.build if self.experiment.stage.distillation is None else distillation.build
        return jax.jit(
            build(self.experiment, self.module, self.rule),
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
    """Build the program on all devices, or on the ones given.

    An experiment that `resolve` was not asked for yet is resolved here.
    Errors: ValueError as of `resolve`.
    """
    backend.refuse_x64()
    if experiment.layout is None:
        experiment = resolve.resolve(experiment, devices=devices)
    module, rule, shapes = state.abstract_run(dataclasses.replace(experiment, layout=None))
    grid = mesh.build(resolve.axis_sizes(experiment), devices=devices)
    by_row, by_height = mesh.batch_sharding(grid), mesh.image_sharding(grid)
    low = by_row if experiment.stage.is_super_resolution else None
    return ShardedStep(
        experiment=experiment,
        devices=grid,
        module=module,
        rule=rule,
        shapes=shapes,
        shardings=state.shardings_of(shapes, grid, experiment.mesh),
        batch_shardings=_batch_of(
            pixels=by_height, low_pixels=low, text=by_row, text_mask=by_row, index=by_row
        ),
    )


def batch_shapes(experiment: config.Experiment) -> Batch:
    """Shapes and dtypes of a global batch."""
    stage, text, size = experiment.stage, experiment.text, experiment.train.batch_size
    side, low = stage.train_side, stage.train_side // stage.factor

    def array(*shape: int, dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((size, *shape), dtype)

    return _batch_of(
        pixels=array(side, side, CHANNELS, dtype=jnp.uint8),
        low_pixels=array(low, low, CHANNELS, dtype=jnp.uint8)
        if stage.is_super_resolution
        else None,
        text=array(text.max_length, text.width, dtype=jnp.float32),
        text_mask=array(text.max_length, dtype=jnp.bool_),
        index=array(dtype=jnp.int32),
    )


def _batch_of(**leaves: Any) -> Batch:
    """A batch whose leaves are shapes or shardings, in the place of arrays."""
    return Batch(**leaves)


def flops_per_image(experiment: config.Experiment) -> float:
    """FLOPs of training on one image: 3 times the forward pass, text conditioning included.

    With adapters 2 times: the gradients of the kernels that they change are not counted. In
    distillation the passes of teacher and auxiliary network count, too.
    """
    stage, text = experiment.stage, experiment.text
    module = models.build(stage.model)
    one = dataclasses.replace(
        experiment, train=dataclasses.replace(experiment.train, batch_size=1, micro_batches=1)
    )
    batch = batch_shapes(one)
    shapes = models.parameter_shapes(stage, text)

    def forward(params: Any, text: Any, mask: Any, image: Any, logsnr: Any) -> Any:
        has_text = jnp.ones((1,), jnp.bool_)
        low: dict[str, Any] = (
            {"low_res": image, "aug_logsnr": logsnr} if stage.is_super_resolution else {}
        )
        if stage.has_guidance_input:
            low["guidance_weight"] = jnp.ones((1,))
        cond = models.condition(module, params, (text, mask, has_text), **low)
        return models.predictor(module, params, cond)(image, logsnr)

    image = jax.ShapeDtypeStruct(batch.pixels.shape, jnp.float32)
    logsnr = jax.ShapeDtypeStruct((1,), jnp.float32)
    passes = ADAPTING if experiment.lora.rank else TRAINING
    if stage.distillation is not None:
        passes = distillation.count_passes(stage.distillation)
    return passes * float(
        flops.count_flops(forward, shapes, batch.text, batch.text_mask, image, logsnr)
    )
