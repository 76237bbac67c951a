"""The training step of distillation: a student, its teacher, and what moment matching adds.

All networks begin with the teacher's weights, under one sharding.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float32

from imagen_jax import config, models, rng
from imagen_jax.data.pipeline import Batch
from imagen_jax.diffusion import guidance, preconditioning, prediction, thresholding
from imagen_jax.diffusion.distillation import guidance as guidance_distillation
from imagen_jax.diffusion.distillation import moments, progressive
from imagen_jax.diffusion.loss import LossTerms
from imagen_jax.train import norms, optim, step, training_inputs
from imagen_jax.train.state import Auxiliary, TrainState
from imagen_jax.train.step import LossFunction, Metrics, Step
from imagen_jax.train.training_inputs import TrainingInputs
from imagen_jax.types import Denoise, Network, Params, Predict, RandomKey

# (student's parameters, inputs, guidance weights, teacher, key) -> loss
Objective = Callable[[Params, TrainingInputs, Any, Denoise, RandomKey], LossTerms]


def build(
    experiment: config.Experiment, module: Network, rule: optax.GradientTransformationExtraArgs
) -> Step:
    """`train_step(state, batch, key) -> (state, metrics)`, as `step.build` for other stages."""
    distilled = experiment.stage.distillation
    assert distilled is not None  # else it is no distillation
    if distilled.method == "moments":
        return step.guard(functools.partial(_match_moments, Networks(experiment, module), rule))
    networks = Networks(experiment, module)

    def advance(state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, Metrics]:
        parts, options = experiment.micro_batches, experiment.optim
        loss_of = networks.loss_function(networks.imitation, state.frozen)
        grads, metrics = step.gradients(loss_of, state.params, batch, key, parts=parts)
        updated, found = step.update(rule, state, grads, options=options)
        return updated, metrics | found

    return step.guard(advance)


def count_passes(options: config.Distillation) -> int:
    """Count the forward passes that a step takes for an image, 3 for each that is trained."""
    teacher = 1 if options.distilled_teacher or not options.has_guidance_input else 2
    if options.method == "guidance":
        return 3 + teacher
    if options.method == "progressive":
        return 3 + options.teacher_steps * teacher
    return (1 + 3 + teacher) + (3 + 1 + teacher)


def describe_noise_prediction(stage: config.Stage) -> str:
    """Describe what few steps make of a network that predicts noise; "" for all others."""
    if stage.distillation is None or stage.diffusion.predicts != "eps":
        return ""
    times = math.exp(-stage.diffusion.schedule.logsnr_min / 2)
    when = "begins" if stage.distillation.steps else "of this one would begin"
    return (
        "warning: stage.diffusion.predicts='eps': in pure noise, where a student of few steps "
        f"{when}, an error of eps is {times:,.0f} times as large in the image, and drowns the "
        "others: distil a teacher that predicts v or x0"
    )


@dataclasses.dataclass(frozen=True)
class Networks:
    """One network with the weights of student, teacher or auxiliary, as functions of images."""

    experiment: config.Experiment
    module: Network

    @property
    def stage(self) -> config.Stage:
        """The student's stage."""
        return self.experiment.stage

    @property
    def options(self) -> config.Distillation:
        """How the stage is distilled."""
        assert self.stage.distillation is not None
        return self.stage.distillation

    def loss_function(self, objective: Objective, teacher: Params) -> LossFunction:
        """`(parameters, batch, key) -> (mean loss, metrics)` of an objective."""

        def loss_of(params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
            inputs = training_inputs.prepare(self.stage, batch, key)
            params = optim.hold_frozen(params, self.experiment.optim.frozen)
            weights = self.draw_guidance(rng.fold(key, "guidance"), inputs.x0.shape[0])
            taught = self.teach(teacher, inputs, weights)
            found = objective(params, inputs, weights, taught, rng.fold(key, "diffusion"))
            loss = jnp.mean(found.per_example)
            return loss, {"loss": loss, **step.by_level(found)}

        return loss_of

    def imitation(
        self,
        params: Params,
        inputs: TrainingInputs,
        weights: Any,
        teacher: Denoise,
        key: RandomKey,
    ) -> LossTerms:
        """The loss of a student that repeats its teacher, in one call for two, or one step."""
        diffusion = self.stage.diffusion
        if self.options.method == "guidance":
            student = self.predict(params, inputs, weights)
            return guidance_distillation.loss(student, teacher, inputs.x0, key, diffusion=diffusion)
        return progressive.loss(
            self.denoise(params, inputs, weights),
            teacher,
            inputs.x0,
            key,
            schedule=diffusion.schedule,
            distillation=self.options,
        )

    def draw_guidance(self, key: RandomKey, batch: int) -> Float32[Array, " b"] | None:
        """Draw weights from 1 to the largest; None where they are no input."""
        most = self.options.max_guidance
        if not self.options.has_guidance_input:
            return None
        return jax.random.uniform(key, (batch,), minval=1.0, maxval=most)

    def predict(self, params: Params, inputs: TrainingInputs, weights: Any) -> Predict:
        """Predict what the stage does, as a student."""
        cond = inputs.condition(self.module, params, guidance_weight=weights)
        network = models.predictor(self.module, params, cond)
        return preconditioning.precondition(network, inputs.low_res, diffusion=self.stage.diffusion)

    def denoise(self, params: Params, inputs: TrainingInputs, weights: Any) -> Denoise:
        """Predict the clean image, as a student, unthresholded."""
        predict, predicts = self.predict(params, inputs, weights), self.stage.diffusion.predicts

        def denoise(z: jax.Array, logsnr: jax.Array) -> jax.Array:
            return prediction.to_x0(predict(z, logsnr), z, logsnr, predicts=predicts)

        return denoise

    def generate(
        self, params: Params, inputs: TrainingInputs, weights: Any, key: RandomKey
    ) -> moments.Generated:
        """Draw what a student with these weights makes of noisy images, for matching moments."""
        generator = self.denoise(params, inputs, weights)
        schedule, steps = self.stage.diffusion.schedule, self.options.steps
        return moments.generate(generator, inputs.x0, key, schedule=schedule, steps=steps)

    def teach(self, params: Params, inputs: TrainingInputs, weights: Any) -> Denoise:
        """Predict the clean image as the teacher samples it: guided, and thresholded."""
        params, sampler = jax.lax.stop_gradient(params), self.stage.sampler
        if weights is None or self.options.distilled_teacher:
            guided = self.denoise(params, inputs, weights)
        else:
            cond = self.denoise(params, inputs, None)
            uncond = self.denoise(params, inputs.without_text(), None)
            column = weights[:, None, None, None]

            def guided(z: jax.Array, logsnr: jax.Array) -> jax.Array:
                return guidance.guide(cond(z, logsnr), uncond(z, logsnr), weight=column)

        return lambda z, logsnr: thresholding.threshold(guided(z, logsnr), sampler=sampler)


def _match_moments(
    networks: Networks,
    rule: optax.GradientTransformationExtraArgs,
    state: TrainState,
    batch: Batch,
    key: jax.Array,
) -> tuple[TrainState, Metrics]:
    """Update the auxiliary network, then the generator, with other noise on the same images."""
    experiment, auxiliary = networks.experiment, state.auxiliary
    assert auxiliary is not None  # of every state of moment matching
    loss_function = functools.partial(networks.loss_function, teacher=state.frozen)
    gradients = functools.partial(step.gradients, batch=batch, parts=experiment.micro_batches)

    def auxiliary_loss(
        params: Params, inputs: TrainingInputs, weights: Any, teacher: Denoise, key: RandomKey
    ) -> LossTerms:
        generated = networks.generate(state.params, inputs, weights, key)
        return moments.auxiliary_loss(networks.denoise(params, inputs, weights), teacher, generated)

    def generator_loss(
        params: Params, inputs: TrainingInputs, weights: Any, teacher: Denoise, key: RandomKey
    ) -> LossTerms:
        generated = networks.generate(params, inputs, weights, key)
        return moments.generator_loss(
            networks.denoise(learned.params, inputs, weights), teacher, generated
        )

    grads, metrics = gradients(
        loss_function(auxiliary_loss), auxiliary.params, key=rng.fold(key, "auxiliary")
    )
    norm = norms.group_norms("grad_norm", grads)["grad_norm"]
    opt_state, updates = optim.update(rule, grads, auxiliary.opt_state, auxiliary.params, norm=norm)
    learned = Auxiliary(optax.apply_updates(auxiliary.params, updates), opt_state)
    metrics |= {"auxiliary_grad_norm": norm}
    grads, found = gradients(
        loss_function(generator_loss), state.params, key=rng.fold(key, "generator")
    )
    metrics |= {"generator_loss": found["loss"]}
    updated, more = step.update(rule, state, grads, options=experiment.optim)
    return dataclasses.replace(updated, auxiliary=learned), metrics | more
