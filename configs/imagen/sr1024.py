"""The paper's 256 -> 1024 px super-resolution model: 511.0 M parameters (appendix F.3).

No self-attention, so that it trains on 256-px crops and samples whole images.
Run: imagen train imagen/sr1024 --workdir runs/sr1024
Hardware: published: 128 TPU v4 chips for 2.5 M steps, perhaps shared with sr256 (section 4.1).
Expected: published: no score; FID is measured at 256 px.
`pairs` stands for your own images and captions, `t5_1_1_xxl` for a folder with that T5X
checkpoint: the paper's data is not public. The learning rate's decay is sr256's; none is printed.
Differs from the paper, which names DDIM and no steps: 32 of DDIM, even in time, lose fine texture.
"""

from imagen_jax import config


def get_config() -> config.Experiment:
    return config.Experiment(
        stage=config.Stage(
            name="sr1024",
            size=1024,
            low_size=256,
            crop=256,
            model=config.EfficientUNet(
                levels=(
                    config.Level(channels=128, blocks=2),
                    config.Level(channels=256, blocks=4),
                    config.Level(channels=512, blocks=8),
                    config.Level(channels=1024, blocks=8, text_attention=True),
                ),
                dtype="bfloat16",
                text=config.TextConditioning(kv="cross"),
            ),
            diffusion=config.Diffusion(schedule=config.NoiseSchedule(kind="linear")),
            sampler=config.Sampler(
                kind="dpmpp_2m",
                spacing="logsnr",
                steps=32,
                guidance_weight=3.0,
                threshold="static",
            ),
        ),
        data=config.Data(dataset="pairs"),
        text=config.Text(encoder="t5_1_1_xxl", width=4096, max_length=128, dtype="bfloat16"),
        optim=config.Optim(kind="adam", learning_rate=1e-4, warmup_steps=10_000),
        train=config.Train(steps=2_500_000, batch_size=2048, save_every=5000),
        mesh=config.Mesh(data=-1, fsdp=1),
    )
