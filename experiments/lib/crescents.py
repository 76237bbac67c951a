"""Crescents, which no embedded cascade knows: their drawings, and a geometric test of them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scipy import ndimage

from imagen_jax.data.synthetic.shapes.render import FINEST, RGB, SUPERSAMPLE

COLOURS = ("red", "green", "blue", "yellow")  # of the drawings to learn from
BACKGROUNDS = ("white", "black", "gray")
OTHER_COLOURS = ("orange", "purple")  # never drawn
OTHER_BACKGROUNDS = ("white", "black", "gray", "blue", "yellow")
INNER, OFFSET = 0.8, 0.45  # the disc taken away, in radii of the outer one: its radius, its place
RADIUS = (0.30, 0.36)  # in image sides, from and to
JITTER = 0.05  # of the place, in image sides

CONTRAST = 0.5  # share of the way from the ground to the object that is the object's
LEAST_CONTRAST = 40.0  # RGB distance below which nothing is there
LEAST_AREA = 0.006  # share of the image
LIKE = 0.72  # least overlap with the crescent of two fitted circles, by their union
HOLE = 0.03  # share of the area that holes may have
HOLLOW = 0.08  # least depth of the inner edge, in heights
THICKNESS = (0.12, 0.6)  # in heights


@dataclasses.dataclass(frozen=True)
class Crescent:
    """Colours of one; opening to the right, as all are."""

    colour: str
    background: str

    def caption(self, word: str) -> str:
        """Words for it, in the manner of the shapes' captions."""
        return f"a large {self.colour} {word} on a {self.background} background"


def drawn() -> list[Crescent]:
    """The twelve that there are drawings of."""
    return [Crescent(*pair) for pair in itertools.product(COLOURS, BACKGROUNDS)]


def others() -> list[Crescent]:
    """Crescents of colours and grounds of which none is drawn."""
    pairs = [
        *itertools.product(OTHER_COLOURS, OTHER_BACKGROUNDS),
        *itertools.product(COLOURS, set(OTHER_BACKGROUNDS) - set(BACKGROUNDS)),
    ]
    return [Crescent(*pair) for pair in sorted(pairs) if pair[0] != pair[1]]


def draw(
    crescent: Crescent, rng: np.random.Generator, *, size: int = FINEST
) -> UInt8[np.ndarray, "size size 3"]:
    """Draw one, moved and sized a little by `rng`."""
    radius = rng.uniform(*RADIUS)
    x, y = 0.5 + rng.uniform(-JITTER, JITTER, size=2)
    grid = (np.arange(size * SUPERSAMPLE) + 0.5) / (size * SUPERSAMPLE)
    outside = np.hypot(grid[None] - x, grid[:, None] - y) < radius
    inside = np.hypot(grid[None] - x - OFFSET * radius, grid[:, None] - y) < INNER * radius
    coverage = Image.fromarray(np.uint8(255 * (outside & ~inside))).reduce(SUPERSAMPLE)
    canvas = Image.new("RGB", (size, size), RGB[crescent.background])
    canvas.paste(Image.new("RGB", (size, size), RGB[crescent.colour]), (0, 0), coverage)
    return np.asarray(canvas)


