"""Keywords and categories of emoji: those of Unicode's CLDR, as npm's `emojibase-data` has them."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from imagen_jax.config.sentences import join_texts, shorten
from imagen_jax.data.synthetic.emoji import package_files
from imagen_jax.data.synthetic.emoji.set_readers import normal_code
from imagen_jax.io import json_reader

PACKAGE = "emojibase-data"
WANTED = re.compile(r"(?:^|/)(?:en/data|meta/groups)\.json$")
WORDS = re.compile(r"[a-z][a-z'-]+(?: [a-z'-]+)*")  # what a keyword has to look like
TIMES = re.compile("[1-9][0-9]?")  # that an emoji is to be seen
EMPTY = {"other", "face", "person", "place"}  # parts of categories that add nothing to a name


class Annotation(NamedTuple):
    """What an emoji has to do with."""

    keywords: tuple[str, ...]
    category: tuple[str, ...]  # words from general to special: food, fruit
    subgroup: str = ""  # Unicode's name of the category: food-fruit


@dataclass(frozen=True)
class Annotations:
    """Those of all emoji, by their code points without FE0F."""

    by_code: Mapping[str, Annotation] = field(default_factory=dict)
    digest: str = ""


def read_annotations(path: Path) -> Annotations:
    """Those of a package: a tar of npm's registry, or a folder.

    Errors: as `package_files.read_files`; ValueError for a package without its two files.
    """
    files = package_files.read_files(path, WANTED)
    data = {name.rpartition("/")[2]: content for name, content in files.items()}
    if set(data) != {"data.json", "groups.json"}:
        raise ValueError(f"{path} lacks en/data.json or meta/groups.json: give npm's {PACKAGE}")
    remedy = f"fetch npm's {PACKAGE} again"
    groups = json_reader.parse_object(data["groups.json"], where=path, remedy=remedy)
    emoji = json_reader.parse_json(data["data.json"], where=path, remedy=remedy)
    digest = hashlib.sha256(data["data.json"] + data["groups.json"]).hexdigest()
    return Annotations(dict(_annotations(emoji, groups.get("subgroups"))), digest)


def select_categories(known: Annotations, wanted: tuple[str, ...]) -> dict[str, int]:
    """How often emoji in some of Unicode's subgroups are to be seen, by their codes; no others.

    A word is a subgroup or how several begin: `food` is `food-fruit` and more; `food=4` is four
    times. Of several that fit the longest counts.
    Errors: ValueError for a word that no subgroup has, one twice, or no number of times.
    """
    times = _read_times(wanted)
    found = {one.subgroup for one in known.by_code.values() if one.subgroup}
    for word in times:
        if not any(_is_within(name, word) for name in found):
            raise ValueError(
                f"--categories {shorten(word)}: no emoji is in a category of that name: give some "
                f"of {join_texts(sorted(found))}, or how several of them begin, such as food"
            )
    chosen = {}
    for code, one in known.by_code.items():
        fitting = [word for word in times if _is_within(one.subgroup, word)]
        if fitting:
            chosen[code] = times[max(fitting, key=len)]
    return chosen


def _read_times(wanted: tuple[str, ...]) -> dict[str, int]:
    times: dict[str, int] = {}
    for word in wanted:
        name, _, number = word.partition("=")
        if name in times:
            raise ValueError(f"--categories names {shorten(name)} twice: give each category once")
        if "=" in word and TIMES.fullmatch(number) is None:
            raise ValueError(
                f"--categories {shorten(word)}: give NAME=TIMES, with a number of times from 1 to "
                "99, such as food=4"
            )
        times[name] = int(number or 1)
    return times


def _is_within(subgroup: str, word: str) -> bool:
    return f"{subgroup}-".startswith(f"{word}-")


def _annotations(emoji: Any, subgroups: Any) -> Iterator[tuple[str, Annotation]]:
    """Entries; what has not the form of one is left out. Those with a skin tone are like others."""
    for entry in filter(_is_fields, emoji if isinstance(emoji, list) else []):
        category = _category(entry, subgroups)
        annotation = Annotation(
            tuple(filter(_is_keyword, _items(entry.get("tags")))),
            tuple(word for word in category.split("-") if word and word not in EMPTY),
            category,
        )
        for one in (entry, *filter(_is_fields, _items(entry.get("skins")))):
            if isinstance(code := one.get("hexcode"), str):
                yield normal_code(code), annotation


def _category(entry: dict[str, Any], subgroups: Any) -> str:
    name = subgroups.get(str(entry.get("subgroup"))) if _is_fields(subgroups) else None
    return name if isinstance(name, str) and _is_keyword(name) else ""


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_fields(value: Any) -> bool:
    return isinstance(value, dict)


def _is_keyword(value: Any) -> bool:
    return isinstance(value, str) and WORDS.fullmatch(value) is not None
