"""A small super-resolution model, 8 -> 16 px, of one level that attends to the text."""

from imagen_jax import config


def get_config() -> config.Experiment:
    return config.Experiment(
        stage=config.Stage(
            name="sr16",
            size=16,
            low_size=8,
            model=config.EfficientUNet(
                stem_channels=8,
                levels=(
                    config.Level(channels=8, blocks=1, self_attention=True, text_attention=True),
                ),
                cond_channels=8,
                heads=1,
                pool_head_channels=8,
                norm_groups=4,
            ),
            sampler=config.Sampler(steps=3, stochasticity=0.1, guidance_weight=2.0),
        ),
        data=config.Data(dataset="shapes/tiny"),
        optim=config.Optim(learning_rate=1e-3, warmup_steps=1, ema_decay=0.9),
        train=config.Train(steps=4, batch_size=8, log_every=2, save_every=2),
    )
