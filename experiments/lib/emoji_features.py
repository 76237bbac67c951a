"""What the classifiers of emoji see: oriented edges and colours, and statistics of a style."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32

from imagen_jax.types import Keys, Pixels
from lib.emoji_images import SIDE

ORIENTATIONS = 8  # unsigned, so that dark on light is as light on dark
CELL = 2  # pixels of an image's side that are one of the features
AROUND = 2  # cells to each side over which the energy of edges is normalised
FLOOR = 0.01  # energy at which it no longer is

SHIFT, ANGLE, SCALE = 2.0, 0.14, 0.12  # of augmentation: pixels, radians, log of sides
TINT, OFFSET, NOISE = 0.08, 0.04, 0.03  # of colours, in [0, 1]
COLOURLESS, OUTLINED = 0.35, 0.2  # shares of images that lose their colours, and that get outlines
OUTLINE = 3.0  # darkness of an outline, per contrast of its edge

COLOURS = 8  # levels a channel of a style's colours
GRADIENTS = np.array([0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
INK = 0.96  # channel below which a pixel is no background


def describe_shapes(
    images: Float32[Array, "n side side 3"], colourless: Bool[Array, " n"]
) -> Float32[Array, "n cells cells features"]:
    """Edges by orientation, normalised by those around them, and colours or zeros.

    Shapes: images (n, 32, 32, 3) in [0, 1]; the result (n, 16, 16, 11).
    Source: histograms of oriented gradients (Dalal and Triggs 2005), which styles share.
    """
    right, down, energy = _strongest_gradient(images)
    place = jnp.arctan2(down, right) / jnp.pi * ORIENTATIONS
    half = ORIENTATIONS / 2
    apart = jnp.abs((place[..., None] - jnp.arange(ORIENTATIONS) + half) % ORIENTATIONS - half)
    edges = _cells(jnp.sqrt(energy + 1e-8)[..., None] * jnp.maximum(0.0, 1.0 - apart))
    width = 2 * AROUND + 1
    around = _pad(jnp.sum(edges**2, axis=-1, keepdims=True), AROUND, mode="constant")
    rows = sum(around[:, k : k + edges.shape[1]] for k in range(width))
    total = sum(rows[:, :, k : k + edges.shape[2]] for k in range(width))
    edges = edges / jnp.sqrt(total / width**2 + FLOOR)
    colours = (_cells(images) - 0.6) / 0.35 * ~colourless[:, None, None, None]
    return jnp.concatenate([2.0 * edges - 0.4, colours], axis=-1)


def augment(
    images: Float32[Array, "n side side 3"], key: Keys
) -> tuple[Float32[Array, "n side side 3"], Bool[Array, " n"]]:
    """Move, turn, scale, blur, tint and outline images, never mirror them; and whose colours go.

    Mirrored, an image would have another name: `left arrow`.
    """
    moved, blurred, tinted, offset, noisy, colourless, outlined = jax.random.split(key, 7)
    count = len(images)
    images = _warp(images, moved)
    each = (count, 1, 1, 1)
    energy = _strongest_gradient(images)[2][..., None]
    lined = images * (1.0 - jnp.minimum(OUTLINE * jnp.sqrt(energy + 1e-8), 1.0))
    images = jnp.where(jax.random.bernoulli(outlined, OUTLINED, each), lined, images)
    amount = jax.random.uniform(blurred, each)
    images = images + amount * (_blur(images) - images)
    gain = jax.random.uniform(tinted, (count, 1, 1, 3), minval=1 - TINT, maxval=1 + TINT)
    images = images * gain + jax.random.uniform(offset, gain.shape, minval=-OFFSET, maxval=OFFSET)
    images = images + NOISE * amount[::-1] * jax.random.normal(noisy, images.shape)
    return images, jax.random.bernoulli(colourless, COLOURLESS, (count,))


def describe_style(images: Pixels) -> Float32[np.ndarray, "n features"]:
    """How many pixels have each colour, how steep edges are, and how much is drawn.

    Shapes: images (n, 32, 32, 3).
    """
    levels = images.astype(np.int64) * COLOURS // 256
    colours = _counts(levels @ np.array([COLOURS**2, COLOURS, 1]), COLOURS**3)
    values = images.astype(np.float32) / 255
    steps = [np.abs(np.diff(values, axis=axis)).max(axis=-1) for axis in (1, 2)]
    bins = len(GRADIENTS) + 1
    edges = [_counts(np.digitize(step, GRADIENTS), bins) for step in steps]
    ink = values.min(axis=-1) < INK
    extents = [ink.any(axis=axis).sum(axis=1) / SIDE for axis in (1, 2)]
    drawn = np.stack([*extents, ink.mean(axis=(1, 2))], axis=1)
    return np.concatenate([np.log1p(colours), *map(np.log1p, edges), drawn], 1).astype(np.float32)


def _counts(numbers: np.ndarray, kinds: int) -> np.ndarray:
    """How often each number occurs, a row an image."""
    count = len(numbers)
    rows = numbers.reshape(count, -1) + kinds * np.arange(count)[:, None]
    return np.bincount(rows.ravel(), minlength=kinds * count).reshape(count, kinds)


def _strongest_gradient(images: Float32[Array, "n h w 3"]) -> tuple[Array, Array, Array]:
    """Of each pixel's channels the steepest one's differences, and their squares' sum."""
    padded = _pad(images, 1, mode="edge")
    right = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    down = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    energy = right**2 + down**2
    loudest = energy.argmax(axis=-1)[..., None]
    found = [jnp.take_along_axis(a, loudest, axis=-1)[..., 0] for a in (right, down, energy)]
    return found[0], found[1], found[2]


