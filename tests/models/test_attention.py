"""Attention against an explicit reference in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.models.attention import (
    Attention,
    AttentionBlock,
    FeedForward,
    attend,
    join_heads,
    split_heads,
)

DRAW = np.random.default_rng(0)
X = DRAW.standard_normal((2, 2, 3, 8))
KEYS, VALUES = DRAW.standard_normal((2, 2, 5, 2, 4))
MASK = np.array([[1, 1, 0, 1, 0], [1, 0, 0, 0, 0]], bool)


def _f32(*arrays: np.ndarray) -> tuple[jax.Array, ...]:
    return tuple(jnp.asarray(a, jnp.float32) for a in arrays)


def _params(module: Attention) -> dict:
    given = (*_f32(X), _f32(KEYS, VALUES), jnp.asarray(MASK))
    init = jax.eval_shape(module.init, jax.random.key(0), *given)
    return jax.tree.map(
        lambda a: jnp.asarray(0.5 * DRAW.standard_normal(a.shape), jnp.float32), init["params"]
    )


def _reference(params: dict, *, image: bool, text: bool) -> np.ndarray:
    """One query, one head at a time: softmax over the keys that exist and are not masked."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    groups = X.reshape(2, 6, 4, 2)
    mean, var = (f(groups, axis=(1, 3), keepdims=True) for f in (np.mean, np.var))
    y = ((groups - mean) / np.sqrt(var + 1e-6)).reshape(2, 6, 8)
    y = y * p["norm"]["scale"] + p["norm"]["bias"]
    heads = {n: y @ p[n]["kernel"] + p[n]["bias"] for n in ("query", "key", "value") if n in p}
    heads = {n: a.reshape(2, 6, 2, 4) for n, a in heads.items()}
    mixed = np.zeros((2, 6, 2, 4))
    for b in range(2):
        for q in range(6):
            for h in range(2):
                keys, values = [], []
                if image:
                    keys, values = [*heads["key"][b, :, h]], [*heads["value"][b, :, h]]
                if text:
                    keys += [*KEYS[b, MASK[b], h]]
                    values += [*VALUES[b, MASK[b], h]]
                weights = np.exp(np.array(keys) @ heads["query"][b, q, h] / 2)  # sqrt(4)
                mixed[b, q, h] = weights @ np.array(values) / weights.sum()
    out = mixed.reshape(2, 6, 8) @ p["out"]["kernel"] + p["out"]["bias"]
    return X + out.reshape(X.shape)


@pytest.mark.parametrize(("image", "text"), [(True, True), (True, False), (False, True)])
def test_attention_equals_the_reference(image: bool, text: bool) -> None:
    module = Attention(2, 4, 4, jnp.float32, image_keys=image)
    params = _params(module)
    given = (_f32(KEYS, VALUES), jnp.asarray(MASK)) if text else (None, None)
    found = module.apply({"params": params}, *_f32(X), *given)
    np.testing.assert_allclose(found, _reference(params, image=image, text=text), atol=2e-5)


def test_heads_are_the_same_by_the_way_of_a_tpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda x, *, tpu, default: tpu(x))
    x = jnp.asarray(X.reshape(2, 6, 8), jnp.float32)
    heads = split_heads(x, 2)
    np.testing.assert_array_equal(heads, X.reshape(2, 6, 2, 4).astype(np.float32))
    np.testing.assert_array_equal(join_heads(heads), x)


