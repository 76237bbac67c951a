"""Speed from JPEG to training image on this machine, and the share of it that is decoding.

    python benchmarks/data_loading.py                  320 synthetic JPEGs, 512 to 64 pixels
    python benchmarks/data_loading.py --side 256       to another side
    python benchmarks/data_loading.py --folder DIR     the *.jpg in a folder
    python benchmarks/data_loading.py --loaders        loaders with worker processes, too

The same JPEGs are written as every kind of source (needs imagen_jax[parquet]). In turns, on one
thread each, by processor time of the best turn, so that what else the machine does counts little:

* Pillow's decoder alone, from memory, scaled as ours has it;
* a bare loop over the folder's files: open, draft, resize, array. Anybody writes it first, and it
  is right for square and upright RGB JPEGs alone;
* ours from each source, in its order: read image and caption, decode, frame. That is right for
  any mode, orientation and shape, and refuses bombs;
* batches from the store that `imagen encode` would make of them, with captions of 20 tokens of an
  embedded encoder or of T5-XXL: what a training step is given.

--loaders, by the clock, best turn of each, batches of uint8 RGB images from as many workers:
Grain over our folder, in processes and in threads; and where PyTorch is installed its DataLoader
over the same files, as its tutorials have it with torchvision's transforms on Pillow: open, convert
to RGB, resize the short side (bilinear, antialiased), crop the centre, tensor. A last one adds
draft to that, which such code seldom has. All go round endlessly; the first batches are not timed,
and none may work more than a few batches ahead.
"""

import dataclasses
import importlib.util
import io
import itertools
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import _synthetic_jpegs
import grain
import numpy as np
import PIL
import tyro
from absl import flags
from PIL import Image, features

from imagen_jax import config
from imagen_jax.data import pipeline
from imagen_jax.data.images import crop, decode
from imagen_jax.data.sources import addresses
from imagen_jax.data.sources.base import Source
from imagen_jax.data.store.store import Store

BATCH, AHEAD = 32, 2  # images; batches that a worker may have ready
WARM, TIMED = 12, 60  # batches of a loader's turn
WIDTHS = {"an embedded encoder": 64, "T5-XXL": 4096}  # numbers of a token's encoding


@dataclasses.dataclass(frozen=True)
class Options:
    """Measured images and loops."""

    images: int = 320
    """Number of synthetic images."""
    pixels: int = 512
    """Side of the synthetic images."""
    side: int = 64
    """Side of the square training images."""
    folder: Path | None = None
    """Folder of JPEGs to read instead."""
    repeats: int = 7
    """Timed turns of each loop."""
    loaders: bool = False
    """Measure loaders with workers, too."""
    workers: int = os.cpu_count() or 1
    """Workers of each loader."""


