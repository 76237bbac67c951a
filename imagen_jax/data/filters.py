"""Why an example is dropped, by its caption and its picture's header; nothing is decoded."""

from imagen_jax.config import Filters
from imagen_jax.data.decoding import Header


def reason(filters: Filters, header: Header, caption: str) -> str | None:
    """The first filter that drops an example, the same words for all that it drops, or None."""
    short, long = sorted((header.width, header.height))
    characters = len(caption.strip())
    found = {
        f"smaller than {filters.min_side} pixels": short < filters.min_side,
        f"longer than {filters.max_aspect} times its short side": filters.max_aspect is not None
        and long > filters.max_aspect * short,
        f"caption of less than {filters.min_caption_chars} characters": characters
        < filters.min_caption_chars,
        f"caption of more than {filters.max_caption_chars} characters": characters
        > filters.max_caption_chars,
    }
    return next((words for words, drops in found.items() if drops), None)
