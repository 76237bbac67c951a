"""Framing against exact area means in float64, over whatever part of a picture is kept."""

import io

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from imagen_jax.config import Filters, Framing
from imagen_jax.data.images import crop, decode, filters, transforms
from imagen_jax.data.images.decode import DecodedImage, ImageHeader

CENTRE, RANDOM = Framing(), Framing(crop="random")
FACTORS = [(512, 384), (300, 176), (500, 195), (400, 70), (511, 64)]  # sides before and after


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def natural(width: int, height: int, seed: int = 0) -> Image.Image:
    """Noise at all scales under a few hard-edged shapes."""
    draw, total = rng(seed), np.zeros((height, width, 3))
    for cells in (4, 8, 16, 32, 64, 128):
        noise = draw.standard_normal((cells, cells, 3)).astype(np.float32)
        planes = [Image.fromarray(np.ascontiguousarray(noise[..., c])) for c in range(3)]
        grown = [plane.resize((width, height), Image.Resampling.BICUBIC) for plane in planes]
        total += np.stack(grown, axis=-1) / cells
    pixels = np.clip(total / total.std() * 50 + 120, 0, 255).astype(np.uint8)
    for _ in range(6):
        top, left = draw.integers(height - 20), draw.integers(width - 20)
        pixels[top : top + height // 5, left : left + width // 6] = draw.integers(0, 256, 3)
    return Image.fromarray(pixels)


def area(pixels: np.ndarray, box: tuple[float, ...], side: int) -> np.ndarray:
    """The mean of what each pixel of the result covers of the picture."""

    def shares(count: int, start: float, end: float) -> np.ndarray:
        edges, at = np.linspace(start, end, side + 1), np.arange(count)
        covered = np.minimum(edges[1:, None], at + 1) - np.maximum(edges[:-1, None], at)
        return np.clip(covered, 0, None) * side / (end - start)

    left, top, right, bottom = box
    rows, columns = shares(pixels.shape[0], top, bottom), shares(pixels.shape[1], left, right)
    return np.einsum("ij,jkc,lk->ilc", rows, pixels.astype(np.float64), columns, optimize=True)


def rms(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.sqrt(np.mean((found.astype(np.float64) - expected) ** 2)))


def whole(image: Image.Image) -> DecodedImage:
    return DecodedImage(
        image, (0.0, 0.0, float(image.width), float(image.height)), is_rgb_png=False
    )


def jpeg(image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95, **options)
    return file.getvalue()


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5, 6, 7, 8, 16])
def test_a_whole_factor_gives_the_mean_of_each_box(factor: int) -> None:
    pixels = rng().integers(0, 256, (16 * factor, 16 * factor, 3), dtype=np.uint8)
    found = crop.crop_square(whole(Image.fromarray(pixels)), 16, framing=CENTRE, rng=rng())
    expected = area(pixels, (0, 0, 16 * factor, 16 * factor), 16)
    np.testing.assert_array_equal(found, np.floor(expected + 0.5 + 1e-9))


@pytest.mark.parametrize(("before", "after"), FACTORS)
def test_any_other_factor_comes_close_to_area_means(before: int, after: int) -> None:
    image = natural(before, before)
    found = crop.crop_square(whole(image), after, framing=CENTRE, rng=rng())
    expected = area(np.asarray(image), (0, 0, before, before), after)
    error = rms(found, expected)
    box = rms(np.asarray(image.resize((after, after), Image.Resampling.BOX)), expected)
    assert error < 0.9
    assert error < 0.9 * box


@pytest.mark.parametrize(("before", "after"), [*FACTORS, (128, 32), (96, 32)])
def test_nothing_overshoots(before: int, after: int) -> None:
    levels = np.where(rng().integers(0, 2, (before, before, 1)) > 0, 50, 200).astype(np.uint8)
    image = Image.fromarray(np.repeat(levels, 3, axis=-1))
    found = crop.crop_square(whole(image), after, framing=CENTRE, rng=rng())
    assert found.min() >= 50
    assert found.max() <= 200
    flat = crop.crop_square(
        whole(Image.new("RGB", image.size, (1, 127, 254))), after, framing=CENTRE, rng=rng()
    )
    assert (flat == (1, 127, 254)).all()


