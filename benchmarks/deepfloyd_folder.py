"""A pipeline's folder of DeepFloyd IF's sizes, as diffusers has it, with random weights in float16.

    python benchmarks/deepfloyd_folder.py /tmp/i_m                      I-M, 0.74 GB
    python benchmarks/deepfloyd_folder.py /tmp/i_xl --network I-XL --zeros

Its text encoder is a T5 of one layer, as wide as T5-XXL. With --zeros the network's weights are all
zero, in a file that takes no room on most disks.
"""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from imagen_jax import config
from imagen_jax.io import tensor_writer
from imagen_jax.io.tensor_writer import Kind
from imagen_jax.pretrained.deepfloyd import tensor_names, weights
from imagen_jax.pretrained.deepfloyd.unet_config import FoundUNet, parse_unet_config
from imagen_jax.text import encoder_folders

TEXT_WIDTH = 4096  # of T5-XXL
HEADS, HEAD_WIDTH, HIDDEN, ROWS, BUCKETS = 1, 64, 64, 32_128, 32  # of the stand-in T5
HALF = np.dtype(np.float16)


@dataclasses.dataclass(frozen=True)
class Options:
    """The folder to write."""

    out: tyro.conf.Positional[Path]
    """Folder to make; it must not exist."""
    network: Literal["tiny", "I-M", "I-L", "I-XL", "II-L"] = "I-M"
    """Network whose widths it has; tiny is a stage I of two levels."""
    zeros: bool = False
    """Weights of the network that are all zero, without room on the disk."""


def main() -> None:
    """Write the folder and say how large it is."""
    options = tyro.cli(Options, description=__doc__)
    options.out.mkdir(parents=True)
    found = write_folder(options.out, options.network, zeros=options.zeros)
    parameters = sum(int(np.prod(kind.shape)) for kind in found.values())
    size = sum(kind.bytes for kind in found.values())
    print(f"{parameters:,} parameters in {len(found)} tensors, {size / 1e9:.2f} GB")


def write_folder(folder: Path, network: str, *, zeros: bool = False) -> dict[str, Kind]:
    """Write a pipeline into a folder; the tensors of its network, by diffusers' names."""
    fields = unet_fields(network)
    second = fields["in_channels"] == 6
    kind = "IFSuperResolutionPipeline" if second else "IFPipeline"
    _write_json(folder / "model_index.json", {"_class_name": kind})
    _write_json(folder / "unet" / "config.json", fields)
    _write_json(folder / "scheduler" / "scheduler_config.json", _scheduler(second))
    kinds = network_tensors(parse_unet_config(fields))
    file = folder / "unet" / f"{weights.STEM}.fp16.safetensors"
    if zeros:
        first = tensor_writer.header(kinds, metadata={"format": "pt"})
        with file.open("wb") as opened:
            opened.write(first)
            opened.truncate(len(first) + sum(kind.bytes for kind in kinds.values()))
    else:
        _write_random(file, kinds)
    if not second:
        (folder / "text_encoder").mkdir()
        _write_random(folder / "text_encoder" / "model.fp16.safetensors", _text_tensors())
        (folder / "tokenizer").mkdir()
        words = encoder_folders.find_tokenizer(encoder_folders.EMBEDDED["t5_1_1_tiny"])
        shutil.copy(words, folder / "tokenizer" / "spiece.model")
    return kinds


