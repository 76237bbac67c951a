"""Images of one subject under a new word, and of its class, which keep what a network knows.

A folder holds both, with their captions, and a mixture that gives each half of every batch: prior
preservation of weight 1 (DreamBooth, arXiv:2208.12242).
"""

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from imagen_jax import config
from imagen_jax.data.images import decode
from imagen_jax.io import atomic, whole_files

METADATA = "metadata.jsonl"
MIXTURE = "mixture.txt"
SUBJECT, CLASS = "subject", "class"
MOST_CHARACTERS = 10_000  # of a caption
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")


@dataclass(frozen=True)
class SubjectDataset:
    """A folder of captioned images of a subject and, with a class, of others like it.

    `prompt` has the new word, "a sks crescent"; `class_prompts` have not, such as "a crescent".
    """

    folder: Path
    prompt: str
    class_prompts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        config.check_texts([self.prompt, *self.class_prompts], what="prompt")
        if not self.prompt.strip():
            raise ValueError(
                'the prompt is empty: name the subject by a new word, "a sks crescent"'
            )
        if _plain(self.prompt) in map(_plain, self.class_prompts):
            raise ValueError(
                f"a prompt of the class is the subject's, {config.shorten(self.prompt)}: leave the "
                "new word out of it"
            )

    @property
    def address(self) -> str:
        """The data source, as `imagen encode` takes it."""
        if self.class_prompts:
            return f"mixture:{self.folder / MIXTURE}"
        return f"folder:{self.folder / SUBJECT}"

    @property
    def class_folder(self) -> Path:
        """The images of this class, which other prompts do not share."""
        return self.folder / f"{CLASS}-{zlib.crc32(json.dumps(self.class_prompts).encode()):08x}"

    def class_prompt(self, number: int) -> str:
        """The caption of one image of the class."""
        return self.class_prompts[number % len(self.class_prompts)]

    def write_subject(self, images: Sequence[Path], *, side: int) -> None:
        """Copy the subject's images, of at least `side` pixels, under their captions.

        An image's own is in the text file of its name, a.txt next to a.png; others have the prompt.
        Errors: ValueError that names an image that is none, or too small, or a caption that is no
        text; OSError.
        """
        found = [(image, _read(image, side=side)) for image in images]
        captions = [_read_caption(image) or self.prompt for image in images]
        self.folder.mkdir(parents=True, exist_ok=True)
        place = atomic.make_subfolder(self.folder, SUBJECT)
        names = []
        for number, (image, content) in enumerate(found):
            names.append(f"{number:04d}{image.suffix.lower()}")
            atomic.write_atomic(place / names[-1], content)
        _write_captions(place, names, captions)

    def missing_class_images(self, count: int, *, side: int) -> list[int]:
        """Numbers of the class's images that are not there yet with at least `side` pixels."""
        return [n for n in range(count) if not _has(self.class_folder / _name(n), side=side)]

    def write_class_image(self, number: int, png: bytes) -> None:
        """Keep one image of the class. Errors: OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        place = atomic.make_subfolder(self.folder, self.class_folder.name)
        atomic.write_atomic(place / _name(number), png)

    def finish(self, count: int) -> None:
        """Write the captions of the class's images, and the mixture. Errors: OSError."""
        if not self.class_prompts:
            return
        atomic.check_no_link(self.class_folder)
        _write_captions(
            self.class_folder,
            [_name(n) for n in range(count)],
            list(map(self.class_prompt, range(count))),
        )
        parts = (self.folder / SUBJECT, self.class_folder)
        lines = "".join(f"folder:{part.absolute()}\n" for part in parts)
        atomic.write_atomic(self.folder / MIXTURE, lines)


def find_images(place: Path) -> list[Path]:
    """The images of a folder in order of their names, or the one that `place` is.

    Errors: FileNotFoundError for no such place, or none in it.
    """
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise FileNotFoundError(f"{place}: no such folder of images")
    found = sorted(file for file in place.iterdir() if _is_image(file))
    if not found:
        raise FileNotFoundError(
            f"{place} has no images ({', '.join(SUFFIXES)}): give the folder of the subject's"
        )
    return found


def _is_image(file: Path) -> bool:
    return file.is_file() and file.suffix.lower() in SUFFIXES and not file.name.startswith(".")


def _has(image: Path, *, side: int) -> bool:
    """Tell whether a class's image is there: smaller ones were sampled for smaller stages."""
    if not image.is_file():
        return False
    try:
        header = decode.read_header(whole_files.read_whole(image))
    except decode.UnreadableImageError:
        return False
    return min(header.width, header.height) >= side


def _read(image: Path, *, side: int) -> bytes:
    content = whole_files.read_whole(image)
    try:
        header = decode.read_header(content)
    except decode.UnreadableImageError as error:
        raise ValueError(f"{image} is no image that can be read ({error}): leave it out") from error
    if min(header.width, header.height) < side:
        raise ValueError(
            f"{image} has {header.width} x {header.height} pixels, fewer than the {side} of the "
            "stage: give a larger one, or fine-tune the smaller stages alone with --stages"
        )
    return content


def _read_caption(image: Path) -> str:
    file = image.with_suffix(".txt")
    if not file.is_file():
        return ""
    try:
        caption = whole_files.read_whole(file).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no UTF-8 text ({error}): correct it") from error
    if len(caption) > MOST_CHARACTERS:
        raise ValueError(
            f"{file} has more than {MOST_CHARACTERS:,} characters: shorten the caption"
        )
    return " ".join(caption.split())


def _write_captions(folder: Path, names: Sequence[str], captions: Sequence[str]) -> None:
    rows = ({"file_name": n, "text": c} for n, c in zip(names, captions, strict=True))
    lines = (json.dumps(row) + "\n" for row in rows)
    atomic.write_atomic(folder / METADATA, "".join(lines))


def _name(number: int) -> str:
    return f"{number:05d}.png"


def _plain(prompt: str) -> str:
    return " ".join(prompt.lower().split())


def chunks(numbers: Sequence[int], size: int) -> Iterator[tuple[int, int]]:
    """Runs of following numbers, (first, count), of at most `size` each."""
    start = 0
    for end in range(1, len(numbers) + 1):
        broken = end == len(numbers) or numbers[end] != numbers[end - 1] + 1
        if broken or end - start == size:
            yield numbers[start], end - start
            start = end
