"""The weights of a pipeline's network: diffusers' tensors, and the parameters that they are."""

import dataclasses
import functools
import hashlib
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.sharding import NamedSharding

from imagen_jax import config, models
from imagen_jax.io.safetensors import tensor_mismatches
from imagen_jax.parallel import mesh
from imagen_jax.pretrained.deepfloyd import tensor_names
from imagen_jax.sample.lazy_params import LazyParams
from imagen_jax.text.checkpoints import huggingface_files, lazy_tensors, safetensors_io
from imagen_jax.text.checkpoints.lazy_tensors import Layout, LazyTensor, Parameter
from imagen_jax.types import Params

STEM = "diffusion_pytorch_model"  # of a U-Net's files
TOKENS = 77  # of a prompt, its end and its padding included
SLASH = "/"


@functools.cache  # tracing a network takes a second
def parameter_shapes(stage: config.Stage, *, text_width: int) -> Mapping[str, Any]:
    """Shapes of a network's parameters by their paths, "down_0/res_1/conv_0/kernel"."""
    text = config.Text(width=text_width, max_length=TOKENS, padding="encoded")
    return traverse_util.flatten_dict(models.parameter_shapes(stage, text), sep=SLASH)


def find_layout(folder: Path, stage: config.Stage, *, text_width: int) -> Layout:
    """The tensors of a folder `unet`, and the parameter that each is.

    Errors: FileNotFoundError for a shard that is missing; ValueError for no safetensors files, or
    listing every tensor that is missing, unknown or of another shape.
    """
    assert isinstance(stage.model, config.DeepFloydUNet)
    shapes = parameter_shapes(stage, text_width=text_width)
    return match_tensors(folder, shapes, levels=len(stage.model.levels))


def match_tensors(folder: Path, wanted: Mapping[str, Any], *, levels: int) -> Layout:
    """The tensors of a folder, and which of the parameters `wanted` each is.

    Errors: as `find_layout`.
    """
    ours = tensor_names.names_by_diffusers(wanted, levels=levels)
    held = huggingface_files.tensor_files(folder, stem=STEM)
    stored = {
        name: tensor
        for file in dict.fromkeys(held.values())
        for name, tensor in safetensors_io.read_tensors(file).items()
    }
    shapes = {
        name: tensor_names.diffusers_shape(own, wanted[own].shape) for name, own in ours.items()
    }
    there = {name: tensor.shape for name, tensor in stored.items()}
    if wrong := tensor_mismatches(there, shapes):
        raise ValueError(
            f"{folder}: the weights do not fit its config.json:\n  " + "\n  ".join(wrong)
        )
    return [(stored[name], (_parameter(own, wanted[own].shape),)) for name, own in ours.items()]


def _parameter(name: str, shape: tuple[int, ...]) -> Parameter:
    return Parameter(name, shape, tensor_names.from_diffusers(name))


def lazy_params(layout: Layout, stage: config.Stage, *, keep: bool) -> LazyParams:
    """The weights of a stage's network, to be read when they are needed."""
    read = functools.partial(_read, layout, stage.model)
    return LazyParams(identity=_identity(layout), keep=keep, read=read)


def _read(layout: Layout, model: Any, sharding: NamedSharding) -> Params:
    """Parameters on the devices, tensor by tensor: the host has room for the largest of them.

    That is as it is stored and, converted, as it goes to the devices.
    """

    def place(name: str, array: np.ndarray) -> jax.Array:
        kept = jnp.dtype(models.sampling_dtype(model, name, array.shape))
        return mesh.to_global(np.array(array, kept, order="C"), sharding)

    counted = [
        (dataclasses.replace(tensor, bytes=tensor.bytes + 4 * math.prod(tensor.shape)), parts)
        for tensor, parts in layout
    ]
    # Converting keeps a core busy; the C library keeps some freed memory for each thread.
    readers = min(lazy_tensors.READERS, os.cpu_count() or 1)
    found = lazy_tensors.read_parameters(counted, place, readers=readers)
    return traverse_util.unflatten_dict(found, sep=SLASH)


def _identity(layout: Layout) -> str:
    """A digest of what tells these weights from others, without reading them."""
    files = sorted({tensor.where for tensor, _ in layout})
    facts: list[Any] = [
        (file, Path(file).stat().st_size, Path(file).stat().st_mtime_ns) for file in files
    ]
    facts += sorted(_named(tensor) for tensor, _ in layout)
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _named(tensor: LazyTensor) -> tuple[str, tuple[int, ...]]:
    return tensor.name, tensor.shape
