"""Text to 16 px: the base stage of the cascade in the box.

Run: imagen train shapes --workdir runs/shapes (all three stages); docs/recipe.md has the choices.
"""

from imagen_jax import config


def get_config() -> config.Experiment:
    return config.Experiment(
        stage=config.Stage(
            name="base16",
            size=16,
            model=config.UNet(
                channels=96,
                channel_mult=(1, 1),
                res_blocks=1,
                patch=2,
                attention_at=(8, 4),
                attention_every_block=False,
                head_channels=32,
                cond_channels=256,
                norm_groups=8,
                zero_init_residual=False,
                text=config.TextConditioning(positions=24, refiner_layers=1),
            ),
            diffusion=config.Diffusion(
                predicts="v", time_sampling="stratified", schedule=config.NoiseSchedule(shift=-2.0)
            ),
            sampler=config.Sampler(kind="ddim", steps=32, guidance_weight=2.0, threshold="static"),
        ),
        data=config.Data(dataset="shapes/full"),
        text=config.Text(encoder="t5_1_1_mini", width=256, max_length=24),
        optim=config.Optim(kind="muon", learning_rate=3e-3, warmup_steps=200, ema_decay=0.999),
        train=config.Train(steps=8000, batch_size=128, log_every=100, save_every=500),
    )
