"""What happens beside painting, batch by batch: progress is told, finished batches are kept."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from imagen_jax.io.atomic import write_atomic

Progress = Callable[[str, int], None]  # (stage name, pictures done), after each batch


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What a batch's pictures are taken for before they are finished."""

    stage: str
    start: int  # index of the first picture
    step: int  # steps made
    steps: int  # of so many
    images: np.ndarray  # (b, h, w, 3) float32 in [-1, 1]


@dataclass(frozen=True)
class Watch:
    """One batch, looked at every so many steps."""

    every: int
    show: Callable[[int, int, np.ndarray], None]  # steps made, of all, images


@dataclass(frozen=True)
class SamplingCallbacks:
    """Told of every batch; with a folder, batches that an earlier start painted are found there."""

    progress: Progress | None = None
    folder: Path | None = None
    every: int = 0  # steps between two glimpses; 0: none
    glimpse: Callable[[Preview], None] | None = None

    def of(self, stage: str, start: int, count: int) -> Watch | None:
        """Whoever wants glimpses of the batch of first index `start`, `count` being left."""
        if self.glimpse is None or self.every < 1:
            return None
        tell = self.glimpse

        def show(step: int, steps: int, images: np.ndarray) -> None:
            shown = images[:count]
            tell(Preview(stage=stage, start=start, step=step, steps=steps, images=shown))

        return Watch(self.every, show)

    def recall(self, stage: str, start: int) -> np.ndarray | None:
        """The batch of `stage` whose first picture has this index, if it is kept."""
        if self.folder is None or not (file := self._file(stage, start)).is_file():
            return None
        return np.load(file, allow_pickle=False)

    def finished(self, stage: str, start: int, images: np.ndarray) -> None:
        """Keep a batch, unless it was recalled, then tell."""
        if self.folder is not None and not (file := self._file(stage, start)).is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomic(file, lambda target: _save(target, images))
        if self.progress is not None:
            self.progress(stage, len(images))

    def recall_all(self, first: int) -> dict[str, np.ndarray] | None:
        """Finished pictures of all stages, uint8, from index `first` on, if they are kept; told."""
        if self.folder is None or not (file := self._all(first)).is_file():
            return None
        with np.load(file, allow_pickle=False) as kept:
            images = dict(kept)
        if self.progress is not None:
            for stage, found in images.items():
                self.progress(stage, len(found))
        return images

    def finished_all(self, first: int, images: Mapping[str, np.ndarray]) -> None:
        """Keep the pictures of all stages in place of their batches."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self._all(first)
        write_atomic(file, lambda target: _save_all(target, images))
        for stage, found in images.items():
            for start in range(first, first + len(found)):
                self._file(stage, start).unlink(missing_ok=True)

    def _all(self, first: int) -> Path:
        assert self.folder is not None
        return self.folder / f"{first:07d}.npz"

    def _file(self, stage: str, start: int) -> Path:
        assert self.folder is not None
        return self.folder / f"{stage}_{start:07d}.npy"


def _save(target: Path, images: np.ndarray) -> None:
    with target.open("wb") as file:  # by name NumPy would add a suffix
        np.save(file, images)


def _save_all(target: Path, images: Mapping[str, np.ndarray]) -> None:
    with target.open("wb") as file:
        np.savez(file, **images)


NO_CALLBACKS = SamplingCallbacks()  # nobody follows


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
