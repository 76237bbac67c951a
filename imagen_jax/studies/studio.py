"""Pictures that a study paints once and keeps, so that a study cut short goes on where it was."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from imagen_jax.imagen import Imagen
from imagen_jax.sample.progress import SamplingCallbacks, digest_of
from imagen_jax.sample.request import Request
from imagen_jax.types import Pixels

LowPixels = UInt8[np.ndarray, "b low_h low_w 3"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Studio:
    """Paints, or finds what it painted: files in `folder`, named by all that pictures depend on.

    That is weights, stages, encoder, captions, seed and low-resolution input; not the code.
    """

    folder: Path
    seed: int
    batch_size: int

    def paint(
        self,
        imagen: Imagen,
        captions: Sequence[str],
        *,
        until: str,
        low_res: LowPixels | None = None,
    ) -> Pixels:
        """Pictures of the stage `until`, one a caption.

        Shapes: low_res (p, h, w, 3) where the first stage is super-resolution.
        Errors: as `Imagen.paint`.
        """
        name = _digest(imagen, captions, until=until, seed=self.seed, low_res=low_res)
        file = self.folder / f"{until}_{name}.npz"
        if not file.is_file():
            with tqdm(desc=until, unit=" pictures", leave=False, dynamic_ncols=True) as bar:
                painted = imagen.paint(
                    captions,
                    seed=self.seed,
                    until=until,
                    request=Request(low_res=low_res),
                    batch_size=self.batch_size,
                    following=SamplingCallbacks(progress=lambda _, done: bar.update(done)),
                )
            _keep(file, painted[until])
        with np.load(file) as kept:
            return kept["pictures"]


def _keep(file: Path, pictures: Pixels) -> None:
    """A file is there whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".part.npz")
    np.savez_compressed(partial, pictures=pictures)
    partial.replace(file)


def _digest(
    imagen: Imagen, captions: Sequence[str], *, until: str, seed: int, low_res: LowPixels | None
) -> str:
    names = [painter.stage.name for painter in imagen.painters]
    used = imagen.painters[: names.index(until) + 1] if until in names else imagen.painters
    stages = [repr(painter.stage) for painter in used]
    params = [painter.placed() for painter in used]
    return digest_of(params, imagen.encoder.identity, seed, captions, stages, low_res)
