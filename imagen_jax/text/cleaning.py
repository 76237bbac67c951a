"""Captions of web pages without what describes no image: markup, addresses, names of files.

Captions are a stranger's, and searching takes time in proportion to their length: a pattern that
may begin anywhere in a word and has to reach its end is tried once for each word.
"""

import html
import re
from collections.abc import Iterator

ROUNDS = 8  # a caption may be escaped several times
_TAG = re.compile(r"</?[a-z!][^<>]{0,200}>", re.IGNORECASE)  # not "a < b > c"
_LINK = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)
_WORD = re.compile(r"\S+")
_EDGE = re.compile(r"\b")
_NAME = re.compile(r"[\w.+-]++", re.IGNORECASE)  # of a mail box
_HOST = re.compile(r"@[\w-]+\.[\w.-]+\b", re.IGNORECASE)
_ENDING = re.compile(r"\.(?:jpe?g|png|gif|webp|bmp|tiff?|svg|pdf)\b", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\ufeff]")
_SPACE = re.compile(r"\s+")


def clean_caption(caption: str) -> str:
    """Strip HTML, addresses, names of image files and control characters from a caption.

    A caption without any of these stays as it is, and so does a cleaned one, unless it was escaped
    more than `ROUNDS` times. Letters, case and punctuation stay, which T5 reads. Differs from the
    paper, which has no such step.
    """
    for _ in range(ROUNDS):
        before = caption
        caption = _TAG.sub(" ", html.unescape(caption))
        caption = _WORD.sub(_clean_word, caption)
        caption = _SPACE.sub(" ", _CONTROL.sub(" ", caption)).strip()
        if caption == before:
            break
    return caption


def _clean_word(found: re.Match[str]) -> str:
    word = found[0]
    if "." not in word and ":" not in word:  # as nearly all are
        return word
    return _WORD.sub(_cut_file, _without_addresses(word))


def _without_addresses(word: str) -> str:
    """Put a blank in place of each link and mail address in a word."""
    kept, end = [], 0
    link = _LINK.search(word)
    for start, stop in _mail_addresses(word):
        if link is not None and link.start() <= start:
            break
        kept.append(word[end:start])
        end = stop
        if link is not None and link.start() < end:  # inside of what was taken out
            link = _LINK.search(word, end)
    if link is not None:
        kept.append(word[end : link.start()])
        end = len(word)
    return " ".join([*kept, word[end:]])


def _mail_addresses(word: str) -> Iterator[tuple[int, int]]:
    """Yield the places of mail addresses, from left to right."""
    end = 0
    while name := _NAME.search(word, end):
        end = name.end()
        edge, host = _EDGE.search(word, name.start()), _HOST.match(word, name.end())
        if host is not None and edge is not None and edge.start() < name.end():
            yield edge.start(), host.end()
            end = host.end()


def _cut_file(found: re.Match[str]) -> str:
    """Put a blank in place of the name of a file in a word: all of it up to the last ending."""
    word, last = found[0], None
    for last in _ENDING.finditer(word):  # noqa: B007 - the last one is what is wanted
        pass
    edge = _EDGE.search(word)
    if last is None or edge is None or edge.start() >= last.start():
        return word
    return f"{word[: edge.start()]} {word[last.end() :]}"
