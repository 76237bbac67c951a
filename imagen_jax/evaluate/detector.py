"""Detection of shapes in an image by classical image analysis: ground, objects and their traits.

Every rule works on differences to the ground in linear RGB mixtures, because area averaging mixes
the two linearly: an object's pixels lie on the line from the ground to its colour, at any size.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8
from PIL import Image
from scipy import ndimage

from imagen_jax.data.synthetic.shapes import render
from imagen_jax.data.synthetic.shapes.scenes import COLOURS, SHAPES

WORK_SIZE = 64  # larger images are area-averaged to this
FILL_SIZE = 48  # fills are judged from this size on
MIN_AREA = 0.006  # share of the image; half of the smallest star
NOISE_FLOOR = 24.0  # least RGB distance to the ground that counts as not the ground
MAX_COLOUR_ERROR = 42.0  # Lab distance beyond which a colour has no name
MIN_LIKENESS = 0.90  # cosine below which an outline has no name
SMALLEST = 16  # pixels a side
BLURS = (0.0, 1.0, 2.0)  # pixels; of a 64-pixel image as rendered, and upsampled from 16
TEMPLATE = 96  # bins per side of a template
SOLID_CONTRAST = 0.16  # spread inside an object, as a share of the way from colour to tint
EVEN = 0.35  # stripes vary along one axis at most this much of what they do along the other


@dataclass(frozen=True)
class DetectedShape:
    """One object as seen; None where a trait cannot be told."""

    shape: str | None
    colour: str | None
    fill: str | None
    x: float  # centre and extent, in image sides
    y: float
    extent: float


@dataclass(frozen=True)
class DetectedScene:
    """Content of an image; the largest object first."""

    background: str | None
    blobs: tuple[DetectedShape, ...]


@dataclass(frozen=True)
class _Fit:
    """A template laid over a window: its coverage of the pixels and how alike they are."""

    shape: str
    coverage: Float[np.ndarray, "h w"]
    likeness: float
    extent: float  # pixels
    x: float
    y: float


def detect(pixels: UInt8[np.ndarray, "h w 3"]) -> DetectedScene:
    """Describe an image.

    Shapes: (h, w, 3), square; anything above 64 pixels is area-averaged to 64.
    Errors: ValueError for an image that is not square or is smaller than 16 pixels.
    """
    if pixels.shape[0] != pixels.shape[1] or pixels.shape[0] < SMALLEST:
        wanted = f"a square image of at least {SMALLEST} pixels"
        raise ValueError(f"expected {wanted}, not {pixels.shape}")
    if pixels.shape[0] > WORK_SIZE:
        image = Image.fromarray(pixels).resize((WORK_SIZE, WORK_SIZE), Image.Resampling.BOX)
        pixels = np.asarray(image)
    rgb = pixels.astype(np.float64)
    background, ground, noise = _ground(rgb)
    difference = rgb - ground
    labels, strength = _segment(difference, noise)
    blobs = [
        _blob(difference, strength, labels, number=number, ground=(background, ground))
        for number in range(1, labels.max() + 1)
    ]
    return DetectedScene(background, tuple(sorted(blobs, key=lambda blob: -blob.extent)))


def lab(rgb: Float[np.ndarray, "... 3"]) -> Float[np.ndarray, "... 3"]:
    """sRGB in 0-255 to CIELAB under D65. Source: IEC 61966-2-1 and CIE 15."""
    unit = np.clip(rgb / 255, 0, 1)
    linear = np.where(unit > 0.04045, ((unit + 0.055) / 1.055) ** 2.4, unit / 12.92)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    xyz = linear @ to_xyz.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), xyz * 841 / 108 + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


@cache
def _palette() -> tuple[tuple[str, ...], Float[np.ndarray, "n 3"]]:
    return tuple(render.RGB), lab(np.array(list(render.RGB.values()), float))


def _ground(
    rgb: Float[np.ndarray, "h w 3"],
) -> tuple[str | None, Float[np.ndarray, "3"], float]:
    """The dominant colour of the border: its name, its value, and how far it scatters."""
    edge = max(1, rgb.shape[0] // 24)
    inside = np.zeros(rgb.shape[:2], bool)
    inside[edge:-edge, edge:-edge] = True
    border = rgb[~inside]
    names, palette = _palette()
    errors = np.linalg.norm(lab(border)[:, None] - palette, axis=-1)
    winner = np.bincount(errors.argmin(axis=1), minlength=len(names)).argmax()
    ground = np.median(border[errors.argmin(axis=1) == winner], axis=0)
    error = np.linalg.norm(lab(ground) - palette[winner])
    noise = float(np.median(np.linalg.norm(border - ground, axis=-1)))
    return (names[winner] if error < MAX_COLOUR_ERROR else None), ground, noise


def _segment(
    difference: Float[np.ndarray, "h w 3"], noise: float
) -> tuple[Integer[np.ndarray, "h w"], Float[np.ndarray, "h w"]]:
    """Connected objects, numbered from 1, and each pixel's distance to the ground.

    A pixel is an object's where it is at least 40 % as far from the ground as the farthest nearby;
    tints are at least half as far as their colours, so stripes and dots cut no object apart.
    """
    size = difference.shape[0]
    strength = np.linalg.norm(difference, axis=-1)
    nearby = ndimage.maximum_filter(strength, size=2 * round(size / 16) + 1, mode="nearest")
    mask = strength > np.maximum(0.4 * nearby, max(NOISE_FLOOR, 3.0 * noise))
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    kept = areas >= max(2, MIN_AREA * size**2)
    kept[0] = False
    return np.where(kept, np.cumsum(kept), 0)[labels], strength


def _blob(
    difference: Float[np.ndarray, "h w 3"],
    strength: Float[np.ndarray, "h w"],
    labels: Integer[np.ndarray, "h w"],
    *,
    number: int,
    ground: tuple[str | None, Float[np.ndarray, "3"]],
) -> DetectedShape:
    """Traits of one object: the best template gives shape, extent and the pixels' weights."""
    size = labels.shape[0]
    reach = 3 if size >= FILL_SIZE else 1
    own = ndimage.binary_dilation(labels == number, np.ones((3, 3)), iterations=reach)
    own &= (labels == number) | (labels == 0)
    rows, columns = (np.flatnonzero(own.any(axis=axis)) for axis in (1, 0))
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    weight = np.where(own, strength, 0.0)[window]
    blurs = BLURS if size >= FILL_SIZE else BLURS[:1]
    fits = [_fit(shape, weight, blur=blur) for shape in SHAPES for blur in blurs]
    fit = max(fits, key=lambda fit: fit.likeness)
    part = difference[window]
    mixed = np.tensordot(fit.coverage, part, 2) / np.sum(fit.coverage**2)
    background, ground_rgb = ground
    colour = _colour(ground_rgb + mixed, background)
    fill = None
    if size >= FILL_SIZE and colour is not None and background is not None:
        core = ndimage.binary_erosion(fit.coverage > 0.6, np.ones((3, 3)))
        core &= ndimage.binary_erosion(labels[window] == number, np.ones((3, 3)))
        rest = part - fit.coverage[..., None] * mixed
        fill = _fill(rest, core, colour=colour, background=background)
    return DetectedShape(
        shape=fit.shape if fit.likeness >= MIN_LIKENESS else None,
        colour=colour,
        fill=fill,
        x=float(columns[0] + fit.x) / size,
        y=float(rows[0] + fit.y) / size,
        extent=fit.extent / size,
    )


