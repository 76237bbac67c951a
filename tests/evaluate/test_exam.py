"""Exams: whose captions are new, of both kinds, and match their real pictures."""

import numpy as np
import pytest

from imagen_jax.data.images import transforms
from imagen_jax.data.synthetic.shapes.captions import PREFIXES, parse
from imagen_jax.evaluate.eval_set import balanced_eval_set, draw_eval_set


def test_half_of_the_captions_have_one_object() -> None:
    exam = balanced_eval_set("shapes/full", count=8, seed=3, size=64)
    assert [len(parse(caption).shapes) for caption in exam.captions] == [1] * 4 + [2] * 4
    assert exam.real.shape == (8, 64, 64, 3)
    again = balanced_eval_set("shapes/full", count=8, seed=3, size=64)
    assert again.captions == exam.captions
    np.testing.assert_array_equal(again.real, exam.real)
    assert balanced_eval_set("full", count=8, seed=4, size=64).captions != exam.captions


def test_wordings_can_be_told_apart() -> None:
    plain = balanced_eval_set("shapes/full", count=40, seed=0, size=16, plain=1.0).captions
    free = balanced_eval_set("shapes/full", count=40, seed=0, size=16, plain=0.0).captions
    prefixes = tuple(p for p in PREFIXES if p)
    assert not any(caption.startswith(prefixes) for caption in plain)
    assert all(caption.endswith(" background") for caption in plain)
    assert sum(caption.startswith(prefixes) for caption in free) > 10


@pytest.mark.parametrize("count", [0, 7])
def test_an_uneven_number_of_pictures_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"images={count} must be even"):
        balanced_eval_set("shapes/full", count=count, seed=0, size=16)


def test_only_shapes_are_judged() -> None:
    with pytest.raises(ValueError, match="no dataset 'emoji'"):
        balanced_eval_set("emoji", count=2, seed=0, size=16)


def test_kinds_tell_one_object_from_two() -> None:
    exam = draw_eval_set("shapes/full", "held_out", count=24, seed=1, size=32)
    kinds = exam.kinds()
    assert sorted(kinds["one"] + kinds["two"]) == list(range(24))
    assert all(len(parse(exam.captions[i]).shapes) == 1 for i in kinds["one"])
    assert balanced_eval_set("shapes/full", count=4, seed=0, size=16).kinds() == {
        "one": [0, 1],
        "two": [2, 3],
    }


def test_real_pictures_are_averaged_down() -> None:
    exam = draw_eval_set("shapes/tiny", "validation", count=3, seed=1, size=64)
    np.testing.assert_array_equal(exam.images_of_side(16), transforms.area_downsample(exam.real, 4))


def test_draw_refuses_other_data() -> None:
    with pytest.raises(ValueError, match="no dataset 'emoji'"):
        draw_eval_set("emoji", "validation", count=2, seed=0, size=16)
