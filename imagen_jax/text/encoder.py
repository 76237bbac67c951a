"""The frozen text encoder as a whole: captions in, encodings and their mask out (section 2.1)."""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Bool, Float32

from imagen_jax.text import loading, t5
from imagen_jax.text.t5 import T5Config
from imagen_jax.text.tokenizer import Tokenizer, pad
from imagen_jax.types import Params

EMBEDDED = {name: Path(__file__).parent / name for name in ("t5_1_1_tiny", "t5_1_1_mini")}
LENGTH_STEP = 8  # captions are encoded with others of their length, rounded up to this

_encode = jax.jit(t5.encode, static_argnames=("config", "dtype"))


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """A T5 encoder with its tokenizer; `max_length` counts the end-of-sentence token."""

    config: T5Config
    params: Params
    tokenizer: Tokenizer
    max_length: int

    @classmethod
    def load(cls, name_or_path: str, *, max_length: int) -> "TextEncoder":
        """The embedded encoder of that name, or that of a folder.

        A folder is a T5X checkpoint or holds one; a SentencePiece `*.model` is in it or beside it.
        Errors: FileNotFoundError or ValueError that names the place, what is wrong and a remedy.
        """
        folder = EMBEDDED.get(name_or_path, Path(name_or_path))
        if not folder.is_dir():
            raise FileNotFoundError(
                f"no text encoder {name_or_path!r}: it is neither a folder with a T5X checkpoint "
                f"nor embedded ({', '.join(EMBEDDED)})"
            )
        if max_length < 1:
            raise ValueError(f"max_length={max_length} must be at least 1: eos takes one token")
        config, params = loading.load(folder)
        model = _tokenizer_file(folder)
        tokenizer = Tokenizer.load(model)
        if tokenizer.size > config.vocab:
            raise ValueError(
                f"{model} has {tokenizer.size} pieces, but the embedding in {folder} only "
                f"{config.vocab} rows: they belong to different encoders"
            )
        return cls(config, jax.device_put(params), tokenizer, max_length)

    @property
    def width(self) -> int:
        """Length of one token's encoding."""
        return self.config.width

    @cached_property
    def identity(self) -> str:
        """What caches are keyed by: a digest of weights and tokenizer, whatever their files."""
        digest = hashlib.sha256(self.tokenizer.model)
        for path, leaf in jax.tree.leaves_with_path(self.params):
            digest.update(f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}".encode())
            digest.update(np.asarray(leaf).tobytes())
        return digest.hexdigest()[:16]

    def lost(self, caption: str) -> str:
        """The end of a caption that does not fit into `max_length`; "" if all of it does."""
        return self.tokenizer.lost(caption, max_length=self.max_length)

    def encode(
        self, captions: Sequence[str], *, batch_size: int = 256
    ) -> tuple[Float32[np.ndarray, "b n d"], Bool[np.ndarray, "b n"]]:
        """Encodings of captions and the mask of their tokens; zero where the mask is false.

        Warns, naming what was lost, when captions are longer than `max_length` tokens.

        Shapes: text (b, max_length, width), text_mask (b, max_length).
        Errors: ValueError if `batch_size` is below 1; TypeError if `captions` is one string.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1")
        ragged = self.tokenizer.ragged(captions, max_length=self.max_length)
        # Only a row that is full can have lost something: few are tokenised twice.
        full = [c for c, ids in zip(captions, ragged, strict=True) if len(ids) == self.max_length]
        if lost := [end for end in map(self.lost, full) if end]:
            warnings.warn(
                f"{len(lost)} of {len(ragged)} captions are longer than the encoder's "
                f"{self.max_length} tokens and were cut; the first lost {lost[0]!r}",
                stacklevel=2,
            )
        text = np.zeros((len(ragged), self.max_length, self.width), np.float32)
        for length, rows in _buckets(ragged, max_length=self.max_length).items():
            size = min(batch_size, _power_of_two(len(rows)))
            for start in range(0, len(rows), size):
                chosen = rows[start : start + size]
                batch = [ragged[row] for row in chosen] + [[]] * (size - len(chosen))
                encoded = _encode(self.params, *_pad(batch, length), config=self.config)
                text[chosen, :length] = np.asarray(encoded)[: len(chosen)]
        _, text_mask = pad(ragged, length=self.max_length)
        return text, text_mask


def config_of(name_or_path: str) -> T5Config:
    """The sizes of an encoder: embedded, in a folder, or one of Google's by its name.

    Errors: ValueError for none of these; as `loading.inspect` for a folder.
    """
    folder = EMBEDDED.get(name_or_path, Path(name_or_path))
    if folder.is_dir():
        return loading.inspect(folder)[0]
    if name_or_path in t5.SIZES:
        return t5.SIZES[name_or_path]
    raise ValueError(
        f"no text encoder {name_or_path!r}: it is no folder with a T5X checkpoint and none of "
        f"{', '.join((*EMBEDDED, *t5.SIZES))}"
    )


def _buckets(ragged: Sequence[Sequence[int]], *, max_length: int) -> dict[int, list[int]]:
    """Rows by the length that they are padded to."""
    buckets: dict[int, list[int]] = {}
    for row, ids in enumerate(ragged):
        length = min(-(-len(ids) // LENGTH_STEP) * LENGTH_STEP, max_length)
        buckets.setdefault(length, []).append(row)
    return buckets


def _pad(batch: Sequence[Sequence[int]], length: int) -> tuple[jax.Array, jax.Array]:
    tokens, text_mask = pad(batch, length=length)
    return jax.device_put(tokens), jax.device_put(text_mask)


def _power_of_two(number: int) -> int:
    """The next one, so that batches of many sizes share few compilations."""
    return 1 << (number - 1).bit_length()


def _tokenizer_file(folder: Path) -> Path:
    """The only `*.model` file in a folder, else in its parent."""
    for place in (folder, folder.absolute().parent):
        found = sorted(place.glob("*.model"))
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(path.name for path in found)
            raise ValueError(f"{place} has several tokenizers ({names}): keep the encoder's own")
    raise FileNotFoundError(
        f"no SentencePiece *.model file in {folder} or its parent: put the encoder's there"
    )
