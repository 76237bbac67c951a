"""16 to 64 px in minutes: the first super-resolution stage of the quickstart cascade.

Run: imagen train quickstart --workdir runs/quickstart (all three stages).
"""

from imagen_jax import config


def get_config() -> config.Experiment:
    return config.Experiment(
        stage=config.Stage(
            name="sr64",
            size=64,
            low_size=16,
            model=config.EfficientUNet(
                stem_channels=8,
                levels=(
                    config.Level(channels=8, blocks=1, stride=1),  # reading B of the spec
                    config.Level(channels=16, blocks=1),
                    config.Level(channels=32, blocks=1),
                    config.Level(channels=64, blocks=2, self_attention=True, text_attention=True),
                ),
                cond_channels=64,
                heads=4,
                pool_head_channels=32,
                norm_groups=4,
                head="dense",
                stem_skip=False,
                text=config.TextConditioning(positions=32),
            ),
            diffusion=config.Diffusion(
                predicts="x0", predict_residual=True, time_sampling="stratified"
            ),
            noise_conditioning=config.NoiseConditioning(max_level=0.1, sample_level=0.0),
            sampler=config.Sampler(kind="ddim", steps=4, guidance_weight=1.0, threshold="static"),
        ),
        data=config.Data(dataset="shapes/quickstart"),
        optim=config.Optim(learning_rate=3e-3, warmup_steps=50, ema_decay=0.99),
        train=config.Train(steps=600, batch_size=16, log_every=100, save_every=600),
    )
