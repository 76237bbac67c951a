"""Speed of our networks and of other open ones at equal shapes: training and sampling step.

    python benchmarks/peers.py                   on two threads of this CPU
    taskset -c 0 python benchmarks/peers.py      on one

The peers are lucidrains/imagen-pytorch 2.1.0 and Dew (`pip install 'imagen_jax[peer]'`); a peer
that is not installed is left out. Each trains and samples with its own step and loop. Widths,
levels, residual blocks of a level, sides that attend, text, batch and precision are equal; what
the architectures add beside them is not, so that FLOPs stand beside the times, and rates are
compared.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Sequence

import _peer_turns
import tyro
from _peer_shapes import CASES, GUIDANCE, Shapes
from _peer_turns import Row, Side

# By the function that each side's module has for it.
TASKS = {
    "training": "a training step is forward, gradient, Adam and EMA, and counts 3 times the forward"
    " pass",
    "sampling": f"a sampling step has guidance {GUIDANCE:g}, two passes of the network",
}
DIFFERENCES = """What differs beyond the shapes. imagen_jax: text keys join the image's in one \
softmax, gradients are clipped, a step of numbers that are not finite is undone. imagen-pytorch: \
a feed-forward layer after each attention, narrower levels on the way down, no residual block \
where it resamples, gated squeezes. Dew: attention reads the text alone and there is less of it on \
the way up; no cascade, so a low-resolution image joins the input as channels; no network that \
halves first; no dynamic threshold."""
BARE = (
    Side("1,024^3 matrix product", "_peer_bare", "product"),
    Side("3x3 convolution, 128 channels, 32 px", "_peer_bare", "convolution"),
)


@dataclasses.dataclass(frozen=True)
class Options:
    """Length of the comparison."""

    repeats: int = 7
    """Timed turns of each side, of which the median counts."""


def main() -> None:
    """Parse the options and compare."""
    compare(tyro.cli(Options, description=__doc__).repeats)


def compare(repeats: int) -> None:
    """Measure and print every case."""
    print(
        f"{processor()}, {_peer_turns.threads()} of its threads, {versions()}; float32, medians of "
        f"{repeats} turns\n\n{DIFFERENCES}",
        flush=True,
    )
    for case, shapes in CASES.items():
        for task, meaning in TASKS.items():
            found = _peer_turns.measure(sides(task, shapes), shapes, repeats=repeats)
            print(f"\n### {case}: {task}\n\n{shapes}; {meaning}.\n", flush=True)
            print(table([row for row in found if isinstance(row, Row)]))
            print("".join(f"\n{sentence}" for sentence in found if isinstance(sentence, str)))


def sides(task: str, shapes: Shapes) -> list[Side]:
    """Ours first, then the peers that have such a network, then the bare operations."""
    peers = [Side("imagen-pytorch", "_peer_pytorch", task)]
    if not shapes.halves_first:
        peers.append(Side("Dew", "_peer_dew", task))
    return [Side("imagen_jax", "_peer_ours", task), *peers, *BARE]


def table(rows: Sequence[Row]) -> str:
    """The figures as a Markdown table; the first row is ours, and the others' rates its parts."""
    own = rows[0]
    lines = [
        "| | parameters | GFLOP an image | CPU seconds | seconds | peak memory "
        "| GFLOP a CPU second | ours has |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        bare = not row.parameters
        cells = [
            row.name,
            "-" if bare else f"{row.parameters / 1e6:.2f} M",
            "-" if bare else f"{row.forward / 1e9:.1f}",
            f"{row.cpu_seconds:.3g}",
            f"{row.wall_seconds:.3g}",
            "-" if bare else f"{row.peak_bytes / 2**30:.2f} GiB",
            f"{row.rate / 1e9:.0f}",
            "-" if row is own else f"{own.rate / row.rate:.2f} x",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def versions() -> str:
    """Return the versions of what computes on each side, where it is installed."""
    found = []
    for name in ("jax", "torch", "imagen-pytorch", "dewml"):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"no {name}")
    return ", ".join(found)


def processor() -> str:
    """The name of this machine's processor."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if "model name" in line]
    except OSError:
        names = []
    return names[0] if names else "an unnamed processor"


if __name__ == "__main__":
    main()
