"""Sides measured in turns, each in a process of its own, so that none disturbs another's.

A process counts its own CPU seconds and memory, and has its own threads and libraries.
"""

from __future__ import annotations

import dataclasses
import importlib
import multiprocessing
import os
import statistics
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import _peak_memory
import jax
from _peer_shapes import Missing, Shapes

from imagen_jax.__main__ import MEMORY
from imagen_jax.parallel import backend

THREADS = 2


@dataclasses.dataclass(frozen=True)
class Side:
    """One side: the function, of a module beside this one, that builds its work."""

    name: str
    module: str
    function: str


@dataclasses.dataclass(frozen=True)
class Row:
    """One side's figures of a step: medians over its turns."""

    name: str
    parameters: int
    forward: float
    flops: float
    cpu_seconds: float
    wall_seconds: float
    peak_bytes: int = 0

    @property
    def rate(self) -> float:
        """FLOPs a CPU second."""
        return self.flops / self.cpu_seconds


def measure(sides: Sequence[Side], shapes: Shapes, *, repeats: int) -> list[Row | str]:
    """A row of each side, or the sentence why it has none. Errors: RuntimeError if one dies."""
    context = multiprocessing.get_context("spawn")
    os.environ.update(MEMORY | os.environ)  # for all sides, as the command `imagen` has it
    running: list[tuple[Side, Any, Connection, Any]] = []
    for side in sides:  # one after another: two that compile would be slower, and need more memory
        here, there = context.Pipe()
        process = context.Process(target=serve, args=(there, side, shapes), daemon=True)
        process.start()
        there.close()
        running.append((side, process, here, _received(side, here)))
    times: list[list[tuple[float, float]]] = [[] for _ in sides]
    for _ in range(repeats):
        for taken, (side, _, here, told) in zip(times, running, strict=True):
            if not isinstance(told, str):
                here.send(True)
                taken.append(_received(side, here))
    rows: list[Row | str] = []
    for taken, (side, process, here, told) in zip(times, running, strict=True):
        if isinstance(told, str):
            rows.append(told)
        else:
            here.send(False)
            cpu, wall = (statistics.median(column) for column in zip(*taken, strict=True))
            rows.append(Row(side.name, *told, cpu, wall, peak_bytes=_received(side, here)))
        process.join()
    return rows


def serve(there: Connection, side: Side, shapes: Shapes) -> None:
    """A side's process: says what it has, makes a step when told, says its memory at the end."""
    pin()
    try:
        work = getattr(importlib.import_module(side.module), side.function)(shapes)
    except Missing as error:
        there.send(str(error))
        return
    work.call()  # warms up
    there.send((work.parameters, work.forward, work.flops))
    while there.recv():
        wall, cpu = time.perf_counter(), time.process_time()
        work.call()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        there.send((cpu / work.steps, wall / work.steps))
    there.send(_peak_memory.read())


def threads() -> int:
    """Return the number of threads: two, or one where only one core is free to this process."""
    if hasattr(os, "sched_getaffinity"):
        return min(THREADS, len(os.sched_getaffinity(0)))
    return min(THREADS, os.cpu_count() or 1)


def pin() -> None:
    """All sides on the same cores, one device to jax, whose products have a thread of each core."""
    count = threads()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
    os.environ["OMP_NUM_THREADS"] = str(count)
    jax.config.update("jax_platforms", "cpu")
    backend.dispatch_inline()


def _received(side: Side, here: Connection) -> Any:
    try:
        return here.recv()
    except EOFError as error:
        raise RuntimeError(f"{side.name} ended early: its message is above") from error
