"""`imagen sample CASCADE "prompt" ...`: paint pictures."""

import dataclasses
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from imagen_jax import config
from imagen_jax.cli import parsing, sample_inputs, sampler_overrides, stopping
from imagen_jax.cli import prompts as reading
from imagen_jax.cli.compile_profile import CompileProfile

if TYPE_CHECKING:
    from imagen_jax import Imagen, SamplingCallbacks
    from imagen_jax.cli.output import Output

USAGE = """Paint one picture per prompt with a trained cascade.

Writes a PNG each, grid.png with the first of them, and metadata.json. The same seed, index and
prompt paint the same picture, whatever else is painted beside it. An empty prompt ("") paints
without text.

Options of the sampler are for every stage, or for those named: --steps 64, --steps sr256=20 or
--steps 64,sr256=20. By default each stage has its own.
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
    """A text file with more prompts, one a line: UTF-8, or UTF-16 with a byte order mark."""
    per_prompt: config.Count = 1
    """Pictures of each prompt."""
    negative: str = ""
    """What guidance leads away from, instead of from no text."""
    out: Path = Path("samples")
    """Folder to write to."""
    seed: config.Seed = 0
    """Of the noise."""
    first_index: config.Whole = 0
    """Index of the first picture: with --seed and its prompt it says what is painted, so that
    picture 137 of a list is painted again alone by its prompt and --first-index 137."""

    start: str | None = None
    """Stage to begin with; it enlarges --low-res."""
    until: str | None = None
    """Stop after this stage."""
    low_res: Path | None = None
    """A picture to enlarge, as large as the memory allows, for every prompt, or a folder of them,
    one for each in order of their names; without prompts they are enlarged without text."""
    size: str | None = None
    """HEIGHTxWIDTH of the last stage's pictures, where not square."""
    picture: Path | None = None
    """Paint over this picture, or those of a folder, cut to the shape of the last stage's."""
    strength: config.Share = 1.0
    """How far from --picture: the share of the steps that are made; 0 gives it back."""
    mask: Path | None = None
    """A picture that is white where --picture shall be painted anew; the rest stays to the
    pixel."""
    repeats: config.Count = 1
    """With --mask: make every step so often, which fits the new to the old; 5 to 10 are usual."""

    guidance_weight: str | None = None
    """1 is off."""
    guidance_interval: str | None = None
    """LOW:HIGH in noise over signal (sigma / alpha): guide there alone, such as 0.2:5."""
    guidance_rescale: str | None = None
    """Share, 0 to 1, of the contrast that guidance added to take back."""
    steps: str | None = None
    """Sampling steps."""
    sampler: str | None = None
    """ancestral, ddim, dpmpp_2m or edm_heun."""
    spacing: str | None = None
    """Of the steps' noise levels: time, logsnr or karras."""
    threshold: str | None = None
    """none, static or dynamic."""
    percentile: str | None = None
    """Of dynamic thresholding, such as 99.5."""
    aug_level: str | None = None
    """Noise on the low-resolution input of super-resolution stages, 0 to 1."""
    batch_size: config.Count = 16
    """Pictures painted at once."""

    offload: bool = False
    """Hold one part at a time on the devices, text encoder or stage: slower, and it fits."""
    encoder: str = ""
    """Name or folder of the text encoder to use instead of the cascade's own."""
    previews: config.Whole = 0
    """Also save what the pictures are taken for every so many steps."""
    profile: bool = False
    """Print where the time went."""


