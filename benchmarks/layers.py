"""Speed of every class of a network's layers: forward, and the gradient of input and parameters.

    taskset -c 0 python benchmarks/layers.py                      our small cascades, reference
    taskset -c 0 python benchmarks/layers.py imagen/sr256 --batch 1
    taskset -c 0 python benchmarks/layers.py reference/base --every --step

Layers are those that a network calls, at the shapes with which it calls them: of each class the
one with the most products. A rate is the forward pass's FLOPs, counted on its trace, over seconds:
of the processor on CPUs, of the clock elsewhere. A gradient's seconds are those of a program with
it less those of the forward pass. The bare rate is that of a convolution or matrix product as
large, in the same turns; below half of it a rate is marked with `*`.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import _reference_networks
import _timing
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import tyro

from imagen_jax import config, models
from imagen_jax.parallel import flops
from imagen_jax.train import sharded_step

REFERENCE = "reference"
MIB = 2**20
CONTAINERS = (
    "UNet",
    "EfficientUNet",
    "DBlock",
    "Down",
    "Middle",
    "UBlock",
    "Up",
    "Conditioner",
)  # of layers


@dataclasses.dataclass(frozen=True)
class Options:
    """Measured networks."""

    configs: tyro.conf.Positional[tuple[str, ...]] = ("quickstart", "shapes", "emoji", REFERENCE)
    """Config files or names, of a folder every stage; `reference`: two networks as large as those
    of the comparison with other projects, `reference/base` and `reference/sr`."""
    batch: int | None = None
    """Images. Default: the config's training batch, at most 16."""
    every: bool = False
    """Every layer of another class or shape, not the largest of each class."""
    step: bool = False
    """The whole training step as well."""
    repeats: int = 5
    """Turns, of which the fastest counts."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer as its network calls it; arrays are shapes."""

    name: str
    module: nn.Module
    arguments: tuple[Any, ...]

    @property
    def kind(self) -> str:
        """Class of the layer, and its kernel and stride: layers that share it share a row."""
        module, kind = self.module, type(self.module).__name__
        if isinstance(module, nn.Conv):
            return f"{kind} {'x'.join(map(str, module.kernel_size))}, stride {module.strides}"
        return " ".join([kind, *(v for v in [getattr(module, "resample", "none")] if v != "none")])

    @property
    def params(self) -> Any:
        """Shapes of the parameters."""
        made = jax.eval_shape(self.module.init, jax.random.key(0), *self.arguments)
        return made.get("params", {})

    def __call__(self, params: Any, *arguments: Any) -> Any:
        return self.module.apply({"params": params}, *arguments)


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds of a layer's three programs, of a product as large, and memory of the gradients."""

    forward: float
    with_dx: float
    with_dk: float
    bare: float
    temporary: float


def main() -> None:
    """Measure and print a table for each config."""
    options = tyro.cli(Options, description=__doc__)
    square = jnp.ones((1024, 1024))
    (matrix,) = seconds([Call(jax.jit(jnp.matmul), (square, square))], options.repeats)
    print(
        f"{jax.devices()[0].device_kind}, jax {jax.__version__}; a product of 1,024^3: "
        f"{2 * 1024**3 / matrix / 1e9:.0f} GFLOP/s"
    )
    for name in options.configs:
        for experiment in experiments(name):
            size = options.batch or min(experiment.train.batch_size, 16)
            experiment = dataclasses.replace(
                experiment, train=dataclasses.replace(experiment.train, batch_size=size)
            )
            print(f"\n{name}: {experiment.stage.name}, batch {size}\n\n{HEAD}", flush=True)
            for layer in layers(experiment, every=options.every):
                print(row(layer, measure(layer, options.repeats)), flush=True)
            if options.step:
                print(step(experiment, options.repeats), flush=True)


def experiments(name: str) -> list[config.Experiment]:
    """Those of a config, or the two of reference. Errors: ValueError for an unknown name."""
    own = {f"{REFERENCE}/{kind}": make() for kind, make in _reference_networks.NETWORKS.items()}
    if name == REFERENCE:
        return list(own.values())
    return [own[name]] if name in own else list(config.load(name))


def layers(experiment: config.Experiment, *, every: bool) -> list[Layer]:
    """The layers of a network in the order of its calls, without two alike."""
    found: dict[Any, Layer] = {}

    def record(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if context.method_name == "__call__" and type(module).__name__ not in CONTAINERS:
            shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), args)
            layer = Layer("/".join(module.path), module.clone(parent=None, name=None), shapes)
            found.setdefault((layer.kind, repr(layer.module), repr(shapes)), layer)
        return call(*args, **kwargs)

    network = models.build(experiment.stage.model)
    with nn.intercept_methods(record):
        jax.eval_shape(lambda *given: forward(network, experiment, *given), *given(experiment))
    if every:
        return list(found.values())
    largest: dict[str, Layer] = {}
    for layer in found.values():
        other = largest.get(layer.kind)
        if other is None or _size(layer) > _size(other):
            largest[layer.kind] = layer
    return list(largest.values())


def given(experiment: config.Experiment) -> Iterator[Any]:
    """Shapes of parameters and batch."""
    yield models.parameter_shapes(experiment.stage, experiment.text)
    yield sharded_step.batch_shapes(experiment)


def forward(network: Any, experiment: config.Experiment, params: Any, batch: Any) -> Any:
    """A network's prediction from a batch, as in training."""
    pixels = batch.pixels.astype(jnp.float32)
    logsnr, here = jnp.zeros(pixels.shape[0]), jnp.ones(pixels.shape[0], jnp.bool_)
    text = (batch.text.astype(jnp.float32), batch.text_mask, here)
    low = {}
    if experiment.stage.is_super_resolution:
        low = {"low_res": pixels, "aug_logsnr": logsnr}
    cond = models.condition(network, params, text, **low)
    return models.predictor(network, params, cond)(pixels, logsnr)


