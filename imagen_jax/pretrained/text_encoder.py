"""A cascade's text encoder, compared with what its stages were trained on."""

import functools
import warnings

from imagen_jax import config
from imagen_jax.io.workdir import Workdir
from imagen_jax.text.encoder import TextEncoder
from imagen_jax.text.offloaded import MissingTextEncoder, OffloadedTextEncoder


def open_encoder(
    text: config.Text | None, where: Workdir, *, padding: config.Padding, offload: bool
) -> TextEncoder | OffloadedTextEncoder | MissingTextEncoder:
    """The text encoder of the cascade `where`; where there is none, what says so when it is needed.

    `padding` is that of the encodings that its stages read.
    Errors: as `TextEncoder.load`; ValueError for one of another width or vocabulary.
    """
    if text is None:
        return MissingTextEncoder(str(where), padding=padding)
    check = functools.partial(_check_encoder, text=text, where=where)
    if offload:
        return OffloadedTextEncoder(text, check)
    found = TextEncoder.from_config(text, split="heads")
    check(found)
    return found


def check_width(width: int, text: config.Text, *, where: Workdir) -> None:
    """Refuse an encoder of another width than the stages in `where` read. Errors: ValueError."""
    if width != text.width:
        raise ValueError(
            f"{where}: text.width={text.width}, but {text.encoder!r} is {width} wide: give the "
            "text encoder that these weights were trained with"
        )


def _check_encoder(encoder: TextEncoder, text: config.Text, *, where: Workdir) -> None:
    """Refuse an encoder whose encodings a cascade was not trained on; other weights only warn.

    They may be the same in another precision, such as bfloat16 on disk.
    """
    check_width(encoder.width, text, where=where)
    if text.vocabulary not in ("", encoder.vocabulary):
        raise ValueError(
            f"{where} was trained with vocabulary {text.vocabulary}, but that of {text.encoder!r} "
            f"is {encoder.vocabulary}: put the tokenizer of training there"
        )
    if text.identity not in ("", encoder.identity):
        warnings.warn(
            f"{where} was trained with text encoder {text.identity}, but {text.encoder!r} is "
            f"{encoder.identity}: unless its weights are the same, rounded, images will suffer",
            stacklevel=4,
        )