@cache
def _template(shape: str) -> tuple[Float[np.ndarray, "n n"], Float[np.ndarray, "2"], float]:
    """Coverage of the unit box by a shape, its centroid (x, y) and its second moment."""
    place = render.ObjectBox((TEMPLATE / 2 + 1) / TEMPLATE, (TEMPLATE / 2 + 1) / TEMPLATE, 1.0)
    image, (left, top) = render.mask(shape, place, size=TEMPLATE)
    padded = np.asarray(image, float) / 255
    bins = padded[1 - top : 1 - top + TEMPLATE, 1 - left : 1 - left + TEMPLATE]
    x, y, spread = _moments(bins)
    return bins, np.array([x, y]) / TEMPLATE, spread / TEMPLATE**2


def _moments(weight: Float[np.ndarray, "h w"]) -> tuple[float, float, float]:
    """Centroid (x, y) and summed variance of a weight map, pixels counted at their centres."""
    total = weight.sum()
    y, x = np.arange(weight.shape[0]) + 0.5, np.arange(weight.shape[1]) + 0.5
    in_y, in_x = weight.sum(axis=1) / total, weight.sum(axis=0) / total
    centre_x, centre_y = float(in_x @ x), float(in_y @ y)
    spread = in_x @ (x - centre_x) ** 2 + in_y @ (y - centre_y) ** 2
    return centre_x, centre_y, float(spread)


