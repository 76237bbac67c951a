"""Networks as large as those of the comparison with other projects, as experiments to train."""

from imagen_jax import config


def base() -> config.Experiment:
    """Text to 64 px: 24 GFLOP per image forward."""
    model = config.UNet(
        channels=64, channel_mult=(1, 2, 4), res_blocks=2, attention_at=(32, 16), norm_groups=8
    )
    return _reference(config.Stage(name="base", size=64, model=model))


def super_resolution() -> config.Experiment:
    """16 to 64 px: 12 GFLOP per image forward."""
    model = config.EfficientUNet(
        stem_channels=64,
        levels=(
            config.Level(channels=64, blocks=2, stride=1),
            config.Level(channels=128, blocks=2),
            config.Level(channels=256, blocks=2, self_attention=True, text_attention=True),
        ),
        cond_channels=256,
        norm_groups=8,
    )
    return _reference(config.Stage(name="sr", size=64, low_size=16, model=model))


def _reference(stage: config.Stage) -> config.Experiment:
    return config.Experiment(
        stage=stage,
        data=config.Data(dataset="shapes/quickstart"),
        text=config.Text(width=256, max_length=32),
        optim=config.Optim(kind="adam", learning_rate=1e-4),
        train=config.Train(steps=1000, batch_size=4),
    )


NETWORKS = {"base": base, "sr": super_resolution}
