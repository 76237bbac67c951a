"""The smallest last stage, 16 -> 32 px on 16-px crops: SR1024 of the paper in kind.

Run: imagen train tiny --workdir runs/tiny (any CPU, under a minute a stage).
"""

from imagen_jax import config


def get_config() -> config.Experiment:
    return config.Experiment(
        stage=config.Stage(
            name="sr32",
            size=32,
            low_size=16,
            crop=16,
            model=config.EfficientUNet(
                stem_channels=8,
                levels=(
                    config.Level(channels=8, blocks=1),
                    config.Level(channels=16, blocks=1, text_attention=True),
                ),
                cond_channels=16,
                heads=2,
                pool_head_channels=8,
                norm_groups=4,
                text=config.TextConditioning(kv="cross"),
            ),
            diffusion=config.Diffusion(schedule=config.NoiseSchedule(kind="linear")),
            sampler=config.Sampler(kind="ddim", steps=3, guidance_weight=1.5, threshold="static"),
        ),
        data=config.Data(dataset="shapes/tiny"),
        optim=config.Optim(learning_rate=1e-3, warmup_steps=1, ema_decay=0.9),
        train=config.Train(steps=4, batch_size=8, log_every=2, save_every=2),
    )
