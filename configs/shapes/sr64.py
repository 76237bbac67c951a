"""16 to 64 px: the first super-resolution stage of the cascade in the box.

Run: imagen train shapes --workdir runs/shapes (all three stages); docs/recipe.md has the choices.
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
                    config.Level(channels=24, blocks=1),
                    config.Level(channels=48, blocks=1),
                    config.Level(channels=96, blocks=2, self_attention=True, text_attention=True),
                ),
                cond_channels=128,
                heads=4,
                pool_head_channels=32,
                norm_groups=4,
                head="dense",
                stem_skip=False,
                text=config.TextConditioning(positions=24),
            ),
            diffusion=config.Diffusion(
                predicts="x0", predict_residual=True, time_sampling="stratified"
            ),
            noise_conditioning=config.NoiseConditioning(max_level=0.3, sample_level=0.1),
            sampler=config.Sampler(kind="ddim", steps=4, guidance_weight=1.0, threshold="static"),
        ),
        data=config.Data(dataset="shapes/full"),
        text=config.Text(encoder="t5_1_1_mini", width=256, max_length=24),
        optim=config.Optim(kind="muon", learning_rate=2e-3, warmup_steps=100, ema_decay=0.998),
        train=config.Train(steps=7000, batch_size=32, log_every=100, save_every=500),
    )
