"""Every option of both networks changes the parameters or the computation."""

import dataclasses
import re
from typing import Any

import jax
import pytest

from imagen_jax import config, models

DEEP = config.Level(channels=16, blocks=1, self_attention=True, text_attention=True)
STEM = config.Level(channels=8, blocks=1)
CROSS = config.TextConditioning(kv="cross")
POOL_ONLY = config.TextConditioning(kv="none")
# Of one level each: tracing one takes half the time of two.
BASE = config.UNet(
    channels=8,
    channel_mult=(1,),
    res_blocks=1,
    attention_at=(8,),
    head_channels=8,
    norm_groups=4,
)
SR = config.EfficientUNet(
    stem_channels=8,
    levels=(DEEP,),
    cond_channels=16,
    heads=2,
    pool_head_channels=8,
    norm_groups=4,
)
TWO_LEVELS = {"attention_at": (4,), "channel_mult": (1, 2)}
NETWORKS = {
    "base": BASE,
    "base2": dataclasses.replace(BASE, **TWO_LEVELS),
    "sr": SR,
    "sr2": dataclasses.replace(SR, levels=(STEM, DEEP)),
}

TEXT = {
    "kv": "cross",
    "norm": False,
    "pool": "mean",
    "pool_query": "mean_plus_learned",
    "bottleneck": 12,
    "positions": 6,
    "refiner_layers": 1,
    "null": "learned",
    "null_mask": "all_ones",
}
UNET = {
    "channels": 16,
    "channel_mult": (3,),
    "res_blocks": 2,
    "attention_at": (8, 4),
    "attention_every_block": False,
    "head_channels": 4,
    "cond_channels": 16,
    "time_embed": "logsnr",
    "dropout": 0.1,
    "norm_groups": 2,
    "residual_scaling": "shortcut",
    "residual_scale": 0.5,
    "zero_init_residual": False,
    "patch": 2,
    "remat": "level",
    "dtype": "bfloat16",
    "text": POOL_ONLY,
}
EFFICIENT = {
    "stem_channels": 16,
    "levels": (STEM, DEEP),
    "cond_channels": 32,
    "heads": 4,
    "attn_hidden_mult": 3,
    "attn_ffn": True,
    "pool_head_channels": 4,
    "time_embed": "logsnr",
    "film_per_block": False,
    "skip_merge": "add",
    "stem_skip": False,
    "upsample_channels": "next",
    "upsample": "transposed",
    "last_upsample": "nearest",
    "head": "dense",
    "dropout": 0.1,
    "norm_groups": 2,
    "residual_scaling": "long_skip",
    "residual_scale": 0.5,
    "zero_init_residual": True,
    "remat": "level",
    "dtype": "bfloat16",
    "text": CROSS,
}
LEVEL = {
    "channels": 24,
    "blocks": 2,
    "stride": 1,
    "self_attention": False,
    "text_attention": False,
}
MORE = [
    ("base", {"residual_scaling": "long_skip", "residual_scale": 0.5}),
    ("base", {"attention_at": (), "text": POOL_ONLY}),
    ("sr2", {"upsample": "depth_to_space", "head": "dense"}),
    ("sr2", {"last_upsample": "transposed", "skip_merge": "add"}),
    ("sr2", {"levels": (dataclasses.replace(STEM, stride=1), STEM, DEEP)}),  # reading B
    ("sr", {"text": config.TextConditioning(kv="cross", pool="none")}),
]


def _program(toy: Any, options: config.UNet | config.EfficientUNet) -> str:
    """Initialisation, encoding and a training step's forward pass, as text."""
    module, stage, inputs = models.build(options), toy.stage_of(options), toy.make_inputs()

    def forward(net: Any) -> Any:
        cond = net.encode_text(inputs.text, inputs.text_mask, inputs.has_text)
        if stage.is_super_resolution:
            cond = cond.replace(low_res=inputs.low_res, aug_logsnr=inputs.aug_logsnr)
        return net(inputs.z, inputs.logsnr, cond, train=True)

    def run(key: Any) -> Any:
        return module.init_with_output({"params": key, "dropout": key}, method=forward)

    jaxpr, shapes = jax.make_jaxpr(run, return_shape=True)(jax.random.key(0))
    assert shapes[0].shape == inputs.z.shape
    return re.sub(r"0x[0-9a-f]+", "", str(jaxpr))  # addresses of functions differ between traces