def write_images(folder: Path, *, word: str, seed: int) -> None:
    """Write the twelve drawings with captions of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number, crescent in enumerate(drawn()):
        Image.fromarray(draw(crescent, rng)).save(folder / f"{number:02d}.png")
        (folder / f"{number:02d}.txt").write_text(crescent.caption(word))


@dataclasses.dataclass(frozen=True)
class Seen:
    """What an image shows, as far as crescents matter."""

    is_crescent: bool
    colour: str | None = None
    background: str | None = None

    def shows(self, wanted: Crescent) -> bool:
        """Tell whether that is a crescent in these colours."""
        return (self.is_crescent, self.colour, self.background) == (
            *(True, wanted.colour),
            wanted.background,
        )


def share_shown(images: Sequence[np.ndarray], wanted: Sequence[Crescent]) -> dict[str, float]:
    """Shares of images that are crescents, and that are so in their colours."""
    found = [look(image) for image in images]
    both = [seen.shows(crescent) for seen, crescent in zip(found, wanted, strict=True)]
    return {
        "crescents": float(np.mean([seen.is_crescent for seen in found])),
        "coloured": float(np.mean(both)),
    }


def look(pixels: UInt8[np.ndarray, "h w 3"]) -> Seen:
    """Look for one crescent that opens to the right, on an even ground; nothing here is learned."""
    rgb = pixels.astype(np.float64)
    border = np.concatenate([rgb[0], rgb[-1], rgb[:, 0], rgb[:, -1]])
    ground = np.median(border, axis=0)
    distance = np.linalg.norm(rgb - ground, axis=-1)
    strongest = np.percentile(distance, 99)
    background = _name(ground)
    if strongest < LEAST_CONTRAST:
        return Seen(False, background=background)
    labels, count = ndimage.label(distance > CONTRAST * strongest, structure=np.ones((3, 3)))
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    large = np.flatnonzero(areas >= LEAST_AREA * labels.size) + 1
    if len(large) != 1:
        return Seen(False, background=background)
    mask = labels == large[0]
    colour = _name(np.median(rgb[ndimage.binary_erosion(mask)], axis=0)) if mask.any() else None
    return Seen(_is_crescent(mask), colour, background)


def _name(rgb: Float[np.ndarray, "3"]) -> str | None:
    """The nearest colour's name."""
    if not np.isfinite(rgb).all():
        return None
    return min(RGB, key=lambda name: float(np.linalg.norm(rgb - np.array(RGB[name]))))


def _is_crescent(mask: Bool[np.ndarray, "h w"]) -> bool:
    holes = ndimage.binary_fill_holes(mask).sum() - mask.sum()
    if holes > HOLE * mask.sum():
        return False
    rows = np.flatnonzero(mask.any(axis=1))
    height = len(rows)
    left = np.array([np.flatnonzero(mask[row])[0] for row in rows], float)
    right = np.array([np.flatnonzero(mask[row])[-1] + 1 for row in rows], float)
    middle = slice(height // 3, height - height // 3)
    ends = np.r_[0 : height // 4, height - height // 4 : height]
    thickness = float(np.median((right - left)[middle])) / height
    hollow = (float(right[ends].max()) - float(right[middle].min())) / height
    if hollow < HOLLOW or not THICKNESS[0] <= thickness <= THICKNESS[1]:
        return False
    return overlap(mask, rows, left, right) >= LIKE


def overlap(
    mask: Bool[np.ndarray, "h w"],
    rows: np.ndarray,
    left: Float[np.ndarray, " n"],
    right: Float[np.ndarray, " n"],
) -> float:
    """Intersection over union with the crescent between circles fitted to both edges."""
    height = len(rows)
    inner = slice(height // 6, height - height // 6)
    outer_circle = _fit_circle(left, rows + 0.5)
    inner_circle = _fit_circle(right[inner], rows[inner] + 0.5)
    if inner_circle[0] <= outer_circle[0]:  # the inner edge bulges
        return 0.0
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]] + 0.5
    fitted = (np.hypot(x - outer_circle[0], y - outer_circle[1]) < outer_circle[2]) & (
        np.hypot(x - inner_circle[0], y - inner_circle[1]) >= inner_circle[2]
    )
    return float((fitted & mask).sum() / max((fitted | mask).sum(), 1))


def _fit_circle(
    x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]
) -> tuple[float, float, float]:
    """Centre and radius, by least squares of x^2 + y^2 = 2 a x + 2 b y + c (Kasa)."""
    matrix = np.stack([2 * x, 2 * y, np.ones_like(x)], axis=1)
    (a, b, c), *_ = np.linalg.lstsq(matrix, x**2 + y**2, rcond=None)
    return float(a), float(b), float(np.sqrt(max(c + a**2 + b**2, 0.0)))
