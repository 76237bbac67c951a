"""diffusers' `unet/config.json` to `config.DeepFloydUNet`.

Files of older versions lack keys of later ones, which then have the default of diffusers'
`UNet2DConditionModel`; a key that would change the network in a way that ours has not is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagen_jax import config
from imagen_jax.config.sentences import shorten
from imagen_jax.io import json_reader
from imagen_jax.pretrained.deepfloyd.config_fields import (
    choice,
    flag,
    positive_number,
    unfit,
    whole_number,
)

CONFIG = "config.json"
CLASS = "UNet2DConditionModel"
# Keys that change the network, with the value that counts where a file lacks them.
DEFAULTS: dict[str, Any] = {
    "act_fn": "silu",
    "addition_embed_type": None,
    "addition_embed_type_num_heads": 64,
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "class_embed_type": None,
    "cross_attention_dim": 1280,
    "cross_attention_norm": None,
    "down_block_types": None,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_only_cross_attention": None,
    "mid_block_scale_factor": 1.0,
    "norm_eps": 1e-5,
    "norm_num_groups": 32,
    "only_cross_attention": False,
    "out_channels": 4,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "sample_size": None,
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
    "up_block_types": None,
}
# Keys that our network has one value of: the default of diffusers, and all values that fit.
FIXED: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "center_input_sample": (False, (False,)),
    "class_embeddings_concat": (False, (False,)),
    "conv_in_kernel": (3, (3,)),
    "conv_out_kernel": (3, (3,)),
    "dropout": (0.0, (0,)),
    "mid_block_type": ("UNetMidBlock2DCrossAttn", ("UNetMidBlock2DSimpleCrossAttn",)),
    "num_attention_heads": (None, (None,)),
    "resnet_time_scale_shift": ("default", ("scale_shift",)),
    "time_cond_proj_dim": (None, (None,)),
    "time_embedding_type": ("positional", ("positional",)),
    "timestep_post_act": (None, (None,)),
}
# Keys that the blocks of these networks don't read.
IGNORED = frozenset(
    [
        "addition_time_embed_dim",
        "attention_type",
        "downsample_padding",
        "dual_cross_attention",
        "num_class_embeds",
        "projection_class_embeddings_input_dim",
        "reverse_transformer_layers_per_block",
        "transformer_layers_per_block",
        "upcast_attention",
        "use_linear_projection",
    ]
)
ACTIVATIONS = {"gelu": "gelu", "silu": "silu", "swish": "silu"}
DOWN = {"ResnetDownsampleBlock2D": False, "SimpleCrossAttnDownBlock2D": True}  # attends or not
UP = {"ResnetUpsampleBlock2D": False, "SimpleCrossAttnUpBlock2D": True}
COLOURS = 3
# Far above what these networks have, so that a stranger's file is refused before one is traced.
MOST_LEVELS = 8
MOST = {
    "addition_embed_type_num_heads": 1024,
    "attention_head_dim": 1024,
    "block_out_channels": 8192,
    "cross_attention_dim": 8192,
    "encoder_hid_dim": 2**16,
    "freq_shift": 1,
    "layers_per_block": 16,
    "norm_num_groups": 1024,
    "sample_size": 1024,
    "time_embedding_dim": 2**15,
}


@dataclass(frozen=True, kw_only=True)
class FoundUNet:
    """A network, as its file describes it."""

    model: config.DeepFloydUNet
    side: int | None  # of the images that it was trained on; None: not said
    text_width: int  # of the text encoder's states


def read_unet_config(folder: Path, *, betas: config.Betas = "cosine") -> FoundUNet:
    """Read the config of the folder `unet`; `betas` are those of its scheduler.

    Errors: FileNotFoundError; ValueError that names the file and the key.
    """
    file = folder / CONFIG
    given = json_reader.read_object(file, remedy="download it again")
    try:
        return parse_unet_config(given, betas=betas)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def parse_unet_config(given: Mapping[str, Any], *, betas: config.Betas = "cosine") -> FoundUNet:
    """Turn the fields of a config into a network. Errors: ValueError that names the key."""
    _refuse_unknown(given)
    found = {key: given.get(key, default) for key, default in DEFAULTS.items()}
    attends = _attends(found)
    channels = _numbers(found, "block_out_channels", None)
    if len(channels) > MOST_LEVELS:
        raise unfit("block_out_channels", channels, [f"1 to {MOST_LEVELS} levels"])
    blocks, heads = (
        _numbers(found, key, len(channels)) for key in ("layers_per_block", "attention_head_dim")
    )
    only_text = _flags(found, "only_cross_attention", len(channels))
    if len(attends) != len(channels):
        raise ValueError(f"down_block_types has {len(attends)} blocks of {len(channels)} levels")
    levels = tuple(
        config.DeepFloydLevel(
            channels=width,
            res_blocks=count,
            attention=_keys(text) if attending else None,
            head_channels=head,
        )
        for width, count, attending, text, head in zip(
            channels, blocks, attends, only_text, heads, strict=True
        )
    )
    return FoundUNet(
        model=config.DeepFloydUNet(
            levels=levels,
            middle_attention=_keys(_middle_only_text(found)),
            middle_head_channels=heads[-1],
            text_norm=choice(found, "cross_attention_norm", {"group_norm": True, None: False}),
            betas=betas,
            **_embeddings(found, channels[0]),
            **_channels(found),
            **_blocks(found),
        ),
        side=None if found["sample_size"] is None else _whole_number(found, "sample_size"),
        text_width=_whole_number(found, "encoder_hid_dim"),
    )


def _embeddings(found: Mapping[str, Any], channels: int) -> dict[str, Any]:
    width = found["time_embedding_dim"]
    pooled = choice(found, "addition_embed_type", {"text": True, None: False})
    once = found["time_embedding_act_fn"]
    if found["encoder_hid_dim_type"] not in ("text_proj", None):
        raise unfit("encoder_hid_dim_type", found["encoder_hid_dim_type"], ["text_proj"])
    return {
        "text_channels": _whole_number(found, "cross_attention_dim"),
        "cond_channels": 4 * channels
        if width is None
        else _whole_number(found, "time_embedding_dim"),
        "pool_heads": _whole_number(found, "addition_embed_type_num_heads") if pooled else None,
        "emb_activation": None
        if once is None
        else choice(found, "time_embedding_act_fn", ACTIVATIONS),
        "activate_emb_in_blocks": not flag(found, "resnet_skip_time_act"),
        "cosine_first": flag(found, "flip_sin_to_cos"),
        "frequency_shift": _whole_number(found, "freq_shift"),
    }


def _channels(found: Mapping[str, Any]) -> dict[str, Any]:
    low_res = choice(found, "class_embed_type", {"timestep": True, None: False})
    wanted = 2 * COLOURS if low_res else COLOURS
    if _whole_number(found, "in_channels") != wanted:
        raise ValueError(
            f"in_channels is {found['in_channels']}, but with class_embed_type "
            f"{found['class_embed_type']!r} the network reads {wanted}"
        )
    learned = choice(found, "out_channels", {2 * COLOURS: True, COLOURS: False})
    return {"reads_low_res": low_res, "learned_variance": learned}


def _blocks(found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "activation": choice(found, "act_fn", ACTIVATIONS),
        "norm_groups": _whole_number(found, "norm_num_groups"),
        "norm_epsilon": positive_number(found, "norm_eps"),
        "residual_divisor": positive_number(found, "resnet_out_scale_factor"),
        "middle_residual_divisor": positive_number(found, "mid_block_scale_factor"),
    }


def _refuse_unknown(given: Mapping[str, Any]) -> None:
    if (kind := given.get("_class_name", CLASS)) != CLASS:
        raise unfit("_class_name", kind, [CLASS])
    for key, (default, fitting) in FIXED.items():
        value = given.get(key, default)
        if value not in fitting or isinstance(value, bool) != isinstance(fitting[0], bool):
            raise unfit(key, value, fitting)
    for key, value in given.items():
        known = key in DEFAULTS or key in FIXED or key in IGNORED or key.startswith("_")
        if not known and value not in (None, False):
            raise ValueError(
                f"{shorten(key)} is {shorten(value)}, and no key that DeepFloyd IF's networks "
                "have: imagen_jax reads those alone"
            )


def _attends(found: Mapping[str, Any]) -> list[bool]:
    """Tell which levels attend. Errors: ValueError for other blocks, or ways that differ."""
    ways = []
    for key, kinds in (("down_block_types", DOWN), ("up_block_types", UP)):
        names = found[key]
        if not isinstance(names, list) or not names:
            raise unfit(key, names, ["a list of blocks"])
        for name in names:
            if not isinstance(name, str) or name not in kinds:
                raise unfit(key, name, list(kinds))
        ways.append([kinds[name] for name in names])
    down, up = ways
    if down != up[::-1]:
        raise ValueError("up_block_types is not down_block_types in the opposite order")
    return down


def _middle_only_text(found: Mapping[str, Any]) -> bool:
    given, levels = found["mid_block_only_cross_attention"], found["only_cross_attention"]
    if given is None:
        return levels if isinstance(levels, bool) else False
    return flag(found, "mid_block_only_cross_attention")


def _keys(only_text: bool) -> Any:
    return "text" if only_text else "image_and_text"


def _whole_number(found: Mapping[str, Any], key: str) -> int:
    return whole_number(found, key, most=MOST.get(key, 2**31))


def _numbers(found: Mapping[str, Any], key: str, count: int | None) -> list[int]:
    """One number for each level; a single one is for all."""
    value = found[key]
    several = value if isinstance(value, list) else [value] * (count or 0)
    if not several or (count is not None and len(several) != count):
        wanted = "a list of numbers" if count is None else f"a number, or {count} of them"
        raise unfit(key, value, [wanted])
    return [_whole_number({key: one}, key) for one in several]


def _flags(found: Mapping[str, Any], key: str, count: int) -> list[bool]:
    value = found[key]
    several = value if isinstance(value, list) else [value] * count
    if len(several) != count:
        raise unfit(key, value, [f"true, false, or {count} of them"])
    return [flag({key: one}, key) for one in several]
