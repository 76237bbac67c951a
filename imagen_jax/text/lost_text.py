"""What of captions their encodings do not hold: what was cut, and what the vocabulary lacks."""

from collections.abc import Callable, Iterator, Sequence

from imagen_jax.config import join_values, shorten
from imagen_jax.text.tokenizer import Tokenizer

LOST = 200  # characters that a warning shows of what was lost


def describe_losses(
    cleaned: Callable[[Sequence[str]], Sequence[str]],
    captions: Sequence[str],
    ragged: Sequence[list[int]],
    *,
    tokenizer: Tokenizer,
    max_length: int,
) -> Iterator[str]:
    """Sentences about what the ids `ragged` of captions leave out.

    `cleaned` has the captions as they are tokenised.
    """
    pairs = list(zip(captions, ragged, strict=True))
    # Only a row that is full can have lost something: few are tokenised twice.
    full = cleaned([caption for caption, ids in pairs if len(ids) == max_length])
    ends = [tokenizer.cut_text(caption, max_length=max_length) for caption in full]
    if lost := list(filter(None, ends)):
        yield (
            f"{len(lost)} of {len(ragged)} captions are longer than the encoder's {max_length} "
            f"tokens and were cut; the first lost {shorten(lost[0], most=LOST)}"
        )
    unknown = tokenizer.processor.unk_id()
    odd = cleaned([caption for caption, ids in pairs if unknown in ids])
    if empty := [caption for caption in odd if not tokenizer.knows_any(caption)]:
        yield (
            f"the text encoder knows nothing of {join_values(empty)}: all of it is outside its "
            "vocabulary; say it in other words"
        )
    partly = [caption for caption in odd if caption not in empty]
    if parts := dict.fromkeys(part for c in partly for part in tokenizer.unknown_pieces(c)):
        yield (
            f"the text encoder's vocabulary lacks {join_values(list(parts))}, as in "
            f"{shorten(partly[0])}; say it in other words"
        )
