"""A stage's sampling loop with the shapes of its arguments, to be compiled without any weights."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from imagen_jax import config, models
from imagen_jax.diffusion.samplers import SamplerParams
from imagen_jax.parallel import mesh
from imagen_jax.sample import stage_program
from imagen_jax.sample.sampler_inputs import EncodedText, SamplerInputs
from imagen_jax.sample.stage_program import TrainedStage
from imagen_jax.train import state


@dataclass(frozen=True)
class SamplingLoop:
    """A stage's sampling loop, and the shapes of its weights and inputs, sharded over a mesh."""

    program: TrainedStage
    shapes: tuple[Any, SamplerInputs]
    sampler_params: SamplerParams

    @classmethod
    def build(
        cls, experiment: config.Experiment, images: int, grid: jax.sharding.Mesh
    ) -> "SamplingLoop":
        """That of an experiment's stage for so many images at once."""
        stage, whole = experiment.stage, mesh.replicated_sharding(grid)
        shapes = models.sampling_shapes(stage, experiment.text)
        params = state.with_shardings(shapes, jax.tree.map(lambda _: whole, shapes))
        canvas = canvas_shapes(experiment, images, mesh.batch_sharding(grid))
        trained = TrainedStage(stage=stage, module=models.build(stage.model), params=None)
        return cls(trained.program(), (params, canvas), SamplerParams.from_config(stage.sampler))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.program.stage.size, self.program.stage.size

    def lower(self) -> jax.stages.Lowered:
        """The loop with any number of steps."""
        return stage_program.sample_stage.lower(
            *self.shapes, None, self.sampler_params, program=self.program, size=self.size
        )

    def __call__(self, last: int, *arguments: Any) -> Any:
        """The loop with a number of steps that is known to the compiler."""
        known = self.sampler_params._replace(last=np.int32(last))
        unjitted: Any = stage_program.sample_stage
        return unjitted.__wrapped__(*arguments, None, known, program=self.program, size=self.size)


def canvas_shapes(
    experiment: config.Experiment, images: int, sharding: jax.sharding.Sharding
) -> SamplerInputs:
    """Return the inputs of `stage_program.sample_stage`, as shapes."""
    stage, text = experiment.stage, experiment.text

    def array(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((images, *shape), dtype, sharding=sharding)

    low = stage.low_size
    captions = EncodedText(
        text=array(text.max_length, text.width),
        text_mask=array(text.max_length, dtype=jnp.bool_),
        has_text=array(dtype=jnp.bool_),
    )
    return SamplerInputs(
        captions=captions,
        negatives=captions,
        indices=array(dtype=jnp.int32),
        aug_level=array(),
        low_res=None if low is None else array(low, low, 3),
    )
