"""64 to 256 px in minutes, on 64-px crops: the last stage of the quickstart cascade.

Run: imagen train quickstart --workdir runs/quickstart (all three stages).
"""

from imagen_jax import config


def get_config() -> config.Experiment:
    return config.Experiment(
        stage=config.Stage(
            name="sr256",
            size=256,
            low_size=64,
            crop=64,
            model=config.EfficientUNet(
                stem_channels=8,
                levels=(
                    config.Level(channels=8, blocks=1, stride=1),
                    config.Level(channels=16, blocks=1),
                    config.Level(channels=32, blocks=1),
                    config.Level(channels=64, blocks=2, text_attention=True),
                ),
                cond_channels=64,
                heads=4,
                pool_head_channels=32,
                norm_groups=4,
                head="dense",
                stem_skip=False,
                text=config.TextConditioning(kv="cross", positions=32),
            ),
            diffusion=config.Diffusion(
                schedule=config.NoiseSchedule(kind="linear"),
                predicts="x0",
                predict_residual=True,
                time_sampling="stratified",
            ),
            noise_conditioning=config.NoiseConditioning(max_level=0.05, sample_level=0.0),
            sampler=config.Sampler(kind="ddim", steps=4, guidance_weight=1.0, threshold="static"),
        ),
        data=config.Data(dataset="shapes/quickstart"),
        optim=config.Optim(learning_rate=3e-3, warmup_steps=50, ema_decay=0.99),
        train=config.Train(steps=150, batch_size=16, log_every=50, save_every=150),
    )
