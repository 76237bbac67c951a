"""The geometric test of crescents: on their drawings, on the box's shapes, and on neither."""

import numpy as np
import pytest
from lib import crescents

from imagen_jax.data.images.transforms import area_downsample
from imagen_jax.evaluate import eval_set

SIDES = (64, 32)


def drawn_at(side: int, crescent: crescents.Crescent, seed: int = 0) -> np.ndarray:
    pixels = crescents.draw(crescent, np.random.default_rng(seed))
    return np.asarray(area_downsample(pixels[None], len(pixels) // side)[0])


@pytest.mark.parametrize("side", SIDES)
def test_every_drawing_is_one_in_its_colours(side: int) -> None:
    wanted = [*crescents.drawn(), *crescents.others()]
    images = [drawn_at(side, crescent, seed) for seed, crescent in enumerate(wanted)]
    assert crescents.share_shown(images, wanted) == {"crescents": 1.0, "coloured": 1.0}
    # Another's colours are not its own.
    assert crescents.share_shown(images, wanted[1:] + wanted[:1])["coloured"] < 0.5


@pytest.mark.parametrize("side", SIDES)
def test_none_of_the_boxs_shapes_is_one(side: int) -> None:
    exam = eval_set.draw_eval_set("shapes/full", "validation", count=60, seed=3, size=side)
    assert not any(crescents.look(image).is_crescent for image in exam.real)


def test_what_else_is_near_a_crescent_is_none() -> None:
    image = drawn_at(64, crescents.Crescent("red", "white"))
    assert crescents.look(image).is_crescent
    two = np.concatenate([image[:, 10:42], image[:, 10:42]], axis=1)
    for other in (image[:, ::-1], np.rot90(image), two, np.full_like(image, 250)):
        assert not crescents.look(other).is_crescent
    half = image.copy()
    half[32:] = image[0, 0]
    assert not crescents.look(half).is_crescent


def test_captions_and_colours_of_drawings_and_others_are_apart() -> None:
    assert len(crescents.drawn()) == 12
    assert not set(crescents.drawn()) & set(crescents.others())
    assert all(c.colour != c.background for c in crescents.others())
    said = crescents.Crescent("red", "gray").caption("sks crescent")
    assert said == "a large red sks crescent on a gray background"


def test_images_are_written_with_their_captions(tmp_path) -> None:
    crescents.write_images(tmp_path, word="sks crescent", seed=1)
    texts = sorted(file.read_text() for file in tmp_path.glob("*.txt"))
    assert len(texts) == len(list(tmp_path.glob("*.png"))) == 12
    assert texts == sorted(c.caption("sks crescent") for c in crescents.drawn())
