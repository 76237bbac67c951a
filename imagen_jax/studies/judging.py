"""Judging a stage: captions with one and two objects apart, and how well it predicts noise."""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from imagen_jax import config, rng
from imagen_jax.diffusion import preconditioning, prediction, schedules
from imagen_jax.evaluate import alignment
from imagen_jax.evaluate.eval_set import EvalSet
from imagen_jax.image import to_float
from imagen_jax.imagen import Imagen
from imagen_jax.sample.progress import SamplingCallbacks
from imagen_jax.sample.stage_program import EncodedText
from imagen_jax.types import Keys, Network, Params

LEVELS = (-6.0, 6.0, 13)  # logsnr of the noise-prediction error: first, last, how many

Scores = dict[str, dict[str, float]]  # kind of caption ("one", "two", "both") -> attribute -> share


def score(pictures: UInt8[np.ndarray, "p h w 3"], exam: EvalSet) -> Scores:
    """The oracle's scores of pictures painted for the exam's captions."""
    kinds = {**exam.kinds(), "both": list(range(len(exam.captions)))}
    return {
        kind: {
            attribute: share
            for attribute, (share, _) in alignment.score(
                [pictures[i] for i in chosen], [exam.captions[i] for i in chosen]
            ).items()
        }
        for kind, chosen in kinds.items()
    }


def paint_and_score(
    imagen: Imagen,
    exam: EvalSet,
    *,
    seed: int,
    batch_size: int,
    progress: Callable[[str, int], None] | None = None,
) -> Scores:
    """Scores of a base stage's own pictures."""
    painted = imagen.paint(
        exam.captions,
        seed=seed,
        batch_size=batch_size,
        following=SamplingCallbacks(progress=progress),
    )
    return score(list(painted.values())[-1], exam)


def noise_error(imagen: Imagen, exam: EvalSet, *, seed: int, batch_size: int) -> float:
    """Mean squared error of a base stage's noise prediction on the exam's pictures, with caption.

    The mean is over evenly spaced logsnr from -6 to 6, whatever the stage predicts and whichever
    levels it was trained at; smaller is better, and 1 is what "no noise" would get.
    Errors: ValueError for a super-resolution stage.
    """
    painter = imagen.painters[0]
    if painter.stage.is_super_resolution:
        raise ValueError(f"noise_error: stage {painter.stage.name} needs a low-resolution picture")
    prompts = imagen.encode(exam.captions)
    count, root = len(exam.captions), rng.root(seed)
    errors = []
    for start in range(0, count, batch_size):
        rows = np.minimum(np.arange(start, start + batch_size), count - 1)
        part = prompts.rows(rows)
        keys = rng.fold_each(root, "held_out_noise", part.indices)
        shown = (part.captions, keys, exam.real[rows])
        found = _errors(painter.placed(), *shown, module=painter.module, stage=painter.stage)
        errors.append(np.asarray(found)[: count - start])
    return float(np.concatenate(errors).mean())


@functools.partial(jax.jit, static_argnames=("module", "stage"))
def _errors(
    params: Params,
    captions: EncodedText,
    keys: Keys,
    real: jax.Array,
    *,
    module: Network,
    stage: config.Stage,
) -> jax.Array:
    """Each picture's squared error of predicted noise, (b,), averaged over the levels."""
    x0 = to_float(real)
    variables = {"params": params}
    cond = module.apply(variables, *captions, method="encode_text")
    predict = preconditioning.wrap(
        lambda z, logsnr: module.apply(variables, z, logsnr, cond), None, diffusion=stage.diffusion
    )

    def at(numbered: tuple[jax.Array, jax.Array]) -> jax.Array:
        index, level = numbered
        logsnr = jnp.broadcast_to(level, keys.shape)
        eps = rng.normal_each(jax.vmap(lambda k: rng.fold(k, "level", index))(keys), x0.shape[1:])
        z = schedules.add_noise(x0, eps, logsnr)
        output = predict(z, logsnr)
        guess = prediction.to_x0(output, z, logsnr, predicts=stage.diffusion.predicts)
        eps_hat = prediction.from_x0(guess, z, logsnr, predicts="eps")
        return jnp.mean((eps_hat - eps) ** 2, axis=(1, 2, 3))

    levels = jnp.linspace(*LEVELS)
    return jnp.mean(jax.lax.map(at, (jnp.arange(len(levels)), levels)), axis=0)


def cells(scores: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """Columns of a table, in percent; a dash where nothing could be judged."""
    columns = {
        "one": ("colour", "shape", "size", "all"),
        "two": ("colour", "shape", "relation", "all"),
    }
    return {
        f"{attribute}, {kind}": f"{100 * scores[kind][attribute]:.0f}"
        if attribute in scores[kind]
        else "-"
        for kind, attributes in columns.items()
        for attribute in attributes
    }
