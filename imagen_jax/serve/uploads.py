"""Bodies: JSON and forms within bounds of bytes and time, and the images that come in a form."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import numpy as np
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from imagen_jax.data.images import decode
from imagen_jax.image import WHITE, fit_image
from imagen_jax.io import json_reader
from imagen_jax.serve import settings
from imagen_jax.serve.errors import ApiError, bad_request, too_large, unprocessable

FILES = ("image", "image[]", "mask")  # of a form; the client of OpenAI sends a list as image[]
MOST_FIELDS = 40
ALIKE = 0.02  # by which the shapes of image and mask may differ


async def read_json(request: Request) -> dict[str, Any]:
    """Read a body that is one JSON object.

    Errors: ApiError 400 for another body, 408 for one that is slow, 413 for a long one.
    """
    if _media_type(request) != "application/json":
        raise bad_request("the body must be JSON: set Content-Type to application/json")
    parts = [part async for part in _bounded(request, settings.JSON_BYTES)]
    try:
        remedy = "send a JSON object of fields"
        return json_reader.parse_object(b"".join(parts), where="the body", remedy=remedy)
    except ValueError as error:
        raise bad_request(str(error)) from None


async def read_form(request: Request) -> tuple[dict[str, str], dict[str, bytes]]:
    """Read a form: its fields, and the bytes of its files by their fields' names.

    Errors: ApiError as `read_json`.
    """
    if _media_type(request) != "multipart/form-data":
        raise bad_request("the body must be a form: set Content-Type to multipart/form-data")
    stream = _bounded(request, settings.UPLOAD_BYTES)
    parser = MultiPartParser(
        request.headers,
        stream,
        max_files=len(FILES),
        max_fields=MOST_FIELDS,
        max_part_size=settings.JSON_BYTES,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise bad_request(f"the form can't be read: {error.message}") from None
    except (KeyError, ValueError, LookupError) as error:  # of a header without its parts
        raise bad_request(f"the form can't be read: {error}") from None
    fields: dict[str, str] = {}
    files: dict[str, bytes] = {}
    try:
        for name, value in form.multi_items():
            known = name.removesuffix("[]") if name in FILES else name
            if known in fields or known in files:
                raise bad_request(f"{known} is there twice: send one", known)
            if isinstance(value, UploadFile):
                if name not in FILES:
                    raise bad_request("files are image and mask alone", known)
                files[known] = await value.read()
            elif name in FILES:
                raise bad_request(f"{known} must be a file", known)
            else:
                fields[name] = value
    finally:
        await form.close()
    return fields, files


def decode_upload(
    files: dict[str, bytes], size: tuple[int, int], max_pixels: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """The image, uint8 (h, w, 3), and the mask, bool (h, w), true where it is sampled again.

    Both are cut to the shape of `size` and resized. A mask asks for the pixels that are transparent
    in it, as OpenAI's; without one, those that are transparent in the image.
    Errors: ApiError 400 for no image, 413 for a large one, 422 for a mask that asks for nothing.
    """
    if "image" not in files:
        raise bad_request("image is missing: send the file to edit", "image")
    image = _decode("image", files["image"], max_pixels)
    of_mask = "mask" if "mask" in files else "image"
    opacity = _opacity(of_mask, files[of_mask], max_pixels)
    if abs(opacity.shape[0] * image.shape[1] / (opacity.shape[1] * image.shape[0]) - 1) > ALIKE:
        raise unprocessable(
            f"mask has {opacity.shape[1]}x{opacity.shape[0]} pixels, image {image.shape[1]}x"
            f"{image.shape[0]}: they must have the same shape",
            "mask",
        )
    pixels = np.asarray(fit_image(_image(image), size))
    clear = np.asarray(fit_image(_image(opacity), size, smooth=False)) < WHITE
    if not clear.any():
        if "mask" in files:
            raise unprocessable(
                "mask has no transparent pixels: make those transparent that are to be sampled",
                "mask",
            )
        return pixels, None
    return pixels, clear


def _decode(name: str, data: bytes, max_pixels: int) -> np.ndarray:
    try:
        header = decode.read_header(data)
        _check_pixels(name, header, max_pixels)
        return decode.decode_image(data)
    except decode.UnreadableImageError as error:
        raise bad_request(f"{name} can't be read: {error}", name) from None


def _opacity(name: str, data: bytes, max_pixels: int) -> np.ndarray:
    try:
        _check_pixels(name, decode.read_header(data), max_pixels)
        return decode.decode_opacity(data)
    except decode.UnreadableImageError as error:
        raise bad_request(f"{name} can't be read: {error}", name) from None


def _check_pixels(name: str, header: decode.ImageHeader, max_pixels: int) -> None:
    if header.width * header.height > max_pixels:
        raise too_large(
            f"{name} has {header.width}x{header.height} pixels, more than {max_pixels:,}: send a "
            "smaller one",
            name,
        )


def _image(pixels: np.ndarray) -> Any:
    from PIL import Image

    return Image.fromarray(pixels)


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _bounded(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    """The body in parts, as long as it is neither longer nor slower than it may be."""
    said = f"the body has more than {most:,} bytes: send less"
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and len(length) < 20 and int(length) > most:
        raise too_large(said)
    got = 0
    try:
        async with asyncio.timeout(settings.BODY_SECONDS):
            async for part in request.stream():
                got += len(part)
                if got > most:
                    raise too_large(said)
                yield part
    except TimeoutError:
        seconds = settings.BODY_SECONDS
        raise ApiError(
            408, f"the body took more than {seconds} seconds: send it faster", "timeout"
        ) from None
    except ClientDisconnect:
        raise bad_request("the client left before the body was complete") from None
