"""A bundle's `manifest.json`, and whether the folder is as it says."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from imagen_jax import config
from imagen_jax.config.decode import decode
from imagen_jax.config.names import check_line, check_name
from imagen_jax.config.sentences import abridge, join_clauses, shorten
from imagen_jax.export.text_encoder import TextEncoderEntry
from imagen_jax.io import json_reader
from imagen_jax.io.paths import path_inside

FORMAT = 1  # of the whole folder; raised when an older reader would misunderstand it
MANIFEST = "manifest.json"
CARD = "README.md"  # to be completed by hand, so that it is not listed
WORDS = "words.txt"  # of the captions in training, one a line
MOST_WORDS = 2**26  # bytes of it
DEEPEST = 16  # folders in each other in a bundle, which has two
AT_ONCE = 2**28  # bytes; larger files are compared when they are read alone
AGAIN = "copy or export it again"


@dataclass(frozen=True)
class FileEntry:
    """The size and digest that a file has to have."""

    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class _Document:
    """The fields of `manifest.json` that are checked; it may have more."""

    text: TextEncoderEntry
    files: Mapping[str, FileEntry]
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    dataset: str = ""
    stages: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        check_line(self.dataset, "dataset")
        for name in self.stages:
            check_name(name, "the name of a stage")


@dataclass(frozen=True)
class Manifest:
    """A bundle's manifest: what it says of text encoder and files, and all the rest."""

    folder: Path
    text_encoder: TextEncoderEntry
    files: Mapping[str, FileEntry]  # by their path in the folder
    facts: Mapping[str, Any]  # the whole document

    def text(self, text: config.Text, *, given: str = "") -> config.Text | None:
        """Return the place of the text encoder, as `TextEncoderEntry.text` does."""
        return self.text_encoder.text(text, bundle=self.folder, given=given)

    @property
    def version(self) -> str:
        """The version of the package that wrote the bundle."""
        return _writer(self.facts)

    def caption_words(self) -> frozenset[str]:
        """The words of the captions that the cascade was trained on; none where they aren't here.

        Errors: ValueError for a file without words, that is no UTF-8 or larger than `MOST_WORDS`.
        """
        if WORDS not in self.files:
            return frozenset()
        file, size = self.folder / WORDS, self.files[WORDS].bytes
        config.require(size <= MOST_WORDS, f"{file}: {size:,} bytes, more than {MOST_WORDS:,}")
        try:
            found = frozenset(file.read_text("utf-8").split())
        except UnicodeDecodeError as error:
            raise ValueError(f"{file} is no UTF-8: {AGAIN}") from error
        config.require(bool(found), f"{file} has no words: {AGAIN}")
        return found

    def check_digest(self, name: str, digest: str) -> None:
        """Compare the SHA-256 of the bytes that were read of a file. Errors: ValueError."""
        if digest != self.files[name].sha256:
            raise _unlike(self.folder, [f"{name} has changed"])


def write_manifest(
    folder: Path, facts: Mapping[str, Any], *, digests: Mapping[str, str] = MappingProxyType({})
) -> Mapping[str, Any]:
    """Write the manifest of a folder whose other files are there; the whole document.

    `digests` are the SHA-256 of files, by their path in the folder, that need not be read for it.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in files}
    listed = {
        name: {"bytes": path.stat().st_size, "sha256": digests.get(name) or sha256(path)}
        for name, path in names.items()
    }
    document = {"format": FORMAT, **facts, "files": listed}
    document["sha256"] = _digest(document)
    (folder / MANIFEST).write_text(json.dumps(document, indent=2) + "\n")
    return document


def verify_bundle(folder: Path) -> Manifest:
    """The manifest of a bundle, whose files have been compared with it.

    The bytes of files above `AT_ONCE` are not: weights are compared when they are read.
    Hidden files that are not listed are no part of it: `.git`, `.cache`, `.DS_Store`.
    Errors: FileNotFoundError without a manifest; ValueError for another format, or naming every
    file that is missing, has changed or is not listed.
    """
    manifest = _read(folder)
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda item: _fault(folder / item[0], item[1]), manifest.files.items())
        wrong = [f"{name} {f}" for name, f in zip(manifest.files, found, strict=True) if f]
    extra = _seen(folder) - set(manifest.files) - {MANIFEST, CARD}
    wrong += [f"{name} is not listed" for name in sorted(extra)]
    if wrong:
        raise _unlike(folder, wrong)
    return manifest


def sha256(path: Path) -> str:
    """Return the digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(folder: Path) -> Manifest:
    file = folder / MANIFEST
    if not file.is_file():
        raise FileNotFoundError(f"{folder}: exported weights without their {MANIFEST}")
    path_inside(folder, MANIFEST, by="a bundle")
    facts = json_reader.read_object(file, remedy=AGAIN)
    if (version := facts.get("format")) != FORMAT:
        raise ValueError(
            f"{file} is of format {shorten(version)}, and this imagen_jax reads format "
            f"{FORMAT}: use the imagen_jax that wrote it ({_writer(facts)}), or export the cascade "
            "again"
        )
    stated = facts.pop("sha256", None)
    names = {field.name for field in dataclasses.fields(_Document)} & set(facts)
    try:
        found = decode(_Document, {name: facts[name] for name in names}, "manifest")
    except ValueError as error:
        raise ValueError(f"{file}: not a manifest ({error}); {AGAIN}") from error
    for name in found.files:
        path_inside(folder, name, by=file)
    if stated != _digest(facts):
        raise ValueError(f"{file} has changed since it was written; {AGAIN}")
    return Manifest(folder, found.text, found.files, facts)


def _seen(folder: Path) -> set[str]:
    """Files below a folder, and links to folders, by their path in it.

    Those that are hidden or in hidden folders don't count; of folders that lie too deep for a
    bundle their own path stands for what is in them.
    """
    found: set[str] = set()
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        here = Path(place).relative_to(folder)
        if len(here.parts) >= DEEPEST:
            found |= {(here / name).as_posix() for name in folders}
            folders.clear()
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        found |= {(here / n).as_posix() for n in (*files, *links) if not n.startswith(".")}
    return found


def _writer(facts: Mapping[str, Any]) -> str:
    versions = facts.get("versions")
    found = versions.get("imagen_jax") if isinstance(versions, dict) else None
    return abridge(found) if isinstance(found, str) and found.isprintable() else "unknown"


def _fault(path: Path, wanted: FileEntry) -> str:
    """Describe what is wrong with a file; "" if nothing is."""
    if not path.is_file():
        return "is missing"
    if path.stat().st_size != wanted.bytes:
        return "has changed"
    if wanted.bytes <= AT_ONCE and sha256(path) != wanted.sha256:
        return "has changed"
    return ""


def _digest(document: Mapping[str, Any]) -> str:
    """Return the digest of a manifest without its own: one changed bit of it is found."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _unlike(folder: Path, wrong: list[str]) -> ValueError:
    return ValueError(f"{folder} is not as {MANIFEST} says: {join_clauses(wrong)}; {AGAIN}")
