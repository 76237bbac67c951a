"""Decoding against Pillow's own full decoding, and against the formulas of colour and alpha."""

import io
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageOps

from imagen_jax.data.images import decode
from imagen_jax.data.images.decode import UnreadableImageError

WIDTH, HEIGHT = 45, 30
FAULTS = Path(__file__).parent.parent / "fixtures" / "faults"


def picture(width: int = WIDTH, height: int = HEIGHT, seed: int = 0) -> Image.Image:
    """Smooth in colour, with no symmetry."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def saved(image: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[ExifTags.Base.Orientation] = orientation
    return made


def full(image: bytes) -> np.ndarray:
    """Pillow's own decoding, turned by Pillow."""
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(image))).convert("RGB"))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_made_upright(form: str, orientation: int) -> None:
    image = saved(picture(), form, exif=exif(orientation))
    found = decode.decode_image(image)
    assert found.shape == ((WIDTH, HEIGHT, 3) if orientation > 4 else (HEIGHT, WIDTH, 3))
    np.testing.assert_array_equal(found, full(image))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_a_scaled_picture_has_of_the_file_is_turned_with_it(orientation: int) -> None:
    image = saved(picture(8 * 9 + 5, 8 * 8 + 3), "JPEG", exif=exif(orientation))
    found = decode.load_image(image, side=4)
    extents = (9 + 5 / 8, 8 + 3 / 8)
    width, height = extents[::-1] if orientation > 4 else extents
    assert found.image.size == (np.ceil(width), np.ceil(height))
    left, top, right, bottom = found.box
    assert (right - left, bottom - top) == (width, height)
    # What reaches beyond the file came from its right and its lower edge.
    corner = Image.new("L", (2, 2), 0)
    corner.putpixel((1, 1), 255)
    turned = Image.open(io.BytesIO(saved(corner, "PNG", exif=exif(orientation))))
    row, column = np.argwhere(np.asarray(ImageOps.exif_transpose(turned)) == 255)[0]
    assert (left > 0, top > 0) == (column == 0, row == 0)


@pytest.mark.parametrize("side", [1, 8, 16, 17, 31, 32, 33, 63, 64, 65, 127, 200, 300])
@pytest.mark.parametrize("short", [256, 257])
def test_a_jpeg_is_never_scaled_below_what_is_wanted(side: int, short: int) -> None:
    found = decode.load_image(saved(picture(400, short), "JPEG"), side=side)
    factor = 400 / (found.box[2] - found.box[0])
    least = side if short == 8 * side else 2 * side
    assert factor == max(f for f in (8, 4, 2, 1) if short // f >= least or f == 1)
    assert found.image.size == (np.ceil(400 / factor), np.ceil(short / factor))


def test_a_jpeg_of_eight_times_the_side_has_the_means_of_its_blocks() -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (192, 256, 3), dtype=np.uint8))
    image = saved(noise, "JPEG", quality=95, subsampling=0)
    small = np.asarray(decode.load_image(image, side=24).image).astype(float)
    means = full(image).reshape(24, 8, 32, 8, 3).mean(axis=(1, 3))
    assert small.std() > 5
    assert np.sqrt(np.mean((small - means) ** 2)) < 1.5  # whose levels stop at 0 and 255


PAINTS = [(0, 0, 0), (255, 255, 255), (255, 0, 0), (20, 200, 90)]


def inks(paint: tuple[int, ...]) -> tuple[int, ...]:
    """Cyan, magenta, yellow and no black."""
    return (*(255 - level for level in paint), 0)


@pytest.mark.parametrize("paint", PAINTS)
def test_cmyk_with_and_without_adobes_marker_is_what_pillow_shows(paint: tuple[int, ...]) -> None:
    adobe = saved(Image.new("CMYK", (16, 16), inks(paint)), "JPEG", quality=100)
    at = adobe.index(b"\xff\xeeAdobe"[:2])
    length = struct.unpack(">H", adobe[at + 2 : at + 4])[0]
    assert adobe[at + 4 : at + 9] == b"Adobe"
    for image in (adobe, adobe[:at] + adobe[at + 2 + length :]):
        found = decode.decode_image(image)
        np.testing.assert_array_equal(found, Image.open(io.BytesIO(image)).convert("RGB"))
        assert np.abs(found.astype(int) - paint).max() <= 2


