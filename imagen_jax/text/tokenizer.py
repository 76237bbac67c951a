"""Captions to SentencePiece ids and mask, as T5 was trained: end of sentence, no beginning."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
from jaxtyping import Bool, Int32

from imagen_jax.config import check_texts, shorten
from imagen_jax.text.checkpoints.remote_folders import RemoteFolder

PAD = 0
SPACE = "▁"  # as pieces have it


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """A SentencePiece model; ids end with `eos`, and padding is 0."""

    model: bytes  # the serialised SentencePiece model
    processor: Any  # sentencepiece.SentencePieceProcessor
    eos: int

    @classmethod
    def load(cls, path: Path | str) -> "Tokenizer":
        """The tokenizer of a SentencePiece `.model` file, local or `gs://`.

        Errors: FileNotFoundError if there is no such file; ValueError if it is no usable model.
        """
        file = RemoteFolder.from_path(path)
        model = file.parent.read(file.name)
        if model is None:
            raise FileNotFoundError(f"no SentencePiece model at {path}: copy the encoder's there")
        try:
            processor = sentencepiece.SentencePieceProcessor()
            processor.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise ValueError(
                f"{path} is not a SentencePiece model ({len(model)} bytes): copy it again"
            ) from error
        if processor.eos_id() < 0:
            raise ValueError(
                f"{path} has no end-of-sentence piece: T5 needs one, take its own .model"
            )
        return cls(model, processor, processor.eos_id())

    @property
    def size(self) -> int:
        """Number of pieces; every id is below it."""
        return self.processor.get_piece_size()

    def ids(self, caption: str) -> list[int]:
        """All ids of a caption with the final `eos`, neither padded nor truncated.

        Errors: ValueError, here and below, for a caption that is no string or no Unicode text.
        """
        check_texts([caption], what="caption")
        return [*self.processor.encode(caption), self.eos]

    def lengths(self, captions: Sequence[str]) -> list[int]:
        """Count the ids of each caption, with its `eos`."""
        check_texts(captions, what="caption")
        return [len(ids) + 1 for ids in self.processor.encode(list(captions))]

    def ragged_ids(self, captions: Sequence[str], *, max_length: int) -> list[list[int]]:
        """Ids of each caption, at most `max_length` of them: what is kept of a long one, and `eos`.

        Errors: ValueError if `max_length` is below 1, or as `ids`; TypeError if `captions` is one
        string.
        """
        if max_length < 1:
            raise ValueError(f"max_length={max_length} must be at least 1: eos takes one token")
        if isinstance(captions, str):
            raise TypeError(f"captions must be a list, not the string {shorten(captions)}")
        check_texts(captions, what="caption")
        return [[*ids[: max_length - 1], self.eos] for ids in self.processor.encode(list(captions))]

    def tokenize(
        self, captions: Sequence[str], *, max_length: int
    ) -> tuple[Int32[np.ndarray, "b n"], Bool[np.ndarray, "b n"]]:
        """Ids padded to `max_length`, and the mask of real ones.

        Shapes: tokens int32 (b, max_length), text_mask bool (b, max_length).
        Errors: as `ragged_ids`.
        """
        return pad(self.ragged_ids(captions, max_length=max_length), length=max_length)

    def cut_text(self, caption: str, *, max_length: int) -> str:
        """Return the end of a caption that `tokenize` drops, as normalised; "" if it fits."""
        check_texts([caption], what="caption")
        pieces = self.processor.encode(caption, out_type=str)
        if len(pieces) < max_length:
            return ""
        return "".join(pieces[max_length - 1 :]).replace(SPACE, " ").strip()

    def unknown_pieces(self, caption: str) -> list[str]:
        """The parts of a caption that are no piece of the vocabulary, as they are normalised."""
        check_texts([caption], what="caption")
        ids, pieces = self.processor.encode(caption), self.processor.encode(caption, out_type=str)
        unknown = self.processor.unk_id()
        return [p.strip(SPACE) for i, p in zip(ids, pieces, strict=True) if i == unknown]

    def knows_any(self, caption: str) -> bool:
        """Return whether any part of a caption is in the vocabulary; True for an empty one."""
        ids = self.processor.encode([caption.strip()])[0]
        known = {self.processor.unk_id(), self.processor.piece_to_id(SPACE)}
        return not ids or not set(ids) <= known


def pad(
    ragged: Sequence[Sequence[int]], *, length: int
) -> tuple[Int32[np.ndarray, "b n"], Bool[np.ndarray, "b n"]]:
    """Ids padded with zeros to `length`, and the mask of real ones; no row may be longer."""
    tokens = np.full((len(ragged), length), PAD, np.int32)
    text_mask = np.zeros((len(ragged), length), bool)
    for row, ids in enumerate(ragged):
        tokens[row, : len(ids)] = ids
        text_mask[row, : len(ids)] = True
    return tokens, text_mask
