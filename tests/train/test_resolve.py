"""A run's config is made in one place: what it leaves open is chosen for the devices it finds."""

import dataclasses
import json

import jax
import pytest

from imagen_jax import config
from imagen_jax.train import resolve, sharded_step

EXPERIMENT = config.load("tiny/base8")[0]


def _asking(parts: int, **axes: int) -> config.Experiment:
    train = dataclasses.replace(EXPERIMENT.train, batch_size=32, micro_batches=parts)
    return dataclasses.replace(EXPERIMENT, train=train, mesh=config.Mesh(**axes))


@pytest.mark.parametrize(
    ("asked", "layout"),
    [
        (_asking(-1), config.Layout(data=8, fsdp=1, spatial=1, micro_batches=1)),
        (_asking(2, fsdp=4), config.Layout(data=2, fsdp=4, spatial=1, micro_batches=2)),
    ],
)
def test_the_layout_is_added_to_what_was_asked_for(
    asked: config.Experiment, layout: config.Layout
) -> None:
    found = resolve.resolve(asked)
    assert found == dataclasses.replace(asked, layout=layout)
    assert found.micro_batches == layout.micro_batches
    assert dict(sharded_step.build(found).devices.shape) == resolve.axis_sizes(found)


def test_a_stored_run_is_laid_out_again_for_other_devices() -> None:
    """Had the choice been stored as if it were asked for, half of the devices would be too few."""
    stored = config.from_json(config.to_json(resolve.resolve(_asking(-1))))
    assert stored.layout is not None
    assert stored.layout.data == 8
    again = resolve.resolve(stored, devices=jax.devices()[:4])
    assert again.layout == dataclasses.replace(stored.layout, data=4)


def test_a_config_of_before_layouts_were_stored_reads() -> None:
    document = json.loads(config.to_json(EXPERIMENT))
    del document["layout"]
    assert config.from_json(json.dumps(document)) == EXPERIMENT


def test_micro_batches_that_nobody_chose_are_refused() -> None:
    with pytest.raises(ValueError, match=r"train.micro_batches=-1 is not chosen yet"):
        _ = _asking(-1).micro_batches


def test_a_batch_that_the_mesh_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match=r"batch_size=32 .* 8 parts: give a multiple of 64"):
        resolve.resolve(dataclasses.replace(_asking(8)))
