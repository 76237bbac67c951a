"""This project's side: its compiled training step, and its sampling loop."""

from __future__ import annotations

import functools
import math

import _timing
import jax
import jax.numpy as jnp
import numpy as np
from _peer_shapes import GUIDANCE, HEAD_CHANNELS, Shapes, Work

from imagen_jax import config, models, rng
from imagen_jax.diffusion.samplers import SamplerParams
from imagen_jax.parallel import auto_layout, flops, mesh
from imagen_jax.plan import sampling_loop
from imagen_jax.sample import stage_program
from imagen_jax.sample.stage_program import TrainedStage
from imagen_jax.train import sharded_step, step

NAME = "imagen_jax"
NORM_GROUPS = 8  # the peers'


def training(shapes: Shapes) -> Work:
    """Forward, gradient, Adam with clipping, EMA, and the guard of non-finite steps."""
    experiment = configured(shapes)
    devices = jax.devices()[: math.gcd(shapes.batch, jax.device_count())]
    work = sharded_step.build(experiment, devices=devices)
    batch, key = _timing.batch(work), rng.root(0)
    forward = flops.count_flops(
        step.loss_function(experiment.stage, work.module), work.shapes.params, batch, key
    )
    compiled = work.lower().compile()
    current = [work.init(key)]

    def call() -> None:
        with mesh.activate(work.devices):
            current[0], metrics = compiled(current[0], batch, key)
        jax.block_until_ready((current[0], metrics))

    return Work(
        parameters=models.count_parameters(work.shapes.params),
        forward=forward / shapes.batch,
        flops=sharded_step.TRAINING * forward,
        call=call,
    )


def sampling(shapes: Shapes) -> Work:
    """The whole sampling loop, one compiled program: guidance, dynamic threshold, ancestral."""
    experiment = configured(shapes)
    stage, text = experiment.stage, experiment.text
    draw = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: jnp.float32(draw.normal(0, 0.05, x.shape)), models.parameter_shapes(stage, text)
    )
    devices = jax.devices()[: math.gcd(shapes.batch, jax.device_count())]
    grid = mesh.build(auto_layout.choose_axes(devices=devices), devices=devices)
    by_row = mesh.batch_sharding(grid)
    blank = sampling_loop.canvas_shapes(experiment, shapes.batch, by_row)
    filled = jax.tree.map(lambda x: _timing.random(draw, x), blank)
    canvas = jax.device_put(filled, by_row)
    params = jax.device_put(params, mesh.replicated_sharding(grid))
    painter = TrainedStage(stage=stage, module=models.build(stage.model), params=params)
    fixed = {"program": painter.program(), "size": (stage.size, stage.size)}
    dials = SamplerParams.from_config(stage.sampler)
    sample = functools.partial(stage_program.sample_stage.__wrapped__, **fixed)
    counted = (
        flops.count_flops(lambda *given: sample(*given, None, dials), params, canvas) / shapes.steps
    )
    with mesh.activate(grid):
        lowered = stage_program.sample_stage.lower(params, canvas, None, dials, **fixed)
    compiled = lowered.compile()
    return Work(
        parameters=models.count_parameters(params),
        forward=counted / shapes.batch,
        flops=counted,
        call=lambda: compiled(params, canvas, None, dials).x0.block_until_ready(),
        steps=shapes.steps,
    )


def configured(shapes: Shapes) -> config.Experiment:
    """The run that these shapes describe."""
    stage = config.Stage(
        name="sr" if shapes.low_size else "base",
        size=shapes.size,
        low_size=shapes.low_size,
        model=efficient(shapes) if shapes.halves_first else plain(shapes),
        sampler=config.Sampler(
            kind="ancestral",
            steps=shapes.steps,
            threshold="dynamic",
            guidance_weight=GUIDANCE,
        ),
    )
    return config.Experiment(
        stage=stage,
        text=config.Text(width=shapes.text_width, max_length=shapes.text_length),
        train=config.Train(batch_size=shapes.batch),
    )


def plain(shapes: Shapes) -> config.UNet:
    """The ADM-style U-Net, attention once a level."""
    return config.UNet(
        channels=shapes.channels,
        channel_mult=shapes.channel_mult,
        res_blocks=shapes.res_blocks,
        attention_at=shapes.attention_at,
        attention_every_block=False,
        head_channels=HEAD_CHANNELS,
        norm_groups=NORM_GROUPS,
    )


def efficient(shapes: Shapes) -> config.EfficientUNet:
    """The Efficient U-Net: every level halves, its skips in the stem's width and the levels'."""
    widths = [shapes.channels * mult for mult in shapes.channel_mult]
    levels = tuple(
        config.Level(channels=width, blocks=shapes.res_blocks, self_attention=on, text_attention=on)
        for width, on in zip(widths, shapes.attends, strict=True)
    )
    return config.EfficientUNet(
        stem_channels=shapes.channels,
        levels=levels,
        cond_channels=4 * shapes.channels,
        heads=widths[-1] // HEAD_CHANNELS,
        attn_hidden_mult=1,
        norm_groups=NORM_GROUPS,
    )
