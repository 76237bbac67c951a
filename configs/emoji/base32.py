"""Text to 32 px: the base stage of a cascade that draws emoji in several styles.

Run: imagen data build emoji --styles ... --categories ... (docs/guides/data-sources.md has the sets
and categories); imagen encode emoji; imagen train emoji/base32 --workdir runs/emoji-subjects, which
learns subjects from much noise; then details from less:
  imagen train emoji/base32 --workdir runs/emoji/base32 --init-from runs/emoji-subjects \\
    --stage.diffusion.schedule.shift -1 --train.steps 7500
4.3 M parameters; 117 images a second on a core (two threads) of an AMD EPYC (Zen 4).
"""

from imagen_jax import config


def get_config() -> config.Experiment:
    return config.Experiment(
        stage=config.Stage(
            name="base32",
            size=32,
            model=config.UNet(
                channels=48,
                channel_mult=(1, 2, 2),
                res_blocks=1,
                patch=2,
                attention_at=(8, 4),
                attention_every_block=False,
                head_channels=32,
                cond_channels=256,
                norm_groups=8,
                zero_init_residual=False,
                text=config.TextConditioning(positions=32, refiner_layers=1),
            ),
            diffusion=config.Diffusion(
                predicts="v",
                time_sampling="stratified",
                schedule=config.NoiseSchedule(shift=-4.0),
            ),
            sampler=config.Sampler(
                kind="dpmpp_2m",
                steps=32,
                spacing="logsnr",  # even in time, few steps of this schedule would be for details
                guidance_weight=2.0,
                threshold="static",
            ),
        ),
        data=config.Data(dataset="emoji/styles"),
        text=config.Text(encoder="t5_1_1_mini", width=256, max_length=32, lower_case=True),
        optim=config.Optim(kind="muon", learning_rate=1e-3, warmup_steps=200, ema_decay=0.9995),
        train=config.Train(steps=30_000, batch_size=32, log_every=100, save_every=1000),
    )