def _size(layer: Layer) -> tuple[int, int]:
    return work(layer), sum(math.prod(x.shape) for x in jax.tree.leaves(layer.arguments))


def work(layer: Layer) -> int:
    """FLOPs of the forward pass."""
    return flops.count_flops(layer, layer.params, *layer.arguments)


@dataclasses.dataclass(frozen=True)
class Call:
    """A compiled function with its arguments."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]

    def __call__(self) -> None:
        jax.block_until_ready(self.function(*self.arguments))


def programs(layer: Layer) -> tuple[list[Any], Any]:
    """The forward pass alone, with dx and with dk, and shapes of the arguments of all three."""
    shapes = (layer.params, layer.arguments, jax.eval_shape(layer, layer.params, *layer.arguments))

    def alone(params: Any, arguments: Any, _: Any) -> Any:
        return layer(params, *arguments)

    def with_dx(params: Any, arguments: Any, gradient: Any) -> Any:
        floats = [jnp.issubdtype(x.dtype, jnp.floating) for x in jax.tree.leaves(arguments)]
        leaves, tree = jax.tree.flatten(arguments)
        varied = [x for x, ok in zip(leaves, floats, strict=True) if ok]

        def of(varied: Any) -> Any:
            left = iter(varied)
            both = [next(left) if ok else x for x, ok in zip(leaves, floats, strict=True)]
            return layer(params, *jax.tree.unflatten(tree, both))

        found, transposed = jax.vjp(of, varied)
        return found, transposed(gradient)

    def with_dk(params: Any, arguments: Any, gradient: Any) -> Any:
        found, transposed = jax.vjp(lambda params: layer(params, *arguments), params)
        return found, transposed(gradient)

    return [jax.jit(f).lower(*shapes).compile() for f in (alone, with_dx, with_dk)], shapes


def bare(layer: Layer, flop: int) -> Call:
    """The same convolution, or for other layers a matrix product with as many FLOPs."""
    draw = np.random.default_rng(0)
    if isinstance(layer.module, nn.Conv):
        (x,), shape = layer.arguments, layer.params["kernel"].shape
        kernel = jax.ShapeDtypeStruct(shape, x.dtype)  # as the layer computes
        arrays = jax.tree.map(lambda array: _timing.random(draw, array), (x, kernel))
        strides = layer.module.strides or 1
        strides = (strides, strides) if isinstance(strides, int) else tuple(strides)
        names = ("NHWC", "HWIO", "NHWC")
        return Call(
            jax.jit(
                lambda x, k: jax.lax.conv_general_dilated(x, k, strides, "SAME", None, None, names)
            ),
            jax.device_put(arrays),
        )
    rows = max(16, min(4096, flop // (2 * 256 * 256)))
    columns = max(16, flop // (2 * rows * 256)) if flop else 16
    return Call(jax.jit(jnp.matmul), (jnp.ones((rows, 256)), jnp.ones((256, columns))))


def measure(layer: Layer, repeats: int) -> Times:
    """The layer's times, its programs and the bare product in turns."""
    compiled, shapes = programs(layer)
    draw = np.random.default_rng(0)
    arrays = jax.device_put(jax.tree.map(lambda x: _timing.random(draw, x), shapes))
    calls = [Call(f, arrays) for f in compiled] + [bare(layer, work(layer))]
    memory = max(f.memory_analysis().temp_size_in_bytes for f in compiled[1:])
    return Times(*seconds(calls, repeats), memory / MIB)


def seconds(calls: list[Call], repeats: int) -> list[float]:
    """The fewest seconds of each call: of the processor on CPUs, else of the clock."""
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    for _ in range(repeats):
        for taken, call in zip(times, calls, strict=True):
            start, turns = clock(), 0
            while turns < 2 or (clock() - start < 0.01 and turns < 100):
                call()
                turns += 1
            taken.append((clock() - start) / turns)
    return [min(taken) for taken in times]


HEAD = (
    "| layer | first input | GFLOP | bare | forward | dx | dk | MiB |\n"
    "|---|---|---|---|---|---|---|---|"
)


def row(layer: Layer, times: Times) -> str:
    """Rates in GFLOP a second with milliseconds; of a layer without products, milliseconds."""
    flop, shape = work(layer), jax.tree.leaves(layer.arguments)[0].shape
    spent = (times.forward, times.with_dx - times.forward, times.with_dk - times.forward)
    cells = [f"{layer.kind} `{layer.name}`", "x".join(map(str, shape)), f"{flop / 1e9:.3f}"]
    cells.append(f"{flop / times.bare / 1e9:.0f}" if flop else "-")
    for taken in spent:
        rate = f"{flop / max(taken, 1e-9) / 1e9:.0f}" if flop else "-"
        slow = "*" if flop and taken > 2 * times.bare else ""
        cells.append(f"{rate}{slow} ({1000 * taken:.2f} ms)")
    return "| " + " | ".join([*cells, f"{times.temporary:.1f}"]) + " |"


def step(experiment: config.Experiment, repeats: int) -> str:
    """The whole training step: forward and gradients, optimiser, average."""
    from step_time import build_trainer

    figures, call = build_trainer(experiment)
    (taken,) = seconds([call], repeats)
    flop = figures.tflop_per_image * figures.batch * 1e12
    return (
        f"\ntraining step: {flop / 1e9:.0f} GFLOP, {1000 * taken:.0f} ms, "
        f"{flop / taken / 1e9:.0f} GFLOP/s; compiled in {figures.compile_seconds:.0f} s"
    )


if __name__ == "__main__":
    main()