def _fit(shape: str, weight: Float[np.ndarray, "h w"], *, blur: float) -> _Fit:
    """Lays a shape over the weights at their centroid, in the size of their second moment.

    Both are independent of how strong the weights are, so thin rings that cover no pixel wholly
    are fitted as well as discs; a pixel's own width adds 1/12 to the variance of each axis.
    """
    bins, centre, template_spread = _template(shape)
    x, y, spread = _moments(weight)
    extent = float(np.sqrt(max(spread - 2 / 12 - 2 * blur**2, 0.25) / template_spread))
    left, top = x - centre[0] * extent, y - centre[1] * extent
    over_y, over_x = (
        _overlap(count, start, extent)
        for count, start in zip(weight.shape, (top, left), strict=True)
    )
    coverage = over_y @ bins @ over_x.T
    if blur:
        coverage = ndimage.gaussian_filter(coverage, blur, mode="constant")
    norms = np.linalg.norm(coverage) * np.linalg.norm(weight)
    likeness = float(np.sum(coverage * weight) / norms) if norms > 0 else 0.0
    return _Fit(shape, coverage, likeness, extent, left + extent / 2, top + extent / 2)


def _overlap(count: int, start: float, extent: float) -> Float[np.ndarray, "n bins"]:
    """Length that each of `count` pixels shares with each bin of a template laid at `start`."""
    edges = start + extent * np.arange(TEMPLATE + 1) / TEMPLATE
    pixel = np.arange(count)[:, None]
    shared = np.minimum(edges[1:], pixel + 1) - np.maximum(edges[:-1], pixel)
    return np.maximum(shared, 0.0)


@cache
def _mixtures(background: str | None) -> tuple[tuple[str, ...], Float[np.ndarray, "n k 3"]]:
    """Object colours that a ground allows, each mixed with 0 to 60 % of its tint, in Lab."""
    names = tuple(colour for colour in COLOURS if colour != background)
    share = np.linspace(0.0, 0.6, 4)[:, None]
    mixed = [
        (1 - share) * np.array(render.RGB[name])
        + share * np.array(render.tint(name, background or "gray"))
        for name in names
    ]
    return names, lab(np.array(mixed))


def _colour(rgb: Float[np.ndarray, "3"], background: str | None) -> str | None:
    names, mixtures = _mixtures(background)
    errors = np.linalg.norm(mixtures - lab(rgb), axis=-1).min(axis=-1)
    best = int(errors.argmin())
    return names[best] if errors[best] < MAX_COLOUR_ERROR else None


def _fill(
    part: Float[np.ndarray, "h w 3"],
    core: Bool[np.ndarray, "h w"],
    *,
    colour: str,
    background: str,
) -> str | None:
    """Solid, striped or dotted: how much the inside varies towards the tint, and along what."""
    if core.sum() < 6:
        return None
    way = np.subtract(render.tint(colour, background), render.RGB[colour]).astype(float)
    value = part @ way / (way @ way)  # 0 at the colour, 1 at the tint, up to a constant
    inside = np.where(core, value - value[core].mean(), 0.0)
    total = float(np.sum(inside**2))
    if np.sqrt(total / core.sum()) < SOLID_CONTRAST:
        return "solid"
    steps = [
        np.mean(np.append(np.diff(inside, axis=axis)[_both(core, axis)], 0.0) ** 2)
        for axis in (0, 1)
    ]
    return "striped" if min(steps) < EVEN * max(steps) else "dotted"


def _both(core: Bool[np.ndarray, "h w"], axis: int) -> Bool[np.ndarray, "h2 w2"]:
    """Mask of pixels that are inside together with the next one along an axis."""
    first, second = ((core[:-1], core[1:]), (core[:, :-1], core[:, 1:]))[axis]
    return first & second
