"""A text encoder that is on the devices only while it encodes, or is not there at all."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from imagen_jax import config
from imagen_jax.text.encoder import TextEncoder


@dataclass(frozen=True, eq=False)
class OffloadedTextEncoder:
    """Loads the encoder of a config for each call of `encode`, and frees its memory at once.

    So T5-XXL and a large U-Net share a small device, one after the other.
    """

    text: config.Text
    check: Callable[[TextEncoder], None]  # of what was loaded; raises or warns

    @property
    def identity(self) -> str:
        """The digest that the config names; "" where it names none."""
        return self.text.identity

    @property
    def padding(self) -> config.Padding:
        """Rows behind a caption's end, as `config.Text.padding`."""
        return self.text.padding

    def with_caption_cleaner(self) -> "OffloadedTextEncoder":
        """The same encoder behind DeepFloyd IF's cleaner of captions."""
        text = dataclasses.replace(self.text, clean_caption=True)
        return dataclasses.replace(self, text=text)

    def encode(
        self, captions: Sequence[str], *, batch_size: int = 256
    ) -> tuple[Float32[np.ndarray, "b n d"], Bool[np.ndarray, "b n"]]:
        """Encode as `TextEncoder.encode` does. Errors: as `TextEncoder.load`, too."""
        encoder = TextEncoder.from_config(self.text, split="heads")
        try:
            self.check(encoder)
            return encoder.encode(captions, batch_size=batch_size)
        finally:
            encoder.free()


@dataclass(frozen=True)
class MissingTextEncoder:
    """Stands where a cascade was exported without its text encoder."""

    where: str  # the cascade
    identity: str = ""
    padding: config.Padding = "left_out"

    def with_caption_cleaner(self) -> "MissingTextEncoder":
        """The same: there is nothing to clean captions for."""
        return self

    def encode(
        self, captions: Sequence[str], *, batch_size: int = 256
    ) -> tuple[Float32[np.ndarray, "b n d"], Bool[np.ndarray, "b n"]]:
        """Encodes nothing. Errors: ValueError, always."""
        raise ValueError(
            f"{self.where} was exported without its text encoder: give the one of its training to "
            "imagen_jax.load(..., text_encoder=FOLDER), or to `imagen sample` as --text-encoder "
            "FOLDER"
        )
