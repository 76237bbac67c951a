"""Fixtures of the experiments' tests: data that is built once, a cascade of random weights."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from imagen_jax import config, models
from imagen_jax.imagen import Imagen
from imagen_jax.sample.stage_program import TrainedStage
from imagen_jax.text.encoder import TextEncoder

FAST = (
    "test_command",
    "test_crescents",
    "test_emoji_judging",
    "test_results",
    "test_variants",
)  # left in the default suite


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder that sample or train."""
    here = Path(__file__).parent
    for item in items:
        if item.path.parent == here and item.path.stem not in FAST:
            item.add_marker(pytest.mark.experiments)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> Path:
    """Datasets and encodings: what one test builds is not built again."""
    return tmp_path_factory.getbasetemp() / "experiments_data"


@pytest.fixture(scope="session")
def tiny() -> Imagen:
    """The first two stages of configs/tiny, 8 and 16 px."""
    experiments = config.load("tiny")[:2]
    text = experiments[0].text
    encoder = TextEncoder.load(text.encoder, max_length=text.max_length)
    return Imagen(tuple(map(_painter, experiments)), encoder, experiments, (0, 0))


@pytest.fixture(scope="session")
def base16() -> Imagen:
    """The first stage of the miniature cascade, 16 px: the smallest that the oracle judges."""
    experiment = config.load(str(Path(__file__).parent / "miniature"))[0]
    text = experiment.text
    encoder = TextEncoder.load(text.encoder, max_length=text.max_length)
    return Imagen((_painter(experiment),), encoder, (experiment,), (0,))


@pytest.fixture(scope="session")
def base32() -> Imagen:
    """The same at 32 px, at which emoji are judged."""
    experiment = config.load(str(Path(__file__).parent / "miniature"))[0]
    model = dataclasses.replace(experiment.stage.model, attention_at=(8,))
    stage = dataclasses.replace(experiment.stage, name="base32", size=32, model=model)
    experiment = dataclasses.replace(experiment, stage=stage)
    text = experiment.text
    encoder = TextEncoder.load(text.encoder, max_length=text.max_length)
    return Imagen((_painter(experiment),), encoder, (experiment,), (0,))


def _painter(experiment: config.Experiment) -> TrainedStage:
    sampler = dataclasses.replace(experiment.stage.sampler, steps=2)
    stage = dataclasses.replace(experiment.stage, sampler=sampler)
    text, module = experiment.text, models.build(stage.model)
    shapes = jax.eval_shape(
        lambda key: models.init(
            module, key, stage=stage, text_width=text.width, text_length=text.max_length
        ),
        jax.random.key(0),
    )
    draw = np.random.default_rng(0)  # compiling the initialisers would take most of the time
    params = jax.tree.map(
        lambda p: jax.device_put(np.float32(draw.normal(0, 0.2, p.shape))), shapes
    )
    return TrainedStage(stage=stage, module=module, params=params)