@pytest.mark.parametrize("head_dim", [32, 64])
@pytest.mark.parametrize("std", [1, 3, 10, 30, 60])
def test_bfloat16_attention_is_as_exact_where_logits_are_large(std: int, head_dim: int) -> None:
    """Output within .3 % and gradients within 3 % of float64's, for logits of that deviation."""
    draw = np.random.default_rng(1)
    query, keys, values, way = (
        jnp.asarray(scale * draw.standard_normal((2, n, 3, head_dim)), jnp.bfloat16)
        for scale, n in ((std, 50), (1, 70), (1, 70), (1, 50))
    )
    mask = np.arange(70)[None] < np.array([[70], [31]])

    def both(query, keys, values):
        found, back = jax.vjp(lambda *qkv: attend(*qkv, jnp.asarray(mask)), query, keys, values)
        return found, *back(way)

    found = jax.jit(both)(query, keys, values)
    assert all(x.dtype == jnp.bfloat16 for x in found)
    q, k, v, w = (np.asarray(x, np.float64) for x in (query, keys, values, way))
    logits = np.einsum("bqhk,bnhk->bhqn", q, k) / np.sqrt(head_dim)
    weights = np.exp(logits - logits.max(-1, keepdims=True)) * mask[:, None, None]
    weights /= weights.sum(-1, keepdims=True)
    gain = np.einsum("bqhk,bnhk->bhqn", w, v)
    gain = weights * (gain - (weights * gain).sum(-1, keepdims=True)) / np.sqrt(head_dim)
    expected = (
        np.einsum("bhqn,bnhk->bqhk", weights, v),
        np.einsum("bhqn,bnhk->bqhk", gain, k),
        np.einsum("bhqn,bqhk->bnhk", gain, q),
        np.einsum("bhqn,bqhk->bnhk", weights, w),
    )
    for mine, exact, limit in zip(found, expected, (0.003, 0.03, 0.03, 0.003), strict=True):
        error = np.asarray(mine, np.float64) - exact
        assert np.sqrt(np.mean(error**2) / np.mean(exact**2)) < limit


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("size", [1e3, 1e5, 1e8])
def test_attention_stays_finite_whatever_its_logits(dtype: str, size: float) -> None:
    """Above and below zero, where rounding moves the largest by more than an exponent holds."""
    draw = np.random.default_rng(1)
    for offset in (-3.0, 0.0, 3.0):
        query = jnp.asarray(size * (1 + draw.standard_normal((1, 5, 1, 8)) / 50), dtype)
        keys = jnp.asarray(offset + draw.standard_normal((1, 7, 1, 8)), dtype)
        values = jnp.asarray(draw.standard_normal((1, 7, 1, 8)), dtype)
        found, back = jax.vjp(lambda *qkv: attend(*qkv, None), query, keys, values)
        assert all(np.isfinite(np.float32(x)).all() for x in (found, *back(found)))
        top, low = (f(np.float32(values), axis=1) for f in (np.max, np.min))
        assert (np.float32(found) <= top + 0.02).all()
        assert (np.float32(found) >= low - 0.02).all()


def test_attention_starts_as_the_identity() -> None:
    block = AttentionBlock(2, 4, 4, jnp.float32, feed_forward=16)
    given = (*_f32(X), _f32(KEYS, VALUES), jnp.asarray(MASK))
    found, _ = block.init_with_output(jax.random.key(0), *given)
    np.testing.assert_array_equal(found, given[0])


@pytest.mark.parametrize(
    ("joined", "image", "layers"),
    [(True, True, {"joined"}), (False, True, {"image", "text"}), (False, False, {"text"})],
)
def test_text_joins_the_keys_or_gets_its_own_layer(joined, image, layers) -> None:
    block = AttentionBlock(2, 4, 4, jnp.float32, image_keys=image, joined=joined)
    given = (*_f32(X), _f32(KEYS, VALUES), jnp.asarray(MASK))
    variables = jax.eval_shape(block.init, jax.random.key(0), *given)
    assert set(variables["params"]) == layers


def test_cross_attention_without_any_true_token_is_finite() -> None:
    module = Attention(2, 4, 4, jnp.float32, image_keys=False)
    given = (*_f32(X), _f32(KEYS, VALUES), jnp.zeros((2, 5), jnp.bool_))
    assert np.isfinite(module.apply({"params": _params(module)}, *given)).all()


def test_bfloat16_attention_is_close_to_float32() -> None:
    params = _params(Attention(2, 4, 4, jnp.float32))
    found = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        given = jax.tree.map(lambda a, d=dtype: a.astype(d), (*_f32(X), _f32(KEYS, VALUES)))
        module = Attention(2, 4, 4, dtype)
        found[dtype] = module.apply({"params": params}, *given, jnp.asarray(MASK))
        assert found[dtype].dtype == dtype
    np.testing.assert_allclose(
        found[jnp.bfloat16].astype(jnp.float32), found[jnp.float32], atol=0.1
    )


def test_feed_forward_has_its_width() -> None:
    shapes = jax.eval_shape(FeedForward(16, 4, jnp.float32).init, jax.random.key(0), *_f32(X))
    assert shapes["params"]["dense_0"]["kernel"].shape == (8, 16)
