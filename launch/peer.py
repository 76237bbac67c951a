"""Our base U-Net's sampling step beside that of a PyTorch Imagen, at equal shapes.

The peer is lucidrains/imagen-pytorch 2.1.0 (`pip install imagen_jax[peer]`). Both sample pictures
from random weights with their own loop: guidance, dynamic threshold, ancestral step. Widths,
levels, residual blocks of a level, sides that attend, text and precision are equal; what the
architectures add beside them is not, so that parameters and FLOPs stand beside the times.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import measuring
import numpy as np

from imagen_jax import config, flops, mesh, models, rng
from imagen_jax.diffusion.dials import Dials
from imagen_jax.sample import painting
from imagen_jax.sample.painting import Canvas, Captions, Painter, Program

THREADS = 2
GUIDANCE = 5.0
INSTALL = "--peer needs lucidrains/imagen-pytorch and torch: pip install 'imagen_jax[peer]'"
HEADS, HEAD_CHANNELS = 4, 64  # the peer has as many heads at every level


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shapes:
    """What both sides have in common."""

    size: int = 64
    batch: int = 4
    channels: int = 64
    channel_mult: tuple[int, ...] = (1, 2, 3, 4)
    res_blocks: tuple[int, ...] = (1, 1, 1, 1)  # of each level, by the peer's count
    attention_at: tuple[int, ...] = (16, 8)
    text_length: int = 32
    text_width: int = 512
    steps: int = 8


NARROW = Shapes()
# The peer advises against widths below 128.
WIDE = Shapes(channels=128, channel_mult=(1, 1, 2, 2))
# The peer's resampling has no residual block: with one more at each fine level the work is equal.
EQUAL_WORK = (2, 2, 1, 1)


@dataclasses.dataclass(frozen=True)
class Side:
    """One project's sampler: what it is, and a call that samples `batch` pictures."""

    name: str
    parameters: int
    flops: float  # of a guided step of one picture
    call: Callable[[], Any]


@dataclasses.dataclass(frozen=True)
class Row:
    """One side's figures, in seconds."""

    side: Side
    step_seconds: float
    batch: int

    @property
    def rate(self) -> float:
        """FLOPs a second."""
        return self.side.flops * self.batch / self.step_seconds


def compare(repeats: int) -> None:
    """Measure and print. Errors: SystemExit without the peer, saying how to install it."""
    _pin()
    torch, package = load()
    torch.set_num_threads(THREADS)
    print(f"{processor()}, {THREADS} threads, jax {jax.__version__}, torch {torch.__version__}")
    for shapes in (NARROW, WIDE):
        more = dataclasses.replace(shapes, res_blocks=EQUAL_WORK)
        sides = [ours(shapes), theirs(torch, package, shapes), theirs(torch, package, more)]
        times = measuring.in_turns([side.call for side in sides], repeats)
        rows = [
            Row(side, seconds / shapes.steps, shapes.batch)
            for side, seconds in zip(sides, times, strict=True)
        ]
        print(
            f"\n{shapes}, guidance {GUIDANCE:g}; medians of {repeats}\n\n{table(rows)}", flush=True
        )


def ours(shapes: Shapes) -> Side:
    """This project's: the whole sampling loop is one compiled program."""
    stage, text = our_config(shapes)
    module = models.build(stage.model)
    draw, batch = np.random.default_rng(0), shapes.batch
    params = jax.tree.map(
        lambda x: jnp.float32(draw.normal(0, 0.05, x.shape)), models.shapes(stage, text)
    )
    captions = Captions(
        jnp.float32(draw.normal(size=(batch, text.max_length, text.width))),
        jnp.ones((batch, text.max_length), jnp.bool_),
        jnp.ones(batch, jnp.bool_),
    )
    keys = rng.fold_each(rng.root(0), "image", np.arange(batch))
    canvas = Canvas(captions, captions.nulled(), keys, np.zeros(batch, np.float32), low_res=None)
    program = Program.of(
        Painter(stage=stage, module=module, params=params), (shapes.size, shapes.size)
    )
    paint = functools.partial(painting.paint.__wrapped__, program=program)
    dials = Dials.of(stage.sampler)
    work = flops.of(lambda *given: paint(*given, None, dials), params, canvas)
    fitting = math.gcd(batch, jax.device_count())
    devices = mesh.build(config.Mesh(), devices=jax.devices()[:fitting])
    canvas = jax.device_put(canvas, mesh.batch_sharding(devices))
    params = jax.device_put(params, mesh.replicated(devices))
    with mesh.use(devices):
        lowered = painting.paint.lower(params, canvas, None, dials, program=program)
    compiled = lowered.compile()
    return Side(
        name="imagen_jax",
        parameters=models.count(params),
        flops=work / shapes.steps / batch,
        call=lambda: compiled(params, canvas, None, dials).x0.block_until_ready(),
    )


