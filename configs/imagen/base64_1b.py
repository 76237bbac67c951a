"""The paper's 1B base model, text to 64 px: 1198.5 M parameters (appendix F.1).

Run: imagen train imagen/base64_1b --workdir runs/base64_1b
Hardware: not published for this size; 8 or more images per chip.
Expected: published: no score for this size alone; appendix D.3 compares sizes after 400,000 steps.
`pairs` stands for your own images and captions, `t5_1_1_xxl` for a folder with that T5X
checkpoint: the paper's data is not public.
The width is ours. Differs from the paper: 88 channels a head, as 64 do not divide 1056.
Adafactor is not scaled by the parameters: at 1e-4 what begins at zero would hardly move.
"""

from imagen_jax import config


def get_config() -> config.Experiment:
    return config.Experiment(
        stage=config.Stage(
            name="base64_1b",
            size=64,
            model=config.UNet(channels=352, head_channels=88, remat="block", dtype="bfloat16"),
            sampler=config.Sampler(kind="ancestral", stochasticity=0.3, steps=256),
        ),
        data=config.Data(dataset="pairs"),
        text=config.Text(encoder="t5_1_1_xxl", width=4096, max_length=128, dtype="bfloat16"),
        optim=config.Optim(kind="adafactor", learning_rate=1e-4, warmup_steps=10_000),
        train=config.Train(steps=2_500_000, batch_size=2048, save_every=5000),
        mesh=config.Mesh(data=-1, fsdp=4),
    )
