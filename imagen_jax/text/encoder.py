"""The frozen text encoder as a whole: captions in, encodings and their mask out (section 2.1)."""

import dataclasses
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Float32

from imagen_jax import config as settings
from imagen_jax.parallel import auto_layout, mesh
from imagen_jax.text import (
    deepfloyd_cleaner,
    encoder_digests,
    encoder_folders,
    lost_text,
    packing,
    t5,
    t5_storage,
)
from imagen_jax.text.checkpoints import load
from imagen_jax.text.cleaning import clean_caption
from imagen_jax.text.nonfinite_encodings import check_encodings, is_finite
from imagen_jax.text.placement import Placer, Split, put_scales_beside
from imagen_jax.text.t5 import T5Config
from imagen_jax.text.tokenizer import PAD, Tokenizer, pad
from imagen_jax.types import Params

LENGTH_STEP = 8  # captions are encoded with others of their length, rounded up to this
BATCH_TOKENS = 2**14  # computed at once where many captions are encoded

_encode = jax.jit(t5.encode, static_argnames=("config", "dtype", "padding"))
_encode_packed = jax.jit(t5.encode_packed, static_argnames=("config", "dtype", "padding"))


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """A T5 encoder with its tokenizer; `max_length` counts the end-of-sentence token.

    Its parameters lie on this process's devices: processes encode each for itself.
    """

    config: T5Config
    params: Params
    tokenizer: Tokenizer
    max_length: int
    devices: Mesh
    dtype: settings.EncoderDtype
    digest: str  # of the weights

    clean: bool = False  # captions are cleaned first
    clean_caption: bool = False  # by DeepFloyd IF's cleaner
    lower_case: bool = False  # and made lower case
    padding: settings.Padding = "left_out"
    batch_tokens: int = BATCH_TOKENS  # of `plan`

    @classmethod
    def from_config(cls, text: settings.Text, *, split: Split = "captions") -> "TextEncoder":
        """The encoder that a config describes. Errors: as `load`."""
        found = cls.load(
            text.encoder,
            max_length=text.max_length,
            dtype=text.computed_in,
            tokenizer=text.tokenizer,
            clean=text.clean,
            split=split,
        )
        return dataclasses.replace(
            found,
            clean_caption=text.clean_caption,
            lower_case=text.lower_case,
            padding=text.padding,
        )

    @classmethod
    def load(
        cls,
        name_or_path: str,
        *,
        max_length: int,
        dtype: settings.EncoderDtype = "float32",
        tokenizer: str = "",
        clean: bool = False,
        split: Split = "captions",
    ) -> "TextEncoder":
        """The embedded encoder of that name, or that of a folder, local or `gs://`.

        A folder is a T5X checkpoint or holds one, or is Hugging Face's, of which one safetensors
        file will do, too. `tokenizer` is a SentencePiece model; by default the `*.model` in the
        folder, next to it, or in a folder `tokenizer` next to it. With `dtype` bfloat16 matrices
        are kept and multiplied as such; with int8 they are kept with a scale a row, rounded tensor
        by tensor as they are read, and multiplied in bfloat16.
        `split` says how devices share an encoder that one cannot hold: each has captions of its own
        and gathers the weights (many captions), or some heads of every layer (few captions).
        Errors: FileNotFoundError or ValueError that names the place, what is wrong and a remedy.
        """
        place = encoder_folders.find_encoder(name_or_path)
        if max_length < 1:
            raise ValueError(f"max_length={max_length} must be at least 1: eos takes one token")
        model = tokenizer or encoder_folders.find_tokenizer(place)
        words = Tokenizer.load(model)
        sizes, layout = load.find_layout(place)
        if words.size > sizes.vocab:
            raise ValueError(
                f"{model} has {words.size} pieces, but the embedding in {place} only "
                f"{sizes.vocab} rows: they belong to different encoders"
            )
        devices = _devices(sizes, dtype, split)
        put = Placer(devices, dtype, split)
        params = put_scales_beside(load.read_layout(layout, put))
        return cls(sizes, params, words, max_length, devices, dtype, put.digest(), clean)

    @property
    def width(self) -> int:
        """Length of one token's encoding."""
        return self.config.width

    @cached_property
    def identity(self) -> str:
        """The key of caches: a digest of weights and tokenizer, whatever their files."""
        return encoder_digests.encoder_identity(self.tokenizer, self.digest)

    @cached_property
    def vocabulary(self) -> str:
        """A digest of the tokenizer."""
        return encoder_digests.vocabulary_digest(self.tokenizer)

    def with_caption_cleaner(self) -> "TextEncoder":
        """The same encoder behind DeepFloyd IF's cleaner of captions."""
        return dataclasses.replace(self, clean_caption=True)

    def free(self) -> None:
        """Give back the device memory of the weights; the encoder cannot be used after."""
        for leaf in jax.tree.leaves(self.params):
            leaf.delete()

    def cut_text(self, caption: str) -> str:
        """The end of a caption that does not fit into `max_length`; "" if all of it does."""
        (caption,) = self._cleaned([caption])
        return self.tokenizer.cut_text(caption, max_length=self.max_length)

    def ragged_ids(self, captions: Sequence[str]) -> list[list[int]]:
        """Ids of each caption, at most `max_length`. Errors: TypeError for one string."""
        return self.tokenizer.ragged_ids(self._cleaned(captions), max_length=self.max_length)

    def _cleaned(self, captions: Sequence[str]) -> Sequence[str]:
        # One string is refused by the tokenizer.
        changes = self.clean or self.clean_caption or self.lower_case
        if not changes or isinstance(captions, str):
            return captions
        settings.check_texts(captions, what="caption")
        cleaned = [clean_caption(c) for c in captions] if self.clean else captions
        if self.clean_caption:
            cleaned = [deepfloyd_cleaner.clean_caption(c) for c in cleaned]
        return [c.lower().strip() for c in cleaned] if self.lower_case else cleaned

    def encode(
        self, captions: Sequence[str], *, batch_size: int = 256
    ) -> tuple[Float32[np.ndarray, "b n d"], Bool[np.ndarray, "b n"]]:
        """Encodings of captions and the mask of their tokens; zero where the mask is false.

        Where padding is encoded, its rows are not zero, and the mask is true everywhere.

        Warns, naming what was lost, when captions are longer than `max_length` tokens, or have
        parts that are not in the vocabulary.

        Shapes: text (b, max_length, width), text_mask (b, max_length).
        Errors: ValueError if `batch_size` is below 1, or, naming caption and tensor, where an
        encoding is not finite; TypeError if `captions` is one string.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1")
        ragged = self.ragged_ids(captions)
        found = lost_text.describe_losses(
            self._cleaned, captions, ragged, tokenizer=self.tokenizer, max_length=self.max_length
        )
        for sentence in found:
            warnings.warn(sentence, stacklevel=2)
        text = np.zeros((len(ragged), self.max_length, self.width), np.float32)
        whole, step = self.padding == "encoded", self.lengths[0]
        for length, rows in packing.rows_by_length(ragged, step=step, most=self.max_length).items():
            size = min(batch_size, packing.power_of_two(len(rows)))
            for start in range(0, len(rows), size):
                chosen = rows[start : start + size]
                batch = [ragged[row] for row in chosen] + [[]] * (size - len(chosen))
                encoded = self._encode(batch, length)
                text[chosen, :length] = np.asarray(encoded)[: len(chosen)]
                for row in chosen if not is_finite(text[chosen, :length]) else ():
                    check_encodings(captions[row], text[row], self.params, self.dtype)
        _, text_mask = pad(ragged, length=self.max_length)
        return text, np.ones_like(text_mask) if whole else text_mask

    @property
    def lengths(self) -> list[int]:
        """The lengths that captions are padded to: each is a program of `encode`."""
        step = self.max_length if self.padding == "encoded" else LENGTH_STEP
        return [min(n, self.max_length) for n in range(step, self.max_length + step, step)]

    def compile_length(self, length: int) -> None:
        """Compile the program of one caption of a length, one of `lengths`."""
        jax.block_until_ready(self._encode([[self.tokenizer.eos]], length))

    def _encode(self, batch: Sequence[Sequence[int]], length: int) -> Any:
        options = {"config": self.config, "dtype": self.dtype, "padding": self.padding}
        return _encode(self.params, *self._placed(batch, length), **options)

    def plan(self, captions: Sequence[str]) -> packing.PackingPlan:
        """Captions packed into rows for `run`, about `batch_tokens` tokens a batch.

        Where padding is encoded each has a row of its own.
        Errors: TypeError if `captions` is one string.
        """
        length, count = packing.row_length(self.max_length), auto_layout.batch_shards(self.devices)
        ragged = self.ragged_ids(captions)
        if self.padding == "encoded":
            length = self.max_length
            ragged = [[*ids, *[PAD] * (length - len(ids))] for ids in ragged]
        return packing.plan_rows(
            ragged,
            length=length,
            batch_rows=max(1, self.batch_tokens // (length * count)) * count,
            devices=count,
        )

    def run(self, plan: packing.PackingPlan) -> Iterator[tuple[int, Float[np.ndarray, "n d"]]]:
        """The number and the encoding of each caption of a plan, in any order.

        It has no padding, unless that is encoded.

        A batch is computed while the one before it is fetched.
        Shapes: encodings (tokens of the caption, width), of the encoder's dtype.
        Errors: ValueError, naming caption and tensor, where an encoding is not finite.
        """
        where = mesh.batch_sharding(self.devices)

        def start(batch: packing.PackedBatch) -> jax.Array:
            tokens, segments = (jax.device_put(x, where) for x in plan.inputs(batch))
            return _encode_packed(
                self.params,
                tokens,
                segments,
                config=self.config,
                dtype=self.dtype,
                padding=self.padding,
            )

        started = map(start, plan.batches)
        ahead = next(started, None)
        for batch, members in zip(plan.batches, plan.members(), strict=True):
            encoded, ahead = ahead, next(started, None)
            text = np.asarray(encoded)
            is_sound = is_finite(text)
            for index in members:
                row, first, end = plan.places[index]
                found = text[row - batch.first, first:end]
                if not is_sound:
                    caption = self.tokenizer.processor.decode(plan.tokens[row, first:end].tolist())
                    check_encodings(caption, found, self.params, self.dtype)
                yield index, found

    def _placed(self, batch: Sequence[Sequence[int]], length: int) -> tuple[jax.Array, jax.Array]:
        """Tokens and mask on the devices: rows split where they divide, else whole on each."""
        splits = len(batch) % auto_layout.batch_shards(self.devices) == 0
        where = (
            mesh.batch_sharding(self.devices) if splits else mesh.replicated_sharding(self.devices)
        )
        tokens, text_mask = pad(batch, length=length)
        return jax.device_put(tokens, where), jax.device_put(text_mask, where)


def _devices(sizes: T5Config, dtype: settings.EncoderDtype, split: Split) -> Mesh:
    """This process's devices, over which weights that are too large for one are split."""
    kept = t5_storage.storage_shapes(sizes, dtype).values()
    state = float(sum(math.prod(x.shape) * x.dtype.itemsize for x in kept))
    return mesh.for_encoder(state, by_heads=split == "heads")
