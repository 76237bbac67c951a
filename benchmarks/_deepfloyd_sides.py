"""One stage of DeepFloyd IF sampled by this package and by diffusers, from the same folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _peer_shapes import Missing, Work

import imagen_jax
from imagen_jax.diffusion.samplers import SamplerParams
from imagen_jax.parallel import flops
from imagen_jax.sample import stage_program
from imagen_jax.sample.sampler_inputs import EncodedText, SamplerInputs

GUIDANCE, TIME = 7.0, 500  # the time step at which both predict the same noise


@dataclasses.dataclass(frozen=True)
class Case:
    """A folder, and the sampling that both sides do with it."""

    folder: Path
    parameters: int
    steps: int
    size: int = 64
    batch: int = 1

    def texts(self) -> np.ndarray:
        """Encodings of a prompt and of the empty one, (2, 77, 4096)."""
        return np.random.default_rng(1).standard_normal((2, 77, 4096)).astype(np.float32)

    def noise(self) -> np.ndarray:
        """Noise, (b, h, w, 3)."""
        shape = (self.batch, self.size, self.size, 3)
        return np.random.default_rng(2).standard_normal(shape).astype(np.float32)

    def keep(self, side: str, output: np.ndarray) -> None:
        """Keep a prediction of `noise` at `TIME`, (b, h, w, 6), to compare."""
        np.save(self.folder / f"{side}.npy", output)

    def deviation(self) -> float:
        """The largest difference of the two predictions, by the largest number."""
        ours, theirs = (np.load(self.folder / f"{side}.npy") for side in ("ours", "theirs"))
        return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def ours(case: Case) -> Work:
    """Our program of the whole loop, and a prediction by `TrainedStage.predict`."""
    cascade = imagen_jax.load(case.folder, compile_cache=False, offload=True)
    (trained,) = cascade.with_sampler({"steps": case.steps, "guidance_weight": GUIDANCE}).stages
    params = trained.device_params()
    text, empty = (jnp.repeat(x[None], case.batch, 0) for x in jnp.asarray(case.texts()))
    predict = jax.jit(trained.predict)
    found = predict(params, jnp.asarray(case.noise()), TIME, text)
    case.keep("ours", np.concatenate([found.eps, found.variance], axis=-1))
    mask, has = np.ones(text.shape[:2], np.bool_), np.ones(case.batch, np.bool_)
    indices = np.arange(case.batch, dtype=np.int32)
    inputs = SamplerInputs(EncodedText(text, mask, has), indices, EncodedText(empty, mask, has))
    numbers = SamplerParams.from_config(trained.stage.sampler)
    size, program = (case.size, case.size), trained.program()

    def call() -> Any:
        state = stage_program.sample_stage(
            params, inputs, None, numbers, program=program, size=size
        )
        return state.x0.block_until_ready()

    forward = flops.count_flops(predict, params, jnp.asarray(case.noise()), TIME, text)
    step = 2 * forward * case.batch
    return Work(case.parameters, forward, step, call, case.steps)


def theirs(case: Case) -> Work:
    """Diffusers' IFPipeline, and a prediction by its network."""
    try:
        import diffusers
        import torch
    except ImportError:
        raise Missing("diffusers is not installed: pip install 'imagen_jax[diffusers]'") from None
    diffusers.logging.disable_progress_bar()
    network = diffusers.UNet2DConditionModel.from_pretrained(
        case.folder / "unet", variant="fp16", torch_dtype=torch.float32
    )
    left_out = ("tokenizer", "text_encoder", "safety_checker", "feature_extractor", "watermarker")
    pipeline = diffusers.IFPipeline(
        unet=network,
        scheduler=diffusers.DDPMScheduler.from_pretrained(case.folder / "scheduler"),
        requires_safety_checker=False,
        **dict.fromkeys(left_out),
    )
    pipeline.set_progress_bar_config(disable=True)
    text, empty = (torch.from_numpy(x[None]) for x in case.texts())
    z = torch.from_numpy(case.noise()).permute(0, 3, 1, 2)
    with torch.no_grad():
        output = network(z, TIME, encoder_hidden_states=text.repeat(case.batch, 1, 1)).sample
    case.keep("theirs", output.permute(0, 2, 3, 1).numpy())

    def call() -> Any:
        return pipeline(
            prompt_embeds=text.repeat(case.batch, 1, 1),
            negative_prompt_embeds=empty.repeat(case.batch, 1, 1),
            num_inference_steps=case.steps,
            guidance_scale=GUIDANCE,
            output_type="pt",
        ).images

    return Work(case.parameters, 0.0, 0.0, call, case.steps)
