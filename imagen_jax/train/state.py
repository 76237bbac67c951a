"""`TrainState`: everything that a step changes, as one frozen pytree."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Float

from imagen_jax import config, lora, models, rng
from imagen_jax.models import null_caption
from imagen_jax.parallel import mesh
from imagen_jax.train import optim
from imagen_jax.types import Network, Params


@struct.dataclass
class Auxiliary:
    """A second network that is trained beside a state's own, and its optimiser's state."""

    params: Params  # float32
    opt_state: Any


@struct.dataclass
class TrainState:
    """Everything a step changes; shapes and shardings may stand in for the arrays."""

    step: Any  # () int32, steps made
    params: Params  # float32
    ema: Params  # their moving average, what sampling uses
    opt_state: Any
    # The network's, where `params` and `ema` are its adapters; the teacher's in distillation.
    frozen: Params | None = None
    auxiliary: Any = None  # `Auxiliary`, of moment matching

    def with_frozen(self, frozen: Params | None) -> "TrainState":
        """The same state over other frozen parameters."""
        return dataclasses.replace(self, frozen=frozen)

    def network_params(self, options: config.Lora) -> Params:
        """The averaged parameters of the network, those of adapters merged."""
        if not options.rank:
            return self.ema
        return lora.merge(self.frozen, [lora.from_weights(self.ema, options.scale)], [1.0])


def init(key: jax.Array, *, experiment: config.Experiment, module: Any, rule: Any) -> TrainState:
    """A fresh state; pure, so that it runs under `jax.eval_shape` and `jax.jit`."""
    params = models.init(
        module,
        rng.fold(key, "init"),
        stage=experiment.stage,
        text_width=experiment.text.width,
        text_length=experiment.text.max_length,
    )
    frozen = auxiliary = None
    if experiment.lora.rank:
        frozen = params
        params = lora.init(frozen, experiment.lora, rng.fold(key, "lora")).weights
    if distilled := experiment.stage.distillation:
        own = distilled.distilled_teacher
        frozen = jax.tree.map(jnp.copy, params if own else models.without_guidance_input(params))
    if distilled and distilled.method == "moments":
        auxiliary = Auxiliary(jax.tree.map(jnp.copy, params), rule.init(params))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema=jax.tree.map(jnp.copy, params),  # a copy: both are donated to the step
        opt_state=rule.init(params),
        frozen=frozen,
        auxiliary=auxiliary,
    )


def with_teachers_weights(state: TrainState) -> TrainState:
    """A student's state with its teacher's weights in all of its networks.

    What the teacher lacks, the embedding of the guidance weight, stays as it is.
    """

    def merge(fresh: Params, taught: Params) -> Params:
        if not isinstance(fresh, dict):
            return jnp.copy(taught)  # donated to the step, as the teacher's are not
        return {k: merge(x, taught[k]) if k in taught else x for k, x in fresh.items()}

    auxiliary = state.auxiliary
    if auxiliary is not None:
        auxiliary = Auxiliary(merge(auxiliary.params, state.frozen), auxiliary.opt_state)
    params, ema = (merge(x, state.frozen) for x in (state.params, state.ema))
    return dataclasses.replace(state, params=params, ema=ema, auxiliary=auxiliary)


def with_empty_prompt(state: TrainState, text: Float[np.ndarray, "n d"]) -> TrainState:
    """The state of a network whose null caption is the empty prompt, given its encoding.

    Of that the first row counts, its end of sentence.

    A network of another kind has no such parameter, and its state is returned as it is.
    """

    def put(path: tuple[Any, ...], leaf: Any) -> jax.Array:
        if path[-1].key != null_caption.EMPTY_PROMPT:
            return leaf
        return mesh.to_global(text[0].astype(np.float32), leaf.sharding)

    params, ema = (jax.tree_util.tree_map_with_path(put, x) for x in (state.params, state.ema))
    return dataclasses.replace(state, params=params, ema=ema)


@functools.lru_cache(maxsize=2)  # a run asks twice, to choose its layout and to build its step
def abstract_run(
    experiment: config.Experiment,
) -> tuple[Network, optax.GradientTransformationExtraArgs, TrainState]:
    """Return network, optimiser, and shapes and dtypes of the state, without computing it."""
    module = models.build(experiment.stage.model)
    rule = optim.build(experiment.optim, steps=experiment.train.steps)
    shapes = jax.eval_shape(
        lambda key: init(key, experiment=experiment, module=module, rule=rule), jax.random.key(0)
    )
    return module, rule, shapes


def with_shardings(shapes: Any, shardings: Any) -> Any:
    """`shapes` carrying `shardings`: what a restore needs to know."""
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings
    )


def shardings_of(shapes: TrainState, devices: jax.sharding.Mesh, options: config.Mesh) -> Any:
    """The sharding of every array, by the one size rule of `mesh.py`."""
    return mesh.state_shardings(shapes, devices, min_shard_bytes=options.min_shard_bytes)
