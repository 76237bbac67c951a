"""CLIP's tokenizer: byte pair encoding of lower-case text, from the model's own files.

Text is cleaned as transformers' tokenizer does: Unicode's form NFC, runs of space as one, small
letters. open_clip's also repairs wrongly decoded text and HTML (by ftfy), which changes the tokens
of a curly apostrophe, say; captions of `imagen encode` have no HTML in them.
Source: arXiv:2103.00020; byte pairs, arXiv:1508.07909; bytes as characters, GPT-2.
"""

import functools
import heapq
import itertools
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32

from imagen_jax.config import check_texts, shorten
from imagen_jax.io import folder_files, json_reader, unicode_forms

VOCABULARY, MERGES, BOTH = "vocab.json", "merges.txt", "tokenizer.json"
START, END = "<|startoftext|>", "<|endoftext|>"
SUFFIX = "</w>"  # of a word's last piece
SHORT = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d", START, END)  # words of their own
REMEDY = "download it again"
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True, eq=False)
class ClipTokenizer:
    """Pieces of words, and the order in which pairs of them are joined."""

    pieces: Mapping[str, int]
    ranks: Mapping[tuple[str, str], int]
    context: int  # tokens, both ends included

    @classmethod
    def load(cls, folder: Path, *, context: int, vocabulary: int) -> "ClipTokenizer":
        """The tokenizer of a model's folder: vocab.json and merges.txt, or tokenizer.json.

        `vocabulary` is the number of pieces that the model has.
        Errors: FileNotFoundError; ValueError for files that are no such tokenizer's.
        """
        if (folder / VOCABULARY).is_file() and (folder / MERGES).is_file():
            where = folder / VOCABULARY
            pieces: Any = json_reader.read_object(where, remedy=REMEDY)
            lines = folder_files.read_text(folder / MERGES).splitlines()
            merges: Any = [line for line in lines if line and not line.startswith("#version")]
        elif (folder / BOTH).is_file():
            where = folder / BOTH
            model = json_reader.read_object(where, remedy=REMEDY).get("model")
            model = model if isinstance(model, dict) else {}
            pieces, merges = model.get("vocab"), model.get("merges")
        else:
            raise FileNotFoundError(
                f"{folder} has no tokenizer: copy {VOCABULARY} and {MERGES}, or {BOTH}, of the "
                "model there"
            )
        return cls(_pieces(pieces, where, vocabulary), _ranks(merges, where), context)

    def ids(self, text: str) -> list[int]:
        """All ids of a text, without start and end. Errors: ValueError for no Unicode text."""
        return list(self._ids(text))

    def tokenize(self, texts: Sequence[str]) -> tuple[Int32[np.ndarray, "b n"], int]:
        """Ids between start and end, filled with ends, and the number of texts that are cut off.

        Shapes: (b, context). Errors: as `ids`.
        """
        tokens = np.full((len(texts), self.context), self.pieces[END], np.int32)
        cut = 0
        for row, text in enumerate(texts):
            found = list(itertools.islice(self._ids(text), self.context - 1))
            kept = [self.pieces[START], *found[: self.context - 2]]
            tokens[row, : len(kept)] = kept
            cut += len(found) > self.context - 2
        return tokens, cut

    def _ids(self, text: str) -> Iterator[int]:
        check_texts([text], what="prompt")
        for word in split(clean(text)):
            for piece in self._pieces(word):
                yield self.pieces[piece]

    def _pieces(self, word: str) -> list[str]:
        if word in (START, END):
            return [word]
        table = _characters()
        characters = [table[byte] for byte in word.encode()]
        joined = _join([*characters[:-1], characters[-1] + SUFFIX], self.ranks)
        return [piece if piece in self.pieces else END for piece in joined]


def clean(text: str) -> str:
    """Text as it is tokenized."""
    return _SPACE.sub(" ", unicode_forms.normalize("NFC", text)).lower()


def split(text: str) -> Iterator[str]:
    """Words: endings after an apostrophe, runs of letters, single digits, runs of other signs."""
    place = 0
    while place < len(text):
        short = next((one for one in SHORT if text.startswith(one, place)), "")
        kind, end = _kind(text[place]), place + (len(short) or 1)
        if not short and kind in ("letter", "sign"):
            while end < len(text) and _kind(text[end]) == kind:
                end += 1
        if short or kind != "space":
            yield text[place:end]
        place = end


def _kind(character: str) -> str:
    if character.isspace():
        return "space"
    return {"L": "letter", "N": "number"}.get(unicodedata.category(character)[0], "sign")


def _join(parts: list[str], ranks: Mapping[tuple[str, str], int]) -> list[str]:
    """Join neighbours, those of the least rank first, until no pair has one.

    Pairs wait in a heap: a word as long as a prompt may be is joined in seconds.
    """
    before, after = list(range(-1, len(parts))), list(range(1, len(parts) + 1))
    waiting: list[tuple[int, int]] = []

    def wait(left: int) -> None:
        if left >= 0 and after[left] < len(parts):
            rank = ranks.get((parts[left], parts[after[left]]))
            if rank is not None:
                heapq.heappush(waiting, (rank, left))

    for left in range(len(parts)):
        wait(left)
    while waiting:
        rank, left = heapq.heappop(waiting)
        right = after[left]
        if right >= len(parts) or ranks.get((parts[left], parts[right])) != rank:
            continue  # one of the two was joined to another
        parts[left], parts[right] = parts[left] + parts[right], ""
        after[left] = after[right]
        before[after[left]] = left
        wait(before[left])
        wait(left)
    return [part for part in parts if part]


@functools.cache
def _characters() -> tuple[str, ...]:
    """A character that can be seen for each byte."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = (byte for byte in range(256) if byte not in seen)
    table = {byte: chr(byte) for byte in seen}
    table |= {byte: chr(256 + number) for number, byte in enumerate(hidden)}
    return tuple(table[byte] for byte in range(256))


def _pieces(found: Any, where: Path, vocabulary: int) -> dict[str, int]:
    """Errors: ValueError for what is no vocabulary with start and end, or is of another model."""
    whole = isinstance(found, dict) and all(type(number) is int for number in found.values())
    if not whole or START not in found or END not in found:
        raise ValueError(f"{where} has no vocabulary of CLIP with {START} and {END}: {REMEDY}")
    if outside := [piece for piece, number in found.items() if not 0 <= number < vocabulary]:
        raise ValueError(
            f"{where}: {shorten(outside[0])} is piece {shorten(found[outside[0]])} of a model that "
            f"has {vocabulary:,}: {REMEDY}"
        )
    return found


def _ranks(merges: Any, where: Path) -> dict[tuple[str, str], int]:
    """Pairs by their order; a pair is a text with one space or, in newer files, a list of two."""
    if not isinstance(merges, list):
        raise ValueError(f"{where} has no list of merges: {REMEDY}")
    found: dict[tuple[str, str], int] = {}
    for number, merge in enumerate(merges):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not (isinstance(pair, list) and [type(part) for part in pair] == [str, str]):
            raise ValueError(f"{where}: merge {number}, {shorten(merge)}, is no pair: {REMEDY}")
        found.setdefault((pair[0], pair[1]), number)
    return found
