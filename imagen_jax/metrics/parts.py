"""Rows of features of a set of images, kept in files of so many images each.

A score that is interrupted continues after its last file. Memory is that of one part, whatever the
number of images.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import numpy as tensors

from imagen_jax.config.sentences import shorten
from imagen_jax.data.images.decode import RGB
from imagen_jax.io import json_reader, safetensors
from imagen_jax.io.atomic import make_subfolder, write_atomic
from imagen_jax.metrics.image_set import SIZED, ImageSet, decode_pixels
from imagen_jax.metrics.networks import CLIP, Devices

IMAGES = 256  # of a part, and of a batch at most: a stop loses no more
KEPT = f"features of whole parts of {IMAGES} images"
THREADS = 8  # that decode
ABOUT = "about"
AGAIN = "delete it, and its images are computed again"
DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Part:
    """The features of some images that follow one another."""

    rows: dict[str, np.ndarray]  # by the network's name
    side: int  # pixels of each image
    sha256: str  # of their stored bytes, one image after another


@dataclass(frozen=True)
class Parts:
    """A set of images, its files of features, and what they are made with."""

    images: ImageSet
    folder: Path
    size: int | None
    about: dict[str, Any]  # JSON: what makes features other ones

    @property
    def spans(self) -> list[range]:
        """The images of each part."""
        every = range(len(self.images))
        return [every[start : start + IMAGES] for start in range(0, len(every), IMAGES)]

    def file(self, number: int) -> Path:
        """The file of a part."""
        return self.folder / f"part-{number:05d}-of-{len(self.spans):05d}.safetensors"

    def list_missing(self) -> list[int]:
        """The parts that are not there yet.

        Errors: ValueError for a file that is of other images, weights or sizes.
        """
        found = []
        for number in range(len(self.spans)):
            if not self.file(number).is_file():
                found.append(number)
            elif self._described(number)["identity"] != self.identity():
                raise ValueError(
                    f"{self.file(number)} is of another score: delete {self.folder}, or give "
                    "another --out"
                )
        return found

    def identity(self) -> str:
        """Return a digest of all that features depend on."""
        facts = {**self.about, "images": self.images.digest(), "size": self.size, "each": IMAGES}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def write(self, number: int, part: Part) -> None:
        """Write a part, whole or not at all."""
        described = {"identity": self.identity(), "side": part.side, "sha256": part.sha256}
        make_subfolder(self.folder.parent, self.folder.name)
        data = tensors.save(part.rows, metadata={ABOUT: json.dumps(described)})
        write_atomic(self.file(number), data)

    def read(self, number: int) -> Part:
        """Read a part. Errors: ValueError for a damaged file."""
        described = self._described(number)
        with safetensors.open_tensors(self.file(number)) as opened:
            rows = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        count = len(self.spans[number])
        fits = rows.keys() == self.about["networks"].keys() and all(
            x.dtype == np.float32 and x.shape[:1] == (count,) and x.ndim == (1 if n == CLIP else 2)
            for n, x in rows.items()
        )
        if not (fits and all(np.isfinite(x).all() for x in rows.values())):
            raise ValueError(f"{self.file(number)} holds no features of {count:,} images: {AGAIN}")
        return Part(rows, described["side"], described["sha256"])

    def read_all(self) -> Iterator[Part]:
        """Yield all parts, of images of one size. Errors: ValueError for mixed sizes."""
        side, first = 0, None
        for number, span in enumerate(self.spans):
            part = self.read(number)
            widths = {name: rows.shape[1:] for name, rows in part.rows.items()}
            if widths != (first := first or widths):
                raise ValueError(f"{self.file(number)} is of other networks than those: {AGAIN}")
            if side and part.side != side:
                raise _mixed(self.images, self.images.keys[span[0]], part.side, side)
            side = part.side
            yield part

    def _described(self, number: int) -> dict[str, Any]:
        about = safetensors.read_metadata(self.file(number)).get(ABOUT, "")
        found = json_reader.parse_object(about, where=self.file(number), remedy=AGAIN)
        side, digest = found.get("side"), found.get("sha256")
        if not (type(side) is int and side > 0 and isinstance(digest, str) and "identity" in found):
            raise ValueError(f"{self.file(number)} is no part of a score: {AGAIN}")
        if not DIGEST.fullmatch(digest):
            raise ValueError(f"{self.file(number)} has {shorten(digest)} as a SHA-256: {AGAIN}")
        return found


def fill(
    parts: Parts, devices: Devices, *, batch_size: int, progress: Callable[[int], None]
) -> None:
    """Compute the parts that are missing.

    `progress` is told of the images of each batch, and first of those that are done already.
    Errors: ValueError, by the image, for one that can't be scored or whose features are not finite.
    """
    batch_size = min(batch_size, IMAGES)  # a larger one would be filled up, and computed in vain
    missing = parts.list_missing()
    progress(len(parts.images) - sum(len(parts.spans[number]) for number in missing))
    with ThreadPoolExecutor(THREADS) as pool:
        for number in missing:
            parts.write(
                number, _compute(parts, parts.spans[number], devices, batch_size, pool, progress)
            )


def _compute(
    parts: Parts,
    span: range,
    devices: Devices,
    batch_size: int,
    pool: ThreadPoolExecutor,
    progress: Callable[[int], None],
) -> Part:
    """The features of some images; the next batch is decoded while one is computed."""
    batches = [span[start : start + batch_size] for start in range(0, len(span), batch_size)]

    def begin(batch: range) -> list[Any]:
        return [pool.submit(decode_pixels, parts.images, n, size=parts.size) for n in batch]

    rows: dict[str, list[np.ndarray]] = {}
    digest, side, waiting = hashlib.sha256(), 0, begin(batches[0])
    for batch, following in zip(batches, [*batches[1:], None], strict=True):
        decoded = [job.result() for job in waiting]
        waiting = begin(following) if following is not None else []
        for number, (pixels, data, _) in zip(batch, decoded, strict=True):
            digest.update(data)
            side = side or len(pixels)
            if len(pixels) != side:
                raise _mixed(parts.images, parts.images.keys[number], len(pixels), side)
        images: Sequence[RGB] = [pixels for pixels, _, _ in decoded]
        found = devices.run(images, [caption for _, _, caption in decoded], batch_size)
        for name, values in found.items():
            _check_finite(parts.images, batch, name, values)
            rows.setdefault(name, []).append(values)
        progress(len(batch))
    whole = {name: np.concatenate(values) for name, values in rows.items()}
    return Part(whole, side, digest.hexdigest())


def _check_finite(images: ImageSet, batch: range, name: str, values: np.ndarray) -> None:
    finite = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if not finite.all():
        key = images.keys[batch[int(np.argmin(finite))]]
        raise ValueError(
            f"{images.address}: the features of image {key} by {name} are NaN or infinite: check "
            "the weights' file"
        )


def _mixed(images: ImageSet, key: str, side: int, before: int) -> ValueError:
    return ValueError(
        f"{images.address}: image {key} has {side} px, those before it {before}: {SIZED}"
    )
