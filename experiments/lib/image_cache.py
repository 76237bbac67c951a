"""Images that an experiment samples once and stores, so that it can be interrupted and resumed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from imagen_jax.imagen import Imagen
from imagen_jax.io.atomic import write_atomic
from imagen_jax.sample.progress import SamplingCallbacks, digest_of
from imagen_jax.sample.request import Request
from imagen_jax.types import Pixels

LowPixels = UInt8[np.ndarray, "b low_h low_w 3"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageCache:
    """Sample, or load what was sampled: files in `folder`, named by all that images depend on.

    That is weights, stages, encoder, captions, seed and low-resolution input; not the code.
    """

    folder: Path
    seed: int
    batch_size: int

    def sample(
        self,
        imagen: Imagen,
        captions: Sequence[str],
        *,
        last_stage: str,
        low_res: LowPixels | None = None,
    ) -> Pixels:
        """Return the images of stage `last_stage`, one per caption.

        Shapes: low_res (p, h, w, 3) where the first stage is super-resolution.
        Errors: as `Imagen.sample`.
        """
        name = _digest(imagen, captions, last_stage=last_stage, seed=self.seed, low_res=low_res)
        file = self.folder / f"{last_stage}_{name}.npz"
        if not file.is_file():
            with tqdm(desc=last_stage, unit=" images", leave=False, dynamic_ncols=True) as bar:
                sampled = imagen.sample(
                    captions,
                    seed=self.seed,
                    last_stage=last_stage,
                    request=Request(low_res=low_res),
                    batch_size=self.batch_size,
                    callbacks=SamplingCallbacks(on_batch=lambda _, done: bar.update(done)),
                )
            _keep(file, sampled[last_stage])
        with np.load(file) as kept:
            return kept["pictures"]


def _keep(file: Path, images: Pixels) -> None:
    """Write the file whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)

    def save(target: Path) -> None:
        with target.open("wb") as opened:  # by name NumPy would add a suffix
            np.savez_compressed(opened, pictures=images)

    write_atomic(file, save)


def _digest(
    imagen: Imagen,
    captions: Sequence[str],
    *,
    last_stage: str,
    seed: int,
    low_res: LowPixels | None,
) -> str:
    names = [painter.stage.name for painter in imagen.stages]
    used = imagen.stages[: names.index(last_stage) + 1] if last_stage in names else imagen.stages
    stages = [repr(painter.stage) for painter in used]
    params = [painter.device_params() for painter in used]
    return digest_of(params, imagen.encoder.identity, seed, captions, stages, low_res)