def main() -> None:
    """Measure and print."""
    options = tyro.cli(Options, description=__doc__)
    images = _read(options.folder) if options.folder else _made(options)
    size, turbo = np.mean([len(image) for image in images]), "libjpeg_turbo"
    print(
        f"{len(images)} JPEGs of {size / 1024:.0f} KiB to {options.side} pixels; Pillow "
        f"{PIL.__version__}, libjpeg-turbo {features.version_feature(turbo)}"
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        found = {
            kind: addresses.open_source(addresses.parse_address(address), root)
            for kind, address in _synthetic_jpegs.write_sources(images, root).items()
        }
        _one_core(images, found, root, options)
        if options.loaders:
            _loaders(found["folder"], root / "folder", options)


def _one_core(
    images: Sequence[bytes], found: dict[str, Source], root: Path, options: Options
) -> None:
    side, paths = options.side, sorted((root / "folder").glob("*.jpg"))
    loops: dict[str, Callable[[], object]] = {
        "decoder": _over(images, lambda image: decode_with_pillow(image, side)),
        "bare loop": _over(paths, lambda path: bare(path, side)),
    }
    for kind, source in found.items():
        loops[kind] = _over(range(len(images)), Ours(source, side))
    for encoder, width in WIDTHS.items():
        store = _synthetic_jpegs.write_store(
            images, root / f"store-{width}", side=side, width=width
        )
        loops[f"store, {encoder}"] = _stream(store, side, len(images))
    seconds = _in_turns(loops, options.repeats)
    rates = {name: len(images) / taken for name, taken in seconds.items()}
    for name, rate in rates.items():
        line = f"{name}: {rate:,.0f} images/s on one core"
        if name in found:
            line += f", {rate / rates['bare loop']:.0%} of the bare loop; decoding is "
            line += f"{rate / rates['decoder']:.0%} of its time"
        print(line)


class Ours:
    """Reading and framing as `imagen encode` has them; worker processes may copy it."""

    def __init__(self, source: Source, side: int) -> None:
        self._source, self._side, self._framing = source, side, config.Framing()
        self._rng = crop.crop_generator(self._framing, 0)

    def __call__(self, index: int) -> np.ndarray:
        image = self._source[index]["image"]
        return crop.frame_image(image, self._side, framing=self._framing, rng=self._rng)


def _over(them: Sequence[Any], loop: Callable[[Any], object]) -> Callable[[], None]:
    def run() -> None:
        for one in them:
            loop(one)

    return run


def decode_with_pillow(image: bytes, side: int) -> None:
    """Pillow's decoder alone, at the scale that ours takes."""
    opened = Image.open(io.BytesIO(image))
    opened.draft("RGB", decode.minimum_size(opened.size, side))
    opened.load()


def bare(path: Path, side: int) -> np.ndarray:
    """Decode, as a first version of a loader does."""
    opened = Image.open(path)
    opened.draft("RGB", (side, side))
    return np.asarray(opened.resize((side, side), Image.Resampling.BOX))


def _stream(store: Store, side: int, count: int) -> Callable[[], object]:
    """About `count` examples of training's stream, which each call continues."""
    text = config.TextConditioning(kv="none")
    stage = config.Stage(name="any", size=side, model=config.UNet(attention_at=(), text=text))
    data, share = config.Data(threads=0, prefetch=0), pipeline.ProcessRows.whole(BATCH)
    batches = pipeline.example_stream(store, stage=stage, data=data, share=share, seed=0)
    return lambda: deque(itertools.islice(batches, round(count / BATCH)), maxlen=0)


def _in_turns(loops: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Least seconds of processor time of each, after one turn that is not timed."""
    times: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(repeats + 1):
        for name, run in loops.items():
            start = time.process_time()
            run()
            if turn:
                times[name].append(time.process_time() - start)
    return {name: min(found) for name, found in times.items()}


def _loaders(source: Source, folder: Path, options: Options) -> None:
    """Grain over ours, and PyTorch's DataLoader where there is one."""
    flags.FLAGS.mark_as_parsed()  # Grain reads absl flags, which nobody else here parses
    ordered = grain.MapDataset.range(len(source)).repeat().map(Ours(source, options.side))
    batches, count = ordered.batch(BATCH), options.workers
    one = batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=AHEAD))
    processes = grain.MultiprocessingOptions(num_workers=count)
    threads = grain.ReadOptions(num_threads=count, prefetch_buffer_size=AHEAD * count)
    loaders: dict[str, Iterable] = {
        "Grain over imagen_jax, processes": one.mp_prefetch(processes),
        "Grain over imagen_jax, threads": batches.to_iter_dataset(threads),
    }
    if importlib.util.find_spec("torch"):
        paths = sorted(folder.glob("*.jpg"))
        for name, draft in (("", False), (", drafted", True)):
            images = Pillow(paths, options.side, draft=draft)
            loaders[f"torch DataLoader over Pillow{name}"] = _theirs(images, count)
    rates = dict.fromkeys(loaders, 0.0)
    for _ in range(options.repeats):
        for name, loader in loaders.items():
            rates[name] = max(rates[name], _rate(iter(loader)))
    ours = next(iter(rates.values()))
    for name, rate in rates.items():
        print(
            f"{name}: {rate:,.0f} images/s from {count} workers, "
            f"of which the first has {ours / rate:.2f} times as many"
        )


def _rate(batches: Iterator) -> float:
    """Images a second, once the loader is under way."""
    with ExitStack() as stack:
        if hasattr(batches, "close"):
            stack.callback(batches.close)
        for _ in range(WARM):
            next(batches)
        start = time.perf_counter()
        count = sum(len(next(batches)) for _ in range(TIMED))
        return count / (time.perf_counter() - start)


class Pillow:
    """A map-style dataset with torchvision's Resize and CenterCrop, as those treat Pillow's."""

    def __init__(self, paths: Sequence[Path], side: int, *, draft: bool) -> None:
        self._paths, self._side, self._draft = paths, side, draft

    def __len__(self) -> int:
        return sys.maxsize // 2

    def __getitem__(self, index: int) -> object:
        import torch

        side = self._side
        opened = Image.open(self._paths[index % len(self._paths)])
        if self._draft:
            opened.draft("RGB", (side, side))
        image = opened.convert("RGB")
        scale = side / min(image.size)
        width, height = (max(side, int(n * scale)) for n in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = (width - side) // 2, (height - side) // 2
        image = image.crop((left, top, left + side, top + side))
        return torch.from_numpy(np.array(image))


def _theirs(images: Pillow, count: int) -> Iterable:
    import torch

    loader = torch.utils.data.DataLoader
    return loader(images, batch_size=BATCH, num_workers=count, prefetch_factor=AHEAD)


def _made(options: Options) -> list[bytes]:
    return _synthetic_jpegs.make_jpegs(options.images, options.pixels)


def _read(folder: Path) -> list[bytes]:
    images = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]
    if not images:
        sys.exit(f"{folder} has no *.jpg")
    return images


if __name__ == "__main__":
    main()
