"""Planning's own arithmetic, on programs that are compiled for this machine's devices."""

import dataclasses

import jax
import pytest

from imagen_jax import config
from imagen_jax.parallel import accelerators
from imagen_jax.plan import compile
from imagen_jax.plan.topology import Topology


@pytest.fixture
def here(monkeypatch) -> Topology:
    """One of this machine's devices, as if it were a v5e."""
    monkeypatch.setattr(compile, "compile_for", lambda lowered, *_, effort: lowered.compile())
    devices = jax.devices()[:1]
    chip = accelerators.TPUS["v5e"]
    return Topology(name="here", chip=chip, chips=len(devices), slices=1, devices=devices)


def _experiment(parts: int) -> config.Experiment:
    experiment = config.load("tiny/sr16")[0]
    train = dataclasses.replace(experiment.train, batch_size=8, micro_batches=parts)
    return dataclasses.replace(experiment, train=train)


@pytest.mark.slow
def test_micro_batches_are_counted_one_by_one(here: Topology) -> None:
    whole, parts = (compile.compile_train(_experiment(n), here) for n in (1, 4))
    assert (whole.local_images, parts.local_images) == (8, 2)
    assert whole.flops == parts.flops
    assert not any("micro-batches: " in note for note in whole.notes)
    assert any("4 micro-batches: " in note for note in parts.notes)
    # A loop's body is counted once: four times the work of a part, not the loop's.
    assert parts.estimate.flops > 0.98 * whole.estimate.flops
    assert parts.estimate.memory.temporaries < whole.estimate.memory.temporaries
    assert parts.estimate.memory.arguments == whole.estimate.memory.arguments
