"""Train a small stage on images in memory, in a loop of your own, then sample from it.

`python docs/examples/train_in_memory.py` takes a few minutes on a laptop's CPU; `--steps 20` shows
how it goes. The images are squares of one colour; the prompts name the colour.
"""

import argparse
from pathlib import Path

import jax
import numpy as np

from imagen_jax import config, rng
from imagen_jax.data.pipeline import Batch, to_device
from imagen_jax.imagen import Imagen
from imagen_jax.parallel import mesh
from imagen_jax.sample.stage_program import TrainedStage
from imagen_jax.text.encoder import TextEncoder
from imagen_jax.train import sharded_step

COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (40, 70, 220)}
TEXT = config.Text(encoder="t5_1_1_tiny", width=64, max_length=8)


def experiment_of(steps: int) -> config.Experiment:
    """The options: an 8-px stage with a small U-Net."""
    return config.Experiment(
        stage=config.Stage(
            name="colours8",
            size=8,
            model=config.UNet(
                channels=32,
                channel_mult=(1, 2),
                res_blocks=1,
                attention_at=(4,),
                head_channels=16,
                norm_groups=8,
            ),
            sampler=config.Sampler(kind="dpmpp_2m", steps=16, guidance_weight=2.0),
        ),
        text=TEXT,
        optim=config.Optim(kind="adam", learning_rate=2e-3, warmup_steps=10, ema_decay=0.98),
        train=config.Train(steps=steps, batch_size=16),
    )


def draw_batch(draw: np.random.Generator, encoder: TextEncoder, size: int) -> Batch:
    """Draw squares on gray, with the encodings of their captions."""
    names = draw.choice(list(COLOURS), size)
    pixels = np.full((size, 8, 8, 3), 128, np.uint8)
    for image, name in zip(pixels, names, strict=True):
        y, x = draw.integers(0, 3, 2)
        image[y : y + 5, x : x + 5] = COLOURS[name]
    text, text_mask = encoder.encode([f"a {name} square" for name in names])
    return Batch(pixels, None, text, text_mask, np.arange(size, dtype=np.int32))


def train(steps: int) -> Imagen:
    """Train for so many steps; returns what samples."""
    experiment = experiment_of(steps)
    encoder = TextEncoder.from_config(TEXT)
    program = sharded_step.build(experiment)
    step, key, draw = program.step(), rng.root(0), np.random.default_rng(0)
    state = program.init(key)
    for number in range(1, steps + 1):
        batch = draw_batch(draw, encoder, experiment.train.batch_size)
        with mesh.activate(program.devices):
            placed = to_device(batch, program.batch_shardings, share=program.share)
            state, metrics = step(state, placed, key)
        if number % 50 == 0 or number == steps:
            print(f"step {number}: loss {float(metrics['loss']):.3f}", flush=True)
    params = jax.device_get(state.ema)
    stage = TrainedStage(stage=experiment.stage, module=program.module, params=params)
    return Imagen(stages=(stage,), encoder=encoder, experiments=(experiment,), steps=(steps,))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400, help="Training steps.")
    parser.add_argument("--out", type=Path, default=Path("colours"), help="Folder of the images.")
    options = parser.parse_args()
    imagen = train(options.steps)
    options.out.mkdir(parents=True, exist_ok=True)
    prompts = [f"a {name} square" for name in COLOURS]
    for name, image in zip(COLOURS, imagen(prompts, seed=1), strict=True):
        image.resize((128, 128), 0).save(options.out / f"{name}.png")
    print(f"{len(prompts)} images in {options.out}")


if __name__ == "__main__":
    main()
