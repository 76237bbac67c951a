"""A cascade's images of a benchmark's prompts, scored: numbers by setting and by category."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float64

from imagen_jax.data.images.decode import RGB
from imagen_jax.data.synthetic.shapes import captions as grammar
from imagen_jax.evaluate import alignment, frechet, retrieval
from imagen_jax.evaluate.detector import SMALLEST
from imagen_jax.imagen import Imagen
from imagen_jax.metrics import image_set, measure, parts, score
from imagen_jax.metrics.image_set import ImageSet
from imagen_jax.metrics.statistics_file import Statistics

SHAPES, RETRIEVAL = "shapes", "retrieval"
METRICS = (*score.NETWORKS, SHAPES, RETRIEVAL)
COMPARED = (RETRIEVAL,)  # of our own metrics, those that read the reference

Numbers = Mapping[str, float]
# By metric, a number of each image; NaN where nothing could be judged.
Scores = Mapping[str, Float64[np.ndarray, " p"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """Numbers of the images of one setting."""

    name: str  # of the setting
    folder: Path  # of the images
    weight: float | None  # guidance weight, where settings differ by it
    numbers: Numbers
    by_category: Mapping[str, Numbers]  # of metrics that judge single images
    about: Mapping[str, Any]  # JSON: count, digest, preprocessing, networks
    warnings: Sequence[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scorer:
    """What images are scored by, and against what."""

    metrics: Sequence[str]
    prompts: Sequence[str]  # one for each image
    categories: Sequence[str]  # one for each image, or none
    measurement: measure.Measurement
    reference: ImageSet | Path | None = None

    def measure_reference(self) -> Statistics | None:
        """Statistics of the reference, if a metric of networks needs them.

        Errors: as `Measurement.reference`.
        """
        if self.reference is None or not self._compares():
            return None
        return self.measurement.reference(self.reference)

    def describe_reference(self, found: Statistics | None) -> Mapping[str, Any] | None:
        """What a document says of the reference: JSON."""
        if found is not None:
            return found.about
        if isinstance(self.reference, ImageSet):
            return {"address": self.reference.address, "count": len(self.reference)}
        return None

    def count_images(self, settings: int) -> int:
        """Count the images gone through, those of a setting again for each of our own metrics."""
        each = len(self.prompts) * (1 + len({SHAPES, RETRIEVAL} & set(self.metrics)))
        once = 0
        if self.reference is not None and self._compares():
            once = measure.count_images(self.reference)
        return each * settings + once

    def score(self, name: str, folder: Path, reference: Statistics | None) -> Result:
        """Score the images of a setting in their folder. Errors: ValueError; OSError."""
        images = image_set.open_images(str(folder), data_dir=Path())
        kept = dataclasses.replace(self.measurement, unfinished=self.measurement.unfinished / name)
        found = kept.measure(images, what="images")
        single: dict[str, np.ndarray] = {}
        if found.cosines is not None:
            single["clip"] = 100 * found.cosines.astype(np.float64)
        if SHAPES in self.metrics:
            single |= self._judge(images)
        if RETRIEVAL in self.metrics:
            single |= self._retrieve(images, found.about["side"])
        whole = score.compute([m for m in self.metrics if m in score.NETWORKS], found, reference)
        return Result(
            name=name,
            folder=folder,
            weight=None,
            numbers={**whole, **summarise(single)},
            by_category=by_category(single, self.categories),
            about=found.about,
            warnings=score.warnings_of(
                [m for m in self.metrics if m in score.NETWORKS], found, reference
            ),
        )

    def _compares(self) -> bool:
        return bool(set(self.metrics) & set(score.NEEDED))

    def _judge(self, images: ImageSet) -> Scores:
        """Right or wrong by attribute of the captions, in percent."""
        verdicts = [
            alignment.judge(pixels, prompt)
            for pixels, prompt in zip(self._pixels(images, SHAPES), self.prompts, strict=True)
        ]
        found = {}
        for attribute in sorted(alignment.ATTRIBUTES, key=lambda name: name != "all"):
            said = [getattr(verdict, attribute) for verdict in verdicts]
            values = np.array([np.nan if right is None else 100.0 * right for right in said])
            name = SHAPES if attribute == "all" else f"{SHAPES}_{attribute}"
            if not np.isnan(values).all():
                found[name] = values
        return found

    def _retrieve(self, images: ImageSet, side: int) -> Scores:
        assert isinstance(self.reference, ImageSet)
        known = [self.reference.read(n).caption or "" for n in range(len(self.reference))]
        ranks = retrieval.ranks_of_captions(
            _describe(self._pixels(images, RETRIEVAL)),
            self.prompts,
            _describe(decode_all(self.reference, size=side)),
            known,
        )
        return {name: 100.0 * right for name, right in retrieval.hits(ranks).items()}

    def _pixels(self, images: ImageSet, what: str) -> Iterator[RGB]:
        for pixels in decode_all(images, size=self.measurement.size):
            yield pixels
            self.measurement.progress(what, 1)


def check_prompts(metrics: Sequence[str], prompts: Sequence[str], side: int) -> None:
    """Refuse prompts or a size that the oracle of shapes can't judge. Errors: ValueError."""
    if SHAPES not in metrics:
        return
    if side < SMALLEST:
        raise ValueError(f"the alignment oracle judges images of {SMALLEST} px and more only")
    for number, prompt in enumerate(prompts, 1):
        try:
            grammar.parse(prompt)
        except ValueError as error:
            raise ValueError(f"prompt {number} is none of shapes: {error}") from error


def summarise(scores: Scores) -> dict[str, float]:
    """The mean of each metric over the images that it judged; one that judged none is left out."""
    return {
        name: float(np.nanmean(values))
        for name, values in scores.items()
        if not np.isnan(values).all()
    }


def by_category(scores: Scores, categories: Sequence[str]) -> dict[str, dict[str, float]]:
    """The means of each category, in the order of its first prompt; {} without categories."""
    labels = np.array(categories)
    return (
        {
            category: summarise(
                {name: values[labels == category] for name, values in scores.items()}
            )
            for category in dict.fromkeys(categories)
        }
        if scores
        else {}
    )


def weights_sha256(imagen: Imagen) -> str:
    """The SHA-256 of a cascade's weights: of all stages, names and arrays, as they are used."""
    digest = hashlib.sha256()
    for stage in imagen.stages:
        digest.update(stage.stage.name.encode() + b"\0")
        leaves, _ = jax.tree.flatten_with_path(stage.device_params())
        for path, leaf in leaves:
            array = np.asarray(leaf)
            digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\0".encode())
            digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()


def decode_all(images: ImageSet, *, size: int | None) -> Iterator[RGB]:
    """Yield the pixels of all images, square, some read ahead.

    Errors: as `image_set.decode_pixels`.
    """

    def read(number: int) -> RGB:
        return image_set.decode_pixels(images, number, size=size)[0]

    with ThreadPoolExecutor(parts.THREADS) as pool:
        for start in range(0, len(images), frechet.PART):
            yield from pool.map(read, range(start, min(start + frechet.PART, len(images))))


def _describe(images: Iterator[RGB]) -> Float64[np.ndarray, "p d"]:
    """Descriptors of images, some at a time."""
    found, waiting = [], list[RGB]()
    for pixels in images:
        waiting.append(pixels)
        if len(waiting) == frechet.PART:
            found.append(frechet.describe_distribution(np.stack(waiting)))
            waiting = []
    if waiting:
        found.append(frechet.describe_distribution(np.stack(waiting)))
    return np.concatenate(found)
