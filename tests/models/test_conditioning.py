"""Null captions, padding and pooling of the text."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax import config
from imagen_jax.models.conditioning import Conditioning, network_input
from imagen_jax.models.null_caption import EMPTY_PROMPT
from imagen_jax.models.text_conditioning import Conditioner, RefinerLayer, TextLayer

OPTIONS = config.TextConditioning()
DRAW = np.random.default_rng(0)
TEXT = jnp.asarray(DRAW.standard_normal((3, 4, 6)), jnp.float32)
MASK = jnp.asarray([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0]], jnp.bool_)
HAS = jnp.asarray([True, True, False])


def _conditioner(**changes: Any) -> tuple[Conditioner, Any]:
    options = dataclasses.replace(OPTIONS, **changes)
    module = Conditioner(options, (TextLayer("attn", 2, 4),), 8, 4, jnp.float32)
    init = jax.eval_shape(module.init, jax.random.key(0), TEXT, MASK, HAS)
    params = jax.tree.map(
        lambda a: jnp.asarray(DRAW.standard_normal(a.shape) / 2, jnp.float32), init
    )
    return module, params


def _same(a: Conditioning, b: Conditioning, rows: slice, tokens: Any) -> None:
    np.testing.assert_allclose(a.pooled[rows], b.pooled[rows], atol=1e-5)
    for left, right in zip(a.kv["attn"], b.kv["attn"], strict=True):
        np.testing.assert_allclose(left[rows][tokens], right[rows][tokens], atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pool_query": "mean_plus_learned"},
        {"pool": "mean"},
        {"bottleneck": 5, "positions": 8},
        {"null": "learned"},
        {"null": "empty_prompt"},
        {"bottleneck": 8, "refiner_layers": 2},
    ],
)
def test_padding_and_its_length_are_inert(changes: dict[str, Any]) -> None:
    """T6, down to NaN in the padding; `tokens` looks at the real tokens' keys and values."""
    module, params = _conditioner(**changes)
    plain = module.apply(params, TEXT, MASK, HAS)
    garbage = jnp.where(MASK[:, :, None], TEXT, jnp.nan)
    longer = [jnp.concatenate([garbage, garbage * jnp.nan], 1), jnp.pad(MASK, ((0, 0), (0, 4)))]
    _same(plain, module.apply(params, garbage, MASK, HAS), slice(0, 2), np.asarray(MASK[:2]))
    padded = module.apply(params, *longer, HAS)
    for a, b in zip(plain.kv["attn"], padded.kv["attn"], strict=True):
        np.testing.assert_allclose(b[:, :4][plain.text_mask], a[plain.text_mask], atol=1e-5)
    np.testing.assert_allclose(padded.pooled, plain.pooled, atol=1e-5)
    np.testing.assert_array_equal(padded.text_mask[:, :4], plain.text_mask)
    assert not padded.text_mask[:, 4:].any()


@pytest.mark.parametrize("null", ["zero", "learned", "empty_prompt"])
def test_null_rows_do_not_depend_on_the_caption_or_its_length(null: str) -> None:
    """T7."""
    module, params = _conditioner(null=null)
    nobody = jnp.zeros((3,), jnp.bool_)
    cond = module.apply(params, TEXT, MASK, nobody)
    np.testing.assert_array_equal(cond.text_mask, [[True, False, False, False]] * 3)
    for leaf in jax.tree.leaves((cond.kv, cond.pooled)):
        np.testing.assert_array_equal(leaf, jnp.broadcast_to(leaf[:1], leaf.shape))
        assert np.isfinite(leaf).all()


def test_the_null_key_is_the_projected_bias_of_the_norm() -> None:
    """Zeroing before LayerNorm leaves its bias."""
    module, params = _conditioner()
    keys, _ = module.apply(params, TEXT, MASK, HAS).kv["attn"]
    layer = params["params"]["attn"]
    expected = layer["norm"]["layer"]["bias"] @ layer["key"]["kernel"] + layer["key"]["bias"]
    np.testing.assert_allclose(keys[2, 0].reshape(-1), expected, atol=1e-5)


def test_the_mask_is_an_input_never_derived_from_values() -> None:
    module, params = _conditioner()
    zeros = jnp.zeros_like(TEXT)
    cond = module.apply(params, zeros, MASK, jnp.ones((3,), jnp.bool_))
    np.testing.assert_array_equal(cond.text_mask, MASK)


@pytest.mark.parametrize("changes", [{}, {"positions": 8}, {"pool_query": "mean_plus_learned"}])
def test_without_caption_is_with_the_empty_one(changes: dict[str, Any]) -> None:
    """What a text encoder gives for "" is one token; a row without caption is read as that."""
    module, params = _conditioner(null="empty_prompt", **changes)
    row = params["params"]["null"][EMPTY_PROMPT]
    text = TEXT.at[:, 0].set(row[None])
    first = jnp.broadcast_to(jnp.arange(4)[None] == 0, (3, 4))
    given = module.apply(params, text, first, jnp.ones((3,), jnp.bool_))
    dropped = module.apply(params, TEXT, MASK, jnp.zeros((3,), jnp.bool_))
    _same(given, dropped, slice(None), np.s_[:, :1])
    np.testing.assert_array_equal(dropped.text_mask, first)


