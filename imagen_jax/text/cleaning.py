"""Caption cleaning: what web pages leave in an alt text and no picture shows. Off by default.

Differs from the paper, which says nothing of it. Letters, case and punctuation stay: T5 reads them.
"""

import html
import re

_TAG = re.compile(r"</?[a-z!][^<>]{0,200}>", re.IGNORECASE)  # not "a < b > c"
_ADDRESS = re.compile(r"(?:https?://|www\.)\S+|\b[\w.+-]+@[\w-]+\.[\w.-]+\b", re.IGNORECASE)
_FILE = re.compile(r"\b\S+\.(?:jpe?g|png|gif|webp|bmp|tiff?|svg|pdf)\b", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\ufeff]")
_SPACE = re.compile(r"\s+")


def clean_caption(caption: str) -> str:
    """A caption without HTML, addresses, names of picture files and control characters.

    Cleaning twice is cleaning once; a caption of none of these is itself.
    """
    before = None
    while caption != before:
        before = caption
        caption = html.unescape(caption)
        for noise in (_TAG, _ADDRESS, _FILE, _CONTROL):
            caption = noise.sub(" ", caption)
        caption = _SPACE.sub(" ", caption).strip()
    return caption
