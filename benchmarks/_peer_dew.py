"""Dew's side: its `Unet` in its own trainer's compiled step, and in its own sampler.

Dew has no cascade: for super-resolution the low-resolution image joins the noisy one as channels.
"""

from __future__ import annotations

from typing import Any

import jax
import optax
from _peer_shapes import GUIDANCE, Missing, Shapes, Work

from imagen_jax.parallel import flops
from imagen_jax.train.sharded_step import CHANNELS, TRAINING

NAME = "Dew"
INSTALL = "Dew is left out: it needs Python 3.12 or later and `pip install dewml`"


def training(shapes: Shapes) -> Work:
    """Its trainer's step: forward, gradient, Adam, EMA, and its look for non-finite numbers."""
    objective, trainer, state, batch = _placed(shapes)
    from dew.objectives.base import Step

    clock = Step(state.microstep, jax.random.key(0), None)
    forward = flops.count_flops(
        lambda variables: objective.loss(variables, batch, clock), state.variables
    )
    step, parameters = trainer.compile(state, batch), _count(state)
    current = [state]
    del state  # the first step takes it over

    def call() -> None:
        current[0], *rest = step(current[0], batch)
        jax.block_until_ready((current[0], rest))

    return Work(
        parameters=parameters,
        forward=forward / shapes.batch,
        flops=TRAINING * forward,
        call=call,
    )


def sampling(shapes: Shapes) -> Work:
    """Its sampler's scan as one compiled program: guidance and its ancestral step."""
    objective, _, state, batch = _placed(shapes)
    from dew.sampling import sample
    from dew.sampling.guidance import CFG
    from dew.sampling.solvers import DDPM

    def sample_image(variables: Any, batch: Any, key: Any) -> Any:
        given = objective.encoded_conditions(variables, batch)
        denoise = objective.denoiser(variables, given, objective.blank_conditions(given))
        noise = objective.process.noise(key, batch["image"].shape)
        options = {"solver": DDPM(), "guidance": CFG(GUIDANCE), "key": key}
        return sample(denoise, noise, shapes.steps, **options)

    given = state.variables, batch, jax.random.key(0)
    counted = flops.count_flops(sample_image, *given) / shapes.steps
    compiled = jax.jit(sample_image).lower(*given).compile()
    return Work(
        parameters=_count(state),
        forward=counted / shapes.batch,
        flops=counted,
        call=lambda: compiled(*given).block_until_ready(),
        steps=shapes.steps,
    )


def _placed(shapes: Shapes) -> tuple[Any, Any, Any, Any]:
    """Objective, trainer, state and batch. Errors: Missing."""
    try:
        from dew.diffusion import presets
        from dew.inputs import Field, InputSpec
        from dew.objectives.diffusion import DiffusionObjective
        from dew.training.distributed import shard_batch
        from dew.training.trainer import Trainer
    except ImportError as error:
        raise Missing(f"{INSTALL} ({error})") from error
    import _peer_dew_model as model

    objective = DiffusionObjective(
        model.network(shapes),
        presets.Cosine(),
        InputSpec(Field("image", (shapes.size, shapes.size, CHANNELS)), model.conditions(shapes)),
    )
    trainer = Trainer(objective, optax.adam(1e-4), key=0)
    state, _, _ = trainer.place()
    return objective, trainer, state, shard_batch(trainer.device_mesh, model.batch(shapes))


def _count(state: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(state.variables["params"]))