def unet_fields(network: str) -> dict[str, Any]:
    """A network's config.json, of the widths that its published size tells."""
    base = {"tiny": 64, "I-M": 192, "I-L": 320, "I-XL": 704, "II-L": 160}[network]
    second = network.startswith("II")
    factors, attends = ((1, 2, 4, 6, 8), 3) if second else ((1, 2, 3, 4), 1)
    if network == "tiny":
        factors = factors[:2]
    plain, attending = ["ResnetDownsampleBlock2D"], ["SimpleCrossAttnDownBlock2D"]
    down = plain * attends + attending * (len(factors) - attends)
    divisor = 1.4142271248762552 if second else 1
    width = base * factors[-1]
    return {
        "_class_name": "UNet2DConditionModel",
        "act_fn": "gelu",
        "addition_embed_type": "text",
        "attention_head_dim": 64,
        "block_out_channels": [base * factor for factor in factors],
        "class_embed_type": "timestep" if second else None,
        "cross_attention_dim": width,
        "cross_attention_norm": "group_norm",
        "down_block_types": down,
        "encoder_hid_dim": TEXT_WIDTH,
        "in_channels": 6 if second else 3,
        "layers_per_block": [2, 2, 3, 5, 5] if second else 3,
        "mid_block_scale_factor": divisor,
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "out_channels": 6,
        "resnet_out_scale_factor": divisor,
        "resnet_skip_time_act": second,
        "resnet_time_scale_shift": "scale_shift",
        "sample_size": 256 if second else 64,
        "time_embedding_act_fn": "gelu" if second else None,
        "time_embedding_dim": width if second else None,
        "up_block_types": [name.replace("Down", "Up").replace("down", "up") for name in down[::-1]],
    }


def network_tensors(found: FoundUNet) -> dict[str, Kind]:
    """The tensors of a network by diffusers' names."""
    stage = config.Stage(name="network", size=64, model=found.model)
    if found.model.reads_low_res:
        stage = dataclasses.replace(stage, size=256, low_size=64)
    shapes = weights.parameter_shapes(stage, text_width=found.text_width)
    names = tensor_names.names_by_diffusers(shapes, levels=len(found.model.levels))
    return {
        theirs: Kind(tensor_names.diffusers_shape(ours, shapes[ours].shape), HALF)
        for theirs, ours in sorted(names.items())
    }


def _text_tensors() -> dict[str, Kind]:
    block, inner = "encoder.block.0.layer", HEADS * HEAD_WIDTH
    attention, hidden = f"{block}.0.SelfAttention", f"{block}.1.DenseReluDense"
    shapes = {
        "shared.weight": (ROWS, TEXT_WIDTH),
        f"{attention}.relative_attention_bias.weight": (BUCKETS, HEADS),
        **{f"{attention}.{name}.weight": (inner, TEXT_WIDTH) for name in "qkv"},
        f"{attention}.o.weight": (TEXT_WIDTH, inner),
        **{f"{hidden}.{name}.weight": (HIDDEN, TEXT_WIDTH) for name in ("wi_0", "wi_1")},
        f"{hidden}.wo.weight": (TEXT_WIDTH, HIDDEN),
        **{f"{block}.{number}.layer_norm.weight": (TEXT_WIDTH,) for number in (0, 1)},
        "encoder.final_layer_norm.weight": (TEXT_WIDTH,),
    }
    return {name: Kind(shape, HALF) for name, shape in shapes.items()}


def _write_random(file: Path, kinds: dict[str, Kind]) -> None:
    """Norms are one, biases zero, and kernels normal, of a variance that keeps that of inputs."""
    draw = np.random.default_rng(0)

    def array(name: str, kind: Kind) -> np.ndarray:
        if len(kind.shape) == 1:
            return np.full(kind.shape, float(name.endswith("weight")), kind.dtype)
        deviation = np.float32(np.prod(kind.shape[1:]) ** -0.5)
        return (draw.standard_normal(kind.shape, np.float32) * deviation).astype(kind.dtype)

    arrays = (array(name, kind) for name, kind in kinds.items())
    tensor_writer.write_tensors(file, kinds, arrays, metadata={"format": "pt"})


def _scheduler(second: bool) -> dict[str, Any]:
    return {
        "_class_name": "DDPMScheduler",
        "beta_schedule": "squaredcos_cap_v2",
        "dynamic_thresholding_ratio": 0.95,
        "sample_max_value": 1.0 if second else 1.5,
        "thresholding": True,
        "variance_type": "learned_range",
    }


def _write_json(file: Path, fields: dict[str, Any]) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(fields, indent=2) + "\n")


if __name__ == "__main__":
    main()
