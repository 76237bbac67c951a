"""Encoded images, as tars, folders, tables and options of sampling have them."""

import io
from pathlib import Path

import numpy as np
from fuzz.mutator import Files
from fuzz.target import Target
from PIL import Image

from imagen_jax.data.images import decode

HOSTILE = Path(__file__).parents[2] / "hostile" / "inputs"
WIDTH, HEIGHT = 40, 24
KINDS: tuple[tuple[str, str, dict[str, object]], ...] = (
    ("RGB", "JPEG", {}),
    ("RGB", "JPEG", {"progressive": True}),
    (
        "L",
        "JPEG",
        {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"},
    ),
    ("CMYK", "JPEG", {}),
    ("RGB", "PNG", {}),
    ("RGBA", "PNG", {}),
    ("P", "PNG", {"transparency": 3}),
    ("1", "PNG", {}),
    ("I;16", "PNG", {}),
    ("RGB", "WEBP", {}),
    ("RGBA", "WEBP", {"lossless": True}),
    ("P", "GIF", {}),
    ("RGB", "BMP", {}),
)


def _encode(mode: str, kind: str, options: dict[str, object]) -> bytes:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    image = Image.fromarray(pixels)
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    file = io.BytesIO()
    image.convert(mode).save(file, kind, **options)
    return file.getvalue()


def _animation(kind: str) -> bytes:
    frames = [Image.new("RGB", (8, 8), (n * 60, 9, 9)) for n in range(3)]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    return file.getvalue()


def _corpus(_: Path) -> list[Files]:
    images = [_encode(*kind) for kind in KINDS]
    images += [_animation("GIF"), _animation("WEBP"), (HOSTILE / "hand-100MP.webp").read_bytes()]
    return [{"image": image} for image in images]


def _parse(folder: Path) -> None:
    file = folder / "image"
    data = file.read_bytes() if file.is_file() else b""
    header = decode.read_header(data)
    shown = decode.load_image(data, side=2).image
    assert shown.mode == "RGB"
    pixels = decode.decode_image(data)
    assert pixels.dtype == np.uint8
    assert pixels.shape[:2] in ((header.height, header.width), (header.width, header.height))


TARGETS = [Target(name="image", corpus=_corpus, parse=_parse)]
