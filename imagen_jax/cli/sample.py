"""`imagen sample CASCADE "prompt" ...`: paint pictures."""

import dataclasses
import shutil
import time
from pathlib import Path

import tyro

from imagen_jax import config
from imagen_jax.cli import stopping

USAGE = """Paint one picture per prompt with a trained cascade.

Writes a PNG each, grid.png and metadata.json. The same seed, index and prompt paint the same
picture, whatever else is painted beside it. An empty prompt ("") paints without text.
"""


@dataclasses.dataclass(frozen=True)
class Options:
    """What to paint."""

    cascade: tyro.conf.Positional[str]
    """Folder of a run, or of the runs of a cascade, or of an exported one; or the name of an
    embedded cascade, such as shapes."""
    prompts: tyro.conf.Positional[tuple[str, ...]] = ()
    """What the pictures shall show."""
    prompts_file: Path | None = None
    """A text file with more prompts, one a line."""
    out: Path = Path("samples")
    """Folder to write to."""
    seed: int = 0
    """Of the noise."""
    until: str | None = None
    """Stop after this stage."""
    guidance_weight: float | None = None
    """Of every stage; 1 is off. Default: each stage's own."""
    steps: int | None = None
    """Sampling steps of every stage."""
    sampler: config.SamplerKind | None = None
    """Sampler of every stage."""
    threshold: config.Threshold | None = None
    """Thresholding of every stage."""
    aug_level: float | None = None
    """Noise on the low-resolution input of super-resolution stages, 0 to 1."""
    batch_size: int = 16
    """Pictures painted at once."""

    offload: bool = False
    """Hold one part at a time on the devices, text encoder or stage: slower, and it fits."""
    encoder: str = ""
    """Name or folder of the text encoder to use instead of the cascade's own."""

    def changes(self) -> dict[str, object]:
        """The sampler fields that were given."""
        given = {
            "guidance_weight": self.guidance_weight,
            "steps": self.steps,
            "kind": self.sampler,
            "threshold": self.threshold,
            "aug_level": self.aug_level,
        }
        return {name: value for name, value in given.items() if value is not None}


def run(argv: list[str]) -> None:
    """Parse, load, paint, save."""
    options = tyro.cli(Options, args=argv, prog="imagen sample", description=USAGE)
    if options.prompts_file is not None:
        lines = options.prompts_file.read_text().splitlines()
        options = dataclasses.replace(options, prompts=(*options.prompts, *lines))
    if not options.prompts:
        raise ValueError('no prompts; give at least one: imagen sample CASCADE "a red circle"')
    from tqdm import tqdm

    import imagen_jax
    from imagen_jax import compilation, gallery

    compilation.use_cache()
    cascade = imagen_jax.load(options.cascade, encoder=options.encoder, offload=options.offload)
    unfinished = options.out / stopping.UNFINISHED
    imagen = dataclasses.replace(cascade.with_sampler(options.changes()), unfinished=unfinished)
    started = time.perf_counter()
    with (
        stopping.between_batches(unfinished) as check,
        tqdm(total=len(options.prompts), unit="picture", dynamic_ncols=True) as bar,
    ):

        def advance(stage: str, done: int) -> None:
            _advance(bar, stage, done)
            check()

        painted = imagen.paint(
            options.prompts,
            seed=options.seed,
            until=options.until,
            batch_size=options.batch_size,
            progress=advance,
        )
    pictures = list(painted.values())[-1]
    gallery.save(
        options.out, pictures, options.prompts, metadata=_metadata(options, imagen, list(painted))
    )
    shutil.rmtree(unfinished, ignore_errors=True)
    took = time.perf_counter() - started
    print(f"{len(pictures)} pictures in {options.out} ({took:.1f} s); see {options.out}/grid.png")


def _advance(bar, stage: str, done: int) -> None:
    if bar.desc != f"{stage}: ":
        bar.reset()
        bar.set_description(stage)
    bar.update(done)


def _metadata(options: Options, imagen, stages: list[str]) -> dict[str, object]:
    """Everything needed to paint the same pictures again."""
    import jax

    import imagen_jax

    return {
        "cascade": options.cascade,
        "seed": options.seed,
        "until": stages[-1],
        "encoder": imagen.encoder.identity,
        "stages": [
            {
                "name": p.stage.name,
                "step": step,
                "sampler": dataclasses.asdict(p.stage.sampler),
                "aug_level": p.stage.noise_conditioning.sample_level
                if p.stage.is_super_resolution
                else None,
            }
            for p, step in zip(imagen.painters, imagen.steps, strict=True)
            if p.stage.name in stages
        ],
        "versions": {"imagen_jax": imagen_jax.__version__, "jax": jax.__version__},
    }
