"""64 to 256 px, trained on 64-px crops: the last stage of the cascade in the box.

Run: imagen train shapes --workdir runs/shapes (all three stages); docs/recipe.md has the choices.
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
                text=config.TextConditioning(kv="cross", positions=24),
            ),
            diffusion=config.Diffusion(
                schedule=config.NoiseSchedule(kind="linear"),
                predicts="x0",
                predict_residual=True,
                time_sampling="stratified",
            ),
            noise_conditioning=config.NoiseConditioning(max_level=0.1, sample_level=0.0),
            sampler=config.Sampler(kind="ddim", steps=4, guidance_weight=1.0, threshold="static"),
        ),
        data=config.Data(dataset="shapes/full"),
        text=config.Text(encoder="t5_1_1_mini", width=256, max_length=24),
        optim=config.Optim(kind="muon", learning_rate=2e-3, warmup_steps=100, ema_decay=0.998),
        train=config.Train(steps=4000, batch_size=32, log_every=100, save_every=500),
    )
