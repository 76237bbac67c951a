"""Text to 16 px in minutes: the base stage of the quickstart cascade.

Run: imagen train quickstart --workdir runs/quickstart (all three stages).
"""

from imagen_jax import config


def get_config() -> config.Experiment:
    return config.Experiment(
        stage=config.Stage(
            name="base16",
            size=16,
            model=config.UNet(
                channels=32,
                channel_mult=(1, 1),
                res_blocks=2,
                patch=2,
                attention_at=(8, 4),
                attention_every_block=False,
                head_channels=32,
                cond_channels=128,
                norm_groups=8,
                zero_init_residual=False,
                text=config.TextConditioning(positions=32, null="learned"),
            ),
            diffusion=config.Diffusion(
                predicts="v", time_sampling="stratified", schedule=config.NoiseSchedule(shift=-2.0)
            ),
            sampler=config.Sampler(kind="ddim", steps=32, guidance_weight=2.0, threshold="static"),
        ),
        data=config.Data(dataset="shapes/quickstart"),
        optim=config.Optim(kind="muon", learning_rate=5e-3, warmup_steps=50, ema_decay=0.99),
        train=config.Train(steps=2400, batch_size=64, log_every=100, save_every=2400),
    )
