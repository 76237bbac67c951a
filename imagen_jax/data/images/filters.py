"""Filters of examples by their captions and their image's header; nothing is decoded."""

from collections.abc import Sequence

from imagen_jax.config import Filters
from imagen_jax.data.images.decode import ImageHeader


def apply_filters(
    filters: Filters, header: ImageHeader, captions: Sequence[str]
) -> tuple[tuple[str, ...], str | None]:
    """The captions that are kept, and the first filter that drops the example, or None.

    A filter has the same words for all that it drops. An example is dropped with its last caption,
    for the reason of its first.
    """
    short, long = sorted((header.width, header.height))
    if short < filters.min_side:
        return (), f"smaller than {filters.min_side} pixels"
    if filters.max_aspect is not None and long > filters.max_aspect * short:
        return (), f"longer than {filters.max_aspect} times its short side"
    reasons = [_reason(filters, caption) for caption in captions]
    pairs = zip(captions, reasons, strict=True)
    kept = tuple(caption for caption, reason in pairs if reason is None)
    return kept[: filters.max_captions], None if kept else reasons[0]


def _reason(filters: Filters, caption: str) -> str | None:
    characters = len(caption.strip())
    if characters < filters.min_caption_chars:
        return f"caption of less than {filters.min_caption_chars} characters"
    if characters > filters.max_caption_chars:
        return f"caption of more than {filters.max_caption_chars} characters"
    return None
