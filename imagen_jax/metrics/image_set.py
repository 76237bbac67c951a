"""Images to score, by index, from any place: a folder, a store, or a source of captioned images.

Nothing is left out without a word: an image that can't be read, has an alpha channel or another
size than the others ends the score with a sentence.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from imagen_jax import config
from imagen_jax.config import Framing
from imagen_jax.data.images import crop, decode
from imagen_jax.data.images.decode import RGB
from imagen_jax.data.sources import addresses, base, folders, parquet, tar_images
from imagen_jax.data.store import index as store_index
from imagen_jax.data.store.store import open_store
from imagen_jax.io import buckets, json_reader, paths, whole_files

LONGEST_NAME = 255  # bytes
METADATA = "metadata.json"  # of the images of `imagen sample`
# Addresses that are read as they are written.
NO_FOLDERS = (addresses.TARS, addresses.PARQUET, addresses.MIXTURE, addresses.TFDS)
SIZED = "give --size N, to which every image is resized and cropped"


class Item(NamedTuple):
    """An image as it is stored."""

    data: bytes
    caption: str | None


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images by index."""

    address: str  # as the user wrote it
    keys: Sequence[str]  # of each image, for sentences
    read: Callable[[int], Item]
    captioned: bool
    prompts_sha256: str = ""  # of a file's prompts, where they are not the images' captions
    left_out: str = ""  # what the source itself leaves out, with an example of each

    def __len__(self) -> int:
        return len(self.keys)

    def digest(self) -> str:
        """Return a digest of the images' names, by which an interrupted score knows them."""
        found = hashlib.sha256()
        for key in self.keys:
            found.update(key.encode("utf-8", "surrogateescape") + b"\0")
        return found.hexdigest()

    def with_prompts(self, prompts: Sequence[str]) -> "ImageSet":
        """The same images with a prompt each, in their order.

        Errors: ValueError for another number of prompts.
        """
        if len(prompts) != len(self):
            raise ValueError(
                f"{len(prompts):,} prompts for {len(self):,} images in {self.address}: give one "
                "line for each image, in the order of their names"
            )

        def read(number: int) -> Item:
            return Item(self.read(number).data, prompts[number])

        text = "\n".join(prompts).encode("utf-8", "surrogateescape")
        digest = hashlib.sha256(text).hexdigest()
        return dataclasses.replace(self, read=read, captioned=True, prompts_sha256=digest)


def open_images(address: str, *, data_dir: Path) -> ImageSet:
    """The images at an address: a folder of any images, a store, or any source of `imagen encode`.

    Errors: FileNotFoundError for none; ValueError for an address of no form, or without images.
    """
    config.require(bool(address), "the address of the images is empty: give a folder or a source")
    place = address.removeprefix(addresses.FOLDER)
    if place.startswith(NO_FOLDERS) or buckets.is_bucket(place):
        return _of_source(address, data_dir)
    path = paths.local_path(place)
    if path.is_dir():
        if (path / store_index.INDEX).is_file():
            return _of_store(address, path)
        if (path / METADATA).is_file():
            return _of_samples(address, path)
        if address.startswith(addresses.FOLDER) or _has_images(path):
            return _of_listing(address, str(path))
    return _of_source(address, data_dir)


def decode_pixels(images: ImageSet, number: int, *, size: int | None) -> tuple[RGB, bytes, str]:
    """An image's pixels, the bytes that it is stored as, and its caption or "".

    With `size` its short side is resized to that, and its middle kept.
    Errors: ValueError, by the image's name, for one that can't be read or is transparent, that is
    not square or would have to be enlarged.
    """
    key = images.keys[number]
    try:
        data, caption = images.read(number)
        if decode.has_transparency(data):
            raise ValueError("it has an alpha channel: save it as RGB, on the ground that you mean")
        if size is None:
            pixels = decode.decode_image(data)
        else:
            framing = Framing()
            rng = crop.crop_generator(framing, number)
            pixels = crop.frame_image(data, size, framing=framing, rng=rng)
    except ValueError as error:
        raise ValueError(f"{images.address}: image {key}: {error}") from error
    height, width, _ = pixels.shape
    if height != width:
        raise ValueError(f"{images.address}: image {key} is {width}x{height}: {SIZED}")
    return np.ascontiguousarray(pixels), data, caption or ""


