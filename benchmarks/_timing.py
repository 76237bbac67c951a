"""Timing that the benchmarks share: calls in turns, and batches of random images."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from imagen_jax.data import pipeline
from imagen_jax.train import sharded_step


def in_turns(calls: Sequence[Callable[[], Any]], repeats: int) -> list[float]:
    """Median seconds of each call, after one that warms up."""
    for call in calls:
        call()
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for taken, call in zip(times, calls, strict=True):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]


def batch(work: sharded_step.ShardedStep) -> Any:
    """A batch of random images, on the devices."""
    draw, share = np.random.default_rng(0), work.share
    rows = jax.tree.map(lambda x: random(draw, x), sharded_step.batch_shapes(work.experiment))
    here = jax.tree.map(lambda x: x[list(share.rows)], rows)
    return pipeline.to_device(here, work.batch_shardings, share=share)


def random(draw: np.random.Generator, shape: Any) -> np.ndarray:
    """Random numbers of a shape and dtype; a mask is true everywhere."""
    if shape.dtype == np.bool_:
        return np.ones(shape.shape, np.bool_)
    if np.issubdtype(shape.dtype, np.integer):
        return draw.integers(0, 255, shape.shape).astype(shape.dtype)
    return draw.random(shape.shape).astype(shape.dtype)
