"""Sources of captioned images: their examples, texts, and the files that they leave out."""

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from imagen_jax import limits
from imagen_jax.config.sentences import abridge, join_texts
from imagen_jax.io import json_reader
from imagen_jax.io.errors import CorruptDataError

LISTED = 100  # names kept for each reason
MAX_IMAGE_BYTES = 1 << 28  # bytes; and of one text
MAX_TEXT_BYTES = 1 << 20
NOT_UNICODE = "caption that is no Unicode text"
NO_TEXT = frozenset("\0\x1b")  # in UTF-16 and in ISO-2022-JP that were taken for UTF-8
IMAGE_SUFFIXES = frozenset({"jpg", "jpeg", "png", "webp"})  # endings of files, in small letters


@runtime_checkable
class Source(Protocol):
    """Captioned images by index, of this package or of any other: nothing has to be derived.

    `prepare.encode.write_store` encodes one into a store that training reads, `inspect` checks one,
    and `mixture.Mixture` mixes several. Threads share a source; worker processes, where there are
    any, get a pickled copy.
    """

    @property
    def skipped(self) -> Mapping[str, "SkippedNames"]:
        """Names of the files that are no examples, by reason; {} for none."""
        ...

    def __len__(self) -> int:
        """The number of examples."""
        ...

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read an example, as `make_example` makes it of an encoded image and its captions.

        Errors: CorruptDataError for data that can't be read; that example is then left out.
        """
        ...

    def key(self, index: int) -> str:
        """Name an example without reading it; the name stays the same and is stored."""
        ...


class Address(NamedTuple):
    """A source as it is written on a command line."""

    dataset: str  # shapes/full, emoji/full, tfds:coco_captions/2014, tars:/data/{0..9}.tar
    split: str = "train"
    image: str = "image"  # names of features
    text: str = "caption"
    weight: float = 1.0  # in a mixture, of its examples
    module: str = ""  # of others, that the files of a TFDS dataset may name classes of


@dataclass(frozen=True)
class First:
    """The first examples of a source."""

    source: Source
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.count:
            raise IndexError(f"example {index} of {self.count}")
        return self.source[index]

    def key(self, index: int) -> str:
        return self.source.key(index)

    @property
    def skipped(self) -> "Mapping[str, SkippedNames]":
        return self.source.skipped


class BadCaptionError(CorruptDataError):
    """A caption that cannot be read; `reason` has the same words for all of a kind."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail

    def __str__(self) -> str:
        return self.detail


class NoExampleError(ValueError):
    """No example at an address: what is there has no captions, or nothing is."""


class SkippedNames(tuple[str, ...]):
    """The first names of what is left out for one reason; `total` is how many there are."""

    total: int

    def __new__(cls, names: Iterable[str], total: int) -> "SkippedNames":
        """`total` counts the names that are not kept too."""
        made = super().__new__(cls, names)
        made.total = total
        return made

    def __getnewargs__(self) -> tuple[tuple[str, ...], int]:
        return tuple(self), self.total


