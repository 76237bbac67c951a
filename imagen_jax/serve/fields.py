"""Fields of a request: which there are, what they may be, and the `ImageRequest` that they make."""

import dataclasses
import re
import secrets
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

import numpy as np

from imagen_jax import config
from imagen_jax.config.ranges import Range, Steps, type_hints
from imagen_jax.config.sentences import check_texts, shorten
from imagen_jax.serve import settings
from imagen_jax.serve.errors import ApiError, bad_request, too_large, unprocessable
from imagen_jax.serve.image_request import ImageRequest
from imagen_jax.serve.settings import Settings

Format = Literal["png", "jpeg", "webp"]
Percentage = Annotated[int, Range(low=0, high=100)]
Partials = Annotated[int, Range(low=0, high=settings.MOST_PARTIALS)]
Images = Annotated[int, Range(low=1, high=settings.MOST_IMAGES)]
SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")
STRENGTH = 0.8  # of an edit without a mask, where 1 would keep nothing of the image


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fields:
    """OpenAI's fields of both kinds of request, then ours.

    Those of which there is one choice are taken so that clients that send it need not be changed.
    """

    prompt: str
    model: str | None = None
    n: Images | None = None
    size: str | None = None
    response_format: Literal["b64_json"] | None = None
    output_format: Format | None = None
    output_compression: Percentage | None = None
    stream: bool | None = None
    partial_images: Partials | None = None
    quality: Literal["auto"] | None = None
    background: Literal["auto", "opaque"] | None = None
    moderation: Literal["auto", "low"] | None = None
    seed: config.Seed | None = None
    negative_prompt: str | None = None
    num_inference_steps: Steps | None = None
    guidance_scale: config.Finite | None = None
    strength: config.Share | None = None


NAMES = tuple(field.name for field in dataclasses.fields(Fields))
HINTS = type_hints(Fields)


def read_fields(given: Mapping[str, Any]) -> Fields:
    """Check the fields of a body. Errors: ApiError 400 that names the field."""
    for name in given:
        if name not in NAMES:
            raise bad_request(f"unknown field {shorten(name)}; there are {', '.join(NAMES)}", name)
    if "prompt" not in given:
        raise bad_request("prompt is missing: give the text, or an empty one", "prompt")
    found = {name: _checked(name, value) for name, value in given.items()}
    return Fields(**found)


def read_form(given: Mapping[str, str]) -> Fields:
    """Check the fields of a form, whose values are texts. Errors: as `read_fields`."""
    return read_fields({name: _from_text(name, text) for name, text in given.items()})


def make_request(
    fields: Fields,
    limits: Settings,
    image: np.ndarray | None = None,
    mask: np.ndarray | None = None,
) -> ImageRequest:
    """Make what the engine is asked for; image and mask are of the size that `read_size` gives.

    Errors: ApiError 404 for another model, 413 for too many pixels, 422 for what is not offered.
    """
    _refuse_unoffered(fields, limits, has_image=image is not None)
    size, count = read_size(fields, limits), fields.n or 1
    if (pixels := count * size[0] * size[1]) > limits.max_pixels:
        raise too_large(
            f"{count} images of {size[1]}x{size[0]} have {pixels:,} pixels, more than "
            f"{limits.max_pixels:,}: ask for fewer, or smaller ones",
            "n",
        )
    return ImageRequest(
        prompt=fields.prompt,
        size=size,
        seed=secrets.randbits(32) if fields.seed is None else fields.seed,
        negative_prompt=fields.negative_prompt or "",
        count=count,
        steps=fields.num_inference_steps,
        guidance_weight=fields.guidance_scale,
        init_image=image,
        mask=mask,
        strength=_strength(fields, image, mask),
        partials=fields.partial_images or 0,
    )


def _refuse_unoffered(fields: Fields, limits: Settings, *, has_image: bool) -> None:
    """Errors: ApiError for a model or an option that is not offered, but for the size."""
    if fields.model not in (None, limits.model):
        said = f"no model {shorten(fields.model)}; this server has {shorten(limits.model)}"
        raise ApiError(404, said, "model_not_found", "model")
    if fields.output_compression is not None and fields.output_format in (None, "png"):
        raise unprocessable(
            "output_compression is for jpeg and webp: give output_format, too",
            "output_compression",
        )
    if fields.partial_images and not fields.stream:
        raise unprocessable("partial_images needs stream: set it to true", "partial_images")
    if fields.num_inference_steps is not None and fields.num_inference_steps > limits.max_steps:
        raise unprocessable(
            f"num_inference_steps={fields.num_inference_steps}: at most {limits.max_steps} here",
            "num_inference_steps",
        )
    if fields.strength is not None and not has_image:
        raise unprocessable("strength needs an image: use /v1/images/edits", "strength")


def read_size(fields: Fields, limits: Settings) -> tuple[int, int]:
    """Return (height, width) of the images; OpenAI's `size` is WIDTHxHEIGHT, or "auto".

    Errors: ApiError 400 for what is no size, 422 for one that is not offered.
    """
    if fields.size in (None, "auto"):
        return limits.sizes[0]
    assert fields.size is not None
    found = SIZE.fullmatch(fields.size)
    if found is None:
        raise bad_request(
            f'size={shorten(fields.size)}: wanted WIDTHxHEIGHT, such as 256x256, or "auto"', "size"
        )
    size = int(found[2]), int(found[1])
    if size not in limits.sizes:
        offered = ", ".join(f"{width}x{height}" for height, width in limits.sizes)
        raise unprocessable(f"size={fields.size}: this server makes {offered}", "size")
    return size


def _strength(fields: Fields, image: np.ndarray | None, mask: np.ndarray | None) -> float:
    if fields.strength is not None:
        return fields.strength
    return 1.0 if image is None or mask is not None else STRENGTH


def _checked(name: str, value: Any) -> Any:
    """One field's value. Errors: ApiError 400."""
    try:
        found = config.check_value(value, HINTS[name], name)
        if isinstance(found, str):
            check_texts([found], what=name)
            if len(found) > settings.MOST_PROMPT:
                raise ValueError(
                    f"{name} has {len(found):,} characters, more than {settings.MOST_PROMPT:,}"
                )
    except ValueError as error:
        raise bad_request(str(error), name) from None
    return found


def _from_text(name: str, text: str) -> Any:
    """A form's text as the kind of value that its field has; as it is where it is none."""
    kinds = _kinds(HINTS.get(name))
    if bool in kinds and text in ("true", "false"):
        return text == "true"
    if int in kinds and re.fullmatch(r"-?[0-9]{1,18}", text):
        return int(text)
    if float in kinds and re.fullmatch(r"-?[0-9]{1,18}(\.[0-9]{0,18})?", text):
        return float(text)
    return text


def _kinds(hint: Any) -> set[Any]:
    """The plain types that a hint allows."""
    if get_origin(hint) is Annotated:
        return _kinds(get_args(hint)[0])
    inside = [x for x in get_args(hint) if not isinstance(x, str)]
    return {hint}.union(*map(_kinds, inside)) if inside else {hint}
