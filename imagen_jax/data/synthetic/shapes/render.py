"""Images of scenes: palette, outlines, layout and the anti-aliased rendering of one scene."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from imagen_jax.data.synthetic.shapes.scenes import Scene, Shape

RGB = {
    "red": (220, 30, 35),
    "green": (30, 150, 60),
    "blue": (30, 75, 225),
    "yellow": (252, 222, 40),
    "orange": (240, 115, 15),
    "purple": (145, 35, 155),
    "black": (12, 12, 12),
    "white": (250, 250, 250),
    "gray": (128, 128, 128),
}

# Extents as shares of the image's side, from and to; one object, and two.
SINGLE_EXTENT = {"small": (0.34, 0.42), "large": (0.62, 0.72)}
PAIR_EXTENT = {"small": (0.24, 0.29), "large": (0.39, 0.43)}
SINGLE_JITTER, PAIR_JITTER, MARGIN, GAP = 0.16, 0.12, 0.02, 0.10

PERIOD = {"striped": 1 / 16, "dotted": 1 / 20}  # of stripes and of rows of dots, in sides
TINT_SHARE = 0.45  # of a period that a stripe of the tint takes
DOT_RADIUS = 0.42  # in periods
SUPERSAMPLE = 4
FINEST = 256  # smaller images are rendered at least this large, then area-averaged


@dataclass(frozen=True)
class ObjectBox:
    """The place of an object: its centre and extent (longer side of its box), in image sides."""

    x: float
    y: float
    extent: float


def tint(colour: str, background: str) -> tuple[int, int, int]:
    """The lighter or darker companion of a colour, for its stripes and dots.

    Halfway to white; but yellow to black, which would else be lost on white, and the two neutral
    colours to the background, which would else meet each other.
    """
    towards = {"yellow": "black", "black": background, "white": background}.get(colour, "white")
    mixed = np.add(RGB[colour], RGB[towards]) // 2
    return (int(mixed[0]), int(mixed[1]), int(mixed[2]))


@cache
def outlines(shape: str) -> tuple[Float[np.ndarray, "n 2"], ...]:
    """The polygons of a shape, (x, y) in [-0.5, 0.5] with y downwards; a second one is a hole."""
    turn = np.linspace(0, 2 * np.pi, 128, endpoint=False)
    disc = np.stack([np.cos(turn), np.sin(turn)], axis=1) / 2
    if shape == "circle":
        return (disc,)
    if shape == "ring":
        return disc, disc * 0.55
    if shape == "star":
        angle = np.arange(10) * np.pi / 5
        radius = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
        return (_fitted(np.stack([radius * np.sin(angle), -radius * np.cos(angle)], axis=1)),)
    if shape == "heart":
        heights = 13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)
        return (_fitted(np.stack([16 * np.sin(turn) ** 3, -heights], axis=1)),)
    arm = 0.18
    corners = {
        "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
        "triangle": [(0, -0.9), (1, 0.9), (-1, 0.9)],
        "diamond": [(0, -1), (0.8, 0), (0, 1), (-0.8, 0)],
        "cross": [
            *((-2 * arm, -1), (2 * arm, -1), (2 * arm, -2 * arm), (1, -2 * arm), (1, 2 * arm)),
            *((2 * arm, 2 * arm), (2 * arm, 1), (-2 * arm, 1), (-2 * arm, 2 * arm), (-1, 2 * arm)),
            *((-1, -2 * arm), (-2 * arm, -2 * arm)),
        ],
    }
    return (np.array(corners[shape]) / 2,)


def _fitted(points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    """The polygon centred in the unit box and scaled to touch it."""
    low, high = points.min(axis=0), points.max(axis=0)
    return (points - (low + high) / 2) / (high - low).max()


def mask(shape: str, box: ObjectBox, *, size: int) -> tuple[Image.Image, tuple[int, int]]:
    """The coverage of each pixel by a shape, and the box's left upper corner; in pixels."""
    left, top = (int(np.floor((c - box.extent / 2) * size)) - 1 for c in (box.x, box.y))
    side = int(np.ceil(box.extent * size)) + 3
    image = Image.new("L", (side * SUPERSAMPLE, side * SUPERSAMPLE))
    centre = np.array([box.x * size - left, box.y * size - top])
    for polygon, ink in zip(outlines(shape), (255, 0), strict=False):
        points = (polygon * (box.extent * size) + centre) * SUPERSAMPLE - 0.5
        ImageDraw.Draw(image).polygon(points.ravel().tolist(), fill=ink)
    return image.reduce(SUPERSAMPLE), (left, top)


