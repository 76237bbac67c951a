"""Laws of the whole networks, over the three stages of a cascade at toy size."""

import dataclasses
from collections.abc import Iterator
from typing import Any, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from imagen_jax import config, models
from imagen_jax.models.layers import ResBlock, Upsampling


def _change(inputs: Any, **fields: Any) -> Any:
    return dataclasses.replace(inputs, **fields)


def test_the_output_is_float32_of_z_s_shape(net, inputs) -> None:
    found = net.run(inputs)
    assert found.shape == inputs.z.shape
    assert found.dtype == np.float32
    assert found.std() > 0.1


def _products(jaxpr: Any) -> Iterator[Any]:
    """Matrix products and convolutions, inner functions' too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from _products(inner)


def test_what_is_float32_is_so_on_every_device(net, inputs, toy) -> None:
    """In a bfloat16 network: embedding, text and head; by default a TPU rounds their factors."""
    model = dataclasses.replace(net.stage.model, dtype="bfloat16")
    text = dataclasses.replace(model.text, refiner_layers=1, bottleneck=8)
    module = models.build(dataclasses.replace(model, text=text))
    shapes = toy.shapes_of(module, net.stage)

    def predicted(params: Any) -> jax.Array:
        cond = toy.encode(module, params, inputs)
        return jnp.sum(toy.predict(module, params, cond, inputs))

    for function in (predicted, jax.grad(predicted)):
        found = list(_products(jax.make_jaxpr(function)(shapes).jaxpr))
        wide = [e for e in found if all(x.aval.dtype == jnp.float32 for x in e.invars)]
        assert len(wide) > 10
        for equation in wide:
            exact = (jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)
            assert equation.params["precision"] == exact, equation


def test_padding_is_inert(net, inputs) -> None:
    """T6: garbage in the padding, and twice the length."""
    expected = net.run(inputs)
    mask = inputs.text_mask
    garbage = jnp.where(mask[:, :, None], inputs.text, 1e3)
    np.testing.assert_allclose(net.run(_change(inputs, text=garbage)), expected, atol=1e-5)
    longer = _change(
        inputs,
        text=jnp.concatenate([inputs.text, garbage + 7.0], 1),
        text_mask=jnp.pad(mask, ((0, 0), (0, mask.shape[1]))),
    )
    np.testing.assert_allclose(net.run(longer), expected, atol=1e-5)


def test_rows_without_text_ignore_the_caption(net, inputs) -> None:
    """T7: the whole network, with every row null too."""
    expected = net.run(inputs)
    other = _change(
        inputs,
        text=inputs.text.at[2].set(inputs.text[0]),
        text_mask=inputs.text_mask.at[2].set(inputs.text_mask[1]),
    )
    np.testing.assert_array_equal(net.run(other), expected)
    nobody = net.run(_change(other, has_text=jnp.zeros((3,), jnp.bool_)))
    assert np.isfinite(nobody).all()
    np.testing.assert_allclose(nobody[2], expected[2], atol=1e-5)
    assert np.abs(nobody[0] - expected[0]).max() > 1e-3


def test_a_picture_does_not_depend_on_its_neighbours(net, inputs) -> None:
    expected = net.run(inputs)
    rolled = net.run(jax.tree.map(lambda a: a.at[1:].set(jnp.roll(a, 1, 0)[1:]), inputs))
    np.testing.assert_allclose(rolled[0], expected[0], atol=1e-5)
    assert np.abs(rolled[1:] - expected[1:]).max() > 0.1


@pytest.mark.parametrize("field", ["z", "logsnr", "text", "text_mask", "low_res", "aug_logsnr"])
def test_every_input_matters(net, inputs, field: str) -> None:
    value = getattr(inputs, field)
    moved = net.run(_change(inputs, **{field: jnp.flip(value, -1) if value.ndim > 1 else -value}))
    base_ignores = net.stage.low_size is None and field in ("low_res", "aug_logsnr")
    assert (np.abs(moved - net.run(inputs)).max() > 1e-4) != base_ignores


def test_the_step_reads_no_text_parameter(net, inputs) -> None:
    """Text keys, values and pooling are computed once per prompt, in `encode_text`."""
    cond = net.encode(net.params, inputs)
    without = {name: value for name, value in net.params.items() if name != "text"}
    assert len(without) == len(net.params) - 1
    found = net.predict(without, cond, inputs)
    np.testing.assert_allclose(found, net.run(inputs), atol=1e-5)


def test_each_attention_reads_its_own_text_and_the_pooled_vector_counts(net, inputs) -> None:
    cond, expected = net.encode(net.params, inputs), net.run(inputs)
    layers = {"base": 4, "sr256": 2, "sr1024": 2}  # base: down, middle, and two on the way up
    assert len(cond.kv) == (layers["base"] if net.stage.low_size is None else layers["sr256"])
    moved = {"pooled": cond.replace(pooled=cond.pooled + 1.0)}
    for name, (keys, values) in cond.kv.items():
        moved[name] = cond.replace(kv={**cond.kv, name: (keys, values + 1.0)})
    for name, other in moved.items():
        change = np.abs(net.predict(net.params, other, inputs) - expected).max()
        assert change > 1e-4, name


def test_the_embedding_reaches_every_residual_block(net, inputs) -> None:
    """T17: each block, given the same features, answers to its embedding."""
    moved = {}

    def spy(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        block, out = context.module, call(*args, **kwargs)
        if isinstance(block, ResBlock) and context.method_name == "__call__" and block.path:
            features, emb = args
            alone = block.clone(parent=None)  # with an empty path, which ends the recursion
            other = alone.apply({"params": block.variables["params"]}, features, emb + 1.0)
            moved["/".join(block.path)] = jnp.abs(other - out).max()
        return out

    @jax.jit
    def run(params: Any, cond: Any) -> dict[str, Any]:
        with nn.intercept_methods(spy):
            net.module.apply({"params": params}, inputs.z, inputs.logsnr, cond)
        return dict(moved)

    found = run(net.params, net.encode(net.params, inputs))
    blocks = {"base": 10, "sr256": 4, "sr1024": 4}  # base: (1 + down) + 1 + mid 2 + 2 + (2 + up)
    assert len(found) == (blocks["base"] if net.stage.low_size is None else blocks["sr256"])
    assert min(float(change) for change in found.values()) > 1e-2, found


def _spread_inside_patches(pictures: Any) -> float:
    return float(np.asarray(pictures).reshape(3, 4, 2, 4, 2, 3).std(axis=(2, 4)).min())


def test_pictures_vary_inside_2x2_patches(net, inputs) -> None:
    """T16."""
    assert _spread_inside_patches(net.run(inputs)) > 1e-3


@pytest.mark.parametrize("last", get_args(Upsampling))
def test_the_last_upsampling_alone_decides_without_convolution_after_it(toy, inputs, last) -> None:
    """T16: nearest pixels stay equal when the figure's dense head follows and no stem joins."""
    options = dataclasses.replace(toy.SR256, head="dense", stem_skip=False, last_upsample=last)
    stage, module = toy.stage_of(options), models.build(options)
    params = toy.random_params(toy.shapes_of(module, stage))
    cond = toy.family("sr256").encode(toy.family("sr256").params, inputs)
    run = jax.jit(lambda p, cond: toy.predict(module, p, cond, inputs))
    assert (_spread_inside_patches(run(params, cond)) > 1e-3) == (last != "nearest")


