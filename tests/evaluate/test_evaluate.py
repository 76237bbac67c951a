"""What cannot be evaluated is refused before anything is sampled."""

import dataclasses

import pytest

import imagen_jax
from imagen_jax.cli import evaluate as command
from imagen_jax.evaluate import evaluate
from imagen_jax.evaluate.settings import EvaluationSettings


@pytest.fixture(scope="module")
def imagen() -> imagen_jax.Imagen:
    return imagen_jax.load("shapes")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--pictures", "4"], "--pictures is --images now"),
        (["--sweep-pictures=4"], "--sweep-pictures is --sweep-images now"),
        (["--images", "0"], "--images 0: must be None or a whole number from 1 to 1000000"),
    ],
)
def test_bad_options_get_one_sentence(arguments: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=f"^{says}"):
        command.run(["shapes", *arguments])


def test_settings_have_ranges(imagen) -> None:
    with pytest.raises(ValueError, match="evaluation: batch_size=0: must be"):
        evaluate.evaluate(imagen, EvaluationSettings(batch_size=0))


def test_a_cascade_of_other_images_is_refused(imagen) -> None:
    (first, *others) = imagen.experiments
    data = dataclasses.replace(first.data, dataset="emoji/full")
    changed = (dataclasses.replace(first, data=data), *others)
    with pytest.raises(ValueError, match=r"trained on emoji/full; .* judges shapes only"):
        evaluate.check_cascade(dataclasses.replace(imagen, experiments=changed))


def test_images_that_are_too_small_are_refused(imagen, monkeypatch) -> None:
    monkeypatch.setattr(evaluate, "SMALLEST", 512)
    with pytest.raises(ValueError, match="judges images of 512 px and more only"):
        evaluate.evaluate(imagen)
