"""Callbacks of sampling, batch by batch, and finished batches that are kept on disk."""

import contextlib
import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from imagen_jax.io.atomic import make_subfolder, write_atomic
from imagen_jax.sample import kept_batches
from imagen_jax.sample.lazy_params import LazyParams
from imagen_jax.sample.request import Request
from imagen_jax.sample.stage_program import TrainedStage

OnBatch = Callable[[str, int], None]  # (stage name, images finished), after each batch


@dataclass(frozen=True, kw_only=True)
class Preview:
    """The current estimate of a batch's final images."""

    stage: str
    first_index: int  # of the images
    step: int  # steps made
    steps: int  # of so many
    images: np.ndarray  # (b, h, w, 3) float32 in [-1, 1]


@dataclass(frozen=True)
class SamplingCallbacks:
    """Functions to call while sampling, and a folder for the batches of a run that is interrupted.

    `cache_dir` is used by the same request with the same weights alone, which then resumes.
    """

    on_batch: OnBatch | None = None
    cache_dir: Path | None = None
    preview_every: int = 0  # steps between two previews; 0: none
    on_preview: Callable[[Preview], None] | None = None

    @property
    def has_previews(self) -> bool:
        """True if `on_preview` is called at all."""
        return self.on_preview is not None and self.preview_every > 0

    def send_preview(self, preview: Preview) -> None:
        """Call `on_preview`."""
        if self.on_preview is not None:
            self.on_preview(preview)

    def load_batch(
        self, stage: str, first_index: int, *, shape: tuple[int, ...] | None = None
    ) -> np.ndarray | None:
        """The batch of `stage` whose first image has this index, if it is kept.

        Errors: ValueError as `kept_batches.read_batch`, or for images of another shape.
        """
        if self.cache_dir is None or not (file := self._file(stage, first_index)).is_file():
            return None
        images = kept_batches.read_batch(file)
        if images.dtype != np.float32 or images.shape != (shape or images.shape):
            raise kept_batches.describe_misfit(file)
        return images

    def finish_batch(self, stage: str, first_index: int, images: np.ndarray) -> None:
        """Keep a batch, unless it was loaded, then call `on_batch`."""
        if self.cache_dir is not None and not (file := self._file(stage, first_index)).is_file():
            make_subfolder(self.cache_dir.parent, self.cache_dir.name)
            write_atomic(file, lambda target: _save(target, images))
        if self.on_batch is not None:
            self.on_batch(stage, len(images))

    def load_images(
        self, first_index: int, *, stages: Sequence[str], count: int
    ) -> dict[str, np.ndarray] | None:
        """`count` finished images of all stages, uint8, from this index on, if they are kept.

        Calls `on_batch` for each stage.
        Errors: ValueError as `kept_batches.read_batches`, or for images of other stages.
        """
        if self.cache_dir is None or not (file := self._all(first_index)).is_file():
            return None
        images = kept_batches.read_batches(file)
        fits = all(len(one) == count and one.dtype == np.uint8 for one in images.values())
        if not fits or list(images) != list(stages):
            raise kept_batches.describe_misfit(file)
        if self.on_batch is not None:
            for stage, found in images.items():
                self.on_batch(stage, len(found))
        return images

    def finish_images(self, first_index: int, images: Mapping[str, np.ndarray]) -> None:
        """Keep the images of all stages in place of their batches."""
        if self.cache_dir is None:
            return
        make_subfolder(self.cache_dir.parent, self.cache_dir.name)
        file = self._all(first_index)
        write_atomic(file, lambda target: _save_all(target, images))
        for stage, found in images.items():
            for index in range(first_index, first_index + len(found)):
                self._file(stage, index).unlink(missing_ok=True)

    def _all(self, first_index: int) -> Path:
        assert self.cache_dir is not None
        return self.cache_dir / f"{first_index:07d}.npz"

    def _file(self, stage: str, first_index: int) -> Path:
        assert self.cache_dir is not None
        return self.cache_dir / f"{stage}_{first_index:07d}.npy"


def _save(target: Path, images: np.ndarray) -> None:
    with target.open("wb") as file:  # by name NumPy would add a suffix
        np.save(file, images)


def _save_all(target: Path, images: Mapping[str, np.ndarray]) -> None:
    with target.open("wb") as file:
        np.savez(file, **images)  # type: ignore[arg-type]  # no stage is called allow_pickle


NO_CALLBACKS = SamplingCallbacks()


@contextlib.contextmanager
def progress_bar(
    callbacks: SamplingCallbacks, total: int, progress: bool | None
) -> Iterator[SamplingCallbacks]:
    """`callbacks` that also move a bar on stderr; by default in a terminal or notebook alone."""
    from tqdm import tqdm

    if progress is None:
        progress = sys.stderr is not None and (sys.stderr.isatty() or "ipykernel" in sys.modules)
    with tqdm(total=total, unit="image", dynamic_ncols=True, disable=not progress) as bar:

        def on_batch(stage: str, done: int) -> None:
            bar.set_description(stage)
            bar.update(done)
            if callbacks.on_batch is not None:
                callbacks.on_batch(stage, done)

        yield replace(callbacks, on_batch=on_batch)


def digest_of(params: Sequence[Any], *others: Any) -> str:
    """Sixteen letters that differ where weights or anything else differs: a name for a folder.

    `others` are numpy arrays, or what tells by its `repr` all that matters.
    """
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        found.update(np.asarray(leaf).tobytes())
    for other in others:
        if isinstance(other, np.ndarray):
            found.update(repr((other.shape, other.dtype.name)).encode() + other.tobytes())
        else:
            found.update(repr(other).encode())
    return found.hexdigest()[:16]


def digest_of_request(stages: Sequence[TrainedStage], *request: Any) -> str:
    """The `digest_of` stages, their weights, and what is asked of them: requests, arrays, ..."""
    stored = [s.params.identity for s in stages if isinstance(s.params, LazyParams)]
    # Vectors alone tell weights apart, too, and large kernels stay where they are.
    held = [s.params for s in stages if not isinstance(s.params, LazyParams)]
    vectors = [x for x in jax.tree.leaves(held) if x.ndim < 2]
    parts = [list(vars(x).values()) if isinstance(x, Request) else x for x in request]
    asked = jax.tree.leaves(parts, is_leaf=lambda x: x is None)
    return digest_of(vectors, stored, [s.stage for s in stages], *asked)
