"""Adapters as a transform of parameters: targets, merging, and refusals."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from small_cascade import draw_params

from imagen_jax import config, lora, models, rng
from imagen_jax.lora import targets
from imagen_jax.pretrained.lora import is_convolution, module_names

OPTIONS = config.Lora(rank=3, alpha=6.0, targets=("attention", "*/conv_0"))


@functools.cache
def network() -> tuple[config.Experiment, Any]:
    experiment = config.load("tiny/base8")[0]
    return experiment, draw_params(models.parameter_shapes(experiment.stage, experiment.text))


def drawn(seed: int, options: config.Lora = OPTIONS) -> lora.Adapters:
    """Adapters whose second matrices are not zero."""
    fresh = jax.eval_shape(lambda: lora.init(network()[1], options, rng.root(seed)))
    draw = np.random.default_rng(seed)
    leaves, tree = jax.tree.flatten(fresh.weights)
    values = [jnp.asarray(draw.standard_normal(x.shape, np.float32)) for x in leaves]
    return lora.from_weights(jax.tree.unflatten(tree, values), options.scale)


def test_fresh_adapters_change_nothing() -> None:
    _, params = network()
    merged = lora.merge(params, [lora.init(params, OPTIONS, rng.root(0))], [1.0])
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), merged, params))


def test_merging_adds_scaled_products_to_the_selected_kernels_alone() -> None:
    _, params = network()
    adapters = drawn(0)
    merged = lora.merge(params, [adapters], [0.5])
    pairs = adapters.modules()
    for name, kernel in targets.kernels(params).items():
        change = np.zeros(kernel.shape)
        if name in pairs:
            down, up = (np.asarray(pairs[name][w], np.float64) for w in ("lora_A", "lora_B"))
            change = 0.5 * (6 / 3) * np.einsum("...ir,ro->...io", down, up)
        wanted = np.asarray(kernel, np.float64) + change
        np.testing.assert_allclose(targets.kernels(merged)[name], wanted, rtol=1e-6, atol=1e-6)


def test_several_add_and_unmerging_takes_them_back() -> None:
    _, params = network()
    both, weights = [drawn(1), drawn(2)], [0.7, -0.2]
    merged = lora.merge(params, both, weights)
    after_another = lora.merge(lora.merge(params, both[:1], [0.7]), both[1:], [-0.2])
    _assert_close(merged, after_another)
    _assert_close(lora.unmerge(merged, both, weights), params)
    changed = targets.kernels(merged)["mid/attn_0/joined/query"]
    assert not np.allclose(changed, targets.kernels(params)["mid/attn_0/joined/query"], atol=1e-2)


def test_a_merged_kernel_keeps_its_dtype() -> None:
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), network()[1])
    merged = lora.merge(params, [drawn(0)], [1.0])
    assert {x.dtype for x in jax.tree.leaves(merged)} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize(
    ("target", "some", "none"),
    [
        ("attention", "mid/attn_0/joined/query", "text/pool/key"),
        ("attention", "text/mid_attn_0/value", "emb/time/dense_0"),
        ("dense", "emb/time/dense_0", "stem"),
        ("convolution", "stem", "emb/time/dense_0"),
        ("all", "head", ""),
        ("up_1/*", "up_1/res_0/conv_0", "up_0/res_0/conv_0"),
    ],
)
def test_targets_select_kernels(target: str, some: str, none: str) -> None:
    found = targets.select_kernels(network()[1], (target,))
    assert some in found
    assert none not in found


def test_a_target_that_selects_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"lora.targets: 'attn' selects no kernel"):
        lora.init(network()[1], config.Lora(rank=2, targets=("attention", "attn")), rng.root(0))


def test_no_rank_is_no_adapter() -> None:
    with pytest.raises(ValueError, match=r"lora.rank=0 is no adapter: give a rank"):
        lora.init(network()[1], config.Lora(), rng.root(0))


def test_adapters_of_another_network_are_refused_with_their_modules() -> None:
    adapters = drawn(0)
    modules = adapters.modules()
    modules["mid/attn_0/joined/query"]["lora_B"] = jnp.zeros((3, 5))
    modules["side/attn_0/query"] = modules.pop("mid/attn_0/joined/key")
    weights = {f"{m}/{w}": x for m, pair in modules.items() for w, x in pair.items()}
    nested = traverse_util.unflatten_dict(weights, sep="/")
    with pytest.raises(ValueError, match="do not fit this network") as refusal:
        lora.merge(network()[1], [lora.from_weights(nested, 1.0)], [1.0])
    assert "side/attn_0/query is no module" in str(refusal.value)
    assert "(16, 3) times lora_B (3, 5) is no change of (16, 16)" in str(refusal.value)


def test_each_adapter_needs_its_weight() -> None:
    with pytest.raises(ValueError, match="2 adapters have 1 weights"):
        lora.merge(network()[1], [drawn(0), drawn(1)], [1.0])


def test_dropout_skips_inputs_and_keeps_the_mean() -> None:
    adapters = drawn(0)
    keys = [rng.fold(rng.root(0), "try", i) for i in range(60)]
    name = "down_1/attn_0/joined/out"
    kept = [lora.drop_inputs(adapters, 0.25, k).modules()[name]["lora_A"] for k in keys]
    rows = np.stack([np.asarray(x) for x in kept])
    whole = np.asarray(adapters.modules()[name]["lora_A"])
    empty = (rows == 0).all(axis=-1)
    assert abs(empty.mean() - 0.25) < 0.05
    np.testing.assert_allclose(rows[~empty][0], (whole / 0.75)[~empty[0]][0], rtol=1e-6)
    np.testing.assert_allclose(rows.mean(0), whole, atol=0.4 * np.abs(whole).max())
    assert lora.drop_inputs(adapters, 0.0, keys[0]) is adapters


def _assert_close(first: Any, second: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), first, second)


NETWORKS = (
    *("tiny/base8", "tiny/sr16", "deepfloyd/i_m"),
    *(pytest.param(f"shapes/{name}", marks=pytest.mark.slow) for name in ("base16", "sr64")),
)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_kernel_of_every_network_reads_back_from_a_file(name: str, tmp_path: Path) -> None:
    experiment = config.load(name)[0]
    stage = experiment.stage
    shapes = models.parameter_shapes(stage, experiment.text)
    options = config.Lora(rank=1, targets=("all",))
    blank = jax.eval_shape(lambda: lora.init(shapes, options, rng.root(0)))
    draw = np.random.default_rng(0)
    weights = jax.tree.map(lambda x: draw.standard_normal(x.shape, np.float32), blank.weights)
    adapters, file = lora.from_weights(weights, 0.5), tmp_path / "a.safetensors"
    names = module_names(stage, experiment.text)
    lora.write_adapters(
        file,
        adapters,
        modules=names,
        as_convolution=functools.partial(is_convolution, stage),
    )
    found = lora.fit(shapes, lora.read_adapters(file, names))
    assert set(adapters.modules()) == set(targets.kernels(shapes))
    assert found.scales == adapters.scales
    jax.tree.map(np.testing.assert_array_equal, found.weights, adapters.weights)


def test_a_convolution_of_one_pixel_may_be_dense_in_a_file() -> None:
    kernel = {"a": {"kernel": jnp.zeros((1, 1, 4, 3))}, "b": {"kernel": jnp.zeros((4, 3))}}
    pair = {"lora_A": jnp.ones((4, 2)), "lora_B": jnp.ones((2, 3))}
    conv = pair | {"lora_A": jnp.ones((1, 1, 4, 2))}
    found = lora.fit(kernel, lora.from_weights({"a": pair, "b": conv}, 1.0))
    assert found.weights["a"]["lora_A"].shape == (1, 1, 4, 2)
    assert found.weights["b"]["lora_A"].shape == (4, 2)
    wide = {"a": pair | {"lora_A": jnp.ones((3, 3, 4, 2))}}
    with pytest.raises(ValueError, match="is no change of"):
        lora.fit(kernel, lora.from_weights(wide, 1.0))


def test_adapters_of_deepfloyds_largest_network_are_half_a_percent_of_its_file() -> None:
    experiment = config.load("deepfloyd/i_xl")[0]
    network = models.parameter_shapes(experiment.stage, experiment.text)
    shapes = jax.eval_shape(lambda: lora.init(network, config.Lora(rank=16), rng.root(0)))
    numbers, whole = (sum(x.size for x in jax.tree.leaves(t)) for t in (shapes.weights, network))
    assert len(shapes.scales) == 132
    assert numbers == 9_529_344
    assert 4 * numbers < 0.005 * 2 * whole  # float32, of a base that is stored in float16
