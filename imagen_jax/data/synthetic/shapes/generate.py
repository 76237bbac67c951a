"""Captioned images from a seed, rendered by several processes; example i depends on nothing else.

Worker processes import this module alone: no jax and no TFDS.
"""

import io
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from imagen_jax.data.synthetic.shapes.captions import caption
from imagen_jax.data.synthetic.shapes.render import render
from imagen_jax.data.synthetic.shapes.scenes import Grammar, Scene, sample_scene, to_json
from imagen_jax.data.worker_pool import start_pool

SIDE = 256
CHUNK = 64  # examples that a worker renders at a time


@dataclass(frozen=True)
class SyntheticExample:
    """An image as PNG bytes, its caption, and its scene as JSON."""

    image: bytes
    caption: str
    scene: str


@dataclass(frozen=True)
class SceneStream:
    """The endless examples that a seed and a grammar give; `stream` keeps splits apart."""

    grammar: Grammar
    seed: int
    stream: int


def render_example(
    series: SceneStream, index: int, *, size: int
) -> tuple[Scene, str, UInt8[np.ndarray, "size size 3"]]:
    """Scene, caption and pixels of example `index` of a series."""
    rng = np.random.default_rng((series.seed, series.stream, index))
    scene = sample_scene(rng, grammar=series.grammar)
    words = caption(scene, rng, plain=series.grammar.plain)
    return scene, words, render(scene, rng, size=size)


def generate_split(series: SceneStream, index: int) -> SyntheticExample:
    """Example `index` of a series, 256 x 256, encoded."""
    scene, words, pixels = render_example(series, index, size=SIDE)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", compress_level=1)
    return SyntheticExample(file.getvalue(), words, to_json(scene))


def generate_splits(series: SceneStream, count: int, *, workers: int) -> Iterator[SyntheticExample]:
    """The first `count` examples in order, rendered by `workers` processes.

    With one worker, or with too little for two, this process renders them.
    """
    if workers == 1 or count <= CHUNK:
        yield from (generate_split(series, index) for index in range(count))
        return
    chunks = [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    pool = start_pool(workers)
    try:
        rendered: deque = deque()  # a few chunks ahead of the reader, never the whole split
        for chunk in chunks:
            rendered.append(pool.submit(_render_chunk, series, chunk))
            if len(rendered) > 4 * workers:
                yield from rendered.popleft().result()
        while rendered:
            yield from rendered.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _render_chunk(series: SceneStream, indices: range) -> list[SyntheticExample]:
    return [generate_split(series, index) for index in indices]
