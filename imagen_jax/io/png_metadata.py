"""What an image was made of, inside its PNG file: one text chunk of JSON."""

import io
import json
from collections.abc import Mapping
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo

from imagen_jax.io import json_reader

KEYWORD = "imagen_jax"  # of the chunk, an iTXt that is not compressed


def encode_png(image: Image.Image, metadata: Mapping[str, Any]) -> bytes:
    """Encode an image as PNG that carries `metadata`, which JSON can hold.

    Source: PNG (third edition), 11.3.3.4: iTXt is UTF-8. JSON escapes NUL, which no chunk may have.
    """
    text = json.dumps(metadata, ensure_ascii=False)
    chunks = PngInfo()
    # A path in it may be no Unicode; JSON has an escape for its odd bytes.
    chunks.add_itxt(KEYWORD, text.encode("utf-8", "backslashreplace").decode("utf-8"))
    encoded = io.BytesIO()
    image.save(encoded, "PNG", pnginfo=chunks)
    return encoded.getvalue()


def read_metadata(png: bytes) -> dict[str, Any]:
    """Return what `encode_png` wrote into a file.

    Errors: ValueError for bytes that are no PNG, or one that carries nothing of this package.
    """
    remedy = "give a PNG of imagen sample or imagen serve"
    try:
        with Image.open(io.BytesIO(png), formats=("PNG",)) as opened:
            assert isinstance(opened, PngImageFile)
            text = opened.text.get(KEYWORD)
    except OSError as error:
        raise ValueError(f"{len(png)} bytes are no PNG: {remedy}") from error
    if text is None:
        raise ValueError(f"the PNG has no text {KEYWORD!r}: {remedy}")
    return json_reader.parse_object(str(text), where="the metadata of the PNG", remedy=remedy)
