"""A CLIP model's sizes and preprocessing, from the JSON files of its Hugging Face folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from imagen_jax import limits
from imagen_jax.config.sentences import shorten
from imagen_jax.io import json_reader

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
REMEDY = "download it again"
Activation = Literal["quick_gelu", "gelu"]
MOST = 1 << 20  # of any size; those of the largest CLIP have a hundredth
SHORTEST = 3  # tokens: a start, one of the text, an end
BICUBIC = 3  # Pillow's number of its filter


@dataclass(frozen=True, kw_only=True)
class Tower:
    """Sizes of a transformer, of images or of text; the defaults are those of B/32's text."""

    width: int = 512
    inner: int = 2048  # of its MLPs
    heads: int = 8
    layers: int = 12
    activation: Activation = "quick_gelu"
    epsilon: float = 1e-5  # of its layer norms


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """Sizes of a CLIP model."""

    text: Tower
    image: Tower
    vocabulary: int
    context: int  # tokens
    eos: int  # the token at whose place the text's features are read
    side: int  # pixels of an image
    patch: int
    projection: int  # numbers of an embedding


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Steps that make an image the network's: short side resized, centre cropped, normalised."""

    side: int  # pixels
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)


_NAMES = {  # ours -> Hugging Face's
    "width": "hidden_size",
    "inner": "intermediate_size",
    "heads": "num_attention_heads",
    "layers": "num_hidden_layers",
}
_TEXT = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8}
_IMAGE = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}


def read_config(folder: Path) -> ClipConfig:
    """Read config.json. Errors: FileNotFoundError; ValueError that names file and key."""
    file = folder / CONFIG
    if not file.is_file():
        raise FileNotFoundError(
            f"{folder} has no {CONFIG}: give the folder of a CLIP model as Hugging Face has it, "
            "with config.json, model.safetensors and the tokenizer's files"
        )
    found = json_reader.read_object(file, remedy=REMEDY)
    try:
        return _parse(found)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def read_preprocessing(folder: Path, config: ClipConfig) -> Preprocessing:
    """Read preprocessor_config.json; OpenAI's numbers where there is none.

    Errors: ValueError that names the file and the key.
    """
    file = folder / PREPROCESSOR
    if not file.is_file():
        return Preprocessing(side=config.side)
    found = json_reader.read_object(file, remedy=REMEDY)
    usual = Preprocessing(side=config.side)
    for key, wanted in {
        **{"do_resize": True, "do_center_crop": True, "do_normalize": True, "resample": BICUBIC},
        **{"do_rescale": True},
    }.items():
        if found.get(key, wanted) != wanted:
            raise ValueError(f"{file}: {key} is {shorten(found[key])}, and can be {wanted} only")
    for key, part in (("size", "shortest_edge"), ("crop_size", "height"), ("crop_size", "width")):
        side = found.get(key, config.side)
        side = side.get(part, config.side) if isinstance(side, Mapping) else side
        if side != config.side:
            raise ValueError(
                f"{file}: {key} is {shorten(side)}, but the network reads {config.side}"
            )
    return Preprocessing(
        side=config.side,
        mean=_three(file, found, "image_mean", usual.mean),
        std=_three(file, found, "image_std", usual.std),
    )


def _parse(found: Mapping[str, Any]) -> ClipConfig:
    kind = found.get("model_type")
    if kind != "clip":
        raise ValueError(f"model_type is {shorten(kind)}, and can be 'clip' only")
    text, image = _section(found, "text"), _section(found, "vision")
    config = ClipConfig(
        text=_tower({**_TEXT, **text}, "text_config"),
        image=_tower({**_IMAGE, **image}, "vision_config"),
        vocabulary=_whole(text, "vocab_size", 49408),
        context=_whole(text, "max_position_embeddings", 77),
        eos=_whole(text, "eos_token_id", 49407),
        side=_whole(image, "image_size", 224),
        patch=_whole(image, "patch_size", 32),
        projection=_whole(found, "projection_dim", 512),
    )
    if image.get("num_channels", 3) != 3:
        raise ValueError(f"num_channels is {shorten(image['num_channels'])}, and can be 3 only")
    if config.context < SHORTEST:
        raise ValueError(f"max_position_embeddings is {config.context}, fewer than {SHORTEST}")
    if config.side % config.patch:
        raise ValueError(f"image_size {config.side} is no multiple of patch_size {config.patch}")
    return config


def _section(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Older files have a second dictionary, which counts."""
    for key in (f"{name}_config_dict", f"{name}_config"):
        if isinstance(section := found.get(key), Mapping) and section:
            return section
    return {}


def _tower(found: Mapping[str, Any], where: str) -> Tower:
    sizes = {ours: _whole(found, theirs, 12) for ours, theirs in _NAMES.items()}
    limits.NETWORK_BLOCKS.check(sizes["layers"], f"{where}: num_hidden_layers is")
    if sizes["width"] % sizes["heads"]:
        raise ValueError(
            f"{where}: hidden_size {sizes['width']} is no multiple of num_attention_heads "
            f"{sizes['heads']}"
        )
    activation = found.get("hidden_act", "quick_gelu")
    if activation not in get_args(Activation):
        known = ", ".join(get_args(Activation))
        raise ValueError(f"{where}: hidden_act is {shorten(activation)}, and can be {known}")
    epsilon = found.get("layer_norm_eps", 1e-5)
    if not (isinstance(epsilon, float) and 0 < epsilon < 1):
        raise ValueError(f"{where}: layer_norm_eps is {shorten(epsilon)}, which is no small number")
    return Tower(**sizes, activation=activation, epsilon=epsilon)


def _whole(found: Mapping[str, Any], key: str, default: int) -> int:
    value = found.get(key, default)
    if type(value) is not int or not 1 <= value <= MOST:
        raise ValueError(f"{key} is {shorten(value)}, which is no whole number from 1 to {MOST:,}")
    return value


def _three(
    file: Path, found: Mapping[str, Any], key: str, usual: tuple[float, float, float]
) -> tuple[float, float, float]:
    value = found.get(key, usual)
    if not (
        isinstance(value, list | tuple)
        and len(value) == 3
        and all(isinstance(one, int | float) and 0 < one < 1 for one in value)
    ):
        raise ValueError(
            f"{file}: {key} is {shorten(value)}, which is no three numbers from 0 to 1"
        )
    return (float(value[0]), float(value[1]), float(value[2]))
