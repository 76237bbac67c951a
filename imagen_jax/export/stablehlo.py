"""Programs for other runtimes: a stage's whole sampling loop, and the text encoder, as StableHLO.

`jax.export` lowers each once for all of PLATFORMS and any batch. A program takes two dictionaries:
the tensors of its safetensors files as they are stored, which it widens itself, and its named
arguments, whose shapes the manifest lists.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util
from jax import export
from jax.export import Exported

from imagen_jax import config, models
from imagen_jax.config.sentences import shorten
from imagen_jax.diffusion.samplers import SamplerParams
from imagen_jax.io import safetensors, whole_files
from imagen_jax.sample import stage_program
from imagen_jax.sample.sampler_inputs import EncodedText, SamplerInputs
from imagen_jax.sample.stage_program import TrainedStage
from imagen_jax.text import t5, t5_storage
from imagen_jax.text.checkpoints import lazy_tensors, load

SAMPLE, ENCODE = "sample.stablehlo", "encode.stablehlo"
PLATFORMS = ("cpu", "cuda", "tpu")

Kinds = Mapping[str, jax.ShapeDtypeStruct]
Arrays = Mapping[str, jax.Array]


def export_sampling(experiment: config.Experiment, kinds: Kinds) -> Exported:
    """A stage's whole sampling loop: images, float32 (b, side, side, 3) in [-1, 1].

    Shapes: of the named arguments text (b, n, d) and text_mask (b, n), as the encoder gives them;
    index (b,) int32; seed () uint32; steps () int32; guidance_weight (); of a super-resolution
    stage low_res (b, h, w, 3) in [-1, 1] and aug_level (), too.
    The same seed and index give the images of `Imagen.sample`. A prompt that has no token but its
    end is sampled without text. Guidance of weight 1 is not computed.
    """
    stage = _exported_stage(experiment.stage)
    program = TrainedStage(stage=stage, module=models.build(stage.model), params=None).program()
    defaults, size = SamplerParams.from_config(stage.sampler), (stage.size, stage.size)

    def sample(tensors: Arrays, given: Arrays) -> jax.Array:
        mask, steps = given["text_mask"], given.get("steps", defaults.steps)
        captions = EncodedText(given["text"], mask, jnp.sum(mask, axis=1) > 1)
        inputs = SamplerInputs(
            captions=captions,
            negatives=captions._replace(has_text=jnp.zeros_like(captions.has_text)),
            indices=given["index"],
            aug_level=jnp.broadcast_to(given.get("aug_level", jnp.zeros(())), mask.shape[:1]),
            low_res=given.get("low_res"),
        )
        sampler_params = defaults._replace(
            seed=given["seed"],
            steps=steps,
            last=steps,
            guidance_weight=given.get("guidance_weight", defaults.guidance_weight),
        )
        params = safetensors.nest(safetensors.as_float32(tensors))
        state = stage_program.sample_stage(
            params, inputs, None, sampler_params, program=program, size=size
        )
        return stage_program.clip_x0(state)

    return _export(sample, kinds, _arguments(experiment))


def _exported_stage(stage: config.Stage) -> config.Stage:
    """The stage with a sampler whose program has the second pass, unless one is distilled away."""
    if stage.distillation is not None:
        return stage
    sampler = dataclasses.replace(
        stage.sampler,
        guidance_weight=0.0,  # any but 1
        guidance_interval=stage.sampler.guidance_interval or (0.0, math.inf),
    )
    return dataclasses.replace(stage, sampler=sampler)


def default_arguments(stage: config.Stage) -> dict[str, float]:
    """A stage's own values of the arguments that are numbers of its sampler."""
    found = {name: getattr(stage.sampler, name) for name in sorted(_numbers(stage))}
    if stage.is_super_resolution:
        found["aug_level"] = stage.noise_conditioning.sample_level
    return found


