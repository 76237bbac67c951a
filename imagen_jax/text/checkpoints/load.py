"""A T5 encoder's weights from any checkpoint: T5X's two layouts, Hugging Face's, our own form.

The network's sizes are those of the tensors. Tensors are read one after another, straight to where
they are wanted: no more of a checkpoint is in the host's memory than its largest tensor.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from flax import traverse_util

from imagen_jax import limits
from imagen_jax.config.sentences import join_clauses
from imagen_jax.io import buckets, paths
from imagen_jax.text import t5
from imagen_jax.text.checkpoints import (
    huggingface,
    huggingface_files,
    lazy_tensors,
    native,
    t5x,
)
from imagen_jax.text.checkpoints.lazy_tensors import Layout, Place
from imagen_jax.text.t5 import T5Config
from imagen_jax.types import Params

EMBEDDING = "token_embedder.embedding"

Shapes = Mapping[str, tuple[int, ...]]


def load_parameters(path: Path | str, *, place: Place | None = None) -> tuple[T5Config, Params]:
    """Sizes and parameters of the encoder in a checkpoint.

    `path` is a T5X checkpoint_N, a parent holding exactly one, or a file with all inlined, local or
    `gs://`; or Hugging Face's folder or safetensors file; or a folder that `exported` wrote.
    `place` takes a parameter's name and its array, of the stored dtype, and returns what is kept in
    its place; by default float32 NumPy arrays.
    Shapes: parameters as `t5.parameter_shapes` of the returned sizes.
    Errors: FileNotFoundError or ValueError that names the tensor, the place and a remedy.
    """
    config, layout = find_layout(path)
    return config, read_layout(layout, place or _as_float32)


def read_layout(layout: Layout, place: Place) -> Params:
    """The parameters of a layout that `inspect` found; `place` as in `load`."""
    return traverse_util.unflatten_dict(lazy_tensors.read_parameters(layout, place), sep=".")


def find_layout(path: Path | str) -> tuple[T5Config, Layout]:
    """The encoder's sizes, and where its parameters are, after checking that they fit."""
    where, layout = _layout(path)
    shapes = lazy_tensors.parameter_shapes(layout)
    config = _config(shapes, where=where)
    _check(shapes, config, where=where)
    return config, layout


def _layout(path: Path | str) -> tuple[str, Layout]:
    if not buckets.is_bucket(path):
        # Ours first: any safetensors in a folder are taken for Hugging Face's.
        here = paths.local_path(path)
        if native.is_native(here):
            return native.layout(here)
        if huggingface_files.is_huggingface(here):
            return huggingface.layout(here)
    return t5x.layout(path)


def _as_float32(_: str, array: np.ndarray) -> np.ndarray:
    return np.array(array, np.float32, order="C")


def _config(shapes: Shapes, *, where: str) -> T5Config:
    """The sizes that the tensors' shapes tell."""
    layers = {m[1] for name in shapes if (m := re.match(r"encoder\.layers_([0-9]+)\.", name))}
    per_layer = "encoder.relpos_bias.rel_embedding" not in shapes
    prefix = "encoder.layers_0."
    bias = (prefix if per_layer else "encoder.") + "relpos_bias.rel_embedding"
    query, out = prefix + "attention.query.kernel", prefix + "mlp.wo.kernel"
    missing = [n for n in (EMBEDDING, bias, query, out) if n not in shapes]
    if missing:
        raise ValueError(f"{where} holds no T5 encoder: it lacks {', '.join(missing)}")
    if layers != {str(number) for number in range(len(layers))}:
        raise ValueError(
            f"{where} holds no whole T5 encoder: its {len(layers)} layers are not numbered from "
            "0 on"
        )
    limits.NETWORK_BLOCKS.check(len(layers), f"{where} has")
    flat = [name for name in (EMBEDDING, bias, query, out) if len(shapes[name]) != 2]
    if flat:
        found = ", ".join(f"{name} {shapes[name]}" for name in flat)
        raise ValueError(f"{where}: expected matrices, found {found}")
    if empty := [name for name in (EMBEDDING, bias, query, out) if 0 in shapes[name]]:
        raise ValueError(f"{where}: {empty[0]} has shape {shapes[empty[0]]}, which holds nothing")
    heads, buckets = shapes[bias]
    inner = shapes[query][1]
    if inner % heads:
        raise ValueError(f"{where}: {query} has {inner} columns, no multiple of the {heads} heads")
    return T5Config(
        vocab=shapes[EMBEDDING][0],
        width=shapes[EMBEDDING][1],
        layers=len(layers),
        heads=heads,
        head_dim=inner // heads,
        mlp_width=shapes[out][0],
        buckets=buckets,
        gated=prefix + "mlp.wi_0.kernel" in shapes,
        bias_per_layer=per_layer,
    )


def _check(shapes: Shapes, config: T5Config, *, where: str) -> None:
    """Refuse tensors that the network lacks, has besides, or has in another shape, by name."""
    expected = t5.parameter_shapes(config)
    faults = [f"{name} is missing" for name in sorted(expected.keys() - shapes.keys())]
    faults += [f"{name} is unknown" for name in sorted(shapes.keys() - expected.keys())]
    faults += [
        f"{name} has shape {shapes[name]} instead of {expected[name]}"
        for name in sorted(expected.keys() & shapes.keys())
        if shapes[name] != expected[name]
    ]
    if faults:
        raise ValueError(f"{where} is no T5 encoder of {config}: {join_clauses(faults)}")
