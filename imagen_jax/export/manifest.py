"""A bundle's `manifest.json`, and whether the folder is as it says."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagen_jax import config
from imagen_jax.export.text_encoder import TextEncoderEntry

FORMAT = 1  # of the whole folder; raised when an older reader would misunderstand it
MANIFEST = "manifest.json"
CARD = "README.md"  # to be completed by hand, so that it is not listed
AT_ONCE = 2**28  # bytes; larger files are compared while they are read
AGAIN = "copy or export it again"


@dataclass(frozen=True)
class FileEntry:
    """The size and digest that a file has to have."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """A bundle's manifest: what it says of text encoder and files, and all the rest."""

    folder: Path
    words: TextEncoderEntry
    files: Mapping[str, FileEntry]  # by their path in the folder
    facts: Mapping[str, Any]  # the whole document

    def text(self, text: config.Text, *, given: str = "") -> config.Text | None:
        """Return the place of the text encoder, as `TextEncoderEntry.text` does."""
        return self.words.text(text, bundle=self.folder, given=given)

    @property
    def version(self) -> str:
        """The version of the package that wrote the bundle."""
        return _writer(self.facts)

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[None]:
        """A large file is compared, in a thread, while it is read inside; others have been.

        Errors: ValueError, at the end, for other bytes than were written.
        """
        if self.files[name].bytes <= AT_ONCE:
            yield
            return
        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(sha256, self.folder / name)
            yield
            if found.result() != self.files[name].sha256:
                raise _unlike(self.folder, [f"{name} has changed"])


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """Write the manifest of a folder whose other files are there; the whole document."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    listed = {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": sha256(path),
        }
        for path in files
    }
    document = {"format": FORMAT, **facts, "files": listed}
    document["sha256"] = _digest(document)
    (folder / MANIFEST).write_text(json.dumps(document, indent=2) + "\n")
    return document


def verify_bundle(folder: Path) -> Manifest:
    """The manifest of a bundle, whose files have been compared with it.

    The bytes of files above `AT_ONCE` are not: see `Manifest.reading`.
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
    try:
        facts = json.loads(file.read_text())
        version = facts.get("format")
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{file}: not a manifest ({error!r}); {AGAIN}") from error
    if version != FORMAT:
        raise ValueError(
            f"{file} is of format {version!r}, and this imagen_jax reads format {FORMAT}: use the "
            f"imagen_jax that wrote it ({_writer(facts)}), or export the cascade again"
        )
    try:
        stated = facts.pop("sha256")
        files = {
            n: FileEntry(entry["bytes"], entry["sha256"]) for n, entry in facts["files"].items()
        }
        words = TextEncoderEntry(**facts["text"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: not a manifest ({error!r}); {AGAIN}") from error
    if stated != _digest(facts):
        raise ValueError(f"{file} has changed since it was written; {AGAIN}")
    return Manifest(folder, words, files, facts)


def _seen(folder: Path) -> set[str]:
    """Files below a folder, by their path in it, but those that are hidden or in hidden folders."""
    found: set[str] = set()
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        here = Path(place).relative_to(folder)
        found |= {(here / name).as_posix() for name in files if not name.startswith(".")}
    return found


def _writer(facts: Mapping[str, Any]) -> str:
    versions = facts.get("versions")
    return str(versions.get("imagen_jax")) if isinstance(versions, dict) else "unknown"


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
    return ValueError(f"{folder} is not as {MANIFEST} says: {'; '.join(wrong)}; {AGAIN}")