@pytest.mark.parametrize("name", ["a.jpg", "b.jpg"])
def test_bare_cmyk_of_another_program_is_what_pillow_and_browsers_show(name: str) -> None:
    image = (FAULTS / "cmyk_bare" / name).read_bytes()
    expected = np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))
    for found in (decode.decode_image(image), np.asarray(decode.load_image(image, side=4).image)):
        assert np.abs(found.reshape(-1, 3).mean(0) - expected.reshape(-1, 3).mean(0)).max() <= 2
    np.testing.assert_array_equal(decode.decode_image(image), expected)
    assert expected[3, 3].tolist() == [216, 162, 130]


@pytest.mark.parametrize("paint", PAINTS)
def test_ycck_of_adobe(paint: tuple[int, ...]) -> None:
    # Its luminance and chroma are those of the ink; Pillow writes every level inverted.
    ink = Image.new("RGB", (1, 1), tuple(255 - level for level in paint))
    levels = (*ink.convert("YCbCr").getpixel((0, 0)), 255)
    image = bytearray(
        saved(Image.new("CMYK", (16, 16), tuple(255 - n for n in levels)), "JPEG", quality=100)
    )
    at = image.index(b"Adobe")
    image[at + 11] = 2  # the transform: YCCK
    assert np.abs(decode.decode_image(bytes(image)).astype(int) - paint).max() <= 3


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP"])
def test_grey_has_three_equal_channels(form: str) -> None:
    grey = picture().convert("L")
    found = decode.decode_image(saved(grey, form, **({"quality": 100} if form == "JPEG" else {})))
    expected = np.asarray(grey)[..., None].astype(int)
    assert np.abs(found - expected).max() <= (1 if form == "JPEG" else 0)


def test_grey_of_16_bits_is_rounded_to_8() -> None:
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    found = decode.decode_image(saved(Image.fromarray(levels), "PNG"))
    expected = np.floor(levels.astype(np.float64) * 255 / 65535 + 0.5)
    np.testing.assert_array_equal(found, np.repeat(expected[..., None], 3, axis=-1))
    clear = decode.decode_image(saved(Image.fromarray(levels), "PNG", transparency=300))
    assert (clear[levels == 300] == 255).all()
    np.testing.assert_array_equal(clear[levels != 300], found[levels != 300])


def on_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None].astype(np.float64) / 255
    return colour * share + 255 * (1 - share)


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_laid_on_white(mode: str, form: str) -> None:
    image = picture().convert(mode)
    image.putalpha(picture(seed=1).convert("L"))
    found = decode.decode_image(
        saved(image, form, **({"lossless": True} if form == "WEBP" else {}))
    )
    rgba = np.asarray(image.convert("RGBA"))
    assert np.abs(found - on_white(rgba[..., :3], rgba[..., 3])).max() <= 1


def test_a_palette_may_be_transparent_by_entry_or_by_level() -> None:
    palette = picture().quantize(16)
    opaque = np.asarray(palette.convert("RGB"))
    np.testing.assert_array_equal(decode.decode_image(saved(palette, "PNG")), opaque)
    alphas = np.arange(16, dtype=np.uint8) * 17
    found = decode.decode_image(saved(palette, "PNG", transparency=alphas.tobytes()))
    alpha = alphas[np.asarray(palette)]
    assert np.abs(found - on_white(opaque, alpha)).max() <= 1
    one = decode.decode_image(saved(palette, "GIF", transparency=3))
    cleared = np.asarray(palette) == 3
    assert cleared.any()
    assert (one[cleared] == 255).all()


def test_a_colour_may_be_transparent() -> None:
    image = picture()
    image.paste((1, 2, 3), (0, 0, 10, 10))
    found = decode.decode_image(saved(image, "PNG", transparency=(1, 2, 3)))
    assert (found[:10, :10] == 255).all()
    np.testing.assert_array_equal(found[10:], np.asarray(image)[10:])


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_decoded(form: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "white")]
    image = saved(frames[0], form, save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(image)).n_frames == 3
    assert np.abs(decode.decode_image(image).astype(int) - (255, 0, 0)).max() <= 2


def test_colour_profiles_are_left_alone() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    with_profile = saved(picture(), "PNG", icc_profile=profile)
    assert Image.open(io.BytesIO(with_profile)).info["icc_profile"] == profile
    np.testing.assert_array_equal(decode.decode_image(with_profile), np.asarray(picture()))


@pytest.mark.parametrize(
    "image",
    [
        b"",
        b"\0" * 100,
        b"a picture of a cat",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        saved(picture(), "TIFF"),
    ],
)
def test_what_is_no_picture_is_refused(image: bytes) -> None:
    for read in (decode.read_header, decode.decode_image, decode.load_image):
        with pytest.raises(
            UnreadableImageError, match=f"^{len(image)} bytes are no .*none of PNG, JPEG"
        ):
            read(image)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