def _has_images(path: Path) -> bool:
    """Return whether a folder, or one below it, has files of images."""
    suffixes = {f".{suffix}" for suffix in base.IMAGE_SUFFIXES}
    return any(file.suffix.lower() in suffixes for file in path.rglob("*"))


def _of_listing(address: str, root: str) -> ImageSet:
    """All images below a folder, here or in a bucket, in the order of their names.

    Captions are in .txt, if each image has one.
    """
    is_remote = buckets.is_bucket(root)
    if is_remote:
        buckets.require_driver(root)
    listing = folders.list_bucket(root) if is_remote else folders.list_folder(Path(root))
    names = sorted(
        name
        for name in listing.sizes
        if name.rpartition(".")[2].lower() in base.IMAGE_SUFFIXES and "." in name
    )
    if not names:
        raise ValueError(f"{address} has no image: give a folder of .png, .jpg or .webp files")
    texts = [f"{name.rpartition('.')[0]}.txt" for name in names]
    captioned = all(text in listing.sizes for text in texts)

    def read(number: int) -> Item:
        data = whole_files.read_whole(f"{root}/{names[number]}")
        if not captioned:
            return Item(data, None)
        found = base.make_texts(whole_files.read_whole(f"{root}/{texts[number]}"))
        return Item(data, found[0] if found else "")

    keys = [base.key(name) for name in names]
    skipped = listing.skips.collect()
    return ImageSet(address, keys, read, captioned, left_out=base.summarise_skips(skipped))


def _of_samples(address: str, path: Path) -> ImageSet:
    """The images of a call of `imagen sample`, with their prompts.

    Errors: ValueError for another program's metadata, or for a call that was interrupted.
    """
    file = path / METADATA
    found = json_reader.read_object(file, remedy="sample again")
    entries = found.get("images")
    if not (isinstance(entries, list) and entries and all(map(_is_entry, entries))):
        raise ValueError(f"{file} is none of `imagen sample`: give a folder of images alone")
    config.check_texts([entry["prompt"] for entry in entries], what=f"{file}: prompt")
    if not found.get("complete"):
        raise ValueError(f"{path} is not complete: give its `imagen sample` again, which resumes")

    def read(number: int) -> Item:
        entry = entries[number]
        return Item(whole_files.read_whole(str(path / entry["file"])), entry["prompt"])

    return ImageSet(address, [entry["file"] for entry in entries], read, True)


def _is_entry(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("prompt"), str)
        and isinstance(entry.get("file"), str)
        and Path(entry["file"]).name == entry["file"] != ""
        and entry["file"].isprintable()
        and len(entry["file"].encode()) <= LONGEST_NAME
    )


def _of_source(address: str, data_dir: Path) -> ImageSet:
    """What `imagen encode` reads, and images without captions in tars, Parquet or a bucket."""
    parsed = addresses.parse_address(address)
    if (place := addresses.place_of(parsed, addresses.PARQUET)) and not parsed.text:
        source = parquet.open_parquet(place, image=parsed.image, text="")
        return _of_examples(address, source, captioned=False)
    place = addresses.place_of(parsed, addresses.FOLDER)
    if buckets.is_bucket(place) and not parsed.text:
        return _of_listing(address, place.rstrip("/"))
    try:
        return _of_examples(address, addresses.open_source(parsed, data_dir), captioned=True)
    except base.NoExampleError:
        if not (place := addresses.place_of(parsed, addresses.TARS)):
            raise
    images = tar_images.open_images(place)
    keys = [images.key(number) for number in range(len(images))]
    left_out = base.summarise_skips(images.skipped)
    return ImageSet(
        address, keys, lambda number: Item(images.read(number), None), False, left_out=left_out
    )


def _of_examples(address: str, source: base.Source, *, captioned: bool) -> ImageSet:
    keys = [source.key(number) for number in range(len(source))]

    def read(number: int) -> Item:
        example = source[number]
        return Item(example["image"], example["caption"] if captioned else None)

    return ImageSet(address, keys, read, captioned, left_out=base.summarise_skips(source.skipped))


def _of_store(address: str, path: Path) -> ImageSet:
    """The largest images of a store, and their first captions."""
    store = open_store(path)
    records, side = store.source(), max(store.sizes)

    def read(number: int) -> Item:
        record = records[number]
        return Item(record.images[side], record.captions[0])

    return ImageSet(address, [f"record {number}" for number in range(len(records))], read, True)