def our_config(shapes: Shapes) -> tuple[config.Stage, config.Text]:
    """The stage and the text of these shapes."""
    stage = config.Stage(
        name="base",
        size=shapes.size,
        model=config.UNet(
            channels=shapes.channels,
            channel_mult=shapes.channel_mult,
            res_blocks=min(shapes.res_blocks),
            attention_at=shapes.attention_at,
            attention_every_block=False,
            head_channels=HEAD_CHANNELS,
            norm_groups=8,  # the peer's
        ),
        sampler=config.Sampler(
            kind="ancestral",
            steps=shapes.steps,
            threshold="dynamic",
            guidance_weight=GUIDANCE,
        ),
    )
    return stage, config.Text(width=shapes.text_width, max_length=shapes.text_length)


def load() -> tuple[Any, Any]:
    """PyTorch and the peer, which would ask the network for a default's width at import."""
    try:
        import torch
        import transformers
    except ImportError as error:
        raise SystemExit(f"{INSTALL} ({error})") from error
    width = SimpleNamespace(d_model=768)
    with mock.patch.object(transformers.T5Config, "from_pretrained", return_value=width):
        try:
            import imagen_pytorch
        except ImportError as error:
            raise SystemExit(f"{INSTALL} ({error})") from error
    return torch, imagen_pytorch


def theirs(torch: Any, package: Any, shapes: Shapes) -> Side:
    """The peer's; of its options only those are set that the shapes fix, and plain guidance."""
    from torch.utils.flop_counter import FlopCounterMode

    torch.manual_seed(0)
    attends = tuple(side in shapes.attention_at for side in _sides(shapes))
    network = package.Unet(
        dim=shapes.channels,
        dim_mults=shapes.channel_mult,
        num_resnet_blocks=shapes.res_blocks,
        layer_attns=attends,
        layer_cross_attns=attends,
        attn_heads=HEADS,
        attn_dim_head=HEAD_CHANNELS,
        text_embed_dim=shapes.text_width,
        max_text_len=shapes.text_length,
    )
    imagen = package.Imagen(
        unets=network,
        image_sizes=shapes.size,
        text_embed_dim=shapes.text_width,
        timesteps=shapes.steps,
        dynamic_thresholding_percentile=0.995,
    )
    text = torch.randn(shapes.batch, shapes.text_length, shapes.text_width)
    given = {
        "text_embeds": text,
        "text_masks": torch.ones(text.shape[:2], dtype=torch.bool),
        "cond_scale": GUIDANCE,
        "cfg_remove_parallel_component": False,
        "use_tqdm": False,
    }
    with FlopCounterMode(display=False) as counted:
        imagen.sample(**given)
    return Side(
        name=f"imagen-pytorch, blocks {shapes.res_blocks}",
        parameters=sum(p.numel() for p in imagen.unets[0].parameters()),
        flops=counted.get_total_flops() / shapes.steps / shapes.batch,
        call=lambda: imagen.sample(**given),
    )


def table(rows: Sequence[Row]) -> str:
    """The figures as a Markdown table; the first row is ours, the others are compared with it."""
    own = rows[0]
    lines = [
        "| | parameters | GFLOP a step and picture | step | rate | ours is faster | per FLOP |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        faster = row.step_seconds / own.step_seconds
        cells = [
            row.side.name,
            f"{row.side.parameters / 1e6:.2f} M",
            f"{row.side.flops / 1e9:.1f}",
            f"{1000 * row.step_seconds:.0f} ms",
            f"{row.rate / 1e9:.0f} GFLOP/s",
            "-" if row is own else f"{faster:.2f} x",
            "-" if row is own else f"{own.rate / row.rate:.2f} x",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def processor() -> str:
    """The name of this machine's processor."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if "model name" in line]
    except OSError:
        names = []
    return names[0] if names else "an unnamed processor"


def _sides(shapes: Shapes) -> list[int]:
    return [shapes.size // 2**level for level in range(len(shapes.channel_mult))]


def _pin() -> None:
    """Both sides on the same cores, which are a device each to jax; before jax counts them.

    A picture is not split: XLA's CPU runs some loops, and convolutions to 64 channels or fewer, on
    one thread of a device.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    jax.config.update("jax_num_cpu_devices", THREADS)
