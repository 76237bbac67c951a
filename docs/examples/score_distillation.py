"""Score distillation with DeepFloyd IF: an image that its network likes for a prompt.

`python docs/examples/score_distillation.py deepfloyd/1 "a photo of a cube" --out image.png` moves
the colours of a coarse grid, enlarged to an image, by the gradient of arXiv:2209.14988. In place of
the grid there may be anything that renders an image in jax, such as a radiance field.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image

import imagen_jax
from imagen_jax.image import to_uint8
from imagen_jax.sample.noise_prediction import Guidance
from imagen_jax.sample.stage_program import TrainedStage

CLEANEST, NOISIEST = 20, 980  # time steps of the noise that is drawn


def rendered(grid: jax.Array, side: int) -> jax.Array:
    """An image (1, side, side, 3) in [-1, 1] of a grid (h, w, 3)."""
    return jnp.tanh(jax.image.resize(grid, (side, side, 3), "linear"))[None]


def loss(grid: jax.Array, key: jax.Array, params: Any, texts: Any, stage: TrainedStage) -> Any:
    """A number whose gradient is that of score distillation; its value means nothing."""
    of_time, of_noise = jax.random.split(key)
    t = jax.random.randint(of_time, (1,), CLEANEST, NOISIEST)
    x0 = rendered(grid, stage.stage.size)
    eps = jax.random.normal(of_noise, x0.shape)
    z = jax.lax.stop_gradient(stage.add_noise(x0, eps, t))
    found = stage.predict(params, z, t, texts.captions, guidance=Guidance(texts.negatives, 20.0))
    return jnp.sum(jax.lax.stop_gradient(found.eps - eps) * x0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cascade", help="Folder of DeepFloyd IF's stage I.")
    parser.add_argument("prompt")
    parser.add_argument("--steps", type=int, default=500, help="Steps of the optimiser.")
    parser.add_argument("--grid", type=int, default=32, help="Side of the grid of colours.")
    parser.add_argument("--out", type=Path, default=Path("image.png"), help="The image.")
    options = parser.parse_args()
    imagen = imagen_jax.load(options.cascade)
    stage, texts = imagen.stages[0], imagen.encode(options.prompt)
    params, optimiser = stage.device_params(), optax.adam(0.05)

    @jax.jit
    def step(grid: jax.Array, state: Any, key: jax.Array, params: Any) -> tuple[jax.Array, Any]:
        updates, state = optimiser.update(jax.grad(loss)(grid, key, params, texts, stage), state)
        return optax.apply_updates(grid, updates), state

    grid = jnp.zeros((options.grid, options.grid, 3))
    state = optimiser.init(grid)
    for number in range(options.steps):
        grid, state = step(grid, state, jax.random.key(number), params)
    pixels = to_uint8(rendered(grid, stage.stage.size))[0]
    Image.fromarray(np.asarray(pixels)).save(options.out)
    print(f"{options.steps} steps: {options.out}")


if __name__ == "__main__":
    main()
