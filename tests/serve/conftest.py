"""A cascade of two small stages with random weights, and an engine that serves it."""

from collections.abc import Iterator

import pytest
from small_cascade import make_stage

from imagen_jax import config
from imagen_jax.imagen import Imagen
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
