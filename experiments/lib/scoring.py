"""Scores of images: attributes by number of objects, Fréchet distance, noise prediction."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, UInt8

from imagen_jax import config, rng
from imagen_jax.diffusion import prediction, schedules
from imagen_jax.evaluate import alignment, frechet
from imagen_jax.evaluate.detector import SMALLEST
from imagen_jax.evaluate.eval_set import EvalSet, balanced_eval_set
from imagen_jax.image import to_float
from imagen_jax.imagen import Imagen
from imagen_jax.sample.progress import SamplingCallbacks
from imagen_jax.sample.sampler_inputs import EncodedText
from imagen_jax.types import Keys, Network, Params, Pixels
from lib.x0_prediction import x0_predictor

COLUMNS = ("colour", "shape", "size", "relation", "fill", "all")  # attributes in tables
NOTE = (  # what the columns of `cells` mean
    "Columns by attribute: captions that the oracle found right, in percent. Fréchet: distance to "
    "other real images on the descriptors of `evaluate/frechet.py`; that of real images of the "
    "same captions is its floor. At limits: channel values at 0 or 255, in percent."
)
LEVELS = (-6.0, 6.0, 13)  # logsnr of the noise-prediction error: first, last, how many

Verdicts = Bool[np.ndarray, " p"]  # whether images of the same captions, in order, are right
Scores = dict[str, dict[str, float]]  # kind of caption ("one", "two", "both") -> attribute -> share


def score(images: UInt8[np.ndarray, "p h w 3"], exam: EvalSet) -> Scores:
    """The oracle's scores of images sampled for the exam's captions."""
    kinds = {**exam.kinds(), "both": list(range(len(exam.captions)))}
    return {
        kind: {
            attribute: share
            for attribute, (share, _) in alignment.score(
                [images[i] for i in chosen], [exam.captions[i] for i in chosen]
            ).items()
        }
        for kind, chosen in kinds.items()
    }


@dataclasses.dataclass(frozen=True)
class Paired:
    """Two settings on the same captions; units: percent of captions, points of percent."""

    captions: int
    share: float  # right
    difference: float  # to the reference's share
    error: float  # the standard error of that difference; 100 where one caption tells nothing


def paired(found: Verdicts, reference: Verdicts) -> Paired:
    """Compare verdicts on the same captions, pair by pair."""
    difference, count = 100.0 * (found.astype(float) - reference), len(found)
    return Paired(
        captions=count,
        share=100.0 * float(found.mean()),
        difference=float(difference.mean()),
        error=float(difference.std(ddof=1)) / math.sqrt(count) if count > 1 else 100.0,
    )


def sample_and_score(
    imagen: Imagen,
    exam: EvalSet,
    *,
    seed: int,
    batch_size: int,
    progress: Callable[[str, int], None] | None = None,
) -> Scores:
    """Scores of a base stage's own images."""
    sampled = imagen.sample(
        exam.captions,
        seed=seed,
        batch_size=batch_size,
        callbacks=SamplingCallbacks(on_batch=progress),
    )
    return score(list(sampled.values())[-1], exam)


def noise_error(imagen: Imagen, exam: EvalSet, *, seed: int, batch_size: int) -> float:
    """Mean squared error of a base stage's noise prediction on the exam's images, with caption.

    The mean is over evenly spaced logsnr from -6 to 6, whatever the stage predicts and whichever
    levels it was trained at; smaller is better, and 1 is what "no noise" would get.
    Errors: ValueError for a super-resolution stage.
    """
    painter = imagen.stages[0]
    if painter.stage.is_super_resolution:
        raise ValueError(f"noise_error: stage {painter.stage.name} needs a low-resolution image")
    prompts = imagen.encode(exam.captions)
    count, root = len(exam.captions), rng.root(seed)
    errors = []
    for start in range(0, count, batch_size):
        rows = np.minimum(np.arange(start, start + batch_size), count - 1)
        part = prompts.rows(rows)
        keys = rng.fold_each(root, "held_out_noise", part.indices)
        shown = (part.captions, keys, exam.real[rows])
        found = _errors(painter.device_params(), *shown, module=painter.module, stage=painter.stage)
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
    """Each image's squared error of predicted noise, (b,), averaged over the levels."""
    x0 = to_float(real)
    predict = x0_predictor(params, captions, module=module, stage=stage)

    def at(numbered: tuple[jax.Array, jax.Array]) -> jax.Array:
        index, level = numbered
        logsnr = jnp.broadcast_to(level, keys.shape)
        eps = rng.normal_each(jax.vmap(lambda k: rng.fold(k, "level", index))(keys), x0.shape[1:])
        z = schedules.add_noise(x0, eps, logsnr)
        eps_hat = prediction.from_x0(predict(z, logsnr), z, logsnr, predicts="eps")
        return jnp.mean((eps_hat - eps) ** 2, axis=(1, 2, 3))

    levels = jnp.linspace(*LEVELS)
    return jnp.mean(jax.lax.map(at, (jnp.arange(len(levels)), levels)), axis=0)


def attribute_cells(scores: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
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


@dataclasses.dataclass(frozen=True)
class Judge:
    """An exam, and other real images to measure distances from."""

    exam: EvalSet
    reference: frechet.ReferenceSet

    def measure(self, images: Pixels) -> dict[str, float]:
        """Return scores of `images` of the captions; real images score the ceiling and the floor.

        Units: shares in [0, 1] by attribute of the captions; `frechet` as in evaluate.frechet;
        `saturated` the share of channel values at 0 or 255.
        """
        shares = alignment.score(list(images), self.exam.captions)
        return {
            **{attribute: share for attribute, (share, _) in shares.items()},
            "frechet": self.reference.distance(images),
            "saturated": float(np.mean((images == 0) | (images == 255))),
        }

    def shown(self, count: int) -> slice:
        """About `count` captions, from the first to the last kind."""
        step = max(1, len(self.exam.captions) // count)
        return slice(0, step * count, step)


def make_judge(dataset: str, *, size: int, count: int, others: int, seed: int) -> Judge:
    """`count` new captions in a dataset's manner, and `others` more real images, at `size`.

    Errors: ValueError for images that the oracle cannot judge: no shapes, or too small.
    """
    if size < SMALLEST:
        raise ValueError(
            f"the oracle judges images of {SMALLEST} px and more, not of {size}: "
            "choose a later stage"
        )
    exam = balanced_eval_set(dataset, count=count, seed=seed, size=size)
    other = balanced_eval_set(dataset, count=others, seed=seed + 1, size=size)
    return Judge(exam, frechet.load_reference(other.real, exam.real))


def quality_cells(measured: Mapping[str, Any]) -> dict[str, str]:
    """Scores as the cells of a table, shares in percent; a dash where nothing could be judged."""
    return {
        **{n: f"{100 * measured[n]:.1f}" if n in measured else "-" for n in COLUMNS},
        "Fréchet": f"{measured['frechet']:.2f}",
        "at limits": f"{100 * measured['saturated']:.2f}",
    }
