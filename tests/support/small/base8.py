"""The least base model at 8 px, for tests of what surrounds networks: it compiles in seconds."""

from imagen_jax import config


def get_config() -> config.Experiment:
    return config.Experiment(
        stage=config.Stage(
            name="base8",
            size=8,
            model=config.UNet(
                channels=8,
                channel_mult=(1,),
                res_blocks=1,
                attention_at=(),
                head_channels=8,
                norm_groups=4,
                text=config.TextConditioning(kv="none"),
            ),
            sampler=config.Sampler(steps=3, guidance_weight=3.0),
        ),
        data=config.Data(dataset="shapes/tiny"),
        optim=config.Optim(learning_rate=1e-3, warmup_steps=1, ema_decay=0.9),
        train=config.Train(steps=4, batch_size=8, log_every=2, save_every=2),
    )
