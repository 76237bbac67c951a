"""One batch of a stage, made step by step, so that it can be looked at, or left, between two."""

import dataclasses
from typing import Any

import jax
import numpy as np

from imagen_jax.diffusion.samplers import SamplerParams
from imagen_jax.diffusion.sampling_loop import SamplerState
from imagen_jax.parallel import mesh
from imagen_jax.sample import nonfinite_images, stage, stage_program
from imagen_jax.sample.sampler_inputs import SamplerInputs
from imagen_jax.sample.stage_program import TrainedStage


@dataclasses.dataclass
class StageBatch:
    """Images of one stage between two steps; made by `start`.

    The program is that of the stage as it is trained, whatever the numbers in `sampler_params`.
    """

    trained: TrainedStage
    sampler_params: SamplerParams
    size: tuple[int, int]  # height, width
    indices: np.ndarray  # of the images, without the rows that fill the batch
    devices: jax.sharding.Mesh
    params: Any
    inputs: SamplerInputs  # on the devices
    made: int  # number of the next step
    state: SamplerState

    @classmethod
    def start(
        cls,
        trained: TrainedStage,
        inputs: SamplerInputs,
        sampler_params: SamplerParams,
        *,
        size: tuple[int, int],
        batch_size: int,
    ) -> "StageBatch":
        """Begin a batch of the images in `inputs`, at most `batch_size` of them; no step is made.

        Images and masks are those of all, or of none.

        Rows past the end repeat the last image and are thrown away: a batch is one program,
        however many images it has, and an image's bits do not depend on the others'.
        Errors: those of reading the weights.
        """
        devices, rows = stage.layout_batch(trained.stage, size, batch_size)
        count = len(inputs.indices)
        filled = inputs.rows(np.minimum(np.arange(rows), count - 1))
        placed = mesh.to_global(filled, mesh.batch_sharding(devices))
        with mesh.activate(devices):
            program = trained.program()
            state = stage_program.begin_stage(placed, sampler_params, program=program, size=size)
        if placed.known_mask is None:  # an image to start from is in the state
            placed = placed._replace(init_image=None)
        return cls(
            trained=trained,
            sampler_params=sampler_params,
            size=size,
            indices=np.asarray(inputs.indices),
            devices=devices,
            params=trained.device_params(mesh.replicated_sharding(devices)),
            inputs=placed,
            made=int(sampler_params.first),
            state=state,
        )

    @property
    def is_done(self) -> bool:
        """True if the last step has been given to the devices, which may still compute it."""
        return self.made >= int(self.sampler_params.last)

    @property
    def rows(self) -> int:
        """The rows that are computed, with those that fill the batch."""
        return self.inputs.indices.shape[0]

    def advance(self, steps: int = 1) -> None:
        """Give the next steps to the devices; returns before they have made them.

        Without steps to make, the images are those to start from.
        """
        last = min(self.made + steps, int(self.sampler_params.last))
        span = self.sampler_params._replace(first=np.int32(self.made), last=np.int32(last))
        with mesh.activate(self.devices):
            self.state = stage_program.sample_stage(
                self.params,
                self.inputs,
                self.state,
                span,
                program=self.trained.program(),
                size=self.size,
            )
        self.made = last

    def wait(self) -> None:
        """Return when the devices have made the steps that they were given."""
        self.state.made.block_until_ready()

    def images(self) -> tuple[np.ndarray, np.ndarray]:
        """The estimate of the images, after all steps the images; and which of them are finite.

        Shapes: (b, h, w, 3) float32 in [-1, 1] and (b,) bool, without the rows that fill the batch.
        """
        with mesh.activate(self.devices):
            clipped = stage_program.clip_x0(self.state)
            finite = nonfinite_images.is_finite_each(clipped)
        count = len(self.indices)
        return mesh.to_host(clipped)[:count], mesh.to_host(finite)[:count]
