"""The largest batch a chip can hold, with the cheapest rematerialisation that lets it."""

import dataclasses
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from imagen_jax import config
from imagen_jax.parallel import auto_layout
from imagen_jax.plan import compile
from imagen_jax.plan.compile import CompiledPlan
from imagen_jax.plan.topology import Topology

HEADROOM = 0.95  # of the memory: at full effort, and on a chip, programs differ a little
POLICIES = typing.get_args(config.Remat)  # each recomputes more than the one before


@dataclass(frozen=True, kw_only=True)
class BatchTrial:
    """A trial of one batch and policy; it has no plan where memory was far exceeded."""

    local_batch: int
    remat: config.Remat
    experiment: config.Experiment
    planned: CompiledPlan | None

    @property
    def fits(self) -> bool:
        if self.planned is None:
            return False
        memory = self.planned.estimate.memory
        return memory.total <= HEADROOM * memory.capacity


def search_max_batch(
    experiment: config.Experiment,
    topology: Topology,
    *,
    plan: Callable[[config.Experiment, Topology], CompiledPlan] = compile.compile_train,
) -> Iterator[BatchTrial]:
    """Try batches one by one, doubled from `auto_layout.FULL_BATCH` a chip as long as they fit.

    Where one does not, the next policy is tried; the last trial that fits is the answer.
    """
    local, policies = auto_layout.FULL_BATCH, list(POLICIES)
    while policies:
        changed = with_batch(experiment, local * len(topology.devices), remat=policies[0])
        try:
            planned = plan(changed, topology)
        except compile.OutOfMemoryError:
            planned = None
        tried = BatchTrial(
            local_batch=local, remat=policies[0], experiment=changed, planned=planned
        )
        yield tried
        if tried.fits:
            local *= 2
        else:
            policies.pop(0)


def with_batch(
    experiment: config.Experiment, batch_size: int, *, remat: config.Remat
) -> config.Experiment:
    """Return the experiment with another batch and policy."""
    stage = experiment.stage
    return dataclasses.replace(
        experiment,
        stage=dataclasses.replace(stage, model=dataclasses.replace(stage.model, remat=remat)),
        train=dataclasses.replace(experiment.train, batch_size=batch_size),
        layout=None,
    )
