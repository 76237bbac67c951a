"""Judging a stage: captions with one and with two objects apart, and how well it predicts noise."""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from imagen_jax import config, pixels, rng
from imagen_jax.data import shapes
from imagen_jax.data.painting import SIDE, Series, picture
from imagen_jax.data.transforms import area_downsample
from imagen_jax.diffusion import preconditioning, prediction, schedules
from imagen_jax.evaluate import alignment
from imagen_jax.imagen import Imagen
from imagen_jax.sample import cascade
from imagen_jax.types import Network, Params

KINDS = {"one": 1.0, "two": 0.0}  # objects, and the grammar's share of scenes with one
LEVELS = (-6.0, 6.0, 13)  # logsnr of the noise-prediction error: first, last, how many
SPLIT = "validation"

Scores = dict[str, dict[str, float]]  # kind of caption ("one", "two", "both") -> attribute -> share


@dataclasses.dataclass(frozen=True)
class Exam:
    """Captions, the first half with one object and the rest with two, and pictures of them."""

    captions: list[str]
    real: UInt8[np.ndarray, "p side side 3"]

    def kinds(self) -> dict[str, slice]:
        """Where the captions of each kind are."""
        half = len(self.captions) // 2
        return {"one": slice(0, half), "two": slice(half, None), "both": slice(None)}


def draw(dataset: str, *, count: int, seed: int, size: int, plain: float | None = None) -> Exam:
    """New captions in the manner of a dataset's validation split, in no dataset.

    `plain` is the share in the plain wording, the dataset's own if None.
    Shapes: real uint8 (count, size, size, 3), area-averaged as the training pictures are.
    Errors: ValueError for an unknown dataset, or a count that is odd or below 2.
    """
    if count < 2 or count % 2:
        raise ValueError(f"pictures={count} must be even: half of them show one object, half two")
    name = dataset.removeprefix("shapes/")
    if name not in shapes.Shapes.builder_configs:
        raise ValueError(f"no dataset {dataset!r}: the oracle judges shapes only")
    options = shapes.Shapes.builder_configs[name]
    grammar, stream = options.grammar_of(SPLIT), len(shapes.SPLITS) + shapes.SPLITS.index(SPLIT)
    plain = grammar.plain if plain is None else plain
    captions, real = [], []
    for single in KINDS.values():
        series = Series(dataclasses.replace(grammar, single=single, plain=plain), seed, stream)
        for index in range(count // 2):
            _, words, drawn = picture(series, index, size=SIDE)
            captions.append(words)
            real.append(area_downsample(drawn, SIDE // size))
    return Exam(captions, np.stack(real))


def score(pictures: UInt8[np.ndarray, "p h w 3"], exam: Exam) -> Scores:
    """The oracle's scores of pictures painted for the exam's captions."""
    return {
        kind: {
            attribute: share
            for attribute, (share, _) in alignment.score(
                list(pictures[where]), exam.captions[where]
            ).items()
        }
        for kind, where in exam.kinds().items()
    }


def paint_and_score(
    imagen: Imagen,
    exam: Exam,
    *,
    seed: int,
    batch_size: int,
    progress: Callable[[str, int], None] | None = None,
) -> Scores:
    """Scores of a base stage's own pictures."""
    painted = imagen.paint(exam.captions, seed=seed, batch_size=batch_size, progress=progress)
    return score(list(painted.values())[-1], exam)


def noise_error(imagen: Imagen, exam: Exam, *, seed: int, batch_size: int) -> float:
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
        canvas = cascade.Canvas(
            text=part.text,
            text_mask=part.text_mask,
            has_text=part.has_text,
            keys=rng.fold_each(root, "held_out_noise", part.indices),
            aug_level=None,
            low_res=None,
        )
        found = _errors(
            painter.params, canvas, exam.real[rows], module=painter.module, stage=painter.stage
        )
        errors.append(np.asarray(found)[: count - start])
    return float(np.concatenate(errors).mean())


@functools.partial(jax.jit, static_argnames=("module", "stage"))
def _errors(
    params: Params,
    canvas: cascade.Canvas,
    real: jax.Array,
    *,
    module: Network,
    stage: config.Stage,
) -> jax.Array:
    """Each picture's squared error of predicted noise, (b,), averaged over the levels."""
    x0, keys = pixels.scale(real), canvas.keys
    variables = {"params": params}
    cond = module.apply(
        variables, canvas.text, canvas.text_mask, canvas.has_text, method="encode_text"
    )
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