def test_what_was_cut_short_is_refused(form: str, keep: float) -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    image = saved(noise, form)
    for side in (None, 8):
        decode.load_image(image, side=side)
        with pytest.raises(UnreadableImageError, match="are no complete image"):
            decode.load_image(image[: int(keep * len(image))], side=side)


def png_header(width: int, height: int) -> bytes:
    data = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + data + struct.pack(">I", zlib.crc32(data))


def test_more_pixels_than_allowed_are_refused_by_the_header() -> None:
    image = saved(Image.new("RGB", (20, 10)), "PNG")
    for read in (decode.read_header, decode.decode_image, decode.load_image):
        read(image, max_pixels=200)
        with pytest.raises(UnreadableImageError, match="it has 20x10 pixels, more than 199"):
            read(image, max_pixels=199)


@pytest.mark.parametrize("side", [10_001, 13_000, 60_000, 2**31 - 1])
def test_a_bomb_is_refused_before_it_is_decoded(side: int) -> None:
    bombs = [png_header(side, side) + saved(picture(), "PNG")[33:]]
    if side < 2**16:
        jpeg = bytearray(saved(picture(), "JPEG"))
        at = jpeg.index(b"\xff\xc0")
        jpeg[at + 5 : at + 9] = struct.pack(">HH", side, side)
        bombs.append(bytes(jpeg))
    for bomb in bombs:
        for read in (decode.read_header, decode.load_image):
            with pytest.raises(UnreadableImageError, match=r"more than 100,000,000|exceeds limit"):
                read(bomb)


def test_large_pictures_bring_no_warning() -> None:
    image = png_header(9_500, 10_000) + saved(picture(), "PNG")[33:]
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(io.BytesIO(image))
    assert decode.read_header(image) == ("PNG", 9_500, 10_000)  # warnings are errors in tests


def test_damaged_exif_neither_warns_nor_costs_the_picture() -> None:
    dangling = b"MM\0*" + b"\0\0\0\x08\xff\xff\1\2\0\2\0\0"
    images = [
        saved(picture(), "JPEG", exif=b"Exif\0\0" + block) for block in (dangling, b"no block")
    ]
    with pytest.warns(UserWarning, match="Corrupt EXIF data"):
        Image.open(io.BytesIO(images[0])).getexif()
    for image in images:
        assert decode.decode_image(image).shape == (HEIGHT, WIDTH, 3)


def test_warnings_of_others_are_as_they_were_whatever_threads_do() -> None:
    image, before = saved(picture(400, 400), "JPEG"), list(warnings.filters)
    threads = [
        threading.Thread(target=lambda: [decode.decode_image(image) for _ in range(20)])
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    with pytest.raises(UserWarning, match="of another module"):
        warnings.warn("of another module", UserWarning, stacklevel=1)
    for thread in threads:
        thread.join()
    assert warnings.filters == before


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_damaged_bytes_give_a_picture_or_unreadable(form: str) -> None:
    rng, refused = np.random.default_rng(0), 0
    options = {} if form in ("GIF", "BMP") else {"exif": exif(6)}
    whole = saved(picture(), form, **options)
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(rng.integers(1, 6)):
            end = 200 if rng.integers(2) else len(damaged)
            damaged[rng.integers(min(end, len(damaged)))] = rng.integers(256)
        try:
            assert decode.load_image(bytes(damaged), side=4).image.mode == "RGB"
        except UnreadableImageError:
            refused += 1
    assert 0 < refused < 300


def test_opacity_is_upright_and_full_without_alpha() -> None:
    pixels = np.zeros((2, 3, 4), np.uint8)
    pixels[0, 0, 3] = 200
    image, exif = Image.fromarray(pixels), Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    for kind, turned in (("PNG", exif), ("WEBP", Image.Exif())):
        file = io.BytesIO()
        image.save(file, kind, exif=turned, **({"lossless": True} if kind == "WEBP" else {}))
        wanted = np.rot90(pixels[..., 3], -1) if kind == "PNG" else pixels[..., 3]
        np.testing.assert_array_equal(decode.decode_opacity(file.getvalue()), wanted)
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG")
    assert decode.decode_opacity(file.getvalue()).tolist() == [[255] * 3] * 2
    with pytest.raises(decode.UnreadableImageError):
        decode.decode_opacity(file.getvalue()[:40])