def export_encoding(folder: Path, text: config.Text) -> Exported:
    """The encoder that `native.write` wrote into `folder`: text, float32 (b, n, d).

    Shapes: of the named arguments tokens (b, n) int32, which end with the end of sentence and are
    padded with 0, and text_mask (b, n), true at tokens.
    """
    sizes, layout = load.find_layout(folder)
    kinds = {
        name: jax.ShapeDtypeStruct(shape, t5_storage.storage_dtype(name, shape, text.computed_in))
        for name, shape in lazy_tensors.parameter_shapes(layout).items()
    }

    def encode(tensors: Arrays, given: Arrays) -> jax.Array:
        params = traverse_util.unflatten_dict(dict(tensors), sep=".")  # T5X's names
        encoded = t5.encode(
            params,
            given["tokens"],
            given["text_mask"],
            config=sizes,
            dtype=text.computed_in,
            padding=text.padding,
        )
        return encoded.astype(jnp.float32)

    array = _Described()
    given = {
        "tokens": array("int32", "b", text.max_length),
        "text_mask": array("bool", "b", text.max_length),
    }
    return _export(encode, kinds, given)


def write_program(file: Path, program: Exported) -> dict[str, Any]:
    """Serialise a program; what the manifest says of it."""
    file.write_bytes(program.serialize())
    return {"file": file.name, **describe_program(program)}


def read_program(file: Path) -> Exported:
    """The program in a file. It runs only when it is called.

    Errors: OSError; ValueError for a file that is no program.
    """
    data = whole_files.read_whole(file)
    try:
        return export.deserialize(bytearray(data))
    except Exception as error:  # of jax's reader and of the compiler, which have no common kind
        raise ValueError(
            f"{file} is no program of StableHLO that this jax reads ({shorten(str(error))}): copy "
            "or export it again"
        ) from error


def describe_program(program: Exported) -> dict[str, Any]:
    """Platforms, named arguments and result, such as float32[b,64,64,3]."""
    ((_, given), _) = jax.tree.unflatten(program.in_tree, program.in_avals)
    (result,) = program.out_avals
    return {
        "platforms": list(program.platforms),
        "calling_convention": program.calling_convention_version,
        "arguments": {name: x.str_short() for name, x in sorted(given.items())},
        "result": result.str_short(),
    }


def _arguments(experiment: config.Experiment) -> Kinds:
    """Arguments of a stage's sampling loop."""
    stage, text, array = experiment.stage, experiment.text, _Described()
    given = {
        "text": array("float32", "b", text.max_length, text.width),
        "text_mask": array("bool", "b", text.max_length),
        "seed": array("uint32"),
        "index": array("int32", "b"),
        **{name: array(dtype) for name, dtype in _numbers(stage).items()},
    }
    if stage.low_size is not None:
        given["low_res"] = array("float32", "b", stage.low_size, stage.low_size, 3)
        given["aug_level"] = array("float32")
    return given


def _numbers(stage: config.Stage) -> dict[str, str]:
    """Numbers of a sampler that are arguments, and their dtypes: those that may change."""
    distilled = stage.distillation
    found = {"steps": "int32", "guidance_weight": "float32"}
    if distilled is not None and distilled.steps:
        del found["steps"]
    if distilled is not None and not distilled.has_guidance_input:
        del found["guidance_weight"]
    return found


class _Described:
    """Describes a program's arguments, all of one batch "b"."""

    def __init__(self) -> None:
        self._scope = export.SymbolicScope()

    def __call__(self, dtype: str, *shape: int | str) -> jax.ShapeDtypeStruct:
        text = ",".join(map(str, shape))
        return jax.ShapeDtypeStruct(export.symbolic_shape(text, scope=self._scope), dtype)


def _export(run: Callable[[Arrays, Arrays], jax.Array], kinds: Kinds, given: Kinds) -> Exported:
    """A function of stored tensors and named arguments as a program."""
    with _without_places(), jax.threefry_partitionable(True):  # as in `mesh.activate`
        return export.export(jax.jit(run), platforms=PLATFORMS)(dict(kinds), dict(given))


@contextlib.contextmanager
def _without_places() -> Iterator[None]:
    """Programs name no files of this machine, and are equal for every user."""
    before = jax.config.values["jax_traceback_in_locations_limit"]
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        yield
    finally:
        jax.config.update("jax_traceback_in_locations_limit", before)
