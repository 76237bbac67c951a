"""A CLIP that never learned: a small image tower with random weights, in a folder as others are.

Its embeddings tell colours, edges and places apart, at random: a CMMD on them compares images with
each other, and with nothing that is published.
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from imagen_jax.metrics import clip_config, clip_weights

CONFIG = {
    "model_type": "clip",
    "projection_dim": 64,
    "text_config": {
        **{"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2},
        **{"num_hidden_layers": 1, "max_position_embeddings": 16, "vocab_size": 8},
    },
    "vision_config": {
        **{"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4},
        **{"num_hidden_layers": 2, "image_size": 64, "patch_size": 8},
    },
}


def write(folder: Path, *, seed: int = 0) -> Path:
    """Write the model, the same for a seed. Returns the folder, which `load_cmmd` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    draw = np.random.default_rng(seed)
    tensors = {}
    for name, shape in clip_weights.tensor_shapes(clip_config.read_config(folder)).items():
        values = draw.standard_normal(shape)
        if "norm" in name and name.endswith("weight"):
            values = np.ones(shape)
        elif len(shape) == 1:
            values = np.zeros(shape)
        elif "position" not in name and "token_embedding" not in name:
            values /= np.sqrt(np.prod(shape[1:]))
        tensors[name] = values.astype(np.float32)
    save_file(tensors, folder / "model.safetensors")
    return folder
