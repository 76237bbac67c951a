"""The network against T5X's own activations, and against a float64 NumPy encoder."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from imagen_jax.text import relative_positions, t5
from imagen_jax.text.checkpoints import load
from imagen_jax.text.t5 import T5, T5Config

ATOL = 2e-5  # erf instead of tanh GELU, the smallest known mistake, costs 8.7e-4

run = jax.jit(t5.encode, static_argnames=("config", "dtype"))
run_packed = jax.jit(t5.encode_packed, static_argnames=("config", "dtype"))


def _inputs(reference) -> tuple[jax.Array, jax.Array]:
    return jnp.asarray(reference["input_tokens"]), jnp.asarray(reference["mask"])


def test_encodings_equal_t5x(tiny, reference) -> None:
    config, params = tiny
    text = np.asarray(run(params, *_inputs(reference), config=config))
    mask = reference["mask"]
    np.testing.assert_allclose(text[mask], reference["encoded_a"][mask], rtol=0, atol=ATOL)
    assert not text[~mask].any()
    assert text.dtype == np.float32


def test_scanned_checkpoint_encodes_alike(fixtures, reference) -> None:
    config, params = load.load_parameters(fixtures / "scalable_t5_tiny")
    text = np.asarray(run(params, *_inputs(reference), config=config))
    mask = reference["mask"]
    np.testing.assert_allclose(text[mask], reference["encoded_scan"][mask], rtol=0, atol=ATOL)


def test_activations_equal_t5x(tiny, reference) -> None:
    config, params = tiny
    apply = partial(T5(config).apply, capture_intermediates=True, mutable=["intermediates"])
    tokens, mask = _inputs(reference)
    _, state = jax.jit(apply)({"params": params}, tokens, mask[:, None, None, :])
    seen, mask = state["intermediates"], reference["mask"]

    def output(tree) -> np.ndarray:
        return np.asarray(tree["__call__"][0])

    np.testing.assert_array_equal(output(seen["token_embedder"]), reference["a_embedded"])
    bias = output(seen["encoder"]["relpos_bias"])
    np.testing.assert_array_equal(bias, reference["a_relpos_bias"])
    for index in range(2):
        after = output(seen["encoder"][f"layers_{index}"])[mask]
        expected = reference[f"a_after_layer_{index}"][mask]
        np.testing.assert_allclose(after, expected, rtol=0, atol=2 * ATOL)


def test_packed_captions_are_encoded_as_if_alone(tiny, reference) -> None:
    """Two to a row, at odd places, with other captions before, behind and between."""
    config, params = tiny
    tokens, mask = _inputs(reference)
    noise = jax.random.randint(jax.random.key(0), (4, 5), 2, 1000)
    rows = [noise, tokens, noise, tokens[::-1]]
    marks = [jnp.full((4, 5), 3), mask, jnp.zeros((4, 5)), 2 * mask[::-1].astype(jnp.int32)]
    packed = run_packed(
        params,
        jnp.concatenate(rows, axis=1),
        jnp.concatenate([x.astype(jnp.int32) for x in marks], axis=1),
        config=config,
    )
    real = reference["mask"]
    for found, expected, where in (
        (packed[:, 5:29], reference["encoded_a"], real),
        (packed[:, 34:], reference["encoded_a"][::-1], real[::-1]),
    ):
        np.testing.assert_allclose(np.asarray(found)[where], expected[where], rtol=0, atol=ATOL)
        assert not np.asarray(found)[~where].any()
    assert not np.asarray(packed[:, 29:34]).any()


def test_padding_is_inert(tiny, reference) -> None:
    config, params = tiny
    tokens, mask = _inputs(reference)
    text = run(params, tokens, mask, config=config)
    noise = jnp.full_like(tokens, 7)  # ids under a false mask must not matter either
    padded = run(
        params,
        jnp.concatenate([tokens, noise], 1),
        jnp.concatenate([mask, jnp.zeros_like(mask)], 1),
        config=config,
    )
    np.testing.assert_allclose(padded[:, :24], text, rtol=0, atol=ATOL)
    assert not np.asarray(padded[:, 24:]).any()


def test_bfloat16_is_as_close_as_t5x(tiny, reference) -> None:
    config, params = tiny
    text = run(params, *_inputs(reference), config=config, dtype="bfloat16")
    assert text.dtype == jnp.bfloat16
    error = np.abs(np.asarray(text, np.float32) - reference["encoded_a"])[reference["mask"]]
    theirs = np.abs(reference["encoded_a_bf16_compute"] - reference["encoded_a"])[reference["mask"]]
    assert 1e-3 < error.max() < 2 * theirs.max()
    assert error.mean() < 1.1 * theirs.mean()


def test_norm_computes_in_float32() -> None:
    x = jax.random.normal(jax.random.key(0), (1, 4, 4096)).astype(jnp.bfloat16)
    scale = {"params": {"scale": jnp.full((4096,), 1.5, jnp.float32)}}
    normed = np.asarray(t5.RMSNorm().apply(scale, x), np.float64)
    exact = np.asarray(x, np.float64)
    exact = 1.5 * exact / np.sqrt(np.mean(exact**2, -1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(normed, exact, rtol=2**-8)  # one rounding to 8 bits


def test_logits_and_softmax_are_float32() -> None:
    config = T5Config(vocab=1, width=2, layers=1, heads=1, head_dim=2, mlp_width=1)
    names = ("query", "key", "value", "out")
    variables = {"params": {name: {"kernel": jnp.eye(2)} for name in names}}
    x = jnp.array([[[10.0, 0.25], [10.0, -0.25]]], jnp.bfloat16)  # logits 100.0625 and 99.9375:
    bias = jnp.zeros((1, 1, 2, 2))  # equal in bfloat16
    mixed = t5.SelfAttention(config, jnp.bfloat16).apply(variables, x, bias)
    expected = 0.25 * np.tanh(0.125 / 2)  # of the first query's second channel
    np.testing.assert_allclose(float(mixed[0, 0, 1]), expected, rtol=0.1)


def test_dtype_is_checked(tiny) -> None:
    with pytest.raises(Exception, match="float16"):  # beartype's error under test, else ValueError
        t5.encode(
            tiny[1],
            jnp.ones((1, 1), jnp.int32),
            jnp.ones((1, 1), bool),
            config=tiny[0],
            dtype="float16",
        )


def test_buckets_equal_integer_arithmetic() -> None:
    distance = np.arange(700)[None, :] - np.arange(700)[:, None]  # key minus query
    expected = np.empty_like(distance)
    for value in range(-699, 700):
        size = abs(value)
        # 8 + floor(2 log2(size / 8)) = 8 + floor(log2(size^2 / 64)), exactly
        bucket = size if size < 8 else min(8 + (size * size // 64).bit_length() - 1, 15)
        expected[distance == value] = bucket + (16 if value > 0 else 0)
    np.testing.assert_array_equal(relative_positions.buckets_of(700, buckets=32), expected)


def test_an_id_outside_the_table_embeds_to_zero(tiny) -> None:
    config, params = tiny
    variables = {"params": jax.tree.map(jnp.asarray, params["token_embedder"])}
    tokens = jnp.array([[5, config.vocab]], jnp.int32)
    rows = t5.TokenEmbedder(config, jnp.float32).apply(variables, tokens)
    np.testing.assert_array_equal(rows[0, 0], params["token_embedder"]["embedding"][5])
    assert not np.asarray(rows[0, 1]).any()


def test_numpy_parameters_need_no_jit(tiny, reference) -> None:
    config, params = tiny
    tokens, mask = (array[2:3, :2] for array in _inputs(reference))  # the empty caption
    text = t5.encode(params, tokens, mask, config=config)
    np.testing.assert_allclose(text[0, 0], reference["encoded_a"][2, 0], rtol=0, atol=ATOL)


def test_parameter_count_of_xxl() -> None:
    xxl = T5Config(vocab=32128, width=4096, layers=24, heads=64, head_dim=64, mlp_width=10240)
    shapes = t5.parameter_shapes(xxl)
    assert sum(np.prod(shape, dtype=np.int64) for shape in shapes.values()) == 4_762_310_656


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("bias_per_layer", [True, False])
def test_network_equals_numpy(gated: bool, bias_per_layer: bool) -> None:
    config = T5Config(
        vocab=11,
        width=12,
        layers=2,
        heads=2,
        head_dim=4,
        mlp_width=10,
        gated=gated,
        bias_per_layer=bias_per_layer,
    )
    rng = np.random.default_rng(0)
    flat = {
        name: (rng.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32)
        for name, shape in t5.parameter_shapes(config).items()
    }
    tokens = rng.integers(0, 11, (2, 9)).astype(np.int32)
    mask = np.arange(9)[None] < np.array([9, 5])[:, None]
    params = traverse_util.unflatten_dict(flat, sep=".")
    text = run(params, jnp.asarray(tokens), jnp.asarray(mask), config=config)
    np.testing.assert_allclose(text, _numpy_encoder(flat, tokens, mask, config), rtol=0, atol=ATOL)


def _numpy_encoder(flat, tokens, mask, config: T5Config) -> np.ndarray:
    """T5's encoder written down in float64, heads and rows one by one."""
    weights = {name: array.astype(np.float64) for name, array in flat.items()}
    result = np.zeros((*tokens.shape, config.width))
    for row, length in enumerate(mask.sum(1)):
        x = weights["token_embedder.embedding"][tokens[row, :length]]
        for index in range(config.layers):
            layer = f"encoder.layers_{index}."
            table = layer if config.bias_per_layer else "encoder."
            bias = weights[table + "relpos_bias.rel_embedding"]
            x = x + _numpy_attention(
                weights, layer, _numpy_norm(weights, layer + "pre_attention_layer_norm", x), bias
            )
            x = x + _numpy_mlp(
                weights, layer + "mlp.", _numpy_norm(weights, layer + "pre_mlp_layer_norm", x)
            )
        result[row, :length] = _numpy_norm(weights, "encoder.encoder_norm", x)
    return result


