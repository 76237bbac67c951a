"""Seconds and memory of a DeepFloyd IF folder: converted, loaded in both forms, sampled.

    python benchmarks/deepfloyd_folder.py /tmp/i_m
    python benchmarks/deepfloyd_loading.py /tmp/i_m

Each part is a process of its own: seconds by the clock, and of work of all cores. Its memory is the
most that it held, mapped pages included, less what Python, jax and this package hold before. The
files are read once before: the disk is warm.
"""

import dataclasses
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal

import _peak_memory
import tyro

PROMPT = "a large red circle"
MB = 2**20


@dataclasses.dataclass(frozen=True)
class Options:
    """The folder to measure, or one part of that."""

    folder: tyro.conf.Positional[Path]
    """A pipeline's folder."""
    part: Literal["all", "convert", "load", "sample"] = "all"
    """All parts, each in a process, or one in this process."""
    steps: int = 2
    """Steps that are sampled, with guidance."""
    out: Path | None = None
    """Folder to convert to, which is kept. Default: one that is deleted at the end."""
    convert_only: bool = False
    """Convert, and neither load nor sample."""


def main() -> None:
    """Measure and print a line for each part."""
    options = tyro.cli(Options, description=__doc__)
    if options.part != "all":
        _run(options)
        return
    for file in options.folder.rglob("*.safetensors"):
        with file.open("rb") as opened:
            while opened.read(64 * MB):
                pass
    with tempfile.TemporaryDirectory(dir=options.folder.parent) as temporary:
        bundle = options.out or Path(temporary) / "bundle"
        _child(options.folder, "convert", "--out", str(bundle))
        if not options.convert_only:
            for place in (options.folder, bundle):
                _child(place, "load")
            _child(bundle, "sample", "--steps", str(options.steps))


def _child(folder: Path, part: str, *others: str) -> None:
    command = [sys.executable, __file__, str(folder), "--part", part, *others]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def _run(options: Options) -> None:
    import jax

    import imagen_jax
    from imagen_jax.pretrained.deepfloyd import convert, load

    jax.devices()
    before, start, worked = _peak_memory.read(), time.perf_counter(), time.process_time()
    if options.part == "convert":
        assert options.out is not None
        pipelines = convert.open_folders([options.folder])
        text = load.find_text(pipelines)
        convert.write_bundle(options.out, pipelines, kind="embedded", text=text)
    else:
        cascade = imagen_jax.load(options.folder, offload=True)
        jax.block_until_ready(cascade.stages[0].device_params())
        if options.part == "sample":
            cascade.with_samplers([(None, {"steps": options.steps})]).sample([PROMPT], seed=0)
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    form = "bundle" if (options.folder / "manifest.json").is_file() else "folder"
    print(
        f"{options.part}, {form}: {seconds:.1f} s, {worked:.1f} of CPU, "
        f"{(_peak_memory.read() - before) / MB:,.0f} MiB above {before / MB:,.0f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
