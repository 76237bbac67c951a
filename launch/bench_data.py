"""How fast do JPEGs become training pictures here, and how much of it is decoding?

    python launch/bench_data.py                  300 synthetic JPEGs of 512 pixels, to 64 pixels
    python launch/bench_data.py --side 256       to another side
    python launch/bench_data.py --folder DIR     the *.jpg in a folder

In turns, on one thread each: Pillow's decoder alone, scaled as ours has it; a bare loop of open,
draft, resize and array; ours, for any mode, orientation and shape, and without bombs. Rates are by
processor time, of the best turn of each, so that what else the machine does counts little. With
--loaders Grain over ours, and where PyTorch is installed its DataLoader over the usual transform
(Pillow: open, convert, resize the short side, crop), take turns on as many worker processes, by the
clock from their first batch on.
"""

import dataclasses
import importlib.util
import io
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import grain
import numpy as np
import PIL
import tyro
from absl import flags
from PIL import Image, features

from imagen_jax.config import Framing
from imagen_jax.data import decoding, framing

QUALITY, SHAPES = 90, 12
SCALES = (4, 8, 16, 32, 64, 128, 256)  # cells of noise along a side
BATCH = 32


@dataclasses.dataclass(frozen=True)
class Options:
    """What to measure."""

    pictures: int = 300
    """How many are made."""
    pixels: int = 512
    """Their sides."""
    side: int = 64
    """Of the squares that they become."""
    folder: Path | None = None
    """JPEGs to read instead."""
    repeats: int = 7
    """Turns of each."""
    loaders: bool = False
    """Loaders with worker processes, too."""
    workers: int = os.cpu_count() or 1
    """Processes of each loader."""


def main() -> None:
    """Measure and print."""
    options = tyro.cli(Options, description=__doc__)
    images = _read(options.folder) if options.folder else _made(options)
    side, size = options.side, np.mean([len(image) for image in images])
    print(
        f"{len(images)} JPEGs of {size / 1024:.0f} KiB to {side} pixels; Pillow "
        f"{PIL.__version__}, libjpeg-turbo {features.version_feature('libjpeg_turbo')}"
    )
    loops: dict[str, Callable[[bytes], object]] = {
        "decoder": lambda image: decode(image, side),
        "bare loop": lambda image: bare(image, side),
        "imagen_jax": Ours(side),
    }
    found = _in_turns({name: _over(images, loop) for name, loop in loops.items()}, options.repeats)
    rates = {name: len(images) / seconds for name, seconds in found.items()}
    for name, rate in rates.items():
        print(f"{name}: {rate:,.0f} images/s on one core")
    print(
        f"imagen_jax / bare loop: {rates['imagen_jax'] / rates['bare loop']:.0%}; decoding is "
        f"{rates['imagen_jax'] / rates['decoder']:.0%} of its time"
    )
    if options.loaders:
        _loaders(images, options)


class Ours:
    """Decoding and framing as `imagen encode` has them; worker processes may copy it."""

    def __init__(self, side: int) -> None:
        self._side, self._framing = side, Framing(crop="random")
        self._rng = framing.generator(self._framing, 0)

    def __call__(self, image: bytes) -> np.ndarray:
        return framing.frame(image, self._side, framing=self._framing, rng=self._rng)


def decode(image: bytes, side: int) -> None:
    """Pillow's decoder alone, at the scale that ours takes."""
    opened = Image.open(io.BytesIO(image))
    opened.draft("RGB", decoding.least(opened.size, side))
    opened.load()


def bare(image: bytes, side: int) -> np.ndarray:
    """What anybody writes first; right for square and upright RGB JPEGs alone."""
    opened = Image.open(io.BytesIO(image))
    opened.draft("RGB", (side, side))
    return np.asarray(opened.resize((side, side), Image.Resampling.BOX))


def _over(images: Sequence[bytes], loop: Callable[[bytes], object]) -> Callable[[], None]:
    def run() -> None:
        for image in images:
            loop(image)

    return run


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


def _loaders(images: Sequence[bytes], options: Options) -> None:
    """Grain over ours, and PyTorch's DataLoader where there is one."""
    flags.FLAGS.mark_as_parsed()  # Grain reads absl flags, which nobody else here parses
    epochs = max(1, 3000 // len(images))
    source = grain.MapDataset.source(list(images)).repeat(epochs)
    batches = source.map(Ours(options.side)).batch(BATCH).to_iter_dataset()
    if options.workers:
        batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=options.workers))
    loaders: dict[str, Iterable] = {"Grain over imagen_jax": batches}
    if importlib.util.find_spec("torch"):
        loaders["torch DataLoader over Pillow"] = _theirs(images, epochs, options)
    rates = dict.fromkeys(loaders, 0.0)
    for _ in range(3):
        for name, loader in loaders.items():
            rates[name] = max(rates[name], _rate(loader))
    for name, rate in rates.items():
        print(f"{name}: {rate:,.0f} images/s from {options.workers} workers")
    if len(rates) > 1:
        ours, other = rates.values()
        print(f"  imagen_jax / torch: {ours / other:.2f}")


def _rate(loader: Iterable) -> float:
    """Images a second, from the first batch on."""
    count, start = 0, 0.0
    for batch in loader:
        count += len(batch) if start else 0
        start = start or time.perf_counter()
    return count / (time.perf_counter() - start)


class Pillow:
    """A map-style dataset with the usual transform, as PyTorch's tutorials have it."""

    def __init__(self, images: Sequence[bytes], epochs: int, side: int) -> None:
        self._images, self._epochs, self._side = images, epochs, side

    def __len__(self) -> int:
        return len(self._images) * self._epochs

    def __getitem__(self, index: int) -> np.ndarray:
        opened = Image.open(io.BytesIO(self._images[index % len(self._images)])).convert("RGB")
        scale, side = self._side / min(opened.size), self._side
        width, height = (max(side, round(n * scale)) for n in opened.size)
        resized = opened.resize((width, height), Image.Resampling.BILINEAR)
        left, top = (width - side) // 2, (height - side) // 2
        return np.array(resized.crop((left, top, left + side, top + side)))


def _theirs(images: Sequence[bytes], epochs: int, options: Options) -> Iterable:
    import torch

    print(f"torch {torch.__version__}")
    return torch.utils.data.DataLoader(
        Pillow(images, epochs, options.side), batch_size=BATCH, num_workers=options.workers
    )


def picture(seed: int, side: int) -> Image.Image:
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


def _made(options: Options) -> list[bytes]:
    images = []
    for seed in range(options.pictures):
        file = io.BytesIO()
        picture(seed, options.pixels).save(file, "JPEG", quality=QUALITY)
        images.append(file.getvalue())
    return images


def _read(folder: Path) -> list[bytes]:
    images = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]
    if not images:
        sys.exit(f"{folder} has no *.jpg")
    return images


if __name__ == "__main__":
    main()
