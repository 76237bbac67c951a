"""A step as a program: what the compiler makes of it on a mesh."""

import dataclasses
import functools
import re

import jax
import pytest
from small_network import FOLDER

from imagen_jax import config
from imagen_jax.train import sharded_step

# No size of a network, nor any product of them, is a multiple of 11.
LOCAL, FSDP, DATA = 11, 4, 2
SMALL = [
    pytest.param(str(FOLDER / "sr16.py"), id="sr16"),  # which has attention, too
    pytest.param(str(FOLDER / "base8.py"), id="base8", marks=pytest.mark.slow),
]
TINY = [pytest.param(f"tiny/{n}", marks=pytest.mark.slow) for n in ("base8", "sr16", "sr32")]
ARRAY = re.compile(r"\b(?:f32|bf16)\[(\d+),(\d+),(\d+)(?:,(\d+))?\]")


def _program(name: str) -> sharded_step.ShardedStep:
    experiment = config.load(name)[0]
    experiment = dataclasses.replace(
        experiment,
        train=dataclasses.replace(experiment.train, batch_size=LOCAL * FSDP * DATA),
        mesh=config.Mesh(data=DATA, fsdp=FSDP, min_shard_bytes=64),
    )
    return sharded_step.build(experiment)


@functools.cache
def _compiled(name: str) -> str:
    return _program(name).lower().compile().as_text()


def _batches(text: str) -> set[int]:
    """How many images the arrays of a compiled program hold: their leading dimensions."""
    shapes = [tuple(map(int, filter(None, found))) for found in set(ARRAY.findall(text))]
    return {shape[0] // LOCAL for shape in shapes if shape[0] % LOCAL == 0}


@pytest.mark.parametrize("name", [*SMALL, *TINY])
def test_no_device_gathers_the_images_of_others(name: str) -> None:
    """Kernels that are sharded by channels are gathered, never the features they act on."""
    work = _program(name)
    assert any("fsdp" in s.spec for s in jax.tree.leaves(work.shardings.params))
    assert _batches(_compiled(name)) == {1}


@pytest.mark.parametrize("name", [*SMALL, *TINY])
def test_every_convolution_of_a_step_is_one_that_cpus_have_a_fast_program_for(name: str) -> None:
    """XLA's CPU compiler makes plain loops, a hundred times as slow, of those that it reverses."""
    convolutions = re.findall(r"convolution\(.*", _compiled(name))
    assert len(convolutions) > 10
    assert not [x for x in convolutions if "rhs_reversal" in x]


@pytest.mark.parametrize(("asked", "chosen"), [(-1, 1), (2, 2)])
def test_micro_batches_are_chosen_where_they_are_left_open(asked: int, chosen: int) -> None:
    experiment = config.load("tiny/base8")[0]
    train = dataclasses.replace(experiment.train, batch_size=64, micro_batches=asked)
    work = sharded_step.build(dataclasses.replace(experiment, train=train))
    assert work.experiment.micro_batches == chosen  # one: these are no TPUs


@pytest.mark.parametrize("name", [*SMALL, *TINY])
def test_a_step_has_no_branches(name: str) -> None:
    """On TPUs a branch would copy the state and keep all updates: 5 % of the 2B model's step."""
    assert "conditional(" not in _compiled(name)
