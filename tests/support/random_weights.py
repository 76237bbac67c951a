"""Random weights of the metrics' networks in their published layouts; of a seed always the same.

Networks of torch that hold the same weights gave the numbers in tests/fixtures/metrics: see
tests/metrics/test_parity.py.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from imagen_jax.metrics import clip_config, clip_tokenizer, clip_weights, inception_weights

WIDTH = 1 / 8  # of the narrow Inception


def inception_tensors(width: float = WIDTH, seed: int = 0) -> dict[str, np.ndarray]:
    """Tensors by PyTorch's names, scaled so that features neither vanish nor explode."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, shape in inception_weights.tensor_shapes(width).items():
        drawn = rng.standard_normal(shape)
        if name.endswith("conv.weight"):
            drawn *= np.sqrt(2 / np.prod(shape[1:]))
        elif name.endswith("running_var") or name.endswith("bn.weight"):
            drawn = 1 + 0.2 * np.abs(drawn)
        else:
            drawn *= 0.1
        found[name] = drawn.astype(np.float32)
    return found


def images(count: int, side: int, seed: int = 0) -> np.ndarray:
    """Images with edges and gradients, uint8 (count, side, side, 3)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side] / side
    waves = rng.uniform(2, 12, (count, 3, 2))
    phases = rng.uniform(0, 6, (count, 3))
    angle = waves[..., 0, None, None] * rows + waves[..., 1, None, None] * columns
    smooth = 127 + 90 * np.sin(angle + phases[..., None, None])
    blocks = 30 * rng.integers(0, 2, (count, 3, 4, 4)).repeat(-(-side // 4), 2)
    blocks = blocks.repeat(-(-side // 4), 3)[..., :side, :side]
    return np.clip(smooth + blocks, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1).copy()


CLIP: dict[str, Any] = {
    "model_type": "clip",
    "projection_dim": 20,
    "text_config": {
        **{"hidden_size": 24, "intermediate_size": 48, "num_attention_heads": 3},
        **{"num_hidden_layers": 2, "max_position_embeddings": 16},
    },
    "vision_config": {
        **{"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4},
        **{"num_hidden_layers": 3, "image_size": 32, "patch_size": 8},
    },
}
MERGES = ("r e", "re d</w>", "c i", "ci r", "c l", "cl e</w>", "cir cle</w>", "i n")


def write_clip(
    folder: Path, config: dict[str, Any] = CLIP, seed: int = 0, vocabulary: int | None = None
) -> Path:
    """A model with random weights and a few merges, in a folder as Hugging Face has it.

    With `vocabulary` its table has so many tokens, the last two of which are start and end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    signs = clip_tokenizer._characters()
    joined = [merge.replace(" ", "") for merge in MERGES]
    pieces = [*signs, *(f"{sign}</w>" for sign in signs), *joined]
    pieces += [clip_tokenizer.START, clip_tokenizer.END]
    table = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    size = vocabulary or len(table)
    ends = {"vocab_size": size, "bos_token_id": size - 2, "eos_token_id": size - 1}
    whole = config | {"text_config": config["text_config"] | ends}
    (folder / "vocab.json").write_text(json.dumps(table))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]))
    (folder / "config.json").write_text(json.dumps(whole))
    save_file(clip_tensors(folder, seed), folder / "model.safetensors")
    return folder


def clip_tensors(folder: Path, seed: int = 0) -> dict[str, np.ndarray]:
    """Tensors of a folder's config by Hugging Face's names."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, shape in clip_weights.tensor_shapes(clip_config.read_config(folder)).items():
        drawn = rng.standard_normal(shape)
        if "norm" in name and name.endswith("weight"):
            drawn = 1 + 0.1 * drawn
        elif len(shape) == 1 or "position" in name:
            drawn *= 0.2
        elif "token_embedding" not in name:
            drawn *= 1.5 / np.sqrt(np.prod(shape[1:]))
        found[name] = drawn.astype(np.float32)
    return found
