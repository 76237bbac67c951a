"""`imagen sample CASCADE "prompt" ...`: generate images."""

import contextlib
import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from imagen_jax import config
from imagen_jax.cli import devices, lora_option, parsing, sample_inputs, sampler_overrides
from imagen_jax.cli import prompts as reading
from imagen_jax.cli.compile_profile import CompileProfile
from imagen_jax.cli.sampler_options import SamplerOptions
from imagen_jax.io import removal

if TYPE_CHECKING:
    from imagen_jax import Imagen, Preview, SamplingCallbacks
    from imagen_jax.cli.output import Output
    from imagen_jax.sample.progress import OnBatch

USAGE = """Generate one image per prompt with a trained cascade.

Writes a PNG each, grid.png with the first of them, and metadata.json. The same seed, index and
prompt give the same image, whatever else is sampled beside it. An empty prompt ("") samples
without text.

Options of the sampler are for every stage, or for those named: --steps 64, --steps sr256=20 or
--steps 64,sr256=20. By default each stage has its own.
"""
# Options of other names, by the one that they have here.
RENAMED = {
    "--negative": "--negative-prompt",
    "--per-prompt": "--images-per-prompt",
    "--picture": "--init-image",
    "--repeats": "--resample",
    "--start": "--first-stage",
    "--until": "--last-stage",
    "--encoder": "--text-encoder",
    "--previews": "--preview-every",
    # of diffusers
    "--guidance-scale": "--guidance-weight",
    "--num-inference-steps": "--steps",
    "--num-images-per-prompt": "--images-per-prompt",
    "--image": "--init-image",
    "--mask-image": "--mask",
    "--height": "--size HEIGHTxWIDTH",
    "--width": "--size HEIGHTxWIDTH",
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of `imagen sample`."""

    cascade: tyro.conf.Positional[str]
    """Folder of a run, of the runs of a cascade or of an exported one, or the name of an embedded
    cascade, such as shapes."""
    prompts: tyro.conf.Positional[tuple[str, ...]] = ()
    """Text prompts, one image each."""
    prompts_file: Path | None = None
    """Text file with more prompts, one a line: UTF-8, or UTF-16 with a byte order mark."""
    images_per_prompt: config.Images = 1
    """Number of images of each prompt."""
    negative_prompt: str = ""
    """Text that guidance leads away from, instead of from no text."""
    out: Path = Path("samples")
    """Folder to write to."""
    seed: config.Seed = 0
    """Random seed."""
    first_index: config.Whole = 0
    """Index of the first image. Image 137 of a list is sampled again by its prompt alone with
    --first-index 137, and the list's --seed."""

    first_stage: str | None = None
    """Stage to start with; it enlarges --low-res."""
    last_stage: str | None = None
    """Stage to stop after."""
    low_res: Path | None = None
    """Image to enlarge, as large as the memory allows, for every prompt, or a folder of them, one
    for each in order of their names; without prompts they are enlarged without text."""
    size: str | None = None
    """Size of the last stage's images, HEIGHTxWIDTH, where not square."""
    init_image: Path | None = None
    """Image to start from, or a folder of them, cut to the shape of the last stage's; beside
    --low-res, of its shape."""
    strength: config.Share = 1.0
    """Share of the steps to take from --init-image, 0 (returns it) to 1 (keeps nothing of it)."""
    mask: Path | None = None
    """Image that is white where --init-image is sampled again; other pixels stay exactly as they
    are."""
    resample: Annotated[int, config.Range(low=1, high=1000)] = 1
    """Times to repeat each step with --mask (RePaint), which blends new with old; 5 to 10 are
    typical."""

    sampler: Annotated[SamplerOptions, tyro.conf.arg(name="")] = SamplerOptions()
    batch_size: config.BatchSize = 16
    """Images sampled at once."""

    offload: bool = False
    """Hold one part at a time on the devices, text encoder or stage: slower, with less memory."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Dtype of the networks' products, in place of their configs'."""
    lora: tuple[str, ...] = ()
    """Adapters to merge into a stage, each with its weight if not 1: a file, a PEFT folder or the
    folder of a run that trained them, such as runs/crescent or style.safetensors=0.7."""
    text_encoder: str = ""
    """Name or folder of the text encoder to use instead of the cascade's own."""
    clean_caption: bool = False
    """Pass prompts through DeepFloyd IF's cleaner of captions, as diffusers does by default; needs
    `pip install 'imagen_jax[deepfloyd]'`."""
    text_encoder_dtype: Literal["float32", "bfloat16", "int8"] | None = None
    """Precision of the text encoder in place of the config's: int8 needs half of bfloat16's
    memory."""
    preview_every: config.Whole = 0
    """Number of steps between two saved previews, the current estimate of the images; 0 for
    none."""
    profile: bool = False
    """Print how the time was spent."""


def run(argv: list[str]) -> None:
    """Parse, load, sample, save."""
    profile = CompileProfile(time.perf_counter())
    parsing.refuse_renamed(argv, RENAMED)
    options = _with_prompts(parsing.parse(Options, argv, prog="imagen sample", description=USAGE))
    changes = sampler_overrides.read_overrides(vars(options.sampler))

    from imagen_jax.cli.output import Output
    from imagen_jax.parallel import compilation_cache
    from imagen_jax.runtime import lease, preemption
    from imagen_jax.sample.overrides import check_used

    compilation_cache.use_cache()
    profile.listen()
    profile.end_part("imports")
    cascade = _load(options).with_samplers(changes)
    stages = [s.stage for s in cascade.select_stages(options.first_stage, options.last_stage)]
    check_used(stages, changes, flags=sampler_overrides.FLAGS)
    unfinished = options.out / preemption.UNFINISHED
    imagen = dataclasses.replace(cascade, cache_dir=unfinished)
    metadata = _metadata(options, imagen, stages[-1].name)
    output = Output(
        options.out, options.prompts, first_index=options.first_index, metadata=metadata
    )
    devices.report_devices()
    profile.end_part("loading")
    started = time.perf_counter()
    with lease.hold(options.out, command="imagen sample", option="--out"):
        _sample(imagen, options, profile, output)
        grid = output.finish()
        with contextlib.suppress(OSError):  # it holds what the output has, and only takes room
            removal.remove_folder(unfinished)
    profile.end_part("saving")
    took, count = time.perf_counter() - started, len(options.prompts)
    part = f", the first {output.shown:,}" if output.shown < count else ""
    images = "1 image" if count == 1 else f"{count} images"
    print(f"{images} in {options.out} ({took:.1f} s); see {grid}{part}")
    if options.profile:
        print(profile.table())


def _load(options: Options) -> "Imagen":
    import imagen_jax

    cascade = imagen_jax.load(
        options.cascade,
        text_encoder=options.text_encoder,
        dtype=options.dtype,
        text_encoder_dtype=options.text_encoder_dtype,
        offload=options.offload,
    )
    if options.clean_caption:
        cascade = cascade.with_caption_cleaner()
    return lora_option.with_adapters(cascade, options.lora)


def _with_prompts(options: Options) -> Options:
    """With those of the file, and each as often as it is sampled."""
    prompts = options.prompts
    if options.prompts_file is not None:
        prompts = (*prompts, *reading.read_prompts(options.prompts_file))
    reading.check(prompts, negative_prompt=options.negative_prompt)
    if not prompts and options.low_res is not None:
        prompts = ("",) * sample_inputs.count(options.low_res)
    if not prompts:
        raise ValueError('no prompts; give at least one: imagen sample CASCADE "a red circle"')
    config.check_value(
        len(prompts) * options.images_per_prompt,
        config.Images,
        "the number of prompts times --images-per-prompt",
    )
    repeated = tuple(prompt for prompt in prompts for _ in range(options.images_per_prompt))
    return dataclasses.replace(options, prompts=repeated)


def _sample(imagen: "Imagen", options: Options, profile: CompileProfile, output: "Output") -> None:
    """Sample with a progress bar, and write what is finished."""
    from imagen_jax.parallel import distributed
    from imagen_jax.runtime import preemption

    stages = [s.stage for s in imagen.select_stages(options.first_stage, options.last_stage)]
    request = sample_inputs.make_request(options, stages, len(options.prompts))
    unfinished, server = options.out / preemption.UNFINISHED, distributed.metadata_server()
    with preemption.watch_between_batches(unfinished, server) as check:

        def on_batch(stage: str, done: int) -> None:
            profile.end_part(stage)
            check()

        for samples in imagen.stream(
            options.prompts,
            seed=options.seed,
            batch_size=options.batch_size,
            request=request,
            callbacks=_callbacks(options, on_batch, output),
            progress=True,
        ):
            output.write(samples.first_index, samples[stages[-1].name])
            profile.end_part("saving")


def _callbacks(options: Options, on_batch: "OnBatch", output: "Output") -> "SamplingCallbacks":
    """Those of every batch and, with --preview-every, of images that are not finished."""
    import numpy as np

    import imagen_jax
    from imagen_jax.image import to_uint8

    def save(preview: "Preview") -> None:
        shown = list(np.asarray(to_uint8(preview.images)))
        start = preview.first_index - options.first_index
        captions = options.prompts[start : start + len(shown)]
        name = f"{preview.stage}_{preview.first_index:04d}_{preview.step:04d}.png"
        output.preview(name, shown, captions)

    return imagen_jax.SamplingCallbacks(
        on_batch=on_batch,
        preview_every=options.preview_every,
        on_preview=save if options.preview_every else None,
    )


def _metadata(options: Options, imagen: "Imagen", last_stage: str) -> dict[str, object]:
    """Everything needed to sample the same images again."""
    from imagen_jax.sample.description import describe_cascade

    given = (
        "lora",
        "negative_prompt",
        "low_res",
        "size",
        "init_image",
        "strength",
        "mask",
        "resample",
    )
    precision = ("dtype", "text_encoder_dtype", "clean_caption")
    return {
        "cascade": options.cascade,
        "seed": options.seed,
        "first_index": options.first_index,
        "last_stage": last_stage,
        **{name: _plain(getattr(options, name)) for name in (*given, *precision)},
        **describe_cascade(
            imagen.select_stages(options.first_stage, options.last_stage),
            imagen.stage_steps(),
            imagen.encoder.identity,
        ),
    }


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else value
