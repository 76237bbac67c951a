"""Counts of the paper's stages and of their quarter-scale copies: architecture drift fails.

The numbers come from two independent counts, by formula and by another module's shapes.
"""

import functools
from pathlib import Path

import jax
import pytest

from imagen_jax import config, models

CONFIGS = Path(__file__).parents[2] / "configs"


def _count(stage: config.Stage, *, text_width: int, text_length: int) -> int:
    module = models.build(stage.model)
    init = functools.partial(
        models.init, module, stage=stage, text_width=text_width, text_length=text_length
    )
    return models.count_parameters(jax.eval_shape(init, jax.random.key(0)))


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        pytest.param("imagen/base64_300m", 407.6, marks=pytest.mark.slow),
        pytest.param("imagen/base64_500m", 674.7, marks=pytest.mark.slow),
        pytest.param("imagen/base64_1b", 1198.5, marks=pytest.mark.slow),
        ("imagen/base64_2b", 2399.8),
        ("imagen/sr256", 519.4),
        ("imagen/sr1024", 511.0),
        ("deepfloyd/i_m", 371.6),
        pytest.param("deepfloyd/i_xl", 4304.7, marks=pytest.mark.slow),
        ("deepfloyd/ii_l", 1243.3),
    ],
)
def test_published_configs(name: str, millions: float) -> None:
    file = CONFIGS / f"{name}.py"
    experiment = config.load(str(file))[0]
    text = experiment.text
    found = _count(experiment.stage, text_width=text.width, text_length=text.max_length)
    assert round(found / 1e6, 1) == millions
    assert f"{millions} M parameters" in file.read_text()  # what its docstring promises


def test_emoji_fit_30_megabytes_of_bfloat16() -> None:
    counts = {}
    for file in (CONFIGS / f"emoji/{name}.py" for name in ("base32", "sr128")):
        experiment = config.load(str(file))[0]
        text = experiment.text
        length, width = text.max_length, text.width
        counts[file] = _count(experiment.stage, text_width=width, text_length=length)
        assert f"{counts[file] / 1e6:.1f} M parameters" in " ".join(file.read_text().split())
    assert sum(counts.values()) * 2 < 30e6


def _base(width: int, head: int, groups: int) -> config.Stage:
    model = config.UNet(
        channels=width,
        res_blocks=1,
        attention_at=(8, 4, 2),
        head_channels=head,
        norm_groups=groups,
    )
    return config.Stage(name="base", size=16, model=model)


def _super(width: int, groups: int, *, self_attention: bool) -> config.Stage:
    mults, blocks = (1, 2, 4, 8), (1, 1, 2, 2)
    levels = [
        config.Level(channels=width * m, blocks=b) for m, b in zip(mults, blocks, strict=True)
    ]
    levels[-1] = config.Level(
        channels=width * 8, blocks=2, self_attention=self_attention, text_attention=True
    )
    model = config.EfficientUNet(
        stem_channels=width,
        levels=tuple(levels),
        cond_channels=64,
        heads=4,
        norm_groups=groups,
        text=config.TextConditioning(kv="concat" if self_attention else "cross"),
    )
    return config.Stage(name="sr", size=64, low_size=16, model=model)


@pytest.mark.parametrize(
    ("stage", "millions"),
    [
        (_base(16, 8, 4), 1.215),
        (_base(32, 16, 8), 4.688),
        (_super(8, 4, self_attention=True), 0.687),
        (_super(16, 8, self_attention=True), 2.490),
        (_super(8, 4, self_attention=False), 0.653),
        (_super(16, 8, self_attention=False), 2.358),
    ],
)
def test_quarter_scale(stage: config.Stage, millions: float) -> None:
    assert round(_count(stage, text_width=64, text_length=16) / 1e6, 3) == millions
