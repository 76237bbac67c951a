"""Metadata in PNG files: any text comes back, and other files are refused."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from imagen_jax.io.png_metadata import encode_png, read_metadata

IMAGE = Image.new("RGB", (3, 2), (1, 2, 3))
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(st.dictionaries(texts, texts | st.integers() | st.none() | st.lists(texts, max_size=2)))
def test_any_text_comes_back(metadata: dict) -> None:
    png = encode_png(IMAGE, metadata)
    assert read_metadata(png) == metadata
    with Image.open(io.BytesIO(png)) as opened:
        assert opened.tobytes() == IMAGE.tobytes()


def test_a_path_that_is_no_unicode_is_escaped() -> None:
    assert read_metadata(encode_png(IMAGE, {"lora": "a\udcff"})) == {"lora": "a\udcff"}


def test_other_files_are_refused() -> None:
    plain = io.BytesIO()
    IMAGE.save(plain, "PNG")
    with pytest.raises(ValueError, match="has no text 'imagen_jax'"):
        read_metadata(plain.getvalue())
    with pytest.raises(ValueError, match="5 bytes are no PNG: give a PNG"):
        read_metadata(b"other")
