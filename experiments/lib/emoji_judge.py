"""Small classifiers of emoji by subject and style, trained on real images of 32 px."""

from __future__ import annotations

import dataclasses
import functools
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
from tqdm import tqdm

from imagen_jax.io.atomic import write_atomic
from imagen_jax.sample.progress import digest_of
from imagen_jax.types import Keys, Pixels
from lib import emoji_features
from lib.emoji_images import SIDE, Combination, RealEmoji

CHANNELS = 64  # of the first maps, 8 x 8; the second, 4 x 4, have twice as many
HIDDEN = 64  # units that tell styles apart
BATCH = 128
RATE, DECAY, WARMUP, SMOOTHED = 3e-3, 0.05, 0.1, 0.1  # of AdamW, and of labels
STYLE_STEPS, STYLE_RATE, STYLE_COPIES, STYLE_NOISE = 2500, 2e-3, 3, 4.0
VERSION = 1  # of the training: weights of another one are not read

Variables = Mapping[str, Any]


class SubjectNet(nn.Module):
    """Two levels with a residual block each on oriented edges and colours; then places matter."""

    subjects: int

    @nn.compact
    def __call__(self, features: Array, *, train: bool) -> Array:
        """Logits. Shapes: features (n, 16, 16, 11); result (n, subjects)."""
        norm = functools.partial(nn.BatchNorm, use_running_average=not train, momentum=0.95)
        x = features
        for channels in (CHANNELS, 2 * CHANNELS):
            kernel = (4, 4) if channels == CHANNELS else (3, 3)
            x = nn.relu(norm()(nn.Conv(channels, kernel, strides=2, use_bias=False)(x)))
            y = nn.relu(norm()(nn.Conv(channels, (3, 3), use_bias=False)(x)))
            x = nn.relu(x + norm()(nn.Conv(channels, (3, 3), use_bias=False)(y)))
        return nn.Dense(self.subjects)(x.reshape(len(x), -1))


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
    weights: Variables  # "subject", "style", and the "mean" and "scale" of a style's statistics

    def subject(self, images: Pixels) -> Float32[np.ndarray, "n subjects"]:
        """Log-probabilities of the subjects. Shapes: images (n, 32, 32, 3)."""
        parts = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
        padded = [np.pad(p, ((0, BATCH - len(p)), (0, 0), (0, 0), (0, 0))) for p in parts]
        found = [_log_probs(self.weights["subject"], part, len(self.subjects)) for part in padded]
        return np.concatenate(found)[: len(images)]

    def style(self, images: Pixels) -> Float32[np.ndarray, "n styles"]:
        """Log-probabilities of the styles. Shapes: images (n, 32, 32, 3)."""
        features = emoji_features.describe_style(images) - self.weights["mean"]
        net = StyleNet(len(self.styles))
        logits = net.apply(self.weights["style"], features / self.weights["scale"])
        return np.asarray(jax.nn.log_softmax(logits))

    def count_parameters(self) -> dict[str, int]:
        """Parameters of both networks."""
        return {
            name: sum(p.size for p in jax.tree.leaves(self.weights[name]["params"]))
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


def load_judge(real: RealEmoji, folder: Path, *, epochs: int, seed: int) -> EmojiJudge:
    """The classifiers of real images, which are trained once and stored in `folder`."""
    subjects = tuple(sorted({one.subject for one in real.meant}))
    styles = tuple(dict.fromkeys(one.style for one in real.meant))
    settings = (VERSION, epochs, seed, real.meant, CHANNELS, HIDDEN)
    file = folder / f"judge_{digest_of((), real.images, *settings)}.npz"
    if not file.is_file():
        judge = EmojiJudge(subjects, styles, {})
        numbers, looks = judge.numbers(real.meant)
        found = _train_style(real.images, looks, len(styles), seed=seed)
        found["subject"] = _train_subject(
            real.images, numbers, len(subjects), epochs=epochs, seed=seed
        )
        _keep(file, found)
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


def _train_subject(
    images: Pixels, numbers: np.ndarray, count: int, *, epochs: int, seed: int
) -> Variables:
    """Train on images drawn so that rare subjects come more often than their number."""
    net = SubjectNet(count)
    size = min(BATCH, len(images))
    steps = max(1, epochs * len(images) // size)
    cells = SIDE // emoji_features.CELL
    example = jnp.zeros((2, cells, cells, emoji_features.ORIENTATIONS + 3))
    variables = net.init(jax.random.key(seed), example, train=True)
    rate = optax.warmup_cosine_decay_schedule(0.0, RATE, int(WARMUP * steps), steps)
    optimiser = optax.adamw(rate, weight_decay=DECAY)
    state = variables["params"], variables["batch_stats"], optimiser.init(variables["params"])
    draw = np.random.default_rng(seed)
    weight = np.bincount(numbers)[numbers] ** -0.5
    weight /= weight.sum()
    root = jax.random.key(seed + 1)
    for step in tqdm(range(steps), "training the judge", unit=" steps", leave=False):
        rows = draw.choice(len(images), size, replace=False, p=weight)
        key = jax.random.fold_in(root, step)
        state = _step(state, images[rows], numbers[rows], key, net=net, optimiser=optimiser)
    return {"params": state[0], "batch_stats": state[1]}


@functools.partial(jax.jit, static_argnames=("net", "optimiser"), donate_argnames=("state",))
def _step(
    state: tuple[Any, Any, Any],
    images: Array,
    numbers: Array,
    key: Keys,
    *,
    net: SubjectNet,
    optimiser: optax.GradientTransformation,
) -> tuple[Any, Any, Any]:
    params, stats, moments = state
    changed, colourless = emoji_features.augment(images.astype(jnp.float32) / 255, key)
    features = emoji_features.describe_shapes(changed, colourless)
    targets = optax.smooth_labels(jax.nn.one_hot(numbers, net.subjects), SMOOTHED)

    def loss(own: Any) -> tuple[Array, Any]:
        variables = {"params": own, "batch_stats": stats}
        logits, new = net.apply(variables, features, train=True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy(logits, targets).mean(), new["batch_stats"]

    gradients, stats = jax.grad(loss, has_aux=True)(params)
    updates, moments = optimiser.update(gradients, moments, params)
    return optax.apply_updates(params, updates), stats, moments


@functools.partial(jax.jit, static_argnames=("count",))
def _log_subjects(variables: Variables, images: Array, count: int) -> Array:
    whole = jnp.zeros(len(images), bool)
    features = emoji_features.describe_shapes(images.astype(jnp.float32) / 255, whole)
    return jax.nn.log_softmax(SubjectNet(count).apply(variables, features, train=False))


def _log_probs(variables: Variables, images: Pixels, count: int) -> np.ndarray:
    return np.asarray(_log_subjects(variables, images, count))


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

        updates, moments = optimiser.update(jax.grad(loss)(params), moments, params)
        return optax.apply_updates(params, updates), moments

    for _ in range(STYLE_STEPS):
        rows = draw.integers(len(features), size=BATCH)
        params, moments = step(params, moments, features[rows], labels[rows])
    return {"style": params, "mean": mean, "scale": scale}


def _noisy(images: Pixels, draw: np.random.Generator, copy: int) -> Pixels:
    """The images as they are for copy 0; later copies have noise."""
    if not copy:
        return images
    sigma = draw.uniform(0, STYLE_NOISE, (len(images), 1, 1, 1)).astype(np.float32)
    noise = draw.standard_normal(images.shape, np.float32) * sigma
    return np.clip(np.rint(images + noise), 0, 255).astype(np.uint8)
