"""The cascade `tiny` with random weights."""

import pytest
from small_cascade import make_painter

from imagen_jax.sample.stage_program import TrainedStage


@pytest.fixture(scope="session")
def painters() -> list[TrainedStage]:
    return [make_painter("tiny/base8"), make_painter("tiny/sr16"), make_painter("tiny/sr32")]
