"""A step over adapters is one over the merged network: on a mesh, rematerialised, in bfloat16."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_batches import make_batch

import imagen_jax
from imagen_jax import config, export, lora, rng
from imagen_jax.lora import targets
from imagen_jax.parallel import mesh
from imagen_jax.train import sharded_step, step

ADAPTERS = config.Lora(rank=2, alpha=3.0, targets=("all",))
NAME = "tiny/sr16"
CASES: dict[str, tuple[dict[str, Any], config.Mesh, float]] = {
    "one device": ({}, config.Mesh(data=1, fsdp=1, spatial=1), 1e-6),
    "fsdp and height": ({}, config.Mesh(data=2, fsdp=2, spatial=2, min_shard_bytes=256), 1e-6),
    "blocks rematerialised": ({"remat": "block"}, config.Mesh(fsdp=2, spatial=1), 1e-6),
    "levels rematerialised": ({"remat": "level"}, config.Mesh(fsdp=2, spatial=1), 1e-6),
    # Sums of the merged kernel are rounded to float32 in another order: then to bfloat16 as well.
    "bfloat16": ({"dtype": "bfloat16"}, config.Mesh(fsdp=2, spatial=1), 2e-3),
}


def experiment(model: dict[str, Any], grid: config.Mesh, adapters: config.Lora) -> Any:
    given = config.load(NAME)[0]
    stage = dataclasses.replace(given.stage, model=dataclasses.replace(given.stage.model, **model))
    return dataclasses.replace(given, stage=stage, mesh=grid, lora=adapters)


def drawn(shapes: Any, seed: int, scale: float) -> Any:
    draw = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: np.float32(scale) * draw.standard_normal(x.shape, np.float32), shapes
    )


def merged(base: Any, adapters: lora.Adapters) -> Any:
    """By NumPy, in float64."""
    pairs = adapters.modules()

    def change(path: tuple[Any, ...], kernel: np.ndarray) -> np.ndarray:
        name = jax.tree_util.keystr(path[:-1], simple=True, separator="/")
        if path[-1].key != "kernel":
            return kernel
        down, up = (np.asarray(pairs[name][x], np.float64) for x in ("lora_A", "lora_B"))
        return np.float32(kernel + adapters.scales[name] * np.tensordot(down, up, 1))

    return jax.tree_util.tree_map_with_path(change, base)


def devices_of(wanted: config.Experiment) -> Any:
    return jax.devices()[:1] if wanted.mesh.data == 1 else None


def first_loss(wanted: config.Experiment, params: Any, frozen: Any) -> float:
    program = sharded_step.build(wanted, devices=devices_of(wanted))
    start = program.init(rng.root(0))

    def put(tree: Any, shardings: Any) -> Any:
        return None if tree is None else jax.tree.map(jax.device_put, tree, shardings)

    start = dataclasses.replace(
        start,
        params=put(params, program.shardings.params),
        ema=put(params, program.shardings.ema),
        frozen=put(frozen, program.shardings.frozen),
    )
    batch = jax.tree.map(jax.device_put, make_batch(NAME), program.batch_shardings)
    with mesh.activate(program.devices):
        _, metrics = program.step()(start, batch, rng.root(1))
    return float(metrics["loss"])


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_adapters_train_as_the_merged_network(case: str) -> None:
    model, grid, tolerance = CASES[case]
    whole, adapted = (experiment(model, grid, x) for x in (config.Lora(), ADAPTERS))
    shapes = sharded_step.build(adapted, devices=devices_of(adapted)).shapes
    base, weights = drawn(shapes.frozen, 0, 0.1), drawn(shapes.params, 1, 0.5)
    adapters = lora.from_weights(weights, ADAPTERS.scale)
    wanted = first_loss(whole, merged(base, adapters), None)
    assert first_loss(adapted, weights, base) == pytest.approx(wanted, rel=tolerance)
    assert abs(first_loss(whole, base, None) / wanted - 1) > 1e-2


def test_gradients_of_adapters_are_those_of_their_kernels_projected() -> None:
    draw = np.random.default_rng(0)
    kernels = {"dense": (6, 5), "convolution": (3, 3, 4, 5), "pixel": (1, 1, 4, 5)}
    base = {n: {"kernel": draw.standard_normal(s).astype(np.float32)} for n, s in kernels.items()}
    options = config.Lora(rank=2, alpha=3.0, targets=("all",))
    fresh = jax.eval_shape(lambda: lora.init(base, options, rng.root(0)))
    weights = drawn(fresh.weights, 1, 1.0)

    def loss_of(params: Any, batch: Any, key: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        return sum(jnp.sum(jnp.sin(x["kernel"])) for x in params.values()), {}

    loss, batch = step.adapted_loss(loss_of, base, options), make_batch(NAME)
    found, _ = jax.grad(loss, has_aux=True)(weights, batch, rng.root(0))
    kernel_grads, _ = jax.grad(loss_of, has_aux=True)(
        merged(base, lora.from_weights(weights, 1.5)), None, None
    )
    for name in kernels:
        down, up = (weights[name][x] for x in ("lora_A", "lora_B"))
        grad = np.asarray(kernel_grads[name]["kernel"], np.float64)
        np.testing.assert_allclose(found[name]["lora_A"], 1.5 * grad @ up.T, rtol=1e-4, atol=1e-4)
        wanted = 1.5 * down.reshape(-1, 2).T @ grad.reshape(-1, grad.shape[-1])
        np.testing.assert_allclose(found[name]["lora_B"], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", [1, 3])
def test_a_merged_kernel_computes_what_two_thin_layers_beside_it_do(side: int) -> None:
    """As adapters inside of layers have it, for a convolution: B after A, beside the kernel."""
    draw = np.random.default_rng(side)
    image = jnp.asarray(draw.standard_normal((2, 8, 8, 6)), jnp.float32)
    kernel = jnp.asarray(draw.standard_normal((side, side, 6, 5)), jnp.float32)
    weights = {
        "conv": {
            "lora_A": jnp.asarray(draw.standard_normal((side, side, 6, 3)), jnp.float32),
            "lora_B": jnp.asarray(draw.standard_normal((3, 5)), jnp.float32),
        }
    }
    params = lora.merge({"conv": {"kernel": kernel}}, [lora.from_weights(weights, 0.7)], [1.0])

    def convolve(x: jax.Array, filters: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x,
            filters,
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision="highest",
        )

    thin = convolve(image, weights["conv"]["lora_A"]) @ weights["conv"]["lora_B"]
    wanted = convolve(image, kernel) + 0.7 * thin
    found = convolve(image, params["conv"]["kernel"])
    assert float(jnp.abs(found - wanted).max() / jnp.abs(wanted).max()) < 1e-6


@pytest.mark.slow
def test_a_base_that_is_stored_in_int8_is_changed_as_it_is_read(tmp_path: Path) -> None:
    """Networks are float32 in memory, whatever their files hold."""
    trained = imagen_jax.load("shapes", offload=True)
    one, fields = trained.stages[0], trained.experiments[0]
    export.write_bundle(
        tmp_path / "small",
        [export.StageCheckpoint(experiment=fields, params=one.device_params(), step=1)],
        dtype="int8",
    )
    base = imagen_jax.load(tmp_path / "small", offload=True).stages[0].device_params()
    assert {x.dtype for x in jax.tree.leaves(base)} == {jnp.dtype(jnp.float32)}
    options = config.Lora(rank=2)
    fresh = lora.init(base, options, rng.root(0))
    adapters = lora.from_weights(drawn(fresh.weights, 1, 0.1), 1.0)
    found = targets.kernels(lora.merge(base, [adapters], [1.0]))
    wanted = targets.kernels(base)
    for name, pair in adapters.modules().items():
        change = np.tensordot(pair["lora_A"], pair["lora_B"], 1)
        np.testing.assert_allclose(found[name], wanted[name] + change, rtol=1e-6, atol=1e-6)
