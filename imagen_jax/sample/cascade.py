"""The cascade as a fold over stages, each one jitted program (section 2.4)."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from imagen_jax import config, mesh, rng
from imagen_jax.diffusion import noise_conditioning, samplers
from imagen_jax.sample import denoiser
from imagen_jax.sample.following import ALONE, Following
from imagen_jax.sample.stored import Stored
from imagen_jax.types import Image, Keys, Network, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Painter:
    """One trained stage: its config, network and (averaged) parameters, or where they are."""

    stage: config.Stage
    module: Network
    params: Params | Stored

    def placed(self, sharding: NamedSharding | None = None) -> Params:
        """The parameters on the devices: by default whole on each. Errors: those of reading."""
        sharding = sharding or mesh.replicated(mesh.build(config.Mesh()))
        if isinstance(self.params, Stored):
            return self.params.on(sharding)
        return jax.device_put(self.params, sharding)

    def done(self) -> None:
        """Free parameters that are read for each use."""
        if isinstance(self.params, Stored):
            self.params.done()


class Canvas(NamedTuple):
    """What one batch of pictures is painted from; every array, numpy or jax, is batch-first.

    Shapes: text (b, n, d); text_mask (b, n); has_text (b,), false for an empty prompt; keys (b,);
    aug_level (b,); low_res (b, h, w, 3) in [-1, 1] at the previous stage's size, None for a base.
    """

    text: Any
    text_mask: Any
    has_text: Any
    keys: Keys
    aug_level: Any
    low_res: Any


@functools.partial(jax.jit, static_argnames=("module", "stage", "guided"))
def paint(
    params: Params,
    canvas: Canvas,
    weight: jax.Array,
    *,
    module: Network,
    stage: config.Stage,
    guided: bool,
) -> Image:
    """Pictures of one stage, (b, side, side, 3) in [-1, 1]: one program, one scan over the steps.

    The side is stage.size, or low_res's own side times the stage's factor. Without `guided` the
    unconditional pass is left out. The low-resolution input is noised once, before the loop.
    """
    size, side = canvas.text.shape[0], stage.size
    low: dict[str, jax.Array] = {}
    if canvas.low_res is not None:
        side = canvas.low_res.shape[1] * stage.factor
        noised, aug_logsnr = noise_conditioning.augment(
            noise_conditioning.upsample(canvas.low_res, size=side),
            canvas.aug_level,
            rng.fold_keys(canvas.keys, "aug_noise"),
            options=stage.noise_conditioning,
        )
        low = {"low_res": noised, "aug_logsnr": aug_logsnr}

    def conditioning(has_text: jax.Array) -> Any:
        variables = {"params": params}
        encoded = module.apply(
            variables, canvas.text, canvas.text_mask, has_text, method="encode_text"
        )
        return encoded.replace(**low)

    cond = conditioning(canvas.has_text)
    uncond = conditioning(jnp.zeros((size,), bool)) if guided else None
    denoise = denoiser.build(params, cond, uncond, weight, module=module, stage=stage)
    x0 = samplers.sample(
        denoise,
        rng.fold_keys(canvas.keys, "sampler"),
        shape=(side, side, 3),
        sampler=stage.sampler,
        diffusion=stage.diffusion,
    )
    return jnp.clip(x0, -1.0, 1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompts:
    """Encoded prompts, in numpy: text (p, n, d), text_mask (p, n), has_text (p,), indices (p,).

    `indices` number the pictures: with the seed they decide the noise.
    """

    text: np.ndarray
    text_mask: np.ndarray
    has_text: np.ndarray
    indices: np.ndarray

    def rows(self, chosen: np.ndarray) -> "Prompts":
        """The prompts at `chosen`."""
        return Prompts(
            **{f.name: getattr(self, f.name)[chosen] for f in dataclasses.fields(Prompts)}
        )


def generate(
    painters: Sequence[Painter],
    prompts: Prompts,
    *,
    seed: int,
    batch_size: int,
    low_res: np.ndarray | None = None,
    following: Following = ALONE,
) -> dict[str, np.ndarray]:
    """Paint every prompt through every stage: {stage name: (p, side, side, 3) float32 in [-1, 1]}.

    Picture i depends on the seed, its index and its prompt alone; batches are filled up with
    throw-away pictures, so that one compiled program serves all. `low_res` (p, h, w, 3) starts a
    cascade whose first stage is super-resolution; `following` is told of each batch, and asked
    whether it has it.
    Errors: ValueError for a first stage that needs low_res and gets none.
    """
    first = painters[0].stage
    if first.is_super_resolution and low_res is None:
        raise ValueError(
            f"the cascade starts with {first.name}, which enlarges {first.low_size}-px pictures: "
            "give low_res, or add the stage that paints them"
        )
    pictures: dict[str, np.ndarray] = {}
    for painter in painters:
        low_res = _stage(
            painter, prompts, low_res, seed=seed, batch_size=batch_size, following=following
        )
        painter.done()
        pictures[painter.stage.name] = low_res
    return pictures


def _stage(
    painter: Painter,
    prompts: Prompts,
    low_res: np.ndarray | None,
    *,
    seed: int,
    batch_size: int,
    following: Following,
) -> np.ndarray:
    """All prompts through one stage, batch by batch."""
    stage = painter.stage
    weight = stage.sampler.guidance_weight
    passes = 1 if weight == 1.0 else 2  # rows of the network's batch for a picture
    batch_size = min(batch_size, len(prompts.indices))
    side = stage.size if low_res is None else low_res.shape[1] * stage.factor
    workload = mesh.Workload(images=passes * batch_size, rows=side // stage.model.multiple())
    devices = mesh.build(config.Mesh(), workload=workload)
    batch_size = mesh.filled(batch_size, devices, passes=passes, side=side)
    params = painter.placed(mesh.replicated(devices))
    painted = []
    for start in range(0, len(prompts.indices), batch_size):
        if (kept := following.recall(stage.name, start)) is not None:
            painted.append(kept)
            following.finished(stage.name, start, kept)
            continue
        # Rows past the end repeat the last prompt and are thrown away.
        rows = np.minimum(np.arange(start, start + batch_size), len(prompts.indices) - 1)
        part = prompts.rows(rows)
        canvas = Canvas(
            text=part.text,
            text_mask=part.text_mask,
            has_text=part.has_text,
            keys=image_keys(stage, seed, part.indices),
            aug_level=np.full(batch_size, stage.noise_conditioning.sample_level, np.float32),
            low_res=None if low_res is None else low_res[rows],
        )
        with mesh.use(devices):
            images = paint(
                params,
                mesh.place(canvas, mesh.batch_sharding(devices)),
                jnp.float32(weight),
                module=painter.module,
                stage=program(stage),
                guided=weight != 1.0,
            )
        painted.append(mesh.gather(images)[: len(prompts.indices) - start])
        following.finished(stage.name, start, painted[-1])
    return np.concatenate(painted)


def image_keys(stage: config.Stage, seed: int | jax.Array, indices: Any) -> Keys:
    """A key for each picture of a stage, of the seed and its index alone; (b,) as indices."""
    return rng.fold_each(rng.fold(rng.root(seed), stage.name), "image", indices)


def program(stage: config.Stage) -> config.Stage:
    """`stage` without what is a run-time argument of `paint`: a new weight compiles nothing."""
    return dataclasses.replace(
        stage,
        sampler=dataclasses.replace(stage.sampler, guidance_weight=1.0),
        noise_conditioning=dataclasses.replace(stage.noise_conditioning, sample_level=0.0),
    )
