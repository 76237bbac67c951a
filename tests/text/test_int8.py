"""A text encoder kept in int8: rounded as it is read, half of bfloat16's memory, how far off."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from deepfloyd_references import FOLDER
from flax import traverse_util

import imagen_jax
from imagen_jax import config
from imagen_jax.text import t5, t5_storage
from imagen_jax.text.encoder import TextEncoder
from imagen_jax.text.offloaded import OffloadedTextEncoder

IF, MINI = str(FOLDER / "if_I" / "text_encoder"), "t5_1_1_mini"
# Root mean square of the difference from float32, by that of the encodings: what is documented.
DEVIATION = {IF: 0.02, MINI: 0.02}
PROMPTS = ["a photo of a red cube on a blue table", "two owls", ""]


@functools.cache
def encoder(place: str, dtype: config.EncoderDtype) -> TextEncoder:
    return TextEncoder.load(place, max_length=77, dtype=dtype)


def encode(place: str, dtype: config.EncoderDtype) -> np.ndarray:
    return encoder(place, dtype).encode(PROMPTS)[0]


def deviation(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.sqrt(np.square(found - wanted).mean() / np.square(wanted).mean()))


@pytest.mark.parametrize("place", [IF, MINI], ids=["deepfloyd", "mini"])
def test_encodings_deviate_by_no_more_than_is_documented(place: str) -> None:
    wanted = encode(place, "float32")
    found, rounded = (deviation(encode(place, d), wanted) for d in ("int8", "bfloat16"))
    assert 1e-3 < rounded < found < DEVIATION[place]


def _bytes(place: str, dtype: config.EncoderDtype) -> int:
    return sum(x.nbytes for x in jax.tree.leaves(encoder(place, dtype).params))


def test_it_takes_half_of_the_memory_of_bfloat16() -> None:
    whole, half = _bytes(MINI, "bfloat16"), _bytes(MINI, "int8")
    assert 0.49 < half / whole < 0.53  # vectors and scales are float32
    xxl = t5.SIZES["t5_1_1_xxl"]
    sizes = [
        sum(x.size * x.dtype.itemsize for x in t5_storage.storage_shapes(xxl, dtype).values()) / 1e9
        for dtype in ("bfloat16", "int8")
    ]
    np.testing.assert_allclose(sizes, [9.525, 4.769], atol=0.01)


def test_numbers_of_a_column_share_a_scale_and_those_of_a_tokens_row() -> None:
    loaded = encoder(MINI, "int8")
    flat = traverse_util.flatten_dict(loaded.params, sep=".")
    shapes = t5_storage.storage_shapes(loaded.config, "int8")
    assert {n: (x.shape, x.dtype) for n, x in flat.items()} == {
        n: (x.shape, x.dtype) for n, x in shapes.items()
    }
    exact = traverse_util.flatten_dict(encoder(MINI, "float32").params, sep=".")
    for name, axis in (("token_embedder.embedding", 1), ("encoder.layers_0.mlp.wo.kernel", 0)):
        values, scale = np.asarray(flat[name]), np.asarray(flat[name + t5.SCALE])
        assert values.dtype == np.int8
        assert values.shape[1 - axis] == len(scale)
        again = values * np.expand_dims(scale, axis)
        off = np.abs(again - np.asarray(exact[name]))
        assert (off <= np.expand_dims(scale, axis) * 0.501).all()
        assert (np.abs(values).max(axis) == 127).all()


def test_several_devices_encode_the_same() -> None:
    """Weights split over devices, whichever way: their scales are whole on each."""
    from imagen_jax.parallel import mesh
    from imagen_jax.text.placement import parameter_sharding

    grid = mesh.for_encoder(1e15, by_heads=True, devices=jax.devices()[:2])
    loaded = encoder(MINI, "int8")
    flat = traverse_util.flatten_dict(loaded.params, sep=".")
    split = {
        name: jax.device_put(
            x, parameter_sharding(name, jax.ShapeDtypeStruct(x.shape, x.dtype), grid, "heads")
        )
        for name, x in flat.items()
    }
    run = jax.jit(functools.partial(t5.encode, config=loaded.config, dtype="int8"))
    tokens = jnp.asarray([[5, 9, 2, 1], [7, 1, 0, 0]], jnp.int32)
    found, wanted = (
        np.asarray(run(traverse_util.unflatten_dict(x, sep="."), tokens, tokens > 0), np.float32)
        for x in (split, flat)
    )
    assert deviation(found, wanted) < 0.01


def test_a_cascade_takes_it_and_offloads_it_before_its_first_network() -> None:
    kept = imagen_jax.load(FOLDER, text_encoder_dtype="int8", compile_cache=False).encoder
    assert isinstance(kept, TextEncoder)
    assert kept.dtype == "int8"
    assert kept.padding == "encoded"
    offloaded = imagen_jax.load(
        FOLDER, text_encoder_dtype="int8", offload=True, compile_cache=False
    ).encoder
    assert isinstance(offloaded, OffloadedTextEncoder)
    before = {id(x) for x in jax.live_arrays()}
    text, _ = offloaded.encode(PROMPTS[:1])
    left = [x for x in jax.live_arrays() if id(x) not in before and x.dtype == jnp.int8]
    assert not left  # a network is read after that
    np.testing.assert_array_equal(text, kept.encode(PROMPTS[:1])[0])
