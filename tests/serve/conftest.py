"""A cascade of two small stages with random weights, and an engine that serves it."""

import dataclasses
from collections.abc import Iterator

import pytest
from small_cascade import make_stage

from imagen_jax import config, models
from imagen_jax.imagen import Imagen
from imagen_jax.sample.stage_program import TrainedStage
from imagen_jax.serve.engine import Engine
from imagen_jax.serve.metrics import Metrics
from imagen_jax.text.encoder import TextEncoder


@pytest.fixture(scope="session")
def tiny() -> Imagen:
    encoder = TextEncoder.from_config(config.load("tiny/base8")[0].text)
    return Imagen(
        (make_stage("tiny/base8"), make_stage("tiny/sr16")), encoder, dataset="shapes/tiny"
    )


@pytest.fixture(scope="session")
def engine(tiny: Imagen) -> Iterator[Engine]:
    """One that runs, for all tests: batches of 8."""
    started = Engine(tiny, batch_size=8, max_queue=64, metrics=Metrics())
    started.start()
    yield started
    started.stop()


@dataclasses.dataclass(frozen=True)
class Silent:
    """A network that always answers zero, and compiles at once."""

    def apply(self, variables, *arguments, method: str | None = None):
        if method == "encode_text":
            return models.Conditioning(kv={}, text_mask=arguments[1], pooled=None)
        return 0 * arguments[0]


@pytest.fixture(scope="session")
def quick() -> Iterator[Engine]:
    """An engine that runs, of one stage of 8 px whose images are of their seed alone."""
    experiment = config.load("tiny/base8")[0]
    stage = TrainedStage(stage=experiment.stage, module=Silent(), params={})
    imagen = Imagen((stage,), TextEncoder.from_config(experiment.text), dataset="shapes/tiny")
    started = Engine(imagen, batch_size=8, max_queue=64, metrics=Metrics())
    started.start()
    yield started
    started.stop()
