"""One training step: the page a researcher edits."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from imagen_jax import config, lora, models, rng
from imagen_jax.data.pipeline import Batch
from imagen_jax.diffusion import loss as diffusion_loss
from imagen_jax.diffusion import preconditioning
from imagen_jax.diffusion.loss import LossTerms
from imagen_jax.train import norms, optim, training_inputs
from imagen_jax.train.ema import update_ema
from imagen_jax.train.state import TrainState
from imagen_jax.types import Network, Params

Metrics = dict[str, jax.Array]
LossFunction = Callable[[Params, Batch, jax.Array], tuple[jax.Array, Metrics]]
Step = Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Metrics]]

# 1 for a step that changed nothing but its number, as something of GUARDED was not finite. Data,
# keys and the average's warm-up advance with the number; the optimiser's own count, and with it the
# schedule of the learning rate, stays: it ends later by as many steps as were skipped.
SKIPPED = "skipped"
GUARDED = {"loss": "loss", "grad_norm": "gradient", "update_norm": "update"}  # by metric
LEVELS = {"noise": (-jnp.inf, -3.0), "middle": (-3.0, 3.0), "detail": (3.0, jnp.inf)}  # logsnr


def build(
    experiment: config.Experiment, module: Network, rule: optax.GradientTransformationExtraArgs
) -> Step:
    """`train_step(state, batch, key) -> (state, metrics)`; `key` is the run's root key."""
    options, parts = experiment.optim, experiment.micro_batches
    loss_of = loss_function(experiment.stage, module, frozen=options.frozen)

    def advance(state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, Metrics]:
        of_params = loss_of
        if state.frozen is not None:
            of_params = adapted_loss(loss_of, state.frozen, experiment.lora)
        grads, metrics = gradients(of_params, state.params, batch, key, parts=parts)
        updated, norms_found = update(rule, state, grads, options=options)
        return updated, metrics | norms_found

    return guard(advance)


def guard(advance: Step) -> Step:
    """A step whose state changes nothing but its number where something is not finite.

    `advance` gets the step's own key.
    """

    def train_step(state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, Metrics]:
        updated, metrics = advance(state, batch, rng.fold(key, "step", state.step))
        sound = jnp.isfinite(jnp.stack([metrics[tag] for tag in GUARDED])).all()
        # A choice, not a branch: it joins the update, which reads the old state anyway. A branch
        # has the compiler keep all updates, and copies of the state, in memory.
        kept = jax.tree.map(lambda new, old: jnp.where(sound, new, old), updated, state)
        skipped = {SKIPPED: 1.0 - sound.astype(jnp.float32)}
        return kept.replace(step=updated.step), metrics | skipped

    return train_step


def update(
    rule: optax.GradientTransformationExtraArgs,
    state: TrainState,
    grads: Params,
    *,
    options: config.Optim,
) -> tuple[TrainState, Metrics]:
    """The state after one step of the optimiser, and the norms of gradients and updates."""
    metrics = norms.group_norms("grad_norm", grads)
    norm = metrics["grad_norm"]
    opt_state, updates = optim.update(rule, grads, state.opt_state, state.params, norm=norm)
    params, step = optax.apply_updates(state.params, updates), state.step + 1
    ema = update_ema(state.ema, params, step, decay=options.ema_decay, start=options.ema_start)
    if options.frozen:  # their average stays, too
        trained = optim.select_trained(params, options.frozen)
        ema = jax.tree.map(lambda new, old, t: new if t else old, ema, state.ema, trained)
    new = dataclasses.replace(state, step=step, params=params, ema=ema, opt_state=opt_state)
    return new, metrics | norms.group_norms("update_norm", updates)


def gradients(
    loss_of: LossFunction, params: Params, batch: Batch, key: jax.Array, *, parts: int
) -> tuple[Params, Metrics]:
    """Gradients of the mean loss, and metrics; micro-batches one after another.

    They are float32, and sums over micro-batches are too. In a bfloat16 network a kernel's gradient
    is a product in bfloat16, which each chip makes of its own rows: a TPU's chips add these parts
    as bfloat16 before they become float32. Simulated with 128 chips that is at most 1.4 % of a
    mean gradient (3.9 % where all parts are alike). Adding in float32 would double the traffic.

    Micro-batch k takes every row whose number is k modulo `parts`: no row changes its device.
    """
    of_part = jax.grad(loss_of, has_aux=True)
    if parts == 1:
        return of_part(params, batch, key)

    def rows_apart(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 1, 0)

    def add(total: Any, numbered: tuple[jax.Array, Batch]) -> tuple[Any, None]:
        number, part = numbered
        found = of_part(params, part, rng.fold(key, "micro_batch", number))
        return jax.tree.map(jnp.add, total, found), None

    numbered = jnp.arange(parts), jax.tree.map(rows_apart, batch)
    one = jax.tree.map(lambda x: x[0], numbered[1])
    zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(of_part, params, one, key))
    (grads, metrics), _ = jax.lax.scan(add, zeros, numbered)
    # Metrics with a slash are sums already.
    means = {name: x if "/" in name else x / parts for name, x in metrics.items()}
    return jax.tree.map(lambda g: g / parts, grads), means


def loss_function(
    stage: config.Stage, module: Network, *, frozen: Sequence[str] = ()
) -> LossFunction:
    """`(params, batch, key) -> (mean loss, metrics)` of one stage; `frozen` have no gradient."""

    def loss_of(params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
        params = optim.hold_frozen(params, frozen)

        # ---- conditioning: text, dropped for some rows, and the noised low-resolution image
        inputs = training_inputs.prepare(stage, batch, key)
        cond = inputs.condition(module, params)

        # ---- denoising error
        rngs = {"dropout": rng.fold(key, "dropout")}
        network = models.predictor(module, params, cond, train=True, rngs=rngs)
        predict = preconditioning.precondition(network, inputs.low_res, diffusion=stage.diffusion)
        terms = diffusion_loss.loss(
            predict, inputs.x0, rng.fold(key, "diffusion"), diffusion=stage.diffusion
        )
        loss = jnp.mean(terms.per_example)
        return loss, {"loss": loss, **by_level(terms)}

    return loss_of


def adapted_loss(loss_of: LossFunction, frozen: Params, options: config.Lora) -> LossFunction:
    """`(weights of adapters, batch, key) -> (mean loss, metrics)` over a frozen network."""

    def loss_of_adapters(
        weights: Params, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        adapters = lora.from_weights(weights, options.scale)
        adapters = lora.drop_inputs(adapters, options.dropout, rng.fold(key, "lora_dropout"))
        return loss_of(lora.merge(frozen, [adapters], [1.0]), batch, key)

    return loss_of_adapters


def by_level(terms: LossTerms) -> Metrics:
    """Sums and counts of the loss by noise level; the logger divides them over many steps."""
    metrics = {}
    for name, (low, high) in LEVELS.items():
        inside = ((terms.logsnr >= low) & (terms.logsnr < high)).astype(jnp.float32)
        metrics[f"sum/{name}"] = jnp.sum(terms.per_example * inside)
        metrics[f"count/{name}"] = jnp.sum(inside)
    return metrics