@pytest.mark.parametrize("size", [(512, 512), (640, 480), (375, 500), (1021, 767), (517, 333)])
@pytest.mark.parametrize("side", [32, 64, 200])
def test_a_jpeg_is_framed_as_its_whole_decoding(size: tuple[int, int], side: int) -> None:
    image = jpeg(natural(*size))
    found = crop.frame_image(image, side, framing=CENTRE, rng=rng())
    assert found.shape == (side, side, 3)
    full, scale = np.asarray(Image.open(io.BytesIO(image))), min(size) / side
    left, top = ((int(n / scale) - side) // 2 * scale for n in size)
    expected = area(full, (left, top, left + min(size), top + min(size)), side)
    assert rms(found, expected) < 1.2
    beside = area(full, (0, 0, min(size), min(size)), side)
    assert size[0] == size[1] or rms(found, beside) > 5  # another window would be noticed


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("side", [40, 100])
def test_a_turned_jpeg_is_framed_as_its_upright_decoding(orientation: int, side: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image = jpeg(natural(645, 331), exif=exif)
    found = crop.frame_image(image, side, framing=CENTRE, rng=rng())
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(image)))
    scale = 331 / side
    left, top = ((int(n / scale) - side) // 2 * scale for n in upright.size)
    expected = area(np.asarray(upright), (left, top, left + 331, top + 331), side)
    assert rms(found, expected) < 1.2


def places(width: int, height: int) -> Image.Image:
    """A picture whose pixels tell where they are: (column, row, 0)."""
    row, column = np.mgrid[:height, :width].astype(np.uint8)
    return Image.fromarray(np.stack([column, row, np.zeros_like(row)], axis=-1))


@pytest.mark.parametrize(("width", "height"), [(20, 13), (13, 20), (13, 13), (24, 13)])
def test_the_centre_is_kept(width: int, height: int) -> None:
    found = crop.crop_square(whole(places(width, height)), 13, framing=CENTRE, rng=rng())
    assert tuple(found[0, 0, :2]) == ((width - 13) // 2, (height - 13) // 2)
    assert (
        found[..., :2].astype(int) - found[0, 0, :2] == np.asarray(places(13, 13))[..., :2]
    ).all()


def test_a_random_window_reaches_every_place_equally_and_no_other() -> None:
    draw, image = rng(), whole(places(20, 16))
    corners = [
        tuple(crop.crop_square(image, 16, framing=RANDOM, rng=draw)[0, 0].tolist())
        for _ in range(1000)
    ]
    counts = np.array([corners.count((column, 0, 0)) for column in range(5)])
    assert counts.sum() == 1000
    assert np.abs(counts - 200).max() < 60


@pytest.mark.parametrize("factor", [2, 4])
def test_a_window_is_that_of_the_whole_resized_picture(factor: int) -> None:
    image, draw = natural(37 * factor + 1, 24 * factor), rng()
    pixels = np.asarray(image)[:, : 37 * factor]
    small = transforms.area_downsample(pixels, factor)
    windows = [small[:, left : left + 24] for left in range(37 - 24 + 1)]
    for _ in range(20):
        found = crop.crop_square(whole(image), 24, framing=RANDOM, rng=draw)
        assert any(np.array_equal(found, window) for window in windows)


def test_what_is_drawn_depends_on_seed_and_index_alone() -> None:
    image = whole(natural(300, 64))

    def frame(index: int, **options) -> bytes:
        drawn = Framing(crop="random", flip=True, **options)
        generator = crop.crop_generator(drawn, index)
        return crop.crop_square(image, 64, framing=drawn, rng=generator).tobytes()

    assert frame(5) == frame(5)
    assert len({frame(index) for index in range(20)}) > 15
    assert len({frame(5, crop_seed=seed) for seed in range(20)}) > 15


def test_pictures_are_mirrored_only_on_request_and_then_every_second() -> None:
    image = natural(40, 40)
    upright, draw = np.asarray(image), rng()
    flipped = Framing(flip=True)
    for _ in range(20):
        np.testing.assert_array_equal(
            crop.crop_square(whole(image), 40, framing=CENTRE, rng=draw), upright
        )
    mirrored = 0
    for _ in range(200):
        found = crop.crop_square(whole(image), 40, framing=flipped, rng=draw)
        mirrored += np.array_equal(found, upright[:, ::-1])
        assert np.array_equal(found, upright) or np.array_equal(found, upright[:, ::-1])
    assert 70 < mirrored < 130


@pytest.mark.parametrize("size", [(63, 200), (200, 63), (1, 1)])
def test_small_pictures_are_never_enlarged(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"{size[0]}x{size[1]} .* too small for a square of 64"):
        crop.frame_image(jpeg(Image.new("RGB", size)), 64, framing=CENTRE, rng=rng())


PHOTO = ImageHeader("JPEG", 640, 480)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, None),
        ({"min_side": 480}, None),
        ({"min_side": 481}, "smaller than 481 pixels"),
        ({"max_aspect": 1.34}, None),
        ({"max_aspect": 1.33}, "longer than 1.33 times its short side"),
        ({"min_caption_chars": 5}, None),
        ({"min_caption_chars": 6}, "caption of less than 6 characters"),
        ({"max_caption_chars": 5}, None),
        ({"max_caption_chars": 4}, "caption of more than 4 characters"),
        ({"min_side": 999, "max_caption_chars": 0}, "smaller than 999 pixels"),
    ],
)
def test_a_filter_says_why(options: dict, reason: str | None) -> None:
    for header in (PHOTO, ImageHeader("PNG", 480, 640)):  # neither the format nor turning counts
        assert filters.apply_filters(Filters(**options), header, [" a cat\n"])[1] == reason


def test_enormous_captions_are_dropped_unasked() -> None:
    assert filters.apply_filters(Filters(), PHOTO, ["x" * 10_000]) == (("x" * 10_000,), None)
    assert "more than 10000" in (filters.apply_filters(Filters(), PHOTO, ["x" * 10_001])[1] or "")


def test_captions_are_filtered_one_by_one() -> None:
    options = Filters(min_caption_chars=3, max_caption_chars=5, max_captions=2)
    captions = ["far too long", "a cat", "", "tom", "a dog"]
    assert filters.apply_filters(options, PHOTO, captions) == (("a cat", "tom"), None)
    kept, reason = filters.apply_filters(options, PHOTO, ["far too long", ""])
    assert not kept
    assert reason == "caption of more than 5 characters"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"min_side": -1}, "min_side=-1: must be a whole number of 0 or more"),
        ({"max_aspect": 0.5}, "max_aspect=0.5: .*drops every image"),
        ({"min_caption_chars": 9, "max_caption_chars": 8}, "leave no caption"),
    ],
)
def test_filters_that_nothing_passes_are_refused(options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Filters(**options)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="crop_seed=-1: must be a whole number from 0"):
        Framing(crop_seed=-1)


def test_filters_need_the_header_alone() -> None:
    image = jpeg(natural(640, 480))
    assert decode.read_header(image[:800]) == PHOTO
