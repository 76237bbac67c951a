"""The smallest base model that the oracle can judge: one level behind 4x4 patches."""

from imagen_jax import config


def get_config() -> config.Experiment:
    return config.Experiment(
        stage=config.Stage(
            name="base16",
            size=16,
            model=config.UNet(
                channels=8,
                channel_mult=(1,),
                res_blocks=1,
                attention_at=(4,),
                head_channels=8,
                norm_groups=4,
                patch=4,
                text=config.TextConditioning(pool="mean"),
            ),
            sampler=config.Sampler(kind="ddim", steps=2, guidance_weight=2.0, threshold="static"),
        ),
        data=config.Data(dataset="shapes/tiny"),
        optim=config.Optim(learning_rate=1e-3, warmup_steps=1, ema_decay=0.9),
        train=config.Train(steps=4, batch_size=8, log_every=1, save_every=2),
    )
