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
                channel_mult=(1, 2, 2),
                res_blocks=1,
                attention_at=(4,),
                head_channels=32,
                cond_channels=256,
                norm_groups=8,
                text=config.TextConditioning(positions=32),
            ),
            diffusion=config.Diffusion(predicts="v", time_sampling="stratified"),
            sampler=config.Sampler(kind="ddim", steps=32, guidance_weight=2.0, threshold="static"),
        ),
        data=config.Data(dataset="shapes/quickstart"),
        optim=config.Optim(learning_rate=2e-3, warmup_steps=100, ema_decay=0.995),
        train=config.Train(steps=1500, batch_size=32, log_every=100, save_every=1500),
    )