def _pattern(fill: str, offset: tuple[float, float], *, side: int, period: float) -> Image.Image:
    """The coverage of a box by the tint: stripes, or staggered dots; `offset` is the centre's."""
    x, y = ((np.arange(side) + 0.5 - centre) / period for centre in offset)
    if fill == "striped":
        depth = TINT_SHARE / 2 - np.abs(y % 1 - 0.5)[:, None] + 0 * x
    else:
        rows, columns = y[:, None] % 2, x[None, :] % 2
        lattice = ((0, 0), (0, 2), (1, 1), (2, 0), (2, 2))
        distances = [np.hypot(rows - row, columns - column) for row, column in lattice]
        depth = DOT_RADIUS - np.minimum.reduce(distances)
    return Image.fromarray(np.uint8(255 * np.clip(depth * period + 0.5, 0, 1)))


def layout(scene: Scene, rng: np.random.Generator) -> tuple[ObjectBox, ...]:
    """Place the scene's objects: jittered, inside the image, apart along the relation."""
    if len(scene.shapes) == 1:
        extent = rng.uniform(*SINGLE_EXTENT[scene.shapes[0].size])
        reach = min(0.5 - extent / 2 - MARGIN, SINGLE_JITTER)
        x, y = 0.5 + rng.uniform(-reach, reach, size=2)
        return (ObjectBox(x, y, extent),)
    extents = [rng.uniform(*PAIR_EXTENT[shape.size]) for shape in scene.shapes]
    first_is_before = scene.relation in ("above", "to the left of")
    before, after = extents if first_is_before else extents[::-1]
    spare = 1 - 2 * MARGIN - GAP - before - after
    start, gap = spare * np.diff([0, *np.sort(rng.random(2))])  # the rest is the far margin
    near = MARGIN + start + before / 2
    far = MARGIN + start + before + GAP + gap + after / 2
    along = (near, far) if first_is_before else (far, near)
    across = 0.5 + rng.uniform(-PAIR_JITTER, PAIR_JITTER, size=2)
    upright = scene.relation in ("above", "below")
    x, y = (across, along) if upright else (along, across)
    return tuple(ObjectBox(x[i], y[i], extents[i]) for i in range(2))


def render(
    scene: Scene, rng: np.random.Generator, *, size: int = 256
) -> UInt8[np.ndarray, "size size 3"]:
    """The scene as an image; `rng` moves the objects a little.

    Shapes: (size, size, 3).
    """
    shrink = -(-FINEST // size)
    fine = size * shrink
    canvas = Image.new("RGB", (fine, fine), RGB[scene.background])
    for shape, box in zip(scene.shapes, layout(scene, rng), strict=True):
        _draw(canvas, shape, box, scene.background)
    return np.asarray(canvas.reduce(shrink) if shrink > 1 else canvas)


def _draw(canvas: Image.Image, shape: Shape, box: ObjectBox, background: str) -> None:
    coverage, (left, top) = mask(shape.shape, box, size=canvas.width)
    layer = Image.new("RGB", coverage.size, RGB[shape.colour])
    if shape.fill != "solid":
        offset = (box.x * canvas.width - left, box.y * canvas.width - top)
        period = PERIOD[shape.fill] * canvas.width
        dots = _pattern(shape.fill, offset, side=coverage.width, period=period)
        layer.paste(tint(shape.colour, background), (0, 0), dots)
    canvas.paste(layer, (left, top), coverage)
