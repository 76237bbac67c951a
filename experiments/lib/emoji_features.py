"""What the classifiers of emoji see: oriented edges and colours, and statistics of a style."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32

from imagen_jax.types import Keys, Pixels
from lib.emoji_images import SIDE

ORIENTATIONS = 8  # unsigned, so that dark on light is as light on dark
CELLS = 8  # of each side, whose edges and mean colours are the features of a subject
AROUND = 2  # cells of half that side, over which the energy of edges is normalised, on each side
FLOOR = 0.01  # energy at which it no longer is
EDGES, TINTS = 2.0, 0.5  # weights of edges and of colours

DRAWN, LEAST, FRAMED = 0.12, 8.0, 30  # darkness of what is drawn; its sides, before and after
SHIFT, ANGLE, SCALE = 1.0, 0.12, 0.06  # of augmentation: pixels, radians, log of sides
TINT, OFFSET, NOISE = 0.08, 0.04, 0.03  # of colours, in [0, 1]

COLOURS = 8  # levels a channel of a style's colours
GRADIENTS = np.array([0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
INK = 0.96  # channel below which a pixel is no background


def describe_shapes(
    images: Float32[Array, "n side side 3"],
) -> Float32[Array, "n features"]:
    """Edges by orientation, normalised by those around them, and colours, both by cells.

    Shapes: images (n, 32, 32, 3) in [0, 1]; the result (n, 8 x 8 x 11).
    Source: histograms of oriented gradients (Dalal and Triggs 2005), which styles share.
    """
    count = len(images)
    right, down, energy = _strongest_gradient(images)
    place = jnp.arctan2(down, right) / jnp.pi * ORIENTATIONS
    half = ORIENTATIONS / 2
    centres = jnp.arange(ORIENTATIONS, dtype=place.dtype)[None, None, None]
    apart = jnp.abs((place[..., None] - centres + half) % ORIENTATIONS - half)
    strength = jnp.sqrt(energy + 1e-8)[..., None]
    edges = _means(strength * jnp.maximum(0.0, 1.0 - apart), 2 * CELLS)
    total = _boxes(jnp.sum(edges**2, axis=-1, keepdims=True), 2 * AROUND + 1, stride=1)
    edges = _boxes(edges / jnp.sqrt(total + FLOOR), 3, stride=2)
    colours = _means(images, CELLS)
    flat = [EDGES * edges.reshape(count, -1), TINTS / 0.35 * colours.reshape(count, -1)]
    return jnp.concatenate(flat, axis=-1)


def frame(images: Float32[Array, "n side side 3"]) -> Float32[Array, "n side side 3"]:
    """Cut each image to the square round what is drawn, and scale it: styles leave other margins.

    Shapes: images (n, 32, 32, 3) in [0, 1].
    """
    dark = 1.0 - images.min(axis=-1)
    first, last = zip(*(_extent(dark.max(axis=axis) > DRAWN) for axis in (2, 1)), strict=True)
    low, high = (jnp.stack(ends).astype(images.dtype) for ends in (first, last))
    sides = jnp.maximum(high - low + 1, LEAST)
    scale = (sides.max(axis=0) / FRAMED)[:, None, None]
    centre = (low + high)[..., None, None] / 2
    line = _places(images.shape[1])
    down = centre[0] + scale * line[None, :, None]
    right = centre[1] + scale * line[None, None, :]
    return _look_up(images, *jnp.broadcast_arrays(down, right))


def augment(images: Float32[Array, "n side side 3"], key: Keys) -> Float32[Array, "n side side 3"]:
    """Move, turn, scale, blur and tint images, never mirror them.

    Mirrored, an image would have another name: `left arrow`.
    """
    moved, blurred, tinted, offset, noisy = jax.random.split(key, 5)
    count = len(images)
    images = _warp(images, moved)
    amount = jax.random.uniform(blurred, (count, 1, 1, 1))
    images = images + amount * (_blur(images) - images)
    gain = jax.random.uniform(tinted, (count, 1, 1, 3), minval=1 - TINT, maxval=1 + TINT)
    images = images * gain + jax.random.uniform(offset, gain.shape, minval=-OFFSET, maxval=OFFSET)
    images = images + NOISE * amount[::-1] * jax.random.normal(noisy, images.shape)
    return jnp.clip(images, 0.0, 1.0)


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


def _means(images: Float32[Array, "n side side c"], cells: int) -> Array:
    count, side, _, channels = images.shape
    box = side // cells
    return images.reshape(count, cells, box, cells, box, channels).mean(axis=(2, 4))


def _boxes(maps: Float32[Array, "n h w c"], width: int, *, stride: int) -> Array:
    """Means over overlapping boxes, with zeros beyond the edges."""
    window, steps = (1, width, width, 1), (1, stride, stride, 1)
    return jax.lax.reduce_window(maps, 0.0, jax.lax.add, window, steps, "SAME") / width**2


def _extent(found: Bool[Array, "n side"]) -> tuple[Array, Array]:
    """The first and the last place where something is found."""
    return found.argmax(axis=1), found.shape[1] - 1 - found[:, ::-1].argmax(axis=1)


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
    line = _places(side)
    y, x = line[None, :, None], line[None, None, :]
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    down = (cosine * y + sine * x) * scale[0] + shift[0] + centre
    right = (cosine * x - sine * y) * scale[1] + shift[1] + centre
    return _look_up(images, down, right)


def _places(side: int) -> Float32[Array, " side"]:
    """Pixels' places from the centre of a line of them."""
    return jnp.arange(side, dtype=jnp.float32) - (side - 1) / 2


def _look_up(
    images: Float32[Array, "n side side 3"],
    down: Float32[Array, "n side side"],
    right: Float32[Array, "n side side"],
) -> Float32[Array, "n side side 3"]:
    """Colours at any places, bilinear, white beyond the edges."""
    count, side = images.shape[:2]
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1.0)
    wide = side + 2
    flat = padded.reshape(count * wide * wide, 3)
    first = (jnp.arange(count) * wide * wide)[:, None, None]
    down, right = (jnp.clip(a + 1, 0.0, side + 0.999) for a in (down, right))
    row, column = jnp.floor(down).astype(jnp.int32), jnp.floor(right).astype(jnp.int32)
    below, beyond = ((a - jnp.floor(a))[..., None] for a in (down, right))
    corner = first + row * wide + column
    upper = flat[corner] * (1 - beyond) + flat[corner + 1] * beyond
    lower = flat[corner + wide] * (1 - beyond) + flat[corner + wide + 1] * beyond
    return upper * (1 - below) + lower * below
