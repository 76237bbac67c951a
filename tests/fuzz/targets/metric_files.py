"""Adapters, and what scores are computed with: torch's weights, statistics, CLIP's descriptions."""

import io
import json
from pathlib import Path

import numpy as np
import torch_pickle
from fuzz.mutator import Files
from fuzz.target import Target
from safetensors import numpy as tensors

from imagen_jax.io import torch_file
from imagen_jax.lora import files
from imagen_jax.metrics import clip_config, statistics_file

MODULES = {"mid_block.resnets.0.conv1": "mid/res_0/conv_0", "conv_in": "stem"}
CLIP = {
    "model_type": "clip",
    "projection_dim": 8,
    "text_config": {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1},
    "vision_config": {"hidden_size": 8, "image_size": 32, "patch_size": 16},
}


def _adapters(_: Path) -> list[Files]:
    named = {
        "unet.mid_block.resnets.0.conv1.lora_A.weight": np.ones((2, 4, 3, 3), np.float32),
        "unet.mid_block.resnets.0.conv1.lora_B.weight": np.ones((6, 2, 1, 1), np.float32),
        "unet.conv_in.lora_A.weight": np.ones((2, 4), np.float32),
        "unet.conv_in.lora_B.weight": np.ones((6, 2), np.float32),
    }
    header = {files.HEADER: json.dumps({"unet.r": 2, "unet.lora_alpha": 4})}
    config = json.dumps({"peft_type": "LORA", "lora_alpha": 4, "alpha_pattern": {"conv_in": 2.0}})
    folder: Files = {files.PEFT_CONFIG: config.encode(), files.PEFT_WEIGHTS: tensors.save(named)}
    return [{"one.safetensors": tensors.save(named, metadata=header)}, folder]


def _parse_adapters(folder: Path) -> None:
    file = folder / "one.safetensors"
    place = file if file.is_file() else folder
    files.read_facts(place)
    found = files.read_adapters(place, MODULES)
    assert set(found.modules()) <= set(MODULES.values())


def _state_dicts(scratch: Path) -> list[Files]:
    """The newer form; that of before is in it, but for its frame."""
    scratch.mkdir(parents=True, exist_ok=True)
    named = {"a": np.ones((2, 3), np.float32), "b": np.zeros(4, np.float32)}
    file = torch_pickle.save(scratch / "weights.pth", named)
    return [{file.name: file.read_bytes()}]


def _parse_state_dict(folder: Path) -> None:
    found = torch_file.read_state_dict(folder / "weights.pth")
    assert all(isinstance(name, str) for name in found)


def _statistics(_: Path) -> list[Files]:
    plain, packed = io.BytesIO(), io.BytesIO()
    np.savez(plain, mu=np.zeros(3), sigma=np.eye(3))
    np.savez_compressed(packed, mu=np.zeros(3), sigma=np.asfortranarray(np.eye(3)))
    return [{"a.npz": file.getvalue()} for file in (plain, packed)]


def _parse_statistics(folder: Path) -> None:
    found = statistics_file.read(folder / "a.npz").gaussian
    assert found is not None
    assert found.covariance.shape == found.mean.shape * 2


def _clip_configs(_: Path) -> list[Files]:
    return [{"config.json": json.dumps(CLIP).encode()}]


def _parse_clip_config(folder: Path) -> None:
    clip_config.read_config(folder)


TARGETS = [
    Target(name="adapters", corpus=_adapters, parse=_parse_adapters),
    Target(name="state_dict", corpus=_state_dicts, parse=_parse_state_dict),
    Target(name="statistics", corpus=_statistics, parse=_parse_statistics),
    Target(name="clip_config", corpus=_clip_configs, parse=_parse_clip_config),
]
