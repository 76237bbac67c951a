"""A bundle's text encoder: embedded, by reference with its digest, or left out."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from imagen_jax import config
from imagen_jax.config.names import check_line
from imagen_jax.text import encoder_digests, encoder_folders, t5, t5_storage
from imagen_jax.text.checkpoints import load, native
from imagen_jax.text.checkpoints.lazy_tensors import Layout
from imagen_jax.text.tokenizer import Tokenizer

Kind = Literal["embedded", "reference", "none"]

FOLDER = "text"  # of an embedded encoder, in the bundle
LARGEST = 2**30  # bytes of weights that are embedded where nothing is said


@dataclass(frozen=True, kw_only=True)
class TextEncoderEntry:
    """The text encoder of a bundle: how the bundle has it, and with which one it was trained."""

    kind: Kind
    encoder: str  # its name or folder in the config
    tokenizer: str
    identity: str  # digest of weights and tokenizer, before any rounding
    vocabulary: str  # digest of the tokenizer
    width: int
    max_length: int
    dtype: config.EncoderDtype
    clean: bool  # captions are cleaned first

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise TypeError(f"text encoder {self.kind!r} is none of {', '.join(get_args(Kind))}")
        for name in ("encoder", "tokenizer", "identity", "vocabulary"):
            check_line(getattr(self, name), f"text: {name}")

    def text(self, text: config.Text, *, bundle: Path, given: str = "") -> config.Text | None:
        """Return the place of a stage's text encoder: `given`, else the bundle's or the original.

        None where it is nowhere. An embedded one of bfloat16 has lost the digest of its weights by
        rounding; its files have been compared with the manifest.
        """
        identity, place, tokenizer = self.identity, self.encoder, self.tokenizer
        if given:
            place, tokenizer = given, ""
        elif self.kind == "none":
            return None
        elif self.kind == "embedded":
            place, tokenizer = str(bundle / FOLDER), ""
            identity = self.identity if self.dtype == "float32" else ""
        return dataclasses.replace(
            text,
            encoder=place,
            tokenizer=tokenizer,
            identity=identity,
            vocabulary=self.vocabulary,
        )


def default_embedding(source: config.Text) -> Kind:
    """Embed an encoder, so that the bundle samples anywhere; refer to one of a gigabyte."""
    return "embedded" if count_bytes(source) <= LARGEST else "reference"


def describe_encoder(kind: Kind, trained: config.Text, source: config.Text) -> TextEncoderEntry:
    """The text encoder of a cascade whose config is `trained`, and which lies where `source` says.

    Its tensors are read one after another where no config has its identity. One that is left out
    and is not there has none.
    Errors: as `load.find_layout`, and for no tokenizer.
    """
    identity, vocabulary = source.identity, source.vocabulary
    known = identity and vocabulary
    if not known and (kind != "none" or _is_there(source)):
        _, layout, words = _open(source)
        identity = encoder_digests.read_identity(layout, words)
        vocabulary = encoder_digests.vocabulary_digest(words)
    embedded = kind == "embedded"
    return TextEncoderEntry(
        kind=kind,
        encoder=trained.encoder if embedded else source.encoder,
        tokenizer="" if embedded else source.tokenizer,
        identity=identity,
        vocabulary=vocabulary,
        width=trained.width,
        max_length=trained.max_length,
        dtype=trained.computed_in,
        clean=trained.clean,
    )


def _is_there(source: config.Text) -> bool:
    return encoder_folders.is_there(encoder_folders.locate_encoder(source.encoder))


def embed_encoder(folder: Path, source: config.Text, *, progress: bool = False) -> None:
    """Write the encoder that `source` names into a new folder, its matrices in its dtype.

    That is the precision in which it computes: what it encodes stays the same to the last bit. One
    that is kept in int8 is written in bfloat16, of which loading makes int8 again.
    Errors: as `load.find_layout`, and as `native.write`.
    """
    sizes, layout, words = _open(source)
    native.write(
        folder,
        sizes,
        layout,
        tokenizer=words,
        dtype=t5.product_dtype(source.computed_in),
        progress=progress,
    )


def count_bytes(source: config.Text) -> int:
    """Count the bytes of an encoder's weights, where they are embedded. Errors: of reading them."""
    shapes = t5.parameter_shapes(encoder_folders.read_t5_config(source.encoder))
    return sum(
        math.prod(shape)
        * (2 if t5_storage.storage_dtype(name, shape, source.computed_in) == "bfloat16" else 4)
        for name, shape in shapes.items()
    )


def _open(source: config.Text) -> tuple[t5.T5Config, Layout, Tokenizer]:
    place = encoder_folders.locate_encoder(source.encoder)
    sizes, layout = load.find_layout(place)
    return sizes, layout, Tokenizer.load(source.tokenizer or encoder_folders.find_tokenizer(place))
