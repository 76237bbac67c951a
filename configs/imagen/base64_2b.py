"""The paper's 2B base model, text to 64 px: 2399.8 M parameters (appendix F.1).

Run: imagen train imagen/base64_2b --workdir runs/base64_2b
Hardware: published: 256 TPU v4 chips for 2.5 M steps (section 4.1). By plan, 8 images a chip need
no rematerialisation; for more of them, on fewer chips, see `imagen plan --fit`.
Expected: published: zero-shot COCO FID-30K 7.27 with both super-resolution stages, guidance 1.35.
`pairs` stands for your own images and captions, `t5_1_1_xxl` for a folder with that T5X
checkpoint: the paper's data is not public.
Adafactor is not scaled by the parameters: at 1e-4 what begins at zero would hardly move.
"""

from imagen_jax import config


def get_config() -> config.Experiment:
    return config.Experiment(
        stage=config.Stage(
            name="base64_2b",
            size=64,
            model=config.UNet(channels=512, dtype="bfloat16"),
            sampler=config.Sampler(kind="ancestral", stochasticity=0.3, steps=256),
        ),
        data=config.Data(dataset="pairs"),
        text=config.Text(encoder="t5_1_1_xxl", width=4096, max_length=128, dtype="bfloat16"),
        optim=config.Optim(kind="adafactor", learning_rate=1e-4, warmup_steps=10_000),
        train=config.Train(steps=2_500_000, batch_size=2048, save_every=5000),
        mesh=config.Mesh(data=-1, fsdp=8),
    )
