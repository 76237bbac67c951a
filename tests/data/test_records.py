"""The example format: round trips, and encodings rounded as they are stored."""

from typing import get_args

import msgpack
import numpy as np
import pytest

from imagen_jax.data.store import records
from imagen_jax.data.store.records import Encoding, Record
from imagen_jax.io import errors

WIDTH = 16


def text_of(tokens: int, *, spread: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(tokens)
    scales = spread ** rng.standard_normal((tokens, 1))
    return (scales * rng.standard_normal((tokens, WIDTH))).astype(np.float32)


@pytest.mark.parametrize("tokens", [0, 1, 7])
@pytest.mark.parametrize("dtype", get_args(records.TextDtype))
def test_unpack_inverts_pack(dtype: records.TextDtype, tokens: int) -> None:
    texts = tuple(records.round_encoding(text_of(n), dtype) for n in (tokens, 4, tokens))
    images = {16: b"large", 4: b"small"}
    captions = ("ein Kreis № 3", "", "rund")
    record = Record(key="k3", captions=captions, images=images, texts=texts)
    found = records.unpack_record(records.pack_record(record), text_dtype=dtype)
    assert (found.key, found.captions, found.images) == (record.key, captions, images)
    for text, expected in zip(found.texts, texts, strict=True):
        assert text.values.dtype == expected.values.dtype == records.DTYPES[dtype]
        assert text.array().shape == (len(expected.values), WIDTH)
        np.testing.assert_array_equal(text.array(), expected.array())


def test_floats_are_rounded_to_the_nearest() -> None:
    text = text_of(9, spread=10.0)
    np.testing.assert_array_equal(records.round_encoding(text, "float32").array(), text)
    half = records.round_encoding(text, "bfloat16").array()
    np.testing.assert_array_less(
        np.abs(half.astype(np.float32) - text), 2**-8 * np.abs(text) + 1e-9
    )


def test_int8_is_within_half_a_step_of_each_tokens_own_scale() -> None:
    text = text_of(50, spread=100.0)
    text[7] = 0
    kept = records.round_encoding(text, "int8")
    assert kept.values.dtype == np.int8
    assert np.abs(kept.values).max(axis=1).tolist() == [0 if i == 7 else 127 for i in range(50)]
    step = np.abs(text).max(axis=1, keepdims=True) / 127
    assert np.all(np.abs(kept.array() - text) <= 0.5001 * step)
    assert kept.array().dtype == np.float32


@pytest.mark.parametrize(
    ("dtype", "bytes_of_a_token"), [("bfloat16", 32), ("float32", 64), ("int8", 20)]
)
def test_no_padding_is_stored(dtype: records.TextDtype, bytes_of_a_token: int) -> None:
    assert len(records.round_encoding(text_of(5), dtype).to_bytes()) == 5 * bytes_of_a_token


def test_a_record_of_another_dtype_is_refused() -> None:
    text = records.round_encoding(text_of(3), "bfloat16")
    packed = records.pack_record(Record(key="k", captions=("",), images={}, texts=(text,)))
    with pytest.raises(errors.CorruptDataError, match="size"):
        records.unpack_record(packed, text_dtype="float32")


@pytest.mark.parametrize("dtype", get_args(records.TextDtype))
def test_damaged_bytes_are_a_record_or_refused_as_such(dtype: records.TextDtype) -> None:
    rng = np.random.default_rng(0)
    text = records.round_encoding(text_of(3), dtype)
    whole = records.pack_record(
        Record(key="k", captions=("abc",), images={4: b"1", 16: b"2"}, texts=(text,))
    )
    refused = 0
    for _ in range(5000):
        data = bytearray(whole)
        for place in rng.integers(len(data), size=rng.integers(1, 4)):
            data[place] = rng.integers(256)
        damaged = bytes(data if rng.integers(2) else data[: rng.integers(len(data))])
        try:
            record = records.unpack_record(damaged, text_dtype=dtype)
        except errors.CorruptDataError:
            refused += 1
        else:
            assert {type(png) for png in record.images.values()} <= {bytes}
    assert refused > 2000


@pytest.mark.parametrize(
    "fields",
    [
        [],
        ["k", "", [], 2, 16],
        [1, "", [], 0, 0, b""],
        ["k", "", 3, 0, 0, b""],
        ["k", "", [[[], b""]], 0, 0, b""],
        ["k", "", [[4, "png"]], 0, 0, b""],
        ["k", "", [], 2**63, 16, b""],
        ["k", "", [], 1.5, 16, bytes(32)],
        ["k", "", [], 1, 16, "text"],
        {},
    ],
)
@pytest.mark.parametrize("dtype", get_args(records.TextDtype))
def test_other_things_than_a_record_are_refused_as_damaged(
    fields: object, dtype: records.TextDtype
) -> None:
    with pytest.raises(errors.CorruptDataError, match="bytes are no record"):
        records.unpack_record(msgpack.packb(fields), text_dtype=dtype)


def test_an_encoding_without_scale_is_its_values() -> None:
    values = text_of(2)
    assert Encoding(values).array() is values