@pytest.mark.parametrize(("height", "width"), [(16, 16), (8, 12), (4, 20)])
def test_other_sizes_run_with_the_same_parameters(net, toy, height: int, width: int) -> None:
    """T20."""
    inputs = toy.make_inputs(height, width)
    cond = jax.eval_shape(net.encode, net.params, inputs)
    assert jax.eval_shape(net.predict, net.params, cond, inputs).shape == (3, height, width, 3)


@pytest.mark.parametrize("name", ["base", "sr256", "sr1024"])
@pytest.mark.parametrize(("height", "width"), [(9, 8), (8, 6), (0, 8)])
def test_indivisible_sizes_are_refused_by_name(toy, name: str, height: int, width: int) -> None:
    net = toy.family(name)
    if net.stage.model.multiple() == 2 and (height, width) == (8, 6):
        width = 7
    inputs = toy.make_inputs(height, width)
    cond = jax.eval_shape(net.encode, net.params, inputs)
    bad = f"height {height}" if height != 8 else f"width {width}"
    with pytest.raises(ValueError, match=f"{bad} does not divide by {net.stage.model.multiple()}"):
        jax.eval_shape(net.predict, net.params, cond, inputs)


def test_bfloat16_is_close_to_float32(net, inputs) -> None:
    options = dataclasses.replace(net.stage.model, dtype="bfloat16")
    module = models.build(options)

    @jax.jit
    def run(params: Any) -> Any:
        given = (inputs.text, inputs.text_mask, inputs.has_text)
        cond = module.apply({"params": params}, *given, method="encode_text")
        if net.stage.is_super_resolution:
            cond = cond.replace(low_res=inputs.low_res, aug_logsnr=inputs.aug_logsnr)
        assert {a.dtype for a in jax.tree.leaves(cond.kv)} == {jnp.dtype("bfloat16")}
        return module.apply({"params": params}, inputs.z, inputs.logsnr, cond)

    found, expected = run(net.params), net.run(inputs)
    assert found.dtype == jnp.float32
    error = np.sqrt(np.square(found - expected).mean() / np.square(expected).mean())
    assert 1e-5 < error < 0.05


