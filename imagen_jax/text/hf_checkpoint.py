"""Hugging Face's T5 and umT5 encoders: safetensors, in one file or several shards."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from imagen_jax.text import safetensors_files
from imagen_jax.text.stored import Layout, Parameter, Stored

FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
CONFIG = "config.json"
ACTIVATIONS = ("relu", "gated-gelu")  # of v1.0, and of v1.1 and umT5; the latter is tanh's

# Hugging Face's names, "layer.1" being the MLP, to T5X's.
_WHOLE = {
    "shared.weight": "token_embedder.embedding",
    "encoder.embed_tokens.weight": "token_embedder.embedding",  # beside `shared` the same again
    "encoder.final_layer_norm.weight": "encoder.encoder_norm.scale",
}
_BLOCK = re.compile(r"encoder\.block\.(?P<layer>\d+)\.layer\.(?P<part>.+)\.weight")
_PARTS = {
    "0.layer_norm": "pre_attention_layer_norm.scale",
    "0.SelfAttention.q": "attention.query.kernel",
    "0.SelfAttention.k": "attention.key.kernel",
    "0.SelfAttention.v": "attention.value.kernel",
    "0.SelfAttention.o": "attention.out.kernel",
    "0.SelfAttention.relative_attention_bias": "relpos_bias.rel_embedding",
    "1.layer_norm": "pre_mlp_layer_norm.scale",
    "1.DenseReluDense.wi": "mlp.wi.kernel",
    "1.DenseReluDense.wi_0": "mlp.wi_0.kernel",
    "1.DenseReluDense.wi_1": "mlp.wi_1.kernel",
    "1.DenseReluDense.wo": "mlp.wo.kernel",
}
_BIAS = "relpos_bias.rel_embedding"


def is_one(folder: Path) -> bool:
    """Whether a folder holds such a checkpoint, or one of Hugging Face's in another format."""
    return folder.is_dir() and any(
        next(folder.glob(pattern), None) for pattern in ("*.safetensors*", "pytorch_model*.bin*")
    )


def layout(folder: Path) -> tuple[str, Layout]:
    """Where the checkpoint is, and the encoder's parameters in it. Nothing large is read.

    Errors: FileNotFoundError for a shard that is missing; ValueError for a format, a file or a
    network that can't be read.
    """
    _check_config(folder / CONFIG)
    found = _tensors(folder)
    names = _names(found)
    return str(folder), [
        (stored, (_parameter(names[name], stored),))
        for name, stored in found.items()
        if name in names
    ]


def _tensors(folder: Path) -> dict[str, Stored]:
    """Every tensor of every shard, by Hugging Face's name."""
    files = map(safetensors_files.tensors, _files(folder))
    return {name: stored for found in files for name, stored in found.items()}


def _files(folder: Path) -> list[Path]:
    if (folder / INDEX).is_file():
        shards = set(_json(folder / INDEX).get("weight_map", {}).values())
        missing = sorted(name for name in shards if not (folder / name).is_file())
        if missing:
            raise FileNotFoundError(
                f"{folder} lacks {', '.join(missing)}, which {INDEX} names: download them again"
            )
        return [folder / name for name in sorted(shards)]
    if (folder / FILE).is_file():
        return [folder / FILE]
    raise ValueError(
        f"{folder} has neither {FILE} nor {INDEX}: of Hugging Face's formats only safetensors can "
        "be read (save it with save_pretrained(..., safe_serialization=True))"
    )


def _names(found: Mapping[str, Stored]) -> dict[str, str]:
    """T5X's name of every tensor that belongs to the encoder."""
    names = {name: _WHOLE[name] for name in _WHOLE if name in found}
    if len(set(names) & {"shared.weight", "encoder.embed_tokens.weight"}) > 1:
        del names["encoder.embed_tokens.weight"]
    blocks = [match for name in found if (match := _BLOCK.fullmatch(name))]
    tables = sum(_PARTS.get(match["part"]) == _BIAS for match in blocks)
    for match in blocks:
        part = _PARTS.get(match["part"], match["part"])  # an unknown one is told by its name
        own = f"encoder.layers_{match['layer']}.{part}"
        # T5 keeps the one table of all its layers in the first; umT5 has one in each.
        names[match[0]] = f"encoder.{_BIAS}" if part == _BIAS and tables == 1 else own
    return names


def _parameter(name: str, stored: Stored) -> Parameter:
    """Hugging Face's matrices are [out, in], but for the embedding."""
    if len(stored.shape) == 2 and not name.endswith(".embedding"):
        return Parameter(name, stored.shape[::-1], np.transpose)
    return Parameter(name, stored.shape, lambda array: array)


def _check_config(file: Path) -> None:
    """Refuse a network that ours is not, where a config tells. Sizes are read from the tensors."""
    if not file.is_file():
        return
    fields = _json(file)
    wanted = {
        "feed_forward_proj": ACTIVATIONS,
        "relative_attention_max_distance": (128,),
        "layer_norm_epsilon": (1e-6,),
    }
    for name, accepted in wanted.items():
        if name in fields and fields[name] not in accepted:
            raise ValueError(
                f"{file}: {name} is {fields[name]!r}, but our T5 knows "
                f"{' and '.join(map(repr, accepted))} only"
            )


def _json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is not JSON ({error}): download it again") from error