def _numpy_norm(weights, name: str, x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * weights[name + ".scale"]


def _numpy_attention(weights, layer: str, x: np.ndarray, bias: np.ndarray) -> np.ndarray:
    query, key, value = (
        x @ weights[f"{layer}attention.{n}.kernel"] for n in ("query", "key", "value")
    )
    heads, length = bias.shape[0], len(x)
    head_dim = query.shape[1] // heads
    mixed = np.zeros_like(query)
    for head in range(heads):
        part = slice(head * head_dim, (head + 1) * head_dim)
        for i in range(length):
            # short distances only: bucket is |distance|, plus 16 for a key after the query
            buckets = [abs(j - i) if abs(j - i) < 8 else 8 for j in range(length)]
            buckets = [b + 16 * (j > i) for j, b in enumerate(buckets)]
            logits = key[:, part] @ query[i, part] + bias[head, buckets]
            share = np.exp(logits - logits.max())
            mixed[i, part] = share / share.sum() @ value[:, part]
    return mixed @ weights[layer + "attention.out.kernel"]


def _numpy_mlp(weights, mlp: str, x: np.ndarray) -> np.ndarray:
    if mlp + "wi.kernel" in weights:
        hidden = np.maximum(x @ weights[mlp + "wi.kernel"], 0)
    else:
        a = x @ weights[mlp + "wi_0.kernel"]
        gelu = 0.5 * a * (1 + np.tanh(np.sqrt(2 / np.pi) * (a + 0.044715 * a**3)))
        hidden = gelu * (x @ weights[mlp + "wi_1.kernel"])
    return hidden @ weights[mlp + "wo.kernel"]