@pytest.fixture(scope="module")
def plain(toy) -> dict[str, str]:
    return {name: _program(toy, options) for name, options in NETWORKS.items()}


def test_the_same_options_give_the_same_program(toy, plain) -> None:
    assert _program(toy, BASE) == plain["base"]


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(config.UNet)])
def test_unet_option_has_an_effect(toy, plain, field: str) -> None:
    changes, name = {field: UNET[field]}, "base"
    if field == "attention_at":  # which of the levels
        name = "base2"
    if field == "patch":
        changes["attention_at"] = (4,)  # still the coarsest level
    assert _program(toy, dataclasses.replace(NETWORKS[name], **changes)) != plain[name]


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(config.EfficientUNet)])
def test_efficient_unet_option_has_an_effect(toy, plain, field: str) -> None:
    name = "sr2" if field == "upsample" else "sr"  # the last one has its own
    changed = dataclasses.replace(NETWORKS[name], **{field: EFFICIENT[field]})
    assert _program(toy, changed) != plain[name]


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(config.TextConditioning)])
def test_text_option_has_an_effect(toy, plain, field: str) -> None:
    text = dataclasses.replace(BASE.text, **{field: TEXT[field]})
    assert _program(toy, dataclasses.replace(BASE, text=text)) != plain["base"]


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(config.Level)])
def test_level_option_has_an_effect(toy, plain, field: str) -> None:
    level = dataclasses.replace(DEEP, **{field: LEVEL[field]})
    text = {"self_attention": CROSS, "text_attention": POOL_ONLY}.get(field, SR.text)
    reference = plain["sr"]
    if field == "self_attention":
        reference = _program(toy, dataclasses.replace(SR, text=text))
    assert _program(toy, dataclasses.replace(SR, levels=(level,), text=text)) != reference


@pytest.mark.parametrize(("name", "changes"), MORE)
def test_combinations_run_and_differ(toy, plain, name: str, changes: dict[str, Any]) -> None:
    assert _program(toy, dataclasses.replace(NETWORKS[name], **changes)) != plain[name]


@pytest.mark.parametrize(
    ("mult", "sides", "levels"),
    [((1, 2, 3, 4), (32, 16, 8), (1, 2, 3)), ((1, 2), (4,), (1,)), ((1, 2, 2), (4, 16), (0, 2))],
)
def test_the_coarsest_level_has_the_smallest_attending_side(mult, sides, levels) -> None:
    assert config.UNet(channel_mult=mult, attention_at=sides).attention_levels() == levels


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (lambda toy: config.UNet(attention_at=(32, 12, 8)), r"attention_at=.* names \[12\]"),
        (lambda toy: config.UNet(channels=352), "1056 does not divide by head_channels=64"),
        (lambda toy: config.Level(channels=8, blocks=0), "blocks=0"),
        (
            lambda toy: config.TextConditioning(pool="mean", pool_query="mean_plus_learned"),
            "pool_query='mean_plus_learned' needs pool='attention'",
        ),
        (
            lambda toy: toy.stage_of(dataclasses.replace(toy.BASE, attention_at=(8,))),
            r"attention_at=\(8,\) lacks 4",
        ),
        (
            lambda toy: dataclasses.replace(toy.SR256, attn_ffn=True, heads=32),
            "channels of a level=16 does not divide by heads=32",
        ),
    ],
)
def test_what_a_network_could_not_honour_is_refused(toy, build: Any, names: str) -> None:
    with pytest.raises(ValueError, match=names):
        build(toy)


def test_levels_that_do_not_attend_need_no_whole_number_of_heads() -> None:
    assert config.UNet(channels=96, channel_mult=(1, 2), attention_at=(8,), head_channels=64)
