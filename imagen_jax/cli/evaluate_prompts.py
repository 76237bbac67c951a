"""`imagen eval CASCADE --prompts FILE`: sample a benchmark's prompts and score the images."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from imagen_jax import config, extras
from imagen_jax.cli import evaluate, metric_options
from imagen_jax.cli.image_progress import image_progress
from imagen_jax.evaluate import prompt_file, protocols
from imagen_jax.evaluate.prompt_file import PromptColumns, PromptSet
from imagen_jax.io import removal

if TYPE_CHECKING:
    from imagen_jax import Imagen
    from imagen_jax.evaluate.benchmark import Result
    from imagen_jax.evaluate.protocols import Protocol
    from imagen_jax.evaluate.sample_folder import SampleFolder

SAMPLES, ONLY = "samples", "images"  # folder of images; name of a setting that is alone


class Plan(NamedTuple):
    """What the protocol says, after the options that come first."""

    options: evaluate.Options
    protocol: Protocol
    prompts: PromptSet  # those that are drawn
    metrics: tuple[str, ...]

    @property
    def texts(self) -> list[str]:
        """The prompt of each image."""
        return [p for p in self.prompts.prompts for _ in range(self.protocol.images_per_prompt)]

    @property
    def categories(self) -> list[str]:
        """The category of each image, or none."""
        each = self.protocol.images_per_prompt
        return [c for c in self.prompts.categories for _ in range(each)]


class Setting(NamedTuple):
    """One way to sample: images of it are compared with those of the others."""

    name: str
    folder: Path
    imagen: Imagen
    weight: float | None


def run(options: evaluate.Options) -> None:
    """Sample, score, write the page. Errors: ValueError that names what does not fit; OSError."""
    plan = _plan(options)
    from imagen_jax.evaluate import benchmark, benchmark_page, layouts, sample_folder
    from imagen_jax.io.atomic import check_names
    from imagen_jax.parallel import compilation_cache
    from imagen_jax.runtime import lease, preemption

    if plan.protocol.layout:
        layouts.check(plan.protocol.layout, plan.prompts, plan.protocol.images_per_prompt)
    compilation_cache.use_cache()
    settings = _settings(plan, evaluate.load_cascade(options))
    folders = (SAMPLES, preemption.UNFINISHED, *filter(None, [plan.protocol.layout]))
    check_names(options.out, files=benchmark_page.FILES, folders=folders)
    benchmark.check_prompts(plan.metrics, plan.texts, _side(plan, settings[0].imagen))
    unfinished = options.out / preemption.UNFINISHED
    with lease.hold(options.out, command="imagen eval", option="--out"):
        about = _about_sampling(plan, settings)
        targets = {
            s.name: sample_folder.SampleFolder(s.folder, plan.texts, about | _sampler_of(s))
            for s in settings
        }
        _sample(plan, settings, targets, unfinished)
        results, reference = _score(plan, settings, unfinished)
        document = about | _document(plan, settings, results) | {"reference": reference}
        title = f"{options.cascade}: {options.prompts}"
        page = benchmark_page.write(options.out, title, results, document)
        if plan.protocol.layout:
            files = targets[settings[0].name].files
            target = options.out / plan.protocol.layout
            each = plan.protocol.images_per_prompt
            layouts.write(plan.protocol.layout, target, plan.prompts, files, each)
        with contextlib.suppress(OSError):  # it holds what the output has, and only takes room
            removal.remove_folder(unfinished)
    _tell(plan, results, page)


def _plan(options: evaluate.Options) -> Plan:
    """Read the prompts, and fill in what the protocol says."""
    from imagen_jax.evaluate import benchmark
    from imagen_jax.metrics import score

    assert options.prompts is not None
    protocol = protocols.NO_PROTOCOL
    if options.protocol is not None:
        protocol = protocols.PROTOCOLS[options.protocol]
    given: dict[str, Any] = {
        "count": options.images,
        "images_per_prompt": options.images_per_prompt,
        "size": options.networks.size,
        "layout": options.layout,
    }
    protocol = dataclasses.replace(protocol, **{k: v for k, v in given.items() if v is not None})
    metrics = protocol.metrics
    if options.metrics is not None:
        known = benchmark.METRICS
        metrics = score.parse_metrics(options.metrics, known) if options.metrics else ()
    columns = PromptColumns(
        options.prompt_column or protocol.columns.prompt,
        options.category_column or protocol.columns.category,
    )
    prompts = prompt_file.read_prompts(options.prompts, columns)
    plan = Plan(options, protocol, prompts.draw(protocol.count, seed=options.seed), metrics)
    config.check_value(len(plan.texts), config.Images, "prompts times --images-per-prompt")
    metric_options.check(options.networks, metrics, compared=benchmark.COMPARED)
    _check(plan)
    return plan


def _check(plan: Plan) -> None:
    """Errors: ValueError for metrics without a reference, or for nothing to do."""
    for metric in plan.metrics:
        if metric not in ("clip", "shapes") and not plan.options.networks.reference:
            raise ValueError(f"{metric} compares with real images: give --reference")
    if not plan.metrics and plan.protocol.layout is None:
        raise ValueError(
            "nothing to score: give --metrics, a --protocol that has some, or --layout"
        )
    if len(plan.options.sweep or ()) > 1:
        extras.require("matplotlib", "imagen eval draws plots, which need")
        if plan.protocol.layout:
            raise ValueError("--sweep with --layout: a layout has images of one setting, give one")


def _settings(plan: Plan, imagen: Imagen) -> list[Setting]:
    folder = plan.options.out / SAMPLES
    if not plan.options.sweep:
        return [Setting(ONLY, folder, imagen, None)]
    base = imagen.stages[0].stage.name
    return [
        Setting(
            f"w = {weight:g}",
            folder / f"guidance-{weight:g}",
            imagen.with_sampler({"guidance_weight": weight}, stage=base),
            weight,
        )
        for weight in dict.fromkeys(plan.options.sweep)
    ]


def _side(plan: Plan, imagen: Imagen) -> int:
    """Pixels of the images that are scored."""
    return plan.protocol.size or imagen.stages[-1].stage.size


def _sample(
    plan: Plan,
    settings: Sequence[Setting],
    targets: dict[str, SampleFolder],
    unfinished: Path,
) -> None:
    from imagen_jax.evaluate import sample_folder

    total = len(plan.texts) * sum(len(setting.imagen.stages) for setting in settings)
    with image_progress(unfinished, "sampling", total=total) as progress:
        for setting in settings:
            sample_folder.sample(
                dataclasses.replace(setting.imagen, cache_dir=unfinished / "batches"),
                targets[setting.name],
                seed=plan.options.seed,
                batch_size=plan.options.batch_size,
                progress=progress,
            )


def _score(
    plan: Plan, settings: Sequence[Setting], unfinished: Path
) -> tuple[list[Result], Mapping[str, Any] | None]:
    """Score the images of all settings; also what is known of the reference."""
    from imagen_jax.evaluate import benchmark
    from imagen_jax.metrics import measure, parts

    networks = plan.options.networks
    reference = None
    if networks.reference:
        reference = measure.open_reference(networks.reference, networks.data_dir)
        if isinstance(reference, Path) and benchmark.RETRIEVAL in plan.metrics:
            raise ValueError(f"retrieval needs images, and {networks.reference} has statistics")
    loaded = metric_options.load(networks, plan.metrics)
    scorer = benchmark.Scorer(
        metrics=plan.metrics,
        prompts=plan.texts,
        categories=plan.categories,
        reference=reference,
        measurement=measure.Measurement(
            networks=loaded,
            size=plan.protocol.size,
            batch_size=plan.options.batch_size,
            keep_inception="precision-recall" in plan.metrics,
            unfinished=unfinished,
            progress=lambda *_: None,
        ),
    )
    with image_progress(
        unfinished, "scoring", total=scorer.count_images(len(settings)), kept=parts.KEPT
    ) as progress:
        measurement = dataclasses.replace(scorer.measurement, progress=progress)
        scorer = dataclasses.replace(scorer, measurement=measurement)
        compared = scorer.measure_reference()
        results = [
            dataclasses.replace(scorer.score(s.name, s.folder, compared), weight=s.weight)
            for s in settings
        ]
    return results, scorer.describe_reference(compared)


def _about_sampling(plan: Plan, settings: Sequence[Setting]) -> dict[str, Any]:
    """All that images depend on, but the sampler of a setting."""
    from imagen_jax.evaluate import benchmark

    imagen, options = settings[0].imagen, plan.options
    return {
        "cascade": {
            "address": str(options.cascade),
            "sha256": benchmark.weights_sha256(imagen),
            "stages": [
                {"name": s.stage.name, "size": s.stage.size, "step": step}
                for s, step in zip(imagen.stages, imagen.steps, strict=True)
            ],
            "text_encoder": imagen.encoder.identity,
            "lora": list(options.lora),
        },
        "prompts_sha256": plan.prompts.digest(),
        "images_per_prompt": plan.protocol.images_per_prompt,
        "seed": options.seed,
        "batch_size": options.batch_size,
    }


def _sampler_of(setting: Setting) -> dict[str, Any]:
    stages = [stage.stage for stage in setting.imagen.stages]
    levels = {s.name: s.noise_conditioning.sample_level for s in stages if s.is_super_resolution}
    samplers = {s.name: dataclasses.asdict(s.sampler) for s in stages}
    return {"samplers": samplers, "aug_levels": levels}


def _document(plan: Plan, settings: Sequence[Setting], results: Sequence[Result]) -> dict[str, Any]:
    import jax

    import imagen_jax
    from imagen_jax.io import image_grid

    counts = {c: plan.prompts.categories.count(c) for c in dict.fromkeys(plan.prompts.categories)}
    shown = [
        {"index": i, "prompt": prompt, "file": image_grid.file_name(i, prompt)}
        for i, prompt in enumerate(plan.texts[: plan.options.grid])
    ]
    return {
        "protocol": dataclasses.asdict(plan.protocol) | {"name": plan.options.protocol},
        "prompts": {
            "file": str(plan.options.prompts),
            "file_sha256": plan.prompts.sha256,
            "count": len(plan.prompts),
            "categories": counts,
            "shown": shown,
        },
        "settings": [
            {
                "name": result.name,
                "guidance_weight": setting.weight,
                "folder": str(setting.folder.relative_to(plan.options.out)),
                **_sampler_of(setting),
                "metrics": result.numbers,
                "by_category": result.by_category,
                "images": result.about,
                "warnings": result.warnings,
            }
            for setting, result in zip(settings, results, strict=True)
        ],
        "versions": {"imagen_jax": imagen_jax.__version__, "jax": jax.__version__},
    }


def _tell(plan: Plan, results: Sequence[Result], page: Path) -> None:
    for note in dict.fromkeys(note for result in results for note in result.warnings):
        warnings.warn(note, stacklevel=1)
    for result in results:
        if result.numbers:
            print(f"\n{result.name}")
        for name, number in result.numbers.items():
            print(f"{name:<18}{number:.6g}")
    print(f"\n{len(plan.texts):,} images; the page is {page}")