def run(argv: list[str]) -> None:
    """Parse, load, paint, save."""
    profile = CompileProfile(time.perf_counter())
    options = _with_prompts(parsing.parse(Options, argv, prog="imagen sample", description=USAGE))
    changes = sampler_overrides.read_overrides(
        {name: getattr(options, name) for name in sampler_overrides.OPTIONS}
    )

    import imagen_jax
    from imagen_jax.cli.output import Output
    from imagen_jax.parallel import compilation_cache
    from imagen_jax.runtime import lease
    from imagen_jax.sample.overrides import check_used

    compilation_cache.use_cache()
    profile.listen()
    profile.ended("imports")
    cascade = imagen_jax.load(options.cascade, encoder=options.encoder, offload=options.offload)
    cascade = cascade.with_samplers(changes)
    stages = [painter.stage for painter in cascade.chosen(options.start, options.until)]
    check_used(stages, changes, flags=sampler_overrides.FLAGS)
    unfinished = options.out / stopping.UNFINISHED
    imagen = dataclasses.replace(cascade, unfinished=unfinished)
    metadata = _metadata(options, imagen, [stage.name for stage in stages])
    output = Output(
        options.out, options.prompts, first_index=options.first_index, metadata=metadata
    )
    profile.ended("loading")
    started = time.perf_counter()
    with lease.hold(options.out, command="imagen sample", option="--out"):
        _paint(imagen, options, profile, output)
        grid = output.finish()
        shutil.rmtree(unfinished, ignore_errors=True)
    profile.ended("saving")
    took = time.perf_counter() - started
    part = f", the first {output.shown:,}" if output.shown < len(options.prompts) else ""
    print(f"{len(options.prompts)} pictures in {options.out} ({took:.1f} s); see {grid}{part}")
    if options.profile:
        print(profile.table())


def _with_prompts(options: Options) -> Options:
    """With those of the file, and each as often as it is painted."""
    prompts = options.prompts
    if options.prompts_file is not None:
        prompts = (*prompts, *reading.read_prompts(options.prompts_file))
    reading.check(prompts, negative=options.negative)
    if not prompts and options.low_res is not None:
        prompts = ("",) * sample_inputs.count(options.low_res)
    if not prompts:
        raise ValueError('no prompts; give at least one: imagen sample CASCADE "a red circle"')
    repeated = tuple(prompt for prompt in prompts for _ in range(options.per_prompt))
    return dataclasses.replace(options, prompts=repeated)


def _paint(imagen: "Imagen", options: Options, profile: CompileProfile, output: "Output") -> None:
    """Paint with a bar, and write what is finished."""
    from tqdm import tqdm

    stages = [painter.stage for painter in imagen.chosen(options.start, options.until)]
    request = sample_inputs.make_request(options, stages, len(options.prompts))
    total = len(options.prompts) * len(stages)
    with (
        stopping.watch_between_batches(options.out / stopping.UNFINISHED) as check,
        tqdm(total=total, unit="picture", dynamic_ncols=True) as bar,
    ):

        def advance(stage: str, done: int) -> None:
            bar.set_description(stage)
            bar.update(done)
            profile.ended(stage)
            check()

        for samples in imagen.stream(
            options.prompts,
            seed=options.seed,
            until=options.until,
            request=request,
            batch_size=options.batch_size,
            following=_following(options, advance, output),
        ):
            output.write(samples.first_index, samples.images[stages[-1].name])
            profile.ended("saving")


def _following(options: Options, advance, output: "Output") -> "SamplingCallbacks":
    """Told of every batch and, with --previews, of pictures that are not finished."""
    import numpy as np

    import imagen_jax
    from imagen_jax.image import to_uint8

    def save(glimpse) -> None:
        shown = list(np.asarray(to_uint8(glimpse.images)))
        start = glimpse.start - options.first_index
        captions = options.prompts[start : start + len(shown)]
        name = f"{glimpse.stage}_{glimpse.start:04d}_{glimpse.step:04d}.png"
        output.preview(name, shown, captions)

    glimpse = save if options.previews else None
    return imagen_jax.SamplingCallbacks(progress=advance, every=options.previews, glimpse=glimpse)


def _metadata(options: Options, imagen: "Imagen", stages: list[str]) -> dict[str, object]:
    """Everything needed to paint the same pictures again."""
    import jax

    import imagen_jax

    wished = ("negative", "low_res", "size", "picture", "strength", "mask", "repeats")
    return {
        "cascade": options.cascade,
        "seed": options.seed,
        "first_index": options.first_index,
        "until": stages[-1],
        **{name: _plain(getattr(options, name)) for name in wished},
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


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else value