def test_a_fresh_network_predicts_zero_through_its_head_alone(net, inputs) -> None:
    """So the first loss is the target's variance. Asking for the head alone compiles fast."""

    @jax.jit
    def fresh_head(key: Any) -> Any:
        return models.init(net.module, key, stage=net.stage, text_width=24, text_length=6)["head"]

    params = {**net.params, "head": fresh_head(jax.random.key(0))}
    found = net.predict(params, net.encode(params, inputs), inputs)
    np.testing.assert_array_equal(found, jnp.zeros_like(found))


def test_parameters_are_float32_whatever_the_activations(net, toy) -> None:
    module = models.build(dataclasses.replace(net.stage.model, dtype="bfloat16"))
    shapes = toy.shapes_of(module, net.stage)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    assert jax.tree.map(lambda a: a.shape, shapes) == jax.tree.map(jnp.shape, net.params)


@pytest.mark.parametrize("name", [pytest.param("base", marks=pytest.mark.slow), "sr"])
def test_no_level_s_gradient_vanishes_at_init(toy, name: str) -> None:
    """T15: with a random head, each level's RMS gradient is at least 1e-3 of the stem's."""
    options = {"base": toy.BASE, "sr": toy.SR256}[name]
    stage, inputs, module = toy.stage_of(options), toy.make_inputs(), models.build(options)

    @jax.jit
    def fresh(key: Any) -> Any:
        return models.init(module, key, stage=stage, text_width=24, text_length=6)

    @jax.jit
    def gradients(params: Any) -> Any:
        def loss(params: Any) -> Any:
            cond = toy.encode(module, params, inputs)
            return jnp.square(toy.predict(module, params, cond, inputs) - inputs.z).mean()

        return jax.grad(loss)(params)

    params = fresh(jax.random.key(0, impl="unsafe_rbg"))  # compiles in half the time
    params["head"] = toy.random_params(params["head"])
    found = gradients(params)
    rms = {
        part: np.sqrt(np.mean([np.square(np.asarray(a)).mean() for a in jax.tree.leaves(tree)]))
        for part, tree in found.items()
        if part.startswith(("down", "mid", "up", "stem"))
    }
    assert min(rms.values()) > 1e-3 * rms["stem"], rms


def test_the_base_network_serves_super_resolution_too(toy, inputs) -> None:
    stage = config.Stage(name="sr", size=8, low_size=4, model=toy.BASE)
    module = models.build(stage.model)
    shapes = toy.shapes_of(module, stage)
    assert shapes["stem"]["kernel"].shape == (3, 3, 6, 8)
    assert set(shapes["emb"]) == {"time", "aug"}
    cond = jax.eval_shape(lambda p: toy.encode(module, p, inputs), shapes)
    cond = cond.replace(low_res=inputs.low_res, aug_logsnr=inputs.aug_logsnr)
    found = jax.eval_shape(lambda p, c: toy.predict(module, p, c, inputs), shapes, cond)
    assert found.shape == inputs.z.shape
