"""DeepFloyd IF's stage II-L, 64 to 256 px: 1243.3 M parameters, to continue its published weights.

Run: imagen train deepfloyd/ii_l --init-from FOLDER --pairs pairs --workdir runs/ii_l
Hardware: see `imagen plan --fit`.
Expected: nothing is published of fine-tuning; the time steps, the noise on the low-resolution image
and the loss are those of its training, but for the variance, which --stage.diffusion.variance
learned_range trains, too.
FOLDER is that of `unet`; `t5_1_1_xxl` stands for its text encoder.
"""

from imagen_jax import config

SQRT_2 = 1.4142271248762552  # one over 0.7071, as the published configuration has it
ATTENDING = {"attention": "image_and_text"}
SAMPLER = config.Sampler(
    steps=50,
    spacing="leading",
    stochasticity=0.0,
    guidance_weight=4.0,
    threshold="static",
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
    schedule = config.NoiseSchedule(kind="cosine_betas")
    return config.Experiment(
        stage=config.Stage(
            name="ii_l",
            size=256,
            low_size=64,
            model=config.DeepFloydUNet(
                levels=(
                    config.DeepFloydLevel(channels=160, res_blocks=2),
                    config.DeepFloydLevel(channels=320, res_blocks=2),
                    config.DeepFloydLevel(channels=640, res_blocks=3),
                    config.DeepFloydLevel(channels=960, res_blocks=5, **ATTENDING),
                    config.DeepFloydLevel(channels=1280, res_blocks=5, **ATTENDING),
                ),
                text_channels=1280,
                cond_channels=1280,
                emb_activation="gelu",
                activate_emb_in_blocks=False,
                residual_divisor=SQRT_2,
                middle_residual_divisor=SQRT_2,
                reads_low_res=True,
                dtype="bfloat16",
            ),
            diffusion=config.Diffusion(schedule=schedule),
            noise_conditioning=config.NoiseConditioning(
                schedule=schedule, sample_level=250 / 999, upsampling="align_corners"
            ),
            sampler=SAMPLER,
        ),
        data=config.Data(dataset="pairs"),
        text=TEXT,
        optim=config.Optim(learning_rate=1e-5, warmup_steps=500),
        train=config.Train(steps=10_000, batch_size=256),
    )
