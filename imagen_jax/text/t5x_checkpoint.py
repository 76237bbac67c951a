"""T5X checkpoints to `t5` parameters, without T5X: the encoder and its embedding, nothing else."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util

from imagen_jax.text import t5, t5x_files
from imagen_jax.text.t5 import T5Config
from imagen_jax.types import Params

EMBEDDING = "token_embedder.embedding"
STACK = "encoder.encoder."  # prefix of tensors whose axis 1 runs over the layers (`scan_layers`)
READERS = 8  # tensors read at once

Tensors = dict[str, np.ndarray]


def load(path: Path | str) -> tuple[T5Config, Params]:
    """Sizes and float32 parameters of the encoder in a T5X checkpoint.

    `path` is the folder checkpoint_N, a parent holding exactly one, or a file with all inlined.
    Shapes: parameters as `t5.parameter_shapes` of the returned sizes, NumPy arrays.
    Errors: FileNotFoundError or ValueError that names the tensor, the place and a remedy.
    """
    file = t5x_files.locate(path)
    version, target = t5x_files.read_tree(file)
    wanted = {
        name: leaf
        for name, leaf in t5x_files.leaves(target).items()
        if name.split(".")[0] in ("encoder", "token_embedder")
    }

    def read(item: tuple[str, Any]) -> np.ndarray:
        return t5x_files.read_leaf(*item, file=file, version=version)

    with ThreadPoolExecutor(READERS) as pool:
        stored = dict(zip(wanted, pool.map(read, wanted.items()), strict=True))
    tensors = _joined_heads(_unstacked(stored, file=file))
    config = _config(tensors, file=file)
    _check(tensors, config, file=file)
    return config, traverse_util.unflatten_dict(tensors, sep=".")


def _unstacked(tensors: Tensors, *, file: Path) -> Tensors:
    """The same tensors with one name per layer."""
    plain = {}
    for name, tensor in tensors.items():
        if not name.startswith(STACK):
            plain[name] = tensor
            continue
        if tensor.ndim < 2:
            raise ValueError(
                f"{name} in {file} has shape {tensor.shape}, without an axis 1 for the layers"
            )
        for index in range(tensor.shape[1]):
            plain[f"encoder.layers_{index}.{name.removeprefix(STACK)}"] = tensor[:, index]
    return plain


def _joined_heads(tensors: Tensors) -> Tensors:
    """Attention kernels as matrices, heads major; T5X's scalable network keeps them rank 3."""
    joined = {}
    for name, tensor in tensors.items():
        if ".attention." in name and tensor.ndim == 3:
            rows = -1 if ".out." in name else tensor.shape[0]
            tensor = tensor.reshape(rows, tensor.shape[-1] if rows == -1 else -1)
        joined[name] = np.ascontiguousarray(tensor)
    return joined


def _config(tensors: Tensors, *, file: Path) -> T5Config:
    """The sizes that the tensors' shapes tell."""
    layers = {int(m[1]) for name in tensors if (m := re.match(r"encoder\.layers_(\d+)\.", name))}
    per_layer = "encoder.relpos_bias.rel_embedding" not in tensors
    prefix = "encoder.layers_0."
    bias = (prefix if per_layer else "encoder.") + "relpos_bias.rel_embedding"
    query, out = prefix + "attention.query.kernel", prefix + "mlp.wo.kernel"
    missing = [n for n in (EMBEDDING, bias, query, out) if n not in tensors]
    if missing:
        raise ValueError(f"{file} holds no T5 encoder: it lacks {', '.join(missing)}")
    flat = [name for name in (EMBEDDING, bias, query, out) if tensors[name].ndim != 2]
    if flat:
        shapes = ", ".join(f"{name} {tensors[name].shape}" for name in flat)
        raise ValueError(f"{file}: expected matrices, found {shapes}")
    heads, buckets = tensors[bias].shape
    inner = tensors[query].shape[1]
    if inner % heads:
        raise ValueError(f"{file}: {query} has {inner} columns, no multiple of the {heads} heads")
    return T5Config(
        vocab=tensors[EMBEDDING].shape[0],
        width=tensors[EMBEDDING].shape[1],
        layers=max(layers) + 1,
        heads=heads,
        head_dim=inner // heads,
        mlp_width=tensors[out].shape[0],
        buckets=buckets,
        gated=prefix + "mlp.wi_0.kernel" in tensors,
        bias_per_layer=per_layer,
    )


def _check(tensors: Tensors, config: T5Config, *, file: Path) -> None:
    """Refuse tensors that the network lacks, has besides, or has in another shape, by name."""
    expected = t5.parameter_shapes(config)
    faults = [f"{name} is missing" for name in sorted(expected.keys() - tensors.keys())]
    faults += [f"{name} is unknown" for name in sorted(tensors.keys() - expected.keys())]
    faults += [
        f"{name} has shape {tensors[name].shape} instead of {expected[name]}"
        for name in sorted(expected.keys() & tensors.keys())
        if tensors[name].shape != expected[name]
    ]
    if faults:
        raise ValueError(f"{file} is no T5 encoder of {config}: {'; '.join(faults)}")
