"""`imagen export CASCADE --out FOLDER`: averaged weights as safetensors, ready to ship."""

import dataclasses
from pathlib import Path

import tyro

from imagen_jax import weights

USAGE = """Write a cascade's averaged weights and configs into one folder, with their hashes.

`imagen sample`, `imagen eval` and `imagen_jax.load` read that folder as they read a run's; it
appears complete or not at all. Complete its README.md: machine, hours, scores.
"""


@dataclasses.dataclass(frozen=True)
class Options:
    """What to export."""

    cascade: tyro.conf.Positional[str]
    """Folder of a run, or of the runs of a cascade; or the name of an embedded cascade."""
    out: Path
    """Folder to make; it must not exist."""
    dtype: weights.Dtype = "bfloat16"
    """Precision of the stored weights; they are float32 in memory."""


def run(argv: list[str]) -> None:
    """Parse, load, write."""
    options = tyro.cli(Options, args=argv, prog="imagen export", description=USAGE)
    import imagen_jax
    from imagen_jax import export

    imagen = imagen_jax.load(options.cascade)
    stages = [
        export.Trained(experiment=experiment, params=painter.params, step=step)
        for experiment, painter, step in zip(
            imagen.experiments, imagen.painters, imagen.steps, strict=True
        )
    ]
    export.write(options.out, stages, dtype=options.dtype)
    for stage in stages:
        name = stage.experiment.stage.name
        size = (options.out / name / export.WEIGHTS).stat().st_size
        print(f"{name}: step {stage.step}, {size / 1e6:.1f} MB")
    print(f"the cascade is in {options.out}; complete its {export.CARD}")