def test_the_empty_prompt_is_not_learned() -> None:
    module, params = _conditioner(null="empty_prompt")
    grads = jax.grad(lambda p: jnp.sum(module.apply(p, TEXT, MASK, HAS).pooled ** 2))(params)
    assert not grads["params"]["null"][EMPTY_PROMPT].any()
    assert grads["params"]["pool"]["key"]["kernel"].any()


def test_null_mask_all_ones_shows_every_token() -> None:
    module, params = _conditioner(null_mask="all_ones")
    assert module.apply(params, TEXT, MASK, HAS).text_mask[2].all()


def test_mean_pooling_is_the_mean_of_real_tokens() -> None:
    module, params = _conditioner(pool="mean", norm=False)
    found = module.apply(params, TEXT, MASK, HAS).pooled
    out = params["params"]["pool"]["out"]
    mean = np.asarray(TEXT, np.float64)[0, :3].mean(0)
    np.testing.assert_allclose(found[0], mean @ out["kernel"] + out["bias"], atol=1e-5)


def test_attention_pooling_equals_the_reference() -> None:
    module, params = _conditioner()
    found = module.apply(params, TEXT, MASK, HAS).pooled[0]
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params["params"]["pool"])
    x = np.asarray(TEXT, np.float64)[0, :3]
    x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6)
    x = x * p["norm"]["layer"]["scale"] + p["norm"]["layer"]["bias"]
    keys, values = (x @ p[n]["kernel"] + p[n]["bias"] for n in ("key", "value"))
    parts = []
    for head in (slice(0, 4), slice(4, 8)):
        weights = np.exp(keys[:, head] @ p["query"][head] / 2)
        parts.append(weights @ values[:, head] / weights.sum())
    expected = np.concatenate(parts) @ p["out"]["kernel"] + p["out"]["bias"]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_positions_tell_apart_equal_tokens_and_refuse_longer_captions() -> None:
    module, params = _conditioner(positions=4)
    same = jnp.broadcast_to(TEXT[:, :1], TEXT.shape)
    keys, _ = module.apply(params, same, jnp.ones_like(MASK), HAS).kv["attn"]
    assert float(jnp.abs(keys[0, 0] - keys[0, 1]).max()) > 0.01
    with pytest.raises(ValueError, match=r"5 tokens exceed text.positions=4"):
        module.apply(params, jnp.zeros((3, 5, 6)), jnp.ones((3, 5), jnp.bool_), HAS)


def test_refiner_equals_flax_s_transformer_layer() -> None:
    """Against `flax.linen.MultiHeadDotProductAttention` and dense layers, row by row."""
    layer, text = RefinerLayer(2), TEXT
    params = jax.tree.map(
        lambda a: jnp.asarray(DRAW.standard_normal(a.shape) / 2, jnp.float32),
        jax.eval_shape(layer.init, jax.random.key(0), text, MASK),
    )
    p = params["params"]
    attention = {
        name: {
            "kernel": p[name]["kernel"].reshape(6, 3, 2),
            "bias": p[name]["bias"].reshape(3, 2),
        }
        for name in ("query", "key", "value")
    }
    out = p["attention_out"]
    attention["out"] = {"kernel": out["kernel"].reshape(3, 2, 6), "bias": out["bias"]}
    y = nn.LayerNorm().apply({"params": p["attention_norm"]}, text)
    expected = text + nn.MultiHeadDotProductAttention(num_heads=3).apply(
        {"params": attention}, y, mask=MASK[:, None, None, :]
    )
    y = nn.LayerNorm().apply({"params": p["ffn_norm"]}, expected)
    y = nn.swish(nn.Dense(12).apply({"params": p["ffn_in"]}, y))
    expected = expected + nn.Dense(6).apply({"params": p["ffn_out"]}, y)
    found = layer.apply(params, text, MASK)
    np.testing.assert_allclose(found[MASK], expected[MASK], atol=1e-5)
    with pytest.raises(ValueError, match=r"head channels 4 must divide .* the text, 6"):
        RefinerLayer(4).init(jax.random.key(0), text, MASK)


def test_low_res_and_its_level_come_together_and_fit() -> None:
    cond = Conditioning(kv={}, text_mask=MASK, pooled=None)
    z, image = jnp.zeros((3, 4, 4, 3)), jnp.ones((3, 4, 4, 3))
    with pytest.raises(ValueError, match="aug_logsnr is absent"):
        network_input(z, cond.replace(low_res=image))
    with pytest.raises(ValueError, match="low_res is absent"):
        network_input(z, cond.replace(aug_logsnr=jnp.zeros((3,))))
    with pytest.raises(ValueError, match="upsample it first"):
        network_input(z, cond.replace(low_res=image[:, :2], aug_logsnr=jnp.zeros((3,))))
    both = network_input(z, cond.replace(low_res=image, aug_logsnr=jnp.zeros((3,))))
    np.testing.assert_array_equal(both, jnp.concatenate([z, image], -1))


def test_conditioning_is_a_pytree_with_the_batch_first() -> None:
    module, params = _conditioner()
    cond = module.apply(params, TEXT, MASK, HAS)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(cond)} == {3}
    twice = jax.tree.map(lambda a: jnp.concatenate([a, a]), cond)
    assert twice.pooled.shape == (6, 8)
    assert twice.low_res is None
