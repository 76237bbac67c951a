"""Synthetic JPEGs with the statistics of photographs, written as every kind of source."""

import contextlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow
import tensorflow_datasets as tfds
from PIL import Image
from pyarrow import parquet

from imagen_jax.config import Framing
from imagen_jax.data.images import transforms
from imagen_jax.data.store import records, store
from imagen_jax.data.store.records import Record
from imagen_jax.data.store.store import Store

QUALITY, SHAPES = 90, 12
SCALES = (4, 8, 16, 32, 64, 128, 256)  # cells of noise along a side
SHARD, GROUP = 100, 100  # images of a tar, rows of a group of Parquet
TOKENS, LENGTH = 20, 128  # of a caption, and at most


def make_jpegs(count: int, pixels: int) -> list[bytes]:
    """Return JPEGs of square images."""
    images = []
    for seed in range(count):
        file = io.BytesIO()
        draw_image(seed, pixels).save(file, "JPEG", quality=QUALITY)
        images.append(file.getvalue())
    return images


def draw_image(seed: int, side: int) -> Image.Image:
    """Smoothed noise at all scales, most of it grey as in photographs, under a few shapes."""
    rng, total = np.random.default_rng(seed), np.zeros((side, side, 3))
    for cells in (n for n in SCALES if n <= side):
        noise = rng.standard_normal((cells, cells, 3), dtype=np.float32)
        noise = 0.6 * noise.mean(axis=-1, keepdims=True) + 0.4 * noise
        planes = [Image.fromarray(np.ascontiguousarray(noise[..., c])) for c in range(3)]
        grown = [plane.resize((side, side), Image.Resampling.BICUBIC) for plane in planes]
        total += np.stack(grown, axis=-1) / cells**0.7
    pixels = np.clip((total - total.mean()) / total.std() * 50 + 120, 0, 255).astype(np.uint8)
    row, column = np.mgrid[:side, :side]
    for _ in range(SHAPES):
        y, x, radius = rng.integers(side), rng.integers(side), rng.integers(side // 100, side // 6)
        inside = np.hypot(row - y, column - x) < radius
        if rng.integers(2):
            inside = np.maximum(abs(row - y), abs(column - x) // 2) < radius
        pixels[inside] = pixels[inside] // 4 + rng.integers(0, 192, 3, dtype=np.uint8)
    return Image.fromarray(pixels)


def make_caption(number: int) -> str:
    """Return the caption of an image."""
    return f"a photograph of shapes in front of something grey, number {number}"


def write_sources(images: Sequence[bytes], root: Path) -> dict[str, str]:
    """Write the images as each kind of source below `root`, which is also the folder of datasets.

    Return the address of each kind.
    """
    addresses = {}
    for kind, write in KINDS.items():
        (root / kind).mkdir()
        addresses[kind] = f"{kind}:{root / kind}"
        write(images, root / kind)
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
        Photographs(images, data_dir=root, file_format="array_record").download_and_prepare()
    return addresses | {"tfds": "tfds:photographs"}


def _folder(images: Sequence[bytes], folder: Path) -> None:
    for number, image in enumerate(images):
        (folder / f"{number:06d}.jpg").write_bytes(image)
        (folder / f"{number:06d}.txt").write_text(make_caption(number))


def _tars(images: Sequence[bytes], folder: Path) -> None:
    """Write tars as img2dataset does."""
    for start in range(0, len(images), SHARD):
        with tarfile.open(folder / f"{start // SHARD:05d}.tar", "w") as tar:
            for number in range(start, min(start + SHARD, len(images))):
                about = json.dumps({"caption": make_caption(number), "status": "success"}, indent=4)
                members = {"jpg": images[number], "json": about, "txt": make_caption(number)}
                for ending, data in members.items():
                    content = data.encode() if isinstance(data, str) else data
                    info = tarfile.TarInfo(f"{number:09d}.{ending}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


def _parquet(images: Sequence[bytes], folder: Path) -> None:
    rows = {
        "image": [{"bytes": image, "path": f"{n}.jpg"} for n, image in enumerate(images)],
        "text": [make_caption(n) for n in range(len(images))],
    }
    parquet.write_table(pyarrow.table(rows), folder / "0.parquet", row_group_size=GROUP)


KINDS = {"folder": _folder, "tars": _tars, "parquet": _parquet}


class Photographs(tfds.core.GeneratorBasedBuilder):
    """The same images as a TFDS dataset."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, images: Sequence[bytes], **options: object) -> None:
        self._images = images
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")
        features = tfds.features.FeaturesDict({"image": image, "caption": tfds.features.Text()})
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager: object) -> dict:
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for number, image in enumerate(self._images):
            yield number, {"image": io.BytesIO(image), "caption": make_caption(number)}


def write_store(images: Sequence[bytes], folder: Path, *, side: int, width: int) -> Store:
    """Write a store of the images at `side`, with random encodings of `width` numbers a token."""
    target = Store(
        folder=folder,
        dataset="photographs",
        split="train",
        count=len(images),
        sizes=(side,),
        encoder="none",
        identity="0",
        vocabulary="0",
        width=width,
        max_length=LENGTH,
        framing=Framing(),
    )
    rng = np.random.default_rng(0)
    text = records.round_encoding(
        rng.standard_normal((TOKENS, width), np.float32), target.text_dtype
    )
    for number in store.begin_store(target):
        made = []
        for index in target.shards()[number]:
            pyramid = transforms.pyramid(images[index], (side,), framing=target.framing)
            captions = (make_caption(index),)
            made.append(Record(key=str(index), captions=captions, images=pyramid, texts=(text,)))
        store.write_shard(target, number, made)
    store.write_empty(target, text)
    finished = store.finish_store(target)
    assert finished is not None  # nobody else writes it
    return finished
