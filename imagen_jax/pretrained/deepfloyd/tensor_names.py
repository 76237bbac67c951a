"""Tensors of diffusers' U-Net and of ours: their names and layouts, in both directions."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from imagen_jax.io import torch_layout

Shape = tuple[int, ...]

# Our modules, by diffusers' names: of the whole network, of a residual block, of attention.
_WHOLE = {
    "stem": "conv_in",
    "head_norm": "conv_norm_out",
    "head": "conv_out",
    "emb/time/dense_0": "time_embedding.linear_1",
    "emb/time/dense_1": "time_embedding.linear_2",
    "emb/aug/dense_0": "class_embedding.linear_1",
    "emb/aug/dense_1": "class_embedding.linear_2",
    "text/projection": "encoder_hid_proj",
    "text/pool/norm_0": "add_embedding.norm1",
    "text/pool/norm_1": "add_embedding.norm2",
    "text/pool/out": "add_embedding.proj",
    "text/pool/query": "add_embedding.pool.q_proj",
    "text/pool/key": "add_embedding.pool.k_proj",
    "text/pool/value": "add_embedding.pool.v_proj",
}
_BLOCK = {
    "norm_0": "norm1",
    "conv_0": "conv1",
    "film": "time_emb_proj",
    "norm_1": "norm2",
    "conv_1": "conv2",
    "shortcut": "conv_shortcut",
}
_ATTENTION = {
    "norm": "group_norm",
    "query": "to_q",
    "key": "to_k",
    "value": "to_v",
    "out": "to_out.0",
}
_TEXT = {"norm": "norm_cross", "key": "add_k_proj", "value": "add_v_proj"}
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
POSITION = ("text/pool/position", "add_embedding.pool.positional_embedding")
_PLACE = re.compile(
    r"(?P<text>text/)?(?P<way>down|up|mid)(_(?P<level>\d+))?[/_]"
    r"(?P<kind>res|attn|down|up)(_(?P<number>\d+))?/(?P<part>\w+)"
)
_LISTS = {"res": "resnets", "attn": "attentions", "down": "downsamplers", "up": "upsamplers"}


def diffusers_name(name: str, *, levels: int) -> str:
    """Return diffusers' name of our parameter "down_0/res_1/conv_0/kernel" of so many levels."""
    if name == POSITION[0]:
        return POSITION[1]
    module, _, leaf = name.rpartition("/")
    return f"{_module(module, levels)}.{_LEAVES[leaf]}"


def _module(module: str, levels: int) -> str:
    if module in _WHOLE:
        return _WHOLE[module]
    place = _PLACE.fullmatch(module)
    if place is None:
        raise ValueError(f"{module} is no module of a DeepFloyd U-Net")
    parts = _TEXT if place["text"] else _ATTENTION if place["kind"] == "attn" else _BLOCK
    block = {
        "mid": "mid_block",
        "down": f"down_blocks.{place['level']}",
        "up": f"up_blocks.{levels - 1 - int(place['level'] or 0)}",
    }[place["way"]]
    return f"{block}.{_LISTS[place['kind']]}.{place['number'] or 0}.{parts[place['part']]}"


def diffusers_shape(name: str, shape: Shape) -> Shape:
    """Return the shape that diffusers has of our parameter."""
    if len(shape) == 4:  # (y, x, in, out)
        return (shape[3], shape[2], shape[0], shape[1])
    if name.endswith("/shortcut/kernel"):
        return (*shape[::-1], 1, 1)
    return shape[::-1] if name.endswith("/kernel") else shape


def from_diffusers(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return the view of diffusers' tensor that is our parameter of a name."""
    if name.endswith("/shortcut/kernel"):
        return torch_layout.from_pointwise
    if name.endswith("/kernel"):
        return torch_layout.from_torch
    return lambda array: array


def to_diffusers(name: str, array: np.ndarray) -> np.ndarray:
    """Return diffusers' tensor of our parameter: the inverse of `from_diffusers`."""
    if name.endswith("/shortcut/kernel"):
        return torch_layout.to_pointwise(array)
    return torch_layout.to_torch(array) if name.endswith("/kernel") else array


def names_by_diffusers(shapes: Mapping[str, Any], *, levels: int) -> dict[str, str]:
    """Our name of each of diffusers' tensors that a network of these parameters has."""
    return {diffusers_name(name, levels=levels): name for name in shapes}
