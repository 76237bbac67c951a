"""A cascade of two small stages with random weights, and an engine that serves it."""

import contextlib
import dataclasses
from collections.abc import Iterator

import pytest
from small_cascade import SMALL_BASE, SMALL_SR, make_stage

from imagen_jax import config, models
from imagen_jax.imagen import Imagen
from imagen_jax.sample.stage_program import TrainedStage
from imagen_jax.serve.engine import Engine
from imagen_jax.serve.metrics import Metrics
from imagen_jax.text.encoder import TextEncoder


@dataclasses.dataclass(frozen=True)
class Silent:
    """A network that always answers zero, and compiles at once."""

    def apply(self, variables, *arguments, method: str | None = None):
        if method == "encode_text":
            return models.Conditioning(kv={}, text_mask=arguments[1], pooled=None)
        return 0 * arguments[0]


def make_silent(name: str) -> TrainedStage:
    """A stage of a config, with a silent network."""
    return TrainedStage(stage=config.load(name)[0].stage, module=Silent(), params={})


def make_encoder() -> TextEncoder:
    return TextEncoder.from_config(config.load("tiny/base8")[0].text)


@pytest.fixture(scope="session")
def tiny() -> Imagen:
    """A silent base stage, and one with random weights that enlarges."""
    stages = (make_silent("tiny/base8"), make_stage(SMALL_SR))
    return Imagen(stages, make_encoder(), dataset="shapes/tiny")


@pytest.fixture(scope="session")
def whole(tiny: Imagen) -> Imagen:
    """The same with random weights in both."""
    return dataclasses.replace(tiny, stages=(make_stage(SMALL_BASE), tiny.stages[1]))


@pytest.fixture(scope="session")
def distilled(tiny: Imagen) -> Imagen:
    """A base stage of three fixed steps whose guidance weight, 1, is an input."""
    stage = tiny.stages[0].stage
    how = config.Distillation(
        method="progressive", steps=3, max_guidance=6.0, distilled_teacher=True
    )
    sampler = dataclasses.replace(stage.sampler, kind="ddim", steps=3, guidance_weight=1.0)
    student = dataclasses.replace(stage, sampler=sampler, distillation=how)
    first = dataclasses.replace(tiny.stages[0], stage=student)
    fast = dataclasses.replace(tiny, stages=(first, *tiny.stages[1:]))
    return fast.with_sampler({"guidance_weight": 1.0})


@contextlib.contextmanager
def started(imagen: Imagen) -> Iterator[Engine]:
    """An engine that runs: batches of 8."""
    engine = Engine(imagen, batch_size=8, max_queue=64, metrics=Metrics())
    engine.start()
    yield engine
    engine.stop()


@pytest.fixture(scope="session")
def engine(tiny: Imagen) -> Iterator[Engine]:
    """One for all tests."""
    with started(tiny) as found:
        yield found


@pytest.fixture(scope="session")
def whole_engine(whole: Imagen) -> Iterator[Engine]:
    with started(whole) as found:
        yield found


@pytest.fixture(scope="session")
def quick() -> Iterator[Engine]:
    """An engine of one stage of 8 px whose images are of their seed alone."""
    imagen = Imagen((make_silent("tiny/base8"),), make_encoder(), dataset="shapes/tiny")
    with started(imagen) as found:
        yield found
