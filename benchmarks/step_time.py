"""Speed of any config on this machine: training step, sampling step and seconds per image.

    python benchmarks/step_time.py quickstart/base16                every figure of one config
    python benchmarks/step_time.py imagen/base64_500m --batch 64    at another batch
    python benchmarks/step_time.py quickstart/sr64 --vs other.py    two configs, interleaved
    python benchmarks/step_time.py quickstart/sr64 --vs unet        against a plain U-Net its size

Times are medians of warm calls; compiling is timed apart. MFU is 3 times the forward pass's FLOPs
over the chip's peak: a table's where the chip is known, else that of a matrix product measured
here. `benchmarks/peers.py` measures our networks and other projects' at equal shapes.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import _timing
import jax
import jax.numpy as jnp
import numpy as np
import tyro
from _twin import twin

from imagen_jax import config, models, rng
from imagen_jax.diffusion.samplers import SamplerParams
from imagen_jax.parallel import accelerators, auto_layout, mesh
from imagen_jax.plan import sampling_loop
from imagen_jax.sample import stage_program
from imagen_jax.sample.stage_program import TrainedStage
from imagen_jax.train import sharded_step

PLAIN = "unet"
MATRIX = {"cpu": 1536}  # side of the measured product; elsewhere 8192
GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Options:
    """Measured configs."""

    config: tyro.conf.Positional[str | None] = None
    """A config file or name; of a folder, every stage."""
    vs: str | None = None
    """Another config, measured in turn with the first; `unet`: a plain U-Net of as many
    parameters in the same stage."""
    batch: int | None = None
    """Training batch over all devices. Default: the config's."""
    images: int = 8
    """Images sampled at once; 0 leaves sampling out."""
    sampling_steps: int | None = None
    """Default: the config's."""
    repeats: int = 7
    """Timed calls, of which the median counts."""
    json: Path | None = None
    """Write every figure to this file, too."""


@dataclasses.dataclass
class Figures:
    """One config's figures; seconds, bytes."""

    name: str
    parameters: int
    batch: int
    tflop_per_image: float  # of a training step, by the model
    compile_seconds: float = 0.0
    step_seconds: float = 0.0
    images_per_s: float = 0.0
    mfu: float = 0.0
    peak_gib: float | None = None  # of a device, by the runtime or else by the compiler
    sampler_compile_seconds: float | None = None
    sampling_step_seconds: float | None = None
    seconds_per_image: float | None = None