class SkipLog:
    """Collects names of what is left out, by reason."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}
        self._totals = Counter[str]()

    def add(self, reason: str, name: str) -> None:
        """Add a name; it is made fit to print, whatever bytes it has and however long it is."""
        self._add(reason, [show_name(name)], 1)

    def extend(self, skipped: Mapping[str, SkippedNames], prefix: str = "") -> None:
        """Add names that were collected elsewhere, behind a prefix."""
        for reason, names in skipped.items():
            self._add(reason, [prefix + name for name in names], names.total)

    def collect(self) -> dict[str, SkippedNames]:
        """All so far, reasons in alphabetical order."""
        return {
            reason: SkippedNames(self._names[reason], n)
            for reason, n in sorted(self._totals.items())
        }

    def _add(self, reason: str, names: list[str], total: int) -> None:
        self._totals[reason] += total
        kept = self._names.setdefault(reason, [])
        kept += names[: LISTED - len(kept)]


def make_example(image: bytes, captions: tuple[str, ...]) -> dict[str, Any]:
    """Make an example: "image", encoded bytes; "captions", all of them; "caption", the first.

    Without captions it has the empty one.
    """
    captions = captions or ("",)
    return {"image": image, "caption": captions[0], "captions": captions}


def make_texts(value: Any, path: str = "") -> tuple[str, ...]:
    """The texts at a path (`captions/text`) in nested dicts and sequences, without blank ones.

    Errors: TypeError when something else is there, as the rest of "it is ..."; BadCaptionError
    for a text that is not Unicode.
    """
    return _texts(value, path, 0)


def _texts(value: Any, path: str, depth: int) -> tuple[str, ...]:
    """`make_texts`, `depth` levels below where it began."""
    if depth > limits.NESTING.value():
        raise TypeError(f"nested in more than {limits.NESTING.value()} {limits.NESTING.unit}")
    if isinstance(value, bytes):
        value = _caption(value)
    if isinstance(value, str) and not path:
        return () if _blank(value) else (_unicode(value).strip(),)
    if value is None:
        return ()
    if isinstance(value, Mapping):
        # Names may have slashes themselves: `image/filename`.
        names = [n for n in value if path == n or path.startswith(f"{n}/")]
        if not names:
            raise TypeError(f"no text but has the parts {join_texts(map(str, value))}")
        name = max(names, key=len)
        return _texts(value[name], path[len(name) + 1 :], depth + 1)
    if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim):
        return tuple(text for part in value for text in _texts(part, path, depth + 1))
    if isinstance(value, str):
        raise TypeError(f"a text, which has no part {path!r}")
    raise TypeError(f"no text but {type(value).__name__}")


def parse_depth() -> int:
    """Lists and fields in each other that JSON around captions may have, to be looked through."""
    return limits.NESTING.value() + json_reader.MAX_DEPTH


def decode_text(data: bytes) -> str:
    """Bytes of UTF-8, or of UTF-16 or UTF-32 with a byte order mark or as their zeros show.

    What is wrong in it stays as lone surrogates, so that only the text around it is lost.
    """
    codec = json.detect_encoding(data)
    errors = "surrogateescape" if codec.startswith("utf-8") else "surrogatepass"
    try:
        return data.decode(codec, errors)
    except UnicodeDecodeError:  # such as half a character of UTF-16 at the end
        return data.decode("utf-8", "surrogateescape")


def _caption(data: bytes) -> str:
    """Decode a file or cell; UTF-16 without a mark is recognised by every other byte being 0."""
    text, codec = decode_text(data), json.detect_encoding(data)
    if codec.endswith(("-le", "-be")) and max(text) > "\xff":
        return data.decode("utf-8", "surrogateescape")
    return text


def _unicode(text: str) -> str:
    """The text as it is. Errors: BadCaptionError for one that is no Unicode, or no text at all."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        wrong = f"{text[error.start]!a} at character {error.start}"
    else:
        if not (found := [character for character in NO_TEXT if character in text]):
            return text
        wrong = f"{min(found)!a} at character {text.index(min(found))}"
    raise BadCaptionError(NOT_UNICODE, f"{wrong}: save it as UTF-8")


def _blank(text: str) -> bool:
    """Return whether a text has nothing to see: space, marks of direction or of zero width."""
    return not any(map(_visible, text))


def _visible(character: str) -> bool:
    return not character.isspace() and unicodedata.category(character) != "Cf"


def key(name: str) -> str:
    """A name fit to print and to store; different names have different keys."""
    return make_printable(name.replace("\\", "\\\\"))


def make_printable(name: str) -> str:
    """A name with what a terminal would obey, and bytes that are no text, spelled out."""
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def show_name(name: str) -> str:
    """A name fit to print; of a very long one the first and the last part."""
    return abridge(make_printable(name))


def summarise_skips(skipped: Mapping[str, SkippedNames]) -> str:
    """Describe the names left out, by reason, with an example of each; "" for none."""
    return "; ".join(f"{names.total:,} {r} ({names[0]})" for r, names in skipped.items())
