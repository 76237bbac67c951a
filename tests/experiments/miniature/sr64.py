"""The smallest super-resolution model after it: one level."""

from imagen_jax import config


def get_config() -> config.Experiment:
    return config.Experiment(
        stage=config.Stage(
            name="sr64",
            size=64,
            low_size=16,
            crop=16,
            model=config.EfficientUNet(
                stem_channels=4,
                levels=(
                    config.Level(channels=8, blocks=1, self_attention=True, text_attention=True),
                ),
                cond_channels=16,
                heads=2,
                norm_groups=4,
                text=config.TextConditioning(pool="mean"),
            ),
            sampler=config.Sampler(kind="ddim", steps=1, guidance_weight=1.0, threshold="static"),
        ),
        data=config.Data(dataset="shapes/tiny"),
        optim=config.Optim(learning_rate=1e-3, warmup_steps=1, ema_decay=0.9),
        train=config.Train(steps=4, batch_size=8, log_every=1, save_every=2),
    )
