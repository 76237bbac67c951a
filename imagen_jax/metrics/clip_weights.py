"""CLIP models from folders as Hugging Face has them: weights, sizes, preprocessing, tokenizer."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from imagen_jax.io import safetensors, torch_layout
from imagen_jax.io.file_digest import sha256
from imagen_jax.metrics.clip import Weights
from imagen_jax.metrics.clip_config import (
    ClipConfig,
    Preprocessing,
    Tower,
    read_config,
    read_preprocessing,
)

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
LAYERS = "encoder.layers"
UNREAD = ("logit_scale", "position_ids")  # what files have besides


@dataclass(frozen=True)
class LoadedClip:
    """A CLIP model and where its weights are from."""

    folder: Path
    config: ClipConfig
    preprocessing: Preprocessing
    weights: Weights
    sha256: str  # of model.safetensors; of the digests of its shards where there are several


def load(folder: Path) -> LoadedClip:
    """Load a model's folder.

    Errors: FileNotFoundError for a file that is missing; ValueError for weights that do not fit
    config.json, or are not finite.
    """
    config = read_config(folder)
    files = _files(folder)
    shapes = tensor_shapes(config)
    tensors: dict[str, np.ndarray] = {}
    for file in files:
        with safetensors.open_tensors(file) as opened:
            for name in opened.keys():  # noqa: SIM118
                if not name.endswith(UNREAD):
                    tensors[name] = opened.get_tensor(name)
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if wrong := safetensors.tensor_mismatches(found, shapes):
        few = "; ".join(wrong[:3]) + (f"; and {len(wrong) - 3} more" if len(wrong) > 3 else "")
        raise ValueError(f"{folder}: the weights do not fit its config.json: {few}")
    for name, tensor in tensors.items():
        if not np.isfinite(np.asarray(tensor, np.float32)).all():
            raise ValueError(f"{folder}: {name} has values that are not finite; download it again")
    digests = [sha256(file) for file in files]
    whole = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode())
    return LoadedClip(
        folder=folder,
        config=config,
        preprocessing=read_preprocessing(folder, config),
        weights=arrange(tensors, config),
        sha256=whole if isinstance(whole, str) else whole.hexdigest(),
    )


def tensor_shapes(config: ClipConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of Hugging Face's tensors by name."""
    text, image, patch = config.text.width, config.image.width, config.patch
    places = (config.side // patch) ** 2 + 1
    return {
        "text_model.embeddings.token_embedding.weight": (config.vocabulary, text),
        "text_model.embeddings.position_embedding.weight": (config.context, text),
        **_layer_shapes("text_model", config.text),
        **_norm_shapes("text_model.final_layer_norm", text),
        "vision_model.embeddings.class_embedding": (image,),
        "vision_model.embeddings.patch_embedding.weight": (image, 3, patch, patch),
        "vision_model.embeddings.position_embedding.weight": (places, image),
        **_norm_shapes("vision_model.pre_layrnorm", image),  # their spelling
        **_layer_shapes("vision_model", config.image),
        **_norm_shapes("vision_model.post_layernorm", image),
        "visual_projection.weight": (config.projection, image),
        "text_projection.weight": (config.projection, text),
    }


def arrange(tensors: Mapping[str, np.ndarray], config: ClipConfig) -> Weights:
    """Tensors as `clip` reads them: kernels (in, out), the layers of each tower stacked."""
    models = {"text_model": config.text, "vision_model": config.image}
    found: dict[str, object] = {
        name: _place(name, tensors[name])
        for name in ("visual_projection.weight", "text_projection.weight")
    }
    for model, tower in models.items():
        own = {
            name.removeprefix(f"{model}."): _place(name, tensor)
            for name, tensor in tensors.items()
            if name.startswith(f"{model}.") and f".{LAYERS}." not in name
        }
        first = f"{model}.{LAYERS}.0."
        parts = [name.removeprefix(first) for name in tensors if name.startswith(first)]
        stacked = {
            part: jnp.stack(
                [
                    _place(part, tensors[f"{model}.{LAYERS}.{number}.{part}"])
                    for number in range(tower.layers)
                ]
            )
            for part in parts
        }
        found[model] = {**own, "layers": stacked}
    return found


def _place(name: str, tensor: np.ndarray) -> jnp.ndarray:
    array = np.asarray(tensor, np.float32)
    if array.ndim == 4 or (array.ndim == 2 and "embedding" not in name):
        array = torch_layout.from_torch(array)
    return jnp.asarray(array)


def _layer_shapes(model: str, tower: Tower) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for number in range(tower.layers):
        layer = f"{model}.{LAYERS}.{number}"
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            found |= _dense_shapes(f"{layer}.self_attn.{name}", tower.width, tower.width)
        found |= _dense_shapes(f"{layer}.mlp.fc1", tower.width, tower.inner)
        found |= _dense_shapes(f"{layer}.mlp.fc2", tower.inner, tower.width)
        found |= _norm_shapes(f"{layer}.layer_norm1", tower.width)
        found |= _norm_shapes(f"{layer}.layer_norm2", tower.width)
    return found


def _dense_shapes(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm_shapes(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _files(folder: Path) -> list[Path]:
    """The safetensors files of a model: one, or numbered shards."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    shards = sorted(folder.glob("model-*-of-*.safetensors"))
    if (folder / INDEX).is_file() and shards:
        return shards
    others = sorted(file.name for file in folder.glob("pytorch_model*"))
    raise FileNotFoundError(
        f"{folder} has no {WEIGHTS}"
        + (f", but {others[0]}, which is a pickle and is not read" if others else "")
        + ": download the safetensors file, or save the model with save_pretrained"
    )
