"""Speed of DeepFloyd IF's stage I here and in diffusers: the same folder, steps and precision.

    python benchmarks/deepfloyd.py --network I-M

Weights are random, and computed with in float32; needs `pip install 'imagen_jax[diffusers]'`. Both
sides sample with guidance, dynamic thresholding and the learned variance, in turns, on the same two
threads. The predictions of the two networks for the same noise are compared as well.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import tempfile
from pathlib import Path
from typing import Any, Literal

import _peer_turns
import numpy as np
import tyro
from _deepfloyd_sides import Case
from _peer_turns import Row, Side
from deepfloyd_folder import write_folder

SIDES = (
    Side("imagen_jax", "_deepfloyd_sides", "ours"),
    Side("diffusers", "_deepfloyd_sides", "theirs"),
)


@dataclasses.dataclass(frozen=True)
class Options:
    """Size and length of the comparison."""

    network: Literal["tiny", "I-M"] = "I-M"
    """Network: IF-I-M, or a small one of two levels."""
    steps: int = 3
    """Sampling steps of a turn."""
    repeats: int = 3
    """Timed turns of each side, of which the median counts."""


def main() -> None:
    """Parse the options and compare."""
    options = tyro.cli(Options, description=__doc__)
    _peer_turns.pin()  # the weights are drawn for one device, too
    compare(options)


def compare(options: Options) -> None:
    """Measure both sides and print the table."""
    names = ("jax", "torch", "diffusers")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    print(f"{options}; {versions}; load average {os.getloadavg()}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        kinds = write_folder(place, options.network).values()
        parameters = sum(int(np.prod(kind.shape)) for kind in kinds)
        case: Any = Case(place, parameters, options.steps)
        found = _peer_turns.measure(SIDES, case, repeats=options.repeats)
        rows = [row for row in found if isinstance(row, Row)]
        print(table(rows))
        for sentence in found:
            print(sentence if isinstance(sentence, str) else "", end="")
        if len(rows) == len(SIDES):
            print(f"\nlargest difference of the predictions, relative: {case.deviation():.1e}")
    print(f"load average {os.getloadavg()}")


def table(rows: list[Row]) -> str:
    """The figures of a sampling step as a Markdown table; the first row is ours."""
    lines = [
        "| | parameters | CPU seconds | seconds | peak memory | ours, by CPU | by clock |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            row.name,
            f"{row.parameters / 1e6:.1f} M",
            f"{row.cpu_seconds:.3g}",
            f"{row.wall_seconds:.3g}",
            f"{row.peak_bytes / 2**30:.2f} GiB",
            f"{row.cpu_seconds / rows[0].cpu_seconds:.2f} x",
            f"{row.wall_seconds / rows[0].wall_seconds:.2f} x",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
