"""A folder of sampled images, as `imagen sample` writes them, that grows part by part.

An image is written whole or not at all, so that what is there need not be sampled again.
"""

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from imagen_jax.imagen import BATCHES, Imagen
from imagen_jax.io import image_grid, json_reader, removal
from imagen_jax.io.atomic import check_no_link, make_subfolder, write_atomic
from imagen_jax.metrics.image_set import METADATA
from imagen_jax.sample.progress import SamplingCallbacks
from imagen_jax.types import Pixels

THREADS = 4  # that encode


@dataclass(frozen=True)
class SampleFolder:
    """Images of prompts, of which image i is that of `prompts[i]`."""

    folder: Path
    prompts: Sequence[str]
    about: Mapping[str, Any]  # JSON: all that the images depend on

    @property
    def files(self) -> list[Path]:
        """The image of each prompt."""
        names = [image_grid.file_name(i, prompt) for i, prompt in enumerate(self.prompts)]
        return [self.folder / name for name in names]

    def open(self) -> bool:
        """Make the folder, or recognise it; true if all its images are there.

        Errors: ValueError for a folder of other images.
        """
        check_no_link(self.folder)
        file = self.folder / METADATA
        if file.is_file():
            found = json_reader.read_object(file, remedy="delete the folder, or give another --out")
            if {**found, "complete": None} != json.loads(self._document(complete=None)):
                raise ValueError(
                    f"{self.folder} has images of another cascade, of other prompts or options: "
                    "delete it, or give another --out"
                )
            return found.get("complete") is True
        make_subfolder(self.folder.parent, self.folder.name)
        write_atomic(file, self._document(complete=False))
        return False

    def list_missing(self, at_once: int) -> list[range]:
        """The parts of so many images that are not all there."""
        every, files = range(len(self.prompts)), self.files
        parts = [every[start : start + at_once] for start in range(0, len(every), at_once)]
        return [part for part in parts if not all(files[i].is_file() for i in part)]

    def write(self, first: int, images: Pixels) -> None:
        """Write images that follow one another."""
        files = self.files[first : first + len(images)]
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(image_grid.save_image, map(Image.fromarray, images), files))

    def finish(self) -> None:
        """Note that all images are there."""
        write_atomic(self.folder / METADATA, self._document(complete=True))

    def _document(self, *, complete: bool | None) -> str:
        entries = [
            {"index": i, "prompt": prompt, "file": file.name}
            for i, (prompt, file) in enumerate(zip(self.prompts, self.files, strict=True))
        ]
        return json.dumps({**self.about, "complete": complete, "images": entries}, indent=2) + "\n"


def sample(
    imagen: Imagen,
    target: SampleFolder,
    *,
    seed: int,
    batch_size: int,
    progress: Callable[[str, int], None],
) -> None:
    """Sample the images that are missing; an image depends on seed, index and prompt.

    `progress(stage, done)` is called after each batch, and first for what is there already.
    Errors: as `SampleFolder.open` and `Imagen.sample`; OSError.
    """
    stages = len(imagen.stages)
    if target.open():
        progress("sampled before", stages * len(target.prompts))
        return
    missing = target.list_missing(batch_size * BATCHES)
    progress("sampling", stages * (len(target.prompts) - sum(map(len, missing))))
    for part in missing:
        # Each part is a call of its own: the same program, whatever was sampled before it.
        for samples in imagen.stream(
            target.prompts[part.start : part.stop],
            seed=seed,
            batch_size=batch_size,
            callbacks=SamplingCallbacks(on_batch=progress),
            progress=False,
            first_index=part.start,
        ):
            target.write(samples.first_index, list(samples.values())[-1])
        if imagen.cache_dir is not None:  # of a part that is written, nothing is kept twice
            with contextlib.suppress(OSError):
                removal.remove_folder(imagen.cache_dir)
    target.finish()
