"""The paper's 64 -> 256 px super-resolution model: 519.4 M parameters (appendix F.2).

Run: imagen train imagen/sr256 --workdir runs/sr256
Hardware: published: 128 TPU v4 chips for 2.5 M steps, perhaps shared with sr1024 (section 4.1). By
plan, 16 images a chip need no rematerialisation in 32 GiB; with less, see `imagen plan --fit`.
Expected: published: zero-shot COCO FID-30K 7.27 behind base64_2b, guidance 8.
`pairs` stands for your own images and captions, `t5_1_1_xxl` for a folder with that T5X
checkpoint: the paper's data is not public. Differs from the paper: it names 600 M parameters, which
its printed blocks do not give under any one reading that also gives sr1024's 400 M.
"""

from imagen_jax import config


def get_config() -> config.Experiment:
    return config.Experiment(
        stage=config.Stage(
            name="sr256",
            size=256,
            low_size=64,
            model=config.EfficientUNet(dtype="bfloat16"),
            sampler=config.Sampler(kind="ancestral", stochasticity=0.1, steps=128),
        ),
        data=config.Data(dataset="pairs"),
        text=config.Text(encoder="t5_1_1_xxl", width=4096, max_length=128, dtype="bfloat16"),
        optim=config.Optim(kind="adam", learning_rate=1e-4, warmup_steps=10_000),
        train=config.Train(steps=2_500_000, batch_size=2048, save_every=5000),
        mesh=config.Mesh(data=-1, fsdp=1),
    )
