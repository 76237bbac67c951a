"""Packages of emoji as npm's registry has them, of a few pictures drawn here."""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import emoji_font_file

SIZE = 36


def code(text: str) -> str:
    """The code points of an emoji, as Iconify has them."""
    return "-".join(f"{ord(c):x}" for c in text)


def body(number: int) -> str:
    """A drawing of its own for each number: boxes of 6 colours in places that it says."""
    boxes = []
    for place in range(6):
        left, top = (number * (place + 3) * 7) % 30, (number * (place + 5) * 11) % 30
        colour = f"#{(number * 4099 * (place + 1) * 31) % (1 << 24):06x}"
        boxes.append(f'<rect x="{left}" y="{top}" width="9" height="7" fill="{colour}"/>')
    return "".join(boxes)


def icons(emoji: Sequence[str], *, licence: str = "MIT") -> dict[str, bytes]:
    """The files of one of Iconify's packages."""
    drawn = {f"icon-{n}": {"body": body(n + 1)} for n in range(len(emoji))}
    about = {"name": "@iconify-json/mine", "license": licence}
    described = {"prefix": "mine", "icons": drawn, "width": SIZE, "height": SIZE}
    chars = {code(text): f"icon-{n}" for n, text in enumerate(emoji)}
    files = {"package.json": about, "icons.json": described, "chars.json": chars}
    made = {name: json.dumps(content).encode() for name, content in files.items()}
    return made | {"index.js": b"throw new Error('this runs')"}


def pictures(emoji: Sequence[str], *, licence: str = "MIT") -> dict[str, bytes]:
    """The files of a package with a PNG for each."""
    about = json.dumps({"name": "@mine/pictures", "license": licence}).encode()
    drawn = {
        f"assets/{code(text)}.png": emoji_font_file.png(emoji_font_file.bitmap(n, size=(256, 256)))
        for n, text in enumerate(emoji, start=50)
    }
    return {"package.json": about, **drawn}


def keywords(emoji: Mapping[str, Sequence[str]]) -> dict[str, bytes]:
    """The files of `emojibase-data` that are read: all emoji are food, and fruit."""
    entries = [
        {"hexcode": code(text).upper(), "tags": list(tags), "group": 4, "subgroup": 42}
        for text, tags in emoji.items()
    ]
    groups = {"groups": {"4": "food-drink"}, "subgroups": {"42": "food-fruit"}}
    made = {"en/data.json": entries, "meta/groups.json": groups}
    return {name: json.dumps(content).encode() for name, content in made.items()}


def write_tar(path: Path, files: Mapping[str, bytes], *, mode: str = "w:gz") -> Path:
    """A package as `npm pack` makes it."""
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def write_folder(path: Path, files: Mapping[str, bytes]) -> Path:
    """A package as npm installs it."""
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path