def main() -> None:
    """Measure, print a table, write JSON."""
    if "--peer" in sys.argv[1:]:
        raise SystemExit("--peer is a command of its own: python benchmarks/peers.py")
    options = tyro.cli(Options, description=__doc__)
    if options.config is None:
        raise SystemExit("give a config, such as quickstart/base16")
    experiments = [_changed(e, options) for e in config.load(options.config)]
    if options.vs is not None:
        if len(experiments) > 1:
            raise SystemExit("--vs compares two stages: give one config file, not a folder")
        experiments.append(_other(experiments[0], options))
    peak, source = peak_flops()
    print(
        f"{jax.device_count()} x {jax.devices()[0].device_kind}, jax {jax.__version__}; peak "
        f"{peak / 1e12:.2f} TFLOP/s a device ({source})",
        flush=True,
    )
    groups = [experiments] if options.vs else [[e] for e in experiments]
    found = [f for group in groups for f in measure(group, peak=peak, options=options)]
    print(table(found))
    if options.vs:
        one, other = found
        print(
            f"\n{one.name}: {other.step_seconds / one.step_seconds:.2f} times the steps per "
            f"second of {other.name}"
        )
    if options.json:
        document = {
            "device": jax.devices()[0].device_kind,
            "devices": jax.device_count(),
            "jax": jax.__version__,
            "peak_tflops": peak / 1e12,
            "peak_from": source,
            "figures": [dataclasses.asdict(f) for f in found],
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n")


def measure(
    experiments: Sequence[config.Experiment], *, peak: float, options: Options
) -> list[Figures]:
    """Figures of every experiment, their calls taken in turns."""
    found, trainers, samplers = [], [], []
    for experiment in experiments:
        figures, train = build_trainer(experiment)
        found.append(figures)
        trainers.append(train)
    for figures, seconds in zip(found, _timing.in_turns(trainers, options.repeats), strict=True):
        figures.step_seconds = seconds
        figures.images_per_s = figures.batch / seconds
        rate = figures.images_per_s * figures.tflop_per_image * 1e12
        figures.mfu = rate / peak / jax.device_count()
    del trainers
    if options.images:
        for experiment, figures in zip(experiments, found, strict=True):
            samplers.append(_sampler(experiment, figures, options.images))
        times = _timing.in_turns(samplers, max(1, options.repeats // 2))
        for experiment, figures, seconds in zip(experiments, found, times, strict=True):
            figures.seconds_per_image = seconds / options.images
            figures.sampling_step_seconds = seconds / experiment.stage.sampler.steps
    return found


def peak_flops() -> tuple[float, str]:
    """FLOPs a second of one device, and where the figure is from."""
    device = jax.devices()[0]
    chip = accelerators.from_device_kind(device.device_kind)
    if chip is not None:
        return chip.peak_flops / chip.devices, "data sheet, bfloat16"
    side = MATRIX.get(device.platform, 8192)
    dtype = jnp.float32 if device.platform == "cpu" else jnp.bfloat16
    matrix = jax.device_put(jnp.ones((side, side), dtype), device)
    product = jax.jit(jnp.matmul)
    (seconds,) = _timing.in_turns([lambda: product(matrix, matrix).block_until_ready()], 9)
    return 2 * side**3 / seconds, f"a {side} x {side} product in {dtype.__name__}"


def table(found: Sequence[Figures]) -> str:
    """The figures as a Markdown table."""
    columns: dict[str, Callable[[Figures], str]] = {
        "config": lambda f: f.name,
        "parameters": lambda f: f"{f.parameters / 1e6:.2f} M",
        "batch": lambda f: str(f.batch),
        "compile": lambda f: f"{f.compile_seconds:.1f} s",
        "step": lambda f: f"{1000 * f.step_seconds:.1f} ms",
        "images/s": lambda f: f"{f.images_per_s:.1f}",
        "MFU": lambda f: f"{100 * f.mfu:.1f} %",
        "peak memory": lambda f: "-" if f.peak_gib is None else f"{f.peak_gib:.2f} GiB",
        "sampling step": lambda f: _milliseconds(f.sampling_step_seconds),
        "image": lambda f: _milliseconds(f.seconds_per_image),
    }
    rows = [list(columns), ["---"] * len(columns)]
    rows += [[show(f) for show in columns.values()] for f in found]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.1f} ms"


def build_trainer(experiment: config.Experiment) -> tuple[Figures, Callable[[], None]]:
    """The compiled step on random images, as a call that waits for its end."""
    work = sharded_step.build(experiment)
    size = experiment.train.batch_size
    batch = _timing.batch(work)
    start = time.perf_counter()
    compiled = work.lower().compile()
    figures = Figures(
        name=experiment.stage.name,
        parameters=models.count_parameters(work.shapes.params),
        batch=size,
        tflop_per_image=sharded_step.flops_per_image(experiment) / 1e12,
        compile_seconds=time.perf_counter() - start,
        peak_gib=_peak(compiled),
    )
    key = rng.root(0)
    current = [work.init(key)]

    def call() -> None:
        with mesh.activate(work.devices):
            current[0], metrics = compiled(current[0], batch, key)
        metrics["loss"].block_until_ready()

    return figures, call


def _sampler(experiment: config.Experiment, figures: Figures, count: int) -> Callable[[], None]:
    """A stage's whole sampling loop on random weights, as a call that waits for its end."""
    stage, text = experiment.stage, experiment.text
    module = models.build(stage.model)
    init = jax.jit(
        lambda key: models.init(
            module, key, stage=stage, text_width=text.width, text_length=text.max_length
        )
    )
    params = init(rng.root(0))
    grid = mesh.build(auto_layout.choose_axes())
    count = auto_layout.padded_batch_size(count, grid, passes=1, side=stage.size)
    draw, by_row = np.random.default_rng(0), mesh.batch_sharding(grid)
    shapes = sampling_loop.canvas_shapes(experiment, count, by_row)
    filled = jax.tree.map(lambda x: _timing.random(draw, x), shapes)
    canvas = jax.device_put(filled, by_row)
    params = jax.device_put(params, mesh.replicated_sharding(grid))
    trained = TrainedStage(stage=stage, module=module, params=params)
    fixed = {"program": trained.program(), "size": (stage.size, stage.size)}
    dials = SamplerParams.from_config(stage.sampler)
    start = time.perf_counter()
    with mesh.activate(grid):
        compiled = stage_program.sample_stage.lower(params, canvas, None, dials, **fixed).compile()
    figures.sampler_compile_seconds = time.perf_counter() - start
    return lambda: compiled(params, canvas, None, dials).x0.block_until_ready()


def _peak(compiled: Any) -> float | None:
    """Peak memory of a device in GiB: arguments, results that are new, and temporaries."""
    found = compiled.memory_analysis()
    if found is None:
        return None
    new = found.output_size_in_bytes - found.alias_size_in_bytes
    return (found.argument_size_in_bytes + new + found.temp_size_in_bytes) / GIB


def _changed(experiment: config.Experiment, options: Options) -> config.Experiment:
    stage, train = experiment.stage, experiment.train
    if options.sampling_steps is not None:
        sampler = dataclasses.replace(stage.sampler, steps=options.sampling_steps)
        stage = dataclasses.replace(stage, sampler=sampler)
    if options.batch is not None:
        train = dataclasses.replace(train, batch_size=options.batch)
    return dataclasses.replace(experiment, stage=stage, train=train)


def _other(experiment: config.Experiment, options: Options) -> config.Experiment:
    if options.vs != PLAIN:
        (other,) = config.load(options.vs)
        return _changed(other, options)
    stage = experiment.stage
    plain = dataclasses.replace(stage, name=f"{stage.name} as U-Net", model=twin(experiment))
    return dataclasses.replace(experiment, stage=plain)


if __name__ == "__main__":
    main()
