"""The search for the largest batch: doubling, then the next policy, then the end."""

import pytest

from imagen_jax import config
from imagen_jax.plan import compile, max_batch, roofline, topology

GIB = 2**30
A_PICTURE = {"none": 1.0, "convs": 0.6, "block": 0.3, "level": 0.2}  # GiB


def _topology() -> topology.Topology:
    chip, _ = topology.parse_topology("v5e:2x2")
    return topology.Topology(name="v5e:2x2", chip=chip, chips=4, slices=1, devices=[None] * 4)


def _planner(state_gib: float):
    """What a network would take whose memory grows with its batch."""

    def plan(experiment: config.Experiment, slice_: topology.Topology) -> compile.CompiledPlan:
        local = experiment.train.batch_size // len(slice_.devices)
        gib = local * A_PICTURE[experiment.stage.model.remat]
        if gib > 100:
            raise compile.OutOfMemoryError("far too large")
        memory = roofline.MemoryUse(
            arguments=int(state_gib * GIB), outputs=0, temporaries=int(gib * GIB), capacity=16 * GIB
        )
        found = roofline.Estimate(
            memory=memory,
            flops=0.0,
            bytes_accessed=0.0,
            traffic={},
            roofline=roofline.Roofline(compute=0.0, memory=0.0, network=0.0),
            seconds=None,
        )
        return compile.CompiledPlan(
            what="train",
            name="toy",
            mesh={},
            images=experiment.train.batch_size,
            local_images=float(local),
            parameters=0,
            flops=0.0,
            estimate=found,
        )

    return plan


@pytest.mark.parametrize(
    ("state_gib", "expected"),
    [
        (2.0, [("none", 8, True), ("none", 16, False), ("convs", 16, True), ("convs", 32, False),
               ("block", 32, True), ("block", 64, False), ("level", 64, True),
               ("level", 128, False)]),
        (20.0, [(policy, 8, False) for policy in max_batch.POLICIES]),
    ],
)  # fmt: skip
def test_every_try_is_twice_the_last_or_recomputes_more(state_gib: float, expected: list) -> None:
    experiment = config.load("tiny/base8")[0]
    tries = list(max_batch.search_max_batch(experiment, _topology(), plan=_planner(state_gib)))
    assert [(t.remat, t.local_batch, t.fits) for t in tries] == expected
    assert all(t.experiment.train.batch_size == 4 * t.local_batch for t in tries)


def test_what_the_compiler_refuses_does_not_fit() -> None:
    def plan(*_: object) -> compile.CompiledPlan:
        raise compile.OutOfMemoryError("no")

    tries = list(max_batch.search_max_batch(config.load("tiny/base8")[0], _topology(), plan=plan))
    assert [t.remat for t in tries] == list(max_batch.POLICIES)
    assert not any(t.fits or t.planned for t in tries)
