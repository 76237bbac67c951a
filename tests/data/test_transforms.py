"""Area downsampling against its closed form; crops that keep low and high windows together."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image

from imagen_jax.config import Framing
from imagen_jax.data.images import transforms
from imagen_jax.data.images.crop import crop_generator, frame_image
from imagen_jax.image import to_float, to_uint8


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def box_mean(pixels: np.ndarray, factor: int) -> np.ndarray:
    """The definition, in float64 and one pixel at a time."""
    height, width, channels = pixels.shape
    result = np.zeros((height // factor, width // factor, channels))
    for row, column in np.ndindex(result.shape[:2]):
        box = pixels[row * factor : (row + 1) * factor, column * factor : (column + 1) * factor]
        result[row, column] = box.astype(np.float64).mean(axis=(0, 1))
    return result


def places(side: int) -> np.ndarray:
    """A picture whose pixels tell where they are: (row, column, 0)."""
    row, column = np.mgrid[:side, :side].astype(np.uint8)
    return np.stack([row, column, np.zeros_like(row)], axis=-1)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_uint8_is_the_rounded_mean_of_each_box(factor: int) -> None:
    pixels = noise(8, 16, 3)
    expected = np.floor(box_mean(pixels, factor) + 0.5)
    small = transforms.area_downsample(pixels, factor)
    assert small.dtype == np.uint8
    np.testing.assert_array_equal(small, expected)


@pytest.mark.parametrize("factor", [2, 4])
def test_floats_are_not_rounded(factor: int) -> None:
    pixels = noise(8, 16, 3).astype(np.float32)
    small = transforms.area_downsample(pixels, factor)
    assert small.dtype == np.float32
    np.testing.assert_allclose(small, box_mean(pixels, factor), rtol=1e-6)


def test_detail_above_nyquist_becomes_grey() -> None:
    row, column = np.mgrid[:64, :64]
    for pattern in ((row + column) % 2, column % 2, row % 2):
        pixels = np.repeat(255 * pattern[..., None], 3, axis=-1).astype(np.uint8)
        for factor in (2, 4, 16):
            assert (transforms.area_downsample(pixels, factor) == 128).all()  # 127.5, rounded


def test_ramp_stays_where_it_is() -> None:
    ramp = np.broadcast_to(np.arange(32, dtype=np.float32)[None, :, None], (8, 32, 1))
    centres = np.arange(8) * 4 + 1.5
    small = transforms.area_downsample(np.ascontiguousarray(ramp), 4)
    np.testing.assert_array_equal(small[:, :, 0], np.broadcast_to(centres, (2, 8)))


def test_range_and_constants_are_kept() -> None:
    for level in (0, 1, 127, 255):
        pixels = np.full((16, 16, 3), level, np.uint8)
        assert (transforms.area_downsample(pixels, 8) == level).all()
    edges = np.where(noise(16, 16, 3) < 128, 0, 255).astype(np.uint8)
    small = transforms.area_downsample(edges.astype(np.float32) / 127.5 - 1, 2)
    assert small.min() >= -1
    assert small.max() <= 1


def test_batch_equals_one_by_one() -> None:
    batch = noise(3, 8, 8, 3)
    alone = [transforms.area_downsample(pixels, 2) for pixels in batch]
    np.testing.assert_array_equal(transforms.area_downsample(batch, 2), alone)


@pytest.mark.parametrize("factor", [0, 3, 16])
def test_factor_that_does_not_divide_is_refused(factor: int) -> None:
    with pytest.raises(ValueError, match=f"factor={factor} does not divide .* 8x8"):
        transforms.area_downsample(noise(8, 8, 3), factor)


def test_decode_inverts_encode() -> None:
    pixels = noise(16, 16, 3)
    np.testing.assert_array_equal(transforms.decode_image(transforms.encode(pixels)), pixels)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_other_modes_become_rgb(mode: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (102, 102, 102)).convert(mode).save(file, "PNG")
    pixels = transforms.decode_image(file.getvalue())
    np.testing.assert_array_equal(pixels, np.full((4, 4, 3), 102, np.uint8))


@pytest.mark.parametrize("keep", [0, 30, 200, 700])
def test_picture_cut_short_is_refused(keep: int) -> None:
    whole = transforms.encode(noise(16, 16, 3))
    assert len(whole) > 750
    with pytest.raises(ValueError, match=f"{keep} bytes are no complete image"):
        transforms.decode_image(whole[:keep])


def with_chunk(png: bytes, kind: bytes, data: bytes, *, at: int = 33, to: int = 33) -> bytes:
    """A PNG with a chunk of a right checksum in the place of its bytes `at` to `to`."""
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return png[:at] + struct.pack(">I", len(data)) + kind + data + checksum + png[to:]


@pytest.mark.parametrize("side", [17, 9_999, 15_000, 2**31 - 1])  # Pillow warns, then refuses
def test_a_picture_of_another_size_is_refused_before_it_is_decoded(side: int) -> None:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    png = with_chunk(transforms.encode(noise(16, 16, 3)), b"IHDR", header, at=8)
    with pytest.raises(ValueError, match=r"no complete image: (it has the size|Image size)"):
        transforms.decode_image(png, side=16)


@pytest.mark.parametrize("kind", [b"pHYs", b"gAMA", b"tRNS", b"iCCP", b"IHDR", b"fcTL", b"eXIf"])
def test_damaged_pictures_are_decoded_or_refused(kind: bytes) -> None:
    rng = np.random.default_rng(0)
    png, refused = transforms.encode(noise(16, 16, 3)), 0
    for _ in range(400):
        at = int(rng.choice([33, len(png) - 12]))  # behind the header or before the end
        damaged = with_chunk(png, kind, rng.bytes(rng.integers(12)), at=at, to=at)
        if rng.integers(2):
            damaged = bytearray(damaged)
            damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        try:
            assert transforms.decode_image(bytes(damaged), side=16).shape == (16, 16, 3)
        except ValueError:
            refused += 1
    assert refused > 100


def test_crop_reaches_every_corner_on_the_grid_and_no_other() -> None:
    rng = np.random.default_rng(0)
    crops = [transforms.random_crop(places(16), rng, side=8, multiple=4) for _ in range(200)]
    corners = {(int(crop[0, 0, 0]), int(crop[0, 0, 1])) for crop in crops}
    assert corners == {(row, column) for row in (0, 4, 8) for column in (0, 4, 8)}
    for crop in crops[:9]:
        np.testing.assert_array_equal(crop - crop[0, 0], places(8))


def test_crop_larger_than_the_picture_is_refused() -> None:
    with pytest.raises(ValueError, match=r"crop of 32 pixels does not fit .* 16x16"):
        transforms.random_crop(noise(16, 16, 3), np.random.default_rng(0), side=32, multiple=4)


@pytest.mark.parametrize("factor", [2, 4])
def test_low_window_matches_the_high_one_on_every_crop(factor: int) -> None:
    pixels, rng = noise(32, 32, 3), np.random.default_rng(0)
    whole = transforms.area_downsample(pixels, factor)
    for _ in range(20):
        low, high = transforms.low_high(pixels, rng, factor=factor, crop=16)
        assert high.shape == (16, 16, 3)
        assert low.shape == (16 // factor, 16 // factor, 3)
        target = box_mean(high, factor)
        assert np.corrcoef(low.ravel(), target.ravel())[0, 1] > 0.999
        windows = np.lib.stride_tricks.sliding_window_view(whole, low.shape).reshape(-1, low.size)
        assert (windows == low.ravel()).all(axis=1).any()  # cropping first changed no pixel


def test_low_high_without_crop_is_the_whole_picture() -> None:
    pixels = noise(16, 16, 3)
    low, high = transforms.low_high(pixels, np.random.default_rng(0), factor=4, crop=None)
    np.testing.assert_array_equal(high, pixels)
    np.testing.assert_array_equal(low, transforms.area_downsample(pixels, 4))


def test_pyramid_keeps_the_png_and_downsamples_the_rest_from_it() -> None:
    pixels = noise(64, 64, 3)
    png = transforms.encode(pixels)
    images = transforms.pyramid(png, (4, 16, 64))
    assert list(images) == [4, 16, 64]
    assert images[64] is png
    for side in (4, 16):
        expected = transforms.area_downsample(pixels, 64 // side)
        np.testing.assert_array_equal(transforms.decode_image(images[side]), expected)


def test_pyramid_makes_png_of_other_formats() -> None:
    file = io.BytesIO()
    Image.new("RGBA", (8, 8), (10, 20, 30, 255)).save(file, "PNG")
    images = transforms.pyramid(file.getvalue(), (4, 8))
    for side in (4, 8):
        assert Image.open(io.BytesIO(images[side])).mode == "RGB"
        assert (transforms.decode_image(images[side]) == (10, 20, 30)).all()


@pytest.mark.parametrize(("height", "width"), [(16, 8), (24, 24), (8, 8)])
def test_pyramid_refuses_what_it_cannot_halve(height: int, width: int) -> None:
    with pytest.raises(ValueError, match=rf"{width}x{height} pixels cannot become .*\[4, 16\]"):
        transforms.pyramid(transforms.encode(noise(height, width, 3)), (4, 16))


def photo(width: int, height: int, **options) -> bytes:
    """A smooth JPEG of any size."""
    file = io.BytesIO()
    small = Image.fromarray(noise(6, 8, 3))
    small.resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", **options)
    return file.getvalue()


@pytest.mark.parametrize("crop", ["centre", "random"])
@pytest.mark.parametrize("sizes", [(64,), (16, 64), (64, 16, 32), (7, 21, 63)])
def test_any_picture_becomes_squares_that_show_the_same(crop: str, sizes: tuple) -> None:
    framing = Framing(crop=crop, flip=True)
    for size in ((200, 150), (150, 333), (64, 64)):
        images = transforms.pyramid(photo(*size), sizes, framing=framing, index=3)
        assert tuple(images) == sizes
        largest = transforms.decode_image(images[max(sizes)], side=max(sizes))
        for side in sizes:
            expected = transforms.area_downsample(largest, max(sizes) // side)
            np.testing.assert_array_equal(
                transforms.decode_image(images[side], side=side), expected
            )


def test_a_framed_pyramid_is_the_frame_drawn_for_its_index() -> None:
    framing = Framing(crop="random")
    image, found = photo(400, 64), set()
    for index in range(8):
        drawn = frame_image(image, 64, framing=framing, rng=crop_generator(framing, index))
        (png,) = transforms.pyramid(image, (64,), framing=framing, index=index).values()
        np.testing.assert_array_equal(transforms.decode_image(png), drawn)
        found.add(png)
    assert len(found) > 4


def test_framing_keeps_a_png_that_needs_nothing() -> None:
    png = transforms.encode(noise(64, 64, 3))
    framed = transforms.pyramid(png, (4, 16, 64), framing=Framing(crop="random"))
    assert framed[64] is png
    assert framed == transforms.pyramid(png, (4, 16, 64))
    assert transforms.pyramid(png, (32,), framing=Framing()) == transforms.pyramid(png, (32,))


@pytest.mark.parametrize("change", ["turned", "clear", "grey", "JPEG"])
def test_a_file_that_is_not_just_its_pixels_is_not_kept(change: str) -> None:
    image, file, exif = Image.fromarray(noise(16, 16, 3)), io.BytesIO(), Image.Exif()
    if change == "turned":
        exif[ExifTags.Base.Orientation] = 3
    image = image.convert("L") if change == "grey" else image
    clear = {"transparency": image.getpixel((0, 0))} if change == "clear" else {}
    image.save(file, "JPEG" if change == "JPEG" else "PNG", exif=exif, **clear)
    for framing in (None, Framing()):
        (made,) = transforms.pyramid(file.getvalue(), (16,), framing=framing).values()
        kept = Image.open(io.BytesIO(made))
        assert (kept.format, kept.mode, kept.info) == ("PNG", "RGB", {})
        np.testing.assert_array_equal(kept, transforms.decode_image(file.getvalue()))


def test_sizes_that_do_not_divide_the_largest_are_refused() -> None:
    with pytest.raises(ValueError, match=r"16x16 pixels cannot become .*\[5, 16\]"):
        transforms.pyramid(photo(200, 150), (5, 16), framing=Framing())


def test_unscale_inverts_scale_on_all_pixels() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    image = np.asarray(to_float(pixels))
    np.testing.assert_allclose(image.ravel(), np.linspace(-1, 1, 256), atol=1e-6)
    np.testing.assert_array_equal(to_uint8(to_float(pixels)), pixels)
