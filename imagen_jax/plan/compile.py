"""Compile what is planned: a training step, a stage's sampler, the text encoder.

Each is the real one, compiled for devices that are described and not present.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from imagen_jax import config, models
from imagen_jax.parallel import auto_layout, flops, mesh
from imagen_jax.plan import roofline
from imagen_jax.plan.sampling_loop import SamplingLoop
from imagen_jax.plan.topology import Topology
from imagen_jax.text import packing, t5, t5_storage
from imagen_jax.text.placement import Split, parameter_sharding
from imagen_jax.train import distillation, resolve, sharded_step, state

EFFORT = {"optimization_level": 9}  # O0: 15 times faster and a third of the memory
CAPTION_TOKENS = 20  # of a caption from the web, about


@dataclass(frozen=True, kw_only=True)
class CompiledPlan:
    """A compiled program and what it is for."""

    what: str  # train, distill, sample, encode
    name: str  # of the stage, or of the encoder
    mesh: Mapping[str, int]
    images: int  # a call, over all chips; captions for encode
    local_images: float  # computed at once on a device
    parameters: int
    flops: float  # an image, the model's own: 3 times the forward pass for training
    estimate: roofline.Estimate
    devices: int | None = None  # that work together, if not all: the chips of one process
    remat: config.Remat | None = None  # of training
    steps: int | None = None  # of sampling, for an image
    notes: tuple[str, ...] = ()


def compile_train(
    experiment: config.Experiment, topology: Topology, *, effort: bool = False
) -> CompiledPlan:
    """Compile one training step. `effort` compiles as for a run, which takes long and much memory.

    Errors: ValueError for a batch or mesh that does not fit the topology.
    """
    experiment = resolve.resolve(experiment, devices=topology.devices)
    work = sharded_step.build(experiment, devices=topology.devices)
    size, parts = experiment.train.batch_size, experiment.micro_batches
    model_flops = sharded_step.flops_per_image(experiment)
    work_of_one = model_flops * size / parts / len(topology.devices)
    compiled = compile_for(work.lower(), topology, effort=effort)
    local = auto_layout.local_images(size // parts, work.devices)
    notes = _small_batch(local) + describe_limits(experiment.stage)
    if parts == 1:
        found = roofline.estimate(compiled, topology.chip, flops=work_of_one)
    else:
        one = sharded_step.build(_one_part(work), devices=topology.devices)
        found = roofline.estimate(
            compile_for(one.lower(), topology, effort=effort), topology.chip, flops=work_of_one
        ).times(parts, memory=roofline.memory_of(compiled, topology.chip))
        notes.append(
            f"{parts} micro-batches: estimated as so many steps, each with the optimiser's update"
        )
    what, name = describe_training(experiment)
    return CompiledPlan(
        what=what,
        name=name,
        mesh=dict(work.devices.shape),
        images=size,
        local_images=local,
        parameters=models.count_parameters(work.shapes.params),
        flops=model_flops,
        estimate=found,
        remat=experiment.stage.model.remat,
        notes=tuple(notes),
    )


def describe_training(experiment: config.Experiment) -> tuple[str, str]:
    """What a run does, train or distill, and to which part of which stage."""
    name, rank = experiment.stage.name, experiment.lora.rank
    if (student := experiment.stage.distillation) is not None:
        steps = f" in {student.steps} steps" if student.steps else ""
        return "distill", f"{name}, {student.method}{steps}"
    return "train", f"{name}, adapters of rank {rank}" if rank else name


def describe_limits(stage: config.Stage) -> list[str]:
    """What a planned student can't do, whatever its program costs."""
    found = distillation.describe_noise_prediction(stage)
    return [found.removeprefix("warning: ")] if found else []


def _one_part(work: sharded_step.ShardedStep) -> config.Experiment:
    """Return the experiment of a step as large as one micro-batch of a program, on its mesh."""
    train = work.experiment.train
    size = train.batch_size // work.experiment.micro_batches
    return dataclasses.replace(
        work.experiment,
        train=dataclasses.replace(train, batch_size=size, micro_batches=1),
        layout=config.Layout(**work.devices.shape, micro_batches=1),
    )


def compile_sample(
    experiment: config.Experiment,
    topology: Topology,
    *,
    images: int,
    steps: Sequence[int] = (),
    effort: bool = False,
) -> list[CompiledPlan]:
    """Compile a stage's whole sampling loop for so many images at once, at their full size.

    The compiler counts a loop's body once: all but the memory is that of one step, which is no
    loop, times the steps. So one compilation makes a plan for each of `steps`, by default the
    stage's own.
    """
    stage = experiment.stage
    grid, local = _sampling_mesh(experiment, images, topology)
    loop = SamplingLoop.build(experiment, images, grid)
    with mesh.activate(grid):
        whole_loop = loop.lower()
        step = jax.jit(functools.partial(loop, 1)).lower(*loop.shapes)
    memory = roofline.memory_of(compile_for(whole_loop, topology, effort=effort), topology.chip)
    found = roofline.estimate(compile_for(step, topology, effort=effort), topology.chip)
    return [
        CompiledPlan(
            what="sample",
            name=stage.name,
            mesh=dict(grid.shape),
            images=images,
            local_images=local,
            parameters=models.count_parameters(loop.shapes[0]),
            flops=flops.count_flops(functools.partial(loop, count), *loop.shapes) / images,
            estimate=found.times(count, memory=memory),
            steps=count,
            notes=tuple(_small_batch(local) + describe_limits(stage)),
        )
        for count in steps or (stage.sampler.steps,)
    ]


