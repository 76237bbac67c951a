"""DeepFloyd IF's stage I-M, text to 64 px: 371.6 M parameters, to continue its published weights.

Run: imagen train deepfloyd/i_m --init-from FOLDER --pairs pairs --workdir runs/i_m
Hardware: by plan, 8 images a chip without rematerialisation in 16 GiB.
Expected: nothing is published of fine-tuning; the time steps and the loss are those of its
training, but for the variance, which --stage.diffusion.variance learned_range trains, too.
FOLDER is that of `unet`; `t5_1_1_xxl` stands for its text encoder. The network's widths are derived
from its published size: a folder's own config.json decides, which `imagen train FOLDER` reads.
"""

from imagen_jax import config

ATTENDING = {"attention": "image_and_text"}
SAMPLER = config.Sampler(
    steps=100,
    spacing="leading",
    stochasticity=0.0,
    guidance_weight=7.0,
    percentile=95.0,
    threshold_max=1.5,
    final_noise=True,
    known_pixels="clean",
)
TEXT = config.Text(
    encoder="t5_1_1_xxl",
    width=4096,
    max_length=77,
    dtype="bfloat16",
    lower_case=True,
    padding="encoded",
)


def get_config() -> config.Experiment:
    return config.Experiment(
        stage=config.Stage(
            name="i_m",
            size=64,
            model=config.DeepFloydUNet(
                levels=(
                    config.DeepFloydLevel(channels=192),
                    config.DeepFloydLevel(channels=384, **ATTENDING),
                    config.DeepFloydLevel(channels=576, **ATTENDING),
                    config.DeepFloydLevel(channels=768, **ATTENDING),
                ),
                text_channels=768,
                cond_channels=768,
                dtype="bfloat16",
            ),
            diffusion=config.Diffusion(schedule=config.NoiseSchedule(kind="cosine_betas")),
            sampler=SAMPLER,
        ),
        data=config.Data(dataset="pairs"),
        text=TEXT,
        optim=config.Optim(learning_rate=1e-5, warmup_steps=500),
        train=config.Train(steps=10_000, batch_size=256),
    )
