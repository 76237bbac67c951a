"""The optimiser (section 4.1, appendix F)."""

import fnmatch
from collections.abc import Sequence
from typing import Any, assert_never

import jax
import jax.numpy as jnp
import optax

from imagen_jax import config
from imagen_jax.types import Params

SHOWN = 8  # parameters that a refusal names
LONGEST_WARMUP = 3  # runs' steps by those of their warm-up: a longer one leaves little to train
MUON_RMS = 1 / 3  # of an update over the learning rate, which Adam shares; .2 in arXiv:2502.16982
MUON_SIDE = 16  # kernels with fewer input or output channels are left to Adam


def schedule(options: config.Optim, *, steps: int) -> optax.Schedule:
    """Learning rate by step: linear warm-up, then cosine to the final rate at `steps`, or constant.

    Source: appendix F; "Differs from the paper": its printed end value of 2.5e6 is taken as a slip.
    """
    if options.schedule == "constant":
        warm = optax.linear_schedule(0.0, options.learning_rate, max(options.warmup_steps, 1))
        return warm if options.warmup_steps else optax.constant_schedule(options.learning_rate)
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=options.learning_rate,
        warmup_steps=options.warmup_steps,
        decay_steps=max(steps, options.warmup_steps + 1),
        end_value=options.final_learning_rate,
    )


def describe_long_warmup(options: config.Optim, *, steps: int) -> str:
    """Describe a warm-up that takes more than a third of a run, and its remedy; "" for others.

    The moving average has no such limit: its own warm-up keeps its memory below a tenth of the
    steps so far, whatever its decay.
    """
    if options.warmup_steps <= steps / LONGEST_WARMUP:
        return ""
    reached = steps / options.warmup_steps
    effect = f"only {reached:.0%} of the learning rate is reached"
    if reached >= 1:
        effect = "few steps are left at the full learning rate"
    return (
        f"warning: optim.warmup_steps={options.warmup_steps:,} are more than a third of "
        f"train.steps={steps:,}: {effect}; for a run so short give "
        f"--optim.warmup-steps {steps // 10}"
    )


def build(options: config.Optim, *, steps: int) -> optax.GradientTransformationExtraArgs:
    """Clipping by global norm, then Adam, Adafactor or Muon with library defaults.

    Frozen parameters have no state and no updates.
    """
    rate = schedule(options, steps=steps)
    if options.kind == "adam":
        rule = optax.adam(rate, b1=options.b1, b2=options.b2)
    elif options.kind == "muon":
        rule = optax.contrib.muon(
            rate,
            adam_b1=options.b1,
            adam_b2=options.b2,
            muon_weight_dimension_numbers=muon_dimension_numbers,
            consistent_rms=MUON_RMS,
        )
    elif options.kind == "adafactor":
        rule = optax.adafactor(rate, multiply_by_parameter_scale=options.adafactor_param_scale)
    else:
        assert_never(options.kind)
    clip = [] if options.clip_norm is None else [clip_by_norm(options.clip_norm)]
    rule = optax.chain(*clip, rule)
    if options.frozen:
        rule = _leave_out(rule, options.frozen)
    return optax.with_extra_args_support(rule)


def _leave_out(rule: Any, frozen: Sequence[str]) -> Any:
    """The rule over what is trained, and no updates of the rest."""

    def held(params: Params) -> Any:
        return jax.tree.map(lambda trains: not trains, select_trained(params, frozen))

    return optax.chain(
        optax.masked(rule, lambda params: select_trained(params, frozen)),
        optax.masked(optax.set_to_zero(), held),
    )


def select_trained(params: Params, frozen: Sequence[str]) -> Any:
    """Return a nest that is True where a parameter is trained: where no pattern has its name.

    Errors: ValueError for a pattern that selects none, or where none is left to train.
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(params)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    for pattern in frozen:
        if not fnmatch.filter(names, pattern):
            raise ValueError(
                f"optim.frozen: {config.shorten(pattern)} selects no parameter of this network; "
                f"there are {', '.join(sorted(names)[:SHOWN])} and others, and * stands for the "
                "rest of a name"
            )
    held = {name for pattern in frozen for name in fnmatch.filter(names, pattern)}
    if len(held) == len(names):
        raise ValueError(
            f"optim.frozen={config.shorten(frozen)} selects every parameter: leave some to train"
        )
    return jax.tree.unflatten(tree, [name not in held for name in names])


def hold_frozen(params: Params, frozen: Sequence[str]) -> Params:
    """Return the parameters with no gradient through the frozen ones.

    Errors: ValueError as `select_trained`.
    """
    if not frozen:
        return params
    trained = select_trained(params, frozen)
    return jax.tree.map(
        lambda x, trains: x if trains else jax.lax.stop_gradient(x), params, trained
    )


def clip_by_norm(largest: float) -> optax.GradientTransformationExtraArgs:
    """`optax.clip_by_global_norm`, told the norm of the gradients, which a guarded step has.

    Inside the guard's branch the compiler would read all gradients again to find it.
    """

    def clip(grads: Params, state: Any, params: Any = None, *, norm: jax.Array) -> tuple[Any, Any]:
        del params
        scale = jnp.minimum(1.0, largest / norm)
        return jax.tree.map(lambda g: g * scale, grads), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), clip)


def muon_dimension_numbers(params: Params) -> Any:
    """For each kernel how Muon reads it as a matrix; None where Adam rules.

    A convolution's kernel (h, w, i, o) is a matrix of h * w * i inputs by o outputs, a dense one
    (i, o) is itself. Source: arXiv:2502.16982. Differs from the paper: learned positions are a
    matrix like any other, where it leaves every embedding to Adam.
    """

    def read(param: jax.Array) -> Any:
        if param.ndim not in (2, 4) or min(param.shape[-2:]) < MUON_SIDE:
            return None
        inputs = tuple(range(param.ndim - 1))
        return optax.contrib.MuonDimensionNumbers(inputs, (param.ndim - 1,))

    return jax.tree.map(read, params)


def update(
    rule: optax.GradientTransformationExtraArgs,
    grads: Params,
    opt_state: Any,
    params: Params,
    *,
    norm: jax.Array,
) -> tuple[Any, Params]:
    """New optimiser state, and the change of the parameters; `norm` is that of all gradients.

    Optax mixes Python floats with integer counts, so strict promotion is lifted here and only here.
    """
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = rule.update(grads, opt_state, params, norm=norm)
        return opt_state, updates
