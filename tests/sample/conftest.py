"""A small cascade with random weights."""

import pytest
from small_cascade import SMALL_BASE, SMALL_SR, make_stage

from imagen_jax.sample.stage_program import TrainedStage


@pytest.fixture(scope="session")
def stages() -> list[TrainedStage]:
    return [make_stage(SMALL_BASE), make_stage(SMALL_SR), make_stage("tiny/sr32")]