def _cells(images: Float32[Array, "n h w c"]) -> Float32[Array, "n cells_h cells_w c"]:
    count, height, width, channels = images.shape
    boxes = images.reshape(count, height // CELL, CELL, width // CELL, CELL, channels)
    return boxes.mean(axis=(2, 4))


def _pad(images: Array, width: int, *, mode: str) -> Array:
    return jnp.pad(images, ((0, 0), (width, width), (width, width), (0, 0)), mode=mode)


def _blur(images: Float32[Array, "n h w 3"]) -> Float32[Array, "n h w 3"]:
    padded = _pad(images, 1, mode="edge")
    rows = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
    return (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 4


def _warp(images: Float32[Array, "n side side 3"], key: Keys) -> Float32[Array, "n side side 3"]:
    """Shift, scale and rotate each image a little; bilinear, white beyond the edges."""
    count, side = images.shape[:2]
    turned, scaled, shifted = jax.random.split(key, 3)
    angle = jax.random.uniform(turned, (count, 1, 1), minval=-ANGLE, maxval=ANGLE)
    scale = jnp.exp(jax.random.uniform(scaled, (2, count, 1, 1), minval=-SCALE, maxval=SCALE))
    shift = jax.random.uniform(shifted, (2, count, 1, 1), minval=-SHIFT, maxval=SHIFT)
    centre = (side - 1) / 2
    line = jnp.arange(side) - centre
    y, x = line[None, :, None], line[None, None, :]
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    down = (cosine * y + sine * x) * scale[0] + shift[0] + centre
    right = (cosine * x - sine * y) * scale[1] + shift[1] + centre
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1.0)
    wide = side + 2
    flat = padded.reshape(count * wide * wide, 3)
    first = (jnp.arange(count) * wide * wide)[:, None, None]
    down, right = (jnp.clip(a + 1, 0.0, side + 0.999) for a in (down, right))
    row, column = jnp.floor(down).astype(jnp.int32), jnp.floor(right).astype(jnp.int32)
    below, beyond = (down - row)[..., None], (right - column)[..., None]
    corner = first + row * wide + column
    upper = flat[corner] * (1 - beyond) + flat[corner + 1] * beyond
    lower = flat[corner + wide] * (1 - beyond) + flat[corner + wide + 1] * beyond
    return upper * (1 - below) + lower * below
