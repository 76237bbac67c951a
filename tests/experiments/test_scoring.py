"""Scores of images: captions of both kinds, and the error of the noise prediction."""

import dataclasses

import numpy as np
import pytest
from lib import scoring

from imagen_jax import config, models
from imagen_jax.evaluate.eval_set import balanced_eval_set
from imagen_jax.imagen import Imagen
from imagen_jax.sample.cascade import TrainedStage
from imagen_jax.text.encoder import TextEncoder


def test_kinds_are_scored_apart() -> None:
    exam = balanced_eval_set("shapes/full", count=12, seed=1, size=64)
    right = scoring.score(exam.real, exam)
    assert {kind: scores["colour"] for kind, scores in right.items()} == dict.fromkeys(
        ("one", "two", "both"), 1.0
    )
    # The two-object half gets the one-object half's images: wrong, and wrong there alone.
    images = np.concatenate([exam.real[:6], exam.real[:6]])
    mixed = scoring.score(images, exam)
    assert mixed["one"] == right["one"]
    assert mixed["two"]["all"] == 0.0
    assert mixed["both"]["all"] == mixed["one"]["all"] / 2
    cells = scoring.attribute_cells(mixed)
    assert cells["all, two"] == "0"
    assert cells["colour, one"] == "100"
    assert scoring.attribute_cells({"one": {}, "two": {}})["all, one"] == "-"


@dataclasses.dataclass(frozen=True)
class Silent:
    """A network that always answers zero."""

    def apply(self, variables, *arguments, method: str | None = None):
        if method == "encode_text":
            return models.Conditioning(kv={}, text_mask=arguments[1], pooled=None)
        return 0 * arguments[0]


@pytest.mark.parametrize("predicts", ["eps", "x0", "v"])
def test_the_noise_error_of_zero_is_its_closed_form(predicts: config.Predicts) -> None:
    experiment = config.load("tiny/base8")[0]
    diffusion = config.Diffusion(predicts=predicts)
    stage = dataclasses.replace(experiment.stage, diffusion=diffusion)
    exam = balanced_eval_set("shapes/full", count=6, seed=0, size=16)
    encoder = TextEncoder.load("t5_1_1_tiny", max_length=32)
    imagen = Imagen((TrainedStage(stage=stage, module=Silent(), params={}),), encoder)
    found = scoring.noise_error(imagen, exam, seed=0, batch_size=4)  # the last batch is filled up
    snr = np.exp(np.linspace(-6.0, 6.0, 13))
    alpha2, power = snr / (1 + snr), np.mean((exam.real / 127.5 - 1) ** 2)
    expected = {
        "eps": 1.0,  # the noise's variance
        "x0": np.mean(snr) * power,  # z / sigma - eps = alpha / sigma * x0
        "v": np.mean(alpha2**2 + alpha2 * (1 - alpha2) * power),  # sigma * z - eps
    }
    assert found == pytest.approx(expected[predicts], rel=1e-4 if predicts == "x0" else 0.03)


def test_super_resolution_has_no_noise_error() -> None:
    stage = config.load("tiny/sr16")[0].stage
    encoder = TextEncoder.load("t5_1_1_tiny", max_length=32)
    imagen = Imagen((TrainedStage(stage=stage, module=Silent(), params={}),), encoder)
    exam = balanced_eval_set("shapes/full", count=2, seed=0, size=16)
    with pytest.raises(ValueError, match="stage sr16 needs a low-resolution image"):
        scoring.noise_error(imagen, exam, seed=0, batch_size=2)
