"""Small classifiers of emoji by subject and style, trained on real images of 32 px."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util
from jaxtyping import Array, Float32

from imagen_jax.io.atomic import write_atomic
from imagen_jax.sample.progress import digest_of
from imagen_jax.types import Keys, Pixels
from lib import emoji_features
from lib.emoji_images import Combination, RealEmoji

HIDDEN = 64  # units that tell styles apart
BATCH = 512  # images described together
COPIES = 1  # augmented ones of each image to learn subjects from, beside itself
SHRINKAGE = 0.02  # of the scatter within subjects towards a sphere
SCALES = (5.0, 10.0, 15.0, 20.0, 30.0, 40.0)  # of similarities that are logits
STYLE_STEPS, STYLE_BATCH, STYLE_RATE = 2500, 128, 2e-3
STYLE_COPIES, STYLE_NOISE = 3, 4.0  # noise in levels of 255, at most
VERSION = 2  # of the training: weights of another one are not read

Variables = Mapping[str, Any]


class StyleNet(nn.Module):
    """One hidden layer on statistics of colours and edges."""

    styles: int

    @nn.compact
    def __call__(self, features: Array) -> Array:
        """Logits. Shapes: features (n, d); result (n, styles)."""
        return nn.Dense(self.styles)(nn.relu(nn.Dense(HIDDEN)(features)))


@dataclasses.dataclass(frozen=True)
class EmojiJudge:
    """Trained classifiers, and what their classes are."""

    subjects: tuple[str, ...]
    styles: tuple[str, ...]
    weights: Variables
    scale: float = 1.0  # of similarities that are logits

    def subject(self, images: Pixels) -> Float32[np.ndarray, "n subjects"]:
        """Log-probabilities of the subjects. Shapes: images (n, 32, 32, 3)."""
        found = self.scale * self.similarities(images)
        return found - np.logaddexp.reduce(found, axis=1, keepdims=True)

    def similarities(self, images: Pixels) -> Float32[np.ndarray, "n subjects"]:
        """Cosines to each subject's mean, plus the largest one to its mean in one style.

        They are between directions from the mean of all, where scatter within subjects is even.
        """
        own = self.weights["subject"]
        whitened = _directions((_describe(images) - own["mean"]) @ own["whiten"])
        to_styles = np.maximum.reduceat(whitened @ own["looks"].T, own["starts"], axis=1)
        return whitened @ own["means"].T + to_styles

    def style(self, images: Pixels) -> Float32[np.ndarray, "n styles"]:
        """Log-probabilities of the styles. Shapes: images (n, 32, 32, 3)."""
        own = self.weights["style"]
        features = (emoji_features.describe_style(images) - own["mean"]) / own["scale"]
        logits = StyleNet(len(self.styles)).apply({"params": own["params"]}, features)
        return np.asarray(jax.nn.log_softmax(logits))

    def count_parameters(self) -> dict[str, int]:
        """Numbers that both classifiers have learned."""
        return {
            name: sum(p.size for p in jax.tree.leaves(self.weights[name]))
            for name in ("subject", "style")
        }

    def numbers(self, meant: Sequence[Combination]) -> tuple[np.ndarray, np.ndarray]:
        """The classes of what is meant: subjects and styles.

        Errors: KeyError for an unknown one.
        """
        subjects = {name: number for number, name in enumerate(self.subjects)}
        styles = {name: number for number, name in enumerate(self.styles)}
        return (
            np.array([subjects[one.subject] for one in meant]),
            np.array([styles[one.style] for one in meant]),
        )

    def calibrate(self, images: Pixels, meant: Sequence[Combination]) -> EmojiJudge:
        """The judge whose probabilities suit real images best."""
        right, _ = self.numbers(meant)
        cosines = self.similarities(images)

        def likelihood(scale: float) -> float:
            scores = scale * cosines
            own = scores[np.arange(len(right)), right]
            return float((own - np.logaddexp.reduce(scores, axis=1)).mean())

        return dataclasses.replace(self, scale=max(SCALES, key=likelihood))


def load_judge(real: RealEmoji, folder: Path, *, seed: int) -> EmojiJudge:
    """The classifiers of real images, which are trained once and stored in `folder`."""
    subjects = tuple(sorted({one.subject for one in real.meant}))
    styles = tuple(dict.fromkeys(one.style for one in real.meant))
    settings = (VERSION, seed, real.meant, COPIES, SHRINKAGE, HIDDEN)
    file = folder / f"judge_{digest_of((), real.images, *settings)}.npz"
    if not file.is_file():
        numbers, looks = EmojiJudge(subjects, styles, {}).numbers(real.meant)
        style = _train_style(real.images, looks, len(styles), seed=seed)
        subject = _fit_subjects(real.images, numbers, looks, seed=seed)
        _keep(file, {"style": style, "subject": subject})
    with np.load(file) as kept:
        weights = traverse_util.unflatten_dict(dict(kept), sep="/")
    return EmojiJudge(subjects, styles, weights)


def _keep(file: Path, weights: Variables) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    flat = {n: np.asarray(a) for n, a in traverse_util.flatten_dict(weights, sep="/").items()}

    def save(target: Path) -> None:
        with target.open("wb") as opened:
            np.savez(opened, **flat)

    write_atomic(file, save)


def _fit_subjects(
    images: Pixels, numbers: np.ndarray, looks: np.ndarray, *, seed: int
) -> dict[str, np.ndarray]:
    """Means of subjects, and of subjects in a style, where scatter within subjects is even.

    Source: linear discriminant analysis (Fisher 1936), each subject counting the same.
    """
    root = jax.random.key(seed)
    keys = [None, *(jax.random.fold_in(root, copy) for copy in range(COPIES))]
    features = np.concatenate([_describe(images, key) for key in keys])
    numbers, looks = np.tile(numbers, len(keys)), np.tile(looks, len(keys))
    mean = features.mean(axis=0)
    features -= mean
    means = _class_means(features, numbers)
    counts = np.bincount(numbers)[numbers]
    apart = (features - means[numbers]) / np.sqrt(counts)[:, None].astype(np.float32)
    values, vectors = np.linalg.eigh((apart.T @ apart).astype(np.float64))
    values = np.maximum(values, 0.0) + SHRINKAGE * values.mean() + 1e-12
    whiten = (vectors / np.sqrt(values)).astype(np.float32)
    kinds, of_kind = np.unique(np.stack([numbers, looks]), axis=1, return_inverse=True)
    return {
        "mean": mean,
        "whiten": whiten,
        "means": _directions(means @ whiten),
        "looks": _directions(_class_means(features, of_kind.ravel()) @ whiten),
        "starts": np.searchsorted(kinds[0], np.arange(len(means))),
    }


def _class_means(features: np.ndarray, numbers: np.ndarray) -> Float32[np.ndarray, "k d"]:
    counts = np.bincount(numbers)
    sums = np.zeros((len(counts), features.shape[1]), np.float32)
    np.add.at(sums, numbers, features)
    return sums / counts[:, None].astype(np.float32)


def _directions(rows: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def _describe(images: Pixels, key: Keys | None = None) -> Float32[np.ndarray, "n d"]:
    """Features of subjects, of augmented images where there is a key."""
    found = []
    for start in range(0, len(images), BATCH):
        part = images[start : start + BATCH]
        padded = np.pad(part, ((0, BATCH - len(part)), (0, 0), (0, 0), (0, 0)))
        own = None if key is None else jax.random.fold_in(key, start)
        found.append(np.asarray(_features(padded, own))[: len(part)])
    return np.concatenate(found)


@jax.jit
def _features(images: Array, key: Keys | None) -> Array:
    framed = emoji_features.frame(images.astype(jnp.float32) / 255)
    shown = framed if key is None else emoji_features.augment(framed, key)
    return emoji_features.describe_shapes(shown)


def _train_style(images: Pixels, looks: np.ndarray, count: int, *, seed: int) -> dict[str, Any]:
    """Train on statistics of the images, and of noisy copies: sampled images are not as clean."""
    draw = np.random.default_rng(seed)
    parts = [emoji_features.describe_style(_noisy(images, draw, n)) for n in range(STYLE_COPIES)]
    features = np.concatenate(parts)
    labels = np.tile(looks, STYLE_COPIES)
    mean, scale = features.mean(axis=0), features.std(axis=0) + 0.1
    features = (features - mean) / scale
    net = StyleNet(count)
    params = net.init(jax.random.key(seed), features[:2])
    optimiser = optax.adamw(optax.cosine_decay_schedule(STYLE_RATE, STYLE_STEPS), weight_decay=1e-3)
    moments = optimiser.init(params)

    @jax.jit
    def step(params: Any, moments: Any, rows: Array, labels: Array) -> tuple[Any, Any]:
        def loss(own: Any) -> Array:
            logits = net.apply(own, rows)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        gradients = jax.grad(loss)(params)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes floats with its count
            updates, moments = optimiser.update(gradients, moments, params)
        return optax.apply_updates(params, updates), moments

    for _ in range(STYLE_STEPS):
        rows = draw.integers(len(features), size=STYLE_BATCH)
        params, moments = step(params, moments, features[rows], labels[rows])
    return {"params": params["params"], "mean": mean, "scale": scale}


def _noisy(images: Pixels, draw: np.random.Generator, copy: int) -> Pixels:
    """The images as they are for copy 0; later copies have noise."""
    if not copy:
        return images
    sigma = draw.uniform(0, STYLE_NOISE, (len(images), 1, 1, 1)).astype(np.float32)
    noise = draw.standard_normal(images.shape, np.float32) * sigma
    return np.clip(np.rint(images + noise), 0, 255).astype(np.uint8)
