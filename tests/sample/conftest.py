"""A small cascade with random weights."""

import dataclasses

import pytest
from small_cascade import SMALL_BASE, SMALL_SR, make_stage

from imagen_jax.sample.stage_program import TrainedStage


@pytest.fixture(scope="session")
def stages() -> list[TrainedStage]:
    second = make_stage(SMALL_SR)
    larger = dataclasses.replace(second.stage, name="sr32", size=32, low_size=16)
    return [make_stage(SMALL_BASE), second, dataclasses.replace(second, stage=larger)]
