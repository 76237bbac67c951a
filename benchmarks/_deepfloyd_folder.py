"""Folders of DeepFloyd IF's stage I with random weights, as diffusers has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from imagen_jax import config
from imagen_jax.pretrained.deepfloyd import load, tensor_names
from imagen_jax.pretrained.deepfloyd.unet_config import parse_unet_config

# Of the levels; I-M has 371.6 M parameters.
WIDTHS = {"tiny": (64, 128), "I-M": (192, 384, 576, 768)}
SCHEDULER = {
    "_class_name": "DDPMScheduler",
    "beta_schedule": "squaredcos_cap_v2",
    "dynamic_thresholding_ratio": 0.95,
    "sample_max_value": 1.5,
    "thresholding": True,
    "variance_type": "learned_range",
}


def unet_config(widths: tuple[int, ...]) -> dict[str, Any]:
    """Stage I's `unet/config.json` for some widths; the finest level does not attend."""
    attending = len(widths) - 1
    return {
        "_class_name": "UNet2DConditionModel",
        "act_fn": "gelu",
        "addition_embed_type": "text",
        "attention_head_dim": 64,
        "block_out_channels": list(widths),
        "cross_attention_dim": widths[-1],
        "cross_attention_norm": "group_norm",
        "down_block_types": ["ResnetDownsampleBlock2D"]
        + ["SimpleCrossAttnDownBlock2D"] * attending,
        "encoder_hid_dim": 4096,
        "encoder_hid_dim_type": "text_proj",
        "in_channels": 3,
        "layers_per_block": 3,
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "out_channels": 6,
        "resnet_time_scale_shift": "scale_shift",
        "sample_size": 64,
        "up_block_types": ["SimpleCrossAttnUpBlock2D"] * attending + ["ResnetUpsampleBlock2D"],
    }


def write_pipeline(folder: Path, widths: tuple[int, ...]) -> int:
    """Write a pipeline without its text encoder; returns the number of its parameters."""
    given = unet_config(widths)
    found = parse_unet_config(given)
    stage = config.Stage(name="deepfloyd_1", size=64, model=found.model)
    shapes = load.parameter_shapes(stage, text_width=found.text_width)
    names = tensor_names.names_by_diffusers(shapes, levels=len(widths))
    draw = np.random.default_rng(0)
    tensors = {}
    for name, own in names.items():
        shape = tensor_names.diffusers_shape(own, shapes[own].shape)
        is_scale = own.endswith("/scale")
        spread = 0.1 if len(shape) < 2 else float(np.prod(shape[1:])) ** -0.5
        tensors[name] = (spread * draw.standard_normal(shape) + is_scale).astype(np.float32)
    for place, file, fields in (
        (folder, "model_index.json", {"_class_name": "IFPipeline"}),
        (folder / "unet", "config.json", given),
        (folder / "scheduler", "scheduler_config.json", SCHEDULER),
    ):
        place.mkdir(parents=True, exist_ok=True)
        (place / file).write_text(json.dumps(fields))
    save_file(tensors, folder / "unet" / "diffusion_pytorch_model.safetensors")
    return sum(tensor.size for tensor in tensors.values())
