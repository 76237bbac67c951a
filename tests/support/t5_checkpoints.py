"""Checkpoints of a tiny T5 encoder, written here in every format from its description."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import safetensors.numpy
import tensorstore
from flax import serialization, traverse_util

from imagen_jax.text.t5 import T5Config

VOCAB, WIDTH, LAYERS, HEADS, HEAD_DIM, MLP = 24, 8, 2, 2, 4, 16
INNER = HEADS * HEAD_DIM
CONFIG = T5Config(
    vocab=VOCAB, width=WIDTH, layers=LAYERS, heads=HEADS, head_dim=HEAD_DIM, mlp_width=MLP
)
QUERY = "encoder.layers_0.attention.query.kernel"

Tensors = dict[str, np.ndarray]


@dataclass(frozen=True)
class Writer:
    """How a checkpoint is written; the defaults are T5X's of 2026."""

    version: int = 3
    kvstore: str = "file"  # or where it was written: gfile, gcs, or the path outside kvstore
    inlined: str = r"^$"  # tensors in the msgpack file; the others are zarr
    dotfiles: bool = True

    def write(self, folder: Path, tensors: Tensors) -> Path:
        folder.mkdir(parents=True)
        leaves = {
            name: array if re.search(self.inlined, name) else self._zarr(folder, name, array)
            for name, array in tensors.items()
        }
        target = traverse_util.unflatten_dict(leaves, sep=".")
        target["decoder"] = {"decoder_norm": {"scale": _spec("decoder.absent", np.ones(4), {})}}
        state = {"step": np.int32(1000)}
        tree = {"version": self.version, "optimizer": {"state": state, "target": target}}
        (folder / "checkpoint").write_bytes(serialization.msgpack_serialize(tree))
        return folder

    def _zarr(self, folder: Path, name: str, array: np.ndarray) -> dict:
        path = folder / f"target.{name}"
        metadata = {
            "shape": list(array.shape),
            "chunks": [size // 2 if size % 2 == 0 else size for size in array.shape],
            "compressor": {"id": "gzip", "level": 1},
        }
        kvstore = {"driver": "file", "path": f"{path}/"}
        request = {"driver": "zarr", "kvstore": kvstore, "metadata": metadata}
        store = tensorstore.open(
            request, create=True, dtype=array.dtype.name, shape=array.shape
        ).result()
        store.write(array).result()
        if not self.dotfiles:
            (path / ".zarray").unlink()
        return self._as_written(_spec(name, array, metadata), path.name)

    def _as_written(self, spec: dict, directory: str) -> dict:
        if self.kvstore == "gfile":  # Google's own, with what else their specs hold
            spec["kvstore"] = {"driver": "gfile", "path": f"/home/t5/checkpoint_1000/{directory}"}
            spec["metadata"] |= {"chunks": [1], "compressor": None} if self.dotfiles else {}
            spec["transform"] = {"input_inclusive_min": [0]}
        elif self.kvstore == "gcs":
            spec["kvstore"] = {"driver": "gcs", "bucket": "t5x-dummy-bucket", "path": directory}
        elif self.kvstore == "outside":
            spec["path"] = spec["kvstore"].pop("path")
        return spec


def _spec(name: str, array: np.ndarray, metadata: dict) -> dict:
    kvstore = {"driver": "file", "path": f"target.{name}/"}
    return {
        "driver": "zarr",
        "dtype": array.dtype.name,
        "kvstore": kvstore,
        "metadata": dict(metadata),
    }


def per_layer(*, gated: bool = True, own_bias: bool = False, ranks: int = 2) -> Tensors:
    """Tensors named layer by layer; every value differs."""
    shapes = {"token_embedder.embedding": (VOCAB, WIDTH), "encoder.encoder_norm.scale": (WIDTH,)}
    attention = {2: (WIDTH, INNER), 3: (WIDTH, HEADS, HEAD_DIM)}[ranks]
    out = {2: (INNER, WIDTH), 3: (HEADS, HEAD_DIM, WIDTH)}[ranks]
    for index in range(LAYERS):
        layer = f"encoder.layers_{index}."
        for name in ("query", "key", "value"):
            shapes[f"{layer}attention.{name}.kernel"] = attention
        shapes[f"{layer}attention.out.kernel"] = out
        for name in ("wi_0", "wi_1") if gated else ("wi",):
            shapes[f"{layer}mlp.{name}.kernel"] = (WIDTH, MLP)
        shapes[f"{layer}mlp.wo.kernel"] = (MLP, WIDTH)
        shapes[f"{layer}pre_attention_layer_norm.scale"] = (WIDTH,)
        shapes[f"{layer}pre_mlp_layer_norm.scale"] = (WIDTH,)
        if own_bias:
            shapes[f"{layer}relpos_bias.rel_embedding"] = (HEADS, 32)
    if not own_bias:
        shapes["encoder.relpos_bias.rel_embedding"] = (HEADS, 32)
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def stacked(tensors: Tensors) -> Tensors:
    """The same tensors with the layers on axis 1, as `scan_layers=True` names them."""
    first = "encoder.layers_0."
    scanned = {name: array for name, array in tensors.items() if ".layers_" not in name}
    for name in (n.removeprefix(first) for n in tensors if n.startswith(first)):
        layers = [tensors[f"encoder.layers_{index}.{name}"] for index in range(LAYERS)]
        scanned[f"encoder.encoder.{name}"] = np.stack(layers, axis=1)
    return scanned


def joined(tensors: Tensors) -> Tensors:
    """Attention kernels as matrices, by the names of the heads' axes."""
    shapes = {"query": (WIDTH, INNER), "key": (WIDTH, INNER), "value": (WIDTH, INNER)}
    shapes["out"] = (INNER, WIDTH)
    return {
        name: array.reshape(shapes[name.split(".")[3]]) if ".attention." in name else array
        for name, array in tensors.items()
    }


def rounded(tensors: Tensors) -> Tensors:
    return {name: np.asarray(array, jnp.bfloat16) for name, array in tensors.items()}


def write_orbax(folder: Path, tensors: Tensors) -> Path:
    """As Orbax writes T5X's tree today."""
    tree = {
        "target": traverse_util.unflatten_dict(tensors, sep="."),
        "state": {"step": np.int32(3)},
    }
    with ocp.PyTreeCheckpointer() as saver:
        saver.save(folder / "state", tree)
    return folder


HUGGING_FACE = {
    r"token_embedder\.embedding": "shared",
    r"encoder\.encoder_norm\.scale": "encoder.final_layer_norm",
    r"encoder\.relpos_bias\.rel_embedding": (
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias"
    ),
    r"encoder\.layers_(\d)\.pre_attention_layer_norm\.scale": (
        r"encoder.block.\1.layer.0.layer_norm"
    ),
    r"encoder\.layers_(\d)\.pre_mlp_layer_norm\.scale": r"encoder.block.\1.layer.1.layer_norm",
    r"encoder\.layers_(\d)\.attention\.([qkvo])\w+\.kernel": (
        r"encoder.block.\1.layer.0.SelfAttention.\2"
    ),
    r"encoder\.layers_(\d)\.mlp\.(\w+)\.kernel": r"encoder.block.\1.layer.1.DenseReluDense.\2",
}


def write_hugging_face(folder: Path, tensors: Tensors) -> Path:
    """As transformers saves a T5EncoderModel: matrices are [out, in], but for the embedding."""
    content = {}
    for name, array in tensors.items():
        (theirs,) = [
            re.sub(pattern, new, name)
            for pattern, new in HUGGING_FACE.items()
            if re.fullmatch(pattern, name)
        ]
        stored = array if theirs == "shared" else array.T
        content[f"{theirs}.weight"] = np.ascontiguousarray(stored)
    folder.mkdir(parents=True)
    safetensors.numpy.save_file(content, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"feed_forward_proj": "gated-gelu"}))
    return folder
