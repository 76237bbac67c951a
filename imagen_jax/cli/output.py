"""The folder of `imagen sample`: images as they are finished, and what they were made of.

Images of two calls never lie side by side: those of an earlier call are moved, with its grid and
metadata, into a subfolder.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from imagen_jax.io import image_grid, json_reader, png_metadata, workdir
from imagen_jax.io.atomic import check_names, make_subfolder, write_atomic
from imagen_jax.runtime.preemption import UNFINISHED

METADATA, GRID, EARLIER, PREVIEWS = "metadata.json", "grid.png", "earlier", "previews"
FOLDERS = (EARLIER, PREVIEWS, UNFINISHED)


class Output:
    """Writes images of `prompts`, the first of which has index `first_index`."""

    def __init__(
        self, folder: Path, prompts: Sequence[str], *, first_index: int, metadata: Mapping[str, Any]
    ) -> None:
        self._folder, self._prompts, self._first = folder, prompts, first_index
        entries = [
            {"index": i, "prompt": prompt, "file": image_grid.file_name(i, prompt)}
            for i, prompt in enumerate(prompts, start=first_index)
        ]
        self._options = metadata
        self._document = {**metadata, "complete": False, "images": entries}
        self.shown = image_grid.count_that_fits(
            len(prompts)
        )  # in the grid, the first; others aren't kept
        self._shown: list[np.ndarray] = []
        self._begun = False
        names = {str(entry["file"]) for entry in entries}
        check_names(folder, files=names | {METADATA, GRID}, folders=FOLDERS)
        self._earlier = _earlier(folder)

    def write(self, first_index: int, images: np.ndarray) -> None:
        """Images that follow one another, uint8 (p, h, w, 3)."""
        self._begin()
        start = first_index - self._first
        entries = self._document["images"][start : start + len(images)]
        for entry, image in zip(entries, images, strict=True):
            encoded = png_metadata.encode_png(
                Image.fromarray(image),
                {**self._options, "index": entry["index"], "prompt": entry["prompt"]},
            )
            write_atomic(self._folder / entry["file"], encoded)
        self._shown += list(images[: self.shown - len(self._shown)])

    def preview(self, name: str, images: Sequence[np.ndarray], captions: Sequence[str]) -> None:
        """Write images that are not finished, as a grid."""
        self._begin()
        folder = make_subfolder(self._folder, PREVIEWS)
        image_grid.save_image(image_grid.draw_grid(images, captions), folder / name)

    def finish(self) -> Path:
        """Write grid and metadata; returns the grid's path."""
        captions = [p or "(no text)" for p in self._prompts]
        image_grid.save_image(image_grid.draw_grid(self._shown, captions), self._folder / GRID)
        self._document["complete"] = True
        self._describe()
        return self._folder / GRID

    def _begin(self) -> None:
        """Nothing of an earlier call is touched before there is an image to write."""
        if self._begun:
            return
        self._begun = True
        self._folder.mkdir(parents=True, exist_ok=True)
        ours = {**self._document, "complete": None}
        if self._earlier is not None and {**self._earlier, "complete": None} != _plain(ours):
            _set_aside(self._folder, self._earlier)
        self._describe()

    def _describe(self) -> None:
        text = json.dumps(self._document, indent=2, ensure_ascii=False)
        # A path of an option may be no Unicode; JSON has an escape for its odd bytes. Half of it,
        # of a full disk say, would be taken for another program's file by the next call.
        whole = text.encode("utf-8", "backslashreplace").decode("utf-8")
        workdir.write(self._folder / METADATA, whole)


def _plain(document: Mapping[str, Any]) -> Any:
    """The document after it was written and read; the text is this process's own."""
    return json.loads(json.dumps(document))


def _earlier(folder: Path) -> dict[str, Any] | None:
    """Read the metadata of an earlier call. Errors: ValueError for another program's file."""
    file = folder / METADATA
    if not file.is_file():
        return None
    try:
        document = json_reader.read_object(file, remedy="give another --out")
        names = _files(document)
    except (ValueError, LookupError, TypeError):
        names = None
    if names is None or not all(map(_is_image_name, names)):
        raise ValueError(
            f"{file} is none of `imagen sample` and would be overwritten: give another --out"
        )
    return document


def _is_image_name(name: object) -> bool:
    """Return whether a name may be that of an image of ours, beside its metadata."""
    return isinstance(name, str) and Path(name).name == name and name.endswith(".png")


def _files(document: Mapping[str, Any]) -> list[Any]:
    """Names of a call's images; before 0.1.0 their key was "pictures"."""
    entries = document["images"] if "images" in document else document["pictures"]
    return [entry["file"] for entry in entries]


def _set_aside(folder: Path, document: Mapping[str, Any]) -> None:
    """Move an earlier call's files into a new subfolder."""
    number = 1
    earlier = make_subfolder(folder, EARLIER)
    while (aside := earlier / str(number)).exists():
        number += 1
    aside.mkdir()
    names = _files(document)
    for name in (*names, GRID, PREVIEWS, METADATA):
        if (folder / name).exists():
            (folder / name).rename(aside / name)
    print(f"images of an earlier call were moved to {aside}")
