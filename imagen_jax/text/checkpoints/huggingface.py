"""Hugging Face's T5 and umT5 encoders: safetensors, in one file or several shards.

`huggingface_files.py` says which of a folder's files are read. A file may hold more than an
encoder, under any prefix, such as a decoder or another program's notes: that is not read.
"""

import re
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from imagen_jax.config.sentences import join_texts, join_values
from imagen_jax.text.checkpoints import huggingface_files, safetensors_io
from imagen_jax.text.checkpoints.lazy_tensors import Layout, LazyTensor, Parameter

CONFIG = "config.json"
EMBEDDING = "token_embedder.embedding"
LONGEST = 256  # characters of a tensor's name
ACTIVATIONS = ("relu", "gated-gelu")  # of v1.0, and of v1.1 and umT5; the latter is tanh's

# Of a stack of T5's layers; "encoder." ends its prefix, unless the stack was saved alone.
_BLOCK = re.compile(
    r"(?P<prefix>(?:.+\.)?)block\.(?P<layer>[0-9]+)\.layer\.(?P<part>[0-9]+\..+)\.(?P<kind>\w+)"
)
_STACK = re.compile(r"(^|\.)encoder\.$")
_DECODER = re.compile(r"(?:^|\.)decoder\.")
# What quantisers put next to a matrix. That is then of few bits, and refused for its dtype.
_SCALES = ("scale", "scale_weight", "scale_input", "weight_scale", "input_scale", "SCB")
# Hugging Face's names, "layer.1" being the MLP, to T5X's.
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


def layout(path: Path) -> tuple[str, Layout]:
    """Find a checkpoint and the encoder's parameters in it; nothing large is read.

    `path` is a folder or a safetensors file.
    Errors: FileNotFoundError for a shard that is missing; ValueError for a format, a file or a
    network that can't be read.
    """
    _check_config((path if path.is_dir() else path.parent) / CONFIG)
    held = huggingface_files.tensor_files(path)
    names = _names(held, where=path)
    return str(path), [
        (stored, (_parameter(names[name], stored),))
        for file in dict.fromkeys(held[name] for name in names)
        for name, stored in safetensors_io.read_tensors(file, only=names).items()
    ]


def unused_tensors(path: Path) -> list[str]:
    """Names of the tensors that are no encoder's, such as a decoder's. Errors: as `layout`."""
    held = huggingface_files.tensor_files(path)
    return sorted(held.keys() - _names(held, where=path).keys())


def _names(held: Collection[str], *, where: Path) -> dict[str, str]:
    """T5X's name of every tensor that belongs to the encoder."""
    short = [name for name in held if len(name) <= LONGEST]  # to match others may take long
    blocks = [m for name in short if (m := _BLOCK.fullmatch(name)) and not _DECODER.search(m[1])]
    stacks = sorted({match["prefix"] for match in blocks})
    if len(stacks) > 1:
        raise ValueError(
            f"{where} holds several T5 encoders, under {join_values(stacks)}: save the "
            "one that you want alone"
        )
    if not stacks:
        found = sorted(held)
        raise ValueError(
            f"{where} holds no T5 encoder, no block.0.layer.0.SelfAttention.q.weight under any "
            f"prefix: it has {join_texts(found) or 'no tensor'}"
        )
    (stack,) = stacks
    names = {f"{stack}final_layer_norm.weight": "encoder.encoder_norm.scale"}
    # An encoder's table is that of the whole model, where both were saved.
    whole = _STACK.sub(r"\1", stack)
    tables = [f"{x}{n}.weight" for n in ("shared", "embed_tokens") for x in (whole, stack)]
    names |= dict.fromkeys([name for name in tables if name in held][:1], EMBEDDING)
    return {name: parameter for name, parameter in names.items() if name in held} | _layers(blocks)


def _layers(blocks: Sequence[re.Match[str]]) -> dict[str, str]:
    """T5X's name of every tensor of a layer; one that T5 has not keeps its own, and is reported."""
    names = {}
    tables = sum(_PARTS.get(match["part"]) == _BIAS for match in blocks)
    for match in blocks:
        if match["kind"] in _SCALES:
            continue
        part = _PARTS.get(match["part"]) if match["kind"] == "weight" else None
        own = f"encoder.layers_{match['layer']}.{part or match['part'] + '.' + match['kind']}"
        # T5 keeps the one table of all its layers in the first; umT5 has one in each.
        names[match[0]] = f"encoder.{_BIAS}" if part == _BIAS and tables == 1 else own
    return names


def _parameter(name: str, stored: LazyTensor) -> Parameter:
    """Hugging Face's matrices are [out, in], but for the embedding."""
    if len(stored.shape) == 2 and name != EMBEDDING:
        return Parameter(name, stored.shape[::-1], np.transpose)
    return Parameter(name, stored.shape, lambda array: array)


def _check_config(file: Path) -> None:
    """Refuse a network that ours is not, where a config tells. Sizes are read from the tensors."""
    if not file.is_file():
        return
    fields = huggingface_files.read_json(file)
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