def _sampling_mesh(
    experiment: config.Experiment, images: int, topology: Topology
) -> tuple[jax.sharding.Mesh, float]:
    """The mesh for so many images, and how many of the network's batch a device computes."""
    stage = experiment.stage
    workload = auto_layout.Workload(
        images=images * (2 if stage.is_guided else 1), rows=stage.size // stage.model.multiple()
    )
    sizes = auto_layout.choose_axes(experiment.mesh, workload, devices=topology.devices)
    grid = mesh.build(sizes, devices=topology.devices)
    return grid, auto_layout.local_images(workload.images, grid)


def compile_encode(
    encoder: t5.T5Config,
    topology: Topology,
    *,
    captions: int,
    text: config.Text,
    split: Split = "captions",
    effort: bool = False,
) -> CompiledPlan:
    """Compile the T5 encoder on one process's chips, for packed rows of captions.

    Captions are taken to have `CAPTION_TOKENS` tokens on average, and rows to be full; where
    padding is encoded each has a row. It is kept in int8 if the text says so, else in bfloat16.
    """
    dtype: config.EncoderDtype = "int8" if text.dtype == "int8" else "bfloat16"
    devices = [d for d in topology.devices if d.process_index == 0]
    grid, params = _place_encoder(t5_storage.storage_shapes(encoder, dtype), devices, split)
    ids = _row_shapes(captions, text, grid)
    run = functools.partial(t5.encode_packed, config=encoder, dtype=dtype, padding=text.padding)
    work = flops.count_flops(run, params, ids, ids)
    with mesh.activate(grid):
        lowered = jax.jit(run, out_shardings=ids.sharding).lower(params, ids, ids)
    compiled = compile_for(lowered, topology, effort=effort)
    rows, length = ids.shape
    packed = rows * length // tokens_of(text)
    parameters = sum(math.prod(shape) for shape in t5.parameter_shapes(encoder).values())
    kept = ", int8" if dtype == "int8" else ""
    return CompiledPlan(
        what="encode",
        name=f"T5, {parameters / 1e9:.2f} B{kept}, {rows} rows of {length} tokens",
        mesh=dict(grid.shape),
        images=packed,
        local_images=packed / auto_layout.batch_shards(grid),
        parameters=parameters,
        flops=work / packed,
        estimate=roofline.estimate(compiled, topology.chip, flops=work / len(devices)),
        devices=len(devices),
    )


def _place_encoder(
    shapes: Mapping[str, jax.ShapeDtypeStruct], devices: Sequence[jax.Device], split: Split
) -> tuple[jax.sharding.Mesh, Any]:
    """The mesh of chips that share an encoder, and the shapes of its parameters on it."""
    size = float(sum(math.prod(x.shape) * x.dtype.itemsize for x in shapes.values()))
    grid = mesh.for_encoder(size, by_heads=split == "heads", devices=devices)
    spread = {n: parameter_sharding(n, x, grid, split) for n, x in shapes.items()}
    return grid, traverse_util.unflatten_dict(state.with_shardings(shapes, spread), sep=".")


def _row_shapes(captions: int, text: config.Text, grid: jax.sharding.Mesh) -> jax.ShapeDtypeStruct:
    """The shape of the ids of so many captions, in full rows that the mesh divides."""
    whole = text.padding == "encoded"
    length = text.max_length if whole else packing.row_length(text.max_length)
    held_by = auto_layout.batch_shards(grid)
    rows = -(-captions * tokens_of(text) // (length * held_by)) * held_by
    return jax.ShapeDtypeStruct((rows, length), jnp.int32, sharding=mesh.batch_sharding(grid))


def tokens_of(text: config.Text) -> int:
    """Return the tokens that a caption is taken to have: all rows where padding is encoded."""
    return text.max_length if text.padding == "encoded" else CAPTION_TOKENS


def compile_for(lowered: jax.stages.Lowered, topology: Topology, *, effort: bool) -> Any:
    """Compile for a topology's generation, with our options of that generation.

    Errors: OutOfMemoryError with the compiler's own words when it does not fit the memory.
    """
    options: dict[str, Any] = {**topology.chip.compiler_options, **({} if effort else EFFORT)}
    try:
        return lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        words = next((x for x in str(error).splitlines() if "memory" in x.lower()), None)
        if words is None:
            raise
        raise OutOfMemoryError(
            f"{topology.name}: {words.strip().rstrip('.')}: give a smaller --batch, or more "
            "devices that share the weights (--mesh.fsdp)"
        ) from error


class OutOfMemoryError(ValueError):
    """The program does not fit the memory of a chip."""


def _small_batch(local: float) -> list[str]:
    if local >= auto_layout.FULL_BATCH:
        return []
    return [
        f"{local:g} images at once on a device: below {auto_layout.FULL_BATCH} the TPU compiler "
        "rewrites convolutions, at 2 to 6 times the cost an image; use fewer micro-batches or "
        "devices, a larger batch, or mesh.spatial"
    ]
